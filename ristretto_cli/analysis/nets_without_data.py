"""Nets without data: shapes of data layers from the user, from the data, or from the layers' settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ristretto_cli.caffe_io.messages import Message, enum_name, is_repeated
from ristretto_cli.caffe_io.net_file import NetFile
from ristretto_cli.caffe_io.weights import read_blob
from ristretto_cli.errors import LayerError, RistrettoError, did_you_mean, raise_all
from ristretto_cli.net.build import NetState, build, included
from ristretto_cli.net.ir import Net
from ristretto_cli.ops import DYNAMIC, Shape, show
from ristretto_cli.sources.open import DataLayers
from ristretto_cli.sources.settings import checked_shape
from ristretto_cli.sources.source import SOURCES

_COLOURS = 3


@dataclass(frozen=True)
class NetWithoutData:
    """A net, without weights, and its data layers whose shapes do not come from their data.

    notes: for each such layer, by name, the origin of its shapes as a phrase.
    """

    net: Net
    notes: Mapping[str, str]


def build_without_data(net_file: NetFile, state: NetState, given: Mapping[str, Shape]) -> NetWithoutData:
    """The net for a state, even if its databases are missing.

    given: shapes for tops of data layers, by blob name; they override the data and the net. Without
    data, crop_size and similar settings give the shape. RistrettoError(s) for an unknown shape,
    for a given one of no data layer, and for other errors in the net.
    """
    data = _KnownShapes(given)
    tops = [top for message, _ in included(net_file, state) if message.type in data for top in message.top]
    inputs = f"Inputs: {', '.join(tops) or 'none'}."
    raise_all(
        RistrettoError(
            f'"{name}" is not an input of the net', where=net_file.file, hint=did_you_mean(name, tops) or inputs
        )
        for name in given
        if name not in tops
    )
    return NetWithoutData(build(net_file, state, data), data.notes)


class _KnownShapes(DataLayers):
    """Data layers with possibly missing data."""

    def __init__(self, given: Mapping[str, Shape]) -> None:
        super().__init__()  # here all data layers can get other shapes
        self._shapes = {name: checked_shape(shape, f'"{name}"') for name, shape in given.items()}
        self.notes: dict[str, str] = {}

    def shapes(self, message: Message, phase: int) -> tuple[Shape, ...]:
        given = [self._shapes.get(top) for top in message.top]
        if not given:
            return super().shapes(message, phase)  # rejects it
        if None not in given:
            self.notes[message.name] = f"{_description(message, given)}, as given"
            return tuple(shape for shape in given if shape is not None)
        try:
            shapes: Sequence[Shape] = super().shapes(message, phase)
        except RistrettoError as error:
            shapes = self._without_data(message, given, error)
        else:
            if any(given):
                self.notes[message.name] = ""
        shapes = _with_given(shapes, given)
        if message.name in self.notes:
            self.notes[message.name] = f"{_description(message, shapes)}, {self.notes[message.name] or 'as given'}"
        return tuple(shapes)

    def _without_data(self, message: Message, given: Sequence[Shape | None], error: RistrettoError) -> Sequence[Shape]:
        """Shapes for a layer whose data cannot be read."""
        image, what = _image_of(message)
        if given[0] is not None:
            image, what = given[0], "as given"
        if image is None or len(message.top) > 2:
            top = next(name for name, shape in zip(message.top, given, strict=True) if shape is None)
            raise LayerError(
                f'the shape of "{top}" is unknown: {error}',
                hint=f"Set it with --input_shape={top}=N,C,H,W.",
            ) from error
        self.notes[message.name] = f"{what} ({error})"
        return [image, SOURCES.get(message.type).label_shape(image[0])][: len(message.top)]


def _with_given(shapes: Sequence[Shape], given: Sequence[Shape | None]) -> Sequence[Shape]:
    """The shapes with the given ones replaced; tops with the first one's batch size get its new one."""
    first = given[0]
    if first is not None and first and shapes[0]:
        of_batch = [shape[:1] == shapes[0][:1] and DYNAMIC not in shape for shape in shapes]
        shapes = [(first[0], *s[1:]) if is_one else s for s, is_one in zip(shapes, of_batch, strict=True)]
    return [shape if known is None else known for shape, known in zip(shapes, given, strict=True)]


def _description(message: Message, shapes: Sequence[Shape | None]) -> str:
    return ", ".join(f"{top} {show(shape or ())}" for top, shape in zip(message.top, shapes, strict=True))


def _image_of(message: Message) -> tuple[Shape | None, str]:
    """The shape of a batch of images from a data layer's settings, and the settings that gave it.

    None if they do not give it. Supports any type of data layer with batch_size, regardless of its other
    settings.
    """
    settings = (value for field, value in message.ListFields() if field.message_type and not is_repeated(field))
    own = next((value for value in settings if _number(value, "batch_size") > 0), None)
    transform = message.transform_param
    crop = transform.crop_size or _number(own, "crop_size")
    mean = _mean_shape(transform.mean_file)
    height, width = _number(own, "new_height"), _number(own, "new_width")
    resized = _resized(transform)
    if own is None or not (crop or resized or (height and width) or mean):
        return None, ""
    size: Shape
    if crop:
        size, what = (crop, crop), "from crop_size"
    elif resized:
        size, what = resized, "from resize_param"
    elif height and width:
        size, what = (height, width), "from new_height and new_width"
    else:
        size, what = mean[-2:], "from mean_file"
    channels, why = _channels(message, own, mean)
    return checked_shape((own.batch_size, channels, *size), "the batch"), what + why


def _channels(message: Message, own: Message, mean: Shape) -> tuple[int, str]:
    """The number of channels of an image, and a note if that is a guess."""
    transform = message.transform_param
    if mean:
        return mean[-3], ""
    if len(transform.mean_value) > 1:
        return len(transform.mean_value), ""
    if transform.force_gray:
        return 1, ""
    if transform.force_color or "is_color" in own.DESCRIPTOR.fields_by_name:
        return _COLOURS if transform.force_color or own.is_color else 1, ""
    return _COLOURS, f" and, as a guess, {_COLOURS} channels"


def _mean_shape(file: str) -> Shape:
    """The shape of a mean file; () if it is missing or not an image."""
    try:
        shape: Shape = read_blob(file).shape if Path(file).is_file() else ()
    except (RistrettoError, OSError, ValueError):  # not a mean file, or an invalid file name
        return ()
    return shape if len(shape) >= 3 else ()


def _resized(transform: Message) -> Shape:
    """The size of images before cropping; () if it is unknown or depends on the image."""
    resize = transform.resize_param
    is_fixed = transform.HasField("resize_param") and enum_name(resize, "resize_mode") != "FIT_SMALL_SIZE"
    return (resize.height, resize.width) if is_fixed and resize.height and resize.width else ()


def _number(message: Message | None, field: str) -> int:
    """A number in a message; 0 if it is not set or there is no such field."""
    if message is None or field not in message.DESCRIPTOR.fields_by_name:
        return 0
    return int(getattr(message, field))
