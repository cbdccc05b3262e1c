"""A video file of the tiny bundle's moving gradients."""

from __future__ import annotations

from pathlib import Path

import cv2

from support.tiny_bundle import frames


def write_video(path: Path, count: int) -> Path:
    """`count` frames of 128x96 at 20 a second, as MJPEG."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20, (128, 96))
    assert writer.isOpened()
    for image in frames(count, 96, 128):
        writer.write(image[..., ::-1].copy())
    writer.release()
    return path


__all__ = ["write_video"]
