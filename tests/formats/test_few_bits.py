"""XNOR-Net, DoReFa-Net and ternary weights: values and gradients against formulas in float64, and whole nets."""

import re
from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.backends.numpy_ops import numpy_ops
from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.caffe_io.prototxt import parse
from ristretto_cli.cli.main import run
from ristretto_cli.errors import LayerError, RistrettoError
from ristretto_cli.formats.dorefa import GradientLevels, NormalizedWeights, SignedMean, UnitInterval
from ristretto_cli.formats.few_bits import ScalePer
from ristretto_cli.formats.number_format import Rounding, layer_formats
from ristretto_cli.formats.ternary import TernaryWeights
from ristretto_cli.formats.xnor import BinaryWeights, Sign
from ristretto_cli.net.costs import CostModel
from ristretto_cli.net.param_formats import params_in_use
from ristretto_cli.net.trimmed_weights import trimmed_weights
from ristretto_cli.net.widths import widths_of
from ristretto_cli.scoring.all_blobs import OnePass

SHAPES = [(5, 3, 3, 2), (4, 7, 1, 1), (6, 11), (1, 1), (3, 2, 5)]
NEEDS_TORCH = "gradients need torch: pip install 'ristretto-cli[train]'"
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def weights(shape, seed=0):
    """Weights around 1, with a filter of zeros where there are several."""
    w = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    if shape[0] > 1:
        w[1] = 0
    return w


def by_scale(array, per, axis=0):
    """The arrays that have a scale in common, in float64."""
    array = array.astype(np.float64)
    return [array] if per is ScalePer.LAYER else list(np.moveaxis(array, axis, 0))


def joined(parts, shape, per, axis=0):
    whole = parts[0] if per is ScalePer.LAYER else np.moveaxis(np.stack(parts), 0, axis)
    return np.broadcast_to(whole, shape)


def sign(x):
    return np.where(x >= 0, 1.0, -1.0)


def ternary(w):
    above = np.abs(w) > 0.7 * np.abs(w).mean()
    return np.sign(w) * above * (np.abs(w)[above].mean() if above.any() else 0)


def binary(w):
    return sign(w) * np.abs(w).mean()


def levels(x, bits):
    n = 2**bits - 1
    return np.round(n * np.clip(x, 0, 1)) / n


def tanh_of(w):
    compressed = np.tanh(w.astype(np.float64))
    return compressed / (np.abs(compressed).max() or 1)


def quantized(number_format, x):
    return number_format.quantize(numpy_ops(np.random.default_rng(0)), x, Rounding.NEAREST)


def learned(number_format, w, upstream, within=None):
    """The value on torch, and the gradient for w."""
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from ristretto_cli.backends.torch_ops import TorchOps

    x = torch.from_numpy(w.copy()).requires_grad_()
    ops = TorchOps(np.random.default_rng(0))
    value = number_format.learnable(ops, x, Rounding.STOCHASTIC, within=within)
    value.backward(torch.from_numpy(upstream))
    return value.detach().numpy(), x.grad.numpy()


# -- weights -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per", ScalePer)
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    ("number_format", "formula"), [(TernaryWeights, ternary), (BinaryWeights, binary), (SignedMean, binary)]
)
def test_scaled_weights_are_those_of_the_papers(shape, per, axis, number_format, formula):
    w = weights(shape)
    expected = joined([formula(part) for part in by_scale(w, per, axis)], shape, per, axis)
    found = quantized(number_format(per).with_filters_on(axis), w)
    assert (found.dtype, found.shape) == (np.float32, shape)
    np.testing.assert_allclose(found, expected, **CLOSE)
    assert number_format(per).with_filters_on(axis).scales(shape) == (1 if per is ScalePer.LAYER else shape[axis])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("number_format", [TernaryWeights(ScalePer.FILTER), SignedMean(ScalePer.LAYER)])
def test_the_gradient_of_ternary_and_of_one_bit_weights_passes_straight_through(shape, number_format):
    w, upstream = weights(shape), weights(shape, 1)
    value, gradient = learned(number_format, w, upstream)
    np.testing.assert_allclose(value, quantized(number_format, w), **CLOSE)
    assert (gradient == upstream).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("per", ScalePer)
def test_the_gradient_of_binary_weights_is_that_of_xnor_net(shape, per):
    w, upstream = weights(shape), weights(shape, 1)
    value, gradient = learned(BinaryWeights(per), w, upstream)
    np.testing.assert_allclose(value, quantized(BinaryWeights(per), w), **CLOSE)
    parts = by_scale(w, per)
    factor = [1 / part.size + np.abs(part).mean() * (np.abs(part) <= 1) for part in parts]
    np.testing.assert_allclose(gradient, upstream.astype(np.float64) * joined(factor, shape, per), **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
def test_weights_are_centered_over_the_input_channels_and_then_clipped(shape):
    w, upstream = weights(shape) + np.float32(0.5), weights(shape, 1)
    prepared = np.clip(w - w.astype(np.float64).mean(axis=1, keepdims=True), -1, 1)
    away = np.abs(prepared).reshape(shape[0], -1).min(axis=1) > 1e-6  # a zero's sign would depend on rounding
    number_format = BinaryWeights(ScalePer.FILTER, centered=True, clipped=True)
    value, gradient = learned(number_format, w, upstream)
    np.testing.assert_allclose(value[away], np.stack([binary(part) for part in prepared])[away], **CLOSE)
    factor = np.stack([np.broadcast_to(1 / part.size + np.abs(part).mean(), part.shape) for part in prepared])
    np.testing.assert_allclose(gradient, upstream * factor, **CLOSE)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bits", [2, 3, 8])
def test_weights_of_several_bits_are_those_of_dorefa_net(shape, bits):
    w, upstream = weights(shape, 2), weights(shape, 1)
    number_format = NormalizedWeights(bits)
    value, gradient = learned(number_format, w, upstream)
    np.testing.assert_allclose(value, 2 * levels(tanh_of(w) / 2 + 0.5, bits) - 1, **CLOSE)
    np.testing.assert_allclose(quantized(number_format, w), value, **CLOSE)
    # r = t / m with t = tanh w and m = max |t|, which depends on the weight with the largest magnitude.
    t, g = np.tanh(w.astype(np.float64)), upstream.astype(np.float64)
    top = np.unravel_index(np.abs(t).argmax(), shape)
    m = abs(t[top])
    expected = g / m
    expected[top] -= (g * t).sum() / m**2 * np.sign(t[top])
    np.testing.assert_allclose(gradient, expected * (1 - t**2), rtol=1e-5, atol=1e-6)


def test_zeros_alone_have_finite_weights_and_gradients():
    zeros, upstream = np.zeros((2, 3), np.float32), np.ones((2, 3), np.float32)
    for number_format in (TernaryWeights(ScalePer.LAYER), BinaryWeights(ScalePer.LAYER), SignedMean(ScalePer.FILTER)):
        value, gradient = learned(number_format, zeros, upstream)
        assert not value.any()
        assert np.isfinite(gradient).all()
    value, gradient = learned(NormalizedWeights(2), zeros, upstream)
    np.testing.assert_allclose(value, 1 / 3, **CLOSE)  # the level above 0, which has none
    assert np.isfinite(gradient).all()


# -- activations and gradients -------------------------------------------------------------------------------


def test_binary_inputs_pass_their_gradient_from_minus_one_to_one():
    x = np.array([-2, -1, -0.5, -0.0, 0, 0.5, 1, 1.001], np.float32)
    value, gradient = learned(Sign(), x, np.full(8, 3, np.float32), within=(Sign().lowest, Sign().largest))
    assert value.tolist() == [-1, -1, -1, 1, 1, 1, 1, 1]
    assert gradient.tolist() == [0, 3, 3, 3, 3, 3, 3, 0]


@pytest.mark.parametrize("bits", [1, 2, 5, 16])
def test_inputs_of_a_few_bits_are_levels_from_zero_to_one(bench, bits):
    number_format = UnitInterval(bits)
    x = np.concatenate([np.linspace(-0.5, 1.5, 201), [-3e38, 3e38]]).astype(np.float32)
    value, gradient = learned(number_format, x, np.ones_like(x), within=(number_format.lowest, number_format.largest))
    away = np.abs((x.astype(np.float64) * (2**bits - 1)) % 1 - 0.5) > 1e-2  # no ties
    np.testing.assert_allclose(value[away], levels(x.astype(np.float64), bits)[away], **CLOSE)
    assert (gradient == ((x >= 0) & (x <= 1))).all()
    assert (bench.quantize_in_onnx(number_format, x) == value).all()
    assert (bench.quantize_in_onnx(Sign(), x) == sign(x)).all()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_gradients_are_rounded_to_neighbouring_levels_without_bias(bits):
    x = np.random.default_rng(3).standard_normal((3, 2, 5)).astype(np.float32)
    x[2] = 0
    largest = np.abs(x).max(axis=(1, 2), keepdims=True)
    ops, number_format = numpy_ops(np.random.default_rng(0)), GradientLevels(bits)
    drawn = np.stack([number_format.quantize(ops, x, Rounding.STOCHASTIC) for _ in range(4000)]).astype(np.float64)
    step = np.where(largest > 0, 2 * largest / (2**bits - 1), 1)
    assert not drawn[:, 2].any()
    np.testing.assert_allclose((drawn + largest) / step, np.round((drawn + largest) / step), atol=1e-4)
    assert (np.abs(drawn - x) <= step * (1 + 1e-5)).all()
    # The variance of rounding to two neighbours at distance step is at most step^2 / 4.
    assert (np.abs(drawn.mean(axis=0) - x) <= 6 * step / 2 / np.sqrt(4000)).all()


# -- the prototxt --------------------------------------------------------------------------------------------


def read(text):
    return layer_formats(parse(text, "QuantizationParameter", "q").message)


def test_a_prototxt_has_the_formats():
    found = read("precision: XNOR bw_params: 1 bw_layer_in: 1 center_params: true")
    assert (found.weights, found.layer_in) == (BinaryWeights(ScalePer.FILTER, centered=True), Sign())
    assert (found.bias, found.layer_out, found.gradient, found.trains_activations) == (None, None, None, True)
    found = read("precision: DOREFA bw_params: 3 bw_layer_in: 2 bw_gradient: 6")
    assert (found.weights, found.layer_in) == (NormalizedWeights(3), UnitInterval(2))
    assert found.gradient == GradientLevels(6)
    assert read("precision: DOREFA bw_params: 1 scale_per: FILTER").weights == SignedMean(ScalePer.FILTER)
    assert read("precision: TERNARY bw_params: 2").weights == TernaryWeights(ScalePer.LAYER)
    for precision in ("XNOR", "DOREFA", "TERNARY"):
        untouched = read(f"precision: {precision} bw_params: 32")
        assert (untouched.weights, untouched.layer_in) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("precision: XNOR", "bw_params is missing. Use 1 or 32"),
        ("precision: XNOR bw_params: 2", "bw_params 2 is not possible with precision XNOR. Use 1 or 32"),
        ("precision: XNOR bw_params: 1 bw_layer_in: 8", "bw_layer_in 8 is not possible"),
        ("precision: XNOR bw_params: 1 fl_params: 3", "fl_params has no meaning with precision XNOR"),
        ("precision: XNOR bw_params: 1 bw_gradient: 3", "bw_gradient has no meaning with precision XNOR"),
        ("precision: XNOR bw_params: 1 rounding_scheme: STOCHASTIC", "does not round weights stochastically"),
        ("precision: TERNARY bw_params: 3", "bw_params 3 is not possible with precision TERNARY. Use 2 or 32"),
        ("precision: TERNARY bw_params: 2 bw_layer_in: 1", "bw_layer_in has no meaning with precision TERNARY"),
        ("precision: DOREFA bw_params: 17", "Use 1 to 16 or 32"),
        ("precision: DOREFA bw_params: 2 bw_gradient: 0", "bw_gradient 0 is not possible"),
        ("precision: DOREFA bw_params: 2 scale_per: FILTER", "scale_per: FILTER needs bw_params: 1"),
        ("bw_gradient: 4", "bw_gradient has no meaning with precision DYNAMIC_FIXED_POINT"),
        ("precision: MINIFLOAT scale_per: LAYER", "scale_per has no meaning with precision MINIFLOAT"),
    ],
)
def test_settings_that_a_scheme_does_not_have_are_refused(text, message):
    with pytest.raises(LayerError) as caught:
        read(text)
    assert message in str(caught.value)


# -- nets ----------------------------------------------------------------------------------------------------

NET = """
    force_backward: true
    layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 2 dim: 4 dim: 7 dim: 5 } } }
    layer { name: "target" type: "Input" top: "t" input_param { shape { dim: 2 dim: 3 } } }
    layer { name: "conv" type: "ConvolutionRistretto" bottom: "x" top: "c" quantization_param { %(q)s }
            convolution_param { num_output: 6 kernel_h: 3 kernel_w: 2 stride: 2 pad: 1 group: 2
                                weight_filler { type: "xavier" } bias_filler { type: "constant" value: 0.07 } } }
    layer { name: "fc" type: "FcRistretto" bottom: "c" top: "y" quantization_param { %(q)s }
            inner_product_param { num_output: 3 transpose: %(transpose)s weight_filler { type: "xavier" } } }
    layer { name: "loss" type: "EuclideanLoss" bottom: "y" bottom: "t" top: "loss" }
"""
SCHEMES = [
    "precision: XNOR bw_params: 1",
    "precision: XNOR bw_params: 1 bw_layer_in: 1 scale_per: LAYER",
    "precision: XNOR bw_params: 1 bw_layer_in: 1 center_params: true clip_params: true",
    "precision: DOREFA bw_params: 1 bw_layer_in: 2 scale_per: FILTER",
    "precision: DOREFA bw_params: 3 bw_layer_in: 4",
    "precision: TERNARY bw_params: 2",
    "precision: TERNARY bw_params: 2 scale_per: FILTER",
]


def feeds():
    rng = np.random.default_rng(5)
    shapes = {"x": (2, 4, 7, 5), "t": (2, 3)}
    return {name: rng.uniform(-0.5, 1.5, shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("transpose", ["false", "true"])
def test_a_training_pass_computes_what_onnxruntime_scores(workshop, scheme, transpose):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    from ristretto_cli.train.backward_pass import Gradients

    text = NET % {"q": scheme, "transpose": transpose}
    trained = Gradients(workshop.load(text, phase=TRAIN), rng=np.random.default_rng(0)).run(feeds())
    scored = OnePass(workshop.load(text, phase=TEST), rng=np.random.default_rng(0)).run(feeds())
    for blob in ("c", "y", "loss"):
        np.testing.assert_allclose(trained[blob], scored[blob], rtol=1e-5, atol=1e-5)
    assert trained["pdiff:conv/0"].any()
    assert trained["diff:x"].any()


@pytest.mark.parametrize("bits", [2, 8])
def test_gradients_of_outputs_are_rounded_before_they_reach_weights(workshop, bits):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    from ristretto_cli.train.backward_pass import Gradients

    text = NET % {"q": f"precision: DOREFA bw_params: 32 bw_gradient: {bits}", "transpose": "false"}
    net = workshop.load(text, phase=TRAIN)
    found = Gradients(net, rng=np.random.default_rng(0)).run(feeds())
    # The bias of fc sums its output's gradients, one for each of the two images.
    exact = found["diff:y"].astype(np.float64)
    largest = np.abs(exact).max(axis=1, keepdims=True)
    choices = -largest + 2 * largest * np.arange(2**bits) / (2**bits - 1)
    sums = (choices[0][:, None] + choices[1]).ravel()
    bias = found["pdiff:fc/1"]
    assert np.abs(bias[:, None] - sums).min(axis=1).max() < 1e-5
    assert np.abs(bias - exact.sum(axis=0)).max() <= (2 * largest / (2**bits - 1)).sum() * 1.00001
    if bits == 2:
        assert np.abs(bias - exact.sum(axis=0)).max() > 1e-3


def test_weights_with_a_scale_are_quantized_as_a_whole_but_saved_as_they_are(workshop):
    net = workshop.load(NET % {"q": SCHEMES[0], "transpose": "true"})
    used = {(layer.name, i): array for layer, i, array in params_in_use(net, rng=np.random.default_rng(0))}
    w = net.weights["fc/0"]
    expected = joined([binary(column) for column in by_scale(w, ScalePer.FILTER, 1)], w.shape, ScalePer.FILTER, 1)
    np.testing.assert_allclose(used["fc", 0], expected, **CLOSE)
    assert (used["fc", 1] == net.weights["fc/1"]).all()
    saved = trimmed_weights(net, net.weights, rng=np.random.default_rng(0))
    assert all((saved[key] == net.weights[key]).all() for key in net.weights)


def test_costs_count_packed_bits_and_a_float_for_each_scale(workshop):
    def bits(scheme):
        net = workshop.load(NET % {"q": scheme, "transpose": "true"})
        costs = CostModel(net).of_layers([widths_of(layer) for layer in net.layers])
        position = next(i for i, layer in enumerate(net.layers) if layer.name == "fc")
        return costs[position].parameter_bits, costs[position].bit_operations

    inputs = 6 * 4 * 3
    macs = 2 * 3 * inputs
    assert bits("precision: XNOR bw_params: 1 bw_layer_in: 1") == (3 * inputs + 3 * 32 + 3 * 32, macs)
    assert bits("precision: XNOR bw_params: 1 scale_per: LAYER") == (3 * inputs + 32 + 3 * 32, macs * 32)
    assert bits("precision: DOREFA bw_params: 3 bw_layer_in: 2") == (3 * 3 * inputs + 3 * 32, macs * 6)
    assert bits("precision: TERNARY bw_params: 2") == (2 * 3 * inputs + 32 + 3 * 32, macs * 64)


def test_weights_that_are_not_numbers_are_refused(workshop):
    net = workshop.load(NET % {"q": SCHEMES[0], "transpose": "false"})
    arrays = [net.weights["conv/0"].copy(), net.weights["conv/1"]]
    arrays[0][0, 0, 0, 0] = np.nan
    with pytest.raises(RistrettoError, match='parameter 0 of layer "conv" contains NaN or infinite values'):
        workshop.load(NET % {"q": SCHEMES[0], "transpose": "false"}, {"conv": arrays})


def test_training_refuses_flags_that_need_weights_rounded_one_by_one(two_classes, capsys):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    two_classes()
    files = ["--model=net.prototxt", "--weights=net.caffemodel", "--model_quantized=q.prototxt", "--noscore"]
    assert run(["quantize", *files, "--trimming_mode=ternary"]) == 0
    Path("solver.prototxt").write_text('net: "q.prototxt" base_lr: 0.1 lr_policy: "fixed" max_iter: 1')
    for flag in ("--update=quantized", "--round_to_nearest", "--trimmed_weights"):
        assert run(["train", "--solver=solver.prototxt", "--weights=net.caffemodel", flag]) != 0
        assert f"{flag} has no effect: no layer quantizes its parameters one by one" in capsys.readouterr().err
    assert run(["train", "--solver=solver.prototxt", "--weights=net.caffemodel"]) == 0


def test_updates_of_quantized_weights_leave_weights_with_a_scale_alone(workshop):
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    from ristretto_cli.train.trained_net import TrainNet

    text = (NET % {"q": SCHEMES[5], "transpose": "false"}).replace("precision: TERNARY bw_params: 2", "fl_params: 2", 1)
    net = workshop.load(text, phase=TRAIN)
    trained = TrainNet(net, rng=np.random.default_rng(0), update_quantized=True, round_to_nearest=True)
    trained.round_weights()
    assert (trained.weights()["fc/0"] == net.weights["fc/0"]).all()
    assert (trained.weights()["conv/0"] == np.round(net.weights["conv/0"] * 4) / 4).all()


def test_grouped_deconvolutions_have_no_scale_per_filter(workshop):
    text = """
        layer { name: "data" type: "Input" top: "x" input_param { shape { dim: 1 dim: 4 dim: 3 dim: 3 } } }
        layer { name: "up" type: "DeconvolutionRistretto" bottom: "x" top: "y"
                quantization_param { precision: TERNARY bw_params: 2 scale_per: %s }
                convolution_param { num_output: 6 kernel_size: 3 group: %d weight_filler { type: "xavier" } } }
    """
    for scale_per, group in (("FILTER", 1), ("LAYER", 2)):
        net = workshop.load(text % (scale_per, group))
        ((_, _, used), _) = params_in_use(net, rng=np.random.default_rng(0))
        per = ScalePer[scale_per]
        expected = joined([ternary(part) for part in by_scale(net.weights["up/0"], per, 1)], used.shape, per, 1)
        np.testing.assert_allclose(used, expected, **CLOSE)
    with pytest.raises(RistrettoError, match=r'"up".*no axis of these weights is that of the filters'):
        workshop.load(text % ("FILTER", 2))


# -- commands ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "settings", "bits"),
    [
        (["xnor", "--bw=layer=32", "--clip_params"], "XNOR bw_layer_in: 32 bw_params: 1 clip_params: true", "32/1/32"),
        (
            ["dorefa", "--bw=params=2,layer=3", "--gradient_bits=6"],
            "DOREFA bw_layer_in: 3 bw_params: 2 bw_gradient: 6",
            "3/2/32",
        ),
        (["ternary", "--scale_per=filter"], "TERNARY bw_params: 2 scale_per: FILTER", "32/2/32"),
    ],
)
def test_quantize_writes_a_net_that_is_scored_and_summarized(two_classes, flags, settings, bits, capsys):
    two_classes()
    files = ["--model=net.prototxt", "--weights=net.caffemodel", "--model_quantized=q.prototxt"]
    assert run(["quantize", *files, "--iterations=2", "--trimming_mode", *flags]) == 0
    written = Path("q.prototxt").read_text()
    assert "# The precision is for nets that are trained with it" in written
    (found, *_) = re.findall(r"quantization_param \{(.*?)\}", written, re.DOTALL)
    found = parse(found, "QuantizationParameter", "q").message
    expected = parse(f"precision: {settings}", "QuantizationParameter", "q").message
    expected.trim_layer_out = False
    if not expected.HasField("bw_layer_in"):
        expected.trim_layer_in = False
    assert found == expected
    capsys.readouterr()
    assert run(["test", "--model=q.prototxt", "--weights=net.caffemodel", "--iterations=2"]) == 0
    assert "accuracy = " in capsys.readouterr().err
    assert run(["summary", "--model=q.prototxt"]) == 0
    assert f" {bits}" in capsys.readouterr().out


def test_quantize_refuses_what_these_schemes_do_not_have(two_classes, capsys):
    two_classes()
    files = ["--model=net.prototxt", "--weights=net.caffemodel", "--model_quantized=q.prototxt", "--iterations=2"]
    for flags, message in (
        (["--trimming_mode=xnor", "--bw=params=3"], "xnor has no such width for this net. Use 1 or 32 bits."),
        (["--trimming_mode=ternary", "--legacy"], "the original has no precision TERNARY. Omit --legacy."),
        (["--trimming_mode=dorefa", "--weights_quantized=w.caffemodel"], "cannot correct the weights of dorefa"),
    ):
        assert run(["quantize", *files, *flags]) != 0
        assert message in capsys.readouterr().err
