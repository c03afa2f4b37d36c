"""The ten laws of `wellhead.testing`, run over every adapter of ours."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from wellhead.testing import AdapterLaws
from wellhead_adapters.heartbeat.adapter import Heartbeat
from wellhead_adapters.heartbeat.config import HeartbeatConfig
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


class FastClock:
    """A wall clock that goes fifty times as fast as the loop's, so that a second's schedule ticks each 20 ms."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC) + 50 * timedelta(seconds=time.monotonic() % 1e6)


class TestPingKeepsTheLaws(AdapterLaws):
    driver = PingDriver()


class TestHeartbeatKeepsTheLaws(AdapterLaws):
    driver = HeartbeatDriver()
