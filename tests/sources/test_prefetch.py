from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.sources.prefetch import Prefetch
from ristretto_cli.sources.source import Source


class Counter(Source):
    """Gives 0, 1, 2 ...; fails at one of them; stands still while `gate` is not set."""

    def __init__(self, fail_at: int = -1, *, open_gate: bool = True) -> None:
        self.shapes = ((1,),)
        self.made = 0
        self.closed = 0
        self.threads: set[str] = set()
        self.gate = threading.Event()
        self._fail_at = fail_at
        if open_gate:
            self.gate.set()

    def next(self) -> Any:
        self.gate.wait(300)
        self.threads.add(threading.current_thread().name)
        if self.made == self._fail_at:
            raise RistrettoError("no more", where="counter")
        self.made += 1
        return (np.array([self.made - 1], np.float32),)

    def close(self) -> None:
        self.closed += 1


def until(condition: Any) -> bool:
    end = time.monotonic() + 300  # a machine may be busy
    while not condition() and time.monotonic() < end:
        time.sleep(0.001)
    return bool(condition())


@pytest.fixture(autouse=True)
def no_thread_stays() -> Any:
    before = threading.active_count()
    yield
    assert until(lambda: threading.active_count() <= before)


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_batches_keep_their_order_and_come_from_another_thread(depth: int) -> None:
    source = Counter()
    with Prefetch(source, depth) as ahead:
        assert ahead.shapes == ((1,),)
        assert [ahead.next()[0][0] for _ in range(50)] == list(range(50))
    assert source.threads == {"prefetch"}
    assert source.closed == 1


def test_the_source_runs_ahead_but_not_beyond_the_depth() -> None:
    source = Counter()
    with Prefetch(source, 3):
        # three wait in the queue, a fourth is made and stands in front of it
        assert until(lambda: source.made == 4)
        time.sleep(0.05)
        assert source.made == 4


def test_what_the_source_raises_comes_after_the_batches_before_it_and_stays() -> None:
    source = Counter(fail_at=2)
    with Prefetch(source, 4) as ahead:
        assert [ahead.next()[0][0] for _ in range(2)] == [0, 1]
        for _ in range(3):
            with pytest.raises(RistrettoError, match=r"^counter: no more$"):
                ahead.next()


@pytest.mark.parametrize("taken", [0, 1, 5])
def test_closing_early_ends_the_thread_and_closes_the_source_once(taken: int) -> None:
    source = Counter()
    ahead = Prefetch(source, 2)
    for _ in range(taken):
        ahead.next()
    ahead.close()
    ahead.close()
    assert source.closed == 1
    with pytest.raises(RistrettoError, match="closed"):
        ahead.next()


def test_closing_waits_for_a_batch_in_the_making() -> None:
    source = Counter(open_gate=False)
    ahead = Prefetch(source, 1)
    closing = threading.Thread(target=ahead.close)
    closing.start()
    assert until(ahead._stop.is_set)
    assert source.closed == 0
    source.gate.set()
    closing.join()
    assert source.made == 1
    assert source.closed == 1


def test_closing_after_a_failure_that_nobody_saw() -> None:
    source = Counter(fail_at=0)
    ahead = Prefetch(source, 1)
    assert until(lambda: source.threads == {"prefetch"})
    ahead.close()
    assert source.closed == 1
