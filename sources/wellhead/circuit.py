"""While a sink is down, one event at a time finds out whether it is back, instead of a storm of all of them.

Closed, everything is tried as it comes. After `OPENS_AFTER` failures in a row, none of them the same burst's and none
followed by an answer, it opens: deliveries wait in the order they came, and one of them, the probe, is tried at the
capped, jittered backoff. The next probe is the next in line, so that one event that the sink cannot take does not
stand for the sink. The first answer closes it, and all go on.

An event that would not live to see the next probe is one itself, at most each `HURRIED_SECONDS`: a heartbeat of each
ten seconds finds a sink that is back as soon as it did alone.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from .places import Line

if TYPE_CHECKING:
    from collections.abc import Callable

OPENS_AFTER: Final = 3
HURRIED_SECONDS: Final = 1.0
_LONG_AGO: Final = float("-inf")


class Circuit:
    """One address's. ``wait(n)`` gives the seconds before probe n + 1, after n failures in a row."""

    def __init__(self, wait: Callable[[int], float]) -> None:
        self.failures = 0
        """In a row; of those that were on the wire together one counts."""
        self.open = False
        self._wait = wait
        self._failed_at = _LONG_AGO
        self._next = _LONG_AGO
        self._probing = False
        self._line = Line()  # each is told whether it is the probe
        self._timer: asyncio.TimerHandle | None = None

    @property
    def probing(self) -> bool:
        """Whether one event is tried to see whether the sink is back."""
        return self._probing

    def succeeded(self) -> None:
        """The sink answered as a sink does. Everyone who waits goes on."""
        self.failures = 0
        self.open = self._probing = False
        self._disarm()
        while self._line.tell(False):  # noqa: FBT003 - no probe
            pass

    def failed(self, started: float, now: float, after: float) -> None:
        """A try that began at ``started`` found the sink in trouble; the sink asks for ``after`` seconds at least."""
        if started < self._failed_at:  # on the wire when that was found out already
            return
        self.failures += 1
        self.open = self.failures >= OPENS_AFTER
        self._failed_at = now
        self._next = now + max(after, self._wait(self.failures))
        if self.open:
            self._arm()

    def place(self, until: float | None) -> asyncio.Future[bool]:
        """A place in the line, for who lives until then: told True to be the probe, False once the sink is back.

        The probe calls `failed` or `succeeded`, and always `ended`. Cancel the future to leave the line.
        """
        waiting = self._line.join()
        if until is not None and until <= self._next:
            self._hurry(waiting)
        self._arm()
        return waiting

    def ended(self) -> None:
        """The probe's try is over, whatever came of it, if anything did: the next in line may be the probe."""
        self._probing = False
        self._arm()

    def _arm(self) -> None:
        if self._timer is None and not self._probing and self._line:
            self._timer = asyncio.get_running_loop().call_at(self._next, self._let_one_try)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _let_one_try(self) -> None:
        self._timer = None
        if asyncio.get_running_loop().time() < self._next:  # a failure meanwhile put it off
            self._arm()
            return
        if not self._probing:
            self._probing = self._line.tell(True)  # noqa: FBT003 - the probe

    def _hurry(self, waiting: asyncio.Future[bool]) -> None:
        if waiting.done():
            return
        loop = asyncio.get_running_loop()
        at = self._failed_at + HURRIED_SECONDS
        if self._probing or loop.time() < at:
            loop.call_at(max(at, loop.time() + HURRIED_SECONDS / 4), self._hurry, waiting)
        else:
            waiting.set_result(True)
            self._probing = True
