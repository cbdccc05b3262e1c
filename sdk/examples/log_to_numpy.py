"""A log's latents as one numpy file:  python log_to_numpy.py packets.mcap BUNDLE latents.npz

Writes `symbols` uint8 [N,C,h,w], `frame_ids` and `timestamps_ns` [N]. Needs percodec alone: no network, no OpenCV.
"""

from __future__ import annotations

import sys

import numpy as np

from percodec.sdk import Bundle, PacketCodec, PacketError, VideoCodec, read_log


def main(log_path: str, bundle_path: str, out: str) -> None:
    log, bundle = read_log(log_path, allow_damaged=True), Bundle.open(bundle_path)
    _, height, width = bundle.latent_shape
    key, stream = bundle.entropy_model, bundle.stream_model
    # A VideoCodec reads packets that stand alone as well as those of a stream.
    codec: PacketCodec | VideoCodec = PacketCodec(key, height, width) if stream is None else VideoCodec(key, stream, height, width)
    symbols, frame_ids, timestamps_ns = [], [], []
    for record in log:
        try:
            header, latent = codec.decode(record.packet)
        except PacketError as error:  # in a stream whose packets were lost, the next key packet decodes again
            print(f"frame {record.frame_id}: {error}", file=sys.stderr)
            continue
        symbols.append(latent)
        frame_ids.append(header.frame_id)
        timestamps_ns.append(header.timestamp_ns)
    np.savez_compressed(
        out, symbols=np.array(symbols, np.uint8), frame_ids=np.array(frame_ids), timestamps_ns=np.array(timestamps_ns, np.uint64)
    )
    print(f"{out}: {len(symbols)} latents of {'x'.join(map(str, bundle.latent_shape))}")
    if missed := log.complaint():
        raise SystemExit(f"{log_path}: {missed}")


if __name__ == "__main__":
    main(*sys.argv[1:])
