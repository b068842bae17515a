"""How fast nets are scored and searched, beside onnxruntime alone: `python -m benchmarks --help`."""
