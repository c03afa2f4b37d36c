"""From changes to events on their way: what is wanted becomes an event, waits in its lane, is sent, and is settled."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wellhead.errors import ConfigError, DeliveryError, InvalidEvent
from wellhead.kubernetes.change import Operation

from .config import Ordering
from .events import change_event
from .lanes import Lanes
from .ledger import Ledger, Turns
from .state_map import is_state

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Never

    from wellhead.adapter import Sink
    from wellhead.clock import Clock
    from wellhead.event import CloudEvent
    from wellhead.kubernetes.change import Change
    from wellhead.kubernetes.index import Seen

    from .config import ApiServerConfig
    from .events import Origin
    from .state import State

_log = logging.getLogger(__name__)
_HELD_OCTETS: Final = 16 << 20  # objects have up to 1.5 MB: a number alone would be no bound
_WRITE_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Sending:
    """An event in its lane. Without the change it was made of: a parsed object weighs five times its text."""

    event: CloudEvent
    seen: Seen
    told: Told
    number: int


class Teller:
    """Sends the events of all watches of one source, in the order that is wanted, within the bounds that are given."""

    def __init__(self, sink: Sink, config: ApiServerConfig, origin: Origin, clock: Clock, state: State | None) -> None:
        self.config = config
        self.origin = origin
        self.clock = clock
        self.state = state
        self._sink = sink
        self._told: list[Told] = []
        self._trouble = ""
        self._writing = asyncio.Lock()
        self.lanes: Lanes[_Sending] = Lanes(
            self._send,
            at_once=config.in_flight,
            held=config.queue,
            held_octets=_HELD_OCTETS,
            name=f"apiserver {config.namespace}/{config.name}",
        )

    def receiver(
        self,
        watch: str,
        *,
        version: str = "",
        chosen: Callable[[Change], Awaitable[bool]] | None = None,
        ready: Callable[[], None],
        own: tuple[str, str] | None = None,
    ) -> Told:
        """Who is told of the changes of one watch; of those in namespaces that are ``chosen``.

        ``own`` is where we keep our state, if that is among what is watched: it would never come to rest. Nor would two
        sources that keep theirs side by side: then others' states are not told, either.
        """
        for told in self._told:
            if told.watch == watch and told.is_left:  # its namespace is there again, and not all is settled
                told.come_back(ready)
                return told
        told = Told(self, watch, Ledger(version), chosen, ready, own)
        self._told.append(told)
        return told

    def forget(self, watch: str) -> None:
        """Nobody wants to be told of this watch any more; what is on its way still lands."""
        for told in self._told:
            if told.watch == watch:
                told.forgotten = True
        self._told = [told for told in self._told if told.watch != watch]
        if self.state is not None:
            self.state.forget(watch)

    def leave(self, watch: str) -> None:
        """Nothing more will come of this watch: it is forgotten once all that is on its way has landed. Until then a
        restart is to know of it.
        """
        for told in self._told:
            if told.watch == watch:
                told.leave()

    def is_settled(self, version: str) -> bool:
        """Whether no watch has anything on its way, or to come, that happened up to this resourceVersion."""
        positions = [told.ledger.position for told in self._told]
        return all(one.isdecimal() and int(one) >= int(version) for one in positions) if version.isdecimal() else False

    async def keep(self) -> Never:
        """Put down how far each watch has come, each second if need be; what could not be written is tried again."""
        while True:
            await asyncio.sleep(_WRITE_SECONDS)
            await self.write()

    async def write(self, *, at_once: bool = False) -> None:
        """Put down how far each watch has come."""
        if self.state is not None:
            async with self._writing:
                await self._put_down(self.state, at_once=at_once)

    async def _put_down(self, state: State, *, at_once: bool) -> None:
        for told in self._told:
            state.position(told.watch, told.ledger.position)
        self._told = [told for told in self._told if not told.over]
        try:
            await state.write(at_once=at_once)
        except ConfigError as error:
            if str(error) != self._trouble:
                _log.error("changes would be repeated after a restart", extra={"problem": str(error)})
            self._trouble = str(error)
        else:
            self._trouble = ""

    async def _send(self, sending: _Sending) -> None:
        try:
            await self._sink.send(sending.event)
        except DeliveryError as error:  # counted and logged by the sink
            if not error.accounted:
                return
        sending.told.settle(sending.seen, sending.number)


class Told:
    """The `wellhead.kubernetes.reflector.Receiver` of one watch."""

    def __init__(
        self,
        teller: Teller,
        watch: str,
        ledger: Ledger,
        chosen: Callable[[Change], Awaitable[bool]] | None,
        is_ready: Callable[[], None],
        own: tuple[str, str] | None,
    ) -> None:
        self.watch = watch
        self.ledger = ledger
        self.forgotten = False
        """Nobody wants to know of it any more."""
        self.is_left = False
        """Nobody will, once all of it is settled."""
        self._teller = teller
        self._chosen = chosen
        self._is_ready = is_ready
        self._own = own
        self._turns = Turns(self._put_down)
        self._is_ended = False

    @property
    def over(self) -> bool:
        """Its watch has ended, and all of it is settled."""
        return self._is_ended and self.ledger.is_settled

    def end(self) -> None:
        """Nothing more will be told."""
        self._is_ended = True

    def leave(self) -> None:
        """Nothing more will be told; what is on its way is not forgotten before it has landed."""
        self.is_left = True
        if self.ledger.is_settled:
            self._teller.forget(self.watch)

    def come_back(self, is_ready: Callable[[], None]) -> None:
        """More will be told, after all."""
        self.is_left = False
        self._is_ready = is_ready

    async def take(self, change: Change) -> None:
        if self._own is not None and self._is_state(change):
            return
        number = self.ledger.begin()
        event = await self._event(change)
        if event is None:
            self.ledger.settle(number)
            self._turns.skip(change.operation, change.seen)
            return
        seen = change.seen
        self._turns.begin(number, change.operation, seen)
        by_watch = self._teller.config.ordering is Ordering.WATCH
        key = self.watch if by_watch else f"{change.kind.gvr}/{seen.namespace}/{seen.name}"
        await self._teller.lanes.put(key, _Sending(event, seen, self, number), len(event.data or b""))

    def note(self, seen: Seen) -> None:
        if (seen.namespace, seen.name) != self._own:
            self._turns.skip(Operation.UPDATE, seen)

    def _is_state(self, change: Change) -> bool:
        """Whether it comes of a source that writes down its state. Of two that told it, each would wake the other for ever."""
        is_own = (change.seen.namespace, change.seen.name) == self._own
        return is_own or (change.operation is not Operation.DELETE and is_state(change.object))

    def start_over(self) -> None:
        self.ledger.start_over()
        if self._teller.state is not None and not self.forgotten:
            self._teller.state.start_over(self.watch)

    def reach(self, version: str) -> None:
        self.ledger.reach(version)

    def ready(self) -> None:
        self._is_ready()

    def settle(self, seen: Seen, number: int) -> None:
        """The change is over: delivered, dead-lettered, or refused."""
        self.ledger.settle(number)
        self._turns.settle(number, seen)
        if self.is_left:
            self.leave()

    def _put_down(self, operation: Operation, seen: Seen) -> None:
        state = self._teller.state
        if state is None or self.forgotten:
            return
        if operation is Operation.DELETE:
            state.remove(self.watch, seen)
        else:
            state.put(self.watch, seen)

    async def _event(self, change: Change) -> CloudEvent | None:
        """What is to be sent of the change; None where nobody wants it."""
        config = self._teller.config
        if self._chosen is not None and not await self._chosen(change):
            return None
        if not config.wanted.wants(change):
            return None
        try:
            event = change_event(self._teller.origin, change, self._teller.clock.now(), config.wanted.data(change))
        except InvalidEvent as error:
            facts = {"kind": change.kind.kind, "uid": change.seen.uid, "problem": str(error)}
            _log.error("a change is lost: no event can say it", extra=facts)
            return None
        return event if config.passes.passes(event) else None
