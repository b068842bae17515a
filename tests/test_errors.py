"""Errors: one line each, that says where, what, and what to do."""

import pytest

from ristretto_cli.errors import (
    LayerError,
    Location,
    RistrettoError,
    RistrettoErrors,
    did_you_mean,
    raise_all,
)


@pytest.mark.parametrize(
    ("where", "text"),
    [
        (Location("a.prototxt", 4, 7), "a.prototxt:4:7"),
        (Location("a.prototxt", 4), "a.prototxt:4"),
        (Location("a.prototxt"), "a.prototxt"),
    ],
)
def test_a_place_is_reported_as_far_as_it_is_known(where, text):
    assert str(where) == text


@pytest.mark.parametrize(
    ("what", "options", "text"),
    [
        ("it broke", {}, "it broke"),
        ("it broke", {"where": Location("n", 3)}, "n:3: it broke"),
        ("it broke", {"where": "n"}, "n: it broke"),
        ("it broke", {"hint": "Mend it."}, "it broke. Mend it."),
        ("It broke.", {"where": "n", "hint": "Mend it."}, "n: It broke. Mend it."),
        ("it broke", {"where": None, "hint": ""}, "it broke"),
    ],
)
def test_an_error_says_where_what_and_what_to_do(what, options, text):
    assert str(RistrettoError(what, **options)) == text


def test_an_error_is_one_line_whatever_is_in_it():
    assert str(RistrettoError("a\n b\tc", where="d\ne", hint="f\r\ng")) == "d e: a b c. f g"


def test_several_errors_have_a_line_each():
    both = RistrettoErrors([RistrettoError("a", where="n"), LayerError("b")])
    assert str(both) == "n: a\nb"
    assert [str(error) for error in both.errors] == ["n: a", "b"]
    assert isinstance(both, RistrettoError)


def test_nothing_is_raised_where_nothing_was_found():
    raise_all([])
    raise_all(iter(()))


def test_one_error_is_raised_as_it_is():
    error = LayerError("a")
    with pytest.raises(LayerError) as raised:
        raise_all([error])
    assert raised.value is error


def test_several_errors_are_raised_together():
    with pytest.raises(RistrettoErrors) as raised:
        raise_all(RistrettoError(what) for what in "abc")
    assert str(raised.value) == "a\nb\nc"


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("Crop2", ["Crop", "Concat"], "Did you mean Crop?"),
        ("relu", ["ReLU", "PReLU"], "Did you mean ReLU?"),
        ("zzz", ["Crop", "Concat"], ""),
        ("Crop", [], ""),
    ],
)
def test_the_nearest_known_name_is_offered(name, known, hint):
    assert did_you_mean(name, known) == hint


def test_the_offer_does_not_depend_on_the_order_of_the_known_names():
    assert did_you_mean("pol", ["pool2", "pool1"]) == did_you_mean("pol", ["pool1", "pool2"])
