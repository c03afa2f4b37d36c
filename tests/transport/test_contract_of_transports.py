"""One POST, its answer, and every way to get none: the same contract over sockets and over the fake."""

from __future__ import annotations

import asyncio
import socket
import ssl
import tempfile
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

import pytest
import trustme
from tests.faults.tls_sink import tls_sink

from wellhead.delivery import Answered, Outcome, Unanswered
from wellhead.errors import NoAnswer
from wellhead.event import CloudEvent
from wellhead.http_binding import encode, header_lines
from wellhead.http_server import HttpServer, Request, Response, Takeover
from wellhead.testing import (
    Answer,
    Behaviour,
    FakeTransport,
    Garbage,
    HalfAnswer,
    Hang,
    RecordingSink,
    Reset,
)
from wellhead.transport import BODY_KEPT, Post, Target, Transport, one_try
from wellhead.transport.by_aiohttp import AiohttpTransport
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from wellhead.http_server import Connection

HEADERS, BODY = encode(CloudEvent(id="1", source="/spring", type="drop", data=b"water"))
SECRET: Final = "hunter2"


class Told(Protocol):
    """What behaves as it is told: a `RecordingSink` or a `FakeTransport`."""

    def then(self, *behaviours: Behaviour) -> None: ...

    @property
    def tried(self) -> list[CloudEvent]: ...

    async def came(self, number: int) -> Sequence[object]: ...


@dataclass(frozen=True)
class Wire:
    """A transport and the peer at its other end."""

    transport: Transport
    peer: Told
    url: str

    async def post(self, *, timeout: float | None = 5.0, fresh: bool = False) -> Answered:
        return answered(await self.try_it(timeout=timeout, fresh=fresh))

    async def fails(self, *, timeout: float | None = 5.0, fresh: bool = False) -> NoAnswer:
        return unanswered(await self.try_it(timeout=timeout, fresh=fresh)).why

    async def try_it(self, *, timeout: float | None = 5.0, fresh: bool = False) -> Outcome:
        post = Post(target=Target(self.url), lines=header_lines(HEADERS), body=BODY, timeout=timeout, fresh=fresh)
        return await one_try(self.transport, post)


def _new(kind: str) -> HttpTransport | AiohttpTransport:
    return HttpTransport() if kind == "ours" else AiohttpTransport(environment={})


class UnixSink(RecordingSink):
    """A `RecordingSink` at a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    @property
    def url(self) -> str:
        return f"http+unix://{quote(str(self.path), safe='')}/in"

    async def start(self) -> None:
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(self.path))
        self._server = HttpServer(self._handle, name="recording sink")
        await self._server.start_on(listening)


@pytest.fixture
def socket_folder() -> Iterator[Path]:
    """pytest's own are longer than a socket's path may be."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture(params=["ours", "aiohttp", "ours, unix", "aiohttp, unix", "fake"])
async def wire(request: pytest.FixtureRequest, socket_folder: Path) -> AsyncIterator[Wire]:
    if request.param == "fake":
        fake = FakeTransport()
        yield Wire(fake, fake, "http://fake/")
        return
    kind, _, unix = request.param.partition(", ")
    transport = _new(kind)
    async with UnixSink(socket_folder / "Sink.sock") if unix else RecordingSink() as sink:
        yield Wire(transport, sink, sink.url)
        await transport.aclose()


class TestTheContract:
    @pytest.mark.parametrize("status", [200, 202, 204, 301, 304, 307, 400, 401, 404, 429, 500, 503, 599, 999])
    async def test_every_status_is_an_answer(self, wire: Wire, status: int) -> None:
        wire.peer.then(Answer(status))
        assert (await wire.post()).status == status

    async def test_a_redirect_is_an_answer_and_not_followed(self, wire: Wire) -> None:
        wire.peer.then(Answer(307, headers=((b"Location", b"/elsewhere"),)))
        assert (await wire.post()).status == 307
        assert len(wire.peer.tried) == 1

    async def test_retry_after_and_body_come_with_the_answer(self, wire: Wire) -> None:
        wire.peer.then(Answer(503, headers=((b"Retry-After", b"7"),), body=b"later"))
        assert await wire.post() == Answered(503, "7", b"later")

    async def test_of_a_huge_body_the_first_bytes_are_kept(self, wire: Wire) -> None:
        wire.peer.then(Answer(400, body=b"x" * (BODY_KEPT * 5)))
        assert (await wire.post()).body == b"x" * BODY_KEPT
        assert (await wire.post()).status == 202

    async def test_headers_and_body_arrive_as_they_were_given(self, wire: Wire) -> None:
        await wire.post()
        (event,) = wire.peer.tried
        assert (event.id, event.source, event.type, event.data) == ("1", "/spring", "drop", b"water")

    async def test_a_first_connection_that_is_reset_is_told_as_reset(self, wire: Wire) -> None:
        wire.peer.then(Reset())
        assert await wire.fails() is NoAnswer.RESET

    async def test_a_kept_connection_that_breaks_is_told_as_stale(self, wire: Wire) -> None:
        wire.peer.then(Answer(), Reset())
        await wire.post()
        assert await wire.fails() is NoAnswer.STALE

    async def test_a_fresh_try_uses_no_kept_connection(self, wire: Wire) -> None:
        wire.peer.then(Answer(), Reset())
        await wire.post()
        assert await wire.fails(fresh=True) is NoAnswer.RESET

    async def test_a_connection_that_the_answer_closes_is_not_kept(self, wire: Wire) -> None:
        wire.peer.then(Answer(close=True), Reset())
        await wire.post()
        assert await wire.fails() is NoAnswer.RESET

    async def test_half_a_head_is_no_answer(self, wire: Wire) -> None:
        wire.peer.then(HalfAnswer())
        assert await wire.fails() is NoAnswer.RESET

    async def test_half_a_body_is_an_answer_for_its_head_came(self, wire: Wire) -> None:
        wire.peer.then(HalfAnswer(202))
        assert (await wire.post()).status == 202

    async def test_what_is_not_http_is_told_as_protocol(self, wire: Wire) -> None:
        wire.peer.then(Garbage())
        assert await wire.fails() is NoAnswer.PROTOCOL

    async def test_a_peer_that_never_answers_is_told_as_timeout(self, wire: Wire) -> None:
        wire.peer.then(Hang())
        assert await wire.fails(timeout=0.05) is NoAnswer.TIMEOUT

    async def test_cancelling_ends_the_try_and_the_next_goes_through(self, wire: Wire) -> None:
        wire.peer.then(Hang())
        trying = asyncio.create_task(wire.post(timeout=None))
        await wire.peer.came(1)
        trying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await trying
        assert (await wire.post()).status == 202

    async def test_closing_fails_the_try_on_the_wire(self, wire: Wire) -> None:
        wire.peer.then(Hang())
        trying = asyncio.create_task(wire.fails(timeout=None))
        await wire.peer.came(1)
        await wire.transport.aclose()
        async with asyncio.timeout(5):
            assert isinstance(await trying, NoAnswer)

    async def test_after_closing_every_try_fails(self, wire: Wire) -> None:
        await wire.post()
        await wire.transport.aclose()
        assert await wire.fails() is NoAnswer.CONNECT

    async def test_many_tries_at_once_all_get_their_answers(self, wire: Wire) -> None:
        answers = await asyncio.gather(*(wire.post() for _ in range(100)))
        assert [answer.status for answer in answers] == [202] * 100


# Sockets only.


@pytest.fixture(params=["ours", "aiohttp"])
async def transport(request: pytest.FixtureRequest) -> AsyncIterator[Transport]:
    transport = _new(request.param)
    yield transport
    await transport.aclose()


def post_to(url: str, *, tls: ssl.SSLContext | None = None, timeout: float | None = 5.0) -> Post:
    return Post(target=Target(url, tls), lines=header_lines(HEADERS), body=BODY, timeout=timeout)


def answered(outcome: Outcome) -> Answered:
    assert isinstance(outcome, Answered), outcome
    return outcome


def unanswered(outcome: Outcome) -> Unanswered:
    assert isinstance(outcome, Unanswered), outcome
    return outcome


@asynccontextmanager
async def answering(octets: bytes, *, and_hang: bool = False) -> AsyncIterator[str]:
    """A server that answers each request with these octets and closes, or hangs; its URL."""

    async def answer(connection: Connection) -> None:
        connection.write(octets)
        await connection.drain()
        if and_hang:
            await connection.wait_closed()

    async with serving(lambda _: Takeover(answer)) as url:
        yield url


@asynccontextmanager
async def serving(handler: object) -> AsyncIterator[str]:
    server = HttpServer(handler, name="peer")  # type: ignore[arg-type]  # tests hand in lambdas
    host, port = await server.start("127.0.0.1", 0)
    try:
        yield f"http://{host}:{port}"
    finally:
        await server.stop(0)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port: int = taken.getsockname()[1]
        return port


class TestOverSockets:
    async def test_a_refused_connection_is_told_as_connect(self, transport: Transport) -> None:
        failure = unanswered(await one_try(transport, post_to(f"http://127.0.0.1:{free_port()}/")))
        assert failure.why is NoAnswer.CONNECT

    async def test_a_name_that_does_not_resolve_is_told_as_connect(self, transport: Transport) -> None:
        failure = unanswered(await one_try(transport, post_to("http://no-such-host.invalid/")))
        assert failure.why is NoAnswer.CONNECT

    async def test_a_port_that_speaks_no_tls_is_told_as_tls(self, transport: Transport) -> None:
        async with answering(b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
            failure = unanswered(await one_try(transport, post_to(url.replace("http:", "https:"))))
        assert failure.why is NoAnswer.TLS

    async def test_a_name_that_the_certificate_does_not_hold_is_told_as_tls(self, transport: Transport) -> None:
        authority = trustme.CA()
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        async with tls_sink(authority, "elsewhere.example") as url:
            failure = unanswered(await one_try(transport, post_to(url, tls=trust)))
        assert failure.why is NoAnswer.TLS

    async def test_an_interim_answer_is_not_the_answer(self, transport: Transport) -> None:
        answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
        async with answering(answer) as url:
            assert answered(await one_try(transport, post_to(url + "/"))).status == 202

    async def test_switching_protocols_is_an_answer(self, transport: Transport) -> None:
        async with answering(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n") as url:
            assert answered(await one_try(transport, post_to(url + "/", timeout=0.5))).status == 101

    async def test_a_body_that_never_ends_is_an_answer_once_the_time_is_over(self, transport: Transport) -> None:
        async with answering(b"HTTP/1.1 202 Accepted\r\nContent-Length: 9\r\n\r\nhalf", and_hang=True) as url:
            assert answered(await one_try(transport, post_to(url + "/", timeout=0.1))).status == 202

    async def test_a_body_without_a_length_ends_with_the_connection(self, transport: Transport) -> None:
        async with answering(b"HTTP/1.1 200 OK\r\n\r\nuntil the end") as url:
            assert answered(await one_try(transport, post_to(url + "/"))).body == b"until the end"

    async def test_a_compressed_body_is_left_as_it_came(self, transport: Transport) -> None:
        zipped = b"\x1f\x8b not really"
        headers = ((b"Content-Encoding", b"gzip"),)
        async with serving(lambda _: Response(422, zipped, headers)) as url:
            assert answered(await one_try(transport, post_to(url))).body == zipped

    async def test_the_url_is_sent_as_it_is_spelled(self, transport: Transport) -> None:
        seen: list[str] = []

        def note(request: Request) -> Response:
            seen.append(request.target)
            return Response(202)

        async with serving(note) as url:
            await one_try(transport, post_to(url + "/a%2Fb;c/%7e?q=a+b%20c&d"))
        assert seen == ["/a%2Fb;c/%7e?q=a+b%20c&d"]

    async def test_no_header_is_sent_beside_those_given(self, transport: Transport) -> None:
        seen: list[bytes] = []

        def note(request: Request) -> Response:
            seen.extend(name.lower() for name, _ in request.headers)
            return Response(202)

        async with serving(note) as url:
            await one_try(transport, post_to(url))
        assert set(seen) - {name for name, _ in HEADERS} == {b"host", b"content-length"}

    async def test_cookies_are_not_kept(self, transport: Transport) -> None:
        seen: list[str | None] = []

        def bake(request: Request) -> Response:
            seen.append(request.header("cookie"))
            return Response(202, b"", ((b"Set-Cookie", b"a=b"),))

        async with serving(bake) as url:
            await one_try(transport, post_to(url))
            await one_try(transport, post_to(url))
        assert seen == [None, None]

    async def test_an_endless_head_is_told_as_protocol(self, transport: Transport) -> None:
        async with answering(b"HTTP/1.1 202 Accepted\r\nX: " + b"x" * 100_000 + b"\r\n\r\n") as url:
            failure = unanswered(await one_try(transport, post_to(url + "/")))
        assert failure.why is NoAnswer.PROTOCOL

    async def test_a_unix_socket_is_asked_for_the_path_behind_it_and_as_localhost(
        self, transport: Transport, socket_folder: Path
    ) -> None:
        async with UnixSink(socket_folder / "Sink.sock") as sink:
            for _ in range(2):
                assert answered(await one_try(transport, post_to(f"{sink.url}/to?q=1"))).status == 202
        assert [(it.request.path, it.request.query) for it in sink.requests] == [("/in/to", "q=1")] * 2
        assert [it.request.header("host") for it in sink.requests] == ["localhost"] * 2

    async def test_a_unix_socket_that_is_not_there_is_told_as_connect(
        self, transport: Transport, socket_folder: Path
    ) -> None:
        failure = unanswered(await one_try(transport, post_to(UnixSink(socket_folder / "none.sock").url)))
        assert failure.why is NoAnswer.CONNECT

    async def test_closing_what_was_never_used_is_no_matter(self) -> None:
        await AiohttpTransport(environment={}).aclose()
        await HttpTransport().aclose()

    @pytest.mark.parametrize(
        "octets", [Garbage().octets, b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 202 OK\r\nContent-Length: x\r\n\r\n"]
    )
    async def test_no_error_shows_the_query(self, transport: Transport, octets: bytes) -> None:
        async with answering(octets) as url:
            failure = unanswered(await one_try(transport, post_to(f"{url}/?key={SECRET}")))
        assert SECRET not in str(failure)

    def test_a_post_shows_neither_query_nor_headers_nor_body(self) -> None:
        post = Post(
            target=Target(f"http://sink/?key={SECRET}"),
            lines=header_lines([(b"authorization", SECRET.encode())]),
            body=SECRET.encode(),
        )
        assert SECRET not in repr(post)


class TestProxies:
    async def test_a_proxy_is_used_where_the_environment_names_one(self) -> None:
        seen: list[str] = []

        def note(request: Request) -> Response:
            seen.append(request.target)
            return Response(202)

        async with serving(note) as proxy:
            transport = AiohttpTransport(environment={"HTTP_PROXY": proxy})
            assert answered(await one_try(transport, post_to("http://sink.example/in"))).status == 202
            await transport.aclose()
        assert seen == ["http://sink.example/in"]

    async def test_no_proxy_is_obeyed(self) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}"
        transport = AiohttpTransport(environment={"http_proxy": nowhere, "NO_PROXY": "127.0.0.1"})
        async with RecordingSink() as sink:
            assert answered(await one_try(transport, post_to(sink.url))).status == 202
            await transport.aclose()

    async def test_a_request_header_of_cgi_is_no_proxy(self) -> None:
        nowhere = f"http://127.0.0.1:{free_port()}"
        transport = AiohttpTransport(environment={"HTTP_PROXY": nowhere, "REQUEST_METHOD": "POST"})
        async with RecordingSink() as sink:
            assert answered(await one_try(transport, post_to(sink.url))).status == 202
            await transport.aclose()

    async def test_a_proxy_that_is_away_is_told_as_connect_and_shows_no_password(self) -> None:
        transport = AiohttpTransport(environment={"HTTP_PROXY": f"http://u:{SECRET}@127.0.0.1:{free_port()}"})
        failure = unanswered(await one_try(transport, post_to("http://sink.example/")))
        await transport.aclose()
        assert failure.why is NoAnswer.CONNECT
        assert SECRET not in str(failure)

    async def test_a_proxy_that_refuses_to_connect_is_told_as_connect_and_shows_no_secret(self) -> None:
        async with serving(lambda _: Response(407)) as proxy:
            address = proxy.replace("//", f"//u:{SECRET}@")
            transport = AiohttpTransport(environment={"HTTPS_PROXY": address})
            failure = unanswered(await one_try(transport, post_to(f"https://sink.example/?key={SECRET}")))
            await transport.aclose()
        assert failure.why is NoAnswer.CONNECT
        assert SECRET not in str(failure)
