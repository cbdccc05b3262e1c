"""percodec's ground floor: types, errors, the coder, bundles and logs. numpy, the standard library and a small C++ core.

Which one should I use? `Bundle.open` for what to run, `PacketCodec` for latents to packets and back, `LogWriter` and `read_log` for
files of packets. Everything raised derives from `PercodecError`.
"""

from __future__ import annotations

from percodec.sdk.bundle import Bundle, GraphInfo, Label, SelfTest, TensorInfo, extend_bundle, write_bundle
from percodec.sdk.codec import EntropyModel, PacketCodec, PacketHeader, parse_header
from percodec.sdk.errors import (
    BackendError,
    BundleError,
    CodecError,
    DataError,
    EntropyModelError,
    LogError,
    PacketError,
    PercodecError,
    SelfTestError,
    SourceError,
    UsageError,
)
from percodec.sdk.log import LogReader, LogRecord, LogWriter, read_log
from percodec.sdk.types import Frame, Latent, PixelFormat, Prediction

__all__ = [
    "BackendError",
    "Bundle",
    "BundleError",
    "CodecError",
    "DataError",
    "EntropyModel",
    "EntropyModelError",
    "Frame",
    "GraphInfo",
    "Label",
    "Latent",
    "LogError",
    "LogReader",
    "LogRecord",
    "LogWriter",
    "PacketCodec",
    "PacketError",
    "PacketHeader",
    "PercodecError",
    "PixelFormat",
    "Prediction",
    "SelfTest",
    "SelfTestError",
    "SourceError",
    "TensorInfo",
    "UsageError",
    "extend_bundle",
    "parse_header",
    "read_log",
    "write_bundle",
]
