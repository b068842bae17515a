"""Flags for data that the user supplies for the inputs of a net: images and their preprocessing, and arrays."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ristretto_cli.cli.flag_rules import Needs, Rule
from ristretto_cli.cli.flags import Finite
from ristretto_cli.cli.gflags import option

if TYPE_CHECKING:
    from ristretto_cli.scoring.user_data import UserData

F = TypeVar("F", bound=Callable[..., Any])

_MAX_SIDE = 32767  # as images.MAX_SIDE, which takes long to import
_PREPROCESSING = ("--resize", "--channel_swap", "--raw_scale", "--mean", "--input_scale")

DATA_RULES: list[Rule] = [Needs(flag, "--images") for flag in _PREPROCESSING]


def data_options(command: F) -> F:
    """--images with its preprocessing, and --input; their values are for user_data."""
    for each in reversed(
        [
            option(
                "--images",
                "Images for a deploy net: a folder, a list of files, one per line (labels are ignored), or one image.",
                unit="path",
            ),
            option(
                "--resize",
                "Resize images to this height and width, and cut out the centre, of the size of the net's input. "
                "Default: that size.",
                unit="h,w",
                callback=_size,
            ),
            option(
                "--channel_swap",
                "The order of the channels red, green and blue. Default: 2,1,0, which is blue, green, red.",
                unit="n,n,n",
                callback=_order,
            ),
            option("--raw_scale", "The value of white pixels, before the mean.", type=Finite(), default=255.0),
            option(
                "--mean",
                "The mean to subtract: a number for each channel of the net, separated by commas, a .npy file or a "
                ".binaryproto file.",
                unit="mean",
            ),
            option("--input_scale", "A factor for images after the mean.", type=Finite(), default=1.0),
            option(
                "--input",
                "Arrays for inputs of the net, by blob name; the first axis is that of images. They replace the data "
                "of data layers.",
                unit="npz",
            ),
        ]
    ):
        command = each(command)
    return command


def user_data(
    *,
    images: str | None,
    resize: tuple[int, int] | None,
    channel_swap: tuple[int, ...] | None,
    raw_scale: float,
    mean: str | None,
    input_scale: float,
    input: str | None,
) -> UserData | None:
    """The data that the flags of data_options give; None without --images and --input."""
    if images is None and input is None:
        return None
    from ristretto_cli.caffe_io.npz import read_npz
    from ristretto_cli.scoring.user_data import UserData
    from ristretto_cli.sources.user_images import ImageSettings, image_files, mean_of

    settings = None
    if images is not None:
        settings = ImageSettings(
            image_files(images),
            resize=resize,
            channel_swap=channel_swap,
            raw_scale=raw_scale,
            mean=None if mean is None else mean_of(mean),
            input_scale=input_scale,
        )
    return UserData(settings, {} if input is None else read_npz(input))


def _numbers(value: str) -> tuple[int, ...]:
    parts = value.split(",")
    if not all(re.fullmatch(r"[0-9]{1,5}", part, re.ASCII) for part in parts):
        raise click.BadParameter(f'"{value}": expected whole numbers, separated by commas')
    return tuple(map(int, parts))


def _size(context: click.Context, param: click.Parameter, value: str | None) -> tuple[int, int] | None:
    if value is None:
        return None
    numbers = _numbers(value)
    if len(numbers) != 2 or not all(1 <= number <= _MAX_SIDE for number in numbers):
        raise click.BadParameter(f'"{value}": expected a height and a width, such as 256,256')
    return numbers[0], numbers[1]


def _order(context: click.Context, param: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    if value is None:
        return None
    numbers = _numbers(value)
    if sorted(numbers) != list(range(len(numbers))):
        raise click.BadParameter(f'"{value}": expected each channel once, such as 2,1,0')
    return numbers
