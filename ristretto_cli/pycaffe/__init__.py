"""The part of pycaffe that classification, feature extraction and net surgery use, without Caffe.

Scripts run with their import changed to `import ristretto_cli.pycaffe as caffe`. What is missing (`backward`, solvers)
says so when it is used; `ristretto_cli.api` has the functions for it.
"""

from typing import Any

from ristretto_cli import __version__
from ristretto_cli.caffe_io.messages import TEST, TRAIN
from ristretto_cli.pycaffe import io, proto
from ristretto_cli.pycaffe.classifier import Classifier
from ristretto_cli.pycaffe.net import Blob, Net, set_random_seed

__all__ = [
    "TEST",
    "TRAIN",
    "Blob",
    "Classifier",
    "Net",
    "__version__",
    "init_log",
    "io",
    "layer_type_list",
    "log",
    "proto",
    "set_device",
    "set_mode_cpu",
    "set_mode_gpu",
    "set_random_seed",
]


def set_mode_cpu() -> None:
    """Nothing to do: nets run on the CPU."""


def set_mode_gpu() -> None:
    """Warn that nets run on the CPU, which gives the same results."""
    import logging

    logging.getLogger("ristretto").warning("set_mode_gpu: nets of ristretto_cli.pycaffe run on the CPU.")


def set_device(device: int) -> None:
    """Nothing to do, see set_mode_gpu."""


def init_log(level: int = 0) -> None:
    """Nothing to do: messages go to the logger "ristretto"."""


def log(text: str) -> None:
    """Log a line."""
    import logging

    logging.getLogger("ristretto").info("%s", text)


def layer_type_list() -> list[str]:
    """The names of all layer types."""
    from ristretto_cli.layers.layer_type import LAYERS

    return LAYERS.names()


def __getattr__(name: str) -> Any:
    if name.endswith("Solver") or name == "get_solver":
        raise AttributeError(f"ristretto_cli.pycaffe has no {name}; ristretto_cli.api.train trains nets")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
