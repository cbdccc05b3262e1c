"""What a bundle really does on a data set: coded bytes, reconstruction, perception, all through its ONNX graphs and its coder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from percodec.export.data.dataset import DataSet
from percodec.export.engines.free_shapes import freed
from percodec.export.engines.graph_function import graph_function
from percodec.export.metrics.scores import Confusion, average_precision, top_k
from percodec.export.metrics.similarity import MS_SSIM_SIDE, psnr, similarities
from percodec.export.train.validate import CROP, windows
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec
from percodec.sdk.errors import DataError

PRESENT = 0.01  # the share of a crop from which a class counts as present

Advance = Callable[[int, int], None]


def evaluate_bundle(
    bundle: Bundle, data: DataSet, limit: int | None = None, heads: tuple[str, ...] | None = None, advance: Advance = lambda done, of: None
) -> dict[str, Any]:
    """bpp from whole packets (header included), what its tables promise, PSNR, SSIM, MS-SSIM and, with labels, what every head reaches.

    What further decoders give stands under "decoders". `heads` are graph names (default: all). Heads are under "heads"; those called
    plainly head_segmentation and head_classification stand at the top as well. Pictures must have the bundle's frame size: nothing is
    resized here, so the numbers are of the codec alone.
    """
    height, width = bundle.frame_height, bundle.frame_width
    if min(height, width) < MS_SSIM_SIDE:
        raise DataError(f"bundle {bundle.name} has frames of {width}x{height}; MS-SSIM needs sides of at least {MS_SSIM_SIDE}")
    _channels, h, w = bundle.latent_shape
    coder = PacketCodec(bundle.entropy_model, h, w)
    encoder = graph_function(bundle.graph("encoder"), threads=2)
    rebuilt = {name: _Rebuilt(bundle, name) for name, info in bundle.graphs.items() if info.task == "decoder"}
    names = [g for g in bundle.manifest["graphs"] if g.startswith("head_") and (heads is None or g in heads)]
    judges = {name: _Judge(bundle, name) for name in names} if data.labels or data.targets else {}
    sizes, bounds = [], []
    count = len(data) if limit is None else min(limit, len(data))
    for k in range(count):
        image = data.images[k]
        if image.shape != (height, width, 3):
            raise DataError(f"{data.name}: picture {k} is {image.shape[1]}x{image.shape[0]}, the bundle wants {width}x{height}")
        packet = coder.encode(encoder(image[None])[0], frame_id=k, timestamp_ns=0)
        _, decoded = coder.decode(packet)
        sizes.append(len(packet))
        bounds.append(bundle.entropy_model.cost_bits(decoded) / 8)
        for decoder in rebuilt.values():
            decoder.see(decoded, image)
        for judge in judges.values():
            judge.see(decoded, data.labels[k] if data.labels else None, data.targets[k] if data.targets else None)
        advance(k + 1, count)
    pixels = height * width
    found = {name: judge.result() for name, judge in judges.items()}
    plain = {k: v for name in ("head_segmentation", "head_classification") for k, v in found.get(name, {}).items() if k != "kind"}
    return {
        "data": data.name,
        "pictures": len(sizes),
        "bpp_coded": float(np.mean(sizes) * 8 / pixels),
        "bpp_entropy": float(np.mean(bounds) * 8 / pixels),
        "packet_bytes_mean": float(np.mean(sizes)),
        "packet_bytes_max": int(np.max(sizes)),
        **rebuilt["decoder"].result(),
        **({"decoders": {name: d.result() for name, d in rebuilt.items() if name != "decoder"}} if len(rebuilt) > 1 else {}),
        **plain,
        **({"heads": found} if found else {}),
    }


class _Rebuilt:
    """One decoder of a bundle, fed with symbols and originals."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.run = graph_function(bundle.graph(name), threads=2)
        self.found: list[tuple[float, float, float]] = []

    def see(self, symbols: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
        restored = torch.from_numpy(self.run(symbols[None])).permute(0, 3, 1, 2).float()
        original = torch.from_numpy(image.copy())[None].permute(0, 3, 1, 2).float()
        single, multi = similarities(restored, original)
        self.found.append((psnr(restored, original), float(single), float(multi)))

    def result(self) -> dict[str, float]:
        return dict(zip(("psnr_db", "ssim", "ms_ssim"), np.mean(self.found, 0).tolist(), strict=True))


class _Judge:
    """One head of a bundle, fed with symbols and truth."""

    def __init__(self, bundle: Bundle, name: str) -> None:
        self.labels = bundle.labels
        self.classes = len(bundle.labels)
        self.kind = "segmentation" if "segmentation" in name else "classification"
        self.frame = (bundle.frame_height, bundle.frame_width)
        self.confusion = Confusion(self.classes)
        self.scores: list[NDArray[np.float32]] = []
        self.truth: list[Any] = []
        graph = bundle.graph(name)
        # Classes are judged on crops of the size the networks were trained on.
        crop = (min(CROP, self.frame[0]), min(CROP, self.frame[1]))
        self.crop = crop
        self.run = graph_function(graph if self.kind == "segmentation" else freed(graph), threads=2)

    def see(self, symbols: NDArray[np.uint8], label: NDArray[np.uint8] | None, target: int | None) -> None:
        if self.kind == "segmentation":
            if label is not None:
                self.confusion.add(self.run(symbols[None])[0], label)
            return
        height, width = self.crop
        centre = ((self.frame[0] - height) // 16 * 8, (self.frame[1] - width) // 16 * 8)
        for y, x in windows(*self.frame) if label is not None else [centre]:
            window = np.ascontiguousarray(symbols[None, :, y // 8 : (y + height) // 8, x // 8 : (x + width) // 8])
            self.scores.append(self.run(window)[0])
            if label is None:
                self.truth.append(target)
            else:
                piece = label[y : y + height, x : x + width]
                self.truth.append([(piece == k).mean() >= PRESENT for k in range(self.classes)])

    def result(self) -> dict[str, Any]:
        if self.kind == "segmentation":
            return {"kind": "segmentation", "miou": self.confusion.miou(), "iou": self._named(self.confusion.iou())}
        scores = np.stack(self.scores)
        if isinstance(self.truth[0], list):
            found = average_precision(scores, np.array(self.truth))
            return {"kind": "presence", "map": float(np.nanmean(found)), "ap": self._named(found)}
        target = np.array(self.truth)
        return {"kind": "classification", "top1": top_k(scores, target, 1), "top5": top_k(scores, target, min(5, self.classes))}

    def _named(self, values: NDArray[np.float64]) -> dict[str, float | None]:
        """None: the class never occurs."""
        return {label.name: None if np.isnan(v) else float(v) for label, v in zip(self.labels, values, strict=True)}


__all__ = ["evaluate_bundle"]
