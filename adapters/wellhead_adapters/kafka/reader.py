"""Reads the partitions that a group gives this member: begins with them, commits what is done, lets go when told to.

aiokafka calls `on_partitions_revoked` and `on_partitions_assigned` from its own task; all partitions are taken away and
given anew at each rebalance.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.errors import KafkaError
from aiokafka.structs import TopicPartition

from wellhead.errors import WellheadError

from .commits import Commits
from .config import MissingTopic
from .intake import BeginAnew, Intake
from .watchdog import Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from .assigned import Assigned
    from .begin import Beginner
    from .config import KafkaConfig
    from .consumer import Consumer
    from .deliveries import Deliveries
    from .memory import Memory, Place
    from .watchdog import Watchdog

_log = logging.getLogger(__name__)
_BEGIN_SECONDS: Final = 5.0
"""No heartbeats are sent meanwhile: well below any session timeout."""
_AGAIN_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 10.0
_ANSWER_SECONDS: Final = 10.0


class Stuck(WellheadError):
    """There are records, none comes, and a new consumer did not help. Ends the program with exit code 1."""


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
        self.rebalances = 0
        self.consumer = consumer
        self._config = config
        self._deliveries = deliveries
        self._memory = memory
        self._beginner = beginner
        self._watchdog = watchdog
        self._ready = ready
        self._commits = Commits(consumer)
        self.intake = Intake(consumer, config, deliveries, self._commits, watchdog)
        self._done_since_commit = 0
        self._enough = asyncio.Event()
        self._joined = False
        self._beginning = asyncio.Lock()
        self._not_begun = asyncio.Event()

    @property
    def partitions(self) -> Mapping[Place, Assigned]:
        """Those that are ours at this moment."""
        return self.intake.partitions

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
                tasks.create_task(self.intake.poll(), name="poll Kafka")
                tasks.create_task(self._begin_late(), name="begin what could not be begun")
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
        """Drain, then fence, then commit what is done: within twice ``drain`` and a commit's time.

        What the group has given to others already, because it did not hear of us for too long, is fenced at once.
        """
        self._joined = False
        if revoked:
            _log.info("partitions are taken away", extra={"partitions": len(revoked)})
        await self._let_go()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Begin with these."""
        self.rebalances += 1
        # Records would come while we ask where to begin; what is known of them then would be forgotten.
        self.consumer.pause(*assigned)
        self.intake.assign((place.topic, place.partition) for place in assigned)
        await self._begin()
        _log.info("partitions are assigned", extra={"partitions": len(assigned)})
        self._joined = True
        self._watchdog.began(asyncio.get_running_loop().time())
        self._ready_if_begun()

    async def _let_go(self) -> None:
        partitions = self.partitions.values()
        ours = self.consumer.is_member()
        drain = self._config.drain.total_seconds() if ours else 0.0
        await self._deliveries.let_go(partitions, drain=drain, settle=drain)
        if ours:
            await self._commits.commit(partitions)
        if self.partitions and all(one.revoked for one in partitions):
            self.intake.forget()

    async def _begin(self) -> None:
        """Find where to begin what was not begun yet. What the brokers do not tell now is asked again in a second."""
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
                self._not_begun.set()
                return
            for partition in waiting:
                if partition.offsets is not None:
                    self._memory.begin(partition.place, partition.offsets.committable)
            # At once: with `latest`, what comes from now on must be found by whoever reads after a crash.
            await self._commits.commit(waiting)
        self._ready_if_begun()

    async def _begin_late(self) -> None:
        while True:
            await self._not_begun.wait()
            self._not_begun.clear()
            await asyncio.sleep(_AGAIN_SECONDS)
            await self._begin()

    def _ready_if_begun(self) -> None:
        if self._joined and all(one.offsets is not None for one in self.partitions.values()):
            self._ready()

    # --- committing and watching ---

    def on_done(self, partition: Assigned) -> None:
        """A record of ``partition`` is done: there may be room again, and enough to commit."""
        self._done_since_commit += 1
        if self._done_since_commit >= self._config.commit_records:
            self._enough.set()
        self.intake.on_done(partition)

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
        """How many records were asked for and not read; None where the brokers do not say. Other partitions wait for us."""
        reading = [TopicPartition(*one.place) for one in self.intake.asked if not (one.paused or one.revoked)]
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                if not self._joined:
                    await self.consumer.topics()
                    return 1
                ends = await self.consumer.end_offsets(reading) if reading else {}
                return sum([max(0, end - await self.consumer.position(place)) for place, end in ends.items()])
        except (KafkaError, TimeoutError):
            return None
