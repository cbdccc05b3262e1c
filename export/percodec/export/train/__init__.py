"""Training: `train_codec` (reconstruction and rate), `train_segmentation` (a head, alone or jointly with the codec)."""
