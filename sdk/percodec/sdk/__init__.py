"""percodec's ground floor: types, errors, the coder, bundles and logs. numpy, the standard library and a small C++ core.

Which one should I use? `Bundle.open` for what to run, `PacketCodec` for latents to packets and back, `VideoCodec` for those of one camera,
`LogWriter` and `read_log` for files of packets. Everything raised derives from `PercodecError`. numpy is imported when something needs it.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from percodec.sdk.errors import (
    BackendError,
    BagError,
    BundleError,
    CodecError,
    DataError,
    EngineError,
    EntropyModelError,
    ExportError,
    LogError,
    MessageError,
    PacketError,
    PercodecError,
    SelfTestError,
    SourceError,
    TrainingError,
    TrustError,
    UplinkError,
    UsageError,
)

if TYPE_CHECKING:
    from percodec.sdk.bundle import Bundle, GraphInfo, Label, SelfTest, TensorInfo, extend_bundle, write_bundle
    from percodec.sdk.clock import ClockAnchor
    from percodec.sdk.codec import EntropyModel, PacketCodec, PacketHeader, VideoCodec, count_pairs, parse_header
    from percodec.sdk.log import (
        LogProof,
        LogReader,
        LogRecord,
        LogWriter,
        SegmentedLogWriter,
        SegmentLimits,
        read_log,
        read_log_key,
        verify_log,
    )
    from percodec.sdk.types import Frame, Latent, PixelFormat, Prediction

__all__ = [
    "BackendError",
    "BagError",
    "Bundle",
    "BundleError",
    "ClockAnchor",
    "CodecError",
    "DataError",
    "EngineError",
    "EntropyModel",
    "EntropyModelError",
    "ExportError",
    "Frame",
    "GraphInfo",
    "Label",
    "Latent",
    "LogError",
    "LogProof",
    "LogReader",
    "LogRecord",
    "LogWriter",
    "MessageError",
    "PacketCodec",
    "PacketError",
    "PacketHeader",
    "PercodecError",
    "PixelFormat",
    "Prediction",
    "SegmentLimits",
    "SegmentedLogWriter",
    "SelfTest",
    "SelfTestError",
    "SourceError",
    "TensorInfo",
    "TrainingError",
    "TrustError",
    "UplinkError",
    "UsageError",
    "VideoCodec",
    "count_pairs",
    "extend_bundle",
    "parse_header",
    "read_log",
    "read_log_key",
    "verify_log",
    "write_bundle",
]

_HOMES = {
    "bundle": ["Bundle", "GraphInfo", "Label", "SelfTest", "TensorInfo", "extend_bundle", "write_bundle"],
    "clock": ["ClockAnchor"],
    "codec": ["EntropyModel", "PacketCodec", "PacketHeader", "VideoCodec", "count_pairs", "parse_header"],
    "log": [
        "LogProof",
        "LogReader",
        "LogRecord",
        "LogWriter",
        "SegmentLimits",
        "SegmentedLogWriter",
        "read_log",
        "read_log_key",
        "verify_log",
    ],
    "types": ["Frame", "Latent", "PixelFormat", "Prediction"],
}

if not TYPE_CHECKING:  # a checker sees the imports above, and so finds names that are not there

    def __getattr__(name: str) -> object:
        for module, names in _HOMES.items():
            if name in names:
                found = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
                return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
