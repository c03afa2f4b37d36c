"""A Kafka in memory, as far as a consumer of a group sees it. `kafka_contract` holds it to what the real one does."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetMetadataTooLargeError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition

from wellhead_adapters.kafka.consumer import Unreachable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aiokafka.abc import ConsumerRebalanceListener

    from wellhead_adapters.kafka.config import KafkaConfig

T0: Final = 1_700_000_000_000


@dataclass(frozen=True)
class FakeRecord:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    readable: bool = True


@dataclass
class Log:
    """One partition: records in order of their offsets, with gaps where there were others."""

    records: list[FakeRecord] = field(default_factory=list)
    begin: int = 0
    end: int = 0

    def since(self, offset: int) -> list[FakeRecord]:
        return [record for record in self.records if record.offset >= offset]


class FakeKafka:
    """Topics, groups, and what goes wrong when a test says so."""

    def __init__(self) -> None:
        self.logs: dict[str, list[Log]] = {}
        self.committed: dict[tuple[str, TopicPartition], OffsetAndMetadata] = {}
        self.unknown: set[str] = set()
        """Topics that metadata do not tell of, though they are there."""
        self.damaged: dict[tuple[str, int, int], Exception] = {}
        self.commits = 0
        self.commit_error: Exception | None = None
        self.away = ""
        """Why it cannot be reached; "" while it can."""
        self.deaf = False
        """Fetches bring nothing, whatever there is."""
        self.most_metadata = 4096
        self.slow = 0.0
        """How many seconds it takes to be told where partitions begin and end."""
        self.consumers: list[FakeConsumer] = []
        self.changed = asyncio.Event()
        self.tasks: set[asyncio.Task[None]] = set()
        self._rebalances: dict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    def create(self, topic: str, partitions: int = 1) -> None:
        """Make a topic, or give it more partitions."""
        logs = self.logs.setdefault(topic, [])
        logs.extend(Log() for _ in range(partitions - len(logs)))

    def produce(
        self, topic: str, *values: bytes | None, partition: int = 0, key: bytes | None = None, gap: int = 0
    ) -> None:
        """Append records; before each, ``gap`` offsets that are no records."""
        log = self.logs[topic][partition]
        for value in values:
            offset = log.end + gap
            log.records.append(FakeRecord(topic, partition, offset, T0 + offset, key, value))
            log.end = offset + 1
        self._wake()

    def spoil(self, topic: str, offset: int, partition: int = 0) -> None:
        """Make a record one that cannot be decoded."""
        records = self.logs[topic][partition].records
        (at,) = (number for number, record in enumerate(records) if record.offset == offset)
        records[at] = replace(records[at], readable=False)

    def damage(self, topic: str, offset: int, error: Exception | None, partition: int = 0) -> None:
        """Make a record one of a batch that is damaged, by which reading fails; None: whole again."""
        if error is None:
            del self.damaged[topic, partition, offset]
        else:
            self.damaged[topic, partition, offset] = error
        self._wake()

    def delete(self, topic: str) -> None:
        """Delete a topic; its partitions are taken away at the next rebalance."""
        del self.logs[topic]
        self._wake()

    def mark(self, topic: str, partition: int = 0) -> None:
        """Append the mark of a transaction: an offset that is no record."""
        self.logs[topic][partition].end += 1
        self._wake()

    def forget_before(self, topic: str, offset: int, partition: int = 0) -> None:
        """Delete old records, as retention does."""
        log = self.logs[topic][partition]
        log.begin, log.records = offset, log.since(offset)

    async def open(self, config: KafkaConfig) -> FakeConsumer:
        """See `wellhead_adapters.kafka.consumer.Open`."""
        if self.away:
            raise Unreachable(self.away)
        consumer = FakeConsumer(self, config.consumer_group)
        self.consumers.append(consumer)
        return consumer

    def members(self, group: str) -> list[FakeConsumer]:
        return [one for one in self.consumers if one.group == group and one.listener is not None and one.member]

    async def rebalance(self, group: str) -> None:
        """All partitions are taken from all members, who are asked to let go side by side, and given anew."""
        async with self._rebalances[group]:
            members = self.members(group)
            for member in members:
                member.settled.clear()
            await asyncio.gather(*(member.revoke() for member in members))
            members = [member for member in members if member.member]
            topics = sorted({topic for member in members for topic in member.subscribed()})
            places = [
                TopicPartition(topic, number) for topic in topics for number in range(len(self.logs.get(topic, [])))
            ]
            for number, member in enumerate(members):
                member.assign(places[number :: len(members)])
            await asyncio.gather(*(member.say_assigned() for member in members))
            self._wake()

    async def expire(self, consumer: FakeConsumer) -> None:
        """The member is not heard of any more: others get its partitions without it being asked."""
        consumer.member = False
        await self.rebalance(consumer.group)

    def _wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class FakeConsumer:
    """See `wellhead_adapters.kafka.consumer.Consumer`."""

    def __init__(self, kafka: FakeKafka, group: str) -> None:
        self.group = group
        self.listener: ConsumerRebalanceListener | None = None
        self.member = True
        self.known = True
        """Whether the group still counts it in, as far as it has been told."""
        self.settled = asyncio.Event()
        self.polls = 0
        self.errors: list[KafkaError] = []
        self.positions: dict[TopicPartition, int] = {}
        self.assigned: set[TopicPartition] = set()
        self.paused: set[TopicPartition] = set()
        self.stopped = False
        self._kafka = kafka
        self._topics: tuple[str, ...] = ()
        self._pattern: str | None = None
        self._joining: asyncio.Task[None] | None = None

    def subscribed(self) -> list[str]:
        if self._pattern is None:
            return [topic for topic in self._topics if topic in self._kafka.logs]
        return [topic for topic in self._kafka.logs if re.match(self._pattern, topic)]

    def subscribe(
        self, topics: Sequence[str] = (), pattern: str | None = None, listener: ConsumerRebalanceListener | None = None
    ) -> None:
        self._topics, self._pattern, self.listener = tuple(topics), pattern, listener
        self._joining = asyncio.create_task(self._kafka.rebalance(self.group), name="fake Kafka: join")

    async def revoke(self) -> None:
        assert self.listener is not None
        await self.listener.on_partitions_revoked(set(self.assigned))

    def assign(self, places: list[TopicPartition]) -> None:
        self.assigned, self.paused = set(places), set()
        self.positions = {
            place: committed.offset
            for place in places
            if (committed := self._kafka.committed.get((self.group, place))) is not None
        }

    async def say_assigned(self) -> None:
        assert self.listener is not None
        self.settled.set()  # as with aiokafka: records may come before the listener is through with its assignment
        await self.listener.on_partitions_assigned(set(self.assigned))

    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[FakeRecord]]:
        self.polls += 1
        if self.errors:
            raise self.errors.pop(0)
        loop = asyncio.get_running_loop()
        until = loop.time() + timeout_ms / 1000
        while True:
            await self.settled.wait()
            changed = self._kafka.changed
            found = self._fetched(set(partitions), max_records or 500)
            if found or loop.time() >= until:
                return found
            try:
                async with asyncio.timeout_at(until):
                    await changed.wait()
            except TimeoutError:
                return {}

    def _fetched(self, only: set[TopicPartition], most: int) -> dict[TopicPartition, list[FakeRecord]]:
        found: dict[TopicPartition, list[FakeRecord]] = {}
        for place in sorted((self.assigned & only if only else self.assigned) - self.paused):
            if self._kafka.deaf or most == 0:
                break
            if place.topic not in self._kafka.logs:
                continue
            if place not in self.positions:
                raise NoOffsetForPartitionError(place)
            position, log = self.positions[place], self._log(place)
            if not log.begin <= position <= log.end:
                raise OffsetOutOfRangeError({place: position})
            records = log.since(position)[:most]
            # As aiokafka: what was read of other partitions is lost, and their positions stand behind it.
            if not all(record.readable for record in records):
                raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")
            for record in records:
                error = self._kafka.damaged.get((*place, record.offset))
                if error is not None:
                    raise error
            more = len(log.since(position)) > len(records)
            self.positions[place] = records[-1].offset + 1 if more else log.end
            most -= len(records)
            if records:
                found[place] = records
        return found

    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        if not offsets.keys() <= self.assigned:
            raise IllegalStateError("not assigned")
        await asyncio.sleep(0)
        if self._kafka.commit_error is not None:
            raise self._kafka.commit_error
        if any(place.topic not in self._kafka.logs for place in offsets):
            await asyncio.Event().wait()  # as aiokafka, which tries for ever
        if not self.member:
            raise CommitFailedError("the group has rebalanced")
        if any(len(committed.metadata) > self._kafka.most_metadata for committed in offsets.values()):
            raise OffsetMetadataTooLargeError
        self._kafka.commits += 1
        self._kafka.committed |= {(self.group, place): committed for place, committed in offsets.items()}

    async def committed_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]:
        known = {place: self._kafka.committed.get((self.group, place)) for place in partitions}
        return {place: committed for place, committed in known.items() if committed is not None}

    async def position(self, partition: TopicPartition) -> int:
        if partition not in self.assigned:
            raise IllegalStateError(f"{partition} is not assigned")
        while partition not in self.positions:
            await self._kafka.changed.wait()
        return self.positions[partition]

    def seek(self, partition: TopicPartition, offset: int) -> None:
        if partition not in self.assigned:
            raise IllegalStateError(f"{partition} is not assigned")
        self.positions[partition] = offset

    def pause(self, *partitions: TopicPartition) -> None:
        self.paused |= set(partitions)

    def resume(self, *partitions: TopicPartition) -> None:
        self.paused -= set(partitions)
        self._kafka._wake()

    def end(self, partition: TopicPartition) -> int | None:
        return self._log(partition).end if partition in self.assigned else None

    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        await asyncio.sleep(self._kafka.slow)
        return {place: self._log(place).begin for place in partitions}

    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]:
        if self._kafka.away:
            raise KafkaError(self._kafka.away)
        return {place: self._log(place).end for place in partitions}

    async def offsets_for_times(
        self, timestamps: dict[TopicPartition, int]
    ) -> Mapping[TopicPartition, OffsetAndTimestamp | None]:
        found: dict[TopicPartition, OffsetAndTimestamp | None] = {}
        for place, since in timestamps.items():
            later = [one for one in self._log(place).records if one.timestamp >= since]
            found[place] = OffsetAndTimestamp(later[0].offset, later[0].timestamp) if later else None
        return found

    def assignment(self) -> set[TopicPartition]:
        return self.assigned

    def is_member(self) -> bool:
        return self.known

    async def topics(self) -> set[str]:
        if self._kafka.away:
            raise KafkaError(self._kafka.away)
        return set(self._kafka.logs)

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        known = topic in self._kafka.logs and topic not in self._kafka.unknown
        return set(range(len(self._kafka.logs[topic]))) if known else None

    async def stop(self) -> None:
        self.stopped = True
        if self._joining is not None:
            self._joining.cancel()
        self.known = False
        if self.member:
            self.member = False
            # The rest of the group gets its partitions; nobody waits for that who has left.
            if self._kafka.members(self.group):
                others = asyncio.create_task(self._kafka.rebalance(self.group), name="fake Kafka: a member left")
                self._kafka.tasks.add(others)
                others.add_done_callback(self._kafka.tasks.discard)

    def _log(self, place: TopicPartition) -> Log:
        return self._kafka.logs[str(place.topic)][int(place.partition)]
