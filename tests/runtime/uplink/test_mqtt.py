"""The same over MQTT 5: mosquitto, killed on the way, with all that it acknowledged."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.loopback import Certificates, free_port
from percodec.sdk import SegmentedLogWriter, read_log
from percodec.sdk.log.segments import segment_paths

pytest.importorskip("paho.mqtt", reason="needs the uplink extra")
pytest.importorskip("pyarrow", reason="needs the ingest extra")
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/opt/homebrew/sbin") or shutil.which("mosquitto")
pytestmark = pytest.mark.skipif(MOSQUITTO is None, reason="mosquitto is not installed (Debian: apt install mosquitto)")

CONFIGURATION = Path(__file__).parents[3] / "runtime" / "percodec" / "runtime" / "uplink"
Start = Callable[..., "subprocess.Popen[str]"]
Write = Callable[..., SegmentedLogWriter]


class Mosquitto:
    """With the configuration of the repository, on another port."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.certificates = Certificates(folder / "tls")
        self.certificates.issue("server", hosts=["127.0.0.1"])
        text = (CONFIGURATION / "mosquitto.conf").read_text().replace("8883", str(self.port))
        (folder / "mosquitto.conf").write_text(text + "user root\n")
        shutil.copy(CONFIGURATION / "mosquitto.acl", folder)
        self.url = f"mqtts://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        assert MOSQUITTO is not None
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen([MOSQUITTO, "-c", "mosquitto.conf"], cwd=self.folder, stdout=log, stderr=log)
        time.sleep(0.5)
        assert self.process.poll() is None, (self.folder / "log").read_text()

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()
        (self.folder / "mosquitto.db").unlink(missing_ok=True)


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Mosquitto]:
    (tmp_path / "broker").mkdir()
    found = Mosquitto(tmp_path / "broker")
    yield found
    found.kill()


def tls(who: Credentials) -> list[str]:
    return ["--ca", str(who.ca), "--cert", str(who.certificate), "--key", str(who.key)]


def stored_of(logs: Path) -> int:
    try:
        return int(json.loads((logs / ".uplink" / "status.json").read_text())["records"]["stored"])
    except (OSError, ValueError, KeyError):
        return 0


def test_a_killed_broker_that_forgets_loses_nothing(start: Start, broker: Mosquitto, write: Write, tmp_path: Path) -> None:
    logs = tmp_path / "logs"
    write(logs / "a", 0, 200)
    ingest = start(
        "ingest", "--from", broker.url, "--archive", "archive", "--flush", "0.3", *tls(broker.certificates.issue("ingest")), "--json"
    )
    agent = start("uplink", logs, "--to", broker.url, *tls(broker.certificates.issue("v1")), "--resend-after", "2", "--json")
    deadline = time.monotonic() + 60
    while stored_of(logs) < 200 and time.monotonic() < deadline:
        time.sleep(0.1)
    ingest.terminate()
    ingest.communicate(timeout=30)
    write(logs / "b", 200, 400)
    time.sleep(2.5)  # they are with the broker
    broker.kill()
    broker.start()
    again = start("ingest", "--from", broker.url, "--archive", "archive", "--flush", "0.3", *tls(broker.certificates.issue("ingest")))
    while stored_of(logs) < 400 and time.monotonic() < deadline:
        time.sleep(0.1)
    for process in (agent, again):
        process.terminate()
        _, err = process.communicate(timeout=30)
        assert process.returncode == 0, err
    for name in ("a", "b"):
        here = read_log(logs / name)
        there = read_log(tmp_path / "archive" / "v1" / here.metadata["recording"])
        assert [(r.packet, r.sequence) for r in there] == [(r.packet, r.sequence) for r in here]
        assert len(segment_paths(logs / name)) > 3


def test_strangers_are_refused(start: Start, broker: Mosquitto, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    stranger = Certificates(tmp_path / "other").issue("v1")
    mine = broker.certificates.issue("v1")
    for who, url, word in (
        (stranger, broker.url, "certificate is not accepted"),
        (mine, broker.url.replace("mqtts", "mqtt"), "mqtts:// goes with certificates"),
    ):
        process = start("uplink", tmp_path / "logs", "--to", url, *tls(who))
        _, err = process.communicate(timeout=30)
        assert process.returncode in (1, 2)
        assert len(err.splitlines()) == 1
        assert word in err
