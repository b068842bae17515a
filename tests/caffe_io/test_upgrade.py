"""Old nets and solvers are upgraded as by Caffe."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from ristretto_cli.caffe_io.messages import message_class, new
from ristretto_cli.caffe_io.prototxt import parse, to_text
from ristretto_cli.caffe_io.upgrade import upgrade, upgrade_net, upgrade_solver
from ristretto_cli.caffe_io.upgrade_v1 import SOLVER_TYPES
from ristretto_cli.errors import Location, RistrettoError


def net(text: str) -> Any:
    return parse(text, "NetParameter", "f").message


def upgraded(text: str) -> str:
    return to_text(upgrade(net(text)).message)


def canonical(text: str) -> str:
    return to_text(net(text))


# V0


def test_v0_convolution() -> None:
    old = (
        'input: "a" layers { layer { name: "c" type: "conv" num_output: 4 biasterm: false kernelsize: 3'
        " pad: 1 stride: 2 group: 2 weight_filler { std: 0.1 } blobs_lr: 1 blobs_lr: 2 weight_decay: 3 }"
        ' bottom: "a" top: "b" }'
    )
    assert upgraded(old) == canonical(
        'layer { name: "c" type: "Convolution" bottom: "a" top: "b"'
        " param { lr_mult: 1 decay_mult: 3 } param { lr_mult: 2 }"
        " convolution_param { num_output: 4 bias_term: false kernel_size: 3 pad: 1 stride: 2 group: 2"
        " weight_filler { std: 0.1 } } }"
    )


def test_v0_data_settings_go_to_transform_param() -> None:
    old = (
        'layers { layer { name: "d" type: "data" source: "db" batchsize: 8 scale: 0.5 meanfile: "m"'
        " cropsize: 9 mirror: true rand_skip: 3 } }"
    )
    assert upgraded(old) == canonical(
        'layer { name: "d" type: "Data" data_param { source: "db" batch_size: 8 rand_skip: 3 }'
        ' transform_param { scale: 0.5 mean_file: "m" crop_size: 9 mirror: true } }'
    )


@pytest.mark.parametrize(
    ("old", "new_type"),
    [
        ("innerproduct", "InnerProduct"),
        ("pool", "Pooling"),
        ("images", "ImageData"),
        ("softmax_loss", "SoftmaxWithLoss"),
    ],
)
def test_v0_types(old: str, new_type: str) -> None:
    assert upgrade(net(f'layers {{ layer {{ type: "{old}" }} }}')).message.layer[0].type == new_type


def test_v0_padding_goes_to_the_layer_after_it() -> None:
    old = (
        'input: "x" layers { layer { name: "pad" type: "padding" pad: 2 } bottom: "x" top: "p" }'
        ' layers { layer { name: "c" type: "conv" } bottom: "p" top: "c" }'
    )
    places = [Location("f", 1), Location("f", 2)]
    message, layers = upgrade_net(net(old), places)
    assert to_text(message) == canonical(
        'layer { name: "c" type: "Convolution" bottom: "x" top: "c" convolution_param { pad: 2 } }'
    )
    assert layers == (places[1],)


@pytest.mark.parametrize(
    ("layer", "reported"),
    [
        ('layer { type: "relu" } bottom: "p"', "cannot have a padding layer"),
        ('layer { type: "conv" } bottom: "p" bottom: "x"', "a single bottom"),
        ('layer { type: "conv" } bottom: "q"', 'unknown bottom "q"'),
        ('layer { type: "conf" } bottom: "x"', 'unknown layer type "conf". Did you mean conv?'),
    ],
)
def test_wrong_v0_nets_are_reported_with_their_place(layer: str, reported: str) -> None:
    old = f'input: "x" layers {{ layer {{ type: "padding" }} bottom: "x" top: "p" }} layers {{ {layer} }}'
    with pytest.raises(RistrettoError) as caught:
        upgrade_net(net(old), [Location("f", 1), Location("f", 2)])
    assert str(caught.value).startswith("f:2: ")
    assert reported in str(caught.value)


def test_v0_fields_that_a_type_has_not_are_dropped_and_reported(caplog: pytest.LogCaptureFixture) -> None:
    result = upgrade(net('layers { layer { name: "r" type: "relu" num_output: 3 shuffle_images: true } }'), file="f")
    assert to_text(result.message) == canonical('layer { name: "r" type: "ReLU" }')
    assert not result.complete
    reported = [record.getMessage() for record in caplog.records if record.levelno == logging.ERROR]
    assert reported[:2] == [
        "f: Unknown parameter num_output for layer type relu",
        "f: Unknown parameter shuffle_images for layer type relu",
    ]


def test_v0_loses_what_caffe_loses_but_says_so(caplog: pytest.LogCaptureFixture) -> None:
    old = 'name: "n" debug_info: true force_backward: true layers { layer { type: "relu" } top: "a" loss_weight: 2 }'
    assert upgraded(old) == canonical('name: "n" force_backward: true layer { type: "ReLU" top: "a" }')
    assert "debug_info" in caplog.text
    assert "loss_weight" in caplog.text


# V1


def test_v1_parameters_become_param_blocks() -> None:
    old = (
        'layers { name: "ip" type: INNER_PRODUCT param: "w" blobs_lr: 1 blobs_lr: 2 weight_decay: 0'
        " blob_share_mode: PERMISSIVE loss_weight: 0.5 include { phase: TEST } }"
    )
    assert upgraded(old) == canonical(
        'layer { name: "ip" type: "InnerProduct"'
        ' param { name: "w" share_mode: PERMISSIVE lr_mult: 1 decay_mult: 0 }'
        " param { lr_mult: 2 } loss_weight: 0.5 include { phase: TEST } }"
    )


def test_every_v1_type_and_field_has_a_present_one() -> None:
    """All that a V1 layer can say is found again after the upgrade."""
    v1 = message_class("V1LayerParameter").DESCRIPTOR
    for value in v1.fields_by_name["type"].enum_type.values:
        kind = upgrade(new("NetParameter", layers=[new("V1LayerParameter", type=value.number)])).message.layer[0].type
        assert (kind == "") == (value.name == "NONE")
        assert kind.lower().replace("withloss", "loss") == value.name.lower().replace("_", "").replace("none", "")
    for field in v1.fields:
        if field.name.endswith("_param"):
            layer = new("V1LayerParameter")
            getattr(layer, field.name).SetInParent()
            assert upgrade(new("NetParameter", layers=[layer])).message.layer[0].HasField(field.name)


def test_v1_blobs_are_kept() -> None:
    result = upgrade(net('layers { name: "a" blobs { num: 1 data: 3 } }')).message
    assert list(result.layer[0].blobs[0].data) == [3]


def test_v1_data_settings_go_to_transform_param() -> None:
    old = "layers { type: WINDOW_DATA window_data_param { scale: 0.5 mirror: false } transform_param { scale: 7 } }"
    assert upgraded(old) == canonical(
        'layer { type: "WindowData" window_data_param { } transform_param { scale: 0.5 mirror: false } }'
    )


def test_v1_settings_of_other_types_stay() -> None:
    assert upgraded("layers { type: RELU data_param { scale: 2 } }") == canonical(
        'layer { type: "ReLU" data_param { scale: 2 } }'
    )


def test_both_formats_in_one_net_are_refused() -> None:
    with pytest.raises(RistrettoError, match=r"^f:7: the net has both `layer` .* and `layers`"):
        upgrade(net("layer { } layers { type: RELU }"), [Location("f", 7)])


# inputs


def test_inputs_with_input_dim_become_a_layer_in_front() -> None:
    old = 'input: "a" input: "b" input_dim: [1, 2, 3, 4, 5, 6, 7, 8] layer { name: "r" }'
    message, layers = upgrade_net(net(old), [Location("f", 9)], input_line=Location("f", 2))
    assert to_text(message) == canonical(
        'layer { name: "input" type: "Input" top: "a" top: "b"'
        ' input_param { shape { dim: [1, 2, 3, 4] } shape { dim: [5, 6, 7, 8] } } } layer { name: "r" }'
    )
    assert layers == (Location("f", 2), Location("f", 9))


def test_inputs_with_input_shape_keep_any_number_of_axes() -> None:
    old = 'input: "a" input_shape { dim: 5 } input_dim: 1 layer { }'
    assert upgraded(old) == canonical(
        'layer { name: "input" type: "Input" top: "a" input_param { shape { dim: 5 } } } layer { }'
    )


def test_inputs_without_a_shape_are_dropped() -> None:
    assert upgraded('input: "a" layer { name: "r" }') == canonical('layer { name: "r" }')


@pytest.mark.parametrize("dims", ["input_dim: [1, 2, 3]", "input_dim: [1, 2, 3, 4]", "input_shape { dim: 1 }"])
def test_too_few_shapes_are_reported(dims: str) -> None:
    with pytest.raises(RistrettoError, match=r"^f:3: "):
        upgrade(net(f'input: "a" input: "b" {dims} layer {{ }}'), [Location("f", 5)], input_line=Location("f", 3))


# batch norm, data


def test_only_batch_norms_with_three_param_blocks_are_changed() -> None:
    old = (
        'layer { type: "BatchNorm" param { lr_mult: 1 name: "m" } param { } param { decay_mult: 2 } }'
        ' layer { type: "BatchNorm" param { lr_mult: 1 } }'
        ' layer { type: "Scale" param { } param { } param { } }'
    )
    zero = "lr_mult: 0 decay_mult: 0"
    assert upgraded(old) == canonical(
        f'layer {{ type: "BatchNorm" param {{ {zero} name: "m" }} param {{ {zero} }} param {{ {zero} }} }}'
        ' layer { type: "BatchNorm" param { lr_mult: 1 } }'
        ' layer { type: "Scale" param { } param { } param { } }'
    )


@pytest.mark.parametrize(
    ("kind", "param", "reported"),
    [
        ("Data", "data_param { scale: 0.1 crop_size: 3 }", "scale, crop_size in data_param has no effect"),
        ("ImageData", "image_data_param { mirror: true }", "mirror in image_data_param has no effect"),
        ("WindowData", "window_data_param { scale: 2 mean_file: 'm' }", ": mean_file in window_data_param"),
        ("Data", "data_param { source: 's' }", ""),
        ("ReLU", "data_param { scale: 2 }", ""),
    ],
)
def test_settings_without_effect_are_warned_of(
    kind: str, param: str, reported: str, caplog: pytest.LogCaptureFixture
) -> None:
    text = f'layer {{ name: "d" type: "{kind}" {param} }}'
    assert to_text(upgrade(net(text), [Location("f", 4)]).message) == canonical(text)
    warnings = [record.getMessage() for record in caplog.records]
    assert len(warnings) == (reported != "")
    assert reported in "".join(warnings)
    assert all(warning.startswith('f:4: layer "d": ') for warning in warnings)


def test_a_present_net_is_copied_as_it_is(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    before = net('name: "n" layer { name: "r" type: "ReLU" }')
    result = upgrade(before)
    assert result.message == before
    assert result.message is not before
    assert result.complete
    assert caplog.records == []


def test_upgrades_are_logged_as_in_caffe(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    upgrade(net("layers { type: RELU }"), file="net.prototxt")
    assert [record.getMessage() for record in caplog.records] == [
        "Attempting to upgrade input file specified using deprecated V1LayerParameter: net.prototxt",
        "Successfully upgraded file specified using deprecated V1LayerParameter",
    ]


# solvers


@pytest.mark.parametrize(
    ("old", "kind"),
    [
        ("SGD", "SGD"),
        ("NESTEROV", "Nesterov"),
        ("ADAGRAD", "AdaGrad"),
        ("RMSPROP", "RMSProp"),
        ("ADADELTA", "AdaDelta"),
        ("ADAM", "Adam"),
    ],
)
def test_solver_types_become_words(old: str, kind: str) -> None:
    solver = upgrade_solver(parse(f"base_lr: 1 solver_type: {old}", "SolverParameter", "f").message)
    assert to_text(solver) == f'base_lr: 1\ntype: "{kind}"\n'
    assert len(SOLVER_TYPES) == 6


def test_a_solver_of_today_stays_as_it_is() -> None:
    assert to_text(upgrade_solver(new("SolverParameter", type="Adam"))) == 'type: "Adam"\n'


def test_both_types_of_solver_are_refused() -> None:
    with pytest.raises(RistrettoError, match=r"^s: the solver has both solver_type and type"):
        upgrade_solver(new("SolverParameter", type="Adam", solver_type=5), file="s")
