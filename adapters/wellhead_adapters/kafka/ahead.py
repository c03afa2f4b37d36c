"""What is done behind a committed offset, as the commit's metadata tells it to whoever reads on. Pure.

A commit says of one offset that everything before it is done. What is done behind a record that is not would come again
where a member dies; a wrong word about it would be a loss. So it is believed only beside the offset that it was written
for, and of each run of records only where the first of them is met with the timestamp it had: then it is the same log, in
which no offset is given to another record (unless its brokers elect uncleanly, where Kafka itself loses records). What was reset, written by another program, or belongs to a topic that was
made anew is not believed; what compaction took the first record of comes again.
"""

from __future__ import annotations

import base64
import binascii
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .memory import Seen

MOST_CHARACTERS: Final = 3_500
"""Brokers take 4,096 characters of metadata, unless ``offset.metadata.max.bytes`` says otherwise."""
_MOST_OCTETS: Final = MOST_CHARACTERS * 3 // 4


@dataclass(frozen=True, slots=True)
class Run:
    """Records that were read one after another, and are all done."""

    first: int
    """The offset of the first."""
    timestamp: int
    """The first one's: what tells it from a record of another log at the same offset."""
    last: int


def tell(committed: int, runs: Iterable[Run]) -> str:
    """Text for the metadata of a commit of the offset ``committed``; of more than it has room for, the first ones."""
    octets = bytearray(_octets(committed))
    begun = len(octets)
    offset, timestamp = committed, 0
    for run in runs:
        if run.timestamp <= 0:  # records without a timestamp look alike
            continue
        change = run.timestamp - timestamp
        said = _octets(run.first - offset) + _octets(2 * change if change >= 0 else -2 * change - 1)
        said += _octets(run.last - run.first)
        if len(octets) + len(said) > _MOST_OCTETS:
            break
        octets += said
        offset, timestamp = run.last, run.timestamp
    return base64.urlsafe_b64encode(octets).decode().rstrip("=") if len(octets) > begun else ""


def told(text: str, committed: int) -> Sequence[Run]:
    """The runs that `tell` wrote into the metadata of a commit of ``committed``; none where it did not."""
    try:
        numbers = _numbers(base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)))
    except (binascii.Error, ValueError):
        return ()
    if next(numbers, None) != committed:
        return ()
    runs = []
    offset, timestamp = committed, 0
    for gap, change, length in zip(numbers, numbers, numbers, strict=False):
        timestamp += change // 2 if change % 2 == 0 else -(change + 1) // 2
        runs.append(Run(offset + gap, timestamp, offset + gap + length))
        offset += gap + length
    return runs


class Told:
    """What was told of a partition, held against its records as they are read."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = deque(runs)
        self._met = False
        """Whether the first record of the first run was read."""

    def __len__(self) -> int:
        """How many runs may be met yet."""
        return len(self._runs)

    def is_done(self, record: Seen) -> bool:
        """Whether the next record that is read was told to be done. To be asked of each, in their order."""
        runs = self._runs
        while runs and runs[0].last < record.offset:
            runs.popleft()
            self._met = False
        if not runs or record.offset < runs[0].first:
            return False
        if not self._met and (record.offset, record.timestamp) != (runs[0].first, runs[0].timestamp):
            runs.popleft()  # another log, or its first record is gone
            return False
        self._met = True
        return True

    def to_come(self) -> Iterator[Run]:
        """The runs of which nothing was read yet."""
        return (run for number, run in enumerate(self._runs) if number or not self._met)


def _octets(number: int) -> bytes:
    """Seven bits each, the lowest first; the eighth says that there are more."""
    octets = bytearray()
    while number > 127:
        octets.append(number & 127 | 128)
        number >>= 7
    octets.append(number)
    return bytes(octets)


def _numbers(octets: bytes) -> Iterator[int]:
    number = bits = 0
    for octet in octets:
        number |= (octet & 127) << bits
        bits += 7
        if octet < 128:
            yield number
            number = bits = 0
