"""The server's certificate, and whose clients it answers."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from percodec.sdk.errors import UsageError


@dataclass(frozen=True)
class Tls:
    """PEM files. `client_ca`: only clients with a certificate of this CA are answered; None for any."""

    certificate: Path
    key: Path
    client_ca: Path | None = None

    def http(self) -> ssl.SSLContext:
        """Raises `UsageError` for files that are not what they should be. Both protocols take the same ones: check with this."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self.certificate, self.key, password=_no_password)
        except (OSError, ValueError) as error:
            raise UsageError(
                f"--tls-cert {self.certificate}, --tls-key {self.key}: not a certificate and its key in PEM ({_words(error)})"
            ) from error
        if self.client_ca is not None:
            try:
                context.load_verify_locations(self.client_ca)
            except (OSError, ValueError) as error:
                raise UsageError(f"--client-ca {self.client_ca}: no certificate in PEM ({_words(error)})") from error
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def grpc(self) -> Any:
        """Credentials of gRPC."""
        import grpc

        authority = None if self.client_ca is None else self.client_ca.read_bytes()
        pair = (self.key.read_bytes(), self.certificate.read_bytes())
        return grpc.ssl_server_credentials([pair], root_certificates=authority, require_client_auth=authority is not None)


def _no_password() -> str:
    raise ValueError("the key has a password; keep it in a file that only the server's user can read")


def _words(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)[:160]


__all__ = ["Tls"]
