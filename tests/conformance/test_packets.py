"""Frozen packets stay readable, are still what the encoder writes, and no altered one is accepted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from percodec.sdk.codec import EntropyModel, PacketCodec, StepsModel, _rans, parse_header, read_model, reference
from percodec.sdk.errors import PacketError

FOLDER = Path(__file__).parent / "packets"
KERNELS = [kernel for kernel in _rans.Kernel if _rans.kernel_supported(kernel)]
SHAPES = {
    "v1.0-order0-4x6x7-L6-lane1": (4, 6, 7),
    "v1.0-order0-8x14x14-L6-auto": (8, 14, 14),
    "v1.0-order0-3x9x11-L16-lanes16": (3, 9, 11),
    "v1.0-order0-2x5x37-L6-lanes64": (2, 5, 37),
    "v1.0-order0-2x3x50-L256-lanes3": (2, 3, 50),
    "v1.0-contexts-5x7x70-L6-auto": (5, 7, 70),
    "v1.0-contexts-3x9x21-L6-lanes16": (3, 9, 21),
    "v1.0-contexts-2x4x300-L17-lanes5": (2, 4, 300),
    "v1.0-temporal-3x6x70-L6-lanes8": (6, 6, 70),  # the latent before, then this one
    "v1.0-contexts-4x9x70-L6-K16-auto": (4, 9, 70),
    "v1.0-temporal-3x6x90-L6-K16-lanes32": (6, 6, 90),
    "v1.0-pairs-3x7x13-L6-lanes16": (3, 7, 13),
    "v1.0-pairs-2x9x31-L8-lanes64": (2, 9, 31),
    "v1.0-pairs-4x20x30-L3-auto": (4, 20, 30),
    "v1.0-steps-6x9x21-lanes16": (6, 9, 21),
    "v1.0-steps-9x5x36-auto": (9, 5, 36),
    "v1.0-steps-2x5x37-lanes3": (2, 5, 37),
    "v1.0-steps-temporal-6x9x21-lanes16": (12, 9, 21),  # the latent before, then this one
    "v1.0-steps-temporal-5x7x40-auto": (10, 7, 40),
}


def golden(name: str) -> tuple[bytes, EntropyModel | StepsModel, np.ndarray]:
    packet = (FOLDER / f"{name}.packet").read_bytes()
    model = read_model((FOLDER / f"{name}.pcem").read_bytes())
    return packet, model, np.frombuffer((FOLDER / f"{name}.symbols").read_bytes(), np.uint8).reshape(SHAPES[name])


def unknown(model: EntropyModel | StepsModel, symbols: np.ndarray) -> np.ndarray:
    """What a decoder starts from: the latent before, where there is one, and nothing of this one."""
    out = symbols.copy()
    out[-model.channels :] = 255
    return out


def test_every_file_is_listed() -> None:
    assert {path.stem for path in FOLDER.iterdir()} == set(SHAPES)


def test_generator_still_makes_them() -> None:
    done = subprocess.run([sys.executable, str(Path(__file__).parent / "make_packets.py")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", SHAPES)
def test_decodes_to_the_frozen_symbols(name: str) -> None:
    packet, model, symbols = golden(name)
    _, height, width = SHAPES[name]
    header, decoded = PacketCodec(model, height, width).decode(packet, unknown(model, symbols))
    assert (decoded == symbols).all()
    assert header == parse_header(packet)
    before = symbols[: model.channels] if len(symbols) > model.channels else None
    reference_header, reference_decoded = reference.decode_packet(model, packet, height, width, before)
    assert reference_header == header
    assert (reference_decoded == symbols[-model.channels :]).all()


@pytest.mark.parametrize("name", SHAPES)
def test_encoder_still_writes_the_frozen_bytes(name: str) -> None:
    packet, model, symbols = golden(name)
    header = parse_header(packet)
    coder = PacketCodec(model, *SHAPES[name][1:])._coder
    for kernel in KERNELS:
        scratch = np.empty(coder.packet_bound, np.uint8)
        again = coder.encode(symbols, scratch, header.stream_id, header.counter, header.frame_id, header.timestamp_ns, header.lanes, kernel)
        assert again == packet


@pytest.mark.parametrize("name", SHAPES)
def test_every_single_bit_flip_is_refused(name: str) -> None:
    packet, model, _ = golden(name)
    codec = PacketCodec(model, *SHAPES[name][1:])
    for bit in range(8 * len(packet)):
        altered = bytearray(packet)
        altered[bit // 8] ^= 1 << bit % 8
        with pytest.raises(PacketError):
            codec.decode(altered)
        with pytest.raises(PacketError):
            parse_header(altered)


@pytest.mark.parametrize("name", SHAPES)
def test_every_truncation_and_extension_is_refused(name: str) -> None:
    packet, model, _ = golden(name)
    codec = PacketCodec(model, *SHAPES[name][1:])
    rng = np.random.default_rng(0)
    for length in range(len(packet)):
        with pytest.raises(PacketError):
            codec.decode(packet[:length])
        with pytest.raises(PacketError):
            parse_header(packet[:length])
    for extra in range(1, 200):
        for tail in (bytes(extra), rng.bytes(extra)):
            with pytest.raises(PacketError):
                codec.decode(packet + tail)


@pytest.mark.parametrize("name", SHAPES)
def test_altered_payloads_behind_a_matching_crc_never_pass_silently(name: str) -> None:
    """Every bit of the payload flipped and the packet CRC made to match: the coder's own checks and the latent CRC remain."""
    packet, model, symbols = golden(name)
    codec = PacketCodec(model, *SHAPES[name][1:])
    for bit in range(8 * 44, 8 * len(packet)):
        altered = bytearray(packet)
        altered[bit // 8] ^= 1 << bit % 8
        altered[40:44] = _rans.crc32c(altered[44:], _rans.crc32c(altered[:40])).to_bytes(4, "little")
        with pytest.raises(PacketError):
            codec.decode(altered, unknown(model, symbols))


REFUSED = json.loads((FOLDER.parent / "refused.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case['tables'].split('-')[1]}-{case['status']}-{case['why']}")
def test_packets_to_refuse(case: dict[str, Any]) -> None:
    """For the same reason by every kernel and by the reference."""
    _, model, symbols = golden(case["tables"])
    packet, height, width = bytes.fromhex(case["packet"]), case["height"], case["width"]
    codec = PacketCodec(model, height, width)
    for kernel in KERNELS:
        assert _rans.STATUS_NAMES[codec._coder.decode(packet, np.empty_like(symbols), kernel)[0]] == case["status"]
    with pytest.raises(PacketError, match=f"^{case['status']}:"):
        reference.decode_packet(model, packet, height, width)
    with pytest.raises(PacketError, match=f"^packet of {len(packet)} bytes "):
        codec.decode(packet)


def test_every_check_of_a_reader_has_a_packet_to_refuse() -> None:
    assert {case["status"] for case in REFUSED} == set(_rans.STATUS_NAMES) - {"ok", "no_space"}
    page = (Path(reference.__file__).parent / "BITSTREAM.md").read_text(encoding="utf-8")
    assert all(f"`{status}`" in page for status in {case["status"] for case in REFUSED})


def around(payload: bytes, model: EntropyModel | StepsModel, lanes: int, latent_crc: int = 0) -> bytes:
    """A packet whose header and packet CRC agree with `payload`."""
    head = reference.LAYOUT.pack(b"PC", 0x10, model.profile, lanes, 0, 0, 0, 0, 0, model.table_hash, len(payload), latent_crc)
    return head + _rans.crc32c(payload, _rans.crc32c(head)).to_bytes(4, "little") + payload


@pytest.mark.parametrize(
    ("name", "low"),
    [("v1.0-order0-8x14x14-L6-auto", 1 << 15), ("v1.0-pairs-3x7x13-L6-lanes16", 1 << 16), ("v1.0-steps-6x9x21-lanes16", 1 << 16)],
)
def test_random_bytes_are_refused_by_every_kernel(name: str, low: int) -> None:
    """Well-formed headers over random payloads: no crash, no hang, an error."""
    _, model, symbols = golden(name)
    rng = np.random.default_rng(5)
    for lanes in (1, 3, 8, 16, 40, 64):
        for size in [4 * lanes, *rng.integers(4 * lanes, 2000, 60).tolist()]:
            size += size % 2
            states = rng.integers(low, low << 16, lanes, dtype=np.uint32).tobytes()
            payload = states + rng.bytes(size - len(states))
            packet = around(payload, model, lanes)
            coder = PacketCodec(model, *symbols.shape[1:])._coder
            found = {_rans.STATUS_NAMES[coder.decode(packet, np.empty_like(symbols), kernel)[0]] for kernel in KERNELS}
            assert len(found) == 1
            assert found <= {"truncated_payload", "trailing_payload", "bad_final_state", "symbol_out_of_range", "bad_latent_crc"}


PAIRS_OF_SIX = EntropyModel.from_counts(np.ones((1, 6, 6), np.int64))


def test_the_last_pairs_of_a_lane_are_its_initial_state() -> None:
    """BITSTREAM.md, "Numbers": of 6 levels three pairs fit, so a plane of six symbols takes no step."""
    symbols = np.array([5, 1, 0, 3, 2, 4], np.uint8).reshape(1, 2, 3)
    packet = PacketCodec(PAIRS_OF_SIX, 2, 3, lanes=1).encode(symbols, frame_id=0, timestamp_ns=0)
    assert packet[44:] == (2**16 + 31 + 36 * (3 + 36 * 16)).to_bytes(4, "little")


@pytest.mark.parametrize(
    ("width", "number", "valid"),
    [
        (6, 6**6 - 1, True),
        (6, 6**6, False),
        (6, 2**16 - 1, False),
        (5, 35 + 36 * 35 + 36**2 * 30, True),
        (5, 35 + 36 * 35 + 36**2 * 31, False),
    ],
)
def test_a_number_that_cannot_be_is_refused(width: int, number: int, valid: bool) -> None:
    """Symbols all 5, so that the latent CRC is right where the number is; the sixth of five is not there, and 0."""
    symbols = np.full((1, 1, width), 5, np.uint8)
    payload = (2**16 + number).to_bytes(4, "little")
    packet = around(payload, PAIRS_OF_SIX, 1, reference.latent_crc(symbols))
    codec = PacketCodec(PAIRS_OF_SIX, 1, width)
    if valid:
        assert (codec.decode(packet)[1] == symbols).all()
        assert (reference.decode_packet(PAIRS_OF_SIX, packet, 1, width)[1] == symbols).all()
    else:
        with pytest.raises(PacketError, match="initial state"):
            codec.decode(packet)
        with pytest.raises(PacketError, match="initial state"):
            reference.decode_packet(PAIRS_OF_SIX, packet, 1, width)
