"""IDD Lite, Indian roads in seven coarse classes, with labels that networks of CamVid's eleven can learn from."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from percodec.export.data.dataset import GROUPS_FROM, DataSet
from percodec.export.data.files import IGNORE, label_of, label_table, labelled_split, read_label, read_rgb
from percodec.export.data.small_sets import CAMVID_CLASSES, digest_of

# Class id of IDD Lite -> CamVid's, of which a pixel is one: drivable, non-drivable, living, vehicles, roadside objects, far objects, sky.
CAMVID_OF_IDD = ((3,), (4,), (9, 10), (8,), (2, 6, 7), (1, 5), (0,))
_WIDTH = 480  # things are about as large as in CamVid's pictures


def load_idd_lite(root: Path, split: str) -> DataSet:
    """IDD Lite as `<root>/<split>/*.jpg` and `<root>/<split>_labels/*.png` (class ids 0..6, 255 unlabelled), enlarged to 480 pixels' width.

    A class of several in CamVid becomes a group (`DataSet.groups`). Raises `DataError` where a folder, a label or an id is not what this
    layout says.
    """
    notes: list[str] = []
    paths, label_folder = labelled_split(root, split, notes, "IDD Lite: ", f"{root}/<split>/ and {root}/<split>_labels/")
    groups = tuple(classes for classes in CAMVID_OF_IDD if len(classes) > 1)
    index = np.full(256, IGNORE, np.uint8)
    for k, classes in enumerate(CAMVID_OF_IDD):
        index[k] = classes[0] if len(classes) == 1 else GROUPS_FROM + groups.index(classes)
    table = label_table(range(len(CAMVID_OF_IDD)), [IGNORE])
    form = "IDD Lite labels are PNG files of ids, 0..6 and 255 (unlabelled), as large as their image"
    images, labels, label_paths = [], [], [label_of(p, label_folder) for p in paths]
    for path, beside in zip(paths, label_paths, strict=True):
        image = read_rgb(path, notes)
        label = index[read_label(beside, image.shape[:2], table, form)]
        size = (_WIDTH, round(image.shape[0] * _WIDTH / image.shape[1]))
        images.append(np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)))
        labels.append(np.asarray(Image.fromarray(label).resize(size, Image.Resampling.NEAREST)))
    digest = digest_of(paths + label_paths)
    return DataSet(f"idd_lite/{split}", images, labels, digest, classes=CAMVID_CLASSES, notes=tuple(notes), groups=groups)


__all__ = ["CAMVID_OF_IDD", "load_idd_lite"]
