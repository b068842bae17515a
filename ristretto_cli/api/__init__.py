"""The Python interface: nets on numpy arrays, and the work of the commands as functions.

>>> from ristretto_cli.api import Net, evaluate, export, quantize, train
"""

from ristretto_cli.api.functions import evaluate, export, quantize, train
from ristretto_cli.api.net import LayerInfo, Net
from ristretto_cli.errors import RistrettoError, RistrettoErrors
from ristretto_cli.quantize.result import QuantizationResult
from ristretto_cli.scoring.scores import Output, Scores
from ristretto_cli.train.run import TrainingResult

__all__ = [
    "LayerInfo",
    "Net",
    "Output",
    "QuantizationResult",
    "RistrettoError",
    "RistrettoErrors",
    "Scores",
    "TrainingResult",
    "evaluate",
    "export",
    "quantize",
    "train",
]
