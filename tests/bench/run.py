"""``make bench``: speed, memory and start-up as ratios to a peer in the same run. See README.md beside it."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol, cast

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench.figures import Result, table
from tests.bench.machine import BenchError, Plan, go_peers, machine
from tests.interop.go_module import PeerError

if TYPE_CHECKING:
    from tests.bench.figures import Json

BENCHES: Final = {
    # name: rounds and seconds of a whole run, and of a quick one
    "startup": (Plan(15, 30), Plan(5, 8, quick=True)),
    "encode": (Plan(11, 15), Plan(5, 5, quick=True)),
    "send": (Plan(5, 150), Plan(3, 40, quick=True)),
    "display": (Plan(5, 60), Plan(3, 16, quick=True)),
    "gitlab": (Plan(5, 60), Plan(2, 14, quick=True)),
    "kafka": (Plan(3, 540), Plan(2, 90, quick=True)),
    "apiserver": (Plan(5, 300), Plan(2, 30, quick=True)),
}


class Bench(Protocol):
    """What every bench's module has."""

    def run(self, plan: Plan) -> Result: ...


def main() -> int:
    parser = argparse.ArgumentParser(prog="make bench ARGS=…", description="Benches beside their peers; see README.md.")
    parser.add_argument("benches", nargs="*", metavar="BENCH", help=f"which ones (default: all): {', '.join(BENCHES)}")
    parser.add_argument("--quick", action="store_true", help="fewer and shorter rounds")
    parser.add_argument("--explain", action="store_true", help="where the heartbeat's start-up goes, import by import")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures and samples to this file")
    said = parser.parse_args()
    unknown = [name for name in said.benches if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {', '.join(unknown)}; there are: {', '.join(BENCHES)}")
    return _run([name for name in BENCHES if name in said.benches or not said.benches], said)


def _run(names: list[str], said: argparse.Namespace) -> int:
    before = machine()
    _print_machine("before", before)
    if os.getloadavg()[0] > (os.cpu_count() or 1) / 2:
        print("THIS MACHINE IS BUSY with other things: trust the ratios, and not much")
    _, missing = go_peers()  # now: a cold build is no part of any figure
    if missing:
        print(missing)
    began = time.monotonic()
    results: list[Result] = []
    failed: list[str] = []
    for name in names:
        try:
            results.append(_bench(name, quick=said.quick))
        except (BenchError, PeerError, OSError) as error:
            failed.append(name)
            print(f"\n{name}: FAILED: {error}")
    if said.explain:
        from tests.bench.startup import explain

        print(f"\nimports of the heartbeat\n{explain()}")
    after = machine()
    print(f"\n{time.monotonic() - began:.0f} s in all")
    _print_machine("after", after)
    if said.json is not None:
        document: Json = {
            "before": before,
            "after": after,
            "failed": failed,
            "results": [one.json() for one in results],
        }
        said.json.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    return 1 if failed else 0


def _bench(name: str, *, quick: bool) -> Result:
    print(f"\n{name} …", flush=True)
    begun = time.monotonic()
    bench = cast("Bench", importlib.import_module(f"tests.bench.{name}"))
    result = bench.run(BENCHES[name][quick])
    rounds = max(len(row.ours) for row in result.rows)
    print(table(result.rows))
    print(f"  {rounds} rounds, {time.monotonic() - begun:.0f} s", *result.notes, sep="; ")
    return result


def _print_machine(when: str, facts: dict[str, Json]) -> None:
    load = " ".join(f"{one:.2f}" for one in cast("list[float]", facts["load"]))
    print(f"{when}: load {load} on {facts['cores']} cores, Python {facts['python']}, {facts['system']}")


if __name__ == "__main__":
    raise SystemExit(main())
