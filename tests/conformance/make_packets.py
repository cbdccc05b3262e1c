"""The golden packets: `python tests/conformance/make_packets.py --regenerate` writes them, without it they are compared.

Written by the plain-Python reference from integer-only pseudo-random numbers, so that no library version is part of them. A
golden packet of a published version is never regenerated: a new case gets a new name.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec import EntropyModel, reference
from percodec.sdk.codec.contexts import MEAN_BINS, SPREAD_BINS, ChannelContexts, Contexts, Neighbour

FOLDER = Path(__file__).parent / "packets"


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
)


def _numbers(seed: int) -> Iterator[int]:
    """Knuth's 64-bit linear congruential generator, upper 32 bits."""
    state = seed
    while True:
        state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
        yield state >> 32


def content_of(case: Case) -> tuple[EntropyModel, NDArray[np.uint8]]:
    """Tables whose weights are powers of two up to 64, and symbols drawn from them; temporal: the latent before, then this one."""
    numbers = _numbers(case.seed)
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
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
