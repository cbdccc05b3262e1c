"""What does percodec itself cost, beside the networks? Four answers on this machine's CPU.

    python benchmarks/bench_runtime.py [--bundle FOLDER] [--frames 10000]

overhead    one call of a bound engine against ONNX Runtime's bare I/O binding on the same graph, alternating, CPU time, medians: on a graph
            that does next to nothing, with the shapes of road-edge, and on the bundle's own networks
throughput  the pipeline's frames per second against 1 / slowest stage (mean of that stage in the same run)
memory      slope of resident bytes over many frames, after the first third
idle        CPU time of a pipeline, with its watch, that waits for a camera
"""

from __future__ import annotations

import argparse
import datetime
import statistics
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import record

from percodec.runtime.capture.preprocess import Preprocessor
from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.engines.engine import TensorSpec
from percodec.runtime.engines.onnxruntime import OrtEngine, onnxruntime
from percodec.runtime.engines.open import cpu_graph, graph_specs, open_slots
from percodec.runtime.measure.profile import ProfileSettings, run_profile
from percodec.runtime.pipeline.options import PipelineOptions
from percodec.runtime.pipeline.pipeline import Pipeline
from percodec.runtime.pipeline.records import HeadTask
from percodec.runtime.session import DEFAULT_BUNDLE
from percodec.runtime.supervise.health import Health
from percodec.runtime.supervise.watch import Watch
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.machine import machine_info, versions
from percodec.sdk.types import Frame


def border(bundle, graph):
    """The one input and the one output of a graph."""
    source, (output,) = graph_specs(bundle, graph)
    return source, output


def nothing_graph(source: TensorSpec, destination: TensorSpec) -> bytes:
    """A graph of these shapes that does next to nothing: a constant, kept alive by one element of the input."""
    from onnx import TensorProto, helper, numpy_helper

    constants = [
        numpy_helper.from_array(np.zeros(len(source.shape), np.int64), "begin"),
        numpy_helper.from_array(np.ones(len(source.shape), np.int64), "end"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.array(destination.shape, np.int64), "shape"),
    ]
    nodes = [
        helper.make_node("Slice", [source.name, "begin", "end"], ["corner"]),
        helper.make_node("Reshape", ["corner", "one"], ["single"]),
        helper.make_node("Expand", ["single", "shape"], [destination.name]),
    ]
    ends = [helper.make_tensor_value_info(s.name, TensorProto.UINT8, list(s.shape)) for s in (source, destination)]
    graph = helper.make_graph(nodes, "nothing", ends[:1], ends[1:], initializer=constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return bytes(model.SerializeToString())


def bare(graph: bytes, source: TensorSpec, destination: TensorSpec, image: Any, out: Any) -> Any:
    """ONNX Runtime alone: the session options of percodec, an I/O binding made once, `run_with_iobinding`."""
    ort = onnxruntime()
    options = ort.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"], disabled_optimizers=["WeightBiasQuantization"])
    binding = session.io_binding()
    for bind, spec, array in ((binding.bind_input, source, image), (binding.bind_output, destination, out)):
        bind(spec.name, "cpu", 0, np.uint8, spec.shape, array.ctypes.data)
    return lambda: session.run_with_iobinding(binding)


def overhead(bundle: Bundle, rounds: int) -> dict[str, Any]:
    """Microseconds per call, percodec minus bare; blocks alternate, the order within a pair too."""
    out: dict[str, Any] = {}
    cases: list[tuple[str, bytes, tuple[TensorSpec, TensorSpec], int]] = []
    encoder, head = border(bundle, "encoder"), border(bundle, "head_segmentation")
    cases.append(("nothing, encoder's shapes", nothing_graph(*encoder), encoder, 40 * rounds))
    cases.append(("nothing, head's shapes", nothing_graph(*head), head, 40 * rounds))
    cases += [(g, cpu_graph(bundle, g, None)[0], border(bundle, g), rounds) for g in ("encoder", "head_segmentation")]
    for name, graph, (source, destination), count in cases:
        image = np.random.default_rng(1).integers(0, 6, source.shape, np.uint8)
        ours_out, bare_out = np.zeros(destination.shape, np.uint8), np.zeros(destination.shape, np.uint8)
        ours = OrtEngine(graph, source, (destination,)).bind(image, ours_out)
        theirs = bare(graph, source, destination, image, bare_out)
        times: dict[str, list[int]] = {"percodec": [], "bare": []}
        for k in range(count + 5):
            pair = [("percodec", ours), ("bare", theirs)]
            for label, call in pair if k % 2 else pair[::-1]:
                begin = time.process_time_ns()
                call()
                if k >= 5:
                    times[label].append(time.process_time_ns() - begin)
        assert np.array_equal(ours_out, bare_out)
        medians = {label: statistics.median(v) / 1000 for label, v in times.items()}
        paired = statistics.median(a - b for a, b in zip(times["percodec"], times["bare"], strict=True)) / 1000
        out[name] = {"bare_us": round(medians["bare"], 2), "percodec_us": round(medians["percodec"], 2), "overhead_us": round(paired, 2)}
        print(f"{name:<28} bare {medians['bare']:10.1f} us   percodec {medians['percodec']:10.1f} us   paired difference {paired:6.2f} us")
    return out


class Waiting:
    """A camera that gave one picture and then nothing."""

    def __init__(self, bundle: Bundle) -> None:
        self.info = SourceInfo("waiting", "fake", True, bundle.frame_width, bundle.frame_height, 30.0, None)
        self._image = np.zeros((bundle.frame_height, bundle.frame_width, 3), np.uint8)
        self._given, self._closed = False, threading.Event()

    def read(self) -> Frame | None:
        if not self._given:
            self._given = True
            return Frame(self._image, 0, time.monotonic_ns())
        self._closed.wait()
        return None

    def close(self) -> None:
        self._closed.set()


def idle(bundle: Bundle, seconds: float = 10.0) -> dict[str, Any]:
    """CPU share of one core."""
    pipeline = Pipeline(
        Waiting(bundle), Preprocessor(bundle.frame_height, bundle.frame_width, bundle.fit), open_slots(bundle).make,
        PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:]), levels=bundle.levels,
            heads={"segmentation": HeadTask("segmentation", len(bundle.labels))},
        options=PipelineOptions("latest"),
    )  # fmt: skip
    watch = Watch(pipeline, Health(), live=True, fps=30.0)
    pipeline.start()
    watch.start()
    time.sleep(2)
    begin, cpu = time.monotonic(), time.process_time()
    time.sleep(seconds)
    share = (time.process_time() - cpu) / (time.monotonic() - begin)
    watch.stop()
    pipeline.stop()
    while not pipeline.wait(0.5):
        pass
    print(f"idle: {share:.2%} of a core")
    return {"seconds": seconds, "cpu_percent": round(100 * share, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--source", default="synthetic://road?frames=64&seed=1")
    parser.add_argument("--frames", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=150)
    record.add_arguments(parser)
    args = parser.parse_args()
    bundle = Bundle.open(args.bundle)
    cost = overhead(bundle, args.rounds)
    rest = idle(bundle)
    common = {"bundle": args.bundle, "source": args.source, "parts": ("throughput",)}
    short = run_profile(ProfileSettings(frames=1000, **common)).report["backends"]["ort"]["throughput"]
    print(f"throughput: {short['fps']} frames/s, {short['overlap']}")
    long = run_profile(ProfileSettings(frames=args.frames, **common)).report["backends"]["ort"]["throughput"]
    print(f"memory: {long['memory']['growth_bytes_per_frame']} bytes per frame over {args.frames} frames, {long['memory']['rss_mb']}")
    result = {
        "bench": "runtime",
        "bundle": {"name": bundle.name, "digest": bundle.digest},
        "machine": machine_info(),
        "versions": versions(),
        "date": datetime.date.today().isoformat(),
        "command": "python benchmarks/bench_runtime.py",
        "overhead": cost,
        "idle": rest,
        "throughput": {"fps": short["fps"], "frames": 1000, **short["overlap"], "stages_ms": short["stages_ms"]},
        "memory": {"frames": args.frames, "fps": long["fps"], "overlap": long["overlap"], **long["memory"]},
    }
    record.write_result(args, "bench_runtime", result)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
