"""The float net's blobs, batch by batch, for comparisons of other nets with it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.scoring.array_cache import ArrayCache, CachedArrays
from ristretto_cli.scoring.comparisons import Comparison
from ristretto_cli.scoring.host_layers import Runner


class FloatOutputs:
    """The blobs of a float net that some comparisons need.

    start: compiles the float net, for a pass from the first batch on. cache: holds the blobs of the pass of `record`.
    Without a cache, or once it is full, the float net is run again along with each net.
    """

    def __init__(
        self, comparisons: Sequence[Comparison], start: Callable[[], Runner], cache: ArrayCache | None = None
    ) -> None:
        self.comparisons = tuple(comparisons)
        self._start = start
        self._cache = cache
        self._cached: list[CachedArrays] = []

    @property
    def is_cached(self) -> bool:
        """Whether no net needs the float net's inputs."""
        return bool(self._cached)

    def recording(self, runner: Runner) -> Runner:
        """A runner of the float net itself that also caches the blobs, and compares them with themselves."""
        return _Comparing(runner, self.comparisons, self._record)

    def comparing(self, runner: Runner) -> Runner:
        """A runner of another net that also gives the values of the comparisons, by their names."""
        if not self._cached:
            float_net = self._start()
            return _Comparing(runner, self.comparisons, lambda feeds, results: float_net.run(feeds))
        batches = iter(self._cached)
        return _Comparing(runner, self.comparisons, lambda feeds, results: next(batches)())

    def _record(self, feeds: Mapping[str, AnyArray], results: Mapping[str, AnyArray]) -> Mapping[str, AnyArray]:
        if self._cache is not None:
            cached = self._cache.put({each.blob: results[each.blob] for each in self.comparisons})
            if cached is None:
                self._cache = None
                self._cached.clear()
            else:
                self._cached.append(cached)
        return results


class _Comparing:
    """A runner with the results of comparisons. expected: the float net's blobs for a batch and a net's results."""

    def __init__(
        self,
        runner: Runner,
        comparisons: Sequence[Comparison],
        expected: Callable[[Mapping[str, AnyArray], Mapping[str, AnyArray]], Mapping[str, AnyArray]],
    ) -> None:
        self._runner = runner
        self._comparisons = comparisons
        self._expected = expected

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        results: dict[str, AnyArray] = dict(self._runner.run(feeds))
        expected = self._expected(feeds, results)
        for each in self._comparisons:
            results[each.name] = each.measure(expected[each.blob], results[each.blob])
        return results
