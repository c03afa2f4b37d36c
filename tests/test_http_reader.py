"""Bytes to requests: what is read, what is refused and with which status, whatever the pieces in which it comes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.http_server.exchange import Limits, Request, Response
from wellhead.http_server.reader import RequestReader

LIMITS = Limits(body_bytes=100, head_bytes=1000, headers=20)
HOST = b"Host: here\r\n"
TWO_REQUESTS = (
    b"POST /first?x=1 HTTP/1.1\r\nHost: here\r\nce-id:  1 \t\r\nContent-Length: 5\r\n\r\nhello"
    b"PUT /second HTTP/1.1\r\nhost: here\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nce-late: 1\r\n\r\n"
)


class Told:
    """A receiver that writes down what it is told."""

    def __init__(self, room: int = 1 << 20) -> None:
        self.requests: list[Request] = []
        self.kept_alive: list[bool] = []
        self.refusals: list[Response] = []
        self.continues = 0
        self.room = room

    def received(self, request: Request, *, keep_alive: bool) -> None:
        self.requests.append(request)
        self.kept_alive.append(keep_alive)

    def refused(self, response: Response) -> None:
        self.refusals.append(response)

    def expects_continue(self) -> None:
        self.continues += 1

    def hold(self, octets: int) -> bool:
        if octets > self.room:
            return False
        self.room -= octets
        return True

    def release(self, octets: int) -> None:
        self.room += octets


def read(*pieces: bytes, limits: Limits = LIMITS, told: Told | None = None) -> Told:
    told = told or Told()
    reader = RequestReader(told, limits, "peer")
    for piece in pieces:
        reader.feed(memoryview(piece))
    return told


def status_of(told: Told) -> int:
    (refusal,) = told.refusals
    assert refusal.close
    return refusal.status


def test_requests_are_read_whole_and_in_order() -> None:
    told = read(TWO_REQUESTS)
    first, second = told.requests
    assert (first.method, first.target, first.path, first.query) == ("POST", "/first?x=1", "/first", "x=1")
    assert (first.body, first.peer, first.version) == (b"hello", "peer", "1.1")
    assert first.headers == ((b"Host", b"here"), (b"ce-id", b"1"), (b"Content-Length", b"5"))
    assert (second.method, second.body) == ("PUT", b"abcde")
    assert told.kept_alive == [True, True]
    assert told.refusals == []


def test_a_trailer_does_not_become_a_header() -> None:
    assert read(TWO_REQUESTS).requests[1].header("ce-late") is None


@given(st.lists(st.integers(0, len(TWO_REQUESTS)), max_size=12))
def test_it_does_not_matter_in_which_pieces_requests_come(cuts: list[int]) -> None:
    ends = sorted({0, *cuts, len(TWO_REQUESTS)})
    pieces = [TWO_REQUESTS[start:end] for start, end in itertools.pairwise(ends)]
    assert read(*pieces).requests == read(TWO_REQUESTS).requests


@given(
    st.lists(
        st.binary(max_size=60) | st.sampled_from([b"\r\n", b"\r\n\r\n", b"GET / HTTP/1.1\r\n", HOST, b"0"]), max_size=9
    )
)
def test_garbage_is_refused_at_most_once_and_nothing_is_told_after_that(pieces: list[bytes]) -> None:
    told = Told()
    reader = RequestReader(told, LIMITS, "peer")
    for piece in pieces:
        before = len(told.requests)
        was_refused = bool(told.refusals)
        reader.feed(memoryview(piece))
        assert not (was_refused and len(told.requests) > before)
    assert len(told.refusals) <= 1
    assert not (told.refusals and reader.in_message)


SMUGGLING = {
    "both lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "both, the other way round": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a list of lengths": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\nhello",
    "a signed length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello",
    "an empty length": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\nhello",
    "a length beyond 64 bits": b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 18446744073709551621\r\n\r\nhello",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked, but not last": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a blank before the colon": b"POST / HTTP/1.1\r\nHost : a\r\n\r\n",
    "a folded header": b"POST / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "a bare line feed": b"GET / HTTP/1.1\nHost: a\n\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: a\rb\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: a\0b\r\n\r\n",
    "a chunk's length in hexadecimal notation": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x1\r\na\r\n0\r\n\r\n",
    "a chunk without its line end": b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\naa\r\n0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    "two hosts in HTTP/1.0": b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
    "no method": b"/ HTTP/1.1\r\nHost: a\r\n\r\n",
    "a blank in the target": b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
}


@pytest.mark.parametrize("head", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_what_two_readers_could_read_in_two_ways_is_refused(head: bytes) -> None:
    told = read(head)
    assert (status_of(told), told.requests) == (400, [])


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
        (b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n", 501),
        (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
        (b"POST / HTTP/1.1\r\nHost: a\r\nExpect: miracles\r\nContent-Length: 1\r\n\r\n", 417),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 101\r\n\r\n", 413),
        (b"GET /" + b"x" * 1000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET /" + b"x" * 1100, 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"x" * 1000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nx: " + b"x" * 1100, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x: y\r\n" * 300, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x:\r\n" * 20 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"x:\r\n" * 30, 431),
    ],
)
def test_what_is_not_supported_or_too_large_is_refused_with_its_status(head: bytes, status: int) -> None:
    assert status_of(read(head)) == status


def test_a_head_up_to_the_limit_is_read() -> None:
    assert len(read(b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"x" * 900 + b"\r\n\r\n").requests) == 1


def test_heads_are_measured_one_by_one_when_many_come_at_once() -> None:
    small = b"GET / HTTP/1.1\r\n" + HOST + b"\r\n"
    assert len(read(small * 200).requests) == 200
    told = read(small * 3 + b"GET / HTTP/1.1\r\n" + HOST + b"x: " + b"x" * 1000 + b"\r\n\r\n" + small)
    assert (len(told.requests), status_of(told)) == (3, 431)


def test_a_head_that_never_ends_is_refused_before_it_fills_the_memory() -> None:
    told = Told()
    reader = RequestReader(told, LIMITS, "peer")
    reader.feed(memoryview(b"GET / HTTP/1.1\r\nHost: "))
    fed = 0
    while not told.refusals:
        reader.feed(memoryview(b"x" * 100))
        fed += 100
    assert fed <= 1100


def test_a_chunked_body_is_refused_when_it_passes_the_limit() -> None:
    told = read(
        b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n", *[b"30\r\n" + b"x" * 48 + b"\r\n"] * 3
    )
    assert (status_of(told), told.requests, told.room) == (413, [], 1 << 20)


@pytest.mark.parametrize("endless", [b"1;" + b"x" * 200, b"0\r\nx: " + b"x" * 200], ids=["chunk extension", "trailer"])
def test_framing_without_end_is_refused(endless: bytes) -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Transfer-Encoding: chunked\r\n\r\n"
    told = read(head, endless, *[b"x" * 200] * 10)
    assert status_of(told) == 431


def test_a_body_for_which_there_is_no_room_is_refused_and_its_room_given_back() -> None:
    told = Told(room=50)
    read(b"POST / HTTP/1.1\r\n" + HOST + b"Content-Length: 80\r\n\r\n", b"x" * 40, b"x" * 40, told=told)
    assert (status_of(told), told.room) == (503, 50)
    assert (b"Retry-After", b"1") in told.refusals[0].headers


def test_what_comes_after_a_refusal_is_dropped() -> None:
    told = read(b"nonsense\r\n\r\n", TWO_REQUESTS, b"more nonsense")
    assert (told.requests, len(told.refusals)) == ([], 1)


def test_the_requests_before_a_refused_one_are_told() -> None:
    told = read(TWO_REQUESTS + b"nonsense")
    assert (len(told.requests), status_of(told)) == (2, 400)


def test_after_connection_close_nothing_is_read() -> None:
    told = read(
        b"GET / HTTP/1.1\r\n" + HOST + b"Connection: close\r\n\r\nGET /more HTTP/1.1\r\n" + HOST + b"\r\n", b"nonsense"
    )
    assert [request.path for request in told.requests] == ["/"]
    assert (told.kept_alive, told.refusals) == ([False], [])


@pytest.mark.parametrize(
    ("head", "keep_alive"),
    [
        (b"GET / HTTP/1.0\r\n\r\n", False),
        (b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", True),
        (b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, close\r\n\r\n", False),
    ],
)
def test_connections_are_kept_as_each_version_has_it(head: bytes, *, keep_alive: bool) -> None:
    assert read(head).kept_alive == [keep_alive]


def test_a_client_that_waits_for_100_continue_is_told_of_once() -> None:
    head = b"POST / HTTP/1.1\r\n" + HOST + b"Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n"
    told = read(head)
    assert (told.continues, told.requests) == (1, [])
    assert read(head, b"ok").requests[0].body == b"ok"


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 0\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 101\r\n\r\n",
    ],
    ids=["HTTP/1.0", "no body", "too large"],
)
def test_nobody_is_told_to_continue_in_vain(head: bytes) -> None:
    assert read(head).continues == 0


UPGRADE = b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n"


@pytest.mark.parametrize(
    "body",
    [b"Content-Length: 4\r\n\r\nGET ", b"Transfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n"],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_the_body_of_a_request_that_asks_for_an_upgrade_is_no_request(body: bytes, size: int) -> None:
    stream = b"POST /up HTTP/1.1\r\n" + HOST + UPGRADE + body + b"GET /next HTTP/1.1\r\n" + HOST + b"\r\n"
    told = read(*(stream[at : at + size] for at in range(0, len(stream), size)))
    assert [(request.method, request.path, request.body) for request in told.requests] == [
        ("POST", "/up", b"GET "),
        ("GET", "/next", b""),
    ]
    assert told.requests[0].header("upgrade") == "h2c"


def test_an_upgrade_without_a_body_is_answered_as_a_plain_request() -> None:
    told = read((b"GET /up HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n") * 2)
    assert [request.path for request in told.requests] == ["/up", "/up"]


def test_a_mistake_in_the_receiver_is_not_blamed_on_the_client() -> None:
    class Broken(Told):
        def received(self, request: Request, *, keep_alive: bool) -> None:
            raise ZeroDivisionError(request, keep_alive)

    with pytest.raises(ZeroDivisionError):
        read(b"GET / HTTP/1.1\r\n" + HOST + b"\r\n", told=Broken())
