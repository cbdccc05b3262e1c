"""`percodec uplink` and `percodec ingest`: arguments and printing; the work is `runtime.uplink`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from percodec.runtime.commands.arguments import bundle_named, positive, size_of
from percodec.sdk.cli import require
from percodec.sdk.errors import UplinkError, UsageError

if TYPE_CHECKING:
    from percodec.runtime.uplink.credentials import Credentials
    from percodec.runtime.uplink.ingest import Counts, Source
    from percodec.runtime.uplink.status import Status


def _configure_link(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--ca", metavar="FILE", help="certificate of the CA that the other side's is checked against, PEM")
    parser.add_argument("--cert", metavar="FILE", help="certificate to show; a vehicle's common name is its id")
    parser.add_argument("--key", metavar="FILE", help="its key, without a password")
    parser.add_argument("--insecure-loopback", action="store_true", help="no TLS; for a broker on 127.0.0.1 alone")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")


def configure_uplink(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Ships logs written with --log-segment, live frames first. SOURCE_DIR/.uplink/status.json says how it goes.\n\n"
        "example:\n  percodec uplink logs --to nats://archive.example:4222 --ca ca.crt --cert v1.crt --key v1.key --max-disk 50GB"
    )
    parser.add_argument("source", metavar="SOURCE_DIR", help="folder that holds the runs' folders")
    parser.add_argument("--to", required=True, metavar="URL", help="broker: nats://HOST:PORT or mqtts://HOST:PORT")
    parser.add_argument("--max-disk", metavar="SIZE", help="delete logs beyond this, stored ones first (default: nothing is deleted)")
    parser.add_argument("--drain", action="store_true", help="end when everything is stored and nobody writes a log")
    parser.add_argument("--vehicle", metavar="NAME", help="the vehicle's id, with --insecure-loopback")
    parser.add_argument("--resend-after", default="60", metavar="S", help="send again what is not stored by then, seconds (default 60)")
    _configure_link(parser)


def configure_ingest(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "example:\n  percodec ingest --from nats://127.0.0.1:4222 --archive archive --ca ca.crt --cert ingest.crt --key ingest.key"
    )
    parser.add_argument("--from", required=True, dest="source", metavar="URL", help="broker: nats://HOST:PORT or mqtts://HOST:PORT")
    parser.add_argument("--archive", required=True, metavar="WHERE", help="folder, or s3://BUCKET/FOLDER and what else fsspec opens")
    parser.add_argument(
        "--bundle",
        action="append",
        metavar="FOLDER",
        help="take packets of this bundle, set others aside; repeatable (default: take any)",
    )
    parser.add_argument("--flush", default="5", metavar="S", help="longest that packets wait to share a file, seconds (default 5)")
    parser.add_argument("--ack-wait", default="30", metavar="S", help="the broker delivers again what is not stored by then (default 30)")
    parser.add_argument(
        "--stream-size", default="10GB", metavar="SIZE", help="what the broker may hold, where its stream is new (default 10GB)"
    )
    parser.add_argument("--name", default="", metavar="NAME", help="with mqtts: this ingest's name, where several share one machine")
    _configure_link(parser)


def uplink(args: argparse.Namespace) -> int:
    require("uplink", "paho" if args.to.startswith("mqtt") else "nats", "cryptography")
    from percodec.runtime.uplink.agent import Agent, AgentSettings
    from percodec.runtime.uplink.credentials import VEHICLE, checked_url

    credentials = credentials_of(args)
    url = checked_url(args.to, "--to", credentials)
    if (args.vehicle is None) != (credentials is not None):
        raise UsageError("--vehicle goes with --insecure-loopback; a certificate says by itself whose it is")
    if credentials is None and not VEHICLE.fullmatch(args.vehicle):
        raise UsageError(f"--vehicle {args.vehicle!r}: letters, digits, - and _, at most 64")
    settings = AgentSettings(
        Path(args.source), url, credentials.common_name() if credentials else args.vehicle, credentials,
        max_bytes=None if args.max_disk is None else size_of(args.max_disk, "--max-disk"),
        resend_after_s=positive(args.resend_after, "--resend-after", 86400), drain=args.drain,
    )  # fmt: skip
    if not settings.source.is_dir():
        raise UplinkError(f"{settings.source}: is no folder; give the one that holds the runs' folders")
    say = _Changes()

    async def work() -> Status:
        agent = Agent(settings, lambda status: say(status.state, status.reasons, _line(status.records)))
        _on_signals(agent.stop)
        await agent.run()
        return agent.status

    status = asyncio.run(work()).as_dict()
    say.end()
    if args.json:
        print(json.dumps(status, indent=2))
        return 0
    for key, value in status["records"].items():
        print(f"{key:<11} {value}")
    print(f"{'disk':<11} {status['disk_bytes'] / 1e6:.1f} MB")
    for text in status["discards"]:
        print(f"gave up     {text}")
    return 0


def ingest(args: argparse.Namespace) -> int:
    require("ingest", "paho" if args.source.startswith("mqtt") else "nats", "cryptography", "fsspec", "pyarrow")
    from percodec.runtime.session import open_bundle
    from percodec.runtime.uplink.archive import Archive
    from percodec.runtime.uplink.credentials import checked_url
    from percodec.runtime.uplink.ingest import Ingest

    credentials = credentials_of(args)
    url = checked_url(args.source, "--from", credentials)
    flush_s, ack_wait_s = positive(args.flush, "--flush", 3600), positive(args.ack_wait, "--ack-wait", 86400)
    if flush_s >= ack_wait_s:
        raise UsageError(f"--flush {args.flush}: must be shorter than --ack-wait {args.ack_wait}, or everything is delivered twice")
    stream_bytes = size_of(args.stream_size, "--stream-size")
    bundles = None if args.bundle is None else [open_bundle(bundle_named(folder)) for folder in args.bundle]
    archive = Archive(args.archive)
    say = _Changes()

    def tell(counts: Counts, trouble: str) -> None:
        say("DEGRADED" if trouble else "READY", [trouble] if trouble else [], _line(asdict(counts)))

    async def connect() -> Source:
        if url.startswith("nats:"):
            from percodec.runtime.uplink.nats_source import nats_source

            return await nats_source(url, credentials, stream_bytes, ack_wait_s)
        from percodec.runtime.uplink.mqtt_source import mqtt_source

        return await mqtt_source(url, credentials, args.name)

    async def work() -> Counts:
        taker = Ingest(archive, flush_s, tell, bundles)
        _on_signals(taker.stop)
        await taker.run(connect)
        return taker.counts

    counts = asdict(asyncio.run(work()))
    say.end()
    if args.json:
        print(json.dumps(counts, indent=2))
    else:
        for key, value in counts.items():
            print(f"{key:<11} {value}")
    return 0


def credentials_of(args: argparse.Namespace) -> Credentials | None:
    """What --ca, --cert, --key and --insecure-loopback say. Raises UsageError."""
    from percodec.runtime.uplink.credentials import Credentials

    files = {"--ca": args.ca, "--cert": args.cert, "--key": args.key}
    given = [name for name, file in files.items() if file is not None]
    if args.insecure_loopback:
        if given:
            raise UsageError(f"{given[0]} and --insecure-loopback: give one of them")
        return None
    if len(given) < len(files):
        missing = [name for name in files if name not in given]
        raise UsageError(f"{', '.join(missing)}: missing; the link is encrypted and both sides show a certificate")
    for name, file in files.items():
        if not Path(file).is_file():
            raise UsageError(f"{name} {file}: is no file")
    found = Credentials(Path(args.ca), Path(args.cert), Path(args.key))
    found.check()
    return found


def _on_signals(stop: Callable[[], None]) -> None:
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every TLS connection that ends
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError, RuntimeError):
            if signal.getsignal(number) != signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, stop)


def _line(counts: dict[str, int]) -> str:
    return "  ".join(f"{key} {value}" for key, value in counts.items())


class _Changes:
    """A line on stderr where the state changes, and the counts in one line where that is a terminal."""

    def __init__(self) -> None:
        self._last: tuple[str, tuple[str, ...]] = ("READY", ())
        self._terminal, self._shown_s = sys.stderr.isatty(), 0.0

    def __call__(self, state: str, reasons: list[str], counts: str) -> None:
        with contextlib.suppress(OSError):  # the terminal was closed
            if (state, tuple(reasons)) != self._last:
                self._last = state, tuple(reasons)
                self.end()
                sys.stderr.write(f"percodec: {state}{': ' if reasons else ''}{'; '.join(reasons)}\n")
            if self._terminal and time.monotonic() - self._shown_s > 0.5:
                self._shown_s = time.monotonic()
                sys.stderr.write(f"\r{counts[:110]:<110}")
                sys.stderr.flush()

    def end(self) -> None:
        """Leave the line of counts."""
        if self._terminal and self._shown_s:
            sys.stderr.write("\r" + " " * 110 + "\r")


__all__ = ["configure_ingest", "configure_uplink", "credentials_of", "ingest", "uplink"]
