"""Caffe's messages as Python classes, from the compiled schema of proto/caffe.proto and proto/forks.proto.

They are in a separate descriptor pool, so they do not clash with an installed pycaffe, whose
schema has the same message names.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Any, TypeAlias

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

# protobuf makes these classes at run time; to a type checker each message is Any.
Message: TypeAlias = Any


@cache
def _pool() -> descriptor_pool.DescriptorPool:
    core, *others = schema_files()
    for other in others:
        _merge(core, other)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(core)
    return pool


def schema_files() -> list[Any]:
    """The FileDescriptorProtos of the schema's files: caffe.proto, then the additions of forks."""
    data = resources.files(__package__).joinpath("caffe.desc").read_bytes()
    return list(descriptor_pb2.FileDescriptorSet.FromString(data).file)


def _merge(core: Any, other: Any) -> None:
    """Add the messages of another file to the core: new ones, or their fields to the core's message of that name.

    Extensions would not do: the text format writes their names in brackets.
    """
    known = {message.name: message for message in core.message_type}
    for message in other.message_type:
        _into_package(message, f".{other.package}.", f".{core.package}.")
        if message.name in known:
            _extend(known[message.name], message)
        else:
            core.message_type.add().CopyFrom(message)


def _extend(message: Any, addition: Any) -> None:
    message.field.extend(addition.field)
    enums = {enum.name: enum for enum in message.enum_type}
    for enum in addition.enum_type:
        if enum.name in enums:
            enums[enum.name].value.extend(enum.value)
        else:
            message.enum_type.add().CopyFrom(enum)


def _into_package(message: Any, old: str, new: str) -> None:
    """Change the package of the types of a message's fields."""
    for field in message.field:
        if field.type_name.startswith(old):
            field.type_name = new + field.type_name.removeprefix(old)
    for nested in message.nested_type:
        _into_package(nested, old, new)


@cache
def message_class(name: str) -> Any:
    """The class of a message, by its name in caffe.proto ("NetParameter")."""
    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"caffe.{name}"))


def new(name: str, /, **fields: Any) -> Message:
    """A new message with these fields set."""
    return message_class(name)(**fields)


def enum_value(name: str, value: str) -> int:
    """The number of an enum's value: enum_value("EltwiseParameter.EltwiseOp", "SUM") is 1."""
    return int(_pool().FindEnumTypeByName(f"caffe.{name}").values_by_name[value].number)


def enum_name(message: Message, field: str) -> str:
    """The name of the value of an enum field of a message, or of its default."""
    enum = message.DESCRIPTOR.fields_by_name[field].enum_type
    return str(enum.values_by_number[getattr(message, field)].name)


TRAIN, TEST = 0, 1  # Caffe's Phase


def is_repeated(field: Any) -> bool:
    """Whether a field, given by its descriptor, is repeated."""
    # protobuf 6 added the property, and 7 deprecates `label`.
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


def is_required(field: Any) -> bool:
    """Whether a field, given by its descriptor, is required."""
    known = getattr(field, "is_required", None)
    return bool(field.label == field.LABEL_REQUIRED if known is None else known)
