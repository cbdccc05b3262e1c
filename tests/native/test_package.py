"""The C++ core as others get it: installed, found by CMake, packed as .deb, built for 64-bit Arm; small in memory."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from percodec.sdk.codec import EntropyModel, PacketCodec

ROOT = Path(__file__).resolve().parents[2]
USER = """
cmake_minimum_required(VERSION 3.20)
project(user LANGUAGES CXX)
find_package(percodec 0.1 REQUIRED)
add_executable(user "${EXAMPLE}")
add_executable(watched watched.cpp)
target_compile_definitions(watched PRIVATE "EXAMPLE=\\"${EXAMPLE}\\"")
target_link_libraries(user PRIVATE percodec::codec)
target_link_libraries(watched PRIVATE percodec::codec)
"""
# The example, and then the most memory it ever had: what wait4 says of a child includes this Python before it became the child.
WATCHED = """
#define main example_main
#include EXAMPLE
#undef main
#include <iostream>
#include <string>
int main(int count, char** arguments) {
    const int code = example_main(count, arguments);
    std::ifstream status("/proc/self/status");
    for (std::string line; std::getline(status, line);) {
        if (line.rfind("VmHWM:", 0) == 0) std::cout << line << std::endl;
    }
    return code;
}
"""


def run(*words: str | Path, **more: str) -> str:
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False, env={**os.environ, **more})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_core_passes_its_own_tests(native: Path) -> None:
    assert "100% tests passed" in run("ctest", "--test-dir", native, "--output-on-failure", "--no-tests=error")


def test_an_installed_core_is_found_and_decodes_in_little_memory(native: Path, tmp_path: Path) -> None:
    run("cmake", "--install", native, "--prefix", tmp_path / "prefix")
    (tmp_path / "CMakeLists.txt").write_text(USER, encoding="utf-8")
    (tmp_path / "watched.cpp").write_text(WATCHED, encoding="utf-8")
    example = ROOT / "sdk" / "native" / "examples" / "decode_packets.cpp"
    run("cmake", "-S", tmp_path, "-B", tmp_path / "b", f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}", f"-DEXAMPLE={example}")
    run("cmake", "--build", tmp_path / "b")
    rng = np.random.default_rng(1)
    model = EntropyModel.from_counts(rng.integers(1, 1000, (32, 6, 6)))
    (tmp_path / "entropy.pcem").write_bytes(model.to_bytes())
    codec, files = PacketCodec(model, 45, 60), []
    for k in range(50):
        latent = rng.integers(0, 6, (32, 45, 60), np.uint8)
        files.append(tmp_path / f"{k}.pcpk")
        files[-1].write_bytes(codec.encode(latent, frame_id=k, timestamp_ns=0))
    words = [tmp_path / "b" / "user", tmp_path / "entropy.pcem", "45", "60", *files]
    lines = run(*words).splitlines()
    counts = np.bincount(latent.ravel(), minlength=6)
    assert lines[-1].endswith("levels " + " ".join(str(n) for n in counts))
    assert f"frame 49, {files[-1].stat().st_size} bytes" in lines[-1]
    peak = re.search(r"VmHWM:\s+(\d+) kB", run(tmp_path / "b" / "watched", *words[1:]))
    assert peak
    assert int(peak[1]) < 20 * 1024
    damaged = bytearray(files[0].read_bytes())
    damaged[100] ^= 1
    files[0].write_bytes(damaged)
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bad_crc" in done.stderr


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="no dpkg-deb on this machine")
def test_the_package_holds_library_headers_and_configuration(native: Path, tmp_path: Path) -> None:
    run("cpack", "-G", "DEB", "--config", native / "CPackConfig.cmake", "-B", tmp_path)
    (package,) = tmp_path.glob("libpercodec-dev_0.1.0_*.deb")
    listed = run("dpkg-deb", "-c", package)
    for name in ("libpercodec_codec.a", "include/percodec/packet.hpp", "percodec-config.cmake", "percodec-config-version.cmake", "LICENSE"):
        assert re.search(rf"/{re.escape(name)}\n", listed), name


@pytest.mark.skipif(
    not (shutil.which("aarch64-linux-gnu-g++") and shutil.which("qemu-aarch64")), reason="no aarch64 compiler and qemu-user"
)
def test_arm_writes_the_same_bytes(tmp_path: Path) -> None:
    """Golden packets, byte for byte, by the core built for aarch64 and run under qemu."""
    toolchain = ROOT / "cmake" / "aarch64-linux-gnu.cmake"
    run("cmake", "-S", ROOT / "cmake", "-B", tmp_path, f"-DCMAKE_TOOLCHAIN_FILE={toolchain}", "-DPERCODEC_WERROR=ON")
    run("cmake", "--build", tmp_path, "--parallel", "2")
    assert "100% tests passed" in run("ctest", "--test-dir", tmp_path)


def test_presets_name_what_there_is() -> None:
    listed = run("cmake", "--list-presets", "-S", ROOT / "cmake")
    assert all(name in listed for name in ('"dev"', '"ci"', '"aarch64-cross"'))
