"""Bytes of one connection to HTTP requests, or to the answer that refuses them. Pure: it reads and writes no socket.

httptools (llhttp) parses, strictly: no bare line feeds, no Content-Length twice or beside Transfer-Encoding. What
RFC 9112 asks beyond that, and our limits, are checked here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import httptools

from .exchange import Request, Response, split_target

if TYPE_CHECKING:
    from .exchange import Limits

# The headers this module obeys: length of the name to its first letter. Hardly any other has to be looked at.
_OBEYED: Final = {
    len(name): name[0] for name in (b"host", b"expect", b"upgrade", b"content-length", b"transfer-encoding")
}
_LOWER: Final = 0x20


class Receiver(Protocol):
    """Whom a `RequestReader` tells what it read, in the order in which it came."""

    def received(self, request: Request, *, keep_alive: bool) -> None:
        """A whole request. Without ``keep_alive`` it is the last."""

    def refused(self, response: Response) -> None:
        """What came breaks a rule or a limit, and this is the answer to it. Nothing follows."""

    def expects_continue(self) -> None:
        """The client waits for ``100 Continue`` before it sends the body."""

    def hold(self, octets: int) -> bool:
        """Whether so many more bytes of a body may be kept in memory; they count until they are released."""

    def release(self, octets: int) -> None:
        """A body was dropped before its request was whole."""


class RequestReader:
    """Reads the requests of one connection. Feed it what arrives; it calls its receiver from within `feed`."""

    # Of the request that is being read; see `_begin`.
    _target: bytes
    _headers: list[tuple[bytes, bytes]]
    _body: bytes | bytearray
    _size: int
    _hosts: int
    _body_length: int | None  # None: no body; 0: not known before its end
    _coding: bytes
    _expect: bytes
    _upgrade: bool

    def __init__(self, receiver: Receiver, limits: Limits, peer: str) -> None:
        self.in_head = False
        self.in_body = False
        self.requests = 0  # how many were read to the end
        self._receiver = receiver
        self._limits = limits
        self._peer = peer
        self._parser = httptools.HttpRequestParser(self)
        self._deaf = False
        self._feeding = 0  # the length of what is being fed
        self._barren = 0  # bytes fed since a head began, or since the body last grew
        self._method = self._version = ""
        self._keep_alive = False
        self._body_head = b""  # what makes the parser read the body of an upgrade request
        self._begin()

    def feed(self, data: memoryview) -> None:
        """Take in what arrived. Nothing more is told once a request was refused, or was the last."""
        if self._deaf:
            return
        self._feeding = len(data)
        self._barren += self._feeding
        try:
            self._parse(data)
        except httptools.HttpParserCallbackError as error:
            raise error.__context__ or error from None  # a mistake of ours, not of the client
        except httptools.HttpParserError:
            self.refuse(400, "This is not HTTP/1.1 (RFC 9112).")
        too_large = self._barren > self._limits.head_bytes or len(self._headers) > self._limits.headers
        if too_large and self.in_message:
            self._refuse_size()

    def refuse(self, status: int, why: str) -> None:
        """Answer the request that is being read with ``status``, and read no further."""
        if not self._deaf:
            self.ignore()
            headers = ((b"Content-Type", b"text/plain"), *(((b"Retry-After", b"1"),) if status == 503 else ()))
            self._receiver.refused(Response(status, f"{why}\n".encode(), headers, close=True))

    @property
    def in_message(self) -> bool:
        """Whether a request has begun and not ended."""
        return self.in_head or self.in_body

    def ignore(self) -> None:
        """Drop all that comes from now on."""
        self._deaf = True
        self.in_head = self.in_body = False
        self._receiver.release(self._size)
        self._size = 0
        self._body = b""

    def _parse(self, data: memoryview) -> None:
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as upgrade:
                data = data[upgrade.args[0] :]
            if self._body_head:
                self._read_body_of_upgrade()

    def _read_body_of_upgrade(self) -> None:
        # The parser thinks that another protocol begins behind the head. We do not upgrade (RFC 9110, 7.8), so a body
        # comes, which would be taken for the next request. A head that asks for no upgrade brings the parser to it.
        head = (self._method, self._target, self._version, self._keep_alive, self._headers)
        body_head, self._body_head = self._body_head, b""
        self._parser.feed_data(body_head)
        self._method, self._target, self._version, self._keep_alive, self._headers = head

    # What httptools calls while it parses.

    def on_message_begin(self) -> None:
        if self._deaf:
            return
        self._begin()
        self.in_head = True
        self._barren = self._feeding

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.in_head:  # else it is a trailer, which may not pass for a header (RFC 9110, 6.5.1)
            value = value.strip(b" \t")
            self._headers.append((name, value))
            if name[0] | _LOWER == _OBEYED.get(len(name)):
                self._obey(name.lower(), value)

    def on_headers_complete(self) -> None:
        if self._deaf:
            return
        self._method = self._parser.get_method().decode("ascii")
        self._version = self._parser.get_http_version()
        self._keep_alive = self._parser.should_keep_alive()
        self.in_head = False
        self.in_body = True
        if self._is_refused():
            return
        self._barren = 0
        if self._upgrade and self._parser.should_upgrade() and self._body_length is not None:
            framing = b"Transfer-Encoding: chunked" if self._coding else b"Content-Length: %d" % self._body_length
            self._body_head = b"POST / HTTP/1.1\r\nHost: -\r\n%b\r\n\r\n" % framing
        if self._expect and self._body_length is not None and self._version == "1.1":
            self._receiver.expects_continue()

    def on_body(self, body: bytes) -> None:
        if self._deaf:
            return
        self._barren = 0
        if self._size + len(body) > self._limits.body_bytes:
            self.refuse(413, f"A body may have {self._limits.body_bytes} bytes.")
        elif not self._receiver.hold(len(body)):
            self.refuse(503, "Too many large requests at once.")
        else:
            # Not a list of pieces: a body may come in chunks of two bytes.
            self._body = _appended(self._body, body) if self._size else body
            self._size += len(body)

    def on_message_complete(self) -> None:
        if self._deaf or self._body_head:
            return
        body = bytes(self._body)
        target = self._target.decode("latin-1")
        path, query = split_target(target)
        self.in_body = False
        self._deaf = not self._keep_alive
        self.requests += 1
        request = Request(self._method, target, path, query, tuple(self._headers), body, self._peer, self._version)
        self._body = b""
        self._size = 0  # the receiver's to release, from here on
        self._receiver.received(request, keep_alive=self._keep_alive)

    def _begin(self) -> None:
        self._target = b""
        self._headers = []
        self._body = b""
        self._size = 0
        self._hosts = 0
        self._body_length = None
        self._coding = self._expect = b""
        self._upgrade = False

    def _obey(self, name: bytes, value: bytes) -> None:
        if name == b"host":
            self._hosts += 1
        elif name == b"content-length":
            self._body_length = int(value) or None
        elif name == b"transfer-encoding":
            self._coding = value.lower()
            self._body_length = 0
        elif name == b"expect":
            self._expect = value.lower()
        elif name == b"upgrade":
            self._upgrade = True

    def _is_refused(self) -> bool:
        """Whether the head breaks a rule; if so, it has been refused."""
        if len(self._headers) > self._limits.headers or (
            self._barren > self._limits.head_bytes and self._head_size() > self._limits.head_bytes
        ):
            self._refuse_size()
        elif self._version not in ("1.1", "1.0"):
            self.refuse(505, "HTTP/1.1 is spoken here.")
        elif self._hosts != 1 and (self._hosts or self._version == "1.1"):
            self.refuse(400, "A request has exactly one Host header (RFC 9112, 3.2).")
        elif self._coding and self._version == "1.0":
            self.refuse(400, "HTTP/1.0 has no Transfer-Encoding (RFC 9112, 6.1).")
        elif self._coding not in (b"", b"chunked"):
            self.refuse(501, "Of the transfer codings only chunked is read.")
        elif self._method == "CONNECT":
            self.refuse(501, "This is not a proxy.")
        elif self._expect not in (b"", b"100-continue"):
            self.refuse(417, "Only 100-continue can be expected.")
        elif (self._body_length or 0) > self._limits.body_bytes:
            self.refuse(413, f"A body may have {self._limits.body_bytes} bytes.")
        return self._deaf

    def _head_size(self) -> int:
        return len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers)

    def _refuse_size(self) -> None:
        status = 414 if len(self._target) > self._limits.head_bytes // 2 else 431
        self.refuse(
            status, f"A request's head may have {self._limits.head_bytes} bytes, {self._limits.headers} headers."
        )


def _appended(body: bytes | bytearray, piece: bytes) -> bytearray:
    whole = body if isinstance(body, bytearray) else bytearray(body)
    whole += piece
    return whole
