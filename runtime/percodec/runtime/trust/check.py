"""A bundle's folder against a policy, before any model in it is read.

manifest's digest -> signatures that prove it -> keys that are trusted -> not expired, not older than what was seen
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from percodec.runtime.trust.policy import Policy
from percodec.runtime.trust.signature import Signature, digest_of, signatures_in
from percodec.sdk.errors import TrustError
from percodec.sdk.files import check_file

_MAX_STATE = 1 << 20


@dataclass(frozen=True)
class Verdict:
    """`trusted`: ids of the keys that vouch for the bundle; empty where none does, and `why` says what there is instead.

    `engines`: by "FOLDER/GRAPH" the SHA-256 of records of engines that may run; None where any may.
    """

    digest: str
    name: str
    trusted: tuple[str, ...]
    sequence: int | None
    why: tuple[str, ...]
    engines: dict[str, tuple[str, ...]] | None


def judge(folder: Path, policy: Policy, now: datetime | None = None) -> Verdict:
    """Who vouches for the bundle in `folder`. Changes nothing. Raises `BundleError` where there is none, `TrustError` for a bad state."""
    digest, name = digest_of(folder)
    found, why = signatures_in(folder)
    now = now or datetime.now(timezone.utc)
    trusted, sequences = [], []
    engines: dict[str, tuple[str, ...]] = {}
    for signature in found:
        reason, roles = _standing(signature, digest, policy, now)
        if reason:
            why.append(f"key {signature.key} {reason}")
            continue
        if "engines" in roles:
            engines |= {name: (*engines.get(name, ()), record) for name, record in signature.statement.engines}
        if "bundles" in roles:
            trusted.append(signature.key)
            sequences.append(signature.statement.sequence)
    latest = max(sequences, default=None)
    seen = _seen(policy).get(name, -1)
    if latest is not None and latest < seen:
        why.append(f"it is release {latest} of {name}, and release {seen} ran here before")
        trusted = []
    if not found and not why:
        why.append("it has no signature")
    return Verdict(digest, name, tuple(trusted), latest, tuple(why), engines if policy.unsigned == "require" else None)


def admit(folder: Path, policy: Policy, remember: bool = True) -> tuple[Verdict, str | None]:
    """The verdict, and what to tell the user of a bundle that nobody trusted signed. `remember`: the release that may run, in the state.

    Raises `TrustError` where the policy requires a signature and none counts.
    """
    verdict = judge(folder, policy)
    if verdict.trusted:
        if remember:
            _remember(policy, verdict)
        return verdict, None
    said = f"bundle {verdict.name} {verdict.digest[:12]} is not signed by a key that is trusted here: {'; '.join(verdict.why)}"
    if policy.unsigned == "require":
        raise TrustError(f"{said}; {policy.source} requires it. Sign it (percodec sign bundle), or trust its key there")
    return verdict, None if policy.unsigned == "off" else said


def _standing(signature: Signature, digest: str, policy: Policy, now: datetime) -> tuple[str, frozenset[str]]:
    """Why a signature does not count, or "", and what its key may sign."""
    statement = signature.statement
    key, roles = next(((k, r) for k, r in policy.keys if k.id == signature.key), (None, frozenset[str]()))
    if signature.key in policy.revoked:
        return "was revoked", roles
    if key is None:
        return "is not trusted here", roles
    if not key.signed(statement.signed_bytes, signature.proof):
        return "did not make the signature that bears its name", roles
    if statement.bundle != digest:
        return f"signed another bundle, {statement.bundle[:12]}", roles
    if statement.expires is not None and now >= statement.expires:
        return f"signed it until {statement.expires:%Y-%m-%d %H:%M} UTC, which is past", roles
    return "", roles


def _seen(policy: Policy) -> dict[str, int]:
    if policy.state is None:
        return {}
    try:
        check_file(policy.state)
        with policy.state.open("rb") as file:
            value = json.loads(file.read(_MAX_STATE))
        if not isinstance(value, dict) or not all(type(v) is int for v in value.values()):
            raise ValueError("it is no list of releases")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, RecursionError) as error:
        raise TrustError(f"{policy.state}, which remembers releases, cannot be read ({error}); restore it or remove it") from error
    return value


def _remember(policy: Policy, verdict: Verdict) -> None:
    seen = _seen(policy)
    if policy.state is None or verdict.sequence is None or seen.get(verdict.name, -1) >= verdict.sequence:
        return
    part = policy.state.with_name(f".{policy.state.name}.part-{os.getpid()}")
    try:
        policy.state.parent.mkdir(parents=True, exist_ok=True)
        with part.open("w", encoding="utf-8") as file:
            json.dump({**seen, verdict.name: verdict.sequence}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, policy.state)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise TrustError(f"{policy.state} cannot be written ({error.strerror or error}): releases are to be remembered there") from error


__all__ = ["Verdict", "admit", "judge"]
