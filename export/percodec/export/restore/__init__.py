"""Dataset restoration: undo in a training set what compression did to it (Katakol et al. 2020; networks and losses are ours).

    clean pictures -> codec at some rates -> pairs -> `restore train` -> restorer.onnx
    compressed data set -> `restore apply` -> restored data set -> `train segmentation`
    `shift`: who loses what, trained on one and tested on the other

Which one should I use? The default restorer (`restore-gan`) where logs arrive compressed and the vehicle sees originals. The others of
`networks` and `losses` are its rivals. Nothing here runs on a vehicle.
"""

FORMS = "jpeg:0.1 or jpeg:q30 (also jpeg2000, webp, avif, hevc), percodec:BUNDLE, hyperprior:CHECKPOINT"

__all__ = ["FORMS"]
