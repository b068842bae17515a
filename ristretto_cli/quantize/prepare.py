"""Preparation: read the files, build the nets, find the layers to trim and the score, and check everything."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ristretto_cli.caffe_io.messages import TEST, TRAIN, Message
from ristretto_cli.caffe_io.net_file import NetFile, read_net
from ristretto_cli.caffe_io.weights import WeightsFile, read_weights
from ristretto_cli.errors import Location, RistrettoError
from ristretto_cli.formats.number_format import LOSSLESS_BITS, Ranges, Role, TrimmingMode, configured_mode
from ristretto_cli.net.build import NetState, build, build_layers, included
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.net.weights import load_weights
from ristretto_cli.quantize.config import FOLDED_BIAS_BITS, QuantizeConfig, SearchKind
from ristretto_cli.quantize.distortion import Prediction, prediction_at, predictions_of
from ristretto_cli.quantize.early_stopping import check_early_stop
from ristretto_cli.quantize.fold import FoldedNet, fold_net
from ristretto_cli.quantize.layer_search import NetCosts, knobs, objective_of, smallest_cost
from ristretto_cli.quantize.margin import Goal
from ristretto_cli.quantize.pins import Pins, is_pinned, pin_lines, resolved_pins, skipped_layers
from ristretto_cli.quantize.search import searched_groups
from ristretto_cli.quantize.trimmable import family_of, is_in, trimmable_layers
from ristretto_cli.scoring.comparisons import (
    Comparison,
    SignalToNoise,
    companions,
    comparison_of,
    default_comparison,
    names_comparison,
)
from ristretto_cli.scoring.metrics import (
    check_metric_options,
    check_score,
    default_score,
    detection_score,
    heads,
    is_loss,
    scored,
)
from ristretto_cli.scoring.scores import Scores, number
from ristretto_cli.scoring.user_data import check_has_data
from ristretto_cli.sources.augmentation import without_augmentation
from ristretto_cli.sources.open import DataLayers

log = logging.getLogger("ristretto")


class UnsuitableFlags(RistrettoError):
    """The flags contradict each other, which shows only once the net is known."""


class MissingWidths(UnsuitableFlags):
    """Bit widths are missing that only a search could find, but nothing is to be scored."""


@dataclass(frozen=True)
class Metric:
    """The output that nets are compared by, and which values of it are better.

    first_element: of an output with several elements the first one counts, otherwise their mean. comparison: with the
    float net, if the score is one; blob is its name then. companions: further comparisons, to report.
    """

    blob: str
    goal: Goal
    first_element: bool = False
    comparison: Comparison | None = None
    companions: tuple[Comparison, ...] = ()

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons with the float net."""
        return () if self.comparison is None else (self.comparison, *self.companions)

    @property
    def in_decibels(self) -> bool:
        """Whether the score is a signal to noise ratio."""
        return isinstance(self.comparison, SignalToNoise)

    @property
    def meaning(self) -> str:
        """The meaning of a comparison; empty for outputs of the net."""
        return "" if self.comparison is None else self.comparison.meaning

    def predictions(self, net: Net) -> list[Prediction]:
        """The predictions that the metric depends on. Raises RistrettoError if there are none."""
        return predictions_of(net, self.blob) if self.comparison is None else [prediction_at(net, self.comparison.blob)]

    def value(self, scores: Scores) -> float:
        """The metric's value among the scores of a net."""
        output = next((output for output in scores.outputs if output.blob == self.blob), None)
        if output is None:
            raise RistrettoError(
                f'the output "{self.blob}" is larger for some images than for others, so it has no mean',
                hint=f"Choose another one with --score, or --score sqnr:{self.blob}.",
            )
        return float(output.means[0]) if self.first_element else output.score


@dataclass(frozen=True)
class Prepared:
    """The float net of phase TEST with everything known about it before it is run.

    weights: None in a dry run, where nets have no weights. trimmable: the layers that can be trimmed. metric: None
    if no net is scored. rng: for fillers and random layers. folded: the result of folding; net_file, weights and net
    are those of the folded net then. skipped: layers that could be trimmed, but stay float. pins: fixed widths of parts
    of layers.
    """

    config: QuantizeConfig
    mode: TrimmingMode
    net_file: NetFile
    weights: WeightsFile | None
    net: Net
    trimmable: tuple[Layer, ...]
    metric: Metric | None
    rng: np.random.Generator
    folded: FoldedNet | None = None
    skipped: tuple[Layer, ...] = ()
    pins: Pins = field(default_factory=dict)

    def check_given_widths(self, ranges: Sequence[Ranges]) -> None:
        """RistrettoError for a fixed width that the mode does not offer for layers with these ranges."""
        possible = self.mode.widths(range(1, LOSSLESS_BITS + 1), ranges)
        for name, bits in self.config.bw.items():
            if bits not in possible:
                low, high = min(possible), max(possible)
                to = "to" if len(possible) > 2 or high - low < 2 else "or"
                line = self.config.bw_lines.get(name)
                given = f"--bw {name}={bits}" if line is None else f"{name}: {bits}"
                raise RistrettoError(
                    f"{given}: {self.config.trimming_mode} has no such width for this net",
                    where=line or self.config.model,
                    hint=f"Use {low} {to} {high} bits." if low < high else f"Use {low} bits.",
                )

    def has_given_width(self, layer: Layer, role: Role) -> bool:
        """Whether the width of a part of a layer is given, for it or for its group."""
        family = family_of(layer)
        groups = (group for group in self.mode.groups if family in group.families and role in group.roles)
        return role in self.pins.get(layer.name, {}) or any(group.name in self.config.bw for group in groups)

    def widest(self) -> dict[str, dict[Role, int]]:
        """All parts of the layers with their given widths, or 32 bits."""
        found: dict[str, dict[Role, int]] = {}
        for layer in self.trimmable:
            roles = found.setdefault(layer.name, {})
            for group in self.mode.groups_with(self.config.bw):
                if is_in(group, family_of(layer), layer):
                    roles.update(dict.fromkeys(group.roles, self.config.bw.get(group.name, LOSSLESS_BITS)))
            roles.update(self.pins.get(layer.name, {}))
        return found

    def calibration_net(self, quantized: NetFile | None = None) -> Net:
        """The net for calibration: on TRAIN data, or the TEST net itself if there are none, or data of the user.

        quantized: the same net with other layers, to get its calibration net instead.
        """
        data = DataLayers()
        if quantized is not None:
            layers = None if self.config.data is not None else _with_train_data(quantized, data)
            test = build(quantized, NetState(TEST), data) if layers is None else None
            return self._load(test or build_layers(quantized, layers or [], TEST, data))
        if self.config.data is not None:
            return self.net
        if self.config.legacy:
            return self._load(build(self.net_file, NetState(TRAIN), data))
        # DIFFERS(D2): the net as it will be used, on its training data.
        net = net_on_train_data(self.net_file, data)
        return self.net if net is None else self._load(net)

    def _load(self, net: Net) -> Net:
        return _load(net, self.weights, self.config, self.rng, check_formats=False)  # they were checked before


def prepare(config: QuantizeConfig, *, dry_run: bool = False) -> Prepared:
    """Read the net and, unless it is a dry run, its weights. Raises RistrettoError(s) for errors in either."""
    mode, given = configured_mode(config.trimming_mode, config.mode_options), config.bw
    if mode.default_widths and config.corrects:
        raise RistrettoError(
            f"--weights_quantized cannot correct the weights of {config.trimming_mode}: the net is trained instead",
            hint="Omit --weights_quantized, and train the quantized net.",
        )
    config = replace(config, bw={**mode.default_widths, **config.bw})
    rng = np.random.default_rng(0)
    net_file = read_net(config.model)
    weights = None if dry_run else read_weights(config.weights)
    net = _load(build(net_file, NetState(TEST), DataLayers()), weights, config, rng)
    folded = None
    if config.fold_batchnorm:
        biases = {group.name: FOLDED_BIAS_BITS for group in mode.optional_groups if Role.BIAS in group.roles}
        config = replace(config, bw={**biases, **config.bw})
        if weights is not None:
            folded = fold_net(net_file, net, weights, NetState(TEST))
            net_file, weights = folded.net_file, folded.weights
            net = _load(build(net_file, NetState(TEST), DataLayers()), weights, config, rng)
    if config.data is not None:
        config.data.check(net)
        config = replace(
            config,
            iterations=config.iterations
            if config.noscore
            else config.data.iterations(net, config.iterations, "Scoring"),
            calibration_iterations=config.data.iterations(net, config.calibration_iterations, "Calibration"),
        )
    trimmable = tuple(trimmable_layers(net, legacy=config.legacy))
    if not trimmable and not config.legacy:
        raise RistrettoError(
            "the net has no layers to quantize",
            where=config.model,
            hint="Only Convolution and InnerProduct layers can be quantized.",
        )
    skipped = tuple(skipped_layers(config.skip, net, trimmable))
    trimmable = tuple(layer for layer in trimmable if layer not in skipped)
    if skipped and not trimmable:
        raise RistrettoError("all layers that can be quantized are skipped", where=config.model)
    pins = resolved_pins(config.pins, net, trimmable, skipped, mode, config.trimming_mode)
    prepared = Prepared(config, mode, net_file, weights, net, trimmable, None, rng, folded, skipped, pins)
    _log_settings(prepared)
    prepared.check_given_widths([])
    _warn_of_unused_widths(prepared, given)
    if config.search is SearchKind.LAYERS:
        _check_layer_search(prepared)
    metric = _metric(prepared)
    if metric is not None:
        check_metric_options([net], config.metric_options, config.model)
        if config.early_stop:
            check_early_stop(net, metric.blob, metric.comparison)
        if config.search is SearchKind.LAYERS:
            metric.predictions(net)  # raises an error if there are none
    return replace(prepared, metric=metric)


def _load(
    net: Net,
    weights: WeightsFile | None,
    config: QuantizeConfig,
    rng: np.random.Generator,
    *,
    check_formats: bool = True,
) -> Net:
    if weights is None:
        return net
    allow_missing = config.allow_missing_weights
    return load_weights(net, weights, rng=rng, allow_missing=allow_missing, check_formats=check_formats)


def _log_settings(prepared: Prepared) -> None:
    """Log which widths are pinned, and which layers stay float."""
    for line in pin_lines(prepared.trimmable, prepared.pins):
        log.info("Pinned: %s.", line)
    for layer in prepared.skipped:
        log.info("Skipped: %s (%s) stays float.", layer.name, layer.type)


def _warn_of_unused_widths(prepared: Prepared, given: Collection[str]) -> None:
    for group in prepared.mode.groups_with(given):
        found = any(is_in(group, family_of(layer), layer) for layer in prepared.trimmable)
        if group.name in given and not found:
            others = "other " if any(is_in(group, family_of(layer), layer) for layer in prepared.skipped) else ""
            log.warning("--bw %s has no effect: the net has no %slayers of this group.", group.name, others)
        elif group.name in given and is_pinned(group, prepared.trimmable, prepared.pins):
            log.warning("--bw %s has no effect: all layers of this group have widths of their own.", group.name)


def _check_layer_search(prepared: Prepared) -> None:
    """RistrettoError if a search by layers has nothing to search, or cannot meet its limit."""
    config = prepared.config
    objective, costs = objective_of(config), NetCosts(prepared.net)
    base = prepared.widest()
    found = knobs(objective, costs.model, base, prepared.has_given_width)
    if not found:
        raise RistrettoError(
            "--search=layers has nothing to search: all widths that affect this cost are given", where=config.model
        )
    if objective.limit is None:
        return
    smallest = smallest_cost(objective, costs, found, base)
    if smallest > objective.limit:
        if config.size_limit_kb is not None:
            limit, least = f"--size_limit_kb={number(config.size_limit_kb)}", f"{smallest / 8000:.1f} kB"
        else:
            limit, least = f"--bitops_limit={number(objective.limit)}", f"{smallest:.4g} bit operations"
        raise RistrettoError(
            f"{limit} cannot be met", where=config.model, hint=f"The smallest net of the search has {least}."
        )


def _metric(prepared: Prepared) -> Metric | None:
    """The metric by which nets are compared; None if no net is scored."""
    config, net = prepared.config, prepared.net
    searched = searched_groups(prepared.mode, prepared.trimmable, config.bw, prepared.pins, legacy=config.legacy)
    if config.noscore:
        if searched:
            raise MissingWidths(
                f"--noscore needs all widths, but --bw does not give {', '.join(searched)}",
                hint=f"Add {','.join(f'{name}=8' for name in searched)}, for example.",
            )
        return None
    check_has_data(net, config.data)
    try:
        metric = _chosen_metric(config, net)
    except UnsuitableFlags:
        raise
    except RistrettoError as error:
        if searched or config.score is not None:
            raise
        log.warning(
            "All widths are given, so the net is written without scoring; scoring flags have no effect. %s", error
        )
        return None
    _check_margin(config, metric)
    return metric


def _chosen_metric(config: QuantizeConfig, net: Net) -> Metric:
    comparison = None
    if config.metric_options.detection:
        check_metric_options([net], config.metric_options, config.model)
    if config.score is not None and not config.legacy:
        comparison = comparison_of(net, config.score)
    elif config.score is None and not config.legacy and not heads(net):
        comparison = default_comparison(net)
    if comparison is not None:
        return Metric(comparison.name, Goal.MAX, comparison=comparison, companions=tuple(companions(net, comparison)))
    if config.score is not None:
        if config.legacy and names_comparison(net, config.score):
            raise UnsuitableFlags(f"--score {config.score} has no effect with --legacy, which scores by outputs only")
        blob = check_score(net, config.score)
    elif config.legacy:
        blob = scored(net)[0].name
    else:
        blob = detection_score(net) if config.metric_options.detection else default_score(net)  # DIFFERS(D7)
    return Metric(blob, _goal(config, net, blob), first_element=config.legacy)


def _check_margin(config: QuantizeConfig, metric: Metric) -> None:
    """UnsuitableFlags for flags of the margin and of the goal that do not apply to the score."""
    decibels = metric.in_decibels
    unused = {
        "--error_margin": decibels and config.error_margin_percent is not None,
        "--error_margin_absolute": decibels and config.error_margin_absolute is not None,
        "--min_sqnr": not decibels and config.min_sqnr is not None,
        "--score_goal": metric.comparison is not None and config.score_goal is not None,
    }
    flags = [flag for flag, is_unused in unused.items() if is_unused]
    if flags:
        raise UnsuitableFlags(
            f"{', '.join(flags)}: no effect with the score {metric.blob}",
            hint="Its lowest allowed value is --min_sqnr, in dB." if decibels else "",
        )


def _goal(config: QuantizeConfig, net: Net, blob: str) -> Goal:
    if config.score_goal is not None:
        return config.score_goal
    return Goal.MAX if config.legacy or not is_loss(net, blob) else Goal.MIN


def net_on_train_data(net_file: NetFile, data: DataLayers) -> Net | None:
    """The net of phase TEST, without weights, on the data of TRAIN without augmentation; None if TRAIN has none that
    fit, which is logged."""
    layers = _with_train_data(net_file, data)
    if layers is None:
        log.warning("%s has no data layers for TRAIN: calibrating on TEST data.", net_file.file)
        return None
    _log_omitted_augmentation(net_file, data)
    return build_layers(net_file, layers, TEST, data)


def _with_train_data(net_file: NetFile, data: DataLayers) -> list[tuple[Message, Location]] | None:
    """The layers of phase TEST with the data layers of TRAIN, without their augmentation; None if TRAIN has none that
    fit."""
    test = list(included(net_file, NetState(TEST)))
    train = [(message, where) for message, where in included(net_file, NetState(TRAIN)) if message.type in data]
    made = {top for message, _ in train for top in message.top}
    needed = {top for message, _ in test if message.type in data for top in message.top}
    if not train or not needed <= made:
        return None
    rest = [(message, where) for message, where in test if message.type not in data]
    return [*((without_augmentation(message)[0], where) for message, where in train), *rest]


def _log_omitted_augmentation(net_file: NetFile, data: DataLayers) -> None:
    train = [message for message, _ in included(net_file, NetState(TRAIN)) if message.type in data]
    omitted = dict.fromkeys(name for message in train for name in without_augmentation(message)[1])
    if omitted:
        log.info("Calibrating without the augmentation of the training data: %s.", ", ".join(omitted))
