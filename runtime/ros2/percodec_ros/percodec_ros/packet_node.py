"""What `predict` and `decode` share: packets come in, their gaps are counted, and one thread works on the newest."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

from sensor_msgs.msg import CompressedImage

from percodec.runtime.messages.cdr import CompressedImage as CompressedCdr
from percodec.runtime.messages.format import PacketFormat
from percodec.runtime.messages.mailbox import Mailbox
from percodec.runtime.messages.topic_source import Arrivals, Origin
from percodec.runtime.messages.topic_status import Snapshot
from percodec.runtime.pipeline.records import Counts
from percodec.runtime.session import Session
from percodec.sdk.codec import PacketHeader, parse_header
from percodec.sdk.codec.header import WRAP
from percodec.sdk.errors import BundleError, MessageError, PacketError, PercodecError, UsageError, reason
from percodec.sdk.fit import PAD
from percodec_ros.node import PercodecNode
from percodec_ros.outputs import Publishers
from percodec_ros.topic_input import TopicInput

WAITING = 10  # packets
MAX_PIXELS = 1 << 25  # of a picture at its own size


class PacketNode(PercodecNode):
    """A node has `work`, and `heads` where it needs any. It follows one stream of packets.

    `takes_whole`: also packets of pictures at their own size, as `percodec bag` makes them.
    """

    takes_whole = False

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.image_topic = self.resolve_topic_name("image_raw")
        self.outlets = Publishers(self)
        self._session: Session | None = None
        self._thread: threading.Thread | None = None
        self._arrivals, self._counts = Arrivals(), Counts()
        self._last: PacketHeader | None = None
        self._lost = 0
        self._fatal = ""

    @property
    def session(self) -> Session:
        """The one that is open."""
        assert self._session is not None, "a configured node has a session"
        return self._session

    @property
    def wanted(self) -> bool:
        """Somebody subscribes to something, or `lazy` is off."""
        return not self.value("lazy") or self.outlets.subscribers > 0

    def heads(self) -> tuple[str, ...]:
        """To open."""
        return ()

    def work(self, packet: Any, origin: Origin, format: PacketFormat) -> bool:
        """Publish what one packet gives; whether it gave anything. On the node's own thread. Raises `PercodecError`."""
        raise AssertionError("each node has its own")

    # -- life --------------------------------------------------------------------------------------------------------------
    def open(self) -> None:
        self._session = Session.open(
            self.bundle,
            backend=self.value("backend"),
            heads=self.heads(),
            threads=self.value("threads"),
            provider=self.value("provider") or None,
            transfer=self.value("transfer"),
        )

    def begin(self) -> None:
        self._arrivals, self._counts, self._last, self._lost, self._fatal = Arrivals(), Counts(), None, 0, ""
        self._mailbox: Mailbox[tuple[Any, Origin, PacketFormat, int]] = Mailbox(WAITING)
        self._thread = threading.Thread(target=self._works, name="percodec-packets", daemon=True)
        self._thread.start()
        self.input = TopicInput(
            self,
            CompressedImage,
            f"{self.image_topic}/percodec",
            self._take,
            reliability=self.value("input_reliability"),
            depth=WAITING,
            wanted=lambda: self.wanted,
        )

    def end(self) -> None:
        if self._thread is not None:
            self._mailbox.close()
            self._thread.join()
            self._thread = None
            self.outlets.settle()
            counts = self._counts
            self.get_logger().info(f"packets {counts.captured}, results {counts.predicted}, lost on the way {self._lost}")

    def close(self) -> None:
        self.outlets.close()
        if self._session is not None:
            self._session.close()
            self._session = None

    def failed(self) -> str:
        return self._fatal

    def fill(self, snapshot: Snapshot) -> None:
        snapshot.about["subscribers"] = str(self.outlets.subscribers)
        snapshot.lost_packets = self._lost
        snapshot.arrivals, snapshot.counts = replace(self._arrivals), replace(self._counts)
        if self.active_since:
            snapshot.superseded = self._mailbox.superseded

    # -- packets -------------------------------------------------------------------------------------------------------------
    def _take(self, message: bytes) -> None:
        now, arrivals = time.monotonic_ns(), self._arrivals
        arrivals.arrived, arrivals.last_ns = arrivals.arrived + 1, now
        try:
            found = CompressedCdr.from_cdr(message)
            format = PacketFormat.from_text(found.format)
            self._check_bundle(format)
            header = parse_header(found.data.data)
        except PercodecError as error:
            self._refuse(error)
            return
        if self._last is not None and header.stream_id != self._last.stream_id:
            self._refuse(MessageError(f"packets of stream {self._last.stream_id} and of {header.stream_id}: two cameras on one topic"))
            return
        self._follow(header)
        arrivals.stamp_age_ms = (self.now_ns() - found.header.stamp_ns) / 1e6
        self._mailbox.put((found.data, Origin(found.header, format.encoding, format.width, format.height), format, now))

    def _check_bundle(self, format: PacketFormat) -> None:
        bundle = self.bundle
        if not any(digest.startswith(format.digest) for digest in (bundle.digest, *bundle.manifest.get("supersedes", ()))):
            raise MessageError(
                f"packets are of bundle {format.bundle}@{format.digest}, this node has {bundle.name}@{bundle.digest[:12]}; "
                "set the parameter bundle"
            )
        if format.fit == PAD and not self.takes_whole:
            raise MessageError("packets of pictures at their own size are for `decode` and `percodec bag`; heads are trained for one size")
        if format.fit == PAD and format.width * format.height > MAX_PIXELS:
            raise MessageError(f"a picture of {format.width}x{format.height} is too large for a node; use `percodec bag restore`")

    def _follow(self, header: PacketHeader) -> None:
        """A step of the counter beyond one is so many packets lost; a step back is a sender that began anew."""
        if self._last is not None:
            step = (header.counter - self._last.counter) % WRAP
            if 1 < step < WRAP // 2:
                self._lost += step - 1
        self._last = header

    def _refuse(self, error: PercodecError) -> None:
        self._arrivals.refused += 1
        self._arrivals.why = reason(error)

    def _works(self) -> None:
        while (taken := self._mailbox.take()) is not None:
            packet, origin, format, received_ns = taken
            self._counts.captured += 1
            try:
                done = self.work(packet, origin, format)
            except (MessageError, PacketError, UsageError, BundleError) as error:  # of this message, or of its size
                self._refuse(error)
            except PercodecError as error:
                self._fatal = f"a network failed: {reason(error)}"
            else:
                self._counts.predicted += done
                self.status.latency_ms.add((time.monotonic_ns() - received_ns) / 1e6)
                self.status.packet_bytes.add(packet.size)


__all__ = ["WAITING", "PacketNode"]
