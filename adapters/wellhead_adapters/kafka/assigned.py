"""One partition while it is ours, and one of its records on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING

from wellhead.adapter import Fence

from .ahead import Told, tell
from .offsets import Offsets
from .starting import commit_metadata

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from wellhead.event import CloudEvent

    from .ahead import Run
    from .events import Record
    from .memory import Place


@dataclass(frozen=True, slots=True)
class Commit:
    """What is committed of a partition."""

    offset: int
    metadata: str


@dataclass(slots=True, eq=False)
class Assigned:
    """What is known of a partition from being assigned to being revoked; a new one at each assignment."""

    place: Place
    began_with: int = 0
    """How many partitions its topic had when the group began with it."""
    offsets: Offsets | None = None
    """None until it is known where to begin."""
    fence: Fence = field(default_factory=Fence)
    revoked: bool = False
    """Nothing more is taken in, and nothing more begun."""
    gone: bool = False
    """What ends from now on is too late to be committed."""
    paused: bool = False
    octets: int = 0
    """What its records in hand weigh."""
    in_hand: int = 0
    """How many they are: read, and not done."""
    under_way: set[Held] = field(default_factory=set)
    told: Told = field(default_factory=lambda: Told(()))
    """What the last owner's commit told to be done, as far as it was not read yet."""
    committed: Commit | None = None
    committed_at: float = 0.0
    """When, by the loop's clock."""

    def begin(self, position: int, told: Iterable[Run] = ()) -> None:
        """It is known where to begin."""
        self.offsets = Offsets(position)
        self.told = Told(told)

    def oldest(self, now: float) -> float:
        """For how many seconds its oldest delivery has gone on; 0 where none does."""
        return max((now - held.started for held in self.under_way), default=0.0)

    def to_commit(self, *, most: int) -> Commit | None:
        """What could be committed now; with what is done behind the offset, in so many characters at most.

        None before it is begun.
        """
        if self.offsets is None:
            return None
        offset = self.offsets.committable
        done = tell(offset, chain(self.offsets.runs(), self.told.to_come()), most=most) if most else ""
        return Commit(offset, commit_metadata(self.began_with, done))


@dataclass(slots=True, eq=False)
class Held:
    """A record that was read and is not done."""

    partition: Assigned
    record: Record
    lane: Hashable | None
    octets: int
    started: float = 0.0
    """When its delivery began, by the loop's clock."""
    event: CloudEvent | None = None
    """Its event, where that was made before its turn."""
