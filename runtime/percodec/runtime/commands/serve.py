"""`percodec serve`: arguments and printing; the work is `runtime.serve`."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import logging
import re
import signal
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from percodec.runtime.commands.arguments import bundle_named, demand_of, heads_of, positive, size_of, whole
from percodec.sdk.bundle import Bundle
from percodec.sdk.cli import require
from percodec.sdk.errors import UsageError
from percodec.sdk.machine import usable_cores
from percodec.sdk.text import printable

if TYPE_CHECKING:
    from percodec.runtime.serve.engine import Engine
    from percodec.runtime.serve.feed import Feed
    from percodec.runtime.serve.models import Model
    from percodec.runtime.serve.predictor import Opening
    from percodec.runtime.serve.requests import Limits, Wanted
    from percodec.runtime.serve.server import Server
    from percodec.runtime.serve.tls import Tls
    from percodec.runtime.uplink.credentials import Credentials


def configure_serve(parser: argparse.ArgumentParser) -> None:
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = (
        "Any client of the Open Inference Protocol can ask; so can curl:\n\n"
        "  percodec serve bundles/road\n"
        "  curl --data-binary @frame.pcpk http://127.0.0.1:8000/v1/predict/road"
    )
    parser.add_argument("bundles", nargs="*", metavar="BUNDLE", help="bundle, as FOLDER or NAME=FOLDER (default: the built-in road)")
    where = parser.add_argument_group("where")
    where.add_argument("--grpc", default="127.0.0.1:8001", metavar="HOST:PORT", help="default 127.0.0.1:8001; none: without it")
    where.add_argument("--http", default="127.0.0.1:8000", metavar="HOST:PORT", help="default 127.0.0.1:8000; none: without it")
    where.add_argument("--tls-cert", metavar="FILE", help="the server's certificate, PEM")
    where.add_argument("--tls-key", metavar="FILE", help="its key, without a password")
    where.add_argument("--client-ca", metavar="FILE", help="answer only clients with a certificate of this CA")
    where.add_argument("--plaintext", action="store_true", help="listen beyond this machine without TLS: where something in front does it")
    what = parser.add_argument_group("what")
    what.add_argument("--heads", default="all", metavar="NAMES", help="heads that may be asked for, as NAME,NAME (default: all)")
    what.add_argument("--backend", default="ort", metavar="NAME", help="ort (default), ort:fp32, ort:int8, tensorrt, tensorrt_rtx")
    what.add_argument("--workers", metavar="N", help="requests in work at the same time (default: one a core); with --engine threads")
    what.add_argument("--threads", default="1", metavar="N", help="threads inside each network (default 1)")
    what.add_argument("--expect-digest", metavar="HEX", help="refuse any other bundle than the one of this digest, or its beginning")
    what.add_argument("--trust-policy", metavar="FILE", help="policy of signatures to hold bundles to (default: the machine's)")
    what.add_argument("--no-selftest", action="store_true", help="start without it")
    where = parser.add_argument_group("a cluster")
    where.add_argument(
        "--engine", default="threads", choices=["threads", "ray"],
        help="threads of this process (default), or workers on the Ray cluster of RAY_ADDRESS; without that, on Ray on this machine alone",
    )  # fmt: skip
    where.add_argument("--replicas", metavar="N", help="workers on Ray, as N, or LOW..HIGH: as many as there are requests (default 1)")
    where.add_argument("--gpus", metavar="SHARE", help="of a GPU, that each worker on Ray takes (default 0)")
    feed = parser.add_argument_group("packets that vehicles send, beside those of clients")
    feed.add_argument("--from", dest="source", metavar="URL", help="broker of percodec uplink: nats://HOST:PORT")
    feed.add_argument(
        "--publish", metavar="NAMES", help="outputs that are published for them, as NAME,NAME (default: those that come unasked)"
    )
    feed.add_argument("--ca", metavar="FILE", help="certificate of the CA that the broker's is checked against, PEM")
    feed.add_argument("--cert", metavar="FILE", help="certificate to show the broker")
    feed.add_argument("--key", metavar="FILE", help="its key, without a password")
    feed.add_argument("--insecure-loopback", action="store_true", help="no TLS; for a broker on 127.0.0.1 alone")
    limits = parser.add_argument_group("limits")
    limits.add_argument("--max-body", default="4MiB", metavar="SIZE", help="longest request (default 4MiB)")
    limits.add_argument("--max-packets", default="64", metavar="N", help="most packets in a request (default 64)")
    limits.add_argument(
        "--queue", default="256", metavar="N", help="most packets waiting and in work; beyond, clients are sent away (default 256)"
    )
    limits.add_argument("--timeout", default="60", metavar="S", help="longest that a request may take, seconds (default 60)")
    limits.add_argument("--drain", default="30", metavar="S", help="at the end, time for requests that have begun (default 30)")
    parser.add_argument("--json", action="store_true", help="print addresses, models and, at the end, counts as lines of JSON")


def serve(args: argparse.Namespace) -> int:
    require("serve", "grpc", "google.protobuf", "aiohttp", "prometheus_client")
    from percodec.runtime.serve.models import model_of
    from percodec.runtime.serve.predictor import Opening
    from percodec.runtime.serve.server import Addresses, Server, checked_address

    tls = _tls(args)
    safe = tls is not None or args.plaintext
    addresses = Addresses(*(None if text == "none" else checked_address(text, f"--{name}", safe) for name, text in _addresses(args)))
    link = _link(args)
    if addresses.grpc is None and addresses.http is None and args.source is None:
        raise UsageError("--grpc none and --http none: leave one of them")
    limits = _limits(args)
    bundles = _bundles(args)
    opening = Opening(args.backend, whole(args.threads, "--threads", 1, 64), heads_of(args), not args.no_selftest)
    models = {name: model_of(name, bundle, opening.heads) for name, bundle in bundles.items()}
    wanted = None if link is None else _wanted(args, models)
    engine = _engine(args, bundles, models, limits, opening)
    feed = None if wanted is None else _feed(bundles, engine, limits, wanted)
    logging.getLogger("asyncio").setLevel(logging.ERROR)  # it warns of every TLS connection that ends

    async def work() -> Server:
        server = Server(engine, limits, addresses, tls)
        stop = asyncio.Event()
        feeding = None
        try:
            bound = await server.start()
            _on_signals(stop)
            _say(args, {"grpc": bound.grpc, "http": bound.http, "models": {name: model.digest for name, model in engine.models.items()}})
            if feed is not None and link is not None:
                feeding = asyncio.create_task(feed.run(*link, stop, _Changes()))
                feeding.add_done_callback(lambda _: stop.set())
            await stop.wait()
            if feeding is not None:
                await feeding
        finally:
            _on_signals(None)  # the next one ends at once
            await server.drain()
            await engine.close()
        return server

    counts = asyncio.run(work()).desk.metrics
    found: dict[str, object] = {"requests": counts.requests, "frames": counts.frames, "refused": counts.refused}
    _say(args, found if feed is None else found | {"feed": asdict(feed.counts)})
    return 0


class _Changes:
    """A line on stderr where the feed's state changes."""

    def __init__(self) -> None:
        self._last = ""

    def __call__(self, trouble: str) -> None:
        if trouble != self._last:
            self._last = trouble
            print(printable(f"percodec: DEGRADED: {trouble}" if trouble else "percodec: READY"), file=sys.stderr, flush=True)


def _link(args: argparse.Namespace) -> tuple[str, Credentials | None] | None:
    """The broker, where there is one."""
    if args.source is None:
        given = [
            name for name, value in {"--ca": args.ca, "--cert": args.cert, "--key": args.key, "--publish": args.publish}.items() if value
        ]
        if given or args.insecure_loopback:
            raise UsageError(f"{(given or ['--insecure-loopback'])[0]} goes with --from")
        return None
    require("uplink", "nats", "cryptography")
    from percodec.runtime.commands.uplink import credentials_of
    from percodec.runtime.uplink.credentials import checked_url

    credentials = credentials_of(args)
    url = checked_url(args.source, "--from", credentials)
    if not url.startswith("nats:"):
        raise UsageError(f"--from {args.source}: predictions are pulled from NATS; write nats://HOST:PORT")
    return url, credentials


def _wanted(args: argparse.Namespace, models: dict[str, Model]) -> dict[str, tuple[Wanted, ...]]:
    """What is published of each model. Nothing has been started yet, so that a wrong name costs nothing."""
    from percodec.runtime.serve.refusal import Refusal
    from percodec.runtime.serve.requests import Asked, wanted_of

    asked = [] if args.publish is None else [Asked(name.strip(), None) for name in args.publish.split(",")]
    try:
        return {name: wanted_of(model, asked) for name, model in models.items()}
    except Refusal as refusal:
        raise UsageError(f"--publish {args.publish}: {refusal}") from refusal


def _feed(bundles: dict[str, Bundle], engine: Engine, limits: Limits, wanted: dict[str, tuple[Wanted, ...]]) -> Feed:
    from percodec.runtime.serve.feed import Feed

    def answers_to(digest: str) -> str | None:
        return next((name for name, bundle in bundles.items() if bundle.answers_to(digest)), None)

    return Feed(engine, limits, wanted, answers_to)


def _say(args: argparse.Namespace, found: dict[str, object]) -> None:
    if args.json:
        print(json.dumps(found), flush=True)
        return
    for key, value in found.items():
        if key == "models" and isinstance(value, dict):
            for name, digest in value.items():
                print(printable(f"model     {name} {digest[:12]}"))
        elif isinstance(value, dict):
            print(f"{key:<9} {', '.join(f'{name} {count}' for name, count in value.items())}")
        elif value is not None:
            print(f"{key:<9} {value}")
    sys.stdout.flush()


def _engine(args: argparse.Namespace, bundles: dict[str, Bundle], models: dict[str, Model], limits: Limits, opening: Opening) -> Engine:
    from percodec.runtime.serve.engine import ThreadEngine

    if args.engine == "ray":
        return _ray_engine(args, bundles, models, limits, opening)
    for name in ("replicas", "gpus"):
        if getattr(args, name) is not None:
            raise UsageError(f"--{name} goes with --engine ray")
    workers = min(usable_cores(), 16) if args.workers is None else whole(args.workers, "--workers", 1, 64)
    return ThreadEngine(bundles, models, limits, opening, workers=workers)


def _ray_engine(args: argparse.Namespace, bundles: dict[str, Bundle], models: dict[str, Model], limits: Limits, opening: Opening) -> Engine:
    if args.workers is not None:
        raise UsageError("--workers goes with --engine threads; on Ray it is --replicas")
    low, _, high = (args.replicas or "1").partition("..")
    most = whole(high or low, "--replicas", 1, 1024)
    gpus = 0.0 if args.gpus is None else positive(args.gpus, "--gpus", 16)
    require("ray", "ray", "starlette")  # not ray.serve: looking for it would import Ray, and how Ray listens is decided then
    from percodec.runtime.serve.ray_engine import RayEngine, Replicas

    replicas = Replicas(whole(low, "--replicas", 1, most), most, gpus)
    print("percodec: starting the workers on Ray", file=sys.stderr, flush=True)
    return RayEngine(bundles, models, limits, opening, replicas=replicas, policy=demand_of(args).policy)


def _addresses(args: argparse.Namespace) -> list[tuple[str, str]]:
    return [("grpc", args.grpc), ("http", args.http)]


def _limits(args: argparse.Namespace) -> Limits:
    from percodec.runtime.serve.requests import Limits

    packets = whole(args.max_packets, "--max-packets", 1, 4096)
    return Limits(
        body_bytes=min(size_of(args.max_body, "--max-body"), 1 << 30), packets=packets,
        frames=whole(args.queue, "--queue", packets, 1 << 20), timeout_s=positive(args.timeout, "--timeout", 86400),
        drain_s=positive(args.drain, "--drain", 3600),
    )  # fmt: skip


def _bundles(args: argparse.Namespace) -> dict[str, Bundle]:
    from percodec.runtime.session import open_bundle

    found: dict[str, Bundle] = {}
    if args.expect_digest is not None and len(args.bundles) > 1:
        raise UsageError("--expect-digest goes with one bundle")
    for word in args.bundles or [str(bundle_named(None))]:
        name, _, folder = word.rpartition("=") if re.match(r"[\w.-]+=", word) else ("", "", word)
        bundle = open_bundle(bundle_named(folder), demand_of(args))
        name = name or bundle.name
        if not re.fullmatch(r"[\w.-]{1,64}", name, re.ASCII):
            raise UsageError(f"{word}: a model's name has letters, digits, dots, - and _, at most 64; write NAME={folder}")
        if name in found:
            raise UsageError(f"two bundles are called {name}; give one another name: OTHER={folder}")
        found[name] = bundle
    return found


def _tls(args: argparse.Namespace) -> Tls | None:
    from percodec.runtime.serve.tls import Tls

    if (args.tls_cert is None) != (args.tls_key is None):
        raise UsageError("--tls-cert and --tls-key go together")
    if args.tls_cert is None:
        if args.client_ca is not None:
            raise UsageError("--client-ca needs --tls-cert and --tls-key")
        return None
    found = Tls(Path(args.tls_cert), Path(args.tls_key), None if args.client_ca is None else Path(args.client_ca))
    found.http()
    return found


def _on_signals(stop: asyncio.Event | None) -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        with contextlib.suppress(ValueError, RuntimeError):
            if stop is None:
                asyncio.get_running_loop().remove_signal_handler(number)
            elif signal.getsignal(number) != signal.SIG_IGN:
                asyncio.get_running_loop().add_signal_handler(number, stop.set)


__all__ = ["configure_serve", "serve"]
