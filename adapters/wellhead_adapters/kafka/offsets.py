"""Which offset of a partition may be committed: that of the first record whose fate is not sealed. Pure."""

from __future__ import annotations

from collections import deque
from itertools import groupby
from typing import TYPE_CHECKING

from .ahead import Run, mark

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .ahead import Read


class Offsets:
    """One partition's records in flight, from being read to being done; a new one at each assignment.

    Offsets need not follow each other: compaction and transactions leave gaps, which cost nothing here. A record costs
    the same whatever else is in flight.
    """

    __slots__ = ("_ahead", "_in_order", "_position")

    def __init__(self, position: int) -> None:
        self._position = position
        self._in_order: deque[int] = deque()
        self._ahead: dict[int, tuple[int, int]] = {}  # timestamp and mark

    def __len__(self) -> int:
        """How many records were read and are not done, or are done behind one that is not."""
        return len(self._in_order)

    @property
    def committable(self) -> int:
        """The offset to commit: everything before it is done. Where nothing is in flight: the reader's position."""
        return self._in_order[0] if self._in_order else self._position

    @property
    def position(self) -> int:
        """The offset that the next record to be read has at least."""
        return self._position

    def read(self, offset: int) -> None:
        """Note a record that was read. They are read in the order of their offsets."""
        self._in_order.append(offset)
        self._position = offset + 1

    def passed(self, position: int) -> None:
        """Note that the reader stands at ``position``: what lies before it and was not read is no record."""
        self._position = max(self._position, position)

    def done(self, record: Read) -> None:
        """Note that the fate of a record is sealed."""
        in_order, ahead = self._in_order, self._ahead
        if in_order[0] != record.offset:
            # Only a run's first is marked: the one before this one leaves no sooner than this one does.
            ahead[record.offset] = (record.timestamp, 0 if record.offset - 1 in ahead else mark(record))
            return
        in_order.popleft()
        while ahead and in_order[0] in ahead:
            del ahead[in_order.popleft()]

    def ahead(self) -> dict[int, int]:
        """Records that are done behind one that is not: their offsets and timestamps. Whoever is next reads them again."""
        return {offset: timestamp for offset, (timestamp, _) in self._ahead.items()}

    def runs(self) -> Iterator[Run]:
        """The same, those put together that were read one after another. Costs what is in flight, if any is done ahead."""
        ahead = self._ahead
        for done, offsets in groupby(self._in_order if ahead else (), ahead.__contains__):
            if done:
                yield self._run(list(offsets))

    def _run(self, offsets: list[int]) -> Run:
        timestamp, first = self._ahead[offsets[0]]
        newest = max(self._ahead[offset][0] for offset in offsets)
        return Run(offsets[0], timestamp, first, offsets[-1], len(offsets), newest)
