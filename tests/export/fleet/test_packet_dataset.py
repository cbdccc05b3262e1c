"""Latents straight from packets: each once, in an order that can be had again, with the labels that are theirs, and every loss counted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the export extra")
pytest.importorskip("pyarrow", reason="needs the fleet extra")

from support import fleet  # noqa: E402
from support.once import Once  # noqa: E402

from percodec.export.fleet.dataset import PacketDataset  # noqa: E402
from percodec.export.fleet.labels import Labels  # noqa: E402
from percodec.export.fleet.shards import find_shards  # noqa: E402
from percodec.export.fleet.store import Store  # noqa: E402
from percodec.runtime.session import default_bundle, stream_codec  # noqa: E402
from percodec.sdk import Bundle  # noqa: E402
from percodec.sdk.errors import BundleError, DataError, UsageError  # noqa: E402

COUNT = 40


@pytest.fixture(scope="module")
def tiny(tiny_folder: Path) -> Bundle:
    return Bundle.open(tiny_folder)


@pytest.fixture(scope="module")
def logs(once: Once, tiny: Bundle) -> Path:
    return once("fleet", lambda folder: fleet.write_fleet(folder, tiny, COUNT))


@pytest.fixture(scope="module")
def truth(tiny: Bundle):
    return {(s, k): one for s in range(3) for k, one in enumerate(fleet.latents(tiny, COUNT, s))}


def names(batches):
    return [(key.stream_id, key.counter) for batch in batches for key in batch.keys]


def test_a_log_segments_and_an_archive_are_read_alike_and_each_packet_once(logs, tiny, truth):
    shards = find_shards(Store(logs))
    assert len(shards) >= 5  # the log, the archive's segment of several files, and segments
    assert any(len(shard.files) > 1 for shard in shards)
    dataset = PacketDataset(logs, tiny, batch=7, buffer=16, seed=3)
    batches = list(dataset)
    found = {(key.stream_id, key.counter): one.numpy() for batch in batches for key, one in zip(batch.keys, batch.symbols, strict=True)}
    assert sorted(names(batches)) == sorted(truth)
    assert all(np.array_equal(found[key], truth[key]) for key in truth)
    assert not dataset.losses
    assert {key.vehicle for batch in batches for key in batch.keys} == {"", "v3"}
    assert dataset.epoch == 1
    assert names(dataset) != names(batches)  # another order
    in_order = names(PacketDataset(logs, tiny, shuffle=False))
    assert in_order == sorted(truth)


def test_two_ranks_by_two_workers_see_each_packet_once(logs, tiny, truth):
    seen = []
    for rank in range(2):
        dataset = PacketDataset(logs, tiny, batch=4, buffer=8, rank=rank, world=2)
        mine = names(dataset.loader(workers=2))
        assert mine
        seen += mine
    assert sorted(seen) == sorted(truth)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_goes_on_in_the_same_order(logs, tiny, workers):
    def order(dataset, most=None):
        found = []
        for batch in dataset.loader(workers):
            found.append(batch.keys)
            if len(found) == most:
                break
        return found

    def make():
        return PacketDataset(logs, tiny, batch=4, buffer=16, seed=5)

    whole = make()
    expected = [order(whole), order(whole)]
    for taken in (3, 17, 24):
        first = make()
        begun = order(first, taken)
        second = make()
        second.load_state_dict(first.state_dict())
        assert [begun + order(second), order(second)] == expected
    other = PacketDataset(logs, tiny, batch=4, buffer=16, seed=6)
    with pytest.raises(UsageError, match="another seed"):
        other.load_state_dict(first.state_dict())
    with pytest.raises(UsageError, match="no state"):
        other.load_state_dict({"epoch": 1})
    third = make()
    third.load_state_dict(first.state_dict())
    with pytest.raises(UsageError, match="workers"):
        next(third.loader(workers + 3))


def test_labels_are_those_of_the_packet_and_of_its_split(logs, tiny, tmp_path):
    rows = fleet.rows_of(logs)
    size = (tiny.frame_height, tiny.frame_width)

    def label(row):
        return np.full(size, (row["stream_id"] * COUNT + row["counter"]) % 200, np.uint8)

    labelled = [
        {**r, "labels": fleet.png(label(r)), "split": "val" if r["counter"] % 5 == 0 else "train"} for r in rows if r["counter"] % 2
    ]
    path = fleet.write_labels(tmp_path / "labels" / "one.parquet", labelled)
    for split, count in (("train", 48), ("val", 12)):
        dataset = PacketDataset(logs, tiny, labels=Labels(str(path), split), batch=8)
        assert dataset.labels.count == count
        seen = [(key, one) for batch in dataset.loader(workers=1) for key, one in zip(batch.keys, batch.labels, strict=True)]
        assert len(seen) == count
        assert all(np.array_equal(one, label(key._asdict())) for key, one in seen)
    targets = fleet.write_labels(tmp_path / "t.parquet", [{**r, "target": r["counter"]} for r in rows])
    batch = next(iter(PacketDataset(logs, tiny, labels=Labels(str(targets)))))
    assert batch.targets.tolist() == [key.counter for key in batch.keys]


def test_labels_that_cannot_be_joined_are_refused(logs, tiny, tmp_path):
    rows = [{**r, "target": 1} for r in fleet.rows_of(logs)]

    def write(name, rows):
        return str(fleet.write_labels(tmp_path / name, rows))

    with pytest.raises(DataError, match="no column counter"):
        Labels(write("a.parquet", [{k: v for k, v in r.items() if k != "counter"} for r in rows]))
    with pytest.raises(DataError, match="neither a column labels"):
        Labels(write("b.parquet", [{k: v for k, v in r.items() if k != "target"} for r in rows]))
    with pytest.raises(DataError, match="counter is string"):
        Labels(write("c.parquet", [{**r, "counter": str(r["counter"])} for r in rows]))
    with pytest.raises(DataError, match="no row"):
        Labels(write("d.parquet", [{**r, "split": "train"} for r in rows]), "val")
    with pytest.raises(DataError, match="no column split"):
        Labels(write("e.parquet", rows), "val")
    (tmp_path / "f.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(DataError, match="not labels in Parquet"):
        Labels(str(tmp_path / "f.parquet"))
    with pytest.raises(DataError, match="two rows"):
        list(PacketDataset(logs, tiny, labels=Labels(write("g.parquet", [*rows, rows[0]]))))
    unnamed = Labels(write("h.parquet", [{k: v for k, v in r.items() if k != "recording"} for r in rows]))
    with pytest.raises(DataError, match="need a column recording"):  # the log and the segments are of this machine's one boot
        PacketDataset(logs, tiny, labels=unnamed)
    small = Labels(write("i.parquet", [{**r, "labels": fleet.png(np.zeros((8, 8), np.uint8))} for r in rows]))
    with pytest.raises(DataError, match="8x8, the bundle's frame"):
        next(iter(PacketDataset(logs, tiny, labels=small)))


def test_streams_are_decoded_from_their_key_packets_and_shuffled(tmp_path):
    bundle = Bundle.open(default_bundle())
    codec = stream_codec(bundle, key_every=5)
    symbols = fleet.latents(bundle, 23)
    packets = [codec.encode(one, k, k) for k, one in enumerate(symbols)]
    lossy = [p for k, p in enumerate(packets) if k != 12]  # 13 and 14 need it; 15 is a key packet
    fleet.write_log(tmp_path / "whole" / "a.mcap", bundle, packets)
    fleet.write_log(tmp_path / "lossy" / "a.mcap", bundle, lossy)
    for folder, lost in (("whole", 0), ("lossy", 2)):
        dataset = PacketDataset(tmp_path / folder, bundle, batch=4, seed=1)
        batches = list(dataset.loader())
        assert len(names(batches)) == 23 - (folder == "lossy") - lost
        assert names(batches) != sorted(names(batches))
        for batch in batches:
            assert all(np.array_equal(one, symbols[key.counter]) for key, one in zip(batch.keys, batch.symbols, strict=True))
        assert dataset.losses.counts["lost"] == lost


@pytest.mark.parametrize("workers", [0, 1])
def test_what_is_damaged_is_counted_and_the_rest_is_read(tiny, tmp_path, workers):
    packets = fleet.packets_of(tiny, fleet.latents(tiny, 30))
    path = fleet.write_log(tmp_path / "a.mcap", tiny, packets)
    data = bytearray(path.read_bytes())
    data[data.index(packets[4]) + 60] ^= 1  # fails its checksum
    data = data[: data.index(packets[27])]  # a writer that was killed
    path.write_bytes(data)
    dataset = PacketDataset(tmp_path, tiny, batch=4)
    assert sorted(k for _, k in names(dataset.loader(workers))) == [k for k in range(27) if k != 4]
    assert dict(dataset.losses.counts) == {"damaged": 1, "cut": 1}
    assert "a.mcap" in str(dataset.losses)


def test_a_packet_that_does_not_decode_is_counted_and_batches_stay_whole(tiny, tmp_path, monkeypatch):
    from percodec.sdk import PacketCodec, parse_header
    from percodec.sdk.errors import PacketError

    fleet.write_log(tmp_path / "a.mcap", tiny, fleet.packets_of(tiny, fleet.latents(tiny, 30)))
    decode = PacketCodec.decode

    def refuse(self, packet, out=None):
        if parse_header(packet).counter in (3, 17):
            raise PacketError("is of a foreign encoder")
        return decode(self, packet, out)

    monkeypatch.setattr(PacketCodec, "decode", refuse)
    dataset = PacketDataset(tmp_path, tiny, batch=7, seed=2)
    batches = list(dataset)
    assert [len(batch) for batch in batches] == [7, 7, 7, 7]
    assert dataset.losses.counts["refused"] == 2


def test_an_object_store_and_a_single_log(tiny, truth, tmp_path):
    where = f"memory://{tmp_path.name}"
    packets = fleet.packets_of(tiny, fleet.latents(tiny, COUNT, 2), 2)
    fleet.write_archive(where, tiny, packets)
    assert sorted(names(PacketDataset(where, tiny))) == [(2, k) for k in range(COUNT)]
    path = fleet.write_log(tmp_path / "x" / "a.mcap", tiny, packets)
    assert sorted(names(PacketDataset(path, tiny))) == [(2, k) for k in range(COUNT)]


def test_what_is_no_data_is_refused(logs, tiny, tmp_path):
    with pytest.raises(DataError, match="does not exist"):
        PacketDataset(tmp_path / "none", tiny)
    with pytest.raises(DataError, match="holds no logs"):
        PacketDataset(tmp_path, tiny)
    with pytest.raises(DataError, match="cannot be opened"):
        PacketDataset("nosuch://bucket", tiny)
    with pytest.raises(BundleError, match="was logged with bundle tiny"):
        next(iter(PacketDataset(logs, default_bundle())))
    with pytest.raises(UsageError, match="rank in"):
        PacketDataset(logs, tiny, rank=2, world=2)
