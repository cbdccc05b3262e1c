"""`make uplink-demo`: two vehicles, a broker and an archive on this machine's loopback, with a tunnel in between.

    python -m percodec.runtime.uplink.demo [FOLDER]        default: percodec-uplink-demo

It makes throw-away certificates, starts nats-server, an ingest and an agent for each vehicle, drives, takes the broker away for some
seconds, and ends with what was sent, stored, resent and discarded, and with a picture decoded from the archive.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.loopback import LoopbackBroker
from percodec.sdk.errors import PercodecError, UplinkError
from percodec.sdk.log import read_log

_PERCODEC = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())"]
_FRAMES, _TUNNEL_S, _PATIENCE_S = 150, 4, 60
_VEHICLES = ("v1", "v2")


def main(folder: Path) -> int:
    """Returns 0 where the archive has every packet of the vehicles, byte for byte."""
    if folder.exists():
        if not (folder / "broker" / "nats-server.conf").is_file():
            raise UplinkError(f"{folder}: exists, and is no earlier demo; choose another folder")
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    running: list[subprocess.Popen[bytes]] = []

    def start(name: str, *words: object) -> subprocess.Popen[bytes]:
        with (folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([*_PERCODEC, *map(str, words)], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        running.append(process)
        return process

    def tls(who: Credentials) -> list[object]:
        return ["--ca", who.ca, "--cert", who.certificate, "--key", who.key]

    print("broker   nats-server on loopback, with certificates made for this demo")
    broker = LoopbackBroker(folder / "broker", _VEHICLES)
    try:
        archive = folder / "archive"
        start("ingest", "ingest", "--from", broker.url, "--archive", archive, "--flush", "1", "--stream-size", "1GB", *tls(broker.ingest))
        drives = []
        for k, name in enumerate(_VEHICLES):
            (folder / name).mkdir()
            source = f"synthetic://road?frames={_FRAMES}&seed={k + 1}"
            drive = ["run", source, "--realtime", "--out", folder / name / "drive", "--log-segment", "200kB,2s", "--stream-id", k]
            drives.append(start(f"run-{name}", *drive, "--no-overlay", "--no-sheet", "--no-selftest"))
            start(f"uplink-{name}", "uplink", folder / name, "--to", broker.url, "--max-disk", "1GB", *tls(broker.vehicles[name]))
        print(f"drive    {len(_VEHICLES)} vehicles, {_FRAMES} frames each at 25 fps")
        time.sleep(3)
        broker.kill()
        print(f"tunnel   the broker is gone for {_TUNNEL_S} s (kill -9)")
        time.sleep(_TUNNEL_S)
        broker.start()
        for drive_ in drives:
            if drive_.wait():
                raise UplinkError(f"the drive failed; see {folder}/run-*.log")
        print("parked   the backlog goes up")
        counts = _settled(folder)
        return _show(folder, counts)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
        broker.close()


def _settled(folder: Path) -> dict[str, Any]:
    """What the agents say when everything is stored. Raises `UplinkError` where that takes too long."""
    deadline = time.monotonic() + _PATIENCE_S
    wanted = {name: sum(1 for _ in read_log(folder / name / "drive" / "packets")) for name in _VEHICLES}
    found: dict[str, Any] = {}
    while time.monotonic() < deadline:
        found = {name: json.loads((folder / name / ".uplink" / "status.json").read_text()) for name in _VEHICLES}
        if all(found[name]["records"]["stored"] == count for name, count in wanted.items()):
            return found
        time.sleep(0.2)
    raise UplinkError(f"not everything is stored after {_PATIENCE_S} s ({found}); see {folder}/*.log")


def _show(folder: Path, counts: dict[str, Any]) -> int:
    keys = ("found", "sent", "stored", "resent", "discarded")
    print("\nvehicle " + "".join(f"{key:>11}" for key in keys) + "   in the archive, byte for byte")
    whole = True
    for name in _VEHICLES:
        here = read_log(folder / name / "drive" / "packets")
        there = read_log(folder / "archive" / name / here.metadata["recording"])
        ours, theirs = ([(r.packet, r.timestamp_ns, r.sequence) for r in log] for log in (here, there))
        whole &= ours == theirs
        figures = "".join(f"{counts[name]['records'][key]:>11}" for key in keys)
        print(f"{name:<8}{figures}   {sum(a == b for a, b in zip(ours, theirs, strict=False))} of {len(ours)}")
    packet = folder / "last.pcpk"
    packet.write_bytes(theirs[-1][0])
    decode = [*_PERCODEC, "decode", str(packet), "-o", str(folder / "picture"), "--segment", "--json"]
    subprocess.run(decode, check=True, stdout=subprocess.DEVNULL)
    print(f"\nwrote    {folder / 'picture' / 'reconstruction.png'}   the last packet of {name}, decoded from the archive")
    print(f"wrote    {folder / 'picture' / 'segmentation.png'}   what a network says of that packet")
    return 0 if whole else 1


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "percodec-uplink-demo")))
    except PercodecError as error:
        sys.exit(f"percodec: error: {error}")

__all__ = ["main"]
