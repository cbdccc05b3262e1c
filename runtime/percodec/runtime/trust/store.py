"""Bundles on a vehicle: several releases side by side, one of them current, switched in one step.

    STORE/road/3982f12bb620/     a release, by the beginning of its digest; never changed after it was installed
    STORE/road/current           link to the one that runs: `--bundle STORE/road/current`
    STORE/road/previous          link to the one that ran before

A release is complete under its name or not there. A link is replaced by renaming another one over it, so that whoever opens `current`
finds the old release or the new one, whenever the power fails. A release is judged by the policy when it is installed and when it is
activated; whoever opens it later judges again. Where the policy remembers releases, an earlier one than has run is refused here too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from percodec.runtime.trust.check import admit
from percodec.runtime.trust.policy import Policy
from percodec.runtime.trust.signature import digest_of
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BundleError, UsageError
from percodec.sdk.folder_lock import FolderLock

_SHORT = 12
_HIDDEN = shutil.ignore_patterns(".*")  # never read, and so not copied, however large


@dataclass(frozen=True)
class Release:
    """`release`: the first 12 digits of the digest, and the folder's name."""

    name: str
    release: str
    current: bool
    previous: bool


def install(store: Path, source: Path, policy: Policy) -> tuple[Release, str | None]:
    """Copy the bundle in `source` into the store, beside what is there; what `admit` has to say of it. Changes nothing that runs.

    Raises `BundleError`, `TrustError`, `UsageError` where the store is in use or cannot be written.
    """
    admit(source, policy, remember=False)
    digest, name = digest_of(source)
    target = store / name / digest[:_SHORT]
    with _writable(store / name):
        part = target.with_name(f".{target.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        if target.exists():
            raise UsageError(f"{name} {target.name} is installed in {store}; activate it, or install another release")
        _check_room(source, part.parent)
        try:
            shutil.copytree(source, part, symlinks=True, ignore=_HIDDEN)
            verdict, said = admit(part, policy, remember=False)  # the copy: the source may have changed meanwhile
            Bundle.open(part, digest, verdict.engines)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)  # half a copy of what filled the disk, too
            raise
        for folder, _, files in os.walk(part):
            for path in (folder, *(os.path.join(folder, file) for file in files)):
                _sync(path)
        part.rename(target)
        _sync(target.parent)
    return _release(target), said


def activate(store: Path, name: str, release: str, policy: Policy) -> tuple[Release, str | None]:
    """Make an installed release the current one. Raises as `install`."""
    folder = _folder(store, name)
    with _writable(folder):
        target = _installed(folder, release)
        verdict, said = admit(target, policy)
        Bundle.open(target, verdict.digest, verdict.engines)
        _point(folder, target.name)
    return _release(target), said


def rollback(store: Path, name: str, policy: Policy) -> tuple[Release, str | None]:
    """Make the release that ran before the current one again. Raises as `install`, `UsageError` where there is none."""
    folder = _folder(store, name)
    before = _target(folder / "previous")
    if before is None or before == _target(folder / "current"):
        raise UsageError(f"{name} in {store} has no earlier release to go back to")
    return activate(store, name, before, policy)


def releases(store: Path, name: str | None = None) -> list[Release]:
    """What is installed, by name and release. Raises `UsageError` where there is no such store or bundle."""
    if not store.is_dir():
        raise UsageError(f"{store} is no store of bundles; percodec bundle install makes one")
    folders = (
        [_folder(store, name)] if name is not None else sorted(p for p in store.iterdir() if p.is_dir() and not p.name.startswith("."))
    )
    found = [p for folder in folders for p in sorted(folder.iterdir()) if p.is_dir() and not p.is_symlink() and not p.name.startswith(".")]
    return [_release(path) for path in found]


def _check_room(source: Path, folder: Path) -> None:
    """A file with holes takes no room where it comes from, and all of it here."""
    size = sum(os.lstat(os.path.join(place, name)).st_size for place, _, files in os.walk(source) for name in files if name[0] != ".")
    if size > (free := shutil.disk_usage(folder).free):
        raise UsageError(f"{source} has {size >> 20} MB, and {folder} has room for {free >> 20}; remove what is no part of the bundle")


def _release(path: Path) -> Release:
    current, previous = (_target(path.parent / link) == path.name for link in ("current", "previous"))
    return Release(path.parent.name, path.name, current, previous and not current)


def _folder(store: Path, name: str) -> Path:
    folder = store / name
    if name in ("", "..") or Path(name).name != name or not folder.is_dir():
        raise UsageError(f"{store} has no bundle {name!r}; percodec bundle list {store} shows what there is")
    return folder


def _installed(folder: Path, release: str) -> Path:
    found = [p for p in folder.iterdir() if len(release) >= 4 and p.name.startswith(release.lower()) and p.is_dir() and not p.is_symlink()]
    if len(found) != 1:
        raise UsageError(f"{folder.name} has {len(found) or 'no'} release {release!r}; percodec bundle list shows what there is")
    return found[0]


def _point(folder: Path, release: str) -> None:
    """First `previous`, then `current`: cut in between, both name what runs."""
    now = _target(folder / "current")
    if now == release:
        return
    for link, to in (("previous", now), ("current", release)):
        if to is not None:
            part = folder / f".{link}.part"
            part.unlink(missing_ok=True)
            part.symlink_to(to, target_is_directory=True)
            part.replace(folder / link)
            _sync(folder)


def _target(link: Path) -> str | None:
    try:
        return os.readlink(link)
    except OSError:
        return None


@contextlib.contextmanager
def _writable(folder: Path) -> Iterator[None]:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FolderLock(folder)
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror or error}") from error
    try:
        yield
    except (OSError, shutil.Error) as error:
        raise BundleError(
            f"{folder}: {getattr(error, 'strerror', None) or 'a file cannot be copied'}; nothing that runs was changed"
        ) from error
    finally:
        lock.close()


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


__all__ = ["Release", "activate", "install", "releases", "rollback"]
