"""How far a watch has come, as those who were told of it confirm: the version that a restart may go on from. Pure."""

from __future__ import annotations


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

    def settle(self, number: int) -> None:
        """A change that was begun is over."""
        del self._open[number]
