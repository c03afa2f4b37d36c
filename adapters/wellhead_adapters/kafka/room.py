"""Which partitions are not read on for now: full ones, paused where that lasts, and those that were set aside."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka.structs import TopicPartition

if TYPE_CHECKING:
    from .assigned import Assigned
    from .consumer import Consumer
    from .pressure import Budget

STUCK_SECONDS: Final = 0.5
"""Once nothing of a full partition has ended for so long it is paused, which costs what was fetched."""


class Room:
    """Of the partitions of one consumer, those that are held back. One that has room again is resumed at once."""

    def __init__(self, consumer: Consumer, budget: Budget) -> None:
        self._consumer = consumer
        self._budget = budget
        self._full: dict[Assigned, tuple[int, float]] = {}
        """How many of its records were in hand when we looked, and since when they are so many."""

    def is_full(self, partition: Assigned) -> bool:
        """Whether it is to be asked for no more."""
        return partition in self._full

    def holds_back(self, partition: Assigned) -> bool:
        """Whether it is full, or paused."""
        return partition.paused or partition in self._full

    def taken(self, partition: Assigned, *, partitions: int) -> None:
        """Records of ``partition``, one of so many, were taken in: is it full now?"""
        if self._budget.is_full(partition.octets, _ahead(partition), partitions=partitions):
            self._full[partition] = partition.in_hand, asyncio.get_running_loop().time()

    def ended(self, partition: Assigned, *, partitions: int) -> None:
        """A record of it is done: is there room again?"""
        if partition not in self._full:
            return
        if self._budget.has_room(partition.octets, _ahead(partition), partitions=partitions):
            del self._full[partition]
            if partition.paused:
                self.take_back(partition)

    def pause(self, after: float) -> None:
        """Pause what is full and of which nothing has ended for so many seconds."""
        now = asyncio.get_running_loop().time()
        for partition, known in self._full.items():
            if partition.paused or partition.revoked:
                continue
            in_hand, since = known if known[0] == partition.in_hand else (partition.in_hand, now)
            self._full[partition] = in_hand, since
            if now - since >= after:
                self.set_aside(partition)

    def set_aside(self, partition: Assigned) -> None:
        """Pause it."""
        self._consumer.pause(TopicPartition(*partition.place))
        partition.paused = True

    def take_back(self, partition: Assigned) -> None:
        """Resume it, unless it is full, or is being taken away."""
        if not (partition.revoked or partition in self._full):
            self._consumer.resume(TopicPartition(*partition.place))
            partition.paused = False

    def forget(self, partition: Assigned) -> None:
        """It is another's, or begun anew."""
        self._full.pop(partition, None)

    def clear(self) -> None:
        """All of them are."""
        self._full.clear()


def _ahead(partition: Assigned) -> int:
    return len(partition.offsets) if partition.offsets is not None else 0
