"""The programs and files that published scripts expect in a tree of Caffe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from ristretto_cli.backends import onnx_session
from ristretto_cli.backends.device_choice import GpuUnusable
from ristretto_cli.caffe_io.net_file import read_net, read_solver
from ristretto_cli.caffe_io.printer import to_text
from ristretto_cli.caffe_tree import install as tree
from ristretto_cli.cli.main import run
from ristretto_cli.train import torch_import

from .conftest import Job

REPO = Path(__file__).resolve().parents[2]
SCRIPTS = (
    "00_quantize_squeezenet.sh",
    "01_finetune_squeezenet.sh",
    "02_benchmark_fixedpoint_squeezenet.sh",
    "benchmark_floatingpoint_squeezenet.sh",
)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tree whose programs are scripts, as without an installed command, and the current folder."""
    monkeypatch.setattr(tree, "_command", lambda: None)
    folder = tmp_path / "a tree"
    assert run(["install_tools", str(folder)]) == 0
    monkeypatch.chdir(folder)
    return folder


def start(program: str, *args: str, **settings: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path, **settings}
    return subprocess.run([program, *args], capture_output=True, text=True, timeout=300, check=False, env=environment)


def test_every_program_has_its_name_with_and_without_bin(installed: Path) -> None:
    tools = sorted(path.name for path in (installed / "build/tools").iterdir())
    names = [name.removesuffix(".bin") for name in tools if name.endswith(".bin")]
    assert tools == sorted([*names, *(f"{name}.bin" for name in names)])
    assert {"caffe", "ristretto", "convert_imageset", "compute_image_mean", "extract_features"} <= set(names)
    assert (installed / ".build_release/tools/caffe").exists()
    for path in (
        "build/examples/mnist/convert_mnist_data.bin",
        "examples/mnist/convert_mnist_data.bin",
        "build/examples/cifar10/convert_cifar_data.bin",
    ):
        assert os.access(installed / path, os.X_OK), path


@pytest.mark.parametrize(
    ("program", "args", "begins"),
    [
        ("build/tools/caffe", ["test", "--help"], "Usage: ristretto test"),
        ("./build/tools/ristretto.bin", ["quantize", "-help"], "Usage: ristretto quantize"),
        ("build/tools/convert_imageset", ["--help"], "Usage: ristretto convert_imageset"),
        (".build_release/examples/mnist/convert_mnist_data.bin", ["--help"], "Usage: ristretto convert_mnist_data"),
    ],
)
def test_a_program_runs_its_command(installed: Path, program: str, args: list[str], begins: str) -> None:
    done = start(program, *args)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(begins)


def test_programs_are_links_to_the_installed_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = tmp_path / "bin" / "ristretto"
    command.parent.mkdir()
    command.write_text(f"#!{sys.executable}\nfrom ristretto_cli.cli.main import main\nmain()\n")
    command.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(command)])
    assert run(["install_tools", str(tmp_path / "tree")]) == 0
    assert (tmp_path / "tree/build/tools/convert_imageset.bin").readlink() == command
    done = start(str(tmp_path / "tree/build/tools/convert_imageset.bin"), "--help")
    assert done.stdout.startswith("Usage: ristretto convert_imageset")
    done = start(str(tmp_path / "tree/build/tools/caffe"), "test", "--help")
    assert done.stdout.startswith("Usage: caffe test")


def test_another_program_called_ristretto_is_not_linked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    viewer = tmp_path / "ristretto"  # the image viewer of a desktop has this name
    viewer.write_bytes(b"\x7fELF" + bytes(100))
    viewer.chmod(0o755)
    monkeypatch.setattr(sys, "argv", [str(viewer)])
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    assert tree._command() is None


def test_installing_again_keeps_edited_files_and_renews_programs(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    edited = installed / "models/SqueezeNet/train_val.prototxt"
    edited.write_text("# mine\n")
    (installed / "build/tools/caffe").unlink()
    (installed / "build/tools/caffe").symlink_to("gone")
    capsys.readouterr()
    assert run(["install_tools", str(installed)]) == 0
    out, err = capsys.readouterr()
    assert edited.read_text() == "# mine\n"
    assert "models/SqueezeNet/train_val.prototxt is there already, and is kept." in err
    assert "build/tools/caffe\n" in out
    assert (installed / "build/tools/caffe").read_text().startswith("#!/bin/sh\n")


@pytest.mark.parametrize("build", ["build", ".build_release"])
def test_programs_of_a_real_caffe_are_not_replaced(
    tmp_path: Path, build: str, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / build / "tools" / "caffe.bin"
    program.parent.mkdir(parents=True)
    program.write_bytes(b"\x7fELF")
    assert run(["install_tools", str(tmp_path)]) == 1
    assert f"{program}: another program has this name" in capsys.readouterr().err
    assert program.read_bytes() == b"\x7fELF"
    assert not (tmp_path / "examples").exists()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["install_tools", str(tmp_path / "file")]) == 1
    assert capsys.readouterr().err.startswith(f"ristretto: {tmp_path}/file")


# -- the example


def test_the_example_has_the_originals_names(installed: Path) -> None:
    assert sorted(path.name for path in (installed / "examples/ristretto").iterdir()) == sorted(SCRIPTS)
    assert all(os.access(path, os.X_OK) for path in (installed / "examples/ristretto").iterdir())
    solver = read_solver(installed / "models/SqueezeNet/RistrettoDemo/solver_finetune.prototxt").message
    assert solver.net == "models/SqueezeNet/RistrettoDemo/quantized.prototxt"


def test_its_net_is_the_one_under_models_with_its_authors_names(installed: Path) -> None:
    ours = (REPO / "models/squeezenet_v1.0/train_val.prototxt").read_text()
    names = {
        "FireNet": "SqueezeNet",
        "conv1x1_1": "squeeze1x1",
        "conv1x1_2": "expand1x1",
        "conv3x3_2": "expand3x3",
        "conv_final": "conv10",
        "pool_final": "pool10",
        "accuracy_top1": "accuracy",
        '"ilsvrc12_': '"examples/imagenet/ilsvrc12_',
    }
    for old, new in names.items():
        ours = ours.replace(old, new)
    Path("renamed.prototxt").write_text(ours)
    expected, found = read_net("renamed.prototxt"), read_net("models/SqueezeNet/train_val.prototxt")
    assert to_text(found.message) == to_text(expected.message)


@pytest.mark.parametrize("script", SCRIPTS)
@pytest.mark.parametrize("where", [".", "/"])
def test_each_script_names_the_file_that_is_missing(installed: Path, script: str, where: str) -> None:
    done = subprocess.run(
        [installed / "examples/ristretto" / script],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        cwd=installed if where == "." else where,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(REPO), os.environ.get("PYTHONPATH"))))},
    )
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    if script.startswith(("01", "02")):
        assert "models/SqueezeNet/RistrettoDemo/quantized.prototxt: this file does not exist" in last
    else:
        assert "squeezenet_v1.0.caffemodel: this file does not exist" in last or "examples/imagenet/ilsvrc12" in last


def test_arguments_of_the_scripts_reach_the_command(installed: Path) -> None:
    done = start("examples/ristretto/benchmark_floatingpoint_squeezenet.sh", "--help")
    assert done.returncode == 0
    assert "Score a net" in done.stdout


# -- device_query


def test_device_query_without_a_gpu_says_that_the_cpu_is_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def probe(gpu: int) -> None:
        raise GpuUnusable(f"no GPU {gpu} here")

    monkeypatch.setattr(onnx_session, "probe", probe)
    monkeypatch.setattr(torch_import, "probe", probe)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["device_query", "-gpu=0,1"], called="caffe") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["Querying GPUs 0,1", "Device id: 0", "Not usable: no GPU 0 here"]
    assert "Device id: 1" in lines
    assert lines[-1].startswith("Nets run on the CPU, with up to ")
    assert run(["device_query", "--require_gpu"]) == 1
    assert "ristretto: nets cannot run on all of these GPUs" in capsys.readouterr().err
    assert run(["device_query", "--gpu=x"]) == 2


def test_device_query_shows_what_the_driver_knows(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (onnx_session, torch_import):
        monkeypatch.setattr(module, "probe", lambda gpu: None)
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho '0, Tesla K40m, 3.5, 11441 MiB, 0 MiB, 470.1'\necho '3, T4, 7.5, 15 GiB, 1, 2'\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert run(["device_query", "--gpu", "all", "--require_gpu"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("Querying GPUs all\nDevice id: 0\nName: Tesla K40m\nCompute capability: 3.5\n")
    assert "Total global memory: 11441 MiB\n" in out
    assert "Device id: 3\n" in out
    assert "Nets run on the CPU" not in out


# -- scripts of Caffe, word for word


def test_lines_of_caffes_scripts(installed: Path, tmp_path: Path) -> None:
    Path("images").mkdir()
    rng = np.random.default_rng(0)
    for i in range(3):
        cv2.imwrite(f"images/{i}.png", rng.integers(0, 256, (20 + i, 30, 3), np.uint8))
    Path("train.txt").write_text("0.png 0\n1.png 1\n2.png 2\n")
    script = """
        set -e
        EXAMPLE=.
        DATA=.
        TOOLS=build/tools
        TRAIN_DATA_ROOT=images/
        RESIZE_HEIGHT=16
        RESIZE_WIDTH=16
        GLOG_logtostderr=1 $TOOLS/convert_imageset \\
            --resize_height=$RESIZE_HEIGHT \\
            --resize_width=$RESIZE_WIDTH \\
            --shuffle \\
            $TRAIN_DATA_ROOT \\
            $DATA/train.txt \\
            $EXAMPLE/ilsvrc12_train_lmdb
        $TOOLS/compute_image_mean $EXAMPLE/ilsvrc12_train_lmdb $DATA/imagenet_mean.binaryproto
    """
    done = start("sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "] Processed 3 files." in done.stderr
    assert Path("imagenet_mean.binaryproto").exists()


def test_the_tutorial_on_a_tiny_net(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tree, "_command", lambda: None)
    assert run(["install_tools", "."]) == 0
    done = start(
        "./build/tools/ristretto",
        "quantize",
        "--model=net.prototxt",
        "--weights=net.caffemodel",
        "--model_quantized=quantized.prototxt",
        "--iterations=2",
        "--gpu=0",
        "--trimming_mode=dynamic_fixed_point",
        "--error_margin=1",
    )
    assert done.returncode == 0, done.stderr
    done = start(
        "./build/tools/caffe",
        "test",
        "--model=quantized.prototxt",
        "--weights=net.caffemodel",
        "--gpu=0",
        "--iterations=2",
    )
    assert done.returncode == 0, done.stderr
    assert "accuracy = " in done.stdout
