"""`PacketHeader`: what a packet says about itself. Byte layout and limits: BITSTREAM.md."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from percodec.sdk.codec.entropy_model import PREDICTED

BytesLike = bytes | bytearray | memoryview

MAGIC = b"PC"
VERSION = 0x10  # major in the high four bits, minor in the low four
MAX_LANES = 64
WRAP = 1 << 32  # of counters
_REORDERED = 64  # a packet this many counters back, and not later in time, is an old one; further back a new start

# magic, version, profile, lanes, flags, stream id, counter, frame id, timestamp, table hash, payload bytes, latent CRC
LAYOUT = struct.Struct("<2sBBBBHIIQQII")
CRC = struct.Struct("<I")  # over the fields above and the payload
HEADER_BYTES = LAYOUT.size + CRC.size


@dataclass(frozen=True)
class PacketHeader:
    """Header of one packet.

    `counter` counts the packets of `stream_id` from 0 and wraps at 2^32: a gap is a lost packet. `frame_id` and
    `timestamp_ns` (start of exposure, monotonic clock) are the captured frame's. `table_hash` names the entropy model,
    `latent_crc` is CRC-32C over shape and symbols of the decoded latent.
    """

    version: int
    profile: int
    lanes: int
    stream_id: int
    counter: int
    frame_id: int
    timestamp_ns: int
    table_hash: int
    payload_bytes: int
    latent_crc: int

    @property
    def key(self) -> bool:
        """Whether the packet needs no other: all but those of profiles 2 and 5, which need the latent of the packet before."""
        return self.profile not in PREDICTED

    def repeats(self, last: PacketHeader) -> bool:
        """Whether it came before, or comes too late, for a reader whose last decoded packet of this stream is `last`."""
        return (last.counter - self.counter) % WRAP < _REORDERED and self.timestamp_ns <= last.timestamp_ns

    def follows(self, last: PacketHeader | None) -> bool:
        """Whether that reader (None: of nothing so far) has what this packet is predicted from; True for every key packet."""
        return self.key or (last is not None and self.counter == (last.counter + 1) % WRAP)


__all__ = ["CRC", "HEADER_BYTES", "LAYOUT", "MAGIC", "MAX_LANES", "VERSION", "WRAP", "BytesLike", "PacketHeader"]
