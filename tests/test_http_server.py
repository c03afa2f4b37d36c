"""The HTTP server over real sockets on loopback: order, closing, time limits, hostile clients, takeovers, stopping."""

from __future__ import annotations

import asyncio
import errno
import http.client
import logging
import re
import socket
import struct
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple, cast

import pytest

from wellhead.http_server import Connection, HttpServer, Limits, Request, Response, Takeover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from wellhead.http_server import Answer, Handler

GET = b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"
POST_HELLO = b"POST /hello HTTP/1.1\r\nHost: here\r\nContent-Length: 5\r\n\r\nhello"
PATIENCE = 20.0  # before a test that hangs is called failed
SOON = 0.05  # a time limit to be reached in a test
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: closing is a reset
LARGE = 4 << 20  # more than the kernel's buffers of both sides hold


class Received(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes


class Client:
    """One connection that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._transport = cast("asyncio.Transport", writer.transport)

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def answer(self, *, head: bool = False) -> Received:
        async with asyncio.timeout(PATIENCE):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.lower().split(": ", 1) for line in lines[1:-2])
            size = 0 if head else int(headers.get("content-length", 0))
            return Received(int(lines[0].split()[1]), headers, await self._reader.readexactly(size))

    async def rest(self) -> bytes:
        """What still comes until the server closes the connection."""
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()

    def end(self) -> None:
        """Close the sending half."""
        self._writer.write_eof()

    def leave(self) -> None:
        self._writer.close()

    async def is_cut_off(self) -> None:
        """Return when the server has closed the connection, whatever it had to say before."""
        async with asyncio.timeout(PATIENCE):
            while not self._writer.is_closing():
                self.send(GET)  # meets the reset in the end
                await a_while()

    def reset(self) -> None:
        self._writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._writer.transport.abort()

    def stop_reading(self) -> None:
        self._transport.pause_reading()

    def read_on(self) -> None:
        self._transport.resume_reading()


@asynccontextmanager
async def client_of(port: int) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=LARGE * 2)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def serving(handler: Handler, **limits: float) -> AsyncIterator[int]:
    server = HttpServer(handler, limits=Limits(**limits))  # type: ignore[arg-type]  # whole numbers where needed
    _, port = await server.start("127.0.0.1", 0)
    try:
        yield port
    finally:
        await server.stop(PATIENCE)
        await no_tasks_are_left()


async def no_tasks_are_left() -> None:
    assert asyncio.all_tasks() == {asyncio.current_task()}


@asynccontextmanager
async def talking(handler: Handler, **limits: float) -> AsyncIterator[Client]:
    async with serving(handler, **limits) as port, client_of(port) as client:
        yield client


async def a_while() -> None:
    """Let whatever can go on without waiting go on: fifty round trips through the same event loop."""
    server = HttpServer(echo)
    _, port = await server.start("127.0.0.1", 0)
    try:
        async with client_of(port) as client:
            for _ in range(50):
                client.send(GET)
                await client.answer()
    finally:
        await server.stop(PATIENCE)


def echo(request: Request) -> Response:
    return Response(200, request.method.encode() + b" " + request.path.encode() + b" " + request.body)


class Gate:
    """A handler that answers a request when it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.cancelled = asyncio.Event()
        self.begun = asyncio.Event()
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    async def __call__(self, request: Request) -> Answer:
        self.asked.append(request.path)
        self.begun.set()
        try:
            await self._open.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return echo(request)


async def test_a_request_is_answered_and_the_connection_kept() -> None:
    async with talking(echo) as client:
        for _ in range(2):
            client.send(POST_HELLO)
            answer = await client.answer()
            assert (answer.status, answer.body) == (200, b"POST /hello hello")
            assert "connection" not in answer.headers
            assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d gmt", answer.headers["date"])


async def test_the_peer_is_the_clients_address() -> None:
    async with talking(lambda request: Response(200, request.peer.encode())) as client:
        client.send(GET)
        assert re.fullmatch(rb"127\.0\.0\.1:\d+", (await client.answer()).body)


async def test_a_coroutine_may_answer() -> None:
    async def handler(request: Request) -> Response:
        return echo(request)

    async with talking(handler) as client:
        client.send(GET)
        assert (await client.answer()).body == b"GET / "


async def test_answers_come_in_the_order_of_the_requests() -> None:
    gate = Gate()

    def handler(request: Request) -> object:
        return gate(request) if request.path == "/slow" else echo(request)

    async with talking(handler) as client:  # type: ignore[arg-type]
        client.send(GET.replace(b"/ ", b"/slow ") + POST_HELLO + GET)
        await gate.begun.wait()
        gate.open()
        bodies = [(await client.answer()).body for _ in range(3)]
    assert bodies == [b"GET /slow ", b"POST /hello hello", b"GET / "]


async def test_one_request_of_a_connection_is_handled_at_a_time() -> None:
    gate = Gate()
    async with talking(gate) as client:
        client.send(GET + GET)
        await gate.begun.wait()
        assert gate.asked == ["/"]
        gate.open()
        await client.answer()
        await client.answer()
        assert gate.asked == ["/", "/"]


async def test_head_is_answered_like_get_without_the_body() -> None:
    async with talking(lambda _: Response(200, b"hello")) as client:
        client.send(GET.replace(b"GET", b"HEAD") + GET)
        answer = await client.answer(head=True)
        assert answer.headers["content-length"] == "5"
        assert (await client.answer()).body == b"hello"


@pytest.mark.parametrize("status", [204, 304])
async def test_an_answer_that_may_have_no_body_has_none(status: int) -> None:
    async with talking(lambda request: Response(status if request.path == "/" else 200, b"hello")) as client:
        client.send(GET + POST_HELLO)
        answer = await client.answer()
        assert (answer.status, "content-length" in answer.headers) == (status, False)
        assert (await client.answer()).body == b"hello"


async def test_a_large_answer_arrives_whole() -> None:
    async with talking(lambda _: Response(200, b"x" * LARGE)) as client:
        client.send(GET)
        assert len((await client.answer()).body) == LARGE


@pytest.mark.parametrize(
    ("request_head", "connection"),
    [
        (b"GET / HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n", "close"),
        (b"GET / HTTP/1.0\r\n\r\n", "close"),
    ],
)
async def test_a_connection_that_shall_end_is_closed_after_the_answer(request_head: bytes, connection: str) -> None:
    async with talking(echo) as client:
        client.send(request_head)
        assert (await client.answer()).headers["connection"] == connection
        assert await client.rest() == b""


async def test_an_old_client_is_told_that_its_connection_is_kept() -> None:
    async with talking(echo) as client:
        for _ in range(2):
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            assert (await client.answer()).headers["connection"] == "keep-alive"


async def test_a_handler_may_close_the_connection() -> None:
    async with talking(lambda _: Response(200, b"bye", close=True)) as client:
        client.send(GET)
        answer = await client.answer()
        assert (answer.headers["connection"], answer.body) == ("close", b"bye")
        assert await client.rest() == b""


async def test_a_client_that_closed_its_half_gets_its_answers() -> None:
    gate = Gate()
    async with talking(gate) as client:
        client.send(GET + POST_HELLO + b"GET /half HT")
        client.end()
        await gate.begun.wait()
        gate.open()
        assert (await client.answer()).body == b"GET / "
        assert (await client.answer()).body == b"POST /hello hello"
        assert await client.rest() == b""


async def test_a_client_that_closed_its_half_while_its_answer_is_on_the_way_is_not_kept() -> None:
    async with talking(lambda _: Response(200, b"x" * LARGE), idle_seconds=PATIENCE * 2) as client:
        client.stop_reading()
        client.send(GET)
        client.end()
        await a_while()
        client.read_on()
        assert len((await client.answer()).body) == LARGE
        assert await client.rest() == b""


async def test_100_continue_is_sent_when_it_is_waited_for() -> None:
    async with talking(echo) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        assert (await client.answer()).status == 100
        client.send(b"ok")
        assert (await client.answer()).body == b"POST / ok"


async def test_100_continue_waits_for_the_answer_before_it() -> None:
    gate = Gate()
    async with talking(gate) as client:
        client.send(GET + b"POST / HTTP/1.1\r\nHost: here\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        await gate.begun.wait()
        gate.open()
        assert [(await client.answer()).status for _ in range(2)] == [200, 100]
        client.send(b"ok")
        assert (await client.answer()).body == b"POST / ok"


async def test_the_standard_librarys_client_is_served() -> None:
    def talk(port: int) -> list[bytes]:
        peer = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        bodies = []
        for method, path, body in [("GET", "/a", None), ("POST", "/b", b"data"), ("PUT", "/c", iter([b"ch", b"unks"]))]:
            peer.request(method, path, body)
            bodies.append(peer.getresponse().read())
        peer.close()
        return bodies

    async with serving(echo) as port:
        assert await asyncio.to_thread(talk, port) == [b"GET /a ", b"POST /b data", b"PUT /c chunks"]


# Mistakes of handlers.


@pytest.mark.parametrize("how", ["plain", "coroutine", "no answer"])
async def test_a_handler_that_fails_is_logged_once_and_answered_500_without_details(
    how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def plain(_: Request) -> Response:
        raise ZeroDivisionError("the secret")

    async def coroutine(_: Request) -> Response:
        raise ZeroDivisionError("the secret")

    async def nothing(_: Request) -> Response:
        return None  # type: ignore[return-value]

    handlers: dict[str, Handler] = {"plain": plain, "coroutine": coroutine, "no answer": nothing}
    async with talking(handlers[how]) as client:
        client.send(GET + GET)
        for _ in range(2):
            answer = await client.answer()
            assert (answer.status, answer.body) == (500, b"")
    assert [record.levelno for record in caplog.records] == [logging.ERROR] * 2
    assert all(record.exc_info for record in caplog.records)


async def test_a_handler_is_cancelled_when_its_client_resets_the_connection() -> None:
    gate = Gate()
    async with talking(gate) as client:
        client.send(GET)
        await gate.begun.wait()
        client.reset()
        async with asyncio.timeout(PATIENCE):
            await gate.cancelled.wait()


async def test_a_handler_that_outlives_its_client_does_no_harm() -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def stubborn(request: Request) -> Response:
        begun.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            ended.set()
        return echo(request)

    async with talking(stubborn, all_bodies_bytes=5) as client:
        client.send(POST_HELLO)
        await begun.wait()
        client.reset()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_a_client_that_left_before_it_was_accepted_does_no_harm() -> None:
    async with serving(echo) as port:
        with socket.create_connection(("127.0.0.1", port)) as early:
            early.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        async with client_of(port) as client:
            client.send(GET)
            assert (await client.answer()).status == 200


# Limits.


async def test_a_refused_client_can_read_why_although_it_is_still_sending() -> None:
    async with talking(echo, body_bytes=1000) as client:
        client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 1000000\r\n\r\n")
        client.send(b"x" * 900_000)
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        client.send(b"x" * 100_000)
        assert await client.rest() == b""


async def test_a_refusal_comes_after_the_answers_that_are_due() -> None:
    gate = Gate()
    async with talking(gate) as client:
        client.send(GET + b"nonsense\r\n\r\n" + GET)
        await gate.begun.wait()
        gate.open()
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]
        client.end()
        assert await client.rest() == b""


async def test_a_refused_client_that_has_said_all_is_not_waited_for() -> None:
    gate = Gate()
    async with talking(gate) as client:
        client.send(GET)
        await gate.begun.wait()
        client.send(b"nonsense\r\n\r\n")
        client.end()
        await a_while()
        gate.open()
        assert [(await client.answer()).status for _ in range(2)] == [200, 400]
        assert await client.rest() == b""


async def test_too_many_requests_in_waiting_are_refused_after_those_that_fit() -> None:
    gate = Gate()
    async with talking(gate, pipelined=3) as client:
        client.send(GET * 6)
        await gate.begun.wait()
        gate.open()
        assert [(await client.answer()).status for _ in range(5)] == [200, 200, 200, 200, 503]
        client.end()
        assert await client.rest() == b""


async def test_a_client_that_does_not_read_is_not_served_on() -> None:
    asked = 0

    def handler(_: Request) -> Response:
        nonlocal asked
        asked += 1
        return Response(200, b"x" * LARGE)

    async with talking(handler) as client:
        client.stop_reading()
        client.send(GET * 20)
        await a_while()
        assert asked <= 2
        client.read_on()
        for _ in range(20):
            assert len((await client.answer()).body) == LARGE
    assert asked == 20


@pytest.mark.parametrize(
    "begun",
    [b"GET / HTTP/1.1\r\nHost", b"GE", b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 9\r\n\r\nhalf", GET + b"G"],
    ids=["in the head", "in the method", "in the body", "in the second request"],
)
async def test_a_client_that_is_slow_to_ask_is_answered_408(begun: bytes) -> None:
    async with talking(echo, header_seconds=SOON, request_seconds=SOON) as client:
        client.send(begun)
        if begun.startswith(GET):
            assert (await client.answer()).status == 200
        answer = await client.answer()
        assert (answer.status, answer.headers["connection"]) == (408, "close")
        client.end()
        assert await client.rest() == b""


async def test_drops_of_a_head_do_not_extend_its_time() -> None:
    async with talking(echo, header_seconds=SOON) as client:

        async def drip() -> None:
            for octet in b"GET / HTTP/1.1\r\nHost: " + b"x" * 1000:
                client.send(bytes((octet,)))
                await a_while()

        dripping = asyncio.create_task(drip())
        assert (await client.answer()).status == 408
        dripping.cancel()
        await asyncio.wait((dripping,))


@pytest.mark.parametrize("said", [b"", GET], ids=["from the beginning", "after a request"])
async def test_a_silent_connection_is_closed_without_a_word(said: bytes) -> None:
    async with talking(echo, header_seconds=SOON, idle_seconds=SOON) as client:
        client.send(said)
        if said:
            await client.answer()
        assert await client.rest() == b""


async def test_a_handler_may_take_longer_than_any_client() -> None:
    gate = Gate()
    limits = {"header_seconds": SOON, "request_seconds": SOON, "idle_seconds": SOON}
    async with serving(gate, **limits) as port, client_of(port) as client, client_of(port) as silent:
        client.send(GET)
        await gate.begun.wait()
        assert await silent.rest() == b""  # its time is over, and so is the other's
        gate.open()
        assert (await client.answer()).status == 200


async def test_a_client_that_reads_nothing_for_too_long_is_cut_off() -> None:
    async with talking(lambda _: Response(200, b"x" * LARGE), idle_seconds=SOON) as client:
        client.stop_reading()
        client.send(GET * 3)
        await client.is_cut_off()


async def test_one_connection_too_many_is_answered_503() -> None:
    async with serving(echo, connections=2) as port, client_of(port) as first, client_of(port) as second:
        for client in (first, second):
            client.send(GET)
            assert (await client.answer()).status == 200
        async with client_of(port) as third:
            answer = await third.answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            third.leave()
        first.send(GET)
        assert (await first.answer()).status == 200


async def test_connections_far_beyond_the_limit_are_reset() -> None:
    async with serving(echo, connections=1) as port:
        clients = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        answers = []
        for reader, writer in clients[1:]:
            try:
                async with asyncio.timeout(PATIENCE):
                    answers.append(await reader.read(12))
            except ConnectionResetError:
                answers.append(b"reset")
            writer.transport.abort()
        clients[0][1].transport.abort()
    assert set(answers) == {b"HTTP/1.1 503", b"reset"}


async def test_the_bodies_of_all_requests_have_a_limit_together() -> None:
    gate = Gate()
    async with serving(gate, all_bodies_bytes=1000) as port, client_of(port) as first, client_of(port) as second:
        body = b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 600\r\n\r\n" + b"x" * 600
        first.send(body)
        await gate.begun.wait()
        second.send(body)
        assert (await second.answer()).status == 503
        gate.open()
        assert (await first.answer()).status == 200
        first.send(body)  # there is room again
        assert (await first.answer()).status == 200


@pytest.mark.parametrize("how", ["end", "reset"])
async def test_the_room_of_a_client_that_left_in_the_middle_of_its_body_is_free_again(how: str) -> None:
    async with serving(echo, all_bodies_bytes=1000) as port:
        async with client_of(port) as leaver:
            leaver.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 900\r\n\r\n" + b"x" * 800)
            await a_while()
            if how == "end":
                leaver.end()
                assert await leaver.rest() == b""
            else:
                leaver.reset()
                await a_while()
        async with client_of(port) as client:
            client.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 900\r\n\r\n" + b"x" * 900)
            assert (await client.answer()).status == 200


# Takeovers.


async def test_a_takeover_says_what_it_likes_and_its_end_closes_the_connection() -> None:
    async def half(connection: Connection) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await connection.drain()

    async with talking(lambda _: Takeover(half)) as client:
        client.send(GET)
        assert await client.rest() == b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"


async def test_a_coroutine_may_answer_with_a_takeover() -> None:
    async def garbage(connection: Connection) -> None:
        connection.write(b"garbage")

    async def handler(_: Request) -> Takeover:
        return Takeover(garbage)

    async with talking(handler) as client:
        client.send(GET)
        assert await client.rest() == b"garbage"


async def test_a_takeover_may_reset_the_connection() -> None:
    async def reset(connection: Connection) -> None:
        connection.abort()

    async with talking(lambda _: Takeover(reset)) as client:
        client.send(GET)
        with pytest.raises(ConnectionResetError):
            await client.rest()


async def test_a_takeover_that_hangs_ends_when_the_client_leaves() -> None:
    ended = asyncio.Event()

    async def hang(connection: Connection) -> None:
        await connection.wait_closed()
        connection.write(b"to nobody")
        with pytest.raises(ConnectionResetError):
            await connection.drain()
        ended.set()

    async with talking(lambda _: Takeover(hang)) as client:
        client.send(GET)
        client.send(b"and more that nobody reads")
        client.leave()
        async with asyncio.timeout(PATIENCE):
            await ended.wait()


async def test_a_takeover_is_held_back_by_a_client_that_does_not_read() -> None:
    written = 0
    gone = asyncio.Event()

    async def flood(connection: Connection) -> None:
        nonlocal written
        try:
            while True:
                connection.write(b"x" * (1 << 16))
                written += 1 << 16
                await connection.drain()
        finally:
            gone.set()

    async with talking(lambda _: Takeover(flood)) as client:
        client.stop_reading()
        client.send(GET)
        await a_while()
        assert written < 64 << 20
        client.reset()
        async with asyncio.timeout(PATIENCE):
            await gone.wait()


async def test_a_takeover_that_fails_is_logged_and_the_connection_reset(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(_: Connection) -> None:
        raise ZeroDivisionError

    async with talking(lambda _: Takeover(fail)) as client:
        client.send(GET)
        with pytest.raises(ConnectionResetError):
            await client.rest()
    assert [record.message for record in caplog.records] == ["what took over an HTTP connection failed"]


# Addresses.


async def test_an_address_that_is_taken_is_reported_as_it_is() -> None:
    async with serving(echo) as port:
        for host in ("127.0.0.1", "", "localhost"):
            with pytest.raises(OSError, match=r"[Aa]ddress already in use"):
                await HttpServer(echo).start(host, port)


async def test_everywhere_is_both_families_on_one_port() -> None:
    server = HttpServer(echo)
    _, port = await server.start("", 0)
    hosts = ["127.0.0.1"] + ["::1"] * _has_ipv6()
    for host in hosts:
        _, writer = await asyncio.open_connection(host, port)
        writer.transport.abort()
    await server.stop(0)


async def test_without_ipv6_everywhere_is_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    create_server = socket.create_server

    def without_ipv6(address: tuple[str, int], *, family: int = socket.AF_INET, **options: bool) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
        return create_server(address, family=family, **options)

    monkeypatch.setattr(socket, "create_server", without_ipv6)
    for host in ("", "localhost"):
        server = HttpServer(echo)
        _, port = await server.start(host, 0)
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.transport.abort()
        await server.stop(PATIENCE)
    with pytest.raises(OSError, match="Cannot assign"):
        await HttpServer(echo).start("::1", 0)


async def test_a_name_with_several_addresses_is_served_on_one_port() -> None:
    server = HttpServer(echo)
    host, port = await server.start("localhost", 0)
    _, writer = await asyncio.open_connection(host, port)
    writer.transport.abort()
    await server.stop(0)


async def test_a_bound_socket_can_be_handed_in() -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(echo)
    assert await server.start_on(listening) == listening.getsockname()
    await server.stop(0)
    assert listening.fileno() == -1


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


# Stopping.


async def test_stopping_answers_what_was_asked_and_closes_the_rest_at_once() -> None:
    gate = Gate()
    server = HttpServer(gate)
    _, port = await server.start("127.0.0.1", 0)
    async with client_of(port) as busy, client_of(port) as idle, client_of(port) as halfway:
        halfway.send(b"POST / HTTP/1.1\r\nHost: here\r\nContent-Length: 4\r\n\r\nha")
        busy.send(GET + GET)
        await gate.begun.wait()
        stopping = asyncio.create_task(server.stop(PATIENCE))
        assert await idle.rest() == b""
        with pytest.raises(OSError, match=r"[Cc]onnect"):
            await asyncio.open_connection("127.0.0.1", port)
        gate.open()
        assert "connection" not in (await busy.answer()).headers
        assert (await busy.answer()).headers["connection"] == "close"
        halfway.send(b"lf")
        last = await halfway.answer()
        assert (last.body, last.headers["connection"]) == (b"POST / half", "close")
        await stopping
    await no_tasks_are_left()


async def test_what_is_not_done_when_the_grace_is_over_is_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    gate = Gate()
    server = HttpServer(gate)
    _, port = await server.start("127.0.0.1", 0)
    async with client_of(port) as client:
        client.send(GET)
        await gate.begun.wait()
        await server.stop(SOON)
        assert gate.cancelled.is_set()
        with pytest.raises(ConnectionResetError):
            await client.rest()
    await no_tasks_are_left()
    assert [record.message for record in caplog.records] == ["HTTP requests were cut off"]


async def test_a_cancelled_stop_cuts_off_at_once() -> None:
    gate = Gate()
    server = HttpServer(gate)
    _, port = await server.start("127.0.0.1", 0)
    async with client_of(port) as client:
        client.send(GET)
        await gate.begun.wait()
        stopping = asyncio.create_task(server.stop(PATIENCE))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait((stopping,))
        assert gate.cancelled.is_set()
    await no_tasks_are_left()


async def test_stopping_twice_or_before_the_start_does_no_harm() -> None:
    server = HttpServer(echo)
    await server.stop(0)
    server = HttpServer(echo)
    await server.start("127.0.0.1", 0)
    await server.stop(0)
    await server.stop(0)
