"""The latents of a log, in order, whatever kinds of packets are in it. `decode` and `replay` read logs by this.

key packet         decoded alone
predicted packet   decoded after the packet before it; where that one is missing, lost up to the next key packet
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from percodec.runtime.session import stream_codec
from percodec.sdk.bundle import Bundle
from percodec.sdk.codec import PacketCodec, PacketHeader, VideoCodec, parse_header
from percodec.sdk.errors import BundleError, LogError
from percodec.sdk.log import LogReader, LogRecord, read_log


class LoggedLatents:
    """Iterates (record, symbols uint8 [C,h,w]); the symbols are the caller's.

    `lost`: frame ids whose packet is there, but needs one that is not; `repeated`: packets that came twice or too late and were left out.
    Both are complete after an iteration, as `log.truncated` and `log.damaged` are. Raises `BundleError` for a log of another bundle, or
    with predicted packets where the bundle has no tables for them; `PacketError`.
    """

    def __init__(self, path: Path, bundle: Bundle) -> None:
        self.log: LogReader = read_log(path, allow_damaged=True)
        check_log_bundle(path, self.log.bundle_digest, self.log.bundle_name, bundle)
        self.lost: list[int] = []
        self.repeated = 0
        self._bundle = bundle
        self._alone = PacketCodec(bundle.entropy_model, *bundle.latent_shape[1:])

    def __iter__(self) -> Iterator[tuple[LogRecord, NDArray[np.uint8]]]:
        self.lost, self.repeated = [], 0
        streams: dict[int, VideoCodec] = {}
        keys: dict[int, bytes] = {}  # the key packet a predicted one may follow, until it has
        last: dict[int, PacketHeader] = {}  # decoded, of each stream
        for record in self.log:
            header = parse_header(record.packet)
            stream = header.stream_id
            if stream in last and header.repeats(last[stream]):
                self.repeated += 1
                continue
            if header.key:
                keys[stream], last[stream] = record.packet, header
                yield record, self._alone.decode(record.packet)[1]
                continue
            if self._bundle.stream_model is None:
                raise BundleError(
                    f"{self.log.path}: frame {record.frame_id} is a predicted packet, of which bundle {self._bundle.name} has no tables; "
                    "name the bundle it was logged with"
                )
            if not header.follows(last.get(stream)):
                self.lost.append(record.frame_id)
                continue
            if stream in keys:
                streams[stream] = stream_codec(self._bundle)
                streams[stream].decode(keys.pop(stream))
            _, symbols = streams[stream].decode(record.packet)
            last[stream] = header
            yield record, symbols

    def complaint(self) -> str:
        """What was missing in the last iteration, for one line; "" for a whole log."""
        parts = [said] if (said := self.log.complaint()) else []
        if self.lost:
            several = f"{len(self.lost)} frames (first {self.lost[0]})" if len(self.lost) > 1 else f"frame {self.lost[0]}"
            parts.append(f"{several} could not be decoded: the packet before is missing, up to the next key packet")
        return "; ".join(parts)


def check_log_bundle(path: Path, digest: str, name: str, bundle: Bundle) -> None:
    """Raises BundleError when the log was written with another bundle than this one or those it supersedes."""
    if not bundle.answers_to(digest):
        raise BundleError(
            f"{path}: was logged with bundle {name} {digest[:12]}, not {bundle.name} {bundle.digest[:12]}; name the right one with --bundle"
        )


def complain(latents: LoggedLatents, done: str) -> None:
    """Raises LogError where the last iteration missed something. `done`: what was made of the rest."""
    missing = latents.complaint()
    if missing:
        raise LogError(f"{latents.log.path}: {missing}; {done}. --allow-damaged takes it as it is")


__all__ = ["LoggedLatents", "check_log_bundle", "complain"]
