"""What is trained and by which loss.

codec                          D + beta * max(H(q) - H_t, 0)                          Torfason et al. 2018, section 3
classification, segmentation   CE on a fixed codec's latents or pictures              sections 4, 5
joint                          gamma * (D + beta * max(H(q) - H_t, 0)) + CE           section 6

D is the mean squared error in 0..255 (plus `structure` * (1 - MS-SSIM) where asked); H_t = 64 * bpp / C bits per symbol. CE is
cross-entropy, or binary cross-entropy per class for presence. With a teacher, on the original picture or on
what the student reads, after Duan and Zhu 2022:
(1 - a) * CE + a * KD(teacher's logits) + b * sum of squared differences of conv3_x .. conv5_x. A codec with a teacher learns that
codec's latents alone: mean squared difference of z, the teacher's brought into the range where it decides a symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.data.crops import Batch
from percodec.export.data.dataset import GROUPS_FROM, DataSet
from percodec.export.data.files import IGNORE
from percodec.export.metrics.similarity import ms_ssim
from percodec.export.models import Autoencoder, Quantizer
from percodec.export.train import distributed
from percodec.export.train.lovasz import lovasz_softmax
from percodec.sdk.errors import DataError

Values = dict[str, float]


class Joint(nn.Module):
    """Codec, head or both: one module, one checkpoint. `reads` is the head's input: latent, decoded or original.

    A `frozen` codec has no gradients and keeps its batch-norm statistics.
    """

    def __init__(self, codec: Autoencoder | None, head: nn.Module | None, reads: str = "latent", frozen: bool = False) -> None:
        super().__init__()
        self.codec, self.head, self.reads, self.frozen = codec, head, reads, frozen
        if frozen and codec is not None:
            codec.requires_grad_(False)

    def train(self, mode: bool = True) -> Joint:
        super().train(mode)
        if self.frozen and self.codec is not None:
            self.codec.eval()
        return self

    def head_input(self, images: Tensor) -> Tensor:
        """Pictures [N,3,H,W] -> what the head reads, through the codec as it stands."""
        if self.codec is None or self.reads == "original":
            return images
        q = self.codec.encode(images).q
        return q if self.reads == "latent" else self.codec.decode(q).clamp(0, 255)

    def forward(self, images: Tensor) -> Tensor:
        """Logits for pictures."""
        assert self.head is not None
        return self.head(self.head_input(images))  # type: ignore[no-any-return]


def codec_loss(codec: Autoencoder, images: Tensor, bpp: float, beta: float, structure: float) -> tuple[Tensor, Tensor, Tensor, Values]:
    """-> loss, q, restored, values."""
    quantized, restored = codec(images)
    mse = F.mse_loss(restored, images)
    rate = codec.quantizer.bits_per_symbol(quantized, distributed.mean)
    loss = mse + beta * F.relu(rate - 64 * bpp / codec.channels) if rate.requires_grad else mse
    bits = float(rate.detach())
    values = {"mse": float(mse.detach()), "bits_per_symbol": bits, "bpp": bits * codec.channels / 64}
    if structure:
        similarity = ms_ssim(restored.clamp(0, 255), images, scales=3).mean()
        loss = loss + structure * (1 - similarity)
        values["structure"] = float(similarity.detach())
    return loss, quantized.q, restored, values


def imitation_loss(codec: Autoencoder, teacher: Autoencoder, images: Tensor) -> tuple[Tensor, Values]:
    """-> loss, values: the share of `symbols` that agree."""
    z = codec.g_a(codec.normalize(images)).float()
    assert isinstance(teacher.quantizer, Quantizer)  # load_teacher sees to it
    with torch.no_grad():
        centers = teacher.quantizer.centers
        wanted = teacher.g_a(teacher.normalize(images)).float()
        agreed = (codec.quantizer.symbols(z) == teacher.quantizer.symbols(wanted)).float().mean()
    loss = F.mse_loss(z, wanted.clamp(centers[0], centers[-1]))
    return loss, {"symbols": float(agreed)}


def presence(labels: Tensor, classes: int, share: float) -> Tensor:
    """Label maps [N,H,W] -> float [N,K]: 1 where a class covers at least `share` of the picture."""
    counts = torch.stack([(labels == k).float().mean((1, 2)) for k in range(classes)], 1)
    return (counts >= share).float()


def class_weights(data: list[DataSet], classes: int, offset: float = 1.05, say: Callable[[str], None] = lambda text: None) -> Tensor:
    """1 / ln(offset + share), the ENet weighting, normalised to mean 1 over the pixels. A group's pixels are shared evenly by its classes.

    Raises `DataError` where no pixel of a set's labels has a class; `say` is told of pictures without any.
    """
    counts = np.zeros(classes)
    for d in data:
        found = np.zeros(classes)
        blank = 0
        for label in d.labels:
            every = np.bincount(label.ravel(), minlength=256)
            here = every[:classes].astype(np.float64)
            for k, members in enumerate(d.groups):
                here[list(members)] += every[GROUPS_FROM + k] / len(members)
            found[: len(here)] += here
            blank += not here.any()
        if not found.any():
            raise no_class(d)
        if blank:
            say(f"{d.name}: {blank} of {len(d)} pictures have no pixel with a class: nothing is learned from their labels")
        counts += found
    share = counts / counts.sum()
    w = 1 / np.log(offset + share)
    return torch.tensor(w / (w * share).sum(), dtype=torch.float32)


def no_class(data: DataSet) -> DataError:
    return DataError(
        f"{data.name}: no pixel of its {len(data)} label maps has a class, all are {IGNORE} (ignored); check how the labels were converted"
    )


def grouped_cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, groups: Sequence[tuple[int, ...]]) -> tuple[Tensor, Tensor]:
    """Logits [N,K,H,W], labels [N,H,W] as in `DataSet` -> weighted sum of -log p, sum of the weights.

    p of a pixel that is known to be one of a group is the sum of their probabilities, its weight that of the commonest of them.
    """
    exact = labels.masked_fill(labels >= GROUPS_FROM, IGNORE)
    amount = F.cross_entropy(logits, exact, weight=weights, ignore_index=IGNORE, reduction="sum")
    weight = weights[labels[labels < GROUPS_FROM]].sum()
    for k, members in enumerate(groups):
        here = logits.movedim(1, -1)[labels == GROUPS_FROM + k]
        common = weights[list(members)].min()
        amount = amount + common * (here.logsumexp(1) - here[:, list(members)].logsumexp(1)).sum()
        weight = weight + common * len(here)
    return amount, weight


class Objective(nn.Module):
    """`Batch` -> loss and values to log: what is differentiated in a step, and what DistributedDataParallel wraps.

    `prepared` batches hold what the head reads already; others hold pictures that go through the codec first.
    """

    weights: Tensor

    def __init__(
        self,
        model: Joint,
        config: dict[str, Any],
        weights: Tensor | None,
        prepared: bool,
        teacher: Joint | None = None,
        groups: Sequence[tuple[int, ...]] = (),
    ) -> None:
        super().__init__()
        self.model = model
        self.task, self.loss, self.head = config["task"], config["loss"], config["head"]
        self.margin = config["crops"]["margin"] // 8
        self.prepared, self.groups = prepared, groups
        self.register_buffer("weights", weights if weights is not None else torch.ones(self.head["classes"]), persistent=False)
        # In a list: not part of the module.
        self.teachers: list[Any] = [] if teacher is None else [teacher.eval().requires_grad_(False)]
        self.same = teacher is not None and teacher.reads == model.reads

    def forward(self, batch: Batch) -> tuple[Tensor, Values]:
        model, loss, labels = self.model, self.loss, batch.labels
        if self.task == "codec":
            assert model.codec is not None
            if self.teachers:
                return imitation_loss(model.codec, self.teachers[0].codec, batch.inputs)
            value, _, _, values = codec_loss(model.codec, batch.inputs, loss["bpp"], loss["beta"], loss["structure"])
            return value, values
        distortion, values = torch.zeros((), device=batch.inputs.device), {}
        if self.prepared:
            x = batch.inputs
        elif self.task == "joint":
            assert model.codec is not None
            distortion, q, restored, values = codec_loss(model.codec, batch.inputs, loss["bpp"], loss["beta"], loss["structure"])
            x = q if model.reads == "latent" else restored
        else:
            with torch.no_grad():
                x = self._inner(model.head_input(batch.inputs))
            m = 8 * self.margin
            labels = labels[:, m : labels.shape[1] - m, m : labels.shape[2] - m] if labels.ndim == 3 else labels
        images = x if self.same else batch.images if self.prepared else self._inner(batch.inputs)
        task, more = self._task(x, labels, images)
        return loss["gamma"] * distortion + task, {**more, **values}

    def _inner(self, x: Tensor) -> Tensor:
        m = self.margin * (1 if self.model.reads == "latent" and x.shape[1] != 3 else 8)
        return x[:, :, m : x.shape[2] - m, m : x.shape[3] - m] if m else x

    def _task(self, x: Tensor, labels: Tensor, images: Tensor | None) -> tuple[Tensor, Values]:
        head = self.model.head
        assert head is not None
        if self.teachers:
            return self._distilled(x, labels, images)
        ce = self._cross_entropy(head(x), labels)
        return ce, {"ce": float(ce.detach())}

    def _cross_entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        if logits.ndim == 4:
            amount, weight = grouped_cross_entropy(logits, labels, self.weights, self.groups)
            ce = distributed.ratio(amount, weight)
            share = self.loss["lovasz"]
            return ce + share * lovasz_softmax(logits, labels, IGNORE) if share else ce
        if labels.ndim == 3:
            return F.binary_cross_entropy_with_logits(logits, presence(labels, logits.shape[1], self.head["presence"]))
        return F.cross_entropy(logits, labels)

    def _distilled(self, x: Tensor, labels: Tensor, images: Tensor | None) -> tuple[Tensor, Values]:
        assert images is not None
        head: Any = self.model.head
        a, b = self.loss["distill_logits"], self.loss["distill_features"]
        logits, features = head.with_features(x)
        with torch.no_grad():
            wanted, wanted_features = self.teachers[0].head.with_features(images)
        ce = self._cross_entropy(logits, labels)
        if labels.ndim == 3 and logits.ndim == 2:
            kd = F.binary_cross_entropy_with_logits(logits, torch.sigmoid(wanted))
        else:
            divergence = F.kl_div(F.log_softmax(logits, 1), F.log_softmax(wanted, 1), log_target=True, reduction="none")
            kd = divergence.sum(1).mean()
        feature = torch.stack([F.mse_loss(f.float(), w.float()) for f, w in zip(features, wanted_features, strict=True)]).sum()
        loss = (1 - a) * ce + a * kd + b * feature
        return loss, {"ce": float(ce.detach()), "kd": float(kd.detach()), "features": float(feature.detach())}


__all__ = ["Joint", "Objective", "class_weights", "codec_loss", "grouped_cross_entropy", "imitation_loss", "no_class", "presence"]
