"""Host layers after a graph, without one, and with the names of forward and the data loader."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError
from ristretto_cli.scoring.all_blobs import OnePass
from ristretto_cli.scoring.data_loader import DataLoader
from ristretto_cli.scoring.engine import compile_net

NET = """
    layer { name: "i" type: "Input" top: "x" top: "sel" input_param { shape { dim: 3 } shape { dim: 3 } } }
    layer { name: "p" type: "Power" bottom: "x" top: "y" power_param { scale: 10 } }
    layer { name: "f" type: "Filter" bottom: "y" bottom: "x" bottom: "sel" top: "some" top: "sources" }
    layer { name: "g" type: "Filter" bottom: "some" bottom: "sources" top: "fewer" }
"""
FED = {"x": np.array([1, 0, 3], np.float32), "sel": np.array([1, 1, 0], np.float32)}


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_host_layers_run_after_the_graph_in_order(workshop: Any) -> None:
    session = compile_net(workshop.load(NET), lambda run, ops: {}, rng=rng(), on_host=["fewer", "some"])
    assert {key: value.tolist() for key, value in session.run(FED).items()} == {"fewer": [10], "some": [10, 0]}


def test_each_batch_may_have_its_own_number_of_items(workshop: Any) -> None:
    session = compile_net(workshop.load(NET), lambda run, ops: {"y": run.final["y"]}, rng=rng(), on_host=["some"])
    for selector, expected in (([0, 0, 0], []), ([1, 0, 1], [10, 30]), ([1, 1, 1], [10, 0, 30])):
        results = session.run({**FED, "sel": np.array(selector, np.float32)})
        assert results["y"].tolist() == [10, 0, 30]
        assert results["some"].tolist() == expected


def test_without_anything_of_the_host_nothing_of_it_is_computed(workshop: Any) -> None:
    session = compile_net(workshop.load(NET), lambda run, ops: {"y": run.final["y"]}, rng=rng())
    assert list(session.run({"x": FED["x"]})) == ["y"]  # the selector is not even fed


def test_a_pass_has_all_blobs_under_their_names(workshop: Any) -> None:
    results = OnePass(workshop.load(NET), rng=rng()).run(FED)
    assert {key: value.tolist() for key, value in results.items()} == {
        "y": [10, 0, 30],
        "some": [10, 0],
        "sources": [1, 0],
        "fewer": [10],
    }
    assert list(OnePass(workshop.load(NET), rng=rng(), blobs=("fewer",)).run(FED)) == ["fewer"]


def test_what_a_trim_leaves_is_what_a_later_host_layer_reads(workshop: Any) -> None:
    # The quantized layer's input is rounded to integers in place; the order in the prototxt decides who sees that.
    trimmed = """
        layer { name: "i" type: "Input" top: "x" top: "one"
                input_param { shape { dim: 1 dim: 2 } shape { dim: 1 } } }
        layer { name: "before" type: "Filter" bottom: "x" bottom: "one" top: "early" }
        layer { name: "fc" type: "FcRistretto" bottom: "x" top: "y"
                inner_product_param { num_output: 1 bias_term: false }
                quantization_param { bw_layer_in: 8 fl_layer_in: 0 } }
        layer { name: "after" type: "Filter" bottom: "x" bottom: "one" top: "late" }
    """
    fed = {"x": np.array([[1.25, 2.75]], np.float32), "one": np.ones(1, np.float32)}
    results = OnePass(workshop.load(trimmed, {"fc": [[[1, 1]]]}), rng=rng()).run(fed)
    assert results["early"].tolist() == [[1.25, 2.75]]
    assert results["late"].tolist() == [[1, 3]]


def test_data_with_a_variable_number_of_rows_is_read_by_host_layers(bright_halves: Any) -> None:
    net = bright_halves.load((bright_halves.folder / "net.prototxt").read_text())
    with DataLoader(net) as feeds:
        rows = [feeds.next()["label"].shape for _ in range(2)]
    assert rows == [(1, 1, 2, 8), (1, 1, 1, 8)]
    one_pass = OnePass(net, rng=rng())
    with DataLoader(net) as feeds:
        results = one_pass.run(feeds.next())
    assert results["label"].shape == (1, 1, 2, 8)
    assert results["detection_eval"].shape[1:] == (1, results["detection_eval"].shape[2], 5)


def test_given_blobs_may_have_any_extent_that_varies_and_no_other(bright_halves: Any) -> None:
    net = bright_halves.load((bright_halves.folder / "net.prototxt").read_text())
    given = {"data": np.zeros((2, 1, 1, 2), np.float32), "label": np.zeros((1, 1, 7, 8), np.float32)}
    with DataLoader(net, given=given) as feeds:
        assert feeds.next()["label"].shape == (1, 1, 7, 8)
    with pytest.raises(RistrettoError) as refused:
        DataLoader(net, given={"label": np.zeros((1, 1, 7, 9), np.float32)})
    assert str(refused.value) == 'input "label" has shape 1x1x7x9; expected 1x1x?x8'


def test_a_fault_of_a_host_layer_has_its_place(workshop: Any) -> None:
    net = workshop.load(
        """
        layer { name: "i" type: "Input" top: "a" top: "b" top: "s" input_param { shape { dim: 2 } } }
        layer { name: "f" type: "Filter" bottom: "a" bottom: "s" top: "some" }
        layer { name: "g" type: "Filter" bottom: "b" bottom: "some" top: "y" }
        """
    )
    fed = {name: np.array([1, 0], np.float32) for name in "abs"}
    with pytest.raises(RistrettoError) as refused:
        OnePass(net, rng=rng()).run(fed)
    assert str(refused.value) == (
        'net.prototxt:4: layer "g" (Filter): a bottom of shape 2 and a selector of 1 items do not match'
    )
