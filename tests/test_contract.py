"""The ten laws of `wellhead.testing`, run over every adapter of ours."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from wellhead.testing import AdapterLaws
from wellhead_adapters.heartbeat.adapter import Heartbeat
from wellhead_adapters.heartbeat.config import HeartbeatConfig

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


class TestHeartbeatKeepsTheLaws(AdapterLaws):
    driver = HeartbeatDriver()
