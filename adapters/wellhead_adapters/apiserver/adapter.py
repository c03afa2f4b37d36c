"""The adapter: one ApiServerSource as a program, or as one of many in a process."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
from typing import TYPE_CHECKING, ClassVar, Final

from wellhead.clock import Clock, SystemClock
from wellhead.kubernetes.cluster import find_cluster
from wellhead.kubernetes.reflector import WatchCounters

from .config import SPEC_FIELDS, ApiServerConfig, from_manifest
from .events import EVENT_TYPES, Origin
from .metrics import watch_metrics
from .state import State, StateFile
from .state_map import StateMap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from wellhead.adapter import Sink
    from wellhead.kubernetes.api import Api
    from wellhead.metrics import Metric

_log = logging.getLogger(__name__)
_SETTLE_SECONDS: Final = 5.0
"""How long what is queued may still be handed to the sink once we are told to stop."""


class ApiServer:
    """Send an event for each change of Kubernetes objects (a drop-in for Knative's ApiServerSource).

    After ready, replaying the events gives the cluster's state, whatever happened between. Ids are the same from every
    replica and after every restart. In a pod it is its ServiceAccount, elsewhere what the kubeconfig says.
    """

    Config: ClassVar[type] = ApiServerConfig
    event_types: ClassVar[tuple[str, ...]] = tuple(EVENT_TYPES.values())
    health_port: ClassVar[int] = 8080
    manifest_kinds: ClassVar[tuple[str, ...]] = ("ApiServerSource",)
    spec_fields: ClassVar[tuple[str, ...]] = SPEC_FIELDS
    from_manifest = staticmethod(from_manifest)
    images: ClassVar[tuple[str, ...]] = ("apiserver_receive_adapter",)

    def __init__(
        self, config: ApiServerConfig, *, clock: Clock | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        """Raises `ConfigError` where there is no API server to talk to, or the state file is not as it should be."""
        self._config = config
        self._clock = clock or SystemClock()
        self._cluster = find_cluster(
            os.environ if environment is None else environment,
            server=config.server,
            kubeconfig=config.kubeconfig,
            context=config.context,
        )
        self._state_file = StateFile(config.state_file) if config.state_file is not None else None
        self.counters = WatchCounters()

    def metrics(self) -> Iterator[Metric]:
        """What happened to its watches."""
        return watch_metrics(self.counters)

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """Watch until cancelled; then let what is queued reach the sink."""
        from wellhead.kubernetes.api import Api  # noqa: PLC0415 - aiohttp; not for `wellhead --help`

        from .teller import Teller  # noqa: PLC0415 - likewise
        from .watches import Watches, patiently  # noqa: PLC0415 - likewise

        config = self._config
        api = Api(self._cluster)
        try:
            url = await patiently(api.url, "reading who we are", fail_fast=config.subject.fail_fast)
            origin = Origin(
                source=url,
                namespace=config.namespace,
                name=config.name,
                mode=config.subject.mode,
                copies=config.copies,
            )
            teller = Teller(sink, config, origin, self._clock, await self._state(api))
            stand = asyncio.Event()
            watches = Watches(api, config, teller, self.counters, stand.set)
            try:
                async with asyncio.TaskGroup() as group:
                    group.create_task(teller.lanes.failure(), name="failure of a lane")
                    group.create_task(watches.run(), name="watches")
                    if teller.state is not None:  # also before all kinds are there, which one without rights never is
                        group.create_task(teller.keep(), name="state")
                    await stand.wait()
                    # Else a crash in the next seconds would leave some watches without a position to go on from.
                    await teller.write(at_once=True)
                    ready()
            except BaseExceptionGroup as failed:
                raise _first(failed) from None
            finally:
                left = await teller.lanes.settle(_SETTLE_SECONDS)
                if left:
                    _log.warning("changes were read and not sent", extra={"changes": left})
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_SETTLE_SECONDS):
                        await teller.write(at_once=True)
        finally:
            await api.aclose()

    async def _state(self, api: Api) -> State | None:
        """Where it is kept what was delivered, once that is read."""
        from .watches import patiently  # noqa: PLC0415 - aiohttp; not for `wellhead --help`

        config = self._config
        if config.state_object is None:
            return self._state_file
        namespace, name = config.state_object
        state = StateMap(api, namespace=namespace, name=name, source=f"{namespace}/{config.name}")
        await patiently(state.open, "reading the state", fail_fast=config.subject.fail_fast)
        return state


def _first(failed: BaseExceptionGroup) -> BaseException:
    """What ended it; the others were cancelled by it, or fell with it."""
    error: BaseException = failed
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
