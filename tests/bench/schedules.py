"""What a schedule costs: microseconds for a tick, bytes for one of ten thousand. Prints; asserts nothing."""

from __future__ import annotations

import time
import tracemalloc
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from wellhead_adapters.ping.schedule import Schedule
from wellhead_adapters.ping.ticker import Agenda

if TYPE_CHECKING:
    from collections.abc import Callable

NOW: Final = datetime(2026, 11, 21, 6, 20, 33, 500_000, tzinfo=UTC)
SCHEDULES: Final = (
    ("* * * * *", "UTC"), ("*/5 * * * *", "Europe/Paris"), ("* * * * * *", "UTC"), ("30 2 * * *", "America/New_York"),
    ("0 9 * * mon-fri", "Asia/Kolkata"), ("0 0 1 1 *", "Europe/Paris"), ("0 0 29 2 *", "Europe/Paris"),
    ("30 1 13 * fri", "Africa/Cairo"), ("@every 90s", "UTC"),
)  # fmt: skip
MANY: Final = 10_000


def microseconds(work: Callable[[], object], repeat: int = 5000) -> float:
    best = 1e9
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(repeat):
            work()
        best = min(best, (time.perf_counter() - start) / repeat)
    return best * 1e6


def speed() -> None:
    print(f"{'schedule':38}{'cold':>8}{'next':>8}{'prev':>8}{'chain':>8}  us")
    for spec, timezone in SCHEDULES:
        schedule = Schedule.parse(spec, timezone)
        start = time.perf_counter()
        schedule.next_after(NOW)
        cold = (time.perf_counter() - start) * 1e6
        at, number, start = NOW, 0, time.perf_counter()
        while number < 1000 and (tick := schedule.next_after(at)):
            at, number = tick, number + 1
        chain = (time.perf_counter() - start) * 1e6 / number
        after = microseconds(lambda: schedule.next_after(NOW))  # noqa: B023 - called at once
        before = microseconds(lambda: schedule.previous_at_or_before(NOW))  # noqa: B023 - called at once
        print(f"{spec + ' ' + timezone:38}{cold:8.1f}{after:8.1f}{before:8.1f}{chain:8.1f}")
    start = time.perf_counter()
    Schedule.parse("0 0 29 2 *", "Asia/Tokyo").count_between(NOW.replace(year=1976), NOW)
    print(f"count 50 years: {(time.perf_counter() - start) * 1e3:.1f} ms")


def memory(name: str, text: Callable[[int], str]) -> None:
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    schedules = [
        Schedule.parse(text(number), ("UTC", "Europe/Paris", "Asia/Tokyo")[number % 3]) for number in range(MANY)
    ]
    between = tracemalloc.get_traced_memory()[0]
    agenda = Agenda()
    for number, schedule in enumerate(schedules):
        agenda.put(f"/apis/v1/namespaces/ns/pingsources/p{number}", schedule, NOW)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    print(f"{name:38}{(between - before) / MANY:8.0f} bytes a schedule, {(after - between) / MANY:.0f} in the agenda")


def agenda() -> None:
    held = Agenda()
    schedules = [Schedule.parse(f"{number % 60} * * * *") for number in range(MANY)]
    start = time.perf_counter()
    for number, schedule in enumerate(schedules):
        held.put(str(number), schedule, NOW)
    put = time.perf_counter() - start
    start = time.perf_counter()
    ticks = held.due(NOW.replace(hour=8))
    due = time.perf_counter() - start
    start = time.perf_counter()
    for tick in ticks:
        held.advance(tick)
    advance = time.perf_counter() - start
    print(
        f"{MANY} in the agenda: put {put * 1e3:.0f} ms, {len(ticks)} due {due * 1e3:.0f} ms, advance {advance * 1e3:.0f} ms"
    )


if __name__ == "__main__":
    speed()
    memory("10,000 of 60 different schedules", lambda number: f"{number % 60} * * * *")
    memory("10,000 different schedules", lambda number: f"{number % 60} {number // 60 % 24} * * {number // 1440}")
    agenda()
