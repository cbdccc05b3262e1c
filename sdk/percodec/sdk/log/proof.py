"""Proofs in a log: whoever has its key can tell that nothing of it was removed, altered, moved or put in.

A log that is written with a key has a private record (opcode 0x80, 32 bytes) after its head, after each Message and after the Metadata
"percodec.closed". Each proves the record before it, HMAC being HMAC-SHA256:

    k       HMAC(key, "percodec-log 1" 00 and every byte before the first proof)     of this log, and of no other
    head    HMAC(k, "head")
    record  HMAC(k, "record", its place in the log as u64, and the whole Message record)
    end     HMAC(k, "end" and the whole Metadata record, which says how many records there are)

so that a record proves its own content, its place, and the log it is of, whatever became of its neighbours. Segments are logs of one
`recording`, which their heads name; the end of the last one says so (`last`). Metadata "percodec" has `proof` ("hmac-sha256"), `proof_key`
(the first 16 hex digits of the SHA-256 of "percodec-log-key" 00 and the key) and `proof_log`, 16 random bytes that make equal heads differ.

The key is secret: whoever has it can also write a log. The writer needs it once, as it starts. `verify` reads what is written here.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import stat
import struct
from collections.abc import Mapping

from percodec.sdk import mcap
from percodec.sdk.errors import LogError
from percodec.sdk.files import opened

PROOF = mcap.PRIVATE
PROOF_PREFIX = mcap.PREFIX.pack(PROOF, 32)
PROOF_BYTES = len(PROOF_PREFIX) + 32
KEY_BYTES = (32, 4096)
METHOD = "hmac-sha256"


class Prover:
    """Makes the proofs of one log. `head`: its bytes before the first proof."""

    def __init__(self, key: bytes, head: bytes) -> None:
        self._key = hmac.digest(key, b"percodec-log 1\0" + head, "sha256")

    def head(self) -> bytes:
        """A whole record, as all of these."""
        return self._proof(b"head")

    def record(self, place: int, message: bytes) -> bytes:
        return self._proof(b"record" + struct.pack("<Q", place) + message)

    def end(self, metadata: bytes) -> bytes:
        return self._proof(b"end" + metadata)

    def _proof(self, data: bytes) -> bytes:
        return PROOF_PREFIX + hmac.digest(self._key, data, "sha256")


def proof_metadata(key: bytes) -> Mapping[str, str]:
    """What a log's metadata say of its proofs."""
    return {"proof": METHOD, "proof_key": key_id(key), "proof_log": os.urandom(16).hex()}


def key_id(key: bytes) -> str:
    """16 hex digits that tell keys apart and tell nothing of them."""
    return hashlib.sha256(b"percodec-log-key\0" + key).hexdigest()[:16]


def read_log_key(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a key file: 32 to 4096 of them, random, for its owner alone. Raises `LogError`."""
    path = os.fspath(path)
    make = f"make one with: (umask 077; head -c 32 /dev/urandom >{path})"
    try:
        with os.fdopen(opened(path), "rb") as file:
            state = os.fstat(file.fileno())
            key: bytes = file.read(KEY_BYTES[1] + 1)
    except FileNotFoundError as error:
        raise LogError(f"log key {path} does not exist; {make}") from error
    except OSError as error:
        raise LogError(f"log key {path} cannot be read: {error.strerror or error}") from error
    if state.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise LogError(f"log key {path} can be read by others than its owner; run: chmod 600 {path}, or make another one")
    check_key(key, f"log key {path}", f"; {make}")
    return key


def check_key(key: bytes, name: str, remedy: str = "") -> None:
    """Raises `LogError` unless these are 32 to 4096 bytes."""
    low, high = KEY_BYTES
    if not isinstance(key, bytes):
        raise LogError(f"{name} is bytes, got {type(key).__name__}{remedy}")
    if not low <= len(key) <= high:
        raise LogError(f"{name} has {'more than ' * (len(key) > high)}{min(len(key), high)} bytes, a key has {low} to {high}{remedy}")


__all__ = ["METHOD", "PROOF", "PROOF_BYTES", "PROOF_PREFIX", "Prover", "check_key", "key_id", "proof_metadata", "read_log_key"]
