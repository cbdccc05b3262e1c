"""Still images: `read_image` gives a whole picture or a SourceError, never half a picture; `write_image` is checked.

Image libraries decode a cut-off JPEG into a picture with a grey lower half and call it success. Structure is therefore checked
first: PNG chunks and their CRCs up to IEND, JPEG's end marker after its last scan.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.vision import MAX_PIXELS, opencv
from percodec.sdk.errors import SourceError

_PNG = b"\x89PNG\r\n\x1a\n"


def read_image(path: Path) -> NDArray[np.uint8]:
    """uint8 [H,W,3] RGB of an image file (grey and alpha are converted). Raises SourceError naming file and reason."""
    cv2 = opencv()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise SourceError(f"{path}: {error.strerror or 'cannot be read'}") from error
    reason = _structure_fault(data)
    if reason:
        raise SourceError(f"{path}: {reason}")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        image = None
    if image is None or image.size == 0:
        raise SourceError(f"{path}: not a readable image (damaged, zero pixels, or larger than {MAX_PIXELS} pixels)")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB, dst=image)
    return rgb


def write_image(path: Path, image: NDArray[np.uint8]) -> None:
    """Write uint8 [H,W,3] RGB as PNG. Raises OSError when the disk refuses."""
    cv2 = opencv()
    ok, data = cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))
    if not ok:
        raise OSError(f"{path}: PNG encoding failed")
    path.write_bytes(data.tobytes())


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


__all__ = ["read_image", "write_image"]
