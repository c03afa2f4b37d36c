"""HttpSink: performs what `wellhead.delivery` decides, owns the deliveries in flight, and counts every end."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Final

from .address import Address, describe
from .delivery import Answered, Attempt, Decision, Outcome, Policy, Unanswered, Verdict, decide
from .errors import DeliveryError, Loss, NoAnswer
from .event import CloudEvent
from .metrics import SinkCounters

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from .adapter import Deadline, Fence
    from .binding import SinkBinding
    from .clock import Clock

_log = logging.getLogger(__name__)
_REFUSED: Final = frozenset((Loss.REFUSED, Loss.POISON))
_DEAD_LETTERED: Final = frozenset((Loss.REFUSED, Loss.POISON, Loss.EXHAUSTED, Loss.EXPIRED))
_DEAD_LETTER_PATIENCE: Final = timedelta(minutes=1)
_ERROR_DATA_KEPT: Final = 1024  # characters of base64, as Knative's dispatcher cuts it


@dataclass(slots=True)
class _Trail:
    """The tries of one event at one address so far, and how they ended. ``loss`` None: accepted."""

    last: Outcome | None = None
    tries: int = 0
    on_wire: bool = False
    loss: Loss | None = Loss.STOPPED

    @property
    def maybe_accepted(self) -> bool:
        """Whether the sink may hold the event although no answer said so."""
        unclear = isinstance(self.last, Unanswered) and self.last.why not in (NoAnswer.CONNECT, NoAnswer.TLS)
        return self.on_wire or unclear

    def __str__(self) -> str:
        if self.on_wire:
            return "still on the wire"
        return describe(self.last) if self.last is not None else "never tried"


class HttpSink:
    """A `Sink` over HTTP: one source's way to its sink. Cheap: no task, connection or timer of its own.

    Made by the runtime (`wellhead.runtime.Host.open_sink`); a test makes one with any `Transport`. At most
    ``max_on_wire`` tries are on the wire at once; further ones wait their turn in order.
    """

    def __init__(
        self,
        binding: SinkBinding,
        address: Address,
        *,
        clock: Clock,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        dead_letter: Address | None = None,
        counters: SinkCounters | None = None,
        max_on_wire: int = 128,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self.counters = counters or SinkCounters()
        self.counters.up = lambda: address.up
        self.address = address
        self._binding = binding
        self._clock = clock
        self._policy = policy
        self._dead_letter = dead_letter
        self._wire = asyncio.Semaphore(max_on_wire)
        self._luck = luck
        self._deliveries: set[asyncio.Task[None]] = set()
        self._stopped = False

    async def send(
        self, event: CloudEvent | SdkEvent, /, *, deadline: Deadline | None = None, fence: Fence | None = None
    ) -> None:
        """See `wellhead.adapter.Sink.send`, whose contract this keeps."""
        ours = self._binding.apply(event if isinstance(event, CloudEvent) else CloudEvent.from_sdk(event))
        self.counters.taken += 1
        self.counters.in_flight += 1
        if self._stopped:
            self._count(Loss.STOPPED, dead_lettered=False)
            raise self._lost(ours, _Trail(), Loss.STOPPED)
        # A cancelled caller cancels this future, not the delivery, which is ours; `drain` waits for it.
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        delivery = asyncio.create_task(self._deliver(ours, deadline, fence), name=f"deliver {ours.id}")
        self._deliveries.add(delivery)
        delivery.add_done_callback(partial(self._delivered, done))
        await done

    async def drain(self, grace: float) -> int:
        """Let deliveries end for ``grace`` seconds, then end the rest. Returns how many were ended so.

        The runtime calls this once, after the adapter has stopped. Those ended are counted as dropped with the
        reason ``stopped`` and logged; their callers, if any are left, get a `DeliveryError`. So does every later send.
        """
        if self._deliveries:
            await asyncio.wait(self._deliveries, timeout=grace)
        self._stopped = True
        await asyncio.sleep(0)  # a task cancelled before its first step would count nothing: let each take it
        left = {delivery for delivery in self._deliveries if not delivery.done()}
        for delivery in left:
            delivery.cancel()
        if left:
            await asyncio.wait(left)
        return len(left)

    def _delivered(self, done: asyncio.Future[None], delivery: asyncio.Task[None]) -> None:
        self._deliveries.discard(delivery)
        error = asyncio.CancelledError() if delivery.cancelled() else delivery.exception()
        if done.done():
            pass  # the caller is gone
        elif error is None:
            done.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            done.cancel()
        else:
            done.set_exception(error)
        # A DeliveryError is counted and logged already; anything else is a bug, and its caller may be gone.
        if error is not None and not isinstance(error, DeliveryError | asyncio.CancelledError):
            _log.error("delivery failed", exc_info=error, extra={"sink": self.address.shown})

    async def _deliver(self, event: CloudEvent, deadline: Deadline | None, fence: Fence | None) -> None:
        """One event's fate. Whatever happens here, exactly one counter of its end goes up."""
        trail = _Trail()
        dead_lettered = False
        try:
            trail.loss = await self._settle(trail, self.address, event, deadline.at if deadline else None, fence)
            if trail.loss in _DEAD_LETTERED and self._dead_letter is not None:
                dead_lettered = await self._to_dead_letter(self._dead_letter, event, trail, deadline, fence)
        except asyncio.CancelledError:
            # Only `drain` cancels a delivery; the loss is told below as a DeliveryError.
            trail.loss = Loss.STOPPED
            if not self._stopped:
                raise
        finally:
            self._count(trail.loss, dead_lettered=dead_lettered)
        if trail.loss is not None and not dead_lettered:
            tried = self._dead_letter is not None and trail.loss in _DEAD_LETTERED
            raise self._lost(event, trail, trail.loss, dead_letter_failed=tried)

    def _count(self, loss: Loss | None, *, dead_lettered: bool) -> None:
        counters = self.counters
        counters.in_flight -= 1
        if loss is None:
            counters.delivered += 1
        elif dead_lettered:
            counters.dead_lettered += 1
        elif loss in _REFUSED:
            counters.refused += 1
        else:
            counters.count_drop(loss.value)

    def _lost(self, event: CloudEvent, trail: _Trail, loss: Loss, *, dead_letter_failed: bool = False) -> DeliveryError:
        facts = {"sink": self.address.shown, "id": event.id, "source": event.source, "type": event.type}
        level = logging.INFO if loss is Loss.FENCED else logging.ERROR  # a fenced event is the next owner's
        end = {"loss": loss.value, "last": str(trail), "tries": trail.tries}
        _log.log(level, "event was not delivered", extra={**facts, **end})
        return DeliveryError(
            event_id=event.id,
            loss=loss,
            last=str(trail),
            tries=trail.tries,
            maybe_accepted=trail.maybe_accepted,
            dead_letter_failed=dead_letter_failed,
        )

    async def _to_dead_letter(
        self, address: Address, event: CloudEvent, trail: _Trail, deadline: Deadline | None, fence: Fence | None
    ) -> bool:
        now = asyncio.get_running_loop().time()
        until = max(deadline.at, now + _DEAD_LETTER_PATIENCE.total_seconds()) if deadline is not None else None
        dead = _Trail()
        loss = await self._settle(dead, address, _dead_letter(event, self.address.url, trail.last), until, fence)
        if loss is Loss.FENCED:
            trail.loss = loss  # whoever is behind the fence dead-letters it
        elif loss is not None:
            facts = {"sink": address.shown, "id": event.id, "last": str(dead)}
            _log.error("dead-letter sink did not accept", extra=facts)
        return loss is None

    async def _settle(
        self, trail: _Trail, address: Address, event: CloudEvent, until: float | None, fence: Fence | None
    ) -> Loss | None:
        """Try until decided; the loss, or None where the address accepted the event."""
        loop = asyncio.get_running_loop()
        headers, body = address.encode(event)
        attempt = Attempt()
        while True:
            over = await self._turn(until, fence)
            if over is not None:
                return over
            try:
                trail.last = await self._try(trail, address, headers, body, fresh=False)
                if _stale(trail.last) and _over(until, fence) is None:  # at once, and no attempt
                    trail.last = await self._try(trail, address, headers, body, fresh=True)
            finally:
                self._wire.release()
            decision = decide(
                self._policy,
                attempt,
                trail.last,
                sink=address.facts,
                now=loop.time(),
                luck=self._luck(),
                wall=self._clock.now(),
                deadline=until,
                fenced=fence is not None and fence.closed,
            )
            if decision.verdict is Verdict.ACCEPTED:
                return None
            if decision.verdict in (Verdict.REFUSED, Verdict.GIVE_UP):
                if decision.loss in _REFUSED:
                    address.note_refused()
                return decision.loss
            attempt = replace(decision.attempt, number=decision.attempt.number + 1)
            await self._pause(address, decision, fence)

    async def _turn(self, until: float | None, fence: Fence | None) -> Loss | None:
        """Take a place on the wire, in order; or the loss, and no place, where deadline or fence come first."""
        over = _over(until, fence)
        if over is not None:
            return over
        if not self._wire.locked():
            await self._wire.acquire()
            return None
        try:
            async with asyncio.timeout_at(until) as limit:
                forget = fence.on_close(lambda: _expire(limit)) if fence is not None else None
                try:
                    await self._wire.acquire()
                finally:
                    if forget is not None:
                        forget()
        except TimeoutError:
            return _over(until, fence) or Loss.EXPIRED
        over = _over(until, fence)
        if over is not None:
            self._wire.release()
        return over

    async def _try(
        self, trail: _Trail, address: Address, headers: tuple[tuple[bytes, bytes], ...], body: bytes, *, fresh: bool
    ) -> Outcome:
        loop = asyncio.get_running_loop()
        timeout = self._policy.timeout.total_seconds() if self._policy.timeout is not None else None
        trail.tries += 1
        trail.on_wire = True
        started = loop.time()
        outcome = await address.attempt(headers, body, timeout=timeout, fresh=fresh)
        trail.on_wire = False
        word = str(outcome.status) if isinstance(outcome, Answered) else outcome.why.value
        self.counters.count_try(word, loop.time() - started)
        self.counters.retries += trail.tries > 1
        return outcome

    async def _pause(self, address: Address, decision: Decision, fence: Fence | None) -> None:
        """Wait for the next try; a fence that closes ends the wait."""
        if decision.after > 0:
            loop = asyncio.get_running_loop()
            woken: asyncio.Future[None] = loop.create_future()
            timer = loop.call_later(decision.after, _wake, woken)
            forget = fence.on_close(lambda: _wake(woken)) if fence is not None else None
            try:
                await woken
            finally:
                timer.cancel()
                if forget is not None:
                    forget()
        if decision.verdict is Verdict.HOLD:
            address.reread()


def _over(until: float | None, fence: Fence | None) -> Loss | None:
    """Why no further try may begin, if so."""
    if fence is not None and fence.closed:
        return Loss.FENCED
    return Loss.EXPIRED if until is not None and asyncio.get_running_loop().time() >= until else None


def _stale(outcome: Outcome) -> bool:
    return isinstance(outcome, Unanswered) and outcome.why is NoAnswer.STALE


def _expire(limit: asyncio.Timeout) -> None:
    if not limit.expired():
        limit.reschedule(0)


def _wake(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _dead_letter(event: CloudEvent, sink: str, last: Outcome | None) -> CloudEvent:
    """The event with what went wrong on it, as Knative's dispatcher says it (contract/core.md 7)."""
    facts: dict[str, str | int] = {"knativeerrordest": sink.partition("?")[0]}  # a query may be a secret
    if isinstance(last, Answered):
        facts["knativeerrorcode"] = last.status
        if last.body:
            facts["knativeerrordata"] = base64.b64encode(last.body).decode()[:_ERROR_DATA_KEPT]
    return replace(event, extensions={**facts, **event.extensions})
