"""Labels that are not classes."""

from __future__ import annotations

from typing import Any

import h5py
import numpy as np
import pytest

from ristretto_cli.cli.main import run
from ristretto_cli.scoring.data_loader import DataLoader

INPUTS = """
    layer {{ name: "i" type: "Input" top: "x" top: "y"
            input_param {{ shape {{ dim: 2 dim: 3 }} shape {{ {} }} }} }}
"""
READERS = {
    "Accuracy": 'layer { name: "l" type: "Accuracy" bottom: "x" bottom: "y" top: "l" }',
    "SoftmaxWithLoss": 'layer { name: "l" type: "SoftmaxWithLoss" bottom: "x" bottom: "y" top: "l" }',
    "HingeLoss": 'layer { name: "l" type: "HingeLoss" bottom: "x" bottom: "y" top: "l" }',
    "MultinomialLogisticLoss": 'layer { name: "l" type: "MultinomialLogisticLoss" bottom: "x" bottom: "y" top: "l" }',
    "InfogainLoss": """
        layer { name: "h" type: "DummyData" top: "h" dummy_data_param { shape { dim: 1 dim: 1 dim: 3 dim: 3 } } }
        layer { name: "l" type: "InfogainLoss" bottom: "x" bottom: "y" bottom: "h" top: "l" }""",
}
SCORES = np.zeros((2, 3), np.float32)


def warnings(
    workshop: Any, caplog: pytest.LogCaptureFixture, text: str, labels: list[Any], dims: str = "dim: 2"
) -> list[str]:
    """What is logged for two equal batches of labels."""
    caplog.clear()
    net = workshop.load(INPUTS.format(dims) + text)
    with DataLoader(net, given={"x": SCORES, "y": np.array(labels, np.float32)}) as loader:
        for _ in range(2):
            loader.next()
    return [record.getMessage() for record in caplog.records if "is not a class" in record.getMessage()]


@pytest.mark.parametrize("kind", READERS)
def test_every_reader_of_labels_names_them_and_its_classes(
    kind: str, workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    (message,) = warnings(workshop, caplog, READERS[kind], [0, 3])
    assert message.startswith(
        f'Label 3 in blob "y" (TEST data) is not a class: layer "l" ({kind}) has 3 classes, 0 to 2.'
    )


@pytest.mark.parametrize(
    ("labels", "shown"), [([0, 2], ""), ([-1, 0], "Label -1 "), ([2, 1000], "Label 1000 "), ([0, np.nan], "Label nan ")]
)
def test_labels_within_and_outside(
    labels: list[float], shown: str, workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    found = warnings(workshop, caplog, READERS["Accuracy"], labels)
    assert [message.startswith(shown) for message in found] == [True] * bool(shown)


@pytest.mark.parametrize(
    ("kind", "param"),
    [("Accuracy", "accuracy_param"), ("SoftmaxWithLoss", "loss_param"), ("InfogainLoss", "loss_param")],
)
def test_an_ignored_label_is_not_warned_of(
    kind: str, param: str, workshop: Any, caplog: pytest.LogCaptureFixture
) -> None:
    text = READERS[kind].removesuffix("}") + param + " { ignore_label: 255 } }"
    assert warnings(workshop, caplog, text, [0, 255]) == []
    assert len(warnings(workshop, caplog, text, [0, 254])) == 1


def test_layers_that_read_the_same_labels_warn_once(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    both = READERS["Accuracy"].replace('"l"', '"a"') + READERS["SoftmaxWithLoss"]
    assert len(warnings(workshop, caplog, both, [3, 3])) == 1


def test_labels_are_followed_through_layers_that_pass_them_on(workshop: Any, caplog: pytest.LogCaptureFixture) -> None:
    text = """
        layer { name: "s" type: "Slice" bottom: "y" top: "a" top: "b" slice_param { axis: 1 } }
        layer { name: "f" type: "Flatten" bottom: "b" top: "c" flatten_param { axis: 0 } }
        layer { name: "acc" type: "Accuracy" bottom: "x" bottom: "c" top: "acc" }
        layer { name: "quiet" type: "Silence" bottom: "a" }
    """
    dims = "dim: 2 dim: 2"
    assert warnings(workshop, caplog, text, [[9, 0], [9, 2]], dims=dims) == []
    assert len(warnings(workshop, caplog, text, [[0, 0], [0, 3]], dims=dims)) == 1


TRAINED = """
    layer { name: "d" type: "HDF5Data" top: "x" top: "y" hdf5_data_param { source: "list" batch_size: 2 } }
    layer { name: "ip" type: "InnerProduct" bottom: "x" top: "ip" inner_product_param { num_output: 3 } }
    layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "y" top: "loss" }
    layer { name: "acc" type: "Accuracy" bottom: "ip" bottom: "y" top: "acc" include { phase: TEST } }
"""


@pytest.mark.parametrize("command", ["test", "quantize", "train"])
@pytest.mark.parametrize("wrong", [False, True])
def test_commands_warn_once_for_each_net_that_is_scored_or_trained(
    command: str, wrong: bool, workshop: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with h5py.File("data.h5", "w") as file:
        file["x"], file["y"] = np.eye(3, dtype=np.float32)[[0, 1, 2, 0]], np.float32([0, 1, 2, 3 * wrong])
    workshop.folder.joinpath("list").write_text("data.h5\n")
    net, weights = workshop.net(TRAINED), workshop.weights({"ip": [np.eye(3), np.zeros(3)]})
    workshop.folder.joinpath("solver").write_text(
        f'net: "{net}" base_lr: 0.1 lr_policy: "fixed" max_iter: 4 test_iter: 4 test_interval: 2 snapshot_prefix: "s"\n'
    )
    flags = {
        "test": ["--iterations=8", f"--model={net}", f"--weights={weights}"],
        "quantize": [
            *("--iterations=4", f"--model={net}", f"--weights={weights}", "--cache_mb=0"),
            *("--trimming_mode=dynamic_fixed_point", "--bit_widths=8"),
        ],
        "train": ["--solver=solver"],
    }
    if command == "train":
        pytest.importorskip("torch")
    assert run([command, *flags[command]]) == 0
    found = [line for line in capsys.readouterr().err.splitlines() if "is not a class" in line]
    phases = {"test": ["TEST"], "quantize": ["TEST"], "train": ["TEST", "TRAIN"]}[command]
    assert sorted("TRAIN" if "(TRAIN data)" in line else "TEST" for line in found) == (phases if wrong else [])
    assert all('Label 3 in blob "y"' in line and "has 3 classes, 0 to 2" in line for line in found)
