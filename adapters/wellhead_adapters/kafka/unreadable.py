"""Passes a record that aiokafka cannot decode: one whose header has a name that is no UTF-8. Else its partition stands still.

Kafka's brokers do not look into records, so any producer can write one. aiokafka raises UnicodeDecodeError for the whole
fetch and says neither partition nor offset; read one by one, it is the record at the reader's position.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from aiokafka.structs import TopicPartition

    from .consumer import Consumer
    from .events import Record

_SECONDS: Final = 30.0
_WAIT_MS: Final = 50


async def step_over(
    consumer: Consumer,
    places: Callable[[], Collection[TopicPartition]],
    take_in: Callable[[TopicPartition, Sequence[Record]], None],
) -> tuple[TopicPartition, int] | None:
    """Read ``places`` one record at a time up to the unreadable one, and seek behind it; where it was.

    What is read before it is taken in. None where none is found in time: it may have gone with its partition.
    """
    loop = asyncio.get_running_loop()
    until = loop.time() + _SECONDS
    while loop.time() < until:
        for place in places():
            try:
                batches = await consumer.getmany(place, timeout_ms=_WAIT_MS, max_records=1)
            except UnicodeDecodeError:
                offset = await consumer.position(place)
                consumer.seek(place, offset + 1)
                return place, offset
            for where, records in batches.items():
                take_in(where, records)
        await asyncio.sleep(0)
    return None
