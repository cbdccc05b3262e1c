"""Does any input crash, hang or starve a reader?

    python benchmarks/fuzz.py --build build/fuzz [--packet 5000000] [--model 2000000] [--payload 1500000] [--manifest 300000] [--log 100000]

The C++ targets are libFuzzer's, coverage-guided, with the address and undefined-behaviour sanitizers and seeded with the golden packets:

    cmake -S cmake -B build/fuzz -DCMAKE_CXX_COMPILER=clang++-14 -DPERCODEC_FUZZ=ON && cmake --build build/fuzz

`graph` compares two readers: what `checked_graph` accepts must mean the same to the `onnx` package, before and after it was written
again. `packet` any bytes; `payload` any words behind checksums that agree, every kernel judging alike; `steps` any symbols, coded and read
back by every kernel (profiles 4 and 5); `model` any tables. `manifest`, `log` and `engine` (its record): the Python readers, fed mutated
valid ones. Whatever they are given, they answer with an error of `percodec.sdk.errors` or with data, in bounded time and memory. Exit 1 and
the input in a file where one does not.
"""

from __future__ import annotations

import argparse
import copy
import datetime
import hashlib
import json
import random
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mcap.reader
import mcap.writer
import numpy as np
import onnx
import onnx.helper
import onnx.numpy_helper
import record

from percodec.sdk.bundle import Bundle
from percodec.sdk.bundle.engines import EngineKey, read_engine, write_engine
from percodec.sdk.bundle.manifest import parse_manifest
from percodec.sdk.bundle.onnx_ops import LEFT_OUT, checked_graph
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import PercodecError
from percodec.sdk.log import LogWriter, read_log, verify_log

HERE = Path(__file__).parent
GOLDEN = HERE.parent / "tests" / "conformance" / "packets"
NATIVE = {"packet": 5_000_000, "model": 2_000_000, "payload": 1_500_000, "steps": 1_000_000}
READERS = {"manifest": 300_000, "log": 100_000, "graph": 2_000_000, "engine": 100_000}
SPLICES = (b"", b"0", b"-1", b"1e999", b"null", b"{}", b"[", b'"', b"\\u0000", b"..", b"/", b"\xff" * 8, b"\0" * 16, b"9" * 400)
SLOWEST_S, MOST_KB = 5.0, 256 * 1024  # of processor time; libFuzzer counts time on the wall, which other work makes longer


def mutated(data: bytes, rng: random.Random) -> bytes:
    """One to eight changes: bits, bytes, pieces cut, doubled, moved or replaced by what parsers stumble over."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4, 8))):
        at, long = rng.randrange(len(out) + 1), rng.choice((1, 2, 4, 8, 64, 1024))
        piece = bytes(out[at : at + long])
        kind = rng.randrange(6)
        if kind == 0 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            out[at : at + long] = rng.randbytes(len(piece))
        elif kind == 2:
            del out[at : at + long]
        elif kind == 3:
            out[at:at] = piece
        elif kind == 4:
            other = rng.randrange(len(out) + 1)
            out[other : other + len(piece)] = piece
        else:
            out[at : at + rng.randrange(9)] = rng.choice(SPLICES)
    return bytes(out)


VALUES = (
    None,
    True,
    0,
    -1,
    1 << 40,
    10**300,
    1e300,
    0.5,
    "",
    "x" * 300,
    "\x1b[2J",
    "\ud800",
    "..",
    [],
    {},
    [[]],
    {"a": {}},
    "f" * 64,
    "frame",
)


def json_mutated(data: bytes, rng: random.Random) -> bytes:
    """One to four values replaced, taken out, renamed, or put where another stands."""
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(places_in(value))
        if not places:
            break
        holder, key = rng.choice(places)
        kind = rng.randrange(4)
        if kind == 0:
            holder[key] = copy.deepcopy(rng.choice(VALUES))  # later changes go into it
        elif kind == 1:
            other, its = rng.choice(places)
            holder[key] = json.loads(json.dumps(other[its]))
        elif kind == 2:
            del holder[key]
        elif isinstance(holder, dict):
            holder[rng.choice(VALUES[8:13] + tuple(holder))] = holder.pop(key)
        else:
            holder.insert(key, holder[key])
    return json.dumps(value).encode()


def places_in(value: Any) -> Iterator[tuple[Any, Any]]:
    """(object or list, key) of every value within."""
    for key in list(value) if isinstance(value, dict) else range(len(value) if isinstance(value, list) else 0):
        yield value, key
        yield from places_in(value[key])


def sealed(data: bytes) -> bytes:
    """An engine's record with a seal that agrees with it, as a forger makes it."""
    try:
        record = json.loads(data)
        record.pop("seal", None)
        whole = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, TypeError, AttributeError, RecursionError):
        return data
    return json.dumps({**record, "seal": hashlib.sha256(whole).hexdigest()}).encode()


def feed(name: str, seeds: Sequence[bytes], runs: int, seed: int, read: Callable[[bytes], None]) -> dict[str, Any]:
    rng, refused, slowest, began = random.Random(seed), 0, 0.0, time.monotonic()
    for valid in seeds:
        read(valid)  # what one reading takes is no growth
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(runs):
        valid = rng.choice(seeds)
        data = json_mutated(valid, rng) if valid[:1] == b"{" and rng.randrange(2) else mutated(valid, rng)
        data = sealed(data) if name == "engine" and rng.randrange(4) else data
        start = time.process_time()
        try:
            read(data)
        except PercodecError:
            refused += 1
        except BaseException:
            Path(f"fuzz-{name}.bin").write_bytes(data)
            raise
        slowest = max(slowest, time.process_time() - start)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    found = {"runs": runs, "refused": refused, "seconds": time.monotonic() - began, "slowest_s": slowest, "grown_kb": grown}
    if slowest > SLOWEST_S or grown > MOST_KB:
        raise SystemExit(f"{name}: slowest {slowest:.1f} s, {grown} kB grown")
    return found


def manifests_of(bundle: Path) -> list[bytes]:
    """A bundle's, and two with all that format 1.2 has."""
    data = (bundle / "manifest.json").read_bytes()
    newer = json.loads(data)
    file = newer["entropy_model"]["file"]
    newer |= {"version": [1, 2], "familiarity": {"file": file, "limit": 3.5, "head": "segmentation"}, "metrics": {}, "provenance": {}}
    newer["graphs"] = {**newer["graphs"], "decoder_sharp": newer["graphs"]["decoder"]}
    steps = json.loads(json.dumps(newer))
    levels = steps["latent"]["levels"]
    del steps["latent"]["centers"]
    steps["latent"]["steps"] = [{"step": 0.5, "offset": 1, "levels": levels}] * steps["latent"]["channels"]
    seeds = [data, *(json.dumps(m).encode() for m in (newer, steps))]
    for one in seeds:
        parse_manifest(one)
    return seeds


LOG_KEY = bytes(range(32))


def logs_of(bundle: Bundle, folder: Path) -> list[bytes]:
    """Of three frames: plain, with proofs, and as the package `mcap` packs it."""
    codec, seeds = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]), []
    for key in (None, LOG_KEY):
        with LogWriter(folder / "seed.mcap", bundle, key=key, overwrite=True) as log:
            for k in range(3):
                log.append(codec.encode(bundle.selftest().symbols[0], frame_id=k, timestamp_ns=k), k, k)
        seeds.append((folder / "seed.mcap").read_bytes())
    for way in mcap.writer.CompressionType:
        with (folder / "seed.mcap").open("rb") as source, (folder / "packed.mcap").open("wb") as target:
            whole, made = mcap.reader.make_reader(source), mcap.writer.Writer(target, compression=way)
            made.start()
            for m in whole.iter_metadata():
                made.add_metadata(m.name, m.metadata)
            for schema, channel, message in whole.iter_messages():
                if not message.sequence:
                    number = made.register_channel(
                        channel.topic, channel.message_encoding, made.register_schema(schema.name, schema.encoding, b"")
                    )
                made.add_message(number, message.log_time, message.data, message.publish_time, message.sequence)
            made.finish()
        seeds.append((folder / "packed.mcap").read_bytes())
    return seeds


def read_all(path: Path, data: bytes) -> None:
    """Every record; and against the key, where it says that it was written with one."""
    path.write_bytes(data)
    refused: list[PercodecError] = []
    if b"proof_key" in data:
        try:
            verify_log(path, LOG_KEY)
        except PercodecError as error:
            refused.append(error)
    for _ in read_log(path):
        pass
    if refused:
        raise refused[0]


def graph_of_all_kinds() -> bytes:
    """A small model with every kind of field that a bundle's graphs have."""
    sides = [onnx.helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, shape) for n, shape in (("x", ["batch", 4]), ("y", [1, 4]))]
    weights = [onnx.numpy_helper.from_array(np.arange(4, dtype=kind), f"w{kind}") for kind in ("float32", "int64")]
    weights += [onnx.helper.make_tensor("u", onnx.TensorProto.INT64, [3], [1, 300, -1]), onnx.helper.make_tensor("f", 1, [2], [0.5, 2.0])]
    nodes = [
        onnx.helper.make_node("Transpose", ["x"], ["t"], perm=[0, 1]),
        onnx.helper.make_node("LeakyRelu", ["t"], ["l"], alpha=0.5, name="leaky"),
        onnx.helper.make_node("Constant", [], ["c"], value_floats=[1.0, 2.0]),
        onnx.helper.make_node("Resize", ["l", "", "wfloat32"], ["y"], mode="nearest"),
    ]
    graph = onnx.helper.make_graph(nodes, "g", sides[:1], sides[1:], initializer=weights)
    return bytes(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)]).SerializeToString())


def read_both(data: bytes) -> None:
    """What ours accepts, theirs must read, and read alike."""
    again = checked_graph(data, "graph")
    theirs, ours = onnx.ModelProto.FromString(data), onnx.ModelProto.FromString(again)
    strip(theirs), strip(ours)
    if theirs.SerializeToString(deterministic=True) != ours.SerializeToString(deterministic=True):
        raise AssertionError("the two readers take the graph differently")


def strip(message: Any) -> None:
    """Clear what `checked_graph` leaves behind."""
    for descriptor, value in list(message.ListFields()):
        computes = descriptor.name == "domain" and message.DESCRIPTOR.name in ("NodeProto", "OperatorSetIdProto")
        if descriptor.name in LEFT_OUT and not computes:
            message.ClearField(descriptor.name)
        elif descriptor.message_type is not None:
            for inner in [value] if hasattr(value, "ListFields") else value:
                strip(inner)


def record_in(bundle: Bundle) -> Path:
    source = hashlib.sha256(bundle.graph("encoder")).hexdigest()
    key = EngineKey(bundle.digest, "encoder", source, source, "int8", "host", "ort", "20", "", "", (), ("image",))
    return write_engine(bundle.path, key, bundle.graph("encoder"), {"selftest": {"max_symbol_disagreement": 0.01}})


def read_record(bundle: Bundle, path: Path, data: bytes) -> None:
    path.write_bytes(data)
    read_engine(bundle, "host", "int8", "encoder", {"flavour": "ort"})


def native(build: Path, name: str, runs: int, seed: int, patience_s: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as corpus:
        for path in GOLDEN.iterdir():
            data = path.read_bytes()
            if name == "model" and path.suffix == ".pcem":
                (Path(corpus) / path.name).write_bytes(data)
            elif name == "steps" and path.match("v1.0-steps-*.symbols"):
                for size in (0, 2):
                    (Path(corpus) / f"{path.name}-{size}").write_bytes(bytes([77, 1, 0, 0, 16, size | ("temporal" in path.name)]) + data)
            elif name in ("packet", "payload") and path.suffix == ".packet":
                (Path(corpus) / path.name).write_bytes(data if name == "packet" else data[3:5] + data[44:])
        limits = ["-max_len=8192", "-malloc_limit_mb=64", "-rss_limit_mb=2048", f"-timeout={patience_s}"]
        words = [str(build / "tests" / f"fuzz_{name}"), f"-runs={runs}", f"-seed={seed}", *limits, corpus]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name}: {done.stderr[-3000:]}")
    count = re.search(r"Done (\d+) runs in (\d+) second", done.stderr)
    coverage = re.findall(r"cov: (\d+)", done.stderr)
    assert count
    return {"runs": int(count[1]), "seconds": int(count[2]), "edges_covered": int(coverage[-1])}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, default=None, help="folder of the libFuzzer targets; without it only the Python readers")
    for name, runs in {**NATIVE, **READERS}.items():
        parser.add_argument(f"--{name}", type=int, default=runs, metavar="RUNS")
    parser.add_argument("--only", metavar="NAME,...", default=",".join([*NATIVE, *READERS]), help="targets to run; default: all")
    parser.add_argument("--bundle", type=Path, default=HERE / "bundles" / "lab-0.0983", help="whose manifest and latents are the seeds")
    parser.add_argument("--patience", type=int, default=5, metavar="S", help="longest run of a libFuzzer target, on the wall (default 5)")
    parser.add_argument("--seed", type=int, default=1)
    record.add_arguments(parser)
    args = parser.parse_args()
    targets: dict[str, Any] = {}
    chosen = args.only.split(",")
    if args.build is not None:
        for name in filter(chosen.__contains__, NATIVE):
            targets[name] = native(args.build, name, getattr(args, name), args.seed, args.patience)
            print(f"{name}: {targets[name]}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        bundle = Bundle.open(args.bundle)
        seeds = {"manifest": manifests_of(args.bundle), "log": logs_of(bundle, Path(folder)), "graph": [graph_of_all_kinds()]}
        copy = Bundle.open(shutil.copytree(args.bundle, Path(folder) / "bundle"))
        path = record_in(copy)
        seeds["engine"] = [path.read_bytes()]
        readers: dict[str, Callable[[bytes], None]] = {
            "manifest": lambda data: void(parse_manifest(data)),
            "log": lambda data: read_all(Path(folder) / "log.mcap", data),
            "graph": read_both,
            "engine": lambda data: read_record(copy, path, data),
        }
        for name in filter(chosen.__contains__, READERS):
            targets[name] = feed(name, seeds[name], getattr(args, name), args.seed, readers[name])
            print(f"{name}: {targets[name]}", flush=True)
    date = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d")
    for name, found in targets.items():
        found |= {"date": date, "command": f"python benchmarks/fuzz.py --build build/fuzz --only {name} --{name} {found['runs']}"}
    result = {"benchmark": "fuzz", "machine": {"cpu": record.cpu_name()}, "failures": 0}
    before = record.result_path(args, "fuzz", result)  # targets that were not run stay as they were
    result["targets"] = (json.loads(before.read_text())["targets"] if before.exists() else {}) | targets
    result["executions"] = sum(t["runs"] for t in result["targets"].values())
    print(f"{sum(t['runs'] for t in targets.values()):,} executions, no crash, hang or allocation over budget")
    record.write_result(args, "fuzz", result)
    return 0


def void(value: object) -> None:
    del value


if __name__ == "__main__":
    sys.exit(main())
