"""Pictures for people: segmentation blended over the camera, a legend, one line of figures, and the contact sheet. cv2 throughout.

Everything drawn is BGR, as cv2's writers take it; everything taken is RGB, as the pipeline keeps it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import opencv
from percodec.sdk.bundle import Bundle, Label
from percodec.sdk.text import shown

Image = NDArray[np.uint8]

BLEND = 0.45  # weight of the class colours over the camera picture
_INK = (235, 235, 235)
_DIM = (150, 150, 150)
_PAPER = (24, 22, 20)
_BAR_PX = 22
_ROW_PX = 18


class OverlayPainter:
    """`paint` composes one figure line, the blended picture and the legend into one reused canvas, uint8 [h,w,3] BGR.

    Small frames are enlarged by a whole factor to at least 480 pixels of width, so that text stays readable.
    """

    def __init__(self, bundle: Bundle, labels: Sequence[Label]) -> None:
        self._cv2 = opencv()
        self._factor = max(1, -(-480 // bundle.frame_width))
        self._height, self._width = bundle.frame_height * self._factor, bundle.frame_width * self._factor
        # 256 x 1 x 3 colour table for applyColorMap
        self._table: Image = np.zeros((256, 1, 3), np.uint8)
        for label in labels:
            self._table[label.id, 0] = label.color[::-1]
        legend = draw_legend(self._width, [(label.name, label.color) for label in labels])
        self.canvas: Image = np.zeros((_even(_BAR_PX + self._height + len(legend)), _even(self._width), 3), np.uint8)
        self.canvas[:] = _PAPER
        self.canvas[_BAR_PX + self._height : _BAR_PX + self._height + len(legend), : self._width] = legend

    def blend(self, image: Image, labels: Image | None, weight: float = BLEND) -> Image:
        """uint8 [H,W,3] BGR at the bundle's frame size: class colours, with `weight`, over the RGB `image`; it alone without labels."""
        cv2 = self._cv2
        if labels is None:
            plain: Image = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
            return plain
        colours = cv2.applyColorMap(labels, self._table)
        blended: Image = cv2.addWeighted(cv2.cvtColor(image, cv2.COLOR_RGB2BGR), 1 - weight, colours, weight, 0)
        return blended

    def paint(self, image: Image, labels: Image | None, line: str) -> Image:
        """The canvas, valid until the next call."""
        picture = self.blend(image, labels)
        if self._factor > 1:
            picture = self._cv2.resize(picture, (self._width, self._height), interpolation=self._cv2.INTER_NEAREST)
        self.canvas[_BAR_PX : _BAR_PX + self._height, : self._width] = picture
        self.canvas[:_BAR_PX] = _PAPER
        put_text(self.canvas, line, 8, 15, self._width - 16)
        return self.canvas


def put_text(canvas: Image, text: str, x: int, y: int, room: int, *, size: float = 0.42, ink: tuple[int, int, int] = _INK) -> int:
    """Write one line, shrunk to `room` pixels when it is longer. Returns its width in pixels."""
    cv2, text = opencv(), shown(text)
    width = int(cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, size, 1)[0][0])
    if width > room > 0:
        size, width = size * room / width, room
    cv2.putText(canvas, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
    return width


def draw_legend(width: int, entries: Sequence[tuple[str, tuple[int, int, int]]]) -> Image:
    """Swatch and name per class, wrapped to `width` pixels. uint8 [rows*18+8, width, 3] BGR."""
    cv2 = opencv()
    places, x, row = [], 8, 0
    for name, colour in entries:
        need = 14 + int(cv2.getTextSize(name, cv2.FONT_HERSHEY_SIMPLEX, 0.36, 1)[0][0]) + 12
        if x + need > width and x > 8:
            x, row = 8, row + 1
        places.append((name, colour, x, row))
        x += need
    legend: Image = np.empty(((row + 1) * _ROW_PX + 8, width, 3), np.uint8)
    legend[:] = _PAPER
    for name, (red, green, blue), left, line in places:
        top = 4 + line * _ROW_PX
        cv2.rectangle(legend, (left, top + 4), (left + 9, top + 13), (int(blue), int(green), int(red)), -1)
        put_text(legend, name, left + 14, top + 13, 0, size=0.36)
    return legend


def contact_sheet(title: str, columns: Sequence[str], rows: Sequence[tuple[str, Sequence[Image]]], legend: Image | None = None) -> Image:
    """Rows of equally sized BGR pictures under column titles, each row with a caption. uint8 BGR.

    Raises ValueError without rows.
    """
    if not rows:
        raise ValueError("a contact sheet needs at least one row")
    cv2 = opencv()
    height, width = rows[0][1][0].shape[:2]
    factor = max(1, -(-240 // width))
    height, width = height * factor, width * factor
    gap, head, caption = 10, 58, 24
    body = head + len(rows) * (height + caption + gap)
    total = len(columns) * (width + gap) + gap
    sheet: Image = np.empty((body + (len(legend) if legend is not None else 0) + gap, total, 3), np.uint8)
    sheet[:] = _PAPER
    put_text(sheet, title, gap, 24, total - 2 * gap, size=0.58)
    for k, name in enumerate(columns):
        put_text(sheet, name, gap + k * (width + gap), 48, width, size=0.45, ink=_DIM)
    for r, (text, pictures) in enumerate(rows):
        top = head + r * (height + caption + gap)
        for k, picture in enumerate(pictures):
            left = gap + k * (width + gap)
            sheet[top : top + height, left : left + width] = cv2.resize(picture, (width, height), interpolation=cv2.INTER_NEAREST)
        put_text(sheet, text, gap, top + height + 17, total - 2 * gap, size=0.42)
    if legend is not None:
        keep = min(total, legend.shape[1])
        sheet[body : body + len(legend), :keep] = legend[:, :keep]
    return sheet


def _even(size: int) -> int:
    """Video encoders want even sizes."""
    return size + size % 2


__all__ = ["BLEND", "OverlayPainter", "contact_sheet", "draw_legend", "put_text"]
