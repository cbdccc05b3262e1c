"""Packets, byte for byte, by every compiler at hand, plain and optimised, with and without the sanitizers; a short fuzz."""

from __future__ import annotations

import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NATIVE = ROOT / "sdk" / "native"
PACKETS = ROOT / "tests" / "conformance" / "packets"
CLANG = next((c for c in ("clang++", *(f"clang++-{v}" for v in range(21, 12, -1))) if shutil.which(c)), None)
CHECKSUM = "553550 symbols, 21 packets, checksum bf561fb2"  # as on 64-bit Arm: tests/native/CMakeLists.txt
SANITIZED = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
needs_clang = pytest.mark.skipif(CLANG is None, reason="no clang on this machine")


def call(*words: str | Path) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def core(compiler: str, flags: tuple[str, ...], folder: Path) -> list[str]:
    """What a compiler is given to make the core, once built; a program comes behind it."""
    common = [compiler, "-std=c++17", *flags, f"-I{NATIVE / 'include'}"]
    sources = sorted((NATIVE / "src").glob("*.cpp"))
    objects = [folder / f"{source.stem}.o" for source in sources]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pair: call(*common, "-c", pair[0], "-o", pair[1]), zip(sources, objects, strict=True)))
    return [*common, *(str(o) for o in objects)]


@pytest.mark.parametrize("flags", [("-O0",), ("-O3",), SANITIZED], ids=["O0", "O3", "sanitized"])
@pytest.mark.parametrize("compiler", ["g++", pytest.param(CLANG or "clang++", marks=needs_clang, id="clang++")])
def test_the_same_bytes(compiler: str, flags: tuple[str, ...], tmp_path: Path) -> None:
    """Frozen packets, and packets of random tables, shapes and lanes by every kernel; `benchmarks/exactness.py` does more of them."""
    words = core(compiler, flags, tmp_path)
    for program in ("golden", "exactness", "allocation"):
        call(*words, ROOT / "tests" / "native" / f"test_{program}.cpp", "-o", tmp_path / program)
    assert "all right" in call(tmp_path / "golden", PACKETS)
    assert call(tmp_path / "exactness", PACKETS, "500000", "1").strip() == CHECKSUM
    if flags != SANITIZED:  # which have allocators of their own
        assert "all right" in call(tmp_path / "allocation", PACKETS)


@needs_clang
@pytest.mark.parametrize("target", ["packet", "payload", "model"])
def test_a_short_fuzz(target: str, tmp_path: Path) -> None:
    """`benchmarks/fuzz.py` is the long one."""
    flags = (*SANITIZED, "-fsanitize=fuzzer", f'-DPERCODEC_GOLDEN="{PACKETS}"')
    program = ROOT / "tests" / "native" / "fuzz" / f"fuzz_{target}.cpp"
    assert CLANG is not None
    try:
        call(*core(CLANG, flags, tmp_path), program, "-o", tmp_path / "fuzz")
    except AssertionError as error:
        if "clang_rt.fuzzer" in str(error):
            pytest.skip("this clang came without libFuzzer (Debian: libclang-rt-14-dev)")
        raise
    (tmp_path / "corpus").mkdir()
    for path in PACKETS.glob("*.pcem" if target == "model" else "*.packet"):
        data = path.read_bytes()
        (tmp_path / "corpus" / path.name).write_bytes(bytes([data[4]]) + data[44:] if target == "payload" else data)
    words = [tmp_path / "fuzz", "-runs=5000", "-max_len=8192", "-malloc_limit_mb=64", "-timeout=10", "-seed=1", tmp_path / "corpus"]
    call(*words)
