"""The networks (torch): autoencoders, the quantizer between them, and the perception networks behind them.

Which one should I use? `edge` when the encoder runs on the vehicle beside perception (at most 4 kMAC/px); `fast` where it may
cost what JPEG costs (0.3 kMAC/px), `balanced` where two or three times JPEG is not too much (1.0 kMAC/px); `theis3` to reproduce the
paper's operating points (about 71 kMAC/px); `cvpr18` where quality matters more than time (about 310 kMAC/px).
Heads: see `heads`.
"""

from percodec.export.models.autoencoder import Autoencoder, balanced, cvpr18, edge, fast, theis3
from percodec.export.models.codecs import AUTOENCODERS
from percodec.export.models.heads import HEADS, INPUTS, build_head, head_kind
from percodec.export.models.linear import block, refined
from percodec.export.models.quantizer import Quantizer, rate_bits_per_symbol
from percodec.export.models.resnet import STAGES, Classifier, DeepLab, ResNet
from percodec.export.models.segmentation import LatentFPN
from percodec.export.models.shrinking import Shrinking, shrunk
from percodec.export.models.steps import Steps

__all__ = [
    "AUTOENCODERS",
    "HEADS",
    "INPUTS",
    "STAGES",
    "Autoencoder",
    "Classifier",
    "DeepLab",
    "LatentFPN",
    "Quantizer",
    "ResNet",
    "Shrinking",
    "Steps",
    "balanced",
    "block",
    "build_head",
    "cvpr18",
    "edge",
    "fast",
    "head_kind",
    "rate_bits_per_symbol",
    "refined",
    "shrunk",
    "theis3",
]
