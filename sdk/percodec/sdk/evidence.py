"""`percodec verify-log`: arguments and printing; the work is `log.verify`."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from percodec.sdk.errors import LogError, UsageError
from percodec.sdk.log import LogProof, read_log_key
from percodec.sdk.log import verify_log as proof_of
from percodec.sdk.text import printable

_SHOWN = 20


def configure_verify_log(parser: argparse.ArgumentParser) -> None:
    """The arguments of `percodec verify-log`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "examples:\n"
        "  (umask 077; head -c 32 /dev/urandom >log.key)                 a key; whoever has it can also write logs\n"
        "  percodec run /dev/video0 --out drive --log-key log.key\n"
        "  percodec verify-log drive/packets.mcap --log-key log.key\n"
        "Removed, altered, added and moved records are named with their frames. The exit code is 1 for these, and for a log without its\n"
        "end: its writer was killed, or somebody cut it off."
    )
    parser.add_argument("log", type=Path, help="log (.mcap) or folder of its segments")
    parser.add_argument("--log-key", type=Path, required=True, metavar="FILE", help="the key that it was written with")
    parser.add_argument("--from-segment", default="0", metavar="N", help="segments before number N were taken away on purpose (default 0)")
    parser.add_argument("--allow-open", action="store_true", help="end with 0 also for a log without its end, proved up to its last record")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def verify_log(args: argparse.Namespace) -> int:
    """Print what is proved and what is not. Raises `LogError` where something is not."""
    path: Path = args.log
    if not (args.from_segment.isascii() and args.from_segment.isdigit() and len(args.from_segment) < 10):
        raise UsageError(f"--from-segment {args.from_segment}: must be a whole number from 0 to 999999999")
    proof = proof_of(path, read_log_key(args.log_key), int(args.from_segment))
    if args.json:
        print(json.dumps({**asdict(proof), "whole": proof.whole}, indent=1))
    else:
        print(printable(f"proved   {in_words(proof)}"))
        for text in proof.findings[:_SHOWN]:
            print(printable(f"wrong    {text}"))
        if len(proof.findings) > _SHOWN:
            print(f"wrong    {len(proof.findings) - _SHOWN} more")
        if proof.cut_off:
            print(printable(f"note     the log {proof.cut_off}"))
    sys.stdout.flush()
    if proof.findings:
        raise LogError(f"{path}: is not as it was written ({len(proof.findings)} findings), first: {proof.findings[0]}")
    if proof.cut_off and not args.allow_open:
        raise LogError(f"{path}: {proof.cut_off}. --allow-open takes what is proved")
    return 0


def in_words(proof: LogProof) -> str:
    """What is proved, in one line."""
    frames = f", frames {proof.first_frame} to {proof.last_frame}" if proof.records else ""
    segments = f" in {len(proof.segments)} segments" if len(proof.segments) > 1 else ""
    return f"{proof.records} records{frames}{segments}, with key {proof.key}{', to the end of the log' if proof.closed else ''}"


__all__ = ["configure_verify_log", "in_words", "verify_log"]
