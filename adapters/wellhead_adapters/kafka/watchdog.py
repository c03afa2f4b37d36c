"""Whether the reading goes on: decides when to begin anew, and when to give up. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    FINE = "fine"
    REBUILD = "rebuild"
    """Close the consumer and begin with a new one."""
    GIVE_UP = "give up"
    """A new one did not help: end the program, so that whoever started it starts it anew."""


@dataclass(slots=True)
class Watchdog:
    """Looks at the intake only: a sink that takes nothing is no reason to begin anew."""

    patience: float
    """Seconds without progress before something is done."""
    _progress_at: float = 0.0
    _rebuilt: bool = False

    def progress(self, now: float) -> None:
        """Records came, or there was nothing to come."""
        self._progress_at = now
        self._rebuilt = False

    def age(self, now: float) -> float:
        """Seconds since the last progress."""
        return now - self._progress_at

    def began(self, now: float) -> None:
        """A consumer was started, was given partitions, or asks for what it did not want before: it has its time to read."""
        self._progress_at = now

    def look(self, now: float, *, lag: int | None) -> Verdict:
        """What to do. ``lag``: records that could be read and were not; None where the brokers do not say.

        Without an answer a new consumer may help (other addresses, other credentials), but ending would not.
        """
        if lag == 0:
            self.progress(now)
        if self.age(now) < self.patience:
            return Verdict.FINE
        if lag is not None and self._rebuilt:
            return Verdict.GIVE_UP
        self._rebuilt = lag is not None
        return Verdict.REBUILD
