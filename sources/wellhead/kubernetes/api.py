"""Requests to an API server over aiohttp: JSON in, JSON out, and watches as raw lines. Knows no kind of object."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import aiohttp
from yarl import URL

from wellhead import __version__

from .errors import BROKEN, CONNECT, GARBLED, SILENT, TLS, ApiError, from_status
from .wire import JSON, parsed

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .cluster import Approach, Cluster

__all__ = ["Api", "ApiError", "Lines"]

SILENCE_SECONDS: Final = 70.0
"""A watch that says nothing for so long is taken for half open: bookmarks come each minute."""
_TIMEOUT_SECONDS: Final = 60.0
_CONNECT_SECONDS: Final = 10.0
_LONGEST_LINE: Final = 32 << 20  # etcd takes 1.5 MiB as protobuf; its JSON is a few times that
_LARGEST_ERROR: Final = 1 << 20
_CONTENT: Final = {"POST": JSON, "PATCH": "application/merge-patch+json"}


class Api:
    """An API server. Requests are as parallel as their callers; close it with `aclose`."""

    def __init__(self, cluster: Cluster, *, timeout: float = _TIMEOUT_SECONDS) -> None:
        self._cluster = cluster
        self._timeout = timeout
        self._session: aiohttp.ClientSession | None = None
        self._anew = False

    async def url(self) -> str:
        """Where it is, without a slash at its end. Raises `ApiError` where a kubeconfig does not say."""
        return (await self._cluster.approach()).url

    async def get(self, path: str, *, accept: str = JSON) -> dict[str, object]:
        """The JSON object at ``path`` (with its query). Raises `ApiError`."""
        return await self._whole("GET", path, None, accept)

    async def post(self, path: str, body: Mapping[str, object], *, accept: str = JSON) -> dict[str, object]:
        """What the server answers to ``body``. Raises `ApiError`."""
        return await self._whole("POST", path, json.dumps(body).encode(), accept)

    async def patch(self, path: str, body: Mapping[str, object], *, accept: str = JSON) -> dict[str, object]:
        """What the server answers to the members of an object that are to be others (RFC 7386). Raises `ApiError`."""
        return await self._whole("PATCH", path, json.dumps(body).encode(), accept)

    def lines(self, path: str, *, accept: str = JSON, silence: float = SILENCE_SECONDS) -> Lines:
        """The lines of what is at ``path``, as they come. The request is made when the first is asked for."""
        return Lines(self, path, accept, silence)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def request(
        self, method: str, path: str, body: bytes | None, accept: str, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        """An answer below 300, its body still to be read by the caller, who closes it. Raises `ApiError`."""
        anew, self._anew = self._anew, False
        approach = await self._cluster.approach(anew=anew)
        try:
            response = await self._open().request(
                method,
                URL(approach.url + path, encoded=True),
                data=body,
                headers=_headers(approach, accept, method),
                ssl=approach.tls if approach.tls is not None else True,
                server_hostname=approach.server_hostname,
                proxy=approach.proxy,
                timeout=timeout,
                allow_redirects=False,
            )
        except (aiohttp.ClientError, OSError, UnicodeError) as error:
            failed = _failed(error)
            self._anew = failed.reason == TLS
            raise failed from None
        if response.status < 300:
            return response
        self._anew = response.status == 401
        raise await _refusal(response)

    async def _whole(self, method: str, path: str, body: bytes | None, accept: str) -> dict[str, object]:
        timeout = aiohttp.ClientTimeout(total=self._timeout, sock_connect=_CONNECT_SECONDS)
        response = await self.request(method, path, body, accept, timeout)
        try:
            octets = await response.read()
        except (aiohttp.ClientError, OSError) as error:
            raise _failed(error) from None
        finally:
            response.release()
        return parsed(octets)

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),  # whoever starts a thousand watches bounds them
                cookie_jar=aiohttp.DummyCookieJar(),
                read_bufsize=1 << 17,
            )
        return self._session


class Lines:
    """An async iterator of lines, without their ends. Raises `ApiError`; an end of the answer ends it.

    What follows the last line's end is no line: an answer that broke off in the middle of one does not show it.
    """

    def __init__(self, api: Api, path: str, accept: str, silence: float) -> None:
        self._api = api
        self._path = path
        self._accept = accept
        self._silence = silence
        self._response: aiohttp.ClientResponse | None = None
        self._held: list[bytes] = []
        self._held_octets = 0
        self._ahead: list[bytes] = []

    async def open(self) -> None:
        """Make the request and read the head of the answer. Raises `ApiError` where it is no 2xx."""
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._silence)
        self._response = await self._api.request("GET", self._path, None, self._accept, timeout)

    async def batch(self) -> list[bytes]:
        """The lines that have come, one at least; none at the end of the answer."""
        if self._ahead:
            ahead, self._ahead = self._ahead, []
            return ahead[::-1]
        if self._response is None:
            await self.open()
        assert self._response is not None  # noqa: S101 - `open` raises where it is not
        while True:
            try:
                chunk = await self._response.content.readany()
                lines = self._split(chunk)
            except (aiohttp.ClientError, OSError) as error:
                self.close()
                raise _failed(error) from None
            except ApiError:
                self.close()
                raise
            if lines or not chunk:
                return lines

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> bytes:
        if not self._ahead:
            self._ahead = (await self.batch())[::-1]
        if not self._ahead:
            raise StopAsyncIteration
        return self._ahead.pop()

    def close(self) -> None:
        """Close the connection, whatever is still to come."""
        if self._response is not None:
            self._response.close()

    def _split(self, chunk: bytes) -> list[bytes]:
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join((*self._held, whole[0]))
            self._held, self._held_octets = [], 0
        if rest:
            self._held.append(rest)
            self._held_octets += len(rest)
        if self._held_octets > _LONGEST_LINE:
            raise ApiError(0, GARBLED, f"a line is longer than {_LONGEST_LINE} bytes")
        return [stripped for line in whole if (stripped := line.rstrip(b"\r"))]


def _headers(approach: Approach, accept: str, method: str) -> dict[str, str]:
    headers = {"Accept": accept, "User-Agent": f"wellhead/{__version__}"}
    if approach.authorization:
        headers["Authorization"] = approach.authorization
    if method in _CONTENT:
        headers["Content-Type"] = _CONTENT[method]
    return headers


async def _refusal(response: aiohttp.ClientResponse) -> ApiError:
    try:
        status = parsed(await _start_of(response.content))
    except (aiohttp.ClientError, OSError, ApiError):
        status = {}
    finally:
        response.close()
    seconds = response.headers.get("Retry-After", "")
    retry_after = float(seconds) if seconds.isdecimal() and len(seconds) < 6 else None
    if status.get("kind") != "Status":  # whoever stands before it, or a server that is going down
        status = {"reason": response.reason, "message": f"HTTP {response.status}"}
    return from_status({**status, "code": response.status}, status=response.status, retry_after=retry_after)


async def _start_of(content: aiohttp.StreamReader) -> bytes:
    octets = b""
    while len(octets) < _LARGEST_ERROR and (chunk := await content.readany()):
        octets += chunk
    return octets


def _failed(error: Exception) -> ApiError:
    """Our error for aiohttp's: without the URL that it shows."""
    if isinstance(error, aiohttp.ClientSSLError):
        return ApiError(0, TLS, str(getattr(error, "certificate_error", None) or error.__cause__ or error)[:300])
    if isinstance(error, TimeoutError):
        return ApiError(0, SILENT, "nothing came in time")
    if isinstance(error, aiohttp.ClientConnectorError):
        return ApiError(0, CONNECT, f"cannot connect to {error.host}:{error.port}: {error.strerror}")
    if isinstance(error, UnicodeError):  # Python's IDNA has it for names such as a..b
        return ApiError(0, CONNECT, "cannot connect: the server's or the proxy's host is no name")
    if isinstance(error, aiohttp.ClientResponseError | aiohttp.InvalidURL):
        return ApiError(0, GARBLED, "what came is not HTTP")
    return ApiError(0, BROKEN, str(error)[:200] or type(error).__name__)
