"""How much may be held in memory: when a partition is read no further, and when it is again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RECORD_OVERHEAD: Final = 600
"""Bytes that a record costs beside its own, as measured with tracemalloc on CPython 3.11."""


@dataclass(frozen=True, slots=True)
class Budget:
    """What may be held of records that were read and are not done. Each partition has its share of the bytes."""

    octets: int
    ahead: int
    """Records of one partition from the first that is not done to the last that was read. Those of them that are done
    are sent again after a crash, where the commit's metadata could not tell of them."""

    def is_full(self, octets: int, ahead: int, *, partitions: int) -> bool:
        """Whether a partition that holds this is to be read no further, one of so many."""
        return octets >= self.octets // max(1, partitions) or ahead >= self.ahead

    def has_room(self, octets: int, ahead: int, *, partitions: int) -> bool:
        """Whether one that was full is to be read again: when half is left, as a pause costs what was fetched."""
        return octets <= self.octets // max(1, partitions) // 2 and ahead <= self.ahead // 2


def weight(key: bytes | None, value: bytes | None, headers: int) -> int:
    """What a record with so many headers counts against the budget."""
    return RECORD_OVERHEAD + len(key or b"") + len(value or b"") + 200 * headers
