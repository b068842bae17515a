"""Fast graphs with a fallback: nets give the results of the plain ops for any input."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.scoring import engine
from ristretto_cli.scoring.engine import compile_net, record
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.guarded import GuardedRunner, is_finite

NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize("x", [[], [0, -1e18, 3], [1e19]])
def test_ordinary_numbers_are_finite(x: list[float]) -> None:
    assert is_finite(np.array(x, np.float32).reshape(-1, 1))


@pytest.mark.parametrize("x", [NAN, INF, -INF, 1e20, -3e38, 2.0**64])
def test_nan_and_numbers_beyond_2_to_the_64_are_not_finite(x: float) -> None:
    assert not is_finite(np.array([[1, x], [2, 3]], np.float32))


class Doubles:
    """Doubles its input, and returns how large that was if it tells."""

    def __init__(self, name: str, ran: list[str], *, tells: bool = False) -> None:
        self.name, self.ran, self.tells = name, ran, tells

    def run(self, feeds: Any) -> Any:
        self.ran.append(self.name)
        results = {"top": 2 * feeds["x"]}
        return {**results, "how large": np.abs(feeds["x"]).max()} if self.tells else results


@pytest.mark.parametrize("beyond", [1.0, -5.0, NAN, INF])
def test_from_the_first_invalid_batch_on_the_fallback_runs(beyond: float) -> None:
    ran: list[str] = []
    runner = GuardedRunner(Doubles("fast", ran, tells=True), lambda: Doubles("slow", ran), guard="how large")
    batches = [0.5, -0.75, beyond, 0.25]
    found = [runner.run({"x": np.array([x], np.float32)}) for x in batches]
    np.testing.assert_array_equal([results["top"].item() for results in found], [1, -1.5, 2 * beyond, 0.5])
    assert all(results.keys() == {"top"} for results in found)
    assert [name for name in ran if name == "slow"] == ["slow", "slow"]
    assert ran[-1] == "slow"


def test_without_a_guard_only_inputs_are_checked() -> None:
    ran: list[str] = []
    runner = GuardedRunner(Doubles("fast", ran), lambda: Doubles("slow", ran), guard=None)
    for x in (100.0, INF, 100.0):
        runner.run({"x": np.array([x], np.float32)})
    assert ran == ["fast", "slow", "slow"]


def test_the_fast_graph_is_released_before_the_fallback_is_built() -> None:
    alive: list[bool] = []
    fast = Doubles("fast", [])
    gone = weakref.ref(fast)

    def make() -> Doubles:
        alive.append(gone() is not None)
        return Doubles("slow", [])

    runner = GuardedRunner(fast, make, guard=None)
    del fast
    runner.run({"x": np.array([NAN], np.float32)})
    assert alive == [False]


# --- nets

MINIFLOAT = "quantization_param { precision: MINIFLOAT mant_bits: 3 exp_bits: 4 }"
CONV = """
    layer {{ name: "i" type: "Input" top: "{x}" input_param {{ shape {{ dim: 1 dim: 1 dim: 1 dim: 2 }} }} }}
    layer {{ name: "conv" type: "ConvolutionRistretto" bottom: "{x}" top: "{y}"
             convolution_param {{ num_output: 1 kernel_size: 1 bias_term: false }} {quantization} }}
"""


def compiled(net: Any, **settings: Any) -> Any:
    return compile_net(net, lambda run, ops: run.final, rng=np.random.default_rng(0), **settings)


def image(*numbers: float) -> Any:
    return np.array(numbers, np.float32).reshape(1, 1, 1, -1)


@pytest.mark.parametrize("names", [("x", "peak"), ("peak", "@peak"), ("@peak", "y")])
def test_blobs_may_have_any_name(workshop: Any, names: tuple[str, str]) -> None:
    x, y = names
    net = workshop.load(CONV.format(x=x, y=y, quantization=MINIFLOAT), {"conv": [[[[[1.0625]]]]]})
    runner = compiled(net)
    for numbers, trimmed in (((1.0625, 7), (1, 7)), ((600, 1), (480, 1)), ((NAN, 2), (480, 2))):
        results = runner.run({x: image(*numbers)})
        assert {name: top.ravel().tolist() for name, top in results.items()} == {x: [*trimmed], y: [*trimmed]}


def test_host_layers_see_each_batch_once(workshop: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """They may count them, as DetectionEvaluate does, or write files."""
    net = workshop.load(
        'layer { name: "s" type: "Input" top: "selects" input_param { shape { dim: 1 } } }'
        + CONV.format(x="x", y="y", quantization=MINIFLOAT)
        + 'layer { name: "f" type: "Filter" bottom: "y" bottom: "selects" top: "found" }',
        {"conv": [[[[[1]]]]]},
    )
    seen: list[list[float]] = []

    class Watched(engine.HostLayers):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            seen.append([])

        def run(self, feeds: Any, graph_bottoms: Any) -> Any:
            seen[-1].append(float(graph_bottoms[0][0].ravel()[0]))
            return super().run(feeds, graph_bottoms)

    monkeypatch.setattr(engine, "HostLayers", Watched)
    runner = compile_net(net, lambda run, ops: {}, rng=np.random.default_rng(0), on_host=["found"])
    tops = [runner.run({"x": image(x, 1), "selects": np.ones(1, np.float32)})["found"] for x in (2, 600, 3)]
    assert [top.ravel().tolist() for top in tops] == [[2, 1], [480, 1], [3, 1]]
    assert seen == [[2, 480, 3]]


def test_layers_with_a_state_continue_after_an_invalid_batch(workshop: Any) -> None:
    net = workshop.load(
        CONV.format(x="x", y="y", quantization=MINIFLOAT).replace("dim: 1 dim: 1 dim: 1 dim: 2", "dim: 1 dim: 1 dim: 1")
        + """
        layer { name: "c" type: "Input" top: "cont" input_param { shape { dim: 1 dim: 1 } } }
        layer { name: "r" type: "RNN" bottom: "x" bottom: "cont" top: "h" recurrent_param { num_output: 1 } }
        layer { name: "fc" type: "FcRistretto" bottom: "h" top: "top" inner_product_param { num_output: 1 axis: 2 }
                quantization_param { bw_layer_in: 8 fl_layer_in: 7 bw_layer_out: 8 fl_layer_out: 4
                                     bw_params: 8 fl_params: 6 } }
        """.replace('"y"', '"x"'),
        {"conv": [[[[1]]]], "r": [[[1]], [0], [[0.5]], [[1]], [0]], "fc": [[[1.5]], [0.25]]},
    )
    feeds = [{"x": np.full((1, 1, 1), x, np.float32), "cont": np.ones((1, 1), np.float32)} for x in (0.5, 0.25, NAN, 1)]
    runner = compiled(net)
    found = [runner.run(each)["top"].item() for each in feeds]
    hidden, expected = 0.0, []
    for each in feeds:
        x = each["x"].item()
        x = 480 if np.isnan(x) else x
        hidden = float(np.tanh(np.float32(x + 0.5 * hidden)))
        h = np.clip(np.round(np.tanh(hidden) * 128), -128, 127) / 128
        expected.append(float(np.round((1.5 * h + 0.25) * 16) / 16))
    assert found == expected


FIXED = "bw_layer_in: {} fl_layer_in: {} bw_layer_out: {} fl_layer_out: {} bw_params: {} fl_params: {}"


def a_net(draw: Any) -> str:
    """A random small quantized net."""
    height = draw(st.sampled_from([4, 5]))
    channels = draw(st.sampled_from([3, 16]))
    layers = [
        f'name: "i" type: "Input" top: "b0" input_param {{ shape {{ dim: 2 dim: {channels} dim: {height} dim: 4 }} }}'
    ]
    tops, flat = ["b0"], False
    quantization = st.sampled_from(
        [
            "",  # 32 bits, 16 of them fractional
            FIXED.format(8, 3, 8, 2, 8, 5),
            FIXED.format(8, 5, 8, 1, 8, 6),
            FIXED.format(8, 4, 4, 0, 4, 3),
            FIXED.format(16, 4, 16, 2, 8, 5),
            FIXED.format(8, -1, 8, -3, 4, 4),
            FIXED.format(1, 0, 2, -1, 2, 1),
            "trim_layer_in: false trim_layer_out: false bw_params: 8 fl_params: 4",
            "precision: MINIFLOAT mant_bits: 3 exp_bits: 4",
            "precision: MINIFLOAT mant_bits: 10 exp_bits: 5",
            "precision: INTEGER_POWER_OF_2_WEIGHTS exp_min: -8 exp_max: -1 bw_layer_in: 8 fl_layer_in: 4 "
            "bw_layer_out: 8 fl_layer_out: 3",
        ]
    )
    for i in range(draw(st.integers(2, 7))):
        kind = draw(
            st.sampled_from(["conv", "conv", "fc", "relu", "pool", "concat", "eltwise", "scale", "lrn", "sigmoid"])
        )
        bottom, top = tops[-1], f"b{i + 1}"
        flat = flat or kind == "fc"
        named = f'name: "{kind}{i}" bottom: "{bottom}"'
        trims = f"quantization_param {{ {draw(quantization)} }}"
        biases = f"bias_term: {draw(st.sampled_from(['true', 'false']))}"
        if kind == "conv" and not flat:
            settings = draw(
                st.sampled_from(["kernel_size: 3 pad: 1", "kernel_size: 1", "kernel_size: 2 dilation: 2 pad: 1"])
            )
            outputs = draw(st.sampled_from([4, 16]))
            layers.append(
                f'{named} top: "{top}" type: "ConvolutionRistretto" '
                f"convolution_param {{ num_output: {outputs} {settings} {biases} }} {trims}"
            )
        elif kind == "fc":
            layers.append(
                f'{named} top: "{top}" type: "FcRistretto" inner_product_param {{ num_output: 6 {biases} }} {trims}'
            )
        elif kind == "relu":
            top = bottom
            layers.append(f'{named} top: "{top}" type: "ReLU"')
        elif kind == "pool" and not flat:
            how = draw(st.sampled_from(["MAX", "AVE"]))
            layers.append(
                f'{named} top: "{top}" type: "Pooling" pooling_param {{ pool: {how} kernel_size: 2 stride: 1 pad: 1 }}'
            )
        elif kind == "concat":
            layers.append(f'{named} bottom: "{bottom}" top: "{top}" type: "Concat"')
        elif kind == "eltwise":
            layers.append(f'{named} bottom: "{bottom}" top: "{top}" type: "Eltwise"')
        elif kind == "scale":
            layers.append(f'{named} top: "{top}" type: "Scale" scale_param {{ bias_term: true }}')
        elif kind == "lrn" and not flat:
            layers.append(f'{named} top: "{top}" type: "LRN" lrn_param {{ local_size: 3 alpha: 0.5 }}')
        elif kind == "sigmoid":
            layers.append(f'{named} top: "{top}" type: "Sigmoid"')
        else:
            continue
        tops.append(top)
    layers.append(
        f'name: "last" bottom: "{tops[-1]}" top: "last" type: "FcRistretto" inner_product_param {{ num_output: 3 }} '
        f"quantization_param {{ {draw(quantization)} }}"
    )
    return "\n".join(f"layer {{ {layer} }}" for layer in layers)


@settings(
    max_examples=80,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_random_nets_give_what_the_plain_ops_give(workshop: Any, data: st.DataObject) -> None:
    text = a_net(data.draw)
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    net = workshop.load(text)
    for array in net.weights.values():  # whole multiples, so that few float32 sums are rounded
        array[...] = rng.integers(-100, 100, array.shape) / 64
    shape = net.inputs[0].shape
    x = (rng.integers(-300, 300, shape) / 32).astype(np.float32)
    if data.draw(st.booleans()):
        x.reshape(-1)[3] = data.draw(st.sampled_from([NAN, INF, 1e30, 600.0, -0.0]))

    def select(run: Any, ops: Any) -> Any:
        tops = {
            f"{layer.name} {i}": v for layer, vs in zip(net.layers, run.outputs, strict=True) for i, v in enumerate(vs)
        }
        return {**tops, **run.final}

    runner = compile_net(net, select, rng=np.random.default_rng(0), execution=Execution(threads=1))
    ops, run = record(net, rng=np.random.default_rng(0))
    wanted = lower(ops.graph, select(run, ops)).session(threads=1).run({"b0": x})
    for _ in range(2):
        found = runner.run({"b0": x})
        assert found.keys() == wanted.keys()
        for name, array in found.items():
            np.testing.assert_array_equal(array, wanted[name], err_msg=f"{name} of\n{text}")
