"""Requests a second that ``wellhead display`` takes, quiet and printing to a file, beside the Go SDK's receiver."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.figures import Budget, Result, Row
from tests.bench.load import CONNECTIONS, has_wrk, load
from tests.bench.machine import Plan, Server, cpu_seconds, go_peers, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

_BUDGET: Final = Budget(bound=0.3, at_most=False, of_ratio=True, goal=0.8)
_DISPLAY: Final = (
    sys.executable, "-m", "wellhead_adapters.cli", "display",
    "--address", "127.0.0.1", "--port", "0", "--log-format", "json", "--log-level", "info",
)  # fmt: skip
_OPEN: Final = r"event display is open.*http://127\.0\.0\.1:(\d+)"
_LISTENING: Final = r"listening on 127\.0\.0\.1:(\d+)"

_OURS, _GO, _GO_FREE = "ours", "Go SDK, 1 core", "Go SDK, all cores"
_OURS_PRINTING, _GO_PRINTING = "ours, printing", "Go SDK, 1 core, printing"


@dataclass(frozen=True, slots=True)
class _Taken:
    per_second: float
    cpu_micros: float | None


def run(plan: Plan) -> Result:
    """All servers are started once; then each in turn gets the load, while the others idle."""
    folder, missing = go_peers()
    commands: dict[str, tuple[Sequence[str], str]] = {
        _OURS: ((*_DISPLAY, "--quiet"), _OPEN),
        _OURS_PRINTING: (_DISPLAY, _OPEN),
    }
    if folder is not None:
        receiver = str(folder / "receiver")
        commands[_GO] = ((receiver, "-quiet", "-gomaxprocs", "1"), _LISTENING)
        commands[_GO_FREE] = ((receiver, "-quiet"), _LISTENING)
        commands[_GO_PRINTING] = ((receiver, "-gomaxprocs", "1"), _LISTENING)
    seconds = 1.0 if plan.quick else 2.0
    with ExitStack() as servers:
        up = {
            name: servers.enter_context(serving(command, announced=said)) for name, (command, said) in commands.items()
        }
        sides = {name: _loading(server, seconds) for name, server in up.items()}
        for side in sides.values():
            side()  # once unmeasured: Go's heap and our caches find their size
        found = plan.rounds_of(sides)
    return Result("display", _rows(found), _notes(missing))


def _loading(server: Server, seconds: float) -> Callable[[], _Taken]:
    def measure() -> _Taken:
        before = cpu_seconds(server.pid)
        taken = load(server.url, seconds)
        after = cpu_seconds(server.pid)
        spent = (after - before) / taken.requests * 1e6 if before is not None and after is not None else None
        return _Taken(taken.per_second, spent)

    return measure


def _rows(found: Mapping[str, Sequence[_Taken]]) -> list[Row]:
    rows = []
    for what, mine, peer, budget in (
        ("quiet", _OURS, _GO, _BUDGET),
        ("quiet", _OURS, _GO_FREE, None),
        ("printing to a file", _OURS_PRINTING, _GO_PRINTING, None),
    ):
        theirs = found.get(peer, ())
        if not theirs and peer == _GO_FREE:
            continue
        rows.append(
            Row(
                what=f"taken, {what}",
                unit="requests/s",
                ours=[taken.per_second for taken in found[mine]],
                peer=peer if theirs else "",
                theirs=[taken.per_second for taken in theirs],
                budget=budget,
            )
        )
        costs = [[taken.cpu_micros for taken in side if taken.cpu_micros is not None] for side in (found[mine], theirs)]
        if costs[0]:
            rows.append(
                Row(
                    what=f"cost, {what}",
                    unit="µs CPU",
                    ours=costs[0],
                    peer=peer if theirs else "",
                    theirs=costs[1],
                )
            )
    return rows


def _notes(missing: str) -> list[str]:
    notes = [missing] if missing else []
    if has_wrk():
        return [*notes, f"load by wrk, one thread, {CONNECTIONS} connections"]
    own = f"load by {CONNECTIONS} sockets of ours, which are slower than a Go server: its ratios are flattering"
    return [*notes, f"NO wrk (apt-get install wrk): {own}"]
