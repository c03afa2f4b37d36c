"""Hosts any number of sources in one process, each with its own sink, coming and going while it runs."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final
from weakref import WeakValueDictionary

from .access import SinkAccess
from .address import Address
from .binding import SinkBinding
from .credentials import Credentials
from .dead_letter_file import DeadLetterFiles
from .delivery import Policy
from .errors import WellheadError
from .sink import HttpSink
from .tls import Trust

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from .adapter import Adapter
    from .batch import BatchLimits
    from .clock import Clock
    from .dead_letter_file import DeadLetterFile
    from .telemetry import Tracer
    from .tls import ClientCertificate
    from .transport import Transport

_log = logging.getLogger(__name__)
_SETTLE_SECONDS: Final = 5.0


@dataclass(slots=True)
class _Source:
    task: asyncio.Task[None]
    ready: asyncio.Event


class Host:
    """Runs (adapter, sink) pairs over one shared transport, and owns what is in flight for all of them.

    An adapter for many sources at once is started once (`start_many`), and given a sink for each that `open_sink` made.
    """

    def __init__(self, transport: Transport, clock: Clock, *, max_on_wire: int = 128) -> None:
        self._transport = transport
        self._max_on_wire = max_on_wire  # of each sink
        self._clock = clock
        self._sources: dict[str, _Source] = {}
        self._adapters: dict[str, Adapter] = {}
        self._measured: dict[str, Callable[[], Mapping[str, object]]] = {}
        self._sinks: dict[str, HttpSink] = {}
        # Shared by sinks that trust alike: a context costs 30 ms and 1 MiB, and connections are kept for each.
        self._trusts: WeakValueDictionary[tuple[str, Path | None, ClientCertificate | None], Trust] = (
            WeakValueDictionary()
        )
        self._ended = asyncio.Event()
        self.dead_letter_files = DeadLetterFiles()
        self.tracer: Tracer | None = None
        """Set before the first sink is opened."""
        self.failure: BaseException | None = None
        self.undelivered = 0
        self.stopping = False
        self.starting = False
        """Whether sources are still to come, so that the host as a whole is not ready."""

    def open_sink(
        self,
        name: str,
        binding: SinkBinding,
        *,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        dead_letter: SinkBinding | DeadLetterFile | None = None,
        access: SinkAccess = SinkAccess(),  # noqa: B008 - frozen
        structured: bool = False,
        percent: bool = False,
        batch: BatchLimits | None = None,
    ) -> HttpSink:
        """A sink for the source ``name``, which must have none. Costs no connection, task or timer until used.

        A dead-letter sink is not shown who we are, unless ``access`` says so, and gets no batches.
        """
        if name in self._sinks:
            raise ValueError(f"a source named {name} has a sink already")

        def address(to: SinkBinding, access: SinkAccess) -> Address:
            return Address(
                to,
                self._transport,
                credentials=Credentials(access.credentials, audience=to.audience, clock=self._clock),
                trust=self._trust(to.ca_certs, access.ca_file, access.client),
                structured=structured,
                percent=percent,
            )

        sink = HttpSink(
            binding,
            address(binding, access),
            clock=self._clock,
            policy=policy,
            batch=batch,
            max_on_wire=self._max_on_wire,
            tracer=self.tracer,
            dead_letter=(
                address(dead_letter, access.for_dead_letters()) if isinstance(dead_letter, SinkBinding) else dead_letter
            ),
        )
        self._sinks[name] = sink
        return sink

    def _trust(self, ca_certs: str, ca_file: Path | None, client: ClientCertificate | None) -> Trust:
        key = (ca_certs, ca_file, client)
        found = self._trusts.get(key)
        if found is None:
            found = self._trusts[key] = Trust(ca_certs, ca_file=ca_file, client=client)
        return found

    async def close_sink(self, name: str, grace: float) -> None:
        """Let the deliveries of ``name`` end within ``grace`` seconds, and forget its sink and counters."""
        self.undelivered += await self._sinks[name].drain(grace)
        del self._sinks[name]

    def start(self, name: str, adapter: Adapter, sink: HttpSink) -> None:
        """Run ``adapter`` until it ends, fails, or is stopped. ``name`` must not be running."""
        self.start_many(name, partial(adapter.run, sink))
        self._adapters[name] = adapter

    def start_many(
        self,
        name: str,
        work: Callable[[Callable[[], None]], Awaitable[None]],
        measured: Callable[[], Mapping[str, object]] | None = None,
    ) -> None:
        """Run ``work(ready)`` likewise: one adapter for many sources, that was given a sink for each.

        ``measured`` tells, by the sources' names, what has metrics of its own (`wellhead.metrics.Measured`).
        """
        if name in self._sources:
            raise ValueError(f"a source named {name} runs already")
        ready = asyncio.Event()
        task = asyncio.create_task(self._run(name, work, ready), name=f"source {name}")
        task.add_done_callback(lambda _: self._ended.set())  # not in `_run`: a task cancelled early never enters it
        self._sources[name] = _Source(task, ready)
        if measured is not None:
            self._measured[name] = measured

    async def stop(self, name: str, grace: float) -> None:
        """Stop one source: cancel its intake, settle its deliveries within ``grace`` seconds, forget it."""
        source = self._sources.pop(name)
        self._adapters.pop(name, None)
        self._measured.pop(name, None)
        await _cancel({source.task}, grace)
        if name in self._sinks:
            await self.close_sink(name, grace)

    async def ready(self, name: str) -> None:
        """Return when the source ``name`` has called ready."""
        await self._sources[name].ready.wait()

    async def wait(self) -> None:
        """Return when every source has ended, or one has failed (`failure`)."""
        while self.failure is None and any(not source.task.done() for source in self._sources.values()):
            self._ended.clear()
            await self._ended.wait()

    async def drain(self, grace: float) -> None:
        """Stop every source and settle what is in flight, all within ``grace`` seconds. `undelivered` tells the rest."""
        self.stopping = True
        loop = asyncio.get_running_loop()
        until = loop.time() + grace
        await _cancel({source.task for source in self._sources.values()}, grace)
        left = max(0.0, until - loop.time())
        ended = await asyncio.gather(*(sink.drain(left) for sink in self._sinks.values()))
        self.undelivered += sum(ended)

    def not_ready(self) -> tuple[str, ...]:
        """The names of sources that run and have not called ready."""
        if self.starting:
            return ("starting",)
        return tuple(
            name for name, source in self._sources.items() if not source.ready.is_set() and not source.task.done()
        )

    def sinks(self) -> Mapping[str, HttpSink]:
        """Every open sink by its source's name."""
        return self._sinks

    def adapters(self) -> Mapping[str, object]:
        """By each source's name, what may have metrics of its own: its adapter, or what one for many has for it."""
        many = [part for measured in self._measured.values() for part in measured().items()]
        return {**self._adapters, **dict(many)}

    async def _run(
        self, name: str, work: Callable[[Callable[[], None]], Awaitable[None]], is_ready: asyncio.Event
    ) -> None:
        def ready() -> None:
            is_ready.set()
            _log.info("source is ready", extra={"source_name": name})

        try:
            await work(ready)
        except asyncio.CancelledError:
            raise
        except WellheadError as error:  # it says in words what is wrong; where that was found helps nobody
            _log.error("source failed", extra={"source_name": name, "reason": str(error)})
            self.failure = error
        except Exception as error:  # noqa: BLE001 - the one place: whatever leaves an adapter ends the program, and is told
            _log.exception("source failed", extra={"source_name": name})
            self.failure = error


async def _cancel(tasks: set[asyncio.Task[None]], grace: float) -> None:
    """Cancel and wait; a task that does not end within the grace and some seconds is left, and told of."""
    running = {task for task in tasks if not task.done()}
    for task in running:
        task.cancel()
    if not running:
        return
    _, stuck = await asyncio.wait(running, timeout=grace + _SETTLE_SECONDS)
    for task in stuck:
        _log.error("source does not stop", extra={"task": task.get_name()})
