"""Reads the partitions that a group gives this member: takes records in, commits what is done, lets go when told to.

aiokafka calls `on_partitions_revoked` and `on_partitions_assigned` from its own task; all partitions are taken away and
given anew at each rebalance.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from aiokafka.abc import ConsumerRebalanceListener
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
from .begin import Beginner, find
from .commits import Commits
from .config import MissingTopic, OutOfRange
from .pressure import Budget
from .starting import Edge
from .unreadable import step_over
from .watchdog import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from .config import KafkaConfig
    from .consumer import Consumer
    from .deliveries import Deliveries
    from .events import Record
    from .memory import Memory, Place
    from .watchdog import Watchdog

_log = logging.getLogger(__name__)
_POLL_MS: Final = 500
_POLL_RECORDS: Final = 500
_ROOM_SECONDS: Final = 0.05
"""A partition that is full is given so long to get some room, before it is paused, which costs what was fetched."""
_BEGIN_SECONDS: Final = 5.0
"""No heartbeats are sent meanwhile: well below any session timeout."""
_LOOK_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 10.0
_TROUBLE_SECONDS: Final = 1.0


class BeginAnew(WellheadError):
    """The consumer is of no more use; a new one may be. The text says why."""


class Stuck(WellheadError):
    """There are records, none comes, and a new consumer did not help. Ends the program with exit code 1."""


class RecordsGone(WellheadError):
    """The next record is not there any more, and ``--out-of-range none`` says to end."""


class TopicMissing(WellheadError):
    """A topic does not exist, and ``--missing-topic fail`` says to end."""


class Reader(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka ships no types
    """One consumer's life: from subscribing to being closed."""

    def __init__(
        self,
        consumer: Consumer,
        config: KafkaConfig,
        deliveries: Deliveries,
        memory: Memory,
        beginner: Beginner,
        watchdog: Watchdog,
        ready: Callable[[], None],
    ) -> None:
        self.partitions: Mapping[Place, Assigned] = {}
        self.rebalances = 0
        self.resets = 0
        self.unreadable = 0
        self.consumer = consumer
        self._config = config
        self._deliveries = deliveries
        self._memory = memory
        self._beginner = beginner
        self._watchdog = watchdog
        self._ready = ready
        self._commits = Commits(consumer)
        self._budget = Budget(config.buffer)
        self._full: set[Assigned] = set()
        self._room = asyncio.Event()
        self._done_since_commit = 0
        self._enough = asyncio.Event()
        self._joined = False
        self._beginning = asyncio.Lock()
        self._trouble = ""

    # --- one life ---

    async def run(self) -> None:
        """Read until cancelled. Always closes the consumer.

        Raises `BeginAnew` or KafkaError where a new consumer may help, `Stuck`, `RecordsGone` or `TopicMissing` where
        the program is to end.

        Cancelled, it takes nothing more in, lets deliveries end for ``drain``, commits, and leaves the group.
        """
        loop = asyncio.get_running_loop()
        self._watchdog.began(loop.time())
        try:
            await self._look_for_topics()
            self.consumer.subscribe(self._config.topics, self._config.topics_pattern or None, self)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._poll(), name="poll Kafka")
                tasks.create_task(self._commit_regularly(), name="commit offsets")
                tasks.create_task(self._watch(), name="watch the reading")
                tasks.create_task(self._deliveries.failure(), name="wait for a worker to fail")
        except ExceptionGroup as errors:
            raise errors.exceptions[0] from None
        finally:
            await self._close()

    async def _close(self) -> None:
        await self._let_go()
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(_ANSWER_SECONDS):
                await self.consumer.stop()

    async def _look_for_topics(self) -> None:
        there = await self.consumer.topics()
        self._beginner.topics_are(there)
        missing = sorted(set(self._config.topics) - there)
        if missing and self._config.missing_topic is MissingTopic.FAIL:
            raise TopicMissing(f"there is no topic {', '.join(missing)}, or no permission to describe it")
        for topic in missing:
            _log.warning("topic does not exist, or may not be described: waiting for it", extra={"topic": topic})

    # --- rebalances: called by aiokafka ---

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Drain, then fence, then commit what is done: within twice ``drain`` and a commit's time."""
        self._joined = False
        if revoked:
            _log.info("partitions are taken away", extra={"partitions": len(revoked)})
        await self._let_go()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin with these."""
        self.rebalances += 1
        self._full.clear()
        self.partitions = {
            (place.topic, place.partition): Assigned((place.topic, place.partition)) for place in sorted(assigned)
        }
        await self._begin()
        _log.info("partitions are assigned", extra={"partitions": len(assigned)})
        self._joined = True
        self._watchdog.began(asyncio.get_running_loop().time())
        self._ready_if_begun()

    async def _let_go(self) -> None:
        partitions = self.partitions.values()
        drain = self._config.drain.total_seconds()
        await self._deliveries.let_go(partitions, drain=drain, settle=drain)
        await self._commits.commit(partitions)
        if self.partitions and all(one.revoked for one in partitions):
            self.partitions = {}

    async def _begin(self) -> None:
        """Find where to begin what was not begun yet. What the brokers do not tell now is asked again by the poll."""
        async with self._beginning:  # an assignment and a poll may both ask
            waiting = [one for one in self.partitions.values() if one.offsets is None]
            if not waiting:
                return
            try:
                async with asyncio.timeout(_BEGIN_SECONDS):
                    await self._beginner.begin(self.consumer, waiting)
            except (KafkaError, TimeoutError) as error:
                _log.warning(
                    "where to begin is not known yet; asked again", extra={"reason": str(error) or "no answer"}
                )
                return
            for partition in waiting:
                if partition.offsets is not None:
                    self._memory.begin(partition.place, partition.offsets.committable)
            # At once: with `latest`, what comes from now on must be found by whoever reads after a crash.
            await self._commits.commit(waiting)
        self._ready_if_begun()

    def _ready_if_begun(self) -> None:
        if self._joined and all(one.offsets is not None for one in self.partitions.values()):
            self._ready()

    # --- polling: never stops, whatever the sink does ---

    async def _poll(self) -> None:
        while True:
            await self._make_room()
            try:
                batches = await self.consumer.getmany(timeout_ms=_POLL_MS, max_records=_POLL_RECORDS)
            except NoOffsetForPartitionError:
                await self._begin()
                continue
            except OffsetOutOfRangeError as error:
                await self._go_on_elsewhere(error.args[0])
                continue
            except KafkaError as error:
                self._rewind()
                await self._note_trouble(error)
                continue
            except UnicodeDecodeError as error:
                self._rewind()
                await self._step_over(error)
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
        if partition.octets >= self._budget.full_at(len(self.partitions)):
            self._full.add(partition)

    async def _make_room(self) -> None:
        """Pause what is full, after a moment in which it may get some room by itself; and give others their turn."""
        pressing = [one for one in self._full if not one.paused]
        if not pressing:
            await asyncio.sleep(0)
            return
        self._room.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_ROOM_SECONDS):
                await self._room.wait()
        for partition in pressing:
            if partition in self._full and not partition.revoked:
                self.consumer.pause(TopicPartition(*partition.place))
                partition.paused = True

    def on_done(self, partition: Assigned) -> None:
        """A record of ``partition`` is done: there may be room again, and enough to commit."""
        self._done_since_commit += 1
        if self._done_since_commit >= self._config.commit_records:
            self._enough.set()
        if partition in self._full and partition.octets <= self._budget.room_at(len(self.partitions)):
            self._full.discard(partition)
            self._room.set()
            if partition.paused and not partition.revoked:
                partition.paused = False
                self.consumer.resume(TopicPartition(*partition.place))

    def _rewind(self) -> None:
        """Read on behind what was taken in.

        Where aiokafka fails to decode one partition's records, it drops those that it had read of others in the same
        call, and their positions stand behind them. To be called before anything else gets its turn.
        """
        assigned = self.consumer.assignment()
        for partition in self.partitions.values():
            place = TopicPartition(*partition.place)
            if partition.offsets is not None and not partition.revoked and place in assigned:
                self.consumer.seek(place, partition.offsets.position)

    async def _step_over(self, error: UnicodeDecodeError) -> None:
        found = await step_over(
            self.consumer,
            lambda: [TopicPartition(*one.place) for one in self.partitions.values() if not (one.paused or one.revoked)],
            self._take_in,
        )
        if found is not None:
            place, offset = found
            self.unreadable += 1
            facts = {"topic": place.topic, "partition": place.partition, "offset": offset, "reason": str(error)}
            _log.error("record cannot be read and is passed: a header's name is no UTF-8", extra=facts)

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
            start = (await find(self.consumer, [place], where))[place]
            self.resets += 1
            _log.error("records are gone before they were read", extra={**facts, "goes_on_at": start})
            await self._start_over(partition, start)

    async def _start_over(self, partition: Assigned, start: int) -> None:
        """Go on at ``start``, also where that lies before what was committed: the topic was made anew."""
        await self._deliveries.let_go([partition], drain=0, settle=0)
        fresh = Assigned(partition.place, metadata=partition.metadata)
        self.partitions = {**self.partitions, partition.place: fresh}
        self._full.discard(partition)
        self.consumer.seek(TopicPartition(*partition.place), start)
        fresh.begin(start)
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

    # --- committing and watching ---

    async def _commit_regularly(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._config.commit_interval.total_seconds()):
                    await self._enough.wait()
            self._enough.clear()
            self._done_since_commit = 0
            await self._commits.commit([one for one in self.partitions.values() if not one.revoked])

    async def _watch(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(_LOOK_SECONDS, self._watchdog.patience / 3))
            verdict = self._watchdog.look(loop.time(), lag=await self._readable())
            if verdict is Verdict.GIVE_UP:
                raise Stuck("there are records, and none was read, with a new consumer either")
            if verdict is Verdict.REBUILD:
                raise BeginAnew("nothing was read for too long")

    async def _readable(self) -> int | None:
        """How many records could be read and were not; None where the brokers do not say. Paused partitions wait for us."""
        reading = [TopicPartition(*one.place) for one in self.partitions.values() if not one.paused]
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if not self._joined:
                    await self.consumer.topics()
                    return 1
                ends = await self.consumer.end_offsets(reading) if reading else {}
                return sum([max(0, end - await self.consumer.position(place)) for place, end in ends.items()])
        except (KafkaError, TimeoutError):
            return None
