"""Cost of a send, so many at a time, to the Go sink of ``tests/interop/peers``, beside the Go SDK's sender."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.figures import Budget, Result, Row
from tests.bench.load import has_wrk, load
from tests.bench.machine import Plan, Server, go_peers, output_and_peak, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

CONCURRENCIES: Final = (1, 16, 128)

_GO: Final = "Go SDK, 1 core"
_GO_TWO: Final = "Go SDK, 2 cores"
_ASYNCIO: Final = "ours on asyncio"
_AIOHTTP: Final = "ours over aiohttp"
_WRK: Final = "wrk"
_RATE_BUDGETS: Final = {1: 1.1, 16: 1.3, 128: 1.3}
_CPU_BUDGET: Final = 0.6
_OURS: Final = (sys.executable, str(Path(__file__).with_name("sending.py")))
_OUR_SINK: Final = (sys.executable, str(Path(__file__).with_name("plain_sink.py")))
_LISTENING: Final = r"listening on 127\.0\.0\.1:(\d+)"
# So many that connecting and warming up, of either side, are no part of the figures.
_EVENTS: Final = {1: 10_000, 16: 30_000, 128: 30_000}
_FEWER: Final = 4  # over aiohttp, which takes that many times as long
_MEMORY_EVENTS: Final = 1_000_000
_WRK_SECONDS: Final = 1.0
_GROWTH_MIB: Final = 2.0
_SECONDS: Final = 60.0
_MEMORY_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class _Run:
    events: int
    seconds: float
    cpu_seconds: float
    peak_mib: float | None = None
    grown_mib: float | None = None


def run(plan: Plan) -> Result:
    """Each concurrency in turn: our sender and Go's alternate against one sink, which has a core to itself."""
    folder, missing = go_peers()
    notes = [missing, "the sink is ours, in Python: it may be what limits the figures"] if missing else []
    rows: list[Row] = []
    with _sink(folder) as sink:
        for concurrency in CONCURRENCIES:
            count = _EVENTS[concurrency] // (3 if plan.quick else 1)
            sides = _sides(folder, sink, count, concurrency)
            rows += _rows(concurrency, plan.share(len(CONCURRENCIES)).rounds_of(sides))
        if not plan.quick:
            rows.append(_memory(sink))
    return Result("send", rows, notes)


@contextmanager
def _sink(folder: Path | None) -> Iterator[Server]:
    command = [*_OUR_SINK] if folder is None else [str(folder / "sinkserver"), "-gomaxprocs", "1"]
    with serving(command, announced=_LISTENING) as sink:
        yield sink


def _sides(folder: Path | None, sink: Server, count: int, concurrency: int) -> dict[str, Callable[[], _Run]]:
    def how(dash: str, events: int) -> list[str]:
        return [f"{dash}sink", sink.url, f"{dash}count", str(events), f"{dash}concurrency", str(concurrency)]

    ours = [*_OURS, *how("--", count)]
    sides = {
        "ours": lambda: _send(ours),
        _ASYNCIO: lambda: _send([*ours, "--asyncio"]),
        _AIOHTTP: lambda: _send([*_OURS, *how("--", count // _FEWER), "--aiohttp"]),
    }
    if folder is not None:
        go = [str(folder / "sender"), *how("-", count), "-gomaxprocs"]
        sides[_GO] = lambda: _send([*go, "1"])
        sides[_GO_TWO] = lambda: _send([*go, "2"])
    if has_wrk():
        sides[_WRK] = lambda: _wrk(sink.url, concurrency)
    return sides


def _send(command: Sequence[str], *, seconds: float = _SECONDS) -> _Run:
    output, peak = output_and_peak(command, seconds=seconds)
    figures = json.loads(output)
    return _Run(figures["events"], figures["seconds"], figures["cpu_seconds"], peak, figures.get("grown_mib"))


def _wrk(url: str, connections: int) -> _Run:
    """What a program in C that does nothing but send the same bytes again gets out of this machine and this sink."""
    found = load(url, _WRK_SECONDS, connections=connections)
    return _Run(found.requests, found.seconds, 0.0)


def _rows(concurrency: int, found: Mapping[str, Sequence[_Run]]) -> list[Row]:
    ours, how = found["ours"], f"{concurrency} at a time"

    def row(what: str, unit: str, peer: str, figure: Callable[[_Run], float], budget: Budget | None = None) -> Row:
        theirs = [*map(figure, found.get(peer, ()))]
        mine = [*map(figure, ours)]
        return Row(
            what=f"{what}, {how}", unit=unit, ours=mine, peer=peer if theirs else "", theirs=theirs, budget=budget
        )

    def rate(one: _Run) -> float:
        return one.events / one.seconds

    def cpu(one: _Run) -> float:
        return one.cpu_seconds / one.events * 1e6

    rows = [
        row("sent", "events/s", _GO, rate, Budget(bound=_RATE_BUDGETS[concurrency], at_most=False, of_ratio=True)),
        row("cost", "µs CPU", _GO, cpu, Budget(bound=_CPU_BUDGET, of_ratio=True)),
        row("sent", "events/s", _GO_TWO, rate),
        row("cost", "µs CPU", _GO_TWO, cpu),
        row("cost", "µs CPU", _ASYNCIO, cpu),
        row("cost", "µs CPU", _AIOHTTP, cpu),
        row("sent", "events/s", _WRK, rate),
    ]
    if all(one.peak_mib is not None for one in (*ours, *found.get(_GO, ()))):
        rows.append(row("peak memory", "MiB", _GO, lambda one: one.peak_mib or 0.0))
    return [
        one for one in rows if one.peer or not one.what.startswith(("sent", "cost")) or one is rows[0] or one is rows[1]
    ]


def _memory(sink: Server) -> Row:
    """By how much the sender's memory grows between 100,000 events and a million."""
    found = _send(
        [*_OURS, "--sink", sink.url, "--count", str(_MEMORY_EVENTS), "--concurrency", "16"], seconds=_MEMORY_SECONDS
    )
    grown = [] if found.grown_mib is None else [found.grown_mib]
    return Row(
        what="memory grown, 100,000th to millionth", unit="MiB", ours=grown or [0.0], budget=Budget(bound=_GROWTH_MIB)
    )
