"""`Predictor`: one session that answers work. A thread uses one at a time; there is one for each worker."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.capture.opencv import opencv
from percodec.runtime.run.drawing import OverlayPainter
from percodec.runtime.serve.latents import latents_of
from percodec.runtime.serve.models import PNG, RAW, Model, Output
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import Wanted, Work, bytes_of
from percodec.runtime.serve.rle import rle_of
from percodec.runtime.session import Session
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import BackendError, PacketError
from percodec.sdk.types import Latent, Prediction

Array = NDArray[Any]
_DTYPES = {"UINT8": "u1", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2", "INT32": "<i4", "INT64": "<i8", "FP16": "<f2"}
_DTYPES |= {"FP32": "<f4", "BOOL": "?"}


@dataclass(frozen=True)
class Opening:
    """How each worker opens its sessions: the options of `Session.open`."""

    backend: str = "ort"
    threads: int = 1
    heads: tuple[str, ...] | None = ("all",)
    selftest: bool = True

    def session(self, bundle: Bundle, first: bool = True) -> Session:
        """The bundle tests itself in the first alone. Raises what `Session.open` raises."""
        return Session.open(bundle, backend=self.backend, heads=self.heads, threads=self.threads, selftest=self.selftest and first)


class Gone(Exception):
    """Nobody waits for the answer any more."""


@dataclass(frozen=True)
class Tensor:
    """`data`: the elements in their raw form, row by row, little-endian; for BYTES each behind its length."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: bytes

    def array(self) -> Array:
        """Not of BYTES."""
        return np.frombuffer(self.data, _DTYPES[self.datatype]).reshape(self.shape)


class Predictor:
    """Answers what `Session` says, packet by packet."""

    def __init__(self, session: Session, model: Model) -> None:
        self._session, self._model = session, model
        self._painters: dict[str, OverlayPainter] = {}

    def answer(self, work: Work, gone: Callable[[], bool] = lambda: False) -> list[Tensor]:
        """The outputs that are wanted, in that order. Raises `Refusal`; `Gone` between two frames where `gone()`."""
        try:
            latents = latents_of(self._session, work.packets)
        except PacketError as error:
            raise Refusal(Why.INVALID, str(error)) from None
        wanted = [(self._model.outputs[one.name], one) for one in work.wanted]
        columns: list[list[Any]] = [[] for _ in wanted]
        try:
            for latent in latents:
                if gone():
                    raise Gone
                self._frame(latent, wanted, columns)
        except BackendError as error:
            raise Refusal(Why.DEFECT, "the network failed") from error
        return [_tensor(output, how, column) for (output, how), column in zip(wanted, columns, strict=True)]

    def _frame(self, latent: Latent, wanted: Sequence[tuple[Output, Wanted]], columns: list[list[Any]]) -> None:
        said: dict[str, Prediction] = {}
        made: dict[str, Array] = {}
        for (output, how), column in zip(wanted, columns, strict=True):
            if output.head and output.head not in said:
                said[output.head] = self._session.predict(latent, output.head)
            if output.part in ("picture", "overlay") and "picture" not in made:
                made["picture"] = self._session.decode(latent)
            value = self._value(output, latent, said.get(output.head), made)
            column.append(_png(value, bgr=output.part == "overlay") if how.encoding == PNG else value)

    def _value(self, output: Output, latent: Latent, said: Prediction | None, made: dict[str, Array]) -> Any:
        if output.part == "unfamiliarity":
            return self._session.unfamiliarity(latent, said)
        if said is None:
            return made["picture"] if output.part == "picture" else getattr(latent, output.part)
        if output.part == "classes":
            return np.bincount(said.labels.reshape(-1), minlength=256)[: output.shape[0]]
        if output.part == "rle":
            return rle_of(said.labels, latent.frame_id)
        if output.part == "overlay":
            return self._painter(output.head).paint(made["picture"], said.labels, f"frame {latent.frame_id}   {self._model.name}")
        return said.outputs[output.part]

    def _painter(self, head: str) -> OverlayPainter:
        if head not in self._painters:
            self._painters[head] = OverlayPainter(self._session.bundle, self._session.heads[head].labels)
        return self._painters[head]


def _tensor(output: Output, how: Wanted, column: list[Any]) -> Tensor:
    if how.encoding != RAW:
        return Tensor(output.name, "BYTES", (len(column),), bytes_of(column))
    array = np.asarray(column, _DTYPES[output.datatype])
    return Tensor(output.name, output.datatype, array.shape, array.tobytes())


def _png(picture: Array, *, bgr: bool) -> bytes:
    cv2 = opencv()
    if picture.ndim == 3 and not bgr:
        picture = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    done, data = cv2.imencode(".png", np.ascontiguousarray(picture))
    if not done:
        raise BackendError("OpenCV cannot write PNG")
    return bytes(data.tobytes())


__all__ = ["Gone", "Opening", "Predictor", "Tensor"]
