"""Streams: predicted packets follow their predecessor, a loss ends at the next key packet, and the core writes what the page says."""

from __future__ import annotations

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from support.steps_models import random_latent, random_model

from percodec.sdk.codec import EntropyModel, PacketCodec, StepsModel, VideoCodec, _rans, parse_header, reference
from percodec.sdk.codec.contexts import MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts, Neighbour
from percodec.sdk.errors import CodecError, EntropyModelError, PacketError

CHANNELS, LEVELS, K, HEIGHT, WIDTH = 4, 6, 10, 9, 70
KERNELS = [kernel for kernel in _rans.Kernel if _rans.kernel_supported(kernel)]


def temporal_model(seed: int, levels: int = LEVELS) -> EntropyModel:
    """Random tables; neighbours everywhere that is known, the latent before included."""
    rng = np.random.default_rng(seed)
    channels = []
    for c in range(CHANNELS):
        neighbours = []
        for k in range(9):
            channel = (c, int(rng.integers(c)) if c else c, CHANNELS + int(rng.integers(CHANNELS)))[k % 3]
            dy = int(rng.integers(-2, 0 if channel == c else 3))
            tables = rng.integers(-14, 15, (2, levels)).astype(np.int8)
            neighbours.append(Neighbour(channel, dy, int(rng.integers(-2, 3)), tables[0], tables[1]))
        borders = [np.sort(rng.integers(-60, 61, n - 1)).astype(np.int8) for n in (MEAN_BINS, SPREAD_BINS)]
        mapped = rng.integers(0, K, MEAN_BINS * SPREAD_BINS).astype(np.uint8)
        channels.append(ChannelContexts(tuple(neighbours), borders[0], borders[1], mapped, int(rng.integers(levels))))
    counts = rng.integers(1, 1000, (CHANNELS * K, levels))
    cdf = EntropyModel.from_counts(counts).cdf.reshape(CHANNELS, K, levels + 1)
    return EntropyModel(cdf, Contexts(tuple(channels), levels, K, temporal=True))


def stream(count: int, seed: int = 1, levels: int = LEVELS) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(0, levels, (CHANNELS, HEIGHT, WIDTH), np.uint8) for _ in range(count)]


@pytest.fixture(params=["order 0", "pairs"])
def key_model(request: pytest.FixtureRequest) -> EntropyModel:
    counts = np.arange(1, CHANNELS * LEVELS + 1).reshape(CHANNELS, LEVELS)
    return EntropyModel.from_counts(counts if request.param == "order 0" else counts[:, :, None] * counts[:, None, :])


@pytest.mark.parametrize("levels", [3, 6, 12])
def test_core_kernels_and_reference_write_the_same_bytes(levels: int) -> None:
    model = temporal_model(levels, levels)
    before, now = stream(2, levels=levels)
    both = np.concatenate([before, now])
    coder = PacketCodec(model, HEIGHT, WIDTH)._coder
    for lanes in (0, 1, 8, 13, 64):
        wanted = reference.encode_packet(model, both, frame_id=3, timestamp_ns=4, counter=5, lanes=lanes or None)
        for kernel in KERNELS:
            assert coder.encode(both, np.empty(coder.packet_bound, np.uint8), 0, 5, 3, 4, lanes, kernel) == wanted, (lanes, kernel)
            out = np.concatenate([before, np.full_like(now, 255)])
            status, _ = coder.decode(wanted, out, kernel)
            assert _rans.STATUS_NAMES[status] == "ok"
            assert np.array_equal(out, both)
        assert np.array_equal(reference.decode_packet(model, wanted, HEIGHT, WIDTH, before)[1], now)


def test_the_model_round_trips_and_says_its_profile() -> None:
    model = temporal_model(1)
    again = EntropyModel.from_bytes(model.to_bytes())
    assert again == model
    assert again.profile == 2
    flat = Contexts.from_bytes(model.contexts.to_bytes(), CHANNELS, LEVELS, K, temporal=True)
    assert flat.temporal
    with pytest.raises(EntropyModelError, match="known by then"):
        Contexts.from_bytes(model.contexts.to_bytes(), CHANNELS, LEVELS, K)


def test_a_stream_comes_back_and_keys_stand_alone(key_model: EntropyModel) -> None:
    latents = stream(11)
    sender, receiver = (VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH, stream_id=7, key_every=4) for _ in range(2))
    alone = PacketCodec(key_model, HEIGHT, WIDTH)
    for k, latent in enumerate(latents):
        packet = sender.encode(latent, frame_id=k, timestamp_ns=k, key=k == 6)
        header, again = receiver.decode(packet)
        assert np.array_equal(again, latent)
        assert (header.counter, header.frame_id, header.stream_id) == (k, k, 7)
        assert header.profile == (key_model.profile if k in (0, 4, 6, 10) else 2)
        if header.profile != 2:
            assert np.array_equal(alone.decode(packet)[1], latent)


def test_a_stream_of_uniform_steps_comes_back() -> None:
    """Profiles 4 and 5, and no other two, of the same channels, offsets and levels."""
    rng = np.random.default_rng(5)

    def below(n: int) -> int:
        return int(rng.integers(n))

    predicted = random_model(below, 6, 2, temporal=True)
    planes = tuple(replace(p, width=(), place=()) for p in predicted.planes)
    key = StepsModel(planes, predicted.heads, predicted.bands)
    latents = [random_latent(below, key, 9, 21) for _ in range(9)]
    sender, receiver = (VideoCodec(key, predicted, 9, 21, key_every=4) for _ in range(2))
    for k, latent in enumerate(latents):
        header, again = receiver.decode(sender.encode(latent, k, k))
        assert np.array_equal(again, latent)
        assert header.profile == (4 if k % 4 == 0 else 5)
        assert header.key == (k % 4 == 0)
    assert receiver.decode(sender.encode(latents[0], 9, 9))[0].counter == 9
    sender.encode(latents[0], 10, 10)
    with pytest.raises(PacketError, match="wait for the next key packet"):
        receiver.decode(sender.encode(latents[0], 11, 11))
    other = replace(predicted.planes[0], levels=predicted.planes[0].levels + 1)
    moved = StepsModel((other, *predicted.planes[1:]), predicted.heads, predicted.bands, temporal=True)
    for one, two in ((key, temporal_model(2)), (key, key), (predicted, predicted), (key, moved)):
        with pytest.raises(CodecError, match=r"tables of profile|not of the same latent"):
            VideoCodec(one, two, 9, 21)


def test_a_lost_or_altered_packet_costs_what_follows_up_to_the_next_key(key_model: EntropyModel) -> None:
    latents = stream(12)
    sender = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH, key_every=5)
    packets = [sender.encode(latent, k, k) for k, latent in enumerate(latents)]
    for trouble in range(12):
        for altered in (False, True):
            receiver, got, said = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH), list[int](), list[str]()
            for k, packet in enumerate(packets):
                if k == trouble:
                    if not altered:
                        continue
                    packet = packet[:-1] + bytes([packet[-1] ^ 1])
                try:
                    _, latent = receiver.decode(packet)
                except PacketError as error:
                    said.append(str(error))
                    continue
                assert np.array_equal(latent, latents[k])
                got.append(k)
            next_key = (trouble // 5 + 1) * 5
            assert got == [k for k in range(12) if k < trouble or k >= next_key]
            assert all("wait for the next key packet" in text for text in said[altered:])


def coded(
    key_model: EntropyModel, count: int, seed: int = 1, stream_id: int = 0, start_ns: int = 0
) -> tuple[list[bytes], list[np.ndarray]]:
    """A stream of `count` packets with a key every 10, and its latents."""
    latents = stream(count, seed)
    sender = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH, stream_id=stream_id, key_every=10)
    return [sender.encode(latent, k, start_ns + k) for k, latent in enumerate(latents)], latents


def received(receiver: VideoCodec, packets: list[bytes], latents: list[np.ndarray], order: list[int]) -> dict[int, str]:
    """Decodes packets in that order; what was said of those refused, by place."""
    said = {}
    for place, k in enumerate(order):
        try:
            _, latent = receiver.decode(packets[k])
        except PacketError as error:
            said[place] = str(error)
        else:
            assert np.array_equal(latent, latents[k])
    return said


def test_another_stream_is_refused_and_costs_nothing(key_model: EntropyModel) -> None:
    packets, latents = coded(key_model, 3, stream_id=1)
    others, _ = coded(key_model, 3, stream_id=2)
    receiver = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH)
    receiver.decode(packets[0])
    for other in others:
        with pytest.raises(PacketError, match=r"of stream 2 is not of stream 1, which this decoder reads"):
            receiver.decode(other)
    assert received(receiver, packets, latents, [1, 2]) == {}


@pytest.mark.parametrize("again", [0, 4, 9, 10, 11])
def test_a_packet_that_comes_twice_or_late_costs_nothing(key_model: EntropyModel, again: int) -> None:
    packets, latents = coded(key_model, 25)
    for late in (again, again + 1, again + 12):
        receiver = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH)
        said = received(receiver, packets, latents, [*range(late + 1), again, *range(late + 1, 25)])
        assert list(said) == [late + 1]
        assert "came twice or too late" in said[late + 1]


def test_a_packet_from_the_future_costs_nothing_once_the_missing_one_comes(key_model: EntropyModel) -> None:
    packets, latents = coded(key_model, 12)
    receiver = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH)
    said = received(receiver, packets, latents, [0, 1, 3, 2, 3, 4, 5])
    assert list(said) == [2]
    assert "needs the latent of packet 2, the last one decoded is 1" in said[2]


@pytest.mark.parametrize("ran", [1, 7, 70])
def test_an_encoder_that_starts_again_is_followed(key_model: EntropyModel, ran: int) -> None:
    """From counter 0, with another content and a later time; with the clock started again too once enough packets lie between."""
    packets, latents = coded(key_model, ran)
    for start_ns in (1000, 0):
        again, others = coded(key_model, 80, seed=2, start_ns=start_ns)
        receiver = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH)
        said = received(receiver, [*packets, *again], [*latents, *others], list(range(ran + 80)))
        assert list(said) == ([] if start_ns or ran > 64 else list(range(ran, ran + 10)))


def test_a_restart_whose_key_was_lost_waits_for_the_next_key(key_model: EntropyModel) -> None:
    """Even where a predicted packet of the new run has the number that comes next: its latent is another one."""
    packets, latents = coded(key_model, 6)
    again, others = coded(key_model, 12, seed=2, start_ns=1000)
    receiver = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH)
    assert received(receiver, packets, latents, list(range(6))) == {}
    said = received(receiver, again, others, list(range(1, 12)))
    assert list(said) == list(range(9))
    assert "started again" in said[5]


def test_calls_that_raise_change_nothing(key_model: EntropyModel) -> None:
    latents = stream(3)
    sender, receiver = (VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH) for _ in range(2))
    for k, latent in enumerate(latents):
        for wrong, frame_id in ((latent.tolist(), 0), (None, 0), (latent[:1], 0), (latent, 2**32), (np.full_like(latent, 9), 0)):
            with pytest.raises(CodecError):
                sender.encode(wrong, frame_id, 0)
        packet = sender.encode(latent, k, k)
        damaged = bytearray(packet)
        damaged[50] ^= 1
        sealed = damaged[:40] + _rans.crc32c(damaged[44:], _rans.crc32c(damaged[:40])).to_bytes(4, "little") + damaged[44:]
        for wrong_packet in (None, b"", packet[:-1], bytes(damaged), bytes(sealed)):
            with pytest.raises(PacketError):
                receiver.decode(wrong_packet)
        header, again = receiver.decode(packet)
        assert header.key == (k == 0)
        assert np.array_equal(again, latent)


def test_one_object_is_one_direction(key_model: EntropyModel) -> None:
    sender, receiver = (VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH) for _ in range(2))
    latent = stream(1)[0]
    packet = sender.encode(latent, 0, 0)
    receiver.decode(packet)
    with pytest.raises(CodecError, match="made to encode: make another one to decode"):
        sender.decode(packet)
    with pytest.raises(CodecError, match="made to decode"):
        receiver.encode(latent, 0, 0)


def test_a_call_while_another_thread_is_in_one_is_refused(key_model: EntropyModel) -> None:
    inside, leave = threading.Event(), threading.Event()

    class Waiting:
        def __index__(self) -> int:
            inside.set()
            assert leave.wait(60)
            return 7

    codec, latent = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH), stream(1)[0]
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(codec.encode, latent, Waiting(), 0)
        assert inside.wait(60)
        try:
            with pytest.raises(CodecError, match="in use by another thread"):
                codec.encode(latent, 0, 0)
        finally:
            leave.set()
        assert parse_header(first.result()).frame_id == 7
    codec.encode(latent, 8, 0)


def test_eight_threads_never_make_a_packet_of_something_else(key_model: EntropyModel) -> None:
    """Each latent coded, by counter, is the one that a decoder gets; calls that overlapped were refused."""
    latents, threads = stream(40), 8
    sender = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH, key_every=3)
    start = threading.Barrier(threads)

    def work(_: int) -> list[bytes]:
        start.wait()
        packets = []
        for k, latent in enumerate(latents):
            with contextlib.suppress(CodecError):
                packets.append(sender.encode(latent, k, 0))
        return packets

    with ThreadPoolExecutor(threads) as pool:
        packets = sorted((p for done in pool.map(work, range(threads)) for p in done), key=lambda p: parse_header(p).counter)
    assert [parse_header(p).counter for p in packets] == list(range(len(packets)))
    receiver = VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH)
    for packet in packets:
        header, latent = receiver.decode(packet)
        assert np.array_equal(latent, latents[header.frame_id])


def test_the_counter_wraps(key_model: EntropyModel) -> None:
    latents = stream(3)
    sender, receiver = (VideoCodec(key_model, temporal_model(2), HEIGHT, WIDTH, key_every=9) for _ in range(2))
    sender._counter = 2**32 - 3
    sender._since_key = 9
    packets = [sender.encode(latent, k, k) for k, latent in enumerate(latents)]
    assert [parse_header(p).counter for p in packets] == [2**32 - 2, 2**32 - 1, 0]
    assert all(np.array_equal(receiver.decode(p)[1], z) for p, z in zip(packets, latents, strict=True))


def test_what_does_not_fit_is_refused(key_model: EntropyModel) -> None:
    temporal = temporal_model(2)
    with pytest.raises(CodecError, match="profile 0, 1 or 3"):
        VideoCodec(temporal, temporal, HEIGHT, WIDTH)
    with pytest.raises(CodecError, match="profile 0, 1 or 3"):
        VideoCodec(key_model, key_model, HEIGHT, WIDTH)
    with pytest.raises(CodecError, match="same latent"):
        VideoCodec(EntropyModel.from_counts(np.ones((CHANNELS + 1, LEVELS), np.int64)), temporal, HEIGHT, WIDTH)
    with pytest.raises(CodecError, match="key_every"):
        VideoCodec(key_model, temporal, HEIGHT, WIDTH, key_every=0)
    codec = VideoCodec(key_model, temporal, HEIGHT, WIDTH)
    with pytest.raises(CodecError, match="uint8"):
        codec.encode(np.zeros((CHANNELS, HEIGHT, WIDTH + 1), np.uint8), 0, 0)
    with pytest.raises(CodecError, match="symbols reach 9"):
        codec.encode(np.full((CHANNELS, HEIGHT, WIDTH), 9, np.uint8), 0, 0)
    sender = VideoCodec(key_model, temporal, HEIGHT, WIDTH)
    sender.encode(stream(1)[0], 0, 0)
    predicted = sender.encode(stream(1)[0], 1, 1)
    with pytest.raises(PacketError, match="key packet"):
        codec.decode(predicted)
