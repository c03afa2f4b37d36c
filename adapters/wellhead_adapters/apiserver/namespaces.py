"""The namespaces that a selector means, followed as they come, go and change their labels."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from wellhead.kubernetes.change import Operation, metadata_of
from wellhead.kubernetes.index import Seen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from wellhead.kubernetes.change import Change
    from wellhead.kubernetes.selectors import LabelSelector

    from .state import State

_STRAGGLERS_SECONDS: Final = 30.0
"""How long what happened in a namespace that was deleted may still be on its way to us."""
_UNKNOWN_SECONDS: Final = 1.0
"""How long to wait for word of a namespace in which something was added before it; then the API server is asked."""
_CHOSEN: Final = "namespaces that are chosen"
_MOST_GONE: Final = 10_000
"""So many namespaces that are no more are remembered as having been chosen, and as many as not."""


class Namespaces:
    """A `Receiver` of all namespaces: who is told of them knows which are chosen."""

    def __init__(
        self,
        selector: LabelSelector,
        labels: Callable[[str], Awaitable[Mapping[str, str] | None]],
        *,
        is_ready: Callable[[], None],
        state: State | None = None,
        is_settled: Callable[[str], bool] = lambda _: True,
    ) -> None:
        """``labels`` asks for those that a namespace has; None where it is not there. ``state`` remembers which were
        chosen, so that after a restart the objects of one that is no more are told to be gone: until all that happened
        up to the resourceVersion at which it was no more ``is_settled``.
        """
        self.chosen: set[str] = set()
        self.new: set[str] = set()
        """Those that were made since we look: nothing in them is older than our watch."""
        self.gone: dict[str, None] = {}
        """Those that were chosen and are no more."""
        self._kept: dict[str, str] = {}
        """Those of them that the state still has, oldest first, and at which version they were no more."""
        self._reached = ""
        self._state = state
        self._is_settled = is_settled
        saved = state.take(_CHOSEN) if state is not None else None
        self._before = {seen.name for seen in (saved.index if saved is not None else None) or ()}
        self._selector = selector
        self._labels = labels
        self._is_ready = is_ready
        self._known: set[str] = set()
        self._absent: dict[str, None] = {}
        """Those that were not chosen when they were last heard of, and are not there."""
        self._listed = False
        self._waiters: set[asyncio.Future[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def changed(self) -> None:
        """Return at the next change of any namespace."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def is_chosen(self, change: Change) -> bool:
        """Whether a change is in a namespace in which they are wanted. Word of a namespace may come after word of what
        is in it, and that its objects are gone long after that it is.
        """
        name, is_add = change.seen.namespace, change.operation is Operation.ADD
        if name in self.gone or name in self.chosen:
            return True
        if name in self._absent and not is_add:
            return False  # if it were there again, what is in it would have been added first
        if is_add and name not in self._known and name not in self._absent:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_UNKNOWN_SECONDS):
                    while name not in self._known:
                        await self.changed()
        if name not in self._known:
            await self._ask(name)
        return name in self.chosen

    async def _ask(self, name: str) -> None:
        labels = await self._labels(name)
        if labels is None:
            if name not in self._known:  # word of it may have come meanwhile
                _remember(self._absent, name)
        else:
            self._known.add(name)
            self._absent.pop(name, None)
            if self._selector.matches(labels):
                self._choose(name)

    async def take(self, change: Change) -> None:
        name = change.seen.name
        if change.operation is Operation.DELETE:
            self._known.discard(name)
            if name not in self.chosen:
                _remember(self._absent, name)
            self._stop_timer(name)
            self._timers[name] = asyncio.get_running_loop().call_later(_STRAGGLERS_SECONDS, self._forget, name)
        else:
            if name not in self._known and self._listed:
                self.new.add(name)
            self._known.add(name)
            self._absent.pop(name, None)
            self.gone.pop(name, None)
            labels = metadata_of(change.object).get("labels")
            is_meant = self._selector.matches(labels if isinstance(labels, dict) else {})
            (self._choose if is_meant else self._drop)(name)
        self._tell()

    def note(self, seen: Seen) -> None:
        """Every namespace is told of."""

    def start_over(self) -> None:
        """Never called: no position is saved of its watch."""

    def reach(self, version: str) -> None:
        """A restart lists anew; what matters is which of those that are no more it need not know of."""
        self._reached = version
        while self._kept:
            name, gone_at = next(iter(self._kept.items()))
            if not self._is_settled(gone_at):
                break
            self._release(name)

    def ready(self) -> None:
        if not self._listed:
            for name in sorted(self._before - self._known):
                self._bury(name)
            if self._state is not None:
                self._state.start_over(_CHOSEN)  # all of them were put
                self._state.position(_CHOSEN, "0")  # it has no other; without one it would count as not listed
        self._listed = True
        self._is_ready()
        self._tell()

    def close(self) -> None:
        """Forget no more namespaces."""
        for name in tuple(self._timers):
            self._stop_timer(name)

    def _stop_timer(self, name: str) -> None:
        timer = self._timers.pop(name, None)
        if timer is not None:
            timer.cancel()

    def _choose(self, name: str) -> None:
        if name not in self.chosen and self._state is not None:
            self._state.put(_CHOSEN, Seen("", name, "", ""))
        self._kept.pop(name, None)
        self.chosen.add(name)

    def _drop(self, name: str) -> None:
        if name in self.chosen or name in self._before or name in self._kept:
            self._release(name)
        self.chosen.discard(name)

    def _bury(self, name: str) -> None:
        """It was chosen and is no more; what was in it may not be told yet."""
        self.chosen.discard(name)
        _remember(self.gone, name)
        self._kept.pop(name, None)
        self._kept[name] = self._reached
        if len(self._kept) > _MOST_GONE:
            self._release(next(iter(self._kept)))

    def _release(self, name: str) -> None:
        """A restart need not know of it."""
        self._kept.pop(name, None)
        self._before.discard(name)
        if self._state is not None:
            self._state.remove(_CHOSEN, Seen("", name, "", ""))

    def _forget(self, name: str) -> None:
        self._timers.pop(name, None)
        if name not in self._known:
            if name in self.chosen:
                self._bury(name)
            self.new.discard(name)
            self._tell()

    def _tell(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)


def _remember(names: dict[str, None], name: str) -> None:
    """Put it last; the first makes room for it."""
    names.pop(name, None)
    names[name] = None
    if len(names) > _MOST_GONE:
        del names[next(iter(names))]
