"""Parameter."""

import pytest

from ristretto_cli.layers.layer_type import LAYERS


def shape(*dims):
    return f"parameter_param {{ shape {{ {' '.join(f'dim: {dim}' for dim in dims)} }} }}"


def test_the_top_is_the_parameter(bench):
    (top,) = bench.run("Parameter", shape(2, 1), [], params=[[[3], [4]]])
    assert top.tolist() == [[3], [4]]


def test_without_dims_it_is_one_number(bench):
    (top,) = bench.run("Parameter", "", [], params=[7])
    assert top.tolist() == 7


def test_it_starts_as_zeros(bench):
    (param,) = bench.params("Parameter", shape(2, 3), [])
    assert (param.shape, param.filler.type, param.filler.value) == ((2, 3), "constant", 0)


def test_it_has_no_bottoms():
    assert LAYERS.get("Parameter").bottoms == (0, 0)


@pytest.mark.parametrize(
    ("dims", "said"), [((2, 0), "its shape is 2x0"), ((-1,), "its shape is -1"), ((1,) * 33, "its shape has 33 axes")]
)
def test_shapes_that_no_blob_has_are_refused(bench, dims, said):
    assert said in bench.refusal("Parameter", shape(*dims), [])


def test_a_net_takes_its_values_from_the_weights(workshop):
    net = workshop.load(
        """layer { name: "p" type: "Parameter" top: "w" parameter_param { shape { dim: 2 } } }""", {"p": [[1, 2]]}
    )
    assert net.weights["p/0"].tolist() == [1, 2]
    assert [blob.shape for blob in net.outputs] == [(2,)]
