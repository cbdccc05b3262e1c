"""A head that `percodec train` made on a bundle's latents, as an ONNX file that `user_head` takes: no data set is needed for it.

best.pt of `train segmentation|classification --codec BUNDLE` -> NAME.onnx, symbols uint8 [N,C,h,w] -> labels or probs
"""

from __future__ import annotations

from pathlib import Path

from percodec.export.models import head_kind
from percodec.export.models.to_onnx import Head, head_graph
from percodec.export.train.checkpoint import load_checkpoint
from percodec.export.train.from_config import build_model, trained_model
from percodec.sdk.bundle import Bundle
from percodec.sdk.errors import UsageError


def write_head(bundle: Bundle, checkpoint: Path, out: Path) -> str:
    """Write the head of a run at the bundle's frame size. Returns its task.

    Raises `DataError`, and `UsageError` where the run has no head that reads this bundle's latents.
    """
    state = load_checkpoint(checkpoint)
    model, known = build_model(state["config"]), load_checkpoint(bundle.path)
    if model.head is None or model.codec is None or model.reads != "latent":
        raise UsageError(
            f"{checkpoint} has no head that reads latents; give a run of segmentation or classification with head.input=latent"
        )
    model.load_state_dict(state["model"])
    theirs = trained_model(known)
    if theirs.codec is None or not theirs.codec.equals(model.codec):
        raise UsageError(f"{checkpoint} was trained on another codec than that of {bundle.path}; add it to the bundle that --codec named")
    kind = head_kind(state["config"]["head"]["name"])
    head = Head(model.head.eval(), kind, several="map" in (state.get("val") or {}))
    out.write_bytes(head_graph(model.codec.eval(), head, bundle.frame_height, bundle.frame_width))
    return kind


__all__ = ["write_head"]
