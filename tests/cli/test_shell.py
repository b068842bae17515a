"""The shell around the commands, tried on commands that exist only here."""

from __future__ import annotations

import logging
import os
import pty
import re
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import click
import pytest

from ristretto_cli.cli import log
from ristretto_cli.cli.gflags import GflagsCommand, option
from ristretto_cli.cli.main import Shell, run
from ristretto_cli.cli.progress import Progress, progress

HEAVY = ("numpy", "onnx", "onnxruntime", "cv2", "google.protobuf", "rich", "h5py", "lmdb")


# -- flags ---------------------------------------------------------------------------------------------------


@click.command(cls=GflagsCommand)
@option("--model", "The net to trim.", unit="file", required=True)
@option("--error_margin", "How much accuracy may be lost.", unit="percent", type=float, default=2.0)
@option("--iterations", "How many batches are scored.", type=int, default=50)
@option("--gpu", "Run on a GPU.", is_flag=True)
@option("--trim_bias", "Trim biases too.", is_flag=True, default=True)
def scale(**values: object) -> None:
    """Echo the flags."""
    click.echo(" ".join(f"{name}={value}" for name, value in sorted(values.items())))


def parse(*args: str) -> dict[str, object]:
    return dict(scale.make_context("scale", list(args)).params)


def refusal(*args: str) -> str:
    with pytest.raises(click.UsageError) as caught:
        parse(*args)
    return caught.value.format_message()


@pytest.mark.parametrize(
    "spelling",
    [
        ["--error_margin=3.5"],
        ["--error_margin", "3.5"],
        ["-error_margin=3.5"],
        ["-error_margin", "3.5"],
        ["--error-margin=3.5"],
        ["-error-margin", "3.5"],
    ],
    ids=" ".join,
)
def test_every_gflags_spelling_sets_the_flag(spelling: list[str]) -> None:
    assert parse("--model=a.prototxt", *spelling)["error_margin"] == 3.5


@pytest.mark.parametrize("spelling", [["--iterations=-1"], ["--iterations", "-1"], ["-iterations", "-1"]])
def test_a_value_may_begin_with_a_dash(spelling: list[str]) -> None:
    assert parse("--model=a", *spelling)["iterations"] == -1


def test_only_the_first_equals_sign_parts_a_value_from_its_flag() -> None:
    assert parse("-model=runs/lr=0.1/net.prototxt")["model"] == "runs/lr=0.1/net.prototxt"


def test_an_empty_value_is_a_value() -> None:
    assert parse("--model=")["model"] == ""


@pytest.mark.parametrize(
    ("spelling", "value"),
    [
        ("--gpu", True),
        ("-gpu", True),
        ("--gpu=true", True),
        ("--gpu=T", True),
        ("--gpu=1", True),
        ("--gpu=yes", True),
        ("--nogpu", False),
        ("-nogpu", False),
        ("--gpu=false", False),
        ("--gpu=0", False),
    ],
)
def test_booleans_as_gflags_spells_them(spelling: str, value: bool) -> None:
    assert parse("--model=a", spelling)["gpu"] is value


def test_a_boolean_that_is_on_by_default_can_be_turned_off() -> None:
    assert parse("--model=a")["trim_bias"] is True
    assert parse("--model=a", "--notrim_bias")["trim_bias"] is False
    assert parse("--model=a", "--trim-bias=false")["trim_bias"] is False


def test_the_last_of_several_wins() -> None:
    values = parse("--model=a", "--gpu", "--iterations=1", "--nogpu", "-iterations", "2", "--model", "b")
    assert (values["model"], values["iterations"], values["gpu"]) == ("b", 2, False)


def test_an_unknown_flag_names_the_nearest() -> None:
    message = refusal("--model=a", "--error_margn=2")
    assert message == "unknown flag --error_margn. Did you mean --error_margin?"


def test_all_unknown_flags_are_reported_and_their_values_are_not() -> None:
    assert refusal("-modle", "a", "--iteratons", "5", "--zzzzz=1").split("\n") == [
        "unknown flag -modle. Did you mean --model?",
        "unknown flag --iteratons. Did you mean --iterations?",
        "unknown flag --zzzzz",
    ]


def test_a_missing_flag_is_named() -> None:
    assert refusal("--iterations=5") == "missing: --model"


def test_help_is_given_whatever_else_is_wrong() -> None:
    with pytest.raises(click.exceptions.Exit) as done:
        parse("--modle=a", "stray", "-help")
    assert done.value.exit_code == 0


def test_a_flag_without_its_value_is_named() -> None:
    assert refusal("--model") == "--model needs a value: --model=..."
    assert refusal("--model", "--iterations=5") == "--model needs a value: --model=..."


def test_a_bad_value_is_shown() -> None:
    assert "'abc' is not a valid integer" in refusal("--model=a", "--iterations=abc")


def test_a_boolean_with_another_value_is_refused() -> None:
    assert refusal("--model=a", "--gpu=maybe") == '--gpu is on or off: --gpu cannot be "maybe"'
    assert refusal("--model=a", "--nogpu=false") == '--gpu is on or off: --nogpu cannot be "false"'


def test_a_value_that_looks_like_a_flag_is_given_with_an_equals_sign() -> None:
    assert parse("--model=--help")["model"] == "--help"


@pytest.mark.parametrize("args", [["lenet.prototxt"], ["--", "lenet.prototxt"], ["--gpu", "lenet.prototxt"]])
def test_a_positional_argument_is_refused(args: list[str]) -> None:
    assert refusal("--model=a", *args) == ('unexpected "lenet.prototxt": values are given as --flag=value')


def test_a_declared_argument_is_passed_on() -> None:
    command = GflagsCommand("show", params=[click.Argument(["file"]), click.Option(["--depth"], type=int)])
    context = command.make_context("show", ["-depth", "-2", "--", "-file"])
    assert context.params == {"file": "-file", "depth": -2}


def test_help_shows_names_with_underscores_units_and_defaults() -> None:
    text = scale.get_help(click.Context(scale))
    assert re.search(r"--error_margin PERCENT +How much accuracy may be lost\.\s+\[default: 2\.0]", text)
    assert re.search(r"--iterations INTEGER +How many batches are scored\.\s+\[default: 50]", text)
    assert re.search(r"--model FILE +The net to trim\.\s+\[required]", text)
    assert "--gpu / --nogpu" in text


def test_help_does_not_negate_a_negation() -> None:
    command = Shell("ristretto_cli.cli").get_command(click.Context(click.Group()), "quantize")
    assert isinstance(command, click.Command)
    text = command.get_help(click.Context(command))
    assert re.search(r"--noscore  +Measure", text)
    assert re.search(r"--hold_margin / --nohold_margin\s+Widen a combined net [^[]*\[default: hold_margin]", text)
    assert "nono" not in text


# -- commands, faults, exit codes ---------------------------------------------------------------------------

COMMANDS = {
    "greet": '''
        import click
        from ristretto_cli.cli.gflags import GflagsCommand, option

        @click.command(cls=GflagsCommand)
        @option("--name", "Whom to greet.", default="world")
        def command(name):
            """Say hello."""
            print(f"hello {name}")
        ''',
    "two_words": '''
        """Made by assignment."""
        import click

        command = click.Command("any", callback=lambda: click.echo("two words"))
        ''',
    "helper": """
        raise RuntimeError("a module without a command is not imported")
        """,
    "fail": '''
        import errno, os
        import click
        from ristretto_cli.cli.gflags import GflagsCommand, option
        from ristretto_cli.errors import RistrettoError, RistrettoErrors, Location

        def one():
            where = Location("a.prototxt", 41)
            return RistrettoError('unknown layer type "Crop2"', where=where, hint="Did you mean Crop?")

        FAULTS = {
            "one": one,
            "several": lambda: RistrettoErrors([one(), RistrettoError("no top", where="b.prototxt")]),
            "escape": lambda: RistrettoError("layer \\x1b[2J is not known"),
            "bug": lambda: KeyError("conv1"),
            "assert": lambda: AssertionError(),
            "memory": MemoryError,
            "interrupt": KeyboardInterrupt,
            "pipe": lambda: BrokenPipeError(errno.EPIPE, "Broken pipe"),
            "permission": lambda: PermissionError(errno.EACCES, os.strerror(errno.EACCES), "out/q.prototxt"),
            "disk": lambda: OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)),
            "import": lambda: ModuleNotFoundError("No module named 'cv2'", name="cv2"),
            "exit": lambda: click.exceptions.Exit(7),
        }

        @click.command(cls=GflagsCommand)
        @option("--how", "Which fault.", type=click.Choice(sorted(FAULTS)), required=True)
        def command(how):
            """Fail."""
            raise FAULTS[how]()
        ''',
    "chat": '''
        import logging, threading
        import click

        @click.command()
        def command():
            """Log."""
            logger = logging.getLogger("ristretto.quantize")
            logger.debug("unseen")
            logger.info("Use CPU.\\nBaseline: \\t%s", 0.5)
            logger.warning("careful")
            logger.error("bad")
            click.echo("result")
        ''',
    "flood": '''
        import click

        @click.command()
        def command():
            """Print more than a pipe takes."""
            for number in range(100000):
                print(number)
        ''',
    "bar": '''
        import logging
        import click
        from ristretto_cli.cli.progress import progress

        @click.command()
        def command():
            """Show a bar."""
            with progress("bar") as p:
                for done in (1, 2, 3):
                    p.on_batch(done, 3, "batches [b]")
                    logging.getLogger("ristretto").info("Batch %d, accuracy = [b]%s", done, "0123456789" * 12)
                print("result")
        ''',
}


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package `throwaway`."""
    folder = tmp_path_factory.mktemp("commands")
    package = folder / "throwaway"
    package.mkdir()
    (package / "__init__.py").touch()
    for name, source in COMMANDS.items():
        (package / f"{name}.py").write_text(textwrap.dedent(source).lstrip())
    return folder


@pytest.fixture
def ristretto(
    commands: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Run `ristretto ARGS...` with the commands above: exit code, stdout, stderr."""
    monkeypatch.syspath_prepend(str(commands))

    def call(*args: str) -> tuple[int, str, str]:
        code = run(args, package="throwaway")
        return code, *capsys.readouterr()

    return call


PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from ristretto_cli.cli.main import run; sys.exit(run(sys.argv[1:], 'throwaway'))",
]


def environment(commands: Path, **variables: str) -> dict[str, str]:
    # Python buffers what goes to a pipe or a file unless this variable says otherwise.
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    path = os.pathsep.join(filter(None, (str(commands), os.environ.get("PYTHONPATH"))))
    return {**inherited, "PYTHONPATH": path, "TERM": "xterm", **variables}


def test_a_command_is_named_by_its_module(ristretto: Callable[..., tuple[int, str, str]]) -> None:
    assert ristretto("greet", "-name=you") == (0, "hello you\n", "")
    assert ristretto("two_words") == (0, "two words\n", "")


@pytest.mark.parametrize("args", [[], ["--help"], ["-help"], ["-h"]], ids=str)
def test_help_lists_the_commands_and_the_exit_codes(
    ristretto: Callable[..., tuple[int, str, str]], args: list[str]
) -> None:
    code, out, err = ristretto(*args)
    assert (code, err) == (0, "")
    assert re.search(r"^  greet +Say hello\.$", out, re.MULTILINE)
    assert re.search(r"^  two_words +Made by assignment\.$", out, re.MULTILINE)
    assert "helper" not in out
    for exit_code in (0, 1, 2, 70, 130, 141):
        assert re.search(rf"^ +{exit_code}  +\w", out, re.MULTILINE)


@pytest.mark.parametrize("flag", ["--help", "-help", "-h"])
def test_a_command_explains_itself(ristretto: Callable[..., tuple[int, str, str]], flag: str) -> None:
    code, out, _ = ristretto("greet", flag)
    assert code == 0
    assert out.startswith("Usage: ristretto greet")


@pytest.mark.parametrize("flag", ["--version", "-version"])
def test_version(ristretto: Callable[..., tuple[int, str, str]], flag: str) -> None:
    code, out, err = ristretto(flag)
    assert (code, err) == (0, "")
    assert re.fullmatch(r"ristretto \d+\.\d+\.\d+\n", out)


def test_an_unknown_command_names_the_nearest(ristretto: Callable[..., tuple[int, str, str]]) -> None:
    assert ristretto("great") == (
        2,
        "",
        "ristretto: unknown command \"great\". Did you mean greet?\nTry 'ristretto --help'.\n",
    )


def test_a_module_without_a_command_is_no_command(ristretto: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = ristretto("helper")
    assert code == 2
    assert 'unknown command "helper"' in err


def test_a_flag_may_precede_the_command(ristretto: Callable[..., tuple[int, str, str]]) -> None:
    assert ristretto("--name", "you", "greet") == ristretto("greet", "--name=you")


def test_a_flag_without_a_command_is_refused(ristretto: Callable[..., tuple[int, str, str]]) -> None:
    code, _, err = ristretto("--name=you")
    assert code == 2
    assert err.startswith("ristretto: expected a command before --name=you")


def test_a_wrong_flag_is_a_line_and_a_hint(ristretto: Callable[..., tuple[int, str, str]]) -> None:
    assert ristretto("greet", "--nane=x") == (
        2,
        "",
        "ristretto: unknown flag --nane. Did you mean --name?\nTry 'ristretto greet --help'.\n",
    )


@pytest.mark.parametrize(
    ("how", "code", "lines"),
    [
        ("one", 1, ['ristretto: a.prototxt:41: unknown layer type "Crop2". Did you mean Crop?']),
        (
            "several",
            1,
            [
                'ristretto: a.prototxt:41: unknown layer type "Crop2". Did you mean Crop?',
                "ristretto: b.prototxt: no top",
            ],
        ),
        ("escape", 1, [r"ristretto: layer \x1b[2J is not known"]),
        ("memory", 1, ["ristretto: out of memory. Reduce batch_size."]),
        ("permission", 1, ["ristretto: out/q.prototxt: Permission denied"]),
        ("disk", 1, ["ristretto: No space left on device"]),
        (
            "import",
            1,
            ["ristretto: No module named 'cv2'. Is ristretto-cli installed with its dependencies?"],
        ),
        ("interrupt", 130, ["ristretto: interrupted"]),
        ("pipe", 141, []),
        ("exit", 7, []),
    ],
)
def test_a_fault_is_lines_and_an_exit_code(
    ristretto: Callable[..., tuple[int, str, str]], how: str, code: int, lines: list[str]
) -> None:
    assert ristretto("fail", "--how", how) == (code, "", "".join(f"{line}\n" for line in lines))


@pytest.mark.parametrize(("how", "what"), [("bug", "KeyError: 'conv1'"), ("assert", "AssertionError")])
def test_a_bug_of_ours_is_one_line_that_asks_for_a_report(
    ristretto: Callable[..., tuple[int, str, str]], how: str, what: str
) -> None:
    code, out, err = ristretto("fail", "--how", how)
    assert (code, out, err.count("\n")) == (70, "", 1)
    assert err.startswith(f"ristretto: this is a bug in ristretto: {what}")
    assert re.search(r" in fail\.py:\d+\. Please report it with the command line", err)


def test_the_traceback_of_a_bug_is_shown_on_request(
    ristretto: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RISTRETTO_TRACEBACK", "1")
    code, _, err = ristretto("fail", "--how=bug")
    assert code == 70
    assert err.startswith("Traceback (most recent call last):")
    assert "this is a bug in ristretto" in err


def test_a_reader_that_stops_early_ends_the_command_quietly(commands: Path) -> None:
    with subprocess.Popen(
        [*PROGRAM, "flood"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(commands),
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait() == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_as_stdout_is_one_line(commands: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*PROGRAM, "greet"], stdout=full, stderr=subprocess.PIPE, env=environment(commands), check=False
        )
    assert (done.returncode, done.stderr) == (1, b"ristretto: No space left on device\n")


def test_help_of_the_program_imports_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "from ristretto_cli.cli.main import run\n"
        "code = run(['--help'])\n"
        f"print(code, [name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: ristretto COMMAND")
    assert done.stderr == "0 []\n"


# -- log -----------------------------------------------------------------------------------------------------

GLOG = re.compile(r"^([IWEF])\d{4} \d\d:\d\d:\d\d\.\d{6} +(\d+) ([\w.]+):(\d+)] (.*)$")


def record(level: int, message: str, *args: object) -> logging.LogRecord:
    made = logging.LogRecord("ristretto.x", level, "/src/quantization.py", 98, message, args, None)
    made.created = 1511166417.751245
    return made


def test_a_log_line_has_the_format_of_glog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "get_native_id", lambda: 28616)
    line = log.GlogFormatter().format(record(logging.INFO, "Use %s.", "CPU"))
    assert re.fullmatch(r"I112\d \d\d:\d6:57\.751245 28616 quantization\.py:98] Use CPU\.", line)


def test_a_short_thread_id_is_padded_to_five_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading, "get_native_id", lambda: 42)
    assert ".751245    42 quantization.py:98] x" in log.GlogFormatter().format(record(logging.INFO, "x"))


@pytest.mark.parametrize(
    ("level", "letter"),
    [
        (logging.DEBUG, "I"),
        (logging.INFO, "I"),
        (logging.WARNING, "W"),
        (logging.ERROR, "E"),
        (logging.CRITICAL, "F"),
    ],
)
def test_the_severity_is_the_first_letter(level: int, letter: str) -> None:
    assert log.GlogFormatter().format(record(level, "x"))[0] == letter


def test_each_line_of_a_message_has_the_prefix() -> None:
    lines = log.GlogFormatter().format(record(logging.INFO, "a\n\n8bit: \t0.5")).split("\n")
    assert [line.partition("] ")[2] for line in lines] == ["a", "", "8bit: \t0.5"]
    assert len({line.partition("] ")[0] for line in lines}) == 1


def test_control_characters_of_a_message_are_written_out() -> None:
    line = log.GlogFormatter().format(record(logging.INFO, "layer \x1b]0;owned\x07 \r\x9b"))
    assert line.endswith(r"] layer \x1b]0;owned\x07 \x0d\x9b")


def logged(ristretto: Callable[..., tuple[int, str, str]]) -> list[tuple[str, str]]:
    """Severity and text of each line that `chat` logs; stdout has only the result."""
    code, out, err = ristretto("chat")
    assert (code, out) == (0, "result\n")
    found = [GLOG.match(line) for line in err.splitlines()]
    return [(match[1], match[5]) for match in found if match]


ALL = [("I", "Use CPU."), ("I", "Baseline: \t0.5"), ("W", "careful"), ("E", "bad")]


@pytest.mark.parametrize(
    ("min_level", "lines"),
    [(None, ALL), ("0", ALL), ("1", ALL[2:]), ("2", ALL[3:]), ("3", []), ("9", []), ("-1", ALL), ("x", ALL)],
)
def test_glog_minloglevel_hides_what_is_less_severe(
    ristretto: Callable[..., tuple[int, str, str]],
    monkeypatch: pytest.MonkeyPatch,
    min_level: str | None,
    lines: list[tuple[str, str]],
) -> None:
    monkeypatch.delenv("GLOG_minloglevel", raising=False)
    if min_level is not None:
        monkeypatch.setenv("GLOG_minloglevel", min_level)
    assert logged(ristretto) == lines


def test_configuring_twice_logs_once(ristretto: Callable[..., tuple[int, str, str]]) -> None:
    log.configure({})
    log.configure({})
    assert logged(ristretto) == ALL


# -- progress ------------------------------------------------------------------------------------------------


class Recorder(Progress):
    """Writes down what a bar would show."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def _begin(self, what: str, total: int) -> None:
        self.seen.append(f"{what} of {total}")

    def _show(self, done: int) -> None:
        self.seen.append(str(done))


def test_each_pass_over_the_batches_begins_another_bar() -> None:
    bar = Recorder()
    for what, total in [("baseline", 2), ("16 bit", 2), ("16 bit", 2)]:
        for done in range(1, total + 1):
            bar.on_batch(done, total, what)
    assert bar.seen == ["baseline of 2", "1", "2", "16 bit of 2", "1", "2", "16 bit of 2", "1", "2"]


def test_a_command_may_count_by_itself() -> None:
    bar = Recorder()
    bar.start("images", 10)
    bar.advance()
    bar.advance(4)
    assert bar.seen == ["images of 10", "1", "5"]


def test_without_a_terminal_no_bar_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("quantize") as p:
        p.start("images", 2)
        p.advance()
        p.on_batch(1, 2, "batches")
    assert capsys.readouterr() == ("", "")


def on_terminal(commands: Path, *args: str, **variables: str) -> tuple[str, str]:
    """Stdout, and what a terminal 80 wide gets as stderr."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [*PROGRAM, *args],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=theirs,
        env=environment(commands, COLUMNS="80", **variables),
    ) as process:
        os.close(theirs)
        shown = b""
        try:
            while chunk := os.read(ours, 4096):
                shown += chunk
        except OSError:
            pass  # Linux's way to say that the other end is closed
        os.close(ours)
        out = process.communicate()[0]
    return out.decode(), shown.decode()


def test_on_a_terminal_log_lines_stand_whole_above_the_bar(commands: Path) -> None:
    out, shown = on_terminal(commands, "bar")
    assert out == "result\n"
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown).replace("\r\n", "\n").split("\n")
    logged = [line.split("\r")[-1] for line in lines if "accuracy" in line]
    assert [bool(GLOG.match(line)) for line in logged] == [True, True, True]
    assert [line.partition("] ")[2] for line in logged] == [
        f"Batch {done}, accuracy = [b]{'0123456789' * 12}" for done in (1, 2, 3)
    ]
    assert "bar: batches [b]" in shown
    assert "3/3" in shown


def test_a_dumb_terminal_gets_only_the_log(commands: Path) -> None:
    out, shown = on_terminal(commands, "bar", TERM="dumb")
    assert out == "result\n"
    assert [bool(GLOG.match(line)) for line in shown.splitlines()] == [True, True, True]
