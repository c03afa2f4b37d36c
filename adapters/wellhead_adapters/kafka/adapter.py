"""The loop around the reader: connects, reads, goes on with a new consumer where the old one is of no more use."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Final

from wellhead.delivery import Policy
from wellhead.errors import ConfigError

from .config import KafkaConfig
from .events import EVENT_TYPE
from .manifest import SPEC_FIELDS, from_manifest, missing_secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from wellhead.adapter import Sink
    from wellhead.metrics import Metric

    from .consumer import Consumer, Open
    from .reading import Reading

_log = logging.getLogger(__name__)
_WAIT_FIRST: Final = 1.0
_WAIT_AT_MOST: Final = 30.0


class Kafka:
    """Send an event for each record of Kafka topics (a drop-in for Knative's KafkaSource).

    An offset is committed only when every record before it was accepted, dead-lettered or refused with a count. Order
    holds per partition, or per key with `--ordering key`, which sends records of different keys side by side.
    `--dry-run` prints what would be sent.
    """

    Config: ClassVar[type] = KafkaConfig
    event_types: ClassVar[tuple[str, ...]] = (EVENT_TYPE,)
    health_port: ClassVar[int] = 8080
    policy: ClassVar[Policy] = Policy(timeout=timedelta(minutes=10))
    """Where no ``delivery`` is given: as long as Knative gives a try."""
    manifest_kinds: ClassVar[tuple[str, ...]] = ("KafkaSource",)
    spec_fields: ClassVar[tuple[str, ...]] = SPEC_FIELDS
    from_manifest = staticmethod(from_manifest)
    missing_secrets = staticmethod(missing_secrets)

    def __init__(self, config: KafkaConfig, *, open_consumer: Open | None = None) -> None:
        self._config = config
        self._open = open_consumer
        self._reading: Reading | None = None

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """Read until cancelled. Raises `Stuck`, `RecordsGone`, `TopicMissing` where settings say to end."""
        # aiokafka costs 63 ms, which nobody pays who only asks for help or runs another adapter.
        from aiokafka.errors import KafkaError  # noqa: PLC0415

        from .intake import BeginAnew  # noqa: PLC0415
        from .reading import Reading  # noqa: PLC0415

        reading = self._reading = Reading(self._config, sink, ready)
        try:
            while True:
                consumer = await self._connected()
                try:
                    await reading.until_over(consumer)
                except (BeginAnew, KafkaError) as error:
                    _log.warning("going on with a new consumer", extra={"reason": str(error) or type(error).__name__})
                await asyncio.sleep(_WAIT_FIRST)
        finally:
            await reading.aclose()

    @staticmethod
    def concurrency(config: KafkaConfig) -> int:
        """Every record on its way may be on the wire; see `wellhead.adapter.AdapterClass`."""
        return config.max_in_flight

    @staticmethod
    def dry_run(config: KafkaConfig) -> int:
        """Print the events of records until interrupted; see `wellhead.adapter.AdapterClass`."""
        from .dry_run import run  # noqa: PLC0415 - see `run`

        return run(config)

    def metrics(self) -> Iterator[Metric]:
        """See `wellhead.metrics.Measured`."""
        if self._reading is not None:
            yield from self._reading.metrics()

    async def _connected(self) -> Consumer:
        """A started consumer, however long that takes. Why it takes longer is told whenever it changes."""
        from .consumer import Unreachable, open_consumer  # noqa: PLC0415 - see `run`

        wait, told = _WAIT_FIRST, ""
        while True:
            try:
                return await (self._open or open_consumer)(self._config)
            except (Unreachable, ConfigError) as error:
                if str(error) != told:
                    _log.error("cannot connect to Kafka; tried again", extra={"reason": str(error)})
                told = str(error)
            await asyncio.sleep(wait)
            wait = min(2 * wait, _WAIT_AT_MOST)
