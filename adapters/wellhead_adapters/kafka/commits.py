"""Commits what may be committed: regularly, when a partition goes, and once a day of what stands still."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import TYPE_CHECKING, Final

from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, OffsetMetadataTooLargeError
from aiokafka.structs import OffsetAndMetadata, TopicPartition

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from .assigned import Assigned, Commit
    from .consumer import Consumer

_log = logging.getLogger(__name__)
TIMEOUT: Final = 10.0
"""Seconds for a commit: aiokafka would try for ever."""
_POSITION_TIMEOUT: Final = 1.0
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
            await self._commit_due(partitions)

    async def _commit_due(self, partitions: Collection[Assigned]) -> None:
        due = self._due(partitions)
        told_ahead = self._ahead
        if due and await self._perform(due):
            now = asyncio.get_running_loop().time()
            for partition, commit in due.items():
                partition.committed, partition.committed_at = commit, now
        elif told_ahead and not self._ahead:
            await self._commit_due(partitions)

    def _due(self, partitions: Collection[Assigned]) -> dict[Assigned, Commit]:
        now = asyncio.get_running_loop().time()
        known = {partition: partition.to_commit(ahead=self._ahead) for partition in partitions}
        return {
            partition: commit
            for partition, commit in known.items()
            if commit is not None and (commit != partition.committed or now - partition.committed_at >= ANEW)
        }

    async def _perform(self, due: Mapping[Assigned, Commit]) -> bool:
        offsets = {
            TopicPartition(*partition.place): OffsetAndMetadata(commit.offset, commit.metadata)
            for partition, commit in due.items()
        }
        try:
            async with asyncio.timeout(TIMEOUT):
                await self._consumer.commit(offsets)
        except OffsetMetadataTooLargeError:
            if self._ahead:
                _log.warning("the brokers take little metadata: more comes twice where a member dies")
            self._ahead = False
            return False
        except (CommitFailedError, IllegalStateError):
            # A rebalance was quicker. The new owners read again what is not committed: duplicates, no loss.
            _log.info("offsets are not committed: their partitions are another's by now")
            return False
        except (KafkaError, TimeoutError) as error:
            if not self._failing:
                _log.warning("offsets cannot be committed; tried again", extra={"reason": str(error) or "no answer"})
            self._failing = True
            return False
        self._failing = False
        return True

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
