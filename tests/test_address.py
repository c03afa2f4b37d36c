"""One address: its headers, its token, what it trusts. What is wrong there is held and told once, never refused."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import pytest
import trustme
from tests.faults.tls_sink import tls_sink

from wellhead.address import Address
from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.delivery import Answered, Policy, Unanswered
from wellhead.errors import NoAnswer
from wellhead.event import CloudEvent
from wellhead.sink import HttpSink
from wellhead.testing import FakeTransport
from wellhead.tls import Trust
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from wellhead.delivery import Outcome

EVENT: Final = CloudEvent(id="1", source="/spring", type="drop")
HELD_SHORTLY: Final = Policy(cap=timedelta(milliseconds=10))


@pytest.fixture
async def transport() -> AsyncIterator[HttpTransport]:
    transport = HttpTransport()
    yield transport
    await transport.aclose()


async def one_try(address: Address) -> Outcome:
    headers, body = address.encode(EVENT)
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    address.begin(headers, body, ended.set_result, started=asyncio.get_running_loop().time(), timeout=5)
    return await ended


class TestHeaders:
    async def test_the_namespace_and_the_program_are_named(self) -> None:
        transport = FakeTransport()
        await one_try(Address(SinkBinding(sink="http://sink/", namespace="alps"), transport))
        headers = dict(transport.posts[0].target.headers)
        assert headers[b"kn-namespace"] == b"alps"
        assert headers[b"user-agent"].startswith(b"wellhead/")
        assert b"authorization" not in headers

    async def test_without_a_namespace_none_is_named(self) -> None:
        transport = FakeTransport()
        await one_try(Address(SinkBinding(sink="http://sink/"), transport))
        assert b"kn-namespace" not in dict(transport.posts[0].target.headers)

    @pytest.mark.parametrize(("structured", "kind"), [(True, b"application/cloudevents+json"), (False, None)])
    async def test_the_format_is_as_asked_for(self, *, structured: bool, kind: bytes | None) -> None:
        transport = FakeTransport()
        await one_try(Address(SinkBinding(sink="http://sink/"), transport, structured=structured))
        assert dict(transport.posts[0].headers).get(b"content-type") == kind


class TestTrust:
    async def test_a_bundle_that_appears_makes_the_sink_reachable_without_a_restart(
        self, transport: HttpTransport, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "wellhead")
        authority, bundles = trustme.CA(), tmp_path / "bundles"
        async with tls_sink(authority, "127.0.0.1") as url:
            sink = sink_at(url, transport, Trust(bundles=bundles))
            sending = asyncio.create_task(sink.send(EVENT))
            await seen_down(sink, sending)
            bundles.mkdir()
            (bundles / "not-a-certificate").write_text("nothing")
            authority.cert_pem.write_to_path(str(bundles / "ca.crt"))
            async with asyncio.timeout(5):
                await sending
        assert sink.counters.delivered == 1
        assert sink.counters.tries["tls"] >= 1
        assert [record.getMessage() for record in caplog.records] == ["sink is down", "sink is up again"]
        assert caplog.records[0].levelno == logging.ERROR

    async def test_the_certificates_of_the_binding_are_trusted(self, transport: HttpTransport) -> None:
        authority = trustme.CA()
        async with tls_sink(authority, "127.0.0.1") as url:
            binding = SinkBinding(sink=url, ca_certs="# Főtanúsítvány\n" + authority.cert_pem.bytes().decode())
            assert await one_try(Address(binding, transport)) == Answered(202)

    @pytest.mark.parametrize("named", ["elsewhere.example", "127.0.0.2"])
    async def test_a_certificate_for_another_name_is_not_accepted(self, transport: HttpTransport, named: str) -> None:
        authority = trustme.CA()
        async with tls_sink(authority, named) as url:
            binding = SinkBinding(sink=url, ca_certs=authority.cert_pem.bytes().decode())
            outcome = await one_try(Address(binding, transport))
        assert isinstance(outcome, Unanswered)
        assert outcome.why is NoAnswer.TLS

    async def test_another_authority_holds_the_event_and_is_logged_once(
        self, transport: HttpTransport, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO, "wellhead")
        async with tls_sink(trustme.CA(), "127.0.0.1") as url:
            sink = sink_at(url, transport, Trust(trustme.CA().cert_pem.bytes().decode()))
            sending = asyncio.create_task(sink.send(EVENT))
            await seen_down(sink, sending, tries=3)
            assert not sending.done()
            assert [record.getMessage() for record in caplog.records] == ["sink is down"]
            sending.cancel()
            assert await sink.drain(0) == 1

    @pytest.mark.parametrize("text", ["no certificate", "ünïcode"])
    async def test_certificates_that_are_none_hold_the_event(self, transport: HttpTransport, text: str) -> None:
        outcome = await one_try(Address(SinkBinding(sink="https://127.0.0.1:1/", ca_certs=text), transport))
        assert isinstance(outcome, Unanswered)
        assert outcome.why is NoAnswer.TLS


def sink_at(url: str, transport: HttpTransport, trust: Trust) -> HttpSink:
    binding = SinkBinding(sink=url)
    return HttpSink(binding, Address(binding, transport, trust=trust), clock=SystemClock(), policy=HELD_SHORTLY)


async def seen_down(sink: HttpSink, sending: asyncio.Task[None], tries: int = 1) -> None:
    """Return when that many handshakes failed. A failed handshake gives the far end no signal: ask the counters."""
    async with asyncio.timeout(5):
        while sink.counters.tries.get("tls", 0) < tries:
            await asyncio.wait({sending}, timeout=0.005)
