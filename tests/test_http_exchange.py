"""Requests and responses as values, and the head of an answer."""

from __future__ import annotations

import pytest

from wellhead.http_server.exchange import Request, Response, answer_head, peer_text, split_target

DATE = b"Sat, 21 Nov 2026 05:00:00 GMT"


def a_request(*headers: tuple[bytes, bytes]) -> Request:
    return Request("GET", "/", "/", "", headers, b"", "127.0.0.1:1")


def test_a_header_is_found_in_any_case_and_the_first_one_counts() -> None:
    request = a_request((b"X-Twice", b"1"), (b"x-twice", b"2"))
    assert request.header("x-TWICE") == "1"
    assert request.header("x-none") is None


def test_a_header_is_read_as_utf_8_and_else_as_latin_1() -> None:
    request = a_request((b"new", "é".encode()), (b"old", "é".encode("latin-1")))
    assert (request.header("new"), request.header("old")) == ("é", "é")


@pytest.mark.parametrize("header", [(b"", b"x"), (b"a", b"x\r\nb: y"), (b"a\n", b"x"), (b"a: b", b"x"), (b"a", b"\0")])
def test_a_response_refuses_a_header_that_would_break_the_head(header: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="is not a header"):
        Response(200, headers=(header,))


def test_a_response_refuses_what_is_no_status() -> None:
    with pytest.raises(ValueError, match="99 is not an HTTP status"):
        Response(99)


def test_the_head_of_an_answer_has_length_date_and_its_own_headers() -> None:
    response = Response(415, b"four", ((b"Content-Type", b"text/plain"),))
    assert answer_head(response, date=DATE, connection=b"close") == (
        b"HTTP/1.1 415 Unsupported Media Type\r\nDate: " + DATE + b"\r\nContent-Type: text/plain\r\n"
        b"Content-Length: 4\r\nConnection: close\r\n\r\n"
    )


@pytest.mark.parametrize("status", [101, 204, 304])
def test_an_answer_that_has_no_body_by_its_status_has_no_length(status: int) -> None:
    assert b"Content-Length" not in answer_head(Response(status), date=DATE, connection=b"")


def test_a_status_without_a_name_is_sent_without_one() -> None:
    assert answer_head(Response(299), date=DATE, connection=b"").startswith(b"HTTP/1.1 299 \r\n")


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        ("/", "/", ""),
        ("/a%20b%2Fc?d=%20", "/a b/c", "d=%20"),
        ("/a?b?c", "/a", "b?c"),
        ("/a#b", "/a", ""),
        ("http://host:1/a/b?c", "/a/b", "c"),
        ("http://host", "/", ""),
        ("*", "*", ""),
        ("/a://b", "/a://b", ""),
    ],
)
def test_a_target_is_split_into_path_and_query(target: str, path: str, query: str) -> None:
    assert split_target(target) == (path, query)


def test_an_address_is_written_as_in_a_url() -> None:
    assert peer_text(("127.0.0.1", 5)) == "127.0.0.1:5"
    assert peer_text(("::1", 5, 0, 0)) == "[::1]:5"
    assert peer_text(("::ffff:10.0.0.1", 5, 0, 0)) == "10.0.0.1:5"
    assert peer_text(None) == peer_text("") == peer_text(b"") == ""
