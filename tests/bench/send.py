"""Cost of a send, so many at a time, to the Go sink of ``tests/interop/peers``, beside the Go SDK's sender."""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.figures import Result, Row
from tests.bench.machine import Plan, Server, go_peers, output_and_peak, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CONCURRENCIES: Final = (1, 16, 128)

_PEER: Final = "Go SDK, 1 core"
_OURS: Final = (sys.executable, str(Path(__file__).with_name("sending.py")))
_OUR_SINK: Final = (sys.executable, str(Path(__file__).with_name("plain_sink.py")))
_LISTENING: Final = r"listening on 127\.0\.0\.1:(\d+)"
_EVENTS: Final = {1: 4_000, 16: 8_000, 128: 8_000}
_GO_EVENTS: Final = 4  # times as many, so that its runs are not over before they are warm
_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Run:
    events: int
    seconds: float
    cpu_seconds: float
    peak_mib: float | None


def run(plan: Plan) -> Result:
    """Each concurrency in turn: our sender and Go's alternate against one sink, which has a core to itself."""
    folder, missing = go_peers()
    notes = [missing, "the sink is ours, in Python: it may be what limits the figures"] if missing else []
    rows: list[Row] = []
    with _sink(folder) as sink:
        for concurrency in CONCURRENCIES:
            count = _EVENTS[concurrency] // (4 if plan.quick else 1)
            sides = _sides(folder, sink, count, concurrency)
            found = plan.share(len(CONCURRENCIES)).rounds_of(sides)
            rows += _rows(f"{concurrency} at a time", found["ours"], found.get(_PEER, ()))
    return Result("send", rows, notes)


@contextmanager
def _sink(folder: Path | None) -> Iterator[Server]:
    command = [*_OUR_SINK] if folder is None else [str(folder / "sinkserver"), "-gomaxprocs", "1"]
    with serving(command, announced=_LISTENING) as sink:
        yield sink


def _sides(folder: Path | None, sink: Server, count: int, concurrency: int) -> dict[str, Callable[[], _Run]]:
    def how(dash: str, events: int) -> list[str]:
        return [f"{dash}sink", sink.url, f"{dash}count", str(events), f"{dash}concurrency", str(concurrency)]

    sides = {"ours": lambda: _send([*_OURS, *how("--", count)])}
    if folder is not None:
        sides[_PEER] = lambda: _send([str(folder / "sender"), *how("-", count * _GO_EVENTS), "-gomaxprocs", "1"])
    return sides


def _send(command: Sequence[str]) -> _Run:
    output, peak = output_and_peak(command, seconds=_SECONDS)
    figures = json.loads(output)
    return _Run(figures["events"], figures["seconds"], figures["cpu_seconds"], peak)


def _rows(how: str, ours: Sequence[_Run], theirs: Sequence[_Run]) -> list[Row]:
    def row(what: str, unit: str, figure: Callable[[_Run], float]) -> Row:
        peer = _PEER if theirs else ""
        return Row(what=what, unit=unit, ours=[*map(figure, ours)], peer=peer, theirs=[*map(figure, theirs)])

    rows = [
        row(f"sent, {how}", "events/s", lambda run: run.events / run.seconds),
        row(f"cost, {how}", "µs CPU", lambda run: run.cpu_seconds / run.events * 1e6),
    ]
    if all(run.peak_mib is not None for run in (*ours, *theirs)):
        rows.append(row(f"peak memory, {how}", "MiB", lambda run: run.peak_mib or 0.0))
    return rows
