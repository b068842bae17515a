"""The public names of the ONNX backend."""

from __future__ import annotations

from ristretto_cli.backends.onnx_graph import Graph
from ristretto_cli.backends.onnx_graph import Tensor as Node
from ristretto_cli.backends.onnx_ops import OnnxOps

__all__ = ["Graph", "Node", "OnnxOps"]
