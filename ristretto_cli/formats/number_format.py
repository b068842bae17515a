"""Interfaces of number formats and of trimming modes, which choose formats for the layers of a net.

Each mode is in a file of its own in this package, with its format, and is registered under the name
that --trimming_mode takes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any, ClassVar

from ristretto_cli.caffe_io.messages import Message, enum_name, enum_value
from ristretto_cli.errors import LayerError, RistrettoError, did_you_mean
from ristretto_cli.ops import Array, Grid, Ops, Shape, V
from ristretto_cli.registry import Registry

LOSSLESS_BITS = 32  # the width of values that are not quantized
UNSATURATED_BITS = 16  # activations of at least this width do not saturate
HEADROOM = 1.5  # factor by which activations may exceed the measured range on other data

# The fields of QuantizationParameter for the format of biases: ours, then those of two forks.
BIAS_WIDTHS = ("bw_bias", "bw_bias_params", "bw_params_bias")
BIAS_LENGTHS = ("fl_bias", "fl_bias_params", "fl_params_bias")
BIAS_FIELDS = (*BIAS_WIDTHS, *BIAS_LENGTHS)
# Ours, for schemes that train nets with few bits; a mode names in own_fields those that it reads.
FEW_BIT_FIELDS = ("bw_gradient", "scale_per", "center_params", "clip_params")
UNSIGNED_FIELDS = ("unsigned_layer_in", "unsigned_layer_out")  # ours

FLAG = ("false", "true")  # the choices of a ModeOption that is a flag without a value

MODES: Registry[TrimmingMode] = Registry("trimming mode", __package__ or "", "ristretto.formats")


class Rounding(Enum):
    """The rounding of a value between two neighbours on the grid."""

    NEAREST = "ties to even"
    STOCHASTIC = "up with a probability equal to the distance from the lower neighbour"

    def apply(self, ops: Ops[V], x: V) -> V:
        """x to integers."""
        if self is Rounding.NEAREST:
            return ops.round(x)
        # Not floor(x + u): the sum is inexact, and its rounding would change large integers.
        below = ops.floor(x)
        goes_up = ops.less(ops.uniform(x.shape), ops.sub(x, below))
        return ops.add(below, ops.where(goes_up, ops.constant(1.0), ops.constant(0.0)))


class NumberFormat(ABC):
    """A set of representable numbers, and the rounding of a float32 to it.

    elementwise: whether each element is rounded by itself. Otherwise the numbers depend on the whole array, and
    rounding a rounded array can change it.
    """

    elementwise: ClassVar[bool] = True

    @abstractmethod
    def width(self) -> int:
        """The bits of one number."""

    @property
    @abstractmethod
    def largest(self) -> float:
        """The largest number of the format."""

    @property
    def lowest(self) -> float:
        """The lower end of the values that the format does not saturate."""
        return -self.largest

    def grid(self) -> Grid | None:
        """The grid of its numbers, if they have a fixed step."""
        return None

    def fitted(self, array: Array) -> NumberFormat:
        """The format for the values of a parameter; another one only if the format depends on them."""
        return self

    @abstractmethod
    def quantize(self, ops: Ops[V], x: V, rounding: Rounding) -> V:
        """x with each element rounded to the format; bit-identical on all backends if the format is elementwise."""

    def learnable(self, ops: Ops[V], x: V, rounding: Rounding, *, within: tuple[float, float] | None = None) -> V:
        """x rounded to the format, with the gradient for x that training uses.

        By default the gradient passes straight through; if within, a lower and an upper end, is given, only where x is
        not beyond them. A format with a gradient rule of its own ignores within.
        """
        return ops.straight_through(x, self.quantize(ops, ops.detach(x), rounding), within=within)

    def with_filters_on(self, axis: int | None) -> NumberFormat:
        """The format for an array that has one filter for each index of this axis; None if no axis is that of the
        filters. LayerError if the format needs one then."""
        return self

    def scales(self, shape: Shape) -> int:
        """The number of float32 scales that are stored with an array of this shape."""
        return 0


class Role(Enum):
    """The part of a layer that a width is for; the values occur in QuantizationParameter's field names.

    BIAS: biases with a format of their own. Without it they share that of PARAMS.
    """

    LAYER_IN = "layer_in"
    LAYER_OUT = "layer_out"
    PARAMS = "params"
    BIAS = "bias"


@dataclass(frozen=True)
class Sample:
    """Some of the values of an activation, for choosing its format.

    values: (n,). weights: (n,), how much the squared error of each counts.
    """

    values: Array
    weights: Array

    def above_zero(self) -> Sample:
        """Its positive values."""
        positive = self.values > 0
        return Sample(self.values[positive], self.weights[positive])


@dataclass(frozen=True)
class Ranges:
    """The largest absolute values of a layer's input, output and weights.

    biases: of its biases, if they must stay in range too. input_energy: the mean sum of squares of the
    inputs of one output; it weighs errors of weights against errors of biases.
    weights: the weights themselves; None if not available. samples: of the input and the output, if they were taken.
    never_negative: those of the input and the output that have no negative values that matter.
    """

    layer_in: float
    layer_out: float
    params: float
    biases: tuple[float, ...] = ()
    input_energy: float = 0.0
    weights: Array | None = field(default=None, compare=False)
    samples: Mapping[Role, Sample] = field(default_factory=dict, compare=False)
    never_negative: frozenset[Role] = frozenset()

    def of(self, role: Role) -> float:
        """The range of one role."""
        if role is Role.BIAS:
            return max(map(abs, self.biases), default=0.0)
        return float(getattr(self, role.value))


@dataclass(frozen=True)
class LayerFormats:
    """The number formats of one layer by its QuantizationParameter; None: not quantized.

    gradient: that of the gradients of the outputs, which are rounded stochastically. trains_activations: activations
    are always quantized in phase TRAIN too.
    """

    layer_in: NumberFormat | None
    layer_out: NumberFormat | None
    weights: NumberFormat | None
    bias: NumberFormat | None
    rounding: Rounding
    gradient: NumberFormat | None = None
    trains_activations: bool = False


@dataclass(frozen=True)
class SearchGroup:
    """Widths that are searched together: these roles of these families of layers ("CONV", "FC").

    name: its name in --bw. title: the heading of its scores in the summary. label: of its width there.
    """

    name: str
    title: tuple[str, ...]
    label: str
    families: frozenset[str]
    roles: frozenset[Role]


@dataclass(frozen=True)
class ModeOption:
    """An option of a trimming mode: a command-line flag, `--name`, with a choice of values.

    choices: FLAG for a flag that takes no value. in_legacy: whether it has an effect with --legacy. legacy_default: its
    value with --legacy if it has none, unless that is the default.
    """

    name: str
    help: str
    choices: tuple[str, ...]
    default: str
    in_legacy: bool = True
    legacy_default: str | None = None

    @property
    def is_flag(self) -> bool:
        """Whether it is a flag without a value."""
        return self.choices == FLAG

    def as_json(self, value: str) -> str | bool:
        """A value of it, for JSON."""
        return value == FLAG[True] if self.is_flag else value

    def default_for(self, *, legacy: bool) -> str:
        """The value if none is given."""
        return self.legacy_default if legacy and self.legacy_default is not None else self.default


class TrimmingMode(ABC):
    """A quantization scheme: how the layers of a net are quantized in one number format.

    groups are searched one after another and then combined. A mode with a single group has nothing to
    combine: its last passing trial is the result. optional_groups have a width only if it is given; they are never
    searched. options: the mode's options; see `option`. default_widths: the widths of groups that have none given, for
    a mode that needs no search.
    """

    precision: ClassVar[str]  # its name in QuantizationParameter.Precision
    has_bias_format: ClassVar[bool] = False  # whether biases may have a format of their own
    per_layer: ClassVar[bool] = False  # whether each layer may have widths of its own
    has_unsigned: ClassVar[bool] = False  # whether activations may have an unsigned format
    own_fields: ClassVar[tuple[str, ...]] = ()  # those of FEW_BIT_FIELDS that it reads
    groups: ClassVar[tuple[SearchGroup, ...]]
    optional_groups: ClassVar[tuple[SearchGroup, ...]] = ()
    combined_title: ClassVar[str] = ""  # the summary's heading for the combined groups, if there are several
    fallback_bits: ClassVar[int] = LOSSLESS_BITS  # the width if none is within the margin
    options: ClassVar[tuple[ModeOption, ...]] = ()
    default_widths: ClassVar[Mapping[str, int]] = {}

    def __init__(self) -> None:
        self._chosen: Mapping[str, str] = {}

    def option(self, name: str) -> str:
        """The value of one of this mode's options."""
        return self._chosen.get(name, next(option.default for option in self.options if option.name == name))

    def with_options(self, chosen: Mapping[str, str]) -> TrimmingMode:
        """A copy of the mode with these values of its options, by name; see configured_mode, which checks them."""
        mode = copy(self)
        mode._chosen = dict(chosen)
        return mode

    def groups_with(self, given: Collection[str]) -> tuple[SearchGroup, ...]:
        """The groups, including the optional ones with these names."""
        return (*self.groups, *(group for group in self.optional_groups if group.name in given))

    @abstractmethod
    def layer_formats(self, quantization: Message) -> LayerFormats:
        """The formats described by a QuantizationParameter."""

    @abstractmethod
    def widths(self, offered: Sequence[int], ranges: Sequence[Ranges]) -> list[int]:
        """The widths worth trying in bits, of those offered, largest first."""

    @abstractmethod
    def write(
        self,
        quantization: Message,
        widths: Mapping[Role, int],
        ranges: Ranges,
        *,
        everywhere: Sequence[Ranges],
        legacy: bool,
    ) -> None:
        """Set the fields that give a layer these widths in bits; a width of LOSSLESS_BITS keeps every value. A
        role without a width needs no fields.

        everywhere: the ranges of all layers. legacy: choose as the original does, flaws included.
        """

    def needs_samples(self) -> bool:
        """Whether `write` uses samples of activations."""
        return False

    def needs_same_formats(self) -> bool:
        """Whether an activation must have one format for all layers that write or read it; see quantize/wires.py."""
        return False

    def integer_lengths(self, ranges: Ranges) -> Mapping[Role, int]:
        """The integer bits for a layer's ranges by the original's rule, for the log; empty if the format has
        none. The format that `write` chooses may differ."""
        return {}

    def heading(self, baseline: str) -> list[str]:
        """The summary's lines above the trials; baseline: the float net's score as text."""
        return [
            "Network accuracy analysis for",
            "Convolutional (CONV) and fully",
            "connected (FC) layers.",
            f"Baseline 32bit float: {baseline}",
        ]


def mode_options() -> dict[str, tuple[ModeOption, list[str]]]:
    """The options of all modes by name, each with the names of its modes."""
    found: dict[str, tuple[ModeOption, list[str]]] = {}
    for name, mode in MODES.usable().items():
        for option in mode.options:
            found.setdefault(option.name, (option, []))[1].append(name)
    return found


def configured_mode(name: str, chosen: Mapping[str, str]) -> TrimmingMode:
    """The mode with these values of its options; RistrettoError, listing the choices, for unknown ones."""
    mode = MODES.get(name)
    own = {option.name: option for option in mode.options}
    for key, value in chosen.items():
        if key not in own:
            _, others = mode_options().get(key, (None, []))
            hint = f"Only with {' or '.join(others)}." if others else did_you_mean(key, own)
            raise RistrettoError(
                f'trimming mode "{name}" has no option {key}', hint=hint or f"Options: {', '.join(own) or 'none'}."
            )
        if value not in own[key].choices:
            raise RistrettoError(f'invalid value "{value}" of {key}', hint=f"Use {' or '.join(own[key].choices)}.")
    return mode.with_options(chosen)


def rounding_of(quantization: Message) -> Rounding:
    """The rounding of a QuantizationParameter."""
    return Rounding[enum_name(quantization, "rounding_scheme")]


def set_precision(quantization: Message, mode: TrimmingMode) -> None:
    """Set the mode of a QuantizationParameter; the schema's default is omitted."""
    quantization.ClearField("precision")
    if enum_name(quantization, "precision") != mode.precision:
        quantization.precision = enum_value("QuantizationParameter.Precision", mode.precision)


def layer_formats(quantization: Message) -> LayerFormats:
    """The formats of a layer, read by the mode of its `precision`; None for roles that are not quantized."""
    precision = enum_name(quantization, "precision")
    mode = _mode_of(precision, MODES.registered()) or _mode_of(precision, MODES.usable())
    if mode is None:
        raise LayerError(f"no trimming mode for precision {precision}")
    if has_bias_format(quantization) and not mode.has_bias_format:
        names = [name for name in BIAS_FIELDS if quantization.HasField(name)]
        raise LayerError(
            f"{names[0]}: biases cannot have a format of their own with precision {precision}",
            hint=f"Remove {' and '.join(names)}.",
        )
    unsigned = [name for name in UNSIGNED_FIELDS if quantization.HasField(name)]
    if unsigned and not mode.has_unsigned:
        raise LayerError(
            f"{unsigned[0]}: activations cannot be unsigned with precision {precision}",
            hint=f"Remove {' and '.join(unsigned)}.",
        )
    foreign = [name for name in FEW_BIT_FIELDS if name not in mode.own_fields and quantization.HasField(name)]
    if foreign:
        raise LayerError(f"{foreign[0]} has no meaning with precision {precision}", hint=f"Remove {foreign[0]}.")
    formats = mode.layer_formats(quantization)
    return replace(
        formats,
        layer_in=formats.layer_in if quantization.trim_layer_in else None,
        layer_out=formats.layer_out if quantization.trim_layer_out else None,
        weights=formats.weights if quantization.trim_params else None,
        bias=formats.bias if quantization.trim_params else None,
    )


def has_bias_format(quantization: Message) -> bool:
    """Whether a QuantizationParameter gives biases a format of their own."""
    return any(quantization.HasField(name) for name in BIAS_FIELDS)


def needs_training(quantization: Message) -> bool:
    """Whether a QuantizationParameter has the precision of a mode for nets that are trained with it."""
    mode = _mode_of(enum_name(quantization, "precision"), MODES.usable())
    return mode is not None and bool(mode.default_widths)


def is_unsigned(quantization: Message) -> bool:
    """Whether a QuantizationParameter makes the input or the output unsigned."""
    return any(getattr(quantization, name) for name in UNSIGNED_FIELDS)


def _mode_of(precision: str, modes: Mapping[str, TrimmingMode]) -> TrimmingMode | None:
    """A mode with this precision. All modes with one precision read its fields alike; see trimming_mode."""
    return next((mode for mode in modes.values() if mode.precision == precision), None)


def trimming_mode(*names: str) -> Any:
    """Class decorator: register a TrimmingMode under its name and its old ones.

    A mode that chooses the parameters of another mode's format by a rule of its own has that mode's precision, and
    inherits its `layer_formats`. ValueError for a mode that would read a precision differently, or that has an option
    of the same name as another mode's but not the same.
    """

    def register(cls: type[TrimmingMode]) -> type[TrimmingMode]:
        mode = cls()
        enum_value("QuantizationParameter.Precision", mode.precision)  # KeyError if the schema lacks it
        for name, other in MODES.registered(load=False).items():
            if other.precision == mode.precision and type(other).layer_formats is not cls.layer_formats:
                raise ValueError(f"{name} and {names[0]} interpret precision {mode.precision} differently")
            for option in mode.options:
                if any(option.name == theirs.name and option != theirs for theirs in other.options):
                    raise ValueError(f"{name} and {names[0]} declare option {option.name} differently")
        MODES.register(*names)(mode)
        return cls

    return register
