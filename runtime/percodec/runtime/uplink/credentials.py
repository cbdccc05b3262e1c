"""Who one is on the link: certificate, key and CA as files, read anew for every connection: a new certificate needs no restart."""

from __future__ import annotations

import datetime
import re
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from percodec.sdk.errors import UplinkError, UsageError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

VEHICLE = re.compile(r"[A-Za-z0-9_-]{1,64}")
_SOON = datetime.timedelta(days=14)
_PORTS = {"nats": 4222, "mqtt": 1883, "mqtts": 8883}
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Credentials:
    """PEM files; the certificate's common name is the vehicle's id on the broker."""

    ca: Path
    certificate: Path
    key: Path

    def context(self) -> ssl.SSLContext:
        """For one connection: the peer's certificate and name are checked, TLS 1.2 or newer. Raises `UplinkError`."""
        self.check()
        try:
            context = ssl.create_default_context(cafile=str(self.ca))
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise UplinkError(f"{self.ca}, {self.certificate}, {self.key}: cannot be used ({_words(error)}); give PEM files") from error
        return context

    def check(self) -> None:
        """Raises `UplinkError` where the certificate is not valid now."""
        begin, end = self._times()
        now = datetime.datetime.now(datetime.timezone.utc)
        if now > end:
            raise UplinkError(f"certificate {self.certificate} expired on {end:%Y-%m-%d %H:%M} UTC; get a new one, or set the clock")
        if now < begin:
            raise UplinkError(
                f"certificate {self.certificate} is valid from {begin:%Y-%m-%d %H:%M} UTC on, which is later than this clock says"
            )

    def warning(self) -> str:
        """One line where it expires soon; "" otherwise. Raises `UplinkError` where it cannot be read."""
        _, end = self._times()
        soon = end - datetime.datetime.now(datetime.timezone.utc) < _SOON
        return f"certificate {self.certificate} expires on {end:%Y-%m-%d %H:%M} UTC" if soon else ""

    def common_name(self) -> str:
        """Raises `UplinkError` where it is no vehicle's id."""
        from cryptography.x509 import NameOID

        found = self._read().subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        name = str(found[0].value) if len(found) == 1 else ""
        if not VEHICLE.fullmatch(name):
            raise UplinkError(
                f"certificate {self.certificate} has the common name {name!r}; it must be the vehicle's id: letters, digits, - and _"
            )
        return name

    def changed(self) -> int:
        """A number that is another one after the certificate was replaced."""
        try:
            return self.certificate.stat().st_mtime_ns
        except OSError:
            return 0

    def _read(self) -> Certificate:
        from cryptography.x509 import load_pem_x509_certificate

        try:
            return load_pem_x509_certificate(self.certificate.read_bytes())
        except (OSError, ValueError) as error:
            raise UplinkError(f"certificate {self.certificate} cannot be read ({_words(error)}); give a PEM file") from error

    def _times(self) -> tuple[datetime.datetime, datetime.datetime]:
        found = self._read()
        return found.not_valid_before_utc, found.not_valid_after_utc


def checked_url(url: str, option: str, credentials: Credentials | None) -> str:
    """Raises `UsageError` for what is no broker's address, and for one beyond loopback without `credentials`."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise UsageError(f"{option} {url!r}: {error}") from error
    if parts.scheme not in _PORTS or not host:
        raise UsageError(f"{option} {url!r}: write nats://HOST:PORT or mqtts://HOST:PORT")
    if parts.username is not None or parts.password is not None:
        raise UsageError(f"{option}: an address holds no name and no password; certificates say who one is")
    if parts.scheme.startswith("mqtt") and (parts.scheme == "mqtt") != (credentials is None):
        raise UsageError(f"{option} {url!r}: mqtts:// goes with certificates, mqtt:// with --insecure-loopback")
    if credentials is None and host not in _LOOPBACK:
        raise UsageError(f"{option} {url!r}: --insecure-loopback is for 127.0.0.1 alone; give --ca, --cert and --key")
    name = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{name}:{port or _PORTS[parts.scheme]}"


def _no_password() -> str:
    raise ValueError("the key has a password; the agent runs alone, so keep the key in a file that only its user can read")


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error).split("\n")[0][:200]


__all__ = ["VEHICLE", "Credentials", "checked_url"]
