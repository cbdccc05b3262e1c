"""What packets name tables by: a hash of their bytes."""

from __future__ import annotations

import hashlib


class Serialised:
    """Tables as bytes: `_seal` them once they are checked."""

    _bytes: bytes
    _digest: bytes

    def _seal(self, data: bytes) -> None:
        self._bytes, self._digest = data, hashlib.sha256(data).digest()

    @property
    def digest(self) -> bytes:
        """SHA-256 of `to_bytes()`, 32 bytes."""
        return self._digest

    @property
    def table_hash(self) -> int:
        """First eight bytes of `digest`, little-endian: what packets carry."""
        return int.from_bytes(self._digest[:8], "little")

    def to_bytes(self) -> bytes:
        """The canonical serialisation (BITSTREAM.md, "Entropy model" and "Steps"): the file `entropy.pcem` of a bundle."""
        return self._bytes


__all__ = ["Serialised"]
