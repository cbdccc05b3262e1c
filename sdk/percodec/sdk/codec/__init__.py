"""Latents to packets and back: integer tables, rANS, checksums. Format: BITSTREAM.md beside this file.

Which one should I use? `PacketCodec` to code and decode; `VideoCodec` for a stream that is kept whole; `parse_header` to look at
a packet without its tables; `EntropyModel` to make, save and load tables, from what `count_pairs` counts; `StepsModel` for latents of
uniform steps; `read_model` for the tables in a file, whichever they are. `percodec.sdk.codec.reference` is the same format in plain
Python, about a thousand times slower: to read, and to test against.
"""

from __future__ import annotations

from percodec.sdk.codec.entropy_model import EntropyModel, count_pairs, read_model
from percodec.sdk.codec.header import PacketHeader
from percodec.sdk.codec.packet import PacketCodec, parse_header
from percodec.sdk.codec.steps import StepsModel
from percodec.sdk.codec.video import VideoCodec

__all__ = ["EntropyModel", "PacketCodec", "PacketHeader", "StepsModel", "VideoCodec", "count_pairs", "parse_header", "read_model"]
