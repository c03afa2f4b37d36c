"""The one place where aiokafka's consumer is made; `Consumer` is what the reader asks of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.sticky.sticky_assignor import StickyPartitionAssignor
from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetCommitRequest

from wellhead.errors import WellheadError

from .failures import Failures
from .security import client_options

if TYPE_CHECKING:
    from aiokafka.abc import ConsumerRebalanceListener
    from aiokafka.structs import OffsetAndMetadata, OffsetAndTimestamp, TopicPartition

    from .config import KafkaConfig
    from .events import Record

_log = logging.getLogger(__name__)
START_SECONDS: Final = 60.0
_METADATA_MS: Final = 30_000
"""New topics and partitions are found within this."""
_FETCH_WAIT_MS: Final = 100
"""A fetch that waits for one partition's records delays those of its siblings on the same broker by up to this."""
_FETCH_PARTITION: Final = range(1 << 18, 1 << 20)
"""Held for each partition beside what was taken in: the least still is a thousand small records, the most is Kafka's
default, for who has a larger buffer.
"""
_FETCH_BROKER: Final = 16 << 20


class Unreachable(WellheadError):
    """No broker could be talked to; the text says why."""


class Consumer(Protocol):
    """A started consumer of a group: aiokafka's own interface, as far as it is used, and what `GroupConsumer` adds.

    ``getmany`` raises what coordination and fetching ran into since the last call, and `NoOffsetForPartitionError`
    for a partition that neither has a committed offset nor was sought.
    """

    def subscribe(
        self, topics: Sequence[str] = (), pattern: str | None = None, listener: ConsumerRebalanceListener | None = None
    ) -> None: ...
    async def getmany(
        self, *partitions: TopicPartition, timeout_ms: int = 0, max_records: int | None = None
    ) -> Mapping[TopicPartition, Sequence[Record]]: ...
    async def commit(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None: ...
    async def committed_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]: ...
    async def position(self, partition: TopicPartition) -> int: ...
    def seek(self, partition: TopicPartition, offset: int) -> None: ...
    def pause(self, *partitions: TopicPartition) -> None: ...
    def resume(self, *partitions: TopicPartition) -> None: ...
    def end(self, partition: TopicPartition) -> int | None: ...
    async def beginning_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]: ...
    async def end_offsets(self, partitions: Sequence[TopicPartition]) -> Mapping[TopicPartition, int]: ...
    async def offsets_for_times(
        self, timestamps: dict[TopicPartition, int]
    ) -> Mapping[TopicPartition, OffsetAndTimestamp | None]: ...
    def assignment(self) -> set[TopicPartition]: ...
    def is_member(self) -> bool: ...
    async def topics(self) -> set[str]: ...
    def partitions_for_topic(self, topic: str) -> set[int] | None: ...
    async def stop(self) -> None: ...


Open: TypeAlias = "Callable[[KafkaConfig], Awaitable[Consumer]]"
"""Makes and starts a consumer. Raises `Unreachable`, or `ConfigError` where a file of credentials is not right."""


class GroupConsumer(AIOKafkaConsumer):  # type: ignore[misc]  # aiokafka ships no types
    """aiokafka's, with what it knows and does not tell."""

    async def committed_offsets(
        self, partitions: Iterable[TopicPartition]
    ) -> Mapping[TopicPartition, OffsetAndMetadata]:
        """What the group has committed of these, assigned to this member or not; those with nothing are left out.

        aiokafka's own ``committed`` returns the offset of one partition alone, without the metadata.
        """
        found = await self._coordinator.fetch_committed_offsets(list(partitions))
        return {partition: committed for partition, committed in found.items() if committed.offset >= 0}

    def is_member(self) -> bool:
        """Whether the group counts us in, as far as we were told; False once it has given our partitions to others."""
        return bool(self._coordinator.generation != OffsetCommitRequest.DEFAULT_GENERATION_ID)

    def end(self, partition: TopicPartition) -> int | None:
        """Where the partition ended at the last fetch, open transactions left out; None where that is not known."""
        if partition not in self.assignment():
            return None
        stable = self.last_stable_offset(partition)  # -1 where uncommitted records are read
        known = stable if stable is not None and stable >= 0 else self.highwater(partition)
        return None if known is None else int(known)


async def open_consumer(config: KafkaConfig, *, group: bool = True) -> Consumer:
    """See `Open`. Without a ``group`` it reads beside all groups, from the latest record on unless it is sought."""
    # Of each rebalance it tells in a dozen lines what the reader tells in two.
    if not _log.isEnabledFor(logging.DEBUG):
        logging.getLogger("aiokafka").setLevel(logging.WARNING)
    failures = Failures(config)
    failures.listen()
    consumer = GroupConsumer(
        **client_options(config),
        client_id=f"wellhead-{config.name}",
        group_id=config.consumer_group if group else None,
        group_instance_id=(config.instance_id or None) if group else None,
        partition_assignment_strategy=_assignors(),
        enable_auto_commit=False,
        # Where to begin, and where to go on when records are gone, is decided here and told, not passed over.
        auto_offset_reset="none" if group else "latest",
        isolation_level=config.isolation.value,
        session_timeout_ms=_milliseconds(config.session_timeout.total_seconds()),
        heartbeat_interval_ms=min(3000, _milliseconds(config.session_timeout.total_seconds() / 3)),
        rebalance_timeout_ms=_milliseconds(config.rebalance_timeout.total_seconds()),
        metadata_max_age_ms=_METADATA_MS,
        fetch_max_wait_ms=_FETCH_WAIT_MS,
        fetch_max_bytes=min(_FETCH_BROKER, config.buffer),
        max_partition_fetch_bytes=fetched_of_partition(config.buffer),
    )
    try:
        async with asyncio.timeout(START_SECONDS):
            await consumer.start()
        failures.watch(consumer)
    except (KafkaError, TimeoutError) as error:
        await consumer.stop()
        raise Unreachable(failures.why() or str(error) or f"no answer within {START_SECONDS:.0f} s") from None
    return cast("Consumer", consumer)


def fetched_of_partition(buffer: int) -> int:
    """How many bytes of one partition a fetch may bring, where so many may be held of all; a larger batch comes whole."""
    return min(max(buffer // 64, _FETCH_PARTITION.start), _FETCH_PARTITION.stop, buffer)


def _assignors() -> tuple[type, ...]:
    """Sticky, as Knative's dispatcher has it, and nothing beside it: aiokafka joins once for each that is named.

    With two, every rebalance is two, and a member that had no id yet leaves a ghost behind. aiokafka keeps what its
    sticky assignor remembers on the class, where two consumers of one process would get each other's: each has a class
    of its own.
    """
    return (type("Sticky", (StickyPartitionAssignor,), {}),)


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000)
