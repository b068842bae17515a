"""Giving a net its weights."""

import logging
from dataclasses import replace

import h5py
import numpy as np
import pytest

from ristretto_cli.caffe_io.blobs import StoredBlob
from ristretto_cli.caffe_io.weights import WeightsFile, read_weights, write_weights
from ristretto_cli.errors import RistrettoError, RistrettoErrors
from ristretto_cli.net.weights import fill_weights, load_weights

INPUT = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }\n'
FILLED = "weight_filler { value: 0.5 } bias_filler { value: -1 }"


def fc(name, outputs=2, more="", settings=""):
    return (
        f'layer {{ name: "{name}" type: "InnerProduct" bottom: "x" top: "{name}" {more} '
        f"inner_product_param {{ num_output: {outputs} {settings} }} }}\n"
    )


def stored(**layers):
    """A file of weights in memory: the arrays of each layer."""
    blobs = {
        name: tuple(a if isinstance(a, StoredBlob) else StoredBlob(np.asarray(a, np.float32)) for a in arrays)
        for name, arrays in layers.items()
    }
    return WeightsFile("w.caffemodel", blobs)


def load(net, file, **options):
    return load_weights(net, file, rng=np.random.default_rng(0), **options)


def refusals(net, file, **options):
    with pytest.raises(RistrettoError) as refused:
        load(net, file, **options)
    errors = refused.value.errors if isinstance(refused.value, RistrettoErrors) else [refused.value]
    return [str(error) for error in errors]


W, B = np.arange(6).reshape(2, 3), [7, 8]


def test_weights_are_matched_by_the_layers_name(nets):
    net = load(nets.build(INPUT + fc("a") + fc("b")), stored(b=[W + 1, B], a=[W, B]))
    assert {key: array.tolist() for key, array in net.weights.items()} == {
        "a/0": [[0, 1, 2], [3, 4, 5]],
        "a/1": [7, 8],
        "b/0": [[1, 2, 3], [4, 5, 6]],
        "b/1": [7, 8],
    }


def test_loading_leaves_the_given_net_as_it_was(nets):
    net = nets.build(INPUT + fc("a"))
    loaded = load(net, stored(a=[W, B]))
    assert dict(net.weights) == {}
    assert replace(loaded, weights={}) == net


@pytest.mark.parametrize("ending", ["caffemodel", "caffemodel.h5"])
def test_weights_of_a_file_are_viewed_not_copied(nets, tmp_path, ending):
    write_weights(tmp_path / f"w.{ending}", {"a": [W, np.array(B)]})
    file = read_weights(tmp_path / f"w.{ending}")
    net = load(nets.build(INPUT + fc("a")), file)
    assert net.weights["a/0"].tolist() == W.tolist()
    for i in range(2):
        assert np.shares_memory(net.weights[f"a/{i}"], file.layers["a"][i].array)
        assert not net.weights[f"a/{i}"].flags.writeable


# -- shapes --------------------------------------------------------------------------------------------------


def test_another_shape_is_refused_though_it_has_as_many_values(nets):
    assert refusals(nets.build(INPUT + fc("a")), stored(a=[W.T, B])) == [
        'w.caffemodel: parameter 0 of layer "a" is 3x2 in the file and 2x3 in the net. '
        "Use the weights of this net, or rename the layer to train it from scratch."
    ]


@pytest.mark.parametrize(("shape", "fits"), [((1, 1, 2, 3), True), ((1, 2, 1, 3), False), ((2, 3, 1, 1), False)])
def test_shapes_of_four_old_extents_are_compared_from_the_end(nets, shape, fits):
    net = nets.build(INPUT + fc("a"))
    file = stored(a=[StoredBlob(np.reshape(W, shape).astype(np.float32), legacy=True), B])
    if fits:
        assert load(net, file).weights["a/0"].tolist() == W.tolist()
    else:
        (says,) = refusals(net, file)
        assert "and 2x3 in the net" in says


def test_a_shape_of_the_present_format_has_no_ones_in_front(nets):
    (says,) = refusals(nets.build(INPUT + fc("a")), stored(a=[np.reshape(W, (1, 1, 2, 3)), B]))
    assert 'parameter 0 of layer "a" is 1x1x2x3 in the file and 2x3 in the net' in says


def test_an_old_bias_has_three_ones_in_front(nets):
    bias = StoredBlob(np.float32(B).reshape(1, 1, 1, 2), legacy=True)
    assert load(nets.build(INPUT + fc("a")), stored(a=[W, bias])).weights["a/1"].tolist() == B


def test_another_number_of_parameters_is_refused(nets):
    net = nets.build(INPUT + fc("a"))
    assert refusals(net, stored(a=[W])) == ['w.caffemodel: layer "a" has 2 parameters, but 1 in the file']
    assert refusals(net, stored(a=[W, B, B])) == ['w.caffemodel: layer "a" has 2 parameters, but 3 in the file']


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_no_numbers_are_refused(nets, value):
    assert refusals(nets.build(INPUT + fc("a")), stored(a=[W, [1, value]])) == [
        'w.caffemodel: parameter 1 of layer "a" contains NaN or infinite values. '
        "The training diverged or the file is damaged."
    ]


def test_weights_whose_sum_overflows_are_numbers(nets):
    assert (
        load(nets.build(INPUT + fc("a")), stored(a=[W, [3e38, 3e38]])).weights["a/1"].tolist()
        == [float(np.float32(3e38))] * 2
    )


def test_all_faults_are_reported_at_once(nets):
    net = nets.build(INPUT + fc("a") + fc("b") + fc("c") + fc("d"))
    says = refusals(net, stored(a=[W.T, [1, np.nan]], b=[W], c=[W, B]))
    assert len(says) == 4
    assert [next(name for name in "abcd" if f'layer "{name}"' in line) for line in says] == ["a", "a", "b", "d"]


# -- layers that only one side has ---------------------------------------------------------------------------


def test_layers_that_the_net_lacks_are_named_in_one_line(nets, caplog):
    with caplog.at_level(logging.INFO, "ristretto"):
        load(nets.build(INPUT + fc("a")), stored(a=[W, B], fc7=[W], fc8=[B]))
    assert [record.getMessage() for record in caplog.records] == ["Ignoring source layers: fc7, fc8"]


def test_a_layer_that_the_file_lacks_is_reported_with_the_nearest_that_the_net_lacks(nets, tmp_path):
    (says,) = refusals(nets.build(INPUT + fc("a") + fc("ip2")), stored(a=[W, B], ip_2=[W, B], other=[B]))
    assert says.replace(str(tmp_path), "") == (
        '/net.prototxt:3: layer "ip2" has no weights in w.caffemodel. Did you mean ip_2? '
        "Layers there: a, ip_2, other. --allow_missing_weights initializes it with its filler."
    )


def test_the_layers_of_the_file_are_listed_up_to_thirty(nets):
    net = nets.build(INPUT + fc("ip2"))
    (says,) = refusals(net, stored(zebra=[W, B], quokka=[W, B]))
    assert "Layers there: zebra, quokka. --allow_missing_weights" in says
    (says,) = refusals(net, stored(**{f"zebra{i}": [W, B] for i in range(33)}))
    assert "zebra28, zebra29 and 3 more." in says


def test_a_layer_that_the_net_has_is_not_offered_for_another(nets):
    (says,) = refusals(nets.build(INPUT + fc("ip1") + fc("ip2")), stored(ip1=[W, B]))
    assert "Did you mean" not in says


def test_missing_layers_are_filled_where_that_is_allowed_with_a_warning(nets, caplog):
    net = nets.build(INPUT + fc("a") + fc("b", settings=FILLED) + fc("c", settings=FILLED))
    loaded = load(net, stored(a=[W, B]), allow_missing=True)
    assert loaded.weights["b/0"].tolist() == [[0.5] * 3] * 2
    assert loaded.weights["c/1"].tolist() == [-1, -1]
    assert loaded.weights["a/0"].tolist() == W.tolist()
    assert [record.getMessage() for record in caplog.records] == [
        "Not in w.caffemodel, initialized by the net's fillers: b, c"
    ]


def test_a_missing_layer_is_filled_by_the_given_generator(nets):
    net = nets.build(INPUT + fc("a", settings='weight_filler { type: "xavier" }'))
    first, again, other = (
        load_weights(net, stored(), rng=np.random.default_rng(seed), allow_missing=True).weights["a/0"].tolist()
        for seed in (1, 1, 2)
    )
    assert first == again != other


def test_weights_that_a_filler_always_makes_alike_need_no_file(nets, caplog):
    image = 'layer { name: "in" type: "Input" top: "x" input_param { shape { dim: 1 dim: 1 dim: 2 dim: 2 } } }\n'
    up = """layer { name: "up" type: "Deconvolution" bottom: "x" top: "y" convolution_param {
        num_output: 1 kernel_size: 2 stride: 2 bias_term: false weight_filler { type: "bilinear" } } }"""
    net = load(nets.build(image + up), stored())
    # A kernel of 2 is centred at 0.5: every weight is (1 - 0.5)^2.
    assert net.weights["up/0"].tolist() == [[[[0.25, 0.25], [0.25, 0.25]]]]
    assert "up" in caplog.text


def test_layers_without_parameters_need_nothing(nets, caplog):
    net = load(nets.build(INPUT + 'layer { name: "r" type: "ReLU" bottom: "x" top: "y" }'), stored())
    assert dict(net.weights) == {}
    assert caplog.records == []


# -- shared parameters ---------------------------------------------------------------------------------------

SHARED_W = 'param { name: "w" }'


def test_a_shared_parameter_is_kept_once(nets):
    net = nets.build(INPUT + fc("a", more=SHARED_W) + fc("b", more=SHARED_W))
    loaded = load(net, stored(a=[W, B], b=[W, B]))
    assert sorted(loaded.weights) == ["a/0", "a/1", "b/1"]


def test_of_different_copies_of_a_shared_parameter_the_last_counts(nets):
    net = nets.build(INPUT + fc("a", more=SHARED_W) + fc("b", more=SHARED_W))
    assert load(net, stored(a=[W, B], b=[W + 1, B])).weights["a/0"].tolist() == (W + 1).tolist()


def test_of_different_copies_the_last_one_in_the_file_counts_whatever_the_order_of_the_net(nets):
    net = nets.build(INPUT + fc("a", more=SHARED_W) + fc("b", more=SHARED_W))
    assert load(net, stored(b=[W + 1, B], a=[W, B])).weights["a/0"].tolist() == W.tolist()


SCALAR = 'layer { name: "s" type: "Scale" bottom: "x" top: "y" scale_param { axis: 0 num_axes: 0 } }'
STATISTICS = 'layer { name: "n" type: "BatchNorm" bottom: "x" top: "y" }'


@pytest.mark.parametrize("shape", [(), (1,)])
def test_a_single_value_may_have_an_axis_or_none(nets, shape):
    net = load(nets.build(INPUT + SCALAR), stored(s=[np.full(shape, 2)]))
    assert net.weights["s/0"].tolist() == 2
    moments = [np.zeros(3), np.ones(3), np.full(shape, 4)]
    assert load(nets.build(INPUT + STATISTICS), stored(n=moments)).weights["n/2"].tolist() == [4]


def test_a_single_value_has_no_two_axes(nets):
    (error,) = refusals(nets.build(INPUT + SCALAR), stored(s=[np.full((1, 1), 2)]))
    assert 'parameter 0 of layer "s" is 1x1 in the file' in error


def test_hdf5_may_leave_out_what_another_layer_owns(nets, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/a/0"], file["data/a/1"], file["data/b/1"] = np.float32(W), np.float32(B), np.float32(B) + 1
    net = nets.build(INPUT + fc("a", more=SHARED_W) + fc("b", more=SHARED_W))
    loaded = load(net, read_weights(tmp_path / "w.h5"))
    assert loaded.weights["a/0"].tolist() == W.tolist()
    assert loaded.weights["b/1"].tolist() == [8, 9]


def test_hdf5_may_leave_out_a_last_parameter_that_another_layer_owns(nets, tmp_path):
    both = 'param { } param { name: "bias" }'
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/a/0"], file["data/a/1"], file["data/b/0"] = np.float32(W), np.float32(B), np.float32(W) + 1
    net = nets.build(INPUT + fc("a", more=both) + fc("b", more=both))
    loaded = load(net, read_weights(tmp_path / "w.h5"))
    assert sorted(loaded.weights) == ["a/0", "a/1", "b/0"]
    assert loaded.weights["b/0"].tolist() == (W + 1).tolist()


def test_hdf5_may_not_leave_out_what_a_layer_owns_itself(nets, tmp_path):
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["data/a/1"] = np.float32(B)
    (says,) = refusals(nets.build(INPUT + fc("a")), read_weights(tmp_path / "w.h5"))
    assert says == f'{tmp_path / "w.h5"}: parameter 0 of layer "a" is missing in the file'


def test_a_layer_all_of_whose_parameters_are_others_may_be_missing(nets):
    both = 'param { name: "w" } param { name: "b" }'
    net = load(nets.build(INPUT + fc("a", more=both) + fc("b", more=both)), stored(a=[W, B]))
    assert sorted(net.weights) == ["a/0", "a/1"]


# -- only fillers --------------------------------------------------------------------------------------------


def test_fill_weights_makes_every_parameter_once(nets):
    net = nets.build(INPUT + fc("a", more=SHARED_W, settings=FILLED) + fc("b", more=SHARED_W, settings=FILLED))
    weights = fill_weights(net, rng=np.random.default_rng(0)).weights
    assert {key: array.tolist() for key, array in weights.items()} == {
        "a/0": [[0.5] * 3] * 2,
        "a/1": [-1, -1],
        "b/1": [-1, -1],
    }


def test_a_filler_that_is_not_known_is_reported_with_its_layer(nets, tmp_path):
    net = nets.build(INPUT + fc("a", settings='weight_filler { type: "xaver" }'))
    with pytest.raises(RistrettoError) as refused:
        fill_weights(net, rng=np.random.default_rng(0))
    assert str(refused.value).replace(str(tmp_path), "") == (
        '/net.prototxt:2: layer "a" (InnerProduct): parameter 0: unknown filler "xaver". Did you mean xavier?'
    )
