"""Which events go into one batch, and how one that failed is taken apart. Pure: `wellhead.batches` sends them."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_BRACKETS: Final = 2
_COMMA: Final = 1


class BatchLimits(NamedTuple):
    """How large a batch may be, and how long an event waits for others."""

    events: int = 100
    octets: int = 1 << 20
    """Of the JSON text. An event that is larger by itself travels alone."""
    linger: timedelta = timedelta(milliseconds=5)


class Fill(NamedTuple):
    """How many of those who wait go together now, and whether nobody could join them who came later."""

    number: int
    full: bool


def fill(waiting: Iterable[tuple[int, int]], limits: BatchLimits) -> Fill:
    """The batch that the first of ``waiting`` make: of each its octets, and in how large a batch it may be.

    At least the first goes, however large it is. Order is kept: nobody is passed over for one who would fit.
    """
    number, octets, most = 0, _BRACKETS, limits.events
    for size, bound in waiting:
        octets += size + _COMMA * bool(number)
        if number and (number + 1 > min(most, bound) or octets > limits.octets):
            return Fill(number, full=True)
        number, most = number + 1, min(most, bound)
    return Fill(number, full=number >= most or octets >= limits.octets)


def half(company: int) -> int:
    """How large a batch may be that holds one of those that failed together: two such hold them all."""
    return max(1, (company + 1) // 2)
