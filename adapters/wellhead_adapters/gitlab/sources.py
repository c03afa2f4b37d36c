"""Every GitLabSource of `wellhead run -f` in one process: one port for all, told apart by the path of their webhooks."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wellhead.event import random_id
from wellhead.http_server import HttpServer, Request, Response

from .config import Cleanup
from .listening import SETTLE_SECONDS, listen
from .metrics import keeper_metrics, receiver_metrics
from .receiver import DELIVERY_SECONDS, LIMITS
from .source import receiver_of, registrar_of, secrets_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from wellhead.adapter import Sink
    from wellhead.clock import Clock
    from wellhead.metrics import Measured, Metric

    from .config import GitlabConfig
    from .hook_api import HookApi
    from .receiver import Receiver
    from .registrar import Registrar
    from .secrets import Secrets

_NOT_FOUND: Final = Response(
    404, b"no GitLabSource has this path\n", ((b"content-type", b"text/plain; charset=utf-8"),)
)

_log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Source:
    config: GitlabConfig
    secrets: Secrets
    receiver: Receiver
    registrar: Registrar | None
    task: asyncio.Task[None] | None = None

    def metrics(self) -> Iterator[Metric]:
        """See `wellhead.metrics.Measured`."""
        yield from receiver_metrics(self.receiver.tally)
        if self.registrar is not None:
            yield from keeper_metrics({str(keeper.target): keeper.facts for keeper in self.registrar.keepers})


class GitlabSources:
    """See `wellhead_adapters.cli.plan.Many`. A source's path is ``/namespace/name``."""

    def __init__(self, *, clock: Clock, api: Callable[[GitlabConfig], HookApi]) -> None:
        self._clock = clock
        self._api = api
        self._owner = random_id()
        self._sources: dict[str, _Source] = {}
        self._put = asyncio.Event()
        self._runs = False
        self._broken = asyncio.Event()
        self._ending: set[asyncio.Task[None]] = set()
        self.bound: tuple[str, int] | None = None
        """Where it listens, once it is ready."""

    def put(self, key: str, config: GitlabConfig, sink: Sink) -> None:
        """From now on ``key`` (``GitLabSource namespace/name``) is as ``config`` says.

        Where it was there, nothing is refused meanwhile: what it had delivered is known on, and the secret it had is
        accepted until GitLab has the new one.
        """
        before = self._sources.get(key)
        secrets = secrets_of(config)
        if before is not None:
            secrets.follow_on(before.secrets)
            self._end(before)
        registrar = None
        if config.registers:
            registrar = registrar_of(config, secrets, self._api(config), clock=self._clock, owner=self._owner)
        receiver = receiver_of(
            config,
            sink,
            secrets,
            clock=self._clock,
            on_trouble=registrar.poke if registrar is not None else lambda: None,
            memory=before.receiver.memory if before is not None else None,
        )
        self._sources[key] = _Source(config, secrets, receiver, registrar)
        self._put.set()
        if self._runs:
            self._start(key, self._sources[key])

    def remove(self, key: str) -> None:
        """Take nothing more in for ``key``. Its webhook is left, as the next version of its file may want it."""
        self._end(self._sources.pop(key))

    def measured(self) -> Mapping[str, Measured]:
        """Each source's, by its key."""
        return self._sources

    async def run(self, ready: Callable[[], None]) -> None:
        """Receive for all until cancelled. Where to listen is what the first source says: the environment, for all alike."""
        await self._put.wait()
        first = next(iter(self._sources.values())).config
        server = HttpServer(self._answer, limits=LIMITS, name="receiver of hook events")
        self.bound = await listen(server, first)
        self._runs = True
        for key, source in self._sources.items():
            self._start(key, source)
        try:
            ready()
            await self._broken.wait()
        finally:
            await self._close(server)

    async def _close(self, server: HttpServer) -> None:
        """Webhooks go, where that is asked for, all at a time; what GitLab sends until then is heard."""
        sources = tuple(self._sources.values())
        for source in sources:
            self._end(source)
        try:
            await asyncio.gather(*(_clean_up(source, self._owner) for source in sources))
        finally:
            await server.stop(DELIVERY_SECONDS + SETTLE_SECONDS)
        for task in tuple(self._ending):
            if task.done() and not task.cancelled() and (error := task.exception()) is not None:
                raise error

    def _start(self, key: str, source: _Source) -> None:
        if source.registrar is not None:
            source.task = asyncio.create_task(source.registrar.run(), name=f"registrar of {key}")
            source.task.add_done_callback(self._ended)

    def _end(self, source: _Source) -> None:
        if source.task is not None:
            source.task.cancel()
            self._ending.add(source.task)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A registrar ends by being cancelled only: anything else is a bug, and ends the program, as with one source."""
        if task.cancelled():
            self._ending.discard(task)
        else:
            self._ending.add(task)
            self._broken.set()

    def _answer(self, request: Request) -> Response | Awaitable[Response]:
        path = request.path.rstrip("/")
        for key, source in self._sources.items():
            if path.endswith(f"/{key.rpartition(' ')[2]}"):
                return source.receiver(request)
        only = next(iter(self._sources.values())) if len(self._sources) == 1 else None
        if only is not None and only.registrar is None:  # its webhook was registered by hand, at whatever path
            return only.receiver(request)
        return _NOT_FOUND


async def _clean_up(source: _Source, owner: str) -> None:
    if source.registrar is not None and source.config.cleanup is Cleanup.ON_EXIT:
        await source.registrar.clean_up(owner)
