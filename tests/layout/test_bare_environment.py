"""Who may import whom, third way: the wheel in an environment with nothing but numpy and PyYAML.

The environment is made without a network: the two libraries are linked in from the running one, the wheel is built from the tree.
"""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from importlib import metadata
from pathlib import Path
from sysconfig import get_path

import pytest
from support.tree import Module

CORE = ("numpy", "PyYAML")
NEEDS_ORT = ("run", "demo", "encode", "decode", "replay")
NEEDS_EXPORT = ("train", "export")
NEEDS_ITS_OWN = ("uplink", "ingest", "serve")
NEEDS = [*((c, "ort") for c in NEEDS_ORT), *((c, "export") for c in NEEDS_EXPORT), *((c, c) for c in NEEDS_ITS_OWN)]


def _link(distribution: str, site: Path) -> None:
    """Link what one installed distribution put at the top of site-packages, its metadata included."""
    files = metadata.distribution(distribution).files
    assert files
    for top in {file.parts[0] for file in files if file.parts[0] not in ("..", "__pycache__")}:
        (site / top).symlink_to(Path(str(metadata.distribution(distribution).locate_file(top))))


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bare environment's Python; `percodec` is beside it."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    site = Path(get_path("purelib", "venv", vars={"base": str(folder), "platbase": str(folder)}))
    for distribution in CORE:
        _link(distribution, site)
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    python = folder / "bin" / "python"
    script = folder / "bin" / "percodec"
    script.write_text(f"#!{python}\nimport sys\nfrom percodec.sdk.cli import main\nsys.exit(main())\n", encoding="utf-8")
    script.chmod(0o755)
    return python


def _run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(c) for c in command], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, cwd=Path(sys.prefix)
    )


def test_the_environment_is_bare(bare: Path) -> None:
    found = _run(
        bare, "-c", "import importlib.util as u; print([m for m in ('torch', 'onnx', 'onnxruntime', 'cv2', 'PIL') if u.find_spec(m)])"
    )
    assert found.stdout.strip() == "[]", found.stderr


def test_every_sdk_module_imports(bare: Path, modules: list[Module]) -> None:
    names = [module.name for module in modules if module.name.startswith("percodec.sdk")]
    done = _run(bare, "-c", "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)", *names)
    assert done.returncode == 0, done.stderr


def test_the_extension_is_in_the_wheel(bare: Path) -> None:
    done = _run(bare, "-c", "from percodec.sdk.codec import _rans; print(_rans.__file__)")
    assert done.returncode == 0, done.stderr
    assert str(bare.parents[1]) in done.stdout


def test_help_lists_every_command(bare: Path) -> None:
    done = _run(bare.with_name("percodec"), "--help")
    assert done.returncode == 0, done.stderr
    for command in ("inspect", "doctor", *NEEDS_ORT, *NEEDS_EXPORT, *NEEDS_ITS_OWN):
        assert command in done.stdout
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good inputs for every command, made with the extras at hand: what is missing below is the extra, nothing else."""
    folder = tmp_path_factory.mktemp("drive")
    percodec = Path(sys.executable).with_name("percodec")
    for arguments in (["demo", "--frames", "6", "--out", folder], ["encode", folder / "contact_sheet.png", "-o", folder / "frame.pcpk"]):
        done = _run(percodec, *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.mark.parametrize(("command", "extra"), NEEDS)
def test_a_command_without_its_extra_says_what_to_install(bare: Path, drive: Path, tmp_path: Path, command: str, extra: str) -> None:
    arguments = {
        "run": ["synthetic://road?frames=2", "--out", tmp_path / "run"],
        "demo": ["--out", tmp_path / "demo"],
        "encode": [drive / "contact_sheet.png", "-o", tmp_path / "frame.pcpk"],
        "decode": [drive / "frame.pcpk", "-o", tmp_path / "decoded"],
        "replay": [drive / "packets.mcap"],
        "train": ["codec", "--data", f"camvid={drive}", "--out", tmp_path / "train"],
        "uplink": [drive, "--to", "nats://127.0.0.1:9", "--insecure-loopback", "--vehicle", "v1"],
        "serve": [drive],
        "ingest": ["--from", "nats://127.0.0.1:9", "--archive", tmp_path / "archive", "--insecure-loopback"],
        "export": [drive / "packets.mcap", "--out", tmp_path / "bundle"],
    }[command]
    done = _run(bare.with_name("percodec"), command, *arguments)
    assert done.returncode not in (0, 70)
    assert "Traceback" not in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert f"percodec[{extra}]" in done.stderr, done.stdout + done.stderr


def test_inspect_needs_no_extra(bare: Path, drive: Path) -> None:
    for file in ("packets.mcap", "frame.pcpk"):
        done = _run(bare.with_name("percodec"), "inspect", drive / file)
        assert done.returncode == 0, done.stderr
        assert done.stdout


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if not name.split("/")[0].endswith(".dist-info")]
    assert {tuple(name.split("/")[:2]) for name in names} == {("percodec", "sdk"), ("percodec", "export"), ("percodec", "runtime")}
    assert "percodec/__init__.py" not in names
    for wanted in ("sdk/py.typed", "export/py.typed", "runtime/py.typed", "sdk/codec/BITSTREAM.md", "sdk/bundle/BUNDLE.md"):
        assert f"percodec/{wanted}" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pt", ".cpp"))]
