"""Finds the record that aiokafka cannot read. Else its partition stands still, and with it the others.

Kafka's brokers do not look into records, so any producer can write a header whose name is no UTF-8; and a disk can damage
a batch. aiokafka raises for the whole fetch and says neither partition nor offset; read one by one, it is the record at
the reader's position.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka.errors import CorruptRecordException, KafkaError, UnsupportedCodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from aiokafka.structs import TopicPartition

    from .consumer import Consumer
    from .events import Record

_SECONDS: Final = 30.0
_WAIT_MS: Final = 50


def is_about_a_record(error: Exception) -> bool:
    """Whether reading failed by what was read: no error of Kafka's, or one of those that a damaged batch is told by."""
    return not isinstance(error, KafkaError) or isinstance(error, CorruptRecordException | UnsupportedCodecError)


async def unreadable(
    consumer: Consumer,
    places: Callable[[], Collection[TopicPartition]],
    take_in: Callable[[TopicPartition, Sequence[Record]], None],
) -> tuple[TopicPartition, int, Exception] | None:
    """Read ``places`` one record at a time up to the unreadable one: where it is, and what is wrong with it.

    What is read before it is taken in. None where none is found in time: it may have gone with its partition.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _SECONDS
    while loop.time() < until:
        for place in places():
            try:
                batches = await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=1)
            except Exception as error:
                if not is_about_a_record(error):
                    raise
                return place, await consumer.position(place), error
            for where, records in batches.items():
                take_in(where, records)
        await asyncio.sleep(0)
    return None
