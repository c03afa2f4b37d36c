from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.durations import duration, go_duration, iso_duration, period

ROWS: Final[list[dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "samples/durations/iso8601_period.json").read_text(encoding="utf-8")
)["rows"]

# What Go's time.ParseDuration says, in nanoseconds (recorded by running it).
GO_DURATIONS: Final = (
    ("0", 0), ("+0", 0), ("-0", 0), ("5s", 5_000_000_000), ("1m30s", 90_000_000_000), ("300ms", 300_000_000),
    ("-1.5h", -5_400_000_000_000), ("+5s", 5_000_000_000), (".5s", 500_000_000), ("1.s", 1_000_000_000),
    ("1h2h", 10_800_000_000_000), ("1us", 1000), ("1µs", 1000), ("1μs", 1000), ("1000ns", 1000),
)  # fmt: skip
GO_REFUSES: Final = ("", "s", "1", "1d", "1 s", "5S", ".s", "-", "1e3s", "5.s3", "٣s", "5s\n")
LONGER_THAN_CAN_BE_KEPT: Final = (
    "P3277Y", "PT786408H", "PT99999999999999999999S", "PT9999999999999999M", "P" + "9" * 5000 + "D",
    "PT" + "9" * 5000 + "S",
)  # fmt: skip


@pytest.mark.parametrize("row", [pytest.param(row, id=row["in"] or "empty") for row in ROWS if row["ok"]])
def test_iso_duration_reads_what_knative_reads(row: dict[str, Any]) -> None:
    assert iso_duration(row["in"]) == timedelta(microseconds=row["ns"] / 1000)


@pytest.mark.parametrize("text", [pytest.param(row["in"], id=row["in"] or "empty") for row in ROWS if not row["ok"]])
def test_iso_duration_refuses_what_knative_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an ISO 8601 duration"):
        iso_duration(text)


@pytest.mark.parametrize("text", ["P", "P1", "P1DT", "P1D2D", "P1M1Y", "PT1.2.3S", "--PT1S", "P-1D", "PT1S\n", "P٣D"])
def test_iso_duration_refuses_what_has_no_order_unit_or_number(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not an ISO 8601 duration"):
        iso_duration(text)


@pytest.mark.parametrize("text", LONGER_THAN_CAN_BE_KEPT, ids=lambda text: text[:20])
def test_iso_duration_says_so_where_a_duration_is_too_long_to_be_kept(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is a longer duration than can be kept$"):
        iso_duration(text)


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ("P0", timedelta()),
        ("+PT1S", timedelta(seconds=1)),
        ("P1Y", timedelta(days=365.2425)),
        ("P1M", timedelta(days=30.436875)),
        ("P1Y2M3W4DT5H6M7.8S", timedelta(days=365.2425 + 2 * 30.436875 + 25, hours=5, minutes=6, seconds=7.8)),
        ("PT0.59S", timedelta(seconds=0.5)),  # tenths; further digits are cut off
        ("PT1.S", timedelta(seconds=1)),
        ("PT" + "0" * 30 + "5S", timedelta(seconds=5)),
    ],
)
def test_iso_duration_counts_months_and_years_as_means_of_the_gregorian_calendar(text: str, length: timedelta) -> None:
    assert iso_duration(text) == length


@pytest.mark.parametrize(("text", "nanoseconds"), GO_DURATIONS)
def test_go_duration_reads_what_go_reads(text: str, nanoseconds: int) -> None:
    assert go_duration(text) == timedelta(microseconds=nanoseconds / 1000)


@pytest.mark.parametrize("text", GO_REFUSES)
def test_go_duration_refuses_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration such as"):
        go_duration(text)


@pytest.mark.parametrize(
    "text", ["9" * 400 + "h", "99999999999999999h", "-99999999999999999h"], ids=lambda text: text[:8]
)
def test_go_duration_says_so_where_a_duration_is_too_long_to_be_kept(text: str) -> None:
    with pytest.raises(ValueError, match=r"^is a longer duration than can be kept$"):
        go_duration(text)


def test_go_duration_refuses_a_long_row_of_digits_without_a_unit_in_no_time() -> None:
    with pytest.raises(ValueError, match=r"is not a duration"):
        go_duration("1" * 100_000)  # a pattern that tries every split of the digits would take minutes


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("", 5), ("5s", 5), ("1m30s", 90), ("7", 7), ("+7", 7), ("0.25s", 0.25), ("9999999999", 9999999999)],
)
def test_period_is_a_go_duration_or_whole_seconds_and_5_s_when_empty(text: str, seconds: float) -> None:
    assert period(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["abc", "5 s", "1.5", "PT5S", "99999999999", "٣"])
def test_period_names_both_spellings_where_it_reads_neither(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a duration such as 5s or 1m30s, nor whole seconds"):
        period(text)


@pytest.mark.parametrize("text", ["0", "-1", "0s", "-5s", "100ns"])
def test_period_is_longer_than_0(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not longer than 0"):
        period(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("PT0.2S", 0.2), ("+PT1S", 1), ("200ms", 0.2), ("0", 0), ("30", 30), ("1.5", 1.5), ("P1D", 86400)],
)
def test_duration_reads_every_spelling_our_users_know(text: str, seconds: float) -> None:
    assert duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["-PT1S", "-1s"])
def test_duration_is_not_negative(text: str) -> None:
    with pytest.raises(ValueError, match=r"is negative"):
        duration(text)


@pytest.mark.parametrize("text", ["", "-1", "1,5", "soon", "12345678901", "Pfft"])
def test_duration_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not a"):
        duration(text)


@given(text=st.one_of(st.text(max_size=40), st.text(alphabet="+-PTYMWDHS0123456789.,nsuµmh", max_size=40)))
def test_every_parser_answers_or_raises_value_error(text: str) -> None:
    for parse in (duration, period, go_duration, iso_duration):
        said = "is "  # the words that follow the quoted value in a message
        try:
            parse(text)
        except ValueError as error:
            said = str(error)
        assert said.startswith("is ")


@given(tenths=st.integers(0, 32767 * 10), unit=st.sampled_from(["S", "M", "H"]))
def test_a_field_in_tenths_is_kept_exactly(tenths: int, unit: str) -> None:
    second = {"S": 1, "M": 60, "H": 3600}[unit]
    assert iso_duration(f"PT{tenths // 10}.{tenths % 10}{unit}") == timedelta(microseconds=tenths * 100_000 * second)
