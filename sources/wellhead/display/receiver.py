"""The event display: receives events over HTTP, prints them as Knative's event_display does, and shows them on a page.

It stands where Knative's does: the same answers, the same text on standard output. Beyond that it takes batches,
answers 400 with the reason where Knative answers an empty 500, and has a page (``GET /``), its events as JSON
(``GET /events``) and as they come (``GET /events/stream``).

The page and both lists can be read by whoever reaches the port, as can the sink itself be written to: it is a tool to
look at events, not a store of secrets. They only read, need no credentials and allow no other site's pages to read
them (no CORS); a browser on this machine can still be led to them by DNS rebinding, so bind to loopback what others
must not see.
"""

from __future__ import annotations

import json
import logging
import os
import select
import sys
from base64 import b64encode
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wellhead.clock import SystemClock
from wellhead.errors import DecodeError, NotAnEvent
from wellhead.event import media_type
from wellhead.http_binding import BATCH, STRUCTURED, decode
from wellhead.http_server import HttpServer, Request, Response

from .kept import KeptEvents
from .request_log import request_json
from .stream import EventStream
from .text import event_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.clock import Clock
    from wellhead.event import CloudEvent
    from wellhead.http_server import Answer, Limits

_LOG: Final = logging.getLogger(__name__)

_TEXT: Final = (b"Content-Type", b"text/plain")
# What is shown came from strangers: it is never markup, and no other site may embed or read it.
_GUARDS: Final = (
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cross-Origin-Resource-Policy", b"same-origin"),
    (b"Cache-Control", b"no-store"),
)
_JSON: Final = (b"Content-Type", b"application/json")
_REFUSAL_CHARACTERS: Final = 300
_ACCEPTED: Final = Response(200)
_HEALTHY: Final = Response(204)
_NOT_AN_EVENT: Final = Response(415)
_NOT_ALLOWED: Final = Response(405, headers=((b"Allow", b"POST, PUT"),))


class Display:
    """Receives, prints, keeps and shows events. `start` serves them; `handle` can also stand behind another server.

    ``write`` gets the text of each request's events in one call before the request is answered; while it blocks,
    senders wait. When it raises OSError (standard output is closed), the display goes on and prints no more.
    The newest ``keep_events`` events are kept, in at most ``keep_bytes``. ``percent_decode`` reads header values as
    the HTTP binding has it; without it they stay as they came, as in Knative's. ``log_requests`` writes every request
    to standard error. ``pages`` bounds how many may be open at a time.
    """

    def __init__(
        self,
        *,
        write: Callable[[bytes], None] | None = None,
        keep_events: int = 500,
        keep_bytes: int = 8 << 20,
        percent_decode: bool = False,
        log_requests: bool = False,
        pages: int = 32,
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._write = write
        self._kept = KeptEvents(events=keep_events, octets=keep_bytes)
        self._percent_decode = percent_decode
        self._log_requests = log_requests
        self._clock = clock or SystemClock()
        self._refused = 0
        self._last_refusal = ""
        self._stream = EventStream(self._kept, self._counts, most=pages, headers=_GUARDS)
        self._server = HttpServer(self.handle, limits=limits, name="event display")
        self._page: Response | None = None

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Serve on this address, see `HttpServer.start`. Returns the address bound."""
        return await self._server.start(host, port)

    async def stop(self, grace: float) -> None:
        """End the open pages, answer what has been asked, and stop serving within ``grace`` seconds."""
        self._stream.end()
        await self._server.stop(grace)

    def events(self) -> list[CloudEvent]:
        """The events that are kept, oldest first."""
        return [kept.event for kept in self._kept.after(0)]

    def handle(self, request: Request) -> Answer:
        """Answer one request: health, our pages, or an event to receive."""
        if self._log_requests:
            sys.stderr.write(request_json(request))
        if request.target == "/healthz":
            return _HEALTHY
        if request.method in ("GET", "HEAD"):
            page = self._show(request)
            if page is not None:
                return page
        if request.method in ("GET", "OPTIONS", "DELETE"):
            return _NOT_ALLOWED
        return self._receive(request)

    def _receive(self, request: Request) -> Response:
        try:
            events = decode(request.headers, request.body, percent=self._percent_decode)
        except DecodeError as error:
            return self._refuse(error, request)
        received = self._clock.now()
        for event in events:
            self._kept.add(event, received)
        self._print(events)
        self._stream.announce()
        return _ACCEPTED

    def _refuse(self, error: DecodeError, request: Request) -> Response:
        self._refused += 1
        self._last_refusal = str(error)[:_REFUSAL_CHARACTERS]
        self._stream.announce()
        # What says that it is an event in JSON is told what is wrong with it, a missing specversion too.
        if isinstance(error, NotAnEvent) and media_type(request.header("content-type")) not in (STRUCTURED, BATCH):
            return _NOT_AN_EVENT
        lines = "".join(f"{problem}\n" for problem in error.problems)
        return Response(400, lines.encode(), (_TEXT,))

    def _print(self, events: list[CloudEvent]) -> None:
        if self._write is None or not events:
            return
        try:
            self._write(b"".join(map(event_text, events)))
        except OSError as error:
            self._write = None
            _LOG.warning("events are no longer printed", extra={"error": str(error)})

    # Our own pages.

    def _show(self, request: Request) -> Answer | None:
        if request.path == "/":
            self._page = self._page or _page()
            return self._page
        if request.path == "/events":
            return self._list(request.query)
        if request.path == "/events/stream" and request.method == "GET":
            return self._stream.follow(request.header("last-event-id"))
        return None

    def _list(self, query: str) -> Response:
        from urllib.parse import parse_qs  # noqa: PLC0415 - costs 3 ms; only this page needs it

        fields = parse_qs(query, keep_blank_values=True)
        limit = fields.get("limit", [""])[-1]
        if limit and not (limit.isascii() and limit.isdigit()):
            return Response(400, b"limit: MUST be a number\n", (_TEXT,))
        kind, source = (fields.get(name, [None])[-1] for name in ("type", "source"))
        events = self._kept.select(kind=kind, source=source, limit=int(limit) if limit else None)
        body = b'{"events":[%b],%b' % (b",".join(kept.json() for kept in events), self._counts()[1:])
        return Response(200, body, (_JSON, *_GUARDS))

    def _counts(self) -> bytes:
        total, kept = self._kept.total, len(self._kept)
        counts = {
            "total": total,
            "kept": kept,
            "dropped": total - kept,
            "refused": self._refused,
            "refusal": self._last_refusal,
        }
        return json.dumps(counts).encode()


def write_stdout(data: bytes) -> None:
    """Write all of ``data`` to standard output, unbuffered. Waits where it is full, also if it is non-blocking."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(1, view) :]
        except BlockingIOError:
            select.select((), (1,), ())


def _page() -> Response:
    html = Path(__file__).with_name("page.html").read_bytes()
    hashes = [
        b"%b-src 'sha256-%b'" % (kind, b64encode(sha256(html.partition(begin)[2].partition(end)[0]).digest()))
        for kind, begin, end in ((b"script", b"<script>", b"</script>"), (b"style", b"<style>", b"</style>"))
    ]
    policy = (
        *hashes,
        b"default-src 'none'",
        b"connect-src 'self'",
        b"img-src data:",
        b"base-uri 'none'",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
    )
    headers = (
        (b"Content-Type", b"text/html; charset=utf-8"),
        (b"Content-Security-Policy", b"; ".join(policy)),
        *_GUARDS,
    )
    return Response(200, html, headers)
