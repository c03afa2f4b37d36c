"""Certificates, client certificates and tokens that are wrong, or change under a running sink; over real TLS."""

from __future__ import annotations

import asyncio
import logging
import ssl
import warnings
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias, TypeVar, cast

import pytest
import trustme
import uvloop
from tests.faults.tls_sink import TlsSink

from wellhead.address import Address
from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.credentials import Credentials, CredentialSources
from wellhead.delivery import Answered, Policy, Unanswered
from wellhead.errors import NoAnswer
from wellhead.event import CloudEvent
from wellhead.log import JsonLines
from wellhead.sink import HttpSink
from wellhead.tls import ClientCertificate, Trust
from wellhead.transport.by_aiohttp import AiohttpTransport
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Coroutine
    from pathlib import Path

    from wellhead.delivery import Outcome
    from wellhead.transport import Transport

T = TypeVar("T")

HERE: Final = "127.0.0.1"
SECRET: Final = "hunter2-hunter2"
HELD_SHORTLY: Final = Policy(cap=timedelta(milliseconds=10))
IN_TIME: Final = 20.0


Kind: TypeAlias = "tuple[Callable[[], asyncio.AbstractEventLoop], Callable[[], Transport]]"
KINDS: Final[dict[str, Kind]] = {
    "asyncio": (asyncio.new_event_loop, HttpTransport),
    "uvloop": (uvloop.new_event_loop, HttpTransport),
    "aiohttp": (asyncio.new_event_loop, lambda: AiohttpTransport(environment={})),
}


@pytest.fixture(params=list(KINDS.values()), ids=list(KINDS))
def kind(request: pytest.FixtureRequest) -> Kind:
    return cast("Kind", request.param)


@pytest.fixture
def run(kind: Kind) -> Callable[[Coroutine[None, None, T]], T]:
    """Runs a coroutine to its end on the loop of this kind."""

    def run_it(test: Coroutine[None, None, T]) -> T:
        with asyncio.Runner(loop_factory=kind[0]) as runner:
            return runner.run(asyncio.wait_for(test, IN_TIME))

    return run_it


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


class Watch:
    """A clock that only goes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Files:
    """What a running sink is given as files, and how each is replaced."""

    def __init__(self, folder: Path, transport: Callable[[], Transport]) -> None:
        self.transport = transport
        self.ca, self.token = folder / "ca.pem", folder / "token"
        self.client = ClientCertificate(cert=folder / "tls.crt", key=folder / "tls.key")
        self.watch = Watch()
        self.none = folder / "none"

    def trust(self, authority: trustme.CA) -> None:
        self.ca.write_bytes(authority.cert_pem.bytes())

    def be(self, authority: trustme.CA, name: str) -> None:
        leaf = authority.issue_cert(name)
        self.client.cert.write_bytes(leaf.cert_chain_pems[0].bytes())
        (self.client.key or self.none).write_bytes(leaf.private_key_pem.bytes())

    def made(self) -> Trust:
        client = self.client if self.client.cert.exists() else None
        return Trust(bundles=self.none, ca_file=self.ca, client=client, now=self.watch)


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA, kind: Kind) -> Files:
    files = Files(tmp_path, kind[1])
    files.trust(authority)
    return files


@asynccontextmanager
async def to(there: TlsSink, files: Files) -> AsyncIterator[tuple[HttpSink, Address]]:
    transport = files.transport()
    async with there.serving():
        binding = SinkBinding(sink=there.url)
        credentials = Credentials(CredentialSources(token_file=files.token))
        address = Address(binding, transport, trust=files.made(), credentials=credentials)
        sink = HttpSink(binding, address, clock=SystemClock(), policy=HELD_SHORTLY)
        try:
            yield sink, address
        finally:
            await sink.drain(0)
            await transport.aclose()


def event(number: int) -> CloudEvent:
    return CloudEvent(id=str(number), source="/s", type="t")


async def one_try(address: Address) -> Outcome:
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    address.begin(*address.encode(event(0)), ended.set_result, started=asyncio.get_running_loop().time(), timeout=5)
    return await ended


async def held(sink: HttpSink, outcome: str) -> asyncio.Task[None]:
    """A delivery that goes on and has had this outcome. A failed handshake gives the far end no signal: ask the counters."""
    sending = asyncio.create_task(sink.send(event(0)))
    while not sink.counters.tries.get(outcome):
        await asyncio.wait({sending}, timeout=0.005)
        assert not sending.done()
    return sending


class TestASinkThatIsNotTrusted:
    @pytest.mark.parametrize("wrong", ["host", "expired", "authority", "version"])
    def test_it_gets_nothing_and_is_told_as_tls(
        self,
        run: Callable[[Coroutine[None, None, Outcome]], Outcome],
        files: Files,
        authority: trustme.CA,
        wrong: str,
    ) -> None:
        there = TlsSink(
            trustme.CA() if wrong == "authority" else authority, "elsewhere.example" if wrong == "host" else HERE
        )
        if wrong == "expired":
            there.show(authority.issue_cert(HERE, not_after=datetime(2020, 1, 1, tzinfo=UTC)))
        if wrong == "version":
            there.context.set_ciphers("DEFAULT:@SECLEVEL=0")  # else OpenSSL itself refuses to serve what is old
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", DeprecationWarning)
                there.context.minimum_version = there.context.maximum_version = ssl.TLSVersion.TLSv1_1

        async def test() -> Outcome:
            async with to(there, files) as (_, address):
                return await one_try(address)

        outcome = run(test())
        assert isinstance(outcome, Unanswered)
        assert (outcome.why, there.clients) == (NoAnswer.TLS, []), outcome


class TestASinkWhoseCertificateChanges:
    def test_another_of_the_same_authority_is_taken_on_the_go(
        self, run: Callable[[Coroutine[None, None, None]], None], files: Files, authority: trustme.CA
    ) -> None:
        there = TlsSink(authority, HERE)

        async def test() -> None:
            async with to(there, files) as (_, address):
                assert await one_try(address) == Answered(202)
                there.show(authority.issue_cert(HERE))
                assert await one_try(address) == Answered(202)

        run(test())

    def test_one_of_another_authority_is_held_until_that_is_trusted(
        self,
        run: Callable[[Coroutine[None, None, None]], None],
        files: Files,
        authority: trustme.CA,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.INFO, "wellhead")
        there, other = TlsSink(authority, HERE), trustme.CA()

        async def test() -> None:
            async with to(there, files) as (sink, _):
                await sink.send(event(1))
                there.show(other.issue_cert(HERE))
                sending = await held(sink, "tls")
                files.trust(other)
                await sending

        run(test())
        assert len(there.clients) == 2
        assert [record.getMessage() for record in caplog.records] == ["sink is down", "sink is up again"]


class TestASinkThatAsksForACertificate:
    @pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
    def test_without_one_the_event_is_held_as_a_tls_failure(
        self,
        run: Callable[[Coroutine[None, None, None]], None],
        files: Files,
        authority: trustme.CA,
        newest: ssl.TLSVersion,
    ) -> None:
        """In TLS 1.3 the client learns of it only after its handshake, in place of an answer.

        There aiohttp tells now and then that it could not write, in place of why: such a try is a reset.
        """
        there = TlsSink(authority, HERE)
        there.context.maximum_version = newest
        there.ask_for_certificates_of(authority)

        async def test() -> None:
            async with to(there, files) as (sink, _):
                sending = await held(sink, "tls")
                sending.cancel()

        run(test())
        assert there.clients == []

    def test_a_wrong_one_that_is_replaced_ends_the_hold(
        self, run: Callable[[Coroutine[None, None, None]], None], files: Files, authority: trustme.CA
    ) -> None:
        there = TlsSink(authority, HERE)
        there.ask_for_certificates_of(authority)
        files.be(trustme.CA(), "stranger.example")

        async def test() -> None:
            async with to(there, files) as (sink, _):
                sending = await held(sink, "tls")
                files.be(authority, "me.example")
                await sending

        run(test())
        assert there.clients == ["me.example"]

    def test_a_renewed_one_is_shown_on_a_new_connection_while_the_old_is_alive(
        self, run: Callable[[Coroutine[None, None, None]], None], files: Files, authority: trustme.CA
    ) -> None:
        there = TlsSink(authority, HERE, keep_alive=True)
        there.ask_for_certificates_of(authority)
        files.be(authority, "old.example")

        async def test() -> None:
            async with to(there, files) as (_, address):
                for _ in range(2):
                    assert await one_try(address) == Answered(202)
                files.be(authority, "new.example")
                files.watch.now += 1
                for _ in range(2):
                    assert await one_try(address) == Answered(202)

        run(test())
        assert there.clients == ["old.example", "old.example", "new.example", "new.example"]
        assert there.connections == 2


class TestATokenThatChanges:
    def test_the_new_one_is_sent_after_a_401_and_neither_is_ever_logged(
        self,
        run: Callable[[Coroutine[None, None, None]], None],
        files: Files,
        authority: trustme.CA,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        caplog.set_level(logging.DEBUG)
        there = TlsSink(authority, HERE, keep_alive=True)
        there.token = f"{SECRET}-old"
        files.token.write_text(f"{SECRET}-old\n")

        async def test() -> None:
            async with to(there, files) as (sink, _):
                await sink.send(event(1))
                there.token = f"{SECRET}-new"
                sending = await held(sink, "401")
                files.token.write_text(f"{SECRET}-new\n")
                await sending

        run(test())
        assert caplog.records
        assert SECRET not in "\n".join(map(JsonLines().format, caplog.records))
