"""What a seed stands for: the workload, the settings, and what goes wrong when. Values only; `world` performs them."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tests.faults.happenings import HAPPENINGS, STOPS
from tests.faults.trouble import FAULTS

from wellhead.delivery import Policy

if TYPE_CHECKING:
    from collections.abc import Sequence

KINDS: Final = (*HAPPENINGS, *STOPS)

POLICIES: Final = {
    "default": Policy(),
    "given": Policy(retries=3, backoff_delay=timedelta(milliseconds=200), cap=None, jitter=0.0),
    "hasty": Policy(timeout=timedelta(seconds=3), cap=timedelta(seconds=5)),
}


@dataclass(frozen=True, slots=True)
class Happening:
    at: float
    kind: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    seed: int
    tasks: int
    events: int
    """For each task."""
    size: int
    """Bytes of an event's data."""
    pause: float
    """Seconds between two events of one task, at most."""
    faults: Sequence[str]
    chance: float
    """How likely it is that one of them befalls a request."""
    dead_letter: bool
    dead_letter_chance: float
    policy: str
    limit: int
    on_wire: int
    latency: float
    split: float
    secure: bool
    token: bool
    mortal: float
    """The part of the events that has a deadline."""
    happenings: Sequence[Happening]

    @property
    def trouble_ends(self) -> float:
        return max([60.0, *(one.at + one.seconds for one in self.happenings)])


def plan(seed: int) -> Plan:
    """The same for the same seed."""
    die = random.Random(seed)
    tasks = die.choice((1, 1, 2, 4, 8, 16))
    kinds = FAULTS.names
    return Plan(
        seed=seed,
        tasks=tasks,
        events=die.randint(1, max(2, 64 // tasks)),
        size=die.choice((0, 200, 200, 5_000, 150_000)),
        pause=die.choice((0.0, 0.05, 1.0, 8.0)),
        faults=kinds if die.random() < 0.3 else die.sample(kinds, die.randint(1, 6)),
        chance=die.choice((0.0, 0.05, 0.2, 0.5, 0.9)),
        dead_letter=die.random() < 0.3,
        dead_letter_chance=die.choice((0.0, 0.3)),
        policy=die.choice(("default", "default", "hasty", "given")),
        limit=die.choice((1, 2, 8, 512)),
        on_wire=die.choice((1, 2, 8, 128)),
        latency=die.choice((0.0002, 0.01, 0.3)),
        split=die.choice((0.0, 0.0, 0.1, 0.7)),
        secure=die.random() < 0.4,
        token=die.random() < 0.4,
        mortal=die.choice((0.0, 0.0, 0.3, 1.0)),
        happenings=_happenings(die),
    )


def _happenings(die: random.Random) -> Sequence[Happening]:
    long = die.random() < 0.1
    number = die.choice((0, 1, 2, 5))
    drawn = [
        Happening(die.uniform(0.0, 60.0), die.choice(KINDS), die.choice((0.1, 1.0, 20.0, 100.0))) for _ in range(number)
    ]
    if long:
        drawn.append(Happening(die.uniform(0.0, 10.0), "outage", 3600.0))
    return sorted(drawn, key=lambda one: one.at)
