"""Sends the events of records: so many at once, each lane in order, by workers that live as long as the reader."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from wellhead.errors import DeliveryError, Loss
from wellhead.http_binding import make_ahead

from .assigned import Assigned, Held
from .events import KafkaSource, Record, Tally, record_event
from .lanes import Lanes, Ordering
from .pressure import weight

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from wellhead.adapter import Sink
    from wellhead.event import CloudEvent

    from .memory import Memory, Place

_log = logging.getLogger(__name__)
_IN_HAND: Final = 100
"""Records of a partition that keep its deliveries busy until more are read."""
_ENOUGH_IN_HAND: Final = 500
"""More is not asked for. Until then, where another one is, so that what is fetched of it does not hold up the next fetch:
aiokafka's waits for a tenth of a second then.
"""
_AGAIN_FIRST: Final = 1.0
_AGAIN_AT_MOST: Final = 30.0
_NOT_OURS_ANY_MORE: Final = frozenset((Loss.FENCED, Loss.STOPPED))


class Deliveries:
    """Records between being read and being done. `on_done` is called whenever one of a partition has ended."""

    def __init__(
        self,
        sink: Sink,
        source: KafkaSource,
        memory: Memory,
        *,
        ordering: Ordering,
        most: int,
        on_done: Callable[[Assigned], None],
    ) -> None:
        self.tally = Tally()
        self.suppressed = 0
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sink = sink
        self._source = source
        self._memory = memory
        self._ordering = ordering
        self._most = most
        self.on_done = on_done
        self._lanes: Lanes[Held] = Lanes()
        self._workers: set[asyncio.Task[None]] = set()
        self._idle: list[asyncio.Future[None]] = []
        self._to_make: list[Held] = []
        self._late: dict[tuple[Place, int], asyncio.Future[None]] = {}
        """Records of partitions that are gone which are on the wire still; each is told when that has ended."""
        self._settled = asyncio.Event()
        self._now = asyncio.get_running_loop().time

    def wants(self, partition: Assigned) -> bool:
        """Whether more of this partition would keep deliveries busy, and not only fill memory."""
        return self._has_less(partition, _IN_HAND)

    def takes(self, partition: Assigned) -> bool:
        """Whether more of it may come, where more of another is wanted."""
        return self._has_less(partition, _ENOUGH_IN_HAND)

    def _has_less(self, partition: Assigned, in_hand: int) -> bool:
        if self._ordering is Ordering.PARTITION:
            return partition.in_hand < in_hand
        return self._lanes.ready < self._most

    def take_in(self, partition: Assigned, records: Sequence[Record]) -> None:
        """Send these, the next of their partition in order."""
        assert partition.offsets is not None  # noqa: S101 - it is paused until it is known where to begin
        offsets, put, lane = partition.offsets, self._lanes.put, self._ordering.lane
        asks = self._memory.knows(partition.place) or bool(partition.told)
        for record in records:
            offsets.read(record.offset)
            if asks and self._is_known(partition, record):
                offsets.done(record)
                self.suppressed += 1
                continue
            octets = weight(record.key, record.value, len(record.headers))
            partition.octets += octets
            partition.in_hand += 1
            put(Held(partition, record, lane(partition, record.key), octets))
        self._wake()

    def _is_known(self, partition: Assigned, record: Record) -> bool:
        """Whether the record was done before its partition came to us."""
        was_told = partition.told.is_done(record)  # asked of each, whoever else knows
        return self._memory.is_done(partition.place, record) or was_told

    async def let_go(self, partitions: Collection[Assigned], *, drain: float, settle: float) -> None:
        """Begin no more of these than has to be; return when what is on its way has ended, or the time is over.

        For ``drain`` seconds deliveries go on as ever, also of what waited before a record that had begun. Then the
        fences close: what waits for its next try ends at once, what is on the wire has ``settle`` more seconds to be
        accepted. A partition of which a delivery has failed for longer than ``drain`` already is not waited for. What
        ends later is remembered, not committed: should its partition come back, the record waits for that end, and is
        not sent again where it was accepted.
        """
        for partition in partitions:
            partition.revoked = True
        hopeful = [partition for partition in partitions if partition.oldest(self._now()) < drain]
        # What waits before a record that is done or on its way is sent as well: else that one would come again.
        last = {partition: _last_begun(partition) for partition in hopeful}
        self._lanes.drop(lambda held: held.partition.revoked and held.record.offset > last.get(held.partition, -1))
        for partition in partitions:
            if partition not in hopeful:
                partition.fence.close()
        await self._until_settled(hopeful, drain)
        self._lanes.drop(lambda held: held.partition.revoked)
        for partition in partitions:
            partition.fence.close()
        await self._until_settled(partitions, settle)
        for partition in partitions:
            partition.gone = True
            for held in partition.under_way:
                self._late[partition.place, held.record.offset] = asyncio.get_running_loop().create_future()
            for offset, timestamp in partition.offsets.ahead().items() if partition.offsets is not None else ():
                self._memory.done(partition.place, offset, timestamp)

    async def failure(self) -> None:
        """Raise what a worker failed with, which is a bug; until then, wait."""
        await asyncio.shield(self._failed)

    async def aclose(self) -> None:
        """End the workers; deliveries on the wire are the sink's to settle."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)  # their exceptions are in `_failed`
        self._failed.cancel()

    def _wake(self) -> None:
        """Have as many workers at work as there are records that may start."""
        wanted = self._lanes.ready
        while wanted and self._idle:
            idle = self._idle.pop()
            if not idle.done():
                idle.set_result(None)
                wanted -= 1
        for _ in range(min(wanted, self._most - len(self._workers))):
            worker = asyncio.create_task(self._work(), name="send records")
            self._workers.add(worker)
            worker.add_done_callback(self._worker_ended)

    def _worker_ended(self, worker: asyncio.Task[None]) -> None:
        self._workers.discard(worker)
        error = None if worker.cancelled() else worker.exception()
        if error is not None and not self._failed.done():
            self._failed.set_exception(error)

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            held = self._lanes.take()
            if held is None:
                idle = loop.create_future()
                self._idle.append(idle)
                await idle
                continue
            partition, record = held.partition, held.record
            held.started = self._now()
            partition.under_way.add(held)
            if self._late and await self._late_done(held):
                self._end(held, done=True)
                continue
            event = held.event or record_event(self._source, record, self.tally)
            if not self._lanes.ready and (following := self._lanes.behind(held)) is not None:
                self._make_ahead(following)
            attempt = self._memory.attempt(partition.place, record) if self._memory.knows(partition.place) else None
            try:
                await self._sink.send(event, fence=partition.fence, after=attempt)
            except DeliveryError as error:
                done = await self._settle(held, event, error)
            else:
                done = True
            self._end(held, done=done)

    def _make_ahead(self, held: Held) -> None:
        """Make the event of a record that waits for the one before it: while that one is on the wire, we are idle."""
        if not self._to_make:
            asyncio.get_running_loop().call_soon(
                self._make
            )  # in the loop's next turn, as this one ends with writing what was sent
        self._to_make.append(held)

    def _make(self) -> None:
        to_make, self._to_make = self._to_make, []
        for held in to_make:
            if not held.started:  # else it made its event itself
                held.event = record_event(self._source, held.record, self.tally)
                make_ahead(held.event)

    async def _settle(self, held: Held, event: CloudEvent, error: DeliveryError) -> bool:
        """Whether the fate of a record that was not delivered is sealed: it was refused with a count, or taken at last.

        What the sink refused and the dead-letter sink did not take stays here until one of them does.
        """
        partition, record = held.partition, held.record
        wait = _AGAIN_FIRST
        while not error.accounted:
            if error.loss in _NOT_OURS_ANY_MORE:
                if error.attempt is not None:
                    self._memory.failing(partition.place, record, error.attempt)
                return False
            facts = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
            _log.error("record is neither delivered nor dead-lettered: sent again", extra={**facts, "after": wait})
            await self._pause(partition, wait)
            if partition.fence.closed:
                return False
            wait = min(2 * wait, _AGAIN_AT_MOST)
            try:
                await self._sink.send(event, fence=partition.fence, after=error.attempt)
            except DeliveryError as another:
                error = another
            else:
                return True
        return True

    async def _late_done(self, held: Held) -> bool:
        """Wait for the same record's delivery from before a rebalance, if that is on the wire; whether it was accepted."""
        late = self._late.get((held.partition.place, held.record.offset))
        if late is None:
            return False
        over = asyncio.Event()
        late.add_done_callback(lambda _: over.set())
        forget = held.partition.fence.on_close(over.set)
        await over.wait()
        forget()
        done = self._memory.is_done(held.partition.place, held.record)
        self.suppressed += done
        return done

    async def _pause(self, partition: Assigned, seconds: float) -> None:
        """Wait; a fence that closes ends it."""
        closed = asyncio.Event()
        forget = partition.fence.on_close(closed.set)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await closed.wait()
        finally:
            forget()

    def _end(self, held: Held, *, done: bool) -> None:
        partition, record = held.partition, held.record
        partition.under_way.discard(held)
        partition.octets -= held.octets
        partition.in_hand -= 1
        if partition.gone:
            if done:
                self._memory.done(partition.place, record.offset, record.timestamp)
            late = self._late.pop((partition.place, record.offset), None)
            if late is not None:
                late.set_result(None)
        elif done and partition.offsets is not None:
            partition.offsets.done(record)
        self._lanes.done(held)
        if partition.revoked and not partition.under_way:
            self._settled.set()
        self.on_done(partition)

    async def _until_settled(self, partitions: Collection[Assigned], seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while any(partition.under_way for partition in partitions):
                    self._settled.clear()
                    await self._settled.wait()


def _last_begun(partition: Assigned) -> int:
    """The highest offset that is done or under way; -1 where there is none."""
    ahead = partition.offsets.ahead() if partition.offsets is not None else {}
    return max([-1, *ahead, *(held.record.offset for held in partition.under_way)])
