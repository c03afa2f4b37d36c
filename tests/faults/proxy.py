"""A proxy on loopback through which real octets pass, and do not always arrive: resets, stalls, truncates, duplicates,
half-closes. Knows nothing of HTTP; each piece that a side sends is forwarded or befallen by what ``draw`` names."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import Counter
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

FAULTS: Final = (
    "reset before the sink has it",
    "reset after the sink had it",
    "truncate",
    "duplicate",
    "stall",
    "half close",
    "byte by byte",
)
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST


class FaultProxy:
    """Listens while the ``async with`` block runs, and forwards to ``port`` on loopback."""

    def __init__(self, port: int, draw: Callable[[], str]) -> None:
        self.injected: Counter[str] = Counter()
        self.port = 0
        self._to = port
        self._draw = draw
        self._serving: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)  # each was cancelled
        await self._server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="a connection through the proxy")
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(self._requests(reader, writer, back))
                    group.create_task(self._answers(there, writer, back))
            except* (ConnectionError, EOFError):
                pass  # either side is gone, as it should be
            finally:
                back.transport.abort()
                writer.transport.abort()

    async def _requests(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while octets := await reader.read(65536):
            fault = self._draw()
            if fault == "reset before the sink has it":
                self.injected[fault] += 1
                self._reset(writer)
            back.write(octets)
            await back.drain()
        raise EOFError

    async def _answers(
        self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, back: asyncio.StreamWriter
    ) -> None:
        while octets := await there.read(65536):
            fault = self._draw()
            self.injected[fault] += fault in FAULTS[1:]
            match fault:
                case "reset after the sink had it":
                    self._reset(writer)
                case "truncate":
                    writer.write(octets[: len(octets) // 2])
                    await writer.drain()
                    writer.close()
                    raise EOFError
                case "duplicate":
                    writer.write(octets + octets)
                case "stall":
                    await asyncio.get_running_loop().create_future()  # until the client gives up
                case "half close":
                    writer.write_eof()
                    await asyncio.get_running_loop().create_future()
                case "byte by byte":
                    for place in range(len(octets)):
                        writer.write(octets[place : place + 1])
                        await asyncio.sleep(0)
                case _:
                    writer.write(octets)
            await writer.drain()
        raise EOFError

    def _reset(self, writer: asyncio.StreamWriter) -> None:
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        writer.transport.abort()
        raise EOFError
