"""Where a partition is begun that the group has committed nothing for. Pure.

``latest`` is meant for what exists when a group begins. A partition or topic that is found later is read from its
beginning: else what was written before it was found would be lost. How many partitions a topic had when the group
began is kept in the metadata of each commit, so that it is known to every member and after every restart.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, TypeAlias

_METADATA: Final = re.compile(r"partitions=(\d{1,9})(?: done=([\w-]+))?", re.ASCII)


class Edge(enum.Enum):
    """An end of a partition."""

    EARLIEST = "earliest"
    LATEST = "latest"


@dataclass(frozen=True, slots=True)
class Since:
    """The first record of this instant or later."""

    at: datetime

    @property
    def milliseconds(self) -> int:
        """As Kafka counts."""
        return int(self.at.timestamp() * 1000)


InitialOffset: TypeAlias = Edge | Since
LATEST: Final[InitialOffset] = Edge.LATEST


def initial_offset(value: str) -> InitialOffset:
    """``earliest``, ``latest`` (sarama's ``oldest`` and ``newest`` too), or an RFC 3339 instant."""
    named = {"earliest": Edge.EARLIEST, "oldest": Edge.EARLIEST, "latest": Edge.LATEST, "newest": Edge.LATEST}
    if value in named:
        return named[value]
    try:
        moment = datetime.fromisoformat(value)
        since = Since(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
        if since.milliseconds >= 0:
            return since
    except (ValueError, OverflowError):
        pass
    raise ValueError("is not earliest, latest, or an instant since 1970 such as 2026-01-01T00:00:00Z")


def commit_metadata(partitions: int, done: str = "") -> str:
    """What is written beside each offset: how many partitions the topic had when the group began with it.

    ``done`` is what `ahead.tell` says.
    """
    return f"partitions={partitions} done={done}" if done else f"partitions={partitions}"


def done_ahead(metadata: str) -> str:
    """What `commit_metadata` was given as ``done``."""
    match = _METADATA.fullmatch(metadata)
    return (match[2] or "") if match is not None else ""


def began_with(committed: Iterable[str], *, known: int) -> int:
    """How many partitions the topic had when the group began with it.

    ``committed`` is the metadata of what the group has committed of the topic; ``known`` the partitions that were
    there when this process began, which counts where the group has committed nothing.
    """
    counts = []
    for metadata in committed:
        match = _METADATA.fullmatch(metadata)
        # Another program's commit: Knative's controller commits every partition there is before anything is read.
        counts.append(int(match[1]) if match is not None else 0)
    return min(counts, default=known)


def begin_at(partition: int, initial: InitialOffset, *, began_with: int) -> InitialOffset:
    """Where to begin a partition without a committed offset."""
    return initial if partition < began_with else Edge.EARLIEST
