"""What a bundle really does on a data set: coded bytes, reconstruction, segmentation, all through its ONNX graphs and its coder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from percodec.export.data import DataSet
from percodec.export.evaluate.metrics import Confusion, ms_ssim, psnr
from percodec.export.onnx import run_ort
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import DataError


def evaluate_bundle(bundle: Bundle, data: DataSet, limit: int | None = None) -> dict[str, Any]:
    """bpp from whole packets (header included), the order-0 bound, PSNR, MS-SSIM and, with labels, IoU per class.

    Pictures must have the bundle's frame size: nothing is resized here, so the numbers are of the codec alone.
    """
    height, width = bundle.frame_height, bundle.frame_width
    _channels, h, w = bundle.latent_shape
    coder = PacketCodec(bundle.entropy_model, h, w)
    encoder, decoder = run_ort(bundle.graph("encoder")), run_ort(bundle.graph("decoder"))
    head = run_ort(bundle.graph("head_segmentation")) if "head_segmentation" in bundle.manifest["graphs"] else None
    confusion = Confusion(len(bundle.labels)) if head is not None and data.labels else None
    sizes, bounds, psnrs, similarities = [], [], [], []
    for k in range(len(data) if limit is None else min(limit, len(data))):
        image = data.images[k]
        if image.shape != (height, width, 3):
            raise DataError(f"{data.name}: picture {k} is {image.shape[1]}x{image.shape[0]}, the bundle wants {width}x{height}")
        symbols = encoder(image[None])
        packet = coder.encode(symbols[0], frame_id=k, timestamp_ns=0)
        _, decoded = coder.decode(packet)
        sizes.append(len(packet))
        bounds.append(bundle.entropy_model.cost_bits(decoded) / 8)
        restored = torch.from_numpy(decoder(decoded[None])).permute(0, 3, 1, 2).float()
        original = torch.from_numpy(image.copy())[None].permute(0, 3, 1, 2).float()
        psnrs.append(psnr(restored, original))
        similarities.append(float(ms_ssim(restored, original).mean()))
        if confusion is not None and head is not None:
            confusion.add(head(decoded[None])[0], data.labels[k])
    pixels = height * width
    out: dict[str, Any] = {
        "data": data.name,
        "pictures": len(sizes),
        "bpp_coded": float(np.mean(sizes) * 8 / pixels),
        "bpp_entropy": float(np.mean(bounds) * 8 / pixels),
        "packet_bytes_mean": float(np.mean(sizes)),
        "packet_bytes_max": int(np.max(sizes)),
        "psnr_db": float(np.mean(psnrs)),
        "ms_ssim": float(np.mean(similarities)),
    }
    if confusion is not None:
        out["miou"] = confusion.miou()
        per_class = zip(bundle.labels, confusion.iou(), strict=True)
        out["iou"] = {label.name: None if np.isnan(v) else float(v) for label, v in per_class}  # None: the class never occurs
    return out


__all__ = ["evaluate_bundle"]
