"""The Kafka adapter over a Kafka in memory: what is committed when, what rebalances do, what a dead sink does."""

from __future__ import annotations

import asyncio
import logging
import random
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, Self

import pytest
from aiokafka.errors import (
    CommitFailedError,
    CorruptRecordException,
    KafkaError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
    UnsupportedCodecError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from tests.kafka_fake import T0, FakeConsumer, FakeKafka

from wellhead.binding import SinkBinding
from wellhead.delivery import Policy
from wellhead.host import Host
from wellhead.http_binding import decode
from wellhead.testing import Answer, FakeTransport, Hang, LoopClock
from wellhead_adapters.kafka import commits
from wellhead_adapters.kafka.adapter import Kafka
from wellhead_adapters.kafka.config import Isolation, KafkaConfig, MissingTopic, OutOfRange
from wellhead_adapters.kafka.intake import RecordsGone
from wellhead_adapters.kafka.lanes import Ordering
from wellhead_adapters.kafka.pressure import weight
from wellhead_adapters.kafka.reader import Stuck, TopicMissing
from wellhead_adapters.kafka.starting import Edge, InitialOffset, initial_offset

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from wellhead.event import CloudEvent
    from wellhead.transport import Post

pytestmark = pytest.mark.looptime

GROUP: Final = "g"
CONFIG: Final = KafkaConfig(
    bootstrap_servers=("kafka:9092",),
    topics=("t",),
    consumer_group=GROUP,
    initial_offset=Edge.EARLIEST,
    name="ks",
    namespace="ns",
)
PATIENT: Final = Policy(backoff_delay=timedelta(milliseconds=100), jitter=0)
SECOND: Final = timedelta(seconds=1)


class Replica:
    """One process of ours while it is entered: the adapter with a real sink over a transport in memory."""

    def __init__(
        self, kafka: FakeKafka, config: KafkaConfig = CONFIG, *, transport: FakeTransport | None = None, policy: Policy = PATIENT,
        dead_letter: str | None = None, grace: float = 20.0, on_wire: int = 128,
    ) -> None:  # fmt: skip
        self.kafka = kafka
        self.transport = transport or FakeTransport()
        self.host = Host(self.transport, LoopClock(), max_on_wire=on_wire)
        to = SinkBinding(sink=dead_letter) if dead_letter is not None else None
        self.sink = self.host.open_sink("ks", SinkBinding(sink="http://sink/"), policy=policy, dead_letter=to)
        self.adapter = Kafka(config, open_consumer=kafka.open)
        self._grace = grace

    async def __aenter__(self) -> Self:
        self.host.start("ks", self.adapter, self.sink)
        await asyncio.sleep(0.01)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        if not self.host.stopping:
            await self.host.drain(self._grace)

    @property
    def consumer(self) -> FakeConsumer:
        return self.kafka.consumers[-1]

    def metric(self, name: str) -> list[float]:
        (found,) = (metric for metric in self.adapter.metrics() if metric.name == f"wellhead_kafka_{name}")
        return [value for _, _, value in found.samples]


@pytest.fixture
def kafka() -> FakeKafka:
    made = FakeKafka()
    made.create("t")
    return made


def values(transport: FakeTransport) -> list[bytes | None]:
    return [event.data for event in transport.events]


def numbers(begin: int, end: int) -> list[bytes]:
    return [str(number).encode() for number in range(begin, end)]


def committed(kafka: FakeKafka, partition: int = 0, topic: str = "t") -> int | None:
    found = kafka.committed.get((GROUP, TopicPartition(topic, partition)))
    return found.offset if found is not None else None


# --- reading and committing ---


async def test_records_become_events_and_their_offsets_are_committed_within_a_second(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 5), key=b"k")
    async with Replica(kafka) as it:
        await it.host.ready("ks")
        events = await it.transport.accepted(5)
        assert [event.id for event in events] == [f"partition:0/offset:{offset}" for offset in range(5)]
        assert {(event.source, event.extensions["key"]) for event in events} == {
            ("/apis/v1/namespaces/ns/kafkasources/ks#t", "k")
        }
        await asyncio.sleep(1.1)
        assert committed(kafka) == 5
        assert (it.metric("lag"), it.metric("committed_lag")) == ([0], [0])


async def test_so_many_records_are_committed_at_once(kafka: FakeKafka) -> None:
    config = replace(CONFIG, commit_interval=timedelta(days=1), commit_records=3)
    async with Replica(kafka, config) as it:
        kafka.produce("t", *numbers(0, 2))
        await asyncio.sleep(60)
        assert committed(kafka) == 0
        kafka.produce("t", b"2")
        await it.transport.accepted(3)
        await asyncio.sleep(0.1)
        assert committed(kafka) == 3


async def test_nothing_is_committed_past_a_record_that_is_not_done(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 10))
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == b"3" else Answer())
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED), transport=transport):
        await transport.accepted(9)
        await asyncio.sleep(5)
        assert committed(kafka) == 3
        transport.always(Answer())
        await asyncio.sleep(40)
        assert committed(kafka) == 10


async def test_a_refused_record_is_counted_and_passed(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 3))
    transport = FakeTransport()
    transport.always(lambda post: Answer(400) if body(post) == b"1" else Answer())
    async with Replica(kafka, transport=transport) as it:
        await transport.accepted(2)
        await asyncio.sleep(1.1)
        assert (committed(kafka), it.sink.counters.refused) == (3, 1)


async def test_a_record_that_the_dead_letter_sink_refused_too_is_sent_again_until_one_of_them_takes_it(
    kafka: FakeKafka,
) -> None:
    kafka.produce("t", *numbers(0, 2))
    transport = FakeTransport()
    transport.always(lambda post: Answer(400) if body(post) == b"0" or "dead" in post.target.url else Answer())
    async with Replica(kafka, transport=transport, dead_letter="http://dead/"):
        await asyncio.sleep(20)
        assert (committed(kafka), values(transport)) == (0, [])
        transport.always(lambda post: Answer(400) if body(post) == b"0" and "dead" not in post.target.url else Answer())
        await asyncio.sleep(60)
        assert (committed(kafka), values(transport)) == (2, [b"0", b"1"])


async def test_the_marks_of_transactions_leave_no_lag(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 3), gap=10)
    kafka.mark("t")
    async with Replica(kafka) as it:
        await it.transport.accepted(3)
        await asyncio.sleep(1.1)
        assert (committed(kafka), it.metric("committed_lag")) == (34, [0])


async def test_a_group_that_stands_still_commits_now_and_then_so_that_brokers_do_not_forget_it(
    kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert commits.ANEW == 24 * 3600
    monkeypatch.setattr(commits, "ANEW", 60)  # a day of polls takes a minute, even with a clock that jumps
    kafka.produce("t", b"0")
    async with Replica(kafka):
        await asyncio.sleep(10)
        before = kafka.commits
        await asyncio.sleep(45)
        assert kafka.commits == before
        await asyncio.sleep(80)
        assert kafka.commits == before + 2


async def test_a_commit_that_fails_is_told_once_and_due_again(
    kafka: FakeKafka, caplog: pytest.LogCaptureFixture
) -> None:
    async with Replica(kafka) as it:
        kafka.commit_error = KafkaError("the coordinator is away")
        kafka.produce("t", b"0")
        await it.transport.accepted(1)
        await asyncio.sleep(10)
        assert committed(kafka) == 0
        kafka.commit_error = None
        await asyncio.sleep(1.1)
        assert committed(kafka) == 1
    assert [record.message for record in caplog.records].count("offsets cannot be committed; tried again") == 1


# --- order ---


def body(post: Post) -> bytes | None:
    (event,) = decode(post.headers, post.body)
    return event.data


@pytest.mark.parametrize(
    ("ordering", "at_once"), [(Ordering.PARTITION, 2), (Ordering.KEY, 6), (Ordering.UNORDERED, 40)]
)
async def test_an_ordering_says_how_many_go_at_once(kafka: FakeKafka, ordering: Ordering, at_once: int) -> None:
    kafka.create("t", 2)
    for number in range(20):
        for partition in (0, 1):
            kafka.produce("t", b"%d" % number, partition=partition, key=b"k%d" % (number % 3))
    transport = FakeTransport(latency=lambda: 1.0)
    async with Replica(kafka, replace(CONFIG, ordering=ordering), transport=transport):
        events = await transport.accepted(40)
    assert transport.most_on_wire == at_once
    for partition in (0, 1):
        for key in ("k0", "k1", "k2"):
            own = [int(event.data or b"") for event in events if lane(event.extensions) == (partition, key)]
            assert own == sorted(own)


def lane(extensions: object) -> tuple[object, object]:
    assert hasattr(extensions, "__getitem__")
    return extensions["knativekafkapartition"], extensions["key"]


async def test_records_without_a_key_wait_for_no_other(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 20))
    transport = FakeTransport(latency=lambda: 1.0)
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.KEY), transport=transport):
        await transport.accepted(20)
    assert transport.most_on_wire == 20


async def test_no_more_go_at_once_than_may(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 50))
    transport = FakeTransport(latency=lambda: 1.0)
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED, max_in_flight=7), transport=transport):
        await transport.accepted(50)
    assert transport.most_on_wire == 7


async def test_more_go_at_once_than_by_default_where_the_sink_may_have_them(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 600))
    transport = FakeTransport(latency=lambda: 1.0)
    config = replace(CONFIG, ordering=Ordering.UNORDERED, max_in_flight=300)
    async with Replica(kafka, config, transport=transport, on_wire=300):
        await transport.accepted(600)
    assert transport.most_on_wire == 300


# --- rebalances ---


async def test_a_partition_that_is_taken_away_is_drained_committed_and_taken_over_without_a_duplicate(
    kafka: FakeKafka,
) -> None:
    kafka.create("t", 2)
    for partition in (0, 1):
        kafka.produce("t", *numbers(0, 30), partition=partition)
    transport = FakeTransport(latency=lambda: 0.5)
    async with Replica(kafka, transport=transport):
        await asyncio.sleep(3.2)
        async with Replica(kafka, transport=transport):
            await transport.accepted(60)
            await asyncio.sleep(1.5)
    assert len(transport.posts) == 60
    assert [committed(kafka, 0), committed(kafka, 1)] == [30, 30]
    for partition in (0, 1):
        own = [event.data for event in transport.events if event.extensions["knativekafkapartition"] == str(partition)]
        assert own == numbers(0, 30)


async def test_what_waits_before_a_record_that_is_done_is_sent_before_its_partition_goes(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 5), key=b"slow, as one goes after another")
    kafka.produce("t", *numbers(5, 30))
    kafka.produce("t", *numbers(30, 40), key=b"slow, as one goes after another")
    transport = FakeTransport(latency=lambda: 0.5)
    config = replace(CONFIG, ordering=Ordering.KEY)
    async with Replica(kafka, config, transport=transport):
        await transport.accepted(26)
    assert committed(kafka) == 30
    async with Replica(kafka, config, transport=transport):
        await transport.accepted(40)
    assert len(transport.posts) == 40


async def test_with_a_dead_sink_a_partition_is_let_go_in_time_and_not_tried_again(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 3))
    transport = FakeTransport()
    transport.always(Answer(503))
    async with Replica(kafka, transport=transport) as it:
        await asyncio.sleep(2)
        loop = asyncio.get_running_loop()
        started = loop.time()
        it.consumer.member = False
        await it.consumer.revoke()
        assert loop.time() - started <= 2 * CONFIG.drain.total_seconds()
        before = len(transport.posts)
        await asyncio.sleep(100)
        assert (len(transport.posts), committed(kafka)) == (before, 0)


async def test_what_has_failed_for_long_is_not_waited_for(kafka: FakeKafka) -> None:
    kafka.produce("t", b"0")
    transport = FakeTransport()
    transport.always(Answer(503))
    async with Replica(kafka, transport=transport) as it:
        await asyncio.sleep(60)
        loop = asyncio.get_running_loop()
        started = loop.time()
        await it.consumer.revoke()
        assert loop.time() == started
        it.consumer.settled.clear()


async def test_what_is_accepted_too_late_to_be_committed_is_not_sent_twice_by_the_same_process(
    kafka: FakeKafka,
) -> None:
    kafka.produce("t", *numbers(0, 3))
    answer = asyncio.Event()
    transport = FakeTransport()
    transport.then(Answer(until=answer))
    async with Replica(kafka, transport=transport):
        await transport.came(1)
        await kafka.rebalance(GROUP)
        assert committed(kafka) == 0
        answer.set()
        await transport.accepted(3)
        await asyncio.sleep(2)
        assert (values(transport), committed(kafka)) == ([b"0", b"1", b"2"], 3)


async def test_what_was_done_behind_one_that_was_not_is_not_sent_twice_by_the_same_process(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 5))
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == b"0" else Answer())
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED), transport=transport) as it:
        await transport.accepted(4)
        await kafka.rebalance(GROUP)
        transport.always(Answer())
        await transport.accepted(5)
        await asyncio.sleep(1.1)
        assert (sorted(filter(None, values(transport))), committed(kafka)) == (numbers(0, 5), 5)
        assert it.metric("duplicates_suppressed_total") == [4]


async def test_nor_after_a_second_rebalance(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 5))
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == b"0" else Answer())
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED), transport=transport):
        await transport.accepted(4)
        for _ in range(2):
            await kafka.rebalance(GROUP)
            await asyncio.sleep(1)
        transport.always(Answer())
        await transport.accepted(5)
        await asyncio.sleep(20)
        assert (sorted(filter(None, values(transport))), committed(kafka)) == (numbers(0, 5), 5)


async def test_records_that_could_come_before_all_is_known_of_the_assignment_are_none_the_worse(
    kafka: FakeKafka,
) -> None:
    kafka.produce("t", *numbers(0, 10))
    async with Replica(kafka, replace(CONFIG, initial_offset=Edge.LATEST)) as it:
        await it.host.ready("ks")
    kafka.produce("t", *numbers(10, 20))
    kafka.create("t", 2)  # where this one begins is asked for when the other could be read already
    kafka.slow = 1.0
    transport = FakeTransport(latency=lambda: 3.0)
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED), transport=transport) as it:
        await transport.came(10)
        kafka.produce("t", *numbers(20, 30))
        await asyncio.sleep(1.5)
        assert committed(kafka) == 10, "nothing of it is done"
        await transport.accepted(20)
        await asyncio.sleep(1.1)
        assert (committed(kafka), it.host.failure) == (30, None)
    assert sorted(filter(None, values(transport))) == numbers(10, 30)


async def test_where_to_begin_is_asked_again_where_the_brokers_did_not_tell(
    kafka: FakeKafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Replica(kafka):
        await asyncio.sleep(1)
    kafka.produce("t", b"0")
    told = FakeConsumer.committed_offsets
    refusals = [KafkaError("the coordinator is away")] * 3

    async def tell(self: FakeConsumer, places: Iterable[TopicPartition]) -> Mapping[TopicPartition, OffsetAndMetadata]:
        if refusals:
            raise refusals.pop()
        return await told(self, places)

    monkeypatch.setattr(FakeConsumer, "committed_offsets", tell)
    async with Replica(kafka) as it:
        assert it.host.not_ready() == ("ks",)
        await it.transport.accepted(1)
        await it.host.ready("ks")


async def test_partitions_that_were_lost_are_fenced_at_once_and_not_committed(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 3))
    transport = FakeTransport(latency=lambda: 0.9)
    async with Replica(kafka, transport=transport) as it:
        await transport.came(2)
        it.consumer.known = False  # a heartbeat was told that the group knows no such member
        commits, started = kafka.commits, asyncio.get_running_loop().time()
        await it.consumer.revoke()
        assert asyncio.get_running_loop().time() == started, "nothing is waited for that another may do meanwhile"
        it.consumer.settled.clear()
        await asyncio.sleep(10)
        assert (len(transport.posts), kafka.commits) == (2, commits)


async def test_a_poison_record_reaches_its_dead_letter_however_often_the_group_rebalances(kafka: FakeKafka) -> None:
    kafka.produce("t", b"poison")
    transport = FakeTransport()
    transport.always(lambda post: Answer(500) if post.target.url == "http://sink/" else Answer())
    policy = replace(PATIENT, retries=10, backoff_delay=SECOND)
    async with Replica(kafka, transport=transport, policy=policy, dead_letter="http://dead/") as it:
        for _ in range(12):
            await asyncio.sleep(30)
            await kafka.rebalance(GROUP)
        await asyncio.sleep(1.1)
        assert (it.sink.counters.dead_lettered, committed(kafka)) == (1, 1)
    # One more than the policy says: of the eleventh the fence was closed when it ended, so that nothing was decided.
    assert sum(post.target.url == "http://sink/" for post in transport.posts) == 12


async def test_a_partition_that_was_lost_is_not_committed(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 3))
    transport = FakeTransport(latency=lambda: 1.0)
    async with Replica(kafka, transport=transport) as it:
        await asyncio.sleep(1.5)
        kafka.commit_error = CommitFailedError("another has it")
        await it.stop()
    assert committed(kafka) in (0, 1)
    assert it.host.failure is None


async def test_what_was_done_behind_one_that_was_not_is_known_to_whoever_reads_on_after_a_kill(
    kafka: FakeKafka,
) -> None:
    kafka.produce("t", *numbers(0, 2000))
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) in (b"0", b"700") else Answer())
    config = replace(CONFIG, ordering=Ordering.UNORDERED)
    async with Replica(kafka, config, transport=transport) as killed:
        await transport.accepted(1998)
        await asyncio.sleep(1.1)
        killed.consumer.member = False  # from here on nothing of what it does is seen
        killed.consumer.assigned = set()
        async with Replica(kafka, config) as it:
            await it.transport.accepted(2)
            await asyncio.sleep(1.1)
            assert (values(it.transport), committed(kafka)) == ([b"0", b"700"], 2000)
            assert it.metric("duplicates_suppressed_total") == [1998]


async def test_brokers_that_take_less_metadata_get_less(kafka: FakeKafka, caplog: pytest.LogCaptureFixture) -> None:
    kafka.most_metadata = 20
    kafka.produce("t", *numbers(0, 10))
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == b"2" else Answer())
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED), transport=transport):
        await transport.accepted(9)
        await asyncio.sleep(1.1)
        assert kafka.committed[GROUP, TopicPartition("t", 0)] == OffsetAndMetadata(2, "partitions=1")
        kafka.most_metadata = 3
        transport.always(Answer())
        await asyncio.sleep(60)
        assert committed(kafka) == 2
        kafka.most_metadata = 4096
        await asyncio.sleep(1.1)
        assert committed(kafka) == 10
    assert caplog.messages.count("the brokers take little metadata: more comes twice where a member dies") == 1


async def test_members_come_and_go_and_nothing_is_lost_or_out_of_order(kafka: FakeKafka) -> None:
    kafka.create("t", 4)
    for number in range(100):
        for partition in range(4):
            kafka.produce("t", b"%d" % number, partition=partition, key=b"%d" % (number % 7))
    transport = FakeTransport(latency=lambda: 0.1)
    turn = iter(range(10**6))
    transport.always(lambda _: Answer(503 if next(turn) % 5 == 0 else 202))
    config = replace(CONFIG, ordering=Ordering.KEY)
    async with Replica(kafka, config, transport=transport):
        for _ in range(4):
            await asyncio.sleep(0.7)
            async with Replica(kafka, config, transport=transport):
                await asyncio.sleep(0.9)
        await asyncio.sleep(30)
    assert [committed(kafka, partition) for partition in range(4)] == [100] * 4
    first: dict[tuple[object, object], list[int]] = {}
    for event in transport.events:
        seen = first.setdefault(lane(event.extensions), [])
        if int(event.data or b"") not in seen:
            seen.append(int(event.data or b""))
    assert sum(map(len, first.values())) == 400
    assert all(own == sorted(own) for own in first.values())


# --- a sink that is down ---


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_the_budgets_and_whoever_comes_and_goes_nothing_is_lost_or_out_of_order(
    kafka: FakeKafka, seed: int
) -> None:
    luck = random.Random(seed)
    kafka.create("t", 4)
    config = replace(
        CONFIG,
        ordering=luck.choice([*Ordering]),
        buffer=luck.choice([1 << 16, 1 << 20]),
        max_ahead=luck.choice([50, 1000]),
        max_in_flight=luck.choice([1, 4, 128]),
        drain=SECOND,
    )
    produced = 0
    for partition in range(4):
        for number in range(luck.choice([0, 30, 700])):
            kafka.produce("t", b"%d" % number, partition=partition, key=b"%d" % (number % 7), gap=luck.choice([0, 1]))
            produced += 1
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if luck.random() < 0.02 else after(luck.choice([0.001, 0.01, 0.3]))(post))
    async with Replica(kafka, config, transport=transport), AsyncExitStack() as others:
        for _ in range(8):
            await asyncio.sleep(luck.choice([0.1, 0.7, 3]))
            if luck.random() < 0.4:
                await others.enter_async_context(Replica(kafka, config, transport=transport))
            elif luck.random() < 0.5:
                await others.aclose()
            else:
                await kafka.rebalance(GROUP)
        await asyncio.sleep(500)
    assert [committed(kafka, number) or 0 for number in range(4)] == [log.end for log in kafka.logs["t"]]
    first = list({event.id: event for event in reversed(transport.events)}.values())[::-1]
    assert len(first) == produced
    reached: dict[object, int] = {}
    for event in first:
        place, offset = event.extensions["knativekafkapartition"], int(str(event.extensions["knativekafkaoffset"]))
        lanes = {Ordering.PARTITION: place, Ordering.KEY: (place, event.extensions["key"])}
        lane = lanes.get(config.ordering, event.id)
        assert reached.get(lane, -1) < offset
        reached[lane] = offset


async def test_while_the_sink_is_down_memory_is_bounded_and_polling_goes_on(kafka: FakeKafka) -> None:
    config = replace(CONFIG, buffer=1 << 16, ordering=Ordering.KEY)
    kafka.produce("t", *numbers(0, 5000))
    transport = FakeTransport()
    transport.always(Answer(503))
    async with Replica(kafka, config, transport=transport) as it:
        await asyncio.sleep(60)
        assert it.metric("paused") == [1]
        (held,) = it.metric("held_bytes")
        assert held < config.buffer + 500 * 1000, "the budget, and what one fetch brings beyond it"
        polls = it.consumer.polls
        await asyncio.sleep(100)
        assert it.consumer.polls > polls + 100
        assert (it.metric("held_bytes"), committed(kafka)) == ([held], 0)
        transport.always(Answer())
        await transport.accepted(5000)
        await asyncio.sleep(2)
        assert (it.metric("paused"), it.metric("held_bytes"), committed(kafka)) == ([0], [0], 5000)
        assert len(kafka.consumers) == 1, "a sink that is down is no reason for a new consumer"


async def test_a_partition_runs_only_so_far_ahead_of_a_record_that_is_not_done(kafka: FakeKafka) -> None:
    kafka.produce("t", b"bad")
    kafka.produce("t", *[b"good"] * 20_000)
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == b"bad" else Answer())
    config = replace(CONFIG, ordering=Ordering.UNORDERED, max_ahead=2000)
    async with Replica(kafka, config, transport=transport) as it:
        await asyncio.sleep(60)
        assert 2000 - 1 <= len(transport.events) < 2000 + 500, "these would come again after a crash"
        assert (it.metric("paused"), committed(kafka)) == ([1], 0)
        transport.always(Answer())
        await transport.accepted(20_001)
        await asyncio.sleep(2)
        assert (it.metric("paused"), committed(kafka)) == ([0], 20_001)


async def test_no_more_is_read_into_memory_than_keeps_the_deliveries_busy(kafka: FakeKafka) -> None:
    kafka.produce("t", *[b"slow"] * 20_000)
    transport = FakeTransport()
    transport.always(Hang())
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED, drain=SECOND), transport=transport) as it:
        await asyncio.sleep(0.3)
        (held,) = it.metric("held_bytes")
        assert held == 500 * weight(None, b"slow", 0), "one fetch, of which 128 are under way"


def after(seconds: float) -> Callable[[Post], Answer]:
    """A sink that takes so long for each."""

    def answer(_: Post) -> Answer:
        over = asyncio.Event()
        asyncio.get_running_loop().call_later(seconds, over.set)
        return Answer(until=over)

    return answer


async def test_in_order_no_more_is_read_than_keeps_each_partition_busy(kafka: FakeKafka) -> None:
    kafka.create("t", 2)
    for partition in (0, 1):
        kafka.produce("t", *numbers(0, 2000), partition=partition)
    transport = FakeTransport()
    transport.always(after(0.01))
    async with Replica(kafka, replace(CONFIG, buffer=1 << 19), transport=transport) as it:
        for _ in range(18):
            await asyncio.sleep(1)
            assert it.consumer.paused == set(), "a pause costs what was fetched"
            assert all(held <= (500 + 500) * weight(None, b"1999", 0) for held in it.metric("held_bytes"))
        await transport.accepted(4000)


async def test_a_partition_that_has_nothing_in_hand_is_read_at_once_beside_one_that_has_plenty(
    kafka: FakeKafka,
) -> None:
    kafka.create("t", 2)
    kafka.produce("t", *[b"slow"] * 5000, partition=0)
    transport = FakeTransport()
    transport.always(lambda post: after(1)(post) if body(post) == b"slow" else Answer())
    async with Replica(kafka, replace(CONFIG, drain=SECOND), transport=transport) as it:
        await asyncio.sleep(20)
        kafka.produce("t", b"quick", partition=1)
        await asyncio.sleep(0.2)
        assert b"quick" in values(it.transport)


@pytest.mark.parametrize("buffer", [1 << 16, 16 << 20])
async def test_a_slow_sink_is_no_reason_to_poll_less_than_twice_a_minute_nor_to_hold_more(
    kafka: FakeKafka, buffer: int
) -> None:
    kafka.create("t", 2)
    for partition in (0, 1):
        kafka.produce("t", *numbers(0, 5000), partition=partition)
    transport = FakeTransport()
    transport.always(after(1))
    async with Replica(kafka, replace(CONFIG, drain=SECOND, buffer=buffer), transport=transport) as it:
        await asyncio.sleep(1)
        for _ in range(10):
            polls = it.consumer.polls
            await asyncio.sleep(31)
            assert it.consumer.polls > polls, "a member that does not poll for five minutes is taken for dead"
            assert sum(it.metric("held_bytes")) < buffer + 2 * 500 * 1000, "the budget, and a fetch of each beyond it"


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize(("ordering", "seconds"), [(Ordering.PARTITION, 2.2), (Ordering.UNORDERED, 0.2)])
async def test_a_partition_is_not_kept_waiting_by_one_that_has_nothing(
    kafka: FakeKafka, ordering: Ordering, seconds: float, size: int
) -> None:
    kafka.create("t", 2)
    kafka.produce("t", *[b"x" * size] * 2000, partition=0)
    transport = FakeTransport()
    transport.always(after(0.001))
    async with Replica(kafka, replace(CONFIG, ordering=ordering, commit_records=100_000), transport=transport):
        await asyncio.sleep(seconds)
        assert len(transport.events) >= 1_950


@pytest.mark.parametrize("patience", [20, 180])
async def test_a_partition_that_is_full_for_long_is_no_reason_for_a_new_consumer(
    kafka: FakeKafka, patience: int
) -> None:
    kafka.create("t", 2)
    kafka.produce("t", *[b"x"] * 30_000, partition=0)
    transport = FakeTransport()
    transport.always(after(0.2))
    config = replace(CONFIG, stuck_after=timedelta(seconds=patience), drain=SECOND)
    async with Replica(kafka, config, transport=transport) as it:
        await asyncio.sleep(500)
        assert (len(kafka.consumers), it.metric("rebalances_total")) == (1, [1])


async def test_an_event_that_is_made_before_its_turn_is_made_once(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 10), key=b"\xff")
    transport = FakeTransport()
    transport.always(after(0.01))
    async with Replica(kafka, transport=transport) as it:
        await transport.accepted(10)
        assert it.metric("values_encoded_total") == [10], "its key is no text"


async def test_one_partition_that_is_stuck_does_not_stop_the_others(kafka: FakeKafka) -> None:
    kafka.create("t", 2)
    kafka.produce("t", *[b"bad"] * 1000, partition=0)
    kafka.produce("t", *[b"good"] * 1000, partition=1)
    transport = FakeTransport()
    transport.always(lambda post: Answer(503) if body(post) == b"bad" else Answer())
    async with Replica(kafka, replace(CONFIG, buffer=1 << 17), transport=transport) as it:
        await transport.accepted(1000)
        await asyncio.sleep(1.1)
        assert (committed(kafka, 0), committed(kafka, 1)) == (0, 1000)
        assert sorted(it.metric("paused")) == [0, 1]


# --- where to begin ---


@pytest.mark.parametrize(
    ("initial", "came"),
    [
        (Edge.EARLIEST, numbers(0, 10)),
        (Edge.LATEST, []),
        (initial_offset("2023-11-14T22:13:20.006Z"), numbers(6, 10)),
        (initial_offset("2030-01-01T00:00:00Z"), []),
    ],
)
async def test_a_new_group_begins_where_it_is_told_and_commits_that(
    kafka: FakeKafka, initial: InitialOffset, came: list[bytes]
) -> None:
    assert T0 == 1_700_000_000_000
    kafka.produce("t", *numbers(0, 10))
    async with Replica(kafka, replace(CONFIG, initial_offset=initial)) as it:
        await it.host.ready("ks")
        assert committed(kafka) == 10 - len(came), "what comes from now on is found after a crash too"
        kafka.produce("t", b"new")
        assert values_of(await it.transport.accepted(len(came) + 1)) == [*came, b"new"]


def values_of(events: list[CloudEvent]) -> list[bytes | None]:
    return [event.data for event in events]


async def test_a_group_goes_on_where_it_was(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 5))
    async with Replica(kafka) as it:
        await it.transport.accepted(5)
    kafka.produce("t", b"5")
    async with Replica(kafka) as it:
        await it.transport.accepted(1)
        await asyncio.sleep(5)
        assert values(it.transport) == [b"5"]


async def test_partitions_and_topics_that_come_later_are_read_from_their_first_record(kafka: FakeKafka) -> None:
    config = replace(CONFIG, topics=(), topics_pattern="t.*", initial_offset=Edge.LATEST)
    kafka.produce("t", b"old")
    async with Replica(kafka, config) as it:
        await it.host.ready("ks")
        kafka.create("t", 2)
        kafka.produce("t", b"partition", partition=1)
        kafka.create("topic2")
        kafka.produce("topic2", b"topic")
        await kafka.rebalance(GROUP)
        events = await it.transport.accepted(2)
        assert sorted(event.data or b"" for event in events) == [b"partition", b"topic"]
    kafka.create("t", 3)
    kafka.produce("t", b"while nobody ran", partition=2)
    async with Replica(kafka, config) as it:
        assert values_of(await it.transport.accepted(1)) == [b"while nobody ran"]


async def test_a_topic_that_does_not_exist_is_waited_for_and_told_of(
    kafka: FakeKafka, caplog: pytest.LogCaptureFixture
) -> None:
    async with Replica(kafka, replace(CONFIG, topics=("t", "later"))) as it:
        await it.host.ready("ks")
        assert "topic does not exist, or may not be described: waiting for it" in caplog.messages
        kafka.create("later")
        kafka.produce("later", b"0")
        await kafka.rebalance(GROUP)
        await it.transport.accepted(1)


async def test_or_ends_the_program_where_that_is_asked_for(kafka: FakeKafka) -> None:
    async with Replica(kafka, replace(CONFIG, topics=("nowhere",), missing_topic=MissingTopic.FAIL)) as it:
        await it.host.wait()
        assert isinstance(it.host.failure, TopicMissing)
        assert "nowhere" in str(it.host.failure)


async def test_records_that_are_gone_are_told_of_and_the_first_that_is_there_is_next(
    kafka: FakeKafka, caplog: pytest.LogCaptureFixture
) -> None:
    async with Replica(kafka):
        kafka.produce("t", b"0")
        await asyncio.sleep(2)
    kafka.produce("t", *numbers(1, 10))
    kafka.forget_before("t", 5)
    async with Replica(kafka) as it:
        assert values_of(await it.transport.accepted(5)) == numbers(5, 10)
        await asyncio.sleep(1.1)
        assert (committed(kafka), it.metric("records_gone_total")) == (10, [1])
    assert "records are gone before they were read" in caplog.messages


async def test_a_topic_made_anew_is_read_from_its_beginning(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 10))
    async with Replica(kafka) as it:
        await it.transport.accepted(10)
    kafka.logs.clear()
    kafka.create("t")
    kafka.produce("t", b"anew")
    async with Replica(kafka) as it:
        assert values_of(await it.transport.accepted(1)) == [b"anew"]
        await asyncio.sleep(1.1)
        assert committed(kafka) == 1


async def test_a_partition_that_was_full_when_its_records_went_is_read_again(kafka: FakeKafka) -> None:
    kafka.produce("t", *[b"bad"] * 2000)
    transport = FakeTransport()
    transport.always(Answer(503))
    async with Replica(kafka, replace(CONFIG, buffer=1 << 16), transport=transport) as it:
        await asyncio.sleep(5)
        assert it.metric("paused") == [1]
        kafka.forget_before("t", 1990)
        # The answer to a fetch that was on its way when the partition was paused.
        it.consumer.errors.append(OffsetOutOfRangeError({TopicPartition("t", 0): 500}))
        transport.always(Answer())
        await asyncio.sleep(5)
        assert committed(kafka) == 2000


async def test_a_partition_that_is_taken_away_while_it_starts_over_is_neither_sent_nor_committed(
    kafka: FakeKafka,
) -> None:
    kafka.produce("t", *numbers(0, 3))
    transport = FakeTransport()
    transport.always(Answer(503))
    async with Replica(kafka, transport=transport) as it:
        await transport.came(1)
        kafka.forget_before("t", 1)
        kafka.slow = 1.0
        it.consumer.errors.append(OffsetOutOfRangeError({TopicPartition("t", 0): 0}))
        await asyncio.sleep(0.8)  # it asks where to go on
        before = kafka.commits
        await it.consumer.revoke()
        it.consumer.settled.clear()
        posts = len(transport.posts)
        await asyncio.sleep(60)
        assert (len(transport.posts), kafka.commits, committed(kafka)) == (posts, before, 0)


async def test_a_topic_that_is_deleted_keeps_no_other_from_being_committed(kafka: FakeKafka) -> None:
    kafka.create("u")
    kafka.produce("t", b"t")
    async with Replica(kafka, replace(CONFIG, topics=("t", "u"), drain=SECOND)) as it:
        await asyncio.sleep(10.5)
        kafka.produce("t", b"t")
        kafka.produce("u", b"u")
        await it.transport.accepted(3)
        kafka.delete("u")
        begun = asyncio.get_running_loop().time()
        await kafka.rebalance(GROUP)
        assert asyncio.get_running_loop().time() - begun < 2, "no commit that is tried for ever"
        assert committed(kafka) == 2


async def test_a_topic_that_brokers_do_not_know_for_a_moment_is_committed_all_the_same(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 10))
    async with Replica(kafka, replace(CONFIG, commit_interval=timedelta(hours=1))) as it:
        await it.transport.accepted(10)
        kafka.unknown.add("t")
    assert committed(kafka) == 10


async def test_or_records_that_are_gone_end_the_program(kafka: FakeKafka) -> None:
    async with Replica(kafka):
        await asyncio.sleep(1)
    kafka.produce("t", *numbers(0, 10))
    kafka.forget_before("t", 5)
    async with Replica(kafka, replace(CONFIG, out_of_range=OutOfRange.NONE)) as it:
        await it.host.wait()
        assert isinstance(it.host.failure, RecordsGone)


# --- trouble with Kafka ---


async def test_kafka_that_is_away_at_the_start_is_waited_for_and_why_is_told_once(
    kafka: FakeKafka, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.away = "kafka:9092: nothing listens there"
    async with Replica(kafka) as it:
        await asyncio.sleep(300)
        assert it.host.not_ready() == ("ks",)
        kafka.away = ""
        kafka.produce("t", b"0")
        await it.transport.accepted(1)
    told = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert [record.__dict__["reason"] for record in told] == ["kafka:9092: nothing listens there"]


async def test_a_consumer_that_hears_nothing_is_replaced_and_the_program_ends_where_that_does_not_help(
    kafka: FakeKafka,
) -> None:
    async with Replica(kafka) as it:
        await it.host.ready("ks")
        kafka.deaf = True
        kafka.produce("t", b"0")
        await it.host.wait()
        assert isinstance(it.host.failure, Stuck)
        assert (len(kafka.consumers), all(one.stopped for one in kafka.consumers)) == (2, True)


async def test_a_new_consumer_that_hears_goes_on(kafka: FakeKafka) -> None:
    async with Replica(kafka) as it:
        await it.host.ready("ks")
        kafka.deaf = True
        kafka.produce("t", b"0")
        await asyncio.sleep(CONFIG.stuck_after.total_seconds() + 60)
        assert len(kafka.consumers) == 2
        kafka.deaf = False
        await it.transport.accepted(1)
        assert it.metric("new_consumers_total") == [1]


async def test_brokers_that_go_away_for_long_end_nothing(kafka: FakeKafka) -> None:
    async with Replica(kafka) as it:
        await it.host.ready("ks")
        kafka.deaf, kafka.away = True, "gone"
        await asyncio.sleep(900)
        kafka.deaf, kafka.away = False, ""
        kafka.produce("t", b"0")
        await it.transport.accepted(1)
        assert it.host.failure is None


async def test_a_missing_permission_is_told_once_and_waited_for(
    kafka: FakeKafka, caplog: pytest.LogCaptureFixture
) -> None:
    async with Replica(kafka) as it:
        await it.host.ready("ks")
        it.consumer.errors += [TopicAuthorizationFailedError("t")] * 5
        kafka.produce("t", b"0")
        await it.transport.accepted(1)
        assert len(kafka.consumers) == 1
    assert caplog.messages.count("Kafka does not let us read; tried again") == 1


async def test_a_record_that_cannot_be_decoded_is_passed_told_and_counted(
    kafka: FakeKafka, caplog: pytest.LogCaptureFixture
) -> None:
    kafka.create("t", 2)
    kafka.produce("t", *numbers(0, 10))
    kafka.produce("t", *numbers(0, 10), partition=1)
    kafka.spoil("t", 4, partition=1)
    async with Replica(kafka) as it:
        await it.transport.accepted(19)
        await asyncio.sleep(1.1)
        assert [committed(kafka, 0), committed(kafka, 1)] == [10, 10]
        assert (len(it.transport.events), it.metric("records_unreadable_total")) == (19, [1])
    (told,) = (record.__dict__ for record in caplog.records if record.levelno == logging.ERROR)
    assert (told["topic"], told["partition"], told["offset"]) == ("t", 1, 4)


@pytest.mark.parametrize(
    "error",
    [CorruptRecordException("Invalid CRC - t/0"), UnsupportedCodecError("zstd"), RuntimeError("snappy: corrupt input")],
    ids=str,
)
async def test_records_that_are_damaged_set_their_partition_aside_until_they_are_whole(
    kafka: FakeKafka, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    kafka.create("t", 2)
    kafka.produce("t", b"0", b"1", b"2", partition=0)
    kafka.produce("t", *numbers(10, 20), partition=1)
    kafka.damage("t", 1, error)
    async with Replica(kafka) as it:
        await it.transport.accepted(11)
        assert sorted(values(it.transport), key=str) == sorted([b"0", *numbers(10, 20)], key=str)
        await asyncio.sleep(100)
        kafka.produce("t", b"20", partition=1)
        await it.transport.accepted(12)
        told = [record for record in caplog.records if record.levelno >= logging.ERROR]
        assert len(told) == 4, "each half minute"
        assert (committed(kafka, 0), committed(kafka, 1), len(kafka.consumers)) == (1, 10, 1)
        kafka.damage("t", 1, None)
        await it.transport.accepted(14)
        assert values(it.transport)[-2:] == [b"1", b"2"]


async def test_others_go_on_while_what_is_damaged_is_looked_for(kafka: FakeKafka) -> None:
    kafka.create("t", 50)
    kafka.produce("t", *numbers(0, 101), partition=0)
    kafka.damage("t", 100, CorruptRecordException("Invalid CRC - t/0"))
    async with Replica(kafka, replace(CONFIG, ordering=Ordering.UNORDERED)) as it:
        await it.transport.accepted(100)
        for number in range(100):
            kafka.produce("t", b"new", partition=1 + number % 49)
            await asyncio.sleep(1.01)
        await it.transport.accepted(200)
        assert len(kafka.consumers) == 1
        assert it.metric("paused").count(1) == 1


async def test_no_more_than_fits_is_read_while_what_is_damaged_is_looked_for(kafka: FakeKafka) -> None:
    kafka.create("t", 3)
    for partition in (1, 2):
        kafka.produce("t", *[b"x"] * 20_000, partition=partition)
    kafka.produce("t", b"x", partition=0)
    kafka.damage("t", 0, RuntimeError("snappy: corrupt input"))
    transport = FakeTransport()
    transport.always(Hang())
    config = replace(CONFIG, buffer=1 << 17, drain=SECOND, ordering=Ordering.KEY)
    async with Replica(kafka, config, transport=transport) as it:
        await asyncio.sleep(120)
        assert sum(it.metric("held_bytes")) < config.buffer + 2 * 500 * 700
        assert it.metric("paused") == [1, 1, 1]


async def test_an_error_that_does_not_pass_asks_for_a_new_consumer(kafka: FakeKafka) -> None:
    async with Replica(kafka) as it:
        await it.host.ready("ks")
        it.consumer.errors.append(KafkaError("Unexpected error during coordination"))
        await asyncio.sleep(5)
        kafka.produce("t", b"0")
        await it.transport.accepted(1)
        assert (len(kafka.consumers), it.metric("new_consumers_total")) == (2, [1])


# --- stopping ---


async def test_stopped_it_commits_what_is_on_its_way_and_leaves_the_group(kafka: FakeKafka) -> None:
    kafka.produce("t", *numbers(0, 100))
    transport = FakeTransport(latency=lambda: 1.0)
    async with Replica(
        kafka, replace(CONFIG, ordering=Ordering.UNORDERED, max_in_flight=10), transport=transport
    ) as it:
        await transport.came(10)
        await it.stop()
        assert (len(transport.events), committed(kafka)) == (10, 10)
        assert (it.host.undelivered, it.sink.counters.balance, it.sink.counters.in_flight) == (0, 0, 0)
    assert it.consumer.stopped


async def test_stopped_with_a_dead_sink_it_ends_within_its_drain_and_nothing_counts_as_lost(kafka: FakeKafka) -> None:
    kafka.produce("t", b"0")
    transport = FakeTransport()
    transport.always(Answer(503))
    async with Replica(kafka, transport=transport) as it:
        await asyncio.sleep(1)
        started = asyncio.get_running_loop().time()
        await it.stop()
        assert asyncio.get_running_loop().time() - started <= 2 * CONFIG.drain.total_seconds()
        assert (it.sink.counters.dropped, it.host.undelivered) == ({"fenced": 1}, 0)


async def test_stopped_with_a_sink_that_hangs_it_ends_in_time_too(kafka: FakeKafka) -> None:
    kafka.produce("t", b"0")
    transport = FakeTransport()
    transport.always(Hang())
    async with Replica(kafka, transport=transport, grace=15) as it:
        await transport.came(1)
        started = asyncio.get_running_loop().time()
        await it.stop()
        assert asyncio.get_running_loop().time() - started <= 15
    assert committed(kafka) == 0


# --- what is told ---


async def test_every_metric_is_told_by_partition_or_for_all(kafka: FakeKafka) -> None:
    kafka.create("t", 2)
    assert list(Kafka(CONFIG).metrics()) == []
    async with Replica(kafka) as it:
        await it.host.ready("ks")
        told = {metric.name: metric for metric in it.adapter.metrics()}
        assert {len(metric.samples) for metric in told.values()} == {1, 2}
        assert [labels for _, labels, _ in told["wellhead_kafka_lag"].samples] == [
            (("topic", "t"), ("partition", "0")),
            (("topic", "t"), ("partition", "1")),
        ]
        assert it.metric("rebalances_total") == [1]


def test_isolation_is_of_committed_records_by_default() -> None:
    assert CONFIG.isolation is Isolation.READ_COMMITTED
