"""The wall clock, as a value that is handed in. Monotonic time is the event loop's own (``loop.time()``)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Protocol


class Clock(Protocol):
    """Tells what time it is. The only way wall-clock time enters; tests hand in their own."""

    def now(self) -> datetime:
        """The present instant, in UTC."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> datetime:
        return datetime.now(UTC)
