"""The Kafka in memory keeps the contract that real brokers are held to as well."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from tests.kafka_contract import ConsumerContract
from tests.kafka_fake import FakeKafka

from wellhead_adapters.kafka.config import KafkaConfig
from wellhead_adapters.kafka.consumer import fetched_of_partition

if TYPE_CHECKING:
    from wellhead_adapters.kafka.consumer import Consumer


@pytest.mark.looptime
class TestTheFake(ConsumerContract):
    kafka = FakeKafka()
    names = itertools.count()

    async def topic(self, partitions: int = 1) -> str:
        name = f"t{next(self.names)}"
        self.kafka.create(name, partitions)
        return name

    async def produce(self, topic: str, values: list[bytes], partition: int = 0) -> None:
        self.kafka.produce(topic, *values, partition=partition)

    async def delete_before(self, topic: str, offset: int) -> None:
        self.kafka.forget_before(topic, offset)

    async def open(self, group: str) -> Consumer:
        return await self.kafka.open(KafkaConfig(bootstrap_servers=("k:1",), topics=("t",), consumer_group=group))


@pytest.mark.parametrize(
    ("buffer", "fetched"),
    [
        (1 << 16, 1 << 16),
        (1 << 20, 1 << 18),
        (16 << 20, 1 << 18),
        (32 << 20, 1 << 19),
        (64 << 20, 1 << 20),
        (1 << 30, 1 << 20),
    ],
)
def test_of_a_partition_no_more_is_fetched_at_once_than_befits_the_buffer(buffer: int, fetched: int) -> None:
    assert fetched_of_partition(buffer) == fetched
