"""The ten laws of `wellhead.testing`, run over every adapter of ours."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.kafka_fake import FakeKafka

from wellhead.testing import AdapterLaws
from wellhead_adapters.heartbeat.adapter import Heartbeat
from wellhead_adapters.heartbeat.config import HeartbeatConfig
from wellhead_adapters.kafka.adapter import Kafka
from wellhead_adapters.kafka.config import KafkaConfig
from wellhead_adapters.kafka.lanes import Ordering
from wellhead_adapters.kafka.starting import Edge
from wellhead_adapters.ping.adapter import Ping
from wellhead_adapters.ping.config import PingConfig

if TYPE_CHECKING:
    from wellhead.adapter import Adapter


class HeartbeatDriver:
    adapter_class = Heartbeat
    kind = "heartbeat"
    broken = {  # noqa: RUF012 - a constant of this driver
        "K_SINK": "ftp://user:hunter2@example.com",
        "K_CE_OVERRIDES": '{"extensions":{"type":"no"}}',
        "K_CA_CERTS": "hunter3",
        "HEARTBEAT_PERIOD": "-1",
        "ONE_SHOT": "maybe",
        "HEARTBEAT_TYPE": " ",
    }
    secrets = ("hunter2", "hunter3")

    def adapter(self) -> Adapter:
        config = HeartbeatConfig(period=timedelta(milliseconds=30), pod_name="p", pod_namespace="n")
        return Heartbeat(config)

    async def occur(self, number: int) -> None:
        """It beats by itself."""


class PingDriver:
    adapter_class = Ping
    kind = "ping"
    broken = {  # noqa: RUF012 - a constant of this driver
        "K_SINK": "ftp://user:hunter2@example.com",
        "PING_SCHEDULE": "61 * * * *",
        "PING_TIMEZONE": "Middle/Earth",
        "PING_DATA": "this",
        "PING_DATA_BASE64": "dGhhdA==",
        "PING_JITTER": "-1s",
        "PING_CATCH_UP": "some",
        "DEAD_LETTER_SINK": "http://me:hunter3@example.com",
    }
    secrets = ("hunter2", "hunter3")

    def __init__(self) -> None:
        self.clock = FastClock()

    def adapter(self) -> Adapter:
        return Ping(PingConfig(schedule="* * * * * *", data="x"), clock=self.clock)

    async def occur(self, number: int) -> None:
        """It ticks by itself."""


class KafkaDriver:
    adapter_class = Kafka
    kind = "kafka"
    broken = {  # noqa: RUF012 - a constant of this driver
        "K_SINK": "ftp://user:hunter2@example.com",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:many",
        "KAFKA_TOPICS": "no topic",
        "KAFKA_INITIAL_OFFSET": "soon",
        "KEY_TYPE": "garbage",
        "KAFKA_ORDERING": "some",
        "KAFKA_MAX_IN_FLIGHT": "0",
        "KAFKA_NET_SASL_TYPE": "hunter",
        "KAFKA_BUFFER": "lots",
        "DEAD_LETTER_SINK": "http://me:hunter3@example.com",
    }
    secrets = ("hunter2", "hunter3")

    def adapter(self) -> Adapter:
        self._kafka = FakeKafka()
        self._kafka.create("t")
        config = KafkaConfig(
            bootstrap_servers=("kafka:9092",),
            topics=("t",),
            consumer_group="g",
            initial_offset=Edge.EARLIEST,
            ordering=Ordering.KEY,
        )
        return Kafka(config, open_consumer=self._kafka.open)

    async def occur(self, number: int) -> None:
        self._kafka.produce("t", *[b"x"] * number)


class FastClock:
    """A wall clock that goes fifty times as fast as the loop's, so that a second's schedule ticks each 20 ms."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + 50 * timedelta(seconds=time.monotonic() % 1e6)


class TestPingKeepsTheLaws(AdapterLaws):
    driver = PingDriver()


class TestKafkaKeepsTheLaws(AdapterLaws):
    driver = KafkaDriver()


class TestHeartbeatKeepsTheLaws(AdapterLaws):
    driver = HeartbeatDriver()
