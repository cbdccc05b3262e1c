"""What commands have in common: arguments checked once, with the option named."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING

from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import UsageError
from percodec.sdk.log import SegmentLimits, read_log_key

if TYPE_CHECKING:
    from percodec.runtime.session import Demand

_UNITS = {"kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40}


def add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="FOLDER", help="bundle to use (default: the built-in road)")
    parser.add_argument("--backend", default="ort", metavar="NAME", help="ort (default), ort:fp32, ort:int8, tensorrt, tensorrt_rtx")
    parser.add_argument("--threads", default="1", metavar="N", help="threads inside each network (default 1)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")
    parser.add_argument("--expect-digest", metavar="HEX", help="refuse any other bundle than the one of this digest, or its beginning")
    parser.add_argument("--trust-policy", metavar="FILE", help="policy of signatures to hold the bundle to (default: the machine's)")


def add_heads(parser: argparse.ArgumentParser) -> None:
    """`--heads`."""
    parser.add_argument("--heads", metavar="NAMES", help="heads of the bundle, as NAME,NAME or all (default: its first)")


def heads_of(args: argparse.Namespace) -> tuple[str, ...] | None:
    """What `--heads` names; the bundle checks the names. Raises UsageError for an empty name."""
    if args.heads is None:
        return None
    names = tuple(name.strip() for name in args.heads.split(","))
    if not all(names):
        raise UsageError(f"--heads {args.heads!r}: write NAME,NAME or all")
    return names


def add_stream(parser: argparse.ArgumentParser) -> None:
    """`--stream` and `--key-every`."""
    parser.add_argument("--stream", action="store_true", help="packets predicted from the one before: fewer bytes, kept in order")
    parser.add_argument("--key-every", metavar="N", help="with --stream: a packet that stands alone every N (default 25)")


def add_rate(parser: argparse.ArgumentParser) -> None:
    """`--target-kbps` and `--max-packet`."""
    parser.add_argument("--target-kbps", metavar="KBPS", help="coarser latents, so that packets take this many kbit/s at most on average")
    parser.add_argument("--max-packet", metavar="BYTES", help="coarser latents, so that no packet is longer than this")


def rate_of(args: argparse.Namespace) -> tuple[float | None, int | None]:
    """What `--target-kbps` and `--max-packet` say. Raises UsageError."""
    return (
        None if args.target_kbps is None else positive(args.target_kbps, "--target-kbps", 1e7),
        None if args.max_packet is None else whole(args.max_packet, "--max-packet", 45, 2**31 - 1),
    )


def add_log(parser: argparse.ArgumentParser) -> None:
    """`--log-segment`, `--log-key` and `--stream-id`."""
    parser.add_argument("--log-segment", metavar="LIMITS", help="the log in segments of a size and a time at most, as 64MB,10min")
    parser.add_argument("--log-key", metavar="FILE", help="every record gets a proof with this key, for percodec verify-log")
    parser.add_argument("--stream-id", default="0", metavar="N", help="the camera's number, in every packet: 0 (default) to 65535")


def log_segment_of(args: argparse.Namespace) -> SegmentLimits | None:
    """What `--log-segment` says. Raises UsageError."""
    return None if args.log_segment is None else SegmentLimits.from_text(args.log_segment)


def log_key_of(args: argparse.Namespace) -> bytes | None:
    """The key in the file that `--log-key` names. Raises `LogError`."""
    return None if args.log_key is None else read_log_key(Path(args.log_key))


def stream_id_of(args: argparse.Namespace) -> int:
    """What `--stream-id` says. Raises UsageError."""
    return whole(args.stream_id, "--stream-id", 0, 65535)


def add_allow_damaged(parser: argparse.ArgumentParser) -> None:
    """`--allow-damaged`."""
    parser.add_argument("--allow-damaged", action="store_true", help="end with 0 also for a log that is cut off, damaged or incomplete")


def key_every_of(args: argparse.Namespace) -> int:
    """What `--key-every` says. Raises UsageError, also where nothing is streamed."""
    if args.key_every is None:
        return 25
    if not args.stream:
        raise UsageError("--key-every goes with --stream: without it every packet stands alone")
    return whole(args.key_every, "--key-every", 1, 1_000_000)


def bundle_of(args: argparse.Namespace) -> Bundle:
    from percodec.runtime.session import open_bundle

    return open_bundle(bundle_path(args), demand_of(args))


def bundle_path(args: argparse.Namespace) -> Path:
    """What `--bundle` names. Raises UsageError where it is empty."""
    if args.bundle == "":
        raise UsageError("--bundle is empty: is a variable of the shell not set?")
    return bundle_named(args.bundle)


def bundle_named(word: str | None) -> Path:
    """A bundle's folder, or by its name or by None the built-in one."""
    from percodec.runtime.session import DEFAULT_BUNDLE

    path = DEFAULT_BUNDLE if word is None else Path(word)
    return DEFAULT_BUNDLE if str(path) == DEFAULT_BUNDLE.name and not path.exists() else path


def demand_of(args: argparse.Namespace) -> Demand:
    """What `--expect-digest` and `--trust-policy` say, where a command has them. Raises UsageError."""
    from percodec.runtime.session import Demand

    policy, digest = getattr(args, "trust_policy", None), getattr(args, "expect_digest", None)
    if digest is not None and not re.fullmatch(r"[0-9a-fA-F]{8,64}", digest):
        raise UsageError(f"--expect-digest {digest[:80]!r}: give 8 to 64 hex digits, as percodec inspect BUNDLE prints them")
    return Demand(None if policy is None else Path(policy), digest)


def limit_of(args: argparse.Namespace) -> int | None:
    return None if args.max_frames is None else whole(args.max_frames, "--max-frames", 1, 2**40)


def whole(text: str, name: str, low: int, high: int) -> int:
    """A whole number from the command line. Raises UsageError naming the option."""
    if not re.fullmatch(r"[+-]?\d{1,15}", str(text)) or not low <= int(text) <= high:
        raise UsageError(f"{name} {text}: must be a whole number from {low} to {high}")
    return int(text)


def transfer(text: str) -> str:
    """How pictures get to the GPU, from the command line. Raises UsageError naming the option."""
    if text not in ("auto", "copy", "mapped", "managed"):
        raise UsageError(f"--transfer {text}: unknown; use copy, mapped or managed")
    return text


def positive(text: str, name: str, high: float) -> float:
    """A number above 0 from the command line. Raises UsageError naming the option."""
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 < value <= high:
        raise UsageError(f"{name} {text}: must be a number above 0, at most {high:g}")
    return value


def size_of(text: str, option: str) -> int:
    """Bytes, from the command line. Raises UsageError naming the option."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([A-Za-z]+)", text)
    if match is None or match[2] not in _UNITS or not 10**5 <= float(match[1]) * _UNITS[match[2]] <= 1 << 50:
        raise UsageError(f"{option} {text!r}: write a size of 100 kB or more, as 50GB")
    return int(float(match[1]) * _UNITS[match[2]])


def size_text(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1_000_000 else f"{count / 1e3:.1f} kB"


__all__ = [
    "add_allow_damaged",
    "add_common",
    "add_heads",
    "add_log",
    "add_rate",
    "add_stream",
    "bundle_named",
    "bundle_of",
    "bundle_path",
    "demand_of",
    "heads_of",
    "key_every_of",
    "limit_of",
    "log_key_of",
    "log_segment_of",
    "positive",
    "rate_of",
    "size_of",
    "size_text",
    "stream_id_of",
    "transfer",
    "whole",
]
