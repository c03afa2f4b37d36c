"""A real broker keeps the contract by which the Kafka in memory of the fast tests is made."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Final

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from tests.interop.kafka_cluster import Cluster, create_topic
from tests.kafka_contract import ConsumerContract

from wellhead_adapters.kafka.config import KafkaConfig
from wellhead_adapters.kafka.consumer import Consumer, open_consumer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

NAMES: Final = itertools.count()


class TestARealBroker(ConsumerContract):
    @pytest.fixture(autouse=True)
    async def on(self, kafka: Cluster) -> AsyncIterator[None]:
        self.kafka = kafka
        self.opened: list[Consumer] = []
        yield
        for consumer in self.opened:
            await consumer.stop()

    async def topic(self, partitions: int = 1) -> str:
        name = f"contract-{next(NAMES)}"
        await create_topic(self.kafka.bootstrap, name, partitions=partitions)
        return name

    async def produce(self, topic: str, values: list[bytes], partition: int = 0) -> None:
        async with AIOKafkaProducer(bootstrap_servers=self.kafka.bootstrap) as producer:
            for value in values:
                await producer.send_and_wait(topic, value, partition=partition)

    async def delete_before(self, topic: str, offset: int) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await admin.start()
        await admin.delete_records({TopicPartition(topic, 0): RecordsToDelete(before_offset=offset)})
        await admin.close()

    async def open(self, group: str) -> Consumer:
        servers = tuple(self.kafka.bootstrap.split(","))
        config = KafkaConfig(bootstrap_servers=servers, topics=("t",), consumer_group=group)
        self.opened.append(await open_consumer(config))
        return self.opened[-1]
