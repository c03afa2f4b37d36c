"""``wellhead kafka --dry-run``: prints the events that records would become. Joins no group, commits nothing, sends nothing."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from aiokafka.errors import KafkaError

from wellhead.display.text import event_text
from wellhead.errors import ConfigError, Problem
from wellhead.runtime import Exit, report

from .begin import find
from .consumer import Unreachable, open_consumer
from .events import Tally, record_event

if TYPE_CHECKING:
    from collections.abc import Callable

    from .config import KafkaConfig
    from .consumer import Consumer

_POLL_MS = 200


def run(config: KafkaConfig) -> int:
    """Print until interrupted, or until nobody reads; the exit code."""
    try:
        asyncio.run(_read(config))
    except (ConfigError, Unreachable, KafkaError) as error:
        problems = error.problems if isinstance(error, ConfigError) else [Problem("Kafka", str(error))]
        return report("wellhead kafka", problems)
    except (KeyboardInterrupt, BrokenPipeError):
        return Exit.DONE
    return Exit.DONE


async def _read(config: KafkaConfig) -> None:
    consumer = await open_consumer(config, group=False)
    try:
        consumer.subscribe(config.topics, config.topics_pattern or None)
        await print_events(consumer, config, _say)
    finally:
        await consumer.stop()


async def print_events(consumer: Consumer, config: KafkaConfig, say: Callable[[bytes], None]) -> None:
    """Say the event of each record, from ``initial_offset`` on, until cancelled."""
    source, tally = config.source(), Tally()
    while not (places := consumer.assignment()):
        await consumer.getmany(timeout_ms=_POLL_MS)
    for place, offset in (await find(consumer, places, config.initial_offset)).items():
        consumer.seek(place, offset)
    while True:
        for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
            for record in records:
                say(event_text(record_event(source, record, tally)))


def _say(text: bytes) -> None:
    sys.stdout.buffer.write(text)
    sys.stdout.buffer.flush()
