"""A sink in a simulated network: takes events and remembers them, and does with each request what a die says.

Written without our own server and reader, so that they share no mistake with what is tested.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from tests.faults.trouble import FAULTS

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from tests.faults.network import Wire


@dataclass(frozen=True, slots=True)
class Request:
    """As it came, but for the names of headers in small letters."""

    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes

    def header(self, name: str) -> str:
        return next((value for one, value in self.headers if one == name), "")

    @property
    def id(self) -> str:
        return self.header("ce-id")

    @property
    def identity(self) -> tuple[object, ...]:
        """What has to be the same in every try of one event: all but the credentials."""
        return (self.target, tuple(one for one in self.headers if one[0] != "authorization"), self.body)


@dataclass(slots=True)
class Seen:
    """What one sink saw and did, for the laws."""

    taken: list[str] = field(default_factory=list)
    """Ids in the order in which it took them for good, whether or not it said so."""
    accepted: set[str] = field(default_factory=set)
    """Those of which it said so."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """What it answered else, by id."""
    identities: dict[str, set[tuple[object, ...]]] = field(default_factory=dict)
    requests: Counter[str] = field(default_factory=Counter)
    broken: list[bytes] = field(default_factory=list)
    """What came and was no request."""
    when: list[float] = field(default_factory=list)
    """The time of each request."""


class SimulatedSink:
    """``fault`` draws the name of what goes wrong with the next request; "" is nothing."""

    def __init__(self, die: random.Random, fault: Callable[[], str]) -> None:
        self.die = die
        self.seen = Seen()
        self.token = ""
        """What it asks for; "": nothing."""
        self.injected: Counter[str] = Counter()
        self._fault = fault

    def accept(self, wire: Wire) -> Conversation:
        return Conversation(self, wire)

    def draw(self) -> str:
        kind = self._fault()
        if kind:
            self.injected[kind] += 1
        return kind


class Conversation:
    """One connection of it. What goes wrong is told by `FAULTS`, which use what is public here."""

    def __init__(self, sink: SimulatedSink, wire: Wire) -> None:
        self.wire = wire
        self.die = sink.die
        self.request = Request("", (), b"")
        """The one that is to be answered."""
        self._sink = sink
        self._buffer = b""
        self._fault = ""
        self._begun = False
        self._over = False

    # The network calls these.

    def received(self, octets: bytes) -> None:
        if self._over:
            return
        self._buffer += octets
        while self._buffer and not self._over:
            if not self._begun:
                self._begun, self._fault = True, self._sink.draw()
                if self._fault in FAULTS.early:
                    FAULTS.early[self._fault](self)
                    continue
            request = self._whole()
            if request is None:
                return
            self._begun = False
            self.request = request
            self._note(request)
            self._react()

    def lost(self) -> None:
        self._over = True

    # Faults call these.

    @property
    def gone(self) -> bool:
        return self._over

    def take(self) -> None:
        """Take the event for good. Nothing is said about it yet."""
        self._sink.seen.taken.append(self.request.id)

    def perhaps_take(self) -> None:
        if self.die.random() < 0.5:
            self.take()

    def answer(self, status: int, octets: bytes, *, whole: bool = False) -> None:
        """Send this, which says ``status`` to who can read it."""
        seen, event_id = self._sink.seen, self.request.id
        if 200 <= status < 300:
            self.take()
            seen.accepted.add(event_id)
        else:
            seen.statuses.setdefault(event_id, []).append(status)
        if octets:
            self.wire.send(octets, whole=whole)

    def accepting(self) -> None:
        self.answer(202, ACCEPTED)

    def later(self, seconds: float, call: Callable[[], object]) -> None:
        asyncio.get_running_loop().call_later(seconds, lambda: None if self._over else call())

    def ignore_all(self) -> None:
        """Take no notice of what comes on this connection any more."""
        self._over = True

    def echo(self) -> bytes:
        """What a careless sink says when it is not content."""
        said = f"{self.request.target} {unquote(self.request.target)} {self.request.header('authorization')}"
        return said.encode()

    def _react(self) -> None:
        asked = self._sink.token
        if asked and self.request.header("authorization") != f"Bearer {asked}":
            self._sink.injected["token refused"] += 1
            said = self.echo()
            self.answer(401, b"HTTP/1.1 401 Unauthorized\r\nContent-Length: %d\r\n\r\n%b" % (len(said), said))
        elif self._fault in FAULTS.whole:
            FAULTS.whole[self._fault](self)
        else:
            self.accepting()

    def _note(self, request: Request) -> None:
        seen = self._sink.seen
        seen.requests[request.id] += 1
        seen.when.append(asyncio.get_running_loop().time())
        seen.identities.setdefault(request.id, set()).add(request.identity)

    def _whole(self) -> Request | None:
        head, found, rest = self._buffer.partition(b"\r\n\r\n")
        if not found:
            return None
        first, *lines = head.decode("latin-1").split("\r\n")
        method, _, target = first.partition(" ")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines))
        length = next((value for name, value in headers if name == "content-length"), "")
        if method != "POST" or not target.endswith(" HTTP/1.1") or not length.isdigit():
            self._sink.seen.broken.append(self._buffer)
            self._over = True
            return None
        if len(rest) < int(length):
            return None
        self._buffer = rest[int(length) :]
        return Request(target.removesuffix(" HTTP/1.1"), headers, rest[: int(length)])


ACCEPTED: Final = b"HTTP/1.1 202 Accepted\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Length: 0\r\n\r\n"
