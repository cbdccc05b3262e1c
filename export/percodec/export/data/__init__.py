"""Data sets: pictures in memory as uint8, crops made on the fly.

Which one should I use? `load_camvid` for segmentation, `load_folder` for codec training and calibration,
`load_synthetic` where there is no data at all. `Crops` turns any of them into training batches.
"""

from percodec.export.data.crops import Crops
from percodec.export.data.sets import DataSet, load, load_camvid, load_folder, load_synthetic

__all__ = ["Crops", "DataSet", "load", "load_camvid", "load_folder", "load_synthetic"]
