"""Builds in the background."""

from __future__ import annotations

import threading

import pytest

from ristretto_cli.quantize.background import BackgroundBuild


def test_what_was_begun_is_taken_and_not_made_again() -> None:
    build: BackgroundBuild[str] = BackgroundBuild()
    build.submit("a", lambda: threading.current_thread().name)
    assert build.result("a", lambda: "made now").startswith("background")
    build.close()


def test_what_was_not_begun_is_made_now_and_the_other_is_dropped() -> None:
    build: BackgroundBuild[str] = BackgroundBuild()
    build.submit("a", lambda: "before")
    assert build.result("b", lambda: "made now") == "made now"
    assert build.result("a", lambda: "made now") == "made now"
    build.close()


def test_a_fault_is_told_when_the_thing_is_asked_for() -> None:
    def fail() -> str:
        raise ValueError("no net")

    build: BackgroundBuild[str] = BackgroundBuild()
    build.submit("a", fail)
    with pytest.raises(ValueError, match="no net"):
        build.result("a", lambda: "made now")
    build.close()


def test_a_fault_of_what_nobody_asks_for_is_nobodys() -> None:
    def fail() -> str:
        raise ValueError("no net")

    build: BackgroundBuild[str] = BackgroundBuild()
    build.submit("a", fail)
    assert build.result("b", lambda: "made now") == "made now"
    build.submit("a", fail)
    build.close()


def test_there_is_one_at_a_time() -> None:
    made = []
    build: BackgroundBuild[None] = BackgroundBuild()
    for key in "abc":
        build.submit(key, lambda key=key: made.append(key))  # type: ignore[misc]
    build.result("c", lambda: None)
    build.close()
    assert made[-1] == "c"
