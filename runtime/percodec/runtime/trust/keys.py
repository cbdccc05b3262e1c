"""Ed25519 keys in PEM files, as `openssl genpkey -algorithm ed25519` makes them too."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from percodec.sdk.errors import TrustError, UsageError

_MAX_BYTES = 16 << 10


def crypto() -> tuple[Any, Any]:
    """`cryptography`'s ed25519 and serialization modules. Raises `TrustError` where it is not installed."""
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError as error:
        raise TrustError("signatures need the package cryptography: pip install 'percodec[sign]'") from error
    return ed25519, serialization


class PublicKey:
    """One public key. `id`: the first 16 hex digits of the SHA-256 of its 32 bytes."""

    def __init__(self, key: Any) -> None:
        _, serialization = crypto()
        self._key = key
        self.raw: bytes = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self.id = hashlib.sha256(self.raw).hexdigest()[:16]

    @classmethod
    def read(cls, path: Path) -> PublicKey:
        """From a PEM file. Raises `TrustError`."""
        return cls.from_pem(_read(path), str(path))

    @classmethod
    def from_pem(cls, pem: bytes, where: str) -> PublicKey:
        ed25519, serialization = crypto()
        try:
            key = serialization.load_pem_public_key(pem)
        except Exception as error:  # of several kinds, by version
            raise TrustError(f"{where} is no public key in PEM form; percodec sign keygen makes one") from error
        if not isinstance(key, ed25519.Ed25519PublicKey):
            raise TrustError(f"{where} is a key of another kind; percodec takes Ed25519")
        return cls(key)

    def signed(self, data: bytes, signature: bytes) -> bool:
        """Whether `signature` is this key's of `data`."""
        try:
            self._key.verify(signature, data)
        except Exception:  # InvalidSignature, or a signature of no such length
            return False
        return True


class PrivateKey:
    """One private key."""

    def __init__(self, key: Any) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    @classmethod
    def read(cls, path: Path) -> PrivateKey:
        """From a PEM file that only its owner can read. Raises `TrustError`."""
        ed25519, serialization = crypto()
        pem = _read(path, private=True)
        try:
            key = serialization.load_pem_private_key(pem, password=None)
        except Exception as error:
            raise TrustError(f"{path} is no private key in PEM form without a password; percodec sign keygen makes one") from error
        if not isinstance(key, ed25519.Ed25519PrivateKey):
            raise TrustError(f"{path} is a key of another kind; percodec takes Ed25519")
        return cls(key)

    def sign(self, data: bytes) -> bytes:
        """64 bytes."""
        return bytes(self._key.sign(data))


def generate(folder: Path, name: str) -> tuple[Path, Path, str]:
    """A new key pair, `name`.key (for its owner alone) and `name`.pub in `folder`: both paths and the key's id.

    Raises `UsageError` where one of them exists, `TrustError` where they cannot be written.
    """
    ed25519, serialization = crypto()
    if not name or Path(name).name != name or name.startswith(".") or not name.isprintable():
        raise UsageError(f"{name!r} cannot name a key: give one plain word")
    key = ed25519.Ed25519PrivateKey.generate()
    encoding = serialization.Encoding.PEM
    private = key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    public = key.public_key().public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
    paths = folder / f"{name}.key", folder / f"{name}.pub"
    for path in paths:
        if path.exists() or path.is_symlink():
            raise UsageError(f"{path} exists; keys are never overwritten: choose another name")
    made: list[Path] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, data, mode in ((paths[0], private, 0o600), (paths[1], public, 0o644)):
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode), "wb") as file:
                made.append(path)
                file.write(data)
    except OSError as error:
        for path in made:
            path.unlink(missing_ok=True)
        raise TrustError(f"keys cannot be written to {folder}: {error.strerror or error}") from error
    return *paths, PublicKey(key.public_key()).id


def _read(path: Path, private: bool = False) -> bytes:
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            state = os.fstat(file.fileno())
            if not stat.S_ISREG(state.st_mode) or state.st_size > _MAX_BYTES:
                raise TrustError(f"{path} is not a key file")
            if private and state.st_mode & 0o077:
                raise TrustError(f"{path} can be read by others than its owner; run: chmod 600 {path}")
            return file.read(_MAX_BYTES)
    except OSError as error:
        raise TrustError(f"{path} cannot be read: {error.strerror or error}") from error


__all__ = ["PrivateKey", "PublicKey", "crypto", "generate"]
