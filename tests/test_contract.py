"""The ten laws of `wellhead.testing`, run over every adapter of ours."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from tests.gitlab_requests import TOKEN, hook_request
from tests.kafka_fake import FakeKafka

from wellhead.testing import AdapterLaws
from wellhead_adapters.gitlab.adapter import Gitlab
from wellhead_adapters.gitlab.config import GitlabConfig
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


class GitlabDriver:
    adapter_class = Gitlab
    kind = "gitlab"
    broken = {  # noqa: RUF012 - a constant of this driver
        "K_SINK": "ftp://user:hunter2@example.com",
        "GITLAB_PROJECT_URL": "git@gitlab.example.com:g/p.git",
        "GITLAB_GROUP_URL": "https://me:hunter4@gitlab.example.com/g",
        "GITLAB_EVENT_TYPES": "pushes",
        "GITLAB_HOOK_URL": "nowhere",
        "GITLAB_SECRET_TOKEN": " hunter5",
        "GITLAB_SIGNING_TOKEN": "whsec_hunter6",
        "GITLAB_ACCESS_TOKEN": "hunter7\n",
        "GITLAB_INTERVAL": "1s",
        "GITLAB_CLEANUP": "sometimes",
        "GITLAB_MAPPING": "mine",
        "PORT": "many",
        "DEAD_LETTER_SINK": "http://me:hunter3@example.com",
    }
    secrets = ("hunter2", "hunter3", "hunter4", "hunter5", "hunter6", "hunter7")

    def __init__(self) -> None:
        self._adapter: Gitlab | None = None
        self._number = 0
        self._posts: set[asyncio.Task[None]] = set()

    def adapter(self) -> Adapter:
        config = GitlabConfig(project_urls=("https://gitlab.example.com/g/p",), secret_token=TOKEN, port=0)
        self._adapter = Gitlab(config)
        return self._adapter

    async def occur(self, number: int) -> None:
        """GitLab waits for the answer, which comes when the event was delivered: whoever makes it occur does not."""
        for _ in range(number):
            self._number += 1
            post = asyncio.create_task(self._post(str(self._number)), name="recording sink: GitLab's request")
            self._posts.add(post)
            post.add_done_callback(self._posts.discard)

    async def _post(self, key: str) -> None:
        assert self._adapter is not None
        assert self._adapter.bound is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", self._adapter.bound[1])
        request = hook_request(key=key)
        head = b"".join(b"%b: %b\r\n" % header for header in request.headers)
        length = len(request.body)
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n%bContent-Length: %d\r\n\r\n" % (head, length) + request.body)
        await reader.readline()
        writer.close()


class FastClock:
    """A wall clock that goes fifty times as fast as the loop's, so that a second's schedule ticks each 20 ms."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + 50 * timedelta(seconds=time.monotonic() % 1e6)


class TestGitlabKeepsTheLaws(AdapterLaws):
    driver = GitlabDriver()


class TestPingKeepsTheLaws(AdapterLaws):
    driver = PingDriver()


class TestKafkaKeepsTheLaws(AdapterLaws):
    driver = KafkaDriver()


class TestHeartbeatKeepsTheLaws(AdapterLaws):
    driver = HeartbeatDriver()
