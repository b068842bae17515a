"""Making things ahead."""

from __future__ import annotations

import threading

import pytest

from ristretto_cli.quantize.ahead import Ahead


def test_what_was_begun_is_taken_and_not_made_again() -> None:
    ahead: Ahead[str] = Ahead()
    ahead.begin("a", lambda: threading.current_thread().name)
    assert ahead.take("a", lambda: "made now").startswith("ahead")
    ahead.close()


def test_what_was_not_begun_is_made_now_and_the_other_is_dropped() -> None:
    ahead: Ahead[str] = Ahead()
    ahead.begin("a", lambda: "ahead")
    assert ahead.take("b", lambda: "made now") == "made now"
    assert ahead.take("a", lambda: "made now") == "made now"
    ahead.close()


def test_a_fault_is_told_when_the_thing_is_asked_for() -> None:
    def fail() -> str:
        raise ValueError("no net")

    ahead: Ahead[str] = Ahead()
    ahead.begin("a", fail)
    with pytest.raises(ValueError, match="no net"):
        ahead.take("a", lambda: "made now")
    ahead.close()


def test_a_fault_of_what_nobody_asks_for_is_nobodys() -> None:
    def fail() -> str:
        raise ValueError("no net")

    ahead: Ahead[str] = Ahead()
    ahead.begin("a", fail)
    assert ahead.take("b", lambda: "made now") == "made now"
    ahead.begin("a", fail)
    ahead.close()


def test_there_is_one_at_a_time() -> None:
    made = []
    ahead: Ahead[None] = Ahead()
    for key in "abc":
        ahead.begin(key, lambda key=key: made.append(key))  # type: ignore[misc]
    ahead.take("c", lambda: None)
    ahead.close()
    assert made[-1] == "c"
