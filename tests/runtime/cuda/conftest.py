"""For the cases in this folder, which run in a process of their own with the fake driver loaded (see ../test_cuda.py)."""

from __future__ import annotations

import ctypes
import gc
import os
import sys
from collections.abc import Iterator
from typing import Any

import pytest

# Before any provider looks for libcuda.so.1. Without the variable this folder is only walked through: it holds no test_*.py.
_LIBRARY: Any = ctypes.CDLL(os.environ["PERCODEC_FAKE_DRIVER"], ctypes.RTLD_GLOBAL) if "PERCODEC_FAKE_DRIVER" in os.environ else None


class Driver:
    """The test's side of the fake driver."""

    def __init__(self) -> None:
        from support.cuda.fake_tensorrt import fake_tensorrt

        self.library = _LIBRARY
        self.trt = sys.modules["tensorrt"] = fake_tensorrt(_LIBRARY)

    def reset(self, seed: int) -> None:
        """A new world: nothing allocated, no faults, another order of everything that has none."""
        gc.collect()  # pycuda's objects free their memory when they go: not that of the next world
        self.library.fake_reset(ctypes.c_uint64(seed))

    def fail(self, call: str, code: int, after: int = 0) -> None:
        """The call `call` fails with `code`, after `after` more that do not."""
        self.library.fake_fail(call.encode(), after, code)

    def calls(self, call: str) -> int:
        self.library.fake_calls.restype = ctypes.c_uint64
        return int(self.library.fake_calls(call.encode()))

    def violations(self) -> list[str]:
        buffer = ctypes.create_string_buffer(1 << 16)
        self.library.fake_violations(buffer, len(buffer))
        return buffer.value.decode().splitlines()


@pytest.fixture
def driver() -> Driver:
    found = Driver()
    found.reset(1)
    return found


@pytest.fixture
def cuda(driver: Driver) -> Iterator[Any]:
    """The provider under test, on a fresh driver."""
    from percodec.runtime.engines.cuda_open import open_cuda

    yield open_cuda(os.environ["PERCODEC_PROVIDER"])
    gc.collect()
