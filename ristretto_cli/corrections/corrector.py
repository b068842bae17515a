"""The corrections of a quantized net: layer after layer, on the values that the corrected layers before it give."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum

import numpy as np

from ristretto_cli.corrections.batch_norm import ChannelStatistics, is_batch_norm, matched, normalizes
from ristretto_cli.corrections.class_scores import is_class_scores, shifted_scores
from ristretto_cli.corrections.divergence import Divergence, descend, prediction_of
from ristretto_cli.corrections.layer_moments import LayerMoments
from ristretto_cli.corrections.layer_rounding import round_layer
from ristretto_cli.corrections.linear_layers import LinearLayer, linear_layer
from ristretto_cli.corrections.rounding_to import quantized
from ristretto_cli.corrections.stepwise_net import OUTPUT, StepwiseNet
from ristretto_cli.formats.fixed import Fixed
from ristretto_cli.formats.number_format import NumberFormat, has_bias_format
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import state_shapes
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.execution import Execution

log = logging.getLogger("ristretto")

MAX_COLUMNS = 4096  # inputs of an output whose weights are rounded together; more are split into parts
_MAX_BITS = 12  # of weights; with more, nearest rounding is as good
_NARROW = 16  # bits of activations whose fractional length matters
_SAMPLED_OUTPUTS = 2**11  # for each channel in front of a BatchNorm
_DIVERGENCE_IMAGES = 512


class Method(Enum):
    """A correction; the values are those of --methods."""

    EQUALIZATION = "equalization"  # channels of the float net scaled, where that evens out its weights
    BATCH_NORM = "batch_norm"  # biases moved into BatchNorm, channels in front of it scaled, its statistics matched
    ROUNDING = "rounding"  # weights and biases rounded for the outputs


@dataclass
class Correction:
    """weights: the changed parameters, by Param.key. lengths: the changed fractional lengths, by layer and field."""

    weights: dict[str, Array] = field(default_factory=dict)
    lengths: dict[str, dict[str, int]] = field(default_factory=dict)


class Corrector:
    """Corrects quantized nets by a float net and calibration batches, without labels.

    by_divergence: also choose the fractional lengths of activations by the divergence of the outputs. choose_formats:
    otherwise all fractional lengths stay as they are. shifts_scores: add a number to all class scores of an image,
    where that saves bits. memory_bytes: for the blobs of each of two nets. seed: for the places that are sampled.
    """

    def __init__(
        self,
        net: Net,
        batches: Sequence[Mapping[str, AnyArray]],
        *,
        methods: Collection[Method],
        by_divergence: bool = False,
        choose_formats: bool = True,
        shifts_scores: bool = True,
        execution: Execution,
        memory_bytes: int,
        seed: int = 0,
    ) -> None:
        self._float_net = net
        self.batches = batches
        self.methods = methods
        self._by_divergence = by_divergence and choose_formats
        self.choose_formats = choose_formats
        self.shifts_scores = choose_formats and shifts_scores
        self._execution = execution
        self._memory_bytes = memory_bytes
        self.seed = seed
        self.divergence: Divergence | None = None

    def correct(self, net: Net) -> Correction:
        """The correction of a quantized net that has the float net's weights."""
        float_run, run = (
            StepwiseNet(each, self.batches, self._execution, memory_bytes=self._memory_bytes)
            for each in (self._float_net, net)
        )
        if self._by_divergence and self.divergence is None:
            self.divergence = self._float_outputs(float_run)
            self._by_divergence = self.divergence is not None
        correction = Correction()
        positions = list(self._positions(net))
        for i in positions:
            if is_batch_norm(net.layers[i]):
                float_run.run_to(i)
                run.run_to(i)
                weights = _matched(i, float_run, run, len(self.batches))
                lengths: dict[str, int] = {}
            else:
                step = _LayerStep(self, i, float_run, run, is_normalized=normalizes(net, i) in positions)
                if not step.is_worthwhile:
                    continue
                float_run.run_to(i)
                run.run_to(i)
                weights, lengths = step.corrected()
                if lengths:
                    correction.lengths[net.layers[i].name] = lengths
                    run.set_layer(i, _with_lengths(net.layers[i], lengths))
            run.set_weights(weights)
            correction.weights.update(weights)
        return correction

    def _positions(self, net: Net) -> Iterator[int]:
        """The positions of the layers to correct: from the first quantized one on, while nets can be run in parts."""
        uses = Counter(param.key for layer in net.layers for param in layer.params)
        reached = False
        for i, layer in enumerate(net.layers):
            if layer.is_source:
                continue
            layer_type = LAYERS.get(layer.type)
            if layer.on_host or layer_type.states(layer):
                log.warning('Layers from "%s" on are not corrected: it does not run in the graph.', layer.name)
                return
            if any(layer.loss_weights):
                continue
            reached = reached or layer_type.quantized
            if not reached or any(uses[param.key] > 1 for param in layer.params):
                continue
            is_product = layer_type.quantized and linear_layer(layer) is not None
            if is_product or (is_batch_norm(layer) and Method.BATCH_NORM in self.methods):
                yield i

    def _float_outputs(self, float_run: StepwiseNet) -> Divergence | None:
        prediction = prediction_of(self._float_net)
        if prediction is None or state_shapes(self._float_net):
            reason = "the net has no prediction" if prediction is None else "a layer keeps a state between batches"
        elif len(self.batches) < 2:
            reason = "the calibration images are a single batch, and two are needed"
        else:
            reason = None
        if prediction is None or reason is not None:
            log.warning("Fractional lengths are not chosen by the divergence: %s.", reason)
            return None
        images = max(1, prediction.blob.shape[0] if prediction.blob.shape else 1)
        count = min(len(self.batches), max(2, -(-_DIVERGENCE_IMAGES // images)))
        runner = float_run.rest_runner(0, prediction.blob.name)
        return Divergence(prediction, [runner.run(float_run.feeds(i))[OUTPUT] for i in range(count)])


class _LayerStep:
    """The correction of one product, at its position."""

    def __init__(
        self, corrector: Corrector, position: int, float_run: StepwiseNet, run: StepwiseNet, *, is_normalized: bool
    ) -> None:
        """is_normalized: a BatchNorm that is corrected too alone reads the outputs."""
        self._layer = run.net.layers[position]
        linear = linear_layer(self._layer)
        if linear is None:
            raise ValueError(f"{self._layer.name} is no product")
        self._linear: LinearLayer = linear
        self._position = position
        self._float_run, self._run = float_run, run
        self._corrector = corrector
        self._methods = corrector.methods
        self._divergence = corrector.divergence
        self._batches = len(corrector.batches)
        self._formats = LAYERS.get(self._layer.type).formats(self._layer.message)
        self._is_normalized = is_normalized
        self._lengths: dict[str, int] = {}
        self._scales: AnyArray | None = None

    @property
    def is_worthwhile(self) -> bool:
        """Whether anything could be corrected."""
        return self._rounds or any(map(self._is_free, (self._formats.layer_in, self._formats.layer_out)))

    @property
    def _rounds(self) -> bool:
        params = self._formats.weights
        return Method.ROUNDING in self._methods and params is not None and params.width() <= _MAX_BITS

    def _is_free(self, number_format: NumberFormat | None) -> bool:
        """Whether the fractional length of activations is chosen by the divergence."""
        if self._divergence is None or not isinstance(number_format, Fixed) or number_format.bits >= _NARROW:
            return False
        return self._predicts(self._divergence, self._position)

    def _predicts(self, divergence: Divergence, position: int) -> bool:
        """Whether layers from this position on write the prediction."""
        storage = divergence.prediction.blob.storage
        return any(top.storage == storage for layer in self._run.net.layers[position:] for top in layer.tops)

    def corrected(self) -> tuple[dict[str, Array], dict[str, int]]:
        """The new parameters, by key, and the new fractional lengths, by field."""
        layer_in = self._formats.layer_in
        if self._divergence is not None and isinstance(layer_in, Fixed) and self._is_free(layer_in):
            layer_in = self._input_format(self._divergence, layer_in)
            self._set("fl_layer_in", self._formats.layer_in, layer_in)
        weights = self._rounded(layer_in) if self._rounds else {}
        layer_out = self._layer_out
        if self._divergence is not None and isinstance(layer_out, Fixed) and self._is_free(layer_out):
            self._set(
                "fl_layer_out", self._formats.layer_out, self._output_format(self._divergence, layer_out, weights)
            )
        return weights, self._lengths

    @property
    def _layer_out(self) -> NumberFormat | None:
        layer_out = self._formats.layer_out
        if isinstance(layer_out, Fixed) and "fl_layer_out" in self._lengths:
            return replace(layer_out, frac_bits=self._lengths["fl_layer_out"])
        return layer_out

    def _set(self, name: str, before: NumberFormat | None, after: NumberFormat | None) -> None:
        if isinstance(after, Fixed) and after != before:
            self._lengths[name] = after.frac_bits
        else:
            self._lengths.pop(name, None)

    def _rows(self, layer_in: NumberFormat | None) -> Iterator[tuple[AnyArray, AnyArray]]:
        """For each batch, the inputs (G, N, D) of sampled outputs in the quantized and in the float net."""
        for batch in range(self._batches):
            float_bottoms = self._float_run.net.layers[self._position].bottoms
            for i, (bottom, float_bottom) in enumerate(zip(self._layer.bottoms, float_bottoms, strict=True)):
                seed = [self._corrector.seed, self._position, batch, i]
                own = quantized(self._run.value(bottom, batch), layer_in)
                floats = self._float_run.value(float_bottom, batch)
                yield tuple(self._linear.rows(each, np.random.default_rng(seed)) for each in (own, floats))  # type: ignore[misc]

    def _rounded(self, layer_in: NumberFormat | None) -> dict[str, Array]:
        layer, formats = self._layer, self._formats
        params = formats.weights
        if params is None:
            return {}
        float_weights = self._float_run.net.weights
        matrices = self._linear.matrices(float_weights[layer.params[0].key].reshape(layer.params[0].shape))
        groups, outputs, columns = matrices.shape
        bias = None
        if len(layer.params) > 1:
            bias = float_weights[layer.params[1].key].astype(np.float64).reshape(groups, outputs)
        parts = [slice(part[0], part[-1] + 1) for part in np.array_split(range(columns), -(-columns // MAX_COLUMNS))]
        moments = [LayerMoments(groups, len(range(*part.indices(columns)))) for part in parts]
        sample: list[AnyArray] = []
        inputs: list[AnyArray] = []
        needs_scores = self._corrector.shifts_scores and is_class_scores(self._run.net, layer)
        needs_scores = needs_scores and isinstance(formats.layer_out, Fixed)
        for own, floats in self._rows(layer_in):
            for part, each in zip(parts, moments, strict=True):
                each.add(own[:, :, part], floats[:, :, part])
            if self._is_normalized or needs_scores:
                stride = -(-self._batches * own.shape[1] // _SAMPLED_OUTPUTS)
                sample.append(floats[:, ::stride] @ matrices.transpose(0, 2, 1))
            if needs_scores:
                inputs.append(floats[:, ::stride])
        found_outputs = np.concatenate(sample, 1) if sample else None
        if needs_scores and found_outputs is not None and isinstance(formats.layer_out, Fixed):
            direction = np.concatenate([each.float_mean for each in moments], 1)
            direction = direction / max(float(np.square(direction).sum()), 1e-30)
            profile = np.concatenate(inputs, 1)[0] @ direction[0]
            scores = found_outputs[0] + (0.0 if bias is None else bias)
            shift, layer_out = shifted_scores(scores, profile, formats.layer_out)
            matrices = matrices + shift * direction[:, None, :]
            self._set("fl_layer_out", formats.layer_out, layer_out)
        return self._in_parts(matrices, bias, parts, moments, params, found_outputs if self._is_normalized else None)

    def _in_parts(
        self,
        matrices: AnyArray,
        bias: AnyArray | None,
        parts: Sequence[slice],
        moments: Sequence[LayerMoments],
        params: NumberFormat,
        outputs: AnyArray | None,
    ) -> dict[str, Array]:
        """The parameters rounded part after part; only the last part has the biases."""
        weights = np.empty_like(matrices)
        # Biases with fields of their own keep them, also where these equal those of the weights.
        keeps_length = has_bias_format(self._layer.message.quantization_param) and self._formats.bias == params
        for part, each in zip(parts, moments, strict=True):
            is_last = part is parts[-1]
            formats = replace(self._formats, layer_out=self._layer_out)
            found = round_layer(
                matrices[:, :, part],
                bias if is_last else None,
                each,
                formats,
                params,
                outputs=outputs,
                choose_formats=len(parts) == 1 and self._corrector.choose_formats and not keeps_length,
            )
            weights[:, :, part] = found.weights
            if is_last:
                bias = found.bias
                self._scales = found.scales
                self._set("fl_params", params, found.params)
                self._set("fl_layer_out", self._formats.layer_out, found.layer_out)
        layer = self._layer
        new = {layer.params[0].key: self._linear.as_stored(weights)}
        if bias is not None and not self._is_normalized:
            new[layer.params[1].key] = bias.astype(np.float32).reshape(layer.params[1].shape)
        return new

    def _input_format(self, divergence: Divergence, layer_in: Fixed) -> Fixed:
        runner = self._float_run.rest_runner(self._position, divergence.prediction.blob.name)

        def measure(candidate: Fixed, batch: int) -> float:
            values = {
                bottom.storage: quantized(self._run.value(bottom, batch), candidate) for bottom in self._layer.bottoms
            }
            return divergence(batch, runner.run(self._run.feeds(batch, values))[OUTPUT])

        return descend(layer_in, len(divergence), measure)

    def _output_format(self, divergence: Divergence, layer_out: Fixed, weights: Mapping[str, Array]) -> Fixed:
        layer = _with_lengths(self._layer, self._lengths)
        layer.message.quantization_param.trim_layer_out = False
        runner = self._run.layer_runner(layer, weights)
        outputs = [runner.run(self._run.feeds(batch))[OUTPUT] for batch in range(len(divergence))]
        top: Blob = self._layer.tops[0]
        rest = None  # the layer's top is the prediction
        if self._predicts(divergence, self._position + 1):
            rest = self._float_run.rest_runner(self._position + 1, divergence.prediction.blob.name)
        scales = np.float32(1.0)
        if self._scales is not None and self._is_normalized:
            scales = self._scales.reshape(1, -1, *(1 for _ in top.shape[2:])).astype(np.float32)

        def measure(candidate: Fixed, batch: int) -> float:
            value = quantized(outputs[batch], candidate) / scales
            if rest is None:
                return divergence(batch, value)
            return divergence(batch, rest.run(self._run.feeds(batch, {top.storage: value}))[OUTPUT])

        return descend(layer_out, len(divergence), measure)


def _matched(position: int, float_run: StepwiseNet, run: StepwiseNet, batches: int) -> dict[str, Array]:
    """The parameters of a BatchNorm that give its top the float net's statistics."""
    layer = run.net.layers[position]
    of_float, own = ChannelStatistics(), ChannelStatistics()
    for batch in range(batches):
        of_float.add(float_run.value(float_run.net.layers[position].bottoms[0], batch))
        own.add(run.value(layer.bottoms[0], batch))
    params = [float_run.net.weights[param.key] for param in layer.params]
    new = matched(params, layer.message.batch_norm_param.eps, of_float, own)
    return {param.key: array.reshape(param.shape) for param, array in zip(layer.params, new, strict=True)}


def _with_lengths(layer: Layer, lengths: Mapping[str, int]) -> Layer:
    message = type(layer.message)()
    message.CopyFrom(layer.message)
    for name, value in lengths.items():
        setattr(message.quantization_param, name, value)
    return replace(layer, message=message)
