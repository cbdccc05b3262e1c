"""`percodec bag compress`: the same packets from every kind of bag, all else as it was, for readers that are not ours."""

from __future__ import annotations

import io
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from mcap.reader import make_reader
from mcap.writer import Writer
from mcap_ros2.decoder import DecoderFactory
from rosbags.highlevel import AnyReader
from support import bags

from percodec.runtime.bag.open import open_bag
from percodec.runtime.bag.records import Message
from percodec.runtime.messages.cdr import CompressedImage, Header, Image
from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.session import Session
from percodec.sdk.cli import main
from percodec.sdk.types import Latent

PACKETS = (f"{bags.FRONT}/percodec", f"{bags.REAR}/percodec")
KEPT = {bags.INFO, bags.STATIC, bags.TEXT}


def messages(path: Path) -> list[Message]:
    return [record for record in open_bag(path).records() if isinstance(record, Message)]


def packets(path: Path) -> list[tuple[str, bytes]]:
    return [(m.channel.topic, m.data) for m in messages(path) if m.channel.topic in PACKETS]


def compress(source: Path, out: Path, *more: str) -> Path:
    assert main(["bag", "compress", str(source), str(out), "--all", *more]) == 0
    return out


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return bags.write_bag(tmp_path_factory.mktemp("bags") / "plain")


@pytest.fixture(scope="module")
def small(plain: Path) -> Path:
    return compress(plain, plain.parent / "small.mcap")


def _split(plain: Path, folder: Path) -> Path:
    """The bag in two files, as rosbag2 splits: the second has channels and schemas of its own."""
    folder.mkdir()
    half = len(messages(plain)) // 2
    for k, part in enumerate((messages(plain)[:half], messages(plain)[half:])):
        with (folder / f"split_{k}.mcap").open("wb") as file:
            writer, ids = Writer(file), {}
            writer.start("ros2", "test")
            for m in part:
                if m.channel not in ids:
                    schema = writer.register_schema(m.channel.schema, m.channel.schema_encoding, m.channel.definition)
                    ids[m.channel] = writer.register_channel(m.channel.topic, "cdr", schema, dict(m.channel.metadata))
                writer.add_message(ids[m.channel], m.log_time, m.data, m.publish_time, m.sequence)
            writer.finish()
    information = yaml.safe_load((plain / "metadata.yaml").read_text())
    information["rosbag2_bagfile_information"]["relative_file_paths"] = ["split_0.mcap", "split_1.mcap"]
    (folder / "metadata.yaml").write_text(yaml.safe_dump(information))
    return folder


@pytest.mark.parametrize("kind", ["sqlite3", "file", "message", "ros1", "split"])
def test_every_kind_of_bag_gives_the_same(plain: Path, small: Path, tmp_path: Path, kind: Any) -> None:
    source = _split(plain, tmp_path / "in") if kind == "split" else bags.write_bag(tmp_path / ("in.bag" if kind == "ros1" else "in"), kind)
    out = compress(source, tmp_path / "out.mcap")
    assert packets(out) == packets(small)
    assert len(packets(out)) == 8
    kept = [(m.channel.topic, m.channel.schema, m.data, m.log_time) for m in messages(out) if m.channel.topic in KEPT]
    assert kept == [(m.channel.topic, m.channel.schema, m.data, m.log_time) for m in messages(small) if m.channel.topic in KEPT]
    with AnyReader([out]) as reader:
        offered = {c.topic: c.ext.offered_qos_profiles for c in reader.connections}  # type: ignore[union-attr]
        durability = {topic: profiles[0].durability.name for topic, profiles in offered.items() if profiles}
        assert durability[bags.STATIC] == "TRANSIENT_LOCAL"
        assert kind == "ros1" or durability[PACKETS[0]] == "VOLATILE"


def test_a_packet_is_that_of_a_session(plain: Path, small: Path) -> None:
    """Of whole pictures: at their own size, padded by their last row and column; stamps, ids and counters as said."""
    for topic, (height, width), encoding in zip(PACKETS, ((72, 128), (70, 126)), ("bgr8", "rgb8"), strict=True):
        source = [Image.from_cdr(m.data) for m in messages(plain) if f"{m.channel.topic}/percodec" == topic]
        with Session.open(size=(width, height), selftest=False, stream_id=PACKETS.index(topic)) as session:
            for k, (data, image) in enumerate(zip((d for t, d in packets(small) if t == topic), source, strict=True)):
                found = CompressedImage.from_cdr(data)
                assert found.header == image.header == Header.at(bags.stamp(k), f"{topic.split('/')[1]}_optical")
                pixels = image.data.reshape(height, width, 3)[:, :, :: -1 if encoding == "bgr8" else 1]
                latent = session.encode(np.ascontiguousarray(pixels), frame_id=k, timestamp_ns=bags.stamp(k))
                assert found.data.tobytes() == session.pack(latent)
                form = PacketFormat.from_text(found.format)
                assert (form.encoding, form.width, form.height, form.fit) == (encoding, width, height, "pad")


def test_twice_and_with_any_number_of_threads_it_is_the_same_file(plain: Path, small: Path, tmp_path: Path) -> None:
    for threads in ("1", "3"):
        (tmp_path / threads).mkdir()
        again = compress(plain, tmp_path / threads / small.name, "--threads", threads)
        assert again.read_bytes() == small.read_bytes()


def _rich(path: Path, picture: bytes) -> list[tuple[Any, ...]]:
    """A file with all that MCAP has, and odd times and sequence numbers. Returns what must survive."""
    kept: list[tuple[Any, ...]] = []
    with path.open("wb") as file:
        writer = Writer(file, chunk_size=200)
        writer.start("ros2", "somebody else")
        schema = writer.register_schema("my_msgs/msg/Odd", "ros2idl", "module my_msgs {…}".encode())
        odd = writer.register_channel("/odd", "cdr", schema, {"offered_qos_profiles": "- history: 1\n  depth: 7 ", "own": "ä"})
        quiet = writer.register_channel("/quiet", "json", 0, {})
        image = writer.register_channel(
            bags.FRONT, "cdr", writer.register_schema(Image.NAME, "ros2msg", Image.DEFINITION.encode()), {"offered_qos_profiles": "x"}
        )
        assert quiet
        writer.add_attachment(5, 6, "notes.txt", "text/plain", b"hello")
        writer.add_metadata("mine", {"a": "1"})
        for k in (9, 3, 7):
            writer.add_message(odd, 1000 - k, bytes([k]) * k, 2000 + k, 5 * k)
            kept.append(("/odd", 1000 - k, 2000 + k, 5 * k, bytes([k]) * k))
        writer.add_message(image, 1, picture, 2, 3)
        writer.finish()
    return kept


def test_what_is_not_a_picture_stays_record_by_record(plain: Path, tmp_path: Path) -> None:
    picture = next(m.data for m in messages(plain) if m.channel.topic == bags.FRONT)
    kept = _rich(tmp_path / "in.mcap", picture)
    out = compress(tmp_path / "in.mcap", tmp_path / "out.mcap")
    with out.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        found = list(reader.iter_messages(log_time_order=False))
        assert [(c.topic, m.log_time, m.publish_time, m.sequence, m.data) for _, c, m in found if c.topic == "/odd"] == kept
        schema, channel, _ = next(entry for entry in found if entry[1].topic == "/odd")
        assert schema is not None
        assert (schema.name, schema.encoding, schema.data) == ("my_msgs/msg/Odd", "ros2idl", "module my_msgs {…}".encode())
        assert channel.metadata == {"offered_qos_profiles": "- history: 1\n  depth: 7 ", "own": "ä"}
        packet = next(entry for entry in found if entry[1].topic == PACKETS[0])
        assert (packet[2].log_time, packet[2].publish_time, packet[2].sequence) == (1, 2, 3)
        assert packet[1].metadata == {"offered_qos_profiles": "x", "topic_type_hash": CompressedImage.TYPE_HASH}
        assert {c.topic for c in reader.get_summary().channels.values()} == {"/odd", "/quiet", PACKETS[0]}  # type: ignore[union-attr]
        attachments = [(a.name, a.media_type, a.create_time, a.log_time, a.data) for a in reader.iter_attachments()]
        assert attachments == [("notes.txt", "text/plain", 5, 6, b"hello")]
        records = {record.name: record.metadata for record in reader.iter_metadata()}
        assert records["mine"] == {"a": "1"}
        assert "rosbag2" not in records  # a JSON channel is nothing that ros2 bag plays
        assert json.loads(records["percodec.bag"][PACKETS[0]])["from"] == bags.FRONT


@pytest.mark.parametrize("version", [8, 9])
def test_quality_of_service_keeps_its_words(tmp_path: Path, version: int) -> None:
    """Numbers up to version 8, names from 9 on: the texts, the version and metadata.yaml stay of one kind."""
    source = bags.write_bag(tmp_path / "in", version=version, frames=1)
    out = compress(source, tmp_path / "out")
    offered = [{m.channel.topic: dict(m.channel.metadata)["offered_qos_profiles"] for m in messages(path)} for path in (source, out)]
    for topic in KEPT:
        assert offered[0][topic] == offered[1][topic]
    assert offered[1][PACKETS[0]] == offered[0][bags.FRONT]
    text = (out / "metadata.yaml").read_text()
    assert "&id" not in text
    before, after = (yaml.safe_load((path / "metadata.yaml").read_text())["rosbag2_bagfile_information"] for path in (source, out))
    assert after["version"] == version
    assert after["relative_file_paths"] == ["out_0.mcap"]
    assert after["message_count"] == before["message_count"] == 5
    assert (after["starting_time"], after["duration"]) == (before["starting_time"], before["duration"])
    topics = [{t["topic_metadata"]["name"]: t["topic_metadata"] for t in info["topics_with_message_count"]} for info in (before, after)]
    for topic in KEPT:
        assert topics[0][topic] == topics[1][topic]
    assert topics[1][PACKETS[0]]["offered_qos_profiles"] == topics[0][bags.FRONT]["offered_qos_profiles"]
    assert topics[1][PACKETS[0]]["type_description_hash"] == CompressedImage.TYPE_HASH
    with (out / "out_0.mcap").open("rb") as file:
        inside = {record.name: record.metadata for record in make_reader(file).iter_metadata()}
    assert inside["rosbag2"]["serialized_metadata"] == text


def test_other_readers_read_it(small: Path) -> None:
    wanted = [(topic, CompressedImage.from_cdr(data)) for topic, data in packets(small)]

    def same(found: list[tuple[str, Any]]) -> bool:
        ours = [(t, m.format, m.header.frame_id, m.header.stamp.sec, bytes(m.data)) for t, m in found if t in PACKETS]
        return sorted(ours) == sorted((t, w.format, w.header.frame_id, w.header.sec, w.data.tobytes()) for t, w in wanted)

    with small.open("rb") as file:
        reader = make_reader(file, validate_crcs=True, decoder_factories=[DecoderFactory()])
        assert same([(channel.topic, decoded) for _, channel, _, decoded in reader.iter_decoded_messages()])
    with AnyReader([small]) as bag:
        assert same([(c.topic, bag.deserialize(raw, c.msgtype)) for c, _, raw in bag.messages()])


NODE = """
const fs = require("fs"), zstd = require("fzstd");
const { McapIndexedReader } = require("@mcap/core");
const { parse } = require("@foxglove/rosmsg"), { MessageReader } = require("@foxglove/rosmsg2-serialization");
const data = fs.readFileSync(process.argv[2]);
const read = async (at, n) => new Uint8Array(data.subarray(Number(at), Number(at + n)));
const readable = { size: async () => BigInt(data.length), read };
const decompressHandlers = { zstd: (packed, n) => zstd.decompress(packed, new Uint8Array(Number(n))) };
(async () => {
  const reader = await McapIndexedReader.Initialize({ readable, decompressHandlers });
  const found = [];
  for await (const m of reader.readMessages()) {
    const channel = reader.channelsById.get(m.channelId);
    if (!channel.topic.endsWith("/percodec")) continue;
    const schema = new TextDecoder().decode(reader.schemasById.get(channel.schemaId).data);
    const image = new MessageReader(parse(schema, { ros2: true })).readMessage(m.data);
    found.push([channel.topic, image.format, image.header.frame_id, image.header.stamp.sec, Buffer.from(image.data).toString("hex")]);
  }
  console.log(JSON.stringify(found));
})();
"""


def test_a_viewer_in_typescript_reads_it(small: Path, tmp_path: Path) -> None:
    if shutil.which("node") is None:
        pytest.skip("needs node")
    (tmp_path / "read.js").write_text(NODE)
    done = subprocess.run(["node", str(tmp_path / "read.js"), str(small)], capture_output=True, text=True, check=False)
    if "Cannot find module" in done.stderr:
        pytest.skip("needs @mcap/core, @foxglove/rosmsg, @foxglove/rosmsg2-serialization and fzstd in NODE_PATH")
    assert done.returncode == 0, done.stderr
    wanted = [(topic, CompressedImage.from_cdr(data)) for topic, data in packets(small)]
    assert json.loads(done.stdout) == [[t, w.format, w.header.frame_id, w.header.sec, w.data.tobytes().hex()] for t, w in wanted]


def test_jpeg_is_taken_depth_is_left_and_a_broken_picture_stays(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = bags.write_bag(tmp_path / "jpeg", jpeg=True, frames=2)
    out = compress(source, tmp_path / "out.mcap")
    assert [m.channel.topic for m in messages(out)].count(PACKETS[1]) == 2
    buffer = io.BytesIO()
    writer = Writer(buffer)
    writer.start("ros2", "test")
    schema = writer.register_schema(Image.NAME, "ros2msg", Image.DEFINITION.encode())
    depth, rgb = (writer.register_channel(topic, "cdr", schema) for topic in ("/depth", "/rgb"))
    whole = Image(Header.at(5, "a"), 8, 8, "rgb8", 24, np.zeros(192, np.uint8))
    odd = [Image(Header.at(5, "a"), 8, 8, "16UC1", 16, np.zeros(128, np.uint8)).to_cdr(), whole.to_cdr(), whole.to_cdr()[:-50]]
    before_1970 = Image(Header(-5, 0, "a"), 8, 8, "rgb8", 24, np.zeros(192, np.uint8)).to_cdr()
    for k, data in enumerate([*odd, before_1970, whole.to_cdr()]):
        writer.add_message(depth if k == 0 else rgb, k, data, k, k)
    writer.finish()
    (tmp_path / "odd.mcap").write_bytes(buffer.getvalue())
    assert main(["bag", "compress", str(tmp_path / "odd.mcap"), str(tmp_path / "odd-out.mcap"), "--all"]) == 1
    assert "2 messages of /rgb were kept as they are" in capsys.readouterr().err
    found = messages(tmp_path / "odd-out.mcap")
    assert [m.channel.topic for m in found] == ["/depth", "/rgb/percodec", "/rgb", "/rgb", "/rgb/percodec"]
    assert [found[k].data for k in (0, 2, 3)] == [odd[0], odd[2], before_1970]
    assert main(["bag", "info", str(tmp_path / "odd-out.mcap"), "--json"]) == 1  # it says that a message is broken
    rows = {row["topic"]: row for row in json.loads(capsys.readouterr().out)["topics"]}
    assert (rows["/rgb/percodec"]["lost"], rows["/rgb"]["broken"]) == (0, 1)


def test_class_ids_are_no_pictures_unless_named(plain: Path, tmp_path: Path) -> None:
    labels, out = tmp_path / "labels.mcap", tmp_path / "out.mcap"
    assert main(["bag", "predict", str(plain), str(labels), "--topic", bags.FRONT]) == 0
    compress(labels, out)
    topic = "/front/segmentation/labels"
    ids = [[m.data for m in messages(path) if m.channel.topic == topic] for path in (labels, out)]
    assert len(ids[0]) == 4
    assert ids[0] == ids[1]
    assert main(["bag", "compress", str(labels), str(out), "--topic", topic, "--overwrite"]) == 0
    assert f"{topic}/percodec" in {m.channel.topic for m in messages(out)}


def test_pictures_may_stay_and_be_fitted(plain: Path, tmp_path: Path) -> None:
    out = tmp_path / "both.mcap"
    more = ["--topic", f"{bags.FRONT}=/mine", "--keep-raw", "--fit", "bundle"]
    assert main(["bag", "compress", str(plain), str(out), *more]) == 0
    raw = [[m.data for m in messages(path) if m.channel.topic == bags.FRONT] for path in (plain, out)]
    assert raw[0] == raw[1]
    with Session.open(selftest=False) as session:
        for k, m in enumerate(m for m in messages(out) if m.channel.topic == "/mine"):
            found = CompressedImage.from_cdr(m.data)
            assert found.format.endswith("128x72 crop")
            latent: Latent = session.unpack(found.data.tobytes())
            assert (latent.frame_id, latent.symbols.shape) == (k, (48, 45, 60))
