"""When GitLab told nothing as it had disabled the webhook, read from its log of hook events. Pure.

Nobody saw it where no process of ours ran, or where it was over before one looked. Four failures in a row disable a webhook
for a minute, each further one for twice as long, up to a day (app/models/concerns/web_hooks/auto_disabling.rb, GitLab 17.11
and later). A GitLab where that is off tries on meanwhile, which shows; where there was nothing to try, it does not.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

from .missed import Gap

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from datetime import datetime

    from .missed import Attempt

_FAILURES: Final = 4
_FIRST: Final = timedelta(minutes=1)
_LONGEST: Final = timedelta(days=1)
_UNDER_WAY: Final = timedelta(seconds=10)
"""How long an attempt may take: what ends so soon after a webhook was disabled was under way, and counts for nothing."""


class Silences:
    """Reads the log as it grows. What ended well before ``started`` was there for an earlier process to tell.

    ``samples`` are the names of events that only a test brings: GitLab sends those though the webhook is disabled.
    """

    def __init__(self, started: datetime, samples: Collection[str] = ()) -> None:
        self._started = started
        self._samples = samples
        self._read = 0  # the last entry
        self._failures = 0  # in a row
        self._since: datetime | None = None
        self._until: datetime | None = None
        self._found: list[Gap] = []

    def forget(self) -> None:
        """The webhook is another one."""
        self._read, self._failures, self._since, self._found = 0, 0, None, []

    def gaps(self, log: Iterable[Attempt], now: datetime) -> list[Gap]:
        """The gaps that ended in what is new of ``log``, or by now."""
        for attempt in sorted(log, key=lambda one: one.id):
            if attempt.id > self._read and attempt.at is not None:
                self._read = attempt.id
                self._take(attempt.at, succeeded=attempt.status[:1] in ("2", "3"), forced=attempt.name in self._samples)
        if self._since is not None and self._until is not None and now >= self._until:
            self._end(self._until)
        found, self._found = self._found, []
        return found

    def _take(self, at: datetime, *, succeeded: bool, forced: bool) -> None:
        if self._since is not None and self._until is not None:
            if not succeeded and forced and at < self._until:
                return
            if not succeeded and at - self._since <= _UNDER_WAY:
                return
            if not succeeded and at < self._until:  # it tries on: nothing is disabled here
                self._since = None
            else:
                self._end(min(at, self._until))
        if succeeded:
            self._failures = 0
            if at < self._started:
                self._found.clear()
            return
        self._failures += 1
        if self._failures >= _FAILURES:
            self._since = at
            self._until = at + min(_FIRST * (1 << min(self._failures - _FAILURES, 12)), _LONGEST)

    def _end(self, until: datetime) -> None:
        if self._since is not None and until > self._since:
            self._found.append(Gap(self._since, until))
        self._since = None
