"""Probes and metrics over HTTP: what Knative's probes ask, and what everyone else does. Reads state, changes none."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Protocol

from .http_server import HttpServer, Request, Response
from .metrics import adapter_metrics, exposition, sink_metrics

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .sink import HttpSink

_TEXT = ((b"content-type", b"text/plain; charset=utf-8"),)
_JSON = ((b"content-type", b"application/json"),)
_PROMETHEUS = ((b"content-type", b"text/plain; version=0.0.4; charset=utf-8"),)
_OK = Response(200, b"ok\n", _TEXT)


class Lifecycle(Protocol):
    """What the probes ask of the runtime."""

    @property
    def stopping(self) -> bool:
        """Whether the program was told to stop."""

    def not_ready(self) -> tuple[str, ...]:
        """The sources whose intake is not established."""

    def sinks(self) -> Mapping[str, HttpSink]:
        """Every source's sink, by the source's name."""

    def adapters(self) -> Mapping[str, object]:
        """Every adapter that runs, by its source's name."""


class Health:
    """The probe server. Readiness is the adapters' alone: a sink's trouble shows at ``/sinkz`` and in the metrics.

    ========================  =============================================================================
    ``/healthz``              200 while the process runs
    ``/health``               the same; 500 once told to stop, as Knative's adapters
    ``/readyz`` ``/readiness``  200 when every source is ready; else 503 with the names of those that are not
    ``/metrics``              Prometheus text
    ``/sinkz``                JSON: each sink, up or down since when and why, and what became of its events
    ========================  =============================================================================
    """

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle
        self._servers: list[HttpServer] = []
        self._pages: Mapping[str, Callable[[], Response]] = {
            "/healthz": lambda: _OK,
            "/livez": lambda: _OK,
            "/health": self._health,
            "/readyz": self._ready,
            "/readiness": self._ready,
            "/metrics": self._metrics,
            "/sinkz": self._sinks,
        }

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen there (port 0: a free one); the bound address. Raises OSError where that is not possible."""
        server = HttpServer(self._answer, name="probes")
        bound = await server.start(host, port)
        self._servers.append(server)
        return bound

    async def stop(self) -> None:
        """Stop listening; answers on their way get a second."""
        for server in self._servers:
            await server.stop(1.0)

    def _answer(self, request: Request) -> Response:
        page = self._pages.get(request.path)
        if page is None:
            return Response(404, b"one of: " + " ".join(self._pages).encode() + b"\n", _TEXT)
        if request.method not in ("GET", "HEAD"):
            return Response(405, b"GET only\n", (*_TEXT, (b"allow", b"GET, HEAD")))
        return page()

    def _health(self) -> Response:
        return Response(500, b"stopping\n", _TEXT) if self._lifecycle.stopping else _OK

    def _ready(self) -> Response:
        if self._lifecycle.stopping:
            return Response(503, b"stopping\n", _TEXT)
        waiting = self._lifecycle.not_ready()
        return Response(503, f"not ready: {', '.join(waiting)}\n".encode(), _TEXT) if waiting else _OK

    def _metrics(self) -> Response:
        counters = {name: sink.counters for name, sink in self._lifecycle.sinks().items()}
        metrics = (*sink_metrics(counters), *adapter_metrics(self._lifecycle.adapters()))
        return Response(200, exposition(metrics), _PROMETHEUS)

    def _sinks(self) -> Response:
        facts = {name: _facts(sink) for name, sink in self._lifecycle.sinks().items()}
        return Response(200, json.dumps(facts, indent=2).encode() + b"\n", _JSON)


def _facts(sink: HttpSink) -> dict[str, object]:
    counters = sink.counters
    state = counters.state()
    since = asyncio.get_running_loop().time() - state.since if state.since is not None else None
    return {
        "sink": sink.address.shown,
        "up": state.up,
        "forSeconds": round(since, 3) if since is not None else None,
        "reason": "" if state.up else state.reason,
        "circuit": state.circuit.value,
        "events": {
            "taken": counters.taken,
            "delivered": counters.delivered,
            "deadLettered": counters.dead_lettered,
            "refused": counters.refused,
            "dropped": dict(counters.dropped),
            "inFlight": counters.in_flight,
            "held": counters.held,
            "onWire": counters.on_wire,
        },
    }
