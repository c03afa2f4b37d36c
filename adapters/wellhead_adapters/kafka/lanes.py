"""Which record may start now: those of one lane one after another, lanes side by side. Pure."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar


class Ordering(enum.Enum):
    """What keeps its order: a partition, the records of one key, or nothing."""

    PARTITION = "partition"
    KEY = "key"
    UNORDERED = "unordered"

    def lane(self, partition: Hashable, key: bytes | None) -> Hashable | None:
        """The lane of a record; None where it waits for no other, and no other for it."""
        if self is Ordering.PARTITION:
            return partition
        return (partition, key) if self is Ordering.KEY and key is not None else None


class Laned(Protocol):
    """What waits for its turn."""

    @property
    def lane(self) -> Hashable | None: ...


ItemT = TypeVar("ItemT", bound=Laned)


class Lanes(Generic[ItemT]):
    """What waits to start. `put`, `take` and `done` cost the same however much waits."""

    def __init__(self) -> None:
        self._ready: deque[ItemT] = deque()
        self._behind: dict[Hashable, deque[ItemT] | None] = {}
        """The lanes of which an item is ready or has started, and what waits behind it."""

    @property
    def ready(self) -> int:
        """How many could start now."""
        return len(self._ready)

    def put(self, item: ItemT) -> None:
        """Add an item at the end of its lane."""
        lane = item.lane
        if lane is None:
            self._ready.append(item)
        elif lane not in self._behind:
            self._behind[lane] = None
            self._ready.append(item)
        elif (behind := self._behind[lane]) is not None:
            behind.append(item)
        else:
            self._behind[lane] = deque((item,))

    def behind(self, item: ItemT) -> ItemT | None:
        """What may start once ``item``, which was taken, is done; None where that is nothing yet."""
        behind = self._behind.get(item.lane) if item.lane is not None else None
        return behind[0] if behind else None

    def take(self) -> ItemT | None:
        """The next that may start; None where there is none."""
        return self._ready.popleft() if self._ready else None

    def done(self, item: ItemT) -> None:
        """An item that was taken has ended: the next of its lane may start."""
        if item.lane is None:
            return
        behind = self._behind.get(item.lane)
        if behind:
            self._ready.append(behind.popleft())
        else:
            self._behind.pop(item.lane, None)

    def drop(self, gone: Callable[[ItemT], bool]) -> None:
        """Forget what is ``gone`` and was not taken. Of one lane, what stands behind a gone item is gone too."""
        for item in self._ready:
            if gone(item):
                self._behind.pop(item.lane, None)
        self._ready = deque(item for item in self._ready if not gone(item))
        for behind in self._behind.values():
            while behind and gone(behind[-1]):
                behind.pop()
