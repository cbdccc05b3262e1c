"""Packets, byte for byte, by every compiler at hand, optimised, and plain under the sanitizers; threads; a short fuzz."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from support.once import Once

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "sdk" / "native"
PACKETS = ROOT / "tests" / "conformance" / "packets"
CLANG = next((c for c in ("clang++", *(f"clang++-{v}" for v in range(21, 12, -1))) if shutil.which(c)), None)
CHECKSUM = "503540 symbols, 14 packets, checksum 7c37256e"  # as on 64-bit Arm: tests/native/CMakeLists.txt
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FLAGS = {
    "O3": ("-O3",),
    "sanitized": ("-O0", *SANITIZED),
    "fuzzed": ("-O1", *SANITIZED, "-fsanitize=fuzzer-no-link"),
    "threads": ("-O1", "-g", "-fsanitize=thread", "-pthread"),
}
needs_clang = pytest.mark.skipif(CLANG is None, reason="no clang on this machine")


def call(*words: str | Path) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def core(once: Once, compiler: str, name: str) -> list[str | Path]:
    """What a compiler is given to make a program: the core, built once a run with these flags, comes with it."""
    common: list[str | Path] = [compiler, "-std=c++17", *FLAGS[name], f"-I{NATIVE / 'include'}"]
    sources = sorted((NATIVE / "src").glob("*.cpp"))

    def make(folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda source: call(*common, "-c", source, "-o", folder / f"{source.stem}.o"), sources))

    return [*common, *sorted(once(f"core-{compiler}-{name}", make).glob("*.o"))]


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [
        pytest.param("g++", "sanitized", marks=pytest.mark.long),
        pytest.param(CLANG, "O3", marks=needs_clang),
        pytest.param(CLANG, "sanitized", marks=needs_clang),
    ],
)
def test_the_same_bytes(once: Once, compiler: str, flags: str, tmp_path: Path) -> None:
    """Frozen packets, and packets of random tables, shapes and lanes by every kernel, as by g++ -O3, of which CMake makes build/native.

    `benchmarks/exactness.py` does more of them with more flags.
    """
    words = core(once, compiler, flags)
    for program in ("golden", "exactness", "allocation"):
        call(*words, ROOT / "tests" / "native" / f"test_{program}.cpp", "-o", tmp_path / program)
    assert "all right" in call(tmp_path / "golden", PACKETS)
    assert call(tmp_path / "exactness", PACKETS, "500000", "1").strip() == CHECKSUM
    if flags != "sanitized":  # which has allocators of its own
        assert "all right" in call(tmp_path / "allocation", PACKETS)


@pytest.mark.long
@pytest.mark.parametrize("compiler", ["g++", pytest.param(CLANG, marks=needs_clang)])
def test_threads_that_share_a_coder_race_for_nothing(once: Once, compiler: str, tmp_path: Path) -> None:
    """Under the thread sanitizer. Without it, ctest `threads` tries the same, and children made meanwhile, in every run."""
    call(*core(once, compiler, "threads"), ROOT / "tests" / "native" / "test_threads.cpp", "-o", tmp_path / "threads")
    assert "all right" in call(tmp_path / "threads", PACKETS)


@needs_clang
@pytest.mark.parametrize("target", ["packet", "payload", "steps", "model"])
def test_a_short_fuzz(once: Once, target: str, tmp_path: Path) -> None:
    """`benchmarks/fuzz.py` is the long one."""
    program = ROOT / "tests" / "native" / "fuzz" / f"fuzz_{target}.cpp"
    assert CLANG is not None
    words = core(once, CLANG, "fuzzed")
    try:
        call(*words, "-fsanitize=fuzzer", f'-DPERCODEC_GOLDEN="{PACKETS}"', program, "-o", tmp_path / "fuzz")
    except AssertionError as error:
        if "clang_rt.fuzzer" in str(error):
            pytest.skip("this clang came without libFuzzer (Debian: libclang-rt-14-dev)")
        raise
    (tmp_path / "corpus").mkdir()
    for path in PACKETS.glob({"model": "*.pcem", "steps": "*steps*.symbols"}.get(target, "*.packet")):
        data = path.read_bytes()
        started = {"payload": data[3:5] + data[44:], "steps": bytes([77, 1, 0, 0, 16, "temporal" in path.name]) + data}
        (tmp_path / "corpus" / path.name).write_bytes(started.get(target, data))
    runs = 1000 if target == "steps" else 5000  # each codes and reads back by every kernel
    words = [tmp_path / "fuzz", f"-runs={runs}", "-max_len=8192", "-malloc_limit_mb=64", "-timeout=10", "-seed=1", tmp_path / "corpus"]
    call(*words)
