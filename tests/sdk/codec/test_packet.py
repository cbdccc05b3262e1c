from __future__ import annotations

import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from percodec.sdk.codec import EntropyModel, PacketCodec, parse_header, reference
from percodec.sdk.codec.header import CRC, HEADER_BYTES, LAYOUT
from percodec.sdk.errors import CodecError, PacketError

PAYLOAD_LENGTH_AT, LATENT_CRC_AT, TABLE_HASH_AT = 32, 36, 24


def sealed(packet: bytes | bytearray) -> bytes:
    """The packet with a matching CRC: what a forger, or a faulty encoder, would send."""
    head, payload = bytes(packet[: LAYOUT.size]), bytes(packet[HEADER_BYTES:])
    return head + CRC.pack(reference.crc32c(head + payload)) + payload


def patched(packet: bytes, at: int, data: bytes) -> bytes:
    return sealed(packet[:at] + data + packet[at + len(data) :])


def test_header_layout_as_written(sample) -> None:
    model, symbols = sample(2, 3, 4)
    packet = PacketCodec(model, 3, 4, stream_id=0x0102, lanes=1).encode(symbols, 0x03040506, 0x0708090A0B0C0D0E)
    assert HEADER_BYTES == 44
    assert packet[:24].hex() == "5043" + "10" + "00" + "01" + "00" + "0201" + "00000000" + "06050403" + "0e0d0c0b0a090807"
    assert packet[24:32] == model.digest[:8]
    assert struct.unpack_from("<I", packet, 32)[0] == len(packet) - 44
    assert parse_header(packet) == PacketCodec(model, 3, 4).decode(packet)[0]


def test_counter_counts_successful_packets(sample) -> None:
    model, symbols = sample(2, 3, 4)
    codec = PacketCodec(model, 3, 4)
    counters = []
    for frame_id in (9, 12, 13):
        counters.append(parse_header(codec.encode(symbols, frame_id, 0)).counter)
        with pytest.raises(CodecError):
            codec.encode(np.full_like(symbols, 6), 0, 0)
    assert counters == [0, 1, 2]


def test_decode_into_a_given_array_and_from_any_bytes(sample) -> None:
    model, symbols = sample(2, 3, 4)
    codec = PacketCodec(model, 3, 4)
    packet = codec.encode(symbols, 0, 0)
    out = np.empty_like(symbols)
    for form in (packet, bytearray(packet), memoryview(b"x" + packet)[1:]):
        _, decoded = codec.decode(form, out)
        assert decoded is out
        assert (out == symbols).all()


def test_strided_symbols_are_coded_as_they_read(sample) -> None:
    model, symbols = sample(2, 3, 4)
    codec = PacketCodec(model, 3, 4)
    strided = np.asfortranarray(symbols)
    assert codec.encode(strided, 0, 0)[44:] == codec.encode(symbols, 0, 0)[44:]


def test_wrong_tables_are_named(sample) -> None:
    model, symbols = sample(2, 8, 9)
    other, _ = sample(2, 8, 9, seed=1)
    packet = PacketCodec(model, 8, 9).encode(symbols, 0, 0)
    with pytest.raises(PacketError, match="other entropy tables"):
        PacketCodec(other, 8, 9).decode(packet)


def test_forged_table_hash_never_yields_symbols(sample) -> None:
    """The same tables but for one frequency, and a header that claims they are the same."""
    model, symbols = sample(4, 12, 12)
    packet = PacketCodec(model, 12, 12).encode(symbols, 0, 0)
    refused = 0
    for channel in range(4):
        for level in range(1, 6):
            cdf = model.cdf.copy()
            cdf[channel, level] += 1
            if not (np.diff(cdf[channel].astype(int)) > 0).all():
                continue
            other = EntropyModel(cdf)
            forged = patched(packet, TABLE_HASH_AT, other.digest[:8])
            codec = PacketCodec(other, 12, 12)
            try:
                _, decoded = codec.decode(forged)
            except PacketError:
                refused += 1
            else:
                assert (decoded == symbols).all(), "accepted, so the table that changed was not needed"
    assert refused >= 10


def test_latent_crc_refuses_another_latent(sample) -> None:
    """A payload that decodes perfectly, to symbols that are not those of the header."""
    model, symbols = sample(2, 6, 8)
    codec = PacketCodec(model, 6, 8)
    packet = codec.encode(symbols, 0, 0)
    changed = symbols.copy()
    changed[1, 2, 3] = (changed[1, 2, 3] + 1) % 6
    with pytest.raises(PacketError, match="latent CRC"):
        codec.decode(patched(packet, LATENT_CRC_AT, struct.pack("<I", reference.latent_crc(changed))))
    with pytest.raises(PacketError, match="latent CRC"):
        PacketCodec(model, 8, 6).decode(packet)  # as many symbols, another shape


@pytest.mark.parametrize(
    ("at", "data", "message"),
    [
        (0, b"XC", "does not begin with 'PC'"),
        (2, b"\x20", r"found 2\.0, known 1\.x"),
        (2, b"\x00", r"found 0\.0, known 1\.x"),
        (3, b"\x01", "coding profile"),
        (4, b"\x00", "lane count"),
        (4, b"\x41", "lane count"),
        (4, b"\xff", "lane count"),
        (4, b"\x40", "payload length"),
        (5, b"\x01", "reserved bits"),
        (5, b"\x80", "reserved bits"),
        (PAYLOAD_LENGTH_AT, b"\xff\xff\xff\xff", "payload length"),
        (PAYLOAD_LENGTH_AT, b"\0\0\0\0", "payload length"),
        (44, b"\0\0\0\0", "outside the coder's interval"),
        (44, b"\xff\x7f\0\0", "outside the coder's interval"),
        (44, b"\0\0\0\x80", "outside the coder's interval"),
    ],
)
def test_fields_with_a_matching_crc(at: int, data: bytes, message: str, sample) -> None:
    model, symbols = sample(1, 4, 4)
    codec = PacketCodec(model, 4, 4, lanes=1)
    with pytest.raises(PacketError, match=message):
        codec.decode(patched(codec.encode(symbols, 0, 0), at, data))


def test_minor_versions_are_readable(sample) -> None:
    model, symbols = sample(1, 4, 4)
    codec = PacketCodec(model, 4, 4)
    header, decoded = codec.decode(patched(codec.encode(symbols, 0, 0), 2, b"\x13"))
    assert header.version == 0x13
    assert (decoded == symbols).all()


@pytest.mark.parametrize("lanes", [1, 4, 16, 64])
def test_payload_of_the_wrong_length_with_everything_else_matching(lanes: int, sample) -> None:
    model, symbols = sample(3, 20, 21, peak=1.0)
    codec = PacketCodec(model, 20, 21, lanes=lanes)
    packet = codec.encode(symbols, 0, 0)

    def resized(payload: bytes) -> bytes:
        return sealed(packet[:32] + struct.pack("<I", len(payload)) + packet[36:44] + payload)

    payload = packet[44:]
    for cut in range(1, len(payload) + 1):
        with pytest.raises(PacketError):
            codec.decode(resized(payload[:-cut]))
    for extra in range(1, 300):
        with pytest.raises(PacketError):
            codec.decode(resized(payload + bytes(extra)))


def test_oversize_packets_are_refused_before_they_are_looked_at(sample) -> None:
    model, symbols = sample(2, 8, 8, peak=0.5)
    free = PacketCodec(model, 8, 8)
    packet = free.encode(symbols, 0, 0)
    exact = PacketCodec(model, 8, 8, max_bytes=len(packet))
    assert exact.encode(symbols, 0, 0) == packet
    exact.decode(packet)
    tight = PacketCodec(model, 8, 8, max_bytes=len(packet) - 1)
    with pytest.raises(PacketError, match="max_bytes"):
        tight.encode(symbols, 0, 0)
    with pytest.raises(PacketError, match="cap"):
        tight.decode(packet)
    with pytest.raises(PacketError, match="cap"):
        free.decode(bytes(10_000_000))


def test_the_default_cap_holds_for_the_worst_content() -> None:
    model = EntropyModel.from_counts(np.tile([10**9, 0, 0, 0, 0, 0], (3, 1)))
    worst = np.full((3, 17, 19), 5, np.uint8)
    for lanes in (None, 1, 64):
        codec = PacketCodec(model, 17, 19, lanes=lanes)
        packet = codec.encode(worst, 0, 0)
        assert len(packet) <= codec.max_bytes == 44 + 256 + 2 * worst.size
        assert (codec.decode(packet)[1] == worst).all()


def test_arguments(sample) -> None:
    model, symbols = sample(2, 3, 4)
    for options in ({"lanes": 0}, {"lanes": 65}, {"stream_id": -1}, {"stream_id": 65536}, {"max_bytes": 43}):
        with pytest.raises(CodecError):
            PacketCodec(model, 3, 4, **options)
    for height, width in ((0, 4), (3, -1), (65536, 1), (20000, 20000)):
        with pytest.raises(CodecError):
            PacketCodec(model, height, width)
    codec = PacketCodec(model, 3, 4)
    for wrong in (symbols[:1], symbols.astype(np.int32), symbols.tolist(), symbols[None]):
        with pytest.raises(CodecError, match="must be uint8"):
            codec.encode(wrong, 0, 0)
    with pytest.raises(CodecError, match=r"levels 0\.\.5"):
        codec.encode(np.full_like(symbols, 255), 0, 0)
    before = codec.encode(symbols, 0, 0)
    for name, most in (("frame_id", 1 << 32), ("timestamp_ns", 1 << 64), ("counter", 1 << 32)):
        for number in (-1, most, 0.0, "7"):
            with pytest.raises(CodecError, match=f"{name} must be"):
                codec.encode(symbols, **{"frame_id": 0, "timestamp_ns": 0, name: number})
    packet = codec.encode(symbols, np.int64(0), 0)
    assert parse_header(packet).counter == parse_header(before).counter + 1
    assert parse_header(codec.encode(symbols, 0, 0, counter=2**32 - 1)).counter == 2**32 - 1
    assert parse_header(codec.encode(symbols, 0, 0)).counter == 0
    frozen = np.empty_like(symbols)
    frozen.setflags(write=False)
    for out in (frozen, np.empty((2, 3, 5), np.uint8), np.asfortranarray(np.empty_like(symbols))):
        with pytest.raises(CodecError):
            codec.decode(packet, out)
    for wrong_packet in (None, "text", 7, memoryview(packet)[::2]):
        with pytest.raises(PacketError, match="bytes-like"):
            codec.decode(wrong_packet)  # type: ignore[arg-type]
        with pytest.raises(PacketError, match="bytes-like"):
            parse_header(wrong_packet)  # type: ignore[arg-type]


def test_threads_and_repetition_give_equal_packets(sample) -> None:
    """One codec per thread, and one codec shared by two threads: the same bytes as alone, but for the counter."""
    model, _ = sample(4, 30, 40, seed=100)
    latents = [sample(4, 30, 40, seed=seed)[1] for seed in range(12)]

    def run(codec: PacketCodec) -> list[bytes]:
        return [codec.encode(latent, k, k) for _ in range(20) for k, latent in enumerate(latents)]

    alone = run(PacketCodec(model, 30, 40))
    assert run(PacketCodec(model, 30, 40)) == alone

    def in_two_threads(first: PacketCodec, second: PacketCodec) -> list[list[bytes]]:
        results: list[list[bytes]] = [[], []]
        threads = [
            threading.Thread(target=lambda k=k, codec=codec: results[k].extend(run(codec))) for k, codec in enumerate((first, second))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results

    assert in_two_threads(PacketCodec(model, 30, 40), PacketCodec(model, 30, 40)) == [alone, alone]
    shared = PacketCodec(model, 30, 40)
    results = in_two_threads(shared, shared)
    for result in results:
        assert [p[12:40] + p[44:] for p in result] == [p[12:40] + p[44:] for p in alone]
    counters = sorted(parse_header(p).counter for result in results for p in result)
    assert counters == list(range(2 * len(alone)))
    for packet in results[0][:12]:
        shared.decode(packet)


def test_a_thread_that_holds_a_codec_when_python_ends_is_no_fault() -> None:
    program = """
import threading
import numpy as np
from percodec.sdk.codec import EntropyModel, PacketCodec
entered = threading.Event()
def wait(codec):
    entered.set()
    threading.Event().wait()
codec = PacketCodec(EntropyModel.from_counts(np.ones((2, 6), np.int64)), 4, 4)
threading.Thread(target=wait, args=(codec,), daemon=True).start()
entered.wait()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr == ""


@pytest.mark.parametrize("threads", [1, 2, 3, 9])
def test_a_batch_is_its_packets(sample, threads: int) -> None:
    model, _ = sample(4, 12, 20)
    symbols = np.stack([sample(4, 12, 20, seed=k)[1] for k in range(7)])
    ids, stamps = range(100, 107), [k * 1_000 for k in range(7)]
    one, many = PacketCodec(model, 12, 20, stream_id=3), PacketCodec(model, 12, 20, stream_id=3)
    for codec in (one, many):
        codec.encode(symbols[0], 0, 0)
    alone = [one.encode(s, i, t) for s, i, t in zip(symbols, ids, stamps, strict=True)]
    assert many.encode_batch(symbols, ids, stamps, threads=threads) == alone
    headers, decoded = one.decode_batch(alone, threads=threads)
    assert (decoded == symbols).all()
    assert [(h.frame_id, h.timestamp_ns, h.counter) for h in headers] == [
        (i, t, k + 1) for k, (i, t) in enumerate(zip(ids, stamps, strict=True))
    ]
    assert many.encode_batch(symbols[:0], [], [], threads=threads) == []
    assert one.decode_batch([], threads=threads)[1].shape == (0, 4, 12, 20)


def test_a_batch_with_a_fault_names_the_first_and_counts_none(sample) -> None:
    model, symbols = sample(4, 12, 20)
    codec, batch = PacketCodec(model, 12, 20), np.stack([symbols] * 5)
    packets = codec.encode_batch(batch, range(5), range(5))
    batch[2:] = 6
    with pytest.raises(CodecError, match="frame 2: symbols reach 6"):
        codec.encode_batch(batch, range(5), range(5))
    assert parse_header(codec.encode(symbols, 9, 9)).counter == 5
    packets[1] = packets[1][:-1]
    with pytest.raises(PacketError, match="was cut off or extended"):
        codec.decode_batch([*packets, b""])
    for wrong in (
        {"frame_ids": range(4)},
        {"timestamps_ns": range(4)},
        {"timestamps_ns": [0, 0, -1, 0, 0]},
        {"symbols": batch[0]},
        {"threads": 0},
    ):
        with pytest.raises(CodecError):
            codec.encode_batch(**{"symbols": batch, "frame_ids": range(5), "timestamps_ns": range(5), **wrong})


_FORKING = """
import os, sys, threading
from percodec.sdk import Bundle, PacketCodec
bundle = Bundle.open(sys.argv[1])
codec, symbols = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]), bundle.selftest().symbols[0]
inside, go_on = threading.Event(), threading.Event()
packet = codec._packet
def slow(*words):
    inside.set(), go_on.wait()
    return packet(*words)
codec._packet = slow
thread = threading.Thread(target=codec.encode, args=(symbols, 0, 0))
thread.start(), inside.wait()
codec._packet = packet
child = os.fork()
if child == 0:
    os._exit(7 if len(codec.encode(symbols, 0, 0)) else 8)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
go_on.set(), thread.join()
sys.exit(code)
"""


def test_a_child_of_a_process_that_encodes_can_encode(pristine: Path) -> None:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", _FORKING, str(pristine)], timeout=120, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
