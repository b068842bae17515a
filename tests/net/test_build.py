"""From a prototxt to a Net: which layers, how they connect, and what is refused."""

import json
import os
from pathlib import Path

import pytest

from ristretto_cli.caffe_io.messages import TEST, TRAIN, enum_value
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.build import NetState, included

SHARED = Path(os.environ.get("RISTRETTO_SHARED", Path(__file__).parents[3] / "shared"))

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 } } }\n'
LABEL = 'layer { name: "labels" type: "Input" top: "l" input_param { shape { dim: 1 } } }\n'


def power(name, bottom, top, more=""):
    return f'layer {{ name: "{name}" type: "Power" bottom: "{bottom}" top: "{top}" {more} }}\n'


def fc(name, bottom, top, outputs=2, more=""):
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{top}" {more} '
        f"inner_product_param {{ num_output: {outputs} }} }}\n"
    )


def dummy(name, rules):
    return (
        f'layer {{ name: "{name}" type: "DummyData" top: "{name}" {rules} dummy_data_param {{ shape {{ dim: 1 }} }} }}'
    )


# -- which layers --------------------------------------------------------------------------------------------


def kept(nets, rules, **state):
    """Whether a layer with these rules is in the net of a state."""
    net = nets.build(f"{dummy('always', '')}\n{dummy('maybe', rules)}", **state)
    return [layer.name for layer in net.layers] == ["always", "maybe"]


@pytest.mark.parametrize(
    ("rules", "state", "expected"),
    [
        ("", {}, True),
        ("include { phase: TEST }", {"phase": TEST}, True),
        ("include { phase: TEST }", {"phase": TRAIN}, False),
        ("exclude { phase: TEST }", {"phase": TEST}, False),
        ("exclude { phase: TEST }", {"phase": TRAIN}, True),
        ("include { }", {}, True),
        ("exclude { }", {}, False),
        ("include { min_level: 0 }", {"level": 0}, True),
        ("include { min_level: 0 }", {"level": -1}, False),
        ("include { max_level: 0 }", {"level": 0}, True),
        ("include { max_level: 0 }", {"level": 1}, False),
        ('include { stage: "a" }', {"stages": ()}, False),
        ('include { stage: "a" stage: "b" }', {"stages": ("a",)}, False),
        ('include { stage: "a" stage: "b" }', {"stages": ("b", "a", "c")}, True),
        ('include { stage: "a" } include { stage: "b" }', {"stages": ("b",)}, True),
        ('include { not_stage: "a" }', {"stages": ("a",)}, False),
        ('exclude { stage: "a" } exclude { stage: "b" }', {"stages": ("b",)}, False),
        ('include { phase: TEST stage: "a" }', {"phase": TEST, "stages": ()}, False),
    ],
)
def test_rules_decide_which_layers_are_in_the_net(nets, rules, state, expected):
    assert kept(nets, rules, **state) is expected


def test_the_files_stages_join_those_of_the_call_and_its_phase_and_level_do_not_count(nets):
    text = 'state { phase: TRAIN level: 7 stage: "infile" }\n'
    text += dummy("both", 'include { stage: "infile" stage: "call" }')
    text += dummy("train", "include { phase: TRAIN }") + dummy("level", "include { min_level: 7 }")
    assert [layer.name for layer in nets.build(text, stages=("call",)).layers] == ["both"]


def test_all_layers_with_rules_of_both_kinds_are_reported(nets):
    text = "\n".join(dummy(name, "include { phase: TRAIN } exclude { }") for name in "ab")
    assert nets.refusals(text) == [
        'net:1: layer "a" has both include and exclude rules. Use only one of them.',
        'net:2: layer "b" has both include and exclude rules. Use only one of them.',
    ]


def test_a_net_without_layers_in_a_state_is_refused(nets):
    (says,) = nets.refusals(dummy("a", "include { phase: TRAIN }"), TEST)
    assert says.startswith("net: ")
    assert "no layers" in says
    assert "TEST" in says


def test_layers_that_are_not_in_the_net_are_not_checked(nets):
    odd = 'layer { name: "odd" type: "Nonsense" bottom: "nowhere" top: "x" include { phase: TRAIN } }\n'
    assert [layer.name for layer in nets.build(INPUT + odd).layers] == ["in"]


def recorded_states():
    cases = sorted((SHARED / "golden" / "io").glob("state_*"))
    for case in cases:
        for i, expected in enumerate(json.loads((case / "expected.json").read_text())):
            yield pytest.param(case, expected, id=f"{case.name}-{i}")
    if not cases:
        yield pytest.param(None, {}, marks=pytest.mark.skip(f"no recorded cases in {SHARED}"))


@pytest.mark.parametrize(("case", "expected"), list(recorded_states()))
def test_the_layers_of_a_state_are_those_of_the_original(case, expected):
    state = NetState(enum_value("Phase", expected["phase"]), expected["level"], tuple(expected["stages"]))
    names = [message.name for message, _ in included(read_net(case / "net.prototxt"), state)]
    assert names == expected["layers"]


# -- how they connect ----------------------------------------------------------------------------------------


def test_shapes_flow_from_the_inputs_on(nets):
    net = nets.build(INPUT + fc("a", "x", "h", 3) + fc("b", "h", "y", 5))
    assert [(top.name, top.shape) for layer in net.layers for top in layer.tops] == [
        ("x", (1, 4)),
        ("h", (1, 3)),
        ("y", (1, 5)),
    ]
    assert [(p.key, p.shape) for layer in net.layers for p in layer.params] == [
        ("a/0", (3, 4)),
        ("a/1", (3,)),
        ("b/0", (5, 3)),
        ("b/1", (5,)),
    ]
    assert net.layers[2].bottoms == net.layers[1].tops


def test_a_net_knows_its_name_phase_file_and_the_lines_of_its_layers(nets, tmp_path):
    net = nets.build(f'name: "tiny"\n{INPUT}{power("p", "x", "y")}', TRAIN)
    assert (net.name, net.phase, net.file) == ("tiny", TRAIN, str(tmp_path / "net.prototxt"))
    assert [layer.where.line for layer in net.layers] == [2, 3]
    assert dict(net.weights) == {}


def test_inputs_are_the_tops_of_data_layers_in_order(nets):
    net = nets.build(LABEL + INPUT + power("p", "x", "y"))
    assert [blob.name for blob in net.inputs] == ["l", "x"]
    assert [layer.is_source for layer in net.layers] == [True, True, False]


def test_outputs_are_what_no_layer_reads_sorted_by_name(nets):
    net = nets.build(INPUT + LABEL + power("a", "x", "zeta") + power("b", "x", "Beta") + power("c", "x", "alpha"))
    assert [blob.name for blob in net.outputs] == ["Beta", "alpha", "l", "zeta"]


def test_a_blob_that_silence_reads_is_no_output(nets):
    net = nets.build(INPUT + LABEL + 'layer { name: "s" type: "Silence" bottom: "l" }')
    assert [blob.name for blob in net.outputs] == ["x"]


def test_a_blob_changed_in_place_at_last_is_an_output(nets):
    net = nets.build(INPUT + power("p", "x", "y") + power("q", "y", "y"))
    assert [blob.name for blob in net.outputs] == ["y"]


def test_a_layer_in_place_writes_the_memory_it_reads(nets):
    net = nets.build(INPUT + power("p", "x", "y") + power("q", "y", "y") + power("r", "y", "z"))
    x, y, again, z = (layer.tops[0].storage for layer in net.layers)
    assert y == again
    assert len({x, y, z}) == 3
    assert net.layers[3].bottoms[0].storage == y


@pytest.mark.parametrize(
    ("alias", "tops"),
    [
        ('type: "Split" top: "f" top: "g"', 2),
        ('type: "Flatten" top: "f"', 1),
        ('type: "Reshape" top: "f" reshape_param { shape { dim: 4 } }', 1),
        ('type: "Concat" top: "f"', 1),
        ('type: "Slice" top: "f"', 1),
    ],
)
def test_aliases_name_their_bottoms_memory(nets, alias, tops):
    net = nets.build(f'{INPUT}layer {{ name: "a" bottom: "x" {alias} }}')
    assert [top.storage for top in net.layers[1].tops] == [net.layers[0].tops[0].storage] * tops


@pytest.mark.parametrize(
    "copy",
    [
        'type: "Concat" top: "f" bottom: "x"',
        'type: "Slice" top: "f" top: "g"',
        'type: "Dropout" top: "f"',
        'type: "ReLU" top: "f"',
    ],
)
def test_copies_have_memory_of_their_own(nets, copy):
    net = nets.build(f'{INPUT}layer {{ name: "a" bottom: "x" {copy} }}')
    storages = [top.storage for layer in net.layers for top in layer.tops]
    assert len(set(storages)) == len(storages)


def test_the_phase_is_the_nets_unless_a_layer_has_its_own(nets):
    net = nets.build(INPUT + power("p", "x", "y") + power("q", "x", "z", "phase: TRAIN"), TEST)
    assert [layer.phase for layer in net.layers] == [TEST, TEST, TRAIN]


def test_the_first_top_of_a_loss_counts_once_and_other_tops_as_they_say(nets):
    loss = 'layer { name: "loss" type: "SoftmaxWithLoss" bottom: "x" bottom: "l" top: "loss" %s }\n'
    net = nets.build(INPUT + LABEL + power("p", "x", "y", "loss_weight: 0.25") + loss % "")
    assert [layer.loss_weights for layer in net.layers] == [(0,), (0,), (0.25,), (1,)]
    assert nets.build(INPUT + LABEL + loss % "loss_weight: 0").layers[2].loss_weights == (0,)


def test_a_layer_without_a_name_is_fine(nets):
    text = INPUT.replace('name: "in" ', "") + 'layer { type: "ReLU" bottom: "x" top: "y" }'
    assert [layer.name for layer in nets.build(text).layers] == ["", ""]


# -- shared parameters ---------------------------------------------------------------------------------------


def test_parameters_of_one_name_belong_to_the_first_layer(nets):
    net = nets.build(INPUT + fc("a", "x", "y", 3, 'param { name: "w" }') + fc("b", "x", "z", 3, 'param { name: "w" }'))
    assert [param.key for param in net.layers[2].params] == ["a/0", "b/1"]
    assert net.layers[2].params[0].filler == net.layers[1].params[0].filler


def test_shared_parameters_of_different_shapes_are_refused(nets):
    text = INPUT + fc("a", "x", "y", 3, 'param { name: "w" }') + fc("b", "x", "z", 2, 'param { name: "w" }')
    assert nets.refusals(text) == [
        'net:3: layer "b" (InnerProduct): parameter "w" has shape 3x4 in layer "a" and 2x4 here'
    ]


def test_permissive_sharing_takes_as_many_values_in_another_shape(nets):
    transposed = fc("b", "x", "z", 2, 'param { name: "w" share_mode: PERMISSIVE }').replace(
        "num_output: 2", "num_output: 2 transpose: true"
    )
    net = nets.build(INPUT + fc("a", "x", "y", 2, 'param { name: "w" }') + transposed)
    assert [layer.params[0].shape for layer in net.layers[1:]] == [(2, 4), (4, 2)]
    assert net.layers[2].params[0].key == "a/0"
    (says,) = nets.refusals(INPUT + fc("a", "x", "y", 3, 'param { name: "w" }') + transposed)
    assert "has shape 3x4 in layer" in says
    (says,) = nets.refusals(
        INPUT + fc("a", "x", "y", 2, 'param { name: "w" }') + transposed.replace("PERMISSIVE", "STRICT")
    )
    assert "has shape 2x4 in layer" in says


@pytest.mark.parametrize("field", ["lr_mult", "decay_mult"])
def test_shared_parameters_must_agree_on_their_multipliers(nets, field):
    first = fc("a", "x", "y", 2, f'param {{ name: "w" {field}: 1 }}')
    unsaid = fc("b", "x", "z", 2, 'param { name: "w" }')
    same = fc("b", "x", "z", 2, f'param {{ name: "w" {field}: 1 }}')
    other = fc("b", "x", "z", 2, f'param {{ name: "w" {field}: 2 }}')
    nets.build(INPUT + first + unsaid)
    nets.build(INPUT + first + same)
    assert nets.refusals(INPUT + first + other) == [
        f'net:3: layer "b" (InnerProduct): shared parameter "w" has {field} 2 here and 1 in another layer. '
        "Set both to the same value, or set only one."
    ]


# -- what is refused -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            power("p", "xx", "y"),
            'net:2: layer "p" (Power): no layer produces its bottom "xx". Did you mean x?',
        ),
        (
            power("p", "data_1", "y") + power("q", "x", "data1"),
            'net:2: layer "p" (Power): no layer produces its bottom "data_1". Blobs so far: x.',
        ),
        (
            power("a", "x", "pool1") + power("p", "pol1", "y"),
            'net:3: layer "p" (Power): no layer produces its bottom "pol1". Did you mean pool1?',
        ),
        (
            power("p", "z", "y") + power("q", "x", "z"),
            'net:2: layer "p" (Power): its bottom "z" is produced only later, by layer "q" (net:3). '
            "Move that layer up; a net has no cycles.",
        ),
        (
            'layer { name: "p" type: "ReLu" bottom: "x" top: "y" }',
            'net:2: layer "p" (ReLu): unknown layer type "ReLu". Did you mean ReLU?',
        ),
        (
            'layer { name: "p" type: "Inputs" top: "y" }',
            'net:2: layer "p" (Inputs): unknown layer type "Inputs". Did you mean Input?',
        ),
        (
            'layer { name: "p" bottom: "x" top: "y" }',
            'net:2: layer "p": it has no type. Add type: "...".',
        ),
        (
            power("p", "x", "y") + power("q", "x", "y"),
            'net:3: layer "q" (Power): its top "y" is also produced by another layer. Rename one of them.',
        ),
        (
            'layer { name: "p" type: "Split" bottom: "x" top: "y" top: "y" }',
            'net:2: layer "p" (Split): its top "y" is also produced by another layer. Rename one of them.',
        ),
        (
            'layer { name: "p" type: "Input" bottom: "x" top: "y" input_param { shape { dim: 1 } } }',
            'net:2: layer "p" (Input): a data layer has no bottoms',
        ),
        (
            'layer { name: "p" type: "Eltwise" bottom: "x" top: "y" }',
            'net:2: layer "p" (Eltwise): expected 2 or more bottoms, got 1',
        ),
        (
            'layer { name: "p" type: "ReLU" bottom: "x" bottom: "x" top: "y" }',
            'net:2: layer "p" (ReLU): expected 1 bottom, got 2',
        ),
        (
            'layer { name: "p" type: "ReLU" bottom: "x" }',
            'net:2: layer "p" (ReLU): expected 1 top, got 0',
        ),
        (
            'layer { name: "p" type: "Bias" top: "y" }',
            'net:2: layer "p" (Bias): expected 1 to 2 bottoms, got 0',
        ),
        (
            fc("p", "x", "x"),
            'net:2: layer "p" (InnerProduct): in-place computation is not supported. '
            "Use different names for top and bottom.",
        ),
        (
            power("p", "x", "y", "propagate_down: true propagate_down: false"),
            'net:2: layer "p" (Power): it has 2 propagate_down values but 1 bottoms',
        ),
        (
            power("p", "x", "y", "loss_weight: 1 loss_weight: 2"),
            'net:2: layer "p" (Power): it has 2 loss_weights but 1 tops',
        ),
        (
            fc("p", "x", "y", 2, "param { } param { } param { }"),
            'net:2: layer "p" (InnerProduct): it has 3 param blocks but 2 parameters',
        ),
        (
            fc("p", "x", "y") + fc("p", "x", "z"),
            'net:3: layer "p" (InnerProduct): net:2 has a layer of the same name. '
            "Weights are matched by name: use unique names.",
        ),
        (
            fc("p", "x", "y", 0),
            'net:2: layer "p" (InnerProduct): num_output is missing. Set the number of outputs, 1 or more.',
        ),
        (
            power("p", "x", "y") + power("q", "y", "y") + power("r", "y", "z") + power("s", "x", "x"),
            'net:5: layer "s" works in place on "x", which layer "p" also reads. Rename the top of the in-place layer.',
        ),
        (
            'layer { name: "p" type: "Input" top: "y" }',
            'net:2: layer "p" (Input): input_param.shape is not set. Add input_param { shape { dim: 1 ... } }.',
        ),
        (
            'layer { name: "p" type: "FcRistretto" bottom: "x" top: "y" inner_product_param { num_output: 1 } '
            "quantization_param { bw_params: 0 } }",
            'net:2: layer "p" (FcRistretto): a width of 0 bits is out of range. Use 1 to 128.',
        ),
    ],
)
def test_wrong_wiring_is_reported_with_line_and_layer(nets, text, says):
    assert nets.refusals(INPUT + text) == [says]


def test_the_same_name_is_fine_for_layers_without_parameters_and_in_other_phases(nets):
    nets.build(INPUT + power("p", "x", "y") + power("p", "x", "z"))
    nets.build(
        INPUT + fc("p", "x", "y", 2, "include { phase: TRAIN }") + fc("p", "x", "y", 2, "include { phase: TEST }")
    )


def test_a_layer_may_work_in_place_on_a_blob_whose_alias_another_layer_reads(nets):
    split = 'layer { name: "s" type: "Split" bottom: "x" top: "a" top: "b" }\n'
    net = nets.build(INPUT + split + power("p", "a", "a") + power("q", "b", "y"))
    assert len({blob.storage for blob in (*net.layers[1].tops, *net.layers[2].tops, *net.layers[3].bottoms)}) == 1


def test_all_that_is_wrong_with_a_net_is_reported_at_once(nets):
    text = "".join(
        [
            INPUT,
            power("p", "nowhere", "a"),
            'layer { name: "q" type: "Nonsense" bottom: "x" top: "b" }\n',
            fc("r", "x", "c", 0),
            power("s", "x", "d"),
            power("t", "x", "x"),
        ]
    )
    lines = [int(says.split(":")[1]) for says in nets.refusals(text)]
    assert lines == [2, 3, 4, 6]


def test_what_stands_on_a_refused_layer_is_not_checked(nets):
    broken = fc("broken", "x", "a", 0)
    followers = power("p", "a", "a") + fc("q", "a", "b", 0) + power("r", "b", "c", "loss_weight: 1 loss_weight: 2")
    assert len(nets.refusals(INPUT + broken + followers)) == 1
    # What does not stand on it is.
    assert len(nets.refusals(INPUT + broken + followers + fc("other", "x", "d", 0))) == 2


def test_an_in_place_layer_that_is_refused_spares_the_readers_of_its_blob(nets):
    text = INPUT + power("p", "x", "y") + power("q", "y", "y", "propagate_down: true propagate_down: true")
    assert len(nets.refusals(text + fc("r", "y", "z", 0))) == 1


def test_extents_that_no_machine_can_hold_are_refused(nets):
    huge = "layer { name: 'in' type: 'Input' top: 'x' input_param { shape { dim: 65536 dim: 65536 } } }\n"
    (says,) = nets.refusals(huge)
    assert says.startswith('net:1: layer "in" (Input): ')
    (says,) = nets.refusals(INPUT + fc("p", "x", "y", 4000000000))
    assert says.startswith('net:2: layer "p" (InnerProduct): ')


def test_one_fault_is_a_plain_error_and_not_a_list_of_one(nets):
    with pytest.raises(RistrettoError) as refused:
        nets.build(INPUT + power("p", "nowhere", "y"))
    assert type(refused.value) is RistrettoError
