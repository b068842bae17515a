"""Which device is used for what --gpu asks for."""

from __future__ import annotations

import logging

import pytest

from ristretto_cli.backends.device_choice import GpuRequest, GpuUnusable, choose_gpu, parse_gpu
from ristretto_cli.errors import RistrettoError


class Machine:
    """A machine with GPUs of some numbers. probed: those that were tried."""

    def __init__(self, *gpus: int) -> None:
        self.probed: list[int] = []
        self._gpus = gpus

    def __call__(self, gpu: int) -> None:
        self.probed.append(gpu)
        if gpu not in self._gpus:
            raise GpuUnusable(f"there is no GPU {gpu}", hint="Buy one.")


@pytest.fixture(autouse=True)
def _all_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "ristretto")


@pytest.mark.parametrize(
    ("text", "number", "several"),
    [("0", 0, False), ("7", 7, False), ("0,1,2,3", 0, True), ("2,0", 2, True), ("all", 0, True), ("00", 0, False)],
)
def test_a_number_a_list_or_all(text: str, number: int, several: bool) -> None:
    assert parse_gpu(text, "--gpu=it", required=True) == GpuRequest(number, several, "--gpu=it", True)


@pytest.mark.parametrize(
    "text", ["x", "-1", "1.5", "", ",", "0,", "0,x", "0 1", "ALL", "all,0", "²", "1" * 10, "9" * 5000]
)
def test_what_is_no_gpu(text: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_gpu(text, "--gpu")
    assert str(caught.value) == (
        f'invalid GPU "{text}": expected a device number such as 0, a list such as 0,1, or all'
    )


def test_without_a_request_nothing_is_tried(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(0)
    assert choose_gpu(GpuRequest(), machine) is None
    assert (machine.probed, caplog.messages) == ([], [])


@pytest.mark.parametrize("required", [False, True])
def test_a_gpu_that_works_is_used_without_a_word(caplog: pytest.LogCaptureFixture, required: bool) -> None:
    assert choose_gpu(parse_gpu("1", "--gpu=1", required=required), Machine(0, 1)) == 1
    assert caplog.messages == []


def test_of_several_the_first_is_used_and_that_is_told(caplog: pytest.LogCaptureFixture) -> None:
    machine = Machine(0, 2)
    assert choose_gpu(parse_gpu("2,0", "--gpu=2,0"), machine) == 2
    assert machine.probed == [2]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", "--gpu=2,0: only one GPU is used, GPU 2.")
    ]


@pytest.mark.parametrize("text", ["7", "7,0"])
def test_the_cpu_replaces_a_gpu_that_does_not_work_with_one_warning(
    caplog: pytest.LogCaptureFixture, text: str
) -> None:
    assert choose_gpu(parse_gpu(text, f"--gpu={text}"), Machine(0)) is None
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            f"--gpu={text}: the GPU cannot be used: there is no GPU 7. Buy one. Falling back to the CPU, which "
            "gives the same results. --require_gpu makes this an error.",
        )
    ]


def test_a_required_gpu_that_does_not_work_is_an_error(caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(RistrettoError) as caught:
        choose_gpu(parse_gpu("7", "--gpu=7", required=True), Machine(0))
    assert str(caught.value) == (
        "the GPU cannot be used: there is no GPU 7. Buy one. Without --require_gpu the CPU is used."
    )
    assert caplog.messages == []


def test_a_gpu_that_is_required_without_a_number_is_gpu_0() -> None:
    assert choose_gpu(GpuRequest(required=True), Machine(0)) == 0
    with pytest.raises(RistrettoError, match="there is no GPU 0"):
        choose_gpu(GpuRequest(required=True), Machine())


def test_other_errors_of_the_probe_are_not_taken_for_a_missing_gpu() -> None:
    def probe(gpu: int) -> None:
        raise RistrettoError("training needs torch")

    with pytest.raises(RistrettoError, match=r"^training needs torch$"):
        choose_gpu(GpuRequest(0), probe)
