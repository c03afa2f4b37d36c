"""An event loop whose time stands still while there is something to do, and then jumps to the next timer.

Beside looptime, which moves the time of a real loop: this one has no sockets at all, so that the same seed takes the
same steps, and it counts them, so that a test can do something at each of them.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class Stuck(Exception):
    """Everybody waits and no timer runs: in a real program, for ever."""


class SimulatedLoop(asyncio.SelectorEventLoop):
    """``at_step`` is called once, when so many turns of the loop were taken."""

    def __init__(self) -> None:
        self.now = 0.0
        self.steps = 0
        self._at: tuple[int, Callable[[], object]] | None = None
        super().__init__(_Jumping(self))

    def time(self) -> float:
        return self.now

    def at_step(self, step: int, call: Callable[[], object]) -> None:
        self._at = (step, call)

    def turn(self, timeout: float | None) -> None:
        """The loop has nothing to do for so long."""
        self.steps += 1
        if self._at is not None and self.steps >= self._at[0]:
            call, self._at = self._at[1], None
            self.call_soon(call)
        elif timeout is None:
            raise Stuck(f"everybody waits and no timer runs, at {self.now} s")
        elif timeout > 0:
            self.now += timeout


class _Jumping(selectors.SelectSelector):
    def __init__(self, loop: SimulatedLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self._loop.turn(timeout)
        return []


def simulate(main: Coroutine[object, object, T]) -> T:
    """Run it to its end in a loop of its own, at once."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(main)
