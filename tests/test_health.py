"""The probe pages over HTTP, asked by a plain client."""

from __future__ import annotations

import asyncio
import http.client
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import pytest
from prometheus_client.parser import text_string_to_metric_families

from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.delivery import Policy
from wellhead.errors import DeliveryError
from wellhead.event import CloudEvent
from wellhead.health import Health
from wellhead.host import Host
from wellhead.metrics import CircuitState, SinkState
from wellhead.testing import Answer, FakeTransport, Hang

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wellhead.sink import HttpSink

PAGES: Final = ("/healthz", "/livez", "/health", "/readyz", "/readiness", "/metrics", "/sinkz")
AWKWARD_NAME: Final = 'a "spring"\\ of\n water'


@dataclass
class Sources:
    """A lifecycle as the test sets it."""

    stopping: bool = False
    waiting: tuple[str, ...] = ()
    open: dict[str, HttpSink] = field(default_factory=dict)

    def not_ready(self) -> tuple[str, ...]:
        return self.waiting

    def adapters(self) -> dict[str, object]:
        return {}

    def sinks(self) -> dict[str, HttpSink]:
        return self.open


@dataclass
class Probe:
    """A client, and what it asks about."""

    sources: Sources
    address: tuple[str, int]

    async def ask(self, path: str, method: str = "GET") -> tuple[int, str, http.client.HTTPMessage]:
        return await asyncio.to_thread(self._ask, path, method)

    def _ask(self, path: str, method: str) -> tuple[int, str, http.client.HTTPMessage]:
        client = http.client.HTTPConnection(*self.address, timeout=5)
        client.request(method, path)
        answer = client.getresponse()
        text = answer.read().decode()
        client.close()
        return answer.status, text, answer.headers


@pytest.fixture
async def probe() -> AsyncIterator[Probe]:
    sources = Sources()
    health = Health(sources)
    yield Probe(sources, await health.start("127.0.0.1", 0))
    await health.stop()


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_is_there_while_all_is_well(probe: Probe, path: str) -> None:
    assert (await probe.ask(path))[0] == 200
    status, text, _ = await probe.ask(path, "HEAD")
    assert (status, text) == (200, "")
    assert (await probe.ask(path + "?verbose=1"))[0] == 200


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_no_page_takes_anything(probe: Probe, path: str, method: str) -> None:
    status, _, headers = await probe.ask(path, method)
    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_an_unknown_page_is_answered_with_those_there_are(probe: Probe) -> None:
    status, text, _ = await probe.ask("/")
    assert status == 404
    assert all(page in text for page in PAGES)


async def test_once_told_to_stop_it_is_unready_and_unhealthy_but_alive(probe: Probe) -> None:
    probe.sources.stopping = True
    codes = {path: (await probe.ask(path))[0] for path in PAGES}
    assert codes == {
        "/healthz": 200,
        "/livez": 200,
        "/health": 500,
        "/readyz": 503,
        "/readiness": 503,
        "/metrics": 200,
        "/sinkz": 200,
    }


@pytest.mark.parametrize("path", ["/readyz", "/readiness"])
async def test_unready_sources_are_named(probe: Probe, path: str) -> None:
    probe.sources.waiting = ("well", "brook")
    status, text, _ = await probe.ask(path)
    assert (status, text) == (503, "not ready: well, brook\n")


async def test_a_sink_that_is_down_makes_nothing_unready(probe: Probe) -> None:
    await _busy(probe.sources)
    assert not probe.sources.open["well"].address.up
    assert (await probe.ask("/readyz"))[0] == 200


async def test_the_metrics_parse_and_add_up(probe: Probe) -> None:
    await _busy(probe.sources)
    _, text, headers = await probe.ask("/metrics")
    assert headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    for name, sink in probe.sources.open.items():
        value: dict[str, float] = {}
        for sample in samples:
            if sample.labels["name"] == name:
                value[sample.name] = value.get(sample.name, 0) + sample.value
        ended = sum(value.get(f"wellhead_events_{end}_total", 0) for end in ("delivered", "dead_lettered", "refused"))
        dropped = value.get("wellhead_events_dropped_total", 0)
        assert value["wellhead_events_taken_total"] == ended + dropped + value["wellhead_events_in_flight"]
        assert value["wellhead_events_taken_total"] == sink.counters.taken == 6
        assert value["wellhead_sink_up"] == 0
        assert value["wellhead_try_duration_seconds_count"] == value["wellhead_tries_total"]


async def test_the_sinks_are_told_of_in_json_without_their_queries(probe: Probe) -> None:
    await _busy(probe.sources)
    _, text, headers = await probe.ask("/sinkz")
    assert headers["content-type"] == "application/json"
    facts = json.loads(text)["well"]
    assert 0 <= facts.pop("forSeconds") < 60
    assert facts == {
        "sink": "http://well/?…",
        "up": False,
        "reason": "HTTP 503",
        "circuit": "closed",
        "events": {
            "taken": 6,
            "delivered": 1,
            "deadLettered": 0,
            "refused": 1,
            "dropped": {"exhausted": 3},
            "inFlight": 1,
            "held": 0,
            "onWire": 1,
        },
    }
    assert "hunter2" not in text


async def test_the_state_of_a_sink_is_what_its_engine_says(probe: Probe) -> None:
    sink = Host(FakeTransport(), SystemClock()).open_sink("well", SinkBinding(sink="http://well/"))
    probe.sources.open["well"] = sink
    facts = json.loads((await probe.ask("/sinkz"))[1])["well"]
    assert (facts["up"], facts["forSeconds"], facts["reason"], facts["circuit"]) == (True, None, "", "closed")
    since = asyncio.get_running_loop().time() - 3600
    sink.counters.held = 7
    sink.counters.state = lambda: SinkState(up=False, since=since, reason="HTTP 401", circuit=CircuitState.OPEN)
    facts = json.loads((await probe.ask("/sinkz"))[1])["well"]
    assert (facts["up"], facts["reason"], facts["circuit"], facts["events"]["held"]) == (False, "HTTP 401", "open", 7)
    assert 3600 <= facts["forSeconds"] < 3660


async def _busy(sources: Sources) -> None:
    """A sink of each name with one event delivered, one refused, three exhausted and one in flight."""
    for name in ("well", AWKWARD_NAME):
        transport = FakeTransport()
        host = Host(transport, SystemClock())
        sink = host.open_sink(
            name, SinkBinding(sink="http://well/?key=hunter2"), policy=Policy(retries=0, timeout=None)
        )
        sources.open[name] = sink
        transport.then(Answer(202), Answer(422), *[Answer(503)] * 3, Hang())
        for number in range(5):
            try:
                await sink.send(CloudEvent(id=str(number), source="/spring", type="drop"))
            except DeliveryError:
                assert number > 0
        # Left in flight: the loop's end cancels it.
        sending = asyncio.create_task(sink.send(CloudEvent(id="5", source="/spring", type="drop")))
        await transport.came(6)
        sending.cancel()


async def test_port_0_gives_a_free_one_and_a_taken_one_raises(probe: Probe) -> None:
    assert probe.address[1] > 0
    health = Health(Sources())
    with pytest.raises(OSError, match="in use"):
        await health.start(*probe.address)
    await health.stop()


async def test_it_can_listen_in_two_places_and_stops_in_both() -> None:
    health = Health(Sources())
    addresses = [await health.start("127.0.0.1", 0) for _ in range(2)]
    for address in addresses:
        assert (await Probe(Sources(), address).ask("/healthz"))[0] == 200
    await health.stop()
    for address in addresses:
        with pytest.raises(ConnectionRefusedError):
            await Probe(Sources(), address).ask("/healthz")
