"""Extensions that do not work: one line says which, and commands that do not need them work as ever."""

from __future__ import annotations

import os
import re
from typing import Any

import numpy as np
import pytest

NET = """
layer { name: "i" type: "Input" top: "x" input_param { shape { dim: 1 dim: 3 } } }
layer { name: "s" type: "%s" bottom: "x" top: "s" }
"""
FORWARD = ("forward", "--model=net.prototxt", "--weights=net.caffemodel", "--input=in.npz", "--output=out.npz")
EXPORT = ("export", "--weights=net.caffemodel", "--output=out.file")
BROKEN = "import not_there\n"
OURS = "is registered twice: by ristretto-cli and by gadgets 1.0"
REMEDY = "Uninstall one of these distributions, or rename the entry point."


@pytest.fixture
def job(workshop: Any) -> Any:
    """A net of one ReLU with what `forward` reads, in the current folder."""
    workshop.net(NET % "ReLU")
    workshop.weights({"fc": [[1]]})
    np.savez("in.npz", x=np.array([[-1, 0, 3]], np.float32))
    return workshop


def install(site: Any, group: str, name: str, text: str, value: str = "gadgets.it", of: str = "gadgets") -> None:
    """A distribution with one entry point, and one module of this text."""
    package = of.replace("-", "_")
    files = {f"{package}/__init__.py": "", f"{package}/it.py": text}
    site.install(of, {f"ristretto.{group}": {name: value}}, files)


def refusal(site: Any, *args: str) -> str:
    """The one line on stderr of a command that fails."""
    done = site.ristretto(*args)
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    return str(line)


@pytest.mark.parametrize(("kind", "bottom"), [("layers", 'bottom: "x" '), ("sources", "")])
def test_a_layer_that_cannot_be_imported(kind: str, bottom: str, job: Any, site: Any) -> None:
    install(site, kind, "Gadget", BROKEN)
    done = site.ristretto(*FORWARD)
    assert (done.returncode, "gadgets" in done.stderr) == (0, False)
    job.net((NET % "Gadget").replace('bottom: "x" ', bottom))
    line = refusal(site, *FORWARD)
    assert line == (
        f'ristretto: net.prototxt:3: layer "s" (Gadget): the extension gadgets 1.0 (entry point "Gadget" in '
        f"ristretto.{kind}) cannot be loaded: ModuleNotFoundError: No module named 'not_there' in it.py:1. "
        "Update or uninstall gadgets."
    )


@pytest.mark.parametrize(
    ("text", "value", "says"),
    [
        ("1 / 0", "gadgets.it", "cannot be loaded: ZeroDivisionError: division by zero in it.py:1."),
        ("import sys; sys.exit('bye')", "gadgets.it", "cannot be loaded: SystemExit: bye in it.py:1."),
        ("def f(:", "gadgets.it", "cannot be loaded: SyntaxError: "),
        ("", "gadgets.gone", "cannot be loaded: ModuleNotFoundError: No module named 'gadgets.gone'."),
        ("", "gadgets.it:Gone", "cannot be loaded: AttributeError: "),
        ("", "gadgets.it", 'registers no export format "gadget". Report this to the authors of gadgets.'),
        (
            "from ristretto_cli.exports.exporter import *\n@exporter('npz')\nclass Other(Exporter):\n"
            "    def write(self, request): return ''\n",
            "gadgets.it",
            "ValueError: export format npz is registered twice: by ristretto_cli.exports.npz and by gadgets.it",
        ),
        (
            "from ristretto_cli.exports.exporter import *\n@exporter('gadget')\nclass Other(Exporter): pass\n",
            "gadgets.it",
            "TypeError: Can't instantiate abstract class Other",
        ),
    ],
)
def test_an_export_that_cannot_be_loaded(text: str, value: str, says: str, job: Any, site: Any) -> None:
    install(site, "exports", "gadget", text, value)
    shown = " ".join(site.ristretto("export", "--help").stdout.split())
    assert "gadget" in re.findall(r"One of: ([\w, ]+)\.", shown)[0].split(", ")
    assert site.ristretto(*EXPORT, "--format=npz").returncode == 0
    line = refusal(site, *EXPORT, "--format=gadget")
    start = 'ristretto: the extension gadgets 1.0 (entry point "gadget" in ristretto.exports) '
    assert line.startswith(start)
    assert says in line


def test_the_traceback_is_there_for_the_extension_s_author(job: Any, site: Any) -> None:
    install(site, "exports", "gadget", BROKEN)
    done = site.ristretto(*EXPORT, "--format=gadget", RISTRETTO_TRACEBACK="1")
    assert re.search(r"Traceback.*gadgets/it\.py\", line 1.*ModuleNotFoundError", done.stderr, re.DOTALL)


def test_a_half_loaded_module_leaves_nothing(job: Any, site: Any) -> None:
    text = "from ristretto_cli.formats.minifloat import MinifloatMode, trimming_mode\n"
    text += "@trimming_mode('gadget', 'gizmo')\nclass Gadget(MinifloatMode): pass\n1 / 0\n"
    install(site, "formats", "gadget", text)
    shown = " ".join(site.ristretto("quantize", "--help").stdout.split())
    assert "gizmo" not in shown


def test_a_mode_that_cannot_be_loaded_is_left_out_with_one_warning(two_classes: Any, site: Any) -> None:
    two_classes()
    install(site, "formats", "gadget", BROKEN)
    flags = ("--model=net.prototxt", "--weights=net.caffemodel", "--iterations=1", "--calibration_iterations=1")
    done = site.ristretto("quantize", *flags, "--trimming_mode=minifloat", "--bw=net=8")
    assert done.returncode == 0
    assert "Traceback" not in done.stderr
    warnings = [line for line in done.stderr.splitlines() if "gadgets 1.0" in line]
    assert len(warnings) == 1
    assert warnings[0].startswith("W")
    assert 'the extension gadgets 1.0 (entry point "gadget" in ristretto.formats) cannot be loaded' in warnings[0]
    last = site.ristretto("quantize", *flags, "--trimming_mode=gadget", "--bw=net=8").stderr.splitlines()[-1]
    assert last.startswith("ristretto: the extension gadgets 1.0 ")


def test_a_mode_s_option_that_is_a_flag_of_quantize(site: Any) -> None:
    text = "from ristretto_cli.formats.minifloat import MinifloatMode, trimming_mode\n"
    text += "from ristretto_cli.formats.number_format import ModeOption\n"
    text += "@trimming_mode('gadget')\nclass Gadget(MinifloatMode):\n"
    install(site, "formats", "gadget", text + "    options = (ModeOption('gpu', 'Help.', ('1', '2'), '1'),)\n")
    assert refusal(site, "quantize", "--help") == (
        "ristretto: trimming mode gadget declares --gpu, which is already a flag of quantize. "
        "Rename the option, or uninstall the extension."
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (BROKEN, "cannot be loaded: ModuleNotFoundError: No module named 'not_there' in it.py:1. Update or uninstall"),
        ("command = print\n", "is not a click.Command. Report this to the authors of gadgets."),
        ("", "is not a click.Command. Report this to the authors of gadgets."),
    ],
)
def test_a_command_that_cannot_be_loaded(text: str, says: str, site: Any) -> None:
    install(site, "commands", "gadget", text)
    shown = site.ristretto("--help")
    assert (shown.returncode, shown.stderr) == (0, "")
    assert re.search("^  gadget ", shown.stdout, re.MULTILINE)
    assert says in refusal(site, "gadget")


def test_help_does_without_a_package_that_cannot_be_imported(site: Any) -> None:
    site.install("gadgets", {"ristretto.commands": {"gadget": "gadgets.it"}}, {"gadgets/__init__.py": BROKEN})
    assert re.search(r"^  gadget +From gadgets 1\.0\.$", site.ristretto("--help").stdout, re.MULTILINE)


def test_completion_does_without_a_command_that_cannot_be_loaded(site: Any) -> None:
    install(site, "commands", "gadget", BROKEN)
    words = {"_RISTRETTO_COMPLETE": "bash_complete", "COMP_WORDS": "ristretto gadget --", "COMP_CWORD": "2"}
    done = site.ristretto(**words)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("group", "name", "kind", "args"),
    [
        ("exports", "npz", "export format", (*EXPORT, "--format=npz")),
        ("commands", "summary", "command", ("summary", "--model=net.prototxt")),
    ],
)
def test_a_name_of_ristretto_s_own(
    group: str, name: str, kind: str, args: tuple[str, ...], job: Any, site: Any
) -> None:
    install(site, group, name, "")
    line = refusal(site, *args)
    assert line == f'ristretto: {kind} "{name}" {OURS} (entry point "{name}" in ristretto.{group}). {REMEDY}'
    assert site.ristretto(*FORWARD).returncode == 0


def test_a_layer_type_of_ristretto_s_own(job: Any, site: Any) -> None:
    install(site, "layers", "ReLU", "")
    where = 'net.prototxt:3: layer "s" (ReLU)'
    line = refusal(site, *FORWARD)
    assert line == f'ristretto: {where}: layer type "ReLU" {OURS} (entry point "ReLU" in ristretto.layers). {REMEDY}'


@pytest.mark.parametrize("group", ["exports", "commands"])
def test_a_name_of_two_packages(group: str, job: Any, site: Any) -> None:
    install(site, group, "gadget", "")
    install(site, group, "gadget", "", of="my-gadgets", value="my_gadgets.it")
    args = ("gadget",) if group == "commands" else (*EXPORT, "--format=gadget")
    point = f'(entry point "gadget" in ristretto.{group})'
    both = f'"gadget" is registered twice: by gadgets 1.0 {point} and by my-gadgets 1.0 {point}. {REMEDY}'
    assert refusal(site, *args).endswith(both)


def test_the_same_distribution_twice_on_the_path_counts_once(site: Any) -> None:
    site.install_example()
    other = type(site)(site.folder / "more")
    other.folder.mkdir()
    other.install("Ristretto_Example", {"ristretto.commands": {"sparsity": "gone"}}, {})
    done = site.ristretto("sparsity", "--help", PYTHONPATH=os.pathsep.join([site.path, str(other.folder)]))
    assert done.returncode == 0, done.stderr


def test_a_bug_of_an_extension_is_reported_as_its_own(job: Any, site: Any) -> None:
    text = "from ristretto_cli.exports.exporter import *\n@exporter('gadget')\nclass Gadget(Exporter):\n"
    install(site, "exports", "gadget", text + "    def write(self, request): return {}['key']\n")
    done = site.ristretto(*EXPORT, "--format=gadget")
    assert done.returncode == 70
    start = (
        'ristretto: this is a bug in the extension gadgets 1.0 (entry point "gadget" in ristretto.exports): KeyError'
    )
    assert done.stderr.startswith(start)


@pytest.mark.parametrize(("group", "warns"), [("ristretto.exports", True), ("console_scripts", False)])
def test_a_malformed_list_of_entry_points(group: str, warns: bool, job: Any, site: Any) -> None:
    install(site, "exports", "other", "")
    site.install("odd", {group: {"odd": "odd"}}, {})
    (site.folder / "odd-1.0.dist-info" / "entry_points.txt").write_text(f"[{group}]\nodd\n")
    done = site.ristretto(*EXPORT, "--format=npz")
    assert done.returncode == 0, done.stderr
    assert ("The extensions of odd are ignored" in done.stderr) is warns
