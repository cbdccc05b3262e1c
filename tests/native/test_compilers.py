"""The golden packets, byte for byte, by every compiler at hand, plain and optimised, with and without the sanitizers; a short fuzz."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKETS = ROOT / "tests" / "conformance" / "packets"
CLANG = next((c for c in ("clang++", *(f"clang++-{v}" for v in range(21, 12, -1))) if shutil.which(c)), None)
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
needs_clang = pytest.mark.skipif(CLANG is None, reason="no clang on this machine")


def build(compiler: str, flags: tuple[str, ...], program: Path, out: Path) -> None:
    native = ROOT / "sdk" / "native"
    sources = [str(p) for p in sorted((native / "src").glob("*.cpp"))]
    words = [compiler, "-std=c++17", *flags, f"-I{native / 'include'}", str(program), *sources, "-o", str(out)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.parametrize("flags", [("-O0",), ("-O3",), SANITIZED], ids=["O0", "O3", "sanitized"])
@pytest.mark.parametrize("compiler", ["g++", pytest.param(CLANG or "clang++", marks=needs_clang, id="clang++")])
def test_golden_packets(compiler: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    build(compiler, flags, ROOT / "tests" / "native" / "test_golden.cpp", tmp_path / "golden")
    done = subprocess.run([tmp_path / "golden", PACKETS], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "all right" in done.stdout


@needs_clang
@pytest.mark.parametrize("target", ["packet", "payload", "model"])
def test_a_short_fuzz(target: str, tmp_path: Path) -> None:
    """`benchmarks/fuzz.py` is the long one."""
    flags = (*SANITIZED, "-fsanitize=fuzzer", f'-DPERCODEC_GOLDEN="{PACKETS}"')
    program = ROOT / "tests" / "native" / "fuzz" / f"fuzz_{target}.cpp"
    assert CLANG is not None
    try:
        build(CLANG, flags, program, tmp_path / "fuzz")
    except AssertionError as error:
        if "clang_rt.fuzzer" in str(error):
            pytest.skip("this clang came without libFuzzer (Debian: libclang-rt-14-dev)")
        raise
    (tmp_path / "corpus").mkdir()
    for path in PACKETS.glob("*.pcem" if target == "model" else "*.packet"):
        data = path.read_bytes()
        (tmp_path / "corpus" / path.name).write_bytes(bytes([data[4]]) + data[44:] if target == "payload" else data)
    words = [tmp_path / "fuzz", "-runs=5000", "-max_len=8192", "-malloc_limit_mb=64", "-timeout=10", "-seed=1", tmp_path / "corpus"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
