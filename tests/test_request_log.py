"""The JSON of a request, as Knative's event_display logs it."""

from __future__ import annotations

import json

from wellhead.display.request_log import request_json
from wellhead.http_server.exchange import Headers, Request


def logged(
    *headers: tuple[bytes, bytes], target: str = "/", path: str = "/", query: str = "", body: bytes = b""
) -> dict[str, object]:
    text = request_json(Request("POST", target, path, query, headers, body, "127.0.0.1:5", "1.1"))
    assert text.endswith("}\n")
    fields: dict[str, object] = json.loads(text)
    return fields


def test_a_request_is_logged_with_the_fields_of_go() -> None:
    headers: Headers = (
        (b"host", b"here:80"),
        (b"CE-ID", b"1"),
        (b"accept", b"a"),
        (b"Accept", b"b"),
        (b"transfer-encoding", b"chunked"),
    )
    assert logged(*headers, target="/a%20b?c=d", path="/a b", query="c=d", body=b'{"a":1}') == {
        "method": "POST",
        "URL": {
            "Scheme": "", "Opaque": "", "User": None, "Host": "", "Path": "/a b", "RawPath": "/a%20b", "OmitHost": False,
            "ForceQuery": False, "RawQuery": "c=d", "Fragment": "", "RawFragment": "",
        },
        "proto": "HTTP/1.1",
        "protoMajor": 1,
        "protoMinor": 1,
        "headers": {"Ce-Id": ["1"], "Accept": ["a", "b"]},
        "body": '{"a":1}',
        "contentLength": -1,
        "transferEncoding": ["chunked"],
        "host": "here:80",
        "remoteAddr": "127.0.0.1:5",
        "requestURI": "/a%20b?c=d",
    }  # fmt: skip


def test_empty_fields_are_left_out() -> None:
    assert {"headers", "body", "contentLength", "transferEncoding", "host"}.isdisjoint(logged())


def test_credentials_are_hidden() -> None:
    headers = ((b"authorization", b"Bearer s3cret"), (b"Proxy-Authorization", b"s3cret"), (b"cookie", b"s3cret"))
    assert "s3cret" not in str(logged(*headers))
    assert logged(*headers)["headers"] == {
        name: ["<hidden>"] for name in ("Authorization", "Proxy-Authorization", "Cookie")
    }


def test_octets_that_are_no_text_do_not_break_the_log() -> None:
    assert logged((b"x", b"\xff"), body=b"\xff")["body"] == "�"
