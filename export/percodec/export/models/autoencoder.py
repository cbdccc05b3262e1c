"""Convolutional autoencoders around the quantizer.

    image [N,3,H,W] in 0..255 -> g_a -> z [N,C,H/8,W/8] -> Quantizer -> q -> g_s -> image

`theis3`: Theis et al. 2017 as used by Torfason et al. 2018 (App. A.1): 5x5 s2, 5x5 s2, three residual units of
128 channels, strided convolution to C; mirrored decoder. 70.9 kMAC/px. The exact unit count is a reconstruction.
`edge`: ours. An overlapping 8x8 stride-4 stem and two bottlenecks at 1/8: 3.7 kMAC/px of dense convolutions,
which every backend runs well; the decoder is heavier because it never runs on the vehicle's hot path.
`fast`: ours. 8x8 blocks and one 3x3 convolution over them, 0.3 kMAC/px, in integers where wanted (`percodec.export.engines.integer`); the
rest is the decoder's business, which is theis3's.
`balanced`: ours. Blocks of 4x4, then overlapping windows of 4x4 of those and one 3x3: a symbol sees 32x32 pixels for 1.0 kMAC/px, in
integers too.
`cvpr18`: the group's follow-up (Mentzer et al. 2018), without its importance map: 16 residual blocks of 128 channels in five
groups of three and one, a skip over each group and one over all. 310 kMAC/px on either side.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from percodec.export.models.quantizer import Quantized, Quantizer
from percodec.export.models.steps import Steps
from percodec.sdk.errors import UsageError

# Channel statistics of the group's follow-up code (Mentzer et al. 2018), RGB, 0..255.
MEAN = (121.85, 113.59, 100.64)
STD = (68.90, 66.74, 69.37)


class Normalize(nn.Module):
    """uint8-range image to zero mean and unit variance, and back."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.mean) / self.std

    def invert(self, x: Tensor) -> Tensor:
        return x * self.std + self.mean


def conv_bn(cin: int, cout: int, k: int, stride: int = 1, padding: int | None = None, relu: bool = True) -> nn.Sequential:
    padding = k // 2 if padding is None else padding
    layers: list[nn.Module] = [nn.Conv2d(cin, cout, k, stride, padding, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


class Residual(nn.Module):
    """x + body(x), no activation after the sum."""

    def __init__(self, *body: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*body)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)  # type: ignore[no-any-return]


class Autoencoder(nn.Module):
    """g_a, quantizer and g_s. `channels` is C, `levels` is L; images have sides that are multiples of 8."""

    def __init__(
        self,
        name: str,
        g_a: nn.Module,
        g_s: nn.Module,
        channels: int,
        levels: int,
        uniform: bool = False,
        quantizer: Steps | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.channels = channels
        self.normalize = Normalize()
        self.g_a = g_a
        self.quantizer: Quantizer | Steps = quantizer or Quantizer(levels, uniform=uniform)
        self.g_s = g_s

    def encode(self, image: Tensor) -> Quantized:
        """float image [N,3,H,W] in 0..255 -> `Quantized` latent [N,C,H/8,W/8]."""
        return self.quantizer(self.analyse(image))  # type: ignore[no-any-return]

    def analyse(self, image: Tensor) -> Tensor:
        """float image [N,3,H,W] in 0..255 -> z [N,C,H/8,W/8], not quantized."""
        # Bfloat16 has 8 bits: fine for six levels, not for a mean that spans a hundred steps.
        exact = isinstance(self.quantizer, Steps)
        with torch.autocast(image.device.type, enabled=torch.is_autocast_enabled(image.device.type) and not exact):
            return self.g_a(self.normalize(image)).float()  # type: ignore[no-any-return]

    def decode(self, q: Tensor) -> Tensor:
        """Latent values [N,C,h,w] -> float image [N,3,8h,8w]; may leave 0..255 slightly while training."""
        return self.normalize.invert(self.g_s(q).float())

    def equals(self, other: Autoencoder | None) -> bool:
        """Weight for weight."""
        if other is None:
            return False
        mine, theirs = self.state_dict(), other.state_dict()
        return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)

    def forward(self, image: Tensor) -> tuple[Quantized, Tensor]:
        quantized = self.encode(image)
        return quantized, self.decode(quantized.q)


def plain(width: int) -> Residual:
    """Residual unit without batch norm."""
    return Residual(nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1))


def _unit(width: int) -> nn.Module:
    return Residual(conv_bn(width, width, 3), conv_bn(width, width, 3, relu=False))


def _up(cin: int, cout: int, k: int = 5, relu: bool = True) -> nn.Sequential:
    deconv = nn.ConvTranspose2d(cin, cout, k, 2, padding=k // 2, output_padding=1, bias=False)
    layers: list[nn.Module] = [deconv, nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, nn.ReLU()) if relu else nn.Sequential(*layers)


def theis3(channels: int = 16, levels: int = 6, width: float = 1.0) -> Autoencoder:
    """The paper's autoencoder; C = 8, 16, 32 for 0.0983, 0.330, 0.635 bpp. `width` scales the inner layers.

    image -> 5x5 s2 64 -> 5x5 s2 128 -> 3 x [3x3 128, 3x3 128, +] -> 5x5 s2 C -> q -> 5x5 up 128 -> 3 x [...] -> 5x5 up 64 -> 5x5 up 3
    """
    a, b = round(64 * width), round(128 * width)
    g_a = nn.Sequential(conv_bn(3, a, 5, 2), conv_bn(a, b, 5, 2), *(_unit(b) for _ in range(3)), conv_bn(b, channels, 5, 2, relu=False))
    return Autoencoder("theis3", g_a, theis3_decoder(channels, a, b), channels, levels)


def theis3_decoder(channels: int, a: int, b: int) -> nn.Module:
    return nn.Sequential(_up(channels, b), *(_unit(b) for _ in range(3)), _up(b, a), _up(a, 3, relu=False))


def fast(channels: int = 16, levels: int = 6, width: float = 1.0) -> Autoencoder:
    """0.25 kMAC/px at C = 16. `width` scales the decoder's inner layers alone.

    image -> 8x8 s8 48 -> 3x3 C -> q -> theis3's decoder
    """
    g_a = nn.Sequential(conv_bn(3, 48, 8, 8, padding=0), conv_bn(48, channels, 3, relu=False))
    return Autoencoder("fast", g_a, theis3_decoder(channels, round(64 * width), round(128 * width)), channels, levels, uniform=True)


def balanced(channels: int = 16, levels: int = 6, width: float = 1.0) -> Autoencoder:
    """1.05 kMAC/px at C = 16. `width` scales the decoder's inner layers alone.

    image -> 4x4 s4 24 -> 4x4 s2 64 -> 3x3 64 -> 1x1 C -> q -> theis3's decoder
    """
    blocks = (conv_bn(3, 24, 4, 4, padding=0), conv_bn(24, 64, 4, 2, padding=1), conv_bn(64, 64, 3))
    g_a = nn.Sequential(*blocks, conv_bn(64, channels, 1, relu=False))
    return Autoencoder("balanced", g_a, theis3_decoder(channels, round(64 * width), round(128 * width)), channels, levels, uniform=True)


def cvpr18(channels: int = 16, levels: int = 6, width: float = 1.0) -> Autoencoder:
    """Mentzer et al. 2018 without importance map and context model. `width` scales the inner layers.

    image -> 5x5 s2 64 -> 5x5 s2 128 -> [5 x (3 blocks, +) -> block, +] -> 5x5 s2 C -> q -> 3x3 up 128 -> the same -> 5x5 up 64 -> 5x5 up 3
    """
    a, b = round(64 * width), round(128 * width)

    def trunk() -> nn.Module:
        return Residual(*(Residual(_unit(b), _unit(b), _unit(b)) for _ in range(5)), _unit(b))

    g_a = nn.Sequential(conv_bn(3, a, 5, 2), conv_bn(a, b, 5, 2), trunk(), conv_bn(b, channels, 5, 2, relu=False))
    g_s = nn.Sequential(_up(channels, b, 3), trunk(), _up(b, a), _up(a, 3, relu=False))
    return Autoencoder("cvpr18", g_a, g_s, channels, levels)


def edge(channels: int = 32, levels: int = 6, width: float = 1.0) -> Autoencoder:
    """At most 4 kMAC/px on the encoder side. One width only: it is small by design."""
    if width != 1.0:
        raise UsageError(f"codec.width must be 1 for edge, got {width}")

    def bottleneck() -> nn.Module:
        return Residual(conv_bn(128, 64, 1), conv_bn(64, 64, 3), conv_bn(64, 128, 1, relu=False))

    g_a = nn.Sequential(
        conv_bn(3, 64, 8, 4, padding=2),
        conv_bn(64, 128, 3, 2),
        bottleneck(),
        nn.ReLU(),
        bottleneck(),
        nn.ReLU(),
        conv_bn(128, channels, 1, relu=False),
    )
    # No batch norm here: it costs reconstruction fidelity, and a single upsampled picture has its own statistics.
    g_s = nn.Sequential(
        nn.Conv2d(channels, 128, 3, padding=1),
        nn.ReLU(),
        plain(128),
        plain(128),
        plain(128),
        nn.Conv2d(128, 256, 3, padding=1),
        nn.PixelShuffle(2),
        nn.ReLU(),
        plain(64),
        plain(64),
        plain(64),
        nn.Conv2d(64, 48, 3, padding=1),
        nn.PixelShuffle(4),
    )
    return Autoencoder("edge", g_a, g_s, channels, levels)


__all__ = [
    "Autoencoder",
    "Normalize",
    "Residual",
    "balanced",
    "conv_bn",
    "cvpr18",
    "edge",
    "fast",
    "plain",
    "theis3",
    "theis3_decoder",
]
