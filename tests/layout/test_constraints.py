"""constraints.txt pins whatever the Makefile installs, to one version per Python, and names no index."""

from __future__ import annotations

import re
from collections import defaultdict
from importlib import metadata
from pathlib import Path

import pytest

LINE = re.compile(r'([a-z0-9-]+)==([0-9][0-9a-z.]*)(?:; python_version (<|>=) "3\.11")?')
EXTRAS = ("ort", "export", "build", "dev", "bag", "uplink", "ingest", "polygraphy", "cuda", "ray", "serve")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


@pytest.fixture(scope="module")
def pins(root: Path) -> dict[str, list[str]]:
    """Name -> the markers of its lines."""
    found: dict[str, list[str]] = defaultdict(list)
    for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            match = LINE.fullmatch(line)
            assert match, line
            found[match[1]].append(match[3] or "")
    return found


def test_one_version_for_each_python(pins: dict[str, list[str]]) -> None:
    assert all(markers in ([""], ["<"], [">="], ["<", ">="]) for markers in pins.values())
    assert list(pins) == sorted(pins)


def test_every_direct_requirement_is_pinned(pins: dict[str, list[str]]) -> None:
    wanted = set()
    for requirement in metadata.requires("percodec") or []:
        extra = re.search(r"""extra == ['"](\w+)['"]""", requirement)
        if extra is None or extra[1] in EXTRAS:
            name = re.match(r"[\w.-]+", requirement)
            assert name
            wanted.add(_normal(name[0]))
    assert wanted - set(pins) == set()


def test_every_requirement_of_a_pinned_one_is_pinned(pins: dict[str, list[str]]) -> None:
    """As far as it is installed here; a requirement that only an extra or another platform brings is not."""
    missing = set()
    for name in pins:
        try:
            requirements = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue
        for requirement in requirements:
            needed = re.match(r"[\w.-]+", requirement)
            if needed and ";" not in requirement and _normal(needed[0]) not in pins:
                missing.add(f"{name} needs {needed[0]}")
    assert not missing


def test_the_vehicle_s_requirements_are_those_pins_with_hashes(root: Path, pins: dict[str, list[str]]) -> None:
    """`runtime/requirements.txt` is made by a tool from constraints.txt; after a change there it is made again, as its head says."""
    pinned = {line.partition(";")[0].strip() for line in (root / "constraints.txt").read_text(encoding="utf-8").splitlines()}
    text = (root / "runtime" / "requirements.txt").read_text(encoding="utf-8").replace("\\\n", " ")
    entries = [line for line in text.splitlines() if line and not line.startswith("#")]
    names = {entry.partition("==")[0] for entry in entries}
    assert {"numpy", "onnxruntime", "opencv-python-headless", "pyyaml", "cryptography"} <= names
    for entry in entries:
        version = re.match(r"[a-z0-9-]+==[0-9a-z.]+", entry)
        assert version, entry
        assert version[0] in pinned, f"{version[0]} is not what constraints.txt has"
        assert re.search(r"--hash=sha256:[0-9a-f]{64}", entry), version[0]
    assert "://" not in text
