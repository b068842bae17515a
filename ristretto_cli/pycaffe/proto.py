"""caffe_pb2: the messages of Caffe's schema, by name."""

from __future__ import annotations

from typing import Any

from ristretto_cli.caffe_io.messages import TEST, TRAIN, message_class


class _Messages:
    """Classes of messages as attributes, such as NetParameter and BlobProto."""

    TRAIN, TEST = TRAIN, TEST

    def __getattr__(self, name: str) -> Any:
        try:
            return message_class(name)
        except KeyError:
            raise AttributeError(f"Caffe's schema has no message {name}") from None


caffe_pb2 = _Messages()
