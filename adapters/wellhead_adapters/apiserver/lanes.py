"""Work in order per key, in parallel across keys, with bounds on all of it. Knows nothing of events."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class Lanes(Generic[T]):
    """Runs ``work`` on what is put: one after another for a key, ``at_once`` keys at a time.

    ``held`` items, or ``held_octets`` of them, may wait or be worked on beyond that; `put` then waits for room. What
    leaves ``work`` ends it all: `failure` raises it.
    """

    def __init__(
        self, work: Callable[[T], Awaitable[None]], *, at_once: int, held: int, held_octets: int, name: str
    ) -> None:
        self._work = work
        self._at_once = at_once
        self._held = held + at_once
        self._held_octets = held_octets
        self._name = name
        self._lanes: dict[str, deque[tuple[T, int]]] = {}
        self._ready: deque[str] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._items = 0
        self._octets = 0
        self._room = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def put(self, key: str, item: T, octets: int) -> None:
        """Returns once there is room for the item, which is worked on behind those of its key."""
        while self._items >= self._held or (self._items and self._octets + octets > self._held_octets):
            self._room.clear()
            await self._room.wait()
        self._items += 1
        self._octets += octets
        self._idle.clear()
        lane = self._lanes.get(key)
        if lane is not None:
            lane.append((item, octets))
            return
        self._lanes[key] = deque([(item, octets)])
        self._ready.append(key)
        if len(self._workers) < self._at_once:
            worker = asyncio.create_task(self._worker(), name=f"{self._name}: lane")
            self._workers.add(worker)
            worker.add_done_callback(self._ended)

    async def failure(self) -> None:
        """Waits for ever, unless ``work`` raises: then raises that."""
        await asyncio.shield(self._failed)

    async def settle(self, seconds: float) -> int:
        """Wait until all is done, for so long at most; cancel the rest. How much of it was never begun."""
        try:
            async with asyncio.timeout(seconds):
                await self._idle.wait()
        except TimeoutError:
            pass
        finally:
            for worker in self._workers:
                worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        return sum(map(len, self._lanes.values()))

    async def _worker(self) -> None:
        while self._ready:
            key = self._ready.popleft()
            lane = self._lanes[key]
            item, octets = lane.popleft()
            await self._work(item)
            self._items -= 1
            self._octets -= octets
            self._room.set()
            if not self._items:
                self._idle.set()
            if lane:
                self._ready.append(key)
            else:
                del self._lanes[key]

    def _ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)
