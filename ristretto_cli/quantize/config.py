"""The configuration of a quantization; no file is read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from ristretto_cli.corrections.corrector import Method
from ristretto_cli.errors import Location
from ristretto_cli.formats.activations import FlLayer
from ristretto_cli.formats.number_format import FLAG
from ristretto_cli.layers.host_layer import MetricOptions
from ristretto_cli.quantize.margin import DEFAULT_MARGIN, DEFAULT_MIN_SQNR, Goal, Margin, Unit
from ristretto_cli.quantize.pins import Pin, Skip
from ristretto_cli.scoring.execution import Execution
from ristretto_cli.scoring.user_data import UserData

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
    float_outputs: the float net is run once for comparisons with it.
    """

    prefixes: bool = True
    equal_nets: bool = True
    float_outputs: bool = True


@dataclass(frozen=True)
class QuantizeConfig:
    """The settings of `ristretto quantize`.

    mode_options: options that the trimming mode declares, by name; missing ones have their defaults.
    error_margin_percent, error_margin_absolute: see Margin; at most one is given, by default DEFAULT_MARGIN percent.
    min_sqnr: the lowest allowed signal to noise ratio in dB, by default DEFAULT_MIN_SQNR; only for that score.
    score_goal: None for the score's default. bit_widths: in bits. bw: fixed widths of
    groups, by name, which are then not searched; bw_lines: the lines of a settings file that give some of them. pins:
    fixed widths of parts of layers. minimize, size_limit_kb, bitops_limit: for a search by layers, the cost to reduce,
    or the limit within which to find the best score, in 1,000 bytes or in bit operations for one input. skip: layers
    that stay float. fold_batchnorm: fold normalizations first, and give biases FOLDED_BIAS_BITS unless bw has a width
    for them. weights_folded: the file for the weights then. noscore: score no net; bw must have a width for each group
    with layers. hold_margin: widen a combined net that misses the error margin. early_stop: end a trial as soon as the
    remaining batches cannot change whether it passes. cache_mb: memory for data and values that several nets need, in
    units of 2^20 bytes; 0: no caching. weights_quantized: the file for corrected weights; empty: none are corrected.
    methods: of correction. calibration_images: those that corrections use. seed: for what corrections choose at random.
    data: the user's, for inputs of the net, which is then calibrated and scored on it.
    """

    model: str
    weights: str
    model_quantized: str
    trimming_mode: str
    mode_options: Mapping[str, str] = field(default_factory=dict)
    iterations: int = 50
    error_margin_percent: float | None = None
    error_margin_absolute: float | None = None
    min_sqnr: float | None = None
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
    weights_quantized: str = ""
    methods: tuple[Method, ...] = tuple(Method)
    calibration_images: int = 1024
    seed: int = 0
    noscore: bool = False
    allow_missing_weights: bool = False
    legacy: bool = False
    hold_margin: bool = True
    early_stop: bool = False
    cache_mb: int = 512
    execution: Execution = field(default_factory=Execution)
    data: UserData | None = None
    reuse: ReuseOptions = field(default_factory=ReuseOptions)

    def margin(self, baseline: float, goal: Goal, *, decibels: bool = False) -> Margin:
        """The error margin of scores with this baseline and goal. decibels: the score is a signal to noise ratio."""
        if decibels:
            lowest = DEFAULT_MIN_SQNR if self.min_sqnr is None else self.min_sqnr
            return Margin(baseline, lowest, of_unit=Unit.DECIBELS)
        if self.error_margin_absolute is not None:
            return Margin(baseline, self.error_margin_absolute, goal=goal, of_unit=Unit.SCORE)
        percent = DEFAULT_MARGIN if self.error_margin_percent is None else self.error_margin_percent
        return Margin(baseline, percent, exact=self.legacy, goal=goal)

    @property
    def weights_written(self) -> str:
        """The weights file of the quantized net."""
        return self.weights_quantized or (self.weights_folded if self.fold_batchnorm else self.weights)

    @property
    def descends(self) -> bool:
        """Whether the fractional lengths of activations are chosen by the divergence of the outputs."""
        return self.mode_options.get("fl_layer") == FlLayer.KL.value

    @property
    def has_same_formats(self) -> bool:
        """Whether the layers that write and read a blob need the same format for it."""
        return self.mode_options.get("same_formats") == FLAG[True]

    @property
    def corrects(self) -> bool:
        """Whether quantized nets are corrected before they are scored."""
        return bool(self.weights_quantized) or self.descends
