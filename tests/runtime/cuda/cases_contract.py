"""The contract of `percodec.runtime.engines.cuda.Cuda`, for the provider asked for, over the fake driver, whose order is random."""

from __future__ import annotations

import ctypes
import os
import threading

import numpy as np
import pytest
from support.cuda.arrays import DlPack, Foreign

from percodec.runtime.engines.cuda import Cuda, CudaError, Device
from percodec.runtime.engines.cuda_foreign import foreign_array, foreign_stream
from percodec.runtime.engines.cuda_open import check_provider, open_cuda
from percodec.sdk.errors import BackendError

PROVIDER = os.environ["PERCODEC_PROVIDER"]


def test_the_device_is_described(cuda):
    assert cuda.name == PROVIDER
    assert check_provider(PROVIDER) == ""
    assert cuda.device == Device(0, "fake GPU", "8.7", False, True, False, 8 << 30, 13000)
    free, total = cuda.memory_info()
    assert 0 < free <= total == 8 << 30


def test_only_the_primary_context_is_used(cuda, driver):
    assert driver.calls("cuDevicePrimaryCtxRetain") == 1
    assert driver.calls("cuCtxCreate") == 0


def test_memory_of_every_kind(cuda):
    before = cuda.memory_info()[0]
    made = {kind: cuda.allocate(100, kind) for kind in ("device", "pinned", "mapped", "managed")}
    assert {k: (bool(m.device), bool(m.host)) for k, m in made.items()} == {
        "device": (True, False), "pinned": (False, True), "mapped": (True, True), "managed": (True, True),
    }  # fmt: skip
    for kind in ("pinned", "mapped", "managed"):
        array = made[kind].array((10, 10))
        array[:] = 7
        assert made[kind].array((100,)).sum() == 700
        with pytest.raises(ValueError, match="101 bytes asked of 100"):
            made[kind].array((101,))
    with pytest.raises(ValueError, match="no host side"):
        made["device"].array((1,))
    for memory in made.values():
        cuda.free(memory)
    assert cuda.memory_info()[0] == before
    with pytest.raises(ValueError, match="memory kind"):
        cuda.allocate(1, "unified")


def test_no_memory_is_one_typed_error_and_the_device_goes_on(cuda):
    for kind in ("device", "pinned", "managed"):
        with pytest.raises(CudaError, match="free GPU memory") as error:
            cuda.allocate(9 << 30, kind)
        assert error.value.code == 2
        assert not error.value.sticky
    cuda.free(cuda.allocate(1000))


class Copies:
    """pinned -> device on one stream, device -> pinned on another."""

    def __init__(self, cuda: Cuda) -> None:
        self.cuda = cuda
        self.first, self.second = cuda.stream(), cuda.stream(-1)
        self.up, self.there, self.down = cuda.allocate(64, "pinned"), cuda.allocate(64), cuda.allocate(64, "pinned")
        self.given, self.got = self.up.array((64,)), self.down.array((64,))
        self.ready, self.done = cuda.event(), cuda.event()

    def queue(self, *, ordered: bool = True) -> None:
        self.cuda.copy(self.there.device, self.up.host, 64, self.first)
        self.cuda.record(self.ready, self.first)
        if ordered:
            self.cuda.wait(self.second, self.ready)
        self.cuda.copy(self.down.host, self.there.device, 64, self.second)
        self.cuda.record(self.done, self.second)


def test_an_event_orders_two_streams(cuda, driver):
    c = Copies(cuda)
    for value in range(1, 100):
        c.given.fill(value)
        c.queue()
        cuda.synchronize(c.done)
        assert (c.got == value).all()
        assert cuda.done(c.done)
    assert driver.violations() == []


def test_a_missing_wait_is_found_whatever_the_order_was(cuda, driver):
    c = Copies(cuda)
    c.queue(ordered=False)
    assert any("is not ordered after" in v for v in driver.violations())


def test_nothing_runs_ahead_of_what_it_waits_for(cuda):
    """The host may ask at any time: an event is done only after all before it, and values are those."""
    c = Copies(cuda)
    for value in range(1, 60):
        c.given.fill(value)
        c.queue()
        while not cuda.done(c.done):
            pass
        assert (c.got == value).all()


def test_fill_and_host_calls_keep_the_streams_order(cuda):
    stream, done = cuda.stream(), cuda.event()
    memory, down = cuda.allocate(32), cuda.allocate(32, "pinned")
    seen: list[int] = []
    cuda.fill(memory.device, 0xCD, 32, stream)
    cuda.copy(down.host, memory.device, 32, stream)
    cuda.call(stream, lambda: seen.append(int(down.array((32,))[31])))
    cuda.record(done, stream)
    cuda.synchronize(done)
    assert seen == [0xCD]


def test_time_between_events(cuda):
    stream, begin, end = cuda.stream(), cuda.event(timing=True), cuda.event(timing=True)
    memory = cuda.allocate(32)
    cuda.record(begin, stream)
    for _ in range(10):
        cuda.fill(memory.device, 1, 32, stream)
    cuda.record(end, stream)
    cuda.synchronize(end)
    assert cuda.elapsed_ms(begin, end) > 0


def test_priorities_are_passed_on_and_clamped(cuda, driver):
    found = ctypes.c_int()
    for asked, given in ((0, 0), (-2, -2), (-99, -5)):
        driver.library.cuStreamGetPriority(ctypes.c_void_p(cuda.stream(asked)), ctypes.byref(found))
        assert found.value == given


def capture(cuda: Cuda, c: Copies, join: int) -> int:
    """The two copies as one graph with a branch."""
    cuda.begin_capture(c.first)
    cuda.copy(c.there.device, c.up.host, 64, c.first)
    cuda.record(c.ready, c.first)
    cuda.wait(c.second, c.ready)
    cuda.copy(c.down.host, c.there.device, 64, c.second)
    cuda.record(join, c.second)
    cuda.wait(c.first, join)
    return cuda.end_capture(c.first)


def test_a_captured_graph_with_a_branch_runs_on_new_data(cuda, driver):
    c = Copies(cuda)
    join = cuda.event()
    c.got.fill(0)
    graph = capture(cuda, c, join)
    assert not c.got.any(), "capturing must not run anything"
    for value in range(1, 50):
        c.given.fill(value)
        cuda.launch(graph, c.first)
        cuda.record(c.done, c.first)
        cuda.synchronize(c.done)
        assert (c.got == value).all()
    assert driver.violations() == []
    cuda.destroy(graph=graph)


def test_two_launches_follow_each_other(cuda, driver):
    c = Copies(cuda)
    graph = capture(cuda, c, cuda.event())
    cuda.launch(graph, c.first)
    cuda.launch(graph, c.first)
    cuda.record(c.done, c.first)
    cuda.synchronize(c.done)
    assert driver.violations() == []


@pytest.mark.parametrize("call", ["cuStreamBeginCapture", "cuStreamEndCapture", "cuGraphInstantiate", "cuMemcpyAsync"])
def test_a_capture_that_fails_leaves_the_stream_usable(cuda, driver, call):
    c = Copies(cuda)
    driver.fail(call, 900)

    def attempt() -> None:
        cuda.begin_capture(c.first)
        try:
            cuda.copy(c.there.device, c.up.host, 64, c.first)
        finally:
            cuda.end_capture(c.first)

    with pytest.raises(CudaError) as error:
        attempt()
    assert error.value.code == 900
    assert not error.value.sticky
    c.given.fill(3)
    c.queue()
    cuda.synchronize(c.done)
    assert (c.got == 3).all()


def test_an_unjoined_branch_is_refused(cuda):
    c = Copies(cuda)
    cuda.begin_capture(c.first)
    cuda.copy(c.there.device, c.up.host, 64, c.first)
    cuda.record(c.ready, c.first)
    cuda.wait(c.second, c.ready)
    cuda.copy(c.down.host, c.there.device, 64, c.second)
    with pytest.raises(CudaError, match="cuStreamEndCapture") as error:
        cuda.end_capture(c.first)
    assert error.value.code == 904


@pytest.mark.parametrize("code", [700, 719, 999])
def test_a_sticky_error_is_told_by_every_later_call(cuda, driver, code):
    c = Copies(cuda)
    driver.fail("cuMemcpyAsync", code)
    calls = (
        c.queue, lambda: cuda.synchronize(c.done), lambda: cuda.done(c.done), cuda.stream, cuda.memory_info, lambda: cuda.allocate(10),
        lambda: cuda.allocate(10, "pinned"), lambda: cuda.begin_capture(c.first),
    )  # fmt: skip
    for call in calls:
        with pytest.raises(CudaError, match="restart it") as error:
            call()
        assert error.value.sticky
        assert error.value.code == code


def test_any_thread_may_call(cuda):
    c = Copies(cuda)
    failures: list[BaseException] = []

    def work() -> None:
        try:
            for value in range(1, 20):
                c.given.fill(value)
                c.queue()
                cuda.synchronize(c.done)
                assert (c.got == value).all()
        except BaseException as error:
            failures.append(error)

    for _ in range(3):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    assert failures == []


def test_wrong_requests():
    with pytest.raises(BackendError, match="no GPU 3: the driver sees 1"):
        open_cuda(PROVIDER, 3)
    with pytest.raises(BackendError, match="unknown CUDA provider 'opencl'; known: cuda-python, pycuda"):
        open_cuda("opencl")


def test_no_driver_is_one_line(driver):
    driver.fail("cuDevicePrimaryCtxRetain", 100)
    with pytest.raises(BackendError):
        open_cuda(PROVIDER)


def test_arrays_of_other_libraries():
    shape = (1, 4, 6, 3)
    assert foreign_array(Foreign(4096, shape), shape) == (4096, 0)
    assert foreign_array(Foreign(4096, shape[1:], stream=77), shape) == (4096, 77)
    assert foreign_array(Foreign(4096, shape, strides=(72, 18, 3, 1)), shape) == (4096, 0)
    capsule = DlPack(8192, shape)
    assert foreign_array(capsule, shape, 55) == (8192, 0)
    assert capsule.asked == [55], "DLPack orders itself on the stream it is told"
    for wrong in (
        Foreign(1, (1, 4, 6, 4)), Foreign(1, shape, kind="<f4"), Foreign(1, shape, strides=(144, 36, 6, 2)), DlPack(1, (4, 4)),
        DlPack(1, shape, bits=32), DlPack(1, shape, device=1),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=r"GPU|CUDA"):
            foreign_array(wrong, shape)
    with pytest.raises(TypeError, match="neither"):
        foreign_array(np.zeros(shape, np.uint8).tolist(), shape)


def test_streams_of_other_libraries(cuda, driver):
    class Stream:
        def __init__(self, handle: int, version: int = 0) -> None:
            self._it = version, handle

        def __cuda_stream__(self) -> tuple[int, int]:
            return self._it

    own = cuda.stream()
    assert foreign_stream(own) == own
    assert foreign_stream(Stream(own)) == own
    memory, done = cuda.allocate(8), cuda.event()
    cuda.fill(memory.device, 1, 8, foreign_stream(Stream(own)))
    cuda.record(done, own)
    cuda.synchronize(done)
    with pytest.raises(TypeError, match="version 1"):
        foreign_stream(Stream(own, 1))
    with pytest.raises(TypeError, match="no CUDA stream"):
        foreign_stream("stream")


def test_everything_is_given_back(cuda, driver):
    c = Copies(cuda)
    c.queue()
    cuda.synchronize(c.done)
    for memory in (c.up, c.there, c.down):
        cuda.free(memory)
    cuda.destroy(stream=c.first, event=c.ready)
    cuda.destroy(stream=c.second, event=c.done)
    cuda.close()
    driver.library.fake_used.restype = ctypes.c_uint64
    assert driver.library.fake_used() == 0
    assert driver.violations() == []
