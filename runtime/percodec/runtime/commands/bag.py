"""`percodec bag`: arguments and printing; the work is in `percodec.runtime.bag`."""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from percodec.runtime.bag.compress import Compress, about, first_formats, targets
from percodec.runtime.bag.import_log import import_log
from percodec.runtime.bag.info import Topic, topics_of
from percodec.runtime.bag.open import Bag, open_bag
from percodec.runtime.bag.packets import PacketWriter
from percodec.runtime.bag.predict import Calibrate, Predict, beside
from percodec.runtime.bag.records import Progress
from percodec.runtime.bag.restore import Restore, image_topic, packet_targets
from percodec.runtime.bag.sessions import Sessions
from percodec.runtime.bag.transform import Outcome, Step, transform
from percodec.runtime.bag.write import BagWriter
from percodec.runtime.commands.arguments import add_stream, bundle_of, key_every_of, size_text, whole
from percodec.runtime.engines.open import cpu_graph, takes_any_size
from percodec.runtime.messages.cdr import CameraInfo
from percodec.runtime.messages.format import PacketFormat, is_packet_format
from percodec.runtime.session import stream_codec
from percodec.sdk.bundle import Bundle, GraphInfo
from percodec.sdk.cli import text_argument
from percodec.sdk.errors import BagError, UsageError
from percodec.sdk.fit import PAD
from percodec.sdk.machine import usable_cores
from percodec.sdk.text import printable


def configure_bag(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    info = actions.add_parser("info", help="topics, and what is known of their packets: bundle, size, rate, losses")
    info.add_argument("input", metavar="IN", help="bag: .mcap, a rosbag2 folder, .db3, a ROS 1 .bag")
    info.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")

    compress = _action(actions, "compress", "pictures become packets on IMAGE/percodec; everything else stays as it is")
    compress.add_argument(
        "--fit", choices=("whole", "bundle"), default="whole", help="whole pictures (default), or fitted to the bundle's frame"
    )
    compress.add_argument("--keep-raw", action="store_true", help="keep the pictures beside the packets")
    add_stream(compress)

    predict = _action(actions, "predict", "class ids of every picture or packet, as images beside them")
    predict.add_argument("--head", metavar="NAME", help="segmentation head of the bundle (default: its first)")

    restore = _action(actions, "restore", "packets become pictures again, with the size, encoding, stamp and frame id they had")
    restore.add_argument("--keep-packets", action="store_true", help="keep the packets beside the pictures")

    log = actions.add_parser("import", help="a log of percodec (packets.mcap) becomes a bag")
    log.add_argument("input", metavar="LOG", help="packets.mcap of a run")
    log.add_argument("output", metavar="OUT", help="bag to write: NAME.mcap, or a folder")
    log.add_argument("--topic", type=text_argument, required=True, metavar="TOPIC", help="of the packets: /front/image_raw/percodec")
    log.add_argument("--frame-id", type=text_argument, default="camera", metavar="NAME", help="frame id of the headers (default camera)")
    _common(log)


def _action(actions: Any, name: str, text: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = actions.add_parser(name, help=text)
    parser.add_argument("input", metavar="IN", help="bag: .mcap, a rosbag2 folder, .db3, a ROS 1 .bag")
    parser.add_argument("output", metavar="OUT", help="bag to write: NAME.mcap, or a folder")
    named = "TOPIC, or TOPIC=NEW to name the new one; repeatable"
    parser.add_argument("--topic", type=text_argument, action="append", default=[], metavar="TOPIC", help=named)
    parser.add_argument("--all", action="store_true", help="every topic that fits; of pictures those in colour")
    parser.add_argument("--backend", default="ort", metavar="NAME", help="ort (default), ort:fp32, ort:int8")
    parser.add_argument("--threads", metavar="N", help="pictures at the same time (default: one for each core)")
    _common(parser)
    return parser


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--bundle", metavar="FOLDER", help="bundle to use (default: the built-in road)")
    parser.add_argument("--overwrite", action="store_true", help="replace OUT")
    parser.add_argument("--json", action="store_true", help="print the result as JSON instead of a table")


def bag(args: argparse.Namespace) -> int:
    if args.action == "info":
        return _info(args)
    source, out = Path(args.input), Path(args.output)
    if source.exists() and out.exists() and source.resolve() == out.resolve():
        raise UsageError(f"{out}: is the input; choose another name")
    if not out.absolute().parent.is_dir():
        raise UsageError(f"{out.parent}: no such folder")
    if args.action == "import":
        return _import(args, source, out)
    if bool(args.topic) == args.all:
        raise UsageError("name topics with --topic, or take every one that fits with --all")
    opened = open_bag(source)
    return {"compress": _compress, "predict": _predict, "restore": _restore}[args.action](args, opened, out)


def _compress(args: argparse.Namespace, opened: Bag, out: Path) -> int:
    bundle, every = bundle_of(args), key_every_of(args)
    chosen = targets(opened, args.topic, args.all, first_formats(opened) if args.all else {})
    PacketFormat.of(bundle, "rgb8", 8, 8, bundle.fit)  # a name that viewers misread is told before the work
    if args.stream:
        stream_codec(bundle)  # so is a bundle without tables
    sessions = Sessions(bundle, args.backend)
    steps = {
        target.source.topic: Compress(
            sessions, target, PacketWriter(bundle, k, every if args.stream else None), whole=args.fit == "whole", keep=args.keep_raw
        )
        for k, target in enumerate(chosen)
    }
    names = {target.source.topic: target.topic for target in chosen}
    return _run(args, opened, out, steps, names, lambda: about(bundle, zip(chosen, steps.values(), strict=True)), keep=args.keep_raw)


def _predict(args: argparse.Namespace, opened: Bag, out: Path) -> int:
    bundle = bundle_of(args)
    head = bundle.head(args.head)
    if head.task != "segmentation":
        raise UsageError(f"the head {head.name.removeprefix('head_')} is a {head.task}; label images come from segmentations")
    name, firsts = head.name.removeprefix("head_"), first_formats(opened)
    packets = {topic for topic, text in firsts.items() if is_packet_format(text)}
    wanted = [text.partition("=")[0] for text in args.topic]
    sort = packets if args.all else packets.intersection(wanted)

    def new(topic: str) -> str:
        return beside(topic, "segmentation/labels")

    found = packet_targets(opened, [t for t in args.topic if t.partition("=")[0] in sort], args.all, firsts, new) if sort else []
    plain = [text if "=" in text else f"{text}={new(text)}" for text in args.topic if text.partition("=")[0] not in sort]
    if args.all and not packets:
        plain = [f"{t.source.topic}={new(t.source.topic)}" for t in targets(opened, [], True, firsts)]
    found += targets(opened, plain, False, firsts) if plain else []
    for target in found:
        _check_size(bundle, head, args.backend, target.source.topic, firsts)
    sessions = Sessions(bundle, args.backend, (name,))
    steps: dict[str, Step] = {t.source.topic: Predict(sessions, name, t.source, t.topic, packets=t.source.topic in packets) for t in found}
    names = {t.source.topic: t.topic for t in found}
    infos = {channel.topic: channel for channel in opened.channels if channel.schema == CameraInfo.NAME}
    for target in found:
        info = infos.get(beside(target.source.topic, "camera_info"))
        if info is not None and info.topic not in steps:
            text = firsts.get(target.source.topic, "")
            kept = is_packet_format(text) and PacketFormat.from_text(text).fit == PAD
            steps[info.topic] = Calibrate(sessions, info, f"{target.topic.rpartition('/')[0]}/camera_info", whole=kept)
            names[info.topic] = f"{target.topic.rpartition('/')[0]}/camera_info"
    return _run(args, opened, out, steps, names, keep=True)


def _check_size(bundle: Bundle, head: GraphInfo, backend: str, topic: str, firsts: Mapping[str, str]) -> None:
    """Packets of whole pictures are for heads that take any size."""
    form = PacketFormat.from_text(firsts[topic]) if is_packet_format(firsts.get(topic, "")) else None
    if form is None or form.fit != PAD or (form.width, form.height) == (bundle.frame_width, bundle.frame_height):
        return
    if not takes_any_size(cpu_graph(bundle, head.name, backend.partition(":")[2] or None)[0]):
        raise UsageError(
            f"{topic} has packets of whole pictures, {form.width}x{form.height}; {bundle.name}'s {head.name} reads "
            f"{bundle.frame_width}x{bundle.frame_height}: predict from the pictures, or from packets of bag compress --fit bundle"
        )


def _restore(args: argparse.Namespace, opened: Bag, out: Path) -> int:
    found = packet_targets(opened, args.topic, args.all, first_formats(opened), image_topic)
    sessions = Sessions(bundle_of(args), args.backend)
    steps = {t.source.topic: Restore(sessions, t, keep=args.keep_packets) for t in found}
    return _run(args, opened, out, steps, {t.source.topic: t.topic for t in found}, keep=args.keep_packets)


def _run(
    args: argparse.Namespace,
    opened: Bag,
    out: Path,
    steps: Mapping[str, Step],
    names: Mapping[str, str],
    remark: Callable[[], Any] | None = None,
    *,
    keep: bool,
) -> int:
    """`keep`: messages of the topics in `steps` stay beside what they become."""
    workers = whole(args.threads, "--threads", 1, 256) if args.threads else usable_cores()
    begun = time.monotonic()
    with BagWriter(out, profile=opened.profile, overwrite=args.overwrite) as writer, _progress() as progress:
        for channel in opened.channels:
            if keep or channel.topic not in steps:
                writer.declare(channel)
        outcome = transform(opened, writer, steps, workers, progress)
        if remark is not None:
            writer.add(remark())
        size = writer.finish(opened.information())
    return _tell(args, outcome, names, out, size, time.monotonic() - begun)


def _import(args: argparse.Namespace, source: Path, out: Path) -> int:
    begun = time.monotonic()
    with BagWriter(out, overwrite=args.overwrite) as writer, _progress() as progress:
        outcome = import_log(source, writer, bundle_of(args), args.topic, args.frame_id, progress)
        size = writer.finish()
    return _tell(args, outcome, {str(source): args.topic}, out, size, time.monotonic() - begun)


def _tell(args: argparse.Namespace, outcome: Outcome, names: Mapping[str, str], out: Path, size: int, seconds: float) -> int:
    result = {
        "messages": outcome.messages,
        "written": outcome.written,
        "topics": dict(names),
        "read_bytes": outcome.read_bytes,
        "made_bytes": outcome.made_bytes,
        "file_bytes": size,
        "seconds": round(seconds, 3),
        "refused": outcome.refused,
        "damage": outcome.damage,
        "output": str(out),
    }
    if args.json:
        print(json.dumps(result, indent=2))
    else:
        for old, new in names.items():
            print(printable(f"{old} -> {new}"))
        print(f"{outcome.messages} messages, {size_text(outcome.read_bytes)} became {size_text(outcome.made_bytes)}, in {seconds:.1f} s")
        print(printable(f"wrote    {out}  ({size_text(size)})"))
    sys.stdout.flush()
    faults = [f"{count} messages of {topic} were kept as they are ({outcome.reasons[topic]})" for topic, count in outcome.refused.items()]
    faults += outcome.damage[:1] + ([f"and {len(outcome.damage) - 1} more damaged places"] if len(outcome.damage) > 1 else [])
    if faults:
        raise BagError(f"{out} has what could be read: {'; '.join(faults)}")
    return 0


def _info(args: argparse.Namespace) -> int:
    opened = open_bag(Path(args.input))
    with _progress() as progress:
        topics = topics_of(opened, progress)
    if args.json:
        print(json.dumps({"kind": opened.kind, "topics": [topic.as_dict() for topic in topics], "damage": opened.damage}, indent=2))
    else:
        print(
            printable(f"{args.input}: {opened.kind}, {sum(t.messages for t in topics)} messages, {size_text(sum(t.bytes for t in topics))}")
        )
        for topic in topics:
            print(printable(_row(topic)))
    sys.stdout.flush()
    lost, broken = sum(t.lost for t in topics), sum(t.broken for t in topics)
    if opened.damage:
        raise BagError("; ".join(opened.damage[:3]) + (f" and {len(opened.damage) - 3} more" if len(opened.damage) > 3 else ""))
    if broken:
        raise BagError(f"{args.input}: {broken} messages are not what their topic says")
    if lost and not args.json:
        print(f"note     {lost} packets were lost before they were recorded: their counters leave gaps")
    return 0


def _row(topic: Topic) -> str:
    row = topic.as_dict()
    hz = "" if row["hz"] is None else f"  {row['hz']:.1f} Hz"
    text = f"  {topic.topic}  {topic.type}  {topic.messages}  {size_text(topic.bytes)}{hz}"
    text += f"\n      {topic.format}" if topic.format else ""
    if topic.packets:
        text += f"\n      {topic.packets} packets, {topic.keys} stand alone, {topic.lost} lost, {row['bpp']:.4f} bpp"
    return text


@contextlib.contextmanager
def _progress() -> Iterator[Progress]:
    """A bar on stderr while it is a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, of: None
        return
    width, last = min(40, max(10, shutil.get_terminal_size().columns - 30)), [0.0]

    def show(done: int, of: int) -> None:
        now = time.monotonic()
        if now - last[0] < 0.1:
            return
        last[0] = now
        share = done / of if of else 1.0
        with contextlib.suppress(OSError):  # the terminal was closed
            sys.stderr.write(f"\r  [{'#' * int(share * width):<{width}}] {share:4.0%}")
            sys.stderr.flush()

    try:
        yield show
    finally:
        with contextlib.suppress(OSError):
            sys.stderr.write("\r" + " " * (width + 12) + "\r")


__all__ = ["bag", "configure_bag"]
