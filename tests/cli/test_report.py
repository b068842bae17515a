"""`--report`: pages that need nothing else, and that everyone can read."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from ristretto_cli.caffe_io.weights import write_weights
from ristretto_cli.cli.main import run

from .conftest import QUANTIZE, Job

for library in ("jinja2", "matplotlib"):
    pytest.importorskip(library, reason=f"reports need {library}")

SOLVER = """
net: "net.prototxt"
test_iter: 1
test_interval: 2
base_lr: 0.01
lr_policy: "fixed"
display: 1
max_iter: 4
snapshot_prefix: "P"
"""
TRAIN = ("train", "--solver=solver.prototxt", "--weights=net.caffemodel", "--report=r.html")
GIVEN = ("--bw=conv_params=8,fc_params=8,layer=8",)
VOID = {"meta", "wbr", "br", "link", "img", "hr", "input"}


class Page(HTMLParser):
    """A page as its elements: (tag, attributes, tags around it, text inside)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.text = text
        self.elements: list[tuple[str, dict[str, str | None], tuple[str, ...], list[str]]] = []
        self._open: list[int] = []
        self.feed(text)
        self.close()
        assert self._open == [], "unclosed elements"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        around = tuple(self.elements[i][0] for i in self._open)
        self.elements.append((tag, dict(attrs), around, []))
        if tag not in VOID:
            self._open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs), tuple(self.elements[i][0] for i in self._open), []))

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self._open.pop()][0] == tag
        if tag in ("td", "th"):
            self.handle_data(" ")

    def handle_data(self, data: str) -> None:
        for i in self._open:
            self.elements[i][3].append(data)

    def of(self, tag: str) -> list[dict[str, str | None]]:
        """The attributes of the elements with a tag."""
        return [attributes for name, attributes, _, _ in self.elements if name == tag]

    def texts(self, tag: str) -> list[str]:
        """The texts of the elements with a tag."""
        return [" ".join("".join(text).split()) for name, _, _, text in self.elements if name == tag]


Report = Callable[..., Page]


@pytest.fixture
def report(job: Job, capsys: pytest.CaptureFixture[str]) -> Report:
    """Runs a command, by default quantize, that writes r.html; its page."""

    def call(*args: str) -> Page:
        assert run(args or (*QUANTIZE, "--report=r.html")) == 0, capsys.readouterr().err
        return Page(Path("r.html").read_text(encoding="utf-8"))

    return call


def check(page: Page) -> None:
    """Everyone can read the page, and it needs no other file."""
    assert [each["lang"] for each in page.of("html")] == ["en"]
    titles = [around for tag, _, around, _ in page.elements if tag == "title"]
    assert len(page.of("h1")) == len(page.of("main")) == sum(around[-1] == "head" for around in titles) == 1
    assert all(page.texts("h1") + page.texts("h2") + page.texts("title"))
    levels = [int(tag[1]) for tag, *_ in page.elements if re.fullmatch("h[1-6]", tag)]
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    ids = [str(attributes["id"]) for _, attributes, _, _ in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for _, attributes, _, _ in page.elements:
        for name in ("href", "aria-labelledby"):
            for target in str(attributes.get(name) or "").split():
                assert target.removeprefix("#") in ids
                assert target.startswith("#") == (name == "href")  # nothing of another file
        assert not {"src", "srcset", "data", "style-src"} & set(attributes)
        assert not any(name.startswith("on") for name in attributes)
        for target in re.findall(r"url\(([^)]*)\)", " ".join(filter(None, attributes.values()))):
            assert target.removeprefix("#") in ids
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {tag for tag, *_ in page.elements}
    style = "".join(page.texts("style"))
    assert "url(" not in style and "@import" not in style and "xmlns" not in page.text
    assert page.of("a")[0]["href"] == "#content" and "outline: 3px" in style  # to skip, and to see the focus
    for tag, attributes, around, _ in page.elements:
        if tag == "svg" and "svg" not in around:
            assert attributes.get("aria-hidden") == "true" or attributes["role"] == "img"
        if tag == "figure":
            assert "figure" not in around
    assert len(page.of("figure")) == len(page.of("figcaption")) == sum("role" in each for each in page.of("svg"))
    assert len(page.of("table")) == len(page.of("caption")) and all(page.texts("caption"))
    assert all(each["scope"] in ("col", "row") for each in page.of("th"))
    assert page.texts("thead") and all(page.texts("th"))
    for _, attributes, _, _ in [each for each in page.elements if each[1].get("class") == "wide"]:
        assert attributes["tabindex"] == "0" and attributes["role"] == "region" and attributes["aria-label"]
    assert all(page.texts("summary")) and len(page.of("summary")) == len(page.of("details"))
    check_contrast(style)


def check_contrast(style: str) -> None:
    """Text has the contrast of WCAG's level AA on both backgrounds, and lines in charts that of graphics."""
    schemes = [dict(re.findall(r"--(\w+): (#\w{6})", block)) for block in re.findall(r":root \{(.*?)\}", style)]
    assert len(schemes) == 2 and schemes[0].keys() == schemes[1].keys()
    for colours in schemes:
        for background in ("page", "panel"):
            for name in ("ink", "soft", "accent", "good", "bad"):
                assert contrast(colours[name], colours[background]) >= 4.5, name
            for name in [name for name in colours if re.fullmatch(r"c\d", name)]:
                assert contrast(colours[name], colours[background]) >= 3, name


def contrast(a: str, b: str) -> float:
    def luminance(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted([luminance(a), luminance(b)])
    return (high + 0.05) / (low + 0.05)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)


def test_a_search_is_reported_with_its_score_and_all_nets(report: Report) -> None:
    page = report()
    check(page)
    assert page.texts("h2") == [
        *("Result", "Request", "The search", "The net", "Widths and costs by layer", "Next commands"),
    ]
    assert any(text.startswith("The error margin is") for text in page.texts("p"))
    assert page.texts("figcaption")[0].startswith("accuracy against size of the weights of ")
    rows = page.texts("tr")
    assert [row for row in rows if row.startswith("CONV weights 16 ")]
    assert len([row for row in rows if row.endswith("chosen")]) == 2  # in the tables of two charts
    # conv: 2 x 1 x 3 x 3 and 2 biases; ip: 3 x 8 and 3.
    assert [row for row in rows if row.startswith("weights 188 bytes ")]


def test_the_costs_are_those_of_summary(report: Report, capsys: pytest.CaptureFixture[str]) -> None:
    page = report(*[flag for flag in QUANTIZE if "--iterations" not in flag], "--noscore", *GIVEN, "--report=r.html")
    check(page)
    assert "The search" not in page.texts("h2")
    capsys.readouterr()
    assert run(("summary", "--model=out.prototxt", "--bitops")) == 0
    summary = capsys.readouterr().out
    rows = {row.split()[0]: row for row in page.texts("tr")}
    assert "weights 188 bytes 47 bytes 4.0 times less" in page.texts("tr")
    assert "Trimmed: 47 bytes" in summary
    operations = re.search(r"Bit operations: ([\d,]+)", summary)
    assert operations is not None
    count = int(operations[1].replace(",", ""))
    assert f"{count / 1000:.4g} k" in rows["bit"]


@pytest.mark.parametrize("mode", ["minifloat", "integer_power_of_2_weights", "static_fixed_point"])
@pytest.mark.parametrize("legacy", [(), ("--legacy",)])
def test_the_costs_of_the_chosen_net_are_those_of_the_net_written(
    report: Report, mode: str, legacy: tuple[str, ...]
) -> None:
    if legacy and mode == "static_fixed_point":
        pytest.skip("the original lacks this mode")
    page = report(*QUANTIZE, f"--trimming_mode={mode}", *legacy, "--report=r.html")
    check(page)
    written = next(row for row in page.texts("tr") if row.startswith("weights 188 bytes ")).split()[3]
    chosen = [row for row in page.texts("tr") if row.endswith(" chosen")]
    assert len(chosen) == 2 and all(f" {written} bytes " in row for row in chosen)


def test_widths_by_layer_are_in_the_curve(report: Report) -> None:
    page = report(*QUANTIZE, "--search=layers", "--report=r.html")
    check(page)
    assert [row for row in page.texts("tr") if row.startswith("widths by layer ")]


def test_next_commands_have_the_flags_for_data(report: Report, job: Job) -> None:
    job.write("net.prototxt", (job.folder / "net.prototxt").read_text().split("layer {")[0] + DEPLOY)
    np.savez(job.folder / "in put.npz", data=np.random.default_rng(0).normal(size=(4, 1, 4, 4)).astype(np.float32))
    page = report(*QUANTIZE, "--input", "in put.npz", "--score=sqnr", "--report=r.html")
    check(page)
    commands = page.texts("code")
    assert "ristretto test --model out.prototxt --iterations 1 --input 'in put.npz'" in commands
    assert commands[0].startswith("ristretto quantize --model net.prototxt ")
    shown = next(command for command in commands if command.startswith("ristretto test"))
    assert run([part.strip("'") for part in re.findall(r"'[^']*'|\S+", shown)][1:]) == 0


DEPLOY = """
layer { name: "in" type: "Input" top: "data" input_param { shape { dim: 2 dim: 1 dim: 4 dim: 4 } } }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv" convolution_param { num_output: 2 kernel_size: 3 } }
layer { name: "ip" type: "InnerProduct" bottom: "conv" top: "ip" inner_product_param { num_output: 3 } }
"""


def test_names_are_escaped(report: Report, job: Job) -> None:
    evil = "<script>alert(1)</script>&amp;$x_{1}$"
    job.write("net.prototxt", (job.folder / "net.prototxt").read_text().replace('name: "conv"', f'name: "{evil}"'))
    job.weights(lambda layers: layers.update({evil: layers.pop("conv")}))
    (job.folder / "net.caffemodel").rename(job.folder / "<b>.caffemodel")
    flags = ["--weights=<b>.caffemodel" if "--weights" in flag else flag for flag in QUANTIZE]
    page = report(*flags, "--report=r.html")
    check(page)
    assert evil in page.texts("th") and "<b>.caffemodel" in page.texts("dd")


def test_a_score_with_a_strange_name_is_drawn(report: Report, job: Job) -> None:
    name = "_a$<b>&\\\\x"
    job.edit('top: "accuracy"', f'top: "{name}"')
    page = report()
    check(page)
    assert any(name.replace("\\\\", "\\") in text for text in page.texts("figcaption"))


def test_bytes_that_are_not_text_do_not_stop_the_report(job: Job) -> None:
    assert run((*QUANTIZE, "--report=\udcff\x01.html")) == 0
    page = Page(Path("\udcff\x01.html").read_text(encoding="utf-8"))
    check(page)
    assert page.texts("code")[0].endswith("--report '\\udcff\\x01.html'")


def test_the_same_run_gives_the_same_bytes(report: Report) -> None:
    assert report().text == report().text


def test_two_hundred_layers_stay_small(report: Report, job: Job) -> None:
    layers, weights, bottom = [], {}, "data"
    for i in range(200):
        name = f"stage{i // 50}/convolution_with_a_long_name_{i}"
        layers.append(
            f'layer {{ name: "{name}" type: "Convolution" bottom: "{bottom}" top: "{name}" '
            "convolution_param { num_output: 2 kernel_size: 1 } }"
        )
        weights[name] = [np.full((2, 1 if i == 0 else 2, 1, 1), 0.5), np.zeros(2)]
        bottom = name
    data = (
        'name: "deep" layer { name: "data" type: "DummyData" top: "data" dummy_data_param { shape { '
        'dim: 1 dim: 1 dim: 2 dim: 2 } data_filler { type: "gaussian" } } }'
    )
    job.write("net.prototxt", "\n".join([data, *layers]))
    write_weights(job.folder / "net.caffemodel", weights)
    flags = [flag for flag in QUANTIZE if "--iterations" not in flag]
    page = report(*flags, "--noscore", *GIVEN, "--report=r.html")
    check(page)
    assert len(page.text) < 1_000_000
    assert len([row for row in page.texts("tr") if "Convolution" in row]) == 200


def test_a_training_is_reported_whatever_is_logged(report: Report, job: Job) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    job.write("solver.prototxt", SOLVER)
    page = report(*TRAIN, "--minloglevel=2")
    check(page)
    assert page.texts("h2")[:3] == ["Result", "Request", "Curves"]
    assert page.texts("figcaption") == [
        "Loss over iterations: train loss, test loss",
        "Outputs over iterations: test accuracy, train accuracy",
        "Learning rate over iterations: lr",
    ]
    assert [row.split()[0] for row in page.texts("tr") if re.fullmatch(r"\d( [\d.e-]+)+", row)][:5] == list("01234")
    assert "ristretto test --model net.prototxt --weights P_iter_4.caffemodel" in page.texts("code")


def test_a_training_without_displayed_values_says_so(report: Report, job: Job) -> None:
    pytest.importorskip("torch", reason="training needs torch")
    job.write("solver.prototxt", SOLVER.replace("display: 1", "display: 0").replace("test_i", "# test_i"))
    page = report(*TRAIN)
    check(page)
    assert not page.of("figure")
    assert any(text.startswith("The log has no values to draw") for text in page.texts("p"))


# -- what is refused, before the work begins


@pytest.mark.parametrize(
    ("flags", "said", "code"),
    [
        (["--report=."], ".: is a folder, not a file. Add a file name.", 1),
        (["--report=out.prototxt"], "out.prototxt: is given for two outputs. Choose another name for the output.", 1),
        (
            ["--report=net.prototxt"],
            "net.prototxt: is an input of this command. Choose another name for the output.",
            1,
        ),
        (["--report=r.html", "--dry_run"], "--report has no effect with --dry_run", 2),
    ],
)
def test_reports_that_cannot_be_written_are_refused(
    job: Job, capsys: pytest.CaptureFixture[str], flags: list[str], said: str, code: int
) -> None:
    assert run((*QUANTIZE, *flags)) == code
    assert capsys.readouterr().err.splitlines()[0] == f"ristretto: {said}"
    assert not (job.folder / "out.prototxt").exists()


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        (["jinja2"], "jinja2"),
        (["matplotlib"], "matplotlib"),
        (["jinja2", "matplotlib"], "jinja2 and matplotlib"),
    ],
)
def test_missing_libraries_are_named_first(
    job: Job, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, missing: list[str], said: str
) -> None:
    for name in missing:
        monkeypatch.setitem(sys.modules, name, None)
    line = f"ristretto: --report needs {said}: pip install 'ristretto-cli[report]'\n"
    assert run((*QUANTIZE, "--report=r.html")) == 1
    assert capsys.readouterr().err == line
    assert run(TRAIN) == 1
    assert capsys.readouterr().err == line
    assert not (job.folder / "out.prototxt").exists()


# -- in a browser

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium to show the page in")
def test_a_browser_shows_and_prints_the_page(report: Report, job: Job) -> None:
    report()
    base = [str(BROWSER), "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={job.folder}/profile"]
    page = (job.folder / "r.html").as_uri()
    try:
        for flags in (["--screenshot=1280.png", "--window-size=1280,2000"], ["--print-to-pdf=r.pdf"]):
            subprocess.run([*base, *flags, page], check=True, capture_output=True, timeout=60)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired):
        pytest.skip("Chromium does not run here")
    assert Path("1280.png").read_bytes().startswith(b"\x89PNG")
    assert Path("r.pdf").read_bytes().startswith(b"%PDF")
