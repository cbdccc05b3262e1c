"""What a `CompressedImage` that holds a packet says in its `format`: `bgr8; percodec 1.0 road@3982f12bb620 1280x720 crop`.

| part                     | is                                                                                                  |
|--------------------------|-----------------------------------------------------------------------------------------------------|
| `bgr8`                   | ROS encoding of the picture that came in                                                            |
| `1.0`                    | version of the packet (BITSTREAM.md)                                                                |
| `road@3982f12bb620` | the bundle, and the first 12 digits of its digest                                                   |
| `1280x720`               | width and height of the picture that came in                                                        |
| `crop`                   | how it became the encoder's frame: `stretch`, `letterbox` or `crop` to the bundle's size, or `pad`: |
|                          | at its own size, its last row and column repeated up to whole cells of 8 pixels                     |

So one message tells what a reader has to know before it reads the packet, which says nothing of sizes. Viewers take a message for a picture
of theirs when its format has one of `FORBIDDEN` anywhere, so a bundle whose name has one cannot be used on topics.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Protocol

from percodec.runtime.capture.opencv import MAX_PIXELS
from percodec.sdk.errors import BundleError, MessageError
from percodec.sdk.fit import FITS, MAX_SIDE, PAD

VERSION = "1.0"
FORBIDDEN = ("jpeg", "jpg", "png", "webp", "avif", "tiff", "jp2", "h264", "h265", "rvl")

_TEXT = re.compile(
    r"([A-Za-z0-9_]{1,32}); percodec (\d{1,3})\.(\d{1,3}) "
    r"([A-Za-z0-9][A-Za-z0-9_.-]{0,63})@([0-9a-f]{12}) (\d{1,5})x(\d{1,5}) ([a-z]{1,16})"
)


class NamedBundle(Protocol):
    """What the format says of a bundle."""

    @property
    def name(self) -> str: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class PacketFormat:
    """`encoding`: the ROS encoding that came in; `digest`: the first 12 digits of the bundle's; `width`, `height` in pixels; `fit`."""

    encoding: str
    bundle: str
    digest: str
    width: int
    height: int
    fit: str

    @classmethod
    def of(cls, bundle: NamedBundle, encoding: str, width: int, height: int, fit: str) -> PacketFormat:
        """Raises `BundleError` for a bundle whose name viewers would take for a picture format, `MessageError` for what no format says."""
        word = next((word for word in FORBIDDEN if word in bundle.name.lower()), None)
        if word is not None:
            raise BundleError(f"bundle {bundle.name}: viewers take a format with {word!r} in it for a picture of theirs; rename the bundle")
        made = cls(encoding, bundle.name, bundle.digest[:12], width, height, fit)
        return cls.from_text(str(made))

    @classmethod
    def from_text(cls, text: str) -> PacketFormat:
        """Raises `MessageError` for any other format, an unknown major version, or sizes outside 1..16384 and 2^27 pixels."""
        match = _TEXT.fullmatch(text)
        if match is None:
            raise MessageError(f"format {text[:80]!r} is not that of a percodec packet; give a topic of packets, as <image>/percodec")
        encoding, major, minor, bundle, digest, width, height, fit = match.groups()
        if int(major) != int(VERSION.partition(".")[0]):
            raise MessageError(f"format {text[:80]!r}: packets of version {major}.{minor} are not known here; install a newer percodec")
        if fit not in (*FITS, PAD):
            raise MessageError(f"format {text[:80]!r}: the fit {fit!r} is not known; there are {', '.join((*FITS, PAD))}")
        if not (1 <= int(width) <= MAX_SIDE and 1 <= int(height) <= MAX_SIDE and int(width) * int(height) <= MAX_PIXELS):
            raise MessageError(f"format {text[:80]!r}: sides are from 1 to {MAX_SIDE} pixels, and pictures have at most {MAX_PIXELS}")
        return cls(encoding, bundle, digest, int(width), int(height), fit)

    def __str__(self) -> str:
        return f"{self.encoding}; percodec {VERSION} {self.bundle}@{self.digest} {self.width}x{self.height} {self.fit}"


def is_packet_format(text: str) -> bool:
    """Whether a `CompressedImage` of this format claims to hold a packet, of whatever version."""
    return "; percodec " in text


__all__ = ["FORBIDDEN", "VERSION", "NamedBundle", "PacketFormat", "is_packet_format"]
