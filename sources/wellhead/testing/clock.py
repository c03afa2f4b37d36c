"""A wall clock that a test moves: it stands at a given instant and goes with the event loop's time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

START = datetime(2026, 1, 1, tzinfo=UTC)


class LoopClock:
    """`Clock` whose wall time is ``start`` plus the loop's time, so that looptime moves both; `step` jumps the wall."""

    def __init__(self, start: datetime = START) -> None:
        self._start = start

    def now(self) -> datetime:
        return self._start + timedelta(seconds=asyncio.get_running_loop().time())

    def step(self, by: timedelta) -> None:
        """Set the wall clock forward or back, as an administrator or NTP would; the loop's time goes on."""
        self._start += by
