"""Restored data sets: interrupted, continued, refused, through processes and Ray; real files, real ONNX Runtime."""

import json
import random
import resource
import signal
import subprocess
import time
from importlib.util import find_spec

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
Image = pytest.importorskip("PIL.Image", reason="needs the export extra")

from support.command import COMMAND  # noqa: E402
from support.restoring import pictures, tree  # noqa: E402

from percodec.export.data.origin import SUMMARY, origin_of  # noqa: E402
from percodec.export.data.sets import load  # noqa: E402
from percodec.export.restore.mirror import RECORDS, mirror, rates_of  # noqa: E402
from percodec.export.restore.pairs import Pairs  # noqa: E402
from percodec.export.restore.restorer import Restorer  # noqa: E402
from percodec.export.restore.transforms import Restore  # noqa: E402
from percodec.sdk.errors import DataError, UsageError  # noqa: E402


@pytest.mark.parametrize(("count", "most"), [(250, 3), pytest.param(2000, 20, marks=pytest.mark.long)])
def test_killed_at_random_and_continued_is_as_if_never_interrupted(restorer, tmp_path, trials, count, most):
    source = pictures(tmp_path / "source", count)
    words = ["restore", "apply", str(source)]
    options = ["--restorer", str(restorer), "--bpp", "0.1", "--workers", "2", "--json"]
    assert subprocess.run([*COMMAND, *words, str(tmp_path / "whole"), *options], capture_output=True, check=False).returncode == 0
    rng, out, kills = random.Random(7), tmp_path / "killed", 0
    journal = out / RECORDS
    while kills < most:
        before = journal.stat().st_size if journal.exists() else 0
        process = subprocess.Popen([*COMMAND, *words, str(out), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and (not journal.exists() or journal.stat().st_size <= before):
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        if process.wait() == 0:
            break
        kills += 1
        assert not (out / SUMMARY).exists()
    assert kills >= 2
    done = len(journal.read_text().splitlines()) - 1
    assert 0 < done <= count
    (out / "train" / ".0001.png.1a2b3c4d.part").write_bytes(b"half a")
    assert subprocess.run([*COMMAND, *words, str(out), *options], capture_output=True, check=False).returncode == 0
    assert tree(out) == tree(tmp_path / "whole")
    if most >= 20:
        trials["kill -9 of restore apply"] = {"pictures": count, "kills": kills, "files_that_differ": 0}


@pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed (the ray extra)")
def test_the_same_through_ray(restorer, tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_worker_niceness", "0")  # on a busy machine its workers would wait for everybody else
    source = pictures(tmp_path / "source", 60)
    mirror(source, tmp_path / "one", Restore(restorer, source, bpp=0.1))
    (source / "train" / "0007.png").replace(tmp_path / "kept.png")
    (source / "train" / "0007.png").write_bytes(b"not a picture")
    with pytest.raises(DataError, match="0007"):
        mirror(source, tmp_path / "two", Restore(restorer, source, bpp=0.1), "ray:2")
    assert len((tmp_path / "two" / RECORDS).read_text().splitlines()) == 60
    (tmp_path / "kept.png").replace(source / "train" / "0007.png")
    mirror(source, tmp_path / "two", Restore(restorer, source, bpp=0.1), "ray:2")
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_a_full_disk_stops_at_once_and_keeps_what_is_done(restorer, tmp_path):
    source = pictures(tmp_path / "source", 6)
    rng = np.random.default_rng(2)
    Image.fromarray(rng.integers(0, 256, (300, 300, 3), np.uint8)).save(source / "train" / "0003.png")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(p.name for p in (tmp_path / "out" / "train").iterdir()) == ["0000.png", "0001.png", "0002.png"]
    mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.1))
    mirror(source, tmp_path / "fresh", Restore(restorer, source, bpp=0.1))
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_unreadable_and_impossible_pictures_are_named_and_the_rest_is_done(restorer, tmp_path):
    source = pictures(tmp_path / "source", 5)
    (source / "train" / "0001.png").write_bytes((source / "train" / "0001.png").read_bytes()[:100])
    Image.fromarray(np.zeros((8, 40, 3), np.uint8)).save(source / "train" / "0002.png")
    with pytest.raises(DataError, match=r"2 of 5 files.*0001\.png: cannot be read.*0002\.png: is 40x8"):
        mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.1))
    assert sorted(p.name for p in (tmp_path / "out" / "train").iterdir()) == ["0000.png", "0003.png", "0004.png"]
    assert not (tmp_path / "out" / SUMMARY).exists()
    with pytest.raises(DataError, match="give --bpp"):
        mirror(source, tmp_path / "other", Restore(restorer, source))


def test_what_does_not_belong_together_is_refused(restorer, tmp_path, twin):
    source = pictures(tmp_path / "source", 3)
    mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.1))
    with pytest.raises(UsageError, match="assumed_bpp"):
        mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.2))
    with pytest.raises(UsageError, match="not empty"):
        mirror(source, source, Restore(restorer, source, bpp=0.1))
    (source / "train" / "0001.png").unlink()
    with pytest.raises(UsageError, match="is gone"):
        mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.1))
    with pytest.raises(DataError, match="not a restorer"):
        Restorer(source / "train" / "0000.png")
    with pytest.raises(DataError, match="not a folder"):
        mirror(tmp_path / "nowhere", tmp_path / "o", Restore(restorer, source, bpp=0.1))
    for workers in ("0", "two", "2:3", "ray:0"):
        with pytest.raises(UsageError, match="--workers"):
            mirror(source, tmp_path / "o2", Restore(restorer, source, bpp=0.1), workers)
    with pytest.raises(DataError, match="no 0000"):
        Pairs(source / "train", [twin / "train"])


def test_a_changed_picture_is_done_again(restorer, tmp_path):
    source = pictures(tmp_path / "source", 3)
    mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.1))
    old = (tmp_path / "out" / "train" / "0001.png").read_bytes()
    Image.fromarray(np.full((20, 30, 3), 90, np.uint8)).save(source / "train" / "0001.png")
    mirror(source, tmp_path / "out", Restore(restorer, source, bpp=0.1))
    assert (tmp_path / "out" / "train" / "0001.png").read_bytes() != old
    mirror(source, tmp_path / "fresh", Restore(restorer, source, bpp=0.1))
    assert tree(tmp_path / "out") == tree(tmp_path / "fresh")


def test_lossy_files_say_their_own_rate(restorer, tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    image = np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(image).save(source / "a.jpg", quality=20)
    mirror(source, tmp_path / "out", Restore(restorer, source))
    bpp = (source / "a.jpg").stat().st_size * 8 / 4096
    assert rates_of(tmp_path / "out") == {"a.jpg": bpp}
    with Image.open(tmp_path / "out" / "a.jpg") as stored:
        assert stored.format == "PNG"
        with Image.open(source / "a.jpg") as decoded:
            np.testing.assert_array_equal(np.asarray(stored), Restorer(restorer).restore(np.asarray(decoded.convert("RGB")), bpp))


def test_training_copies_where_a_set_comes_from(twin, restorer, tmp_path):
    from percodec.export.train.provenance import provenance

    mirror(twin, tmp_path / "restored", Restore(restorer, twin))
    data = load(f"camvid:{tmp_path / 'restored'}:train")
    found = provenance([["camvid:{camvid}:train", 1.0]], "camvid:{camvid}:val", [data, data])["train"][0]["origin"]
    assert found["made_by"] == "restore"
    assert found["restorer"]["sha256"] == Restorer(restorer).digest
    assert found["source"]["origin"]["codec"] == {"name": "jpeg", "quality": 10.0}
    assert found["source"]["origin"]["source"]["origin"] is None
    assert str(tmp_path) not in json.dumps(found)
    assert origin_of(tmp_path / "restored" / "train") == origin_of(tmp_path / "restored")
