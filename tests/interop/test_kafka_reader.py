"""Our Kafka adapter as a program, on a real broker: what arrives, what is committed, what is said when it cannot."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from tests.interop.kafka_cluster import PASSWORD, UNPRIVILEGED, USER, Cluster, create_topic, free_ports
from tests.process import IN_TIME, WELLHEAD, Program, started

from wellhead.testing import Answer, Hang, RecordingSink
from wellhead_adapters.kafka.ahead import told
from wellhead_adapters.kafka.starting import done_ahead

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping
    from pathlib import Path

READY: Final = "source is ready"
OFTEN: Final = 0.05


def environment(kafka: Cluster, sink: RecordingSink, topic: str, **own: str) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap,
        "KAFKA_TOPICS": topic,
        "KAFKA_CONSUMER_GROUP": f"group-of-{topic}",
        "KAFKA_INITIAL_OFFSET": "earliest",
        "KAFKA_SESSION_TIMEOUT": "3s",
        "KAFKA_COMMIT_INTERVAL": "100ms",
        "NAME": "mysource",
        "NAMESPACE": "myspace",
        "K_SINK": sink.url,
        "HEALTH_PORT": "0",
        "LOG_FORMAT": "json",
        **own,
    }


@asynccontextmanager
async def reading(variables: Mapping[str, str]) -> AsyncIterator[Program]:
    async with started(sys.executable, "-m", "wellhead_adapters.kafka", env=variables) as program:
        yield program


@asynccontextmanager
async def producing(kafka: Cluster, **options: str | int) -> AsyncIterator[AIOKafkaProducer]:
    async with AIOKafkaProducer(bootstrap_servers=kafka.bootstrap, acks="all", **options) as producer:
        yield producer


async def produce(kafka: Cluster, topic: str, values: Iterable[int], *, partition: int | None = None) -> None:
    async with producing(kafka) as producer:
        for value in values:
            await producer.send_and_wait(topic, b"%d" % value, b"key-%d" % (value % 10), partition=partition)


async def committed(kafka: Cluster, topic: str) -> dict[int, int]:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        found = await admin.list_consumer_group_offsets(f"group-of-{topic}")
    finally:
        await admin.close()
    return {place.partition: held.offset for place, held in found.items() if place.topic == topic and held.offset >= 0}


async def ends(kafka: Cluster, topic: str, partitions: int) -> dict[int, int]:
    places = [TopicPartition(topic, number) for number in range(partitions)]
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap) as consumer:
        return {place.partition: end for place, end in (await consumer.end_offsets(places)).items()}


async def all_committed(kafka: Cluster, topic: str, partitions: int) -> None:
    """Wait until the group's offsets are the ends of the topic, as whoever scales by lag wants them."""
    wanted = await ends(kafka, topic, partitions)
    async with asyncio.timeout(IN_TIME):
        while await committed(kafka, topic) != wanted:  # a broker tells nobody of a commit; asking takes a while
            pass


def values(sink: RecordingSink) -> list[int]:
    return [int(event.data or b"-1") for event in sink.events]


async def test_records_become_events_and_their_offsets_are_committed(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "read-me", partitions=3)
    async with RecordingSink() as sink:
        variables = environment(kafka, sink, "read-me")
        async with reading(variables) as program:
            await program.stderr.line(READY)
            await produce(kafka, "read-me", range(100))
            await sink.accepted(100)
            await all_committed(kafka, "read-me", 3)
            assert await program.stop() == 0
        assert sorted(values(sink)) == list(range(100))
        event = sink.events[0]
        assert event.type == "dev.knative.kafka.event"
        assert event.source == "/apis/v1/namespaces/myspace/kafkasources/mysource#read-me"
        partition, offset = event.extensions["knativekafkapartition"], event.extensions["knativekafkaoffset"]
        assert event.id == f"partition:{partition!s}/offset:{offset!s}"

        async with reading(variables) as program:  # the same group goes on where it was
            await program.stderr.line(READY)
            await produce(kafka, "read-me", [100])
            await sink.accepted(101)
            assert await program.stop() == 0
        assert sorted(values(sink)) == list(range(101))


async def test_two_of_a_group_share_the_partitions_and_one_takes_over(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "shared", partitions=4)
    async with RecordingSink() as sink:
        variables = environment(kafka, sink, "shared")
        async with reading(variables) as first:
            await first.stderr.line(READY)
            async with reading(variables) as second:
                await second.stderr.line(READY)
                assert json.loads(await second.stderr.line("partitions are assigned"))["partitions"] == 2
                await produce(kafka, "shared", range(200))
                await sink.accepted(200)
                second.process.kill()
                await produce(kafka, "shared", range(200, 400))
                await first.stderr.has(
                    lambda it: '"partitions": 4' in it.lines[-1] or it.text.count("are assigned") > 2
                )
                async with asyncio.timeout(IN_TIME):
                    while len(set(values(sink))) < 400:
                        await sink.accepted(len(sink.events) + 1)
            await all_committed(kafka, "shared", 4)
            assert await first.stop() == 0
    assert set(values(sink)) == set(range(400))


async def test_what_was_done_behind_a_record_that_fails_does_not_come_again_after_a_kill(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "ahead")
    await produce(kafka, "ahead", range(300))
    variables = {"KAFKA_ORDERING": "unordered", "KAFKA_GROUP_INSTANCE_ID": "one"}  # static: its place need not time out
    async with RecordingSink() as sink:
        sink.then(Hang())
        async with reading(environment(kafka, sink, "ahead", **variables)) as program:
            await sink.accepted(299)
            async with asyncio.timeout(IN_TIME):
                while await told_done(kafka, "ahead") != 299:
                    pass
            program.process.kill()
            await program.process.wait()
        async with reading(environment(kafka, sink, "ahead", **variables)) as program:
            await all_committed(kafka, "ahead", 1)
            assert await program.stop() == 0
        assert sorted(values(sink)) == list(range(300))


async def told_done(kafka: Cluster, topic: str) -> int:
    """How many records the commit says are done: those before its offset, and those that its metadata tells of."""
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        (held,) = (await admin.list_consumer_group_offsets(f"group-of-{topic}")).values()
    finally:
        await admin.close()
    return int(held.offset) + sum(run.last - run.first + 1 for run in told(done_ahead(held.metadata), held.offset))


async def test_of_transactions_what_was_committed_is_read_and_no_lag_is_left(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "transactions")
    async with producing(kafka, transactional_id="interop") as producer:
        for transaction in range(6):
            await producer.begin_transaction()
            for number in range(5):
                await producer.send_and_wait("transactions", b"%d" % (transaction * 5 + number))
            if transaction % 2:
                await producer.abort_transaction()
            else:
                await producer.commit_transaction()
    async with RecordingSink() as sink:
        async with reading(environment(kafka, sink, "transactions")) as program:
            await sink.accepted(15)
            await all_committed(kafka, "transactions", 1)  # the marks of transactions behind the last record too
            assert await program.stop() == 0
        assert values(sink) == [number for number in range(30) if number // 5 % 2 == 0]


async def test_a_compacted_topic_is_read_over_its_gaps(kafka: Cluster) -> None:
    settings = {
        "cleanup.policy": "compact",
        "segment.ms": "100",
        "min.cleanable.dirty.ratio": "0.01",
        "max.compaction.lag.ms": "100",
        "delete.retention.ms": "100",
    }
    await create_topic(kafka.bootstrap, "compacted", settings=settings)
    async with producing(kafka) as producer:
        for number in range(300):
            await producer.send_and_wait("compacted", b"%d" % number, b"key-%d" % (number % 3))
        async with asyncio.timeout(IN_TIME * 3):
            while (left := await held(kafka, "compacted")) > 250:
                # A segment ends when a record comes that is too late for it, and only ended ones are compacted.
                await producer.send_and_wait("compacted", b"-2", b"closes segments")
                await asyncio.sleep(OFTEN * 3)
    async with RecordingSink() as sink:
        async with reading(environment(kafka, sink, "compacted")) as program:
            await all_committed(kafka, "compacted", 1)
            assert await program.stop() == 0
        assert 3 <= len(sink.events) <= left + 5
        assert {297, 298, 299} <= set(values(sink))  # of each key the last


async def held(kafka: Cluster, topic: str) -> int:
    """How many records the topic holds by now."""
    place = TopicPartition(topic, 0)
    number = 0
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        consumer.assign([place])
        (end,) = (await consumer.end_offsets([place])).values()
        while await consumer.position(place) < end:
            number += sum(map(len, (await consumer.getmany(timeout_ms=100)).values()))
    return number


async def test_a_topic_that_is_not_there_yet_is_waited_for(kafka: Cluster) -> None:
    async with RecordingSink() as sink, reading(environment(kafka, sink, "yet-to-come")) as program:
        assert json.loads(await program.stderr.line("waiting for it"))["topic"] == "yet-to-come"
        await create_topic(kafka.bootstrap, "yet-to-come")
        await produce(kafka, "yet-to-come", [1])
        async with asyncio.timeout(3 * IN_TIME):  # the brokers are asked for new topics each half a minute
            await sink.accepted(1)
        assert await program.stop() == 0


async def test_a_topic_that_is_not_there_ends_the_program_where_that_is_set(kafka: Cluster) -> None:
    async with (
        RecordingSink() as sink,
        reading(environment(kafka, sink, "nowhere", KAFKA_MISSING_TOPIC="fail")) as program,
    ):
        assert await program.ended() == 1
    assert "there is no topic nowhere" in program.stderr.text
    assert "Traceback" not in program.stderr.text


async def test_a_dry_run_prints_the_events_and_moves_nobodys_offset(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "look-at-me")
    await produce(kafka, "look-at-me", range(3))
    command = (WELLHEAD, "kafka", "--dry-run", "--bootstrap-servers", kafka.bootstrap, "--topics", "look-at-me")
    group = ("--consumer-group", "group-of-look-at-me")
    async with started(*command, *group, "--initial-offset", "earliest", env={"PATH": os.environ["PATH"]}) as program:
        await program.stdout.line("knativekafkaoffset: 2")
        assert await program.stop(signal.SIGINT) == 0
    printed = program.stdout.lines
    assert printed.count("  type: dev.knative.kafka.event") == 3
    assert [line for line in printed if "  id: " in line] == [
        f"  id: partition:0/offset:{offset}" for offset in range(3)
    ]
    assert program.stderr.text == ""
    assert await committed(kafka, "look-at-me") == {}


async def test_a_dry_run_without_a_broker_says_so_and_ends() -> None:
    (port,) = free_ports(1)
    command = (WELLHEAD, "kafka", "--dry-run", "--bootstrap-servers", f"127.0.0.1:{port}", "--topics", "t")
    async with started(*command, env={"PATH": os.environ["PATH"]}) as program:
        assert await program.ended() == 2
    assert f"127.0.0.1:{port}" in program.stderr.text
    assert "Traceback" not in program.stderr.text


async def test_a_record_of_ten_megabytes_is_an_event_like_any_other(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "huge", settings={"max.message.bytes": str(20 << 20)})
    huge = b"7" * (10 << 20)
    async with producing(kafka, max_request_size=20 << 20) as producer:
        for value in (b"1", huge, b"2"):
            await producer.send_and_wait("huge", value)
    async with RecordingSink() as sink:
        async with reading(environment(kafka, sink, "huge")) as program:
            await sink.accepted(3)
            await all_committed(kafka, "huge", 1)
            assert await program.stop() == 0
        assert [event.data for event in sink.events] == [b"1", huge, b"2"]


async def test_as_many_records_are_on_the_wire_at_once_as_may_be_on_their_way(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "wide")
    async with producing(kafka) as producer:
        for _ in range(300):
            await producer.send("wide", b"1")
    answer = asyncio.Event()
    async with RecordingSink() as sink:
        sink.always(Answer(202, until=answer))
        wide = {"KAFKA_ORDERING": "unordered", "KAFKA_MAX_IN_FLIGHT": "300"}
        async with reading(environment(kafka, sink, "wide", **wide)) as program:
            await sink.came(300)
            assert sink.events == []
            answer.set()
            await sink.accepted(300)
            assert await program.stop() == 0


async def test_a_group_that_others_use_for_other_topics_gives_each_its_own(kafka: Cluster) -> None:
    for topic in ("left", "right"):
        await create_topic(kafka.bootstrap, topic, partitions=2)
    async with RecordingSink() as left, RecordingSink() as right:
        group = {"KAFKA_CONSUMER_GROUP": "group-of-both"}
        async with (
            reading(environment(kafka, left, "left", **group)) as first,
            reading(environment(kafka, right, "right", **group)) as second,
        ):
            for program in (first, second):
                await program.stderr.line(READY)
            await produce(kafka, "left", range(10))
            await produce(kafka, "right", range(10, 20))
            await left.accepted(10)
            await right.accepted(10)
            assert [await program.stop() for program in (first, second)] == [0, 0]
        assert set(values(left)) == set(range(10))
        assert set(values(right)) == set(range(10, 20))


@pytest.mark.parametrize("otherwise", ["earliest", "none"])
async def test_records_that_were_deleted_before_they_were_read_are_told_of(kafka: Cluster, otherwise: str) -> None:
    topic = f"deleted-{otherwise}"
    await create_topic(kafka.bootstrap, topic)
    async with RecordingSink() as sink:
        variables = environment(kafka, sink, topic, KAFKA_OUT_OF_RANGE=otherwise)
        await produce(kafka, topic, range(10))
        async with reading(variables) as program:
            await all_committed(kafka, topic, 1)
            assert await program.stop() == 0
        await produce(kafka, topic, range(10, 20))
        await delete_before(kafka, topic, 15)
        async with reading(variables) as program:
            if otherwise == "none":
                assert await program.ended() == 1
                assert "has no offset 10 any more" in program.stderr.text
                assert await committed(kafka, topic) == {0: 10}
            else:
                told = json.loads(await program.stderr.line("records are gone before they were read"))
                assert (told["offset"], told["goes_on_at"]) == (10, 15)
                await all_committed(kafka, topic, 1)
                assert await program.stop() == 0
                assert values(sink) == [*range(10), *range(15, 20)]


async def test_a_topic_that_is_deleted_keeps_no_other_from_being_committed(kafka: Cluster) -> None:
    for topic in ("kept", "gone"):
        await create_topic(kafka.bootstrap, topic)
    async with RecordingSink() as sink:
        # Committed is only when partitions are taken away: then the deleted one's is due as well.
        variables = environment(kafka, sink, "kept", KAFKA_TOPICS="kept,gone", KAFKA_COMMIT_INTERVAL="1h")
        async with reading(variables) as program:
            await program.stderr.line(READY)
            await produce(kafka, "kept", range(10))
            await produce(kafka, "gone", range(10, 20))
            await sink.accepted(20)
            await delete_topic(kafka, "gone")
            await program.stderr.line("partitions are taken away")
            await program.stderr.line("partitions are assigned")
            assert await committed(kafka, "kept") == {0: 10}
            assert await program.stop() == 0
        assert "cannot be committed" not in program.stderr.text


async def delete_topic(kafka: Cluster, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic])
    finally:
        await admin.close()


async def delete_before(kafka: Cluster, topic: str, offset: int) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
    finally:
        await admin.close()


async def test_a_wrong_password_is_told_of_and_a_right_one_in_its_file_helps(kafka: Cluster, tmp_path: Path) -> None:
    await create_topic(kafka.bootstrap, "secret")
    file = tmp_path / "password"
    file.write_text("hunter2", encoding="utf-8")
    sasl = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.servers("SASL_TLS"),
        "KAFKA_NET_SASL_USER": USER,
        "KAFKA_NET_SASL_PASSWORD_FILE": str(file),
        "KAFKA_NET_SASL_TYPE": "SCRAM-SHA-512",
        "KAFKA_NET_TLS_CA_CERT_FILE": str(kafka.certificates.ca),
    }
    async with RecordingSink() as sink, reading(environment(kafka, sink, "secret", **sasl)) as program:
        told = json.loads(await program.stderr.line("cannot connect to Kafka"))
        assert "it refuses 'alice' or the password (SCRAM-SHA-512)" in told["reason"]
        file.write_text(PASSWORD, encoding="utf-8")
        await program.stderr.line(READY)
        await produce(kafka, "secret", [1])
        await sink.accepted(1)
        assert await program.stop() == 0
    assert "hunter2" not in program.stderr.text
    assert "Traceback" not in program.stderr.text


async def test_no_broker_at_start_is_told_of_once(kafka: Cluster) -> None:
    (port,) = free_ports(1)
    away = {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"}
    async with RecordingSink() as sink, reading(environment(kafka, sink, "away", **away)) as program:
        told = json.loads(await program.stderr.line("cannot connect to Kafka"))
        assert told["reason"] == f"127.0.0.1:{port}: nothing listens there"
        assert await program.stop() == 0
    assert program.stderr.text.count("nothing listens there") == 1


async def test_a_user_who_may_read_nothing_is_told_of(kafka: Cluster) -> None:
    await create_topic(kafka.bootstrap, "forbidden")
    sasl = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka.servers("SASL"),
        "KAFKA_NET_SASL_USER": UNPRIVILEGED,
        "KAFKA_NET_SASL_PASSWORD": PASSWORD,
    }
    async with RecordingSink() as sink, reading(environment(kafka, sink, "forbidden", **sasl)) as program:
        await program.stderr.line("permission")
        assert await program.stop() == 0
    assert "Traceback" not in program.stderr.text


async def test_a_broker_that_goes_away_later_is_told_of_and_found_again() -> None:
    # Without the secure listeners a cluster of its own takes 5 s; the others' must not be stopped.
    cluster = await asyncio.to_thread(Cluster().__enter__)
    try:
        await create_topic(cluster.bootstrap, "later")
        async with RecordingSink() as sink, reading(environment(cluster, sink, "later")) as program:
            await program.stderr.line(READY)
            await produce(cluster, "later", [1])
            await sink.accepted(1)
            (broker,) = cluster.brokers
            await asyncio.to_thread(broker.kill)
            await program.stderr.line('"reason": "nothing listens there"')
            await asyncio.to_thread(broker.start)
            await asyncio.to_thread(broker.wait_until_started)
            await produce(cluster, "later", [2])
            async with asyncio.timeout(IN_TIME):
                while 2 not in values(sink):
                    await sink.accepted(len(sink.events) + 1)
            await all_committed(cluster, "later", 1)
            assert await program.stop() == 0
        told = [line["reason"] for line in map(json.loads, program.stderr.lines) if line.get("broker")]
        assert sorted({*told, "the connection broke"}) == ["nothing listens there", "the connection broke"]
        assert len(told) == len(set(told))  # each cause once a minute
    finally:
        await asyncio.to_thread(cluster.__exit__, None, None, None)
