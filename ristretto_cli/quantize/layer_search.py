"""The search of widths layer by layer: the cheapest net within the error margin, or the best one within a limit.

The distortion of each part of a layer at each width is measured with everything else in float32. Distortions of small
errors add up, so a path of nets follows from them: from wide nets on, the step with the least distortion per bit saved
is taken next. Scores are measured only for nets on the path, and for a few around the best one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from ristretto_cli.formats.number_format import LOSSLESS_BITS, Role
from ristretto_cli.net.costs import CostModel, Costs
from ristretto_cli.net.ir import Layer, Net
from ristretto_cli.net.widths import Widths as LayerBits
from ristretto_cli.quantize.config import Minimize, QuantizeConfig
from ristretto_cli.quantize.rewrite import Widths
from ristretto_cli.quantize.search import Candidate, Evaluation

LOWEST = 2  # bits; with one bit a number has only its sign
_START = 8  # bits from which parts are narrowed, unless the search by groups needs more
_MEASURED_WEIGHTS = 6  # bits up to which distortions are measured; beyond, each bit quarters them
_MEASURED_ACTIVATIONS = 8  # narrow ones saturate, which more bits do not change
_CURVE = 12  # nets of the path that are scored at least, if it has so many
_TRIES = 16  # nets around the best one
_PROBE_COST = 18  # runs over all batches that measuring distortions may cost
_LARGE = 1e30  # replaces infinite distortions, which have no differences
_PROBED_INPUTS = 512  # that are enough to measure a distortion

SCORED = _CURVE + _TRIES + 8  # nets that are scored, roughly

Part = tuple[str, Role]  # of a layer, by its name


@dataclass(frozen=True)
class Knob:
    """Parts that have one width: the weights of a layer, or the activations on both sides of a blob.

    start: the width from which it is narrowed. values: the number of values that have it, or, for bit operations, of
    multiply-accumulates.
    """

    parts: tuple[Part, ...]
    start: int
    values: int

    @property
    def name(self) -> str:
        """Its name in the log."""
        return ", ".join(f"{layer} {role.value}" for layer, role in self.parts)

    @property
    def probed(self) -> range:
        """The bits at which its distortion is measured, from wide to narrow."""
        weights = all(role is Role.PARAMS for _, role in self.parts)
        return range(_MEASURED_WEIGHTS if weights else _MEASURED_ACTIVATIONS, LOWEST - 1, -1)


@dataclass(frozen=True)
class Point:
    """A net whose score was measured: its widths, costs and evaluation."""

    widths: Widths = field(hash=False)
    costs: Costs
    evaluation: Evaluation = field(hash=False)


@dataclass(frozen=True)
class LayerSearchResult:
    """The nets that were scored, the cheapest last, and the chosen one.

    fits: whether it is within the margin or the limit. probe_iterations: the batches for distortions.
    """

    objective: Objective
    curve: tuple[Point, ...]
    chosen: Point
    fits: bool
    probe_iterations: int


@dataclass(frozen=True)
class Objective:
    """What the search is for.

    minimize: the cost that is reduced. limit: the largest cost, for which the best score is searched; without it the
    lowest cost within the error margin is.
    """

    minimize: Minimize
    limit: float | None = None

    def cost(self, costs: Costs) -> float:
        """The cost that is reduced: bits, or bit operations."""
        if self.minimize is Minimize.WEIGHTS:
            return costs.parameter_bits
        return costs.bit_operations if self.minimize is Minimize.BITOPS else costs.activation_bits


def objective_of(config: QuantizeConfig) -> Objective:
    """The objective of a search by layers."""
    if config.size_limit_kb is not None:
        return Objective(Minimize.WEIGHTS, config.size_limit_kb * 8000)
    if config.bitops_limit is not None:
        return Objective(Minimize.BITOPS, config.bitops_limit)
    return Objective(config.minimize)


class NetCosts:
    """The costs of a net for widths by layer name."""

    def __init__(self, net: Net) -> None:
        self.model = CostModel(net)

    def of(self, widths: Widths) -> Costs:
        """The costs of a net with these widths, for one input; parts without a width are float."""
        return self.model.of_net([layer_bits(layer, widths) for layer in self.model.net.layers])


def layer_bits(layer: Layer, widths: Widths) -> LayerBits | None:
    """The bits of a layer; None if it is not quantized."""
    roles = None if layer.is_source else widths.get(layer.name)
    if roles is None:
        return None
    weights = roles.get(Role.PARAMS, LOSSLESS_BITS)
    return LayerBits(
        layer_in=roles.get(Role.LAYER_IN, LOSSLESS_BITS),
        weights=weights,
        bias=roles.get(Role.BIAS, weights),
        layer_out=roles.get(Role.LAYER_OUT, LOSSLESS_BITS),
    )


def knobs(objective: Objective, model: CostModel, base: Widths, fixed: Callable[[Layer, Role], bool]) -> list[Knob]:
    """The widths to search. base: the widths of the search by groups. fixed: whether a part has a given width."""
    found = []
    for parts, values in _savings(objective, model, base):
        if values > 0 and not any(fixed(model.net.layers[position], role) for position, role in parts):
            named = [(model.net.layers[position].name, role) for position, role in parts]
            widest = max(base[name].get(role, LOSSLESS_BITS) for name, role in named)
            start = max(widest, _START) if widest < LOSSLESS_BITS else 2 * _START
            found.append(Knob(tuple(named), start, values))
    return found


def _savings(objective: Objective, model: CostModel, base: Widths) -> Iterator[tuple[list[tuple[int, Role]], int]]:
    """Parts that only save something together, each with the number of its values or multiply-accumulates."""
    quantized = {i for i, layer in enumerate(model.net.layers) if layer.name in base and not layer.is_source}
    if objective.minimize is Minimize.ACTIVATIONS:
        for blob in (blob for blobs in model.stored for blob in blobs):
            if blob.writer in quantized:
                yield [(blob.writer, Role.LAYER_OUT)], blob.elements
            elif blob.readers and quantized.issuperset(blob.readers):
                yield [(reader, Role.LAYER_IN) for reader in blob.readers], blob.elements
        return
    for position in sorted(quantized):
        if objective.minimize is Minimize.WEIGHTS:
            own_biases = Role.BIAS in base[model.net.layers[position].name]
            yield [(position, Role.PARAMS)], sum(model.parameters[position][: 1 if own_biases else None])
        else:
            yield [(position, Role.PARAMS)], model.macs[position]
            yield [(position, Role.LAYER_IN)], model.macs[position]


def with_bits(widths: Widths, parts: Iterable[tuple[Knob, int]]) -> dict[str, dict[Role, int]]:
    """The widths, with other bits for some knobs."""
    changed = {name: dict(roles) for name, roles in widths.items()}
    for knob, bits in parts:
        for layer, role in knob.parts:
            changed[layer][role] = bits
    return changed


def probe_iterations(found: Sequence[Knob], iterations: int, batch: int) -> int:
    """The number of batches on which distortions are measured."""
    probes = max(1, sum(len(knob.probed) for knob in found))
    affordable = max(1, _PROBE_COST * iterations // probes)
    return min(iterations, affordable, -(-_PROBED_INPUTS // max(1, batch)))


class LayerSearch:
    """One search. evaluate: scores a net. distortion: measures that of a net with one part quantized.

    base: the widths of the search by groups, with those of all parts that are not searched. missed_by: how much worse
    a score is than the baseline's.
    """

    def __init__(
        self,
        objective: Objective,
        found: Sequence[Knob],
        base: Widths,
        costs: NetCosts,
        *,
        evaluate: Callable[[Candidate], Evaluation],
        distortion: Callable[[Candidate], float],
        missed_by: Callable[[float], float],
    ) -> None:
        self._objective = objective
        self._knobs = list(found)
        self._base = base
        self._costs = costs
        self._evaluate = evaluate
        self._measure = distortion
        self._missed_by = missed_by
        self._distortions: list[dict[int, float]] = []  # for each knob, by its bits
        self._points: dict[tuple[int, ...], Point] = {}
        self._partners = [self._partner(knob) for knob in self._knobs]

    def run(self, known: Sequence[Point], iterations: int) -> LayerSearchResult:
        """The result. known: nets that were scored before. iterations: batches for distortions."""
        self._distortions = [self._measured_alone(knob) for knob in self._knobs]
        path = self._path()
        if self._score(path[0]).evaluation.passed or self._objective.limit is not None:
            self._search_path(path)
        self._fill(path)
        self._improve()
        points = [*known, *self._points.values()]
        chosen = min(points, key=self._rank)
        curve = sorted(points, key=lambda point: self._objective.cost(point.costs), reverse=True)
        return LayerSearchResult(self._objective, tuple(curve), chosen, self._fits(chosen), iterations)

    # --- distortions

    def _measured_alone(self, knob: Knob) -> dict[int, float]:
        """The distortions by a knob with everything else in float32, by its bits."""
        worst = 0.0
        measured = {}
        for bits in knob.probed:
            alone: dict[str, dict[Role, int]] = {}
            for layer, role in knob.parts:
                alone.setdefault(layer, {})[role] = bits
                if role is Role.PARAMS and Role.BIAS in self._base[layer]:
                    alone[layer][Role.BIAS] = self._base[layer][Role.BIAS]
            name = f"{bits}bit {knob.name}"
            worst = max(worst, self._measured(Candidate(name, bits, alone)))
            measured[bits] = worst
        widest = max(measured)
        return {
            bits: measured.get(bits, measured[widest] / 4.0 ** (bits - widest))
            for bits in range(LOWEST, knob.start + 1)
        }

    def _measured(self, candidate: Candidate) -> float:
        return min(self._measure(candidate), _LARGE)

    def _predicted(self, state: Sequence[int]) -> float:
        return sum(of_bits[bits] for of_bits, bits in zip(self._distortions, state, strict=True))

    # --- nets, as the bits of each knob

    def _path(self) -> list[tuple[int, ...]]:
        """The nets from wide to narrow."""
        state = [max(of_bits) for of_bits in self._distortions]
        path = [tuple(state)]
        while True:
            steps = [
                (self._loss(i, state, bits), i, bits)
                for i, of_bits in enumerate(self._distortions)
                for bits in of_bits
                if bits < state[i]
            ]
            if not steps:
                return path
            _, i, bits = min(steps)  # of equal ones the first knob, and the fewest bits
            state[i] = bits
            path.append(tuple(state))

    def _loss(self, i: int, state: Sequence[int], bits: int) -> float:
        """The distortion that a narrower knob adds per bit, or bit operation, that it saves."""
        added = self._distortions[i][bits] - self._distortions[i][state[i]]
        return added / self._saved(i, state, bits)

    def _saved(self, i: int, state: Sequence[int], bits: int) -> int:
        """The bits, or bit operations, that a narrower knob saves; for the whole batch, except for weights."""
        other, fixed = self._partners[i]
        return self._knobs[i].values * (state[i] - bits) * (fixed if other is None else state[other])

    def _partner(self, knob: Knob) -> tuple[int | None, int]:
        """For bit operations, the knob of the other factor of its products, or that factor's bits if there is none."""
        if self._objective.minimize is not Minimize.BITOPS:
            return None, 1
        ((layer, role),) = knob.parts
        other = (layer, Role.LAYER_IN if role is Role.PARAMS else Role.PARAMS)
        found = next((i for i, each in enumerate(self._knobs) if other in each.parts), None)
        return found, self._base[layer].get(other[1], LOSSLESS_BITS)

    def _widths(self, state: Sequence[int]) -> dict[str, dict[Role, int]]:
        return with_bits(self._base, zip(self._knobs, state, strict=True))

    def _cost(self, state: Sequence[int]) -> float:
        return self._objective.cost(self._costs.of(self._widths(state)))

    def _score(self, state: Sequence[int]) -> Point:
        """The scored net."""
        key = tuple(state)
        if key not in self._points:
            widths = self._widths(key)
            costs = self._costs.of(widths)
            candidate = Candidate(describe(costs), max(key), widths, in_full=True)
            self._points[key] = Point(widths, costs, self._evaluate(candidate))
        return self._points[key]

    def _fits(self, point: Point) -> bool:
        if self._objective.limit is not None:
            return self._objective.cost(point.costs) <= self._objective.limit
        return point.evaluation.passed

    def _rank(self, point: Point) -> tuple[float, ...]:
        """The order of nets, the best first."""
        missed_by, cost = self._missed_by(point.evaluation.score), self._objective.cost(point.costs)
        missed_by = math.inf if math.isnan(missed_by) else missed_by
        first = cost if self._fits(point) and self._objective.limit is None else missed_by
        return (not self._fits(point), first, cost)

    # --- the nets that are scored

    def _search_path(self, path: Sequence[tuple[int, ...]]) -> None:
        """Score nets of a path until one that passes is followed by one that fails; with a limit, those around it.

        The first net of the path is assumed to pass.
        """
        if self._objective.limit is not None:
            self._around_limit(path)
            return
        passing, failing = 0, len(path)
        while failing - passing > 1:
            middle = (passing + failing) // 2
            if self._score(path[middle]).evaluation.passed:
                passing = middle
            else:
                failing = middle

    def _around_limit(self, path: Sequence[tuple[int, ...]]) -> None:
        """Score the first net of the path within the limit, also with bits added that fit, and some after it."""
        within = [state for state in path if self._cost(state) <= (self._objective.limit or 0.0)]
        for state in within[:3]:
            self._score(state)
        if within:
            self._score(self._filled(within[0]))

    def _filled(self, state: Sequence[int], but: int | None = None) -> tuple[int, ...]:
        """The net with bits added where they help most, as far as the limit allows. but: the knob to leave as it is."""
        filled = list(state)
        inputs = 1 if self._objective.minimize is Minimize.WEIGHTS else self._costs.model.inputs
        left = ((self._objective.limit or 0.0) - self._cost(filled)) * inputs
        while True:
            gains = []
            for i, of_bits in enumerate(self._distortions):
                bits = filled[i] + 1
                if i != but and bits in of_bits:
                    gain, added = of_bits[filled[i]] - of_bits[bits], -self._saved(i, filled, bits)
                    if gain > 0 and added <= left:
                        gains.append((gain / added, i, added))
            if not gains:
                return tuple(filled)
            _, i, added = max(gains)
            filled[i] += 1
            left -= added

    def _fill(self, path: Sequence[tuple[int, ...]]) -> None:
        """Score further nets of the path, at the middle of the widest gaps of cost."""
        costs = [self._cost(state) for state in path]
        scored = {0, len(path) - 1} | {i for i, state in enumerate(path) if state in self._points}
        while len(scored) < min(_CURVE, len(path)):
            order = sorted(scored)
            gaps = [(costs[i] - costs[j], i, j) for i, j in pairwise(order) if j - i > 1]
            _, i, j = max(gaps, key=lambda gap: gap[0])
            middle = (costs[i] + costs[j]) / 2
            scored.add(min(range(i + 1, j), key=lambda k: abs(costs[k] - middle)))
        for i in sorted(scored):
            self._score(path[i])

    def _improve(self) -> None:
        """Try nets around the best one: narrower by a bit, or, within a limit, with a bit elsewhere."""
        for _ in range(_TRIES):
            best = self._best()
            nearby = [] if best is None else [state for state in self._nearby(best) if state not in self._points]
            if not nearby:
                return
            self._score(nearby[0])

    def _best(self) -> tuple[int, ...] | None:
        """The best of the nets that were scored; None if none is within the margin or the limit."""
        best = min(self._points, key=lambda state: self._rank(self._points[state]), default=None)
        return best if best is not None and self._fits(self._points[best]) else None

    def _nearby(self, state: tuple[int, ...]) -> list[tuple[int, ...]]:
        """Nets that differ in one knob by a bit, or, within a limit, in several; the most promising first."""
        narrower = []
        for i, bits in enumerate(state):
            if bits - 1 in self._distortions[i]:
                narrowed = (*state[:i], bits - 1, *state[i + 1 :])
                narrower.append((self._loss(i, state, bits - 1), i, narrowed))
        if self._objective.limit is None:
            return [narrowed for _, _, narrowed in sorted(narrower)]
        exchanged = {self._filled(narrowed, but=i) for _, i, narrowed in narrower}
        return sorted(exchanged, key=lambda each: (self._predicted(each), each))


def smallest_cost(objective: Objective, costs: NetCosts, found: Sequence[Knob], base: Widths) -> float:
    """The cost of the net in which all widths that are searched are the lowest."""
    return objective.cost(costs.of(with_bits(base, [(knob, LOWEST) for knob in found])))


def describe(costs: Costs) -> str:
    """A net in the log."""
    return f"the net of {costs.parameter_bytes / 1000:.1f} kB, {costs.bit_operations:.4g} bit operations"
