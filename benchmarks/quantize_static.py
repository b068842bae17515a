"""onnxruntime.quantization.quantize_static as a process of its own, which then writes down its peak memory.

python -m benchmarks.quantize_static FILE MODEL IMAGES BATCH OUTPUT: MODEL is a float ONNX file with one input, IMAGES
an .npy file of what it is fed, BATCH how many of these a calibration step takes. It imports nothing of ristretto.
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from benchmarks.child import peak_bytes


class _Images(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, name: str, images: Any, batch: int) -> None:
        self._batches = ({name: np.array(images[i : i + batch])} for i in range(0, len(images), batch))

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def main(file: str, model: str, images: str, batch: str, output: str) -> int:
    """Quantize a model with MinMax ranges to QDQ of 8 bits, and write what that cost."""
    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        quant_pre_process(model, str(prepared))
        (fed,) = onnx.load(prepared, load_external_data=False).graph.input
        quantize_static(
            str(prepared),
            output,
            _Images(fed.name, np.load(images, mmap_mode="r"), int(batch)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=False,
            calibrate_method=CalibrationMethod.MinMax,
        )
    Path(file).write_text(json.dumps({"peak_bytes": peak_bytes()}))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
