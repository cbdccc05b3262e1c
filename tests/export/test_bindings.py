"""Every TensorRT name that export's and the runtime's `tensorrt.py` use exists in the real Python bindings of the versions on vehicles.

The bindings are 1 MB wheels without the library; a stub library of nine empty functions lets them be imported on any x86-64 Linux. Nothing
can be constructed then, but every class, enum and method is there.
"""

from __future__ import annotations

import ast
import json
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    # Variables (or attributes of self) of the file, and the classes of the objects they hold.
    ROOT / "export" / "percodec" / "export" / "engines" / "tensorrt.py": {
        "builder": "Builder",
        "network": "INetworkDefinition",
        "config": "IBuilderConfig",
        "parser": "OnnxParser",
        "profile": "IOptimizationProfile",
        "cache": "ITimingCache",
        "loaded": "ICudaEngine",
    },
    ROOT / "runtime" / "percodec" / "runtime" / "engines" / "tensorrt.py": {
        "_runtime": "Runtime",
        "_engine": "ICudaEngine",
        "loaded": "ICudaEngine",
        "_context": "IExecutionContext",
        "config": "IRuntimeConfig",
    },
}
VERSIONS = {"10.3.0": "JetPack 6.1", "10.13.3.9": "JetPack 7.0", "10.16.1.11": "JetPack 7.2", "11.4.0.106": "JetPack 7.2.2"}

# Behind `flavour == "tensorrt_rtx"`, or `hasattr(trt, "CudaGraphStrategy")`.
RTX_ONLY = {
    "ComputeCapability", "IBuilderConfig.num_compute_capabilities", "IBuilderConfig.set_compute_capability",
    "CudaGraphStrategy", "CudaGraphStrategy.WHOLE_GRAPH_CAPTURE", "ICudaEngine.create_runtime_config", "IRuntimeConfig.cuda_graph_strategy",
    "IRuntimeConfig.set_execution_context_allocation_strategy",
}  # fmt: skip

STUB = "".join(
    f"void *{name}(void) {{ return 0; }}\n"
    for name in (
        "createInferBuilder_INTERNAL",
        "createInferRuntime_INTERNAL",
        "createInferRefitter_INTERNAL",
        "createNvOnnxParser_INTERNAL",
        "createNvOnnxParserRefitter_INTERNAL",
        "getBuilderPluginRegistry",
        "getPluginRegistry",
        "getNvOnnxParserVersion",
        "initLibNvInferPlugins",
    )
)

DUMP = """
import importlib.util, json, sys
spec = importlib.util.spec_from_file_location("tensorrt", sys.argv[1])
module = importlib.util.module_from_spec(spec)
spec.loader.exec_module(module)
names = []
for name in dir(module):
    names.append(name)
    value = getattr(module, name)
    if isinstance(value, type):
        names += [f"{name}.{inner}" for inner in dir(value)]
        for inner in dir(value):
            deeper = getattr(value, inner, None)
            if isinstance(deeper, type) and not inner.startswith("_"):
                names += [f"{name}.{inner}.{deep}" for deep in dir(deeper)]
print(json.dumps(names))
"""


def used_names() -> set[str]:
    """`trt.A.B` as "A.B", and `builder.x` or `self._engine.x` as "Class.x", from the sources as they are."""
    found: set[str] = set()
    for source, classes in SOURCES.items():
        for node in ast.walk(ast.parse(source.read_text())):
            words: list[str] = []
            while isinstance(node, ast.Attribute):
                words.insert(0, node.attr)
                node = node.value
            if not isinstance(node, ast.Name):
                continue
            words = [*([] if node.id == "self" else [node.id]), *words]
            if len(words) > 1 and words[0].lstrip("_") == "trt":
                found.add(".".join(words[1:]))
            elif len(words) > 1 and words[0] in classes:
                found.add(f"{classes[words[0]]}.{words[1]}")
    return found


def test_the_sources_are_read():
    names = used_names()
    assert {"Builder", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "IBuilderConfig.profiling_verbosity"} <= names
    assert {"IExecutionContext.execute_async_v3", "IExecutionContext.set_tensor_address", "ICudaEngine.device_memory_size_v2"} <= names
    assert names >= RTX_ONLY
    assert len(names) > 45


def check(have: set[str], absent: set[str]) -> None:
    wanted = {n for n in used_names() if n.removeprefix("trt.") not in absent and n != "__version__"}
    assert not wanted - have, sorted(wanted - have)


@pytest.fixture(scope="session")
def compiler() -> str:
    found = shutil.which("cc")
    if found is None or sys.platform != "linux":
        pytest.skip("needs a C compiler on Linux")
    return found


@pytest.mark.parametrize("version", VERSIONS)
def test_the_bindings_have_every_name(version, compiler, tmp_path):
    wanted = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:", "-d", str(tmp_path)]
    done = subprocess.run([*wanted, f"tensorrt-cu12-bindings=={version}"], capture_output=True, text=True, check=False)
    wheels = list(tmp_path.glob("*.whl"))
    if not wheels:
        pytest.skip(f"the bindings of {version} ({VERSIONS[version]}) cannot be had here: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(wheels[0]) as wheel:
        library = next(n for n in wheel.namelist() if n.endswith("tensorrt.so"))
        wheel.extract(library, tmp_path)
    (tmp_path / "stub.c").write_text(STUB)
    major = version.partition(".")[0]
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        soname = f"lib{name}.so.{major}"
        subprocess.run(
            [compiler, "-shared", "-fPIC", f"-Wl,-soname,{soname}", "-o", str(tmp_path / soname), str(tmp_path / "stub.c")], check=True
        )
    done = subprocess.run(
        [sys.executable, "-c", DUMP, str(tmp_path / library)],
        env={"LD_LIBRARY_PATH": str(tmp_path), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-500:]
    check(set(json.loads(done.stdout)), RTX_ONLY)


def test_tensorrt_rtx_has_every_name():
    trt = pytest.importorskip("tensorrt_rtx", reason="needs tensorrt-rtx (x86-64)")
    have = set(dir(trt))
    for name in list(have):
        value = getattr(trt, name)
        if isinstance(value, type):
            have |= {f"{name}.{inner}" for inner in dir(value)}
            have |= {
                f"{name}.{inner}.{deep}"
                for inner in dir(value)
                if not inner.startswith("_") and isinstance(getattr(value, inner, None), type)
                for deep in dir(getattr(value, inner))
            }
    check(have, set())


def test_a_name_that_does_not_exist_is_found():
    with pytest.raises(AssertionError, match=r"IBuilderConfig\.profiling_verbosity"):
        check(used_names() - {"IBuilderConfig.profiling_verbosity"}, set())
