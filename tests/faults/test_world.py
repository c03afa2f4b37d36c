"""The simulated world in its quick form; `make soak` is the long one. A seed that fails here is replayed by
``make soak ARGS="--seed N"``."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import pytest
from tests.faults.plan import KINDS, Happening, Plan, plan
from tests.faults.process import Process
from tests.faults.trouble import FAULTS
from tests.faults.world import World, live, run

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.faults.loop import SimulatedLoop

ONCE_FAILED: Final = (
    2,  # the query's value stood in the log, decoded, as the sink had repeated it
    10,  # a head beyond the limit was taken where it came in one read, and not where it came in two
    37,  # taken by a sink whose answer was lost; then a 401 was the last answer, and the loss was told as certain
    49,  # the same with a refusal
    94,  # the head beyond the limit again, of twenty thousand short lines
    151,  # likewise
)
QUICK: Final = range(100_000, 100_060)


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_once_failed_holds(seed: int) -> None:
    assert run(plan(seed)).broken == []


def test_every_law_holds_whatever_goes_wrong() -> None:
    broken = {seed: report.broken for seed in QUICK if (report := run(plan(seed))).broken}
    assert broken == {}


@pytest.mark.parametrize("kind", FAULTS.names)
def test_every_law_holds_where_half_of_all_requests_meet_this(kind: str) -> None:
    report = run(replace(SMALL, faults=(kind,), chance=0.5, tasks=4, events=8))
    assert report.broken == []
    assert report.injected[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_every_law_holds_where_this_happens_to_the_world(kind: str) -> None:
    happens = (Happening(at=0.5, kind=kind, seconds=10.0), Happening(at=20.0, kind=kind, seconds=3.0))
    report = run(replace(SMALL, tasks=4, events=20, pause=2.0, secure=True, token=True, happenings=happens))
    assert report.broken == []
    assert report.injected[kind] == 2
    assert report.delivered == 80


SMALL: Final = Plan(
    seed=1,
    tasks=2,
    events=3,
    size=10,
    pause=0.01,
    faults=(),
    chance=0.0,
    dead_letter=False,
    dead_letter_chance=0.0,
    policy="default",
    limit=2,
    on_wire=2,
    latency=0.001,
    split=0.3,
    secure=False,
    token=False,
    mortal=0.0,
    happenings=(),
)
TROUBLED: Final = replace(
    SMALL,
    faults=("status: retried", "status: refused", "reset before the head", "kept connection closed under us"),
    chance=0.5,
    dead_letter=True,
    dead_letter_chance=0.3,
)


def stopped_at(step: int, grace: float | None) -> Callable[[World, Process], Coroutine[None, None, Process]]:
    """A life in which the program is stopped after so many turns of the loop (killed, where it has no grace), and
    starts again."""

    async def lives(world: World, process: Process) -> Process:
        loop: SimulatedLoop = asyncio.get_running_loop()  # type: ignore[assignment]  # the world's
        reached = asyncio.Event()
        loop.at_step(step, reached.set)
        await reached.wait()
        await (process.kill() if grace is None else process.terminate(grace))
        return await live(world, Process(world))

    return lives


def turns(calm: Plan) -> int:
    """How many turns of the loop it takes until every task has ended."""
    steps = 0

    async def lives(world: World, process: Process) -> Process:
        nonlocal steps
        loop: SimulatedLoop = asyncio.get_running_loop()  # type: ignore[assignment]  # the world's
        await asyncio.wait(process.tasks)
        steps = loop.steps
        return process

    run(calm, lives)
    return steps


@pytest.mark.parametrize("grace", [None, 0.0, 0.002], ids=["kill", "SIGTERM without grace", "SIGTERM"])
@pytest.mark.parametrize("calm", [SMALL, TROUBLED], ids=["calm", "troubled"])
@pytest.mark.parametrize("latency", [0.001, 0.0], ids=["", "with the answer in the same turn of the loop"])
def test_every_law_holds_where_the_program_is_stopped_at_any_await(
    latency: float, calm: Plan, grace: float | None
) -> None:
    calm = replace(calm, latency=latency)
    reports = {step: run(calm, stopped_at(step, grace)) for step in range(1, turns(calm))}
    assert len(reports) > 20
    assert {step: report.broken for step, report in reports.items() if report.broken} == {}


def test_the_same_seed_takes_the_same_way() -> None:
    first, second = run(plan(7)), run(plan(7))
    assert (first.seconds, first.tries, first.injected) == (second.seconds, second.tries, second.injected)
