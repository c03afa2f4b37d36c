from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.brute import NAMES, Brute

from wellhead.errors import ConfigError
from wellhead_adapters.ping.schedule import Schedule

SAMPLES: Final = Path(__file__).parent / "samples/cron"
NEXT: Final[dict[str, Any]] = json.loads((SAMPLES / "robfig_v3_next.json").read_text(encoding="utf-8"))
PARSE: Final[list[dict[str, Any]]] = json.loads((SAMPLES / "robfig_v3_parse.json").read_text(encoding="utf-8"))["rows"]

# Rows on which ours is another answer, on purpose; each of these is held against the brute-force search instead.
OURS_LORD_HOWE: Final = "its clocks change by 30 minutes; robfig adds whole hours and is half an hour off"
OURS_NO_MIDNIGHT: Final = (
    "on the day on which clocks jump from 00:00 to 01:00 robfig skips the day, or takes it for the day before (a tick"
    " for Thursdays on a Friday); in Havana it loses 1 October because 1 April had no midnight"
)
NO_MIDNIGHT: Final = {
    ("30 4 1,15 * 5", "Africa/Cairo", "2024-04-25T23:30:00+02:00"),
    ("27/46 */22 ? * thu", "Africa/Cairo", "2024-04-23T23:30:33+02:00"),
    ("17 2 24 apr */2", "Africa/Cairo", "2024-04-25T01:32:52+02:00"),
    ("* 26 1 */26 2-12/8 sat,mon-fri,4-6", "America/Havana", "2012-04-08T07:45:27-04:00"),
}
LORD_HOWE: Final = {
    ("@weekly", "2024-10-06T01:00:00+10:30"),
    ("0 0 1-7 * */7", "2024-10-06T01:00:00+10:30"),
    ("0 0-23/5 * * *", "2024-10-06T01:00:00+10:30"),
    ("5 4 * * sun", "2024-10-06T01:00:00+10:30"),
    ("@daily", "2024-04-07T01:00:00+11:00"),
    ("0 2 * * *", "2024-04-07T01:00:00+11:00"),
    ("0 0 */10 * 0", "2024-04-07T01:00:00+11:00"),
    ("0 0 * * 0", "2024-04-07T01:00:00+11:00"),
    ("0 0-23/5 * * *", "2024-04-07T01:00:00+11:00"),
    ("* 9/17 ? 5,* *", "2024-10-05T23:49:09+10:30"),
    ("* 27-30 23 */6,25-25,21,*/10 * *,6,2-3/6,*/4", "2024-04-06T13:43:26+11:00"),
    ("*/60 23/20 *,9 * *,*,FRI", "2024-04-06T18:08:54+11:00"),
}
OURS_PARSE: Final = {
    "1,,2 * * * *": "minute: an empty item in 1,,2",
    "*-5 * * * *": "minute: * takes no range: *-5",
    "@every -5m": "@every: -5m is not longer than 0",  # robfig: each second
    "0 0 31 2,4,6,9,11 *": "never fires: none of its months (2,4,6,9,11) has a day 31",  # robfig: sleeps for ever
}
DESCRIPTORS: Final = {"@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
ATOI: Final = "failed to parse int from"

ZONES: Final = (
    "UTC", "Europe/Paris", "America/New_York", "Africa/Cairo", "America/Havana", "America/St_Johns", "Asia/Kathmandu",
    "Australia/Lord_Howe", "Antarctica/Troll", "Africa/Casablanca", "America/Sao_Paulo", "Pacific/Apia", "Asia/Gaza",
    "Pacific/Chatham", "Europe/Dublin", "Africa/Monrovia", "Asia/Beirut", "America/Santiago", "Etc/GMT+12",
)  # fmt: skip
# Hours before a change of some of these clocks.
CHANGES: Final = (
    "2024-03-31T00:00", "2024-10-27T00:00", "2024-03-10T06:00", "2024-11-03T05:00", "2024-04-25T21:00", "2024-10-31T20:00",
    "2024-04-06T14:00", "2024-10-05T15:00", "2012-04-01T04:00", "2009-11-01T02:00", "2011-03-13T03:00", "2018-11-04T02:00",
    "2018-02-18T01:00", "2011-12-30T09:00", "2024-03-09T21:00", "2024-04-14T01:00", "2024-03-30T21:00", "1972-01-07T00:40",
    "2024-02-28T23:00", "2024-12-31T23:00", "2037-12-31T23:00", "2100-02-28T12:00", "1969-12-31T23:00", "1901-12-13T20:00",
)  # fmt: skip


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


def nexts(schedule: Schedule, start: datetime, count: int) -> list[datetime | None]:
    found: list[datetime | None] = []
    for _ in range(count):
        start = schedule.next_after(start) or datetime.max.replace(tzinfo=UTC)
        found.append(start)
    return found


def refusal(text: str, timezone: str = "", **options: bool) -> str:
    with pytest.raises(ConfigError) as caught:
        Schedule.parse(text, timezone, **options)
    return str(caught.value)


def is_ours(row: dict[str, Any]) -> bool:
    spec, tz, start = row["spec"], row["tz"], row["from"]
    return (spec, tz, start) in NO_MIDNIGHT or (tz == "Australia/Lord_Howe" and (spec, start) in LORD_HOWE)


def ids(row: dict[str, Any]) -> str:
    return f"{row['spec']} in {row['tz']} from {row['from']}"


FIRING: Final = [row for row in NEXT["rows"] if row["next"] != [""]]


@pytest.mark.parametrize("row", [row for row in FIRING if not is_ours(row)], ids=ids)
def test_fires_when_robfig_cron_does(row: dict[str, Any]) -> None:
    schedule = Schedule.parse(row["spec"], row["tz"])
    assert nexts(schedule, instant(row["from"]), len(row["next"])) == [instant(text) for text in row["next"]]


@pytest.mark.parametrize("row", [row for row in FIRING if is_ours(row)], ids=ids)
def test_ours_fires_when_the_wall_clock_shows_the_time_where_robfig_does_not(row: dict[str, Any]) -> None:
    start, count = instant(row["from"]), len(row["next"])
    ours = nexts(Schedule.parse(row["spec"], row["tz"]), start, count)
    brute = Brute(DESCRIPTORS.get(row["spec"], row["spec"]), ZoneInfo(row["tz"])).after(start, 400)
    assert ours == list(itertools.islice(brute, count))
    assert ours != [instant(text) for text in row["next"]], "no longer ours"


@pytest.mark.parametrize("row", [row for row in NEXT["rows"] if row["next"] == [""]], ids=ids)
def test_what_never_fires_is_refused_saying_so(row: dict[str, Any]) -> None:
    assert "schedule: never fires: none of its months" in refusal(row["spec"], row["tz"])


@pytest.mark.parametrize("row", NEXT["upstream_hangs"], ids=ids)
def test_returns_where_robfig_never_does(row: dict[str, Any]) -> None:
    start = instant(row["from"])
    brute = Brute(DESCRIPTORS.get(row["spec"], row["spec"]), ZoneInfo(row["tz"])).after(start, 800)
    assert nexts(Schedule.parse(row["spec"], row["tz"]), start, 2) == list(itertools.islice(brute, 2))


@pytest.mark.parametrize("row", PARSE, ids=lambda row: repr(row["spec"]))
def test_accepts_and_refuses_what_robfig_does(row: dict[str, Any]) -> None:
    if row["spec"] in OURS_PARSE:
        assert row["ok"]
        assert refusal(row["spec"]) == f"schedule: {OURS_PARSE[row['spec']]}"
    elif row["ok"]:
        assert Schedule.parse(row["spec"]).next_after(instant("2026-01-01T00:00Z"))
    else:
        error = row.get("error", "")
        assert ("" if ATOI in error else error) in refusal(row["spec"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "expected 5 to 6 fields, found 0: []"),
        ("1, * * * *", "minute: an empty item in 1,"),
        (", * * * *", "minute: an empty item in ,"),
        ("* * * * *-5", "day of week: * takes no range: *-5"),
        ("?-3 * * * *", "minute: ? takes no range: ?-3"),
        ("0 0 0 * *", "day of month: beginning of range (0) below minimum (1): 0"),
        ("* * * * fri-mon", "day of week: beginning of range (5) beyond end of range (1): fri-mon"),
        ("* * * * 7", "day of week: end of range (7) above maximum (6): 7"),
        ("* * * * Sunday", "day of week: Sunday is not a whole number or one of sun mon tue wed thu fri sat: Sunday"),
        ("* * * mon *", "month: mon is not a whole number or one of jan feb"),
        ("*/0 * * * *", "minute: step of range should be a positive number: */0"),
        ("*/-0 * * * *", "minute: step of range should be a positive number: */-0"),
        ("1/2/3 * * * *", "minute: too many slashes: 1/2/3"),
        ("*/x * * * *", "minute: the step x is not a whole number: */x"),
        ("1_0 * * * *", "minute: 1_0 is not a whole number"),
        ("*\x1c* * * *", "expected 5 to 6 fields, found 4: ['*\\x1c* * * *']"),
        ("TZ=0", "nothing follows TZ=0; a blank and the fields are to come"),
        ("TZ=UTC", "nothing follows TZ=UTC"),
        ("CRON_TZ=UTC", "nothing follows CRON_TZ=UTC"),
        ("TZ=UTC ", "expected 5 to 6 fields, found 0: []"),
        ("CRON_TZ=UTC\t* * * * *", "provided bad location 'UTC\\t*': unknown time zone 'UTC\\t*'"),
        ("CRON_TZ=Knative/Land * * * * *", "schedule: provided bad location Knative/Land: unknown time zone"),
        ("CRON_TZ=../Paris * * * * *", "provided bad location ../Paris"),
        ("0 0 30 2 *", "never fires: none of its months (2) has a day 30"),
        ("0 0 31 feb,apr ?", "never fires: none of its months (feb,apr) has a day 31"),
        ("@every", "unrecognized descriptor: @every"),
        ("@every 5", "@every: 5 is not a duration such as 500ms, 5s or 1m30s"),
        ("@every  5m", "@every:  5m is not a duration"),
        ("@every 0s", "@every: 0s is not longer than 0"),
        ("@every 0.0000001s", "is not longer than 0"),
        ("@every 2562048h", "is longer than 292 years"),
        ("@every " + "9" * 400 + "h", "is a longer duration than can be kept"),
        ("@weekly 1", "unrecognized descriptor: @weekly 1"),
    ],
)
def test_nonsense_is_refused_naming_the_field_and_the_rule(text: str, why: str) -> None:
    assert why in refusal(text)


def test_every_field_that_is_wrong_is_named_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        Schedule.parse("60 24 32 13 7")
    assert [problem.what.partition(":")[0] for problem in caught.value.problems] == [
        "minute", "hour", "day of month", "month", "day of week",
    ]  # fmt: skip
    assert {problem.where for problem in caught.value.problems} == {"schedule"}


@pytest.mark.parametrize(
    "name", ["Knative/Land", "Europe", "utc", "../x", "/etc/passwd", "a" * 300, "a\0b", "\ud800", " "]
)
def test_an_unknown_timezone_is_refused_as_knative_words_it(name: str) -> None:
    assert refusal("* * * * *", name).startswith("timezone: provided bad location ")
    assert ": unknown time zone " in refusal("* * * * *", name)


def test_every_is_refused_in_a_manifest_as_knatives_webhook_does() -> None:
    assert refusal("@every 90s", every=False) == "schedule: unsupported descriptor @every"
    assert refusal("TZ=UTC @every 90s", every=False) == "schedule: unsupported descriptor @every"


def test_a_timezone_may_be_said_twice_but_not_contradicted() -> None:
    assert Schedule.parse("CRON_TZ=Europe/Paris 0 3 * * *", "Europe/Paris") == Schedule.parse(
        "0 3 * * *", "Europe/Paris"
    )
    assert "contradicts the timezone Asia/Tokyo" in refusal("TZ=Europe/Paris 0 3 * * *", "Asia/Tokyo")


@pytest.mark.parametrize("text", ["* * * * *", "TZ= * * * * *", "CRON_TZ=Local * * * * *", "TZ=UTC   *  *\t* * *  "])
def test_without_a_timezone_it_is_utc_whatever_the_machine_has(text: str) -> None:
    assert Schedule.parse(text).text == "CRON_TZ=UTC * * * * *"


@given(st.text(alphabet="0123456789*,-/?@ TZ=UCRON_LWjanMONevry\t", max_size=60))
def test_any_text_is_a_schedule_or_a_config_error_and_its_own_text_means_the_same(text: str) -> None:
    try:
        schedule = Schedule.parse(text)
    except ConfigError:
        return
    again = Schedule.parse(schedule.text)
    start = instant("2026-01-01T00:00Z")
    assert (again, again.next_after(start)) == (schedule, schedule.next_after(start))


@pytest.mark.parametrize(
    "text",
    ["*," * 500_000 + "* * * * *", "1" * 1_000_000, "* " * 1_000_000, "@every " + "1h" * 500_000, "TZ=" + "x" * 10**6 + " *",
     "*/" + "9" * 4000 + " * * * *", "@every " + "1" * 4000, "@every " + "9h" * 2000 + "x", "," * 4000 + " * * * *"],
    ids=lambda text: text[:12],
)  # fmt: skip
def test_huge_input_is_refused_quickly_and_briefly(text: str) -> None:
    start = time.perf_counter()
    assert len(refusal(text)) < 300
    assert time.perf_counter() - start < 0.2


@pytest.mark.parametrize(
    ("period", "first", "second"),
    [
        ("90s", "00:01:30", "00:03:00"),
        ("1h", "01:00:00", "02:00:00"),
        ("100ms", "00:00:01", "00:00:02"),
        ("1.9s", "00:00:01", "00:00:02"),
        ("2m0.5s", "00:02:00", "00:04:00"),
    ],
)
def test_every_counts_from_the_epoch_in_whole_seconds(period: str, first: str, second: str) -> None:
    schedule = Schedule.parse(f"@every {period}", "Europe/Paris")
    ticks = [instant(f"1970-01-01T{time}Z") for time in (first, second)]
    assert nexts(schedule, instant("1970-01-01T00:00:00Z"), 2) == ticks
    assert schedule.previous_at_or_before(ticks[1]) == ticks[1]
    assert schedule.count_between(instant("1970-01-01T00:00:00Z"), ticks[1]) == 2


# The rule of the README, night by night: what a clock on the wall there shows decides.
@pytest.mark.parametrize(
    ("timezone", "spec", "start", "ticks"),
    [
        ("America/New_York", "30 2 * * *", "2026-03-07T12:00-05:00", ["2026-03-09T02:30-04:00"]),
        ("America/New_York", "30 2 * * *", "2026-11-01T00:00-04:00", ["2026-11-01T02:30-05:00"]),
        ("America/New_York", "30 1 * * *", "2026-03-08T00:00-05:00", ["2026-03-08T01:30-05:00"]),
        ("America/New_York", "30 1 * * *", "2026-11-01T00:00-04:00", ["2026-11-01T01:30-04:00", "2026-11-01T01:30-05:00"]),
        ("America/New_York", "*/30 1-3 * * *", "2026-03-08T00:00-05:00",
         ["2026-03-08T01:00-05:00", "2026-03-08T01:30-05:00", "2026-03-08T03:00-04:00", "2026-03-08T03:30-04:00"]),
        ("Europe/Paris", "0 * * * *", "2026-10-25T01:30+02:00",
         ["2026-10-25T02:00+02:00", "2026-10-25T02:00+01:00", "2026-10-25T03:00+01:00"]),
        ("Africa/Cairo", "0 0 * * *", "2024-04-25T00:00+02:00", ["2024-04-27T00:00+03:00"]),
        ("Africa/Cairo", "0 4 * * fri", "2024-04-25T00:00+02:00", ["2024-04-26T04:00+03:00"]),
        ("Australia/Lord_Howe", "15 2 * * *", "2024-10-05T12:00+10:30", ["2024-10-07T02:15+11:00"]),
        ("Australia/Lord_Howe", "45 1 * * *", "2024-04-07T00:00+11:00", ["2024-04-07T01:45+11:00", "2024-04-07T01:45+10:30"]),
        ("America/St_Johns", "59 23 * * *", "2009-10-31T23:00-02:30", ["2009-10-31T23:59-02:30", "2009-10-31T23:59-03:30"]),
        ("Pacific/Apia", "0 12 * * *", "2011-12-29T13:00-10:00", ["2011-12-31T12:00+14:00"]),
    ],
)  # fmt: skip
def test_a_time_left_out_does_not_fire_and_one_shown_twice_fires_twice(
    timezone: str, spec: str, start: str, ticks: list[str]
) -> None:
    assert nexts(Schedule.parse(spec, timezone), instant(start), len(ticks)) == [instant(text) for text in ticks]


@pytest.mark.parametrize(
    ("spec", "start", "tick"),
    [
        ("0 0 29 2 *", "2096-03-01T00:00Z", "2104-02-29T00:00Z"),  # 2100 has none; robfig gives up after 5 years
        ("59 59 23 31 12 *", "9999-12-31T00:00Z", "9999-12-31T23:59:59Z"),
        ("0 0 1 1 *", "0001-01-01T00:00Z", "0002-01-01T00:00Z"),
    ],
)
def test_rare_ticks_are_found(spec: str, start: str, tick: str) -> None:
    assert Schedule.parse(spec).next_after(instant(start)) == instant(tick)


@pytest.mark.parametrize("timezone", ["UTC", "Pacific/Kiritimati", "America/New_York", "Europe/Paris"])
def test_the_calendar_has_an_end_and_a_beginning(timezone: str) -> None:
    for spec in ("0 0 29 2 *", "* * * * * *", "0 0 1 1 *"):
        schedule = Schedule.parse(spec, timezone)
        last = schedule.previous_at_or_before(datetime.max.replace(tzinfo=UTC))
        first = schedule.next_after(datetime.min.replace(tzinfo=UTC))
        assert last is not None
        assert first is not None
        assert schedule.next_after(last) is None
        assert schedule.previous_at_or_before(first - timedelta(seconds=1)) in (None, datetime.min.replace(tzinfo=UTC))
    assert Schedule.parse("@every 90s").next_after(datetime.max.replace(tzinfo=UTC)) is None


def test_a_naive_instant_is_refused() -> None:
    with pytest.raises(ValueError, match="has no time zone"):
        Schedule.parse("* * * * *").next_after(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


def test_fractions_of_a_second_do_not_repeat_or_lose_a_tick() -> None:
    schedule = Schedule.parse("* * * * *")
    noon = instant("2026-01-01T12:00Z")
    moment = timedelta(microseconds=1)
    assert schedule.next_after(noon - moment) == noon
    assert schedule.next_after(noon) == schedule.next_after(noon + moment) == noon + timedelta(minutes=1)
    assert schedule.previous_at_or_before(noon) == schedule.previous_at_or_before(noon + moment) == noon
    assert schedule.previous_at_or_before(noon - moment) == noon - timedelta(minutes=1)


def test_of_too_many_ticks_between_the_last_ones_are_told() -> None:
    schedule = Schedule.parse("0 * * * *")
    start, end = instant("2026-01-01T00:00Z"), instant("2026-01-01T05:00Z")
    assert [tick.hour for tick in schedule.ticks_between(start, end, 3)] == [3, 4, 5]
    assert [tick.hour for tick in schedule.ticks_between(start, end, 99)] == [1, 2, 3, 4, 5]
    assert schedule.ticks_between(end, start, 99) == schedule.ticks_between(start, end, 0) == ()
    assert (schedule.count_between(start, end), schedule.count_between(end, start)) == (5, 0)


def test_schedules_show_their_text_and_share_their_sets() -> None:
    one, other = (Schedule.parse("0 9 * * mon-fri", zone) for zone in ("Europe/Paris", "Asia/Tokyo"))
    assert str(one) == "CRON_TZ=Europe/Paris 0 9 * * mon-fri"
    assert repr(one) == "Schedule('CRON_TZ=Europe/Paris 0 9 * * mon-fri')"
    assert repr(one.zone) == "Zone('Europe/Paris')"
    assert one.times is other.times
    assert one.zone is Schedule.parse("* * * * *", "Europe/Paris").zone


# --- properties ------------------------------------------------------------------------------------------------------


def _field(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    def spelled(number: int) -> st.SearchStrategy[str]:
        texts = [str(number), f"0{number}", f"+{number}"]
        return st.sampled_from(texts + [name for name in names if NAMES[name.lower()] == number])

    number = st.integers(low, high).flatmap(spelled)
    span = st.tuples(st.integers(low, high), st.integers(low, high)).flatmap(
        lambda ends: st.builds("{}-{}".format, spelled(min(ends)), spelled(max(ends)))
    )
    step = st.integers(1, high + 3).map(str)
    stepped = st.builds("{}/{}".format, st.one_of(st.sampled_from("*?"), number, span), step)
    return st.lists(st.one_of(st.just("*"), number, number, span, stepped), min_size=1, max_size=3).map(",".join)


MINUTES: Final = _field(0, 59)
HOURS: Final = st.one_of(st.just("*"), _field(0, 23), _field(0, 3))
DAYS: Final = st.one_of(st.sampled_from("*?"), _field(1, 31))
MONTHS: Final = st.one_of(st.just("*"), st.just("*"), _field(1, 12, tuple("jan feb MAR apr Nov dec".split())))  # noqa: SIM905
WEEKDAYS: Final = st.one_of(st.sampled_from("*?"), _field(0, 6, tuple("sun mon TUE Wed sat".split())))  # noqa: SIM905
FIVE: Final = st.builds("{} {} {} {} {}".format, MINUTES, HOURS, DAYS, MONTHS, WEEKDAYS)
SIX: Final = st.builds("{} {}".format, _field(1, 59), FIVE)
STARTS: Final = st.builds(
    lambda near, seconds: datetime.fromisoformat(near).replace(tzinfo=UTC) + timedelta(seconds=seconds),
    st.sampled_from(CHANGES),
    st.one_of(st.integers(-40_000, 40_000), st.integers(-40 * 86_400, 40 * 86_400)),
)
PLACES: Final = st.sampled_from(ZONES)


def _parsed(spec: str, timezone: str) -> Schedule | None:
    try:
        return Schedule.parse(spec, timezone)
    except ConfigError as error:
        assert "never fires" in str(error)  # noqa: PT017 - everything else these strategies make is right
        return None


def _agrees(spec: str, timezone: str, start: datetime, days: int, count: int) -> None:
    schedule = _parsed(spec, timezone)
    days = 1 if start.year < 1973 else days
    found = list(itertools.islice(Brute(spec, ZoneInfo(timezone)).after(start, days), count))
    if schedule is None:
        assert not found
        return
    assert nexts(schedule, start, len(found)) == found
    if len(found) < count:
        further = schedule.next_after(found[-1] if found else start)
        assert further is None or further > start + timedelta(days=days)
    if found:
        end = found[-1] + timedelta(seconds=len(spec) % 2)
        last = schedule.previous_at_or_before(end)
        assert last is not None
        assert last >= found[-1]
        assert schedule.ticks_between(start, found[-1], count) == tuple(found)
        assert schedule.count_between(start, found[-1]) == len(found)


@settings(max_examples=150, deadline=None)
@given(FIVE, PLACES, STARTS)
def test_agrees_with_a_look_at_every_minute(spec: str, timezone: str, start: datetime) -> None:
    _agrees(spec, timezone, start, days=4, count=60)


@settings(max_examples=60, deadline=None)
@given(SIX, PLACES, STARTS)
def test_agrees_with_a_look_at_every_second(spec: str, timezone: str, start: datetime) -> None:
    _agrees(spec, timezone, start, days=1, count=60)


@settings(max_examples=60, deadline=None)
@given(FIVE, PLACES, STARTS)
def test_agrees_with_a_look_at_every_minute_of_the_right_days_of_two_years(
    spec: str, timezone: str, start: datetime
) -> None:
    _agrees(spec, timezone, start, days=800, count=8)


@settings(max_examples=150, deadline=None)
@given(st.one_of(FIVE, SIX), PLACES, STARTS)
def test_forwards_and_backwards_are_the_same_ticks(spec: str, timezone: str, start: datetime) -> None:
    schedule = _parsed(spec, timezone)
    if schedule is None:
        return
    first = schedule.next_after(start)
    second = schedule.next_after(first) if first else None
    if first is None or second is None:
        return
    assert schedule.previous_at_or_before(second) == second
    assert schedule.previous_at_or_before(second - timedelta(seconds=1)) == first
    assert schedule.count_between(start, second) == 2
    assert schedule.ticks_between(start, second, 9) == (first, second)


@settings(max_examples=150, deadline=None)
@given(
    st.one_of(FIVE, SIX),
    st.sampled_from(["UTC", "Europe/Paris", "America/New_York", "America/Santiago", "Africa/Cairo"]),
    STARTS,
)
def test_agrees_with_croniter_behind_a_layer_that_normalises(spec: str, timezone: str, start: datetime) -> None:
    croniter = pytest.importorskip("croniter", reason="the oracle is not installed")
    schedule, brute = _parsed(spec, timezone), Brute(spec, ZoneInfo(timezone))
    if schedule is None or start.year > 2090:
        return
    texts = ("0 " + spec).split()[-6:]
    plain = " ".join(
        "*" if index in (3, 5) and any(item in ("*", "?", "*/1", "?/1") for item in text.split(","))
        else ",".join(map(str, sorted(numbers)))
        for index, (text, numbers) in enumerate(zip(texts, brute.sets, strict=True))
    )  # fmt: skip
    found = croniter.croniter(plain, start.astimezone(brute.zone), ret_type=datetime, second_at_beginning=True)
    # Those that a gap moved show a time that the schedule does not name.
    ticks = (tick.astimezone(UTC) for tick in iter(found.get_next, None))
    expected = list(itertools.islice((tick for tick in ticks if brute.matches(tick)), 5))
    assert nexts(schedule, start, 5) == expected
