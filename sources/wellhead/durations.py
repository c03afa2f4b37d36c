"""Durations as text: Go's ``1m30s`` (flags of Knative's programs) and ISO 8601's ``PT90S`` (DeliverySpec). Pure."""

from __future__ import annotations

import re
from datetime import timedelta

_GO_UNITS = {"h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1000, "us": 1, "µs": 1, "μs": 1, "ns": 0.001}
_GO_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|μs|ms|s|m|h)", re.ASCII)
_GO = re.compile(rf"([+-]?)((?:{_GO_PART.pattern})+|0)", re.ASCII)
_NUMBER = r"(\d+(?:[.,]\d*)?|[.,]\d+)"
_ISO = re.compile(
    rf"([+-]?)P(?=.)(?:{_NUMBER}Y)?(?:{_NUMBER}M)?(?:{_NUMBER}W)?(?:{_NUMBER}D)?"
    rf"(?:T(?=.)(?:{_NUMBER}H)?(?:{_NUMBER}M)?(?:{_NUMBER}S)?)?",
    re.ASCII,
)
_MAX_FIELD = 32767  # upstream keeps each field in tenths in 16 bits
_MAX_DIGITS = 20
_YEAR_DAYS_E6 = 365_242_500  # a Gregorian year in millionths of a day
_MONTH_DAYS_E6 = 30_436_875


def go_duration(text: str) -> timedelta:
    """What Go's ``time.ParseDuration`` reads: ``300ms``, ``-1.5h``, ``2h45m``, ``0``. Rounded to a microsecond."""
    match = _GO.fullmatch(text)
    if match is None:
        raise ValueError("is not a duration such as 500ms, 5s or 1m30s")
    microseconds = sum(float(number) * _GO_UNITS[unit] for number, unit in _GO_PART.findall(match[2]))
    try:
        return timedelta(microseconds=-microseconds if match[1] == "-" else microseconds)
    except OverflowError:
        raise ValueError("is a longer duration than can be kept") from None


def iso_duration(text: str) -> timedelta:
    """What Knative's DeliverySpec reads (github.com/rickb777/date/period): ``PT0.5S``, ``P1D``, ``-PT1S``, ``P1W``.

    Each field counts in tenths, further digits are cut off, as there. A month has 30.436875 days, a year 365.2425.
    """
    if text == "P0":
        return timedelta()
    match = _ISO.fullmatch(text)
    if match is None:
        raise ValueError("is not an ISO 8601 duration such as PT0.5S, PT1M or P1D")
    years, months, weeks, days, hours, minutes, seconds = map(_tenths, match.groups()[1:])
    days += 7 * weeks
    if days > _MAX_FIELD - 7:  # too many days for upstream's field: it spills them into months of 30.4369 days
        spilled, rest = divmod(days * 1000, 304369)
        months, days = months + spilled * 10, rest // 1000
    if max(years + months // 12, hours // 24) > _MAX_FIELD:
        raise ValueError("is a longer duration than can be kept")
    try:
        length = timedelta(
            microseconds=(years * _YEAR_DAYS_E6 + months * _MONTH_DAYS_E6 + days * 1_000_000) * 8640,
            milliseconds=hours * 360_000 + minutes * 6_000 + seconds * 100,
        )
    except OverflowError:
        raise ValueError("is a longer duration than can be kept") from None
    return -length if match[1] == "-" else length


def period(text: str) -> timedelta:
    """Heartbeats' ``-period``: a Go duration, or whole seconds; longer than 0. "" is 5 s, as upstream."""
    if text == "":
        return timedelta(seconds=5)
    try:
        length = timedelta(seconds=int(text)) if re.fullmatch(r"[+-]?\d{1,10}", text, re.ASCII) else go_duration(text)
    except ValueError:
        raise ValueError("is not a duration such as 5s or 1m30s, nor whole seconds") from None
    if length <= timedelta():
        raise ValueError("is not longer than 0")
    return length


def duration(text: str) -> timedelta:
    """A duration in any spelling our users know: ISO 8601, Go's, or seconds; not negative."""
    if text.lstrip("+-").startswith("P"):
        length = iso_duration(text)
    elif re.fullmatch(r"\d{1,10}(?:\.\d{1,6})?", text, re.ASCII):
        length = timedelta(seconds=float(text))
    else:
        length = go_duration(text)
    if length < timedelta():
        raise ValueError("is negative")
    return length


def _tenths(number: str | None) -> int:
    whole, _, fraction = (number or "0").replace(",", ".").partition(".")
    # int() of a huge text is slow and refused by Python; what has so many digits is too long in any unit.
    return int(whole.lstrip("0")[:_MAX_DIGITS] or 0) * 10 + int(fraction[:1] or 0)
