"""`percodec profile`: its figures on known numbers, its load, its budget, and the whole command on the tiny bundle."""

from __future__ import annotations

import json
import mmap
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from support.tiny_bundle import HEIGHT, WIDTH, frames

from percodec.runtime.capture.open import open_source
from percodec.runtime.capture.source import SourceInfo
from percodec.runtime.measure import budget as budgets
from percodec.runtime.measure.html import html, trace
from percodec.runtime.measure.load_generator import FixedRate, Meter, Pictures
from percodec.runtime.measure.profile import PARTS, ProfileSettings, run_profile
from percodec.runtime.measure.sensors import Sensors
from percodec.runtime.measure.statistics import distribution, end_to_end, percentile, queries, slope, slowest_stage, trtexec
from percodec.runtime.pipeline.timing import Profiler, Spans
from percodec.sdk.cli import main
from percodec.sdk.errors import SourceError, UsageError
from percodec.sdk.types import Frame

MS = 1_000_000


# -- figures ------------------------------------------------------------------------------------------------------------------------
def test_percentiles_are_values_that_happened() -> None:
    values = np.arange(1, 101, dtype=float)
    assert [percentile(values, p) for p in (50, 90, 95, 99, 99.9, 100)] == [50, 90, 95, 99, 100, 100]
    assert percentile(np.array([7.0]), 99.9) == 7
    found = distribution([3, 1, 2, 2])
    assert (found["count"], found["min"], found["p50"], found["max"], found["mean"]) == (4, 1, 2, 3, 2)
    assert found["cv"] == pytest.approx(np.sqrt(0.5) / 2, abs=1e-4)
    assert distribution([]) == {"count": 0}


def test_a_frame_that_never_came_misses_its_deadline_too() -> None:
    found = end_to_end([10, 30, 10, 50], 40, captured=6)
    assert (found["missed"], found["deadline"]) == (1 + 2, 40)
    assert found["jitter"] == pytest.approx((20 + 20 + 40) / 3, abs=1e-3)
    assert "missed" not in end_to_end([1, 2], None, 2)


def test_the_slowest_stage_bounds_the_throughput() -> None:
    stages = {
        name: {"count": 5, "mean": mean} for name, mean in (("capture", 90), ("encode", 4), ("predict", 12), ("code", 1), ("age", 99))
    }
    assert slowest_stage(stages, 1) == ("predict", 12)
    assert slowest_stage(stages, 4) == ("encode", 4)
    assert slowest_stage(stages, 1, device_ms=3.0) == ("device", 3.0)


def test_growth_is_a_slope() -> None:
    assert slope([0, 100, 200, 300], [5, 25605, 51205, 76805]) == pytest.approx(256)
    assert slope([1, 1, 1], [1, 2, 3]) == slope([1], [1]) == 0


def test_trtexec_users_find_their_words() -> None:
    run = {"fps": 50.0, "seconds": 2.0, "end_to_end_ms": distribution([10, 20])}
    cpu = trtexec({"compute": distribution([4, 6])}, run, None)
    assert cpu["CPU Compute Time (ms)"]["median"] == cpu["Latency (ms)"]["median"] == 4
    assert cpu["End-to-End (ms)"]["max"] == 20
    assert cpu["GPU Compute Time (ms)"] is cpu["H2D Latency (ms)"] is cpu["Enqueue Time (ms)"] is None
    device = {name: distribution([1, 3]) for name in ("h2d", "compute", "d2h", "latency")}
    gpu = trtexec({"encode": distribution([0.1])}, run, device)
    assert gpu["Throughput (qps)"] == 50
    assert gpu["GPU Compute Time (ms)"]["percentile(99%)"] == 3
    assert gpu["Enqueue Time (ms)"]["mean"] == 0.1


def test_times_per_query_have_trtexecs_names() -> None:
    spans = {
        "encode": Spans(np.array([0, 1]), np.array([1, 11]) * MS, np.array([3, 14]) * MS),
        "predict": Spans(np.array([0, 1]), np.array([3, 14]) * MS, np.array([8, 18]) * MS),
        "age": Spans(np.array([0, 1]), np.array([0, 10]) * MS, np.array([8, 18]) * MS),
    }
    first, second = queries(spans)
    assert first == {
        "frame": 0, "startEnqMs": 1, "endEnqMs": 3, "startComputeMs": 3, "endComputeMs": 8, "latencyMs": 7, "endToEndMs": 8,
    }  # fmt: skip
    assert second["startEnqMs"] == 11


def test_the_profiler_keeps_the_last_spans_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("percodec.runtime.pipeline.timing.WINDOW", 8)
    profiler = Profiler(("encode",), keep_spans=True)
    for k in range(20):
        profiler.record("encode", k * MS, k * MS + k, k)
    found = profiler.spans()["encode"]
    assert found.frame.tolist() == list(range(12, 20))
    assert (found.end_ns - found.begin_ns).tolist() == list(range(12, 20))
    assert profiler.timings()["encode"].count == 20
    with pytest.raises(ValueError, match="no spans"):
        Profiler(("encode",)).spans()


def test_a_stage_that_raises_is_no_sample() -> None:
    profiler = Profiler(("encode",), nvtx=True)
    with pytest.raises(RuntimeError), profiler.span("encode", 0):
        raise RuntimeError
    with profiler.span("encode", 1):
        pass
    assert profiler.timings()["encode"].count == 1
    assert profiler._nvtx is not None or "not installed" in profiler.nvtx_missing


# -- load ---------------------------------------------------------------------------------------------------------------------------
class Still:
    def __init__(self, count: int) -> None:
        self.info = SourceInfo("still", "fake", False, WIDTH, HEIGHT, 20.0, count)
        self._left = count

    def read(self) -> Frame | None:
        self._left -= 1
        return Frame(np.full((HEIGHT, WIDTH, 3), self._left, np.uint8), 9 - self._left, 0) if self._left >= 0 else None

    def close(self) -> None:
        pass


def test_frames_are_due_whether_or_not_anybody_is_ready() -> None:
    source = FixedRate(Pictures(Still(3), 64), 6, fps=100)
    frames = []
    for k in range(6):
        if k == 2:
            time.sleep(0.05)  # a stalled reader: five frames become due meanwhile
        frames.append(source.read())
    stamps = [f.timestamp_ns for f in frames if f]
    assert np.diff(stamps).tolist() == [10 * MS] * 5
    assert [int(f.image[0, 0, 0]) for f in frames if f] == [2, 1, 0, 2, 1, 0]
    assert source.read() is None
    with pytest.raises(SourceError, match="no frame"):
        Pictures(Still(0), 4)


def test_fi10_a_leak_shows_as_growth() -> None:
    held: list[mmap.mmap] = []  # pages of their own: the heap may have room from earlier
    done = 0

    def work(each: int) -> Any:
        nonlocal done
        done = 0
        with Meter(Sensors(Path("/nowhere")), lambda: done, period_s=0.01) as meter:
            for _ in range(60):
                done += 50
                if each:
                    held.append(mmap.mmap(-1, each * 50))
                    held[-1].write(b"x" * (each * 50))
                time.sleep(0.005)
        return meter.memory_figures()["growth_bytes_per_frame"]

    assert work(4096) > 1024
    assert abs(work(0)) < 256


def test_a_long_run_is_sampled_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("percodec.runtime.measure.load_generator.MOST_SAMPLES", 8)
    with Meter(Sensors(Path("/nowhere")), lambda: 1, period_s=0.002) as meter:
        time.sleep(0.2)
    assert len(meter.memory) == len(meter.readings) <= 9
    assert meter.memory[-1][0] - meter.memory[0][0] > 0.2e9, "the first and the last are kept"


# -- budget -------------------------------------------------------------------------------------------------------------------------
REPORT: dict[str, Any] = {
    "backends": {
        "ort": {
            "fixed": {
                "end_to_end_ms": {"p50": 20.0, "p99": 45.0, "missed": 3},
                "frames": {"captured": 100, "dropped": {"superseded": 2}},
                "memory": {"rss_mb": {"max": 250.0}},
                "machine": {"energy_per_frame_j": None},
            },
            "throughput": {"fps": 60.0, "memory": {"growth_bytes_per_frame": 12.0}},
        }
    }
}


def read(tmp_path: Path, text: str) -> dict[str, Any]:
    path = tmp_path / "budget.yaml"
    path.write_text(text)
    return budgets.read_budget(path)


def test_a_budget_names_every_line_that_broke(tmp_path: Path) -> None:
    kept = read(tmp_path, "latency_ms: {p50: 20, p99: 45}\ndrops_percent: 2\nmissed_deadlines_percent: 3\nthroughput_fps: 60\nrss_mb: 250")
    assert budgets.over_budget(REPORT, kept) == []
    broken = read(tmp_path, "latency_ms: {p50: 20, p99: 44.9}\ndrops_percent: 1\nthroughput_fps: 61\nenergy_per_frame_j: 1")
    assert budgets.over_budget(REPORT, broken) == [
        "ort: latency_ms.p99 is 45, the budget asks for at most 44.9",
        "ort: drops_percent is 2, the budget asks for at most 1",
        "ort: throughput_fps is 60, the budget asks for at least 61",
        "ort: energy_per_frame_j was not measured, the budget asks for at most 1",
    ]
    special = read(tmp_path, "drops_percent: 0\nbackends: {ort: {drops_percent: 5}}")
    assert budgets.over_budget(REPORT, special) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "a budget is a list"), ("- 1", "a budget is a list"), ("latncy_ms: 3", "latncy_ms: unknown; a budget knows"),
        ("a: [", "not YAML"), ("rss_mb: much", "must be a number, not 'much'"), ("latency_ms: {p98: 3}", "latency_ms.p98: unknown"),
        ("rss_mb: .nan", "number"),
        ("backends: ort", "backends must map"), ("rss_mb: true", "number"),
    ],
)  # fmt: skip
def test_wrong_budgets(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(UsageError, match=re.escape(why)):
        read(tmp_path, text)


def test_two_profiles_are_compared_figure_by_figure() -> None:
    after = json.loads(json.dumps(REPORT))
    after["backends"]["ort"]["throughput"]["fps"] = 30.0
    after["backends"]["ort"]["fixed"]["end_to_end_ms"]["p99"] = 30.0
    rows = {row["figure"]: row for row in budgets.compare(REPORT, after)}
    assert rows["throughput_fps"]["better"] is False
    assert rows["throughput_fps"]["change"] == -0.5
    assert rows["latency_ms.p99"]["better"] is True
    assert rows["rss_mb"]["better"] is None
    assert "energy_per_frame_j" not in rows
    assert "-50.0%  worse" in budgets.render_comparison(list(rows.values()))


# -- the command --------------------------------------------------------------------------------------------------------------------
def picture_network(path: Path, height: int = HEIGHT, width: int = WIDTH) -> Path:
    """image -> labels: bright or not."""
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, [1, height, width, 3])
    labels = helper.make_tensor_value_info("labels", TensorProto.UINT8, [1, height, width])
    nodes = [
        helper.make_node("Cast", ["image"], ["real"], to=TensorProto.FLOAT),
        helper.make_node("Transpose", ["real"], ["planes"], perm=[0, 3, 1, 2]),
        helper.make_node("ArgMax", ["planes"], ["best"], axis=1, keepdims=0),
        helper.make_node("Cast", ["best"], ["labels"], to=TensorProto.UINT8),
    ]
    model = helper.make_model(helper.make_graph(nodes, "rgb", [image], [labels]), opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture(scope="module")
def profiled(bundle_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One run of the whole command."""
    folder = tmp_path_factory.mktemp("profile")
    network = picture_network(folder / "rgb.onnx")
    words = [
        "profile",
        str(bundle_folder),
        "synthetic://road?frames=8&seed=1",
        "--out",
        str(folder / "out"),
        "--frames",
        "40",
        "--fps",
        "200",
    ]
    words += ["--backends", "ort,ort:fp32,decode-first,rgb", "--rgb", str(network), "--export-times", str(folder / "times.json")]
    assert main(words) == 0
    return folder


def test_the_report_has_every_figure(profiled: Path) -> None:
    report = json.loads((profiled / "out" / "profile.json").read_text())
    assert set(report["backends"]) == {"ort", "ort:fp32"}
    for found in report["backends"].values():
        assert {"load_ms", "selftest", "warm_up", "about", "device_ms", "memory_steps_mb", *PARTS} <= set(found)
        for part in ("fixed", "throughput", "overload"):
            run = found[part]
            frames = run["frames"]
            assert frames["captured"] == frames["predicted"] + sum(frames["dropped"].values())
            assert {"p50", "p90", "p95", "p99", "p99.9", "max", "cv"} <= set(run["stages_ms"]["predict"])
            assert {"power", "temperature", "energy"} <= set(run["machine"]["missing"]) | {
                k.partition(".")[0].replace("_w", "").replace("_c", "") for k in run["machine"]["readings"]
            }
        assert {"jitter", "missed", "deadline"} <= set(found["fixed"]["end_to_end_ms"])
        assert found["throughput"]["frames"]["predicted"] == 40
        assert 0 < found["throughput"]["overlap"]["efficiency"] < 2
        assert found["fixed"]["trtexec"]["Throughput (qps)"] == found["fixed"]["fps"]
        assert found["device_ms"] is None
    paths = report["paths"]["paths"]
    assert list(paths) == ["latent on ort", "latent on ort:fp32", "decode-first", "rgb"]
    assert paths["rgb"]["ratio"] == 1
    assert list(paths["decode-first"]["steps_ms"]) == ["preprocess", "encode", "decode", "predict", "code"]
    times = json.loads((profiled / "times.json").read_text())
    assert {"startComputeMs", "endComputeMs", "latencyMs", "endToEndMs"} <= set(times[0])


def test_the_page_needs_nothing_but_itself(profiled: Path) -> None:
    page = (profiled / "out" / "profile.html").read_text()
    assert page.count("<svg") >= 8
    assert not re.search(r"<(script|link|img|iframe)|src=|href=|url\(|@import", page)
    assert "https://" not in page.replace("http://www.w3.org/2000/svg", "")
    for word in ("Who works when", "Memory", "Drops over rate", "Paths side by side", "deadline"):
        assert word in page


def test_the_trace_is_one_that_perfetto_reads(profiled: Path) -> None:
    events = json.loads((profiled / "out" / "trace.json").read_text())["traceEvents"]
    assert {e["args"]["name"] for e in events if e["name"] == "process_name"} >= {"ort fixed", "ort throughput"}
    spans = [e for e in events if e["ph"] == "X"]
    assert all(e["ts"] >= 0 and e["dur"] >= 0 for e in spans)
    assert {e["name"] for e in spans} >= {"capture", "encode", "predict", "code", "log"}


def test_comparing_a_profile_with_itself_shows_no_change(profiled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(profiled / "out" / "profile.json")
    assert main(["profile", "compare", path, path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["different"] == []
    assert {row["better"] for row in found["rows"]} == {None}
    assert main(["profile", "compare", path, path]) == 0
    assert "throughput_fps" in capsys.readouterr().out


def test_a_broken_budget_ends_with_three_and_says_which(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "budget.yaml").write_text("throughput_fps: 1000000\ndrops_percent: 100\n")
    words = ["profile", str(bundle_folder), "synthetic://road?frames=4", "--out", str(tmp_path / "out"), "--frames", "20", "--fps", "100"]
    code = main([*words, "--parts", "fixed,throughput", "--budget", str(tmp_path / "budget.yaml")])
    assert code == 3
    said = capsys.readouterr()
    assert "throughput_fps is" in said.err
    assert "drops_percent" not in said.err
    assert json.loads((tmp_path / "out" / "profile.json").read_text())["budget"]["broken"]
    assert "overload" not in said.out


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--backends", "rgb"], "name at least one that runs the latent path"),
        (["--backends", "ort,rgb"], "--rgb NETWORK.onnx"),
        (["--backends", "ort,rgb", "--rgb", "nowhere.onnx"], "nowhere.onnx: No such file"),
        (["--backends", "tensorrt"], "tensorrt cannot run here"),
        (["--parts", "all"], "--parts all: unknown"),
        (["--frames", "1"], "--frames 1: must be"),
        (["--fps", "fast"], "--fps fast"),
        (["--budget", "nowhere.yaml"], "nowhere.yaml: No such file"),
        (["--transfer", "pigeon"], "--transfer pigeon"),
    ],
)
def test_wrong_words(bundle_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], why: str) -> None:
    assert main(["profile", str(bundle_folder), "synthetic://road?frames=2", "--out", str(tmp_path / "out"), *more]) in (1, 2)
    said = capsys.readouterr().err
    assert why in said
    assert len(said.strip().splitlines()) == 1


def test_profiles_are_not_overwritten_nor_confused(profiled: Path, bundle_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["profile", str(bundle_folder), "synthetic://road?frames=2", "--out", str(profiled / "out")]) == 2
    assert "already holds a profile" in capsys.readouterr().err
    other = str(profiled / "times.json")
    assert main(["profile", "compare", other, other]) == 2
    assert "is not a profile" in capsys.readouterr().err


def test_a_live_camera_keeps_its_own_rate(bundle_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Live:
        def __init__(self) -> None:
            self.info = SourceInfo("live", "fake", True, WIDTH, HEIGHT, 100.0, None)
            self._images = frames(8, HEIGHT, WIDTH)
            self._next = 0

        def read(self) -> Frame:
            time.sleep(0.01)
            self._next += 1
            return Frame(self._images[self._next % 8], self._next, time.monotonic_ns())

        def close(self) -> None:
            pass

    monkeypatch.setattr("percodec.runtime.measure.profile.open_source", lambda *a, **k: Live())
    found = run_profile(ProfileSettings(bundle_folder, "live", frames=20))
    assert "throughput" not in found.report["backends"]["ort"]
    assert found.report["backends"]["ort"]["fixed"]["frames"]["captured"] == 20
    assert "end to end" in html(found.report, found.spans)
    assert json.loads(trace(found.spans))["traceEvents"]
    with pytest.raises(UsageError, match="--rgb"):
        run_profile(ProfileSettings(bundle_folder, "live", backends=("ort", "rgb")))
    assert open_source("synthetic://road?frames=1").read() is not None
