"""A folder tree, mirrored: every picture through one function, every other file copied, under the same names.

    SOURCE/**  ->  ledger  ->  parts of it  ->  workers (processes here, or Ray anywhere)  ->  OUT/**
                                                                    \\->  OUT/percodec-data.jsonl   one line per finished file
                                                                         OUT/percodec-data.json    what made it, written last

What becomes of a file is a function of the file and of the settings, is written beside its name and renamed, and is recorded after that: a
run killed at any moment continues where it stopped, and what it leaves is what an uninterrupted one leaves, byte for byte. The driver keeps
names and records on disk. Pictures keep their names, so that a data set's own loader finds them, and are stored as PNG whatever the name
ends in; readers look at the bytes.
"""

from __future__ import annotations

import hashlib
import io
import itertools
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageOps

from percodec.export.data.origin import SCHEMA, SUMMARY, origin_of
from percodec.export.evaluate.codecs import Picture
from percodec.export.fleet.workers import Workers
from percodec.export.restore.ledger import Ledger, Record, part_of
from percodec.runtime.images import decode_image
from percodec.sdk.errors import CodecError, DataError, SourceError, UsageError
from percodec.sdk.files import read_file
from percodec.sdk.folder_lock import NAME as LOCK
from percodec.sdk.folder_lock import FolderLock

RECORDS = "percodec-data.jsonl"
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".avif", ".heic", ".jp2", ".tif", ".tiff")
PACKET = ".pcpk"
PART = ".part"  # end of a hidden name: a file that is being written
PARTS = ".percodec-data.parts"  # while it runs: what the workers read
Settings = dict[str, Any]
Call = Callable[[str, bytes], tuple[str, bytes, float | None]]


class Work(Protocol):
    """What is done to a picture. Travels to the workers as it is; `open` is called once in each."""

    def settings(self) -> Settings:
        """What the result depends on, without this machine's paths."""
        ...

    def open(self) -> Call:
        """-> call(name, file's bytes) -> name and bytes to store, bits per pixel the file stands for. Raises `DataError` for a bad file."""
        ...


@dataclass(frozen=True)
class Failure:
    """One file that could not be done, and why."""

    file: str
    reason: str


@dataclass
class Unit:
    """`unit(offset, count)`: do the files of one part, unless they are done. What travels to a worker."""

    source: Path
    out: Path
    work: Work
    _call: Call | None = field(default=None, repr=False)

    def __call__(self, offset: int, count: int) -> list[Record | Failure | OSError]:
        """An OSError is the last: what was done before it counts."""
        found: list[Record | Failure | OSError] = []
        if self._call is None:
            self._call = self.work.open()
        try:
            for file, known in part_of(self.out / PARTS, offset, count):
                found.append(self._file(self._call, file, known))
        except OSError as error:
            found.append(error)
        return found

    def _file(self, call: Call, file: str, known: Record | None) -> Record | Failure:
        try:
            data = read_file(self.source / file)
        except OSError as e:
            return Failure(file, e.strerror or str(e))
        digest = hashlib.sha256(data).hexdigest()
        if known is not None and known.digest == digest and (self.out / known.stored).exists():
            return known
        stored, bpp = file, None
        if is_picture(file, data):
            try:
                stored, data, bpp = call(file, data)
            except (DataError, CodecError) as e:
                return Failure(file, str(e))
        path = self.out / stored
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.urandom(4).hex()}{PART}")  # two machines may do a file at once, with one process id
        try:
            with part.open("wb") as f:
                f.write(data)
                f.flush()
                os.fsync(f.fileno())
            os.replace(part, path)
        except OSError:
            with suppress(OSError):
                part.unlink()
            raise
        return Record(file, digest, stored, bpp)


def is_picture(file: str, data: bytes) -> bool:
    """Packets and photographs are; label maps (grayscale or palette PNG) and everything else are not. Damaged pictures are pictures."""
    suffix = Path(file).suffix.lower()
    if suffix == PACKET:
        return True
    if suffix not in SUFFIXES:
        return False
    try:
        with Image.open(io.BytesIO(data)) as image:
            return image.format in ("JPEG", "MPO") or image.mode in ("RGB", "YCbCr", "CMYK")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        return True


def decode_picture(file: str, data: bytes) -> tuple[Picture, float | None]:
    """uint8 [H,W,3], and the file's own bits per pixel where its format is a lossy one. Raises `DataError` where it is no picture."""
    if Path(file).suffix.lower() in (".avif", ".heic"):
        with suppress(ImportError):
            import pillow_heif

            pillow_heif.register_heif_opener()
    try:
        with Image.open(io.BytesIO(data)) as image:
            lossy = image.format in ("JPEG", "MPO", "WEBP", "AVIF", "HEIF", "JPEG2000")
            own = image.format in ("AVIF", "HEIF")  # of which OpenCV knows one, and not in every build
            picture = np.asarray(ImageOps.exif_transpose(image).convert("RGB")) if own else decode_image(data, file)
    except SourceError as e:
        raise DataError(f"cannot be read as an image ({e}); replace or remove it".replace("\n", " ")) from e
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as e:
        raise DataError(f"cannot be read as an image ({e}); replace or remove it".replace("\n", " ")) from e
    height, width = picture.shape[:2]
    if min(height, width) < 16:
        raise DataError(f"is {width}x{height}: sides must be at least 16 pixels; remove it from the set")
    return picture, len(data) * 8 / (height * width) if lossy else None


def encode_picture(picture: Picture) -> bytes:
    """PNG."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "PNG", compress_level=3)
    return out.getvalue()


def mirror(
    source: Path, out: Path, work: Work, workers: str = "1", progress: Callable[[int, int], None] = lambda done, of: None
) -> dict[str, Any]:
    """Do what is not done yet; returns the summary. `workers`: a number of processes, "ray" or "ray:N".

    Raises `UsageError` where `out` holds something else, `DataError` after everything that can be done is done where a file could not be,
    `OSError` (disk full) at once. What is done stays.
    """
    settings = {"schema": SCHEMA, **work.settings()}
    with Ledger() as ledger:
        for record in _known(out, settings):
            ledger.enter(record)
        ledger.find(_walk(source))
        gone = ledger.gone()
        if gone is not None:
            raise UsageError(f"{out} holds {gone.stored}, but its source {gone.file} is gone; use another folder")
        out.mkdir(parents=True, exist_ok=True)
        with FolderLock(out):
            if not (out / RECORDS).exists():
                _replace(out / RECORDS, [json.dumps(settings) + "\n"])
            try:
                _run(ledger, Unit(source, out, work), workers, progress)
            finally:
                with suppress(OSError):
                    (out / PARTS).unlink()
            return _finish(source, out, settings, ledger)


def _run(ledger: Ledger, unit: Unit, workers: str, progress: Callable[[int, int], None]) -> None:
    """Every file, or raises what `mirror` raises for one that could not be done."""
    parts, total, done, failed = ledger.write_parts(unit.out / PARTS), len(ledger), 0, 0
    first: list[Failure] = []
    with (unit.out / RECORDS).open("a", encoding="utf-8") as journal, Workers(unit, workers) as pool:
        for results in pool.run(parts):
            for result in results:
                if isinstance(result, OSError):
                    raise result
                if isinstance(result, Failure):
                    failed += 1
                    first = sorted([*first, result], key=lambda failure: failure.file)[:5]
                elif ledger.enter(result):
                    journal.write(result.line())
                    journal.flush()
            done += len(results)
            progress(done, total)
    if failed:
        shown = "; ".join(f"{failure.file}: {failure.reason}" for failure in first)
        raise DataError(
            f"{failed} of {total} files could not be done: {shown}. The others are in {unit.out}; give the same command again "
            "to go on from there"
        )


def _finish(source: Path, out: Path, settings: Settings, ledger: Ledger) -> dict[str, Any]:
    if (twice := ledger.twice()) is not None:
        raise DataError(f"{twice[0].file} and {twice[1].file} are both stored as {twice[0].stored}; remove one of them from {source}")
    digest, pictures = hashlib.sha256(), 0
    for record in ledger.records():
        digest.update(f"{record.file}\0{record.digest}\n".encode())
        pictures += record.bpp is not None
    bits = sum(record.bpp for record in ledger.records() if record.bpp is not None)
    _forget_parts(out)
    summary = {
        **settings,
        "source": {"files": len(ledger), "sha256": digest.hexdigest(), "origin": origin_of(source)},
        "pictures": pictures,
        "bpp": bits / pictures if pictures else None,
    }
    _replace(out / RECORDS, itertools.chain([json.dumps(settings) + "\n"], (record.line() for record in ledger.records())))
    _replace(out / SUMMARY, [json.dumps(summary, indent=1) + "\n"])
    return summary


def _forget_parts(out: Path) -> None:
    """Files that were being written when a worker was killed."""
    for folder, _, files in os.walk(out):
        for name in files:
            if name.startswith(".") and name.endswith(PART):
                with suppress(OSError):
                    (Path(folder) / name).unlink()


def rates_of(folder: Path) -> Mapping[str, float]:
    """Bits per pixel of the pictures in `folder`, a mirrored set or its top-level part, by path relative to `folder`."""
    for place in (folder, folder.parent):
        if (place / RECORDS).exists():
            inside = place.resolve() != folder.resolve()
            prefix = f"{folder.name}/" if inside else ""
            records = _read_records(place / RECORDS)[1]
            return {r.stored.removeprefix(prefix): r.bpp for r in records if r.bpp is not None and r.stored.startswith(prefix)}
    return {}


def _walk(source: Path) -> Iterator[str]:
    if not source.is_dir():
        raise DataError(f"{source} is not a folder")
    empty = True
    for folder, names, files in os.walk(source):
        names[:] = [n for n in names if not n.startswith(".")]
        for name in files:
            if not name.startswith(".") and name not in (SUMMARY, RECORDS):
                empty = False
                yield (Path(folder) / name).relative_to(source).as_posix()
    if empty:
        raise DataError(f"there is nothing in {source}")


def _known(out: Path, settings: Settings) -> Iterator[Record]:
    """What earlier runs with the same settings have done in `out`."""
    if not (out / RECORDS).exists():
        if out.exists() and (not out.is_dir() or any(p.name != LOCK for p in out.iterdir())):
            raise UsageError(f"{out} is not empty and was not made by this command; use another folder")
        return iter(())
    made_by, records = _read_records(out / RECORDS)
    if made_by != settings:
        different = sorted(k for k in {*made_by, *settings} if made_by.get(k) != settings.get(k))
        raise UsageError(f"{out} was made with another {', '.join(different)}; use another folder")
    return records


def _read_records(path: Path) -> tuple[Settings, Iterator[Record]]:
    """Raises `DataError`, also while the records are read."""
    damaged = f"{path} is damaged; remove its folder and start again"

    def records() -> Iterator[Record]:
        with path.open(encoding="utf-8") as lines:
            lines.readline()
            for line in lines:
                if not line.endswith("\n"):
                    return  # cut short by a kill
                try:
                    yield Record.of(line)
                except (KeyError, TypeError, ValueError) as e:
                    raise DataError(damaged) from e

    try:
        with path.open(encoding="utf-8") as lines:
            settings = json.loads(lines.readline())
        return settings | {}, records()
    except (TypeError, ValueError) as e:
        raise DataError(damaged) from e


def _replace(path: Path, lines: Iterable[str]) -> None:
    part = path.with_name(f".{path.name}{PART}")
    with part.open("w", encoding="utf-8") as file:
        file.writelines(lines)
    os.replace(part, path)


__all__ = [
    "PACKET",
    "PARTS",
    "RECORDS",
    "SUFFIXES",
    "Call",
    "Failure",
    "Unit",
    "Work",
    "decode_picture",
    "encode_picture",
    "is_picture",
    "mirror",
    "rates_of",
]
