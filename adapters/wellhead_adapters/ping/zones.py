"""A timezone as stretches of time with one offset each, found once and kept. Reads tz data, and nothing else.

`zoneinfo` tells the offset at an instant, and not when the next change is; a search needs to know that.
"""

from __future__ import annotations

import functools
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias

from .fields import short

if TYPE_CHECKING:
    from zoneinfo import ZoneInfo

Span: TypeAlias = tuple[int, int, int]
"""First second, the second after the last one (both since 1970 in UTC), and the offset in seconds."""

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FOR_EVER: Final = 2**62
_BLOCK_BITS: Final = 20  # 12 days
_PROBE: Final = 86_400  # between two changes of any zone's offset there are 6.9 days at the least (tz data 2026a)
_KEPT_BLOCKS: Final = 256
# A day from both ends of the calendar, where a local time would fall off it.
_FIRST: Final = (datetime(1, 1, 2, tzinfo=UTC) - EPOCH) // timedelta(seconds=1)
_LAST: Final = (datetime(9999, 12, 30, tzinfo=UTC) - EPOCH) // timedelta(seconds=1)


def _seconds(offset: timedelta | None) -> int:
    return 0 if offset is None else offset // timedelta(seconds=1)


class Zone:
    """One timezone. Get it from `zone`, so that all schedules of a timezone share it."""

    __slots__ = ("_blocks", "_fixed", "_info", "name")

    def __init__(self, name: str, info: ZoneInfo | None) -> None:
        self.name = name
        self._info = info
        self._blocks: dict[int, tuple[Span, ...]] = {}
        fixed = timedelta() if info is None else info.utcoffset(None)
        self._fixed: Span | None = None if fixed is None else (-_FOR_EVER, _FOR_EVER, _seconds(fixed))

    def __repr__(self) -> str:
        return f"Zone({self.name!r})"

    def span(self, second: int) -> Span:
        """A stretch around ``second`` in which the offset does not change; not always the longest."""
        if self._fixed is not None:
            return self._fixed
        spans = self._blocks.get(second >> _BLOCK_BITS) or self._survey(second >> _BLOCK_BITS)
        return next(span for span in spans if second < span[1])

    def _survey(self, block: int) -> tuple[Span, ...]:
        start, end = block << _BLOCK_BITS, block + 1 << _BLOCK_BITS
        spans: list[Span] = []
        before, offset = start, self._offset(start)
        for probe in (*range(start + _PROBE, end, _PROBE), end - 1):
            if (after := self._offset(probe)) != offset:
                change = self._change(before, probe, after)
                spans.append((start, change, offset))
                start, offset = change, after
            before = probe
        spans.append((start, end, offset))
        if len(self._blocks) >= _KEPT_BLOCKS:
            self._blocks.clear()
        return self._blocks.setdefault(block, tuple(spans))

    def _change(self, before: int, after: int, offset: int) -> int:
        """The first second between the two at which ``offset`` holds."""
        while after - before > 1:
            middle = (before + after) // 2
            before, after = (before, middle) if self._offset(middle) == offset else (middle, after)
        return after

    def _offset(self, second: int) -> int:
        instant = EPOCH + timedelta(seconds=min(max(second, _FIRST), _LAST))
        return _seconds(instant.astimezone(self._info).utcoffset())


UTC_ZONE: Final = Zone("UTC", None)


@functools.lru_cache(maxsize=1024)
def zone(name: str) -> Zone:
    """The timezone of this IANA name. "" and ``Local`` are UTC, as in Knative's images.

    Raises ValueError in Knative's words where there is no such timezone.
    """
    if name in ("", "UTC", "Local"):
        return UTC_ZONE
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError  # noqa: PLC0415 - reads how Python was built; most are in UTC

    try:
        return Zone(name, ZoneInfo(name))
    except (ZoneInfoNotFoundError, ValueError, OSError):  # not there; no name of a file; a folder, or too long for one
        shown = short(name)
        raise ValueError(f"provided bad location {shown}: unknown time zone {shown}") from None
