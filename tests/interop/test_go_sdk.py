"""Our events into the Go SDK's receiver, and its sender's events into our display: both print the same octets.

The SDK is what Knative's own programs are made of; where the Go receiver is named here, event_display would answer and
print so.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import subprocess
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import HealthCheck, given, settings
from tests.interop.events import LISTED, events
from tests.process import HEARTBEAT, IN_TIME, POD, WELLHEAD, started

from wellhead.batch import BatchLimits
from wellhead.binding import SinkBinding
from wellhead.clock import SystemClock
from wellhead.display.text import event_text
from wellhead.event import CloudEvent
from wellhead.host import Host
from wellhead.http_binding import decode, encode, encode_structured
from wellhead.transport.http import HttpTransport

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from tests.interop.peers import GoPeer


MODES: Final = {"binary": {}, "structured": {"structured": True}, "percent-encoded": {"percent": True}}
GENERATED: Final = settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


# --- ours into theirs ---


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", LISTED)
def test_a_listed_event_of_ours_is_printed_by_go_as_by_us(name: str, mode: str, receiver: GoPeer) -> None:
    ours, theirs = both_printed(LISTED[name], mode, receiver)
    assert theirs == ours


@pytest.mark.parametrize("mode", MODES)
@GENERATED
@given(event=events())
def test_any_valid_event_of_ours_is_printed_by_go_as_by_us(event: CloudEvent, mode: str, receiver: GoPeer) -> None:
    ours, theirs = both_printed(event, mode, receiver)
    assert theirs == ours


@pytest.mark.parametrize("structured", [False, True], ids=["binary", "structured"])
async def test_what_our_sink_sends_arrives_and_is_printed_as_it_was_sent(*, structured: bool, receiver: GoPeer) -> None:
    transport = HttpTransport()
    host = Host(transport, SystemClock())
    sink = host.open_sink("it", SinkBinding(sink=receiver.url), structured=structured)
    try:
        for event in LISTED.values():
            before = len(receiver.stdout)
            await sink.send(event)
            assert receiver.stdout[before:] == as_received(event, structured=structured)
    finally:
        await transport.aclose()


@pytest.mark.parametrize("flags", [(), ("--mode=structured",), ("--headers=percent-encode",)], ids=" ".join)
async def test_heartbeats_of_the_program_arrive_at_go(flags: tuple[str, ...], receiver: GoPeer) -> None:
    before = len(receiver.stdout)
    env = {**POD, "K_SINK": receiver.url, "ONE_SHOT": "1", "K_CE_OVERRIDES": '{"extensions":{"sp":"a b \\"c\\""}}'}
    async with started(*HEARTBEAT, *flags, "--label", '"la\\"bel"', "--msg=hello <&> é", env=env) as it:
        assert await it.ended() == 0
    printed = receiver.stdout[before:].decode()
    shown = "a%20b%20%22c%22" if "percent" in "".join(flags) else 'a b "c"'
    assert f"Extensions,\n  beats: true\n  heart: yes\n  sp: {shown}\n  the: 42\n" in printed
    data = '    "id": 1,\n    "label": "la\\"bel",\n    "msg": "hello \\u003c\\u0026\\u003e é"\n'
    assert printed.endswith("Data,\n  {\n" + data + "  }\n")


def test_a_batch_is_skipped_because_the_go_sdk_cannot_read_one(receiver: GoPeer) -> None:
    """So it is never sent unless somebody asks for it: Go answers 5xx, and a sender would retry for ever."""
    status, _ = posted(receiver.url, [(b"content-type", b"application/cloudevents-batch+json")], b"[]")
    assert status == 500


async def test_batches_of_ours_are_read_by_the_go_sdk_and_one_refused_event_takes_no_other_along(
    receiver: GoPeer,
) -> None:
    transport = HttpTransport()
    host = Host(transport, SystemClock())
    limits = BatchLimits(events=len(LISTED) + 1)
    sink = host.open_sink("it", SinkBinding(sink=f"{receiver.url}/batch"), batch=limits)
    refused = CloudEvent(id="no", source="/spring", type="refused")
    try:
        sent = [*list(LISTED.values())[:7], refused, *list(LISTED.values())[7:]]
        async with asyncio.timeout(IN_TIME):
            ends = await asyncio.gather(*map(sink.send, sent), return_exceptions=True)
        assert [event.id for event, end in zip(sent, ends, strict=True) if end is not None] == ["no"]
        printed = receiver.stdout
        shown = [as_received(event, structured=True) for event in LISTED.values()]
        assert all(text in printed for text in shown)
        assert len(printed) == sum(map(len, shown))
    finally:
        await transport.aclose()


# --- theirs into ours ---


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_listed_events_of_gos_sender_are_answered_and_printed_by_our_display_as_by_go(
    mode: str, peers: Path, receiver: GoPeer
) -> None:
    await assert_same_display(list(LISTED.values()), mode, peers, receiver)


@pytest.mark.parametrize("mode", ["binary", "structured"])
async def test_generated_events_of_gos_sender_are_answered_and_printed_by_our_display_as_by_go(
    mode: str, peers: Path, receiver: GoPeer
) -> None:
    drawn: list[CloudEvent] = []

    @settings(deadline=None, max_examples=300, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(events())
    def draw(event: CloudEvent) -> None:
        drawn.append(event)

    await asyncio.to_thread(draw)
    # In binary mode Go takes even the no-break space from the ends of what is raw in a header; ours shows what came.
    sent = [event for event in drawn if mode == "structured" or not has_blank_ends(event)]
    await assert_same_display(sent, mode, peers, receiver)


async def assert_same_display(sent: Sequence[CloudEvent], mode: str, peers: Path, receiver: GoPeer) -> None:
    before = len(receiver.stdout)
    theirs = await asyncio.to_thread(go_sent, peers, receiver.url, mode, sent)
    expected = receiver.stdout[before:]
    async with started(WELLHEAD, "display", "--port=0", "--address=127.0.0.1") as display:
        url = json.loads(await display.stderr.line("the event display is open"))["url"]
        ours = await asyncio.to_thread(go_sent, peers, url, mode, sent)
        for event, their, our in zip(sent, theirs, ours, strict=True):
            assert our == their, event
        await display.stdout.has(lambda output: len(output.octets) >= len(expected))
        assert display.stdout.octets.splitlines(keepends=True) == expected.splitlines(keepends=True)
        assert await display.stop() == 0


# --- helpers ---


def has_blank_ends(event: CloudEvent) -> bool:
    values = (event.id, event.type, event.subject, *event.extensions.values())
    return any(isinstance(value, str) and value != value.strip() for value in values)


def both_printed(event: CloudEvent, mode: str, receiver: GoPeer) -> tuple[bytes, bytes]:
    headers, body = encode(event, **MODES[mode])
    before = len(receiver.stdout)
    status, said = posted(receiver.url, headers, body)
    assert status == 200, (status, said, event)
    (received,) = decode(headers, body, percent=False)
    return event_text(received), receiver.stdout[before:]


def as_received(event: CloudEvent, *, structured: bool) -> bytes:
    headers, body = encode(event, structured=structured)
    (received,) = decode(headers, body, percent=False)
    return event_text(received)


def posted(url: str, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=IN_TIME)
    try:
        connection.putrequest("POST", "/", skip_accept_encoding=True)
        for name, value in (*headers, (b"content-length", str(len(body)).encode())):
            connection.putheader(name.decode(), value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def go_sent(peers: Path, url: str, mode: str, sent: Sequence[CloudEvent]) -> list[tuple[str, int]]:
    """Have Go's sender send these, one after another; the id and the status of each."""
    lines = b"".join(b'{"mode":"%b","event":%b}\n' % (mode.encode(), encode_structured(event)) for event in sent)
    command = [str(peers / "sender"), "-sink", url]
    done = subprocess.run(command, input=lines, capture_output=True, timeout=120, check=True)
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    return [(answer["id"], answer["status"]) for answer in answers]
