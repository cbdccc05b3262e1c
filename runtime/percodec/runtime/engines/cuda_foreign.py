"""Streams and arrays of other libraries: `__cuda_stream__`, `__cuda_array_interface__`, DLPack."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np


def foreign_stream(stream: object) -> int:
    """The handle of a stream of another library: an integer, or an object with `__cuda_stream__` (version 0)."""
    if isinstance(stream, int):
        return stream
    method = getattr(stream, "__cuda_stream__", None)
    if method is None:
        raise TypeError(f"{type(stream).__name__} is no CUDA stream: it has no __cuda_stream__")
    version, handle = method()
    if version != 0:
        raise TypeError(f"__cuda_stream__ protocol version {version} is not known, only 0")
    return int(handle)


def foreign_array(array: Any, shape: tuple[int, ...], stream: int = 0) -> tuple[int, int]:
    """Address of another library's C-contiguous uint8 device array, and the stream its work must be awaited on (0: nothing to await).

    By `__cuda_array_interface__` (version 3 names the stream) or by DLPack, which is told our `stream` and orders itself. A leading
    dimension of 1 may be missing. The caller keeps `array` alive. Raises TypeError, ValueError.
    """
    producer = 0
    found = getattr(array, "__cuda_array_interface__", None)
    if found is not None:
        kind, sizes, strides, address = found["typestr"], tuple(found["shape"]), found.get("strides"), int(found["data"][0])
        plain = kind in ("|u1", "<u1") and (strides is None or tuple(strides) == _c_strides(sizes))
        producer = int(found.get("stream") or 0)
    elif hasattr(array, "__dlpack__"):
        address, sizes, plain = _dlpack(array, stream)
    else:
        raise TypeError(f"{type(array).__name__} has neither __cuda_array_interface__ nor __dlpack__")
    if not plain or sizes not in (shape, shape[1:] if shape[:1] == (1,) else shape):
        wrong = "" if plain else ", not plain uint8"
        raise ValueError(f"a C-contiguous uint8 array of {list(shape)} on the GPU is needed, got {list(sizes)}{wrong}")
    return address, producer


def _c_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(np.prod(shape[k + 1 :])) for k in range(len(shape)))


class _DLTensor(ctypes.Structure):
    """dlpack.h, struct DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


_DEVICE_TYPES = frozenset({2, 3, 13})  # kDLCUDA, kDLCUDAHost, kDLCUDAManaged


def _dlpack(array: Any, stream: int) -> tuple[int, tuple[int, ...], bool]:
    device, _ = array.__dlpack_device__()
    if device not in _DEVICE_TYPES:
        raise ValueError(f"the array is not on a CUDA device (DLPack device type {device})")
    capsule = array.__dlpack__(stream=stream) if stream else array.__dlpack__()
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, (ctypes.py_object, ctypes.c_char_p)
    t = _DLTensor.from_address(pointer(capsule, b"dltensor"))
    sizes = tuple(t.shape[k] for k in range(t.ndim))
    dense = not t.strides or tuple(t.strides[k] for k in range(t.ndim)) == _c_strides(sizes)
    return int(t.data or 0) + t.byte_offset, sizes, dense and (t.code, t.bits, t.lanes) == (1, 8, 1)


__all__ = ["foreign_array", "foreign_stream"]
