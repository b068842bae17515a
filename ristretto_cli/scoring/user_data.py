"""Data that the user supplies for the inputs of a net: images, and arrays by blob name."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field

from ristretto_cli.errors import RistrettoError, did_you_mean, raise_all
from ristretto_cli.net.ir import Blob, Layer, Net
from ristretto_cli.ops import DYNAMIC, Array, fits, show
from ristretto_cli.sources.source import SOURCES, Source
from ristretto_cli.sources.user_arrays import UserArray
from ristretto_cli.sources.user_images import ImageSettings, UserImages

log = logging.getLogger("ristretto")

_IMAGE_AXES = 4


@dataclass(frozen=True)
class UserData:
    """Images for the input that takes images, and arrays for inputs by blob name; their first axis is that of images.

    Batches have the size of the net's input. After the last image the first one follows.
    """

    images: ImageSettings | None = None
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def open(self, net: Net) -> dict[str, Source]:
        """A source for each input that gets data, by name.

        Raises RistrettoError(s) for inputs that get none and have none, for arrays that fit no input, and for images
        that no input takes.
        """
        errors = [*_misfits(net, self.arrays), *_partly_given(net, self.arrays)]
        inputs = {blob.name: blob for blob in net.inputs}
        opened: dict[str, Source] = {
            name: UserArray(array, inputs[name].shape) for name, array in self.arrays.items() if name in inputs
        }
        if self.images is not None:
            try:
                blob = _image_input(net, self.arrays)
                opened[blob.name] = UserImages(self.images, blob.shape, blob.name)
            except RistrettoError as error:
                errors.append(error)
        if self.images is None or not errors:
            errors += _missing(net, opened)
        raise_all(errors)
        return opened

    def check(self, net: Net) -> None:
        """The errors of `open`."""
        for source in self.open(net).values():
            source.close()

    def iterations(self, net: Net, wanted: int, purpose: str) -> int:
        """The number of batches to run: as many as wanted, up to one pass over the data.

        Logs a line if that is less, or if images are repeated. The data fit the net.
        """
        count = self._count(net)
        if count is None:
            return wanted
        images, batch = count
        needed = -(-images // batch)
        if needed < wanted:
            log.info("%s: %d batches of %d instead of %d are one pass over the data.", purpose, needed, batch, wanted)
        if needed <= wanted and images % batch:
            again = needed * batch - images
            log.info("%s: the last batch is completed with the first %d of the %d images.", purpose, again, images)
        return min(needed, wanted)

    def _count(self, net: Net) -> tuple[int, int] | None:
        """The number of images, and of those in a batch; None if no input has an axis for them."""
        shapes = {blob.name: blob.shape for blob in net.inputs}
        counts = [(len(array), shapes[name][0]) for name, array in self.arrays.items() if shapes.get(name)]
        if self.images is not None:
            counts.append((len(self.images.files), _image_input(net, self.arrays).shape[0]))
        return max(counts, key=lambda each: each[0] / each[1], default=None)


def check_has_data(net: Net, data: UserData | None = None) -> None:
    """RistrettoError(s) for inputs without data, unless the user supplies it."""
    (data or UserData()).check(net)


def _missing(net: Net, given: Mapping[str, object]) -> list[RistrettoError]:
    """Errors for data layers without data of their own, not all of whose tops are given."""
    errors = []
    for layer in _external(net):
        missing = [blob for blob in layer.tops if blob.name not in given]
        if missing:
            shapes = ", ".join(f"{blob.name} ({_any_number(blob)})" for blob in missing)
            images = "images with --images LIST_OR_FOLDER, or " if any(map(_takes_images, missing)) else ""
            hint = f"Give {images}arrays with --input x.npz: {shapes}; or replace it with a data layer such as Data."
            errors.append(_of(layer, f"there is no data for {', '.join(blob.name for blob in missing)}", hint=hint))
    return errors


def _image_input(net: Net, arrays: Mapping[str, object]) -> Blob:
    """The input that takes images and is not given an array; RistrettoError unless there is one."""
    found = [blob for layer in _external(net) for blob in layer.tops if _takes_images(blob) and blob.name not in arrays]
    if len(found) == 1:
        return found[0]
    if found:
        names = ", ".join(blob.name for blob in found)
        raise RistrettoError(
            f"--images could be for any of the inputs {names}", where=net.file, hint="Use --input for all but one."
        )
    own = [layer for layer in net.layers if layer.is_source and layer not in _external(net)]
    if own:
        raise RistrettoError(
            f'--images has no effect: layer "{own[0].name}" ({own[0].type}) reads data of its own',
            where=own[0].where,
            hint="Omit it, or use the net's deploy prototxt, whose inputs are Input layers.",
        )
    inputs = ", ".join(f"{blob.name} ({show(blob.shape)})" for blob in net.inputs)
    raise RistrettoError(
        f"--images has no effect: no input is left that takes images (N, 1 or 3, H, W); inputs: {inputs}",
        where=net.file,
        hint="Use --input.",
    )


def _misfits(net: Net, arrays: Mapping[str, Array]) -> list[RistrettoError]:
    """Errors for arrays that are not for inputs, or have other shapes or numbers of images."""
    inputs = {blob.name: blob for blob in net.inputs}
    errors = []
    most = max((len(array) for name, array in arrays.items() if array.ndim and name in inputs), default=0)
    for name, array in arrays.items():
        if name not in inputs:
            known = f"Inputs: {', '.join(inputs) or 'none'}."
            hint = did_you_mean(name, inputs) or known
            errors.append(RistrettoError(f'"{name}" of --input is not an input of the net', where=net.file, hint=hint))
            continue
        shape = inputs[name].shape
        if array.ndim != len(shape) or not fits(array.shape[1:], shape[1:]) or 0 in array.shape:
            what = f'"{name}" of --input has the shape {show(array.shape)}; expected {_any_number(inputs[name])}'
            hint = "N is any number of images; for another size of an Input layer use test --input_shape."
            errors.append(RistrettoError(what, where=net.file, hint=hint))
        elif shape and len(array) not in (most, shape[0]):
            what = f'"{name}" of --input has {len(array)} images, but another array has {most}'
            errors.append(RistrettoError(what, where=net.file, hint="All arrays need the same number of images."))
    return errors


def _partly_given(net: Net, arrays: Mapping[str, object]) -> list[RistrettoError]:
    """Errors for data layers some of whose tops are given: the others would belong to other images."""
    errors = []
    for layer in net.layers:
        given = [blob.name in arrays for blob in layer.tops]
        if layer.is_source and not SOURCES.get(layer.type).is_external and any(given) and not all(given):
            missing = ", ".join(blob.name for blob in layer.tops if blob.name not in arrays)
            what = f"--input gives only some of its tops; {missing} would be those of other images"
            errors.append(_of(layer, what, hint="Give all of them, or none."))
    return errors


def _external(net: Net) -> list[Layer]:
    """The data layers without data of their own."""
    return [layer for layer in net.layers if layer.is_source and SOURCES.get(layer.type).is_external]


def _takes_images(blob: Blob) -> bool:
    return len(blob.shape) == _IMAGE_AXES and DYNAMIC not in blob.shape and blob.shape[1] in (1, 3)


def _any_number(blob: Blob) -> str:
    """The shape of arrays for an input, with N for the number of images."""
    return "x".join(["N", *(str(extent) for extent in blob.shape[1:])]) if blob.shape else "a number"


def _of(layer: Layer, what: str, *, hint: str) -> RistrettoError:
    return RistrettoError(f'layer "{layer.name}" ({layer.type}): {what}', where=layer.where, hint=hint)
