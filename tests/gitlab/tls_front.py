"""What ends TLS in front of the instance, as its nginx does: bytes pass through to the plain port."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator


class TlsFront:
    """Listens on a free port of 127.0.0.1 from `start` to `stop`."""

    def __init__(self, tls: ssl.SSLContext, host: str, port: int) -> None:
        self._tls = tls
        self._behind = host, port
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self) -> int:
        self._server = await asyncio.start_server(self._begin, "127.0.0.1", 0, ssl=self._tls)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)  # cancelled, all of them

    def _begin(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connected(reader, writer), name="passes a TLS connection through")
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with _gone(writer):
            behind_reader, behind_writer = await asyncio.open_connection(*self._behind)
            async with _gone(behind_writer):
                await asyncio.gather(_pass(reader, behind_writer), _pass(behind_reader, writer))


@contextlib.asynccontextmanager
async def _gone(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    """In the end the connection is gone, not just told to go: the loop may be closed right after."""
    with contextlib.suppress(OSError):
        try:
            yield
        finally:
            writer.transport.abort()
            await writer.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Until one side ends or breaks, which is then told to the other."""
    try:
        while data := await reader.read(1 << 16):
            writer.write(data)
            await writer.drain()
    except OSError:
        writer.transport.abort()
    finally:
        writer.close()
