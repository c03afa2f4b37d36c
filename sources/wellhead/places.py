"""So many at once, the others in the order they came. As a semaphore, and takes a free place without a coroutine."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Final

_FEW: Final = 64


class Line:
    """Those who wait, in the order they came. Cancel the future to leave the line, or set its result."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[bool]] = deque()
        self._long = _FEW

    def __len__(self) -> int:
        """How many there are, some of those included that have left."""
        return len(self._waiting)

    def join(self) -> asyncio.Future[bool]:
        """A place at its end."""
        if len(self._waiting) >= self._long:  # a line that does not move must not keep all who ever left it
            self._waiting = deque(waiting for waiting in self._waiting if not waiting.done())
            self._long = 2 * len(self._waiting) + _FEW
        waiting: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        return waiting

    def tell(self, told: bool) -> bool:  # noqa: FBT001 - the result of who waits
        """Tell the next in line; False where nobody waits."""
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                waiting.set_result(told)
                return True
        return False


class Places:
    """``number`` places; who finds none free waits in line."""

    def __init__(self, number: int) -> None:
        self._free = number
        self._line = Line()

    def take(self) -> bool:
        """Take a free place; False where there is none."""
        if self._free <= 0:
            return False
        self._free -= 1
        return True

    def place(self) -> asyncio.Future[bool]:
        """A place in the line; it is told True when it holds a place. Cancel it to leave the line."""
        return self._line.join()

    def give_back(self) -> None:
        """Let the next in line have it."""
        if not self._line.tell(True):  # noqa: FBT003 - it holds a place
            self._free += 1
