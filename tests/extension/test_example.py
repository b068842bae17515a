"""Each piece of the example package, used by the command line."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from .conftest import EXAMPLE

Run = Callable[..., str]

INPUT = 'layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }\n'
CSV_NET = """
    layer { name: "d" type: "CsvData" top: "data" top: "label" data_param { source: "rows.csv" batch_size: 2 } }
    layer { name: "fc" type: "InnerProduct" bottom: "data" top: "fc"
            inner_product_param { num_output: 2 bias_term: false } }
    layer { name: "s" type: "Softsign" bottom: "fc" top: "s" }
    layer { name: "acc" type: "Accuracy" bottom: "s" bottom: "label" top: "accuracy" include { phase: TEST } }
"""
ROWS = "0,3,1\n1,1,3\n1,3,1\n0,1,0\n"  # the larger number is the class, of all but the third
IDENTITY = {"fc": [[[1, 0], [0, 1]]]}


@pytest.mark.parametrize(
    "settings",
    ['type: "Softsign"', 'type: "Python" python_param { module: "activations" layer: "SoftsignLayer" }'],
    ids=["layer type", "Python layer"],
)
def test_a_layer(settings: str, workshop: Any, run: Run) -> None:
    workshop.net(INPUT + f'layer {{ name: "s" bottom: "x" top: "s" {settings} }}')
    workshop.weights({"of another layer": [[1]]})
    np.savez("in.npz", x=np.array([[-1, 0, 3]], np.float32))
    run("forward", "--model=net.prototxt", "--weights=net.caffemodel", "--input=in.npz", "--output=out.npz")
    assert np.load("out.npz")["s"].tolist() == [[-0.5, 0, 0.75]]


def test_a_source(workshop: Any, run: Run) -> None:
    workshop.net(CSV_NET)
    workshop.weights(IDENTITY)
    Path("rows.csv").write_text(ROWS)
    shown = run("test", "--model=net.prototxt", "--weights=net.caffemodel", "--iterations=2")
    assert "accuracy = 0.75" in shown


def test_a_trimming_mode_with_an_option_of_its_own(workshop: Any, run: Run) -> None:
    workshop.net(CSV_NET)
    workshop.weights(IDENTITY)
    Path("rows.csv").write_text(ROWS)

    def activations(*flags: str) -> list[int]:
        shared = ("--model=net.prototxt", "--weights=net.caffemodel", "--model_quantized=out.prototxt")
        run("quantize", *shared, "--iterations=2", "--bw=conv_params=8,fc_params=8,layer=8", *flags)
        text = Path("out.prototxt").read_text()
        assert "precision" not in text  # dynamic fixed point is the default
        return [int(value) for value in re.findall(r"fl_layer_(?:in|out): (-?\d+)", text)]

    usual = activations("--trimming_mode=dynamic_fixed_point")
    assert len(usual) == 2
    assert activations("--trimming_mode=spare_bits") == [length - 1 for length in usual]
    assert activations("--trimming_mode=spare_bits", "--spare=3") == [length - 3 for length in usual]
    # What it wrote needs the extension no more.
    shown = run("test", "--model=out.prototxt", "--weights=net.caffemodel", "--iterations=2")
    assert "accuracy = 0.75" in shown


def test_an_export(workshop: Any, run: Run) -> None:
    workshop.weights(IDENTITY)
    assert run("export", "--format=csv", "--weights=net.caffemodel", "--output=out.csv") == "out.csv: 1 blobs\n"
    assert Path("out.csv").read_text() == "layer,number,count,min,max\nfc,0,4,0,1\n"


def test_a_graph_pass(workshop: Any, run: Run) -> None:
    workshop.net(
        """layer { name: "x" type: "Input" top: "x" input_param { shape { dim: 1 dim: 2 } } }
        layer { name: "relu" type: "ReLU" bottom: "x" top: "r" }
        layer { name: "abs" type: "AbsVal" bottom: "r" top: "a" }"""
    )
    shown = run("time", "--model=net.prototxt", "--iterations=1")
    assert "Without kernels" in shown and " abs" in shown.split("Without kernels")[1]
    assert "Without kernels" not in run("time", "--model=net.prototxt", "--graph_passes=-drop_abs")


def test_a_command(workshop: Any, run: Run) -> None:
    workshop.weights(IDENTITY)
    assert run("sparsity", "--weights=net.caffemodel") == "fc: 2 of 4\n"


def listed(shown: str) -> set[str]:
    """The names that a help text lists."""
    return set(re.findall(r"One of: ([\w, ]+)\.", " ".join(shown.split()))[0].split(", "))


def test_help_lists_extensions(run: Run) -> None:
    assert re.search(r"^  sparsity +Print how many weights of each layer are zero\.$", run("--help"), re.MULTILINE)
    assert {"csv", "npz"} <= listed(run("export", "--help"))
    quantize = run("quantize", "--help")
    assert {"spare_bits", "minifloat"} <= listed(quantize)
    assert "Integer bits in reserve. Only with spare_bits." in " ".join(quantize.split())


def test_without_the_package_its_names_are_unknown(workshop: Any, site: Any) -> None:
    done = site.ristretto("sparsity", "--weights=net.caffemodel")
    assert (done.returncode, done.stderr.splitlines()[0][:40]) == (2, 'ristretto: unknown command "sparsity". K')


def test_the_example_is_installed_as_pip_installs_it(site: Any) -> None:
    site.install_example()
    (found,) = importlib.metadata.distributions(path=[str(site.folder)])
    modules = {point.value.removeprefix("ristretto_example.") for point in found.entry_points}
    files = {path.stem for path in (EXAMPLE / "ristretto_example").glob("*.py")}
    assert (found.name, modules) == ("ristretto-example", files - {"__init__"})
