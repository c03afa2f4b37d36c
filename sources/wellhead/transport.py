"""One POST over HTTP/1.1: the seam, and its first implementation on aiohttp. Decides nothing about retries."""

from __future__ import annotations

import asyncio
import os
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol
from weakref import WeakSet

import aiohttp
from yarl import URL

from .delivery import Answered
from .errors import NoAnswer, TransportError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Mapping

    from aiohttp.connector import Connection
    from aiohttp.tracing import Trace

BODY_KEPT: Final = 64 * 1024
"""Bytes of an answer's body that are read, so that its connection can be used again; beyond, it is closed."""
_BODY_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Post:
    """One request. ``timeout`` is in seconds for the whole try, None for no limit."""

    url: str = field(repr=False)  # a query may be a secret
    headers: tuple[tuple[bytes, bytes], ...] = field(repr=False)
    body: bytes = field(repr=False)
    timeout: float | None = None
    tls: ssl.SSLContext | None = None
    fresh: bool = False
    """Use no kept-alive connection."""


class Transport(Protocol):
    """Performs POSTs. Shared by every sink of a process; bounded by whoever calls."""

    async def post(self, post: Post, /) -> Answered:
        """The answer to one try: status, ``Retry-After``, the body's first `BODY_KEPT` bytes.

        Raises `TransportError` where no answer came; redirects are answers. A connection that was kept alive and
        turned out closed before any byte of the answer raises it with ``NoAnswer.STALE``. Cancelling ends the try
        and its connection.
        """

    async def aclose(self) -> None:
        """Close every connection. Tries still on the wire fail, and so do later ones."""


class AiohttpTransport:
    """`Transport` on aiohttp.

    aiohttp's own pool starves waiters, so it has no limit here; sinks bound what is in flight. Connections idle for
    4 s are closed, sooner than common servers close theirs (Node.js: 5 s).
    """

    def __init__(self, *, keepalive_seconds: float = 4.0, environment: Mapping[str, str] | None = None) -> None:
        self._keepalive = keepalive_seconds
        self._proxies = _Proxies(os.environ if environment is None else environment)
        self._kept: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._closed = False

    async def post(self, post: Post, /) -> Answered:
        if self._closed:
            raise TransportError(NoAnswer.CONNECT, "the transport is closed")
        session = self._session(fresh=post.fresh)
        in_hand = _Try()
        _in_hand.set(in_hand)
        try:
            async with session.post(
                _url(post.url),
                data=post.body,
                headers=[(name.decode("ascii"), value.decode("ascii")) for name, value in post.headers],
                allow_redirects=False,
                timeout=_timeout(post.timeout),
                ssl=post.tls if post.tls is not None else True,
                proxy=self._proxies.proxy(post.url),
            ) as response:
                return Answered(response.status, response.headers.get("Retry-After"), await _body(response))
        except TimeoutError:
            raise TransportError(NoAnswer.TIMEOUT, f"no answer within {post.timeout} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise TransportError(_why(error, reused=in_hand.reused), _words(error)) from None

    async def aclose(self) -> None:
        self._closed = True
        for session in (self._kept, self._fresh):
            if session is not None:
                await session.close()
        # aiohttp schedules the closing of TLS sockets and does not await it.
        await asyncio.sleep(0)

    def _session(self, *, fresh: bool) -> aiohttp.ClientSession:
        if fresh:
            self._fresh = self._fresh or _new_session(_Connector(limit=0, force_close=True))
            return self._fresh
        self._kept = self._kept or _new_session(_Connector(limit=0, keepalive_timeout=self._keepalive))
        return self._kept


class _Try:
    """Whether the try in hand went over a connection that had carried others."""

    __slots__ = ("reused",)

    def __init__(self) -> None:
        self.reused = False


_in_hand: ContextVar[_Try] = ContextVar("the try in hand")


class _Connector(aiohttp.TCPConnector):
    """Tells a try whether its connection was used before; aiohttp's traces would cost 20 µs an event for that."""

    def __init__(self, *, limit: int, force_close: bool = False, keepalive_timeout: float | None = None) -> None:
        # aiohttp refuses a keepalive_timeout, even None, beside force_close.
        if force_close:
            super().__init__(limit=limit, force_close=True)
        else:
            super().__init__(limit=limit, keepalive_timeout=keepalive_timeout)
        self._used: WeakSet[object] = WeakSet()

    async def connect(
        self, req: aiohttp.ClientRequest, traces: list[Trace], timeout: aiohttp.ClientTimeout
    ) -> Connection:
        connection = await super().connect(req, traces, timeout)
        _in_hand.get().reused = connection.protocol in self._used
        if connection.protocol is not None:
            self._used.add(connection.protocol)
        return connection


def _new_session(connector: aiohttp.TCPConnector) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        skip_auto_headers=("Accept", "Accept-Encoding", "Content-Type", "User-Agent"),
        auto_decompress=False,
    )


@lru_cache(maxsize=4096)
def _url(url: str) -> URL:
    return URL(url, encoded=True)


@lru_cache(maxsize=64)
def _timeout(seconds: float | None) -> aiohttp.ClientTimeout:
    return aiohttp.ClientTimeout(total=seconds)


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
    if isinstance(error, aiohttp.ClientSSLError):
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


class _Proxies:
    """``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``. Not aiohttp's ``trust_env``, which would send ~/.netrc's passwords."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        variables = {name.lower(): value for name, value in environment.items() if value}
        self._by_scheme = {scheme: variables.get(f"{scheme}_proxy", "") for scheme in ("http", "https")}
        if "request_method" in variables:  # CGI: HTTP_PROXY is the request's Proxy header then (httpoxy)
            self._by_scheme["http"] = ""
        self._no_proxy = variables.get("no_proxy", "")

    def proxy(self, url: str) -> str | None:
        if not any(self._by_scheme.values()):
            return None
        from urllib.request import proxy_bypass  # noqa: PLC0415 - slow to import, few have proxies

        parts = URL(url, encoded=True)
        if proxy_bypass(f"{parts.host}:{parts.port}", {"no": self._no_proxy}):
            return None
        return self._by_scheme.get(parts.scheme) or None
