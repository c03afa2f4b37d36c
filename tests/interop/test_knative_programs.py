"""Knative's own programs, where KNATIVE_BIN names the folder they are in: its heartbeats and ours, its display and ours."""

from __future__ import annotations

import asyncio
import http.client
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from tests.interop.events import LISTED
from tests.process import HEARTBEAT, IN_TIME, POD, WELLHEAD, Program, started

from wellhead.http_binding import encode
from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from wellhead.http_server import Request

DISPLAY_PORT: Final = 8080  # Knative's display listens nowhere else
DIFFERENT: Final = {b"user-agent", b"accept-encoding", b"ce-id", b"ce-time", b"traceparent"}
ARGUMENTS: Final = (
    (),
    ("-label=L", "-msg", "hi there", "--eventType=my.type", "-eventSource=/my/src"),
    ('--label="la\\"bel\\n"', "--msg=hello <&> é\u2028", "--period", "1", "<no value>", "--label=ignored"),
    ('--label="broken\\q"',),
    ('--label="\\ud800"',),
)
WRONG: Final = (("--period=0",), ("--period=abc",), ("--period=-1s",), ("--nope",))


@pytest.mark.parametrize("arguments", ARGUMENTS, ids=" ".join)
async def test_one_beat_of_theirs_and_one_of_ours_are_the_same_request(
    arguments: tuple[str, ...], knative_bin: Path
) -> None:
    env = {**POD, "ONE_SHOT": "true", "K_CE_OVERRIDES": '{"extensions":{"sp":"a b","EX":"1"}}'}
    requests = [
        await one_beat(*program, *arguments, env=env) for program in ((str(knative_bin / "heartbeats"),), HEARTBEAT)
    ]
    theirs, ours = ((request.method, request.target, headers(request), request.body) for request in requests)
    assert ours == theirs


@pytest.mark.parametrize("arguments", WRONG, ids=" ".join)
async def test_what_theirs_does_not_start_with_ours_does_not_either(
    arguments: tuple[str, ...], knative_bin: Path
) -> None:
    for program in ((str(knative_bin / "heartbeats"),), HEARTBEAT):
        async with started(*program, *arguments, env={**POD, "K_SINK": "http://127.0.0.1:1", "ONE_SHOT": "1"}) as it:
            assert await it.ended() != 0


@pytest.mark.parametrize("structured", [False, True], ids=["binary", "structured"])
async def test_their_display_and_ours_print_and_answer_the_same(knative_bin: Path, *, structured: bool) -> None:
    ours_command = (WELLHEAD, "display", f"--port={DISPLAY_PORT}", "--address=127.0.0.1")
    seen = []
    for command in ((str(knative_bin / "event_display"),), ours_command):
        async with display(*command) as it:
            answers = [
                await asyncio.to_thread(posted, *encode(event, structured=structured)) for event in LISTED.values()
            ]
            await it.stdout.has(lambda output: output.octets.count("☁️".encode()) >= len(LISTED))
            it.process.terminate()
            await it.ended()
            seen.append((answers, it.stdout.octets))
    theirs, ours = seen
    assert ours == theirs


async def test_our_heartbeats_are_shown_by_their_display_and_theirs_by_ours(knative_bin: Path) -> None:
    ours_command = (WELLHEAD, "display", f"--port={DISPLAY_PORT}", "--address=127.0.0.1")
    env = {**POD, "ONE_SHOT": "true", "K_SINK": f"http://127.0.0.1:{DISPLAY_PORT}"}
    pairs = ((HEARTBEAT, (str(knative_bin / "event_display"),)), ((str(knative_bin / "heartbeats"),), ours_command))
    texts = []
    for source, sink in pairs:
        async with display(*sink) as shown:
            async with started(*source, "--label=x", env=env) as it:
                assert await it.ended() == 0
            await shown.stdout.line('"label": "x"')
            texts.append([line for line in shown.stdout.lines if not line.startswith(("  id:", "  time:"))])
    assert texts[0] == texts[1]


async def one_beat(*command: str, env: dict[str, str]) -> Request:
    async with RecordingSink() as sink:
        async with started(*command, env={**env, "K_SINK": f"{sink.url}some/path?x=y%20z"}) as it:
            await sink.accepted(1)
            assert await it.ended() == 0
        (received,) = sink.requests
        return received.request


def headers(request: Request) -> dict[bytes, bytes]:
    fields = {name.lower(): value for name, value in request.headers if name.lower() not in DIFFERENT}
    fields.pop(b"host")
    return fields


@asynccontextmanager
async def display(*command: str) -> AsyncIterator[Program]:
    """A display, answering on its port: it is asked until it does, as Knative's does not say that it listens."""
    async with started(*command) as it:
        async with asyncio.timeout(IN_TIME):
            while not await asyncio.to_thread(healthy):
                assert it.process.returncode is None, it.stderr.text
        yield it


def healthy() -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", DISPLAY_PORT, timeout=IN_TIME)
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 204
    except OSError:
        return False
    finally:
        connection.close()


def posted(fields: list[tuple[bytes, bytes]], body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", DISPLAY_PORT, timeout=IN_TIME)
    try:
        connection.request("POST", "/", body, {name.decode(): value.decode() for name, value in fields})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()
