from __future__ import annotations

import itertools
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead_adapters.ping.schedule import Schedule
from wellhead_adapters.ping.ticker import (
    LATE,
    Agenda,
    CatchUp,
    CatchUpRule,
    Missed,
    Tick,
    catch_up,
    jitter,
    overslept,
    went_back,
    worth,
)

NOON: Final = datetime(2026, 1, 1, 12, tzinfo=UTC)
SECOND: Final = timedelta(seconds=1)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
DAY: Final = timedelta(days=1)
MINUTELY: Final = Schedule.parse("* * * * *")
HOURLY: Final = Schedule.parse("0 * * * *")


def rule(what: CatchUp, *, max_age: timedelta = DAY, max_number: int = 100) -> CatchUpRule:
    return CatchUpRule(what=what, max_age=max_age, max_number=max_number)


def ats(ticks: list[Tick]) -> list[tuple[str, datetime]]:
    return [(tick.key, tick.at) for tick in ticks]


# --- agenda ----------------------------------------------------------------------------------------------------------


def test_the_first_tick_is_strictly_after_now() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON)
    assert agenda.next_at() == NOON + MINUTE
    assert agenda.due(NOON + MINUTE - SECOND) == []
    assert ats(agenda.due(NOON + MINUTE)) == [("a", NOON + MINUTE)]


@pytest.mark.parametrize(
    ("following", "tried"),
    [(NOON + SECOND, MINUTE), (NOON - DAY, MINUTE), (NOON + 7 * MINUTE, 7 * MINUTE), (NOON + DAY, HOUR), (None, HOUR)],
)
def test_a_tick_is_tried_until_the_next_at_least_a_minute_at_most_an_hour(
    following: datetime | None, tried: timedelta
) -> None:
    assert worth(following, NOON) == tried


def test_a_tick_knows_the_one_that_follows() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON)
    for minute in range(1, 4):
        (tick,) = agenda.due(NOON + minute * MINUTE)
        assert tick.following == NOON + (minute + 1) * MINUTE
        agenda.advance(tick)
    agenda.put("b", HOURLY, datetime.max.replace(tzinfo=UTC) - HOUR)
    assert agenda.due(datetime.max.replace(tzinfo=UTC))[-1].following is None


def test_an_empty_agenda_has_nothing_to_come() -> None:
    agenda = Agenda()
    assert (agenda.next_at(), agenda.due(NOON), len(agenda), "a" in agenda) == (None, [], 0, False)
    agenda.remove("a")


def test_a_tick_is_handed_out_once_and_the_next_is_computed_only_when_it_was_sent() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON)
    (tick,) = agenda.due(NOON + MINUTE)
    assert (agenda.next_at(), agenda.due(NOON + HOUR)) == (None, [])
    agenda.advance(tick)
    agenda.advance(tick)  # a second time changes nothing
    assert ats(agenda.due(NOON + HOUR)) == [("a", NOON + 2 * MINUTE)]


def test_what_is_due_comes_in_order_of_time_and_at_one_time_in_order_of_coming() -> None:
    agenda = Agenda()
    for key, schedule in (("b", HOURLY), ("c", MINUTELY), ("a", MINUTELY)):
        agenda.put(key, schedule, NOON)
    assert [tick.key for tick in agenda.due(NOON + HOUR)] == ["c", "a", "b"]


def test_no_more_than_the_limit_are_handed_out() -> None:
    agenda = Agenda()
    for key in "abc":
        agenda.put(key, MINUTELY, NOON)
    assert [len(agenda.due(NOON + MINUTE, limit=2)) for _ in range(3)] == [2, 1, 0]


def test_a_new_schedule_never_fires_retroactively_and_forgets_the_old_one() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON)
    (out,) = agenda.due(NOON + MINUTE)
    agenda.put("a", HOURLY, NOON + 90 * SECOND)
    agenda.advance(out)  # the tick of the former schedule that is out
    assert (len(agenda), agenda.next_at()) == (1, NOON + HOUR)


def test_putting_what_is_there_already_loses_no_tick_due_at_this_instant() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON)
    agenda.put("a", Schedule.parse("*  * * *  *"), NOON + MINUTE)
    assert ats(agenda.due(NOON + MINUTE)) == [("a", NOON + MINUTE)]


def test_what_is_removed_ticks_no_more_even_when_its_tick_is_out() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON)
    agenda.put("b", HOURLY, NOON)
    (tick,) = agenda.due(NOON + MINUTE)
    agenda.remove("a")
    agenda.advance(tick)
    assert (len(agenda), "a" in agenda, agenda.next_at()) == (1, False, NOON + HOUR)
    agenda.remove("b")
    assert agenda.next_at() is None


def test_removed_and_put_again_starts_from_then() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON)
    agenda.remove("a")
    agenda.put("a", MINUTELY, NOON + HOUR)
    assert ats(agenda.due(NOON + DAY)) == [("a", NOON + HOUR + MINUTE)]


def test_a_schedule_at_the_end_of_the_calendar_stays_silent() -> None:
    agenda = Agenda()
    agenda.put("a", HOURLY, datetime.max.replace(tzinfo=UTC))
    assert (agenda.next_at(), len(agenda)) == (None, 1)


def test_garbage_is_bounded_however_often_schedules_are_replaced_and_removed() -> None:
    agenda = Agenda()
    for number in range(5000):
        agenda.put("a", (MINUTELY, HOURLY)[number % 2], NOON)
        agenda.put(str(number), HOURLY, NOON)
        agenda.remove(str(number))
    assert len(agenda._heap) < 100


def test_ten_thousand_schedules_are_cheap() -> None:
    agenda = Agenda()
    start = time.perf_counter()
    for number in range(10_000):
        agenda.put(str(number), Schedule.parse(f"{number % 60} * * * *"), NOON - MINUTE)
    assert len(agenda.due(NOON)) == 167
    for number in range(10_000):
        agenda.remove(str(number))
    assert (len(agenda), agenda.next_at()) == (0, None)
    assert time.perf_counter() - start < 5


@given(st.lists(st.tuples(st.sampled_from("pprdda"), st.sampled_from("abc"), st.integers(0, 200))))
def test_the_agenda_ticks_as_a_plain_list_of_schedules_would(steps: list[tuple[str, str, int]]) -> None:
    agenda, now = Agenda(), NOON
    schedules: dict[str, tuple[Schedule, datetime | None]] = {}
    out: list[Tick] = []
    for what, key, seconds in steps:
        now += timedelta(seconds=seconds)
        schedule = (MINUTELY, HOURLY, Schedule.parse("@every 7s"))[seconds % 3]
        if what == "p" and schedules.get(key, (None,))[0] != schedule:
            schedules[key] = schedule, schedule.next_after(now)
            out = [tick for tick in out if tick.key != key]
        elif what == "r":
            schedules.pop(key, None)
            out = [tick for tick in out if tick.key != key]
        if what == "p":
            agenda.put(key, schedule, now)
        elif what == "r":
            agenda.remove(key)
        elif what == "d":
            expected = sorted((at, name) for name, (_, at) in schedules.items() if at is not None and at <= now)
            ticks = agenda.due(now)
            assert sorted((tick.at, tick.key) for tick in ticks) == expected
            assert [tick.at for tick in ticks] == [at for at, _ in expected]
            out += ticks
            schedules.update({name: (schedules[name][0], None) for _, name in expected})
        else:
            for tick in out:
                agenda.advance(tick)
                schedules[tick.key] = schedules[tick.key][0], schedules[tick.key][0].next_after(tick.at)
            out = []
        assert agenda.next_at() == min((at for _, at in schedules.values() if at), default=None)


# --- jitter ----------------------------------------------------------------------------------------------------------


def test_jitter_is_none_by_default_and_the_same_everywhere() -> None:
    spread = timedelta(milliseconds=500)
    assert jitter("/s", NOON, timedelta()) == timedelta()
    assert jitter("/s", NOON, spread) == timedelta(microseconds=459_198)
    assert len({jitter(source, at, spread) for source in "ab" for at in (NOON, NOON + MINUTE)}) == 4


@given(st.text(), st.datetimes(timezones=st.just(UTC)), st.timedeltas(timedelta(), timedelta(days=9)))
def test_jitter_is_shorter_than_its_spread(source: str, at: datetime, spread: timedelta) -> None:
    assert timedelta() <= jitter(source, at, spread) <= max(spread - timedelta(microseconds=1), timedelta())


def test_jitter_moves_when_a_tick_is_due_and_not_the_tick() -> None:
    agenda = Agenda()
    agenda.put("a", MINUTELY, NOON, spread=30 * SECOND)
    due = agenda.next_at()
    assert due is not None
    assert NOON + MINUTE < due < NOON + MINUTE + 30 * SECOND
    assert agenda.due(due - timedelta(microseconds=1)) == []
    (tick,) = agenda.due(due)
    assert (tick.at, tick.due, tick.missed(due + LATE), tick.missed(due + LATE + SECOND)) == (
        NOON + MINUTE,
        due,
        False,
        True,
    )


# --- catch-up --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "hours", "lost"),
    [
        (rule(CatchUp.SKIP), [], 5),
        (rule(CatchUp.LAST), [5], 4),
        (rule(CatchUp.ALL), [1, 2, 3, 4, 5], 0),
        (rule(CatchUp.ALL, max_number=2), [4, 5], 3),
        (rule(CatchUp.ALL, max_age=2 * HOUR), [4, 5], 3),
        (rule(CatchUp.ALL, max_age=90 * MINUTE), [4, 5], 3),
        (rule(CatchUp.ALL, max_age=30 * MINUTE), [5], 4),
        (rule(CatchUp.LAST, max_age=29 * MINUTE), [], 5),
        (rule(CatchUp.LAST, max_number=0), [], 5),
    ],
)
def test_missed_ticks_are_caught_up_as_the_rule_says_and_the_others_counted(
    what: CatchUpRule, hours: list[int], lost: int
) -> None:
    now = NOON + 5 * HOUR + 30 * MINUTE
    assert catch_up(HOURLY, NOON, now, what) == Missed(tuple(NOON + hour * HOUR for hour in hours), lost)


def test_a_tick_exactly_as_old_as_may_be_is_caught_up() -> None:
    assert catch_up(HOURLY, NOON, NOON + 2 * HOUR, rule(CatchUp.ALL, max_age=HOUR)).send == (
        NOON + HOUR,
        NOON + 2 * HOUR,
    )


@pytest.mark.parametrize("now", [NOON, NOON - HOUR, NOON + 59 * MINUTE])
def test_where_no_tick_lies_between_none_was_missed(now: datetime) -> None:
    assert catch_up(HOURLY, NOON, now, rule(CatchUp.ALL)) == Missed((), 0)


def test_a_catch_up_of_ten_years_of_seconds_is_quick() -> None:
    start = time.perf_counter()
    verdict = catch_up(Schedule.parse("* * * * * *", "Europe/Paris"), NOON, NOON + 3650 * DAY, rule(CatchUp.ALL))
    assert (len(verdict.send), verdict.lost) == (100, 3650 * 86_400 - 100)
    assert time.perf_counter() - start < 2


def test_a_state_from_the_beginning_of_time_is_counted_for_ten_years_only() -> None:
    schedule = Schedule.parse("0 0 1 1 *", "Europe/Paris")
    assert catch_up(schedule, datetime.min.replace(tzinfo=UTC), NOON, rule(CatchUp.SKIP)) == Missed((), 10)


@pytest.mark.parametrize("bad", [{"max_age": -SECOND}, {"max_number": -1}])
def test_a_rule_with_a_negative_bound_is_refused(bad: dict[str, timedelta | int]) -> None:
    with pytest.raises(ValueError, match="must not be negative"):
        CatchUpRule(**bad)  # type: ignore[arg-type]  # the point of the test


# --- clocks that jump: an adapter's loop without the loop ------------------------------------------------------------


@dataclass
class Simulation:
    """A loop that wakes each 30 s of its own time, on a clock that a test may put wherever it likes."""

    now: datetime
    rule: CatchUpRule = field(default_factory=CatchUpRule)
    agenda: Agenda = field(default_factory=Agenda)
    sent: list[tuple[str, datetime]] = field(default_factory=list)
    lost: int = 0

    def run(self, length: timedelta) -> None:
        last, end = self.now, self.now + length
        while self.now <= end:
            self.wake(last)
            last = self.now
            self.now = max(
                min(self.agenda.next_at() or end, self.now + 30 * SECOND), self.now + timedelta(milliseconds=1)
            )

    def wake(self, last: datetime) -> None:
        if went_back(last, self.now):
            self.agenda.rewind(self.now)
        for tick in self.agenda.due(self.now):
            if tick.missed(self.now):
                verdict = overslept(tick, self.now, self.rule)
                self.sent += [(tick.key, at) for at in verdict.send]
                self.lost += verdict.lost
                self.agenda.advance(tick, self.now)
            else:
                self.sent.append((tick.key, tick.at))
                self.agenda.advance(tick)

    def jump(self, by: timedelta) -> None:
        last, self.now = self.now, self.now + by
        self.wake(last)


def simulated(schedule: Schedule, start: datetime, what: CatchUp = CatchUp.SKIP) -> Simulation:
    simulation = Simulation(start, rule(what))
    simulation.agenda.put("a", schedule, start)
    return simulation


@pytest.mark.parametrize(("what", "sent", "lost"), [(CatchUp.SKIP, 1, 59), (CatchUp.LAST, 1, 59), (CatchUp.ALL, 60, 0)])
def test_a_clock_put_forward_an_hour_misses_what_it_skipped(what: CatchUp, sent: int, lost: int) -> None:
    simulation = simulated(MINUTELY, NOON + 30 * SECOND, what)
    simulation.jump(HOUR)  # 13:00:30; the tick of 13:00 is late by no more than a busy machine would be
    assert (len(simulation.sent), simulation.lost, simulation.sent[-1][1]) == (sent, lost, NOON + HOUR)
    simulation.run(5 * MINUTE)
    assert len(simulation.sent) == sent + 5


def test_a_clock_put_back_an_hour_sends_no_tick_twice() -> None:
    simulation = simulated(MINUTELY, NOON + 30 * SECOND)
    simulation.run(10 * MINUTE)
    simulation.jump(-HOUR)
    simulation.run(HOUR + 5 * MINUTE)
    assert [at for _, at in simulation.sent] == [
        NOON + number * MINUTE for number in range(1, len(simulation.sent) + 1)
    ]
    assert simulation.sent[-1][1] >= NOON + 15 * MINUTE


def test_a_clock_that_was_years_ahead_starts_anew_when_it_is_put_right() -> None:
    simulation = simulated(MINUTELY, NOON + 5000 * DAY)
    simulation.run(2 * MINUTE)
    simulation.jump(-5000 * DAY)
    simulation.sent.clear()
    simulation.run(2 * MINUTE)
    assert len(simulation.sent) == 2
    assert simulation.sent[0][1] < NOON + HOUR


@pytest.mark.parametrize(("what", "sent"), [(CatchUp.SKIP, 0), (CatchUp.LAST, 1), (CatchUp.ALL, 24)])
def test_a_days_suspend_is_caught_up_as_the_rule_says_without_a_storm(what: CatchUp, sent: int) -> None:
    simulation = simulated(HOURLY, NOON + 30 * MINUTE, what)
    simulation.jump(DAY)
    assert (len(simulation.sent), simulation.lost) == (sent, 24 - sent)
    simulation.run(2 * HOUR)
    assert len(simulation.sent) == sent + 2


@pytest.mark.parametrize(
    ("timezone", "night", "ticks"),
    [
        ("Europe/Paris", "2026-03-28T23:00+00:00", 0),
        ("Europe/Paris", "2026-10-24T22:00+00:00", 2),
        ("America/New_York", "2026-03-08T05:00+00:00", 0),
        ("America/New_York", "2026-11-01T04:00+00:00", 1),
        ("Australia/Lord_Howe", "2026-10-03T13:00+00:00", 1),
        ("Australia/Lord_Howe", "2026-04-04T12:00+00:00", 1),
        ("America/Santiago", "2026-09-06T03:00+00:00", 1),
        ("Asia/Kolkata", "2026-03-28T18:00+00:00", 1),
    ],
)
def test_a_dst_night_ticks_at_half_past_two_as_often_as_clocks_show_it(timezone: str, night: str, ticks: int) -> None:
    simulation = simulated(Schedule.parse("30 2 * * *", timezone), datetime.fromisoformat(night).astimezone(UTC))
    simulation.run(8 * HOUR)
    assert (len(simulation.sent), simulation.lost) == (ticks, 0)


def test_a_machine_busy_for_half_a_minute_sends_every_second_of_it() -> None:
    simulation = simulated(Schedule.parse("* * * * * *"), NOON)
    simulation.jump(30 * SECOND)
    for _ in range(30):
        simulation.wake(simulation.now)
    assert [at for _, at in simulation.sent] == [NOON + number * SECOND for number in range(1, 31)]


def test_ten_thousand_ticks_at_once_are_all_handed_out_before_any_next_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    agenda = Agenda()
    for number in range(10_000):
        agenda.put(str(number), HOURLY, NOON)
    computed = itertools.count()
    monkeypatch.setattr(Schedule, "next_after", lambda *_: next(computed))
    assert len(agenda.due(NOON + HOUR)) == 10_000
    assert next(computed) == 0
