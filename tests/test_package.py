"""Rules that hold for the package as a whole."""

import ast
import doctest
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

import ristretto_cli

ROOT = Path(ristretto_cli.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
NAMES = [str(path.relative_to(ROOT)) for path in FILES]
WITH_EXAMPLES = [name for name, path in zip(NAMES, FILES, strict=True) if ">>> " in path.read_text(encoding="utf-8")]


@pytest.fixture(scope="module")
def trees():
    """Each module's syntax, by the name of its file."""
    return {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in zip(NAMES, FILES, strict=True)}


def test_the_package_is_all_here(trees):
    assert {"errors.py", "net/build.py", "cli/main.py", "layers/relu.py"} <= trees.keys()


def test_there_is_no_assert(trees):
    # It would be gone under python -O, and end in a traceback otherwise.
    assert [f"{name}:{node.lineno}" for name, node in _nodes(trees, ast.Assert)] == []


def test_only_the_command_line_prints(trees):
    prints = [
        f"{name}:{node.lineno}"
        for name, node in _nodes(trees, ast.Name)
        if node.id == "print" and not name.startswith("cli/")
    ]
    assert prints == []


def test_every_public_module_class_and_function_says_what_it_is(trees):
    silent = []
    for name, tree in trees.items():
        silent += [name] if tree.body and ast.get_docstring(tree) is None else []
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
                silent += [f"{name}: {node.name}"] if ast.get_docstring(node) is None else []
    assert silent == []


def test_the_version_is_that_of_the_metadata():
    assert ristretto_cli.__version__ == importlib.metadata.version("ristretto-cli")


def test_the_module_can_be_run():
    done = _python("-m", "ristretto_cli", "--version")
    assert (done.returncode, done.stdout, done.stderr) == (0, f"ristretto {ristretto_cli.__version__}\n", "")


def test_the_command_line_starts_without_the_heavy_libraries():
    heavy = {"numpy", "onnx", "onnxruntime", "cv2", "google.protobuf", "h5py", "lmdb"}
    code = f"import ristretto_cli.cli.main, sys; print(sorted({heavy!r} & set(sys.modules)))"
    assert _python("-c", code).stdout == "[]\n"


def test_the_package_itself_imports_next_to_nothing():
    code = "import sys, os; before = set(sys.modules); import ristretto_cli; print(sorted(set(sys.modules) - before))"
    assert _python("-c", code).stdout == "['ristretto_cli']\n"


def test_help_is_shown_without_slow_modules_of_the_standard_library():
    # These take longer to import than the rest of the command line together.
    slow = {"ast", "importlib.metadata", "importlib.resources", "inspect", "getpass", "tempfile", "secrets", "email"}
    code = f"""
import sys
import click
before = set(sys.modules)
sys.argv = ["ristretto", "--help"]
from ristretto_cli.cli.main import run
code = run(["--help"])
print(code, sorted({slow!r} & (set(sys.modules) - before)), file=sys.stderr)
"""
    done = _python("-c", code)
    assert done.stderr == "0 []\n"


def test_there_are_examples_in_docstrings():
    assert "formats/fixed.py" in WITH_EXAMPLES


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_in_docstrings_are_true(name):
    module = importlib.import_module("ristretto_cli." + name.removesuffix(".py").replace("/", "."))
    result = doctest.testmod(module)
    assert result.attempted > 0
    assert result.failed == 0


def _nodes(trees, kind):
    for name, tree in trees.items():
        for node in ast.walk(tree):
            if isinstance(node, kind):
                yield name, node


def _python(*args):
    return subprocess.run([sys.executable, *args], capture_output=True, text=True, timeout=600, check=False)
