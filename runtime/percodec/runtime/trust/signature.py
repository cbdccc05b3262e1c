"""What is signed of a bundle: its digest, its place in time, and the engines beside it.

    BUNDLE/signature/KEYID.json    {"key": id, "statement": {...}, "signature": base64}, one file for each key

The signature is over "percodec-signature 1" and a zero byte, then the statement in canonical JSON. A bundle's digest is the SHA-256 of its
manifest, which holds those of all its files; engines lie outside it, so the statement names the SHA-256 of their records, which hold
theirs. `sequence` rises with every release of a bundle of one name: a machine that has seen a later one takes no earlier one.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from percodec.runtime.trust.keys import PrivateKey
from percodec.sdk.bundle.engines import MAX_RECORD_BYTES, engines_in
from percodec.sdk.bundle.files import UnfitFileError, read_file
from percodec.sdk.bundle.manifest import MAX_MANIFEST_BYTES, parse_manifest
from percodec.sdk.errors import BundleError, TrustError
from percodec.sdk.files import write_whole

FORMAT, VERSION, FOLDER = "percodec-signature", [1, 0], "signature"
MAX_SIGNATURES, MAX_BYTES = 16, 64 << 10
_PREFIX = b"percodec-signature 1\0"
_ID, _SHA256 = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Statement:
    """What a key's owner says. `engines`: SHA-256 of records by "FOLDER/GRAPH". `expires`: UTC, None for never."""

    bundle: str
    name: str
    sequence: int
    engines: tuple[tuple[str, str], ...]
    made: datetime
    expires: datetime | None

    def to_json(self) -> dict[str, Any]:
        return {
            "format": FORMAT,
            "version": VERSION,
            "bundle": self.bundle,
            "name": self.name,
            "sequence": self.sequence,
            "engines": dict(self.engines),
            "made": _text(self.made),
            "expires": None if self.expires is None else _text(self.expires),
        }

    @property
    def signed_bytes(self) -> bytes:
        return _PREFIX + json.dumps(self.to_json(), sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, value: Any) -> Statement:
        """Raises ValueError for anything but what `to_json` writes."""
        engines, sequence = value["engines"], value["sequence"]
        texts = [value["bundle"], value["name"], value["made"], *([] if value["expires"] is None else [value["expires"]])]
        fits = all(isinstance(text, str) for text in texts) and isinstance(engines, dict) and _SHA256.fullmatch(value["bundle"]) is not None
        fits = fits and type(sequence) is int and 0 <= sequence < 1 << 53
        fits = fits and all(isinstance(digest, str) and _SHA256.fullmatch(digest) is not None for digest in engines.values())
        if not fits or value["format"] != FORMAT or value["version"][0] != VERSION[0]:
            raise ValueError("its statement is of another form or version")
        expires = None if value["expires"] is None else _time(value["expires"])
        found = cls(value["bundle"], value["name"], sequence, tuple(sorted(engines.items())), _time(value["made"]), expires)
        if found.to_json() != value:
            raise ValueError("its statement is not in the one form it can have")
        return found


@dataclass(frozen=True)
class Signature:
    """One file: which key says it is, what it states, and 64 bytes that prove it. Nothing is proved yet."""

    key: str
    statement: Statement
    proof: bytes


def digest_of(folder: Path) -> tuple[str, str]:
    """(digest, name) of a bundle's folder, from its manifest alone: no model is read. Raises `BundleError`."""
    try:
        raw = read_file(folder, "manifest.json", MAX_MANIFEST_BYTES)
    except UnfitFileError as error:
        raise BundleError(f"bundle {folder}: manifest.json {error}; give a folder with a bundle") from error
    return hashlib.sha256(raw).hexdigest(), str(parse_manifest(raw)["name"])


def engine_records(folder: Path) -> dict[str, str]:
    """SHA-256 of the record of every engine in a bundle, by "FOLDER/GRAPH". Raises `BundleError`."""
    out = {}
    for place, graph in engines_in(folder):
        try:
            raw = read_file(folder, f"engines/{place}/{graph}.json", MAX_RECORD_BYTES)
        except UnfitFileError as error:
            raise BundleError(f"bundle {folder}: engines/{place}/{graph}.json {error}; remove it or build it again") from error
        out[f"{place}/{graph}"] = hashlib.sha256(raw).hexdigest()
    return out


def sign(folder: Path, key: PrivateKey, *, sequence: int, expires: datetime | None = None, engines: bool = True) -> Path:
    """Sign the bundle as it lies there, replacing what this key said before. Raises `BundleError`, `TrustError`."""
    digest, name = digest_of(folder)
    records = tuple(sorted(engine_records(folder).items())) if engines else ()
    now = datetime.now(timezone.utc).replace(microsecond=0)
    if expires is not None and expires <= now:
        raise TrustError(f"a signature cannot expire before it is made: {_text(expires)} is past")
    statement = Statement(digest, name, sequence, records, now, expires)
    proof = base64.b64encode(key.sign(statement.signed_bytes)).decode()
    value = {"key": key.public.id, "statement": statement.to_json(), "signature": proof}
    path = folder / FOLDER / f"{key.public.id}.json"
    try:
        path.parent.mkdir(exist_ok=True)
        write_whole(path, json.dumps(value, indent=1).encode() + b"\n")
    except OSError as error:
        raise TrustError(f"the signature cannot be written to {path}: {error.strerror or error}") from error
    return path


def signatures_in(folder: Path) -> tuple[list[Signature], list[str]]:
    """What lies in a bundle's `signature` folder, by key, unproved; and what is wrong with files there."""
    found, wrong = [], []
    try:
        names = sorted(
            entry.name for entry in os.scandir(folder / FOLDER) if entry.name.endswith(".json") and not entry.name.startswith(".")
        )
    except OSError:
        return [], []
    for name in names[:MAX_SIGNATURES]:
        try:
            value = json.loads(read_file(folder, f"{FOLDER}/{name}", MAX_BYTES))
            key, proof = value["key"], base64.b64decode(value["signature"], validate=True)
            if not _ID.fullmatch(key) or name != f"{key}.json" or set(value) != {"key", "statement", "signature"}:
                raise ValueError("it is of another form")
            found.append(Signature(key, Statement.from_json(value["statement"]), proof))
        except (UnfitFileError, ValueError, KeyError, TypeError, IndexError, RecursionError, binascii.Error) as error:
            said = str(error) if isinstance(error, UnfitFileError) else "is damaged"
            wrong.append(f"{FOLDER}/{ascii(name)[1:-1][:60]} {said}")
    if len(names) > MAX_SIGNATURES:
        wrong.append(f"there are {len(names)} signatures, {MAX_SIGNATURES} are read")
    return found, wrong


def _text(time: datetime) -> str:
    return time.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def _time(text: str) -> datetime:
    return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)


__all__ = ["FOLDER", "Signature", "Statement", "digest_of", "engine_records", "sign", "signatures_in"]
