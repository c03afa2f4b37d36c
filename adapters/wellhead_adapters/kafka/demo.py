"""``wellhead demo kafka``: a broker inside this process, librdkafka's mock, and an order a second to read from it."""

from __future__ import annotations

import asyncio
import importlib.util
import itertools
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from wellhead.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from confluent_kafka import Producer

TOPIC: Final = "orders"
_CUSTOMERS: Final = ("ada", "grace", "edsger")
_SECONDS: Final = 1.0
_ANSWER_SECONDS: Final = 10.0
_HOW: Final = (
    "needs a broker to read. pip install 'wellhead[demo]' brings one that runs inside the demo; of one that you have,"
    " wellhead kafka --dry-run --bootstrap-servers HOST:PORT --topics TOPIC shows the records as events"
)


@asynccontextmanager
async def play() -> AsyncIterator[Mapping[str, str]]:
    """The broker, as long as the block lasts, with a new record each second; the adapter's variables to read them."""
    if importlib.util.find_spec("confluent_kafka") is None:
        raise ConfigError([Problem("demo kafka", _HOW)])
    producer, address = await asyncio.to_thread(_broker)
    writing = asyncio.create_task(_write(producer), name="write orders")
    try:
        yield {
            "KAFKA_BOOTSTRAP_SERVERS": address,
            "KAFKA_TOPICS": TOPIC,
            "KAFKA_CONSUMER_GROUP": "demo",
            "KAFKA_INITIAL_OFFSET": "earliest",
            "KAFKA_ORDERING": "key",
            "NAME": "demo",
            "NAMESPACE": "laptop",
        }
    finally:
        writing.cancel()


def _broker() -> tuple[Producer, str]:
    """A producer, and the address of the mock that lives as long as it does."""
    from confluent_kafka import Producer  # noqa: PLC0415 - the extra `demo`

    # Of this address nothing is asked: the mock takes its place.
    producer = Producer({"bootstrap.servers": "127.0.0.1:1", "test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = producer.list_topics(timeout=_ANSWER_SECONDS).brokers.values()
    return producer, f"{broker.host}:{broker.port}"


async def _write(producer: Producer) -> None:
    for number in itertools.count(1):
        customer = _CUSTOMERS[number % len(_CUSTOMERS)]
        value = json.dumps({"order": number, "customer": customer})
        producer.produce(TOPIC, value.encode(), customer.encode(), headers={"content-type": "application/json"})
        producer.poll(0)
        await asyncio.sleep(_SECONDS)
