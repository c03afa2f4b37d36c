"""Server-sent events: nothing is sent twice or silently left out, and a follower costs no memory."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, NamedTuple

import pytest

from wellhead.display.kept import KeptEvents
from wellhead.display.stream import EventStream
from wellhead.event import CloudEvent
from wellhead.http_server.exchange import Response, Takeover

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NOON = datetime(2026, 11, 21, 12, tzinfo=UTC)
PATIENCE = 20.0


class Message(NamedTuple):
    event: str
    id: str
    data: dict[str, object]


class Page:
    """The client's side of a connection in memory: it takes what is written as long as it is reading."""

    def __init__(self) -> None:
        self.written = b""
        self.most_unread = 0
        self._read = 0
        self._reading = asyncio.Event()
        self._reading.set()
        self._closed = asyncio.Event()
        self._news = asyncio.Event()

    # What the stream calls.

    def write(self, data: bytes) -> None:
        self.written += data
        if not self._reading.is_set():
            self.most_unread += len(data)
        self._news.set()

    async def drain(self) -> None:
        await self._reading.wait()
        if self._closed.is_set():
            raise ConnectionResetError

    async def wait_closed(self) -> None:
        await self._closed.wait()

    def close(self) -> None:
        self._closed.set()

    def abort(self) -> None:
        self.leave()

    # What a test calls.

    def leave(self) -> None:
        self._closed.set()
        self._reading.set()

    def stop_reading(self) -> None:
        self._reading.clear()

    def read_on(self) -> None:
        self._reading.set()

    @property
    def is_closed(self) -> bool:
        return self._closed.is_set()

    async def until(self, text: bytes) -> None:
        """Wait until ``text`` is in what came since the last time."""
        async with asyncio.timeout(PATIENCE):
            while (found := self.written.find(text, self._read)) < 0:
                self._news.clear()
                await self._news.wait()
            self._read = found + len(text)

    def messages(self, *, also_counts: bool = False) -> list[Message]:
        found = []
        for block in self.written.partition(b"\r\n\r\n")[2].decode().split("\n\n")[:-1]:
            lines = [line.partition(": ")[::2] for line in block.split("\n")]
            data = "\n".join(value for name, value in lines if name == "data")
            fields = dict(lines)
            if data and (also_counts or fields.get("event") != "counts"):
                found.append(Message(fields.get("event", ""), fields.get("id", ""), json.loads(data)))
        return found

    def numbers(self) -> list[object]:
        return [message.data["seq"] for message in self.messages() if not message.event]


class Source:
    """A stream over a ring of ten events."""

    def __init__(self, *, keep: int = 10, octets: int = 1 << 20, heartbeat_seconds: float = PATIENCE) -> None:
        self.kept = KeptEvents(events=keep, octets=octets)
        self.stream = EventStream(
            self.kept,
            lambda: b'{"total":%d}' % self.kept.total,
            most=2,
            headers=((b"X-Guard", b"yes"),),
            pace_seconds=0,
            heartbeat_seconds=heartbeat_seconds,
        )

    def add(self, count: int = 1, data: bytes = b"{}") -> None:
        for _ in range(count):
            self.kept.add(CloudEvent(id="1", source="/s", type="t", data=data), NOON)
        self.stream.announce()

    @asynccontextmanager
    async def page(self, last_event_id: str | None = None) -> AsyncIterator[Page]:
        answer = self.stream.follow(last_event_id)
        assert isinstance(answer, Takeover)
        page = Page()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(answer.run(page))  # type: ignore[arg-type]
            try:
                await page.until(b'"total":%d' % self.kept.total)
                yield page
            finally:
                page.leave()


async def test_a_page_gets_what_is_kept_and_then_what_comes() -> None:
    source = Source()
    source.add(12)
    async with source.page() as page:
        assert page.numbers() == list(range(3, 13))
        source.add(2)
        await page.until(b'"total":14')
        assert page.numbers() == list(range(3, 15))
        assert {message.event for message in page.messages()} == {"hello", ""}  # older ones are no gap for a new page
    assert page.written.startswith(
        b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\nX-Guard: yes\r\n\r\n"
    )


async def test_a_page_that_comes_back_goes_on_where_it_was() -> None:
    source = Source()
    source.add(5)
    async with source.page() as page:
        last = page.messages()[-2].id
    assert last.endswith("-4")
    async with source.page(last) as page:
        assert page.numbers() == [5]


async def test_a_page_that_was_away_too_long_is_told_what_it_missed() -> None:
    source = Source()
    source.add(3)
    async with source.page() as page:
        last = page.messages()[-1].id
    source.add(15)
    async with source.page(last) as page:
        assert page.messages()[1] == Message("gap", "", {"missed": 5})
        assert page.numbers() == list(range(9, 19))


@pytest.mark.parametrize("last", ["", "17", "0123abcd-2", "0123abcd-x", "é-1", "-", "0123abcd-" + "9" * 5000])
async def test_an_id_of_another_process_or_of_nobody_starts_from_the_oldest(last: str) -> None:
    source = Source()
    source.add(3)
    async with source.page(last) as page:
        assert page.numbers() == [1, 2, 3]


async def test_an_id_from_the_future_is_where_we_are_now() -> None:
    source = Source()
    source.add(3)
    async with source.page() as page:
        run = page.messages()[0].data["run"]
    async with source.page(f"{run}-999") as page:
        assert page.numbers() == []
        source.add()
        await page.until(b'"total":4')
        assert page.numbers() == [4]


async def test_events_that_could_not_be_kept_are_told_as_missed() -> None:
    source = Source(octets=2000)
    async with source.page() as page:
        source.kept.add(CloudEvent(id="x" * 5000, source="/s", type="t"), NOON)
        source.add()
        source.kept.add(CloudEvent(id="x" * 5000, source="/s", type="t"), NOON)
        await page.until(b'"total":3')
    assert [(message.event, message.data.get("missed")) for message in page.messages()[1:]] == [
        ("gap", 1),
        ("", None),
        ("gap", 1),
    ]


async def test_a_page_that_does_not_read_holds_nothing_but_its_place() -> None:
    source = Source()
    source.add()
    async with source.page() as page:
        page.stop_reading()
        for _ in range(200):
            source.add(50, data=b"x" * 1000)
            await asyncio.sleep(0)
        assert page.most_unread < 200_000  # of ten million
        page.read_on()
        await page.until(b'"total":10001')
        missed = sum(int(str(message.data["missed"])) for message in page.messages() if message.event == "gap")
        assert missed + len(page.numbers()) == 10001
        assert page.numbers()[-1] == 10001


async def test_large_events_are_sent_a_few_at_a_time() -> None:
    source = Source()
    source.add(10, data=b'"%b"' % (b"x" * 30_000))
    async with source.page() as page:
        assert page.numbers() == list(range(1, 11))


async def test_line_breaks_in_data_do_not_break_the_stream() -> None:
    source = Source()
    source.add(data=b'{"a":\n1,\r\n"b":\r2}')
    async with source.page() as page:
        (message,) = page.messages()[1:]
    event = message.data["event"]
    assert isinstance(event, dict)
    assert event["data"] == {"a": 1, "b": 2}


async def test_silence_is_filled_with_comments() -> None:
    source = Source(heartbeat_seconds=0.01)
    async with source.page() as page:
        await page.until(b"\n\n: nothing new\n\n")
        await page.until(b"\n\n: nothing new\n\n")
        source.add()
        await page.until(b'"total":1')


async def test_one_page_too_many_is_answered_503_until_one_leaves() -> None:
    source = Source()
    async with source.page():
        async with source.page():
            answer = source.stream.follow(None)
            assert isinstance(answer, Response)
            assert answer.status == 503
        async with source.page():
            pass


async def test_when_the_stream_ends_its_connections_are_closed() -> None:
    source = Source()
    async with source.page() as page, source.page() as slow:
        slow.stop_reading()
        source.stream.end()
        async with asyncio.timeout(PATIENCE):
            await page.wait_closed()
    assert isinstance(source.stream.follow(None), Response)


async def test_a_mistake_in_the_figures_is_not_hidden() -> None:
    def broken() -> bytes:
        raise ZeroDivisionError

    stream = EventStream(KeptEvents(events=1, octets=1), broken, most=1, headers=())
    answer = stream.follow(None)
    assert isinstance(answer, Takeover)
    with pytest.raises(ExceptionGroup):
        await answer.run(Page())
