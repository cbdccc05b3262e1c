"""Arrays on the device as other libraries hand them over."""

from __future__ import annotations

import ctypes

from percodec.runtime.engines import cuda_foreign as module


class Foreign:
    """What torch, cupy or cuda.core hand over."""

    def __init__(self, address: int, shape: tuple[int, ...], kind: str = "|u1", strides: tuple[int, ...] | None = None, stream: int = 0):
        self.__cuda_array_interface__ = {
            "version": 3, "shape": shape, "typestr": kind, "strides": strides, "data": (address, False), "stream": stream or None,
        }  # fmt: skip


class DlPack:
    """A capsule as another library would make it."""

    def __init__(self, address: int, shape: tuple[int, ...], device: int = 2, bits: int = 8) -> None:
        self.asked: list[int | None] = []
        self._device = device
        self._shape = (ctypes.c_int64 * len(shape))(*shape)
        self._tensor = module._DLTensor(address, device, 0, len(shape), 1, bits, 1, self._shape, None, 0)

    def __dlpack_device__(self) -> tuple[int, int]:
        return self._device, 0

    def __dlpack__(self, stream: int | None = None) -> object:
        self.asked.append(stream)
        new = ctypes.pythonapi.PyCapsule_New
        new.restype, new.argtypes = ctypes.py_object, (ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
        return new(ctypes.addressof(self._tensor), b"dltensor", None)


__all__ = ["DlPack", "Foreign"]
