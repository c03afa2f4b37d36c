"""Runs an adapter as the runtime does, with its real sink over real HTTP, in a test's own event loop."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from wellhead.binding import SinkBinding
from wellhead.clock import Clock, SystemClock
from wellhead.delivery import Policy
from wellhead.host import Host
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wellhead.adapter import Adapter
    from wellhead.metrics import SinkCounters
    from wellhead.sink import HttpSink

NAME = "under-test"
FAST = Policy(backoff_delay=timedelta(milliseconds=1), cap=timedelta(milliseconds=20))


@dataclass(slots=True)
class Running:
    """An adapter that runs; `counters` are its sink's."""

    host: Host
    sink: HttpSink
    grace: float

    @property
    def counters(self) -> SinkCounters:
        return self.sink.counters

    async def ready(self, within: float = 10.0) -> None:
        """Wait until the adapter called ready. Raises TimeoutError, or what left the adapter before."""
        ready = asyncio.create_task(self.host.ready(NAME), name="wait until ready")
        ended = asyncio.create_task(self.host.wait(), name="wait until ended")
        done, left = await asyncio.wait({ready, ended}, timeout=within, return_when=asyncio.FIRST_COMPLETED)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        if ready in done:
            return
        raise self.host.failure or TimeoutError("the adapter did not call ready")

    async def stop(self) -> None:
        """Cancel the adapter and drain, as on SIGTERM."""
        await self.host.drain(self.grace)


@asynccontextmanager
async def running(
    adapter: Adapter,
    url: str,
    *,
    policy: Policy | None = None,
    dead_letter: str | None = None,
    clock: Clock | None = None,
    grace: timedelta | float = 5.0,
) -> AsyncIterator[Running]:
    """``adapter``, started, with a sink at ``url``; stopped and drained on leaving, if it was not before.

    Retries come fast (from 1 ms on) unless ``policy`` says otherwise. What leaves the adapter is raised on leaving.
    """
    transport = HttpTransport()
    host = Host(transport, clock or SystemClock())
    sink = host.open_sink(
        NAME,
        SinkBinding(sink=url),
        policy=policy or FAST,
        dead_letter=SinkBinding(sink=dead_letter) if dead_letter is not None else None,
    )
    seconds = grace if isinstance(grace, float | int) else grace.total_seconds()
    try:
        host.start(NAME, adapter, sink)
        yield Running(host, sink, seconds)
        if host.failure is not None:
            raise host.failure
    finally:
        if not host.stopping:
            await host.drain(seconds)
        await transport.aclose()
