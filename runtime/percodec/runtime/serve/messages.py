"""The protocol's messages as Python classes, made of open_inference.pb when they are first used.

The descriptor is data, not generated code: generated code wants the very protobuf that it was made for, or a newer one.
"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

SERVICE = "inference.GRPCInferenceService"


@functools.cache
def message(name: str) -> Any:
    """The class of a message, by its name in open_inference.proto."""
    from google.protobuf import message_factory

    return message_factory.GetMessageClass(_pool().FindMessageTypeByName(f"percodec.serve.{name}"))


@functools.cache
def _pool() -> Any:
    from google.protobuf import descriptor_pb2, descriptor_pool

    pool = descriptor_pool.DescriptorPool()
    for file in descriptor_pb2.FileDescriptorSet.FromString(Path(__file__).with_name("open_inference.pb").read_bytes()).file:
        pool.Add(file)
    return pool


__all__ = ["SERVICE", "message"]
