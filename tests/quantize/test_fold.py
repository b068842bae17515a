"""Folding of normalizations: folded nets compute what they did before, and what is left is named with the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.caffe_io.messages import TEST, TRAIN, new
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.caffe_io.weights import read_weights
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.forward import forward
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import load_weights
from ristretto_cli.quantize.fold import FoldedNet, fold_net
from ristretto_cli.sources.open import DataLayers

INPUT = 'layer {{ name: "in" type: "Input" top: "x" input_param {{ shape {{ {dims} }} }} }}\n'
X4 = INPUT.format(dims="dim: 2 dim: 4 dim: 5 dim: 6")
X2 = INPUT.format(dims="dim: 3 dim: 4")


def conv(
    name: str = "c", bottom: str = "x", top: str = "", *, kind: str = "Convolution", more: str = "", **given: Any
) -> str:
    settings = {"num_output": 6, "kernel_size": 3, **given}
    text = " ".join(f"{key}: {str(value).lower()}" for key, value in settings.items())
    return (
        f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or name}" {more}\n'
        f"        convolution_param {{ {text} }} }}\n"
    )


def fc(name: str = "c", bottom: str = "x", *, more: str = "", **given: Any) -> str:
    settings = {"num_output": 6, **given}
    text = " ".join(f"{key}: {str(value).lower()}" for key, value in settings.items())
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "{bottom}" top: "{name}" {more}\n'
        f"        inner_product_param {{ {text} }} }}\n"
    )


def layer(kind: str, name: str, bottom: str, top: str = "", more: str = "") -> str:
    return f'layer {{ name: "{name}" type: "{kind}" bottom: "{bottom}" top: "{top or bottom}" {more} }}\n'


def batch_norm(bottom: str = "c", top: str = "", name: str = "bn", more: str = "") -> str:
    return layer("BatchNorm", name, bottom, top, more)


def scale(bottom: str = "c", top: str = "", name: str = "sc", param: str = "bias_term: true", more: str = "") -> str:
    return layer("Scale", name, bottom, top, f"scale_param {{ {param} }} {more}")


class Folding:
    """A net from text with random weights, and the same after folding."""

    def __init__(
        self, workshop: Any, text: str, *, phase: int = TEST, weights: Mapping[str, Any] | None = None
    ) -> None:
        self._file = read_net(workshop.net(text))
        self.before = build(self._file, NetState(TEST), DataLayers())
        arrays = random_weights(self.before, build(self._file, NetState(TRAIN), DataLayers()))
        stored = read_weights(workshop.weights({**arrays, **(weights or {})}))
        self.before = load_weights(self.before, stored, rng=np.random.default_rng(0))
        text_before = to_text(self._file.message)
        self.net: FoldedNet = fold_net(self._file, self.before, stored, NetState(TEST))
        assert to_text(self._file.message) == text_before  # what was read is not modified
        # As a user gets it: through the files.
        self.net.write_weights("folded.caffemodel")
        Path("folded.prototxt").write_text(to_text(self.net.net_file.message))
        after = build(read_net("folded.prototxt"), NetState(TEST), DataLayers())
        self.after = load_weights(after, read_weights("folded.caffemodel"), rng=np.random.default_rng(0))

    @property
    def names(self) -> list[str]:
        return [message.name for message in self.net.net_file.message.layer]

    @property
    def reasons(self) -> dict[str, str]:
        return {each.name: each.reason for each in self.net.left}

    def agrees(self) -> bool:
        """Whether both nets have the same outputs, but for float32's rounding."""
        feeds = {blob.name: np.random.default_rng(5).normal(size=blob.shape) * 3 for blob in self.before.inputs}
        expected, found = outputs(self.before, feeds), outputs(self.after, feeds)
        assert list(expected) == list(found)
        return all(np.allclose(expected[name], found[name], rtol=2e-5, atol=2e-4) for name in expected)


def random_weights(*nets: Net) -> dict[str, Sequence[Any]]:
    rng = np.random.default_rng(3)
    arrays = {}
    for net in nets:
        for each in net.layers:
            if not each.params or each.name in arrays:
                continue
            values = [rng.normal(size=param.shape) for param in each.params]
            if each.type == "BatchNorm":
                values = [values[0] * 2, values[1] ** 2 + 0.3, np.array([2.5])]
            elif each.type == "BN" and len(values) == 4:
                values[3] = values[3] ** 2 + 0.3
            arrays[each.name] = values
    return arrays


def outputs(net: Net, feeds: Mapping[str, Any]) -> dict[str, Any]:
    ops = OnnxOps()
    inputs = {blob.name: ops.input(blob.name, blob.shape) for blob in net.inputs}
    run = forward(net, ops, inputs, rng=np.random.default_rng(0))
    session = lower(ops.graph, {blob.name: run.final[blob.name] for blob in net.outputs}).session(threads=1)
    return dict(session.run({name: np.asarray(value, np.float32) for name, value in feeds.items()}))


# -- into the layer that writes the bottom


PRODUCTS = {
    "convolution": X4 + conv(),
    "padding, stride, groups": X4 + conv(pad=1, stride=2, group=2),
    "no bias": X4 + conv(bias_term=False),
    "depthwise": X4 + conv(kind="ConvolutionDepthwise", num_output=4),
    "depthwise, two filters a channel": X4 + conv(kind="DepthwiseConvolution", num_output=8),
    "deconvolution": X4 + conv(kind="Deconvolution", stride=2),
    "deconvolution, groups": X4 + conv(kind="Deconvolution", group=2, bias_term=False, pad=1),
    "inner product": X4 + fc(),
    "inner product, transposed": X4 + fc(transpose=True, bias_term=False),
    "inner product of rows": X2 + fc(),
    "one axis": INPUT.format(dims="dim: 2 dim: 4 dim: 9") + conv(),
}


@pytest.mark.parametrize("product", PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize(
    "normalization",
    [
        batch_norm(),
        batch_norm("c", "b"),
        batch_norm() + scale(),
        batch_norm("c", "b") + scale("b", "s"),
        batch_norm(more="batch_norm_param { eps: 0.3 }") + scale(param=""),
        scale(),
        scale(param="axis: 1 num_axes: 1"),
        scale(param="axis: 0 num_axes: 0 bias_term: true"),
        layer("BN", "bn", "c", "b", "bn_param { bn_mode: INFERENCE }"),
        layer("BN", "bn", "c", "c", "bn_param { eps: 0.01 }"),
        batch_norm("c", "b") + layer("ReLU", "relu", "b"),
    ],
    ids=[
        "bn",
        "bn apart",
        "bn, scale",
        "apart",
        "eps",
        "scale",
        "scale alone",
        "scalar",
        "BN",
        "BN of 4",
        "before relu",
    ],
)
def test_normalizations_after_a_product_become_part_of_it(workshop: Any, product: str, normalization: str) -> None:
    folding = Folding(workshop, product + normalization)
    assert (folding.reasons, folding.agrees()) == ({}, True)
    assert folding.names == ["in", "c", *(["relu"] if "ReLU" in normalization else [])]


def test_values_by_hand(workshop: Any) -> None:
    text = INPUT.format(dims="dim: 1 dim: 1") + fc(num_output=1, bias_term=False) + batch_norm() + scale()
    statistics = [[6.0], [8.0], [2.0]]  # a mean of 3 and a variance of 4, stored with a factor of 2
    text = text.replace('top: "c"  }', 'top: "c" batch_norm_param { eps: 0 } }')
    folding = Folding(workshop, text, weights={"c": [[[5.0]]], "bn": statistics, "sc": [[4.0], [1.0]]})
    weight, bias = (blob.array for blob in folding.net.weights.layers["c"])
    # (5x - 3) / 2 * 4 + 1
    assert (weight.tolist(), bias.tolist()) == ([[10]], [-5])
    assert weight.dtype == np.float32
    assert folding.net.net_file.message.layer[1].inner_product_param.bias_term


def test_a_moving_average_factor_of_zero_makes_both_statistics_zero(workshop: Any) -> None:
    statistics = [np.full(6, 7.0), np.full(6, 9.0), [0.0]]
    folding = Folding(workshop, X4 + conv(bias_term=False) + batch_norm(), weights={"bn": statistics})
    assert (folding.names, folding.agrees()) == (["in", "c"], True)
    assert len(folding.net.weights.layers["c"]) == 1  # no shift, so no bias
    assert not folding.net.net_file.message.layer[1].convolution_param.bias_term


def test_chains_are_folded_with_one_rounding(workshop: Any) -> None:
    scales = "".join(scale(name=f"s{i}", param="") for i in range(40))
    thirds = {f"s{i}": [np.full(6, 3.0 if i % 2 else 1 / 3)] for i in range(40)}
    folding = Folding(workshop, X4 + conv() + scales, weights=thirds)
    exact = np.float32(1 / 3).astype(np.float64) ** 20 * 3.0**20
    before = folding.before.weights["c/0"].astype(np.float64)
    assert np.array_equal(folding.net.weights.layers["c"][0].array, (before * exact).astype(np.float32))


# -- into the layer that reads the top


@pytest.mark.parametrize(
    "text",
    [
        batch_norm("x", "b") + conv(bottom="b"),
        batch_norm("x") + conv(),
        batch_norm("x") + conv(group=2, stride=2, bias_term=False),
        batch_norm("x") + conv(kind="ConvolutionDepthwise", num_output=4),
        batch_norm("x", "b") + scale("b", "s") + conv(bottom="s"),
        batch_norm("x") + scale("x") + fc(),
        batch_norm("x", "b") + fc(bottom="b", transpose=True, bias_term=False),
        scale("x", "s", param="axis: 2 num_axes: 1 bias_term: true") + fc(bottom="s"),
        scale("x", param="") + conv(pad=1),
        scale("x", param="") + conv(kind="Deconvolution", stride=2, group=2),
        scale("x", param="axis: 0 num_axes: 0") + fc(),
        batch_norm("x", "b") + conv(bottom="b") + layer("ReLU", "other", "x", "y"),
    ],
)
def test_normalizations_before_a_product_become_part_of_it(workshop: Any, text: str) -> None:
    folding = Folding(workshop, X4 + text)
    assert (folding.reasons, folding.agrees()) == ({}, True)
    assert folding.names[:2] == ["in", "c"]
    assert folding.net.net_file.message.layer[1].bottom == ["x"]


def test_the_producer_is_preferred_to_the_reader(workshop: Any) -> None:
    folding = Folding(workshop, X4 + conv("a") + batch_norm("a") + conv("c", "a", pad=1))
    assert [each.into for each in folding.net.folded] == ["a"]
    assert folding.agrees()


def test_a_zero_shift_is_folded_past_padding(workshop: Any) -> None:
    zero = {"bn": [np.zeros(4), np.ones(4), [1.0]]}
    folding = Folding(workshop, X4 + batch_norm("x") + conv(pad=1), weights=zero)
    assert (folding.names, folding.agrees()) == (["in", "c"], True)


# -- what is left


LEFT = {
    "batch statistics": (
        conv() + batch_norm(more="batch_norm_param { use_global_stats: false }"),
        {"bn": "it normalizes by the statistics of each batch"},
    ),
    "BN that learns": (
        conv() + layer("BN", "bn", "c"),
        {"bn": "it normalizes by the statistics of each batch. Set bn_mode: INFERENCE."},
    ),
    "two bottoms": (
        conv()
        + 'layer { name: "s" type: "Input" top: "s" input_param { shape { dim: 6 } } }\n'
        + 'layer { name: "sc" type: "Scale" bottom: "c" bottom: "s" top: "c" scale_param { axis: 1 } }\n',
        {"sc": "its scale is a bottom"},
    ),
    "several axes": (
        conv() + scale(param="axis: 1 num_axes: -1"),
        {"sc": "its scale has shape 6x3x4: more than one axis"},
    ),
    "another axis": (
        conv() + scale(param="axis: 2 num_axes: 1"),
        {"sc": 'its channels are not the outputs of "c": they are on axis 2, not 1; its top "c" has no readers'},
    ),
    "read before": (
        conv() + batch_norm("c", "b") + layer("ReLU", "relu", "c", "r"),
        {"bn": 'the top of "c" is also read by "relu"; its top "b" has no readers'},
    ),
    "padding": (
        batch_norm("x") + conv(pad=1),
        {
            "bn": 'its bottom "x" is written by "in" (Input); '
            '"c" pads its bottom with zeros, which the layer would shift'
        },
    ),
    "padding on one side": (
        scale("x") + conv(pad_l=1, pad_r=0, pad_t=0, pad_b=0),
        {
            "sc": 'its bottom "x" is written by "in" (Input); '
            '"c" pads its bottom with zeros, which the layer would shift'
        },
    ),
    "deconvolution": (
        scale("x") + conv(kind="Deconvolution"),
        {
            "sc": 'its bottom "x" is written by "in" (Input); '
            'a shift of its bottom has different effects on the places of the top of "c"'
        },
    ),
    "neither": (
        batch_norm("x") + layer("ReLU", "relu", "x"),
        {"bn": 'its bottom "x" is written by "in" (Input); its top "x" is read by "relu" (ReLU)'},
    ),
    "several readers": (
        batch_norm("x", "b") + conv("c", "b") + conv("d", "b"),
        {"bn": 'its bottom "x" is written by "in" (Input); its top "b" has 2 readers'},
    ),
    "shared weights": (
        conv(more='param { name: "w" }') + batch_norm() + conv("d", "x", more='param { name: "w" }'),
        {"bn": '"c" shares parameter "w" with "d"; its top "c" has no readers'},
    ),
    "several bottoms": (
        layer("Split", "split", "x", "p").replace('top: "p"', 'top: "p" top: "q"')
        + 'layer { name: "c" type: "Convolution" bottom: "p" bottom: "q" top: "c" top: "d"\n'
        + "        convolution_param { num_output: 6 kernel_size: 1 } }\n"
        + batch_norm(),
        {"bn": '"c" has 2 bottoms with the same weights; its top "c" has no readers'},
    ),
    "a loss": (
        conv(more="loss_weight: 1") + batch_norm("c", "b"),
        {"bn": 'the top of "c" is a loss; its top "b" has no readers'},
    ),
    "quantized": (
        conv(kind="ConvolutionRistretto") + batch_norm(),
        {
            "bn": 'its bottom "c" is written by "c", which is already quantized (ConvolutionRistretto); '
            'its top "c" has no readers'
        },
    ),
    "memory of others": (
        layer("Flatten", "flat", "x", "f") + batch_norm("f") + fc(bottom="f") + layer("ReLU", "late", "x", "y"),
        {"bn": 'its bottom "f" is written by "flat" (Flatten); "late" uses the memory of its bottom "f"'},
    ),
    "memory of an output": (
        layer("Split", "split", "x", "p").replace('top: "p"', 'top: "p" top: "q"') + scale("p") + conv(bottom="p"),
        {"sc": 'its bottom "p" is written by "split" (Split); output "q" has the memory of its bottom "p"'},
    ),
    "overwritten": (
        layer("Split", "split", "x", "p").replace('top: "p"', 'top: "p" top: "q"')
        + scale("p", "s")
        + layer("ReLU", "relu", "q")
        + conv(bottom="s"),
        {"sc": 'its bottom "p" is written by "split" (Split); "relu" uses the memory of its bottom "p"'},
    ),
}


@pytest.mark.parametrize(("text", "reasons"), LEFT.values(), ids=LEFT)
def test_a_layer_that_cannot_be_folded_stays_and_the_reason_is_given(
    workshop: Any, text: str, reasons: dict[str, str]
) -> None:
    folding = Folding(workshop, X4 + text)
    assert folding.reasons == reasons
    assert folding.net.folded == ()
    assert folding.agrees()
    assert to_text(folding.net.net_file.message) == to_text(read_net("net.prototxt").message)
    (name,) = reasons
    (line,) = folding.net.lines()[1:]
    assert line.startswith("net.prototxt:")
    assert f'layer "{name}" (' in line


def test_a_variance_that_has_no_root_is_left(workshop: Any) -> None:
    statistics = [np.zeros(6), np.full(6, -1.0), [1.0]]
    folding = Folding(workshop, X4 + conv() + batch_norm(), weights={"bn": statistics})
    assert folding.reasons == {"bn": "a variance plus eps is not positive"}


def test_weights_beyond_float32_are_left(workshop: Any) -> None:
    huge = {"sc": [np.full(6, 1e38), np.zeros(6)], "c": [np.full((6, 4, 3, 3), 1e6), np.zeros(6)]}
    folding = Folding(workshop, X4 + conv() + scale(), weights=huge)
    assert folding.reasons["sc"].startswith('the weights of "c" would exceed float32')
    assert np.array_equal(folding.after.weights["c/0"], folding.before.weights["c/0"])


def test_only_what_can_be_is_folded_of_a_chain(workshop: Any) -> None:
    text = X4 + conv() + batch_norm() + layer("ReLU", "relu", "c") + scale()
    folding = Folding(workshop, text)
    assert (folding.names, folding.agrees()) == (["in", "c", "relu", "sc"], True)


# -- phases


TRAIN_ONLY, TEST_ONLY = "include { phase: TRAIN }", "include { phase: TEST }"


def test_layers_of_a_single_phase_stay(workshop: Any) -> None:
    head = fc("aux", "c", more=TRAIN_ONLY) + batch_norm("aux", name="aux_bn", more=TRAIN_ONLY)
    folding = Folding(workshop, X4 + conv() + batch_norm() + head)
    assert folding.names == ["in", "c", "aux", "aux_bn"]
    assert folding.reasons == {"aux_bn": "it is not in phase TEST"}
    assert {"aux", "aux_bn"} <= set(folding.net.weights.layers)
    assert folding.agrees()


def test_a_normalization_that_each_phase_has_with_its_own_settings_is_folded_in_both(workshop: Any) -> None:
    train = batch_norm(more=f"{TRAIN_ONLY} batch_norm_param {{ use_global_stats: false }}")
    test = batch_norm(more=f"{TEST_ONLY} batch_norm_param {{ use_global_stats: true }}")
    folding = Folding(workshop, X4 + conv() + train + test + scale())
    assert (folding.names, folding.agrees()) == (["in", "c"], True)
    assert [where.line for where in folding.net.net_file.layers] == [1, 2]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (conv() + batch_norm(more=TEST_ONLY), 'phase TRAIN has only "c" of "c" and "bn"'),
        (
            conv() + batch_norm("c", "b") + layer("ReLU", "r", "c", "r", TRAIN_ONLY),
            'the top of "c" is also read by "r" in phase TRAIN',
        ),
        (
            conv() + layer("ReLU", "r", "c", more=TRAIN_ONLY) + batch_norm(),
            'the top of "c" is also read by "r" in phase TRAIN',
        ),
        (
            conv(more=TEST_ONLY) + conv("d", top="c", more=TRAIN_ONLY) + batch_norm(),
            'phase TRAIN has only "bn" of "c" and "bn"',
        ),
        (
            conv() + batch_norm("c", "b") + layer("ReLU", "r", "c", "r", 'include { stage: "extra" }'),
            'layer "r" of another state uses the same blobs',
        ),
        (
            conv() + batch_norm("c", "b", more=TEST_ONLY) + batch_norm("c", "b2", more=TRAIN_ONLY),
            '"bn" has different types, bottoms or tops in different phases',
        ),
    ],
)
def test_a_layer_that_other_phases_connect_otherwise_stays(workshop: Any, text: str, reason: str) -> None:
    folding = Folding(workshop, X4 + text)
    assert folding.reasons["bn"].split("; ")[0] == reason
    assert folding.net.folded == ()


# -- weights


def test_other_weights_are_written_as_they_were(workshop: Any) -> None:
    text = X4 + conv() + batch_norm() + layer("PReLU", "prelu", "c")
    folding = Folding(workshop, text, weights={"not in the net": [[1.0, 2.0]], "prelu": [[0.1] * 6]})
    written = read_weights("folded.caffemodel").layers
    assert list(written) == ["c", "prelu", "not in the net"]
    assert written["not in the net"][0].array.tolist() == [1, 2]
    assert np.array_equal(written["prelu"][0].array, folding.before.weights["prelu/0"])


def test_parameters_of_a_folded_layer_that_another_one_borrows_are_kept(workshop: Any) -> None:
    names = " ".join(f'param {{ name: "{name}" }}' for name in ("m", "v", "f"))
    text = conv() + batch_norm(more=names) + layer("ReLU", "relu", "c") + batch_norm("c", name="again", more=names)
    folding = Folding(workshop, X4 + text)
    assert (folding.names, folding.agrees()) == (["in", "c", "relu", "again"], True)


def test_arrays_of_old_files_get_current_shapes(workshop: Any) -> None:
    stored = new("NetParameter")
    old = {"c": [(6, 4, 3, 3), (1, 1, 1, 6)], "unused": [(1, 1, 2, 3), (1, 1, 1, 2)], "bn": [(6,), (6,), (1,)]}
    for name, shapes in old.items():
        message = stored.layer.add(name=name)
        for shape in shapes:
            blob = message.blobs.add(data=[1.0] * int(np.prod(shape)))
            if len(shape) == 4:
                blob.num, blob.channels, blob.height, blob.width = shape
            else:
                blob.shape.dim.extend(shape)
    Path("old.caffemodel").write_bytes(stored.SerializeToString())
    net_file, weights = read_net(workshop.net(X4 + conv() + batch_norm())), read_weights("old.caffemodel")
    net = load_weights(build(net_file, NetState(TEST), DataLayers()), weights, rng=np.random.default_rng(0))
    fold_net(net_file, net, weights, NetState(TEST)).write_weights("new.caffemodel")
    found = {
        name: [blob.array.shape for blob in blobs] for name, blobs in read_weights("new.caffemodel").layers.items()
    }
    assert found == {"c": [(6, 4, 3, 3), (6,)], "unused": [(2, 3), (2,)]}


def test_the_result_is_counted_by_types(workshop: Any) -> None:
    text = (
        X4 + conv() + batch_norm() + scale() + layer("ReLU", "r", "c") + conv("d", "c", pad=1) + scale("d", name="s2")
    )
    folding = Folding(workshop, text)
    assert folding.net.lines() == ["Folded 1 BatchNorm, 2 Scale into 2 layers."]
    assert Folding(workshop, X4 + conv()).net.lines() == ["No layer was folded."]
