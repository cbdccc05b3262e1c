"""`PacketCodec`: latents to packets and back, every check made. `parse_header`: a packet's header without tables.

The work is done by the C++ core with the interpreter lock released; `reference.py` is the same format in plain Python.
Format: BITSTREAM.md.
"""

from __future__ import annotations

import operator
import os
import threading
import weakref
from collections.abc import Callable, Sequence
from typing import SupportsIndex, TypeVar

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec import _rans
from percodec.sdk.codec.entropy_model import PREDICTED, EntropyModel
from percodec.sdk.codec.header import HEADER_BYTES, MAX_LANES, VERSION, BytesLike, PacketHeader
from percodec.sdk.codec.steps import StepsModel
from percodec.sdk.errors import CodecError, PacketError

T = TypeVar("T")

# What a status of the core means, behind "packet of N bytes".
_MEANINGS = {
    "too_short": f"is shorter than a header ({HEADER_BYTES} bytes): it was cut off or is not a packet",
    "bad_magic": "does not begin with 'PC': it is not a packet",
    "bad_version": "has a format version that this reader does not know: update percodec",
    "bad_flags": "has reserved bits set: it needs a newer reader, update percodec",
    "bad_crc": "fails its CRC-32C: it was altered in storage or transit, drop it",
    "bad_lanes": f"declares a lane count outside 1..{MAX_LANES}",
    "bad_length": "declares another payload length than it has: it was cut off or extended, drop it",
    "bad_profile": "uses another coding profile than these tables: open it with the bundle it was coded with",
    "wrong_tables": "was coded with other entropy tables: open it with the bundle it was coded with",
    "bad_state": "starts a lane outside the coder's interval: it was not written by a conforming encoder",
    "truncated_payload": "has fewer coded words than the latent needs: wrong latent size, or not a conforming encoder",
    "trailing_payload": "has coded words left after the last symbol: wrong latent size, or not a conforming encoder",
    "bad_final_state": "does not end in the coder's initial state: wrong tables or latent size, or not a conforming encoder",
    "symbol_out_of_range": "decodes to symbols that no channel of these tables has: not a conforming encoder",
    "no_space": "needs more memory than there is",
    "bad_latent_crc": "decodes to other symbols than were coded (latent CRC-32C differs): wrong tables or latent size",
}


_codecs: weakref.WeakSet[PacketCodec] = weakref.WeakSet()


def _after_fork() -> None:
    """In the child, nobody is left to open a lock that another thread held. What it guarded is written anew by each call."""
    for codec in _codecs:
        codec._lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)


class PacketCodec:
    """Codes latents of one shape under one `EntropyModel` or `StepsModel`. Complete at construction; safe to share between threads.

    A process that forks while a thread encodes has a child whose codec works, and counts on from the last packet that was complete.

    `height`, `width`: of the latent (frame size / 8). `stream_id`: 0..65535, the camera or stream. `lanes`: 1..64
    interleaved coder lanes, or None to choose per packet the most that keep the cost of their states below one percent.
    `max_bytes`: packets longer than this are refused, by `encode` as by `decode`; default: what no latent of this shape
    can exceed. Raises `CodecError` when an argument is outside its range.

    With tables of profiles 2 and 5 the arrays are uint8 [2C,h,w], the latent before and then this one: see `VideoCodec`.
    """

    def __init__(
        self,
        model: EntropyModel | StepsModel,
        height: int,
        width: int,
        *,
        stream_id: int = 0,
        lanes: int | None = None,
        max_bytes: int | None = None,
    ) -> None:
        if not (1 <= height < 1 << 16 and 1 <= width < 1 << 16):
            raise CodecError(f"latent size must be 1..65535 by 1..65535, got {height} x {width}")
        stream_id = _number("stream_id", stream_id, 16)
        if lanes is not None and not 1 <= lanes <= MAX_LANES:
            raise CodecError(f"lanes must be 1..{MAX_LANES} or None, got {lanes}")
        try:
            self._coder = _coder_of(model, height, width)
        except ValueError as error:
            raise CodecError(f"latent of {model.channels} x {height} x {width}: {error}") from None
        self.model = model
        self.latent_shape = (model.channels * (2 if model.profile in PREDICTED else 1), height, width)
        self.stream_id = stream_id
        self.max_bytes = self._coder.packet_bound if max_bytes is None else max_bytes
        if self.max_bytes < HEADER_BYTES:
            raise CodecError(f"max_bytes must be at least {HEADER_BYTES}, the size of a header, got {max_bytes}")
        self._lanes = 0 if lanes is None else lanes
        self._scratch = np.empty(self._coder.packet_bound, np.uint8)
        self._counter = 0
        self._lock = threading.Lock()  # of scratch and counter
        _codecs.add(self)

    def encode(self, symbols: NDArray[np.uint8], frame_id: int, timestamp_ns: int, *, counter: int | None = None) -> bytes:
        """One packet from `symbols`, uint8 [C,h,w] below L. `frame_id` < 2^32, `timestamp_ns` < 2^64, neither negative.

        Successful calls count up the header's `counter`, from `counter` < 2^32 where it is given; others change nothing. Raises
        `CodecError` on symbols that are not such an array and on numbers out of range, `PacketError` when the packet would be longer
        than `max_bytes`.
        """
        check_array(symbols, "symbols", self.latent_shape)
        frame_id, timestamp_ns = _number("frame_id", frame_id, 32), _number("timestamp_ns", timestamp_ns, 64)
        first = None if counter is None else _number("counter", counter, 32)
        symbols = np.ascontiguousarray(symbols)
        with self._lock:
            number = self._counter if first is None else first
            packet = self._packet(symbols, self._scratch, number, frame_id, timestamp_ns)
            self._counter = (number + 1) & 0xFFFFFFFF
        return packet

    def encode_batch(
        self, symbols: NDArray[np.uint8], frame_ids: Sequence[int], timestamps_ns: Sequence[int], *, threads: int = 2
    ) -> list[bytes]:
        """`encode` for N frames at once, uint8 [N,C,h,w], on `threads` threads: the same packets, counted in order.

        Raises what `encode` does, for the first frame at fault; the counter then stays where it was.
        """
        count = len(frame_ids)
        check_array(symbols, "symbols", (count, *self.latent_shape))
        if len(timestamps_ns) != count:
            raise CodecError(f"{count} frame_ids need as many timestamps_ns, got {len(timestamps_ns)}")
        frame_ids = [_number("frame_id", value, 32) for value in frame_ids]
        timestamps_ns = [_number("timestamp_ns", value, 64) for value in timestamps_ns]
        symbols = np.ascontiguousarray(symbols)
        scratches = [self._scratch, *(np.empty_like(self._scratch) for _ in range(min(threads, count) - 1))]
        with self._lock:
            first = self._counter

            def work(k: int, thread: int) -> bytes:
                return self._packet(symbols[k], scratches[thread], (first + k) & 0xFFFFFFFF, frame_ids[k], timestamps_ns[k])

            packets = _shared_out(work, count, threads)
            self._counter = (first + count) & 0xFFFFFFFF
        return packets

    def _packet(self, symbols: NDArray[np.uint8], scratch: NDArray[np.uint8], counter: int, frame_id: int, timestamp_ns: int) -> bytes:
        packet = self._coder.encode(symbols, scratch, self.stream_id, counter, frame_id, timestamp_ns, self._lanes)
        if isinstance(packet, int):
            raise CodecError(f"frame {frame_id}: {self._out_of_range(symbols)}")
        if len(packet) > self.max_bytes:
            raise PacketError(f"frame {frame_id} takes {len(packet)} bytes, max_bytes is {self.max_bytes}: raise it or skip the frame")
        return packet

    def _out_of_range(self, symbols: NDArray[np.uint8]) -> str:
        if isinstance(self.model, StepsModel):
            now = symbols[-self.model.channels :]
            for c, levels in enumerate(self.model.levels_per_channel):
                if int(now[c].max()) >= levels:
                    return f"symbols of channel {c} reach {int(now[c].max())}, the tables have levels 0..{levels - 1} there"
        return f"symbols reach {int(symbols.max())}, the tables have levels 0..{self.model.levels - 1}"

    def decode(self, packet: BytesLike, out: NDArray[np.uint8] | None = None) -> tuple[PacketHeader, NDArray[np.uint8]]:
        """Header and symbols, uint8 [C,h,w], of a packet (bytes or any contiguous bytes-like object), fully verified.

        `out`: where to put the symbols (contiguous, writable), else a new array. On an error its content is unspecified.
        Raises `PacketError` on anything but an intact packet of this shape and these tables.
        """
        if out is None:
            out = np.empty(self.latent_shape, np.uint8)
        else:
            check_array(out, "out", self.latent_shape)
            if not (out.flags.c_contiguous and out.flags.writeable):
                raise CodecError("out must be a C-contiguous, writable array")
        size = _size_of(packet)
        if size > self.max_bytes:
            raise PacketError(f"packet of {size} bytes exceeds the cap of {self.max_bytes} bytes for this stream: drop it")
        status, fields = self._coder.decode(packet, out)
        if status:
            raise _packet_error(status, size, fields)
        return PacketHeader(*fields), out

    def decode_batch(self, packets: Sequence[BytesLike], *, threads: int = 2) -> tuple[list[PacketHeader], NDArray[np.uint8]]:
        """`decode` for N packets on `threads` threads: headers, and symbols uint8 [N,C,h,w].

        Raises what `decode` does, for the first packet at fault.
        """
        out = np.empty((len(packets), *self.latent_shape), np.uint8)
        return _shared_out(lambda k, thread: self.decode(packets[k], out[k])[0], len(packets), threads), out


def _coder_of(model: EntropyModel | StepsModel, height: int, width: int) -> _rans.LatentCoder:
    if isinstance(model, StepsModel):
        return _rans.coder_of(model.to_bytes(), height, width)
    contexts = model.contexts.to_bytes() if model.contexts is not None else b""
    return _rans.LatentCoder(model.cdf, height, width, model.profile, model.table_hash, contexts, model.rows_per_channel)


def parse_header(packet: BytesLike) -> PacketHeader:
    """The header of a packet whose magic, version, flags, lanes, length and CRC are right; `PacketError` otherwise."""
    size = _size_of(packet)
    status, fields = _rans.parse_header(packet)
    if status:
        raise _packet_error(status, size, fields)
    return PacketHeader(*fields)


def check_array(array: NDArray[np.uint8], name: str, shape: tuple[int, ...]) -> None:
    """Raises `CodecError` unless `array` is uint8 of `shape`."""
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8 or array.shape != shape:
        found = f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else type(array).__name__
        raise CodecError(f"{name} must be uint8 {list(shape)}, got {found}")


def _number(name: str, value: SupportsIndex, bits: int) -> int:
    """Raises `CodecError` unless `value` is an integer of the header's field."""
    try:
        number = operator.index(value)
    except TypeError:
        raise CodecError(f"{name} must be an integer, got {type(value).__name__}") from None
    if not 0 <= number < 1 << bits:
        raise CodecError(f"{name} must be 0..2^{bits}-1, got {number}")
    return number


def _shared_out(work: Callable[[int, int], T], count: int, threads: int) -> list[T]:
    """[work(0, its thread), ..., work(count - 1, ...)]; the core releases the interpreter lock. Raises what the lowest number raised."""
    if threads < 1:
        raise CodecError(f"threads must be at least 1, got {threads}")
    done: list[T | Exception] = [CodecError("not reached")] * count

    def run(thread: int) -> None:
        for k in range(thread, count, threads):
            try:
                done[k] = work(k, thread)
            except Exception as error:
                done[k] = error

    helpers = [threading.Thread(target=run, args=(k,)) for k in range(1, min(threads, count))]
    for helper in helpers:
        helper.start()
    run(0)
    for helper in helpers:
        helper.join()
    results = []
    for result in done:
        if isinstance(result, Exception):
            raise result
        results.append(result)
    return results


def _size_of(packet: BytesLike) -> int:
    """In bytes. Raises `PacketError` on what is not bytes-like and contiguous."""
    if type(packet) is bytes:
        return len(packet)
    try:
        view = memoryview(packet)
    except TypeError:
        raise PacketError(f"a packet is a bytes-like object, got {type(packet).__name__}") from None
    if not view.c_contiguous:
        raise PacketError("a packet is a contiguous bytes-like object, got a strided view: pass bytes(view)")
    return view.nbytes


def _packet_error(status: int, size: int, fields: tuple[int, ...]) -> PacketError:
    name = _rans.STATUS_NAMES[status]
    message = f"packet of {size} bytes {_MEANINGS[name]}"
    if name == "bad_version":
        message += f" (found {fields[0] >> 4}.{fields[0] & 15}, known {VERSION >> 4}.x)"
    elif name in ("wrong_tables", "bad_profile", "bad_latent_crc"):
        message += f" (frame {fields[5]}, stream {fields[3]}, table hash {fields[7]:016x})"
    return PacketError(message)


__all__ = ["PacketCodec", "check_array", "parse_header"]
