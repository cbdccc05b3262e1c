"""`percodec replay`: arguments and printing; the work is `run.replay`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from percodec.runtime.commands.arguments import add_allow_damaged, add_common, add_heads, bundle_of, heads_of, log_key_of, whole
from percodec.sdk.errors import LogError
from percodec.sdk.text import printable


def configure_replay(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("log", help="packets.mcap of a run, its folder of segments, or the run's folder")
    parser.add_argument("--against", metavar="FILE", help="frames.jsonl of the live run (default: the one beside the log, if any)")
    add_common(parser)
    add_heads(parser)
    parser.add_argument("--log-key", metavar="FILE", help="check the log's proofs with this key, too, as percodec verify-log does")
    add_allow_damaged(parser)


def _beside(log: Path) -> Path | None:
    """The JSON lines of the run that wrote `log`, a file, a folder of segments or the run's own folder."""
    folders = [log, log.resolve().parent] if log.is_dir() else [log.parent]
    return next((folder / "frames.jsonl" for folder in folders if (folder / "frames.jsonl").is_file()), None)


def replay(args: argparse.Namespace) -> int:
    from percodec.runtime.run.replay import replay_log

    path = Path(args.log)
    against = Path(args.against) if args.against else _beside(path)
    bundle, threads = bundle_of(args), whole(args.threads, "--threads", 1, 64)
    result = replay_log(
        path, bundle, against=against, backend=args.backend, threads=threads, heads=heads_of(args), log_key=log_key_of(args)
    )
    if args.json:
        print(json.dumps(result.as_dict(), indent=2))
    else:
        print(printable(f"replayed {result.frames} frames of {path} with {bundle.name} {bundle.digest[:12]}"))
        if against is not None:
            print(
                f"against  {against}: {result.compared} compared, {len(result.latents_differ)} latents differ, "
                f"{len(result.labels_differ)} predictions differ, {len(result.missing)} acknowledged frames missing"
            )
        if len(result.heads_differ) > 1:
            print("heads    " + ", ".join(f"{name}: {len(frames)} differ" for name, frames in result.heads_differ.items()))
        if result.proved is not None:
            print(f"proved   {result.proved} records, with the log's key")
        if result.lost or result.damaged:
            print(f"lost     {len(result.lost)} packets that need one which is missing, {result.damaged} damaged records")
        shares = sorted(result.class_shares.items(), key=lambda item: -item[1])
        if shares:
            print(printable("classes  " + ", ".join(f"{name} {share:.1%}" for name, share in shares)))
    for text in result.contradictions:
        print(printable(f"wrong    {text}"), file=sys.stderr if args.json else sys.stdout)
    sys.stdout.flush()
    forgiven = args.allow_damaged
    missing = [] if forgiven and (result.incomplete or result.truncated) else result.missing
    if missing or result.latents_differ or result.labels_differ:
        worst = (missing or result.latents_differ or result.labels_differ)[0]
        kind = "is missing from the log" if missing else "has another latent" if result.latents_differ else "has other predictions"
        total = len(missing) + len(result.latents_differ) + len(result.labels_differ)
        damage = f" ({result.incomplete})" if result.incomplete else ""
        raise LogError(f"{path}: the replay differs from {against} in {total} places; first, frame {worst} {kind}{damage}")
    if result.contradictions:
        more = f", and {len(result.contradictions) - 1} more contradictions" if len(result.contradictions) > 1 else ""
        raise LogError(f"{path}: {result.contradictions[0]}{more}")
    if forgiven:
        return 0
    if result.incomplete:
        raise LogError(f"{path}: {result.incomplete}; the other {result.frames} frames were replayed. --allow-damaged takes it as it is")
    if result.frames == 0:
        raise LogError(f"{path}: the log holds no packets{'; it is cut off before the first' * result.truncated}")
    if result.truncated and result.compared == 0:
        raise LogError(f"{path}: the log is cut off or was never closed; its {result.frames} complete frames were replayed")
    if result.truncated and not args.json:
        print("note     the log was never closed (a killed run); every acknowledged frame is in it")
    return 0


__all__ = ["configure_replay", "replay"]
