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
