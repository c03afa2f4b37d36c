"""What one owner of a partition tells the next in the commit's metadata: it saves repeats, and never an event."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import pytest
from aiokafka.errors import UnknownError
from aiokafka.structs import TopicPartition
from tests.kafka_fake import T0, FakeKafka, FakeRecord, Log
from tests.test_kafka import CONFIG, GROUP, Replica, body, committed, kafka, numbers, values

from wellhead.testing import Answer, FakeTransport
from wellhead_adapters.kafka.lanes import Ordering

__all__ = ("kafka",)  # a fixture
pytestmark = pytest.mark.looptime

CONFIG_ALONE: Final = replace(CONFIG, ordering=Ordering.UNORDERED)
PLACE: Final = TopicPartition("t", 0)
FAILS: Final = b"4"
HOUR: Final = 3_600_000


async def leave_one_behind(kafka: FakeKafka, *, records: int = 10) -> None:
    """A first owner to whose sink all but one record go; it commits, and goes."""
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == FAILS else Answer())
    async with Replica(kafka, CONFIG_ALONE, transport=transport):
        await transport.accepted(records - 1)
        await asyncio.sleep(1.1)
    assert committed(kafka) == 4


async def sent_by_the_next(kafka: FakeKafka) -> list[bytes | None]:
    async with Replica(kafka, CONFIG_ALONE) as two:
        await asyncio.sleep(5)
        return values(two.transport)


def write(log: Log, offset: int, timestamp: int, value: bytes) -> None:
    log.records.append(FakeRecord("t", 0, offset, timestamp, None, value))
    log.end = offset + 1


async def test_what_was_done_behind_a_record_that_fails_does_not_come_again(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 10))
    await leave_one_behind(kafka)
    assert await sent_by_the_next(kafka) == [FAILS]


async def test_where_all_of_it_is_gone_by_then_commits_go_on(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 10))
    await leave_one_behind(kafka)
    log = kafka.logs["t"][0]
    log.records = [record for record in log.records if record.offset < 4]
    kafka.mark("t")  # what is left there is no record
    async with Replica(kafka, CONFIG_ALONE) as two:
        await asyncio.sleep(5)
        kafka.produce("t", b"new")
        await asyncio.sleep(5)
        assert values(two.transport) == [b"new"]
        assert committed(kafka) == 12


async def test_what_is_written_where_the_log_was_cut_off_is_sent(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 10))
    await leave_one_behind(kafka)
    log = kafka.logs["t"][0]
    log.records = [record for record in log.records if record.offset < 7]
    for offset in (7, 8, 9):
        write(log, offset, T0 + HOUR + offset, b"new%d" % offset)
    assert await sent_by_the_next(kafka) == [FAILS, b"new7", b"new8", b"new9"]


async def test_of_a_topic_made_anew_all_is_sent_though_every_timestamp_is_the_same(kafka: FakeKafka) -> None:
    for offset in range(10):
        write(kafka.logs["t"][0], offset, T0, b"%d" % offset)
    await leave_one_behind(kafka)
    kafka.logs["t"][0] = Log()
    for offset in range(10):
        write(kafka.logs["t"][0], offset, T0, b"other%d" % offset)
    assert await sent_by_the_next(kafka) == [b"other%d" % offset for offset in range(4, 10)]


async def test_of_a_mirror_with_other_offsets_no_record_is_passed_that_was_not_done(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 6))
    kafka.mark("t")
    kafka.mark("t")
    kafka.produce("t", b"6", b"7")
    await leave_one_behind(kafka, records=8)
    kafka.produce("t", b"8", b"9")  # while nobody reads
    there = kafka.logs["t"][0].records
    kafka.logs["t"][0] = Log()
    for offset, record in enumerate(there):
        kafka.logs["t"][0].records.append(replace(record, offset=offset))
        kafka.logs["t"][0].end = offset + 1
    assert await sent_by_the_next(kafka) == [FAILS, b"8", b"9"]


async def test_brokers_that_refuse_it_without_saying_why_get_plain_offsets(
    kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.produce("t", *numbers(0, 10))
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == FAILS else Answer())
    async with Replica(kafka, CONFIG_ALONE, transport=transport):
        (consumer,) = kafka.consumers
        commit = consumer.commit

        async def refuse(offsets: dict[TopicPartition, tuple[int, str]]) -> None:
            if any("done=" in metadata for _, metadata in offsets.values()):
                raise UnknownError
            await commit(offsets)

        monkeypatch.setattr(consumer, "commit", refuse)
        await transport.accepted(9)
        await asyncio.sleep(2.1)
        assert committed(kafka) == 4
    assert caplog.messages.count("the brokers take little metadata: more comes twice where a member dies") == 1
    assert "done=" not in str(kafka.committed[GROUP, PLACE])
