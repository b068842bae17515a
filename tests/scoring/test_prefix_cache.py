"""Cut points: where a net can resume from cached activations of another one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ristretto_cli.net.ir import Net
from ristretto_cli.scoring.array_cache import ArrayCache
from ristretto_cli.scoring.batches import CachedBatches
from ristretto_cli.scoring.prefix_cache import Prefix, cut_point_at, first_difference, worthwhile_cut_point
from ristretto_cli.scoring.score import Scorer, ScoringOptions
from ristretto_cli.scoring.scores import Scores

DATA = """
    layer { name: "d" type: "Data" top: "data" top: "label" data_param { source: "db" backend: LMDB batch_size: 2 } }
"""
CONV = """
    layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
            convolution_param { num_output: 2 kernel_size: 1 weight_filler { type: "constant" value: %s }
                                bias_filler { type: "constant" value: 1 } } }
"""
RELU = 'layer { name: "relu" type: "ReLU" bottom: "conv" top: "conv" }'
FC = """
    layer { name: "fc" type: "InnerProduct" bottom: "%s" top: "fc"
            inner_product_param { num_output: 3 weight_filler { type: "constant" value: %s } } }
"""
REST = """
    layer { name: "relu2" type: "ReLU" bottom: "fc" top: "fc" }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "fc" bottom: "label" top: "loss" }
    layer { name: "acc" type: "Accuracy" bottom: "fc" bottom: "label" top: "accuracy" }
"""
WHOLE = DATA + CONV % "-0.5" + RELU + FC % ("conv", "0.25") + REST


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


@pytest.fixture
def load(workshop: Any) -> Any:
    images = np.array([[1, 5], [2, 7], [0, 3], [9, 4]], np.uint8)
    workshop.database("db", images.reshape(4, 1, 1, 2), [0, 2, 1, 0])
    return workshop.load


def position(net: Net, name: str) -> int:
    return next(i for i, layer in enumerate(net.layers) if layer.name == name)


def activations(net: Net, name: str) -> list[str] | None:
    """The activations before a layer; None if there is no cut point."""
    cut = cut_point_at(net, position(net, name))
    return None if cut is None else [blob.name for blob in cut.activations.values()]


def run_both(net: Net, other: Net, name: str) -> tuple[Scores, Scores]:
    """The scores of `other`, run as a whole, and resumed from activations of `net` before a layer."""
    cut = cut_point_at(net, position(net, name))
    assert cut is not None
    cache = ArrayCache(64)  # the first batch stays in memory, the second goes to the file
    prefix, batches = Prefix(cut, cache), CachedBatches(net, cache)
    Scorer(net, rng=rng(), save=[prefix]).run(ScoringOptions(2, batches))
    assert prefix.is_valid_for(other, net, 2)
    whole = Scorer(other, rng=rng()).run(ScoringOptions(2, batches))
    return whole, Scorer(other, rng=rng(), resume_from=prefix).run(ScoringOptions(2, batches))


def same(a: Scores, b: Scores) -> bool:
    means = [(x.blob, x.weight, x.means.tolist()) for x in a.outputs]
    return means == [(x.blob, x.weight, x.means.tolist()) for x in b.outputs] and a.loss == b.loss


def other_fc(net: Net) -> Net:
    """The net with other weights in its layer "fc"."""
    factors = np.array([[1], [2], [-3]], np.float32)
    return replace(net, weights={**net.weights, "fc/0": net.weights["fc/0"] * factors})


def test_the_activations_are_those_that_are_still_read(load: Any) -> None:
    net = load(WHOLE)
    cut = cut_point_at(net, position(net, "fc"))
    assert cut is not None
    assert {name: (blob.name, blob.shape) for name, blob in cut.activations.items()} == {
        "activation 3 2": ("conv", (2, 2, 1, 2))
    }
    assert cut.inputs == {"label"}


def test_scores_from_a_cut_point_are_those_of_the_whole_net_not_of_the_cached_one(load: Any) -> None:
    net = load(WHOLE)
    whole, cut = run_both(net, other_fc(net), "fc")
    assert same(whole, cut)
    assert not same(cut, Scorer(net, rng=rng()).run(ScoringOptions(2)))


def test_storage_overwritten_after_the_cut_point_is_cached_as_it_is_there(load: Any) -> None:
    # "flat" is the memory of "conv": "fc" reads that, then it is doubled in place, and "end" comes of it.
    flat = 'layer { name: "flat" type: "Flatten" bottom: "conv" top: "flat" }'
    rest = """
        layer { name: "twice" type: "Power" bottom: "flat" top: "flat" power_param { scale: 2 } }
        layer { name: "more" type: "InnerProduct" bottom: "flat" top: "end"
                inner_product_param { num_output: 1 weight_filler { type: "constant" value: 1 } } }
    """
    net = load(DATA + CONV % "0.5" + flat + FC % ("conv", "0.25") + rest + REST)
    assert activations(net, "fc") == ["flat"]
    whole, cut = run_both(net, other_fc(net), "fc")
    assert same(whole, cut)
    # Pixels of 1 and 5 are 1.5 and 3.5 in both channels, 2 and 7 are 2 and 4.5; then 0 and 3, 9 and 4.
    assert whole.of("end") == (2 * (2 * 5 + 2 * 6.5) / 2 + 2 * (2 * 3.5 + 2 * 8.5) / 2) / 2


def test_an_output_before_the_cut_point_keeps_its_score(load: Any) -> None:
    early = """
        layer { name: "early" type: "InnerProduct" bottom: "data" top: "early"
                inner_product_param { num_output: 3 weight_filler { type: "constant" value: 0.5 } } }
    """
    net = load(DATA + early + CONV % "-0.5" + FC % ("conv", "0.25") + REST)
    assert activations(net, "fc") == ["early", "conv"]
    whole, cut = run_both(net, other_fc(net), "fc")
    assert same(whole, cut)
    assert cut.of("early") == (3 + 4.5 + 1.5 + 6.5) / 4


def test_an_input_read_after_the_cut_point_is_read_from_the_data_not_cached(load: Any) -> None:
    net = load(DATA + CONV % "1" + FC % ("conv", "1") + 'layer { name: "s" type: "Silence" bottom: "data" }' + REST)
    cut = cut_point_at(net, position(net, "fc"))
    # An image that a convolution reads too: other layers read it as it was fed, not in blocks.
    assert cut is not None
    assert cut.inputs == {"data", "label"}
    assert [blob.name for blob in cut.activations.values()] == ["conv"]


# --- no cut point


def test_no_cut_point_after_a_loss(load: Any) -> None:
    aux = """
        layer { name: "aux" type: "InnerProduct" bottom: "data" top: "aux" inner_product_param { num_output: 3 } }
        layer { name: "auxloss" type: "SoftmaxWithLoss" bottom: "aux" bottom: "label" top: "auxloss" }
    """
    assert activations(load(DATA + aux + CONV % "1" + FC % ("conv", "1") + REST), "fc") is None


def test_no_cut_point_where_other_layers_than_products_read_an_image(load: Any) -> None:
    pool = """
        layer { name: "pool" type: "Pooling" bottom: "conv" top: "pool"
                pooling_param { pool: AVE kernel_h: 1 kernel_w: 2 } }
    """
    net = load(DATA + CONV % "1" + FC % ("conv", "1") + pool + REST)
    assert activations(net, "fc") is None
    assert activations(net, "loss") is not None


def test_a_worthwhile_cut_point_saves_a_fifth_of_the_products(load: Any) -> None:
    net = load(WHOLE)
    # The convolution multiplies 2 * 4 times, the inner product 2 * 3 * 4 times.
    assert worthwhile_cut_point(net, position(net, "fc")) is not None
    wide = load(WHOLE.replace("num_output: 3", "num_output: 5"))
    assert worthwhile_cut_point(wide, position(wide, "fc")) is None  # 8 of 48
    assert worthwhile_cut_point(net, position(net, "conv")) is None


def test_a_cut_point_with_far_larger_activations_than_inputs_is_not_worthwhile(load: Any) -> None:
    net = load(WHOLE.replace("num_output: 2", "num_output: 7"))
    assert worthwhile_cut_point(net, position(net, "fc")) is None  # 28 values where 6 are fed
    assert cut_point_at(net, position(net, "fc")) is not None


# --- nets with equal first layers


def test_nets_differ_from_the_first_layer_on_whose_settings_or_weights_do(load: Any) -> None:
    net, again = load(WHOLE), load(WHOLE)
    shared = replace(again, weights=net.weights)
    assert first_difference(net, shared) == len(net.layers)
    assert first_difference(net, again) == position(net, "conv")  # equal weights, but not the same memory
    assert first_difference(net, other_fc(net)) == position(net, "fc")
    relu = replace(load(WHOLE.replace('"ReLU" bottom: "conv"', '"TanH" bottom: "conv"')), weights=net.weights)
    assert first_difference(net, relu) == position(net, "relu")


def test_a_prefix_is_not_valid_for_nets_that_differ_before_it_nor_for_longer_passes(load: Any) -> None:
    net = load(WHOLE)
    cut = cut_point_at(net, position(net, "fc"))
    assert cut is not None
    prefix = Prefix(cut, ArrayCache(1 << 20))
    Scorer(net, rng=rng(), save=[prefix]).run(ScoringOptions(2))
    assert prefix.is_valid_for(other_fc(net), net, 2)
    assert not prefix.is_valid_for(other_fc(net), net, 3)
    assert not prefix.is_valid_for(load(WHOLE), net, 2)
