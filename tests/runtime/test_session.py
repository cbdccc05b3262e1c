"""The door: what a loop of one's own gets, in any order, from any thread, and what is refused."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.tiny_bundle import HEIGHT, WIDTH, frames, run_graph

from percodec.runtime import Session, open_engine, open_source
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import parse_header
from percodec.sdk.errors import BundleError, CodecError, PacketError, SourceError, UsageError
from percodec.sdk.types import Frame, Latent

HEADS = ("segmentation", "light", "depth")


@pytest.fixture(scope="module")
def session(rich_bundle: Path) -> Any:
    with Session.open(rich_bundle, heads=["all"]) as opened:
        yield opened


def test_a_picture_becomes_what_the_graphs_say(session: Session, rich_bundle: Path) -> None:
    bundle = Bundle.open(rich_bundle)
    for k, image in enumerate(frames(4)):
        latent = session.encode(image, frame_id=k, timestamp_ns=10 * k)
        assert (latent.frame_id, latent.timestamp_ns) == (k, 10 * k)
        np.testing.assert_array_equal(latent.symbols, run_graph(bundle.graph("encoder"), image[None])[0])
        labels = session.predict(latent).labels
        np.testing.assert_array_equal(labels, run_graph(bundle.graph("head_segmentation"), latent.symbols[None])[0])
        assert session.predict(latent, "light").probs.shape == (3,)
        assert abs(float(session.predict(latent, "head_light").probs.sum()) - 1) < 1e-5
        depth = session.predict(latent, "depth")
        assert {name: (a.dtype.name, a.ndim) for name, a in depth.outputs.items()} == {"depth": ("float32", 2), "mean": ("float32", 1)}
        with pytest.raises(UsageError, match="has no output 'labels'; it gives depth, mean"):
            _ = depth.labels
        picture = session.decode(latent)
        np.testing.assert_array_equal(picture, run_graph(bundle.graph("decoder"), latent.symbols[None])[0])


def test_packets_come_back_as_they_were(session: Session) -> None:
    latent = session.encode(frames(1)[0], frame_id=7, timestamp_ns=123)
    packet = session.pack(latent)
    assert packet == session.pack(latent), "pack keeps no state"
    back = session.unpack(packet)
    assert (back.frame_id, back.timestamp_ns) == (7, 123)
    np.testing.assert_array_equal(back.symbols, latent.symbols)
    with pytest.raises(PacketError):
        session.unpack(packet[:-1])


def test_results_belong_to_the_caller(session: Session) -> None:
    first, second = frames(2)
    latent = session.encode(first)
    before, labels = latent.symbols.copy(), session.predict(latent).labels.copy()
    kept = session.predict(latent)
    session.predict(session.encode(second))
    np.testing.assert_array_equal(latent.symbols, before)
    np.testing.assert_array_equal(kept.labels, labels)


def test_frames_keep_their_identity_and_any_size_fits(session: Session) -> None:
    latent = session.encode(Frame(np.zeros((90, 70, 3), np.uint8), 41, 42))
    assert (latent.frame_id, latent.timestamp_ns) == (41, 42)
    one, two = session.encode(frames(1)[0]), session.encode(frames(1)[0])
    assert two.frame_id == one.frame_id + 1
    assert two.timestamp_ns > one.timestamp_ns


def test_eight_threads_get_their_own_answers(session: Session) -> None:
    images = frames(8)
    wanted = [session.predict(session.encode(image)).labels for image in images]
    wrong: list[int] = []

    def work(k: int) -> None:
        for _ in range(20):
            latent = session.encode(images[k], frame_id=k)
            again = session.unpack(session.pack(latent))
            if not np.array_equal(session.predict(again).labels, wanted[k]) or again.frame_id != k:
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_stream_costs_less_and_says_what_is_lost(session: Session) -> None:
    source = open_source("synthetic://road?frames=12", height=HEIGHT, width=WIDTH)
    latents = []
    while (frame := source.read()) is not None:
        latents.append(session.encode(frame))
    writer, reader = session.stream(key_every=5), session.stream()
    packets = [writer.pack(latent) for latent in latents]
    assert [parse_header(p).key for p in packets] == [k % 5 == 0 for k in range(12)]
    for k, packet in enumerate(packets):
        if k == 7:
            continue  # lost on the way
        if k in (8, 9):
            with pytest.raises(PacketError, match="next key packet"):
                reader.unpack(packet)
            continue
        back = reader.unpack(packet)
        assert back.frame_id == latents[k].frame_id
        np.testing.assert_array_equal(back.symbols, latents[k].symbols)
    with pytest.raises(PacketError, match="profile"):
        session.unpack(packets[1])


def test_a_pipeline_says_what_a_loop_says(session: Session) -> None:
    from percodec.runtime import Outputs

    seen: dict[tuple[int, str], dict[str, Any]] = {}
    packets: list[bytes] = []

    def predicted(p: Any) -> None:
        seen[p.frame_id, p.head] = {name: array.copy() for name, array in p.outputs.items()}

    outputs = Outputs(on_prediction=predicted, on_packet=lambda packet, frame_id, timestamp_ns: packets.append(packet))
    pipeline = session.pipeline(open_source("synthetic://road?frames=6", height=HEIGHT, width=WIDTH), outputs=outputs)
    assert pipeline.run().predicted == 6
    for packet in packets:
        latent = session.unpack(packet)
        for head in HEADS:
            for name, array in session.predict(latent, head).outputs.items():
                np.testing.assert_array_equal(seen[latent.frame_id, head][name], array)


@pytest.mark.parametrize(
    "image", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 3), np.float32), np.zeros((0, 8, 3), np.uint8), [[1, 2, 3]], None, "road.png"]
)
def test_what_is_no_picture_is_refused(session: Session, image: Any) -> None:
    with pytest.raises(UsageError, match="an image is"):
        session.encode(image)


def test_what_is_no_latent_is_refused(session: Session) -> None:
    for symbols in (np.zeros((1, 2, 3), np.uint8), np.zeros(session.bundle.latent_shape, np.int64), None):
        with pytest.raises(UsageError, match="a latent of"):
            session.predict(Latent(symbols, 0, 0))  # type: ignore[arg-type]
        with pytest.raises(CodecError):
            session.pack(Latent(symbols, 0, 0))  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="is a Latent of uint8"):
        session.predict(np.zeros(session.latent_shape, np.uint8))  # type: ignore[arg-type]
    with pytest.raises(CodecError, match="frame_id must be an integer, got float"):
        session.pack(Latent(np.zeros(session.latent_shape, np.uint8), 1.5, 0))  # type: ignore[arg-type]
    high = np.full(session.bundle.latent_shape, 255, np.uint8)
    with pytest.raises(CodecError, match="symbols reach 255"):
        session.pack(Latent(high, 0, 0))


def test_heads_are_opened_by_name(rich_bundle: Path, bundle_folder: Path) -> None:
    with Session.open(rich_bundle, heads=["light"]) as session:
        latent = session.encode(frames(1)[0])
        assert session.predict(latent).head == "light"
        with pytest.raises(UsageError, match="'depth' is not open in this session, which has light"):
            session.predict(latent, "depth")
    with Session.open(rich_bundle, heads=()) as session, pytest.raises(UsageError, match="which has no head"):
        session.predict(session.encode(frames(1)[0]))
    with pytest.raises(BundleError, match=r"it has: segmentation, depth, light|it has: segmentation, light, depth"):
        Session.open(rich_bundle, heads=["sky"])
    with (
        Session.open(bundle_folder) as session,
        pytest.raises(BundleError, match="no tables of predicted packets; add them"),
    ):
        session.stream()


def test_one_name_is_a_list_of_one(rich_bundle: Path) -> None:
    for heads, opened in (("light", ["light"]), ("all", list(HEADS))):
        with Session.open(rich_bundle, heads=heads, selftest=False) as session:
            assert sorted(session.heads) == sorted(opened)


def test_a_pixel_format_may_be_named(session: Session) -> None:
    image = frames(1)[0]
    expected = session.encode(Frame(np.ascontiguousarray(image), 0, 0)).symbols
    turned = Frame(np.ascontiguousarray(image[..., ::-1]), 0, 0, "bgr8")  # type: ignore[arg-type]
    np.testing.assert_array_equal(session.encode(turned).symbols, expected)
    with pytest.raises(SourceError, match="frame 3: unknown pixel format 'bgr'; there are rgb8, bgr8, nv12, yuyv"):
        Frame(image, 3, 0, "bgr")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        ({"threads": 0}, "from 1 to 64, got 0"),
        ({"threads": 1_000_000}, "from 1 to 64, got 1000000"),  # ONNX Runtime would begin them
        ({"threads": True}, "from 1 to 64, got True"),
        ({"threads": "2"}, "from 1 to 64, got '2'"),
        ({"size": 640}, "size is width and height in pixels, each 1..16384; got 640"),
        ({"size": (640.0, 480)}, "size is width and height"),
        ({"size": (640, 480, 3)}, "size is width and height"),
        ({"stream_id": 1.5}, "stream_id must be an integer, got float"),
    ],
)
def test_wishes_that_cannot_be_met_are_refused(bundle_folder: Path, wish: dict[str, Any], text: str) -> None:
    with pytest.raises((UsageError, CodecError), match=text):
        Session.open(bundle_folder, selftest=False, **wish)


def test_an_engine_is_of_whole_cells(bundle_folder: Path) -> None:
    for frame in ((9, 16), (0, 8), (8, 1 << 20), (8.0, 8)):
        with pytest.raises(UsageError, match="frame is height and width, each a multiple of 8 up to 16384"):
            open_engine(Bundle.open(bundle_folder), "encoder", frame=frame)  # type: ignore[arg-type]


def test_a_closed_session_says_so(bundle_folder: Path) -> None:
    session = Session.open(bundle_folder)
    latent = session.encode(frames(1)[0])
    session.close()
    session.close()
    for call in (lambda: session.encode(frames(1)[0]), lambda: session.predict(latent), lambda: session.decode(latent)):
        with pytest.raises(UsageError, match="closed"):
            call()


@pytest.mark.parametrize("size", [(480, 360), (1, 1), (37, 21), (160, 88)])
def test_whole_pictures_of_any_size(size: tuple[int, int]) -> None:
    width, height = size
    picture = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    with Session.open(size=size, selftest=False) as whole:
        latent = whole.encode(picture)
        assert latent.symbols.shape == (48, -(-height // 8), -(-width // 8))
        padded = np.pad(picture, ((0, -height % 8), (0, -width % 8), (0, 0)), "edge")
        with Session.open(size=(padded.shape[1], padded.shape[0]), selftest=False) as cells:
            same = cells.encode(padded)
            np.testing.assert_array_equal(same.symbols, latent.symbols)
            full = cells.decode(same)
        back = whole.unpack(whole.pack(latent))
        np.testing.assert_array_equal(back.symbols, latent.symbols)
        decoded = whole.decode(back)
        assert decoded.shape == picture.shape
        np.testing.assert_array_equal(decoded, full[:height, :width])
        writer, reader = whole.stream(), whole.stream()
        assert [reader.unpack(writer.pack(latent)).symbols.tobytes() for _ in range(2)] == [latent.symbols.tobytes()] * 2


def test_the_bundles_own_size_is_one_of_them() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (360, 480, 3), dtype=np.uint8)
    with Session.open(selftest=False) as plain, Session.open(size=(480, 360)) as sized:
        assert sized.selftest is not None
        assert plain.pack(plain.encode(picture, frame_id=1, timestamp_ns=2)) == sized.pack(
            sized.encode(picture, frame_id=1, timestamp_ns=2)
        )


def test_a_session_of_one_size_refuses_others(rich_bundle: Path) -> None:
    with Session.open(size=(64, 48), selftest=False) as session:
        with pytest.raises(SourceError, match=r"is 64x40, the session was opened for 64x48"):
            session.encode(np.zeros((40, 64, 3), np.uint8))
        with pytest.raises(UsageError, match="without a size"):
            session.pipeline(open_source("synthetic://road?frames=1", height=48, width=64))
    for size in ((0, 8), (8, 16385), (8,)):
        with pytest.raises(UsageError, match="size is width and height"):
            Session.open(size=size)  # type: ignore[arg-type]
    with pytest.raises(BundleError, match=r"of \d+x\d+ only.*--any-size"):
        Session.open(rich_bundle, size=(64, 48))
    with pytest.raises(BundleError, match="head_segmentation"):
        Session.open(size=(64, 48), heads=["segmentation"])
    with pytest.raises(UsageError, match="other sizes run on ort"):
        Session.open(size=(64, 48), backend="tensorrt", heads=[])
