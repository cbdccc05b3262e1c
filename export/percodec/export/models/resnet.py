"""Residual networks on pixels and on latents: ResNet-50/71 and the compressed-domain cResNet-27/39/51/72.

    RGB     [N,3,H,W] -> root 7x7 s2, pool s2 -> conv2_x 1/4 -> conv3_x 1/8 -> conv4_x 1/16 -> conv5_x 1/32
    latent  [N,C,h,w] ------------------------------------------> conv3_x 1/8 -> conv4_x 1/16 -> conv5_x 1/32

Torfason et al. 2018, section 4: the compressed-domain network is the RGB network with its front cut off, root block and conv2_x; the
latent enters conv3_1 with stride 1 through that block's own projection, C -> 512. cResNet-51 and -72 put blocks back into
conv4_x until the operations equal those of ResNet-50 and -71. cResNet-27 is ours, half of ResNet-50's operations, to be distilled: its
stages have the shapes of the others'. Bottleneck units of He et al. 2016, V1: the stride is on the
first 1x1 convolution. `dilated` keeps conv4_x and conv5_x at 1/8 with dilation 2 and 4 (section 5, DeepLab).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from percodec.export.models.autoencoder import Normalize, conv_bn

# Blocks of conv2_x, conv3_x, conv4_x, conv5_x; no conv2_x: the network reads a latent.
STAGES: dict[str, tuple[int, int, int, int]] = {
    "resnet50": (3, 4, 6, 3),
    "resnet71": (3, 4, 13, 3),
    "cresnet27": (0, 2, 4, 3),
    "cresnet39": (0, 4, 6, 3),
    "cresnet51": (0, 4, 10, 3),
    "cresnet72": (0, 4, 17, 3),
}
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 (stride) -> 3x3 (dilation) -> 1x1, projection where shape changes."""

    def __init__(self, cin: int, planes: int, stride: int = 1, dilation: int = 1) -> None:
        super().__init__()
        cout = planes * EXPANSION
        middle = [nn.Conv2d(planes, planes, 3, padding=dilation, dilation=dilation, bias=False), nn.BatchNorm2d(planes), nn.ReLU()]
        last = conv_bn(planes, cout, 1, relu=False)
        nn.init.zeros_(last[1].weight)  # type: ignore[arg-type]  # every block starts as identity: trains from scratch on little data
        self.body = nn.Sequential(conv_bn(cin, planes, 1, stride), nn.Sequential(*middle), last)
        same = cin == cout and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(cin, cout, 1, stride, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ResNet(nn.Module):
    """Stages of a residual network. `name` is one of `STAGES`; `channels` is 3 for pictures in 0..255, C for a latent's center values.

    `width` scales every layer (1.0 is the paper's). `features(x)` gives the output of conv3_x, conv4_x and conv5_x.
    """

    def __init__(self, name: str, channels: int, width: float = 1.0, dilated: bool = False) -> None:
        super().__init__()
        blocks = STAGES[name]
        self.reads_latent = blocks[0] == 0
        base = max(8, round(64 * width))
        self.root = (
            nn.Identity()
            if self.reads_latent
            else nn.Sequential(Normalize(), conv_bn(3, base, 7, 2), nn.MaxPool2d(3, 2, 1), *_stage(base, base, blocks[0], 1, 1))
        )
        cin = channels if self.reads_latent else base * EXPANSION
        self.conv3 = _stage(cin, base * 2, blocks[1], 1 if self.reads_latent else 2, 1)
        self.conv4 = _stage(base * 8, base * 4, blocks[2], 1 if dilated else 2, 2 if dilated else 1)
        self.conv5 = _stage(base * 16, base * 8, blocks[3], 1 if dilated else 2, 4 if dilated else 1)
        self.channels_out = base * 32

    def features(self, x: Tensor) -> list[Tensor]:
        f3 = self.conv3(self.root(x))
        f4 = self.conv4(f3)
        return [f3, f4, self.conv5(f4)]

    def forward(self, x: Tensor) -> Tensor:
        return self.features(x)[-1]


def _stage(cin: int, planes: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
    rest = [Bottleneck(planes * EXPANSION, planes, 1, dilation) for _ in range(blocks - 1)]
    return nn.Sequential(Bottleneck(cin, planes, stride, dilation), *rest)


class Classifier(nn.Module):
    """Backbone -> global average -> fully connected: logits [N,K]."""

    def __init__(self, backbone: ResNet, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes
        self.dropout = nn.Dropout(dropout)
        self.classify = nn.Linear(backbone.channels_out, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.with_features(x)[0]

    def with_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Logits, and the stage outputs that distillation compares."""
        features = self.backbone.features(x)
        logits: Tensor = self.classify(self.dropout(features[-1].mean((2, 3))))
        return logits, features


class DeepLab(nn.Module):
    """Dilated backbone at 1/8 -> ASPP, four 3x3 branches with dilation 6, 12, 18, 24, summed -> bilinear: logits [N,K,8h,8w].

    Chen et al. 2018 (DeepLab v2), as Torfason et al. 2018, section 5, put it on ResNet-50-d and cResNet-d.
    """

    RATES = (6, 12, 18, 24)

    def __init__(self, backbone: ResNet, classes: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.backbone = backbone
        self.classes = classes
        self.dropout = nn.Dropout2d(dropout)
        self.aspp = nn.ModuleList(nn.Conv2d(backbone.channels_out, classes, 3, padding=r, dilation=r) for r in self.RATES)
        for branch in self.aspp:
            nn.init.normal_(branch.weight, std=0.01)  # type: ignore[arg-type]
            nn.init.zeros_(branch.bias)  # type: ignore[arg-type]

    @torch.no_grad()
    def lean(self, offsets: Tensor) -> None:
        """Add [K] to the classes' logits, for good."""
        bias: Tensor = self.aspp[0].bias  # type: ignore[assignment]
        bias.add_(offsets.to(bias))

    def forward(self, x: Tensor) -> Tensor:
        return self.with_features(x)[0]

    def with_features(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        features = self.backbone.features(x)
        last = self.dropout(features[-1])
        logits = torch.stack([branch(last) for branch in self.aspp]).sum(0).float()
        return F.interpolate(logits, scale_factor=8, mode="bilinear", align_corners=False), features


__all__ = ["EXPANSION", "STAGES", "Bottleneck", "Classifier", "DeepLab", "ResNet"]
