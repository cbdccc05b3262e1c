"""The policy: which keys this machine trusts, and what becomes of bundles that none of them signed.

    unsigned: require            # refuse them; warn: say so (the default); off: say nothing
    keys:
      - file: fleet-2026.pub     # beside the policy, or an absolute path
      - file: vehicle.pub
        signs: [engines]         # bundles, engines or both (the default)
    revoked: [0123456789abcdef]  # ids of keys that count no more, whatever they signed
    state: /var/lib/percodec/trust.json   # the latest sequence seen of each bundle; without it nothing is remembered

Looked for in `--trust-policy`, then the environment's PERCODEC_TRUST_POLICY, then /etc/percodec/trust.yaml.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from percodec.runtime.trust.keys import PublicKey
from percodec.sdk.errors import TrustError
from percodec.sdk.files import check_file
from percodec.sdk.yaml_text import read_yaml

SYSTEM, VARIABLE = Path("/etc/percodec/trust.yaml"), "PERCODEC_TRUST_POLICY"
MODES, ROLES = ("require", "warn", "off"), ("bundles", "engines")
_MAX_BYTES = 64 << 10
_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Policy:
    """`keys`: (key, what it may sign). Obtain with `find_policy`."""

    unsigned: str = "warn"
    keys: tuple[tuple[PublicKey, frozenset[str]], ...] = ()
    revoked: frozenset[str] = field(default_factory=frozenset)
    state: Path | None = None
    source: str = "no policy"


def find_policy(path: Path | None = None) -> Policy:
    """The policy that holds here. Raises `TrustError` for one that cannot be read or says something else than a policy can."""
    given = path or (Path(os.environ[VARIABLE]) if os.environ.get(VARIABLE) else None)
    if given is None and not SYSTEM.exists():
        return Policy()
    return read_policy(given or SYSTEM)


def read_policy(path: Path) -> Policy:
    try:
        check_file(path)
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        if len(raw) > _MAX_BYTES:
            raise TrustError(f"trust policy {path} is longer than {_MAX_BYTES} bytes")
        value = read_yaml(raw.decode("utf-8"))
    except OSError as error:
        raise TrustError(f"trust policy {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise TrustError(f"trust policy {path} is not YAML text ({error}); see percodec sign --help for its form") from error
    value = {} if value is None else value
    _check(
        path, isinstance(value, dict) and set(value) <= {"unsigned", "keys", "revoked", "state"}, "has keys unsigned, keys, revoked, state"
    )
    unsigned = value.get("unsigned", "warn")
    _check(path, unsigned in MODES, f"has unsigned: {', '.join(MODES)}")
    keys, revoked, state = value.get("keys", []), value.get("revoked", []), value.get("state")
    _check(path, isinstance(keys, list) and len(keys) <= 64, "lists at most 64 keys")
    _check(
        path,
        isinstance(revoked, list) and all(isinstance(k, str) and _ID.fullmatch(k) for k in revoked),
        "lists ids of 16 hex digits, in quotes, as revoked",
    )
    _check(path, state is None or _is_path(state), "names one file as state")
    found = tuple(_key(path, entry) for entry in keys)
    return Policy(unsigned, found, frozenset(revoked), None if state is None else path.parent / state, str(path))


def _key(path: Path, entry: Any) -> tuple[PublicKey, frozenset[str]]:
    _check(path, isinstance(entry, dict) and set(entry) <= {"file", "signs"} and _is_path(entry.get("file")), "gives each key a file")
    signs = entry.get("signs", list(ROLES))
    _check(path, isinstance(signs, list) and bool(signs) and all(s in ROLES for s in signs), f"lets a key sign {' or '.join(ROLES)}")
    return PublicKey.read(path.parent / entry["file"]), frozenset(signs)


def _is_path(value: Any) -> bool:
    return isinstance(value, str) and "\0" not in value


def _check(path: Path, fits: bool, wanted: str) -> None:
    if not fits:
        raise TrustError(f"trust policy {path}: a policy {wanted}")


__all__ = ["MODES", "ROLES", "Policy", "find_policy", "read_policy"]
