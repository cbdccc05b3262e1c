"""uint8 arrays as .npy, read without trusting their header."""

from __future__ import annotations

import io

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from percodec.sdk.errors import BundleError, reason


def array_from_bytes(data: bytes, name: str, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """A read-only uint8 array; `shape[0]` may be -1 (any count). Raises `BundleError` for any other shape, type or size."""
    stream = io.BytesIO(data)
    try:
        version = npy.read_magic(stream)
        if version != (1, 0):
            raise ValueError(f"npy version {version}, expected 1.0")
        found, fortran, dtype = npy.read_array_header_1_0(stream)
    except Exception as e:  # the header is a Python literal, and whatever its parser raises comes through
        raise BundleError(f"{name} is not a readable .npy file: {reason(e)[:100]}; export the bundle again") from e
    wanted = (found[0] if found and shape[0] == -1 else shape[0], *shape[1:])
    body = memoryview(data)[stream.tell() :]
    count = 1
    for side in found:
        count *= side
    if dtype != np.uint8 or fortran or found != wanted or count != len(body) or count == 0:
        raise BundleError(
            f"{name} holds {dtype} {list(found)} in {len(body)} bytes, expected uint8 {['N' if s == -1 else s for s in shape]}; "
            "export the bundle again"
        )
    return np.frombuffer(body, np.uint8).reshape(found)


def bytes_from_array(array: NDArray[np.uint8]) -> bytes:
    """.npy version 1.0, C order."""
    stream = io.BytesIO()
    npy.write_array(stream, np.ascontiguousarray(array, dtype=np.uint8), version=(1, 0), allow_pickle=False)
    return stream.getvalue()


__all__ = ["array_from_bytes", "bytes_from_array"]
