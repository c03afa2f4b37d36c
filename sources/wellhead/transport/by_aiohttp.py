"""`AiohttpTransport`: POSTs by aiohttp, for what our own transport leaves to it: proxies."""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Final, TypedDict
from urllib.parse import urlsplit
from weakref import WeakSet

import aiohttp
from yarl import URL

from wellhead.binding import socket_path
from wellhead.delivery import Answered, Unanswered
from wellhead.errors import NoAnswer
from wellhead.tls import refused_us

from . import BODY_KEPT, in_task
from .proxies import Proxies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

    from wellhead.delivery import Outcome

    from . import Post

_BODY_SECONDS: Final = 1.0


class AiohttpTransport:
    """`Transport` on aiohttp.

    aiohttp's own pool starves waiters, so it has no limit here; sinks bound what is in flight. Connections idle for
    4 s are closed, sooner than common servers close theirs (Node.js: 5 s).
    """

    def __init__(
        self,
        *,
        keepalive_seconds: float = 4.0,
        connect_seconds: float | None = 10.0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._keepalive = keepalive_seconds
        self._connect = connect_seconds
        self._proxies = Proxies(os.environ if environment is None else environment)
        self._sessions: dict[tuple[str | None, bool], aiohttp.ClientSession] = {}
        self._used: WeakSet[object] = WeakSet()
        self._tries: set[asyncio.Task[Outcome]] = set()
        self._closed = False

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        """See `Transport.begin`."""
        return in_task(self._try(post), done, self._tries)

    async def _try(self, post: Post) -> Outcome:
        if self._closed:
            return Unanswered(NoAnswer.CONNECT, "the transport is closed")
        url, socket = _url(post.target.url)
        session = self._session(socket, fresh=post.fresh)
        in_hand = _Try(self._used)
        _in_hand.set(in_hand)
        try:
            async with session.post(
                url,
                data=post.body,
                headers=[
                    (name.decode("ascii"), value.decode("ascii"))
                    for name, value in (*post.target.headers, *post.headers)
                ],
                allow_redirects=False,
                timeout=_timeout(post.timeout, self._connect),
                ssl=post.target.tls if post.target.tls is not None else True,
                proxy=self._proxies.proxy(post.target.url),
            ) as response:
                return Answered(response.status, response.headers.get("Retry-After"), await _body(response))
        except aiohttp.ConnectionTimeoutError:
            return Unanswered(NoAnswer.CONNECT, "no connection was made in time")
        except TimeoutError:
            return Unanswered(NoAnswer.TIMEOUT, f"no answer within {post.timeout} s")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Unanswered(_why(error, reused=in_hand.reused), _words(error))

    async def aclose(self) -> None:
        self._closed = True
        for session in self._sessions.values():
            await session.close()
        # aiohttp schedules the closing of TLS sockets and does not await it.
        await asyncio.sleep(0)

    def _session(self, socket: str | None, *, fresh: bool) -> aiohttp.ClientSession:
        """The one for TCP or for a Unix socket, with connections that are kept or are not."""
        found = self._sessions.get((socket, fresh))
        if found is None:
            # aiohttp refuses a keepalive_timeout, even None, beside force_close.
            kept: _Kept = {"force_close": True} if fresh else {"keepalive_timeout": self._keepalive}
            connector = _Connector(limit=0, **kept) if socket is None else _UnixConnector(socket, limit=0, **kept)
            found = self._sessions[socket, fresh] = _new_session(connector)
        return found


class _Try:
    """Whether the try in hand went over a connection that had carried others."""

    __slots__ = ("reused", "used")

    def __init__(self, used: WeakSet[object]) -> None:
        self.reused = False
        self.used = used
        """Every connection that carried a try."""


_in_hand: ContextVar[_Try] = ContextVar("the try in hand")


class _Kept(TypedDict, total=False):
    """What a connector does with connections."""

    force_close: bool
    keepalive_timeout: float


class _Telling(aiohttp.BaseConnector):
    """Tells a try whether its connection was used before; aiohttp's traces would cost 20 µs an event for that."""

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        protocol = connection.protocol
        in_hand = _in_hand.get()
        in_hand.reused = protocol in in_hand.used
        if protocol is not None:
            in_hand.used.add(protocol)
        return connection


class _Connector(_Telling, aiohttp.TCPConnector):
    pass


class _UnixConnector(_Telling, aiohttp.UnixConnector):
    pass


def _new_session(connector: aiohttp.BaseConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        auto_decompress=False,
    )


@lru_cache(maxsize=4096)
def _url(url: str) -> tuple[URL, str | None]:
    """What to ask for, and the Unix socket to ask at, if it is one."""
    socket = socket_path(url)
    if socket is None:
        return URL(url, encoded=True), None
    return URL("http://localhost" + url[url.index("://") + 3 + len(urlsplit(url).netloc) :], encoded=True), socket


@lru_cache(maxsize=64)
def _timeout(seconds: float | None, connect: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds, connect=connect)


async def _body(response: aiohttp.ClientResponse) -> bytes:
    """The first bytes of the body. The head has come, so a body that breaks off or dawdles takes nothing back."""
    body = b""
    if response.content.at_eof():  # the usual case
        return body
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            while len(body) < BODY_KEPT and not response.content.at_eof():
                body += await response.content.read(BODY_KEPT - len(body))
    except (aiohttp.ClientError, OSError, TimeoutError):
        response.close()
    if not response.content.at_eof():
        response.close()
    return body


def _why(error: Exception, *, reused: bool) -> NoAnswer:
    if isinstance(error, aiohttp.ClientSSLError) or refused_us(error.__cause__):
        return NoAnswer.TLS
    if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ClientProxyConnectionError):
        return NoAnswer.CONNECT
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return NoAnswer.CONNECT
    if isinstance(error, aiohttp.ServerDisconnectedError | aiohttp.ClientOSError | ConnectionError):
        return NoAnswer.STALE if reused else NoAnswer.RESET
    return NoAnswer.PROTOCOL


def _words(error: Exception) -> str:
    # Not str(error) for these: aiohttp puts the URL in, and a query or a proxy's password is a secret.
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return f"the proxy answered HTTP {error.status}"
    if isinstance(error, aiohttp.ClientResponseError):
        return error.message[:200]
    return str(error)[:200] or type(error).__name__
