"""HttpSink: performs what `wellhead.delivery` decides, owns the deliveries in flight, and counts every end."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from .dead_letter_file import DeadLetterFile
from .delivery import Answered, Outcome, Policy, is_accepted
from .errors import DeadLetterFull, DeliveryError, Loss
from .event import CloudEvent
from .http_binding import header_lines
from .metrics import CircuitState, SinkCounters, SinkState
from .places import Places
from .telemetry import DEAD_LETTERED, DELIVERED
from .tries import REFUSED, Lane, Tries, unused

if TYPE_CHECKING:
    from collections.abc import Callable

    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from .adapter import Deadline, Fence
    from .address import Address
    from .batch import BatchLimits
    from .batches import Batches
    from .binding import SinkBinding
    from .clock import Clock
    from .delivery import Attempt
    from .telemetry import Tracer

_log = logging.getLogger(__name__)
_DEAD_LETTERED: Final = frozenset((Loss.REFUSED, Loss.POISON, Loss.EXHAUSTED, Loss.EXPIRED))
_DEAD_LETTER_PATIENCE: Final = timedelta(minutes=1)
_ERROR_DATA_KEPT: Final = 1024  # characters of base64, as Knative's dispatcher cuts it


class HttpSink:
    """A `Sink` over HTTP: one source's way to its sink. Cheap: no task, connection or timer of its own.

    Made by the runtime (`wellhead.runtime.Host.open_sink`); a test makes one with any `Transport`. At most
    ``max_on_wire`` tries are on the wire at once; further ones wait their turn in order. With ``batch`` the events of
    several callers share a try; dead letters do not.
    """

    def __init__(
        self,
        binding: SinkBinding,
        address: Address,
        *,
        clock: Clock,
        policy: Policy = Policy(),  # noqa: B008 - frozen
        dead_letter: Address | DeadLetterFile | None = None,
        counters: SinkCounters | None = None,
        max_on_wire: int = 128,
        batch: BatchLimits | None = None,
        tracer: Tracer | None = None,
        luck: Callable[[], float] = random.random,
    ) -> None:
        self.counters = counters or SinkCounters()
        self.counters.state = self._state
        self.address = address
        address.held = lambda: self.counters.in_flight
        self._binding = binding
        places = Places(max_on_wire)

        def lane(to: Address, places: Places = places, batches: Batches | None = None) -> Lane:
            return Lane(to, policy, places=places, counters=self.counters, clock=clock, luck=luck, batches=batches)

        if batch is None:
            self.lane = lane(address)
        else:
            from .batches import Batches  # noqa: PLC0415 - few ask for batches

            timeout = policy.timeout.total_seconds() if policy.timeout is not None else None
            batches = Batches(address, batch, places=places, timeout=timeout, luck=luck)
            # One batch more than those on the wire, so that the next is ready when a place is.
            self.lane = lane(address, Places((max_on_wire + 1) * batch.events), batches)
        self._dead_letter: Lane | DeadLetterFile | None = None
        if dead_letter is not None:
            self._dead_letter = dead_letter if isinstance(dead_letter, DeadLetterFile) else lane(dead_letter)
        self.tracer = tracer
        self._deliveries: set[_Delivery] = set()
        self._empty: asyncio.Future[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopped = False

    @property
    def dead_letter_address(self) -> Address | None:
        """Where dead letters go, if that is an address."""
        return self._dead_letter.address if isinstance(self._dead_letter, Lane) else None

    async def send(
        self,
        event: CloudEvent | SdkEvent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,
    ) -> None:
        """See `wellhead.adapter.Sink.send`, whose contract this keeps."""
        ours = event if isinstance(event, CloudEvent) else CloudEvent.from_sdk(event)
        if self._binding.overrides:
            ours = self._binding.apply(ours)
        counters = self.counters
        counters.taken += 1
        counters.in_flight += 1
        delivery = _Delivery(self, ours, deadline, fence, self._loop or self._in_loop(), after)
        if self._stopped:
            delivery.end(Loss.STOPPED)
        else:
            self._deliveries.add(delivery)
            if not delivery.start():
                delivery.go_on(None)
        # A cancelled caller cancels this future, not the delivery, which is ours; `drain` waits for it.
        await delivery.done

    async def drain(self, grace: float) -> int:
        """Let deliveries end for ``grace`` seconds, then end the rest. Returns how many were ended so.

        The runtime calls this once, after the adapter has stopped. Those ended are counted as dropped with the
        reason ``stopped`` and logged; their callers, if any are left, get a `DeliveryError`. So does every later send.
        """
        stopped = self.counters.dropped.get(Loss.STOPPED.value, 0)
        if self._deliveries:
            self._empty = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._empty,), timeout=grace)
        self._stopped = True
        tasks = [delivery.task for delivery in tuple(self._deliveries) if delivery.stop() and delivery.task is not None]
        if tasks:
            await asyncio.wait(tasks)
        return self.counters.dropped.get(Loss.STOPPED.value, 0) - stopped

    async def deliver(self, delivery: _Delivery, outcome: Outcome | None) -> None:
        """What `_Delivery` runs as a task, from the outcome of its first try or from the beginning, to its end."""
        loss: Loss | None = Loss.STOPPED
        dead_lettered = False
        try:
            loss = await delivery.settle(outcome)
            if loss in _DEAD_LETTERED and self._dead_letter is not None:
                letter = _dead_letter(delivery.event, self.address.url, delivery.last)
                if isinstance(self._dead_letter, DeadLetterFile):
                    dead = await self._to_file(self._dead_letter, letter)
                else:
                    dead = await self._to_dead_letter(self._dead_letter, letter, delivery)
                dead_lettered = dead is None
                loss = Loss.FENCED if dead is Loss.FENCED else loss  # whoever is behind the fence dead-letters it
        except asyncio.CancelledError:
            # Only `drain` cancels a delivery; its caller is told of the loss, if the answer did not come just then.
            loss = None if delivery.answered_well else Loss.STOPPED
            if not self._stopped:
                raise
        finally:
            delivery.end(loss, dead_lettered=dead_lettered)

    def ended(self, delivery: _Delivery, loss: Loss | None, *, dead_lettered: bool) -> DeliveryError | None:
        """Count and log the end of a delivery, once; the error for its caller, if it is one."""
        self.forget(delivery)
        counters = self.counters
        counters.in_flight -= 1
        if loss is None:
            counters.delivered += 1
            return None
        if dead_lettered:
            counters.dead_lettered += 1
            return None
        if loss in REFUSED:
            counters.refused += 1
        else:
            counters.count_drop(loss.value)
        return self._lost(delivery, loss)

    def forget(self, delivery: _Delivery) -> None:
        """It has ended, as `drain` wants to know."""
        self._deliveries.discard(delivery)
        if self._empty is not None and not self._deliveries and not self._empty.done():
            self._empty.set_result(None)

    def _lost(self, delivery: _Delivery, loss: Loss) -> DeliveryError:
        event = delivery.event
        facts = {"sink": self.address.shown, "id": event.id, "source": event.source, "type": event.type}
        level = logging.INFO if loss is Loss.FENCED else logging.ERROR  # a fenced event is the next owner's
        end = {"loss": loss.value, "last": str(delivery), "tries": delivery.number}
        _log.log(level, "event was not delivered", extra={**facts, **end})
        return DeliveryError(
            event_id=event.id,
            loss=loss,
            last=str(delivery),
            tries=delivery.number,
            maybe_accepted=delivery.maybe_accepted,
            dead_letter_failed=self._dead_letter is not None and loss in _DEAD_LETTERED,
            attempt=delivery.attempt,
        )

    async def _to_dead_letter(self, lane: Lane, letter: CloudEvent, delivery: _Delivery) -> Loss | None:
        deadline = delivery.deadline
        now = asyncio.get_running_loop().time()
        until = max(deadline.at, now + _DEAD_LETTER_PATIENCE.total_seconds()) if deadline is not None else None
        dead = Tries(lane, letter, until, delivery.fence, asyncio.get_running_loop())
        dead.extra_lines = delivery.extra_lines
        loss = await dead.settle()
        if loss is not None and loss is not Loss.FENCED:
            facts = {"sink": lane.address.shown, "id": letter.id, "last": str(dead)}
            _log.error("dead-letter sink did not accept", extra=facts)
        return loss

    async def _to_file(self, file: DeadLetterFile, letter: CloudEvent) -> Loss | None:
        try:
            await file.write(letter)
        except (OSError, DeadLetterFull) as error:
            _log.error("dead-letter file did not take it", extra={"id": letter.id, "last": str(error)})
            return Loss.REFUSED
        return None

    def _in_loop(self) -> asyncio.AbstractEventLoop:
        self._loop = asyncio.get_running_loop()
        return self._loop

    def _state(self) -> SinkState:
        address, circuit = self.address, self.lane.circuit
        state = CircuitState.CLOSED
        if circuit is not None and circuit.open:
            state = CircuitState.PROBING if circuit.probing else CircuitState.OPEN
        return SinkState(address.up, address.since, address.down_reason, state)


class _Delivery(Tries):
    """One event on its way: its first try without a task, and a task for whatever comes after that."""

    __slots__ = ("_is_over", "_sink", "_span", "_taken_at", "deadline", "done", "task")

    def __init__(
        self,
        sink: HttpSink,
        event: CloudEvent,
        deadline: Deadline | None,
        fence: Fence | None,
        loop: asyncio.AbstractEventLoop,
        after: Attempt | None,
    ) -> None:
        super().__init__(sink.lane, event, None if deadline is None else deadline.at, fence, loop, after)
        self._sink = sink
        self.deadline = deadline
        self._taken_at = loop.time()
        self._span = None
        if sink.tracer is not None:
            self._span = sink.tracer.start(event, sink.address.shown)
            self.extra_lines = header_lines(self._span.headers()) if self._span is not None else b""
        self.done: asyncio.Future[None] = loop.create_future()
        self.task: asyncio.Task[None] | None = None
        self._is_over = False

    def stop(self) -> bool:
        """End it early, as `HttpSink.drain` does. False where it has ended already."""
        if self.task is not None:
            return self.task.cancel()
        self.give_up()
        self.end(Loss.STOPPED)
        return True

    def end(self, loss: Loss | None, *, dead_lettered: bool = False) -> None:
        """Count it, once, and tell its caller."""
        self._is_over = True
        error = self._sink.ended(self, loss, dead_lettered=dead_lettered)
        self._sink.counters.delivery_seconds.observe(self._loop.time() - self._taken_at)
        if self._span is not None:
            self._span.end(DELIVERED if loss is None else DEAD_LETTERED if dead_lettered else loss.value)
        if self.done.done():
            return  # the caller is gone
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)

    def tried(self, outcome: Outcome | None) -> None:
        """See `Tries.tried`. An event that is accepted at once, as nearly every one is, takes a short cut.

        It does what `Tries.tried`, `told` and `end` do of it, in half the time.
        """
        if self.task is not None or self._member is not None or not is_accepted(outcome):
            super().tried(outcome)
            return
        lane = self._lane
        self.on_wire = False
        self._end = unused
        self.last = outcome
        self._is_over = True
        lane.places.give_back()
        lane.address.accepted(self._started)
        self.note_accepted()
        self._sink.forget(self)
        now = self._loop.time()
        lane.counters.count_accepted_at_once(outcome.word, now - self._started, now - self._taken_at)
        if self._span is not None:
            self._span.end(DELIVERED)
        if not self.done.done():
            self.done.set_result(None)

    def told(self, outcome: Outcome | None) -> None:
        """See `Tries.told`. The first try's has no task that waits for it."""
        if self.task is not None:
            super().told(outcome)
        elif is_accepted(outcome):
            self.note_accepted()
            self.end(None)
        else:
            self.go_on(outcome)

    def go_on(self, outcome: Outcome | None) -> None:
        """Whatever comes after a first try, or before it: in a task."""
        self.task = asyncio.create_task(self._sink.deliver(self, outcome), name=f"deliver {self.event.id}")
        self.task.add_done_callback(self._task_ended)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        if not self._is_over:  # cancelled before its first step
            self.end(Loss.STOPPED)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("delivery failed", exc_info=error, extra={"sink": self._sink.address.shown})


def _dead_letter(event: CloudEvent, sink: str, last: Outcome | None) -> CloudEvent:
    """The event with what went wrong on it, as Knative's dispatcher says it (contract/core.md 7)."""
    facts: dict[str, str | int] = {"knativeerrordest": sink.partition("?")[0]}  # a query may be a secret
    if isinstance(last, Answered):
        facts["knativeerrorcode"] = last.status
        if last.body:
            facts["knativeerrordata"] = base64.b64encode(last.body).decode()[:_ERROR_DATA_KEPT]
    return replace(event, extensions={**facts, **event.extensions})
