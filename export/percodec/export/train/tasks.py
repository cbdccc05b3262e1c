"""What is trained and by which loss.

codec         D + beta * max(H(q) - H_t, 0)                       (Torfason et al. 2018, section 3)
segmentation  gamma * (D + beta * max(H(q) - H_t, 0)) + CE        jointly; with a frozen codec only CE
D is the mean squared error in 0..255; H_t = 64 * bpp / C bits per symbol.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.data import DataSet
from percodec.export.evaluate.metrics import Confusion, ms_ssim, psnr
from percodec.export.models import Autoencoder, LatentFPN, rate_bits_per_symbol


class Joint(nn.Module):
    """Codec and, where there is one, the segmentation head: one module, one checkpoint."""

    def __init__(self, codec: Autoencoder, head: LatentFPN | None) -> None:
        super().__init__()
        self.codec = codec
        self.head = head


def codec_loss(model: Joint, images: Tensor, bpp: float, beta: float, structure: float) -> tuple[Tensor, Tensor, dict[str, float]]:
    """-> loss, q, values. `structure` weighs 1 - SSIM on half-resolution luma beside the squared error."""
    quantized, restored = model.codec(images)
    mse = F.mse_loss(restored, images)
    rate = rate_bits_per_symbol(quantized.assignment)
    target = 64 * bpp / model.codec.channels
    loss = mse + beta * F.relu(rate - target)
    values = {"mse": float(mse.detach()), "bits_per_symbol": float(rate.detach()), "bpp": float(rate.detach()) * model.codec.channels / 64}
    if structure:
        similarity = ms_ssim(restored.clamp(0, 255), images, scales=3).mean()
        loss = loss + structure * (1 - similarity)
        values["structure"] = float(similarity.detach())
    return loss, quantized.q, values


def segmentation_loss(
    model: Joint, images: Tensor, labels: Tensor, weights: Tensor, gamma: float, bpp: float, beta: float, structure: float
) -> tuple[Tensor, dict[str, float]]:
    assert model.head is not None
    if gamma > 0:
        distortion, q, values = codec_loss(model, images, bpp, beta, structure)
    else:
        with torch.no_grad():
            model.codec.eval()
            q = model.codec.encode(images).q
        distortion, values = torch.zeros(()), {}
    logits = model.head(q)
    ce = F.cross_entropy(logits, labels, weight=weights, ignore_index=255)
    values = {"ce": float(ce.detach()), **values}
    return gamma * distortion + ce, values


def class_weights(data: list[DataSet], classes: int, offset: float = 1.05) -> Tensor:
    """1 / ln(offset + share), the ENet weighting, normalised to mean 1 over the pixels."""
    counts = np.zeros(classes)
    for d in data:
        for label in d.labels:
            counts += np.bincount(label.ravel(), minlength=256)[:classes]
    share = counts / counts.sum()
    w = 1 / np.log(offset + share)
    return torch.tensor(w / (w * share).sum(), dtype=torch.float32)


@torch.no_grad()
def validate(model: Joint, data: DataSet, tables: np.ndarray[Any, Any] | None = None, full: bool = False) -> dict[str, Any]:
    """bpp (order-0 entropy of this data under its own histogram, or under `tables` [C,L]), PSNR, MS-SSIM when `full`, mIoU."""
    levels = len(model.codec.quantizer.centers)
    counts = np.zeros((model.codec.channels, levels))
    psnrs, similarities, pixels = [], [], 0
    confusion = Confusion(model.head.classes) if model.head is not None else None
    for k in range(len(data)):
        image = as_batch(data.images[k])
        with torch.autocast("cpu", torch.bfloat16):
            quantized = model.codec.encode(image)
            restored = model.codec.decode(quantized.q).clamp(0, 255).round()
            if confusion is not None and model.head is not None:
                predicted = model.head(quantized.q).argmax(1)[0].numpy()
                confusion.add(predicted, data.labels[k][: predicted.shape[0], : predicted.shape[1]])
        counts += quantized.assignment.sum((0, 2, 3)).numpy()
        psnrs.append(psnr(restored, image))
        if full:
            similarities.append(float(ms_ssim(restored, image).mean()))
        pixels += image.shape[-1] * image.shape[-2]
    own = counts / counts.sum(1, keepdims=True)
    p = np.clip(own if tables is None else tables, 1e-9, 1)
    record: dict[str, Any] = {"bpp": float(-(counts * np.log2(p)).sum() / pixels), "psnr": float(np.mean(psnrs))}
    if full:
        record["ms_ssim"] = float(np.mean(similarities))
    if confusion is not None:
        record["miou"] = confusion.miou()
        record["iou"] = confusion.iou().tolist()
    return record


def as_batch(image: np.ndarray[Any, Any]) -> Tensor:
    """uint8 [H,W,3] -> float [1,3,H',W'], cropped to multiples of 8."""
    h, w = image.shape[0] // 8 * 8, image.shape[1] // 8 * 8
    x = torch.from_numpy(image[:h, :w].copy()).permute(2, 0, 1)[None].float()
    return x.contiguous(memory_format=torch.channels_last)


__all__ = ["Joint", "as_batch", "class_weights", "codec_loss", "segmentation_loss", "validate"]
