"""Finds where each assigned partition begins: at its committed offset, else where `starting` says; performs the seek."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from typing import TYPE_CHECKING

from aiokafka.structs import TopicPartition

from .ahead import told
from .assigned import Commit
from .starting import Edge, InitialOffset, Since, began_with, begin_at, done_ahead

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from .ahead import Run
    from .assigned import Assigned
    from .consumer import Consumer

_log = logging.getLogger(__name__)


class Beginner:
    """Knows how many partitions each topic had when this process began, for the life of the process."""

    def __init__(self, initial: InitialOffset) -> None:
        self._initial = initial
        self._there: set[str] | None = None
        self._known: dict[str, int] = {}

    def topics_are(self, there: set[str]) -> None:
        """These topics exist. What is said at the first call counts: others are found later, and begun at the first record."""
        if self._there is None:
            self._there = there

    async def begin(self, consumer: Consumer, partitions: Collection[Assigned]) -> None:
        """Seek to where each begins, give it its `Offsets`, and resume it, unless it was taken away meanwhile.

        Raises KafkaError where the brokers do not tell; nothing has changed then.
        """
        by_topic = self._with_siblings(consumer, partitions)
        committed = await consumer.committed_offsets([one for siblings in by_topic.values() for one in siblings])
        began: dict[str, int] = {}
        for topic, siblings in by_topic.items():
            said = [committed[one].metadata for one in siblings if one in committed]
            began[topic] = began_with(said, known=self._known[topic])
        fresh = [partition for partition in partitions if TopicPartition(*partition.place) not in committed]
        starts = await self._starts(consumer, fresh, began)
        for partition in partitions:
            if partition.revoked:  # it may be ours anew by now, and begun elsewhere
                continue
            there = TopicPartition(*partition.place)
            partition.began_with = began[there.topic]
            runs: Sequence[Run] = ()
            if there in committed:
                start, metadata = committed[there].offset, committed[there].metadata
                runs = told(done_ahead(metadata), start)
                partition.committed = Commit(start, metadata)
                partition.committed_at = asyncio.get_running_loop().time()
            else:
                start = starts[there]
                facts = {"topic": there.topic, "partition": there.partition, "offset": start}
                _log.info("partition is begun: the group has committed nothing of it", extra=facts)
            consumer.seek(there, start)
            partition.begin(start, runs)
            consumer.resume(there)

    def _with_siblings(self, consumer: Consumer, partitions: Collection[Assigned]) -> Mapping[str, set[TopicPartition]]:
        """Every partition of the topics of these. Learns how many there are of a topic that is new to this process."""
        by_topic: dict[str, set[TopicPartition]] = defaultdict(set)
        for partition in partitions:
            by_topic[partition.place[0]].add(TopicPartition(*partition.place))
        for topic, siblings in by_topic.items():
            siblings |= {TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()}
            found_later = self._there is not None and topic not in self._there
            self._known.setdefault(topic, 0 if found_later else len(siblings))
        return by_topic

    async def _starts(
        self, consumer: Consumer, partitions: Collection[Assigned], began: Mapping[str, int]
    ) -> Mapping[TopicPartition, int]:
        wanted: dict[InitialOffset, list[TopicPartition]] = defaultdict(list)
        for partition in partitions:
            topic, number = partition.place
            wanted[begin_at(number, self._initial, began_with=began[topic])].append(TopicPartition(topic, number))
        starts: dict[TopicPartition, int] = {}
        for where, places in wanted.items():
            starts |= await find(consumer, places, where)
        return starts


async def find(
    consumer: Consumer, places: Collection[TopicPartition], where: InitialOffset
) -> Mapping[TopicPartition, int]:
    """The offsets that ``where`` means. Raises KafkaError."""
    if where is Edge.EARLIEST:
        return await consumer.beginning_offsets(list(places))
    ends = await consumer.end_offsets(list(places))
    if not isinstance(where, Since):
        return ends
    found = await consumer.offsets_for_times(dict.fromkeys(places, where.milliseconds))
    return {place: at.offset if (at := found[place]) is not None else ends[place] for place in places}
