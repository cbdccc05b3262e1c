"""The golden packets: `python tests/conformance/make_packets.py --regenerate` writes them, without it they are compared.

`refused.json`: packets that a reader refuses, with the name of the check that does (BITSTREAM.md, "What a reader checks") and why.

Written by the plain-Python reference from integer-only pseudo-random numbers, so that no library version is part of them. A
golden packet of a published version is never regenerated: a new case gets a new name.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # tests, for support
from support.steps_models import random_latent, random_model

from percodec.sdk.codec import EntropyModel, StepsModel, reference
from percodec.sdk.codec.contexts import MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts, Neighbour
from percodec.sdk.codec.header import CRC, HEADER_BYTES, LAYOUT
from percodec.sdk.errors import PacketError

FOLDER = Path(__file__).parent / "packets"
REFUSED = Path(__file__).parent / "refused.json"


@dataclass(frozen=True)
class Case:
    name: str
    shape: tuple[int, int, int]
    levels: int
    lanes: int | None
    seed: int
    frame_id: int
    timestamp_ns: int
    stream_id: int
    counter: int
    contexts: int = 0
    temporal: bool = False
    pairs: bool = False
    heads: int = 0  # of profiles 4 and 5
    reach: int = 18  # of what a neighbour adds; seven of more than 18 may wrap


CASES = (
    Case("v1.0-order0-4x6x7-L6-lane1", (4, 6, 7), 6, 1, 1, 7, 1_700_000_000_000_000_000, 0, 0),
    Case("v1.0-order0-8x14x14-L6-auto", (8, 14, 14), 6, None, 2, 2**32 - 1, 2**64 - 1, 65535, 2**32 - 1),
    Case("v1.0-order0-3x9x11-L16-lanes16", (3, 9, 11), 16, 16, 3, 123456, 987654321, 2, 41),
    Case("v1.0-order0-2x5x37-L6-lanes64", (2, 5, 37), 6, 64, 4, 5, 6, 7, 8),
    Case("v1.0-order0-2x3x50-L256-lanes3", (2, 3, 50), 256, 3, 5, 0, 0, 0, 1),
    Case("v1.0-contexts-5x7x70-L6-auto", (5, 7, 70), 6, None, 6, 9, 10, 11, 12, contexts=10),
    Case("v1.0-contexts-3x9x21-L6-lanes16", (3, 9, 21), 6, 16, 7, 1, 2, 3, 4, contexts=10),
    Case("v1.0-temporal-3x6x70-L6-lanes8", (3, 6, 70), 6, 8, 9, 4, 5, 6, 7, contexts=10, temporal=True),
    Case("v1.0-contexts-4x9x70-L6-K16-auto", (4, 9, 70), 6, None, 13, 1, 2, 3, 4, contexts=16, reach=60),
    Case("v1.0-temporal-3x6x90-L6-K16-lanes32", (3, 6, 90), 6, 32, 14, 4, 5, 6, 7, contexts=16, temporal=True, reach=60),
    Case("v1.0-contexts-2x4x300-L17-lanes5", (2, 4, 300), 17, 5, 8, 0, 1, 0, 0, contexts=3),
    Case("v1.0-pairs-3x7x13-L6-lanes16", (3, 7, 13), 6, 16, 10, 1, 2, 3, 4, pairs=True),
    Case("v1.0-pairs-2x9x31-L8-lanes64", (2, 9, 31), 8, 64, 11, 5, 6, 7, 8, pairs=True),
    Case("v1.0-pairs-4x20x30-L3-auto", (4, 20, 30), 3, None, 12, 9, 10, 11, 12, pairs=True),
    Case("v1.0-steps-6x9x21-lanes16", (6, 9, 21), 0, 16, 15, 1, 2, 3, 4, heads=2),
    Case("v1.0-steps-9x5x36-auto", (9, 5, 36), 0, None, 16, 5, 6, 7, 8, heads=1),
    Case("v1.0-steps-2x5x37-lanes3", (2, 5, 37), 0, 3, 17, 9, 10, 11, 12, heads=2),
    Case("v1.0-steps-temporal-6x9x21-lanes16", (6, 9, 21), 0, 16, 18, 1, 2, 3, 4, heads=2, temporal=True),
    Case("v1.0-steps-temporal-5x7x40-auto", (5, 7, 40), 0, None, 19, 5, 6, 7, 8, heads=5, temporal=True),
)


def _numbers(seed: int) -> Iterator[int]:
    """Knuth's 64-bit linear congruential generator, upper 32 bits."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 32


def content_of(case: Case) -> tuple[EntropyModel | StepsModel, NDArray[np.uint8]]:
    """Tables whose weights are powers of two up to 64, and symbols drawn from them; temporal: the latent before, then this one."""
    numbers = _numbers(case.seed)
    if case.heads:
        steps = random_model(lambda n: next(numbers) % n, case.shape[0], case.heads, case.temporal)
        return steps, random_latent(lambda n: next(numbers) % n, steps, *case.shape[1:])
    channels, height, width = case.shape
    rows = channels * max(1, case.contexts)
    weights = [[1 << next(numbers) % 7 for _ in range(case.levels)] for _ in range(rows)]
    if case.pairs:
        return _content_of_pairs(case, numbers)
    model = EntropyModel.from_counts(np.array(weights, np.int64))
    if case.contexts:
        cdf = model.cdf.reshape(channels, case.contexts, case.levels + 1)
        model = EntropyModel(cdf, contexts_of(case, numbers))
    symbols = np.empty((channels * (2 if case.temporal else 1), height, width), np.uint8)
    for channel in range(len(symbols)):
        slots = np.array([next(numbers) % 4096 for _ in range(height * width)])
        symbols[channel] = (np.searchsorted(model.cdf[channel % channels * max(1, case.contexts)], slots, side="right") - 1).reshape(
            height, width
        )
    return model, symbols


def _content_of_pairs(case: Case, numbers: Iterator[int]) -> tuple[EntropyModel, NDArray[np.uint8]]:
    channels, height, width = case.shape
    weights = np.array([1 << next(numbers) % 9 for _ in range(channels * case.levels**2)], np.int64)
    model = EntropyModel.from_counts(weights.reshape(channels, case.levels, case.levels))
    flat = np.empty((channels, height * width + 1), np.uint8)
    for row, line in zip(model.cdf, flat, strict=True):
        slots = np.array([next(numbers) % 16384 for _ in range((height * width + 1) // 2)])
        line[: 2 * len(slots)] = np.stack(np.divmod(np.searchsorted(row, slots, side="right") - 1, case.levels), 1).ravel()
    return model, flat[:, : height * width].reshape(case.shape).copy()


def contexts_of(case: Case, numbers: Iterator[int]) -> Contexts:
    """Seven neighbours a channel, every reach and both kinds among them; tables, borders and maps at random."""

    def signed(reach: int, count: int) -> NDArray[np.int8]:
        return np.array([next(numbers) % (2 * reach + 1) - reach for _ in range(count)], np.int8)

    channels = []
    for c in range(case.shape[0]):
        neighbours = []
        for _ in range(7):
            own = c == 0 or next(numbers) % 2 == 0
            dy, dx = (-1 - next(numbers) % 2 if own else next(numbers) % 5 - 2), next(numbers) % 5 - 2
            channel = c if own else next(numbers) % c
            if case.temporal and next(numbers) % 2:
                dy, channel = next(numbers) % 5 - 2, case.shape[0] + next(numbers) % case.shape[0]
            neighbours.append(Neighbour(channel, dy, dx, signed(case.reach, case.levels), signed(case.reach, case.levels)))
        borders = [np.sort(signed(60, bins - 1)) for bins in (MEAN_BINS, SPREAD_BINS)]
        mapped = np.array([next(numbers) % case.contexts for _ in range(MEAN_BINS * SPREAD_BINS)], np.uint8)
        channels.append(ChannelContexts(tuple(neighbours), borders[0], borders[1], mapped, next(numbers) % case.levels))
    return Contexts(tuple(channels), case.levels, case.contexts, case.temporal)


def files_of(case: Case) -> dict[str, bytes]:
    """File name -> content: the packet, its tables, its symbols (raw bytes, C*h*w)."""
    model, symbols = content_of(case)
    packet = reference.encode_packet(
        model,
        symbols,
        frame_id=case.frame_id,
        timestamp_ns=case.timestamp_ns,
        stream_id=case.stream_id,
        counter=case.counter,
        lanes=case.lanes,
    )
    return {f"{case.name}.packet": packet, f"{case.name}.pcem": model.to_bytes(), f"{case.name}.symbols": symbols.tobytes()}


def refused() -> list[dict[str, str | int]]:
    """What `refused.json` holds: the golden packet whose tables read it, latent size, name of the check, why, the packet in hexadecimal."""
    found: list[dict[str, str | int]] = []
    for name in (
        "v1.0-order0-4x6x7-L6-lane1",
        "v1.0-contexts-3x9x21-L6-lanes16",
        "v1.0-pairs-3x7x13-L6-lanes16",
        "v1.0-steps-6x9x21-lanes16",
    ):
        case = next(c for c in CASES if c.name == name)
        for status, why, packet in _faults(case):
            place: dict[str, str | int] = {"tables": name, "height": case.shape[1], "width": case.shape[2]}
            found.append({**place, "status": status, "why": why, "packet": packet.hex()})
    return found


def status_of(model: EntropyModel | StepsModel, packet: bytes, height: int, width: int) -> str:
    """The name of the check by which the reference refuses a packet, or "ok"."""
    try:
        reference.decode_packet(model, packet, height, width)
    except PacketError as error:
        return str(error).partition(":")[0]
    return "ok"


def _faults(case: Case) -> Iterator[tuple[str, str, bytes]]:
    """(status, why, packet). Where two things are wrong the first check in the page's order speaks."""
    model, packet = content_of(case)[0], files_of(case)[f"{case.name}.packet"]
    head, payload, lanes, low = packet[: LAYOUT.size], packet[HEADER_BYTES:], packet[4], reference.state_low(model)

    def sealed(at: int = 0, data: bytes = b"", body: bytes = payload) -> bytes:
        """Header bytes replaced, payload too, and the length and packet CRC made to agree."""
        new = bytearray(head)
        new[32:36] = len(body).to_bytes(4, "little")
        new[at : at + len(data)] = data
        return bytes(new) + CRC.pack(reference.crc32c(bytes(new) + body)) + body

    def state(x: int) -> bytes:
        return sealed(body=x.to_bytes(4, "little") + payload[4:])

    yield "too_short", "no bytes at all", b""
    yield "too_short", "one byte less than a header", packet[:43]
    yield "bad_magic", "begins with 'XC'; its CRC agrees", sealed(0, b"XC")
    yield "bad_version", "major version 2", sealed(2, b"\x20")
    yield "bad_version", "major version 0, and a CRC that differs", packet[:2] + b"\0" + packet[3:]
    yield "bad_length", "cut off by a word", packet[:-2]
    yield "bad_length", "a word more than declared", packet + b"\0\0"
    yield "bad_length", "declares a payload of 2^32 - 1 bytes", sealed(32, b"\xff" * 4)
    yield "bad_crc", "the lowest bit of the frame id flipped", packet[:12] + bytes([packet[12] ^ 1]) + packet[13:]
    yield "bad_crc", "the highest bit of the last byte flipped", packet[:-1] + bytes([packet[-1] ^ 128])
    yield "bad_flags", "an unknown flag, and no lanes", sealed(4, b"\0\x80")
    yield "bad_lanes", "no lanes, and a profile that is not assigned", sealed(3, b"\xff\0")
    yield "bad_lanes", "65 lanes", sealed(4, b"\x41")
    yield "bad_profile", "a profile that is not assigned, and a table hash of 0", sealed(3, b"\xff" + packet[4:24] + bytes(8))
    yield "wrong_tables", "the lowest bit of the table hash flipped", sealed(24, bytes([packet[24] ^ 1]))
    yield "bad_length", "one byte less than the states of its lanes, and odd", sealed(body=payload[: 4 * lanes - 1])
    yield "bad_length", "half a word at the end", sealed(body=payload + b"\0")
    yield "bad_state", "a state of 0", state(0)
    yield "bad_state", "a state just below the coder's interval", state(low - 1)
    if low < 1 << 16:
        yield "bad_state", "a state just above the coder's interval", state(low << 16)
    yield "truncated_payload", "the last word is missing", sealed(body=payload[:-2])
    yield "truncated_payload", "states and no word", sealed(body=payload[: 4 * lanes])
    yield "trailing_payload", "a word more than the symbols need", sealed(body=payload + b"\0\0")
    words = range(len(payload) - 1, 4 * lanes, -1)
    flipped = (sealed(body=payload[:at] + bytes([payload[at] ^ 1 << bit]) + payload[at + 1 :]) for at in words for bit in range(8))
    found = next(other for other in flipped if status_of(model, other, *case.shape[1:]) == "bad_final_state")
    yield "bad_final_state", "a bit of a word flipped, and as many words as the symbols need", found
    yield "bad_latent_crc", "the lowest bit of the latent CRC flipped", sealed(36, bytes([packet[36] ^ 1]))
    if isinstance(model, StepsModel):  # as an encoder writes it that knows one level more
        channel = int(np.argmin(model.levels_per_channel))
        lax = list(model.planes)
        lax[channel] = dataclasses.replace(lax[channel], levels=lax[channel].levels + 1)
        symbols = content_of(case)[1]
        symbols[channel, 2, 3] = lax[channel].levels - 1
        forged = reference.encode_packet(StepsModel(tuple(lax), model.heads, model.bands), symbols, frame_id=1, timestamp_ns=2, lanes=lanes)
        head = forged[:24] + packet[24:32] + forged[32 : LAYOUT.size]
        yield "symbol_out_of_range", "a symbol that its channel does not have", sealed(body=forged[HEADER_BYTES:])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--regenerate", action="store_true", help="write the files instead of comparing them")
    arguments = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    different = 0
    for case in CASES:
        for name, content in files_of(case).items():
            path = FOLDER / name
            if arguments.regenerate:
                path.write_bytes(content)
            elif not path.is_file() or path.read_bytes() != content:
                print(f"differs: {name}")
                different += 1
    text = json.dumps(refused(), indent=1) + "\n"
    if arguments.regenerate:
        REFUSED.write_text(text, encoding="utf-8")
    elif REFUSED.read_text(encoding="utf-8") != text:
        print(f"differs: {REFUSED.name}")
        different += 1
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
