"""Open Inference Protocol over HTTP, a packet as plain body for curl, health, and metrics.

| request | gives |
|---|---|
| GET /v2, /v2/health/live, /v2/health/ready, /v2/models/NAME[/versions/V][/ready] | JSON of the protocol |
| POST /v2/models/NAME[/versions/V]/infer | the same, and tensors in binary behind it |
| POST /v1/predict/NAME, one packet as body | JSON; with `Accept: image/png` ?picture=labels, reconstruction or overlay |
| GET /metrics | what Prometheus reads |
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

from percodec.runtime.serve.desk import Desk, server_metadata
from percodec.runtime.serve.http_tensors import HEADER, answer_of, question_of
from percodec.runtime.serve.refusal import Refusal, Why
from percodec.runtime.serve.requests import Asked, Given, elements_of
from percodec.runtime.serve.summary import summary_of
from percodec.runtime.serve.tls import Tls
from percodec.sdk.errors import UsageError

_LOG = logging.getLogger("percodec.serve")
_HEAD_S = 30.0  # for the first request of a connection to begin
_BODY_S = 30.0  # for a request's body to arrive
_PICTURES = ("labels", "reconstruction", "overlay")


class HttpFront:
    """aiohttp does the work: parser, caps, TLS and draining in one library that runs in any loop."""

    def __init__(self, desk: Desk, address: str, tls: Tls | None) -> None:
        from aiohttp import web

        self._web, self._desk, self._tls = web, desk, tls
        self._host, _, port = address.rpartition(":")
        self._port = int(port)
        self.address = address
        self._silent: set[Any] = set()  # young connections that have sent no request yet

        @web.middleware
        async def guard(request: Any, handler: Any) -> Any:
            return await self._guarded(request, handler)

        application = web.Application(middlewares=[guard], client_max_size=desk.limits.body_bytes)
        models = "/v2/models/{model}"
        application.add_routes([
            web.get("/v2", self._server), web.get("/v2/health/live", self._live), web.get("/v2/health/ready", self._ready),
            web.get("/metrics", self._metrics), web.post("/v1/predict/{model}", self._predict),
            *(web.get(path, self._model) for path in (models, f"{models}/versions/{{version}}")),
            *(web.get(f"{path}/ready", self._model_ready) for path in (models, f"{models}/versions/{{version}}")),
            *(web.post(f"{path}/infer", self._infer) for path in (models, f"{models}/versions/{{version}}")),
        ])  # fmt: skip
        self._runner = web.AppRunner(application, access_log=None, handler_cancellation=True, shutdown_timeout=desk.limits.drain_s)

    async def start(self) -> None:
        """Raises `UsageError` where the address cannot be had."""
        await self._runner.setup()
        self._end_silent_ones(self._runner.server)
        context = None if self._tls is None else self._tls.http()
        site = self._web.TCPSite(self._runner, self._host.strip("[]"), self._port, ssl_context=context)
        try:
            await site.start()
        except OSError as error:
            await self._runner.cleanup()
            raise UsageError(f"--http {self.address}: cannot be bound ({error.strerror}); is another server there?") from error
        self.address = f"{self._host}:{self._runner.addresses[0][1]}"

    def _end_silent_ones(self, server: Any) -> None:
        """Else whoever connects and says nothing, or half a head, holds a file of this process for ever; aiohttp has no limit for that."""
        made, loop = server.connection_made, asyncio.get_running_loop()

        def end(connection: Any) -> None:
            if connection in self._silent:
                self._silent.remove(connection)
                if connection.transport is not None:
                    connection.transport.abort()

        def connection_made(connection: Any, transport: Any) -> None:
            made(connection, transport)
            self._silent.add(connection)
            loop.call_later(_HEAD_S, end, connection)

        server.connection_made = connection_made

    async def stop(self) -> None:
        """No new connections; requests that have begun end, or are cancelled after `drain_s`."""
        await self._runner.cleanup()

    async def _guarded(self, request: Any, handler: Any) -> Any:
        self._silent.discard(request.protocol)
        try:
            return await handler(request)
        except Refusal as refusal:
            status, text = refusal.why.http, str(refusal)
        except self._web.HTTPException as found:  # no such path, another method
            status, text = found.status, f"{request.method} {ascii(request.path)[1:-1][:100]}: {found.reason}"
        except asyncio.CancelledError:
            raise
        except Exception:
            _LOG.exception("%s", request.path[:100])
            status, text = Why.DEFECT.http, "the server failed; its log says why"
        headers = {"Retry-After": "1"} if status in (429, 503) else {}
        return self._web.json_response({"error": text}, status=status, headers=headers)

    async def _body(self, request: Any) -> bytes:
        try:
            return bytes(await asyncio.wait_for(request.read(), _BODY_S))
        except asyncio.TimeoutError:
            raise Refusal(Why.LATE, f"the body did not arrive within {_BODY_S:.0f} s") from None
        except self._web.HTTPRequestEntityTooLarge:
            raise Refusal(Why.TOO_LARGE, f"a body has at most {self._desk.limits.body_bytes} bytes") from None
        except self._web.HTTPException:
            raise
        except (ValueError, OSError, self._web.RequestPayloadError):
            raise Refusal(Why.INVALID, "the body cannot be read: cut off, or in another encoding than its headers say") from None

    async def _server(self, request: Any) -> Any:
        return self._web.json_response(server_metadata())

    async def _live(self, request: Any) -> Any:
        return self._web.json_response({"live": True})

    async def _ready(self, request: Any) -> Any:
        return self._web.json_response({"ready": self._desk.ready}, status=200 if self._desk.ready else 503)

    async def _model_ready(self, request: Any) -> Any:
        self._model_of(request)
        return await self._ready(request)

    async def _model(self, request: Any) -> Any:
        return self._web.json_response(self._desk.metadata(self._model_of(request)))

    async def _metrics(self, request: Any) -> Any:
        text, kind = self._desk.metrics.text()
        return self._web.Response(body=text, headers={"Content-Type": kind})

    def _model_of(self, request: Any) -> Any:
        return self._desk.model(request.match_info["model"], request.match_info.get("version", ""))

    async def _infer(self, request: Any) -> Any:
        async with self._desk.request("http") as entry:
            entry.model = self._model_of(request).name
            question = question_of(await self._body(request), request.headers.get(HEADER), self._desk.limits.packets)
            version = request.match_info.get("version", "")
            model, tensors = await self._desk.infer(entry, entry.model, version, question.inputs, question.asked, question.seconds)
            body, length = await asyncio.to_thread(answer_of, model, question, tensors)
            if length is None:
                return self._web.Response(body=body, content_type="application/json")
            return self._web.Response(body=body, content_type="application/octet-stream", headers={HEADER: str(length)})

    async def _predict(self, request: Any) -> Any:
        async with self._desk.request("http") as entry:
            model = self._model_of(request)
            entry.model = model.name
            wants_png = "image/png" in request.headers.get("Accept", "")
            picture = request.query.get("picture", _PICTURES[0])
            if picture not in _PICTURES:
                raise Refusal(Why.INVALID, f"picture is {', '.join(_PICTURES)}; got {picture[:60]!a}")
            packet = await self._body(request)
            asked = [Asked(picture, "png")] if wants_png else []
            model, tensors = await self._desk.infer(entry, model.name, "", [Given("packet", "BYTES", (1,), [packet])], asked, None)
            if wants_png:
                (data,) = elements_of(tensors[0].data, 1)
                return self._web.Response(body=data, content_type="image/png")
            return self._web.Response(body=json.dumps(summary_of(model, tensors)).encode() + b"\n", content_type="application/json")


__all__ = ["HttpFront"]
