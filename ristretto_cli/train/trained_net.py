"""The net being trained: its parameters as torch tensors, and forward and backward passes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.errors import RistrettoError
from ristretto_cli.formats.number_format import Rounding
from ristretto_cli.layers.layer_type import LAYERS
from ristretto_cli.net.forward import Run, forward, state_shapes
from ristretto_cli.net.ir import Layer, Net, in_graph
from ristretto_cli.net.param_formats import ParamQuantizer, shared_formats
from ristretto_cli.ops import Array
from ristretto_cli.train.debug_info import backward_lines, forward_lines, keep_gradients
from ristretto_cli.train.host_losses import computed, loss_computer
from ristretto_cli.train.optimizers import Learnable
from ristretto_cli.train.torch_import import import_torch

log = logging.getLogger("ristretto")

Tensor: TypeAlias = Any  # torch may be missing where types are checked


@dataclass(frozen=True)
class TrainOutput:
    """An output blob of a pass: its name, its loss weight (0 if it is not a loss), its values."""

    blob: str
    weight: float
    values: Tensor

    def numbers(self) -> list[float]:
        """The values, flat."""
        return [float(value) for value in self.values.reshape(-1).tolist()]


@dataclass(frozen=True)
class TrainPass:
    """The result of a pass. loss: the weighted sum of all losses, a scalar."""

    loss: Tensor
    outputs: tuple[TrainOutput, ...]


class TrainNet:
    """A net of phase TRAIN with a copy of its weights.

    learnables: its parameters in Caffe's order, shared ones once, each with its multipliers. device: torch's name of
    the device. force_backward: also compute gradients for parameters with lr_mult 0, as in Caffe. trim_activations:
    quantize activations in training too. round_to_nearest: round weights to nearest instead of stochastically. rng: for
    random layers and rounding. update_quantized: updates are added to the quantized weights (see round_weights) instead
    of the full-precision ones.

    RistrettoError for a net without a loss.
    """

    def __init__(
        self,
        net: Net,
        *,
        rng: np.random.Generator,
        device: str = "cpu",
        force_backward: bool = False,
        trim_activations: bool = False,
        round_to_nearest: bool = False,
        update_quantized: bool = False,
    ) -> None:
        self._torch = import_torch()
        from ristretto_cli.backends.torch_ops import TorchOps

        self.net = net
        self._device = device
        self._rng = rng
        self._ops: Any = TorchOps(rng, device=device)
        self._trim_activations = trim_activations
        self._round_to_nearest = round_to_nearest
        self._update_quantized = update_quantized
        if not any(weight for layer in net.layers for weight in layer.loss_weights):
            raise RistrettoError(
                "the net has no loss, so it cannot be trained",
                where=net.file,
                hint="Add a loss layer for phase TRAIN.",
            )
        self.learnables = self._learnables(force_backward)
        self._values = {param.key: param.tensor for param in self.learnables}
        self._learned = [param.tensor for param in self.learnables if param.tensor.requires_grad]
        self._states = {key: self._tensor(np.zeros(shape, np.float32)) for key, shape in state_shapes(net).items()}
        self._loss_weights = {
            blob.name: weight
            for layer in net.layers
            for blob, weight in zip(layer.tops, layer.loss_weights, strict=True)
        }

    def clear_gradients(self) -> None:
        """Reset the sums of gradients."""
        for tensor in self._learned:
            tensor.grad = None

    def forward(self, batch: Mapping[str, Array]) -> TrainPass:
        """A pass without gradients; it updates running statistics, as in Caffe."""
        with self._torch.no_grad():
            _, after = self._forward(batch)
            return after()

    def forward_backward(self, batch: Mapping[str, Array], *, debug: bool = False) -> TrainPass:
        """A pass whose gradients are added to the `grad` of each trained parameter. debug: log debug_info."""
        runs: list[Run[Any]] = []
        loss, after = self._forward(batch, runs if debug else None)
        if loss.requires_grad:
            loss.backward()
        for run in runs:
            _log(backward_lines(self.net, run, self._values))
        with self._torch.no_grad():
            return after()

    def weights(self) -> dict[str, Array]:
        """All parameters by Param.key; on a CPU, views that change with them."""
        return {param.key: param.tensor.detach().cpu().numpy() for param in self.learnables}

    def set_weights(self, weights: Mapping[str, Array]) -> None:
        """Set parameters by Param.key; others stay unchanged."""
        with self._torch.no_grad():
            for param in self.learnables:
                if param.key in weights:
                    param.tensor.copy_(self._tensor(weights[param.key]))

    def round_weights(self) -> None:
        """Quantize the weights themselves, if updates are for quantized ones, as the next pass would round them.

        Each update is then lost unless it leads to another number of the format. Weights whose format is not
        elementwise stay as they are.
        """
        if not self._update_quantized:
            return
        rounding = Rounding.NEAREST if self._round_to_nearest else Rounding.STOCHASTIC
        formats = shared_formats(self.net, rounding)
        quantizer = ParamQuantizer(self._rng)
        weights = self.weights()
        self.set_weights(
            {
                key: quantizer.quantize(key, weights[key], each)
                for key, each in formats.items()
                if each is not None and each.number_format.elementwise
            }
        )

    def _forward(
        self, batch: Mapping[str, Array], runs: list[Run[Any]] | None = None
    ) -> tuple[Tensor, Callable[[], TrainPass]]:
        """The loss of a pass, and a function that updates statistics and returns the result.

        No other reference to the run is held, so that backward can release values. runs: receives the run, for debug.
        """
        feeds = {blob.name: self._tensor(batch[blob.name]) for blob in in_graph(self.net.inputs)}
        wanted = computed(self.net, self.net.outputs)
        run: Run[Any] = forward(
            self.net,
            self._ops,
            feeds,
            rng=self._rng,
            states=self._states,
            params=self._values,
            trim_activations=self._trim_activations,
            round_to_nearest=self._round_to_nearest,
            keep=[blob.name for blob in wanted] if runs is None else None,
            compute_loss=loss_computer(batch, self._ops),
            to_array=lambda value: value.detach().cpu().numpy(),
        )
        if runs is not None:
            runs.append(run)
            _log(forward_lines(self.net, run, self._values))
            keep_gradients(run)
        loss: Any = run.loss
        updates = {key: value.detach() for key, value in run.updates.items()}
        self._states = {key: value.detach() for key, value in run.states.items()}
        outputs = tuple(
            TrainOutput(blob.name, self._loss_weights[blob.name], run.final[blob.name].detach()) for blob in wanted
        )

        def after() -> TrainPass:
            # Statistics are updated only now: backward may need the previous ones.
            for key, value in updates.items():
                self._values[key].copy_(value)
            return TrainPass(loss.detach(), outputs)

        return loss, after

    def _tensor(self, array: Array) -> Tensor:
        # torch warns of read-only arrays, although nothing writes to them here.
        ready = np.ascontiguousarray(array, np.float32).reshape(np.shape(array))
        if not ready.flags.writeable:
            ready = ready.copy()
        tensor = self._torch.from_numpy(ready)
        return tensor if self._device == "cpu" else tensor.to(self._device)

    def _learnables(self, force_backward: bool) -> list[Learnable]:
        users: dict[str, list[tuple[Layer, int]]] = {}
        for layer in self.net.layers:
            for i, param in enumerate(layer.params):
                users.setdefault(param.key, []).append((layer, i))
        found = []
        for key, places in users.items():
            tensor = self._tensor(self.net.weights[key]).clone()
            owner, index = places[0]
            if index in LAYERS.get(owner.type).statistics(owner.message):
                found.append(Learnable(key, tensor, 0.0, _multiplier(places, "decay_mult")))
                continue
            rate = _multiplier(places, "lr_mult")
            tensor.requires_grad_(rate != 0 or force_backward)
            found.append(Learnable(key, tensor, rate, _multiplier(places, "decay_mult")))
        return found


def _log(lines: Iterator[str]) -> None:
    for line in lines:
        log.info("%s", line)


def _multiplier(places: list[tuple[Layer, int]], field: str) -> float:
    """The multiplier that a layer sets, or 1; layers that share a parameter agree."""
    for layer, index in places:
        specs = layer.message.param
        if index < len(specs) and specs[index].HasField(field):
            return float(getattr(specs[index], field))
    return 1.0
