"""`HttpTransport`: HTTP/1.1 over kept-alive connections, as cheap as Python allows. Who gets which connection.

One request at a time on each connection: of many in a row the outcome of all would be unknown when it breaks. An
accepted event costs no task, no timer and no parser here: tries share one timer, and what a connection reads is
compared with the answer before it. Measured beside aiohttp in ``tests/bench``.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter, deque
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import urlsplit

from wellhead.binding import socket_path
from wellhead.delivery import Unanswered
from wellhead.errors import NoAnswer

from .answer import Memo
from .connection import Asked, Connection, Timeouts, Try
from .dial import Dial, dial

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.delivery import Outcome

    from . import Post, Target

CONNECTIONS: Final = 512
"""To one target at most, where nothing else is said: several sinks may share it."""
_NEVER: Final = float("inf")
_PORTS: Final = {"http": 80, "https": 443}


class _Place(NamedTuple):
    """A URL, taken apart: whom to connect to, and how the request begins."""

    host: str
    port: int
    secure: bool
    begins: bytes


class _Way(NamedTuple):
    """A target made ready: the connections to it, and how each request begins."""

    pool: _Pool
    begins: bytes


class HttpTransport:
    """`Transport` of our own, over TCP, TLS and Unix sockets; for proxies see `AiohttpTransport`.

    At most ``limit`` connections are open to one target; further tries wait, first come first served. A connection
    idle for ``idle_seconds`` is closed, sooner than common servers close theirs (Node.js: 5 s); one as old as
    ``age_seconds``, a fifth more or less, after the answer it waits for, so that new pods behind a name or a Service
    get their share. ``connect`` stands for the network in simulations.
    """

    def __init__(
        self,
        *,
        limit: int = CONNECTIONS,
        idle_seconds: float = 4.0,
        age_seconds: float = 60.0,
        timeouts: Timeouts = Timeouts(),  # noqa: B008 - frozen
        connect: Dial = dial,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self.limit = limit
        self.idle_seconds = idle_seconds
        self.timeouts = timeouts
        self.memo = Memo()
        self.connect = connect
        self._age_seconds = age_seconds
        self._luck = luck
        self._pools: dict[tuple[str, int, ssl.SSLContext | None], _Pool] = {}
        self._default_context: ssl.SSLContext | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._alarm_at = _NEVER
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        """See `Transport.begin`."""
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        if self._closed:
            return loop.call_soon(done, Unanswered(NoAnswer.CONNECT, "the transport is closed")).cancel
        way = post.target.prepared
        if way.__class__ is not _Way or way.pool.transport is not self or way.pool.dropped:
            way = self._prepare(post.target)
        body = post.body
        octets = b"".join((way.begins, post.lines, _ends(len(body)), body))
        now = loop.time()
        attempt = Try(post, octets, done, _NEVER if post.timeout is None else now + post.timeout)
        way.pool.serve(attempt, now)
        if attempt.due < self._alarm_at:
            self._set_alarm(attempt.due)
        return attempt.cancel

    async def aclose(self) -> None:
        """See `Transport.aclose`."""
        self._closed = True
        if self._alarm is not None:
            self._alarm.cancel()
        tries = self.tries
        closing = [pool.close() for pool in tuple(self._pools.values())]
        for attempt in tries:
            self.fail(attempt, NoAnswer.RESET, "the transport was closed")
        await asyncio.gather(*(task for tasks in closing for task in tasks), return_exceptions=True)
        self._pools.clear()
        await asyncio.sleep(0)  # transports that were aborted are closed in the loop's next turn

    @property
    def tries(self) -> list[Try]:
        """Those that have not ended: only the one timer that looks after all asks, so that none of them is listed."""
        return [attempt for pool in self._pools.values() for attempt in pool.tries()]

    def lifetime(self) -> float:
        """Seconds for which a new connection is kept, spread so that not all are renewed at once."""
        return self._age_seconds * (0.8 + 0.4 * self._luck())

    def hurried(self, attempt: Try) -> None:
        """It is due, maybe sooner than it was, and than any other."""
        if attempt.due < self._alarm_at:
            self._set_alarm(attempt.due)

    def drop(self, pool: _Pool) -> None:
        """``pool`` has neither connections nor tries: its certificates may be of the past."""
        pool.dropped = True
        self._pools.pop(pool.key, None)

    def _prepare(self, target: Target) -> _Way:
        place = _place(target.url)
        key = (place.host, place.port, self._context(target) if place.secure else None)
        pool = self._pools.get(key)
        if pool is None:
            pool = self._pools[key] = _Pool(self, *key)
        head = [place.begins]
        for name, value in target.headers:
            head += (name, b": ", value, b"\r\n")
        way = target.prepared = _Way(pool, b"".join(head))
        return way

    def _context(self, target: Target) -> ssl.SSLContext:
        if target.tls is not None:
            return target.tls
        if self._default_context is None:
            self._default_context = ssl.create_default_context()
        return self._default_context

    def _set_alarm(self, at: float) -> None:
        # One timer for all: nearly every try ends long before it is due, and the next is due later.
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_at = at
        self._alarm = asyncio.get_running_loop().call_at(at, self._ring)

    def _ring(self) -> None:
        now = asyncio.get_running_loop().time()
        self._alarm, self._alarm_at = None, _NEVER
        for attempt in [attempt for attempt in self.tries if attempt.due <= now]:
            seconds = attempt.post.timeout
            why = attempt.late or f"no answer within {seconds} s"
            if attempt.connection is not None:
                attempt.connection.overdue(why)
            else:
                self.fail(attempt, NoAnswer.CONNECT, attempt.late or f"no connection within {seconds} s")
        following = min((attempt.due for attempt in self.tries), default=_NEVER)
        if following < self._alarm_at:
            self._set_alarm(following)

    def fail(self, attempt: Try, why: NoAnswer, detail: str) -> None:
        """It ends without an answer, and with it the connection that carries it."""
        if attempt.connection is not None:
            attempt.connection.fail(why, detail)
        else:
            attempt.end(Unanswered(why, detail))


class _Pool:
    """The connections to one target, and the tries that wait for one."""

    def __init__(self, transport: HttpTransport, host: str, port: int, tls: ssl.SSLContext | None) -> None:
        self.key = (host, port, tls)
        self.transport = transport
        self.dropped = False
        self._loop = asyncio.get_running_loop()
        self._open: set[Connection] = set()
        self._idle: list[Connection] = []  # the one used last is used first, so that the others may grow old
        self._waiting: deque[Try] = deque()  # those that have ended meanwhile are passed over
        self._connecting: set[asyncio.Task[None]] = set()
        self._peers: Counter[object] = Counter()
        self._sweep: asyncio.TimerHandle | None = None

    def serve(self, attempt: Try, now: float) -> None:
        """Give it a connection, now or once there is one."""
        old: list[Connection] = []
        while self._idle and not attempt.post.fresh:
            connection = self._idle.pop()
            if connection.open and now < connection.renew_at:
                connection.carry(attempt)
                break
            old.append(connection)
        else:
            attempt.within(self.transport.timeouts.connect, "no connection was made in time")
            while self._waiting and not self._waiting[0].waits:  # a sink may be silent for hours
                self._waiting.popleft()
            self._waiting.append(attempt)
            self._connect_where_needed()
        for connection in old:  # now, as a pool left without connections and tries is dropped
            connection.abort()

    def tries(self) -> list[Try]:
        """Those that have not ended."""
        carried = [connection.attempt for connection in self._open if connection.attempt is not None]
        return carried + [attempt for attempt in self._waiting if attempt.waits]

    def close(self) -> set[asyncio.Task[None]]:
        """Close what rests, and give up connecting; what carries a try is closed with that."""
        self._waiting.clear()
        for connection in tuple(self._idle):
            connection.abort()
        for task in self._connecting:
            task.cancel()
        return self._connecting

    # Its connections call these.

    def established(self, connection: Connection) -> None:
        connection.renew_at = asyncio.get_running_loop().time() + self.transport.lifetime()
        self._open.add(connection)
        self._peers[connection.peer] += 1

    def released(self, connection: Connection) -> None:
        now = self._loop.time()
        if now >= connection.renew_at:
            connection.abort()
        elif not self._waiting:
            self._rest(connection, now)
        elif self._hand_over(connection, new=False) is None:
            self._rest(connection, now)
            if self._waiting:  # for a fresh one, for which this one may have to make room
                self._connect_where_needed()

    def lost(self, connection: Connection) -> None:
        if connection in self._open:
            self._open.discard(connection)
            self._peers[connection.peer] -= 1
            if not self._peers[connection.peer]:
                del self._peers[connection.peer]
        if connection in self._idle:
            self._idle.remove(connection)
        self._connect_where_needed()
        self._drop_if_empty()

    def hurried(self, attempt: Try) -> None:
        self.transport.hurried(attempt)

    def _hand_over(self, connection: Connection, *, new: bool) -> Try | None:
        """Let it carry the try that has waited longest, if there is one that it may: that one."""
        passed_over: list[Try] = []
        found = None
        while self._waiting and found is None:
            attempt = self._waiting.popleft()
            if attempt.post.fresh and not new:
                passed_over.append(attempt)
            elif attempt.waits:
                found = attempt
        self._waiting.extendleft(reversed(passed_over))
        if found is not None:
            connection.carry(found)
        return found

    def _rest(self, connection: Connection, now: float) -> None:
        connection.idle_since = now
        connection.kept = True
        self._idle.append(connection)
        if self._sweep is None:
            wait = self.transport.idle_seconds
            self._sweep = asyncio.get_running_loop().call_at(now + wait, self._close_idle)

    def _close_idle(self) -> None:
        self._sweep = None
        loop = asyncio.get_running_loop()
        wait = self.transport.idle_seconds
        while self._idle and self._idle[0].idle_since + wait <= loop.time():
            self._idle[0].abort()
        if self._idle:
            self._sweep = loop.call_at(self._idle[0].idle_since + wait, self._close_idle)

    def _connect_where_needed(self) -> None:
        room = self.transport.limit - len(self._open) - len(self._connecting)
        for attempt in tuple(self._waiting) if room > 0 or self._idle else ():
            if not attempt.waits or attempt.asked is not None:
                continue
            if room <= 0:
                if self._idle:  # it wants a fresh connection; closing one makes room, and comes back here
                    self._idle[0].abort()
                return
            room -= 1
            task = asyncio.create_task(self._connect(Asked(attempt)), name=f"connect to {self.key[0]}:{self.key[1]}")
            self._connecting.add(task)
            task.add_done_callback(self._connected)

    def _connected(self, task: asyncio.Task[None]) -> None:
        self._connecting.discard(task)
        self._connect_where_needed()
        self._drop_if_empty()

    async def _connect(self, asked: Asked) -> None:
        """Make a connection; it carries whichever waits longest by then, and that one leaves its own to who asked."""
        connection = Connection(self, self.transport.memo, self.transport.timeouts)
        host, port, tls = self.key
        try:
            async with asyncio.timeout(self.transport.timeouts.connect):
                await self.transport.connect(lambda: connection, host, port, tls, self._peers.__getitem__)
        except TimeoutError:
            failure = NoAnswer.CONNECT, "no connection was made in time"
        except ssl.SSLError as error:
            failure = NoAnswer.TLS, str(error)[:200]
        except (OSError, ValueError) as error:  # ValueError: no name that DNS could know
            failure = NoAnswer.CONNECT, str(error)[:200] or type(error).__name__
        else:
            if connection.open:
                carried = self._hand_over(connection, new=True)
                if carried is None:
                    self._rest(connection, asyncio.get_running_loop().time())
                elif carried is not asked.by:
                    asked.by.asked = carried.asked
                    if carried.asked is not None:
                        carried.asked.by = asked.by
                return
            failure = NoAnswer.CONNECT, "the connection was closed at once"
        if asked.by.waits:
            self.transport.fail(asked.by, *failure)

    def _drop_if_empty(self) -> None:
        if not (self._open or self._connecting or any(attempt.waits for attempt in self._waiting)):
            if self._sweep is not None:
                self._sweep.cancel()
                self._sweep = None
            if not self.dropped:
                self.transport.drop(self)


@lru_cache(maxsize=1024)
def _ends(length: int) -> bytes:
    """How the head of a request ends whose body has so many bytes."""
    return b"content-length: %d\r\n\r\n" % length


@lru_cache(maxsize=4096)
def _place(url: str) -> _Place:
    """Raises ValueError for what is no http URL."""
    parts = urlsplit(url)
    socket = socket_path(url)
    if socket is None and (parts.scheme not in _PORTS or not parts.hostname):
        raise ValueError("no http, https or http+unix URL")
    rest = url.partition("#")[0][url.index("://") + 3 + len(parts.netloc) :]
    request = rest if rest.startswith("/") else f"/{rest}"
    host = "localhost" if socket is not None else parts.netloc.rpartition("@")[2]
    begins = f"POST {request} HTTP/1.1\r\nhost: {host}\r\n".encode("ascii")
    if socket is not None:
        return _Place(socket, 0, secure=False, begins=begins)
    return _Place(parts.hostname or "", parts.port or _PORTS[parts.scheme], parts.scheme == "https", begins)
