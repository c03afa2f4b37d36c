"""What is done behind a committed offset, as the commit's metadata tells it to whoever reads on. Pure.

A commit says of one offset that everything before it is done. What is done behind a record that is not would come again
where a member dies; a wrong word about it would be a loss. So it is believed only beside the offset that it was written
for; of each run of records only where the first of them is met with the timestamp, key and value that it had; and only
of as many records as were done, none of them newer than those. What was reset, written by another program, belongs to a
topic that was made anew, was cut off and written again, or mirrored with other offsets, is not believed; what compaction
took the first record of comes again.
"""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

MOST_CHARACTERS: Final = 3_500
"""Brokers take 4,096 characters of metadata, unless ``offset.metadata.max.bytes`` says otherwise."""


class Read(Protocol):
    """What tells a record from another at the same offset."""

    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Run:
    """Records that were read one after another, and are all done."""

    first: int
    """The offset of the first."""
    timestamp: int
    """The first one's."""
    mark: int
    """The first one's."""
    last: int
    number: int
    """How many they are: offsets may be missing between them."""
    newest: int
    """The greatest of their timestamps."""


def mark(record: Read) -> int:
    """A checksum of key and value."""
    return zlib.crc32(record.value or b"", zlib.crc32(record.key or b""))


def tell(committed: int, runs: Iterable[Run], *, most: int = MOST_CHARACTERS) -> str:
    """Text for the metadata of a commit of the offset ``committed``; of more than it has room for, the first ones.

    Runs that begin before it are passed over: the reader came by without a record of theirs.
    """
    octets = bytearray(_octets(committed))
    begun = len(octets)
    offset, timestamp = committed, 0
    for run in runs:
        if run.timestamp <= 0 or run.first < offset:  # records without a timestamp look alike
            continue
        change = run.timestamp - timestamp
        said = b"".join(
            map(
                _octets,
                (
                    run.first - offset,
                    2 * change if change >= 0 else -2 * change - 1,
                    run.mark,
                    run.last - run.first,
                    run.last - run.first + 1 - run.number,
                    run.newest - run.timestamp,
                ),
            )
        )
        if len(octets) + len(said) > most * 3 // 4:
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
    for gap, change, first, length, missing, later in zip(*[numbers] * 6, strict=False):
        offset += gap
        timestamp += change // 2 if change % 2 == 0 else -(change + 1) // 2
        runs.append(Run(offset, timestamp, first, offset + length, length + 1 - missing, timestamp + later))
        offset += length
    return runs


class Told:
    """What was told of a partition, held against its records as they are read."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = deque(runs)
        self._met = 0
        """How many records of the first run were read."""

    def __len__(self) -> int:
        """How many runs may be met yet."""
        return len(self._runs)

    def is_done(self, record: Read) -> bool:
        """Whether the next record that is read was told to be done. To be asked of each, in their order."""
        runs = self._runs
        while runs and runs[0].last < record.offset:
            self._give_up()
        if not runs or record.offset < runs[0].first:
            return False
        if not self._is_of(runs[0], record):
            self._give_up()
            return False
        self._met += 1
        return True

    def _is_of(self, run: Run, record: Read) -> bool:
        """Whether the record may be one of the run: else it is another log, or the first record of it is gone."""
        if self._met:
            return self._met < run.number and record.timestamp <= run.newest
        return (record.offset, record.timestamp, mark(record)) == (run.first, run.timestamp, run.mark)

    def _give_up(self) -> None:
        self._runs.popleft()
        self._met = 0

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
