"""The Go SDK's receiver is killed and started again ten times while events are sent to it: none is lost."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections import Counter
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from tests.interop.peers import GoPeer

from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.delivery import Policy
from wellhead.event import CloudEvent
from wellhead.host import Host
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

    from wellhead.sink import HttpSink

RESTARTS: Final = 10
BETWEEN: Final = 300
"""Events accepted before the receiver is killed again."""
TASKS: Final = 64
PATIENT: Final = Policy(backoff_delay=timedelta(milliseconds=10), cap=timedelta(milliseconds=200))
IN_TIME: Final = 120.0
_ID: Final = re.compile(rb"^  id: (\S+)$", re.MULTILINE)


async def test_a_go_receiver_killed_ten_times_under_load_loses_nothing(
    peers: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transport = HttpTransport()
    received: list[str] = []
    over = asyncio.Event()
    accepted: asyncio.Queue[str] = asyncio.Queue()
    with ExitStack() as running:
        peer = await asyncio.to_thread(running.enter_context, GoPeer(peers / "receiver"))
        port = peer.port
        sink = Host(transport, SystemClock()).open_sink("it", SinkBinding(sink=peer.url), policy=PATIENT)
        async with asyncio.timeout(IN_TIME), asyncio.TaskGroup() as group:
            sending = [group.create_task(send_until(over, sink, task, accepted)) for task in range(TASKS)]
            for _ in range(RESTARTS):
                for _ in range(BETWEEN):
                    await accepted.get()
                os.kill(peer.pid, signal.SIGKILL)
                await asyncio.to_thread(running.close)
                received += ids(peer)
                # The new one prints what it receives from its first line on: no event is counted twice.
                peer = await asyncio.to_thread(running.enter_context, GoPeer(peers / "receiver", f"-port={port}"))
            for _ in range(BETWEEN):
                await accepted.get()
            over.set()
        sent = Counter(event_id for task in sending for event_id in task.result())
        await asyncio.to_thread(running.close)
    await transport.aclose()
    received += ids(peer)
    lost = set(sent) - set(received)
    with capsys.disabled():
        print(
            f"\n{RESTARTS} kills: {sent.total()} sent, {sink.counters.delivered} accepted, "
            f"{len(received) - len(set(received))} duplicates, {len(lost)} lost; tries {dict(sink.counters.tries)}"
        )
    assert not lost
    assert sink.counters.delivered == sent.total() == len(sent)
    assert sink.counters.balance == 0
    assert set(received) == set(sent)
    for task in range(TASKS):
        of_task = [one for one in dict.fromkeys(received) if one.partition("/")[0] == str(task)]
        assert of_task == sorted(of_task, key=lambda one: int(one.partition("/")[2]))


async def send_until(over: asyncio.Event, sink: HttpSink, task: int, accepted: asyncio.Queue[str]) -> list[str]:
    """One task's events, one after another; the ids of those that were accepted."""
    sent: list[str] = []
    while not over.is_set():
        sent.append(f"{task}/{len(sent)}")
        await sink.send(CloudEvent(id=sent[-1], source="/spring", type="drop", data=b"x" * 200))
        accepted.put_nowait(sent[-1])
    return sent


def ids(peer: GoPeer) -> list[str]:
    return [event_id.decode() for event_id in _ID.findall(peer.stdout)]
