"""Ten thousand PingSources in one process: how late their ticks are, what they cost. Prints; asserts nothing.

python tests/bench/ticks.py [SECONDS]    (120 for each of the two cases)
"""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from wellhead.clock import SystemClock
from wellhead_adapters.ping.config import PingConfig
from wellhead_adapters.ping.pings import Pings

if TYPE_CHECKING:
    from wellhead.adapter import Deadline, Fence
    from wellhead.event import CloudEvent

MANY: Final = 10_000


class Late:
    """A sink that notes how long after its scheduled instant each tick was sent, in milliseconds.

    Ticks that were due before ``since`` waited for the bench to put all sources, and are left out.
    """

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self.since = datetime.min.replace(tzinfo=UTC)

    async def send(
        self,
        event: CloudEvent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
    ) -> None:
        at = datetime.fromisoformat(str(event.extensions["scheduledtime"]))
        if at >= self.since:
            self.milliseconds.append((datetime.now(UTC) - at).total_seconds() * 1000)


async def measure(name: str, schedules: list[str], seconds: float) -> None:
    before = memory()
    pings, sink = Pings(clock=SystemClock()), Late()
    for number, schedule in enumerate(schedules):
        config = PingConfig(schedule=schedule, name=f"p{number}", data="x", extra_attributes=True)
        pings.put(str(number), config, sink)  # type: ignore[arg-type]  # it takes our own events only
    kept = (memory() - before) / len(schedules)
    sink.since = datetime.now(UTC)
    running = asyncio.create_task(pings.run(lambda: None))
    used, started = time.process_time(), time.monotonic()
    await asyncio.sleep(seconds)
    share = (time.process_time() - used) / (time.monotonic() - started)
    running.cancel()
    await asyncio.wait({running})
    late = sorted(sink.milliseconds)
    figures = f"p50 {late[len(late) // 2]:.1f} ms, p99 {late[len(late) * 99 // 100]:.1f} ms, max {late[-1]:.1f} ms"
    print(f"{name:<24} {len(late)} ticks, {figures}; CPU {share:.1%}; {kept * 1024:.0f} bytes a source")


class Stepped:
    """A clock that stands where it was put."""

    def __init__(self, at: datetime) -> None:
        self.at = at

    def now(self) -> datetime:
        return self.at


async def cost() -> None:
    """CPU time of a tick, from the timer to the sink and to the next one's place in the heap; with no wait between."""
    clock, sink = Stepped(datetime(2026, 11, 21, 8, 0, 30, tzinfo=UTC)), Late()
    pings = Pings(clock=clock)
    used = time.process_time()
    for number in range(MANY):
        zone = ("UTC", "Europe/Paris", "Asia/Tokyo")[number % 3]
        config = PingConfig(schedule="* * * * *", timezone=zone, name=f"p{number}", data="x", extra_attributes=True)
        pings.put(str(number), config, sink)  # type: ignore[arg-type]  # it takes our own events only
    put, best = time.process_time() - used, 1e9
    clock.at = clock.at.replace(second=0)
    for _ in range(10):
        clock.at += timedelta(minutes=1)
        used = time.process_time()
        await pings._fire_due(clock.at)
        await asyncio.sleep(0)
        best = min(best, time.process_time() - used)
    assert len(sink.milliseconds) == 10 * MANY
    print(f"CPU: {best / MANY * 1e6:.1f} us a tick, {put / MANY * 1e6:.1f} us to put a source")


def memory() -> float:
    """Peak RSS in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


async def main(seconds: float) -> None:
    print(f"{MANY} sources, {seconds:.0f} s each; load {os.getloadavg()[0]:.2f}, {os.cpu_count()} cores")
    await measure("spread over the minute", [f"{number % 60} * * * * *" for number in range(MANY)], seconds)
    await measure("all due at :00", ["* * * * *"] * MANY, seconds)
    await cost()  # last: memory is told by the peak


if __name__ == "__main__":
    import logging

    logging.disable(logging.INFO)
    asyncio.run(main(float(sys.argv[1]) if len(sys.argv) > 1 else 120.0))
