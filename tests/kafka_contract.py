"""What the reader may rely on in a consumer, as tests: run over the fake here, over real brokers in `interop`."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Final

import pytest
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import (
    IllegalStateError,
    NoOffsetForPartitionError,
    OffsetMetadataTooLargeError,
    OffsetOutOfRangeError,
)
from aiokafka.structs import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection

    from wellhead_adapters.kafka.consumer import Consumer

IN_TIME: Final = 30.0
NUMBERS: Final = [b"%d" % number for number in range(10)]


class Listener(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """Notes what it is told."""

    def __init__(self, name: str = "", told: list[tuple[str, str, int]] | None = None) -> None:
        self.name = name
        self.told: list[tuple[str, str, int]] = [] if told is None else told
        self.assigned = asyncio.Event()
        self.rebalanced = asyncio.Condition()
        self.times = 0

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.told.append((self.name, "revoked", len(revoked)))
        self.assigned.clear()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        self.told.append((self.name, "assigned", len(assigned)))
        self.assigned.set()


class Busy(Listener):
    """Takes its time over what it is assigned; pauses it first where that is asked for."""

    def __init__(self, consumer: Consumer, *, pauses: bool) -> None:
        super().__init__()
        self.go_on = asyncio.Event()
        self._consumer = consumer
        self._pauses = pauses

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        if self._pauses:
            self._consumer.pause(*assigned)
        await super().on_partitions_assigned(assigned)
        await self.go_on.wait()


class ConsumerContract(ABC):
    """Subclass it with a broker, and pytest runs it."""

    @abstractmethod
    async def topic(self, partitions: int = 1) -> str:
        """A new topic."""

    @abstractmethod
    async def produce(self, topic: str, values: list[bytes], partition: int = 0) -> None:
        """Append records; return when they can be read."""

    @abstractmethod
    async def delete_before(self, topic: str, offset: int) -> None:
        """Delete the records of partition 0 before ``offset``."""

    @abstractmethod
    async def open(self, group: str) -> Consumer:
        """A started consumer of ``group``; closed after the test."""

    async def joined(self, topic: str, group: str = "") -> tuple[Consumer, TopicPartition]:
        consumer, listener = await self.open(group or topic), Listener()
        consumer.subscribe((topic,), None, listener)
        async with asyncio.timeout(IN_TIME):
            await listener.assigned.wait()
        return consumer, TopicPartition(topic, 0)

    async def read(self, consumer: Consumer, number: int, *places: TopicPartition) -> list[bytes | None]:
        found: list[bytes | None] = []
        async with asyncio.timeout(IN_TIME):
            while len(found) < number:
                left = number - len(found)
                for records in (await consumer.getmany(*places, timeout_ms=200, max_records=left)).values():
                    found += [record.value for record in records]
        return found

    async def test_a_partition_without_an_offset_is_an_error_until_it_is_sought(self) -> None:
        topic = await self.topic()
        await self.produce(topic, NUMBERS)
        consumer, place = await self.joined(topic)
        with pytest.raises(NoOffsetForPartitionError):
            await self.read(consumer, 1)
        consumer.seek(place, 3)
        assert await self.read(consumer, 4) == NUMBERS[3:7]
        assert await consumer.position(place) == 7
        assert await self.read(consumer, 3) == NUMBERS[7:]
        assert await consumer.position(place) == 10

    async def test_nothing_to_read_is_an_empty_answer_in_time(self) -> None:
        consumer, place = await self.joined(await self.topic())
        consumer.seek(place, 0)
        async with asyncio.timeout(IN_TIME):
            assert not await consumer.getmany(timeout_ms=100)

    async def test_a_committed_offset_is_where_the_next_one_begins_and_its_metadata_is_kept(self) -> None:
        topic = await self.topic()
        await self.produce(topic, NUMBERS)
        consumer, place = await self.joined(topic)
        assert await consumer.committed_offsets([place]) == {}
        consumer.seek(place, 0)
        await consumer.commit({place: OffsetAndMetadata(4, "partitions=1")})
        assert await consumer.committed_offsets([place]) == {place: OffsetAndMetadata(4, "partitions=1")}
        await consumer.stop()
        consumer, place = await self.joined(topic)
        assert await self.read(consumer, 6) == NUMBERS[4:]

    async def test_metadata_of_3500_characters_is_kept_and_more_than_4096_refused(self) -> None:
        consumer, place = await self.joined(await self.topic())
        consumer.seek(place, 0)
        much = OffsetAndMetadata(0, "x" * 3600)
        await consumer.commit({place: much})
        with pytest.raises(OffsetMetadataTooLargeError):
            await consumer.commit({place: OffsetAndMetadata(0, "x" * 4097)})
        assert await consumer.committed_offsets([place]) == {place: much}

    async def test_what_is_not_assigned_cannot_be_committed(self) -> None:
        topic = await self.topic()
        consumer, _ = await self.joined(topic)
        with pytest.raises(IllegalStateError):
            await consumer.commit({TopicPartition(topic, 7): OffsetAndMetadata(1, "")})
        with pytest.raises(IllegalStateError):
            await consumer.position(TopicPartition(topic, 7))

    async def test_a_paused_partition_brings_nothing_and_then_goes_on_where_it_was(self) -> None:
        topic = await self.topic()
        await self.produce(topic, NUMBERS)
        consumer, place = await self.joined(topic)
        consumer.seek(place, 0)
        assert await self.read(consumer, 2) == NUMBERS[:2]
        consumer.pause(place)
        for _ in range(5):
            assert not await consumer.getmany(timeout_ms=50)
        assert await consumer.position(place) == 2
        consumer.resume(place)
        assert await self.read(consumer, 8) == NUMBERS[2:]

    async def test_what_is_not_asked_for_keeps_its_records_and_keeps_no_other_from_coming(self) -> None:
        topic = await self.topic(2)
        consumer, first = await self.joined(topic)
        second = TopicPartition(topic, 1)
        consumer.seek(first, 0)
        consumer.seek(second, 0)
        await self.produce(topic, NUMBERS, partition=0)
        for number in NUMBERS:  # one by one, so that each is fetched while the other partition's wait
            await self.produce(topic, [number], partition=1)
            assert await self.read(consumer, 1, second) == [number]
        assert await consumer.position(first) == 0
        assert await self.read(consumer, 10) == NUMBERS
        assert (await consumer.position(first), await consumer.position(second)) == (10, 10)

    @pytest.mark.parametrize("pauses", [False, True])
    async def test_records_come_while_the_listener_is_busy_with_its_assignment_unless_it_has_paused_them(
        self,
        pauses: bool,  # noqa: FBT001
    ) -> None:
        topic = await self.topic()
        await self.produce(topic, NUMBERS)
        consumer, place = await self.joined(topic)
        consumer.seek(place, 0)
        await consumer.commit({place: OffsetAndMetadata(4, "")})
        await consumer.stop()
        consumer = await self.open(topic)
        listener = Busy(consumer, pauses=pauses)
        consumer.subscribe((topic,), None, listener)
        async with asyncio.timeout(IN_TIME):
            await listener.assigned.wait()
        if pauses:
            for _ in range(5):
                assert not await consumer.getmany(timeout_ms=50)
            consumer.resume(place)
        assert await self.read(consumer, 6) == NUMBERS[4:]
        listener.go_on.set()

    async def test_a_member_is_one_of_its_group_and_one_that_has_left_is_not(self) -> None:
        consumer, _ = await self.joined(await self.topic())
        assert consumer.is_member()
        await consumer.stop()
        assert not consumer.is_member()

    async def test_ends_are_told_and_what_lies_beyond_them_is_an_error(self) -> None:
        topic = await self.topic()
        await self.produce(topic, NUMBERS)
        await self.delete_before(topic, 4)
        consumer, place = await self.joined(topic)
        assert await consumer.beginning_offsets([place]) == {place: 4}
        assert await consumer.end_offsets([place]) == {place: 10}
        assert await consumer.offsets_for_times({place: 2**40 * 4}) == {place: None}
        found = (await consumer.offsets_for_times({place: 0}))[place]
        assert found is not None
        assert found.offset == 4
        consumer.seek(place, 2)
        with pytest.raises(OffsetOutOfRangeError) as caught:
            await self.read(consumer, 1)
        assert caught.value.args == ({place: 2},)
        consumer.seek(place, 4)
        assert await self.read(consumer, 6) == NUMBERS[4:]
        assert consumer.end(place) == 10

    async def test_topics_and_their_partitions_are_known(self) -> None:
        topic = await self.topic(3)
        consumer, _ = await self.joined(topic)
        assert topic in await consumer.topics()
        assert consumer.partitions_for_topic(topic) == {0, 1, 2}

    async def test_all_members_let_go_before_any_is_given_partitions(self) -> None:
        topic = await self.topic(4)
        told: list[tuple[str, str, int]] = []
        members = []
        for name in ("one", "two"):
            consumer, listener = await self.open(topic), Listener(name, told)
            consumer.subscribe((topic,), None, listener)
            members.append((consumer, listener))
            async with asyncio.timeout(IN_TIME):
                # A broker may tell a member of a new topic's partitions only after it has joined: with none at first.
                while not all(consumer.assignment() for consumer, _ in members):
                    for each, _ in members:
                        await self._poll(each)
        assert [one for one in told if one[2]] == [
            ("one", "assigned", 4),
            ("one", "revoked", 4),
            *[one for one in told if one[1:] == ("assigned", 2)],
        ]
        assert sum(len(consumer.assignment()) for consumer, _ in members) == 4

    async def _poll(self, consumer: Consumer) -> None:
        try:
            async with asyncio.timeout(0.2):
                await consumer.getmany(timeout_ms=50)
        except (NoOffsetForPartitionError, TimeoutError):
            return
