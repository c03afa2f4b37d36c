"""Real sockets through a proxy that breaks them: what the simulated world says holds there as well."""

from __future__ import annotations

import asyncio
import random
from datetime import timedelta
from pathlib import Path
from typing import Final

import pytest
from tests.faults.proxy import FAULTS, FaultProxy
from tests.faults.test_load import event, in_lane_order, lane

from wellhead.address import Address
from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.delivery import Policy
from wellhead.sink import HttpSink
from wellhead.testing import RecordingSink
from wellhead.transport.http import HttpTransport

LANES: Final = 8
EVENTS: Final = 25
IN_TIME: Final = 30.0
PATIENT: Final = Policy(
    backoff_delay=timedelta(milliseconds=1), cap=timedelta(milliseconds=20), timeout=timedelta(milliseconds=250)
)


def sockets() -> int:
    """How many this process has open, where that can be known."""
    folder = Path("/proc/self/fd")
    links = [one.readlink() for one in folder.iterdir() if one.is_symlink()] if folder.is_dir() else []
    return sum(link.name.startswith("socket:") for link in links)


async def delivered_through(faults: tuple[str, ...], chance: float, seed: int) -> FaultProxy:
    """Send events through a proxy with these faults, and hold the laws against what arrived."""
    die = random.Random(seed)
    before = sockets()
    transport = HttpTransport()
    async with (
        asyncio.timeout(IN_TIME),
        RecordingSink() as there,
        FaultProxy(
            int(there.url.rstrip("/").rpartition(":")[2]), lambda: die.choice(faults) if die.random() < chance else ""
        ) as proxy,
    ):
        binding = SinkBinding(sink=proxy.url)
        address = Address(binding, transport)
        sink = HttpSink(binding, address, clock=SystemClock(), policy=PATIENT, luck=die.random)
        await asyncio.gather(*(lane(sink, number, EVENTS) for number in range(LANES)))
        sent = {event(number, one) for number in range(LANES) for one in range(EVENTS)}
        assert (sink.counters.delivered, sink.counters.balance, sink.counters.in_flight) == (len(sent), 0, 0)
        assert set(there.tried) == sent
        assert in_lane_order(there.tried)
        await transport.aclose()
    await asyncio.sleep(0)
    assert sockets() <= before
    return proxy


@pytest.mark.parametrize("fault", FAULTS)
async def test_every_event_arrives_in_order_though_the_proxy_does_this(fault: str) -> None:
    proxy = await delivered_through((fault,), 0.02 if fault in {"stall", "half close"} else 0.1, seed=1)
    assert proxy.injected[fault]


async def test_every_event_arrives_in_order_though_the_proxy_does_all_of_it() -> None:
    proxy = await delivered_through(FAULTS, 0.1, seed=2)
    assert proxy.injected.total() > 10
