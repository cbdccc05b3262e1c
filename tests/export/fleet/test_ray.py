"""Packets on Ray: the rows that `read_log` gives, the bytes that one process gives. benchmarks/fleet_trial.py kills a node."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="needs the export extra")
parquet = pytest.importorskip("pyarrow.parquet", reason="needs the fleet extra")
if find_spec("ray") is None or find_spec("pandas") is None:  # found, not imported: how Ray listens is decided as it is imported
    pytest.skip("needs the ray extra", allow_module_level=True)

from support import fleet  # noqa: E402
from support.processes import children, listening  # noqa: E402

from percodec.export.fleet.ray_source import ROWS, blocks_of, read_packets  # noqa: E402
from percodec.export.fleet.shards import find_shards  # noqa: E402
from percodec.export.fleet.store import Store  # noqa: E402
from percodec.runtime.cluster import start  # noqa: E402
from percodec.sdk import Bundle, parse_header, read_log  # noqa: E402
from percodec.sdk.cli import main  # noqa: E402


@pytest.fixture(scope="module")
def cluster():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_worker_niceness", "0")  # on a busy machine its workers would wait for everybody else
        stop = start(1)
        yield
        stop()


def bytes_of(folder: Path) -> dict[str, bytes]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files if not path.name.endswith(".part")}


def test_rows_are_those_of_the_log_also_of_one_cut_off(tiny_folder, tmp_path):
    bundle = Bundle.open(tiny_folder)
    symbols = fleet.latents(bundle, 10)
    packets = fleet.packets_of(bundle, symbols[[k % 10 for k in range(2 * ROWS + 300)]])
    path = fleet.write_log(tmp_path / "a.mcap", bundle, packets)
    data = bytearray(path.read_bytes())
    data[data.index(packets[4]) + 60] ^= 1
    path.write_bytes(data[: data.index(packets[-1]) + 5])  # a writer that was killed
    store = Store(tmp_path)
    blocks = list(blocks_of(store, find_shards(store)[0], bundle))
    assert [block.num_rows for block in blocks] == [ROWS, ROWS, 298]
    rows = [row for block in blocks for row in block.to_pylist()]
    expected = [(r.packet, r.frame_id, r.timestamp_ns, r.sequence) for r in read_log(path, allow_damaged=True)]
    assert len(expected) == len(packets) - 2
    assert [(r["packet"], r["frame_id"], r["timestamp_ns"], r["sequence"]) for r in rows] == expected
    assert [r["counter"] for r in rows] == [parse_header(r["packet"]).counter for r in rows]
    assert {r["recording"] for r in rows} == {"a.mcap"}
    assert sum(r["left_out"] for r in rows) == 1


def test_a_cluster_gives_the_same_rows_and_bytes_and_listens_on_loopback_alone(cluster, tiny_folder, tmp_path, capsys):
    fleet.write_fleet(tmp_path / "logs", Bundle.open(tiny_folder), 12)
    words = ["dataset", "predict", str(tmp_path / "logs")]
    options = ["--bundle", str(tiny_folder), "--json"]
    assert main([*words, str(tmp_path / "plain"), *options]) == 0
    assert main([*words, str(tmp_path / "ray"), *options, "--workers", "ray:1"]) == 0
    assert bytes_of(tmp_path / "ray") == bytes_of(tmp_path / "plain")
    said = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert said[0] == said[1]
    rows = read_packets(tmp_path / "logs", tiny_folder).take_all()
    assert sorted((r["stream_id"], r["counter"]) for r in rows) == [(s, k) for s in range(3) for k in range(12)]
    assert not listening(children())
