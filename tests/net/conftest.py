"""What the tests of nets share: building one from text, and running one with all that it meets kept."""

import textwrap

import numpy as np
import pytest

from ristretto_cli.backends.onnx import OnnxOps
from ristretto_cli.backends.onnx_lower import lower
from ristretto_cli.caffe_io.net_file import read_net
from ristretto_cli.errors import RistrettoError, RistrettoErrors
from ristretto_cli.net.build import NetState, build
from ristretto_cli.net.forward import forward
from ristretto_cli.sources.open import DataLayers


class Nets:
    """Builds nets from text, in a folder of its own."""

    def __init__(self, folder):
        self._file = folder / "net.prototxt"

    def build(self, text, *state, **more):
        """The Net of a text, for NetState(*state, **more)."""
        self._file.write_text(textwrap.dedent(text).lstrip())
        return build(read_net(self._file), NetState(*state, **more), DataLayers())

    def refusals(self, text, *state, **more):
        """What is said against a net, a line each, without the file's name (but with the number of the line)."""
        with pytest.raises(RistrettoError) as refused:
            self.build(text, *state, **more)
        errors = refused.value.errors if isinstance(refused.value, RistrettoErrors) else [refused.value]
        return [str(error).replace(str(self._file), "net") for error in errors]


class Result:
    """A run's values as arrays; see net.forward.Run."""

    def __init__(self, net, feeds, seed):
        ops = OnnxOps()
        inputs = {blob.name: ops.input(blob.name, blob.shape) for blob in net.inputs}
        run = forward(net, ops, inputs, rng=np.random.default_rng(seed))
        kept = {f"end {name}": value for name, value in run.final.items()}
        for layer, read, written in zip(net.layers, run.inputs, run.outputs, strict=True):
            kept.update({f"read {layer.name} {i}": value for i, value in enumerate(read)})
            kept.update({f"written {layer.name} {i}": value for i, value in enumerate(written)})
        kept.update({f"update {key}": value for key, value in run.updates.items()})
        if run.loss is not None:
            kept["loss"] = run.loss
        fed = {name: np.asarray(array, np.float32) for name, array in feeds.items()}
        self._arrays = lower(ops.graph, kept).session(threads=1).run(fed)
        self.updates = {key.removeprefix("update "): a.tolist() for key, a in self._arrays.items() if "update" in key}
        self.loss = self._arrays["loss"].tolist() if run.loss is not None else None

    def end(self, blob):
        return self._arrays[f"end {blob}"].tolist()

    def read(self, layer, bottom=0):
        return self._arrays[f"read {layer} {bottom}"].tolist()

    def written(self, layer, top=0):
        return self._arrays[f"written {layer} {top}"].tolist()


@pytest.fixture
def nets(tmp_path):
    return Nets(tmp_path)


@pytest.fixture
def run():
    def run_net(net, feeds, seed=0):
        return Result(net, feeds, seed)

    return run_net
