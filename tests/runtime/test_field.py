"""What users bring from the field: names, folders, terminals and signals, through the real command line."""

from __future__ import annotations

import json
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from support.command import percodec_command, quiet_environment

from percodec.runtime.capture.images import ImageFiles, natural_key
from percodec.runtime.run.outputs import write_json
from percodec.sdk import Bundle, LogWriter, read_log
from percodec.sdk.errors import UsageError
from percodec.sdk.folder_lock import NAME, FolderLock
from percodec.sdk.text import native_name, printable, shown, with_home

ROAD = "synthetic://road?frames=4000&height=96&width=128"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Three frames, MPEG-4 in MP4."""
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter_fourcc(*"mp4v"), 20, (128, 96))
    for k in range(3):
        writer.write(np.full((96, 128, 3), 60 * k, np.uint8))
    writer.release()
    return tmp_path / "clip.mp4"


def environment(**changes: str) -> dict[str, str]:
    hidden = ("ORT_DISABLE_TELEMETRY", "ORT_TELEMETRY_DISABLED", "XDG_CACHE_HOME", "CI")
    return {key: value for key, value in quiet_environment().items() if key not in hidden} | changes


def run(*words: object, cwd: Path, **changes: str) -> subprocess.CompletedProcess[bytes]:
    command = [word if isinstance(word, bytes) else os.fsencode(str(word)) for word in (*percodec_command(), *words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, check=False, timeout=120, env=environment(**changes))


@pytest.mark.parametrize("how", [(), ("--isolate",)])
def test_a_run_leaves_nothing_in_home(bundle_folder: Path, tmp_path: Path, how: tuple[str, ...]) -> None:
    (tmp_path / "home").mkdir()
    words = ("run", "synthetic://road?frames=2", "--out", "o", "--bundle", bundle_folder, "--no-overlay", "--no-sheet", *how)
    done = run(*words, cwd=tmp_path, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "home").rglob("*")) == []


@pytest.mark.parametrize("name", [b"dr\xe4nge.mp4", b"10:30:00.mp4", "dränge.mp4".encode(), b"file:a.mp4", b"\xff/\xe4.mp4"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_file_is_a_file_whatever_its_name(bundle_folder: Path, clip: Path, tmp_path: Path, name: bytes, locale: str) -> None:
    source = os.fsencode(tmp_path) + b"/" + name
    os.makedirs(os.path.dirname(source), exist_ok=True)
    shutil.copyfile(os.fsencode(clip), source)
    out = b"out-" + os.path.basename(name)
    plain = {"LC_ALL": locale, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    done = run("run", name, "--out", out, "--bundle", bundle_folder, "--no-selftest", cwd=tmp_path, **plain)
    assert done.returncode == 0, done.stderr
    made = sorted(os.listdir(os.fsencode(tmp_path) + b"/" + out))
    assert made == [b"contact_sheet.png", b"frames.jsonl", b"overlay.mp4", b"packets.mcap", b"report.json"]
    with open(os.fsencode(tmp_path) + b"/" + out + b"/report.json") as file:
        spec = json.load(file)["source"]["spec"]
    assert spec.encode("utf-8"), "a report is text of every JSON reader"


def test_decoded_pictures_go_where_they_are_sent(bundle_folder: Path, clip: Path, tmp_path: Path) -> None:
    assert run("encode", clip, "-o", "a.mcap", "--bundle", bundle_folder, cwd=tmp_path).returncode == 0
    for folder in (b"10:34:00", b"o\xe4"):
        done = run("decode", "a.mcap", "-o", folder, "--bundle", bundle_folder, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert os.path.getsize(os.fsencode(tmp_path) + b"/" + folder + b"/reconstruction.mp4") > 0


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_what_a_terminal_cannot_show_is_escaped(bundle_folder: Path, clip: Path, tmp_path: Path, encoding: str) -> None:
    name = "dränge-\u2460.mp4"
    clip.rename(tmp_path / name)
    done = run("run", name, "--out", "o", "--bundle", bundle_folder, "--no-selftest", "--no-sheet", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert done.returncode == 0, done.stderr
    assert name.encode(encoding, "backslashreplace") in done.stdout


def test_home_is_expanded_where_shells_leave_it(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    words = ("encode", "synthetic://road?frames=2", "--out=~/t.mcap", "--bundle", bundle_folder)
    done = run(*words, cwd=tmp_path, HOME=str(tmp_path / "home"))
    assert done.returncode == 0, done.stderr
    assert len(list(read_log(tmp_path / "home" / "t.mcap"))) == 2


def test_words_with_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/people/ann")
    asked = ["~", "~/x", "--out=~/x", "-o~/x", "--head=depth=~/d.onnx:array", "./~", "a~/x", "~x", "--out=~x", "gstreamer://~/x", "x/~/y"]
    assert [with_home(word) for word in asked] == [
        "/people/ann", "/people/ann/x", "--out=/people/ann/x", "-o/people/ann/x", "--head=depth=/people/ann/d.onnx:array", *asked[5:],
    ]  # fmt: skip


def test_outside_text() -> None:
    assert native_name(os.fsdecode(b"/a/\xe4:b")) == b"/a/\xe4:b"
    assert native_name("a:b") == os.fsencode(os.getcwd()) + b"/a:b"
    assert shown("ä\udce4\ud800") == "ä\\udce4\\ud800"


def test_digits_that_int_does_not_know() -> None:
    assert sorted(["\u2460", "2", "10", "\u00b2", "1", "\u0663"], key=natural_key) == ["1", "2", "\u0663", "10", "\u00b2", "\u2460"]


def test_hidden_files_are_noted_not_read(bundle_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "mac"
    folder.mkdir()
    for name in ("a.png", "b.png"):
        cv2.imwrite(str(folder / name), np.full((96, 128, 3), 90, np.uint8))
        (folder / f"._{name}").write_bytes(b"\0\5\26\7")
    (folder / "Thumbs.db").write_bytes(b"x")
    source = ImageFiles.from_folder(folder)
    frames = [frame.frame_id for frame in iter(source.read, None)]
    assert frames == [0, 1], "hidden files take no numbers"
    assert source.info.notes == ["2 hidden files were skipped (._a.png is the first)"]
    done = run("run", "mac", "--out", "o", "--bundle", bundle_folder, "--no-selftest", "--no-sheet", "--no-overlay", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert b"2 hidden files were skipped" in done.stdout


Live = subprocess.Popen[str]


def start(*words: object, cwd: Path) -> Live:
    command = percodec_command("run", ROAD, "--realtime", "--out", "o", "--no-selftest", *words)
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    wait_for_lines(cwd / "o" / "frames.jsonl", process)
    return process


def wait_for_lines(path: Path, process: subprocess.Popen[str] | None = None) -> None:
    for _ in range(600):
        if path.exists() and path.stat().st_size > 2000:
            return
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.1)
    raise AssertionError(f"{path} never came")


@pytest.fixture
def live(bundle_folder: Path, tmp_path: Path) -> Iterator[Live]:
    process = start("--bundle", bundle_folder, cwd=tmp_path)
    yield process
    process.kill()
    process.communicate()


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM, signal.SIGINT])
def test_a_signal_closes_everything(live: Live, tmp_path: Path, number: signal.Signals) -> None:
    live.send_signal(number)
    if number == signal.SIGHUP:
        live.send_signal(number)  # as a closing terminal does
    _, words = live.communicate(timeout=60)
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert (live.returncode, report["outcome"]) == (0, f"stopped by {number.name}"), words
    assert len(list(read_log(tmp_path / "o" / "packets.mcap"))) == report["frames"]["acknowledged"]
    assert cv2.VideoCapture(str(tmp_path / "o" / "overlay.mp4")).isOpened()


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once_and_the_log_is_whole(live: Live, tmp_path: Path, second: signal.Signals) -> None:
    os.kill(live.pid, signal.SIGSTOP)  # both arrive before anything can close
    for number in (signal.SIGHUP, second, signal.SIGCONT):
        os.kill(live.pid, number)
    live.communicate(timeout=60)
    assert live.returncode in (-second, 0), "0: the run was closed between the two"
    logged = {record.frame_id for record in read_log(tmp_path / "o" / "packets.mcap")}
    lines = [json.loads(line) for line in (tmp_path / "o" / "frames.jsonl").read_text().splitlines()]
    assert lines
    assert {line["frame_id"] for line in lines if line["logged"]} <= logged


def test_nohup_is_respected(bundle_folder: Path, tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        process = start("--bundle", bundle_folder, "--no-overlay", cwd=tmp_path)
    finally:
        signal.signal(signal.SIGHUP, before)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert json.loads((tmp_path / "o" / "report.json").read_text())["outcome"] == "stopped by SIGTERM"


def test_a_run_outlives_its_terminal(bundle_folder: Path, tmp_path: Path) -> None:
    master, terminal = pty.openpty()
    command = percodec_command("run", ROAD, "--realtime", "--out", "o", "--no-selftest", "--bundle", bundle_folder, "--isolate")
    process = subprocess.Popen(
        command, cwd=tmp_path, stdin=terminal, stdout=terminal, stderr=terminal, env=environment(), start_new_session=True
    )
    os.close(terminal)
    try:
        wait_for_lines(tmp_path / "o" / "frames.jsonl")
        os.close(master)
        os.killpg(process.pid, signal.SIGHUP)  # the worker hears it as well
        process.wait(timeout=60)
    finally:
        process.kill()
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert report["outcome"] == "stopped by SIGHUP"
    assert report["health"]["restarts"] == 0


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_encode_closes_its_log(bundle_folder: Path, tmp_path: Path, number: signal.Signals) -> None:
    process = subprocess.Popen(
        percodec_command("encode", "synthetic://road?frames=100000", "-o", "a.mcap", "--bundle", bundle_folder),
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    wait_for_lines(tmp_path / "a.mcap")
    process.send_signal(number)
    process.communicate(timeout=60)
    assert process.returncode == 128 + number
    log = read_log(tmp_path / "a.mcap")
    assert len(list(log)) > 0
    assert not log.truncated


def test_one_run_at_a_time(live: Live, bundle_folder: Path, tmp_path: Path) -> None:
    words = ("run", "synthetic://road?frames=2", "--out", "o", "--no-selftest", "--overwrite", "--bundle", bundle_folder)
    done = run(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count(b"\n") == 1
    assert f"in use by another run (process {live.pid})".encode() in done.stderr
    live.send_signal(signal.SIGTERM)
    live.communicate(timeout=60)
    report = json.loads((tmp_path / "o" / "report.json").read_text())
    assert len(list(read_log(tmp_path / "o" / "packets.mcap"))) == report["frames"]["acknowledged"]
    assert run(*words, cwd=tmp_path).returncode == 0
    assert NAME not in os.listdir(tmp_path / "o")


def test_death_gives_the_folder_up(live: Live, bundle_folder: Path, tmp_path: Path) -> None:
    live.kill()
    live.wait()
    assert (tmp_path / "o" / NAME).exists()
    FolderLock(tmp_path / "o").close()


def test_locks_and_planted_names(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path)
    with pytest.raises(UsageError, match=rf"process {os.getpid()}\)"):
        FolderLock(tmp_path)
    lock.close()
    lock.close()
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / NAME).symlink_to(precious)
    with pytest.raises(UsageError, match="cannot be opened"):
        FolderLock(tmp_path)
    (tmp_path / "report.json.part").symlink_to(precious)
    write_json(tmp_path / "report.json", {"a": 1})
    assert precious.read_text() == "mine"
    assert json.loads((tmp_path / "report.json").read_text()) == {"a": 1}


def test_commands_that_fill_a_folder_have_it_alone(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    cv2.imwrite(str(tmp_path / "f" / "a.png"), np.full((96, 128, 3), 90, np.uint8))
    data = ("--data", "pics=f", "--set", 'data.train=[["folder:{pics}",1.0]]', "--set", "data.val=folder:{pics}", "--threads", "1")
    commands = [
        ("profile", bundle_folder, "synthetic://road?frames=10", "--frames", "10", "--warmup", "0", "--parts", "fixed", "--out", "o"),
        ("restore", "compress", "f", "o", "--codec", "jpeg:q30"),
        ("train", "codec", "--out", "o", *data, "--set", "crops.size=64", "--set", "schedule.steps=1"),
    ]
    pytest.importorskip("torch", reason="needs the export extra")
    (tmp_path / "o").mkdir()
    lock = FolderLock(tmp_path / "o")
    for words in commands:
        done = run(*words, cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert f"in use by another run (process {os.getpid()})".encode() in done.stderr
    lock.close()
    assert run(*commands[1], cwd=tmp_path).returncode == 0


def test_label_maps_have_one_run_at_a_time(bundle_folder: Path, tmp_path: Path) -> None:
    process = start("--bundle", bundle_folder, "--no-overlay", "--save-labels", "maps", cwd=tmp_path)
    try:
        more = ("--no-selftest", "--overwrite", "--bundle", bundle_folder, "--save-labels")
        done = run("run", "synthetic://road?frames=2", "--out", "p", *more, "maps", cwd=tmp_path)
        assert done.returncode == 2
        assert f"in use by another run (process {process.pid})".encode() in done.stderr
        assert not (tmp_path / "p").exists(), "a start that fails leaves nothing behind"
    finally:
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
    assert run("run", "synthetic://road?frames=2", "--out", "p", *more, "maps", cwd=tmp_path).returncode == 0
    assert run("run", "synthetic://road?frames=2", "--out", "p", *more, "p", cwd=tmp_path).returncode == 0
    assert not [path for path in tmp_path.rglob("*") if path.name == NAME]


def test_one_writer_at_a_time(bundle_folder: Path, tmp_path: Path) -> None:
    bundle = Bundle.open(bundle_folder)
    first = LogWriter(tmp_path / "a.mcap", bundle)
    encode = ("encode", "synthetic://road?frames=2", "-o", "a.mcap", "--overwrite", "--bundle", bundle_folder)
    done = run(*encode, cwd=tmp_path)
    assert done.returncode == 1
    assert f"is being written by process {os.getpid()}".encode() in done.stderr
    first.close()
    assert run(*encode, cwd=tmp_path).returncode == 0
    precious = tmp_path / "precious"
    precious.write_text("mine")
    (tmp_path / "a.mcap").unlink()
    (tmp_path / "a.mcap").symlink_to(precious)
    assert run(*encode, cwd=tmp_path).returncode == 0
    assert precious.read_text() == "mine"
    lock = FolderLock(tmp_path)
    done = run("decode", "a.mcap", "-o", ".", "--bundle", bundle_folder, cwd=tmp_path)
    assert (done.returncode, done.stderr.count(b"\n")) == (2, 1)
    assert b"in use by another run" in done.stderr
    lock.close()
    assert run("decode", "a.mcap", "-o", ".", "--bundle", bundle_folder, cwd=tmp_path).returncode == 0


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07.mp4", "a\u202egpm.mp4", "a\x9b2J.mp4", "a\rb.mp4"])
def test_names_do_not_steer_the_terminal(bundle_folder: Path, clip: Path, tmp_path: Path, name: str) -> None:
    clip.rename(tmp_path / name)
    done = run("run", name, "--out", f"o{name}", "--bundle", bundle_folder, "--no-selftest", "--no-sheet", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lost = run("run", f"no{name}", "--out", "p", "--bundle", bundle_folder, cwd=tmp_path)
    assert lost.returncode == 1
    for text in (done.stdout.decode(), lost.stderr.decode()):
        assert not set(text) & set("\x1b\x07\x9b\r\u202e")
    assert printable(name) in done.stdout.decode()


def test_encode_says_what_run_says_of_its_source(bundle_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    cv2.imwrite(str(tmp_path / "f" / "a.png"), np.full((96, 128, 3), 90, np.uint8))
    (tmp_path / "f" / "._a.png").write_bytes(b"x")
    done = run("encode", "f", "-o", "a.mcap", "--bundle", bundle_folder, cwd=tmp_path)
    assert b"note     1 hidden files were skipped" in done.stdout
    done = run("encode", "f", "-o", "b.mcap", "--json", "--bundle", bundle_folder, cwd=tmp_path)
    assert "hidden files" in json.loads(done.stdout)["notes"][0]


def test_encode_says_that_its_log_was_replaced(bundle_folder: Path, tmp_path: Path) -> None:
    process = subprocess.Popen(
        percodec_command("encode", "synthetic://road?frames=200", "-o", "a.mcap", "--bundle", bundle_folder),
        cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment(),
    )  # fmt: skip
    with process:
        wait_for_lines(tmp_path / "a.mcap")
        assert process.poll() is None
        (tmp_path / "a.mcap").unlink()
        _, words = process.communicate()
    assert process.returncode == 1
    assert b"replaced by somebody else" in words
