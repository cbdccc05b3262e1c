"""The packet format in plain Python: the executable form of BITSTREAM.md, byte-equal to the C++ core, and slow.

Use `PacketCodec`. This file shows how the format works without any of the core's means to be fast, and tests compare the two.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from percodec.sdk.codec.entropy_model import EntropyModel, pairs_of
from percodec.sdk.codec.header import CRC, HEADER_BYTES, LAYOUT, MAGIC, MAX_LANES, VERSION, PacketHeader
from percodec.sdk.codec.steps import StepsModel
from percodec.sdk.codec.steps_reference import decode_steps, encode_steps, steps_of
from percodec.sdk.errors import CodecError, PacketError


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = (byte >> 1) ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C of `data`, continuing `crc`."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = (crc >> 8) ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def latent_crc(symbols: NDArray[np.uint8]) -> int:
    """CRC-32C over channels, height, width (uint32 each) and the symbols [C,h,w]."""
    return crc32c(symbols.tobytes(), crc32c(np.array(symbols.shape, "<u4").tobytes()))


def log2_q8(frequency: int) -> int:
    """log2 in units of 1/256, rounded down, by repeated squaring."""
    exponent = frequency.bit_length() - 1
    mantissa, result = frequency << (15 - exponent), exponent
    for _ in range(8):
        mantissa = mantissa * mantissa >> 15
        one = mantissa >> 16
        result = result << 1 | one
        mantissa >>= one
    return result


def state_low(model: EntropyModel | StepsModel) -> int:
    """Lanes live in [low, 65536 * low); encoding starts, and decoding ends, at low, in profile 3 with a number on top."""
    return 1 << 16 if isinstance(model, StepsModel) or model.pairs else 1 << 15


def digits_of(model: EntropyModel, pairs: int, lanes: int) -> int:
    """How many of its last pairs a lane's initial state holds, of `pairs` in a channel; 0 in other profiles."""
    digits = 0
    while model.pairs and model.levels ** (2 * digits + 2) <= 1 << 16 and (digits + 1) * lanes <= pairs:
        digits += 1
    return digits


def coded(model: EntropyModel, symbols: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """What is coded one after the other: the symbols [C,h,w], in profile 3 their pairs [C,1,n]."""
    return pairs_of(symbols, model.levels) if model.pairs else symbols


def table_rows(model: EntropyModel, symbols: NDArray[np.uint8], channel: int, row: int) -> list[int]:
    """Which row of the tables codes each symbol of a row of the latent; symbols before that row are known.

    In profile 2 `symbols` are [2C,h,w] here and below: the latent before, then this one.
    """
    first, width = channel * model.rows_per_channel, symbols.shape[2]
    if model.contexts is None:
        return [first] * width
    return [first + int(k) for k in model.contexts.of_rows(symbols, channel, row, row + 1)[0]]


def lane_of(model: EntropyModel, row: int, column: int, width: int, lanes: int) -> int:
    """Profiles 0 and 3 count through the channel; the others begin every row at lane 0, for contexts are made row by row."""
    return (row * width + column if model.contexts is None else column) % lanes


def ideal_bytes_of(model: EntropyModel | StepsModel, symbols: NDArray[np.uint8]) -> int:
    """The content's ideal length, rounded up to bits and down to bytes."""
    if isinstance(model, StepsModel):
        cost = sum(256 * model.precision - log2_q8(row[token + 1] - row[token]) for _, row, token in steps_of(model, symbols))
        return -(-cost // 256) // 8
    frequencies = np.diff(model.cdf.astype(np.int64), axis=1).tolist()
    symbols = coded(model, symbols)
    now = symbols[-model.channels :]
    channels, height, _ = now.shape
    cost = sum(
        256 * model.precision - log2_q8(frequencies[row][symbol])
        for channel in range(channels)
        for y in range(height)
        for row, symbol in zip(table_rows(model, symbols, channel, y), now[channel, y].tolist(), strict=True)
    )
    return -(-cost // 256) // 8


def lanes_for(model: EntropyModel | StepsModel, symbols: NDArray[np.uint8]) -> int:
    """The encoder's own choice: the most lanes (a power of two) whose 4 bytes each fit 4 bytes + 9/1024 of the ideal payload.

    12/1024 with contexts, whose kernels need more lanes to be as fast; 6/1024 of latents of uniform steps.
    """
    ideal_bytes = ideal_bytes_of(model, symbols)
    share = 6 if isinstance(model, StepsModel) else 12 if model.contexts else 9
    lanes = 1
    while lanes < MAX_LANES and 4 * 2 * lanes <= 4 + ideal_bytes * share // 1024:
        lanes *= 2
    return lanes


def _due(model: EntropyModel, x: int, frequency: int) -> bool:
    """Whether a state sends a word before it takes a symbol."""
    return x >= frequency << state_low(model).bit_length() + 15 - model.precision


def _encoded(model: EntropyModel, x: int, start: int, end: int, words: list[int]) -> int:
    if _due(model, x, end - start):
        words.append(x & 0xFFFF)
        x >>= 16
    return (x // (end - start) << model.precision) + x % (end - start) + start


def encode_payload(model: EntropyModel | StepsModel, symbols: NDArray[np.uint8], lanes: int) -> bytes:
    """rANS over `lanes` interleaved states: final states first, then the shared 16-bit words in the order of decoding."""
    if isinstance(model, StepsModel):
        return encode_steps(model, symbols, lanes)
    symbols = coded(model, symbols)
    cdf, now = model.cdf.tolist(), symbols[-model.channels :]
    channels, height, width = now.shape
    ends = [width] * channels
    ends[-1] -= lanes * digits_of(model, width, lanes)
    states = [state_low(model)] * lanes
    for k, pair in enumerate(now[-1, 0, ends[-1] :].tolist()):
        states[(ends[-1] + k) % lanes] += pair * model.levels ** (2 * (k // lanes))
    words: list[int] = []
    for channel in reversed(range(channels)):
        for y in reversed(range(height)):
            rows, line = table_rows(model, symbols, channel, y), now[channel, y].tolist()
            for column in reversed(range(ends[channel])):
                start, end = cdf[rows[column]][line[column]], cdf[rows[column]][line[column] + 1]
                lane = lane_of(model, y, column, width, lanes)
                states[lane] = _encoded(model, states[lane], start, end, words)
    return np.array(states, "<u4").tobytes() + np.array(words[::-1], "<u2").tobytes()


def decode_payload(
    model: EntropyModel | StepsModel, payload: bytes, height: int, width: int, lanes: int, before: NDArray[np.uint8] | None = None
) -> NDArray[np.uint8]:
    """The latent alone, [C,h,w]; `PacketError` unless the payload is used up exactly and every lane ends as it began."""
    if isinstance(model, StepsModel):
        return decode_steps(model, payload, height, width, lanes, before)
    if len(payload) < 4 * lanes or len(payload) % 2:
        raise PacketError("bad_length: the payload is not whole states and words")
    states = np.frombuffer(payload, "<u4", lanes).tolist()
    low = state_low(model)
    if any(not low <= x < low << 16 for x in states):
        raise PacketError("bad_state: a lane starts outside the coder's interval")
    words = iter(np.frombuffer(payload, "<u2", offset=4 * lanes).tolist())
    cdf = model.cdf.astype(np.int64)
    size = height * width
    if model.pairs:
        height, width = 1, -(-size // 2)
    digits = digits_of(model, width, lanes)
    ends = [width] * model.channels
    ends[-1] -= lanes * digits
    now = np.zeros((model.channels, height, width), np.uint8)
    symbols = now if before is None else np.concatenate([before, now])
    now = symbols[-model.channels :]
    for channel in range(model.channels):
        for y in range(height):
            rows = table_rows(model, symbols, channel, y)
            for column in range(ends[channel]):
                row, lane = cdf[rows[column]], lane_of(model, y, column, width, lanes)
                x = states[lane]
                slot = x & ((1 << model.precision) - 1)
                symbol = int(np.searchsorted(row, slot, side="right")) - 1
                x = int(row[symbol + 1] - row[symbol]) * (x >> model.precision) + slot - int(row[symbol])
                if x < low:
                    word = next(words, None)
                    if word is None:
                        raise PacketError("truncated_payload: it ended before the symbols")
                    x = x << 16 | word
                states[lane] = x
                now[channel, y, column] = symbol
    if next(words, None) is not None:
        raise PacketError("trailing_payload: it is longer than the symbols")
    numbers = [x - low for x in states]
    if any(not 0 <= number < model.levels ** (2 * digits) for number in numbers):
        raise PacketError("bad_final_state: a lane does not end in an initial state")
    for k in range(lanes * digits):
        number = numbers[(ends[-1] + k) % lanes]
        now[-1, 0, ends[-1] + k] = number // model.levels ** (2 * (k // lanes)) % model.levels**2
    if digits and size % 2 and now[-1, 0, -1] % model.levels:
        raise PacketError("bad_final_state: not an initial state, a symbol outside the latent is not 0")
    if model.pairs:
        return np.stack(np.divmod(now, model.levels), 3).reshape(model.channels, -1)[:, :size]
    return now


def encode_packet(
    model: EntropyModel | StepsModel,
    symbols: NDArray[np.uint8],
    *,
    frame_id: int,
    timestamp_ns: int,
    stream_id: int = 0,
    counter: int = 0,
    lanes: int | None = None,
) -> bytes:
    """The packet that `PacketCodec.encode` makes of the same input. `symbols`: uint8 [C,h,w] below L; else `CodecError`."""
    if isinstance(model, StepsModel):
        symbols = model.check(symbols)
    elif symbols.size and int(symbols.max()) >= model.levels:
        raise CodecError(f"symbols reach {int(symbols.max())}, the tables have levels 0..{model.levels - 1}")
    lanes = lanes_for(model, symbols) if lanes is None else lanes
    payload = encode_payload(model, symbols, lanes)
    fields = (MAGIC, VERSION, model.profile, lanes, 0, stream_id, counter, frame_id, timestamp_ns, model.table_hash)
    head = LAYOUT.pack(*fields, len(payload), latent_crc(symbols[-model.channels :]))
    return head + CRC.pack(crc32c(head + payload)) + payload


def decode_packet(
    model: EntropyModel | StepsModel, packet: bytes, height: int, width: int, before: NDArray[np.uint8] | None = None
) -> tuple[PacketHeader, NDArray[np.uint8]]:
    """Header and symbols [C,h,w]; `PacketError`, which begins with the core's name of the failure, for every packet that it refuses."""
    if len(packet) < HEADER_BYTES:
        raise PacketError("too_short: shorter than a header")
    magic, version, profile, lanes, flags, *rest = LAYOUT.unpack_from(packet)
    header = PacketHeader(version, profile, lanes, *rest)
    head, payload = packet[: LAYOUT.size], packet[HEADER_BYTES:]
    if magic != MAGIC:
        raise PacketError("bad_magic: not a packet")
    if version >> 4 != VERSION >> 4:
        raise PacketError("bad_version: another major version")
    if header.payload_bytes != len(payload):
        raise PacketError("bad_length: the payload is not as long as declared")
    if crc32c(head + payload) != CRC.unpack_from(packet, LAYOUT.size)[0]:
        raise PacketError("bad_crc: the bytes were altered")
    if flags != 0:
        raise PacketError("bad_flags: reserved bits are set")
    if not 1 <= lanes <= MAX_LANES:
        raise PacketError("bad_lanes: outside 1..64")
    if profile != model.profile:
        raise PacketError("bad_profile: coded with another profile")
    if header.table_hash != model.table_hash:
        raise PacketError("wrong_tables: coded with other tables")
    symbols = decode_payload(model, payload, height, width, lanes, before).reshape(model.channels, height, width)
    if latent_crc(symbols) != header.latent_crc:
        raise PacketError("bad_latent_crc: decoded symbols are not the encoder's")
    return header, symbols


__all__ = [
    "coded",
    "crc32c",
    "decode_packet",
    "decode_payload",
    "digits_of",
    "encode_packet",
    "encode_payload",
    "ideal_bytes_of",
    "lane_of",
    "lanes_for",
    "latent_crc",
    "log2_q8",
    "state_low",
    "steps_of",
    "table_rows",
]
