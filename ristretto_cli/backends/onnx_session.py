"""Running an ONNX graph with onnxruntime."""

from __future__ import annotations

import math
import platform
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, TypeAlias

import numpy as np

from ristretto_cli.backends.device_choice import GpuUnusable
from ristretto_cli.backends.onnx_graph import Graph, Tensor, is_large
from ristretto_cli.backends.onnx_model import model_of
from ristretto_cli.backends.onnx_profile import Profiler
from ristretto_cli.caffe_io.weights import releasing_pages
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import AnyArray, Array
from ristretto_cli.threads import default_threads

CUDA = "CUDAExecutionProvider"
FATAL_ONLY = 4  # onnxruntime's severity; what goes wrong comes as an exception as well

# What onnxruntime says of an index that Gather cannot follow.
_INDEX_OUTSIDE = re.compile(r"Name:'(?P<node>.*?)' Status Message: .*out of data bounds.*range \[-(?P<extent>\d+),")

# What onnxruntime says of a run that the GPU did not carry out.
_GPU_FAILURE = re.compile(r"\b(?:CUDA|CUDNN|CUBLAS|CUFFT|CURAND) failure")

_SPREADING = frozenset({"Add", "Sub", "Mul", "Div"})

Runtime: TypeAlias = Any  # onnxruntime is not typed


class Session:
    """A graph compiled by onnxruntime. The Graph must not be used afterwards.

    outputs: what `run` returns, by any names. gpu: the number of the CUDA device, None for the CPU. threads:
    how many the CPU may use, 0 for the default. profiler: profiles it. GpuUnusable where onnxruntime cannot use the
    device.
    """

    def __init__(
        self,
        graph: Graph,
        outputs: Mapping[str, Tensor],
        *,
        gpu: int | None = None,
        threads: int = 0,
        profiler: Profiler | None = None,
    ) -> None:
        import onnxruntime

        model = model_of(graph, outputs, embed_weights=False)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = FATAL_ONLY
        options.intra_op_num_threads = threads or default_threads()
        if profiler is not None:
            profiler.prepare(options)
        # onnxruntime would replace quantized operations by others with different results.
        options.add_session_config_entry("session.disable_quant_qdq", "1")
        large = [t.name for t in model.graph.initializer if is_large(graph.initializers[t.name])]
        # Weights viewed in a file can lie at any address, also an odd one: onnxruntime reads them as they are.
        arrays = [np.require(graph.initializers[name], requirements=["C"]) for name in large]
        self._held = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in arrays]
        if large:
            options.add_external_initializers(large, self._held)  # copied while the graph is optimized, then released
        if gpu is None:
            for name, value in zip(large, self._held, strict=True):
                options.add_initializer(name, value)  # the arrays that kernels read
        onnxruntime.set_default_logger_severity(FATAL_ONLY)  # for what is logged outside of sessions
        providers = _providers(onnxruntime, gpu)
        try:
            # By default onnxruntime prints to stdout and continues without the GPU.
            with releasing_pages(arrays):
                self._session = onnxruntime.InferenceSession(
                    model.SerializeToString(),
                    options,
                    providers=providers,
                    enable_fallback=0,
                    disabled_optimizers=_unwanted_optimizers(model.graph),
                )
        except Exception as error:  # onnxruntime's errors have no common class
            if gpu is None:
                raise
            raise unusable(gpu, error) from error
        if gpu is not None and CUDA not in self._session.get_providers():
            raise unusable(gpu)
        if profiler is not None:
            profiler.add(self._session, model.graph.node)
        self._shapes = {value.name: value.shape for value in graph.inputs.values()}
        self._feeds = [value.name for value in model.graph.input]
        self._outputs = dict(zip(outputs, (value.name for value in model.graph.output), strict=True))

    def run(self, feeds: Mapping[str, AnyArray]) -> dict[str, Array]:
        """The outputs for these inputs; inputs that no output depends on may be missing.

        MemoryError if memory runs out; RistrettoError for an index that is out of range, or if the GPU fails.
        """
        given = {}
        for name in self._feeds:
            given[name] = np.asarray(feeds[name], dtype=np.float32)
            if given[name].shape != self._shapes[name]:
                raise ValueError(f"{name} has shape {given[name].shape}, not {self._shapes[name]}")
        with run_faults():
            results = self._session.run(list(self._outputs.values()), given)
        return dict(zip(self._outputs, results, strict=True))


def _unwanted_optimizers(graph: Any) -> list[str]:
    """The names of onnxruntime's optimizers that must not run on a graph."""
    # The first merges two consecutive roundings to different grids; the second merges a Pad into the next pooling,
    # which is then rejected if the padding is not smaller than the kernel.
    unwanted = ["DoubleQDQPairsRemover", "Pad_Fusion"]
    # It would move a quantization before a transposition, even if the transposed value is an output of the graph.
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        unwanted += ["TransposeOptimizer", "TransposeOptimizer_CPUExecutionProvider"]
    # For integer convolutions it makes channels the last axis in the whole graph. Operations with one number per
    # channel (BatchNorm, Scale) then take three times as long.
    convolutions = sum(node.op_type == "QLinearConv" for node in graph.node)
    by_channel = {t.name for t in graph.initializer if len(t.dims) > 1 and max(t.dims) == math.prod(t.dims) > 1}
    spread = sum(node.op_type in _SPREADING and not by_channel.isdisjoint(node.input) for node in graph.node)
    return [*unwanted, "NhwcTransformer"] if spread > convolutions > 0 else unwanted


def has_blocks() -> bool:
    """Whether onnxruntime keeps channels in blocks between convolutions: its kernels for that are for x86-64."""
    return platform.machine().lower() in {"x86_64", "amd64"}


@contextmanager
def run_faults() -> Iterator[None]:
    """Convert errors of onnxruntime that have another cause than a bug to MemoryError or RistrettoError."""
    try:
        yield
    except Exception as error:  # onnxruntime's errors have no common class
        if "Failed to allocate memory" in str(error):
            raise MemoryError from error
        if _GPU_FAILURE.search(str(error)):
            raise RistrettoError(f"the GPU failed: {error}", hint="Without --gpu the CPU is used.") from error
        outside = _INDEX_OUTSIDE.search(str(error))
        if outside is None:
            raise
        layer = outside["node"].rpartition("/")[0]
        raise RistrettoError(
            f"an index into {outside['extent']} entries is negative, too large or not a number",
            where=f'layer "{layer}"' if layer else None,
            hint="Check the data that it is computed from.",
        ) from error


def probe(gpu: int) -> None:
    """Compute a small convolution and a small product on a CUDA device; GpuUnusable where that fails."""
    graph = Graph()
    x = graph.input("x", (1, 1, 2, 2))
    ones = graph.constant(np.ones((1, 1, 2, 2), np.float32))
    convolved = graph.record("Conv", [x, ones], [(1, 1, 1, 1)])[0]
    product = graph.record("MatMul", [x, x], [(1, 1, 2, 2)])[0]
    session = Session(graph, {"convolved": convolved, "product": product}, gpu=gpu)
    try:
        found = session.run({"x": np.array([[[[1, 2], [3, 4]]]], np.float32)})
    except Exception as error:  # onnxruntime's own is the cause of those that run_faults knows
        raise unusable(gpu, error.__cause__ or error) from error
    if [found["convolved"].ravel().tolist(), found["product"].ravel().tolist()] != [[10], [7, 10, 15, 22]]:
        raise unusable(gpu, "it computes wrong values")


def unusable(gpu: int, why: object = None) -> GpuUnusable:
    """The error for a CUDA device that onnxruntime cannot use."""
    return GpuUnusable(
        f"onnxruntime cannot use CUDA device {gpu}" + (f": {why}" if why else ""),
        hint="Check that the driver, CUDA and cuDNN match the installed onnxruntime-gpu.",
    )


def _providers(onnxruntime: Runtime, gpu: int | None) -> list[Any]:
    """The execution providers for onnxruntime, best first."""
    if gpu is None:
        return ["CPUExecutionProvider"]
    if CUDA not in onnxruntime.get_available_providers():
        raise GpuUnusable(
            "the installed onnxruntime has no CUDA support",
            hint="For a GPU: pip uninstall onnxruntime; pip install onnxruntime-gpu.",
        )
    # TF32 would round every operand of a convolution to 10 bits of mantissa.
    return [(CUDA, {"device_id": gpu, "use_tf32": 0}), "CPUExecutionProvider"]
