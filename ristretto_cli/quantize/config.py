"""The configuration of a quantization; no file is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ristretto_cli.errors import Location
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.quantize.margin import Goal
from ristretto_cli.quantize.pins import Pin, Skip
from ristretto_cli.scoring.execution import Execution

FOLDED_BIAS_BITS = 16  # biases of folded nets are large and many: they get a format of their own


class SearchKind(Enum):
    """The widths that are searched; the values are those of --search."""

    GROUPS = "groups"  # one for each group, of a list
    SMALLEST = "smallest"  # one for each group, of all
    LAYERS = "layers"  # one for each layer


class Minimize(Enum):
    """The cost that a search by layers reduces; the values are those of --minimize."""

    WEIGHTS = "weights"  # the size of the parameters
    BITOPS = "bitops"  # multiply-accumulates times the bits of their factors
    ACTIVATIONS = "activations"  # the memory of activations


@dataclass(frozen=True)
class ReuseOptions:
    """The work that evaluations share. Scores are unaffected.

    prefixes: the layers before the first trimmed one are run once. equal_nets: equal nets are scored once.
    """

    prefixes: bool = True
    equal_nets: bool = True


@dataclass(frozen=True)
class QuantizeConfig:
    """The settings of `ristretto quantize`.

    mode_options: options that the trimming mode declares, by name; missing ones have their defaults.
    error_margin_percent: see Margin. score_goal: None for the score's default. bit_widths: in bits. bw: fixed widths of
    groups, by name, which are then not searched; bw_lines: the lines of a settings file that give some of them. pins:
    fixed widths of parts of layers. minimize, size_limit_kb, bitops_limit: for a search by layers, the cost to reduce,
    or the limit within which to find the best score, in 1,000 bytes or in bit operations for one input. skip: layers
    that stay float. fold_batchnorm: fold normalizations first, and give biases FOLDED_BIAS_BITS unless bw has a width
    for them. weights_folded: the file for the weights then. noscore: score no net; bw must have a width for each group
    with layers. hold_margin: widen a combined net that misses the error margin. early_stop: end a trial as soon as the
    remaining batches cannot change whether it passes. cache_mb: memory for data and values that several nets need, in
    units of 2^20 bytes; 0: no caching.
    """

    model: str
    weights: str
    model_quantized: str
    trimming_mode: str
    mode_options: Mapping[str, str] = field(default_factory=dict)
    iterations: int = 50
    error_margin_percent: float = 2.0
    score: str | None = None
    score_goal: Goal | None = None
    metric_options: MetricOptions = field(default_factory=MetricOptions)
    calibration_iterations: int = 10
    bit_widths: tuple[int, ...] = (16, 8, 4, 2, 1)
    search: SearchKind = SearchKind.GROUPS
    minimize: Minimize = Minimize.WEIGHTS
    size_limit_kb: float | None = None
    bitops_limit: float | None = None
    bw: Mapping[str, int] = field(default_factory=dict)
    bw_lines: Mapping[str, Location] = field(default_factory=dict)
    pins: tuple[Pin, ...] = ()
    skip: tuple[Skip, ...] = ()
    fold_batchnorm: bool = False
    weights_folded: str = ""
    noscore: bool = False
    allow_missing_weights: bool = False
    legacy: bool = False
    hold_margin: bool = True
    early_stop: bool = False
    cache_mb: int = 512
    execution: Execution = field(default_factory=Execution)
    reuse: ReuseOptions = field(default_factory=ReuseOptions)

    @property
    def weights_quantized(self) -> str:
        """The weights file of the quantized net."""
        return self.weights_folded if self.fold_batchnorm else self.weights
