"""Server-sent events of an event display: what it keeps, then what comes. It receives nothing itself.

A follower has no queue. It has the number of the last event it was sent and reads on from there in the ring of kept
events; where the ring has turned beyond it, it is told how many it missed (``gap``) and goes on with the oldest. So a
slow one costs nothing but a connection, and resuming after a broken one (``Last-Event-ID``) is the same thing.
"""

from __future__ import annotations

import asyncio
import os
import re
from typing import TYPE_CHECKING, Final

from wellhead.http_server import Response, Takeover

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.http_server import Answer, Connection, Headers

    from .kept import KeptEvents

_ID: Final = re.compile(r"([0-9a-f]{8})-([0-9]{1,18})")
_CHUNK_BYTES: Final = 1 << 16
# A line of JSON ends where white space between its tokens happens to be a line break; a string holds none.
_LINE_END: Final = re.compile(rb"\r\n?|\n")


class EventStream:
    """Sends the events of ``kept`` to any number of followers up to ``most``.

    ``counts`` gives the figures that go with each batch, as a JSON object; ``headers`` go with each answer. Between two
    batches ``pace_seconds`` pass; when nothing is new, a comment is sent every ``heartbeat_seconds``.
    """

    def __init__(
        self,
        kept: KeptEvents,
        counts: Callable[[], bytes],
        *,
        most: int,
        headers: Headers,
        pace_seconds: float = 0.1,
        heartbeat_seconds: float = 15.0,
    ) -> None:
        self._kept = kept
        self._counts = counts
        self._most = most
        self._headers = headers
        self._pace_seconds = pace_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._run = os.urandom(4).hex()  # tells this process's numbers from those of the one before
        self._followers = 0
        self._news = asyncio.Event()
        self._ended = False

    def announce(self) -> None:
        """Something has changed: wake the followers."""
        if self._followers:
            self._news.set()
            self._news = asyncio.Event()

    def end(self) -> None:
        """End all streams, for good; their connections close."""
        self._ended = True
        self.announce()

    def follow(self, last_event_id: str | None) -> Answer:
        """The answer to one who wants to follow on from the event of that id, or from the oldest kept."""
        if self._ended or self._followers >= self._most:
            return Response(503, b"Too many pages are open.\n", ((b"Content-Type", b"text/plain"),))
        known = _ID.fullmatch(last_event_id or "")
        after = int(known[2]) if known and known[1] == self._run else None
        return Takeover(lambda connection: self._serve(connection, after))

    async def _serve(self, connection: Connection, after: int | None) -> None:
        self._followers += 1
        try:
            async with asyncio.TaskGroup() as tasks:
                sending = tasks.create_task(self._send(connection, after), name="event display: sending to a page")
                sending.add_done_callback(lambda _: connection.close())
                await connection.wait_closed()
                sending.cancel()
        finally:
            self._followers -= 1

    async def _send(self, connection: Connection, after: int | None) -> None:
        sent = self._kept.total - len(self._kept) if after is None else min(after, self._kept.total)
        connection.write(self._head())
        while not self._ended:
            news = self._news  # taken before looking, so that nothing comes between
            try:
                sent = await self._catch_up(connection, sent)
                await asyncio.sleep(self._pace_seconds)
                async with asyncio.timeout(self._heartbeat_seconds):
                    await news.wait()
            except TimeoutError:
                connection.write(b": nothing new\n\n")
            except ConnectionResetError:
                return

    def _head(self) -> bytes:
        lines = [b"HTTP/1.1 200 OK", b"Content-Type: text/event-stream", b"Connection: close"]
        lines += [b"%b: %b" % header for header in self._headers]
        hello = b'retry: 1000\nevent: hello\ndata: {"run":"%b"}\n\n' % self._run.encode()
        return b"\r\n".join(lines) + b"\r\n\r\n" + hello

    async def _catch_up(self, connection: Connection, sent: int) -> int:
        """Send what came after number ``sent``; returns the number that was sent last."""
        while sent < self._kept.total and not self._ended:
            sent, chunk = self._chunk(sent)
            connection.write(chunk)
            await connection.drain()
        connection.write(_message("counts", self._counts()))
        return sent

    def _chunk(self, sent: int) -> tuple[int, bytes]:
        """The next events after number ``sent``, not much more than `_CHUNK_BYTES` of them, and the last one's number."""
        out = bytearray()
        for kept in self._kept.after(sent):
            if kept.number > sent + 1:
                out += _gap(kept.number - sent - 1)
            out += b"id: %b-%d\n" % (self._run.encode(), kept.number) + _message("", kept.json())
            sent = kept.number
            if len(out) >= _CHUNK_BYTES:
                return sent, bytes(out)
        if sent < self._kept.total:  # the newest were too large to be kept
            out += _gap(self._kept.total - sent)
        return self._kept.total, bytes(out)


def _gap(missed: int) -> bytes:
    return _message("gap", b'{"missed":%d}' % missed)


def _message(event: str, data: bytes) -> bytes:
    name = b"event: %b\n" % event.encode() if event else b""
    return name + b"data: " + _LINE_END.sub(b"\ndata: ", data) + b"\n\n"
