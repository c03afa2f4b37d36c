"""One HTTP request and its answer as values, and the bytes of an answer's head. Pure: it opens no connection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Headers: TypeAlias = tuple[tuple[bytes, bytes], ...]

_REASONS: Final = {
    100: "Continue", 101: "Switching Protocols", 102: "Processing", 103: "Early Hints",
    200: "OK", 201: "Created", 202: "Accepted", 203: "Non-Authoritative Information", 204: "No Content",
    205: "Reset Content", 206: "Partial Content", 207: "Multi-Status", 208: "Already Reported",
    300: "Multiple Choices", 301: "Moved Permanently", 302: "Found", 303: "See Other", 304: "Not Modified",
    307: "Temporary Redirect", 308: "Permanent Redirect",
    400: "Bad Request", 401: "Unauthorized", 402: "Payment Required", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 408: "Request Timeout", 409: "Conflict", 410: "Gone",
    411: "Length Required", 412: "Precondition Failed", 413: "Content Too Large", 414: "URI Too Long",
    415: "Unsupported Media Type", 416: "Range Not Satisfiable", 417: "Expectation Failed", 418: "I'm a teapot",
    421: "Misdirected Request", 422: "Unprocessable Content", 423: "Locked", 424: "Failed Dependency",
    425: "Too Early", 426: "Upgrade Required", 428: "Precondition Required", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 451: "Unavailable For Legal Reasons",
    500: "Internal Server Error", 501: "Not Implemented", 502: "Bad Gateway", 503: "Service Unavailable",
    504: "Gateway Timeout", 505: "HTTP Version Not Supported", 507: "Insufficient Storage", 508: "Loop Detected",
    511: "Network Authentication Required",
}  # fmt: skip
_STATUS_LINES: Final = {status: f"HTTP/1.1 {status} {reason}\r\n".encode() for status, reason in _REASONS.items()}


@dataclass(frozen=True, slots=True)
class Request:
    """A whole request, body included.

    ``target`` is the request line's, as sent; ``path`` is its path with percent-encoding undone, ``query`` what stands
    behind the ``?``, as sent. ``headers`` keep order and case; values are without the blanks around them. ``peer`` is
    the client's address and port.
    """

    method: str
    target: str
    path: str
    query: str
    headers: Headers
    body: bytes
    peer: str
    version: str = "1.1"

    def header(self, name: str) -> str | None:
        """The first header of this name, in any case, or None. What is not UTF-8 is read as Latin-1."""
        wanted = name.lower().encode()
        for key, value in self.headers:
            if len(key) == len(wanted) and key.lower() == wanted:
                return _text(value)
        return None


@dataclass(frozen=True, slots=True)
class Response:
    """An answer. The server adds Content-Length and Date, and ``Connection: close`` where the connection ends.

    ``close`` ends the connection after this answer. Raises ValueError for a header that would break the head.
    """

    status: int
    body: bytes = b""
    headers: Headers = ()
    close: bool = False

    def __post_init__(self) -> None:
        if not 100 <= self.status <= 999:
            raise ValueError(f"{self.status} is not an HTTP status (RFC 9110, 15)")
        for name, value in self.headers:
            if not name or any(sign in name + value for sign in (b"\r", b"\n", b"\0")) or b":" in name:
                raise ValueError(f"{name!r} with {value!r} is not a header (RFC 9112, 5)")

    @property
    def may_have_body(self) -> bool:
        """RFC 9110, 6.4.1. The answer to HEAD has none either, but the length of what GET would get."""
        return self.status >= 200 and self.status not in (204, 304)


class Connection(Protocol):
    """A client's connection in the hands of a `Takeover`: raw bytes, nothing added."""

    def write(self, data: bytes) -> None:
        """Send ``data`` as soon as the client takes it; dropped once the connection is closed."""

    async def drain(self) -> None:
        """Return once the client has taken enough to write more. Raises ConnectionResetError when it is gone."""

    async def wait_closed(self) -> None:
        """Return once the connection is closed, by either side."""

    def close(self) -> None:
        """Send what is written, then close."""

    def abort(self) -> None:
        """Close at once; the client sees a reset (RST)."""


@dataclass(frozen=True, slots=True)
class Takeover:
    """Instead of a `Response`: ``run`` gets the connection and answers by itself, head included.

    When it returns, the connection is closed; when it raises, reset. It has to end soon after the connection did.
    What the client sends meanwhile is dropped.
    """

    run: Callable[[Connection], Awaitable[None]]


Answer: TypeAlias = Response | Takeover
Handler: TypeAlias = "Callable[[Request], Answer | Awaitable[Answer]]"
"""Answers one request. What a plain function returns is sent at once; an awaitable runs in a task that the server owns
and that is cancelled when the client goes away or the server's grace ends. An exception is logged and answered 500."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a client may ask of the server. What is too large is answered 413, 414 or 431, too slow 408, too much 503."""

    body_bytes: int = 32 << 20
    """Of one request's body."""
    all_bodies_bytes: int = 256 << 20
    """Of the bodies of all requests that are being received or answered."""
    head_bytes: int = 64 << 10
    """Of one request's head; about as much again may be held until the excess is seen."""
    headers: int = 256
    """Of one request."""
    connections: int = 1000
    pipelined: int = 100
    """Requests of one connection that wait while an earlier one is being answered."""
    header_seconds: float = 10
    """From a request's first byte, or from connecting, to the end of its head."""
    request_seconds: float = 60
    """From a request's first byte to the end of its body."""
    idle_seconds: float = 120
    """Between an answer and the next request; also how long a client may leave an answer unread."""


def answer_head(response: Response, *, date: bytes, connection: bytes) -> bytes:
    """Status line and headers, the empty line included. ``connection`` is that header's value, or empty for none."""
    lines = [_STATUS_LINES.get(response.status) or b"HTTP/1.1 %d \r\n" % response.status, b"Date: ", date, b"\r\n"]
    for name, value in response.headers:
        lines += (name, b": ", value, b"\r\n")
    if response.may_have_body:
        lines.append(b"Content-Length: %d\r\n" % len(response.body))
    if connection:
        lines.append(b"Connection: %b\r\n" % connection)
    lines.append(b"\r\n")
    return b"".join(lines)


def split_target(target: str) -> tuple[str, str]:
    """Path, percent-decoded, and query of a request line's target (RFC 9112, 3.2)."""
    path, _, query = target.partition("#")[0].partition("?")
    if not path.startswith("/") and "://" in path:  # the absolute form, which proxies send
        path = "/" + path.partition("://")[2].partition("/")[2]
    if "%" in path:
        from urllib.parse import unquote  # noqa: PLC0415 - costs 3 ms, and hardly any path needs it

        path = unquote(path)
    return path, query


def peer_text(address: tuple[str, int] | tuple[str, int, int, int] | str | bytes | None) -> str:
    """A socket's address as ``host:port``.

    "" for None, which a client has that left before it was looked at, and for the client of a Unix socket.
    """
    if not isinstance(address, tuple):
        return ""
    host = address[0].removeprefix("::ffff:")  # IPv4 on a socket of both families
    return f"[{host}]:{address[1]}" if ":" in host else f"{host}:{address[1]}"


def _text(value: bytes) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")
