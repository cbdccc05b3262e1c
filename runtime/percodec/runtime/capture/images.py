"""Still images: `ImageFiles` is a source of them; `read_image` gives a whole picture or a SourceError; `write_image` is checked.

Image libraries decode a cut-off JPEG into a picture with a grey lower half and call it success. Structure is therefore checked
first: PNG chunks and their CRCs up to IEND, JPEG's end marker after its last scan.
"""

from __future__ import annotations

import re
import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import MAX_PIXELS, opencv
from percodec.runtime.capture.source import DEFAULT_FRAME_RATE, SourceInfo
from percodec.runtime.capture.tiff_pages import has_more_pages
from percodec.sdk.errors import SourceError
from percodec.sdk.files import read_file, write_whole
from percodec.sdk.types import Frame

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
_PNG_UNUSED = (b"iCCP", b"tEXt", b"zTXt", b"iTXt")
_PNG = b"\x89PNG\r\n\x1a\n"


def read_image(path: Path, notes: list[str] | None = None) -> NDArray[np.uint8]:
    """uint8 [H,W,3] RGB of an image file: the one way in which runs, training and evaluation read a picture.

    Turned upright by its EXIF orientation; 16 bits a sample scaled to 8; grey, palette and CMYK converted; alpha dropped (OpenCV multiplies
    a TIFF's in); colour profiles ignored; of several frames or pages the first. `notes` gets a line for further frames or pages, and for 12
    bits kept in 16. Raises SourceError naming file and reason.
    """
    try:
        data = read_file(path)
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or 'cannot be read'}") from error
    if notes is not None and _animated(data):
        notes.append(f"{path}: animated; its first frame is read, the others are not")
    if notes is not None and has_more_pages(data):
        notes.append(f"{path}: several pages; the first is read, the others are not")
    picture = decode_image(data, str(path))
    if notes is not None and _twelve_in_sixteen(data, picture):
        notes.append(f"{path}: 16 bits a sample, none above 4095: it reads nearly black; scale 12-bit pictures to 16 bits first")
    return picture


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """`read_image` of a file's bytes; `name` is for the error."""
    cv2 = opencv()
    reason = _structure_fault(data)
    if reason:
        raise SourceError(f"{name}: {reason}")
    try:
        image = cv2.imdecode(np.frombuffer(_picture_alone(data), np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None or image.size == 0:
        raise SourceError(f"{name}: not a readable image (damaged, zero pixels, larger than {MAX_PIXELS} pixels, or without an 8-bit form)")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return rgb


def _twelve_in_sixteen(data: bytes, picture: NDArray[np.uint8]) -> bool:
    if not 0 < picture.max() < 16:
        return False
    cv2 = opencv()
    whole = cv2.imdecode(np.frombuffer(_picture_alone(data), np.uint8), cv2.IMREAD_UNCHANGED)
    return whole is not None and whole.dtype == np.uint16


def _animated(data: bytes) -> bool:
    """PNG with acTL before its first picture data, WebP with ANIM; GIF and AVIF are no formats of ours."""
    if data.startswith(_PNG):
        return 0 <= data.find(b"acTL") < data.find(b"IDAT")
    return data[:4] == b"RIFF" and data[8:16] == b"WEBPVP8X" and len(data) > 20 and bool(data[20] & 2)


def _picture_alone(data: bytes) -> bytes:
    """A PNG without its texts and colour profile: they are not used, the library complains of them, and they may unpack to gigabytes."""
    if not data.startswith(_PNG) or not any(kind in data for kind in _PNG_UNUSED):
        return data
    kept, at = [_PNG], len(_PNG)
    while at + 12 <= len(data):
        end = at + 12 + int(struct.unpack_from(">I", data, at)[0])
        if data[at + 4 : at + 8] not in _PNG_UNUSED:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 [H,W,3] RGB as PNG, all or nothing. Raises OSError when the disk refuses."""
    cv2 = opencv()
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise OSError(f"{path}: PNG encoding failed")
    write_whole(path, data.tobytes())


def _structure_fault(data: bytes) -> str | None:
    if not data:
        return "the file is empty (0 bytes)"
    if data.startswith(_PNG):
        return _png_fault(data)
    if data.startswith(b"\xff\xd8") and data.rfind(b"\xff\xd9") < data.rfind(b"\xff\xda"):
        return "the JPEG is cut off (no end marker)"
    return None


def _png_fault(data: bytes) -> str | None:
    at = len(_PNG)
    while at + 12 <= len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + size
        if end > len(data):
            break
        if zlib.crc32(memoryview(data)[at + 4 : end - 4]) != struct.unpack_from(">I", data, end - 4)[0]:
            return "the PNG is damaged (checksum of a chunk does not match)"
        if kind == b"IHDR" and size >= 8:
            width, height = struct.unpack_from(">II", data, at + 8)
            if width == 0 or height == 0:
                return f"the PNG has no pixels ({width}x{height})"
            if width * height > MAX_PIXELS:
                return f"the PNG has more than {MAX_PIXELS} pixels ({width}x{height})"
        if kind == b"IEND":
            return None
        at = end
    return "the PNG is cut off"


class ImageFiles:
    """Images in the order given. An unreadable one is left out, remembered, and reported as SourceError at the end."""

    def __init__(self, spec: str, paths: list[Path], *, kind: str) -> None:
        fps = DEFAULT_FRAME_RATE
        self.info = SourceInfo(spec, kind, False, fps=fps, frames=len(paths))
        self._paths, self._next, self._good = paths, 0, 0
        self._bad: list[str] = []

    @classmethod
    def from_folder(cls, folder: Path) -> ImageFiles:
        """Every image directly in `folder`, natural order; hidden files are noted, not read. Raises SourceError when there is none."""
        try:
            found = [entry for entry in folder.iterdir() if entry.suffix.lower() in IMAGE_SUFFIXES and is_picture_file(entry)]
        except OSError as error:
            raise SourceError(f"{folder}: {error.strerror or 'cannot be listed'}") from error
        names = [entry for entry in found if not entry.name.startswith(".")]
        if not names:
            raise SourceError(f"{folder}: no images in this folder (looked for {', '.join(sorted(IMAGE_SUFFIXES))})")
        source = cls(str(folder), sorted(names, key=lambda path: natural_key(path.name)), kind="folder")
        if hidden := sorted(entry.name for entry in found if entry.name.startswith(".")):
            source.info.notes.append(f"{len(hidden)} hidden files were skipped ({hidden[0]} is the first)")
        return source

    def read(self) -> Frame | None:
        while self._next < len(self._paths):
            index, self._next = self._next, self._next + 1
            try:
                frame = read_image(self._paths[index], self.info.notes)
            except SourceError as error:
                self._bad.append(str(error))
                continue
            self._good += 1
            if self.info.height is None:
                self.info.height, self.info.width = frame.shape[:2]
            return Frame(frame, index, index * 1_000_000_000 // int(DEFAULT_FRAME_RATE))
        if self._bad:
            bad, self._bad = self._bad, []
            if len(self._paths) == 1:
                raise SourceError(bad[0])
            more = f" (first of {len(bad)} such files)" if len(bad) > 1 else ""
            raise SourceError(f"{bad[0]}{more}; the {self._good} readable images were processed")
        return None

    def close(self) -> None:
        self._next = len(self._paths)


def is_picture_file(path: Path) -> bool:
    """False for folders, pipes and devices of a picture's name; a link to nothing is a picture that cannot be read."""
    return path.is_file() or (path.is_symlink() and not path.exists())


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort key that puts `frame_9` before `frame_10`."""
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part.lower()) for part in re.split(r"([0-9]+)", name) if part]


__all__ = ["IMAGE_SUFFIXES", "ImageFiles", "decode_image", "is_picture_file", "natural_key", "read_image", "write_image"]
