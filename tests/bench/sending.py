"""A program: sends events through our `HttpSink`, so many at a time, and prints what that cost this process as JSON.

The counterpart of ``sender -count`` in ``tests/interop/peers``: the same event, the same line of output.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import resource
import sys
import time
from pathlib import Path

import uvloop

from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.host import Host
from wellhead.transport.by_aiohttp import AiohttpTransport
from wellhead.transport.http import HttpTransport

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.bench import sample

_WARM = 100_000


async def send(sink_url: str, count: int, concurrency: int, *, aiohttp: bool) -> dict[str, float]:
    """Send ``count`` events; raises at the first one that is not accepted."""
    transport = AiohttpTransport() if aiohttp else HttpTransport()
    host = Host(transport, SystemClock())
    sink = host.open_sink("bench", SinkBinding(sink=sink_url))
    left = iter(range(count))

    memory: list[float] = []

    async def sender() -> None:
        for number in left:
            await sink.send(sample.event())
            if number == _WARM:
                memory.append(_resident_mib())

    begun, cpu = time.perf_counter(), time.process_time()
    async with asyncio.TaskGroup() as tasks:
        for number in range(concurrency):
            tasks.create_task(sender(), name=f"sender {number}")
    seconds, cpu_seconds = time.perf_counter() - begun, time.process_time() - cpu
    await host.drain(1.0)
    await transport.aclose()
    figures = {"events": count, "seconds": seconds, "cpu_seconds": cpu_seconds}
    return figures if not memory else {**figures, "grown_mib": _resident_mib() - memory[0]}


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sink", required=True, help="URL of the sink")
    parser.add_argument("--count", type=int, default=10_000, help="how many events")
    parser.add_argument("--concurrency", type=int, default=1, help="how many at a time")
    parser.add_argument("--profile", help="write a cProfile to this file")
    parser.add_argument("--asyncio", action="store_true", help="on asyncio's own loop instead of uvloop")
    parser.add_argument("--aiohttp", action="store_true", help="through aiohttp instead of our own transport")
    said = parser.parse_args()
    with asyncio.Runner(loop_factory=asyncio.new_event_loop if said.asyncio else uvloop.new_event_loop) as runner:
        profile = cProfile.Profile(time.process_time) if said.profile else None
        if profile is not None:
            profile.enable()
        figures = runner.run(send(said.sink, said.count, said.concurrency, aiohttp=said.aiohttp))
        if profile is not None:
            profile.disable()
            profile.dump_stats(said.profile)
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
