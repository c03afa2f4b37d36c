"""Commits what may be committed: regularly, when a partition goes, and once a day of what stands still."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

from .ahead import MOST_CHARACTERS
from .starting import done_ahead

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .assigned import Assigned, Commit
    from .consumer import Consumer

_log = logging.getLogger(__name__)
TIMEOUT: Final = 10.0
"""Seconds for a commit: aiokafka would try for ever."""
_UNKNOWN_TIMEOUT: Final = 1.0
_POSITION_TIMEOUT: Final = 1.0
_CHARACTERS: Final = 256 * 1024
"""Of metadata in one commit, which brokers keep as one batch of records (``message.max.bytes``, 1 MiB by default)."""
ANEW: Final = 24 * 3600.0
"""Brokers forget the offsets of a group that commits nothing (``offsets.retention.minutes``, 7 days by default)."""


class Commits:
    """The commits of one consumer, one after another."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._turn = asyncio.Lock()
        self._ahead = True
        """Whether the brokers take metadata that tells what is done behind the offset."""
        self._failing = False

    async def commit(self, partitions: Collection[Assigned]) -> None:
        """Commit what is due of these. Whatever fails is logged, and due again the next time; none of it is lost.

        Returns within `TIMEOUT` seconds and a little.
        """
        async with self._turn:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_POSITION_TIMEOUT):  # for all of them: a rebalance may be waiting
                    for partition in partitions:
                        await self._look_at_position(partition)
            # A deleted topic's would be tried for ever, and with it all others. Yet a broker that has just started may not
            # know a topic that is there.
            topics = {partition.place[0] for partition in partitions}
            known = {topic for topic in topics if self._consumer.partitions_for_topic(topic) is not None}
            await self._commit_due([one for one in partitions if one.place[0] in known])
            if known != topics:
                await self._commit_due(
                    [one for one in partitions if one.place[0] not in known], seconds=_UNKNOWN_TIMEOUT
                )

    async def _commit_due(self, partitions: Collection[Assigned], *, seconds: float = TIMEOUT) -> bool:
        """Whether nothing is due any more."""
        due = self._due(partitions)
        told_ahead = self._ahead
        if not due or await self._perform(due, seconds):
            now = asyncio.get_running_loop().time()
            for partition, commit in due.items():
                partition.committed, partition.committed_at = commit, now
            return True
        if told_ahead and not self._ahead:
            self._ahead = not await self._commit_due(partitions, seconds=seconds)
            if not self._ahead:
                _log.warning("the brokers take little metadata: more comes twice where a member dies")
        return False

    def _due(self, partitions: Collection[Assigned]) -> dict[Assigned, Commit]:
        now = asyncio.get_running_loop().time()
        most = min(MOST_CHARACTERS, _CHARACTERS // max(1, len(partitions))) if self._ahead else 0
        known = {partition: partition.to_commit(most=most) for partition in partitions}
        return {
            partition: commit
            for partition, commit in known.items()
            if commit is not None and (commit != partition.committed or now - partition.committed_at >= ANEW)
        }

    async def _perform(self, due: Mapping[Assigned, Commit], seconds: float) -> bool:
        offsets = {
            TopicPartition(*partition.place): OffsetAndMetadata(commit.offset, commit.metadata)
            for partition, commit in due.items()
        }
        try:
            async with asyncio.timeout(seconds):
                await self._consumer.commit(offsets)
        except (CommitFailedError, IllegalStateError):
            # A rebalance was quicker. The new owners read again what is not committed: duplicates, no loss.
            _log.info("offsets are not committed: their partitions are another's by now")
            return False
        except (KafkaError, TimeoutError) as error:
            if self._may_be_about_metadata(error, due):
                self._ahead = False
                return False
            if seconds < TIMEOUT:
                topics = sorted({partition.place[0] for partition in due})
                _log.warning(
                    "offsets of topics that are not known any more are not committed", extra={"topics": topics}
                )
                return False
            if not self._failing:
                _log.warning("offsets cannot be committed; tried again", extra={"reason": str(error) or "no answer"})
            self._failing = True
            return False
        self._failing = False
        return True

    def _may_be_about_metadata(self, error: KafkaError | TimeoutError, due: Mapping[Assigned, Commit]) -> bool:
        """Whether the commit may be taken without what is told ahead: not every broker says that it is too much."""
        refused = isinstance(error, KafkaError) and not error.retriable
        return refused and self._ahead and any(done_ahead(commit.metadata) for commit in due.values())

    async def _look_at_position(self, partition: Assigned) -> None:
        """Let an idle partition's offset pass what is no record: the marks of transactions, what compaction took.

        All before the reader's position was handed over, in the same turn of the loop in which the position moved.
        """
        if partition.offsets is None or len(partition.offsets) or partition.revoked:
            return
        try:
            position = await self._consumer.position(TopicPartition(*partition.place))
        except KafkaError:
            return
        if not partition.revoked:  # else records may have been read since that nobody takes in
            partition.offsets.passed(position)
