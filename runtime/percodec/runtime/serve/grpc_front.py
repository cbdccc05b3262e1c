"""Open Inference Protocol over gRPC. Requests come as bytes and are parsed here, so that what is no message is refused as such."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from percodec.runtime.serve.desk import MAX_OPEN, Desk, seconds_of, server_metadata
from percodec.runtime.serve.messages import SERVICE, message
from percodec.runtime.serve.predictor import Tensor
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import MAX_ID, Asked, Given, elements_of
from percodec.runtime.serve.tls import Tls
from percodec.sdk.errors import UsageError

_LOG = logging.getLogger("percodec.serve")


class GrpcFront:
    """The six methods of the protocol for one desk."""

    def __init__(self, desk: Desk, address: str, tls: Tls | None) -> None:
        """Binds. Raises `UsageError` where the address cannot be had."""
        import grpc

        self._desk = desk
        options = [
            ("grpc.max_receive_message_length", desk.limits.body_bytes),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),
            ("grpc.max_concurrent_streams", 64),  # of one connection
        ]
        self._server = grpc.aio.server(options=options, maximum_concurrent_rpcs=2 * MAX_OPEN)
        handlers = {
            name: grpc.unary_unary_rpc_method_handler(self._guarded(name, method))
            for name, method in (
                ("ServerLive", self._live), ("ServerReady", self._ready), ("ModelReady", self._model_ready),
                ("ServerMetadata", self._server_metadata), ("ModelMetadata", self._model_metadata), ("ModelInfer", self._infer),
            )
        }  # fmt: skip
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        try:
            port = self._server.add_insecure_port(address) if tls is None else self._server.add_secure_port(address, tls.grpc())
        except RuntimeError:
            port = 0
        if port == 0:
            raise UsageError(f"--grpc {address}: cannot be bound; is another server there?")
        self.address = f"{address.rpartition(':')[0]}:{port}"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        """No new calls; those that have begun end, or are cancelled after `drain_s`."""
        await self._server.stop(self._desk.limits.drain_s)

    def _guarded(self, name: str, method: Callable[[Any, Any], Awaitable[Any]]) -> Callable[[bytes, Any], Awaitable[bytes]]:
        """Bytes to bytes; a `Refusal` becomes the call's status."""
        import grpc

        kind = message(f"{name}Request")

        async def call(data: bytes, context: Any) -> bytes:
            try:
                try:
                    request = kind.FromString(data)
                except Exception:  # protobuf has one of its own, a base class of which differs between versions
                    raise Refusal(Why.INVALID, f"{len(data)} bytes that are no {name}Request") from None
                return bytes((await method(request, context)).SerializeToString())
            except Refusal as refusal:
                code, text = refusal.why.grpc, str(refusal)
            except (asyncio.CancelledError, grpc.aio.AbortError):
                raise
            except Exception:
                _LOG.exception("%s", name)
                code, text = Why.DEFECT.grpc, "the server failed; its log says why"
            return await context.abort(getattr(grpc.StatusCode, code), text)  # type: ignore[no-any-return]

        return call

    async def _live(self, request: Any, context: Any) -> Any:
        return message("ServerLiveResponse")(live=True)

    async def _ready(self, request: Any, context: Any) -> Any:
        return message("ServerReadyResponse")(ready=self._desk.ready)

    async def _model_ready(self, request: Any, context: Any) -> Any:
        self._desk.model(request.name, request.version)
        return message("ModelReadyResponse")(ready=self._desk.ready)

    async def _server_metadata(self, request: Any, context: Any) -> Any:
        return message("ServerMetadataResponse")(**server_metadata())

    async def _model_metadata(self, request: Any, context: Any) -> Any:
        return message("ModelMetadataResponse")(**self._desk.metadata(self._desk.model(request.name, request.version)))

    async def _infer(self, request: Any, context: Any) -> Any:
        async with self._desk.request("grpc") as entry:
            if len(request.id) > MAX_ID:
                raise Refusal(Why.INVALID, f"an id has at most {MAX_ID} characters")
            inputs = _inputs(request, self._desk.limits.packets)
            asked = [Asked(one.name, _parameter(one.parameters, "encoding", str)) for one in request.outputs]
            seconds = [context.time_remaining(), seconds_of(_parameter(request.parameters, "timeout", int))]
            limit = min((one for one in seconds if one is not None), default=None)
            model, tensors = await self._desk.infer(entry, request.model_name, request.model_version, inputs, asked, limit)
            response = message("ModelInferResponse")(model_name=model.name, model_version=model.version, id=request.id)
            response.parameters["digest"].string_param = model.digest
            _give(response, tensors)
            return response


def _inputs(request: Any, most: int) -> list[Given]:
    raw = request.raw_input_contents
    if raw and len(raw) != len(request.inputs):
        raise Refusal(Why.INVALID, f"{len(request.inputs)} inputs and {len(raw)} raw contents")
    found = []
    for k, one in enumerate(request.inputs):
        if raw and one.HasField("contents"):
            raise Refusal(Why.INVALID, f"the contents of input {one.name[:60]!a} are there twice")
        elements = elements_of(raw[k], most) if raw and one.datatype == "BYTES" else list(one.contents.bytes_contents)
        found.append(Given(one.name, one.datatype, tuple(one.shape), elements))
    return found


def _parameter(parameters: Any, name: str, kind: type) -> Any:
    if name not in parameters:
        return None
    value = getattr(parameters[name], parameters[name].WhichOneof("parameter_choice") or "", None)
    if type(value) is not kind:
        raise Refusal(Why.INVALID, f"the parameter {name} is of another type")
    return value


def _give(response: Any, tensors: list[Tensor]) -> None:
    for tensor in tensors:
        response.outputs.add(name=tensor.name, datatype=tensor.datatype, shape=tensor.shape)
        response.raw_output_contents.append(tensor.data)


__all__ = ["GrpcFront"]
