"""The event display against the recorded answers of Knative's, and what it does beyond them."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import logging
import os
import re
import select
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

import pytest

from wellhead.display.receiver import Display, write_stdout
from wellhead.event import CloudEvent
from wellhead.http_binding import encode, encode_batch
from wellhead.http_server import Limits, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

TRANSCRIPT: Final = Path(__file__).parent / "samples" / "event_display" / "transcript.txt"
PATIENCE = 20.0
NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)


class Ask(NamedTuple):
    """A request, without what every client adds."""

    headers: Mapping[str, str] = MappingProxyType({})
    body: bytes = b""
    method: str = "POST"
    target: str = "/"


class Recorded(NamedTuple):
    status: int
    body: bytes
    printed: bytes


def binary(body: bytes = b"", content_type: str | None = None, **attributes: str) -> Ask:
    """An event of the recording in binary mode; an attribute that is "" is left out."""
    given = {"specversion": "1.0", "type": "lab.t", "source": "/lab", "id": "1", **attributes}
    headers = {f"ce-{name}": value for name, value in given.items() if value}
    return Ask({**headers, **({"content-type": content_type} if content_type else {})}, body)


def structured(text: str) -> Ask:
    return Ask({"content-type": "application/cloudevents+json"}, text.encode())


JSON: Final = "application/json"
# The requests of the recording, reconstructed from their names and from what was printed.
ASKED: Final = {
    "binary_json": binary(
        '{"b":1,"a":[1,{"x":"é<"}]}'.encode(), JSON, subject="sub", time="2026-01-02T03:04:05.678Z", zeta="z", alpha="a"
    ),
    "binary_text": binary(b"hello world", "text/plain"),
    "binary_xml": binary(b"<a>1</a>", "application/xml"),
    "binary_octets": binary(b"", "application/octet-stream"),
    "binary_nobody": binary(),
    "binary_no_contenttype": binary(b'{"a":1}'),
    "binary_badjson": binary(b'{"a":', JSON),
    "binary_pct": binary(b"{}", JSON, subject="caf%C3%A9%20x"),
    "binary_dataschema": binary(
        b"{}",
        "application/json; charset=utf-8",
        dataschema="http://x/y",
        traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    ),
    "v03": binary(b"{}", JSON, specversion="0.3"),
    "structured": structured(
        '{"specversion":"1.0","id":"2","source":"/s","type":"t","datacontenttype":"application/json","ext":"v","n":42,'
        '"flag":true,"data":{"k":[1,2]}}'
    ),
    "structured_b64": structured('{"specversion":"1.0","id":"3","source":"/s","type":"t","data_base64":"AAH/"}'),
    "structured_stringdata": structured(
        '{"specversion":"1.0","id":"4","source":"/s","type":"t","datacontenttype":"text/plain","data":"hi"}'
    ),
    "structured_null": structured('{"specversion":"1.0","id":"5","source":"/s","type":"t","data":null}'),
    "batch": Ask(
        {"content-type": "application/cloudevents-batch+json"},
        b'[{"specversion":"1.0","id":"6","source":"/s","type":"t"},{"specversion":"1.0","id":"7","source":"/s","type":"t"}]',
    ),
    "missing_id": binary(id=""),
    "missing_type_structured": structured('{"specversion":"1.0","id":"1","source":"/s"}'),
    "bad_time": binary(time="yesterday"),
    "bad_specversion": binary(specversion="2.0"),
    "no_ce_headers": Ask({"content-type": JSON}, b"{}"),
    "empty_post": Ask(),
    "structured_garbage": structured("{nonsense"),
    "get": Ask(method="GET"),
    "put": binary(b"x", "application/x-www-form-urlencoded")._replace(method="PUT"),
    "options": Ask(method="OPTIONS"),
    "healthz": Ask(method="GET", target="/healthz"),
}
# Where ours differs on purpose: the status, what the body begins with, what is printed.
OURS: Final = {
    # Knative answers 500 to batches; a sender of batches would try for ever.
    "batch": Recorded(
        200,
        b"",
        b"".join(
            "☁️  cloudevents.Event\nContext Attributes,\n  specversion: 1.0\n  type: t\n  source: /s\n  id: ".encode()
            + number
            + b"\n"
            for number in (b"6", b"7")
        ),
    ),
    # A 500 says "try again", and these will never be right: 400, and what is wrong.
    "bad_time": Recorded(400, b"time: 'yesterday' is not an RFC 3339 timestamp\n", b""),
    "structured_garbage": Recorded(400, b"body: is not JSON near character 1\n", b""),
    # Knative has no page.
    "get": Recorded(200, b"<!doctype html>", b""),
}


def recorded() -> dict[str, Recorded]:
    text = TRANSCRIPT.read_bytes().partition(b"VmHWM")[0]
    rows = {}
    for part in re.split(rb"^=== ", text, flags=re.MULTILINE)[1:]:
        name, _, rest = part.partition(b"\n")
        answer, _, printed = rest.partition(b"\n--- stdout:\n")
        size = int((re.findall(rb"Content-Length: (\d+)", answer) or [b"0"])[0])
        rows[name.decode()] = Recorded(int(answer.split()[1]), answer[len(answer) - size :], printed)
    return rows


class Client:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def ask(self, asked: Ask) -> tuple[int, dict[str, str], bytes]:
        head = f"{asked.method} {asked.target} HTTP/1.1\r\nhost: here\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in asked.headers.items())
        self._writer.write(head.encode() + b"content-length: %d\r\n\r\n" % len(asked.body) + asked.body)
        return await self.answer(has_body=asked.method != "HEAD")

    async def answer(self, *, has_body: bool = True) -> tuple[int, dict[str, str], bytes]:
        async with asyncio.timeout(PATIENCE):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:-2])
            headers = {name.lower(): value for name, value in headers.items()}
            size = int(headers.get("content-length", 0)) if has_body else 0
            return int(lines[0].split()[1]), headers, await self._reader.readexactly(size)

    async def until(self, text: bytes) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.readuntil(text)

    async def rest(self) -> bytes:
        async with asyncio.timeout(PATIENCE):
            return await self._reader.read()


@asynccontextmanager
async def client_of(display: Display) -> AsyncIterator[Client]:
    _, port = await display.start("127.0.0.1", 0)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield Client(reader, writer)
    finally:
        writer.transport.abort()
        await display.stop(PATIENCE)


def request_of(asked: Ask) -> Request:
    headers = tuple((name.encode(), value.encode()) for name, value in asked.headers.items())
    path, _, query = asked.target.partition("?")
    return Request(asked.method, asked.target, path, query, headers, asked.body, "127.0.0.1:1")


def answer_of(display: Display, asked: Ask) -> Response:
    answer = display.handle(request_of(asked))
    assert isinstance(answer, Response)
    return answer


def listed(display: Display, query: str = "") -> dict[str, object]:
    answer = answer_of(display, Ask(method="GET", target=f"/events{query}"))
    assert answer.status == 200
    result: dict[str, object] = json.loads(answer.body)
    return result


def sent(event: CloudEvent) -> Ask:
    headers, body = encode(event)
    return Ask({name.decode(): value.decode() for name, value in headers}, body)


def an_event(number: int = 1, **attributes: str) -> CloudEvent:
    return CloudEvent(id=str(number), **{"source": "/s", "type": "t", **attributes})  # type: ignore[arg-type]


# As Knative's.


def test_every_recorded_request_was_reconstructed() -> None:
    assert list(recorded()) == list(ASKED)
    assert len(ASKED) == 26


@pytest.mark.parametrize("name", ASKED)
async def test_it_answers_and_prints_as_knatives_does_or_as_we_decided(name: str) -> None:
    printed: list[bytes] = []
    expected = OURS.get(name, recorded()[name])
    async with client_of(Display(write=printed.append)) as client:
        status, headers, body = await client.ask(ASKED[name])
    assert (status, b"".join(printed)) == (expected.status, expected.printed)
    assert body.startswith(expected.body) if name in OURS else body == expected.body
    if status == 400:
        assert headers["content-type"] == "text/plain"


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [
        ("GET", "/any", 405),
        ("DELETE", "/", 405),
        ("OPTIONS", "/events", 405),
        ("HEAD", "/any", 415),
        ("POST", "/healthz", 204),
        ("HEAD", "/healthz", 204),
        ("POST", "/healthz?", 415),
        ("GET", "/healthz?x", 405),
        ("GET", "//healthz", 405),
        ("GET", "/%68ealthz", 405),
        ("PATCH", "/", 415),
        ("POST", "/events", 415),
    ],
)
def test_methods_and_paths_are_told_apart_as_knatives_does_it(method: str, target: str, status: int) -> None:
    assert answer_of(Display(), Ask(method=method, target=target)).status == status


@pytest.mark.parametrize("target", ["/", "/any/path?x=y", "/events", "/events/stream", "/%zz"])
def test_events_are_received_at_every_path(target: str) -> None:
    display = Display()
    assert answer_of(display, sent(an_event())._replace(target=target)) == Response(200)
    assert display.events() == [an_event()]


def test_all_that_is_missing_is_told_at_once() -> None:
    answer = answer_of(Display(), Ask({"ce-specversion": "1.0"}))
    assert (answer.status, sorted(answer.body.decode().splitlines())) == (
        400,
        ["id: MUST be a non-empty string", "source: REQUIRED", "type: MUST be a non-empty string"],
    )


@pytest.mark.parametrize("version", ["", '"specversion":"2.0",'], ids=["none", "unknown"])
def test_a_structured_event_without_a_known_specversion_is_told_so(version: str) -> None:
    answer = answer_of(Display(), structured(f'{{{version}"id":"1","source":"/s","type":"t"}}'))
    assert (answer.status, answer.body.startswith(b"specversion: ")) == (400, True)


def test_header_values_are_decoded_where_that_is_set() -> None:
    display = Display(percent_decode=True)
    answer_of(display, binary(subject="caf%C3%A9%20x"))
    assert display.events()[0].subject == "café x"


# Printing.


def test_an_empty_batch_is_accepted_and_prints_nothing() -> None:
    printed: list[bytes] = []
    empty = Ask({"content-type": "application/cloudevents-batch+json"}, b"[]")
    assert answer_of(Display(write=printed.append), empty).status == 200
    assert printed == []


def test_the_events_of_a_batch_are_printed_in_one_piece() -> None:
    printed: list[bytes] = []
    batch = encode_batch([an_event(1), an_event(2)])
    answer_of(Display(write=printed.append), Ask({"content-type": "application/cloudevents-batch+json"}, batch))
    assert len(printed) == 1
    assert printed[0].count("☁️".encode()) == 2


def test_an_event_is_printed_before_it_is_answered() -> None:
    order: list[str] = []
    answer_of(Display(write=lambda _: order.append("printed")), sent(an_event()))
    order.append("answered")
    assert order == ["printed", "answered"]


def test_a_closed_standard_output_is_logged_once_and_events_are_still_received(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def closed(_: bytes) -> None:
        raise BrokenPipeError("Broken pipe")

    display = Display(write=closed)
    assert [answer_of(display, sent(an_event(n))).status for n in (1, 2)] == [200, 200]
    assert len(display.events()) == 2
    assert [(record.levelno, record.message) for record in caplog.records] == [
        (logging.WARNING, "events are no longer printed")
    ]


def test_a_full_pipe_holds_back_and_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    read = b""

    def read_when_full(*_: object) -> None:
        nonlocal read
        read += os.read(reading, 1 << 20)

    stdout = os.dup(1)
    os.dup2(writing, 1)
    monkeypatch.setattr(select, "select", read_when_full)
    try:
        write_stdout(b"x" * 300_000 + b"end")
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(writing)
    read_when_full()
    os.close(reading)
    assert read == b"x" * 300_000 + b"end"


def test_requests_are_logged_where_that_is_set(capsys: pytest.CaptureFixture[str]) -> None:
    answer_of(Display(log_requests=True), Ask(method="GET", target="/healthz"))
    assert json.loads(capsys.readouterr().err)["requestURI"] == "/healthz"


# Limits.


async def test_a_body_beyond_the_limit_is_refused() -> None:
    async with client_of(Display(limits=Limits(body_bytes=100))) as client:
        status, _, _ = await client.ask(binary(b"x" * 101))
        assert status == 413


def test_what_is_kept_is_bounded_in_number_and_bytes() -> None:
    display = Display(keep_events=3)
    for number in range(5):
        answer_of(display, sent(an_event(number)))
    assert [event.id for event in display.events()] == ["2", "3", "4"]
    small = Display(keep_bytes=5000)
    for number in range(5):
        answer_of(small, binary(b"x" * 2000, id=str(number + 1)))
    assert [event.id for event in small.events()] == ["5"]
    assert listed(small)["dropped"] == 4


def test_data_too_large_to_be_kept_is_printed_whole_and_marked_in_the_list() -> None:
    printed: list[bytes] = []
    display = Display(keep_bytes=5000, write=printed.append)
    answer_of(display, binary(b"x" * 9000))
    assert b"x" * 9000 in printed[0]
    events = listed(display)["events"]
    assert isinstance(events, list)
    (item,) = events
    assert (item["cut"], item["size"], "data" in item["event"]) == (True, 9000, False)


# Our pages.


class FixedClock:
    def now(self) -> datetime:
        return NOON


def test_the_list_holds_what_was_received() -> None:
    display = Display(clock=FixedClock())
    answer_of(display, sent(an_event(1)))
    answer_of(display, binary(id=""))
    assert listed(display) == {
        "events": [
            {
                "seq": 1,
                "received": "2026-11-21T12:00:00Z",
                "size": 0,
                "event": {"specversion": "1.0", "id": "1", "source": "/s", "type": "t"},
            }
        ],
        "total": 1,
        "kept": 1,
        "dropped": 0,
        "refused": 1,
        "refusal": "id: MUST be a non-empty string",
    }


@pytest.mark.parametrize(
    ("query", "ids"),
    [
        ("?type=a", "13"),
        ("?type=a&limit=1", "3"),
        ("?source=/x%20y", "2"),
        ("?type=a&source=/s", "13"),
        ("?type=", ""),
        ("?limit=0", ""),
        ("?limit=2", "23"),
        ("?limit=&unknown=1", "123"),
    ],
)
def test_the_list_can_be_narrowed(query: str, ids: str) -> None:
    display = Display()
    for number, kind, source in ((1, "a", "/s"), (2, "b", "/x%20y"), (3, "a", "/s")):
        answer_of(display, sent(an_event(number, type=kind, source=source)))
    query = query.replace("/x%20y", "/x%2520y")
    events = listed(display, query)["events"]
    assert isinstance(events, list)
    assert "".join(item["event"]["id"] for item in events) == ids


@pytest.mark.parametrize("limit", ["-1", "many", "1.5", "٣"])
def test_a_limit_that_is_no_number_is_refused(limit: str) -> None:
    answer = answer_of(Display(), Ask(method="GET", target=f"/events?limit={limit}"))
    assert (answer.status, answer.body) == (400, b"limit: MUST be a number\n")


def header(answer: Response, name: bytes) -> str:
    (value,) = (value for key, value in answer.headers if key == name)
    return value.decode()


def test_the_page_runs_nothing_but_its_own_script_and_asks_nobody_else() -> None:
    page = answer_of(Display(), Ask(method="GET", target="/?utm=x"))
    html = page.body.decode()
    policy = dict(part.split(" ", 1) for part in header(page, b"Content-Security-Policy").split("; "))
    for kind in ("script", "style"):
        (own,) = re.findall(f"<{kind}>(.*?)</{kind}>", html, re.DOTALL)
        assert policy[f"{kind}-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(own.encode()).digest()).decode()}'"
    assert policy["default-src"] == policy["base-uri"] == policy["frame-ancestors"] == "'none'"
    assert policy["connect-src"] == "'self'"
    assert not re.findall(r"""(?:src|href|action)=(?!["']?data:)""", html)
    assert not re.findall(r"""\son[a-z]+=|\sstyle=|innerHTML|outerHTML|insertAdjacent|document\.write|eval\(""", html)


@pytest.mark.parametrize("target", ["/", "/events"])
def test_what_strangers_sent_is_guarded(target: str) -> None:
    answer = answer_of(Display(), Ask(method="GET", target=target))
    assert header(answer, b"X-Content-Type-Options") == "nosniff"
    assert header(answer, b"Cross-Origin-Resource-Policy") == "same-origin"
    assert header(answer, b"Cache-Control") == "no-store"
    assert b"Access-Control-Allow-Origin" not in dict(answer.headers)


async def test_head_of_the_page_has_no_body() -> None:
    async with client_of(Display()) as client:
        status, headers, _ = await client.ask(Ask(method="HEAD"))
        assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
        assert int(headers["content-length"]) > 1000
        assert (await client.ask(Ask(method="GET", target="/healthz")))[0] == 204


async def test_a_page_sees_events_arrive_and_comes_back_to_where_it_was() -> None:
    display = Display()
    answer_of(display, sent(an_event(1)))
    async with client_of(display) as client:
        status, headers, _ = await client.ask(Ask(method="GET", target="/events/stream"))
        assert (status, headers["content-type"]) == (200, "text/event-stream")
        first = await client.until(b'"id":"1","source":"/s","type":"t"}}\n\n')
        answer_of(display, sent(an_event(2)))
        await client.until(b'"id":"2","source":"/s","type":"t"}}\n\n')
        answer_of(display, binary(id=""))
        assert b'"refused": 1' in await client.until(b'"refusal": "id: MUST be a non-empty string"}\n\n')
        stopping = asyncio.create_task(display.stop(PATIENCE))
        await client.rest()
        await stopping
    (last,) = re.findall(rb"^id: (\S+)$", first, re.MULTILINE)
    assert re.fullmatch(rb"[0-9a-f]{8}-1", last)


async def test_last_event_id_is_obeyed() -> None:
    display = Display()
    for number in (1, 2, 3):
        answer_of(display, sent(an_event(number)))
    async with client_of(display) as client:
        await client.ask(Ask(method="GET", target="/events/stream"))
        (run,) = re.findall(rb'"run":"(\w+)"', await client.until(b'"id":"3","source":"/s","type":"t"}}\n\n'))
        answer = display.handle(request_of(Ask({"Last-Event-ID": f"{run.decode()}-2"}, b"", "GET", "/events/stream")))
        assert not isinstance(answer, Response)
        stopping = asyncio.create_task(display.stop(PATIENCE))
        await client.rest()
        await stopping


async def test_pages_are_limited() -> None:
    async with client_of(Display(pages=0)) as client:
        assert (await client.ask(Ask(method="GET", target="/events/stream")))[0] == 503
