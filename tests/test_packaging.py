"""Source distribution, wheel and build backend."""

from __future__ import annotations

import configparser
import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A backend of its own, with a copy of the schema."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools")
    folder = shutil.copytree(ROOT / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("compiled_from"))
    (tmp_path / "ristretto_cli" / "caffe_io").mkdir(parents=True)
    spec = importlib.util.spec_from_file_location("build_backend_copy", folder / "build_backend.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for hook in ("get_requires_for_build_wheel", "get_requires_for_build_editable", "get_requires_for_build_sdist"):
        monkeypatch.setattr(module.build_meta, hook, lambda settings: [])
    return module


def test_the_compiler_is_requested_only_for_a_schema_that_is_not_compiled(backend: ModuleType) -> None:
    def requested() -> list[str]:
        wheel, editable = backend.get_requires_for_build_wheel(), backend.get_requires_for_build_editable()
        assert wheel == editable == backend.get_requires_for_build_sdist()
        return list(wheel)

    assert requested() == ["grpcio-tools>=1.62"]
    backend.DESCRIPTORS.write_bytes(b"")
    assert requested() == ["grpcio-tools>=1.62"]  # of an unknown schema
    backend.COMPILED_FROM.write_text(backend.digest(), encoding="ascii")
    assert requested() == []
    with (backend.PROTO / "forks.proto").open("a", encoding="utf-8") as stream:
        stream.write("\n")
    assert requested() == ["grpcio-tools>=1.62"]


def test_a_compiled_schema_is_not_compiled_again(backend: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc_tools", None)
    backend.DESCRIPTORS.write_bytes(b"compiled")
    backend.COMPILED_FROM.write_text(backend.digest(), encoding="ascii")
    backend.compile_proto()
    assert backend.DESCRIPTORS.read_bytes() == b"compiled"


def test_distributions_contain_what_they_need_and_no_tests(tmp_path: Path) -> None:
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("needs setuptools")
    import setuptools

    if int(setuptools.__version__.partition(".")[0]) < 77:
        pytest.skip("needs setuptools 77")
    tree = tmp_path / "tree"
    skipped = shutil.ignore_patterns(".*", "tests", "build", "dist", "*.egg-info", "__pycache__", "*_lmdb")
    shutil.copytree(ROOT, tree, ignore=skipped, symlinks=True)
    (tree / "tests").mkdir()
    (tree / "tests" / "test_stray.py").touch()
    # The schema counts as compiled: the compiler is not installed for tests.
    code = (
        "import sys; sys.path.insert(0, 'proto'); import build_backend as backend\n"
        "backend.COMPILED_FROM.write_text(backend.digest(), encoding='ascii')\n"
        "backend.build_sdist('made')\n"
    )
    build(code, tree)
    (sdist,) = (tree / "made").iterdir()
    shutil.unpack_archive(sdist, tmp_path / "unpacked")
    (source,) = (tmp_path / "unpacked").iterdir()
    names = {str(path.relative_to(source)) for path in source.rglob("*") if path.is_file()}
    example = {
        f"ristretto_cli/demo/digits/{name}" for name in ("digits.npz", "digits.caffemodel", "train_val.prototxt")
    }
    compiled = {"ristretto_cli/caffe_io/caffe.desc"}
    assert example | compiled <= names
    assert {"models/lenet/train_val.prototxt", "scripts/lenet/all.sh", "docs/running.md", "Dockerfile"} <= names
    assert {"proto/compiled_from", "models/digits/digits.caffemodel", "LICENSE"} <= names
    assert not [path for path in source.rglob("*") if path.is_symlink()]
    assert not [name for name in names if name.startswith("tests/")]

    hidden = "import sys; sys.modules['grpc_tools'] = None; sys.path.insert(0, 'proto'); import build_backend\n"
    build(hidden + "build_backend.build_wheel('made')\n", source)
    (wheel,) = (source / "made").iterdir()
    packed = set(ZipFile(wheel).namelist())
    assert example | compiled <= packed
    assert {name.split("/")[0] for name in packed if ".dist-info" not in name} == {"ristretto_cli"}


def build(code: str, folder: Path) -> None:
    (folder / "made").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_extras_do_not_repeat_requirements_differently() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = {name: text.split() for name, text in settings["options.extras_require"].items()}
    parts = ("train", "plot", "report", "leveldb")
    assert sorted(extras["all"]) == sorted({each for name in parts for each in extras[name]})
