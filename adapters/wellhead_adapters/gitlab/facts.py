"""What became of a target's webhook, as its keeper counts it. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .missed import Gap


@dataclass(slots=True)
class KeeperFacts:
    """What became of one target's webhook, for metrics."""

    up: bool = False
    changes: int = 0
    failures: int = 0
    recovered: int = 0
    given_up: int = 0
    gaps: int = 0
    gap_seconds: float = 0.0
    last_gap: Gap | None = None

    def add(self, gap: Gap) -> None:
        """One gap more; one that ended earlier is not the last."""
        self.gaps += 1
        self.gap_seconds += gap.seconds
        if self.last_gap is None or gap.until > self.last_gap.until:
            self.last_gap = gap
