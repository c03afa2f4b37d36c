"""A sink over real HTTP that records what comes and behaves as it is told: any status, late, half, broken, never."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self, TypeAlias

from wellhead.errors import DecodeError
from wellhead.http_binding import decode
from wellhead.http_server import HttpServer, Request, Response, Takeover

if TYPE_CHECKING:
    from wellhead.event import CloudEvent
    from wellhead.http_server import Connection


@dataclass(frozen=True, slots=True)
class Answer:
    """Answer with a status. ``until`` holds the answer back until the event is set."""

    status: int = 202
    headers: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    until: asyncio.Event | None = None
    close: bool = False


@dataclass(frozen=True, slots=True)
class Reset:
    """Reset the connection instead of answering."""


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answer; the connection stays open until the client gives up or the sink closes."""


@dataclass(frozen=True, slots=True)
class HalfAnswer:
    """Begin an answer and close the connection in the middle: of the head, or of the body after ``status``."""

    status: int | None = None


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answer with what is not HTTP."""

    octets: bytes = b"\x16\x03\x01 this is not HTTP\r\n\r\n"


Behaviour: TypeAlias = Answer | Reset | Hang | HalfAnswer | Garbage


@dataclass(frozen=True, slots=True)
class Received:
    """One request, and the events in it; ``accepted`` when it was answered 2xx."""

    request: Request
    events: tuple[CloudEvent, ...]
    accepted: bool


@dataclass(slots=True)
class RecordingSink:
    """Serves on loopback while it is entered (``async with RecordingSink() as sink``). Answers 202 unless told else.

    A request that is no valid event is answered 415 or 400 whatever was told, and noted in ``invalid``: a test then
    sees what our own strict decoder has against it.
    """

    host: str = "127.0.0.1"
    port: int = 0
    requests: list[Received] = field(default_factory=list)
    invalid: list[str] = field(default_factory=list)
    _script: deque[Behaviour] = field(default_factory=deque)
    _default: Behaviour = field(default_factory=Answer)
    _server: HttpServer | None = None
    _changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}/"

    @property
    def events(self) -> list[CloudEvent]:
        """The events of accepted requests, in order."""
        return [event for received in self.requests if received.accepted for event in received.events]

    @property
    def tried(self) -> list[CloudEvent]:
        """The events of all requests, in order, repeated as often as they came."""
        return [event for received in self.requests for event in received.events]

    def then(self, *behaviours: Behaviour) -> None:
        """Behave so at the next requests, one each; afterwards as `always` said."""
        self._script.extend(behaviours)

    def always(self, behaviour: Behaviour) -> None:
        """Behave so from now on."""
        self._script.clear()
        self._default = behaviour

    async def accepted(self, number: int) -> list[CloudEvent]:
        """Wait until ``number`` events were accepted; they are returned."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.events) >= number)
        return self.events[:number]

    async def came(self, number: int) -> list[CloudEvent]:
        """Wait until ``number`` events came, accepted or not; they are returned."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self.tried) >= number)
        return self.tried[:number]

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        """Serve; after `stop`, again on the same port."""
        self._server = HttpServer(self._handle, name="recording sink")
        self.host, self.port = await self._server.start(self.host, self.port)

    async def stop(self) -> None:
        """Close the port and every connection."""
        if self._server is not None:
            await self._server.stop(0)
            self._server = None

    async def _handle(self, request: Request) -> Response | Takeover:
        try:
            events = tuple(decode(request.headers, request.body))
        except DecodeError as error:
            self.invalid.append(str(error))
            return Response(error.status, str(error).encode())
        behaviour = self._script.popleft() if self._script else self._default
        if isinstance(behaviour, Answer):
            return await self._answer(request, events, behaviour)
        await self._note(request, events, accepted=False)
        return Takeover(lambda connection: _misbehave(connection, behaviour))

    async def _answer(self, request: Request, events: tuple[CloudEvent, ...], answer: Answer) -> Response:
        accepted = 200 <= answer.status < 300
        if answer.until is not None:
            await self._note(request, events, accepted=False)
            await answer.until.wait()
            self.requests.remove(Received(request, events, accepted=False))
        await self._note(request, events, accepted=accepted)
        return Response(answer.status, answer.body, answer.headers, answer.close)

    async def _note(self, request: Request, events: tuple[CloudEvent, ...], *, accepted: bool) -> None:
        self.requests.append(Received(request, events, accepted))
        async with self._changed:
            self._changed.notify_all()


async def _misbehave(connection: Connection, behaviour: Reset | Hang | HalfAnswer | Garbage) -> None:
    if isinstance(behaviour, Hang):
        await connection.wait_closed()
    elif isinstance(behaviour, Reset):
        connection.abort()
    else:
        connection.write(_octets(behaviour))
        await connection.drain()
        connection.close()


def _octets(behaviour: HalfAnswer | Garbage) -> bytes:
    if isinstance(behaviour, Garbage):
        return behaviour.octets
    if behaviour.status is None:
        return b"HTTP/1.1 20"
    return b"HTTP/1.1 %d Half\r\nContent-Length: 100\r\n\r\nonly so much" % behaviour.status
