"""PingSources of files at work in one loop: they come, go and change, each with its own sink, and disturb no other."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.access import SinkAccess
from wellhead.host import Host
from wellhead.manifest import documents
from wellhead.settings import DeliverySettings
from wellhead.testing import FakeTransport, LoopClock
from wellhead_adapters.cli.cluster_secrets import cluster_secrets
from wellhead_adapters.cli.fleet import Fleet
from wellhead_adapters.cli.plan import Plan, World, plan
from wellhead_adapters.heartbeat.adapter import Heartbeat
from wellhead_adapters.ping.adapter import Ping
from wellhead_adapters.ping.pings import Pings

if TYPE_CHECKING:
    from collections.abc import Mapping

NEW_YEAR: Final = datetime(2026, 1, 1, tzinfo=UTC)
BEATS: Final = """
---
apiVersion: sources.knative.dev/v1
kind: ContainerSource
metadata: {name: beats}
spec:
  sink: {uri: http://beats/}
  template:
    spec:
      containers:
      - {image: heartbeats, args: [--period=60], env: [{name: POD_NAME, value: a}, {name: POD_NAMESPACE, value: b}]}
"""

pytestmark = pytest.mark.looptime


class PingOnTheLoopsClock(Ping):
    @staticmethod
    def many() -> Pings:
        return Pings(clock=LoopClock(NEW_YEAR))


WORLD: Final = World(adapters={"ping": lambda: PingOnTheLoopsClock, "heartbeat": lambda: Heartbeat})


def wanted(data: Mapping[str, str], more: str = "") -> Plan:
    text = "---".join(
        f"""
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {{name: {name}}}
spec: {{schedule: "* * * * *", data: "{words}", sink: {{uri: "http://{name}/"}}}}
"""
        for name, words in data.items()
    )
    found, problems = documents(text + more, "file.yaml")
    assert problems == []
    return plan(found, WORLD)


class Files:
    """A `Fleet` on a transport in memory."""

    def __init__(self, *, latency: float = 0.0) -> None:
        self.transport = FakeTransport(latency=lambda: latency)
        self.host = Host(self.transport, LoopClock(NEW_YEAR))
        self.fleet = Fleet(
            self.host,
            WORLD,
            sink="http://display/",
            ca_certs="",
            given=False,
            refs={},
            delivery=DeliverySettings(),
            access=SinkAccess(),
            secrets=cluster_secrets({}),
        )

    def sent_to(self, name: str) -> list[tuple[str, bytes]]:
        """The minute and the data of what this sink was sent, in order."""
        posts = zip(self.transport.posts, self.transport.tried, strict=True)
        return [
            (str(event.time)[14:16], event.data or b"") for post, event in posts if post.target.url == f"http://{name}/"
        ]


def others() -> set[str]:
    """The names of all tasks but the test's own."""
    return {task.get_name() for task in asyncio.all_tasks() if task is not asyncio.current_task()}


async def test_the_pingsources_of_all_files_are_one_task_and_each_has_its_own_sink() -> None:
    it = Files()
    await it.fleet.apply(wanted({"a": "1", "b": "2", "c": "3"}))
    await asyncio.sleep(150)
    assert others() == {"source ping of files"}
    assert [it.sent_to(name) for name in "abc"] == [[("01", data), ("02", data)] for data in (b"1", b"2", b"3")]
    await it.host.drain(1)
    assert others() == set()


async def test_one_that_changes_one_that_goes_and_one_that_comes_leave_the_rest_its_times(
    caplog: pytest.LogCaptureFixture,
) -> None:
    it = Files()
    await it.fleet.apply(wanted({"stays": "1", "changes": "2", "goes": "3"}))
    await asyncio.sleep(90)
    await it.fleet.apply(wanted({"stays": "1", "changes": "new", "comes": "4"}))
    await asyncio.sleep(120)
    assert it.sent_to("stays") == [("01", b"1"), ("02", b"1"), ("03", b"1")]
    assert it.sent_to("changes") == [("01", b"2"), ("02", b"new"), ("03", b"new")]
    assert it.sent_to("goes") == [("01", b"3")]
    assert it.sent_to("comes") == [("02", b"4"), ("03", b"4")]
    assert others() == {"source ping of files"}
    assert "event was not delivered" not in caplog.text  # nothing ticks into a sink that was closed
    assert sorted(it.host.sinks()) == [f"PingSource default/{name}" for name in ("changes", "comes", "stays")]
    await it.host.drain(1)


async def test_what_is_on_its_way_when_its_source_goes_is_delivered_within_the_grace() -> None:
    it = Files(latency=5.0)
    await it.fleet.apply(wanted({"a": "1", "b": "2"}))
    await asyncio.sleep(61)
    assert it.transport.events == []
    await it.fleet.apply(wanted({}, BEATS))
    assert {event.data for event in it.transport.events} == {b"1", b"2"}
    assert it.host.undelivered == 0
    await it.host.drain(10)


async def test_what_no_sink_takes_within_the_grace_is_counted_and_the_rest_ticks_on() -> None:
    it = Files(latency=25.0)
    await it.fleet.apply(wanted({"a": "1", "b": "2"}))
    await asyncio.sleep(61)
    await it.fleet.apply(wanted({"b": "2"}))
    assert it.host.undelivered == 1
    await asyncio.sleep(60)
    assert [minute for minute, _ in it.sent_to("b")] == ["01", "02"]
    await it.host.drain(60)


async def test_sources_without_such_a_form_run_beside_in_tasks_of_their_own() -> None:
    it = Files()
    await it.fleet.apply(wanted({"a": "1"}, BEATS))
    await asyncio.sleep(90)
    assert others() == {"source ping of files", "source ContainerSource default/beats"}
    assert len(it.sent_to("beats")) == 2
    await it.fleet.apply(wanted({}, BEATS))
    assert others() == {"source ping of files", "source ContainerSource default/beats"}
    await it.host.drain(1)
