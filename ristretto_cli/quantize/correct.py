"""The corrections of the nets of a search: the calibration data, each net once, and the weights of the result."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from ristretto_cli.caffe_io.messages import message_class
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.corrections.corrector import Correction, Corrector
from ristretto_cli.corrections.float_net import easier_weights
from ristretto_cli.errors import RistrettoError
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import with_weights
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.quantize.prepare import Prepared
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.step_timer import StepTimer

log = logging.getLogger("ristretto")

_IMAGES_FOR_RANGES = 256  # of channels
_IMAGES_IN_SHORT = 256  # a search by layers compares more than a hundred nets


@dataclass(frozen=True)
class CorrectedNet:
    """A quantized net with its corrected formats, and the corrected parameters by Param.key."""

    net_file: NetFile
    weights: Mapping[str, Array]

    @property
    def nbytes(self) -> int:
        """The memory of the parameters."""
        return sum(array.nbytes for array in self.weights.values())


class NetCorrector:
    """Corrects quantized nets as the configuration says; without corrections it returns them as they are."""

    def __init__(self, prepared: Prepared, timer: StepTimer) -> None:
        self._prepared = prepared
        self._timer = timer
        self._correctors: dict[int, Corrector] = {}  # by the number of images
        self._known: dict[tuple[int, bytes], CorrectedNet] = {}  # the one used last is at the end

    def correct(self, net_file: NetFile, *, in_short: bool = False) -> CorrectedNet:
        """A quantized net, corrected. in_short: with fewer images, to compare nets with each other."""
        config = self._prepared.config
        if not config.corrects:
            return CorrectedNet(net_file, {})
        images = min(config.calibration_images, _IMAGES_IN_SHORT) if in_short else config.calibration_images
        key = images, bytes(net_file.message.SerializeToString(deterministic=True))
        if key not in self._known:
            with self._timer.measure("correcting"):
                if images not in self._correctors:
                    self._correctors[images] = self._new_corrector(images)
                correction = self._correctors[images].correct(self._prepared.calibration_net(net_file))
            found = CorrectedNet(_with_lengths(net_file, correction), correction.weights)
        else:
            found = self._known.pop(key)
        self._known[key] = found
        while len(self._known) > 1 and sum(each.nbytes for each in self._known.values()) > config.cache_mb << 20:
            del self._known[next(iter(self._known))]  # it would be corrected again in the same way
        return found

    def _new_corrector(self, images: int) -> Corrector:
        config = self._prepared.config
        net = self._prepared.calibration_net(self._prepared.net_file)
        batches = _first_batches(net, CachedBatches(net, None, config.data, check_labels=False), images)
        found = len(batches) * _batch_size(net)
        if found < images:
            log.info("Correcting with %d images, all that the data have.", found)
        return Corrector(
            net,
            batches,
            methods=config.methods if config.weights_quantized else (),
            by_divergence=config.descends,
            choose_formats=self._prepared.mode.per_layer and not config.has_same_formats,
            shifts_scores=self._prepared.metric is None or not self._prepared.metric.in_decibels,
            execution=config.execution,
            memory_bytes=config.cache_mb << 20,
            seed=config.seed,
        )


def easier_to_quantize(prepared: Prepared, timer: StepTimer) -> Prepared:
    """The same float net with weights that are easier to quantize, if weights are corrected."""
    config = prepared.config
    if not config.weights_quantized or prepared.weights is None:
        return prepared
    with timer.measure("correcting"):
        net = prepared.calibration_net(prepared.net_file)
        images = min(config.calibration_images, _IMAGES_FOR_RANGES)
        batches = _first_batches(net, CachedBatches(net, None, config.data, check_labels=False), images)
        changed = easier_weights(net, config.methods, batches, config.execution)
    return replace(
        prepared,
        weights=with_weights(prepared.weights, prepared.net, changed),
        net=replace(prepared.net, weights={**prepared.net.weights, **changed}),
    )


def _first_batches(net: Net, source: CachedBatches, images: int) -> list[dict[str, AnyArray]]:
    """The batches with the first `images` images of the data, or with all of them if there are fewer."""
    batches: list[dict[str, AnyArray]] = []
    size = _batch_size(net)
    with source.reader() as reader:
        for _ in range(-(-images // size)):
            batch = reader.next()
            if not reader.has_own_shapes or any(layer.feeds_graph for layer in net.layers):
                raise RistrettoError(
                    "corrections (--weights_quantized, --fl_layer kl) need batches of one shape",
                    where=net.file,
                    hint="Omit them, or use images of one size, such as with crop_size.",
                )
            if batches and _starts_again(batches[0], batch, size):
                break
            batches.append(batch)
    return batches


def _batch_size(net: Net) -> int:
    return max((blob.shape[0] for blob in net.inputs if blob.shape), default=1)


def _starts_again(first: Mapping[str, AnyArray], batch: Mapping[str, AnyArray], size: int) -> bool:
    """Whether a batch ends with the first images of all: the data began again."""
    arrays = [(first[name], array) for name, array in batch.items() if array.ndim > 1 and len(array) == size]
    return bool(arrays) and any(
        all(np.array_equal(one[: size - i], other[i:]) for one, other in arrays) for i in range(size)
    )


def _with_lengths(net_file: NetFile, correction: Correction) -> NetFile:
    message = message_class("NetParameter")()
    message.CopyFrom(net_file.message)
    for layer in message.layer:
        for name, length in correction.lengths.get(layer.name, {}).items():
            setattr(layer.quantization_param, name, length)
    return replace(net_file, message=message)
