"""A sink in a thread of its own that notes when each event came, by its extension ``name``; it answers 202 to all.

At once, or after a while.
"""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING, Self

from tests.bench.machine import START_SECONDS, BenchError

from wellhead.http_server import HttpServer, Request, Response

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from types import TracebackType


class Receiver:
    """Serves on loopback while it is entered."""

    def __init__(self) -> None:
        self.url = ""
        self.delay_seconds = 0.0
        """How long an answer takes."""
        self._came: dict[str, float] = {}
        self._changed = threading.Condition()
        self._wanted = 1 << 60
        self._listening = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="sink of a bench")

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._listening.wait(START_SECONDS):
            raise BenchError("the sink does not listen")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join()

    def clear(self) -> None:
        """Forget what came."""
        with self._changed:
            self._came.clear()

    def wait(self, number: int, seconds: float) -> dict[str, float]:
        """When each event came, once so many have."""
        with self._changed:
            self._wanted = number
            if not self._changed.wait_for(lambda: len(self._came) >= number, seconds):
                raise BenchError(f"{len(self._came)} of {number} events came within {seconds:.0f} s")
            return dict(self._came)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._until_over())
        self._loop.close()

    async def _until_over(self) -> None:
        server = HttpServer(self._answer)
        _, port = await server.start("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{port}/"
        self._listening.set()
        await self._over.wait()
        await server.stop(1.0)

    def _answer(self, request: Request) -> Response | Awaitable[Response]:
        now = time.perf_counter()
        name = next((value.decode() for key, value in request.headers if key.lower() == b"ce-name"), "")
        with self._changed:
            self._came.setdefault(name, now)
            if len(self._came) >= self._wanted:
                self._changed.notify_all()
        return _after(self.delay_seconds) if self.delay_seconds else Response(202)


async def _after(seconds: float) -> Response:
    await asyncio.sleep(seconds)
    return Response(202)
