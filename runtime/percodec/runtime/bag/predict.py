"""`percodec bag predict`: class ids of a segmentation head for every picture or packet, with the calibration that fits them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.bag.compress import picture_of
from percodec.runtime.bag.packets import PacketReader
from percodec.runtime.bag.records import Channel, Message
from percodec.runtime.bag.sessions import Sessions
from percodec.runtime.messages.calibration import fitted_camera_info, sent_size
from percodec.runtime.messages.cdr import CameraInfo, CompressedImage, Header, Image, header_from_cdr
from percodec.sdk.errors import MessageError
from percodec.sdk.fit import PAD
from percodec.sdk.types import Frame, Latent


def beside(topic: str, name: str) -> str:
    """`/front/image_raw` and `camera_info` are `/front/camera_info`, also of `/front/image_raw/percodec`."""
    base = topic.removesuffix("/percodec").removesuffix("/compressed").removesuffix("/restored")
    return f"{base.rpartition('/')[0]}/{name}"


class Predict:
    """The step. Pictures are fitted to the bundle's frame; packets are read as they are. The message itself stays."""

    def __init__(self, sessions: Sessions, head: str, source: Channel, topic: str, *, packets: bool) -> None:
        self._sessions, self._head = sessions, head
        self._packets = PacketReader(sessions.bundle) if packets else None
        self.channel = source.carrying(topic, Image)

    def begin(self, message: Message) -> Callable[[], Any]:
        if self._packets is None:
            return lambda: self._of_picture(message)
        coded = CompressedImage.from_cdr(message.data)
        form, symbols = self._packets.symbols(coded)
        if form.fit == PAD and (form.width, form.height) != (self._sessions.bundle.frame_width, self._sessions.bundle.frame_height):
            size = (form.width, form.height)
            return lambda: self._labels(Latent(symbols, 0, 0), size, coded.header)
        return lambda: self._labels(Latent(symbols, 0, 0), None, coded.header)

    def end(self, message: Message, result: tuple[Header, NDArray[np.uint8]]) -> list[Message]:
        header, labels = result
        height, width = labels.shape
        image = Image(header, height, width, "mono8", width, np.ascontiguousarray(labels).reshape(-1))
        return [message, message.carrying(self.channel, image.to_cdr())]

    def _of_picture(self, message: Message) -> tuple[Header, NDArray[np.uint8]]:
        picture = picture_of(message)
        with self._sessions.borrow(None) as session:
            latent = session.encode(Frame(picture.image, 0, 0, picture.pixel_format))
            return picture.header, session.predict(latent, self._head).labels

    def _labels(self, latent: Latent, size: tuple[int, int] | None, header: Header) -> tuple[Header, NDArray[np.uint8]]:
        with self._sessions.borrow(size) as session:
            labels = session.predict(latent, self._head).labels
        return header, labels if size is None else labels[: size[1], : size[0]]


class Calibrate:
    """The step for `camera_info`: it stays, and beside it comes that of the labels."""

    def __init__(self, sessions: Sessions, source: Channel, topic: str, *, whole: bool) -> None:
        """`whole`: the labels are of whole pictures, so nothing changes."""
        self._bundle, self._whole = sessions.bundle, whole
        self.channel = source.carrying(topic, CameraInfo)

    def begin(self, message: Message) -> Callable[[], Any]:
        return lambda: self._fitted(message.data)

    def end(self, message: Message, result: bytes) -> list[Message]:
        return [message, message.carrying(self.channel, result)]

    def _fitted(self, data: bytes) -> bytes:
        if self._whole:
            header_from_cdr(data)
            return data
        info, bundle = CameraInfo.from_cdr(data), self._bundle
        height, width = (int(side) for side in sent_size(info))
        if not height or not width:
            raise MessageError("camera info of a picture without pixels")
        made = fitted_camera_info(info, info.header, height, width, bundle.fit, bundle.frame_height, bundle.frame_width)
        return made.to_cdr()


__all__ = ["Calibrate", "Predict", "beside"]
