"""Embed."""

import numpy as np
import pytest

from ristretto_cli.errors import RistrettoError

VECTORS = [[1, 2], [3, 4], [5, 6]]


def embed(settings):
    return f"embed_param {{ {settings} }}"


def test_each_index_becomes_its_vector_plus_the_bias(bench):
    (top,) = bench.run("Embed", embed("num_output: 2 input_dim: 3"), [[2, 0, 2]], params=[VECTORS, [10, 20]])
    assert top.tolist() == [[15, 26], [11, 22], [15, 26]]


def test_the_vector_is_a_new_last_axis(bench):
    text = embed("num_output: 2 input_dim: 3 bias_term: false")
    (top,) = bench.run("Embed", text, [[[0, 1], [1, 2]]], params=[VECTORS])
    assert top.tolist() == [[[1, 2], [3, 4]], [[3, 4], [5, 6]]]


def test_fractions_are_cut_off(bench):
    text = embed("num_output: 2 input_dim: 3 bias_term: false")
    (top,) = bench.run("Embed", text, [[2.9, -0.9]], params=[VECTORS])
    assert top.tolist() == [[5, 6], [1, 2]]


@pytest.mark.parametrize("index", [3, -1, 1e10, np.nan, np.inf, -np.inf])
def test_an_index_without_a_vector_is_refused_when_it_turns_up(bench, index):
    text = embed("num_output: 2 input_dim: 3 bias_term: false")
    with pytest.raises(RistrettoError, match="an index into 3 entries is negative, too large or not a number"):
        bench.run("Embed", text, [[0, index]], params=[VECTORS])


def test_parameters_are_the_vectors_and_one_bias(bench):
    text = embed('num_output: 2 input_dim: 3 weight_filler { type: "xavier" } bias_filler { value: 4 }')
    vectors, bias = bench.params("Embed", text, [(5,)])
    assert (vectors.shape, vectors.filler.type) == ((3, 2), "xavier")
    assert (bias.shape, bias.filler.value) == ((2,), 4)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("input_dim: 3", "num_output is missing"),
        ("num_output: 2", "input_dim is missing"),
        ("num_output: 2 input_dim: 4000000000", "a blob of shape 4000000000x2 has too many elements"),
        ("num_output: 2000000000 input_dim: 1", "a blob of shape 5x2000000000 has too many elements"),
    ],
)
def test_settings_that_make_no_sense_are_refused(bench, settings, said):
    assert said in bench.refusal("Embed", embed(settings), [(5,)])
