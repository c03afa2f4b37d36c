"""``make soak``: the simulated world with a thousand seeds and more; a seed that fails is printed and replays.

make soak                        seeds 0 to 999
make soak ARGS="--seeds 20000"   more of them
make soak ARGS="--seed 4711"     one, with its plan
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.faults.plan import plan
from tests.faults.world import Report, run


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--seeds", type=int, default=1000)
    asked.add_argument("--first", type=int, default=0)
    asked.add_argument("--seed", type=int)
    asked.add_argument("--processes", type=int)
    given = asked.parse_args()
    if given.seed is not None:
        return replay(given.seed)
    seeds = range(given.first, given.first + given.seeds)
    began, injected, failed, delivered, tries, simulated = time.monotonic(), Counter[str](), [], 0, 0, 0.0
    with ProcessPoolExecutor(given.processes) as pool:
        for done, (seed, report) in enumerate(pool.map(one, seeds, chunksize=4), 1):
            injected += report.injected
            delivered, tries, simulated = delivered + report.delivered, tries + report.tries, simulated + report.seconds
            if report.broken:
                failed.append(seed)
                print(f"\nseed {seed}: {len(report.broken)} broken laws; make soak ARGS='--seed {seed}'")
                print(*(f"  {broken[:300]}" for broken in report.broken[:5]), sep="\n")
            if done % 50 == 0 or done == len(seeds):
                print(f"\r{done} of {len(seeds)} seeds, {len(failed)} failed", end="", flush=True)
    print(
        f"\n{time.monotonic() - began:.0f} s for {simulated / 3600:.0f} simulated hours: {tries} tries, {delivered} delivered"
    )
    print(*(f"{number:8} {kind}" for kind, number in sorted(injected.items())), sep="\n")
    print(f"{injected.total():8} faults of {len(injected)} kinds, {len(failed)} seeds failed: {failed}")
    return 1 if failed else 0


def one(seed: int) -> tuple[int, Report]:
    return seed, run(plan(seed))


def replay(seed: int) -> int:
    drawn = plan(seed)
    print(drawn)
    report = run(drawn)
    print(f"{report.seconds:.1f} s, {report.tries} tries, {report.delivered} delivered, {dict(report.injected)}")
    print(*report.broken, sep="\n")
    return 1 if report.broken else 0


if __name__ == "__main__":
    sys.exit(main())
