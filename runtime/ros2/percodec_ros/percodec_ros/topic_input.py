"""A subscription that fits itself to what the publishers offer, takes messages as bytes, and knows what the middleware lost.

Best effort receives from everybody, so it comes first. Once every publisher offers reliable, so do we: large images hardly ever arrive
otherwise. A publisher that offers less later brings best effort back for good.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSCompatibility, QoSProfile, ReliabilityPolicy, qos_check_compatible

from percodec.runtime.messages.topic_status import Input

try:
    from rclpy.event_handler import SubscriptionEventCallbacks, UnsupportedEventTypeError
except ImportError:  # Humble
    from rclpy.qos_event import SubscriptionEventCallbacks, UnsupportedEventTypeError

DEPTH = 5


class TopicInput:
    """Every method on the executor's thread, where alone subscriptions may come and go. `about`: what diagnostics are told."""

    def __init__(
        self,
        node: Node,
        kind: type[Any],
        topic: str,
        take: Callable[[bytes], None],
        *,
        reliability: str = "auto",
        depth: int = DEPTH,
        wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        self.about = Input(topic)
        self._node, self._kind, self._deliver, self._depth, self._wanted = node, kind, take, depth, wanted
        self._auto = reliability == "auto"
        self._reliable = reliability == "reliable"
        self._raised = False
        self._subscription: Any = None
        self.look()

    def look(self) -> None:
        """Twice a second: who publishes, does it fit, is anything wanted."""
        offers = [info.qos_profile for info in self._node.get_publishers_info_by_topic(self.about.topic)]
        self.about.publishers = len(offers)
        if self._auto and offers:
            all_reliable = all(offer.reliability == ReliabilityPolicy.RELIABLE for offer in offers)
            if all_reliable and not self._reliable and not self._raised:
                self._close()
                self._reliable = self._raised = True
            elif self._reliable and not all_reliable:
                self._close()
                self._reliable = False
        if not self._wanted():
            self._close()
        elif self._subscription is None:
            self._open()
        self.about.mismatch = self._mismatch(offers)

    def close(self) -> None:
        """No further message."""
        self._close()

    def _qos(self) -> QoSProfile:
        reliability = ReliabilityPolicy.RELIABLE if self._reliable else ReliabilityPolicy.BEST_EFFORT
        return QoSProfile(depth=self._depth, reliability=reliability, durability=DurabilityPolicy.VOLATILE)

    def _open(self) -> None:
        qos = self._qos()
        self.about.reliability = "reliable" if self._reliable else "best_effort"
        try:
            events = SubscriptionEventCallbacks(message_lost=self._lost)
            self._subscription = self._node.create_subscription(
                self._kind, self.about.topic, self._take, qos, raw=True, event_callbacks=events
            )
        except UnsupportedEventTypeError:  # not every middleware tells
            self._subscription = self._node.create_subscription(self._kind, self.about.topic, self._take, qos, raw=True)

    def _close(self) -> None:
        if self._subscription is not None:
            self._node.destroy_subscription(self._subscription)
            self._subscription = None

    def _take(self, message: bytes) -> None:
        self.about.message_bytes = len(message)
        self._deliver(message)

    def _lost(self, event: Any) -> None:
        self.about.lost += event.total_count_change

    def _mismatch(self, offers: list[QoSProfile]) -> str:
        asked = self._qos()
        for offer in offers:
            fits, why = qos_check_compatible(offer, asked)
            if fits == QoSCompatibility.ERROR:
                return f"{self.about.topic}: a publisher offers {_shown(offer)}, this node asks for {_shown(asked)}: {why.strip(' ;')}"
        return ""


def _shown(qos: QoSProfile) -> str:
    return f"{qos.reliability.name.lower()}, {qos.durability.name.lower()}"


__all__ = ["DEPTH", "TopicInput"]
