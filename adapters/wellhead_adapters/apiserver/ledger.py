"""How far a watch has come, as those who were told of it confirm: the version that a restart may go on from. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.kubernetes.change import Operation
    from wellhead.kubernetes.index import Seen


class Ledger:
    """Changes are begun in order and settled in any; the position is before the first that is not settled."""

    def __init__(self, version: str = "") -> None:
        self._reached = version
        self._open: dict[int, str] = {}
        self._number = 0

    @property
    def position(self) -> str:
        """Everything up to this resourceVersion is settled; "" where there is none yet."""
        return next(iter(self._open.values())) if self._open else self._reached

    @property
    def is_settled(self) -> bool:
        """Whether nothing is on its way."""
        return not self._open

    def begin(self) -> int:
        """A change is on its way. Returns what to `settle` it by."""
        self._number += 1
        self._open[self._number] = self._reached
        return self._number

    def reach(self, version: str) -> None:
        """All changes up to this version were begun."""
        self._reached = version

    def start_over(self) -> None:
        """Where it stood counts for nothing any more: there is no position until all of a new list is settled."""
        self._reached = ""
        self._open = dict.fromkeys(self._open, "")

    def settle(self, number: int) -> None:
        """A change that was begun is over."""
        del self._open[number]


@dataclass(slots=True)
class _Turn:
    """A change of an object: on its way, or over and behind one that is."""

    number: int
    operation: Operation
    seen: Seen
    is_over: bool = False


class Turns:
    """The changes of each object are put down in the order they came: none that is over before one that is not.

    Else what nobody wants to be told of would get ahead of an event that still waits for the sink: a restart would find
    the later version put down, and take the event for delivered.
    """

    def __init__(self, put_down: Callable[[Operation, Seen], None]) -> None:
        self._put_down = put_down
        self._open: dict[tuple[str, str], deque[_Turn]] = {}

    def begin(self, number: int, operation: Operation, seen: Seen) -> None:
        """A change is on its way."""
        self._open.setdefault((seen.namespace, seen.name), deque()).append(_Turn(number, operation, seen))

    def settle(self, number: int, seen: Seen) -> None:
        """A change that was begun is over."""
        turns = self._open[seen.namespace, seen.name]
        next(turn for turn in turns if turn.number == number).is_over = True
        while turns and turns[0].is_over:
            turn = turns.popleft()
            self._put_down(turn.operation, turn.seen)
        if not turns:
            del self._open[seen.namespace, seen.name]

    def skip(self, operation: Operation, seen: Seen) -> None:
        """A change of which nothing is to be told is over as soon as those before it are."""
        turns = self._open.get((seen.namespace, seen.name))
        if turns is None:
            self._put_down(operation, seen)
            return
        if turns[-1].is_over:
            turns.pop()  # a sink may be away for long: the last one says it all
        turns.append(_Turn(0, operation, seen, is_over=True))
