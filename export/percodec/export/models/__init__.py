"""The networks (torch): autoencoders, the quantizer between them, and compressed-domain heads.

Which one should I use? `edge` when the encoder runs on the vehicle beside perception (at most 4 kMAC/px);
`theis3` to reproduce the paper's operating points (about 71 kMAC/px).
"""

from percodec.export.models.autoencoder import AUTOENCODERS, Autoencoder, edge, theis3
from percodec.export.models.quantizer import Quantizer, rate_bits_per_symbol
from percodec.export.models.segmentation import LatentFPN

__all__ = ["AUTOENCODERS", "Autoencoder", "LatentFPN", "Quantizer", "edge", "rate_bits_per_symbol", "theis3"]
