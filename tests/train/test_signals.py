"""What SIGINT and SIGHUP ask of a training."""

from __future__ import annotations

import os
import signal

import pytest

from ristretto_cli.train.signals import Request, Requests, listening

INT, HUP, TERM = signal.SIGINT, signal.SIGHUP, signal.SIGTERM


def test_nothing_is_requested_at_first() -> None:
    assert Requests()() is Request.NONE


def test_each_signal_asks_for_its_effect_once() -> None:
    requests = Requests(sigint=Request.SNAPSHOT, sighup=Request.STOP)
    requests.receive(INT)
    assert [requests(), requests()] == [Request.SNAPSHOT, Request.NONE]
    requests.receive(HUP)
    requests.receive(HUP)
    assert [requests(), requests()] == [Request.STOP, Request.NONE]


def test_sighup_is_answered_first_as_in_caffe() -> None:
    requests = Requests()
    requests.receive(INT)
    requests.receive(HUP)
    assert [requests(), requests(), requests()] == [Request.SNAPSHOT, Request.STOP, Request.NONE]


def test_a_second_sigint_ends_it_at_once_whether_the_first_was_answered_or_not() -> None:
    for answered in (False, True):
        requests = Requests()
        requests.receive(INT)
        if answered:
            assert requests() is Request.STOP
        with pytest.raises(KeyboardInterrupt):
            requests.receive(INT)


def test_sigints_that_ask_for_snapshots_may_come_as_often_as_they_are_answered() -> None:
    requests = Requests(sigint=Request.SNAPSHOT)
    for _ in range(3):
        requests.receive(INT)
        assert requests() is Request.SNAPSHOT


def test_an_effect_of_none_is_none() -> None:
    requests = Requests(Request.NONE, Request.NONE)
    for number in (INT, INT, HUP):
        requests.receive(number)
    assert requests() is Request.NONE


def test_the_signals_are_handled_only_inside_the_block() -> None:
    before = signal.getsignal(INT), signal.getsignal(HUP)
    requests = Requests()
    with listening(requests):
        os.kill(os.getpid(), HUP)
        assert requests() is Request.SNAPSHOT
    assert (signal.getsignal(INT), signal.getsignal(HUP)) == before


def test_sigterm_is_handled_where_it_has_an_effect() -> None:
    before = signal.getsignal(TERM)
    with listening(Requests()):
        assert signal.getsignal(TERM) is before
    requests = Requests(sigterm=Request.STOP)
    with listening(requests):
        os.kill(os.getpid(), TERM)
        os.kill(os.getpid(), TERM)  # a batch system may insist
        assert [requests(), requests()] == [Request.STOP, Request.NONE]
    assert signal.getsignal(TERM) is before
