"""Upgrade of the first format of nets (V0: `layers { layer { ... } }`) to the second (V1).

As in Caffe, some fields are dropped: those next to the inner `layer`, and those of the net except its name, inputs,
layers and force_backward.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ristretto_cli.caffe_io.messages import Message, enum_value, is_repeated, new
from ristretto_cli.errors import Location, RistrettoError, did_you_mean

_LOG = logging.getLogger("ristretto")

_TYPES = {
    "accuracy": "ACCURACY",
    "bnll": "BNLL",
    "concat": "CONCAT",
    "conv": "CONVOLUTION",
    "data": "DATA",
    "dropout": "DROPOUT",
    "euclidean_loss": "EUCLIDEAN_LOSS",
    "flatten": "FLATTEN",
    "hdf5_data": "HDF5_DATA",
    "hdf5_output": "HDF5_OUTPUT",
    "im2col": "IM2COL",
    "images": "IMAGE_DATA",
    "infogain_loss": "INFOGAIN_LOSS",
    "innerproduct": "INNER_PRODUCT",
    "lrn": "LRN",
    "multinomial_logistic_loss": "MULTINOMIAL_LOGISTIC_LOSS",
    "pool": "POOLING",
    "relu": "RELU",
    "sigmoid": "SIGMOID",
    "softmax": "SOFTMAX",
    "softmax_loss": "SOFTMAX_LOSS",
    "split": "SPLIT",
    "tanh": "TANH",
    "window_data": "WINDOW_DATA",
}

_PARAM = {
    "concat": "concat_param",
    "conv": "convolution_param",
    "data": "data_param",
    "dropout": "dropout_param",
    "hdf5_data": "hdf5_data_param",
    "images": "image_data_param",
    "infogain_loss": "infogain_loss_param",
    "innerproduct": "inner_product_param",
    "lrn": "lrn_param",
    "pool": "pooling_param",
    "window_data": "window_data_param",
}

# For each V0 field, its name in the layer's parameter message, and the types that have it.
_FIELDS = {
    "num_output": ("num_output", ("conv", "innerproduct")),
    "biasterm": ("bias_term", ("conv", "innerproduct")),
    "weight_filler": ("weight_filler", ("conv", "innerproduct")),
    "bias_filler": ("bias_filler", ("conv", "innerproduct")),
    "pad": ("pad", ("conv", "pool")),
    "kernelsize": ("kernel_size", ("conv", "pool")),
    "group": ("group", ("conv",)),
    "stride": ("stride", ("conv", "pool")),
    "pool": ("pool", ("pool",)),
    "dropout_ratio": ("dropout_ratio", ("dropout",)),
    "local_size": ("local_size", ("lrn",)),
    "alpha": ("alpha", ("lrn",)),
    "beta": ("beta", ("lrn",)),
    "k": ("k", ("lrn",)),
    "source": ("source", ("data", "hdf5_data", "images", "window_data", "infogain_loss")),
    "batchsize": ("batch_size", ("data", "hdf5_data", "images", "window_data")),
    "rand_skip": ("rand_skip", ("data", "images")),
    "shuffle_images": ("shuffle", ("images",)),
    "new_height": ("new_height", ("images",)),
    "new_width": ("new_width", ("images",)),
    "concat_dim": ("concat_dim", ("concat",)),
    "det_fg_threshold": ("fg_threshold", ("window_data",)),
    "det_bg_threshold": ("bg_threshold", ("window_data",)),
    "det_fg_fraction": ("fg_fraction", ("window_data",)),
    "det_context_pad": ("context_pad", ("window_data",)),
    "det_crop_mode": ("crop_mode", ("window_data",)),
}

# These are in transform_param now, for all types.
_TRANSFORM = {"scale": "scale", "meanfile": "mean_file", "cropsize": "crop_size", "mirror": "mirror"}

# These stay in the layer. new_num and new_channels have no effect.
_KEPT = ("name", "blobs", "blobs_lr", "weight_decay")
_KEPT_OF_NET = ("name", "layers", "input", "input_dim", "force_backward")


def is_v0(net: Message) -> bool:
    """Whether a NetParameter has a layer in the V0 format."""
    return any(layer.HasField("layer") for layer in net.layers)


def upgrade_v0(net: Message, places: Sequence[Location]) -> tuple[Message, tuple[Location, ...], bool]:
    """A V0 net as V1: a new message, the locations of its layers, and whether no field was dropped."""
    dropped = [field.name for field, _ in net.ListFields() if field.name not in _KEPT_OF_NET]
    if dropped:
        _LOG.warning("V0 net: as in Caffe, these fields of the net are dropped: %s", ", ".join(dropped))
    layers, locations = _fold_padding(net, places)
    upgraded = new("NetParameter", input=net.input, input_dim=net.input_dim)
    for name in ("name", "force_backward"):
        if net.HasField(name):
            setattr(upgraded, name, getattr(net, name))
    complete = True
    for layer, place in zip(layers, locations, strict=True):
        complete &= _upgrade_layer(layer, upgraded.layers.add(), place)
    return upgraded, locations, complete


def _fold_padding(net: Message, places: Sequence[Location]) -> tuple[list[Message], tuple[Location, ...]]:
    """The layers without padding layers, whose pad is moved to the convolution or pooling after them."""
    producers: dict[str, Message | None] = dict.fromkeys(net.input)
    layers: list[Message] = []
    locations: list[Location] = []
    for original, place in zip(net.layers, places, strict=True):
        layer = new("V1LayerParameter")
        layer.CopyFrom(original)
        for index, bottom in enumerate(original.bottom):
            if bottom not in producers:
                raise RistrettoError(f'unknown bottom "{bottom}"', where=place)
            source = producers[bottom]
            if source is not None and source.layer.type == "padding":
                _check_padding(original, source, place)
                layer.layer.pad = source.layer.pad
                layer.bottom[index] = source.bottom[0]
        producers.update(dict.fromkeys(original.top, original))
        if original.layer.type != "padding":
            layers.append(layer)
            locations.append(place)
    return layers, tuple(locations)


def _check_padding(layer: Message, padding: Message, place: Location) -> None:
    fault = ""
    if layer.layer.type not in ("conv", "pool"):
        fault = f'a layer of type "{layer.layer.type}" cannot have a padding layer as its bottom'
    elif len(layer.bottom) != 1:
        fault = "a layer after a padding layer takes a single bottom"
    elif len(padding.bottom) != 1 or len(padding.top) != 1:
        fault = "a padding layer takes a single bottom and produces a single top"
    if fault:
        raise RistrettoError(fault, where=place)


def _upgrade_layer(v0: Message, v1: Message, place: Location) -> bool:
    dropped = [field.name for field, _ in v0.ListFields() if field.name not in ("layer", "bottom", "top")]
    if dropped:
        _LOG.warning("%s: V0 layer: as in Caffe, these fields are dropped: %s", place, ", ".join(dropped))
    v1.bottom.extend(v0.bottom)
    v1.top.extend(v0.top)
    if not v0.HasField("layer"):
        return True
    old = v0.layer
    if old.HasField("type"):
        v1.type = _upgrade_type(old.type, place)
    complete = True
    for field, value in old.ListFields():
        if field.name in _KEPT:
            _set(v1, field.name, value)
        elif field.name in _TRANSFORM:
            _set(v1.transform_param, _TRANSFORM[field.name], value)
        elif field.name == "hdf5_output_param" and old.type == "hdf5_output":
            v1.hdf5_output_param.CopyFrom(value)
        elif field.name in _FIELDS or field.name == "hdf5_output_param":
            name, types = _FIELDS.get(field.name, ("", ()))
            if old.type in types:
                _set(getattr(v1, _PARAM[old.type]), name, value)
            else:
                _LOG.error("%s: Unknown parameter %s for layer type %s", place, field.name, old.type)
                complete = False
    return complete


def _upgrade_type(name: str, place: Location) -> int:
    if name not in _TYPES:
        raise RistrettoError(f'unknown layer type "{name}"', where=place, hint=did_you_mean(name, _TYPES))
    return enum_value("V1LayerParameter.LayerType", _TYPES[name])


def _set(message: Message, name: str, value: Message) -> None:
    """Set a field that may be repeated, to a value that may be a message or a list."""
    field = message.DESCRIPTOR.fields_by_name[name]
    if is_repeated(field):
        # pad, kernel_size and stride are lists now
        getattr(message, name).extend([value] if isinstance(value, int) else value)
    elif field.message_type is not None:
        getattr(message, name).CopyFrom(value)
    else:
        setattr(message, name, value)
