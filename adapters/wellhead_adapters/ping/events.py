"""One tick as an event, as Knative's PingSource sends it (contract/core.md 4.2), with an id that says which tick. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from wellhead.errors import ConfigError, InvalidEvent, Problem
from wellhead.event import CloudEvent, rfc3339, stable_id

if TYPE_CHECKING:
    from datetime import datetime

    from .schedule import Schedule

EVENT_TYPE: Final = "dev.knative.sources.ping"
SCHEDULED_TIME: Final = "scheduledtime"
"""The extension that tells the scheduled instant, where extra attributes are wanted."""
_written: Final = functools.lru_cache(maxsize=256)(rfc3339)  # many sources tick at one instant, and are sent at one
_SET_BY: Final = {"source": "namespace, name", "datacontenttype": "contentType"}


@dataclass(frozen=True, slots=True, kw_only=True)
class PingSource:
    """What the events of one PingSource have in common.

    Raises `ConfigError` where no valid event can be made of it, so that `tick` never fails.
    """

    namespace: str
    name: str
    schedule: Schedule
    data: bytes | None = field(default=None, repr=False)
    content_type: str = ""
    extra_attributes: bool = False
    source: str = field(init=False)
    """The CloudEvents attribute."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", f"/apis/v1/namespaces/{self.namespace}/pingsources/{self.name}")
        try:
            CloudEvent(id="-", source=self.source, type=EVENT_TYPE, datacontenttype=self.content_type or None)
        except InvalidEvent as invalid:
            raise ConfigError(Problem(_SET_BY[problem.where], problem.what) for problem in invalid.problems) from None


def tick(ping: PingSource, at: datetime, now: datetime) -> CloudEvent:
    """The event of the tick scheduled for ``at``, sent at ``now``.

    The id is the same on every try, from every replica and after every restart: it says which source, which schedule
    in which timezone, and which instant.
    """
    scheduled = _written(at)
    return CloudEvent(
        id=stable_id(ping.source, ping.schedule.text, scheduled),
        source=ping.source,
        type=EVENT_TYPE,
        time=_written(now),
        datacontenttype=(ping.content_type or None) if ping.data is not None else None,
        extensions={SCHEDULED_TIME: scheduled} if ping.extra_attributes else {},
        data=ping.data,
    )
