"""Whatever is typed: every command, with words that are empty, huge, no numbers, no text, no files, or there twice.

Nothing ends in exit 70 or a traceback, nothing hangs, nothing takes 500 MB. Each example starts from a command that works, in a fresh copy
of a folder with one of everything, and spoils a few of its words.
"""

from __future__ import annotations

import argparse
import functools

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from support.yard import Walk

from percodec.sdk import cli

pytest.importorskip("torch", reason="needs the export extra: its commands are among those that are tried")

B = ("--bundle", "bundle")
CODEC = ("--set", 'data.train=[["folder:{pics}",1.0]]', "--set", "data.val=folder:{pics}", "--data", "pics=pictures", "--threads", "1")
SHORT = ("--set", "crops.size=64", "--set", "crops.batch=1", "--set", "schedule.steps=1", "--set", "schedule.validate_every=1")
QUICK: tuple[tuple[str, ...], ...] = (
    ("inspect", "bundle"),
    ("inspect", "log.mcap"),
    ("inspect", "packet.pcpk"),
    ("encode", "clip.avi", "-o", "o.mcap", *B),
    ("encode", "picture.png", "-o", "o.pcpk", *B),
    ("decode", "log.mcap", "-o", "o", *B),
    ("decode", "packet.pcpk", "-o", "o", "--labels", "--segment", *B),
    ("replay", "log.mcap", *B),
    ("replay", "done/packets.mcap", *B),
    ("doctor", *B),
    ("bag", "info", "bag.mcap"),
    ("bag", "import", "log.mcap", "o", "--topic", "/front", *B),
)
OTHERS: tuple[tuple[str, ...], ...] = (
    ("run", "clip.avi", "--out", "o", "--no-selftest", "--no-overlay", "--no-sheet", *B),
    ("run", "pictures", "--out", "o", "--save-labels", "m", *B),
    ("bag", "compress", "bag.mcap", "o.mcap", "--all", *B),
    ("bag", "predict", "bag", "o", *B),
    ("bag", "compress", "one.bag", "o", "--topic", "/front/image_raw", *B),
    ("uplink", "done", "--to", "nats://127.0.0.1:9", "--ca", "text.txt", "--cert", "text.txt", "--key", "text.txt", "--drain"),
    ("ingest", "--from", "nats://127.0.0.1:9", "--archive", "o", "--ca", "text.txt", "--cert", "text.txt", "--key", "text.txt"),
    ("serve", "bundle", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--no-selftest"),
    ("demo", "--frames", "2", "--out", "o", *B),
    ("profile", "bundle", "clip.avi", "--frames", "10", "--warmup", "0", "--parts", "fixed", "--out", "o"),
    ("profile", "compare", "done/report.json", "text.txt"),
    ("train", "codec", "--out", "o", "--print-config"),
    ("train", "codec", "--out", "o", *CODEC, *SHORT),
    ("evaluate", "storage", "--images", "pictures", "--bundle", "bundle", "--limit", "1"),
    ("evaluate", "segmentation", "--bundle", "bundle", "--data", "camvid:camvid:val", "--limit", "1"),
    ("evaluate", "rd", "--images", "pictures", "--bundle", "bundle", "--codecs", "jpeg", "--limit", "1", "--out", "o"),
    ("export", "bundle", "--head", "x=head.onnx:array", "--out", "o"),
    ("build", "bundle", "--target", "host", "--precision", "fp32"),
    ("build", "bundle", "--target", "host", "--precision", "int8", "--calibrate", "folder:pictures", "--frames", "2"),
    ("verify", "bundle", "--data", "folder:pictures", "--limit", "1", "--precision", "fp32"),
    ("restore", "compress", "pictures", "o", "--codec", "jpeg:q30"),
    ("restore", "apply", "pictures", "o", "--restorer", "head.onnx"),
    ("restore", "train", "--clean", "pictures", "--compressed", "pictures", "--out", "o", "--set", "schedule.steps=1", "--threads", "1"),
    ("dataset", "stats", "done", "o"),
    ("dataset", "predict", "log.mcap", "o", *B),
    ("dataset", "encode", "camvid", "o", "--labels", *B),
    ("dataset", "restore", "done", "o", "--restorer", "head.onnx", *B),
    ("shift", "--data", "camvid:camvid", "--codec", "jpeg:q30", "--out", "o", "--workers", "1", "--set", "schedule.steps=x"),
)


OTHERS += tuple((command.name,) for command in cli._commands()[0] if command.name not in {words[0] for words in QUICK + OTHERS})


def listed(text: str) -> tuple[str, ...]:
    return tuple(text.split())


PLACES = (
    *listed(
        "bundle log.mcap cut.mcap bad.mcap packet.pcpk picture.png bag bag.mcap one.bag rosbag clip.avi "
        "pictures camvid camvid/train empty text.txt none.png none.mcap "
        "bad.yaml list.yaml pipe.yaml bad.pt dangling loop pipe pipe.png zero full void nowhere . - x://y o o/p/q bundle/manifest.json "
        "bundle/encoder.onnx head.onnx done done/report.json done/frames.jsonl budget.yaml o.onnx o.pcpk camvid:camvid:train "
        "folder:pictures folder:zero folder:pipe folder: voc:camvid:val synthetic:2:1 synthetic:-1:1 v4l2://0 synthetic://road?frames=2 "
        "synthetic://road synthetic://road?frames=-1 gstreamer://x pics=zero pics=pictures /proc/self/mem"
    ),
    *("a" * 300, "\udce4.png", "\udcff", "a\nb", "%s", "{x}", "*", "\u2460", " ", "", "~"),
)
VALUES = listed(
    "0 -1 1 2 1e309 nan inf -inf 99999999999999999999 1.5 0x10 1_000 true null , 1,2 1,,2 1x1 64x96 0x0 -1x-1 9999999x9999999 \u0663 a,b "
    "all segmentation ort ort:int8 ort: tensorrt tensorrt_rtx fake nv12:64x96 yuyv:0x0 latest block host orin-jp6 int8 fp16 int8+fp16 [ ( "
    "encoder encoder+head_segmentation jpeg:0.1 jpeg: jpeg:nan jpeg:q999 percodec:bundle ray:0 ray:x x=picture.png x=head.onnx:array = x= "
    "x=head.onnx a.b=1 schedule.steps=nan schedule.lr=-1 codec.name=x codec.channels=0 crops.size=99999999 data.train=1 data.val=[] seed=x "
    "a=b=c fixed,peak fast klt"
)


@functools.cache
def options(command: str) -> list[tuple[str, bool]]:
    """(option, whether it takes a value) of a command and of what is below it."""
    parsers = [cli.parser_of(next(c for c in cli._commands()[0] if c.name == command))]
    for parser in parsers:
        parsers += [p for a in parser._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
    return [(a.option_strings[-1], a.nargs != 0) for p in parsers for a in p._actions if a.option_strings and a.dest != "help"]


@st.composite
def spoiled(draw: st.DrawFn, commands: tuple[tuple[str, ...], ...]) -> list[str]:
    """A command that works, with one to three words replaced, added, or taken away."""
    words = list(draw(st.sampled_from(commands)))
    bad = st.sampled_from(PLACES + VALUES)
    for _ in range(draw(st.sampled_from((1, 1, 1, 2, 3)))):
        kind = draw(st.sampled_from(("place", "place", "option", "joined", "gone", "twice")))
        values = [k for k in range(1, len(words)) if not words[k].startswith("-")]
        if kind == "place" and values:
            words[draw(st.sampled_from(values))] = draw(bad)
        elif kind == "gone" and len(words) > 1:
            del words[draw(st.integers(1, len(words) - 1))]
        elif kind == "twice":
            words += words[1:]
        elif options(words[0]):
            option, takes = draw(st.sampled_from(options(words[0])))
            words += [option] if not takes else [f"{option}={draw(bad)}"] if kind == "joined" else [option, draw(bad)]
    return words


def trial(walk: Walk, commands: tuple[tuple[str, ...], ...], examples: int, impatient: bool) -> None:
    """The short form tries the same every time, the long one always others."""

    @settings(
        max_examples=examples, derandomize=examples < 1000, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
    )
    @given(spoiled(commands))
    def tried(words: list[str]) -> None:
        wrong = walk(words, impatient)
        assert not wrong, f"percodec {words}: {wrong}"

    tried()


@pytest.mark.parametrize("examples", [60, pytest.param(4000, marks=pytest.mark.long)])
def test_any_words_for_commands_that_are_quick(walk: Walk, examples: int) -> None:
    trial(walk, QUICK, examples, impatient=True)


@pytest.mark.parametrize("examples", [40, pytest.param(4000, marks=pytest.mark.long)])
def test_any_words_for_commands_that_may_take_long(walk: Walk, examples: int) -> None:
    trial(walk, OTHERS, examples, impatient=False)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("bag import log.mcap o --topic \udcff --bundle bundle", "\\\\udcff' is not UTF-8"),
        ("bag compress bag.mcap o.mcap --topic /a=\udcff --bundle bundle", "is not UTF-8"),
        ("export bundle --head x=head.onnx:array --out \udcff", "bundle name '\\\\udcff' is not UTF-8; give another with --name"),
        ("export bundle --head x=head.onnx:array --out o --name \udcff", "is not UTF-8"),
        ("inspect \ud800", "half of a surrogate pair"),
        ("bag compress bag.mcap \ud800 --all --bundle bundle", "half of a surrogate pair"),
    ],
)
def test_bytes_that_are_no_text_are_refused_where_text_is_kept(walk: Walk, words: str, said: str) -> None:
    assert walk(words.split()) == ""
    code, err = walk.last
    assert code == 2
    assert said in err


@pytest.mark.long
def test_bytes_that_are_no_text_in_every_place(walk: Walk) -> None:
    for words in QUICK + OTHERS:
        places = [k for k, word in enumerate(words) if k and not word.startswith("-")]
        tries = [[*words[:k], "\udcff", *words[k + 1 :]] for k in places]
        tries += [[*words, f"{option}=\udcff"] for option, takes in options(words[0]) if takes]
        for tried in tries:
            assert walk(tried) == "", tried


def test_the_words_begin_with_commands_that_work(walk: Walk) -> None:
    for words in QUICK:
        assert walk(list(words), impatient=True) == ""
    assert {words[0] for words in QUICK + OTHERS} >= {command.name for command in cli._commands()[0]}, "every command is walked"
