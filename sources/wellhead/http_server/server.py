"""`HttpServer`: listens, keeps its connections, and stops in order."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import time
from typing import TYPE_CHECKING, Final

from .connection import ClientConnection
from .exchange import Handler, Limits

if TYPE_CHECKING:
    from collections.abc import Coroutine


_LOG: Final = logging.getLogger(__name__)
_RECEIVE_BYTES: Final = 1 << 16
_BACKLOG: Final = 1024
_SPARE_CONNECTIONS: Final = 64  # beyond the limit, that are told so; what comes on top is reset
_STUBBORN_SECONDS: Final = 1.0  # how long a handler may take to be cancelled
_NO_SUCH_ADDRESS: Final = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS: Final = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class HttpServer:
    """Serves one handler on one address. To be started once, and stopped by whoever started it.

    ``name`` is what its tasks are called.
    """

    def __init__(self, handler: Handler, *, limits: Limits | None = None, name: str = "http server") -> None:
        self.handler = handler
        self.limits = limits or Limits()
        self.buffer = memoryview(bytearray(_RECEIVE_BYTES))  # of all connections: each takes in what it read at once
        self._name = name
        self._listeners: list[asyncio.Server] = []
        self._connections: set[ClientConnection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._bodies = 0
        self._stopping = False
        self._quiet = asyncio.Event()
        self._quiet.set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._date = (0, b"")

    async def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen on ``host`` ("" or "::": everywhere, IPv4 and IPv6) and ``port`` (0: a free one).

        Returns the address bound. Connections are accepted when it returns. Raises OSError where the address is taken
        or is not ours, and then nothing is left open.
        """
        bound = [await self.start_on(listening) for listening in await _listen(host, port)]
        return bound[0]

    async def start_on(self, listening: socket.socket) -> tuple[str, int]:
        """Like `start`, on a socket bound by somebody else, which the server closes in the end."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._listeners.append(
            await loop.create_server(lambda: ClientConnection(self, loop), sock=listening, backlog=_BACKLOG)
        )
        host, port = listening.getsockname()[:2]
        return host, port

    async def stop(self, grace: float) -> None:
        """Take no new connections, answer what has been asked, and be gone after ``grace`` seconds at the latest.

        Connections where nothing is going on are closed at once, the others after their answer; what is left when the
        grace is over, or when this is cancelled, is reset and its handlers cancelled.
        """
        self._stopping = True
        try:
            await self._close_listeners()
            for connection in tuple(self._connections):
                connection.wind_down()
            async with asyncio.timeout(grace):
                await self._quiet.wait()
        except TimeoutError:
            _LOG.warning("HTTP requests were cut off", extra={"connections": len(self._connections)})
        finally:
            await self._cut_off()

    async def _close_listeners(self) -> None:
        # A connection that asyncio accepted in this turn of the loop gets its transport in the next; if its listener is
        # closed by then, asyncio (3.11 to 3.13) forgets the socket without closing it, and the client waits for ever.
        for listener in self._listeners:
            for listening in listener.sockets:
                self._loop.remove_reader(listening.fileno())
        try:
            await asyncio.sleep(0)
        finally:
            for listener in self._listeners:
                listener.close()

    async def _cut_off(self) -> None:
        for connection in tuple(self._connections):
            connection.abort()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_STUBBORN_SECONDS)
        await self._quiet.wait()
        if self._sweeper is not None:
            self._sweeper.cancel()

    # What the connections call.

    def opened(self, connection: ClientConnection) -> bool:
        """Whether the connection is welcome."""
        self._connections.add(connection)
        self._quiet.clear()
        if self._sweeper is None:
            self._sweeper = self._loop.call_later(self._tick, self._sweep)
        excess = len(self._connections) - self.limits.connections
        if excess > _SPARE_CONNECTIONS or self._stopping:
            connection.abort()
        return excess <= 0

    def lost(self, connection: ClientConnection) -> None:
        self._connections.discard(connection)
        if not self._connections:
            self._quiet.set()

    def own(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        """A task that `stop` waits for, and in the end cancels."""
        task = self._loop.create_task(work, name=f"{self._name}: answering a request")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def hold(self, octets: int) -> bool:
        """Whether there is room for so many more bytes of bodies; if so they count until they are released."""
        if self._bodies + octets > self.limits.all_bodies_bytes:
            return False
        self._bodies += octets
        return True

    def release(self, octets: int) -> None:
        self._bodies -= octets

    def date(self) -> bytes:
        """The time as RFC 9110, 5.6.7 spells it, whatever the locale."""
        now = int(time.time())
        if now != self._date[0]:
            at = time.gmtime(now)
            day = f"{_DAYS[at.tm_wday]}, {at.tm_mday:02} {_MONTHS[at.tm_mon - 1]} {at.tm_year}"
            self._date = now, f"{day} {at.tm_hour:02}:{at.tm_min:02}:{at.tm_sec:02} GMT".encode()
        return self._date[1]

    # One timer looks after the time limits of all connections: a timer for each request would cost more than parsing.

    @property
    def _tick(self) -> float:
        shortest = min(self.limits.header_seconds, self.limits.request_seconds, self.limits.idle_seconds)
        return min(1.0, max(0.01, shortest / 4))

    def _sweep(self) -> None:
        now = self._loop.time()
        for connection in tuple(self._connections):
            if connection.deadline <= now:
                connection.overdue()
        self._sweeper = self._loop.call_later(self._tick, self._sweep) if self._connections else None


async def _listen(host: str, port: int) -> list[socket.socket]:
    """A listening socket for each address of ``host``, all on the same port."""
    if host in ("", "::"):
        return [_listen_everywhere(port)]
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    sockets: list[socket.socket] = []
    problem: OSError | None = None
    for family, _, _, _, address in found:
        try:
            port = sockets[0].getsockname()[1] if sockets else port
            sockets.append(socket.create_server((address[0], port, *address[2:]), family=family, backlog=_BACKLOG))
        except OSError as error:
            problem = error
            if error.errno not in _NO_SUCH_ADDRESS:
                break
    # "localhost" is ::1 as well, also where there is no IPv6: one address that can be had is enough.
    if problem is not None and not (sockets and problem.errno in _NO_SUCH_ADDRESS):
        for bound in sockets:
            bound.close()
        raise problem
    return sockets


def _listen_everywhere(port: int) -> socket.socket:
    try:
        return socket.create_server(("::", port), family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
    except OSError as error:
        if error.errno not in _NO_SUCH_ADDRESS:
            raise
        return socket.create_server(("0.0.0.0", port), backlog=_BACKLOG)  # noqa: S104 - as asked for; without IPv6
