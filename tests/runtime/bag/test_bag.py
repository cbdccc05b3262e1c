"""`percodec bag` but for compress: pictures back, labels, logs in, losses told; and what goes wrong."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.writer import Writer
from support import bags

from percodec.runtime.bag.open import open_bag
from percodec.runtime.bag.records import QOS, Message, library
from percodec.runtime.bag.write import BagWriter
from percodec.runtime.messages.calibration import fitted_camera_info
from percodec.runtime.messages.cdr import CameraInfo, CompressedImage, Image
from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.messages.pictures import rgb_from_image
from percodec.runtime.session import Session
from percodec.sdk import LogWriter, read_log
from percodec.sdk.cli import main
from percodec.sdk.errors import BackendError, BagError, UsageError
from percodec.sdk.types import Frame, Latent

FRONT, REAR = f"{bags.FRONT}/percodec", f"{bags.REAR}/percodec"
ROOT = Path(__file__).resolve().parents[3]
LABELS, INFO = "/front/segmentation/labels", "/front/segmentation/camera_info"


def messages(path: Path, topic: str | None = None) -> list[Message]:
    return [r for r in open_bag(path).records() if isinstance(r, Message) and topic in (None, r.channel.topic)]


def rewritten(source: Path, out: Path, keep: Any) -> Path:
    """The messages for which `keep(k, message)` is true."""
    with BagWriter(out) as writer:
        for k, message in enumerate(messages(source)):
            if keep(k, message):
                writer.add(message)
        writer.finish()
    return out


def report(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    capsys.readouterr()
    assert main([*words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bags.write_bag(tmp_path_factory.mktemp("bags") / "plain", frames=6)


@pytest.fixture(scope="module")
def small(plain: Path) -> Path:
    out = plain.parent / "small.mcap"
    assert main(["bag", "compress", str(plain), str(out), "--all"]) == 0
    return out


@pytest.fixture(scope="module")
def stream(plain: Path) -> Path:
    out = plain.parent / "stream.mcap"
    assert main(["bag", "compress", str(plain), str(out), "--all", "--stream", "--key-every", "3"]) == 0
    return out


def test_pictures_come_back_with_all_they_had(plain: Path, small: Path, stream: Path, tmp_path: Path) -> None:
    for source in (small, stream):
        back = tmp_path / f"{source.stem}-back"
        assert main(["bag", "restore", str(source), str(back), "--all"]) == 0
        for topic in (bags.FRONT, bags.REAR):
            before, after = ([Image.from_cdr(m.data) for m in messages(path, topic)] for path in (plain, back))
            for a, b in zip(before, after, strict=True):
                assert (a.header, a.height, a.width, a.encoding, a.step) == (b.header, b.height, b.width, b.encoding, b.step)
                error = np.mean((rgb_from_image(a).astype(float) - rgb_from_image(b)) ** 2)
                assert 10 * np.log10(255**2 / error) > 20  # other channels, or other pictures, are far below
        times = [[(m.channel.topic, m.log_time, dict(m.channel.metadata)[QOS]) for m in messages(path)] for path in (plain, back)]
        assert times[0] == times[1]


def test_a_stream_is_smaller_and_every_cut_decodes(small: Path, stream: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [{row["topic"]: row for row in report(capsys, "bag", "info", str(path))["topics"]} for path in (small, stream)]
    assert rows[1][FRONT]["packet_bytes"] < rows[0][FRONT]["packet_bytes"]
    assert (rows[0][FRONT]["keys"], rows[1][FRONT]["keys"], rows[1][FRONT]["packets"]) == (6, 2, 6)
    whole = tmp_path / "whole.mcap"
    assert main(["bag", "restore", str(stream), str(whole), "--all"]) == 0
    for first in range(1, 6):
        cut = rewritten(stream, tmp_path / f"cut{first}.mcap", lambda k, m, n=first: m.log_time >= bags.stamp(n))
        back = tmp_path / f"back{first}.mcap"
        lost = 0 if first == 3 else (3 - first if first < 3 else 6 - first)
        assert main(["bag", "restore", str(cut), str(back), "--all"]) == (1 if lost else 0)
        again = {m.log_time: m.data for m in messages(back, bags.FRONT)}
        assert again == {m.log_time: m.data for m in messages(whole, bags.FRONT) if m.log_time in again}
        assert len(again) == 6 - first - lost
        assert len(messages(back, FRONT)) == lost  # those without their key packet stay what they are


def test_labels_of_pictures_and_of_packets_are_those_of_a_session(plain: Path, tmp_path: Path) -> None:
    fitted = tmp_path / "fitted.mcap"
    assert main(["bag", "compress", str(plain), str(fitted), "--all", "--fit", "bundle"]) == 0
    outs = [tmp_path / "of-pictures.mcap", tmp_path / "of-packets.mcap"]
    assert main(["bag", "predict", str(plain), str(outs[0]), "--topic", bags.FRONT]) == 0
    assert main(["bag", "predict", str(fitted), str(outs[1]), "--topic", FRONT]) == 0
    with Session.open(selftest=False) as session:
        for out in outs:
            made = [Image.from_cdr(m.data) for m in messages(out, LABELS)]
            for image, m in zip(made, messages(plain, bags.FRONT), strict=True):
                source = Image.from_cdr(m.data)
                assert (image.header, image.encoding, image.height, image.width) == (source.header, "mono8", 360, 480)
                wanted = session.predict(session.encode(Frame(rgb_from_image(source), 0, 0))).labels
                assert np.array_equal(image.data.reshape(360, 480), wanted)
            infos = [[CameraInfo.from_cdr(m.data) for m in messages(out, topic)] for topic in (bags.INFO, INFO)]
            for before, after in zip(*infos, strict=True):
                assert after == fitted_camera_info(before, before.header, 72, 128, "crop", 360, 480)
    assert [m.data for m in messages(outs[0], bags.FRONT)] == [m.data for m in messages(plain, bags.FRONT)]


def test_a_head_of_one_size_says_so(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bag", "predict", str(small), str(tmp_path / "x.mcap"), "--all"]) == 2
    assert "whole pictures, 128x72; road's head_segmentation reads 480x360" in capsys.readouterr().err


def test_a_head_of_any_size_reads_whole_pictures(plain: Path, tmp_path: Path) -> None:
    bundle, out, labels = ROOT / "benchmarks" / "bundles" / "fast-0.330", tmp_path / "fast.mcap", tmp_path / "labels.mcap"
    assert main(["bag", "compress", str(plain), str(out), "--topic", bags.REAR, "--bundle", str(bundle)]) == 0
    assert main(["bag", "predict", str(out), str(labels), "--all", "--bundle", str(bundle)]) == 0
    with Session.open(bundle, size=(126, 70), selftest=False) as session:
        for m, packet in zip(messages(labels, "/rear/segmentation/labels"), messages(out, REAR), strict=True):
            image = Image.from_cdr(m.data)
            latent = session.unpack(CompressedImage.from_cdr(packet.data).data.tobytes())
            wanted = session.predict(Latent(latent.symbols, 0, 0)).labels[:70, :126]
            assert np.array_equal(image.data.reshape(70, 126), wanted)
    assert main(["bag", "restore", str(out), str(tmp_path / "wrong.mcap"), "--all"]) == 1  # with another bundle
    assert not messages(tmp_path / "wrong.mcap", bags.REAR)


def test_a_lost_packet_is_told(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    second = [k for k, m in enumerate(messages(small)) if m.channel.topic == FRONT][2]
    short = rewritten(small, tmp_path / "short.mcap", lambda k, m: k != second)
    rows = {row["topic"]: row for row in report(capsys, "bag", "info", str(short))["topics"]}
    assert (rows[FRONT]["lost"], rows[FRONT]["packets"], rows[REAR]["lost"]) == (1, 5, 0)
    assert rows[FRONT]["bpp"] > 0
    assert main(["bag", "info", str(short)]) == 0
    assert "1 packets were lost" in capsys.readouterr().out


def test_a_log_becomes_a_bag(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = tmp_path / "packets.mcap", tmp_path / "out"
    with Session.open(selftest=False) as session:
        with LogWriter(log, session.bundle, live=True) as writer:
            for k, m in enumerate(messages(plain, bags.FRONT)):
                latent = session.encode(rgb_from_image(Image.from_cdr(m.data)), frame_id=k, timestamp_ns=time.monotonic_ns())
                writer.append(session.pack(latent), k, latent.timestamp_ns)
        said = report(capsys, "bag", "import", str(log), str(out), "--topic", FRONT, "--frame-id", "front_optical")
        assert said["messages"] == 6
        reader = read_log(log)
        for m, record in zip(messages(out, FRONT), reader, strict=True):
            found = CompressedImage.from_cdr(m.data)
            assert found.data.tobytes() == record.packet
            assert found.header.stamp_ns == m.log_time == reader.utc_ns_of(record.timestamp_ns)
            assert abs(found.header.stamp_ns - time.time_ns()) < 3600e9
            assert (found.header.frame_id, PacketFormat.from_text(found.format).fit) == ("front_optical", "crop")
    assert main(["bag", "predict", str(out), str(tmp_path / "labels.mcap"), "--all"]) == 0
    assert len(messages(tmp_path / "labels.mcap", LABELS)) == 6
    other = ["--bundle", str(ROOT / "benchmarks" / "bundles" / "fast-0.330")]
    assert main(["bag", "import", str(log), str(tmp_path / "no"), "--topic", FRONT, *other]) == 1


def test_what_is_asked_wrongly_is_told(plain: Path, small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    new = str(tmp_path / "new.mcap")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for code, says, words in (
        (2, "--topic, or take every one", ["compress", str(plain), new]),
        (2, "no such topic", ["compress", str(plain), new, "--topic", "/none"]),
        (2, "is tf2_msgs/msg/TFMessage", ["compress", str(plain), new, "--topic", bags.STATIC]),
        (2, "has a topic /tf_static already", ["compress", str(plain), new, "--topic", f"{bags.FRONT}={bags.STATIC}"]),
        (2, "no topic of packets", ["restore", str(plain), new, "--topic", bags.FRONT]),
        (2, "exists", ["compress", str(plain), str(small), "--all"]),
        (2, "is the input", ["compress", str(small), str(small), "--all", "--overwrite"]),
        (2, "no such folder", ["compress", str(plain), str(tmp_path / "none" / "x.mcap"), "--all"]),
        (2, "holds no bag", ["compress", str(plain), str(tmp_path / "mine"), "--all", "--overwrite"]),
        (1, "does not exist", ["compress", str(tmp_path / "none"), new, "--all"]),
        (1, "is not an MCAP file", ["info", __file__]),
        (1, "no metadata.yaml", ["info", str(Path(__file__).parent)]),
        (1, "without percodec's metadata", ["import", str(small), new, "--topic", "/x"]),
        (1, "no tables", ["compress", str(plain), new, "--all", "--stream", "--bundle", str(tmp_path / "bare")]),
    ):
        if "bare" in words[-1]:
            _without_stream(tmp_path / "bare")
        assert main(["bag", *words]) == code, words
        assert says in capsys.readouterr().err
        assert not Path(new).exists()
        assert not list(tmp_path.glob(".*"))
    both = tmp_path / "both.mcap"
    assert main(["bag", "compress", str(plain), str(both), "--all", "--keep-raw"]) == 0
    assert main(["bag", "restore", str(both), new, "--all"]) == 2
    assert f"has a topic {bags.FRONT} already; name another one: --topic TOPIC=NEW" in capsys.readouterr().err
    assert main(["bag", "restore", str(both), new, "--topic", f"{FRONT}=/again"]) == 0
    assert main(["bag", "compress", str(plain), new, "--all", "--overwrite"]) == 0
    assert len(messages(Path(new), FRONT)) == 6


def _without_stream(folder: Path) -> None:
    from support.tiny_bundle import make_bundle

    make_bundle(folder)


def test_a_viewers_word_in_a_bundles_name_is_refused(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from percodec.runtime.session import DEFAULT_BUNDLE
    from percodec.sdk.bundle import Bundle, extend_bundle

    extend_bundle(Bundle.open(DEFAULT_BUNDLE), tmp_path / "like-jpeg", name="like-jpeg")
    assert main(["bag", "compress", str(plain), str(tmp_path / "x.mcap"), "--all", "--bundle", str(tmp_path / "like-jpeg")]) == 1
    assert "rename the bundle" in capsys.readouterr().err


def test_a_damaged_bag_gives_what_is_whole(plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    buffer = io.BytesIO()
    writer, ids = Writer(buffer, chunk_size=30_000), {}
    writer.start("ros2", "test")
    for m in messages(plain):
        if m.channel not in ids:
            schema = writer.register_schema(m.channel.schema, "ros2msg", m.channel.definition)
            ids[m.channel] = writer.register_channel(m.channel.topic, "cdr", schema, dict(m.channel.metadata))
        writer.add_message(ids[m.channel], m.log_time, m.data, m.publish_time, m.sequence)
    writer.finish()
    whole = buffer.getvalue()
    cut, flipped, out = tmp_path / "cut.mcap", tmp_path / "flipped.mcap", tmp_path / "out.mcap"
    cut.write_bytes(whole[: len(whole) * 6 // 10])
    flipped.write_bytes(bytes([*whole[: len(whole) // 2], whole[len(whole) // 2] ^ 1, *whole[len(whole) // 2 + 1 :]]))
    for damaged, says in ((cut, "cut off or damaged"), (flipped, "is damaged")):
        assert main(["bag", "compress", str(damaged), str(out), "--all", "--overwrite"]) == 1
        assert says in capsys.readouterr().err
        kept = {(m.log_time, m.channel.topic) for m in messages(out)}
        assert 5 < len(kept) < len(messages(plain))
        assert main(["bag", "info", str(damaged)]) == 1
    times = [m.log_time for m in messages(out)]
    assert min(times) == bags.BEGIN  # on both sides of the damage
    assert max(times) == max(m.log_time for m in messages(plain))


def test_random_damage_is_never_a_defect_of_ours(small: Path, tmp_path: Path) -> None:
    rng, data = random.Random(3), small.read_bytes()
    for k in range(40):
        broken = bytearray(data)
        for _ in range(rng.choice((1, 3, 50))):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        (tmp_path / "x.mcap").write_bytes(bytes(broken[: rng.randrange(len(broken))] if k % 3 == 0 else broken))
        assert main(["bag", "restore", str(tmp_path / "x.mcap"), str(tmp_path / "y.mcap"), "--all", "--overwrite"]) in (0, 1, 2)


def _start(*words: str, limit: int | None = None) -> subprocess.Popen[str]:
    """`limit`: on the size of files; its stderr is then to be read."""
    code = "import sys; from percodec.sdk.cli import main; sys.exit(main(sys.argv[1:]))"
    if limit is not None:
        code = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit})); " + code
    told = subprocess.DEVNULL if limit is None else subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", code, "bag", *words], stdout=subprocess.DEVNULL, stderr=told, text=True)


def test_a_full_disk_says_so(plain: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: writes fail alike."""
    for name in ("out.mcap", "out"):
        child = _start("compress", str(plain), str(tmp_path / name), "--all", limit=4000)
        _, err = child.communicate(timeout=120)
        assert child.returncode == 1
        assert "cannot be written (File too large); nothing was written under that name" in err
        assert not list(tmp_path.iterdir())


def _kills(source: Path, folder: Path, times: int) -> None:
    """Killed at random moments: the name is free, or holds the whole bag; the next run clears up and gives the same bytes."""
    out, rng = folder / "out.mcap", random.Random(7)
    begun = time.monotonic()
    assert _start("compress", str(source), str(out), "--all").wait(timeout=600) == 0
    seconds, wanted = time.monotonic() - begun, out.read_bytes()
    out.unlink()
    for _ in range(times):
        child = _start("compress", str(source), str(out), "--all")
        try:
            child.wait(timeout=seconds * rng.uniform(0.2, 1.0))
        except subprocess.TimeoutExpired:
            os.kill(child.pid, signal.SIGKILL)
            child.wait(timeout=60)
        if out.exists():
            assert out.read_bytes() == wanted
            out.unlink()
    child = _start("compress", str(source), str(out), "--all")
    assert child.wait(timeout=600) == 0
    assert out.read_bytes() == wanted
    assert [path.name for path in folder.iterdir()] == [out.name]


def test_killed_at_any_moment_no_half_file_stands(plain: Path, tmp_path: Path) -> None:
    _kills(plain, tmp_path, 2)


@pytest.mark.long
def test_killed_at_ten_moments_no_half_file_stands(tmp_path: Path) -> None:
    source = bags.write_bag(tmp_path / "in", frames=60, size=(640, 360))
    (tmp_path / "out").mkdir()
    _kills(source, tmp_path / "out", 10)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "x.mcap"
    with BagWriter(out) as first:
        with pytest.raises(UsageError, match="in use by another run"):
            BagWriter(out)
        first.finish()
    with BagWriter(out, overwrite=True) as again:
        again.finish()
    assert list(tmp_path.iterdir()) == [out]


def test_a_termination_clears_up(tmp_path: Path) -> None:
    source = bags.write_bag(tmp_path / "in", frames=12, size=(640, 360))
    (tmp_path / "out").mkdir()
    child = _start("compress", str(source), str(tmp_path / "out" / "x.mcap"), "--all")
    deadline = time.monotonic() + 60
    while not list((tmp_path / "out").glob(".x.mcap.part/x.mcap")) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    child.terminate()
    child.wait(timeout=60)
    assert list((tmp_path / "out").iterdir()) == ([] if child.returncode else [tmp_path / "out" / "x.mcap"])


def test_a_missing_library_is_one_line(monkeypatch: pytest.MonkeyPatch, plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "mcap.reader", None)
    with pytest.raises(BackendError, match=r"pip install 'percodec\[bag\]'"):
        library("mcap.reader")
    assert main(["bag", "info", str(plain)]) == 1
    assert "percodec[bag]" in capsys.readouterr().err


def test_a_bag_that_lacks_a_file_is_refused(plain: Path, tmp_path: Path) -> None:
    (tmp_path / "metadata.yaml").write_text((plain / "metadata.yaml").read_text())
    with pytest.raises(BagError, match=r"lacks plain.*copy the whole bag"):
        open_bag(tmp_path)
    grown = "\n".join(["a0: &a0 {x: 1}", *(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 8)}]}}" for k in range(1, 20))])
    for text in ("a: [", grown, "a: " + "9" * 5000, "a: !!timestamp x"):
        (tmp_path / "metadata.yaml").write_text(text)
        with pytest.raises(BagError, match="not that of a bag"):
            open_bag(tmp_path)
