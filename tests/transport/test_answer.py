"""Octets to answers: any cut of the same octets means the same, and nothing that a sink sends is more than a bad answer."""

from __future__ import annotations

import contextlib
import http.client
import io
import tracemalloc
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.transport import BODY_KEPT
from wellhead.transport.answer import HEAD_BYTES, AnswerReader, BadAnswer, Memo

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wellhead.delivery import Answered

PLAIN: Final = b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"

ODD: Final[dict[str, tuple[bytes, int | None]]] = {
    # Whole answers, and what they say. None: no HTTP answer.
    "plain": (PLAIN, 202),
    "no reason": (b"HTTP/1.1 202\r\nContent-Length: 0\r\n\r\n", 202),
    "an empty reason": (b"HTTP/1.1 202 \r\nContent-Length: 0\r\n\r\n", 202),
    "a reason in Latin-1": (b"HTTP/1.1 200 Tr\xe8s bien\r\nContent-Length: 0\r\n\r\n", 200),
    "HTTP/1.0": (b"HTTP/1.0 202 Accepted\r\nContent-Length: 0\r\n\r\n", 202),
    "a body": (b"HTTP/1.1 400 No\r\nContent-Length: 5\r\n\r\nhello", 400),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", 200),
    "chunks with extensions": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;a=b\r\nx\r\n0\r\n\r\n", 200),
    "trailers": (b"HTTP/1.1 503 X\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\r\n\r\n", 503),
    "an empty line before it": (b"\r\n" + PLAIN, 202),
    "interim answers": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: <a>\r\n\r\n" + PLAIN, 202),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", 204),
    "not modified with a length": (b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n", 304),
    "switching": (b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n", 101),
    "upgrade required": (b"HTTP/1.1 426 X\r\nUpgrade: h2c\r\nConnection: upgrade\r\nContent-Length: 0\r\n\r\n", 426),
    "a status beyond": (b"HTTP/1.1 999 X\r\nContent-Length: 0\r\n\r\n", 999),
    "another protocol": (b"SSH-2.0-OpenSSH_9.6\r\n", None),
    "TLS where there should be none": (b"\x15\x03\x01\x00\x02\x02\x16", None),
    "HTTP/2": (b"\0\0\x12\x04\0\0\0\0\0", None),
    "a request": (b"POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n", None),
    "a status of letters": (b"HTTP/1.1 abc\r\n\r\n", None),
    "a status of two digits": (b"HTTP/1.1 20 X\r\n\r\n", None),
    "a status of four digits": (b"HTTP/1.1 2020 X\r\n\r\n", None),
    "two lengths": (b"HTTP/1.1 202 X\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", None),
    "a length and chunks": (b"HTTP/1.1 202 X\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", None),
    "a negative length": (b"HTTP/1.1 202 X\r\nContent-Length: -1\r\n\r\n", None),
    "a length beyond 64 bits": (b"HTTP/1.1 202 X\r\nContent-Length: 99999999999999999999\r\n\r\n", None),
    "no colon": (b"HTTP/1.1 202 X\r\nno colon\r\n\r\n", None),
    "a blank in a name": (b"HTTP/1.1 202 X\r\na b: c\r\n\r\n", None),
    "a zero in a value": (b"HTTP/1.1 202 X\r\nX: \0\r\n\r\n", None),
    "bare line feeds": (b"HTTP/1.1 202 X\nContent-Length: 0\n\n", None),
    "a huge head of one line": (b"HTTP/1.1 202 X\r\nX: " + b"x" * HEAD_BYTES + b"\r\n\r\n", None),
    "a huge head of short lines": (b"HTTP/1.1 202 X\r\n" + b"X: y\r\n" * 12_000 + b"\r\n", None),
    "interim answers without end": (b"HTTP/1.1 102 X\r\nX: yyyyyyyyyyyyyyyyy\r\n\r\n" * 2_000, None),
}


class Result:
    """What one connection's octets came to: the first answer, or why there is none."""

    def __init__(self, pieces: Sequence[bytes], memo: Memo) -> None:
        reader = AnswerReader(memo)
        self.answer: Answered | None = None
        self.bad = False
        try:
            for piece in pieces:
                self.answer = reader.feed(piece)
                if self.answer is not None:
                    break
        except BadAnswer:
            self.bad = True
            self.answer = reader.so_far() if reader.head_came else None

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Result) and self.answer == other.answer

    def __hash__(self) -> int:
        return hash(self.answer)

    def __repr__(self) -> str:
        return f"{self.answer} {self.bad}"


def cut(octets: bytes, places: Sequence[int]) -> list[bytes]:
    ends = [0, *sorted({place % (len(octets) + 1) for place in places}), len(octets)]
    return [octets[a:b] for a, b in pairwise(ends) if a < b]


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer_says_what_it_says_in_one_read_and_byte_by_byte(name: str) -> None:
    octets, status = ODD[name]
    for pieces in ([octets], [octets[place : place + 1] for place in range(len(octets))]):
        result = Result(pieces, Memo())
        assert (result.answer.status if result.answer else None) == status


@pytest.mark.parametrize("name", [name for name, (_, status) in ODD.items() if status is None])
def test_what_is_no_answer_is_told_at_once_and_not_waited_for(name: str) -> None:
    assert Result([ODD[name][0]], Memo()).bad


PLACES: Final = st.lists(st.integers(0, 2000), max_size=8)
HEADER: Final = st.tuples(
    st.sampled_from([b"Retry-After", b"retry-after", b"X", b"Date", b"Connection"]),
    st.sampled_from([b"0", b"7", b"close", b"keep-alive", b"Thu, 01 Jan 2026 00:00:00 GMT", b"", b"\xe9"]),
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """A whole, well-formed answer."""
    status = draw(st.sampled_from([200, 202, 204, 304, 400, 401, 429, 500, 503, 599]))
    lines = [b"HTTP/1.1 %d %b" % (status, draw(st.sampled_from([b"OK", b"", b"Not at all"])))]
    lines += [b"%b: %b" % header for header in draw(st.lists(HEADER, max_size=4))]
    body = b"" if status in (204, 304) else draw(st.binary(max_size=300))
    if status in (204, 304):
        framed = b""
    elif draw(st.booleans()):
        lines.append(b"Transfer-Encoding: chunked")
        size = draw(st.integers(1, 300))
        chunks = [body[at : at + size] for at in range(0, len(body), size)]
        framed = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % len(body))
        framed = body
    before = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n" * draw(st.integers(0, 2))
    return before + b"\r\n".join(lines) + b"\r\n\r\n" + framed


@given(octets=answers(), places=PLACES)
def test_any_cut_of_an_answer_gives_the_same_answer(octets: bytes, places: list[int]) -> None:
    whole = Result([octets], Memo())
    assert whole.answer is not None
    assert Result(cut(octets, places), Memo()) == whole


@given(sequence=st.lists(st.tuples(answers(), PLACES), min_size=1, max_size=6), repeated=st.booleans())
def test_the_memo_changes_no_answer(sequence: list[tuple[bytes, list[int]]], *, repeated: bool) -> None:
    memo = Memo()
    for octets, places in sequence * (2 if repeated else 1):
        assert Result([octets], memo) == Result([octets], Memo())
        assert Result(cut(octets, places), memo) == Result([octets], Memo())


@given(sequence=st.lists(st.tuples(answers(), PLACES), min_size=1, max_size=6))
def test_answers_on_one_kept_connection_are_those_of_connections_of_their_own(
    sequence: list[tuple[bytes, list[int]]],
) -> None:
    memo, reader = Memo(), AnswerReader(Memo())
    for octets, places in sequence:
        if not reader.reusable:
            reader = AnswerReader(memo)
        came = [answer for piece in cut(octets, places) if (answer := reader.feed(piece)) is not None]
        assert came == [Result([octets], Memo()).answer]
        assert not reader.begun


@given(
    octets=answers(), mutations=st.lists(st.tuples(st.integers(0, 2000), st.binary(max_size=3)), min_size=1, max_size=4)
)
def test_a_mutated_answer_is_an_answer_or_a_bad_one_however_it_is_cut(
    octets: bytes, mutations: list[tuple[int, bytes]]
) -> None:
    for place, octet in mutations:
        at = place % (len(octets) + 1)
        octets = octets[:at] + octet + octets[at + 1 :]
    whole = Result([octets], Memo())
    one_by_one = Result([octets[at : at + 1] for at in range(len(octets))], Memo())
    assert one_by_one == whole
    memo = Memo()
    Result([octets], memo)
    assert Result([PLAIN], memo) == Result([PLAIN], Memo())


@given(octets=st.binary(max_size=200), places=PLACES)
def test_anything_at_all_is_an_answer_or_a_bad_one(octets: bytes, places: list[int]) -> None:
    Result(cut(octets, places), Memo())
    Result(cut(b"HTTP/1.1 200 " + octets, places), Memo())
    Result(cut(b"HTTP/1.1 200 OK\r\n" + octets, places), Memo())
    Result(cut(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + octets, places), Memo())


@given(octets=answers())
def test_the_standard_library_reads_the_same_status_body_and_retry_after(octets: bytes) -> None:
    ours = Result([octets], Memo()).answer
    assert ours is not None
    theirs = by_http_client(octets)
    assert (ours.status, ours.body) == (theirs.status, theirs.read())
    assert ours.retry_after in (theirs.headers.get_all("Retry-After") or (None,))


CHUNKED: Final = b"HTTP/1.1 200 X\r\nTransfer-Encoding: chunked\r\n\r\n"
ENDLESS: Final[dict[str, tuple[bytes, bytes]]] = {
    "interim answers": (b"", b"HTTP/1.1 102 X\r\nX: y\r\n\r\n"),
    "a reason": (b"HTTP/1.1 200 ", b"x" * 4096),
    "a header": (b"HTTP/1.1 200 X\r\nX: ", b"x" * 4096),
    "headers": (b"HTTP/1.1 200 X\r\n", b"X: y\r\n" * 100),
    "a body": (b"HTTP/1.1 200 X\r\n\r\n", b"x" * 4096),
    "chunk extensions": (CHUNKED, b"1;" + b"e" * 4096 + b"\r\nx\r\n"),
    "a trailer": (CHUNKED + b"0\r\nX: ", b"x" * 4096),
    "trailers": (CHUNKED + b"0\r\n", b"X: y\r\n" * 100),
}


@pytest.mark.parametrize("name", ENDLESS)
def test_an_answer_without_end_ends_and_takes_little_memory(name: str) -> None:
    head, more = ENDLESS[name]
    reader = AnswerReader(Memo())
    tracemalloc.start()
    try:
        fed = len(head)
        with contextlib.suppress(BadAnswer):
            answer = reader.feed(head) if head else None
            while answer is None:
                answer = reader.feed(more)
                fed += len(more)
                assert fed < 2 * 1024 * 1024, "it goes on for ever"
            assert not reader.reusable
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4 * 1024 * 1024


def test_of_a_body_just_as_long_as_is_kept_all_is_kept_and_the_connection_too() -> None:
    reader = AnswerReader(Memo())
    answer = reader.feed(b"HTTP/1.1 400 X\r\nContent-Length: %d\r\n\r\n" % BODY_KEPT + b"x" * BODY_KEPT)
    assert answer is not None
    assert (len(answer.body), reader.reusable) == (BODY_KEPT, True)


class _Octets:
    def __init__(self, octets: bytes) -> None:
        self._octets = octets

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(self._octets)


def by_http_client(octets: bytes) -> http.client.HTTPResponse:
    while octets.startswith(b"HTTP/1.1 1"):
        octets = octets.partition(b"\r\n\r\n")[2]
    response = http.client.HTTPResponse(_Octets(octets))  # type: ignore[arg-type]  # all it asks of a socket
    response.begin()
    return response
