"""Upgrade of the second format of nets (V1: `layers { type: CONVOLUTION ... }`) to the current one."""

from __future__ import annotations

import logging

from ristretto_cli.caffe_io.messages import Message, enum_name, enum_value, new
from ristretto_cli.errors import Location, RistrettoError

_LOG = logging.getLogger("ristretto")

_TYPES = {
    "NONE": "",
    "ABSVAL": "AbsVal",
    "ACCURACY": "Accuracy",
    "ARGMAX": "ArgMax",
    "BNLL": "BNLL",
    "CONCAT": "Concat",
    "CONTRASTIVE_LOSS": "ContrastiveLoss",
    "CONVOLUTION": "Convolution",
    "DATA": "Data",
    "DECONVOLUTION": "Deconvolution",
    "DROPOUT": "Dropout",
    "DUMMY_DATA": "DummyData",
    "ELTWISE": "Eltwise",
    "EUCLIDEAN_LOSS": "EuclideanLoss",
    "EXP": "Exp",
    "FLATTEN": "Flatten",
    "HDF5_DATA": "HDF5Data",
    "HDF5_OUTPUT": "HDF5Output",
    "HINGE_LOSS": "HingeLoss",
    "IM2COL": "Im2col",
    "IMAGE_DATA": "ImageData",
    "INFOGAIN_LOSS": "InfogainLoss",
    "INNER_PRODUCT": "InnerProduct",
    "LRN": "LRN",
    "MEMORY_DATA": "MemoryData",
    "MULTINOMIAL_LOGISTIC_LOSS": "MultinomialLogisticLoss",
    "MVN": "MVN",
    "POOLING": "Pooling",
    "POWER": "Power",
    "RELU": "ReLU",
    "SIGMOID": "Sigmoid",
    "SIGMOID_CROSS_ENTROPY_LOSS": "SigmoidCrossEntropyLoss",
    "SILENCE": "Silence",
    "SLICE": "Slice",
    "SOFTMAX": "Softmax",
    "SOFTMAX_LOSS": "SoftmaxWithLoss",
    "SPLIT": "Split",
    "TANH": "TanH",
    "THRESHOLD": "Threshold",
    "WINDOW_DATA": "WindowData",
}

_DATA = {"DATA": "data_param", "IMAGE_DATA": "image_data_param", "WINDOW_DATA": "window_data_param"}
TRANSFORMATIONS = ("scale", "mean_file", "crop_size", "mirror")

# Fields of a layer that are fields of its param blocks now, one block per parameter.
_PARAM_BLOCKS = {
    "param": "name",
    "blob_share_mode": "share_mode",
    "blobs_lr": "lr_mult",
    "weight_decay": "decay_mult",
}


def has_data_transformation(net: Message) -> bool:
    """Whether a V1 data layer holds settings that belong in transform_param."""
    return any(
        getattr(layer, param).HasField(name)
        for layer in net.layers
        if (param := _DATA.get(enum_name(layer, "type")))
        for name in TRANSFORMATIONS
    )


def move_data_transformation(net: Message) -> None:
    """Move scale, mean_file, crop_size and mirror of V1 data layers to their transform_param."""
    for layer in net.layers:
        param = _DATA.get(enum_name(layer, "type"))
        if not param:
            continue
        # As in Caffe, both messages exist afterwards, even if empty.
        getattr(layer, param).SetInParent()
        layer.transform_param.SetInParent()
        for name in TRANSFORMATIONS:
            if getattr(layer, param).HasField(name):
                setattr(layer.transform_param, name, getattr(getattr(layer, param), name))
                getattr(layer, param).ClearField(name)


def upgrade_v1(net: Message, place: Location) -> tuple[Message, bool]:
    """A V1 net in the current format: a new message, and whether no field was dropped.

    place: the location of the first layer.
    """
    if len(net.layer):
        raise RistrettoError(
            "the net has both `layer` (with types as strings) and `layers` (the old format)",
            where=place,
            hint='Write all of them as layer { type: "..." }.',
        )
    upgraded = new("NetParameter")
    upgraded.CopyFrom(net)
    upgraded.ClearField("layers")
    complete = True
    for index, layer in enumerate(net.layers):
        if not _upgrade_layer(layer, upgraded.layer.add()):
            _LOG.error("Upgrade of input layer %d failed.", index)
            complete = False
    return upgraded, complete


def _upgrade_layer(v1: Message, v2: Message) -> bool:
    complete = True
    for field, value in v1.ListFields():
        if field.name == "layer":
            _LOG.error("Input NetParameter has V0 layer -- ignoring.")
            complete = False
        elif field.name == "type":
            v2.type = _TYPES[enum_name(v1, "type")]
        elif field.name in _PARAM_BLOCKS:
            while len(v2.param) < len(value):
                v2.param.add()
            for block, item in zip(v2.param, value, strict=False):
                setattr(block, _PARAM_BLOCKS[field.name], item)
        elif field.name == "name":
            v2.name = value
        elif field.name.endswith("_param"):
            getattr(v2, field.name).CopyFrom(value)
        else:  # bottom, top, include, exclude, blobs, loss_weight
            getattr(v2, field.name).extend(value)
    return complete


SOLVER_TYPES = {
    enum_value("SolverParameter.SolverType", old): new_name
    for old, new_name in {
        "SGD": "SGD",
        "NESTEROV": "Nesterov",
        "ADAGRAD": "AdaGrad",
        "RMSPROP": "RMSProp",
        "ADADELTA": "AdaDelta",
        "ADAM": "Adam",
    }.items()
}
