"""A quantize job from its flags to its outcome: baseline, ranges, search, the net to be written."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from functools import partial

import numpy as np

from ristretto_cli.errors import RistrettoError, Where
from ristretto_cli.formats.number_format import LOSSLESS_BITS, MODES, Ranges, Role, TrimmingMode
from ristretto_cli.layers.average_precision import ApVersion
from ristretto_cli.layers.host_layer import Judging
from ristretto_cli.net.build import State, build, build_layers, included
from ristretto_cli.net.ir import Net
from ristretto_cli.net.weights import load_weights
from ristretto_cli.quantize.early import EarlyVerdict, check_early_stop
from ristretto_cli.quantize.plan import Trimmable, Widths, family_of, trimmable_layers, trimmed
from ristretto_cli.quantize.search import Asked, Goal, Margin, Result, Scored, search
from ristretto_cli.quantize.trials import Device, Sharing, Trials
from ristretto_cli.scoring.batches import Batches
from ristretto_cli.scoring.calibrate import Probe, measure_ranges
from ristretto_cli.scoring.engine import log_device
from ristretto_cli.scoring.outputs import check_score, default_score, is_loss, scored
from ristretto_cli.scoring.score import OnBatch, Pass, Scores, Until, ignore_progress
from ristretto_cli.scoring.shelf import Shelf
from ristretto_cli.scoring.stopwatch import Stopwatch
from ristretto_cli.sources.open import DataLayers
from ristretto_cli.wire.messages import TEST, TRAIN, Message
from ristretto_cli.wire.net_file import NetFile, read_net
from ristretto_cli.wire.weights import WeightsFile, read_weights

log = logging.getLogger("ristretto")

_IN_THE_LOG = {Role.LAYER_IN: "input", Role.LAYER_OUT: "output", Role.PARAMS: "parameters"}


class FlParams(Enum):
    """How the fractional length of weights is chosen; the value is the word that --fl_params takes."""

    MAX = "max"  # the largest weight is kept
    MSE = "mse"  # the squared error is least


@dataclass(frozen=True)
class Job:
    """What `ristretto quantize` was asked for.

    error_margin_percent is what search.Margin takes. score_goal None: what suits the score. bit_widths are in bits.
    bw: widths of groups that are not searched, by name. fl_params: for dynamic fixed point.
    early_stop: a trial ends as soon as its verdict is known. cache_mb: how much memory, in units of 2^20 bytes, may be
    spent on data and values that several nets need; 0: all is read and computed anew. threads: 0 for the default.
    """

    model: str
    weights: str
    model_quantized: str
    trimming_mode: str
    iterations: int = 50
    error_margin_percent: float = 2.0
    gpu: int | None = None
    score: str | None = None
    score_goal: Goal | None = None
    ap_version: ApVersion = ApVersion.INTEGRAL
    calibration_iterations: int = 10
    bit_widths: tuple[int, ...] = (16, 8, 4, 2, 1)
    bw: Mapping[str, int] = field(default_factory=dict)
    fl_params: FlParams = FlParams.MAX
    allow_missing_weights: bool = False
    legacy: bool = False
    early_stop: bool = False
    cache_mb: int = 512
    threads: int = 0
    sharing: Sharing = field(default_factory=Sharing)


@dataclass(frozen=True)
class Outcome:
    """What a job found, and the net to be written. margin: what trials were held to, with the baseline."""

    mode: TrimmingMode
    score_blob: str
    margin: Margin
    baseline_scores: Scores
    layers: tuple[Trimmable, ...]
    result: Result
    net_file: NetFile

    @property
    def baseline(self) -> float:
        """The float net's score."""
        return self.margin.baseline


def quantize(job: Job, *, on_batch: OnBatch = ignore_progress) -> Outcome:
    """Run a job; nothing is written.

    Raises RistrettoError(s) for whatever is wrong with the net, its weights or its data.
    """
    log_device(job.gpu)
    return _Quantizer(job, on_batch).run()


def planned_nets(job: Job) -> list[str]:
    """The nets that a job would score, in order, a line each, if every width passed; checks what it can."""
    return _Quantizer(job, ignore_progress).plan()


class _Quantizer:
    def __init__(self, job: Job, on_batch: OnBatch) -> None:
        self._job = job
        self._on_batch = on_batch
        self._mode = MODES.get(job.trimming_mode)
        self._rng = np.random.default_rng(0)
        self._stopwatch = Stopwatch()
        self._net_file = read_net(job.model)
        self._weights_file: WeightsFile = read_weights(job.weights)
        self._test_net = self._load(build(self._net_file, State(TEST), DataLayers()))
        self._trimmable = trimmable_layers(self._test_net, legacy=job.legacy)
        if not self._trimmable and not job.legacy:
            raise RistrettoError(
                "the net has no layers to trim",
                where=job.model,
                remedy="Convolution and InnerProduct layers can be.",
            )
        self._check_given([])
        self._warn_of_idle_widths()
        self._blob = self._score_blob()
        self._goal = self._score_goal()
        if job.early_stop:
            check_early_stop(self._test_net, self._blob)
        shelf = Shelf(job.cache_mb << 20)
        self._batches = Batches(self._test_net, shelf if job.cache_mb else None)
        wanted = Pass(
            job.iterations,
            self._batches,
            on_batch=on_batch,
            single_precision=job.legacy,
            how=Judging(job.ap_version),
            stopwatch=self._stopwatch,
        )
        self._trials = Trials(
            self._net_file,
            self._test_net,
            wanted,
            rng=self._rng,
            device=Device(job.gpu, job.threads),
            shelf=shelf,
            sharing=job.sharing if job.cache_mb else replace(job.sharing, prefixes=False),
        )

    def run(self) -> Outcome:
        """Search, and tell where the time went."""
        try:
            outcome = self._run()
        finally:
            self._trials.close()
        log.info("%s", self._stopwatch.line())
        return outcome

    def _run(self) -> Outcome:
        if not set(self._mode.widths(self._job.bit_widths, [])) <= set(self._job.bit_widths):
            log.warning("%s has widths of its own: --bit_widths is not used.", self._job.trimming_mode)
        baseline = self._trials.score_float_net(self._first_of_groups())
        layers = self._measure()
        self._check_given([each.ranges for each in layers])
        margin = Margin(self._value(baseline), self._job.error_margin_percent, exact=self._job.legacy, goal=self._goal)
        result = search(
            self._mode,
            layers,
            self._job.bit_widths,
            margin,
            partial(self._score_widths, layers, margin),
            legacy=self._job.legacy,
            given=self._job.bw,
        )
        return Outcome(
            mode=self._mode,
            score_blob=self._blob,
            margin=margin,
            baseline_scores=baseline,
            layers=tuple(layers),
            result=result,
            net_file=self._trimmed(layers, result.widths),
        )

    def plan(self) -> list[str]:
        batches = f"{self._job.iterations} iterations"
        lines = [f"the float net, {batches}"]
        net = self._range_net()
        lines.append(
            f"ranges on {'TRAIN' if net is not self._test_net else 'TEST'} data, "
            f"{self._job.calibration_iterations} iterations"
        )
        unknown = [Ranges(1.0, 1.0, 1.0)]
        families = {family_of(layer) for layer in self._trimmable}
        for group in self._mode.groups:
            if group.name in self._job.bw or (not group.families & families and not self._job.legacy):
                continue
            for bits in self._mode.widths(self._job.bit_widths, unknown):
                lines.append(f"{bits}bit {group.part}, {batches}")
        if len(self._mode.groups) > 1 or self._job.bw:
            lines.append(f"the combined net, {batches}")
        return lines

    def _score_blob(self) -> str:
        if self._job.score is not None:
            return check_score(self._test_net, self._job.score)
        if self._job.legacy:
            return scored(self._test_net)[0].name
        return default_score(self._test_net)  # DIFFERS(D7)

    def _score_goal(self) -> Goal:
        if self._job.score_goal is not None:
            return self._job.score_goal
        if self._job.legacy or not is_loss(self._test_net, self._blob):
            return Goal.MAX
        log.info("%s is a loss: lower is better.", self._blob)
        return Goal.MIN

    def _check_given(self, ranges: Sequence[Ranges]) -> None:
        possible = self._mode.widths(range(1, LOSSLESS_BITS + 1), ranges)
        for name, bits in self._job.bw.items():
            if bits not in possible:
                least, most = min(possible), max(possible)
                raise RistrettoError(
                    f"--bw {name}={bits}: {self._job.trimming_mode} has no such width for this net",
                    where=self._job.model,
                    remedy=f"It has {least} to {most} bits." if least < most else f"It has {least} bits.",
                )

    def _warn_of_idle_widths(self) -> None:
        families = {family_of(layer) for layer in self._trimmable}
        for group in self._mode.groups:
            if group.name in self._job.bw and not group.families & families:
                log.warning("--bw %s: the net has no such layers.", group.name)

    def _value(self, scores: Scores) -> float:
        output = next(output for output in scores.outputs if output.blob == self._blob)
        return float(output.means[0]) if self._job.legacy else output.score

    def _load(self, net: Net) -> Net:
        return load_weights(net, self._weights_file, rng=self._rng, allow_missing=self._job.allow_missing_weights)

    def _first_of_groups(self) -> list[int]:
        """The position of the first layer that each group trims."""
        positions = [
            next((i for i, layer in enumerate(self._test_net.layers) if layer in layers), None)
            for group in self._mode.groups
            if (layers := [layer for layer in self._trimmable if family_of(layer) in group.families])
        ]
        return sorted({position for position in positions if position is not None})

    def _trimmed(self, layers: Sequence[Trimmable], widths: Widths) -> NetFile:
        return trimmed(self._net_file, layers, widths, self._mode, legacy=self._job.legacy)

    def _score_widths(
        self, layers: Sequence[Trimmable], margin: Margin, asked: Asked, following: Asked | None
    ) -> Scored:
        until = verdict = None
        if self._job.early_stop and not asked.in_full:
            verdict = EarlyVerdict(margin, self._job.iterations, single_precision=self._job.legacy)
            until = Until(self._blob, verdict.decided)
        scores = self._trials.score(
            asked.what,
            self._trimmed(layers, asked.widths),
            until,
            None if following is None else partial(self._trimmed, layers, following.widths),
        )
        stopped = verdict is not None and scores.iterations < self._job.iterations
        return Scored(self._value(scores), scores, verdict.passed if verdict is not None and stopped else None)

    def _measure(self) -> list[Trimmable]:
        net = self._range_net()
        log.info("Reading ranges.")
        ranges = measure_ranges(
            net,
            frozenset(layer.name for layer in self._trimmable),
            self._job.calibration_iterations,
            probe=Probe(legacy=self._job.legacy),
            rng=self._rng,
            gpu=self._job.gpu,
            threads=self._job.threads,
            batches=self._batches if net is self._test_net else None,
            on_batch=self._on_batch,
            stopwatch=self._stopwatch,
        )
        if self._job.fl_params is FlParams.MSE:
            held = {layer.name: net.weights[layer.params[0].key] for layer in self._trimmable}
            ranges = {name: replace(each, weights=held[name]) for name, each in ranges.items()}
        layers = [
            Trimmable(layer, family_of(layer), ranges[layer.name]) for layer in self._trimmable if layer.name in ranges
        ]
        for each in layers:
            lengths = self._mode.integer_lengths(each.ranges)
            told = [f"integer length {_IN_THE_LOG[role]}={bits}" for role, bits in lengths.items()]
            if told:
                log.info("Layer %s, %s", each.layer.name, ", ".join(told))
        return layers

    def _range_net(self) -> Net:
        """The net on which ranges are read."""
        data = DataLayers()
        if self._job.legacy:
            return self._load(build(self._net_file, State(TRAIN), data))
        # DIFFERS(D2): the net as it will be used, on the data that it learnt from.
        layers = _with_train_data(self._net_file, data)
        if layers is None:
            log.warning("%s has no data layers for TRAIN: ranges are read on TEST data.", self._job.model)
            return self._test_net
        return self._load(build_layers(self._net_file, layers, TEST, data))


def _with_train_data(net_file: NetFile, data: DataLayers) -> list[tuple[Message, Where]] | None:
    """The layers of phase TEST, but for data layers, whose places those of TRAIN take; None without any."""
    test = list(included(net_file, State(TEST)))
    train = [(message, where) for message, where in included(net_file, State(TRAIN)) if message.type in data]
    made = {top for message, _ in train for top in message.top}
    needed = {top for message, _ in test if message.type in data for top in message.top}
    if not train or not needed <= made:
        return None
    rest = [(message, where) for message, where in test if message.type not in data]
    return [*train, *rest]
