"""The ROS 2 messages percodec reads and writes, as CDR bytes: `Image`, `CompressedImage`, `CameraInfo`, each with its `Header`.

    image = Image.from_cdr(data)        any buffer, either byte order; `image.data` is a view of it
    data = packet.to_cdr()              little-endian, as every ROS 2 middleware writes on x86 and ARM

CDR (OMG, DDS-RTPS 10.2, plain version 1): four bytes say the byte order, then the fields one behind the other, each aligned to its own size
counted from behind these four; a string is its length with the closing NUL, then its bytes; a sequence is its length, then its elements.
Each class names its ROS type, the text of its definition with those it is made of, and the hash of its type (REP 2016).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.errors import MessageError

Buffer: TypeAlias = "bytes | bytearray | memoryview | NDArray[np.uint8]"

_SLACK = 8  # fewer bytes than this behind the last field are a middleware's padding
_PART = "\n" + "=" * 80 + "\nMSG: "
_HEADER_PARTS = _PART + "std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id"
_HEADER_PARTS += _PART + "builtin_interfaces/Time\nint32 sec\nuint32 nanosec"


@dataclass(frozen=True)
class Header:
    """std_msgs/Header. `sec`, `nanosec` are kept as they came, also where nanosec passes a second; bytes that are no UTF-8 survive, too."""

    sec: int = 0
    nanosec: int = 0
    frame_id: str = ""

    @classmethod
    def at(cls, stamp_ns: int, frame_id: str = "") -> Header:
        """Of a time in ns since 1970, or of the clock in use."""
        return cls(stamp_ns // 1_000_000_000, stamp_ns % 1_000_000_000, frame_id)

    @property
    def stamp_ns(self) -> int:
        """The stamp in ns; negative before 1970."""
        return self.sec * 1_000_000_000 + self.nanosec


@dataclass(frozen=True, eq=False)
class Image:
    """sensor_msgs/Image. `data`: uint8 [n], `height` rows of `step` bytes; `percodec.runtime.messages.pictures` reads pixels from it."""

    NAME: ClassVar[str] = "sensor_msgs/msg/Image"
    DEFINITION: ClassVar[str] = (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring encoding\nuint8 is_bigendian\nuint32 step\nuint8[] data"
        + _HEADER_PARTS
    )
    TYPE_HASH: ClassVar[str] = "RIHS01_d31d41a9a4c4bc8eae9be757b0beed306564f7526c88ea6a4588fb9582527d47"

    header: Header
    height: int
    width: int
    encoding: str
    step: int
    data: NDArray[np.uint8]
    is_bigendian: int = 0

    @classmethod
    def from_cdr(cls, data: Buffer) -> Image:
        """`data` of the result is a view of the argument's. Raises `MessageError`."""
        read = _Reader(data, cls.NAME)
        header, height, width, encoding = read.header(), read.uint32(), read.uint32(), read.string()
        big, step, pixels = read.uint8(), read.uint32(), read.octets()
        read.end()
        return cls(header, height, width, encoding, step, pixels, big)

    def to_cdr(self, *, big_endian: bool = False) -> bytes:
        """Raises `MessageError` for a number that its field cannot hold."""
        write = _Writer(big_endian, self.NAME)
        write.header(self.header)
        write.numbers("I", self.height, self.width)
        write.string(self.encoding)
        write.numbers("B", self.is_bigendian)
        write.numbers("I", self.step)
        write.octets(self.data)
        return write.done()


@dataclass(frozen=True, eq=False)
class CompressedImage:
    """sensor_msgs/CompressedImage. `data`: uint8 [n], an image file or, where `format` says percodec, a packet."""

    NAME: ClassVar[str] = "sensor_msgs/msg/CompressedImage"
    DEFINITION: ClassVar[str] = "std_msgs/Header header\nstring format\nuint8[] data" + _HEADER_PARTS
    TYPE_HASH: ClassVar[str] = "RIHS01_15640771531571185e2efc8a100baf923961a4d15d5569652e6cb6691e8e371a"

    header: Header
    format: str
    data: NDArray[np.uint8]

    @classmethod
    def from_cdr(cls, data: Buffer) -> CompressedImage:
        """`data` of the result is a view of the argument's. Raises `MessageError`."""
        read = _Reader(data, cls.NAME)
        header, format, packet = read.header(), read.string(), read.octets()
        read.end()
        return cls(header, format, packet)

    def to_cdr(self, *, big_endian: bool = False) -> bytes:
        """Raises `MessageError` for a number that its field cannot hold."""
        write = _Writer(big_endian, self.NAME)
        write.header(self.header)
        write.string(self.format)
        write.octets(self.data)
        return write.done()


@dataclass(frozen=True)
class RegionOfInterest:
    """sensor_msgs/RegionOfInterest, in pixels of the camera's full resolution; all zero is the whole picture."""

    x_offset: int = 0
    y_offset: int = 0
    height: int = 0
    width: int = 0
    do_rectify: bool = False


@dataclass(frozen=True)
class CameraInfo:
    """sensor_msgs/CameraInfo. `d`: any number of coefficients; `k`, `r`: 3x3, `p`: 3x4, row by row; `k` all zero: not calibrated."""

    NAME: ClassVar[str] = "sensor_msgs/msg/CameraInfo"
    DEFINITION: ClassVar[str] = (
        "std_msgs/Header header\nuint32 height\nuint32 width\nstring distortion_model\n"
        "float64[] d\nfloat64[9] k\nfloat64[9] r\nfloat64[12] p\n"
        "uint32 binning_x\nuint32 binning_y\nsensor_msgs/RegionOfInterest roi" + _HEADER_PARTS + _PART + "sensor_msgs/RegionOfInterest\n"
        "uint32 x_offset\nuint32 y_offset\nuint32 height\nuint32 width\nbool do_rectify"
    )
    TYPE_HASH: ClassVar[str] = "RIHS01_b3dfd68ff46c9d56c80fd3bd4ed22c7a4ddce8c8348f2f59c299e73118e7e275"

    header: Header
    height: int
    width: int
    distortion_model: str = ""
    d: tuple[float, ...] = ()
    k: tuple[float, ...] = (0.0,) * 9
    r: tuple[float, ...] = (0.0,) * 9
    p: tuple[float, ...] = (0.0,) * 12
    binning_x: int = 0
    binning_y: int = 0
    roi: RegionOfInterest = field(default_factory=RegionOfInterest)

    @classmethod
    def from_cdr(cls, data: Buffer) -> CameraInfo:
        """Raises `MessageError`."""
        read = _Reader(data, cls.NAME)
        header, height, width, model = read.header(), read.uint32(), read.uint32(), read.string()
        d, k, r, p = read.float64s(read.uint32()), read.float64s(9), read.float64s(9), read.float64s(12)
        binning_x, binning_y = read.uint32(), read.uint32()
        roi = RegionOfInterest(read.uint32(), read.uint32(), read.uint32(), read.uint32(), bool(read.uint8()))
        read.end()
        return cls(header, height, width, model, d, k, r, p, binning_x, binning_y, roi)

    def to_cdr(self, *, big_endian: bool = False) -> bytes:
        """Raises `MessageError` for a number that its field cannot hold, and for a matrix of another size."""
        for name, values, count in (("k", self.k, 9), ("r", self.r, 9), ("p", self.p, 12)):
            if len(values) != count:
                raise MessageError(f"{self.NAME}: {name} has {count} numbers, got {len(values)}")
        write, roi = _Writer(big_endian, self.NAME), self.roi
        write.header(self.header)
        write.numbers("I", self.height, self.width)
        write.string(self.distortion_model)
        write.numbers("I", len(self.d))
        write.numbers("d", *self.d, *self.k, *self.r, *self.p)
        write.numbers("I", self.binning_x, self.binning_y, roi.x_offset, roi.y_offset, roi.height, roi.width)
        write.numbers("B", roi.do_rectify)
        return write.done()


def header_from_cdr(data: Buffer) -> Header:
    """Of any message whose first field is a Header. Raises `MessageError`."""
    return _Reader(data, "std_msgs/msg/Header").header()


class _Reader:
    """Takes one field after the other; nothing is read, or reserved, beyond the bytes at hand."""

    def __init__(self, data: Buffer, what: str) -> None:
        self._bytes = np.frombuffer(data, np.uint8)
        self._what, self._at = what, 4
        kind = self._bytes[:2].tobytes()
        if len(self._bytes) < 4 or kind not in (b"\x00\x00", b"\x00\x01"):
            raise MessageError(f"{what}: not a CDR message (it begins with {kind.hex() or 'nothing'}); is the topic of this type?")
        self._order = "<" if kind[1] else ">"

    def uint8(self) -> int:
        return int(self._bytes[self._take(1, 1)][0])

    def uint32(self) -> int:
        return int(self._numbers("u4", 1)[0])

    def float64s(self, count: int) -> tuple[float, ...]:
        return tuple(self._numbers("f8", count).tolist()) if count else ()

    def string(self) -> str:
        count = self.uint32()
        if count == 0:  # some writers leave out even the NUL
            return ""
        data = self._bytes[self._take(count, 1)].tobytes()
        if data[-1]:
            raise self._fail("a string does not end with NUL")
        return data[:-1].decode("utf-8", "surrogateescape")

    def octets(self) -> NDArray[np.uint8]:
        return self._bytes[self._take(self.uint32(), 1)]

    def header(self) -> Header:
        return Header(int(self._numbers("i4", 1)[0]), self.uint32(), self.string())

    def end(self) -> None:
        left = len(self._bytes) - self._at
        if left >= _SLACK:
            raise self._fail(f"{left} bytes are left behind its last field")

    def _numbers(self, kind: str, count: int) -> NDArray[np.generic]:
        size = int(kind[1:])
        taken = self._take(size * count, size)
        return np.frombuffer(self._bytes[taken].tobytes(), self._order + kind)

    def _take(self, count: int, align: int) -> slice:
        begin = self._at + (4 - self._at) % align
        if begin + count > len(self._bytes):
            raise self._fail(f"cut off: {count} bytes are missing at {begin}, it has {len(self._bytes)}")
        self._at = begin + count
        return slice(begin, self._at)

    def _fail(self, why: str) -> MessageError:
        return MessageError(f"{self._what}: {why}; is the topic of this type?")


class _Writer:
    def __init__(self, big_endian: bool, what: str) -> None:
        self._order, self._what = (">" if big_endian else "<"), what
        self._head = bytearray(b"\x00\x00\x00\x00" if big_endian else b"\x00\x01\x00\x00")
        self._parts: list[memoryview] = []

    def numbers(self, kind: str, *values: float) -> None:
        self._head += bytes(-(len(self._head) - 4) % struct.calcsize(kind)) if values else b""
        try:
            self._head += struct.pack(f"{self._order}{len(values)}{kind}", *values)
        except struct.error as error:
            raise MessageError(f"{self._what}: a field cannot hold {self._shown(values)} ({error})") from error

    def string(self, text: str) -> None:
        data = text.encode("utf-8", "surrogateescape")
        self.numbers("I", len(data) + 1)
        self._head += data + b"\x00"

    def octets(self, data: NDArray[np.uint8]) -> None:
        """The last field of a message."""
        self.numbers("I", data.size)
        self._parts.append(np.ascontiguousarray(data, np.uint8).data)

    def header(self, header: Header) -> None:
        self.numbers("i", header.sec)
        self.numbers("I", header.nanosec)
        self.string(header.frame_id)

    def done(self) -> bytes:
        return b"".join((self._head, *self._parts))

    @staticmethod
    def _shown(values: Sequence[float]) -> str:
        return ", ".join(map(str, values))[:60]


__all__ = ["Buffer", "CameraInfo", "CompressedImage", "Header", "Image", "RegionOfInterest", "header_from_cdr"]
