"""Every error a user can cause or meet, one tree. Each message says what was wrong, where, and how to fix it.

PercodecError                 exit code 1 unless said otherwise
├── UsageError                a command-line value or configuration key is not valid   (exit 2)
├── DataError                 a data set, image or video cannot be used
├── SourceError               a camera, video or folder cannot be opened, or ended early
├── BundleError               a bundle is missing, incomplete, altered or of an unknown version
├── TrustError                a bundle or an engine is not signed by a key that is trusted here
├── CodecError                coded data
│   ├── PacketError           a packet is truncated, altered, foreign or of an unknown version
│   └── EntropyModelError     tables that are not a valid entropy model
├── LogError                  a log cannot be written or read
├── BagError                  a ROS bag cannot be read or written
├── MessageError              a ROS message is damaged, or holds something else than it should
├── BackendError              the requested engine or provider is not available, or failed
│   └── EngineError           an engine file is not of this bundle or machine, or was altered
├── UplinkError               a broker, a certificate or a message of the uplink is not what it should be
├── TrainingError             a training run cannot go on: its loss or its weights are no numbers any more
├── ExportError               a graph cannot be turned into what was asked for
└── SelfTestError             the engine ran, but did not compute what the bundle says it must
"""

from __future__ import annotations


class PercodecError(Exception):
    """Root of the tree. `exit_code` is what the command line returns."""

    exit_code = 1


class UsageError(PercodecError):
    """A command-line value or configuration key is not valid."""

    exit_code = 2


class DataError(PercodecError):
    """A data set, image or video cannot be used."""


class SourceError(PercodecError):
    """A camera, video or folder cannot be opened, or ended before it should."""


class BundleError(PercodecError):
    """A bundle is missing, incomplete, altered or of an unknown version."""


class TrustError(PercodecError):
    """A bundle or an engine is not signed by a key that is trusted here, or a key or a policy cannot be used."""


class CodecError(PercodecError):
    """Coded data or tables are not valid."""


class PacketError(CodecError):
    """A packet is truncated, altered, foreign or of an unknown version."""


class EntropyModelError(CodecError):
    """Tables that are not a valid entropy model."""


class LogError(PercodecError):
    """A log cannot be written or read."""


class BagError(PercodecError):
    """A ROS bag cannot be read or written."""


class MessageError(PercodecError):
    """A ROS message is damaged, or holds something else than it should."""


class BackendError(PercodecError):
    """The requested engine or provider is not available, or failed."""


class ExportError(PercodecError):
    """A graph cannot be turned into what was asked for: a precision, an engine, a smaller error."""


class UplinkError(PercodecError):
    """A broker, a certificate or a message between vehicle and archive is not what it should be."""


class TrainingError(PercodecError):
    """A training run cannot go on: its loss or its weights are no numbers any more."""


class EngineError(BackendError):
    """An engine file does not belong to this bundle or to this machine, or was altered."""


class SelfTestError(PercodecError):
    """An engine ran, but did not compute what the bundle says it must."""


def reason(error: BaseException) -> str:
    """The first line of an exception, short enough for one line of output."""
    lines = str(error).splitlines()
    return (lines[0] if lines else type(error).__name__)[:200]


__all__ = [
    "BackendError",
    "BagError",
    "BundleError",
    "CodecError",
    "DataError",
    "EngineError",
    "EntropyModelError",
    "ExportError",
    "LogError",
    "MessageError",
    "PacketError",
    "PercodecError",
    "SelfTestError",
    "SourceError",
    "TrainingError",
    "TrustError",
    "UplinkError",
    "UsageError",
    "reason",
]
