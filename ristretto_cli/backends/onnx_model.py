"""A recorded graph as an ONNX model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from onnx import TensorProto, helper, numpy_helper

from ristretto_cli.backends.onnx_graph import Graph, Node, Tensor, is_large, unused
from ristretto_cli.ops import AnyArray, Shape

# onnxruntime 1.20 runs opset 21 in full; of 22, even 1.31 lacks some (RandomUniform).
OPSET = 21
IR_VERSION = 10
EXTERNAL_FILE = "weights"  # never opened: whoever loads such a model brings the constants

NodeProto: TypeAlias = Any  # onnx is not typed
ModelProto: TypeAlias = Any


def model_of(graph: Graph, outputs: Mapping[str, Tensor], *, embed_weights: bool) -> ModelProto:
    """The model that computes these outputs, by their names, from such inputs as they need.

    Its outputs are in the order of the mapping. An output with the name of an input gets another name, since names in
    a graph are unique. Without embed_weights, large constants are only declared, as external data of no file;
    `graph.initializers` has them by name. The graph is of no use for other outputs afterwards.
    """
    graph.keep_only(outputs.values())
    nodes = graph.needed(outputs.values())
    produced = {tensor.name for node in nodes for tensor in node.outputs}
    read = {tensor.name for node in nodes for tensor in node.inputs if tensor is not None}
    read |= {tensor.name for tensor in outputs.values()} - produced
    inputs = [tensor for name, tensor in graph.inputs.items() if name in read]
    constants = [name for name in graph.initializers if name in read]

    taken = {tensor.name for tensor in inputs} | set(constants)
    names = {name: name for name in taken}
    results = [unused(name, taken) for name in outputs]
    copies = []
    for result, tensor in zip(results, outputs.values(), strict=True):
        if tensor.name in names:  # an input, a constant, or an output already
            copies.append(helper.make_node("Identity", [names[tensor.name]], [result], name=result))
        else:
            names[tensor.name] = result
    used: set[str] = set()
    titles = [unused(node.scope + node.op, used) for node in nodes]
    for title, node in zip(titles, nodes, strict=True):
        for i, tensor in enumerate(node.outputs):
            if tensor.name not in names:
                names[tensor.name] = unused(f"{title}:{i}" if i else title, taken)
    protos = [_proto(node, title, names) for title, node in zip(titles, nodes, strict=True)]
    return helper.make_model(
        helper.make_graph(
            protos + copies,
            "net",
            [_declared(tensor.name, tensor.shape) for tensor in inputs],
            [_declared(name, tensor.shape) for name, tensor in zip(results, outputs.values(), strict=True)],
            [_initializer(name, graph.initializers[name], embed_weights) for name in constants],
        ),
        opset_imports=[
            helper.make_opsetid(domain, OPSET if domain == "" else 1)
            for domain in sorted({"", *(node.domain for node in nodes)})
        ],
        ir_version=IR_VERSION,
        producer_name="ristretto-cli",
    )


def _proto(node: Node, title: str, names: Mapping[str, str]) -> NodeProto:
    return helper.make_node(
        node.op,
        ["" if tensor is None else names[tensor.name] for tensor in node.inputs],
        [names[tensor.name] for tensor in node.outputs],
        name=title,
        domain=node.domain,
        **node.attributes,
    )


def _declared(name: str, shape: Shape) -> Any:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def _initializer(name: str, array: AnyArray, embed: bool) -> Any:
    if embed or not is_large(array):
        return numpy_helper.from_array(array, name)
    tensor = TensorProto(
        name=name,
        dims=array.shape,
        data_type=helper.np_dtype_to_tensor_dtype(array.dtype),
        data_location=TensorProto.EXTERNAL,
    )
    tensor.external_data.add(key="location", value=EXTERNAL_FILE)
    return tensor
