"""A loop of one's own, frame after frame:  python own_loop.py SOURCE packets.mcap

What to do with a prediction is yours; here the share of road is printed. Frames may come from anywhere: `encode` also takes a numpy
array, uint8 [H,W,3] RGB of any size.
"""

from __future__ import annotations

import sys

from percodec.runtime import Session, open_source
from percodec.sdk import LogWriter


def main(spec: str, path: str) -> None:
    source = open_source(spec)
    with Session.open() as session, LogWriter(path, session.bundle, live=source.info.live) as log:
        road = next(label.id for label in session.bundle.labels if label.name == "Road")
        while (frame := source.read()) is not None:
            latent = session.encode(frame)  # the frame's identity goes along
            prediction = session.predict(latent)
            packet = session.pack(latent)
            log.append(packet, latent.frame_id, latent.timestamp_ns)
            print(f"frame {latent.frame_id}: {(prediction.labels == road).mean():.0%} road, {len(packet)} bytes")
    source.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
