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

_SECONDS: Final = 2.0
_EXACTLY_SECONDS: Final = 30.0
_WAIT_SECONDS: Final = 0.05
_RECORDS: Final = 500


def is_about_a_record(error: Exception) -> bool:
    """Whether reading failed by what was read: no error of Kafka's, or one of those that a damaged batch is told by."""
    return not isinstance(error, KafkaError) or isinstance(error, CorruptRecordException | UnsupportedCodecError)


async def unreadable(
    consumer: Consumer,
    places: Callable[[], Collection[TopicPartition]],
    take_in: Callable[[TopicPartition, Sequence[Record]], None],
) -> tuple[TopicPartition, int, Exception] | None:
    """Read each of ``places`` by itself until one fails: at which offset, and by what.

    What is read meanwhile is taken in. None where none fails for some seconds, or none is left: what failed may have
    gone with its partition, or be whole now.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _SECONDS
    while loop.time() < until and (asked := places()):
        for place in asked:
            try:
                batches = await consumer.getmany(place, max_records=_RECORDS)
            except Exception as error:  # noqa: BLE001 - of a batch that is damaged aiokafka raises whatever it meets
                if is_about_a_record(error):
                    return await _exactly(place, consumer, places, take_in)
                continue  # whoever polls meets it again, and knows what to do
            for where, records in batches.items():
                take_in(where, records)
        await asyncio.sleep(_WAIT_SECONDS)
    return None


async def _exactly(
    place: TopicPartition,
    consumer: Consumer,
    places: Callable[[], Collection[TopicPartition]],
    take_in: Callable[[TopicPartition, Sequence[Record]], None],
) -> tuple[TopicPartition, int, Exception] | None:
    """Read one record after the other up to the one that fails: then it is at the reader's position."""
    loop = asyncio.get_running_loop()
    until = loop.time() + _EXACTLY_SECONDS
    while loop.time() < until and place in places():
        try:
            batches = await consumer.getmany(place, timeout_ms=int(_WAIT_SECONDS * 1000), max_records=1)
        except Exception as error:  # noqa: BLE001 - as above
            return (place, await consumer.position(place), error) if is_about_a_record(error) else None
        for where, records in batches.items():
            take_in(where, records)
        await asyncio.sleep(0)
    return None
