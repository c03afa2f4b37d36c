"""A wall clock moved by hand, for tests without an event loop; those with one use `wellhead.testing.LoopClock`."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class HandClock:
    """`wellhead.clock.Clock` that stands until it is moved."""

    def __init__(self, start: datetime = START) -> None:
        self._now = start

    def now(self) -> datetime:
        return self._now

    def go(self, by: timedelta) -> None:
        self._now += by
