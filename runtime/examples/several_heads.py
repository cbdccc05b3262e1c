"""Several heads on one latent:  python several_heads.py BUNDLE frame.png HEAD ...

The encoder runs once. A head gives arrays by name: `labels` of a segmentation, `probs` of a classification, whatever an `array` head has.
"""

from __future__ import annotations

import sys

from percodec.runtime import Session, open_source
from percodec.sdk import DataError


def main(bundle: str, picture: str, *heads: str) -> None:
    frame = open_source(picture).read()
    if frame is None:
        raise DataError(f"{picture} has no picture in it")
    with Session.open(bundle, heads=heads or ["all"]) as session:
        latent = session.encode(frame)
        for name in session.heads:
            for output, array in session.predict(latent, name).outputs.items():
                print(f"{name}.{output}: {array.dtype} {list(array.shape)}, {array.min():.3g} to {array.max():.3g}")


if __name__ == "__main__":
    main(*sys.argv[1:])
