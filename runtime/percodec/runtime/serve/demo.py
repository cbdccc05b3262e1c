"""`make serve-demo`: a server on this machine's loopback, one packet, one curl, and a picture of what the server says.

python -m percodec.runtime.serve.demo [FOLDER]        default: percodec-serve-demo
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.request
from pathlib import Path

from percodec.runtime.capture.open import open_source
from percodec.runtime.session import Session
from percodec.sdk.errors import PercodecError, UsageError

_PERCODEC = [sys.executable, "-c", "import sys; from percodec.sdk.cli import main; sys.exit(main())"]
_PACKET = "frame.pcpk"


def main(folder: Path) -> int:
    """Returns 0 where the server answered."""
    if folder.exists() and not (folder / _PACKET).is_file():
        raise UsageError(f"{folder}: exists, and is no earlier demo; choose another folder")
    folder.mkdir(parents=True, exist_ok=True)
    packet = _packet()
    (folder / _PACKET).write_bytes(packet)
    print(f"vehicle  a frame of the synthetic road in {len(packet)} bytes: {folder / _PACKET}")
    with (folder / "server.log").open("wb") as log:
        words = ["serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0", "--json"]
        server = subprocess.Popen([*_PERCODEC, *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert server.stdout is not None
        line = server.stdout.readline()
        if not line:
            raise UsageError(f"the server does not start; see {folder / 'server.log'}")
        said = json.loads(line)
        (model,) = said["models"]
        print(f"server   percodec serve: gRPC on {said['grpc']}, HTTP on {said['http']}, model {model}\n")
        url = f"http://{said['http']}/v1/predict/{model}"
        print(_asked(folder, url).decode().rstrip())
        _asked(folder, url, "labels.png")
        _asked(folder, f"{url}?picture=overlay", "overlay.png")
    finally:
        server.terminate()
        server.wait()
    print(f"\nwrote    {folder / 'overlay.png'}   the picture rebuilt from the packet, and what the network says of it")
    print(f"wrote    {folder / 'labels.png'}   the class ids alone")
    return 0


def _packet() -> bytes:
    """What a vehicle would send of the road's last frame."""
    source = open_source("synthetic://road?frames=40&seed=3")
    with Session.open(selftest=False) as session:
        last = None
        while (frame := source.read()) is not None:
            last = session.encode(frame) if frame.frame_id == 39 else last
        assert last is not None
        return session.pack(last)


def _asked(folder: Path, url: str, picture: str = "") -> bytes:
    """The answer to the packet, by curl where there is one. With `picture` it goes into that file."""
    if shutil.which("curl") is None:
        request = urllib.request.Request(url, (folder / _PACKET).read_bytes(), {"Accept": "image/png"} if picture else {})
        with urllib.request.urlopen(request, timeout=60) as response:
            data: bytes = response.read()
        if picture:
            (folder / picture).write_bytes(data)
        return data
    words = ["curl", "--silent", "--show-error", "--fail", "--data-binary", f"@{folder / _PACKET}"]
    words += ["-H", "Accept: image/png", "-o", str(folder / picture)] if picture else []
    print("$", *(f"'{word}'" if " " in word or "?" in word else word for word in [*words, url]))
    return subprocess.run([*words, url], check=True, capture_output=True).stdout


if __name__ == "__main__":
    try:
        sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "percodec-serve-demo")))
    except PercodecError as error:
        sys.exit(f"percodec: error: {error}")

__all__ = ["main"]
