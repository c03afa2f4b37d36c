"""A sink over TLS whose certificate, and what it asks of its clients, can change under way, for tests of trust.

In threads, on OpenSSL's own sockets: asyncio's server closes without the alert that says what was wrong.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import socketserver
import ssl
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final, cast

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import BinaryIO

    import trustme

_SECONDS: Final = 20.0  # until a connection that nobody closes fails its test


class TlsSink:
    """Answers each request 202, or 401 where it is without `token`."""

    def __init__(self, authority: trustme.CA, name: str, *, keep_alive: bool = False) -> None:
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.token = ""
        self.clients: list[str] = []
        """For each request, the name on the certificate that its client showed; "" where it showed none."""
        self.connections = 0
        self.url = ""
        self._keep_alive = keep_alive
        self.show(authority.issue_cert(name))

    def show(self, certificate: trustme.LeafCert) -> None:
        """Handshakes from now on are with this certificate."""
        certificate.configure_cert(self.context)

    def ask_for_certificates_of(self, authority: trustme.CA) -> None:
        """Refuse clients that show none of this authority."""
        self.context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(self.context)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[TlsSink]:
        """Serve on a port of 127.0.0.1 (`url`). Connections must be closed by their clients before this is left."""
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), _handler(self))
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.005}, name="TLS sink")
        thread.start()
        self.url = f"https://127.0.0.1:{server.server_address[1]}/"
        try:
            yield self
        finally:
            await asyncio.to_thread(server.shutdown)
            await asyncio.to_thread(server.server_close)
            thread.join()

    def accept(self, connection: socket.socket) -> None:
        """Serve one connection; in a thread of its own."""
        connection.settimeout(_SECONDS)
        with contextlib.suppress(OSError):
            try:
                tls = self.context.wrap_socket(connection.dup(), server_side=True)
            except ssl.SSLError:  # the alert is out; closing before all is read would take it back
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(4096):
                    pass
                return
            with tls:
                self.connections += 1
                names = cast("tuple[tuple[str, str], ...]", (tls.getpeercert() or {}).get("subjectAltName", ()))
                client = " ".join(name for _, name in names)
                reader = tls.makefile("rb")
                while self._answer(tls, reader, client) and self._keep_alive:
                    pass

    def _answer(self, tls: ssl.SSLSocket, reader: BinaryIO, client: str) -> bool:
        head = []
        while line := reader.readline().strip().lower():
            head.append(line)
        if not head:
            return False
        reader.read(next(int(line.partition(b":")[2]) for line in head if line.startswith(b"content-length:")))
        self.clients.append(client)
        known = not self.token or f"authorization: bearer {self.token}".encode() in head
        tls.sendall(
            (b"HTTP/1.1 202 Accepted\r\n" if known else b"HTTP/1.1 401 Unauthorized\r\n")
            + b"Content-Length: 0\r\n"
            + (b"\r\n" if self._keep_alive else b"Connection: close\r\n\r\n")
        )
        return True


def _handler(sink: TlsSink) -> type[socketserver.BaseRequestHandler]:
    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            sink.accept(self.request)

    return Handler


@asynccontextmanager
async def tls_sink(authority: trustme.CA, name: str) -> AsyncIterator[str]:
    """Answers each request 202, with a certificate of ``authority`` for ``name``; its URL (on 127.0.0.1)."""
    async with TlsSink(authority, name).serving() as sink:
        yield sink.url
