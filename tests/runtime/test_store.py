"""Releases side by side, one of them current: whole or not there, and switched in one step."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.tiny_bundle import make_bundle

from percodec.runtime.trust.policy import Policy
from percodec.runtime.trust.store import activate, install, releases, rollback
from percodec.sdk.bundle import Bundle
from percodec.sdk.cli import main
from percodec.sdk.errors import BundleError, PercodecError, TrustError, UsageError

OFF = Policy("off")


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[Bundle]:
    place = tmp_path_factory.mktemp("sources")
    return [make_bundle(place / f"r{k}", name="road", gain=1 + k / 10) for k in range(3)]


@pytest.fixture
def store(sources: list[Bundle], tmp_path: Path) -> Path:
    for bundle in sources:
        install(tmp_path / "store", bundle.path, OFF)
    return tmp_path / "store"


def test_install_activate_and_back(store: Path, sources: list[Bundle]) -> None:
    names = [bundle.digest[:12] for bundle in sources]
    assert {r.release for r in releases(store)} == set(names)
    assert not any(r.current for r in releases(store)), "what was installed does not run by itself"
    for name in names[:2]:
        assert activate(store, "road", name, OFF)[0].current
        assert Bundle.open(store / "road" / "current").digest.startswith(name)
    assert rollback(store, "road", OFF)[0].release == names[0]
    assert Bundle.open(store / "road" / "current").digest == sources[0].digest
    assert rollback(store, "road", OFF)[0].release == names[1], "and forward again"
    activate(store, "road", names[1], OFF)
    assert os.readlink(store / "road" / "previous") == names[0], "activating what is current changes nothing"


def test_what_cannot_be_done_says_why(store: Path, sources: list[Bundle], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no earlier release"):
        rollback(store, "road", OFF)
    with pytest.raises(UsageError, match="is installed"):
        install(store, sources[0].path, OFF)
    for name, release in (("road", "0000"), ("road", ""), ("road", "cur"), *((n, "1234") for n in ("street", "../x", "..", ""))):
        with pytest.raises(UsageError, match="percodec bundle list"):
            activate(store, name, release, OFF)
    with pytest.raises(UsageError, match="no store of bundles"):
        releases(tmp_path / "none")
    with pytest.raises(TrustError, match="requires it"):
        install(tmp_path / "new", sources[0].path, Policy("require"))
    damaged = shutil.copytree(sources[0].path, tmp_path / "damaged")
    (damaged / "encoder.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        install(tmp_path / "new", damaged, OFF)
    assert [p.name for p in (tmp_path / "new" / "road").iterdir()] == []
    for what in (lambda p: os.truncate(p, 1 << 43), lambda p: (p.unlink(), os.mkfifo(p))):
        large = shutil.copytree(sources[0].path, tmp_path / "large", dirs_exist_ok=True)
        (large / "engines").mkdir(exist_ok=True)
        (large / "engines" / "extra").touch()
        what(large / "engines" / "extra")
        with pytest.raises(PercodecError, match=r"room for|cannot be copied"):
            install(tmp_path / "new", large, OFF)
        assert [p.name for p in (tmp_path / "new" / "road").iterdir()] == [], "nothing stays of it"
    hiding = shutil.copytree(sources[0].path, tmp_path / "hiding")
    (hiding / ".hidden").write_bytes(b"x")
    made, _ = install(tmp_path / "new", hiding, OFF)
    assert not (tmp_path / "new" / "road" / made.release / ".hidden").exists()


def test_a_release_that_was_altered_is_not_activated(store: Path, sources: list[Bundle]) -> None:
    activate(store, "road", sources[0].digest[:12], OFF)
    (store / "road" / sources[1].digest[:12] / "encoder.onnx").write_bytes(b"x")
    with pytest.raises(BundleError):
        activate(store, "road", sources[1].digest[:12], OFF)
    assert Bundle.open(store / "road" / "current").digest == sources[0].digest


_SWITCH = """
import sys, itertools
from pathlib import Path
from percodec.runtime.trust.policy import Policy
from percodec.runtime.trust.store import activate
print("ready", flush=True)
for release in itertools.cycle(sys.argv[2:]):
    activate(Path(sys.argv[1]), "road", release, Policy("off"))
"""


@pytest.mark.parametrize("kills", [4, pytest.param(100, marks=pytest.mark.long)])
def test_current_is_whole_whenever_the_process_is_killed(store: Path, sources: list[Bundle], kills: int) -> None:
    rng, names = random.Random(kills), [bundle.digest[:12] for bundle in sources]
    activate(store, "road", names[0], OFF)
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, "-c", _SWITCH, str(store), *names], stdout=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.0, 0.2))
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        assert Bundle.open(store / "road" / "current").digest in {bundle.digest for bundle in sources}
        activate(store, "road", rng.choice(names), OFF)  # the dead process holds no lock, and leaves nothing in the way


def test_the_command(sources: list[Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PERCODEC_TRUST_POLICY", raising=False)
    monkeypatch.setattr("percodec.runtime.trust.policy.SYSTEM", tmp_path / "none.yaml")
    store = str(tmp_path / "store")
    for bundle in sources[:2]:
        assert main(["bundle", "install", str(bundle.path), store]) == 0
        assert main(["bundle", "activate", store, "road", bundle.digest[:6]]) == 0
    capsys.readouterr()
    assert main(["bundle", "list", store, "--json"]) == 0
    found = {r["release"]: r for r in json.loads(capsys.readouterr().out)}
    assert found[sources[1].digest[:12]]["current"]
    assert found[sources[0].digest[:12]]["previous"]
    assert main(["bundle", "rollback", store, "road"]) == 0
    assert capsys.readouterr().out == f"road  {sources[0].digest[:12]}  current\n"
    assert main(["bundle", "activate", store, "road", "zz"]) == 2
