"""pycaffe's io: images as arrays, their preparation for a net, and conversions of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ristretto_cli.caffe_io.messages import new
from ristretto_cli.errors import RistrettoError
from ristretto_cli.ops import AnyArray
from ristretto_cli.pycaffe.proto import caffe_pb2 as caffe_pb2  # scripts read it from here


def load_image(filename: str, color: bool = True) -> AnyArray:
    """An image file as float32 (H, W, 3) in RGB, or (H, W, 1), from 0 to 1. RistrettoError if it is no image."""
    from ristretto_cli.libraries import cv2

    read = cv2.imread(str(filename), cv2.IMREAD_COLOR if color else cv2.IMREAD_GRAYSCALE)
    if read is None:
        raise RistrettoError("cannot be read as an image", where=str(filename))
    image = read[:, :, ::-1] if color else read[:, :, None]
    return np.asarray(np.ascontiguousarray(image, np.float32) / np.float32(255))


def resize_image(im: AnyArray, new_dims: Sequence[int], interp_order: int = 1) -> AnyArray:
    """An image (H, W, C) of another height and width. interp_order: 0 for the nearest pixel, 1 bilinear, 3 cubic."""
    from ristretto_cli.libraries import cv2

    orders = {0: cv2.INTER_NEAREST, 1: cv2.INTER_LINEAR, 3: cv2.INTER_CUBIC}
    if interp_order not in orders:
        raise ValueError(f"interp_order must be 0, 1 or 3, not {interp_order}")
    height, width = int(new_dims[0]), int(new_dims[1])
    planes = [cv2.resize(plane, (width, height), interpolation=orders[interp_order]) for plane in np.moveaxis(im, 2, 0)]
    return np.stack(planes, axis=-1).astype(np.float32)


def oversample(images: Sequence[AnyArray], crop_dims: Sequence[int]) -> AnyArray:
    """Ten crops of each image (H, W, C): the corners, the centre, and their mirror images; (10 * N, h, w, C)."""
    height, width = int(crop_dims[0]), int(crop_dims[1])
    crops = []
    for image in images:
        rows, columns = image.shape[0] - height, image.shape[1] - width
        corners = [(0, 0), (0, columns), (rows, 0), (rows, columns), (rows // 2, columns // 2)]
        parts = [image[top : top + height, left : left + width] for top, left in corners]
        crops += [*parts, *(part[:, ::-1] for part in parts)]
    return np.stack(crops).astype(np.float32)


class Transformer:
    """Preparation of images for inputs of a net: resize, transpose, swap channels, scale, subtract a mean, scale.

    inputs: the shape of each input blob, by name, (N, C, H, W).
    """

    def __init__(self, inputs: Mapping[str, Sequence[int]]) -> None:
        self.inputs = {name: tuple(shape) for name, shape in inputs.items()}
        self.transpose: dict[str, Sequence[int]] = {}
        self.channel_swap: dict[str, Sequence[int]] = {}
        self.raw_scale: dict[str, float] = {}
        self.mean: dict[str, AnyArray] = {}
        self.input_scale: dict[str, float] = {}

    def preprocess(self, in_: str, data: AnyArray) -> AnyArray:
        """An image (H, W, C) as the input's (C, H, W)."""
        self._check(in_)
        found = np.asarray(data, np.float32)
        extent = self.inputs[in_][2:]
        if found.shape[:2] != extent:
            found = resize_image(found, extent)
        if in_ in self.transpose:
            found = found.transpose(self.transpose[in_])
        if in_ in self.channel_swap:
            found = found[list(self.channel_swap[in_])]
        if in_ in self.raw_scale:
            found = found * np.float32(self.raw_scale[in_])
        if in_ in self.mean:
            found = found - self.mean[in_]
        if in_ in self.input_scale:
            found = found * np.float32(self.input_scale[in_])
        return found

    def deprocess(self, in_: str, data: AnyArray) -> AnyArray:
        """The inverse of preprocess, without the resizing."""
        self._check(in_)
        found = np.array(data, np.float32).squeeze()
        if in_ in self.input_scale:
            found = found / np.float32(self.input_scale[in_])
        if in_ in self.mean:
            found = found + self.mean[in_]
        if in_ in self.raw_scale:
            found = found / np.float32(self.raw_scale[in_])
        if in_ in self.channel_swap:
            found = found[np.argsort(self.channel_swap[in_])]
        if in_ in self.transpose:
            found = found.transpose(np.argsort(self.transpose[in_]))
        return found

    def set_transpose(self, in_: str, order: Sequence[int]) -> None:
        """The order of axes, (2, 0, 1) for images (H, W, C)."""
        self._check(in_)
        if len(order) != len(self.inputs[in_]) - 1:
            raise ValueError(f"the transpose of {in_} needs {len(self.inputs[in_]) - 1} axes")
        self.transpose[in_] = tuple(order)

    def set_channel_swap(self, in_: str, order: Sequence[int]) -> None:
        """The order of channels, (2, 1, 0) from RGB to BGR."""
        self._check(in_)
        if len(order) != self.inputs[in_][1]:
            raise ValueError(f"the channel swap of {in_} needs {self.inputs[in_][1]} channels")
        self.channel_swap[in_] = tuple(order)

    def set_raw_scale(self, in_: str, scale: float) -> None:
        """A factor before the mean is subtracted, 255 for images from 0 to 1."""
        self._check(in_)
        self.raw_scale[in_] = float(scale)

    def set_mean(self, in_: str, mean: AnyArray) -> None:
        """A mean for each channel, (C,), or an image, (C, H, W)."""
        self._check(in_)
        array = np.asarray(mean, np.float32)
        shape = self.inputs[in_][1:]
        if array.ndim == 1:
            if array.shape[0] not in (1, shape[0]):
                raise ValueError(f"the mean of {in_} has {array.shape[0]} channels, the input {shape[0]}")
            array = array[:, None, None]
        elif array.shape[-2:] != shape[-2:] or array.shape not in (shape, shape[-2:]):
            raise ValueError(f"the mean of {in_} is {array.shape}, the input {shape}")
        self.mean[in_] = array

    def set_input_scale(self, in_: str, scale: float) -> None:
        """A factor after the mean was subtracted."""
        self._check(in_)
        self.input_scale[in_] = float(scale)

    def _check(self, in_: str) -> None:
        if in_ not in self.inputs:
            raise ValueError(f"{in_} is not one of the inputs {', '.join(self.inputs)}")


def blobproto_to_array(blob: Any, return_diff: bool = False) -> AnyArray:
    """The array of a BlobProto, or its gradient."""
    values = blob.diff if return_diff else blob.data
    legacy = (blob.num, blob.channels, blob.height, blob.width)
    shape = tuple(blob.shape.dim) if blob.HasField("shape") else legacy
    return np.array(values, np.float32).reshape(shape)


def array_to_blobproto(arr: AnyArray, diff: AnyArray | None = None) -> Any:
    """A BlobProto of an array."""
    blob = new("BlobProto")
    blob.shape.dim.extend(arr.shape)
    blob.data.extend(np.asarray(arr, float).ravel().tolist())
    if diff is not None:
        blob.diff.extend(np.asarray(diff, float).ravel().tolist())
    return blob


def array_to_datum(arr: AnyArray, label: int | None = None) -> Any:
    """A Datum of an image (C, H, W): bytes of uint8, otherwise floats."""
    if arr.ndim != 3:
        raise ValueError(f"a Datum holds an array of 3 axes, not {arr.ndim}")
    channels, height, width = arr.shape
    datum = new("Datum", channels=channels, height=height, width=width)
    if arr.dtype == np.uint8:
        datum.data = arr.tobytes()
    else:
        datum.float_data.extend(arr.astype(float).ravel().tolist())
    if label is not None:
        datum.label = label
    return datum


def datum_to_array(datum: Any) -> AnyArray:
    """The image (C, H, W) of a Datum that is not encoded."""
    shape = (datum.channels, datum.height, datum.width)
    if len(datum.data):
        return np.frombuffer(datum.data, np.uint8).reshape(shape)
    return np.array(datum.float_data, np.float32).reshape(shape)
