"""pycaffe's Classifier."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ristretto_cli.caffe_io.messages import TEST
from ristretto_cli.ops import AnyArray
from ristretto_cli.pycaffe.io import Transformer, oversample, resize_image
from ristretto_cli.pycaffe.net import Net


class Classifier(Net):
    """A net with one input for images, and the preparation of these; see Transformer.

    image_dims: the height and width to which images are resized before they are cropped; by default those of the input.
    """

    def __init__(
        self,
        model_file: str,
        pretrained_file: str,
        image_dims: Sequence[int] | None = None,
        mean: AnyArray | None = None,
        input_scale: float | None = None,
        raw_scale: float | None = None,
        channel_swap: Sequence[int] | None = None,
    ) -> None:
        super().__init__(model_file, TEST, weights=pretrained_file)
        name = self.inputs[0]
        self.transformer = Transformer({name: self.blobs[name].shape})
        self.transformer.set_transpose(name, (2, 0, 1))
        if mean is not None:
            self.transformer.set_mean(name, mean)
        if input_scale is not None:
            self.transformer.set_input_scale(name, input_scale)
        if raw_scale is not None:
            self.transformer.set_raw_scale(name, raw_scale)
        if channel_swap is not None:
            self.transformer.set_channel_swap(name, channel_swap)
        self.crop_dims = np.array(self.blobs[name].shape[2:])
        self.image_dims = self.crop_dims if image_dims is None else np.array(image_dims)

    def predict(self, inputs: Sequence[AnyArray], oversample: bool = True) -> AnyArray:
        """The scores of images (H, W, C), (N, classes): of the centre crop, or the means over ten crops."""
        name = self.inputs[0]
        resized = [resize_image(np.asarray(image, np.float32), self.image_dims.tolist()) for image in inputs]
        if oversample:
            crops = _ten_crops(resized, self.crop_dims.tolist())
        else:
            rows, columns = ((self.image_dims - self.crop_dims) // 2).tolist()
            height, width = self.crop_dims.tolist()
            crops = np.stack([image[rows : rows + height, columns : columns + width] for image in resized])
        prepared = np.stack([self.transformer.preprocess(name, crop) for crop in crops])
        scores = self.forward_all(None, **{name: prepared})[self.outputs[0]]
        return scores.reshape(len(resized), 10, -1).mean(1) if oversample else scores


_ten_crops = oversample
