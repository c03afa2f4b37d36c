"""When GitLab told nothing as it had disabled the webhook, read from its log of hook events. Pure.

Nobody saw it where no process of ours ran, or where it was over before one looked. Four failures in a row disable a webhook
for a minute, each further one for twice as long, up to a day (app/models/concerns/web_hooks/auto_disabling.rb, GitLab 17.11
and later). A GitLab where that is off tries on meanwhile, which shows; where there was nothing to try, it does not. A test by hand, of
a kind that is asked for, passes for such a try.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
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
_LATE: Final = 20
"""The latest entries, behind which others may still become visible: a page of the log, which is read each time."""


class Silences:
    """Reads the log as it grows. What ended well before ``started`` was there for an earlier process to tell.

    ``samples`` are the names of events that only a test brings: GitLab sends those though the webhook is disabled.
    """

    def __init__(self, started: datetime, samples: Collection[str] = ()) -> None:
        self._started = started
        self._samples = samples
        self.forget()

    def forget(self) -> None:
        """The webhook is another one."""
        self._settled = 0  # the last entry of those that ``_run`` holds
        self._run = _Run(self._started)
        self._latest: dict[int, Attempt] = {}
        self._told: datetime | None = None  # the end of the last gap

    def gaps(self, log: Iterable[Attempt], now: datetime) -> list[Gap]:
        """The gaps that ended in what is new of ``log``, or by now."""
        self._latest |= {one.id: one for one in log if one.id > self._settled}
        in_order = sorted(self._latest)
        run = replace(self._run, found=[])
        for number in in_order:
            self._take(run, self._latest[number])
        run.end_by(now)
        for number in in_order[:-_LATE]:
            self._take(self._run, self._latest.pop(number))
            self._settled = number
        return [gap for gap in run.found if self._is_new(gap)]

    def _take(self, run: _Run, one: Attempt) -> None:
        if one.at is not None:
            run.take(one.at, succeeded=one.status[:1] in ("2", "3"), forced=one.name in self._samples)

    def _is_new(self, gap: Gap) -> bool:
        """Whether it lies behind all that was told: what the log shows late may give a gap that was told another end."""
        if self._told is not None and gap.since is not None and gap.since < self._told:
            return False
        self._told = gap.until
        return True


@dataclass(slots=True)
class _Run:
    """What the log has told up to an entry."""

    started: datetime
    failures: int = 0  # in a row
    tries_on: bool = False
    """Whether there was a try among those failures which a GitLab that disables would not have made."""
    since: datetime | None = None
    until: datetime | None = None
    found: list[Gap] = field(default_factory=list)

    def take(self, at: datetime, *, succeeded: bool, forced: bool) -> None:
        if self.since is not None and self.until is not None and at < self.until:
            if forced or at - self.since <= _UNDER_WAY:
                if not succeeded:
                    return
                self.end_by(at, enabled=True)
            else:
                self.since, self.tries_on = None, True
        self.end_by(at)
        if succeeded:
            self._succeed(at)
        else:
            self._fail(at)

    def end_by(self, at: datetime, *, enabled: bool = False) -> None:
        """The webhook is enabled, by a success now or because its time is over."""
        if self.since is None or self.until is None or (at < self.until and not enabled):
            return
        until = min(at, self.until)
        if until > self.since:
            self.found.append(Gap(self.since, until))
        self.since = None

    def _succeed(self, at: datetime) -> None:
        self.failures, self.tries_on = 0, False
        if at < self.started:
            self.found.clear()

    def _fail(self, at: datetime) -> None:
        self.failures += 1
        if self.failures >= _FAILURES and not self.tries_on:
            self.since = at
            self.until = at + min(_FIRST * (1 << min(self.failures - _FAILURES, 12)), _LONGEST)
