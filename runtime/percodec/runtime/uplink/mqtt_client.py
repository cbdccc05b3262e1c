"""One MQTT 5 connection for asyncio, over paho's own thread; `mqtt_link` and `mqtt_source` are its two users."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.link import Unreachable
from percodec.sdk.errors import UplinkError

_KEEPALIVE_S = 5
_PATIENCE_S = 8.0


class MqttClient:
    """`on_message(topic, payload, acknowledge)` is called in the loop's thread. `lost` is set when the connection is gone."""

    def __init__(self, name: str, on_message: Callable[[str, bytes, Callable[[], None]], None], keep: bool) -> None:
        from paho.mqtt import client as paho
        from paho.mqtt.enums import CallbackAPIVersion
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        self.lost = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._on_message = on_message
        self._paho = paho.Client(
            CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5, manual_ack=True, reconnect_on_failure=False
        )
        self._properties: Any = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        self._properties.SessionExpiryInterval = 7 * 86400 if keep else 0
        self._properties.ReceiveMaximum = 256
        self._clean = not keep
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._done: dict[int, Callable[[str], None]] = {}
        self._paho.on_connect, self._paho.on_disconnect = self._connect_came, self._disconnect_came
        self._paho.on_message, self._paho.on_publish = self._message_came, self._publish_came

    async def open(self, url: str, credentials: Credentials | None) -> None:
        """Raises `Unreachable`, `UplinkError`."""
        host, port = urlsplit(url).hostname or "", urlsplit(url).port or 0
        if credentials is not None:
            self._paho.tls_set_context(credentials.context())
        try:
            await asyncio.to_thread(self._paho.connect, host, port, _KEEPALIVE_S, clean_start=self._clean, properties=self._properties)
        except ssl.SSLCertVerificationError as error:
            raise UplinkError(f"{url}: the broker's certificate is not accepted ({error.verify_message}); check --ca") from error
        except ssl.SSLError as error:
            if "ALERT" in (error.reason or ""):
                raise UplinkError(f"{url}: the broker does not accept the certificate ({error.reason}); ask who runs the broker") from error
            raise Unreachable(f"{url}: no TLS ({error.reason or error})") from error
        except OSError as error:
            raise Unreachable(f"{url}: no answer ({error})") from error
        self._paho.loop_start()
        try:
            await asyncio.wait_for(asyncio.shield(self._connected), _PATIENCE_S)
        except asyncio.TimeoutError as error:
            raise Unreachable(f"{url}: no answer within {_PATIENCE_S:.0f} s") from error

    async def subscribe(self, topic: str) -> None:
        """At least once, from now on."""
        await asyncio.to_thread(self._paho.subscribe, topic, 1)

    def publish(self, topic: str, body: bytes, done: Callable[[str], None] | None) -> None:
        """`done` is called in the loop's thread when the broker has it, or refuses it. None: at most once, unanswered."""
        info = self._paho.publish(topic, body, qos=0 if done is None else 1)
        if info.rc not in (0, 4):  # 4: queued while there is no connection, which then is about to be lost
            self.lost.set()
        elif done is not None:
            self._done[info.mid] = done

    async def close(self) -> None:
        self.lost.set()
        await asyncio.to_thread(self._paho.disconnect)
        await asyncio.to_thread(self._paho.loop_stop)

    def _call(self, what: Callable[..., None], *words: Any) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(what, *words)

    def _connect_came(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        def settle() -> None:
            if self._connected.done():
                return
            if reason.is_failure:
                self._connected.set_exception(UplinkError(f"the broker refuses: {reason}; ask who runs the broker"))
            else:
                self._connected.set_result(None)

        self._call(settle)

    def _disconnect_came(self, client: Any, data: Any, flags: Any, reason: Any, properties: Any) -> None:
        def settle() -> None:
            self.lost.set()
            if not self._connected.done():
                self._connected.set_exception(Unreachable(f"the broker ended the connection ({reason})"))

        self._call(settle)

    def _publish_came(self, client: Any, data: Any, mid: int, reason: Any, properties: Any) -> None:
        refusal = f"the broker refuses: {reason}" if reason.is_failure else ""
        self._call(lambda: self._done.pop(mid, _nothing)(refusal))

    def _message_came(self, client: Any, data: Any, message: Any) -> None:
        mid, qos = message.mid, message.qos
        self._call(self._on_message, message.topic, bytes(message.payload), lambda: self._paho.ack(mid, qos))


def _nothing(refusal: str) -> None:
    """For what was published before this connection."""


__all__ = ["MqttClient"]
