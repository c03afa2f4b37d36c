"""The adapter: a receiver for GitLab's requests, and beside it the registrar where webhooks are ours to keep."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import TYPE_CHECKING, ClassVar

from wellhead.clock import Clock, SystemClock
from wellhead.event import random_id
from wellhead.http_server import HttpServer

from .config import PROBE_PORT, Cleanup, GitlabConfig
from .events import SPEC_PREFIX, TYPE_PREFIX
from .listening import SETTLE_SECONDS, listen
from .manifest import SPEC_FIELDS, missing_secrets
from .manifest import from_manifest as read_manifest
from .metrics import keeper_metrics, receiver_metrics
from .receiver import DELIVERY_SECONDS, LIMITS
from .source import receiver_of, registrar_of, secrets_of
from .sources import GitlabSources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from wellhead.adapter import Sink
    from wellhead.manifest import Document, SecretKey
    from wellhead.metrics import Metric

    from .hook_api import HookApi
    from .receiver import Receiver
    from .registrar import Registrar
    from .secrets import Secrets


class Gitlab:
    """Send an event for each hook event of GitLab (a drop-in for Knative's GitLabSource).

    GitLab is answered 2xx when the event was delivered, and not before. With `--hook-url` it keeps one webhook of each
    project, group or instance as it shall be, and asks GitLab for what was missed; without, it only receives.
    `wellhead gitlab cleanup` removes the webhooks.
    """

    Config: ClassVar[type] = GitlabConfig
    event_types: ClassVar[tuple[str, ...]] = (f"{TYPE_PREFIX}*", f"{SPEC_PREFIX}*")
    health_port: ClassVar[int] = PROBE_PORT
    manifest_kinds: ClassVar[tuple[str, ...]] = ("GitLabSource",)
    spec_fields: ClassVar[tuple[str, ...]] = SPEC_FIELDS

    def __init__(self, config: GitlabConfig, *, clock: Clock | None = None, api: HookApi | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._api = api
        self._owner = random_id()
        self._receiver: Receiver | None = None
        self._registrar: Registrar | None = None
        self.bound: tuple[str, int] | None = None
        """Where it listens, once it is ready."""

    @staticmethod
    def from_manifest(document: Document, documents: Sequence[Document] = ()) -> GitlabConfig:
        """The configuration of a GitLabSource document, with what the environment of `wellhead run` adds."""
        return read_manifest(document, documents, os.environ)

    @staticmethod
    def missing_secrets(document: Document, documents: Sequence[Document]) -> Sequence[SecretKey]:
        """Its tokens, where neither the documents nor the environment of `wellhead run` hold them."""
        return missing_secrets(document, documents, os.environ)

    @staticmethod
    def many() -> GitlabSources:
        """For `wellhead run -f`: every GitLabSource of its files on one port."""
        return GitlabSources(clock=SystemClock(), api=_new_api)

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """Receive until cancelled. Ready once the webhooks were looked at: they may be right though the API is down."""
        secrets = secrets_of(self._config)
        receiver = self._receiver = receiver_of(self._config, sink, secrets, clock=self._clock, on_trouble=self._poke)
        server = HttpServer(receiver, limits=LIMITS, name="receiver of hook events")
        self.bound = await listen(server, self._config)
        try:
            if self._config.registers:
                await self._register(secrets, ready)
            else:
                ready()
                await asyncio.Event().wait()
        finally:
            await self._close(server, receiver)

    def metrics(self) -> Iterator[Metric]:
        """See `wellhead.metrics.Measured`."""
        if self._receiver is not None:
            yield from receiver_metrics(self._receiver.tally)
        if self._registrar is not None:
            yield from keeper_metrics({str(keeper.target): keeper.facts for keeper in self._registrar.keepers})

    async def _register(self, secrets: Secrets, ready: Callable[[], None]) -> None:
        registrar = self._registrar = registrar_of(
            self._config, secrets, self._api or _new_api(self._config), clock=self._clock, owner=self._owner
        )
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(registrar.run(), name="registrar")
            await registrar.looked()
            ready()

    async def _close(self, server: HttpServer, receiver: Receiver) -> None:
        """What GitLab still sends is heard until the webhook is gone, and answered until the last one is."""
        try:
            if self._registrar is not None and self._config.cleanup is Cleanup.ON_EXIT:
                await self._registrar.clean_up(self._owner)
        finally:
            await server.stop(DELIVERY_SECONDS + SETTLE_SECONDS)
        with contextlib.suppress(TimeoutError):  # what is still on its way is the runtime's to settle, and to count
            async with asyncio.timeout(SETTLE_SECONDS):
                await receiver.drain()

    def _poke(self) -> None:
        if self._registrar is not None:
            self._registrar.poke()


def _new_api(config: GitlabConfig) -> HookApi:
    from .api import api_of  # noqa: PLC0415 - python-gitlab costs 100 ms, which a mere receiver need not pay

    return api_of(config)
