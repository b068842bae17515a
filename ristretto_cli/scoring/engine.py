"""A net on onnxruntime: its graph compiled once, then run batch after batch."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np

from ristretto_cli.backends.onnx import Node, OnnxOps
from ristretto_cli.backends.onnx_session import Session
from ristretto_cli.net.forward import Run, forward
from ristretto_cli.net.ir import Net

log = logging.getLogger("ristretto")

# What a caller wants to see of a run, by the names of its choice; the ops let it add nodes of its own.
Select: TypeAlias = Callable[[Run[Node], OnnxOps], Mapping[str, Node]]


def record(net: Net, *, rng: np.random.Generator) -> tuple[OnnxOps, Run[Node]]:
    """The net as an ONNX graph, and the values of its run there. The inputs have the blobs' names."""
    ops = OnnxOps(rng)
    feeds = {blob.name: ops.input(blob.name, blob.shape) for blob in net.inputs}
    return ops, forward(net, ops, feeds, rng=rng)


def compile_net(net: Net, select: Select, *, rng: np.random.Generator, gpu: int | None = None) -> Session:
    """A session that computes what select picks."""
    ops, run = record(net, rng=rng)
    return Session(ops.graph, select(run, ops), gpu=gpu)


def log_device(gpu: int | None) -> None:
    """Tell what nets run on, in Caffe's words."""
    log.info("%s", "Use CPU." if gpu is None else f"Use GPU with device ID {gpu}")
