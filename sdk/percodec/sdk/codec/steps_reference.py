"""The payload of profiles 4 and 5 in plain Python: the executable form of BITSTREAM.md, "Steps". `reference.py` puts the packet around it.

run     a row of a head or of the extents; of a tail all places that the extents reach
steps   a run's tokens, then the two digits of each escape; tokens begin at lane 0, and so do digits
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.steps import CLASSES, ESCAPE, HALF, PRECISION, StepsModel, tokens_of
from percodec.sdk.errors import PacketError

LOW = 1 << 16  # states are in [LOW, LOW << 16), begin and end at LOW


class Run:
    """What is known of a run before its first step: which symbols it has, and each one's row of the tables and place."""

    def __init__(self, model: StepsModel, known: NDArray[np.uint8], plane: int, begin: int, end: int) -> None:
        classes, places = model.classes_and_places(known, plane)
        coded, must = model.coded_at(known, plane)
        self.plane, self.extents = plane, plane == model.channels
        self.ys, self.xs = (found + offset for found, offset in zip(np.nonzero(coded[begin:end]), (begin, 0), strict=True))
        cdf, digits = model.planes[plane].cdf, model.planes[plane].digits
        self.rows = cdf[(classes + CLASSES * must)[self.ys, self.xs]].tolist()
        self.digits = [] if digits is None else digits.tolist()
        self.places = places[self.ys, self.xs]


def runs(model: StepsModel, known: NDArray[np.uint8]) -> Iterator[Run]:
    """In the order of coding. `known` [planes,h,w] fills up meanwhile, or is complete from the start."""
    height = known.shape[1]
    for plane in model.order():
        if plane < model.heads or plane == model.channels:
            yield from (Run(model, known, plane, y, y + 1) for y in range(height))
        else:
            yield Run(model, known, plane, 0, height)


def steps_of(model: StepsModel, symbols: NDArray[np.uint8], lanes: int = 1) -> Iterator[tuple[int, list[int], int]]:
    """(lane, row of the tables, what is coded by it), in the order of decoding. `symbols`: uint8 [C,h,w], of profile 5 [2C,h,w]."""
    known = model.known_of(symbols)
    for run in runs(model, known):
        tokens, differences = tokens_of(known[run.plane][run.ys, run.xs], run.places, run.extents)
        for k, (row, token) in enumerate(zip(run.rows, tokens.tolist(), strict=True)):
            yield k % lanes, row, token
        escaped = [] if run.extents else differences[tokens == ESCAPE].tolist()
        digits = [digit for difference in escaped for digit in divmod(difference, 16)]
        for k, digit in enumerate(digits):
            yield k % lanes, run.digits[k % 2], digit


def encode_steps(model: StepsModel, symbols: NDArray[np.uint8], lanes: int) -> bytes:
    states, words = [LOW] * lanes, []
    for lane, row, token in reversed(list(steps_of(model, symbols, lanes))):
        start, frequency, x = row[token], row[token + 1] - row[token], states[lane]
        if x >= frequency << 32 - PRECISION:
            words.append(x & 0xFFFF)
            x >>= 16
        states[lane] = (x // frequency << PRECISION) + x % frequency + start
    return np.array(states, "<u4").tobytes() + np.array(words[::-1], "<u2").tobytes()


def decode_steps(
    model: StepsModel, payload: bytes, height: int, width: int, lanes: int, before: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """uint8 [C,h,w], with the latent `before` of profile 5; `PacketError` unless the payload is used up exactly, every
    lane ends as it began, and symbols are levels.
    """
    if len(payload) < 4 * lanes or len(payload) % 2:
        raise PacketError("bad_length: the payload is not whole states and words")
    states = np.frombuffer(payload, "<u4", lanes).tolist()
    if any(x < LOW for x in states):
        raise PacketError("bad_state: a lane starts outside the coder's interval")
    words = iter(np.frombuffer(payload, "<u2", offset=4 * lanes).tolist())

    def take(lane: int, row: list[int]) -> int:
        x = states[lane]
        slot = x & (1 << PRECISION) - 1
        token = int(np.searchsorted(row, slot, side="right")) - 1
        x = (row[token + 1] - row[token]) * (x >> PRECISION) + slot - row[token]
        if x < LOW:
            word = next(words, None)
            if word is None:
                raise PacketError("truncated_payload: it ended before the symbols")
            x = x << 16 | word
        states[lane] = x
        return token

    blank = np.empty((model.channels, height, width), np.uint8)
    blank[:] = np.array(model.offsets)[:, None, None]
    known: NDArray[np.uint8] = model.known_of(
        np.concatenate([blank if before is None else before, blank]) if model.temporal else blank
    ).copy()
    for run in runs(model, known):
        tokens = np.array([take(k % lanes, row) for k, row in enumerate(run.rows)], np.uint8)
        if run.extents:
            known[run.plane][run.ys, run.xs] = tokens
            continue
        differences = tokens - np.uint8(HALF)
        escapes = np.flatnonzero(tokens == ESCAPE)
        digits = [take(k % lanes, run.digits[k % 2]) for k in range(2 * len(escapes))]
        differences[escapes] = [16 * high + low for high, low in zip(digits[0::2], digits[1::2], strict=True)]
        known[run.plane][run.ys, run.xs] = run.places + differences
    if next(words, None) is not None:
        raise PacketError("trailing_payload: it is longer than the symbols")
    if any(x != LOW for x in states):
        raise PacketError("bad_final_state: a lane does not end in an initial state")
    for index, plane in enumerate(model.planes):
        if int(known[index].max()) >= plane.levels:
            raise PacketError(f"symbol_out_of_range: plane {index} has {plane.levels} levels")
    found: NDArray[np.uint8] = known[: model.channels]
    return found


__all__ = ["LOW", "Run", "decode_steps", "encode_steps", "runs", "steps_of"]
