"""Figures and how they are shown: spreads, ratios of paired runs, budgets, a table, JSON. Pure; it measures nothing."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

Json: TypeAlias = "str | float | int | bool | Sequence[Json] | dict[str, Json] | None"


@dataclass(frozen=True, slots=True)
class Spread:
    """Smallest, middle and largest of the runs. With a handful of runs on a shared machine more would be pretence."""

    smallest: float
    middle: float
    largest: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(min(values), median(values), max(values))

    def __str__(self) -> str:
        return " ".join(f"{_short(value):>5}" for value in (self.smallest, self.middle, self.largest))


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """A bound for the median: of our figure, or of the ratio to the peer where ``of_ratio``."""

    bound: float
    at_most: bool = True
    of_ratio: bool = False
    goal: float | None = None

    def kept(self, row: Row) -> bool | None:
        """Whether ``row`` keeps it; None where there is no peer to compare with."""
        spread = row.ratio if self.of_ratio else Spread.of(row.ours)
        if spread is None:
            return None
        return spread.middle <= self.bound if self.at_most else spread.middle >= self.bound

    def __str__(self) -> str:
        sign = "≤" if self.at_most else "≥"
        goal = "" if self.goal is None else f" (goal {sign} {self.goal:g})"
        return f"{'ratio ' if self.of_ratio else ''}{sign} {self.bound:g}{goal}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One figure of ours beside a peer's. Samples stand in the order of the rounds, so that pairs can be told."""

    what: str
    unit: str
    ours: Sequence[float]
    peer: str = ""
    theirs: Sequence[float] = ()
    budget: Budget | None = None

    @property
    def ratio(self) -> Spread | None:
        """Ours by the peer's, round by round; None without a peer."""
        pairs = [mine / other for mine, other in zip(self.ours, self.theirs, strict=False) if other]
        return Spread.of(pairs) if pairs else None

    @property
    def verdict(self) -> str:
        """The budget in words, and whether it was kept; "" without one."""
        if self.budget is None:
            return ""
        kept = self.budget.kept(self)
        return f"{self.budget} {'not measured' if kept is None else 'kept' if kept else 'MISSED'}"

    def json(self) -> Json:
        kept = self.budget.kept(self) if self.budget is not None else None
        return {
            "what": self.what,
            "unit": self.unit,
            "ours": _spread_json(Spread.of(self.ours), self.ours),
            "peer": self.peer or None,
            "theirs": _spread_json(Spread.of(self.theirs), self.theirs) if self.theirs else None,
            "ratio": _spread_json(self.ratio) if self.ratio is not None else None,
            "budget": str(self.budget) if self.budget is not None else None,
            "kept": kept,
        }


@dataclass(frozen=True, slots=True)
class Result:
    """What one bench found. ``notes`` say what was missing, and what else a reader has to know."""

    name: str
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    def json(self) -> Json:
        return {"bench": self.name, "rows": [row.json() for row in self.rows], "notes": list(self.notes)}


_HEAD = ("", "unit", "ours  min / med / max", "peer's  min / med / max", "ours : peer", "peer", "budget")
_NUMBERS = (2, 3, 4)  # columns that are set to the right


def table(rows: Sequence[Row]) -> str:
    """The rows as text, a line each under a head."""
    cells = [_HEAD, *map(_cells, rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_HEAD))]
    return "\n".join(_line(line, widths) for line in cells)


def _cells(row: Row) -> tuple[str, ...]:
    theirs = str(Spread.of(row.theirs)) if row.theirs else ""
    ratio = str(row.ratio) if row.ratio is not None else ""
    return (row.what, row.unit, str(Spread.of(row.ours)), theirs, ratio, row.peer, row.verdict)


def _line(cells: Iterable[str], widths: Sequence[int]) -> str:
    padded = [
        text.rjust(width) if column in _NUMBERS else text.ljust(width)
        for column, (text, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return ("  " + "  ".join(padded)).rstrip()


def _short(value: float) -> str:
    """Three digits: 0.04 4.21 42.1 421 4.21k 42.1k."""
    if value >= 1000:
        return f"{_short(value / 1000)}k"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def _spread_json(spread: Spread, samples: Sequence[float] = ()) -> Json:
    known: dict[str, Json] = {"min": spread.smallest, "median": spread.middle, "max": spread.largest}
    return {**known, "samples": list(samples)} if samples else known
