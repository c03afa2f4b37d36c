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
from .pressure import Budget
from .room import STUCK_SECONDS, Room
from .starting import Edge
from .unreadable import is_about_a_record, unreadable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

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
_UNREAD_SECONDS: Final = 30.0
"""For so long, with enough in hand and deliveries going on, nothing is read: well below ``max_poll_interval_ms``."""
_BEGIN_SECONDS: Final = 0.05
_TROUBLE_SECONDS: Final = 1.0
_ASIDE_SECONDS: Final = 30.0
_SEARCHES: Final = 3
"""So many for what cannot be read, and none found it: a new consumer may help."""
_NAMED: Final = 100
"""More are not named: aiokafka goes through them for each partition of which it holds records."""


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
        self.asked: frozenset[Assigned] = frozenset()
        """Those that were asked for more the last time; none while we do not want any."""
        self.resets = 0
        self.unreadable = 0
        self._consumer = consumer
        self._config = config
        self._deliveries = deliveries
        self._commits = commits
        self._watchdog = watchdog
        self._room = Room(consumer, Budget(config.buffer, config.max_ahead))
        self._goes_on = False
        """Whether a delivery has ended while we waited."""
        self._wake: Callable[[], object] | None = None
        """To be called, once, when a partition wants more that is not asked: we wait for that, or for what others have."""
        self._unfound = 0
        self._trouble = ""

    def assign(self, places: Iterable[Place]) -> None:
        """These partitions are ours, and no others."""
        self._room.clear()
        self.partitions = {place: Assigned(place) for place in sorted(places)}

    def forget(self) -> None:
        """None is ours any more."""
        self.partitions = {}

    async def poll(self) -> None:
        """Read until cancelled. Raises `BeginAnew` and `RecordsGone`."""
        while True:
            try:
                batches = await self._ask(await self._until_more_is_wanted())
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
        self._room.taken(partition, partitions=len(self.partitions))

    async def _until_more_is_wanted(self) -> Sequence[Assigned]:
        """Wait while more would only fill memory; and give others their turn. Whom to ask then: none while all are paused.

        While the sink takes nothing, it is read on until memory is full.
        """
        loop = asyncio.get_running_loop()
        until = loop.time() + _UNREAD_SECONDS
        await asyncio.sleep(0)
        while True:
            self._room.pause(STUCK_SECONDS)
            unpaused = [one for one in self.partitions.values() if not one.paused]
            if not unpaused or any(self._wants(one) for one in unpaused):
                return [one for one in unpaused if self._deliveries.takes(one) and not self._room.is_full(one)]
            goes_on = await self._until_room()
            if loop.time() >= until:
                self._room.pause(0)
                return [one for one in self.partitions.values() if not one.paused]
            spare = [one for one in unpaused if not self._room.is_full(one)]
            if spare and not goes_on:
                return spare

    async def _ask(self, asked: Sequence[Assigned]) -> Mapping[TopicPartition, Sequence[Record]]:
        """What there is of these; nothing once another wants more, too."""
        if not self.asked.issuperset(asked):
            self._watchdog.began(asyncio.get_running_loop().time())
        self.asked = frozenset(asked)
        is_all = len(asked) == sum(not one.paused for one in self.partitions.values())
        if len(asked) > _NAMED and not is_all:
            self._room.pause(0)
            is_all = True
        named = () if is_all else [TopicPartition(*one.place) for one in asked]
        with contextlib.suppress(TimeoutError):  # nothing is lost of what it waits for
            async with asyncio.timeout(None) as until_wanted:
                if not is_all:
                    self._wake = lambda: until_wanted.reschedule(asyncio.get_running_loop().time())
                try:
                    return await self._consumer.getmany(
                        *named, timeout_ms=int(_POLL_SECONDS * 1000), max_records=_POLL_RECORDS
                    )
                finally:
                    self._wake = None
        return {}

    async def _until_room(self) -> bool:
        """Wait for room, for a moment; whether deliveries go on, so that there will be some."""
        self.asked = frozenset()
        self._goes_on = False
        wanted = asyncio.Event()
        self._wake = wanted.set
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POLL_SECONDS):
                    await wanted.wait()
        finally:
            self._wake = None
        return self._goes_on

    def _wants(self, partition: Assigned) -> bool:
        return self._deliveries.wants(partition) and not self._room.is_full(partition)

    def holds_back(self, partition: Assigned) -> bool:
        """Whether it is read no further: for want of room, or because its records are damaged."""
        return self._room.holds_back(partition)

    def on_done(self, partition: Assigned) -> None:
        """A record of ``partition`` is done: there may be room again."""
        self._goes_on = True
        self._room.ended(partition, partitions=len(self.partitions))
        if self._wake is not None and partition not in self.asked and self._wants(partition):
            wake, self._wake = self._wake, None
            wake()

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
        found = await unreadable(self._consumer, self._readable, self._take_in)
        if found is None:
            self._unfound += 1
            if self._unfound >= _SEARCHES:
                raise BeginAnew(f"what is fetched cannot be read: {met}")
            return
        self._unfound = 0
        place, offset, error = found
        partition = self.partitions.get((place.topic, place.partition))
        facts = {"topic": place.topic, "partition": place.partition, "offset": offset, "reason": str(error)}
        if isinstance(error, UnicodeDecodeError):
            self._consumer.seek(place, offset + 1)
            if partition is not None and partition.offsets is not None:
                partition.offsets.passed(offset + 1)
            self.unreadable += 1
            _log.error("record cannot be read and is passed: a header's name is no UTF-8", extra=facts)
        elif partition is not None:
            _log.error(
                "records are damaged: their partition is asked for again", extra={**facts, "after": _ASIDE_SECONDS}
            )
            self._room.set_aside(partition)
            asyncio.get_running_loop().call_later(_ASIDE_SECONDS, self._take_back, partition)

    def _readable(self) -> list[TopicPartition]:
        here = self.partitions.values()
        return [TopicPartition(*o.place) for o in here if not (o.revoked or self.holds_back(o))]

    def _take_back(self, partition: Assigned) -> None:
        """Ask for it again, that was set aside: a broker's disk may have been damaged, and another be the leader now."""
        if self.partitions.get(partition.place) is partition:
            self._room.take_back(partition)

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
        self._room.forget(partition)
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
