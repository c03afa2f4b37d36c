"""Every adapter of ours in the simulated world: the laws are the same, whoever sends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest
from tests.faults.plan import plan
from tests.faults.world import run, suffer

from wellhead.testing import LoopClock
from wellhead_adapters.heartbeat.adapter import Heartbeat
from wellhead_adapters.heartbeat.config import HeartbeatConfig
from wellhead_adapters.ping.adapter import Ping
from wellhead_adapters.ping.config import PingConfig

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.faults.process import Process
    from tests.faults.world import Work, World

    from wellhead.adapter import Adapter

ADAPTERS: Final[Mapping[str, Callable[[], Adapter]]] = {
    "heartbeat": lambda: Heartbeat(
        HeartbeatConfig(period=timedelta(seconds=5), pod_name="pod", pod_namespace="default"), clock=LoopClock()
    ),
    "ping": lambda: Ping(PingConfig(schedule="*/10 * * * * *"), clock=LoopClock()),
}
SETTLED: Final = 240.0
"""Seconds after the end of all trouble until an adapter's events have to arrive again: a ``Retry-After`` of two minutes,
and a tick."""
SEEDS: Final = (0, 3, 4, 5, 8, 9, 12, 14)


@pytest.mark.parametrize("name", ADAPTERS)
def test_an_adapter_keeps_every_law_and_goes_on_after_the_trouble(name: str) -> None:
    def workload(process: Process) -> Mapping[str, Work]:
        return {name: ADAPTERS[name]().run(process, lambda: None)}

    async def lives(world: World, process: Process) -> Process:
        process = await suffer(world, process)
        await asyncio.sleep(SETTLED)
        before = process.sink.counters.delivered
        await asyncio.sleep(30.0)
        if process.sink.counters.delivered < before + 2:
            world.record.broken.append(f"it does not deliver any more: {process.sink.counters}")
        return process

    broken = {}
    for seed in SEEDS:
        report = run(replace(plan(seed), tasks=0, events=0), lives, workload)
        if report.broken:
            broken[seed] = report.broken
    assert broken == {}
