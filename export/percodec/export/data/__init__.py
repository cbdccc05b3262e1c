"""Data sets, in memory or decoded on access, always uint8; crops made on the fly.

Which one should I use? `load_camvid`, `load_voc` or `load_cityscapes` for segmentation, `load_imagenet` for classification,
`load_folder` for codec training and calibration, `load_synthetic` where there is no data at all; `load` takes any of them as
`kind:PATH:SPLIT`. `crops.Crops` turns pictures and labels into training batches (it needs torch; nothing here does).
"""

from percodec.export.data.dataset import DataSet, at_size
from percodec.export.data.files import Files, fitted
from percodec.export.data.large_sets import load_cityscapes, load_imagenet, load_voc
from percodec.export.data.sets import load
from percodec.export.data.small_sets import load_camvid, load_folder, load_synthetic

__all__ = [
    "DataSet",
    "Files",
    "at_size",
    "fitted",
    "load",
    "load_camvid",
    "load_cityscapes",
    "load_folder",
    "load_imagenet",
    "load_synthetic",
    "load_voc",
]
