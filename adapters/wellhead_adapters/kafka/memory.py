"""What this process knows of records that were in flight when their partition was taken from it. Pure.

They are read again, here or by another member. Where here, what was accepted after all is not sent twice, and what
failed goes on where it was: a poison record reaches its dead letter however often the group rebalances.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

if TYPE_CHECKING:
    from wellhead.delivery import Attempt

Place: TypeAlias = tuple[str, int]
"""Topic and partition."""

MOST: Final = 100_000
"""Records remembered of one partition; of more the newest are forgotten, and sent again."""


class Seen(Protocol):
    """What tells a record from another at the same offset of a topic that was deleted and made again."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Fate:
    timestamp: int
    attempt: Attempt | None
    """Its tries so far; None: it is done."""


class Memory:
    """Records by partition; forgotten as soon as they are asked for, or lie before what is read."""

    def __init__(self) -> None:
        self._fates: dict[Place, dict[int, _Fate]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._fates.values()))

    def done(self, place: Place, offset: int, timestamp: int) -> None:
        """The record's fate is sealed, which no commit tells."""
        self._note(place, offset, _Fate(timestamp, None))

    def failing(self, place: Place, record: Seen, attempt: Attempt) -> None:
        """The record has so many tries behind it and was given up for the next owner's sake."""
        self._note(place, record.offset, _Fate(record.timestamp, attempt))

    def begin(self, place: Place, position: int) -> None:
        """The partition is ours again from ``position`` on."""
        fates = self._fates.get(place, {})
        self._keep(place, {offset: fate for offset, fate in fates.items() if offset >= position})

    def knows(self, place: Place) -> bool:
        """Whether there is anything to ask for."""
        return place in self._fates

    def is_done(self, place: Place, record: Seen) -> bool:
        """Whether the record was done before; asked once as it is read."""
        fate = self._fates.get(place, {}).get(record.offset)
        if fate is None or fate.attempt is not None or fate.timestamp != record.timestamp:
            return False
        self._forget(place, record.offset)
        return True

    def attempt(self, place: Place, record: Seen) -> Attempt | None:
        """The tries it has behind it; asked once as it is sent."""
        fate = self._fates.get(place, {}).get(record.offset)
        if fate is None:
            return None
        self._forget(place, record.offset)
        return fate.attempt if fate.timestamp == record.timestamp else None

    def _note(self, place: Place, offset: int, fate: _Fate) -> None:
        fates = self._fates.setdefault(place, {})
        if offset in fates or len(fates) < MOST:
            fates[offset] = fate

    def _forget(self, place: Place, offset: int) -> None:
        del self._fates[place][offset]
        if not self._fates[place]:
            del self._fates[place]

    def _keep(self, place: Place, fates: Mapping[int, _Fate]) -> None:
        if fates:
            self._fates[place] = dict(fates)
        else:
            self._fates.pop(place, None)
