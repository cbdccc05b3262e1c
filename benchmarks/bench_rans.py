"""How fast is the packet coder, next to other coders and to the plain-Python reference, with every kernel?

    python benchmarks/bench_rans.py [--rounds 31] [--machine NAME] [--record]

Every coder turns the same latents (six levels, one table per channel, about 1.27 bit per symbol) into bytes and back, called
from Python as a user calls it, in turn within each round of one process. Figures are medians of process CPU time; a turn lasts
about ten milliseconds, so that each coder meets its own data in the caches. percodec's side is the whole packet: check of the
symbols, choice of lanes, rANS, header, both CRCs; with a table per channel (profile 0), and with the same probabilities as tables of pairs
(profile 3). The others' is the entropy coding alone: constriction's AnsCoder with one
Categorical per channel, models built beforehand, and, where it is installed, CompressAI's rANS, lists built beforehand.
"""

from __future__ import annotations

import argparse
import datetime
import importlib.util
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import constriction
import numpy as np
import record
from numpy.typing import NDArray

from percodec.sdk.codec import EntropyModel, PacketCodec, _rans, parse_header, reference

LEVELS = 6
BITS_PER_SYMBOL = 1.27
SIZES = {"240x135x32": (32, 135, 240), "45x60x32": (32, 45, 60), "28x28x32": (32, 28, 28), "28x28x8": (8, 28, 28)}
REFERENCE_SIZE = "28x28x8"
TURN_MS = 10.0
KERNELS = [kernel for kernel in _rans.Kernel if _rans.kernel_supported(kernel)][1:]


def latent_of(shape: tuple[int, int, int], seed: int) -> tuple[EntropyModel, NDArray[np.uint8]]:
    """Symbols from bell curves over the levels, one width for all channels, set by bisection to BITS_PER_SYMBOL."""
    rng = np.random.default_rng(seed)
    centre = rng.uniform(1.5, 3.5, shape[0])[:, None]
    spread = rng.uniform(0.5, 1.5, shape[0])[:, None]

    def probabilities(width: float) -> NDArray[np.float64]:
        p = np.exp(-0.5 * ((np.arange(LEVELS) - centre) / (width * spread)) ** 2) + 1e-4
        return np.asarray(p / p.sum(axis=1, keepdims=True))

    low, high = 0.05, 5.0
    for _ in range(50):
        middle = (low + high) / 2
        p = probabilities(middle)
        if float(-(p * np.log2(p)).sum(axis=1).mean()) < BITS_PER_SYMBOL:
            low = middle
        else:
            high = middle
    p = probabilities(low)
    symbols = np.stack([rng.choice(LEVELS, size=shape[1:], p=row) for row in p]).astype(np.uint8)
    return EntropyModel.from_counts((p * 1e9).astype(np.int64)), symbols


class Constriction:
    """Everything that can be made before the call is made before the call."""

    def __init__(self, model: EntropyModel, symbols: NDArray[np.uint8]) -> None:
        p = np.diff(model.cdf.astype(np.float64), axis=1) / 4096
        self.models = [constriction.stream.model.Categorical(row, perfect=False) for row in p]
        self.planes = [plane.ravel().astype(np.int32) for plane in symbols]
        self.compressed = self.encode()

    def encode(self) -> NDArray[np.uint32]:
        coder = constriction.stream.stack.AnsCoder()
        for plane, model in zip(reversed(self.planes), reversed(self.models), strict=True):
            coder.encode_reverse(plane, model)
        return np.asarray(coder.get_compressed())

    def decode(self) -> list[NDArray[np.int32]]:
        coder = constriction.stream.stack.AnsCoder(self.compressed)
        return [coder.decode(model, plane.size) for plane, model in zip(self.planes, self.models, strict=True)]


class CompressAi:
    """Its extension module alone, as lists of Python numbers. Raises `ImportError` where it is not installed."""

    def __init__(self, model: EntropyModel, symbols: NDArray[np.uint8]) -> None:
        found = importlib.util.find_spec("compressai")
        places = [Path(p) for p in found.submodule_search_locations or ()] if found else []
        files = [file for place in places for file in place.glob("ans.*")]
        spec = importlib.util.spec_from_file_location("compressai.ans", files[0]) if files else None
        if spec is None or spec.loader is None:
            raise ImportError("no CompressAI")
        self.ans = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.ans)
        cdf = model.cdf.astype(np.int64) * 16
        cdf[:, -1] -= 1  # its tables end in one more symbol, for values beyond them
        self.tables = np.concatenate([cdf, np.full((len(cdf), 1), 1 << 16)], axis=1).tolist()
        self.sizes, self.offsets = [model.levels + 2] * len(cdf), [0] * len(cdf)
        self.symbols = symbols.ravel().tolist()
        self.indexes = np.repeat(np.arange(len(symbols)), symbols[0].size).tolist()
        self.compressed = self.encode()

    def encode(self) -> bytes:
        coder = self.ans.RansEncoder()
        return bytes(coder.encode_with_indexes(self.symbols, self.indexes, self.tables, self.sizes, self.offsets))

    def decode(self) -> list[int]:
        return list(self.ans.RansDecoder().decode_with_indexes(self.compressed, self.indexes, self.tables, self.sizes, self.offsets))


def cpu_ms(call: Callable[[], object], repeat: int) -> float:
    start = time.process_time_ns()
    for _ in range(repeat):
        call()
    return (time.process_time_ns() - start) / repeat / 1e6


def alone(
    name: str, codec: PacketCodec, packet: bytes, symbols: np.ndarray, out: np.ndarray, kernel: _rans.Kernel
) -> dict[str, Callable[[], object]]:
    """Calls of one kernel, the lanes given."""
    coder, scratch, lanes = codec._coder, np.empty(codec._coder.packet_bound, np.uint8), parse_header(packet).lanes
    return {
        f"{name}_encode": lambda: coder.encode(symbols, scratch, 0, 0, 0, 0, lanes, kernel),
        f"{name}_decode": lambda: coder.decode(packet, out, kernel),
    }


def measure(name: str, rounds: int, seed: int) -> dict[str, Any]:
    shape = SIZES[name]
    model, symbols = latent_of(shape, seed)
    codec = PacketCodec(model, shape[1], shape[2])
    packet = codec.encode(symbols, 0, 0)
    frequencies = np.diff(model.cdf.astype(np.int64), axis=1)
    paired = PacketCodec(EntropyModel.from_counts(frequencies[:, :, None] * frequencies[:, None, :]), shape[1], shape[2])
    paired_packet = paired.encode(symbols, 0, 0)
    out = np.empty_like(symbols)
    other = Constriction(model, symbols)
    assert (codec.decode(packet)[1] == symbols).all()
    assert (paired.decode(paired_packet)[1] == symbols).all()
    assert all((a == b).all() for a, b in zip(other.decode(), other.planes, strict=True))

    calls: dict[str, Callable[[], object]] = {
        "percodec_encode": lambda: codec.encode(symbols, 0, 0),
        "constriction_encode": other.encode,
        "percodec_decode": lambda: codec.decode(packet, out),
        "constriction_decode": other.decode,
        "pairs_encode": lambda: paired.encode(symbols, 0, 0),
        "pairs_decode": lambda: paired.decode(paired_packet, out),
    }
    try:
        third = CompressAi(model, symbols)
        assert third.decode() == third.symbols
        calls |= {"compressai_encode": third.encode, "compressai_decode": third.decode}
    except ImportError:
        pass
    lanes = parse_header(packet).lanes
    for kernel in KERNELS:
        for tag, which, coded in (("", codec, packet), ("pairs_", paired, paired_packet)):
            calls |= alone(f"{tag}{kernel.name.lower()}", which, coded, symbols, out, kernel)
    if name == REFERENCE_SIZE:
        calls["reference_encode"] = lambda: reference.encode_packet(model, symbols, frame_id=0, timestamp_ns=0)
        calls["reference_decode"] = lambda: reference.decode_packet(model, packet, shape[1], shape[2])

    repeats = {key: max(1, min(2000, int(TURN_MS / max(cpu_ms(call, 2), 1e-4)))) for key, call in calls.items()}
    times: dict[str, list[float]] = {key: [] for key in calls}
    for round_index in range(rounds):
        for key, call in calls.items():
            if key.startswith(("reference", "compressai")) and round_index >= 5:
                continue
            times[key].append(cpu_ms(call, repeats[key]))
    median = {key: statistics.median(values) for key, values in times.items()}
    ideal_bytes = model.cost_bits(symbols) / 8

    def against(baseline: str, ours: str = "percodec") -> dict[str, float]:
        rounds = {way: zip(times[f"{baseline}_{way}"], times[f"{ours}_{way}"], strict=False) for way in ("encode", "decode")}
        return {way: statistics.median(theirs / mine for theirs, mine in pairs) for way, pairs in rounds.items()}

    result: dict[str, Any] = {
        "latent": name,
        "symbols": symbols.size,
        "bits_per_symbol": 8 * ideal_bytes / symbols.size,
        "ideal_bytes": ideal_bytes,
        "packet_bytes": len(packet),
        "constriction_bytes": int(other.compressed.nbytes),
        "lanes": lanes,
        "cpu_ms_median": median,
        "msymbols_per_s": {key: symbols.size / value / 1e3 for key, value in median.items()},
        "times_constriction": against("constriction"),
        "pairs": {
            "packet_bytes": len(paired_packet),
            "lanes": parse_header(paired_packet).lanes,
            "times_constriction": against("constriction", "pairs"),
            "kernels": {kernel.name.lower(): against("constriction", f"pairs_{kernel.name.lower()}") for kernel in KERNELS},
        },
        "kernels": {kernel.name.lower(): against("constriction", kernel.name.lower()) for kernel in KERNELS},
    }
    for baseline in ("compressai", "reference"):
        if f"{baseline}_encode" in calls:
            result[f"times_{baseline}"] = against(baseline)
            result["pairs"][f"times_{baseline}"] = against(baseline, "pairs")
    return result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=31, help="rounds of alternating calls (default 31)")
    parser.add_argument("--seed", type=int, default=1)
    record.add_arguments(parser)
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error("--rounds must be at least 1")

    cases = []
    for name in SIZES:
        case = measure(name, arguments.rounds, arguments.seed)
        cases.append(case)
        times, speed = case["times_constriction"], case["msymbols_per_s"]
        kernels = ", ".join(f"{k} {v['encode']:.1f} / {v['decode']:.1f}" for k, v in case["kernels"].items())
        pairs = case["pairs"]
        more = "".join(
            f" | {b} {case[f'times_{b}']['encode']:.0f} / {case[f'times_{b}']['decode']:.0f}"
            for b in ("compressai", "reference")
            if f"times_{b}" in case
        )
        print(
            f"{name:>11}: {case['bits_per_symbol']:.2f} bit/symbol, {case['packet_bytes']} bytes (ideal {case['ideal_bytes']:.0f}), "
            f"{case['lanes']} lanes | encode {speed['percodec_encode']:.0f} Msym/s = {times['encode']:.1f} x constriction | "
            f"decode {speed['percodec_decode']:.0f} Msym/s = {times['decode']:.1f} x constriction | "
            f"pairs: {pairs['packet_bytes']} bytes, {pairs['lanes']} lanes, {pairs['times_constriction']['encode']:.1f} / "
            f"{pairs['times_constriction']['decode']:.1f} x | "
            f"kernels, x constriction: {kernels}{more}"
        )
    report = {
        "benchmark": "bench_rans",
        "command": shlex.join(["python", "benchmarks/bench_rans.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d"),
        "machine": {
            "cpu": record.cpu_name(),
            "architecture": platform.machine(),
            "kernels": [kernel.name.lower() for kernel in KERNELS],
        },
        "versions": {"python": platform.python_version(), "numpy": np.__version__, "constriction": metadata.version("constriction")},
        "clock": "process CPU time, medians over rounds; ratios are medians of paired rounds",
        "rounds": arguments.rounds,
        "cases": cases,
    }
    record.write_result(arguments, "bench_rans", report)
    return 0


if __name__ == "__main__":
    sys.exit(main())
