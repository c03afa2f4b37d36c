"""Many sources in one process: they come, go and fail, each on its own."""

from __future__ import annotations

import asyncio
import gc
import logging
from base64 import b64encode
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.access import SinkAccess
from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.credentials import CredentialSources
from wellhead.errors import DeliveryError, Loss, WellheadError
from wellhead.event import CloudEvent
from wellhead.host import Host
from wellhead.testing import Answer, FakeTransport, Hang, LoopClock, RecordingSink
from wellhead.tls import ClientCertificate
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from wellhead.adapter import Sink

GRACE: Final = 10.0


def url(name: str) -> str:
    return f"http://{name}/"


class Spring:
    """A source that sends one event each second, for so many or for ever; a drop is on its way when it is cancelled."""

    def __init__(self, name: str, drops: int | None = None, *, failure: Exception | None = None) -> None:
        self.name = name
        self._drops = drops
        self._failure = failure

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        ready()
        number = 0
        while self._drops is None or number < self._drops:
            await sink.send(CloudEvent(id=f"{self.name}/{number}", source="/spring", type="drop"))
            await asyncio.sleep(1)
            number += 1
        if self._failure is not None:
            raise self._failure


class Deaf:
    """An adapter that does not listen when told to stop, for so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def run(self, _sink: Sink, ready: Callable[[], None]) -> None:
        ready()
        until = asyncio.get_running_loop().time() + self._seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            try:
                await asyncio.sleep(left)
            except asyncio.CancelledError:
                continue


class Slow:
    """An adapter that becomes ready late, also when it was told to stop meanwhile."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def run(self, _sink: Sink, ready: Callable[[], None]) -> None:
        try:
            await asyncio.sleep(self._seconds)
        finally:
            ready()


def hosted(transport: FakeTransport) -> Host:
    return Host(transport, LoopClock())


def start(host: Host, spring: Spring) -> None:
    host.start(spring.name, spring, host.open_sink(spring.name, SinkBinding(sink=url(spring.name))))


def arrived(transport: FakeTransport, name: str) -> int:
    return sum(event.id.startswith(f"{name}/") for event in transport.events)


@pytest.mark.looptime
class TestComingAndGoing:
    async def test_sources_come_and_go_while_others_run_undisturbed(self) -> None:
        transport = FakeTransport()
        host = hosted(transport)
        start(host, Spring("steady"))
        for number in range(10):
            start(host, Spring(f"passing-{number}"))
            await asyncio.sleep(3)
            await host.stop(f"passing-{number}", GRACE)
        assert arrived(transport, "steady") >= 30
        assert all(3 <= arrived(transport, f"passing-{number}") <= 4 for number in range(10))
        assert set(host.sinks()) == {"steady"}
        await host.drain(GRACE)

    async def test_a_name_can_be_used_again_once_its_source_is_gone(self) -> None:
        transport = FakeTransport()
        host = hosted(transport)
        for _ in range(3):
            start(host, Spring("well"))
            await host.ready("well")
            await host.stop("well", GRACE)
        assert arrived(transport, "well") == 3

    async def test_a_name_in_use_is_refused_and_nothing_changes(self) -> None:
        host = hosted(FakeTransport())
        start(host, Spring("well"))
        sink = host.sinks()["well"]
        with pytest.raises(ValueError, match="well"):
            host.open_sink("well", SinkBinding(sink=url("other")))
        with pytest.raises(ValueError, match="well"):
            host.start("well", Spring("well"), sink)
        assert host.sinks()["well"] is sink
        await host.drain(GRACE)

    async def test_stopping_settles_what_is_on_its_way(self) -> None:
        transport = FakeTransport(latency=lambda: 5.0)
        host = hosted(transport)
        start(host, Spring("well"))
        await transport.came(1)
        await host.stop("well", GRACE)
        assert (arrived(transport, "well"), host.undelivered) == (1, 0)

    async def test_what_does_not_settle_is_counted_as_undelivered(self) -> None:
        transport = FakeTransport()
        transport.always(Hang())
        host = hosted(transport)
        start(host, Spring("well"))
        await transport.came(1)
        await host.stop("well", 1)
        assert host.undelivered == 1

    async def test_stopping_at_once_after_starting_is_no_matter(self) -> None:
        host = hosted(FakeTransport())
        start(host, Spring("steady", 2))
        start(host, Spring("well"))
        await host.stop("well", GRACE)
        async with asyncio.timeout(10):
            await host.wait()

    async def test_the_last_source_that_is_stopped_ends_the_wait(self) -> None:
        host = hosted(FakeTransport())
        start(host, Spring("well"))
        waiting = asyncio.create_task(host.wait())
        await asyncio.sleep(0)
        await host.stop("well", GRACE)
        async with asyncio.timeout(1):
            await waiting

    async def test_a_source_that_was_never_begun_ends_the_wait_when_it_is_stopped(self) -> None:
        host = hosted(FakeTransport())
        start(host, Spring("well"))
        waiting = asyncio.create_task(host.wait())
        stopping = asyncio.create_task(host.stop("well", GRACE))
        async with asyncio.timeout(1):
            await asyncio.gather(waiting, stopping)

    async def test_closing_a_sink_forgets_it_and_frees_its_name(self) -> None:
        host = hosted(FakeTransport())
        sink = host.open_sink("well", SinkBinding(sink=url("well")))
        await host.close_sink("well", GRACE)
        assert host.sinks() == {}
        with pytest.raises(DeliveryError) as caught:
            await sink.send(CloudEvent(id="1", source="/spring", type="drop"))
        assert caught.value.loss is Loss.STOPPED
        host.open_sink("well", SinkBinding(sink=url("well")))


@pytest.mark.looptime
class TestReadiness:
    async def test_those_that_are_not_ready_are_named(self) -> None:
        host = hosted(FakeTransport())
        start(host, Spring("quick"))
        for name in ("a", "b"):
            host.start(name, Slow(5), host.open_sink(name, SinkBinding(sink=url(name))))
        await host.ready("quick")
        assert host.not_ready() == ("a", "b")
        await host.ready("a")
        await host.ready("b")
        assert host.not_ready() == ()
        await host.drain(GRACE)

    async def test_ready_that_comes_after_the_stop_is_no_failure(self, caplog: pytest.LogCaptureFixture) -> None:
        host = hosted(FakeTransport())
        host.start("slow", Slow(5), host.open_sink("slow", SinkBinding(sink=url("slow"))))
        await asyncio.sleep(1)
        await host.stop("slow", GRACE)
        assert host.failure is None
        assert "source failed" not in caplog.text

    async def test_an_ended_source_is_not_waited_for(self) -> None:
        host = hosted(FakeTransport())
        start(host, Spring("well", 0))
        await host.wait()
        assert host.not_ready() == ()


@pytest.mark.looptime
class TestFailure:
    async def test_an_error_of_ours_that_leaves_an_adapter_is_told_in_its_words_without_a_traceback(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        host, failure = hosted(FakeTransport()), WellheadError("there is no topic orders")
        start(host, Spring("failing", 2, failure=failure))
        await host.wait()
        assert host.failure is failure
        (told,) = (record for record in caplog.records if record.getMessage() == "source failed")
        assert (vars(told)["reason"], told.exc_info) == ("there is no topic orders", None)

    async def test_the_failure_of_one_is_told_and_the_others_run_until_the_drain(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        transport, failure = FakeTransport(), OSError("dry")
        host = hosted(transport)
        start(host, Spring("steady"))
        start(host, Spring("failing", 2, failure=failure))
        await host.wait()
        assert host.failure is failure
        (told,) = (record for record in caplog.records if record.getMessage() == "source failed")
        assert (told.levelno, vars(told)["source_name"]) == (logging.ERROR, "failing")
        before = arrived(transport, "steady")
        await asyncio.sleep(5)
        assert arrived(transport, "steady") == before + 5
        await host.drain(GRACE)

    async def test_a_refused_event_that_an_adapter_does_not_expect_ends_the_program(self) -> None:
        transport = FakeTransport()
        transport.always(Answer(422))
        host = hosted(transport)
        start(host, Spring("well"))
        await host.wait()
        assert isinstance(host.failure, DeliveryError)

    async def test_the_wait_ends_when_every_source_has_ended(self) -> None:
        host = hosted(FakeTransport())
        for drops in (1, 5, 3):
            start(host, Spring(f"well-{drops}", drops))
        started = asyncio.get_running_loop().time()
        await host.wait()
        assert asyncio.get_running_loop().time() - started == 5
        assert host.failure is None


@pytest.mark.looptime
class TestDrain:
    async def test_everything_stops_and_lands_within_one_grace(self) -> None:
        transport = FakeTransport(latency=lambda: 4.0)
        host = hosted(transport)
        for number in range(20):
            start(host, Spring(f"well-{number}"))
        await transport.came(20)
        started = asyncio.get_running_loop().time()
        before = asyncio.all_tasks()
        await host.drain(GRACE)
        assert asyncio.get_running_loop().time() - started == 4
        assert (len(transport.events), host.undelivered) == (20, 0)
        assert len(asyncio.all_tasks()) < len(before)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    async def test_a_source_that_does_not_stop_is_told_of_and_left(self, caplog: pytest.LogCaptureFixture) -> None:
        host = hosted(FakeTransport())
        host.start("deaf", Deaf(60), host.open_sink("deaf", SinkBinding(sink=url("deaf"))))
        await host.ready("deaf")
        started = asyncio.get_running_loop().time()
        await host.drain(GRACE)
        assert asyncio.get_running_loop().time() - started <= GRACE + 5
        assert "source does not stop" in caplog.text
        await host.wait()

    async def test_it_says_that_it_is_stopping(self) -> None:
        host = hosted(FakeTransport())
        assert not host.stopping
        await host.drain(GRACE)
        assert host.stopping


@pytest.mark.parametrize("told", [False, True])
async def test_the_token_of_the_sink_is_shown_to_a_dead_letter_sink_only_if_it_was_said(
    tmp_path: Path, *, told: bool
) -> None:
    token = tmp_path / "token"
    token.write_text("t0ken")
    transport = HttpTransport()
    host = Host(transport, SystemClock())
    async with RecordingSink() as sink, RecordingSink() as dead_letters:
        sink.always(Answer(422))
        binding, dead_letter = SinkBinding(sink=sink.url), SinkBinding(sink=dead_letters.url)
        access = SinkAccess(credentials=CredentialSources(token_file=token), dead_letters_too=told)
        to = host.open_sink("source", binding, dead_letter=dead_letter, access=access)
        await to.send(CloudEvent(id="1", source="/s", type="t"))
        await host.drain(1.0)
        await transport.aclose()
        assert sink.requests[0].request.header("authorization") == "Bearer t0ken"
        assert dead_letters.requests[0].request.header("authorization") == ("Bearer t0ken" if told else None)


async def test_sinks_that_trust_alike_share_a_context_until_the_last_is_closed(tmp_path: Path) -> None:
    host = hosted(FakeTransport())
    binding, other = SinkBinding(sink="https://sink/"), SinkBinding(sink="https://sink/", ca_certs="another")
    for name in ("a", "b"):
        host.open_sink(name, binding)
    host.open_sink("c", other)
    host.open_sink("d", binding, access=SinkAccess(ca_file=tmp_path / "ca.pem"))
    host.open_sink("e", binding, access=SinkAccess(client=ClientCertificate(cert=tmp_path / "tls.crt")))
    assert len(host._trusts) == 4
    for name in ("a", "b"):
        await host.close_sink(name, GRACE)
    gc.collect()
    assert len(host._trusts) == 3


async def test_a_token_for_another_audience_than_the_bindings_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    said = b64encode(b'{"aud":"another"}').decode().rstrip("=")
    (tmp_path / "token").write_text(f"e30.{said}.e30")
    host = hosted(FakeTransport())
    access = SinkAccess(credentials=CredentialSources(token_file=tmp_path / "token"))
    sink = host.open_sink("source", SinkBinding(sink="http://sink/", audience="sink"), access=access)
    await sink.send(CloudEvent(id="1", source="/s", type="t"))
    await host.drain(1.0)
    assert [record.getMessage() for record in caplog.records if record.levelname == "WARNING"] == [
        "the token is meant for another audience than the sink's"
    ]
