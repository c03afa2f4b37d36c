"""The loop: a beat now, then one each period. What a beat looks like is in ``events.py``; how it is sent, the sink's."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, ClassVar

from wellhead.adapter import Deadline
from wellhead.clock import Clock, SystemClock
from wellhead.errors import DeliveryError

from .config import EVENT_TYPE, HeartbeatConfig
from .events import beat
from .sidecar import quit_sidecar

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.adapter import Sink

_ONE_SHOT_SECONDS = 60.0  # a single beat has no next one to give way to; Knative's tries for 41 s


class Heartbeat:
    """Send a heartbeat event at a steady period (a drop-in for Knative's heartbeats image).

    A beat is worth nothing once the next is due: at most one is in flight, none is queued. The first goes out at
    once. Flags take one dash or two; where both are given the variable wins, as upstream.
    """

    Config: ClassVar[type] = HeartbeatConfig
    event_types: ClassVar[tuple[str, ...]] = (EVENT_TYPE,)
    environment_wins: ClassVar[bool] = True
    images: ClassVar[tuple[str, ...]] = ("heartbeats", "containersource-heartbeats")

    def __init__(self, config: HeartbeatConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """Beat until cancelled; with ``ONE_SHOT``, once."""
        loop = asyncio.get_running_loop()
        period = self._config.period.total_seconds()
        worth = _ONE_SHOT_SECONDS if self._config.one_shot else period
        ready()
        due, number = loop.time(), 1
        while True:
            # A beat that is lost was counted and logged by the sink; the next one takes its place.
            with contextlib.suppress(DeliveryError):
                await sink.send(beat(self._config, number, self._clock.now()), deadline=Deadline(due + worth))
            if self._config.one_shot:
                return await quit_sidecar()
            # Beats that came due while this one was tried are skipped, as Go's ticker drops them.
            due += period * max(1, math.ceil((loop.time() - due) / period))
            await asyncio.sleep(due - loop.time())
            number += 1
