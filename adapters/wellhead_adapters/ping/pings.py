"""The loop: one heap and one timer for any number of PingSources, each with its own sink.

When a tick is due, missed or repeated is decided in ``ticker.py``; what it looks like, in ``events.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Final

from wellhead.adapter import Deadline
from wellhead.errors import ConfigError, DeliveryError
from wellhead.event import rfc3339

from .events import PingSource
from .events import tick as tick_event
from .ticker import Agenda, CatchUp, CatchUpRule, Missed, Tick, catch_up, overslept, went_back, worth

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from datetime import datetime

    from wellhead.adapter import Sink
    from wellhead.clock import Clock

    from .config import PingConfig
    from .state import State

_log = logging.getLogger(__name__)
_NAP: Final = 30.0
"""The longest sleep, in seconds: the wall clock may have jumped, or the machine been suspended, meanwhile."""
_AT_ONCE: Final = 256
"""Ticks handed out in one go, before others get their turn of the loop."""
_WRITTEN_AFTER: Final = 1.0
"""Seconds after which what was settled stands in the state file."""


@dataclass(frozen=True, slots=True, eq=False)
class _Source:
    """One PingSource at work."""

    key: str
    ping: PingSource
    rule: CatchUpRule
    sink: Sink


class Pings:
    """Any number of PingSources in one process: no task, no timer and no thread of its own for any of them.

    `put` and `remove` may be called before `run` and while it runs. A sink belongs to whoever opened it: to let what is
    on its way end, `remove` the source, and drain its sink then.
    """

    def __init__(self, *, clock: Clock, state: State | None = None) -> None:
        self._clock = clock
        self._state = state
        self._writing: asyncio.TimerHandle | None = None
        self._agenda = Agenda()
        self._sources: dict[str, _Source] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._changed = asyncio.Event()

    def put(self, key: str, config: PingConfig, sink: Sink) -> None:
        """From now on ``key`` ticks as ``config`` says, into ``sink``. Nothing is sent retroactively, but catch-up.

        What is there under ``key`` is replaced; where its schedule is the same, no tick is lost or repeated.
        """
        ping = config.ping
        source = self._sources[key] = _Source(key, ping, config.rule, sink)
        now = self._clock.now()
        self._catch_up(source, now)
        self._agenda.put(key, ping.schedule, now, spread=config.jitter)
        if _log.isEnabledFor(logging.INFO):
            following = ", ".join(rfc3339(at) for at in islice(ping.schedule.ticks_after(now), 3))
            facts = {"source": ping.source, "schedule": str(ping.schedule), "next": following}
            _log.info("schedule is set", extra=facts)
        self._changed.set()

    def remove(self, key: str) -> None:
        """``key`` ticks no more. What was given to its sink is the sink's to deliver."""
        self._agenda.remove(key)
        del self._sources[key]

    async def run(self, ready: Callable[[], None]) -> None:
        """Tick until cancelled; then let the ticks on their way be taken by their sinks, and end."""
        ready()
        last = self._clock.now()
        try:
            while True:
                now = self._clock.now()
                if went_back(last, now):
                    _log.warning("the clock was put back", extra={"from": last.isoformat(), "to": now.isoformat()})
                    self._agenda.rewind(now)
                last = now
                await self._fire_due(now)
                await self._sleep()
        finally:
            for sending in self._sending:
                sending.cancel()  # the delivery itself goes on: it is the sink's
            if self._writing is not None:
                self._writing.cancel()
                self._write_state()

    async def _fire_due(self, now: datetime) -> None:
        """Send all that is due; only then find when each comes next, so that no tick waits for another's search."""
        handed: list[tuple[Tick, datetime | None]] = []
        while ticks := self._agenda.due(now, _AT_ONCE):
            sent = self._clock.now()
            handed += [(tick, self._fire(tick, now, sent)) for tick in ticks]
            await asyncio.sleep(0)  # the sends begin
        for number, (tick, after) in enumerate(handed, 1):
            self._agenda.advance(tick, after)
            if number % _AT_ONCE == 0:
                await asyncio.sleep(0)

    async def _sleep(self) -> None:
        """Until the next tick, a change, or `_NAP`, whichever comes first."""
        following = self._agenda.next_at()
        wait = _NAP if following is None else (following - self._clock.now()).total_seconds()
        self._changed.clear()
        if wait <= 0:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(wait, _NAP)):
                await self._changed.wait()

    def _fire(self, tick: Tick, now: datetime, sent: datetime) -> datetime | None:
        """Send a tick, or what is to be sent of those that were slept through; what it comes next after, if not itself."""
        source = self._sources[tick.key]
        if tick.missed(now):
            self._make_up(source, overslept(tick, now, source.rule))
            return now
        if self._state is not None:
            self._state.begin(_state_key(source.ping), tick.at)
        self._begin(self._send(source, tick.at, tick.following, sent))
        return None

    def _catch_up(self, source: _Source, now: datetime) -> None:
        if self._state is None or source.rule.what is CatchUp.SKIP:
            return
        last = self._state.last(_state_key(source.ping))
        if last is not None:
            self._make_up(source, catch_up(source.ping.schedule, last, now, source.rule))

    def _make_up(self, source: _Source, missed: Missed) -> None:
        if missed.send or missed.lost:
            facts = {"source": source.ping.source, "sent_after_all": len(missed.send), "skipped": missed.lost}
            _log.warning("ticks were missed", extra=facts)
        if self._state is not None:
            for at in missed.send:
                self._state.begin(_state_key(source.ping), at)
        if missed.send:
            self._begin(self._send_each(source, missed.send))

    def _begin(self, sends: Coroutine[object, None, None]) -> None:
        sending = asyncio.get_running_loop().create_task(sends)
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _send_each(self, source: _Source, ticks: tuple[datetime, ...]) -> None:
        """One after another, beside what else is on its way."""
        for number, at in enumerate(ticks):
            if self._sources.get(source.key) is not source:
                facts = {"source": source.ping.source, "skipped": len(ticks) - number}
                _log.warning("ticks that were missed are not sent: their source is gone", extra=facts)
                return
            await self._send(source, at, source.ping.schedule.next_after(at), self._clock.now())

    async def _send(self, source: _Source, at: datetime, following: datetime | None, now: datetime) -> None:
        event = tick_event(source.ping, at, now)
        until = asyncio.get_running_loop().time() + worth(following, now).total_seconds()
        # A tick whose time is over was counted, logged, and dead-lettered where there is such a sink.
        with contextlib.suppress(DeliveryError):
            await source.sink.send(event, deadline=Deadline(until))
        if self._state is not None and self._state.settle(_state_key(source.ping), at):
            self._write_soon()

    def _write_soon(self) -> None:
        if self._writing is None:
            self._writing = asyncio.get_running_loop().call_later(_WRITTEN_AFTER, self._write_state)

    def _write_state(self) -> None:
        self._writing = None
        if self._state is None:
            return
        try:
            self._state.write()
        except ConfigError as error:
            _log.error("ticks would be repeated after a restart", extra={"problem": str(error)})


def _state_key(ping: PingSource) -> str:
    return f"{ping.source} {ping.schedule}"
