"""What the tests of the primitives share: computing one, with its shape checked on both backends."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
from onnx import TensorProto

from ristretto_cli.backends.exact_kernels import ALL, NONE, IntegerKernels, exact_kernels
from ristretto_cli.backends.graph_passes.graph_pass import Target, all_passes
from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_graph import conv_attributes
from ristretto_cli.backends.onnx_integers import ALL_KERNELS, IntegerForm, Weights
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.backends.shapes import ShapeOps, Sized
from ristretto_cli.errors import LayerError
from ristretto_cli.scoring.guarded import BOUND, GuardedRunner


def _as_list(values):
    return list(values) if isinstance(values, tuple) else [values]


def _compute(build, *arrays):
    """build(ops, *values), computed by onnxruntime: an array, or a tuple of them."""
    arrays = [np.asarray(array, np.float32) for array in arrays]
    predicted = _as_list(build(ShapeOps(), *[Sized(array.shape) for array in arrays]))
    ops = OnnxOps()
    inputs = [ops.input(f"x{i}", array.shape) for i, array in enumerate(arrays)]
    values = build(ops, *inputs)
    outputs = {str(i): value for i, value in enumerate(_as_list(values))}
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}
    results = list(plain_session(ops, outputs).run(feeds).values())
    assert [value.shape for value in predicted] == [result.shape for result in results]
    assert [value.shape for value in _as_list(values)] == [result.shape for result in results]
    return tuple(results) if isinstance(values, tuple) else results[0]


def plain_session(ops, outputs):
    """A session of the plain graph."""
    return lower(ops.graph, outputs).session(threads=1)


def _refuse(build, *shapes):
    """What both backends say against build(ops, *values) for values of these shapes."""
    with pytest.raises(LayerError) as by_shapes:
        build(ShapeOps(), *[Sized(shape) for shape in shapes])
    ops = OnnxOps()
    with pytest.raises(LayerError) as by_onnx:
        build(ops, *[ops.input(f"x{i}", shape) for i, shape in enumerate(shapes)])
    assert str(by_shapes.value) == str(by_onnx.value)
    return str(by_shapes.value)


@dataclass(frozen=True)
class Fast:
    """What the fast ops make of a graph: the first result, or a tuple of all; how many nodes of which type it takes;
    and whether what they assume was true."""

    top: object
    nodes: Counter
    assumed: bool


def _with(*weights):
    return IntegerKernels.of([kernel for kernel in ALL_KERNELS if kernel.weights in weights])


@dataclass(frozen=True)
class Machine:
    """A kind of processor: the integer kernels that are exact on it, and whether onnxruntime keeps channels in blocks.

    Its graphs run on every processor: a stand-in takes the place of kernels that are not exact on this one.
    """

    kernels: IntegerKernels
    has_blocks: bool

    def lowered(self, record, *, assuming=True, passes=None):
        """The graph of the outputs that record(ops) returns, rewritten by passes; by default by all."""
        ops = OnnxOps()
        outputs = record(ops)
        bound = BOUND if assuming else None
        target = Target(self.kernels, self.has_blocks, bound_of_inputs=bound, assumes_in_range=assuming)
        lowered = lower(ops.graph, outputs, all_passes() if passes is None else passes, target)
        if lowered.guard is not None:
            lowered.outputs["guard"] = lowered.guard
        return lowered

    def run(self, record, feeds, *, seen=None, passes=None):
        """The outputs that record(ops) returns, computed by the fast graph, and whether its assumptions were true.

        seen: serialized graphs, to which this one is added; one that is there already is not run again: None.
        """
        seen = set() if seen is None else seen
        made = []

        def lowered_again(assuming):
            lowered = self.lowered(record, assuming=assuming, passes=passes)
            made.append(assuming)
            return lowered

        with pytest.MonkeyPatch.context() as patch:
            if not _is_exact_here(self.kernels):
                patch.setattr(IntegerForm, "record", _stand_in)
            lowered = lowered_again(True)
            key = lowered.model(embed_weights=False).SerializeToString()
            if key in seen:
                return None
            seen.add(key)

            def fallback():
                return lowered_again(False).session(threads=1)

            runner = GuardedRunner(lowered.session(threads=1), fallback, guard="guard" if lowered.guard else None)
            return runner.run(feeds), len(made) == 1


# The abilities of processors: none; AVX2 without VNNI; the same except the bounds; VNNI or ARM. The last one has
# everything: what `agree` tells of nodes is of a graph that was recorded for it.
MACHINES = {
    "no integer kernels, no blocks": Machine(NONE, False),
    "no integer kernels": Machine(NONE, True),
    "bounded and unsigned": Machine(_with(Weights.SIGNED_BOUNDED, Weights.UNSIGNED), True),
    "unsigned, no blocks, no rescaling": Machine(
        IntegerKernels.of([kernel for kernel in ALL_KERNELS if kernel.weights is Weights.UNSIGNED], rescales=False),
        False,
    ),
    "all, no blocks": Machine(IntegerKernels.of(ALL_KERNELS, even_if_slower=False), False),
    "all": Machine(ALL, True),
}


def fast_nodes(build, shape, machine=MACHINES["all"]):
    """How many nodes of which type the fast graph of build(ops, x) has, for an x of this shape."""
    lowered = machine.lowered(lambda ops: {"y": build(ops, ops.input("x", shape))})
    model = lowered.model()
    return Counter(node.op_type for node in model.graph.node)


def _stand_in(form, graph, stored, low, kernel):
    """What IntegerForm.record computes, in float32 operations: for kernels that are not exact on this machine. All sums
    are below 2^24, or above what saturates."""

    def one(op, *inputs, shape=form.product.shape, **attributes):
        return graph.record(op, inputs, [shape], **attributes)[0]

    def number(value):
        return graph.constant(np.asarray(value, np.float32))

    x = one("Cast", stored, shape=stored.shape, to=TensorProto.FLOAT)
    x = one("Add", x, number(form.product.steps.low), shape=stored.shape)
    operands = [x, number(form.weight), number(form.bias)]
    geometry = form.product.geometry
    sums = None if geometry is None else one("Conv", *operands, **conv_attributes(form.weight.shape[2:], geometry))
    sums = sums or one("Gemm", *operands, transB=1)
    sums = one("Cast", one("Cast", sums, to=TensorProto.INT32), to=TensorProto.FLOAT)  # else Conv and Mul are fused
    scale = np.where(form.has_remainder, np.nextafter(np.float32(1), np.float32(2)), np.float32(1))
    scale = np.ldexp(scale, form.grid.frac_bits - form.product.unit_bits)
    steps = one("Round", one("Mul", sums, number(scale.reshape(-1, *[1] * (len(stored.shape) - 2)))))
    bytes_ = one("Clip", one("Sub", steps, number(low)), number(0), number(255))
    return one("Cast", bytes_, to=TensorProto.UINT8)


def _is_exact_here(kernels):
    here = exact_kernels()
    return all(here.allows(kernel) or not kernels.allows(kernel) for kernel in ALL_KERNELS) and (
        here.rescales() or not kernels.rescales()
    )


def _agree(build, *arrays):
    """build(ops, *values), computed by the fast ops on all kinds of machines: as by OnnxOps, bit for bit except for
    the sign of zero."""
    arrays = [np.asarray(array, np.float32) for array in arrays]
    feeds = {f"x{i}": array for i, array in enumerate(arrays)}

    def record(ops):
        values = build(ops, *[ops.input(name, array.shape) for name, array in feeds.items()])
        return values, {str(i): value for i, value in enumerate(_as_list(values))}

    plain = OnnxOps()
    wanted = plain_session(plain, record(plain)[1]).run(feeds)
    for name, machine in MACHINES.items():
        results, assumed = machine.run(lambda ops: record(ops)[1], feeds)
        assert results.keys() == wanted.keys()
        for output, result in results.items():
            np.testing.assert_array_equal(result, wanted[output], err_msg=name)
    is_tuple = isinstance(record(OnnxOps())[0], tuple)
    lowered = MACHINES["all"].lowered(lambda ops: record(ops)[1])
    model = lowered.model()
    found = tuple(results.values())
    return Fast(
        found if is_tuple else found[0],
        Counter(node.op_type for node in model.graph.node),
        assumed,
    )


@pytest.fixture(scope="session")
def compute():
    return _compute


@pytest.fixture(scope="session")
def refuse():
    return _refuse


@pytest.fixture(scope="session")
def agree():
    return _agree
