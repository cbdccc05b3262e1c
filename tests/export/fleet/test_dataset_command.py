"""`percodec dataset`: each shard by itself, on processes, interrupted and continued, in folders and in object stores."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the export extra")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the fleet extra")

from support import fleet  # noqa: E402
from support.command import COMMAND  # noqa: E402
from support.once import Once  # noqa: E402
from support.s3 import s3_bucket  # noqa: E402

from percodec.export.fleet.labels import Labels  # noqa: E402
from percodec.export.fleet.predict import Predict  # noqa: E402
from percodec.export.fleet.shards import find_shards  # noqa: E402
from percodec.export.fleet.store import Store  # noqa: E402
from percodec.export.fleet.units import SUMMARY, run_units  # noqa: E402
from percodec.runtime.session import Session  # noqa: E402
from percodec.sdk import Bundle, read_log  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402
from percodec.sdk.errors import UsageError  # noqa: E402
from percodec.sdk.types import Latent  # noqa: E402

COUNT = 40


@pytest.fixture(scope="module")
def logs(once: Once, tiny_folder: Path) -> Path:
    return once("fleet", lambda folder: fleet.write_fleet(folder, Bundle.open(tiny_folder), COUNT))


def said(capsys) -> dict:
    return json.loads(capsys.readouterr().out)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_predictions_are_those_of_a_session_and_are_labels(logs, tiny_folder, tmp_path, capsys):
    words = ["dataset", "predict", str(logs), str(tmp_path / "out"), "--bundle", str(tiny_folder), "--json"]
    assert main(words) == 0
    summary = said(capsys)
    shards = find_shards(Store(logs))
    assert summary["holds"]["packets"] == 3 * COUNT
    assert summary["holds"]["shards"] == len(shards)
    rows = [row for path in sorted((tmp_path / "out").rglob("*.parquet")) for row in parquet.read_table(path).to_pylist()]
    assert len(rows) == 3 * COUNT
    bundle = Bundle.open(tiny_folder)
    with Session.open(bundle) as session:
        for row in rows[::17]:
            symbols = fleet.latents(bundle, COUNT, row["stream_id"])[row["counter"]]
            assert row["labels"] == fleet.png_level_3(session.predict(Latent(symbols, 0, 0)).labels)
    assert Labels(str(tmp_path / "out")).count == 3 * COUNT
    before = bytes_of(tmp_path / "out")
    assert main(words) == 0  # again: everything is known
    assert said(capsys)["done_before"] == len(shards)
    assert bytes_of(tmp_path / "out") == before
    journal = json.loads((tmp_path / "out" / "v1" / "packets.json").read_text())
    (tmp_path / "out" / "v1" / "packets.json").write_text("{")  # a journal that cannot be read: done again
    assert main(words) == 0
    assert said(capsys)["done_before"] == len(shards) - 1
    assert json.loads((tmp_path / "out" / "v1" / "packets.json").read_text()) == journal


def test_killed_and_continued_on_processes_leaves_the_same_bytes(logs, tiny_folder, tmp_path):
    words = [*COMMAND, "dataset", "predict", str(logs)]
    options = ["--bundle", str(tiny_folder), "--workers", "2", "--json"]
    assert main([*words[len(COMMAND) :], str(tmp_path / "whole"), "--bundle", str(tiny_folder), "--json"]) == 0
    out = tmp_path / "killed"
    process = subprocess.Popen([*words, str(out), *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and len(list(out.rglob("*.json"))) < 3:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert subprocess.run([*words, str(out), *options], capture_output=True, check=False).returncode == 0
    whole, killed = bytes_of(tmp_path / "whole"), bytes_of(out)
    assert {name: data for name, data in killed.items() if not name.endswith(".part")} == whole


def test_stats_count_what_is_there_and_what_is_not(logs, tiny_folder, tmp_path, capsys):
    bundle = Bundle.open(tiny_folder)
    assert main(["dataset", "stats", str(logs), "--json"]) == 0
    assert said(capsys)["holds"] | {"losses": {}} == {
        "shards": len(find_shards(Store(logs))), "packets": 3 * COUNT, "key_packets": 3 * COUNT, "packets of tiny": 3 * COUNT,
        "packet_bytes": sum(len(r.packet) for p in logs.rglob("*.mcap") for r in read_log(p, allow_damaged=True)), "losses": {},
    }  # fmt: skip
    packets = fleet.packets_of(bundle, fleet.latents(bundle, 9))
    path = fleet.write_log(tmp_path / "a.mcap", bundle, packets)
    data = bytearray(path.read_bytes())
    data[data.index(packets[2]) + 60] ^= 1
    path.write_bytes(data[: data.index(packets[7])])
    assert main(["dataset", "stats", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "packets                      6" in shown
    assert "left out: damaged" in shown
    assert "a.mcap" in shown


def test_pictures_become_packets_and_labels_that_belong_together(camvid, tiny_folder, tmp_path, capsys):
    from percodec.export.fleet.dataset import PacketDataset

    bundle = Bundle.open(tiny_folder)
    out = tmp_path / "packets"
    words = ["dataset", "encode", str(camvid), str(out), "--labels", "--bundle", str(tiny_folder), "--json"]
    assert main(words) == 0
    assert said(capsys)["holds"] == {"shards": 2, "labels": 5, "packets": 5, "packet_bytes": said_bytes(out), "losses": {}}
    for split, count in (("train", 3), ("val", 2)):
        batches = list(PacketDataset(out, bundle, labels=Labels(str(out / "labels"), split), shuffle=False))
        assert sum(map(len, batches)) == count
        with Session.open(bundle) as session:
            from PIL import Image

            for k, symbols in enumerate(batches[0].symbols.numpy()):
                image = np.asarray(Image.open(camvid / split / f"{k:03d}.png").convert("RGB"))
                assert np.array_equal(session.encode(image).symbols, symbols)
                label = Image.open(camvid / f"{split}_labels" / f"{k:03d}.png").resize((bundle.frame_width, bundle.frame_height), 0)
                assert np.array_equal(np.asarray(label), batches[0].labels[k])  # stretched, as its picture was
    assert len(list(read_log(out / "train"))) == 3
    bare = tmp_path / "bare" / "train"
    bare.mkdir(parents=True)
    (bare / "x.png").write_bytes((camvid / "train" / "000.png").read_bytes())
    assert main(["dataset", "encode", str(bare.parent), str(tmp_path / "y"), "--labels", "--bundle", str(tiny_folder)]) == 1
    assert "has no label" in capsys.readouterr().err


def said_bytes(folder: Path) -> int:
    return sum(len(record.packet) for path in folder.rglob("*.mcap") for record in read_log(path))


def test_restored_pictures_are_those_of_the_restorer(restorer, logs, tiny_folder, tmp_path, capsys):
    from percodec.export.restore.mirror import encode_picture
    from percodec.export.restore.restorer import Restorer

    words = ["dataset", "restore", str(logs / "v1"), str(tmp_path / "out"), "--restorer", str(restorer), "--bundle", str(tiny_folder)]
    assert main([*words, "--json"]) == 0
    assert said(capsys)["holds"]["packets"] == COUNT
    rows = parquet.read_table(tmp_path / "out" / "packets.parquet").to_pylist()
    bundle = Bundle.open(tiny_folder)
    packet = list(read_log(logs / "v1" / "packets.mcap"))[5].packet
    with Session.open(bundle) as session:
        picture = session.decode(session.unpack(packet))
    bpp = len(packet) * 8 / (bundle.frame_height * bundle.frame_width)
    assert rows[5]["image"] == encode_picture(Restorer(restorer).restore(picture, bpp))


def test_what_cannot_be_done_is_named_and_the_rest_is_done(logs, tiny_folder, tmp_path, capsys):
    source = tmp_path / "source"
    for name in ("a", "b"):
        (source / name).mkdir(parents=True)
        os.link(logs / "v1" / "packets.mcap", source / name / "x.mcap")
    (source / "b" / "x.mcap").unlink()
    (source / "b" / "x.mcap").write_bytes(b"\x89MCAP0\r\n none")
    (source / "b" / "y.mcap").symlink_to("nowhere")
    words = ["dataset", "predict", str(source), str(tmp_path / "out"), "--bundle", str(tiny_folder)]
    assert main(words) == 1
    err = capsys.readouterr().err
    assert "2 of 3 shards" in err
    assert "b/x: " in err
    assert (tmp_path / "out" / "a" / "x.parquet").exists()
    assert "holds" not in json.loads((tmp_path / "out" / SUMMARY).read_text())
    assert main([*words, "--backend", "ort:fp32"]) == 2
    assert "another backend" in capsys.readouterr().err
    assert main(["dataset", "predict", str(source), str(source), "--bundle", str(tiny_folder)]) == 2
    assert "is not empty" in capsys.readouterr().err


def test_an_object_store_at_both_ends(tiny_folder, tmp_path):
    bundle = Bundle.open(tiny_folder)
    where, out = f"memory://{tmp_path.name}/in", f"memory://{tmp_path.name}/out"
    fleet.write_archive(where, bundle, fleet.packets_of(bundle, fleet.latents(bundle, 8, 2), 2))
    work = Predict(tiny_folder)
    summary = run_units(where, out, work, find_shards(Store(where)))
    assert summary["holds"]["packets"] == 8
    assert Labels(out).count == 8
    assert run_units(where, out, work, find_shards(Store(where)))["done_before"] == 1
    with pytest.raises(UsageError, match="another backend"):
        run_units(where, out, Predict(tiny_folder, backend="ort:fp32"), find_shards(Store(where)))


def test_a_bucket_gives_what_a_folder_gives(tiny_folder, tmp_path, capsys, monkeypatch):
    bundle = Bundle.open(tiny_folder)
    packets = fleet.packets_of(bundle, fleet.latents(bundle, 12), 2)
    options = ["--bundle", str(tiny_folder), "--json"]
    with s3_bucket(monkeypatch, "sent") as address:
        for where in (address, str(tmp_path / "archive")):
            fleet.write_archive(where, bundle, packets)
        out = address.replace("/sent", "/predicted")
        assert main(["dataset", "predict", address, out, *options]) == 0
        in_bucket = said(capsys)
        assert main(["dataset", "predict", address, out, *options]) == 0
        assert said(capsys)["done_before"] == in_bucket["holds"]["shards"]
        store = Store(out)
        found = {name: store.read(name) for name in store.names(".parquet")}
    assert main(["dataset", "predict", str(tmp_path / "archive"), str(tmp_path / "predicted"), *options]) == 0
    assert said(capsys) == in_bucket
    assert found == {name: data for name, data in bytes_of(tmp_path / "predicted").items() if name.endswith(".parquet")}
