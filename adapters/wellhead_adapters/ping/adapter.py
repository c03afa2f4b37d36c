"""The loop: one heap and one timer for any number of PingSources, each with its own sink.

When a tick is due, missed or repeated is decided in ``ticker.py``; what it looks like, in ``events.py``.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, Final

from wellhead.adapter import Deadline
from wellhead.clock import Clock, SystemClock
from wellhead.errors import DeliveryError
from wellhead.event import rfc3339

from .config import SPEC_FIELDS, PingConfig, from_manifest
from .events import EVENT_TYPE, PingSource
from .events import tick as tick_event
from .state import State
from .ticker import Agenda, CatchUp, Missed, Tick, catch_up, overslept, went_back

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from wellhead.adapter import Sink

_log = logging.getLogger(__name__)
_NAP: Final = 30.0
"""The longest sleep, in seconds: the wall clock may have jumped, or the machine been suspended, meanwhile."""
_AT_ONCE: Final = 256
"""Ticks handed out in one go, before others get their turn of the loop."""
_LEAST_WORTH: Final = timedelta(minutes=1)
_MOST_WORTH: Final = timedelta(hours=1)


@dataclass(slots=True)
class _Source:
    """One PingSource at work: what is on its way, and its sink."""

    config: PingConfig
    ping: PingSource
    sink: Sink
    sending: set[asyncio.Task[None]] = field(default_factory=set)
    unsettled: set[datetime] = field(default_factory=set)
    settled: datetime | None = None


class Pings:
    """Any number of PingSources in one process: no task, no timer and no thread of its own for any of them."""

    def __init__(self, *, clock: Clock, state: State | None = None) -> None:
        self._clock = clock
        self._state = state
        self._agenda = Agenda()
        self._sources: dict[str, _Source] = {}
        self._changed = asyncio.Event()

    def put(self, key: str, config: PingConfig, sink: Sink) -> None:
        """From now on ``key`` ticks as ``config`` says, into ``sink``. Nothing is sent retroactively, but catch-up."""
        ping = config.source()
        source = self._sources[key] = _Source(config, ping, sink)
        now = self._clock.now()
        self._catch_up(source, now)
        self._agenda.put(key, ping.schedule, now, spread=config.jitter)
        following = [rfc3339(at) for at in islice(ping.schedule.ticks_after(now), 3)]
        facts = {"source": ping.source, "schedule": str(ping.schedule), "next": following}
        _log.info("schedule is set", extra=facts)
        self._changed.set()

    def remove(self, key: str) -> set[asyncio.Task[None]]:
        """``key`` ticks no more. Returns what is still on its way."""
        self._agenda.remove(key)
        return self._sources.pop(key).sending

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
            for source in self._sources.values():
                for sending in source.sending:
                    sending.cancel()  # the delivery itself goes on: it is the sink's
            self._write_state()

    async def _fire_due(self, now: datetime) -> None:
        """Send all that is due; only then find when each comes next, so that no tick waits for another's search."""
        handed: list[tuple[Tick, datetime | None]] = []
        while ticks := self._agenda.due(now, _AT_ONCE):
            handed += [(tick, self._fire(tick, now)) for tick in ticks]
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

    def _fire(self, tick: Tick, now: datetime) -> datetime | None:
        """Send a tick, or what is to be sent of those that were slept through; what it comes next after, if not itself."""
        source = self._sources[tick.key]
        if not tick.missed(now):
            self._send(source, (tick.at,))
            return None
        missed = overslept(tick, now, source.config.rule)
        self._tell(source, missed)
        self._send(source, missed.send)
        return now

    def _catch_up(self, source: _Source, now: datetime) -> None:
        if self._state is None or source.config.catch_up is CatchUp.SKIP:
            return
        last = self._state.last(_state_key(source.ping))
        if last is not None:
            missed = catch_up(source.ping.schedule, last, now, source.config.rule)
            self._tell(source, missed)
            self._send(source, missed.send)

    def _tell(self, source: _Source, missed: Missed) -> None:
        if missed.send or missed.lost:
            facts = {"source": source.ping.source, "sent_after_all": len(missed.send), "skipped": missed.lost}
            _log.warning("ticks were missed", extra=facts)

    def _send(self, source: _Source, ticks: tuple[datetime, ...]) -> None:
        """Send ``ticks`` one after another, beside what is already on its way."""
        if not ticks:
            return
        source.unsettled.update(ticks)
        sending = asyncio.create_task(self._send_each(source, ticks), name=f"ticks of {source.ping.source}")
        source.sending.add(sending)
        sending.add_done_callback(source.sending.discard)

    async def _send_each(self, source: _Source, ticks: tuple[datetime, ...]) -> None:
        for at in ticks:
            now = self._clock.now()
            event = tick_event(source.ping, at, now)
            worth = self._worth(source.ping, at, now)
            # A tick whose time is over was counted, logged, and dead-lettered where there is such a sink.
            with contextlib.suppress(DeliveryError):
                await source.sink.send(event, deadline=Deadline(asyncio.get_running_loop().time() + worth))
            self._settle(source, at)

    def _worth(self, ping: PingSource, at: datetime, now: datetime) -> float:
        """Seconds that a tick is tried: until the next is due, at least a minute, at most an hour."""
        following = ping.schedule.next_after(at)
        left = _MOST_WORTH if following is None else following - now
        return min(max(left, _LEAST_WORTH), _MOST_WORTH).total_seconds()

    def _settle(self, source: _Source, at: datetime) -> None:
        source.unsettled.discard(at)
        source.settled = max(at, source.settled or at)
        if self._state is not None and not any(earlier < source.settled for earlier in source.unsettled):
            self._state.settle(_state_key(source.ping), source.settled)
            self._write_state()

    def _write_state(self) -> None:
        if self._state is not None:
            self._state.write()


class Ping:
    """Send an event at each tick of a schedule (a drop-in for Knative's PingSource).

    Each tick is tried until it is accepted or its time is over: until the next tick, at least a minute, at most an
    hour. Ids are the same from every replica and after every restart. `wellhead next` shows when a schedule fires.
    """

    Config: ClassVar[type] = PingConfig
    event_types: ClassVar[tuple[str, ...]] = (EVENT_TYPE,)
    health_port: ClassVar[int] = 8080
    manifest_kinds: ClassVar[tuple[str, ...]] = ("PingSource",)
    spec_fields: ClassVar[tuple[str, ...]] = SPEC_FIELDS
    from_manifest = staticmethod(from_manifest)

    def __init__(self, config: PingConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._state = State(config.state_file) if config.state_file is not None else None

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """Tick until cancelled."""
        pings = Pings(clock=self._clock, state=self._state)
        pings.put(self._config.name, self._config, sink)
        await pings.run(ready)


def _state_key(ping: PingSource) -> str:
    return f"{ping.source} {ping.schedule}"
