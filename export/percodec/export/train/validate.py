"""What a model reaches on the validation set while it trains."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from percodec.export.data.dataset import DataSet
from percodec.export.metrics.scores import Confusion, average_precision, top_k
from percodec.export.metrics.similarity import ms_ssim, psnr
from percodec.export.models import Autoencoder, Steps, head_kind
from percodec.export.train.arithmetic import training_arithmetic
from percodec.export.train.tasks import Joint, presence
from percodec.export.train.views import Views

Record = dict[str, Any]
CROP = 224


def windows(height: int, width: int, size: int = CROP) -> list[tuple[int, int]]:
    """Corners of the fixed crops presence is judged on: the four corners of the picture, on the 8-pixel grid; one where it is small."""
    rows = sorted({0, max(0, height - size) // 8 * 8})
    columns = sorted({0, max(0, width - size) // 8 * 8})
    return [(y, x) for y in rows for x in columns]


@torch.no_grad()
def validate_codec(codec: Autoencoder, data: DataSet, device: torch.device) -> Record:
    """bpp (order-0 entropy of this data under its own histogram), PSNR in dB, MS-SSIM; with contexts also what those make of the rate."""
    quantizer = codec.quantizer
    counts = np.zeros((codec.channels, 256))
    psnrs, similarities, pixels, bits = [], [], 0, 0.0
    for k in range(len(data)):
        image = as_batch(data.images[k]).to(device)
        with training_arithmetic(device):
            symbols = quantizer.symbols(codec.analyse(image))
            restored = codec.decode(quantizer.values(symbols)).clamp(0, 255).round()
        for count, channel in zip(counts, symbols[0].flatten(1).cpu().numpy(), strict=True):
            count += np.bincount(channel, minlength=256)
        if isinstance(quantizer, Steps):
            bits += float(quantizer.bits(symbols).sum())
        psnrs.append(psnr(restored, image))
        similarities.append(float(ms_ssim(restored, image, scales=5 if min(image.shape[-2:]) >= 176 else 3).mean()))
        pixels += image.shape[-1] * image.shape[-2]
    p = np.clip(counts / counts.sum(1, keepdims=True), 1e-9, 1)
    found = {"bpp": float(-(counts * np.log2(p)).sum() / pixels), "psnr": float(np.mean(psnrs)), "ms_ssim": float(np.mean(similarities))}
    return {**found, "bpp_contexts": bits / pixels} if isinstance(quantizer, Steps) else found


class Sample(NamedTuple):
    """One picture to judge a head on. `inputs()`: what the head reads, float [1,C,h,w] or [1,3,H,W]; `height`, `width` in pixels.

    `label`: uint8 [H,W] or None; `target`: a class, where there is no label map.
    """

    inputs: Callable[[], Tensor]
    height: int
    width: int
    label: NDArray[np.uint8] | None
    target: int = 0


@torch.no_grad()
def validate_head(
    model: Joint, config: dict[str, Any], data: DataSet, views: Views | None, device: torch.device, half: bool = True
) -> Record:
    """mIoU, or mean average precision of presence, or top-1 and top-5. `views` holds what the head reads where the codec is fixed.

    `half`: rounded as while training, see `training_arithmetic`; otherwise as exported.
    """

    def samples() -> Iterator[Sample]:
        for k in range(len(data)):
            image = as_batch(data.images[k]).to(device)

            def inputs(k: int = k, image: Tensor = image) -> Tensor:
                return views.values(k) if views is not None else model.head_input(image)

            label, target = data.labels[k] if data.labels else None, data.targets[k] if data.targets else 0
            yield Sample(inputs, image.shape[-2], image.shape[-1], label, target)

    return judge_head(model, config, samples(), device, half)


@torch.no_grad()
def judge_head(model: Joint, config: dict[str, Any], samples: Iterable[Sample], device: torch.device, half: bool = True) -> Record:
    """As `validate_head`, of whatever samples come: all with label maps, or none."""
    assert model.head is not None
    kind = head_kind(config["head"]["name"])
    classes = config["head"]["classes"]
    confusion = Confusion(classes)
    scores: list[Tensor] = []
    truth: list[Tensor] = []
    mapped = False
    for inputs, height, width, label, target in samples:
        with training_arithmetic(device, enabled=half):
            x = inputs().to(device)
            if kind == "segmentation":
                assert label is not None
                predicted = model.head(x).argmax(1)[0].cpu().numpy()
                confusion.add(predicted, label[:height, :width])
                continue
            step = 8 if x.shape[-1] != width else 1
            mapped = label is not None
            for top, left in windows(height, width) if mapped else [(max(0, height - CROP) // 16 * 8, max(0, width - CROP) // 16 * 8)]:
                window = x[..., top // step : (top + CROP) // step, left // step : (left + CROP) // step]
                scores.append(model.head(window).float().cpu()[0])
                if label is not None:
                    piece = torch.from_numpy(label[top : min(top + CROP, height), left : min(left + CROP, width)].copy()).long()
                    truth.append(presence(piece[None], classes, config["head"]["presence"])[0])
                else:
                    truth.append(torch.tensor(target))
    if kind == "segmentation":
        return {"miou": confusion.miou(), "iou": confusion.iou().tolist()}
    if mapped:
        precision = average_precision(torch.stack(scores).numpy(), torch.stack(truth).numpy() > 0)
        return {"map": float(np.nanmean(precision)), "ap": precision.tolist()}
    ranked, answers = torch.stack(scores).numpy(), torch.stack(truth).numpy()
    return {"top1": top_k(ranked, answers, 1), "top5": top_k(ranked, answers, min(5, classes))}


def score(config: dict[str, Any], record: Record) -> float:
    """What "best" means: PSNR for a codec, the task's metric in points for a head, their sum for a joint run."""
    points = sum(100 * float(record[k]) for k in ("miou", "map", "top1") if k in record)
    return points + (float(record["psnr"]) if config["task"] in ("codec", "joint") else 0.0)


def as_batch(image: np.ndarray[Any, Any]) -> Tensor:
    """uint8 [H,W,3] -> float [1,3,H',W'], cropped to multiples of 8."""
    h, w = image.shape[0] // 8 * 8, image.shape[1] // 8 * 8
    x = torch.from_numpy(image[:h, :w].copy()).permute(2, 0, 1)[None].float()
    return x.contiguous(memory_format=torch.channels_last)


__all__ = ["Sample", "as_batch", "judge_head", "score", "validate_codec", "validate_head", "windows"]
