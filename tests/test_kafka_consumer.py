"""The Kafka in memory keeps the contract that real brokers are held to as well."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from tests.kafka_contract import ConsumerContract
from tests.kafka_fake import FakeKafka

from wellhead_adapters.kafka.config import KafkaConfig

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
