"""So many at once, the others in the order they came. As a semaphore, and takes a free place without a coroutine."""

from __future__ import annotations

import asyncio
from collections import deque


class Places:
    """``number`` places; who finds none free waits in line."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._line: deque[asyncio.Future[bool]] = deque()

    def take(self) -> bool:
        """Take a free place; False where there is none."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def place(self) -> asyncio.Future[bool]:
        """A place in the line; it is told True when it holds a place. Cancel it to leave the line."""
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._line.append(waiting)
        return waiting

    def give_back(self) -> None:
        """Let the next in line have it."""
        while self._line:
            waiting = self._line.popleft()
            if not waiting.done():
                waiting.set_result(True)
                return
        self._free += 1
