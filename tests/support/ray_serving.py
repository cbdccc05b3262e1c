"""Clients of a server on Ray that compare whole answers, byte for byte, and the processes behind it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from percodec.runtime.serve.messages import message
from percodec.runtime.serve.requests import bytes_of
from support.processes import children, command
from support.serving import Serving


def request(packets: list[bytes], *outputs: str, model: str = "rich", **parameters: int) -> bytes:
    made = message("ModelInferRequest")(model_name=model, id="a")
    made.inputs.add(name="packet", datatype="BYTES", shape=[len(packets)])
    made.raw_input_contents.append(bytes_of(packets))
    for name in outputs:
        made.outputs.add(name=name)
    for name, value in parameters.items():
        made.parameters[name].int64_param = value
    return bytes(made.SerializeToString())


def ask(server: Serving, body: bytes) -> tuple[str, Any]:
    """(status, the answer's bytes or what it says)."""
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        try:
            return "OK", channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")(body, timeout=120)
        except grpc.RpcError as error:
            return error.code().name, error.details()  # type: ignore[attr-defined]


def at_once(calls: list[Callable[[], Any]], seconds: float = 180) -> list[Any]:
    """What the calls return, each in a thread of its own."""
    found: dict[int, Any] = {}
    threads = [threading.Thread(target=lambda k=k, call=call: found.update({k: call()})) for k, call in enumerate(calls)]  # type: ignore[misc]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    return [found[k] for k in range(len(calls))]


def workers() -> list[int]:
    """Processes that hold a replica, of the clusters that this process started."""
    return [pid for pid in children() if command(pid).startswith("ray::ServeReplica")]


__all__ = ["ask", "at_once", "request", "workers"]
