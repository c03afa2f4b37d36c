"""How much may be held in memory: when a partition is read no further, and when it is again. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

RECORD_OVERHEAD: Final = 600
"""Bytes that a record costs beside its own, as measured with tracemalloc on CPython 3.11."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Bytes of records that were read and are not done. Each partition has its share of them."""

    octets: int

    def full_at(self, partitions: int) -> int:
        """A partition that holds so much is read no further."""
        return self.octets // max(1, partitions)

    def room_at(self, partitions: int) -> int:
        """One that was full is read again when it holds no more than this. Half: a pause costs what was fetched."""
        return self.full_at(partitions) // 2


def weight(key: bytes | None, value: bytes | None, headers: int) -> int:
    """What a record with so many headers counts against the budget."""
    return RECORD_OVERHEAD + len(key or b"") + len(value or b"") + 200 * headers
