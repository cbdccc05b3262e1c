"""`connect`: the `Link` for a broker's address. A client library is imported when its kind of broker is used."""

from __future__ import annotations

from collections.abc import Callable

from percodec.runtime.uplink.credentials import Credentials
from percodec.runtime.uplink.link import Link


async def connect(url: str, credentials: Credentials | None, vehicle: str, on_stored: Callable[[bytes], None]) -> Link:
    """`on_stored`: gets what the archive says to this vehicle. Raises `Unreachable`, `UplinkError` where one is refused."""
    if url.startswith("nats:"):
        from percodec.runtime.uplink.nats_link import connect_nats

        return await connect_nats(url, credentials, vehicle, on_stored)
    from percodec.runtime.uplink.mqtt_link import connect_mqtt

    return await connect_mqtt(url, credentials, vehicle, on_stored)


__all__ = ["connect"]
