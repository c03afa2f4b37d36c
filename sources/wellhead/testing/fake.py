"""A `Sink` in memory, for tests of an adapter's loop that need no HTTP. Keeps the contract of the real one."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from wellhead.errors import DeliveryError, Loss
from wellhead.event import CloudEvent

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from wellhead.adapter import Deadline, Fence
    from wellhead.delivery import Attempt


class FakeSink:
    """Accepts every event, except those that `lose` says. What it accepted is in ``events``, in order."""

    def __init__(self) -> None:
        self.events: list[CloudEvent] = []
        self._losses: deque[Loss] = deque()
        self._arrived = asyncio.Condition()

    def lose(self, *losses: Loss) -> None:
        """The next events are not accepted; `send` raises `DeliveryError` for each, with these reasons."""
        self._losses.extend(losses)

    async def send(
        self,
        event: CloudEvent | SdkEvent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,  # noqa: ARG002 - it tries once
    ) -> None:
        """See `wellhead.adapter.Sink.send`."""
        ours = event if isinstance(event, CloudEvent) else CloudEvent.from_sdk(event)
        loss = self._loss(deadline, fence)
        if loss is not None:
            raise DeliveryError(event_id=ours.id, loss=loss, last="never tried", tries=0, maybe_accepted=False)
        self.events.append(ours)
        async with self._arrived:
            self._arrived.notify_all()
        await asyncio.sleep(0)  # as with a real sink, others have their turn

    async def accepted(self, number: int) -> list[CloudEvent]:
        """Wait until ``number`` events were accepted; they are returned."""
        async with self._arrived:
            await self._arrived.wait_for(lambda: len(self.events) >= number)
        return self.events[:number]

    def _loss(self, deadline: Deadline | None, fence: Fence | None) -> Loss | None:
        if fence is not None and fence.closed:
            return Loss.FENCED
        if deadline is not None and asyncio.get_running_loop().time() >= deadline.at:
            return Loss.EXPIRED
        return self._losses.popleft() if self._losses else None
