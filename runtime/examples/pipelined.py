"""All stages at the same time, with one's own code at the end:  python pipelined.py SOURCE

Capture, encoder, heads and coder run in threads of their own, over buffers that are allocated once. What is not predicted in time is
dropped and counted, never lost in silence.
"""

from __future__ import annotations

import sys

import numpy as np

from percodec.runtime import Outputs, PipelineOptions, Session, open_source
from percodec.sdk import Prediction


def main(spec: str) -> None:
    sizes: list[int] = []

    def on_prediction(prediction: Prediction) -> None:  # its arrays are reused: copy what must stay
        if prediction.valid and prediction.frame_id % 5 == 0:
            print(f"frame {prediction.frame_id}: classes {np.unique(prediction.labels).tolist()}")

    def on_packet(packet: bytes, frame_id: int, timestamp_ns: int) -> None:
        sizes.append(len(packet))

    with Session.open() as session:
        source = open_source(spec)
        outputs = Outputs(on_prediction=on_prediction, on_packet=on_packet)
        counts = session.pipeline(source, options=PipelineOptions(policy="block", workers=2), outputs=outputs).run()
    print(f"{counts.captured} frames, {counts.predicted} predicted, dropped {counts.dropped or 'none'}, {sum(sizes)} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
