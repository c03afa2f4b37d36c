"""One partition while it is ours, and one of its records on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wellhead.adapter import Fence

from .offsets import Offsets

if TYPE_CHECKING:
    from collections.abc import Hashable

    from .events import Record
    from .memory import Place


@dataclass(slots=True, eq=False)
class Assigned:
    """What is known of a partition from being assigned to being revoked; a new one at each assignment."""

    place: Place
    metadata: str = ""
    """Written beside each offset that is committed."""
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
    under_way: set[Held] = field(default_factory=set)
    committed: int | None = None
    committed_at: float = 0.0
    """When, by the loop's clock."""

    def begin(self, position: int) -> None:
        """It is known where to begin."""
        self.offsets = Offsets(position)

    def oldest(self, now: float) -> float:
        """For how many seconds its oldest delivery has gone on; 0 where none does."""
        return max((now - held.started for held in self.under_way), default=0.0)

    def commit_due(self) -> int | None:
        """The offset to commit, if it is another than the one committed."""
        due = self.offsets.committable if self.offsets is not None else None
        return due if due is not None and (self.committed is None or due > self.committed) else None


@dataclass(slots=True, eq=False)
class Held:
    """A record that was read and is not done."""

    partition: Assigned
    record: Record
    lane: Hashable | None
    octets: int
    started: float = 0.0
    """When its delivery began, by the loop's clock."""
