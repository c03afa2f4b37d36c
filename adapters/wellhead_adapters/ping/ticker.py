"""Which ticks are due, which were missed, and what to do about them: values in, values out. Sends nothing, never waits.

One `Agenda` holds the next tick of every schedule in one heap, for one timer. What happens in time:

- ``due(now)`` hands out what is due; send it, then say ``advance(tick)``. So that of ten thousand ticks at :00 each is
  sent before any further one is computed: each tick knows the one that follows, up to which it is `worth` sending, as
  that was found when the tick before it was done with.
- A tick found later than `LATE` was slept through: the machine was suspended, or its clock was put forward. It is
  missed, and `catch_up` says what is still sent.
- A clock that was put back repeats no tick: each schedule stays silent until its next one is due. After more than
  `REPEATED` the clock is taken to have been wrong before (`went_back`), and ``rewind`` starts anew from the present.
"""

from __future__ import annotations

import enum
import heapq
from dataclasses import dataclass
from datetime import timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING, Final, NamedTuple

from wellhead.event import rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    from .schedule import Schedule

LATE: Final = timedelta(seconds=60)
"""How late a tick may be found and still be sent as if on time: a busy machine, not a sleeping one."""
REPEATED: Final = timedelta(hours=1)
"""How far a clock may be put back (a wrong summer time, say) with nothing sent again."""
_LEAST_WORTH: Final = timedelta(minutes=1)
_MOST_WORTH: Final = timedelta(hours=1)
_COUNTED: Final = timedelta(days=3652)  # a wrong state file must not make us count for a minute
_GARBAGE: Final = 64
_NONE: Final = timedelta()
_SECOND: Final = timedelta(seconds=1)
_MOMENT: Final = timedelta(microseconds=1)


class CatchUp(enum.Enum):
    """What to do about missed ticks."""

    SKIP = "skip"
    LAST = "last"
    ALL = "all"


@dataclass(frozen=True, slots=True, kw_only=True)
class CatchUpRule:
    """Which missed ticks are sent after all: none older than ``max_age``, and of those the last ``max_number``."""

    what: CatchUp = CatchUp.SKIP
    max_age: timedelta = timedelta(days=1)
    max_number: int = 100

    def __post_init__(self) -> None:
        if self.max_age < _NONE or self.max_number < 0:
            raise ValueError(f"max_age {self.max_age} and max_number {self.max_number} must not be negative")


@dataclass(frozen=True, slots=True)
class Missed:
    """The verdict on a stretch of time in which nothing was sent."""

    send: tuple[datetime, ...]
    """The ticks to send after all, in order."""
    lost: int
    """How many others there were in the last ten years: to be counted as dropped."""


class Tick(NamedTuple):  # no dataclass: ten thousand are made at once
    """A tick that is due, of one schedule of the agenda. Hand it back with `Agenda.advance` once it is sent."""

    key: str
    at: datetime
    """The scheduled instant."""
    due: datetime
    """The same with the jitter."""
    following: datetime | None
    """The next scheduled instant; None where the calendar ends before."""
    entry: _Entry

    def missed(self, now: datetime, late: timedelta = LATE) -> bool:
        """Whether it was slept through, and is for `catch_up` to decide about."""
        return now - self.due > late


def catch_up(
    schedule: Schedule, since: datetime, now: datetime, rule: CatchUpRule, *, late: timedelta = _NONE
) -> Missed:
    """What to do about the ticks after ``since``, the last one that was sent, up to and including ``now``.

    Ticks no older than ``late`` are sent whatever the rule says. Where ``now`` is not after ``since`` (the clock was
    put back) nothing was missed.
    """
    if now <= since:
        return Missed((), 0)
    since = _later(since, now, _COUNTED)
    number = {CatchUp.SKIP: 0, CatchUp.LAST: 1, CatchUp.ALL: rule.max_number}[rule.what]
    send = schedule.ticks_between(_later(since, now, rule.max_age), now, min(number, rule.max_number))
    fresh = schedule.ticks_between(_later(since, now, late), now, max(rule.max_number, 1)) if late else ()
    send = max(send, fresh, key=len)  # both end with the last tick, so the longer holds the shorter
    return Missed(send, schedule.count_between(since, now) - len(send))


def overslept(tick: Tick, now: datetime, rule: CatchUpRule) -> Missed:
    """What to do about a tick that was `Tick.missed`, and those of its schedule since; then ``advance(tick, now)``."""
    return catch_up(tick.entry.schedule, tick.at - _SECOND, now, rule, late=LATE)


def worth(following: datetime | None, now: datetime) -> timedelta:
    """How long a tick is tried: until the one that follows, at least a minute, at most an hour."""
    left = _MOST_WORTH if following is None else following - now
    return min(max(left, _LEAST_WORTH), _MOST_WORTH)


def went_back(last: datetime, now: datetime) -> bool:
    """Whether the clock, which showed ``last`` before ``now``, was put back so far that `Agenda.rewind` is due."""
    return last - now > REPEATED


def jitter(source: str, at: datetime, spread: timedelta) -> timedelta:
    """How long after ``at`` to send: less than ``spread``, the same for the same source and instant everywhere."""
    if spread <= _NONE:
        return _NONE
    digest = blake2b(f"{source} {rfc3339(at)}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return timedelta(microseconds=spread // _MOMENT * int.from_bytes(digest, "big") >> 64)


def _later(since: datetime, now: datetime, age: timedelta) -> datetime:
    return now - age - _MOMENT if age < now - since else since


class _Entry:
    """A schedule of the agenda. Replaced, never changed in key or schedule; ``due`` is None while its tick is out."""

    __slots__ = ("at", "due", "following", "key", "schedule", "spread")

    def __init__(self, key: str, schedule: Schedule, spread: timedelta) -> None:
        self.key = key
        self.schedule = schedule
        self.spread = spread
        self.at: datetime | None = None
        self.due: datetime | None = None
        self.following: datetime | None = None


class Agenda:
    """The next tick of each of many schedules, the earliest first. All instants are aware ones."""

    __slots__ = ("_entries", "_heap", "_number")

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        # (due, number, entry): the number keeps ties in the order they came. What is no longer true stays until
        # it comes up, or until there is more of it than of what is true.
        self._heap: list[tuple[datetime, int, _Entry]] = []
        self._number = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def put(self, key: str, schedule: Schedule, now: datetime, *, spread: timedelta = _NONE) -> None:
        """From now on ``key`` ticks on this schedule, first strictly after ``now``: nothing is sent retroactively.

        ``key`` is the event's source, or what else is the same in every process: the `jitter` is made from it.
        Putting what is there already changes nothing, so that a tick due at this instant is not lost. A tick of
        the former schedule that is out does not bring that schedule back.
        """
        old = self._entries.get(key)
        if old is not None and old.schedule == schedule and old.spread == spread:
            return
        entry = _Entry(key, schedule, spread)
        self._entries[key] = entry
        self._plan(entry, schedule.next_after(now))
        self._tidy()

    def remove(self, key: str) -> None:
        """``key`` ticks no more. Removing what is not there changes nothing."""
        if self._entries.pop(key, None) is not None:
            self._tidy()

    def due(self, now: datetime, limit: int | None = None) -> list[Tick]:
        """The ticks due at ``now``, at most one of each schedule, the earliest first; at most ``limit``.

        A schedule whose tick was handed out stands still until `advance`.
        """
        ticks: list[Tick] = []
        while self._heap and self._heap[0][0] <= now and (limit is None or len(ticks) < limit):
            due, _, entry = heapq.heappop(self._heap)
            if self._holds(due, entry) and entry.at is not None:
                ticks.append(Tick(entry.key, entry.at, due, entry.following, entry))
                entry.due = None
        return ticks

    def advance(self, tick: Tick, after: datetime | None = None) -> None:
        """``tick`` is done with: find the next one of its schedule, after it or after ``after`` where that is given.

        ``after`` is for what `catch_up` has decided about. Nothing happens where the schedule was replaced or
        removed since, or was advanced already.
        """
        entry = tick.entry
        if self._entries.get(tick.key) is entry and entry.due is None and entry.at == tick.at:
            self._plan(entry, tick.following if after is None else entry.schedule.next_after(max(after, tick.at)))

    def next_at(self) -> datetime | None:
        """When the next tick is due, for the one timer; None where nothing is to come."""
        while self._heap and not self._holds(self._heap[0][0], self._heap[0][2]):
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else None

    def rewind(self, now: datetime) -> None:
        """Every schedule's next tick is the first after ``now``: the clock was wrong before (`went_back`)."""
        self._heap.clear()
        for entry in self._entries.values():
            self._plan(entry, entry.schedule.next_after(now))

    def _plan(self, entry: _Entry, at: datetime | None) -> None:
        entry.at = at
        if at is None:
            entry.due = None
            return
        entry.following = entry.schedule.next_after(at)
        entry.due = due = at + jitter(entry.key, at, entry.spread) if entry.spread else at
        self._number += 1
        heapq.heappush(self._heap, (due, self._number, entry))

    def _holds(self, due: datetime, entry: _Entry) -> bool:
        return entry.due == due and self._entries.get(entry.key) is entry

    def _tidy(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + _GARBAGE:
            self._heap = [item for item in self._heap if self._holds(item[0], item[2])]
            heapq.heapify(self._heap)
