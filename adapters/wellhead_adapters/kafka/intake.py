"""Takes records in: polls, holds back what is full, passes what cannot be read or is not there any more.

Polling never stops, whatever the sink does: aiokafka takes a member that does not poll for one that hangs.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final, cast

from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    TopicAuthorizationFailedError,
)
from aiokafka.structs import TopicPartition

from wellhead.errors import WellheadError

from .assigned import Assigned
from .begin import find
from .config import OutOfRange
from .deliveries import Enough
from .pressure import Budget
from .starting import Edge
from .unreadable import is_about_a_record, unreadable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .commits import Commits
    from .config import KafkaConfig
    from .consumer import Consumer
    from .deliveries import Deliveries
    from .events import Record
    from .memory import Place
    from .watchdog import Watchdog

_log = logging.getLogger(__name__)
_POLL_SECONDS: Final = 0.5
_POLL_RECORDS: Final = 500
_STUCK_SECONDS: Final = 0.5
"""A partition that is full is not asked for more; once nothing of it has ended for so long it is paused, which costs
what was fetched."""
_UNREAD_SECONDS: Final = 30.0
"""For so long, with enough in hand and deliveries going on, nothing is read: well below ``max_poll_interval_ms``."""
_BEGIN_SECONDS: Final = 0.05
_TROUBLE_SECONDS: Final = 1.0
_ASIDE_SECONDS: Final = 30.0


class BeginAnew(WellheadError):
    """The consumer is of no more use; a new one may be. The text says why."""


class RecordsGone(WellheadError):
    """The next record is not there any more, and ``--out-of-range none`` says to end."""


class Intake:
    """What one consumer reads, of the partitions that are ours at the time."""

    def __init__(
        self,
        consumer: Consumer,
        config: KafkaConfig,
        deliveries: Deliveries,
        commits: Commits,
        watchdog: Watchdog,
    ) -> None:
        self.partitions: Mapping[Place, Assigned] = {}
        self.resets = 0
        self.unreadable = 0
        self._consumer = consumer
        self._config = config
        self._deliveries = deliveries
        self._commits = commits
        self._watchdog = watchdog
        self._budget = Budget(config.buffer, config.max_ahead)
        self._full: dict[Assigned, tuple[int, float]] = {}
        """How many of its records were in hand when we looked, and since when they are so many."""
        self._room = asyncio.Event()
        self._enough = Enough.NO
        """What made us wait instead of reading on."""
        self._goes_on = False
        """Whether a delivery has ended while we waited."""
        self._trouble = ""

    def assign(self, places: Iterable[Place]) -> None:
        """These partitions are ours, and no others."""
        self._full.clear()
        self.partitions = {place: Assigned(place) for place in sorted(places)}

    def forget(self) -> None:
        """None is ours any more."""
        self.partitions = {}

    async def poll(self) -> None:
        """Read until cancelled. Raises `BeginAnew` and `RecordsGone`."""
        while True:
            asked = await self._until_more_may_come()
            try:
                batches = await self._consumer.getmany(
                    *asked, timeout_ms=int(_POLL_SECONDS * 1000), max_records=_POLL_RECORDS
                )
            except NoOffsetForPartitionError:  # it is asked for, or asked for again
                await asyncio.sleep(_BEGIN_SECONDS)
                continue
            except OffsetOutOfRangeError as error:
                await self._go_on_elsewhere(error.args[0])
                continue
            except Exception as error:  # noqa: BLE001 - of a batch that is damaged aiokafka raises whatever it meets
                self._rewind()
                if is_about_a_record(error):
                    await self._step_over(error)
                else:
                    await self._note_trouble(cast("KafkaError", error))
                continue
            for place, records in batches.items():
                self._take_in(place, records)

    def _take_in(self, place: TopicPartition, records: Sequence[Record]) -> None:
        partition = self.partitions.get((place.topic, place.partition))
        if partition is None or partition.revoked:
            return
        self._trouble = ""
        self._watchdog.progress(asyncio.get_running_loop().time())
        self._deliveries.take_in(partition, records)
        assert partition.offsets is not None  # noqa: S101 - as `Deliveries.take_in` says
        if self._budget.is_full(partition.octets, len(partition.offsets), partitions=len(self.partitions)):
            self._full[partition] = partition.in_hand, asyncio.get_running_loop().time()

    async def _until_more_may_come(self) -> Sequence[TopicPartition]:
        """Wait while more would only fill memory; and give others their turn. Whom to ask then; none named: all."""
        loop = asyncio.get_running_loop()
        unread_until = loop.time() + _UNREAD_SECONDS
        while True:
            self._pause_full(_STUCK_SECONDS)
            unpaused = [one for one in self.partitions.values() if not one.paused]
            hungry = [one for one in unpaused if one not in self._full]
            self._enough = self._deliveries.enough(hungry)
            if not unpaused or (hungry and self._enough is Enough.NO):
                break
            goes_on = await self._until_room()
            if loop.time() >= unread_until:
                self._pause_full(0)
                break
            if hungry and not goes_on:
                break
        self._enough = Enough.NO
        await asyncio.sleep(0)
        return [TopicPartition(*one.place) for one in hungry] if len(hungry) < len(unpaused) else ()

    async def _until_room(self) -> bool:
        """Wait for room, for a moment; whether deliveries go on, so that there will be some."""
        self._room.clear()
        self._goes_on = False
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_POLL_SECONDS):
                await self._room.wait()
        return self._goes_on

    def _pause_full(self, after: float) -> None:
        """Pause what is full and of which nothing has ended for so many seconds."""
        now = asyncio.get_running_loop().time()
        for partition, known in self._full.items():
            if partition.paused or partition.revoked:
                continue
            in_hand, since = known if known[0] == partition.in_hand else (partition.in_hand, now)
            self._full[partition] = in_hand, since
            if now - since >= after:
                self._consumer.pause(TopicPartition(*partition.place))
                partition.paused = True

    def on_done(self, partition: Assigned) -> None:
        """A record of ``partition`` is done: there may be room again."""
        self._goes_on = True
        if self._enough is not Enough.NO and not self._deliveries.has_still(self._enough, partition):
            self._room.set()
        if partition in self._full and self._has_room(partition):
            del self._full[partition]
            self._room.set()
            if partition.paused and not partition.revoked:
                partition.paused = False
                self._consumer.resume(TopicPartition(*partition.place))

    def _has_room(self, partition: Assigned) -> bool:
        ahead = len(partition.offsets) if partition.offsets is not None else 0
        return self._budget.has_room(partition.octets, ahead, partitions=len(self.partitions))

    def _rewind(self) -> None:
        """Read on behind what was taken in.

        Where aiokafka fails to decode one partition's records, it drops those that it had read of others in the same
        call, and their positions stand behind them. To be called before anything else gets its turn.
        """
        assigned = self._consumer.assignment()
        for partition in self.partitions.values():
            place = TopicPartition(*partition.place)
            if partition.offsets is not None and not partition.revoked and place in assigned:
                self._consumer.seek(place, partition.offsets.position)

    async def _step_over(self, met: Exception) -> None:
        """Pass the record that cannot be read, or set its partition aside where that may be another's fault."""
        try:
            found = await unreadable(
                self._consumer,
                lambda: [TopicPartition(*o.place) for o in self.partitions.values() if not (o.paused or o.revoked)],
                self._take_in,
            )
        except KafkaError as trouble:
            await self._note_trouble(trouble)
            return
        if found is None:
            if not isinstance(met, UnicodeDecodeError):
                raise BeginAnew(f"what was fetched cannot be read: {met}")
            return
        place, offset, error = found
        facts = {"topic": place.topic, "partition": place.partition, "offset": offset, "reason": str(error)}
        if isinstance(error, UnicodeDecodeError):
            self._consumer.seek(place, offset + 1)
            self.unreadable += 1
            _log.error("record cannot be read and is passed: a header's name is no UTF-8", extra=facts)
            return
        partition = self.partitions.get((place.topic, place.partition))
        if partition is not None:
            _log.error(
                "records are damaged: their partition is asked for again", extra={**facts, "after": _ASIDE_SECONDS}
            )
            self._consumer.pause(place)
            partition.paused = True
            asyncio.get_running_loop().call_later(_ASIDE_SECONDS, self._take_back, partition)

    def _take_back(self, partition: Assigned) -> None:
        """Ask for it again, that was set aside: a broker's disk may have been damaged, and another be the leader now."""
        if self.partitions.get(partition.place) is partition and not partition.revoked and partition not in self._full:
            partition.paused = False
            self._consumer.resume(TopicPartition(*partition.place))

    async def _go_on_elsewhere(self, gone: Mapping[TopicPartition, int]) -> None:
        """The records at these offsets are not there any more: deleted before they were read, or the topic is new."""
        for place, offset in gone.items():
            facts = {"topic": place.topic, "partition": place.partition, "offset": offset}
            if self._config.out_of_range is OutOfRange.NONE:
                raise RecordsGone(f"{place.topic}/{place.partition} has no offset {offset} any more (--out-of-range)")
            partition = self.partitions.get((place.topic, place.partition))
            if partition is None or partition.revoked:
                continue
            where = Edge(self._config.out_of_range.value)
            start = (await find(self._consumer, [place], where))[place]
            if partition.revoked:
                continue
            self.resets += 1
            _log.error("records are gone before they were read", extra={**facts, "goes_on_at": start})
            await self._start_over(partition, start)

    async def _start_over(self, partition: Assigned, start: int) -> None:
        """Go on at ``start``, also where that lies before what was committed: the topic was made anew."""
        fresh = Assigned(partition.place, began_with=partition.began_with)
        fresh.begin(start)
        # Before anything is waited for, so that a rebalance finds it and takes it away.
        self.partitions = {**self.partitions, partition.place: fresh}
        self._full.pop(partition, None)
        place = TopicPartition(*partition.place)
        self._consumer.seek(place, start)
        self._consumer.resume(place)
        await self._deliveries.let_go([partition], drain=0, settle=0)
        await self._commits.commit([fresh])

    async def _note_trouble(self, error: KafkaError) -> None:
        """What coordination or fetching ran into. Permissions and brokers may come back; the rest asks for a new consumer."""
        forbidden = isinstance(error, TopicAuthorizationFailedError | GroupAuthorizationFailedError)
        what = f"no permission: {type(error).__name__.removesuffix('Error')} {error.args}" if forbidden else str(error)
        if not forbidden and not error.retriable:
            raise BeginAnew(what)
        if what != self._trouble:
            _log.warning("Kafka does not let us read; tried again", extra={"reason": what})
        self._trouble = what
        await asyncio.sleep(_TROUBLE_SECONDS)
