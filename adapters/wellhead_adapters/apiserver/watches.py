"""Which watches run: one per kind where that is allowed and pays, else one per namespace; as namespaces come and go."""

from __future__ import annotations

import asyncio
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Final, Never, TypeVar

from wellhead.errors import WellheadError
from wellhead.kubernetes.change import metadata_of
from wellhead.kubernetes.discovery import Discovery
from wellhead.kubernetes.errors import ApiError
from wellhead.kubernetes.kinds import Gvr, Kind, query
from wellhead.kubernetes.reflector import GaveUp, Manner, Reflector, Scope
from wellhead.kubernetes.watch import LOOK_FOR_KIND, Do, Phase, after_error
from wellhead.kubernetes.wire import METADATA_LIST

from .config import Initial, Reach
from .namespaces import Namespaces

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from wellhead.kubernetes.change import Change
    from wellhead.kubernetes.reflector import ApiServer, WatchCounters

    from .config import ApiServerConfig
    from .subject import Resource
    from .teller import Teller, Told

T = TypeVar("T")
_log = logging.getLogger(__name__)
_FEW: Final = 10
"""Up to so many namespaces a watch each costs less than reading what happens in all others."""
_NAMESPACES: Final = Gvr("", "v1", "namespaces")
_CONFIG_MAPS: Final = Gvr("", "v1", "configmaps")


class Watches:
    """All watches of one source."""

    def __init__(
        self,
        api: ApiServer,
        config: ApiServerConfig,
        teller: Teller,
        counters: WatchCounters,
        ready: Callable[[], None],
    ) -> None:
        self._api = api
        self._config = config
        self._subject = config.subject
        self._teller = teller
        self._counters = counters
        self._ready = ready
        self._awaited: set[str] = {str(resource) for resource in self._subject.resources}
        self._discovery = Discovery(api)
        wanted = config.wanted
        self._manner = Manner(
            metadata_only=config.needs_metadata_only,
            keep_old=wanted.needs_old,
            digest=wanted.digest if config.ignored else None,
            fail_fast=self._subject.fail_fast,
        )

    async def run(self) -> Never:
        """Watch until cancelled. Raises `GaveUp` where it was told to fail fast."""
        namespaces = self._followed()
        try:
            async with asyncio.TaskGroup() as group:
                if namespaces is not None:
                    manner = Manner(metadata_only=True, fail_fast=self._subject.fail_fast, gate=self._manner.gate)
                    follower = Reflector(
                        self._api, self._discovery, Scope(gvr=_NAMESPACES), namespaces,
                        manner=manner, announce=True, counters=self._counters,
                    )  # fmt: skip
                    group.create_task(follower.run(), name="watch of namespaces")
                for resource in dict.fromkeys(self._subject.resources):
                    group.create_task(self._resource(resource, namespaces), name=f"watches of {resource.gvr}")
        finally:
            if namespaces is not None:
                namespaces.close()
        raise WellheadError("all watches ended")  # they do not end by themselves

    def _followed(self) -> Namespaces | None:
        if self._subject.namespace_selector is None:
            return None
        self._awaited.add(str(_NAMESPACES))
        return Namespaces(
            self._subject.namespace_selector,
            self._labels,
            is_ready=lambda: self._is_ready(str(_NAMESPACES)),
            state=self._teller.state,
            is_settled=lambda version: not self._awaited and self._teller.is_settled(version),
        )

    async def _labels(self, namespace: str) -> Mapping[str, str] | None:
        """The labels of a namespace; None where it is not there. Takes the right to list, as its watch does."""
        path = query("/api/v1/namespaces", fieldSelector=f"metadata.name={namespace}")
        answer = await self._patiently(lambda: self._api.get(path, accept=METADATA_LIST), f"looking at {namespace}")
        items = answer.get("items")
        for item in items if isinstance(items, list) else ():
            labels = metadata_of(item).get("labels")
            return labels if isinstance(labels, dict) else {}
        return None

    def _is_ready(self, what: str) -> None:
        if self._awaited:
            self._awaited.discard(what)
            if not self._awaited:
                self._ready()

    async def _resource(self, resource: Resource, namespaces: Namespaces | None) -> None:
        """The watches of one kind."""
        kind, is_new = await self._kind(resource)
        announce = is_new or self._config.initial is Initial.ADD
        if not kind.namespaced or (namespaces is None and not self._subject.namespaces):
            await self._watch(resource, "", announce=announce, ready=lambda: self._is_ready(str(resource)))
        elif namespaces is not None:
            await self._in_chosen(resource, kind, namespaces, announce=announce)
        else:
            await self._in_named(resource, kind, announce=announce)

    async def _in_named(self, resource: Resource, kind: Kind, *, announce: bool) -> None:
        names = frozenset(self._subject.namespaces)
        if await self._is_cluster_wide(kind, len(names)):

            async def chosen(change: Change) -> bool:
                return change.seen.namespace in names

            await self._watch(
                resource,
                "",
                announce=announce,
                only=names,
                chosen=chosen,  # a saved index may know others
                ready=lambda: self._is_ready(str(resource)),
            )
            return
        waiting = set(names)

        def ready(name: str) -> None:
            waiting.discard(name)
            if not waiting:
                self._is_ready(str(resource))

        async with asyncio.TaskGroup() as group:
            for name in names:
                one = self._watch(resource, name, announce=announce, ready=partial(ready, name))
                group.create_task(one, name=f"watch of {resource.gvr} in {name}")

    async def _in_chosen(self, resource: Resource, kind: Kind, namespaces: Namespaces, *, announce: bool) -> None:
        """In the namespaces that a selector means."""
        while str(_NAMESPACES) in self._awaited:
            await namespaces.changed()
        if await self._is_cluster_wide(kind, _FEW + 1):
            await self._watch(
                resource,
                "",
                announce=announce,
                chosen=namespaces.is_chosen,
                ready=lambda: self._is_ready(str(resource)),
            )
            return
        for name in sorted(namespaces.gone):  # while nobody watched
            reflector, _ = self._reflector(resource, name, announce=True)
            await self._leave(reflector, resource, kind, name, is_gone=True)
        await self._in_each_chosen(resource, kind, namespaces, announce=announce)

    async def _in_each_chosen(self, resource: Resource, kind: Kind, namespaces: Namespaces, *, announce: bool) -> None:
        """A watch in each of them, as they come and go."""
        running: dict[str, tuple[asyncio.Task[Never], Reflector]] = {}
        waiting = set(namespaces.chosen)

        def ready(name: str) -> None:
            waiting.discard(name)
            if not waiting:
                self._is_ready(str(resource))

        if not waiting:
            self._is_ready(str(resource))
        async with asyncio.TaskGroup() as group:
            while True:
                for name in running.keys() - namespaces.chosen:
                    task, reflector = running.pop(name)
                    task.cancel()
                    await asyncio.wait({task})
                    await self._leave(reflector, resource, kind, name, is_gone=name in namespaces.gone)
                    ready(name)
                for name in sorted(namespaces.chosen - running.keys()):
                    # What is in a namespace that was made since we look was added since.
                    is_new = announce or name in namespaces.new
                    reflector, _ = self._reflector(resource, name, announce=is_new, ready=partial(ready, name))
                    task = group.create_task(reflector.run(), name=f"watch of {resource.gvr} in {name}")
                    running[name] = task, reflector
                if running.keys() == namespaces.chosen:
                    await namespaces.changed()

    async def _leave(
        self, reflector: Reflector, resource: Resource, kind: Kind, namespace: str, *, is_gone: bool
    ) -> None:
        """Nobody wants to know of a namespace any more; if it is gone, so is what was in it."""
        watch = str(self._scope(resource, namespace))
        if is_gone:
            await reflector.tell_all_gone(kind)
            self._teller.leave(watch)
        else:
            self._teller.forget(watch)

    async def _watch(
        self,
        resource: Resource,
        namespace: str,
        *,
        announce: bool,
        ready: Callable[[], None],
        only: frozenset[str] = frozenset(),
        chosen: Callable[[Change], Awaitable[bool]] | None = None,
    ) -> None:
        """One watch, until cancelled."""
        await _run(*self._reflector(resource, namespace, announce=announce, ready=ready, only=only, chosen=chosen))

    def _reflector(
        self,
        resource: Resource,
        namespace: str,
        *,
        announce: bool,
        ready: Callable[[], None] = lambda: None,
        only: frozenset[str] = frozenset(),
        chosen: Callable[[Change], Awaitable[bool]] | None = None,
    ) -> tuple[Reflector, Told]:
        """One watch, from where it was left if that is known; and who is told of it."""
        scope = self._scope(resource, namespace, only)
        state = self._teller.state
        saved = state.take(str(scope)) if state is not None else None
        version = saved.version if saved is not None else ""
        own = self._config.state_object if resource.gvr == _CONFIG_MAPS else None
        told = self._teller.receiver(str(scope), version=version, chosen=chosen, ready=ready, own=own)
        reflector = Reflector(
            self._api,
            self._discovery,
            scope,
            told,
            manner=self._manner,
            announce=announce,
            index=saved.index if saved is not None else None,
            version=version,
            counters=self._counters,
        )
        return reflector, told

    def _scope(self, resource: Resource, namespace: str, only: frozenset[str] = frozenset()) -> Scope:
        return Scope(
            gvr=resource.gvr,
            namespace=namespace,
            only=only,
            label_selector=resource.selector,
            field_selector=self._config.field_selector,
        )

    async def _kind(self, resource: Resource) -> tuple[Kind, bool]:
        """How the kind is served, once it is; and whether it was not, before."""
        is_new = False
        while True:
            kind = await self._patiently(lambda: self._discovery.find(resource.gvr), f"looking for {resource.gvr}")
            if kind is not None:
                return kind, is_new
            if self._subject.fail_fast:
                raise GaveUp(f"the API server does not serve {resource.gvr}")
            if not is_new:
                is_new = True
                self._is_ready(str(resource))  # nothing is there to be missed
                _log.warning(
                    "the API server does not serve this kind; waiting for it", extra={"kind": str(resource.gvr)}
                )
            await asyncio.sleep(LOOK_FOR_KIND)

    async def _is_cluster_wide(self, kind: Kind, number: int) -> bool:
        """Whether one watch of the whole cluster stands in for so many of namespaces."""
        reach = self._config.reach
        if reach is not Reach.AUTO:
            return reach is Reach.CLUSTER
        return number > _FEW and await self._patiently(lambda: self._may_list(kind), f"listing {kind.gvr}")

    async def _may_list(self, kind: Kind) -> bool:
        try:
            await self._api.get(query(kind.path(), limit=1), accept=METADATA_LIST)
        except ApiError as error:
            if error.status == 403:
                return False
            raise
        return True

    async def _patiently(self, ask: Callable[[], Awaitable[T]], what: str) -> T:
        """The answer to ``ask``, asked until there is one."""
        return await patiently(ask, what, fail_fast=self._subject.fail_fast)


async def _run(reflector: Reflector, told: Told) -> None:
    try:
        await reflector.run()
    finally:
        told.end()


async def patiently(ask: Callable[[], Awaitable[T]], what: str, *, fail_fast: bool = False) -> T:
    """The answer to ``ask``, asked until there is one. Raises `GaveUp` where the error will not go away by itself."""
    failures = 0
    told = ""
    while True:
        try:
            return await ask()
        except ApiError as error:
            failures += 1
            then = after_error(Phase.LIST, error, failures, fail_fast=fail_fast)
            if then.do is Do.GIVE_UP:
                raise GaveUp(f"{what}: {error}") from None
            if str(error) != told:
                told = str(error)
                _log.warning("the API server does not answer as it should", extra={"what": what, "problem": told})
            await asyncio.sleep(then.after * random.uniform(0.8, 1.2))
