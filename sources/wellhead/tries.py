"""The tries of one event at one address, until `wellhead.delivery` has decided about it. Counts tries, not ends."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from .address import Address, describe
from .batch import half
from .circuit import Circuit
from .delivery import (
    Answered,
    Attempt,
    Outcome,
    Policy,
    Reaction,
    Unanswered,
    Verdict,
    decide,
    is_accepted,
    is_stale,
    jittered,
    reaction,
)
from .errors import Loss, NoAnswer
from .http_binding import encode_structured
from .transport import settle

if TYPE_CHECKING:
    from collections.abc import Callable

    from .adapter import Fence
    from .batches import Batches, Member
    from .clock import Clock
    from .credentials import Headers
    from .delivery import Decision
    from .event import CloudEvent
    from .metrics import SinkCounters
    from .places import Places

_FIRST: Final = Attempt()
REFUSED: Final = frozenset((Loss.REFUSED, Loss.POISON))
_BUSY: Final = (429, 503)


class Lane:
    """One address, and what all deliveries to it share."""

    __slots__ = ("address", "batches", "circuit", "clock", "counters", "luck", "places", "policy", "timeout")

    def __init__(
        self,
        address: Address,
        policy: Policy,
        *,
        places: Places,
        counters: SinkCounters,
        clock: Clock,
        luck: Callable[[], float],
        batches: Batches | None = None,
    ) -> None:
        self.address = address
        self.policy = policy
        self.batches = batches
        """Where events travel together; None: each by itself."""
        self.places = places
        """Those on the wire, or in ``batches``; shared by a sink and its dead-letter sink where neither has any."""
        self.counters = counters
        self.clock = clock
        self.luck = luck
        self.timeout = policy.timeout.total_seconds() if policy.timeout is not None else None
        # A number of retries that was given is obeyed to the letter, each at its own time.
        self.circuit = Circuit(lambda failures: jittered(policy, failures, luck())) if policy.retries is None else None


class Tries:
    """One event's at one address. Either `start` or `settle` is called first; `settle` goes on from what `start` got.

    Who calls `start` overrides `told`, as no one waits for the outcome otherwise.
    """

    __slots__ = (
        "_answer",
        "_body",
        "_bound",
        "_end",
        "_lane",
        "_lines",
        "_loop",
        "_member",
        "_probe",
        "_sent",
        "_started",
        "_unclear",
        "_until",
        "attempt",
        "event",
        "extra_lines",
        "fence",
        "last",
        "number",
        "on_wire",
    )
    _end: Callable[[], object]

    def __init__(
        self,
        lane: Lane,
        event: CloudEvent,
        until: float | None,
        fence: Fence | None,
        loop: asyncio.AbstractEventLoop,
        after: Attempt | None = None,
    ) -> None:
        self.attempt = _FIRST if after is None else after
        """What the next try goes by."""
        self.extra_lines = b""
        """Headers that each try carries beside the event. Set before the first."""
        self.last: Outcome | None = None
        self.number = 0
        self.on_wire = False
        self._lane = lane
        self._loop = loop  # asyncio.get_running_loop asks the kernel for our process id each time
        self.event = event
        self._until = until
        self.fence = fence
        self._lines = b""
        self._body = b""
        self._sent: Headers = ()
        self._started = 0.0
        self._unclear = False
        self._probe = False
        self._member: Member | None = None
        self._answer: asyncio.Future[Outcome | None] | None = None
        self._bound = 1 if lane.batches is None else lane.batches.limits.events

    def __str__(self) -> str:
        if self._is_with_sink():
            return "still on the wire"
        return describe(self.last) if self.last is not None else "never tried"

    @property
    def maybe_accepted(self) -> bool:
        """Whether the sink may hold the event although no answer said so."""
        return self._is_with_sink() or self._unclear

    def _is_with_sink(self) -> bool:
        return self.on_wire and (self._member is None or self._member.post is not None)

    @property
    def answered_well(self) -> bool:
        """Whether the last try was accepted."""
        return is_accepted(self.last)

    def start(self) -> bool:
        """Make the first try at once and without a task; `told` gets its outcome. False where it has to wait."""
        lane = self._lane
        if lane.circuit is not None and lane.circuit.open:
            return False
        if (self._until is not None or self.fence is not None) and self._over() is not None:
            return False
        if not lane.places.take():
            return False
        try:
            self._begin(fresh=False)
        except Exception:  # noqa: BLE001 - a mistake of ours: met again, told and counted in the delivery's task
            lane.places.give_back()
            return False
        return True

    def told(self, outcome: Outcome | None) -> None:
        """How a try ended; None where its time was over before the batch that it was to go with went."""
        if self._answer is not None:
            settle(self._answer, outcome)

    def give_up(self) -> None:
        """End the try that `start` made; nobody is told."""
        self._end()
        self._lane.places.give_back()
        self._lane.counters.on_wire -= 1

    async def settle(self, outcome: Outcome | None = None) -> Loss | None:
        """Try until decided; the loss, or None where the address accepted the event. ``outcome`` is that of `start`."""
        lane = self._lane
        fresh = renewed = False
        while True:
            if outcome is None:
                tried = await self._next(fresh=fresh)
                if isinstance(tried, Loss):
                    return tried
                outcome = tried
            if is_stale(outcome) and not fresh and self._over() is None:  # again at once, and no attempt
                outcome, fresh = None, True
                continue
            fresh = False
            if not renewed and self._was_sent_with_old_credentials(outcome) and self._over() is None:
                outcome, renewed = None, True  # again at once with the new ones, and no attempt
                continue
            decision = decide(
                lane.policy,
                self.attempt,
                outcome,
                sink=lane.address.facts,
                now=self._loop.time(),
                luck=self._member.luck if self._member is not None else lane.luck(),
                wall=lane.clock.now(),
                deadline=self._until,
                fenced=self.fence is not None and self.fence.closed,
            )
            self._tell_circuit(outcome, decision)
            if self._member is not None and self._goes_on_in_half(self._member, outcome, decision):
                outcome = None
                continue
            self.attempt = replace(decision.attempt, number=decision.attempt.number + 1)
            if decision.verdict is Verdict.ACCEPTED:
                return None
            if decision.verdict in (Verdict.REFUSED, Verdict.GIVE_UP):
                if decision.loss in REFUSED:
                    lane.address.note_refused()
                return decision.loss
            await self._pause(decision)
            outcome = None

    def _was_sent_with_old_credentials(self, outcome: Outcome) -> bool:
        """A token may be renewed between our look at its file and the sink's look at the token."""
        if not isinstance(outcome, Answered) or outcome.status != 401:
            return False
        return self._lane.address.credentials_changed_since(self._sent, self._loop.time())

    def _goes_on_in_half(self, member: Member, outcome: Outcome, decision: Decision) -> bool:
        """An answer to a batch is none to its events: none ends by it. Again at once in halves, which is no attempt.

        A batch that is tried again after a wait goes in halves too, so that one event that the sink cannot take does
        not keep the others from it; but whole where the answer tells that the sink is what is in trouble.
        """
        if member.company == 1 or not isinstance(outcome, Answered):
            return False
        ends = decision.loss is not None and self._over() is None
        if ends or not (reaction(outcome) is Reaction.HOLD or outcome.status in _BUSY):
            self._bound = half(member.company)
        return ends

    def _over(self) -> Loss | None:
        """Why no further try may begin, if so."""
        if self.fence is not None and self.fence.closed:
            return Loss.FENCED
        over = self._until is not None and self._loop.time() >= self._until
        return Loss.EXPIRED if over else None

    async def _next(self, *, fresh: bool) -> Outcome | Loss:
        """The outcome of the next try, once its turn has come; the loss, if its time is over before."""
        outcome = None
        while outcome is None:
            if (over := await self._turn()) is not None:
                return over
            outcome = await self._try(fresh=fresh)
        return outcome

    async def _turn(self) -> Loss | None:
        """Wait until the circuit lets it through, and take a place on the wire; or the loss, and no place."""
        circuit, places = self._lane.circuit, self._lane.places
        while True:
            while circuit is not None and circuit.open and not self._probe:
                if (over := self._over()) is not None:
                    return over
                line = circuit.place(self._until)
                self._probe = await self._wait(line, self._until, lambda probe: circuit.ended() if probe else None)
            if (over := self._over()) is not None:
                break
            if places.take():
                return None
            held = await self._wait(places.place(), self._until, lambda held: places.give_back() if held else None)
            over = self._over() or (None if held else Loss.EXPIRED)
            if over is None and (self._probe or circuit is None or not circuit.open):
                return None
            if held:
                places.give_back()
            if over is not None:
                break  # else the circuit opened while it waited for a place
        self._end_probe()
        return over

    async def _wait(self, place: asyncio.Future[bool], until: float | None, undo: Callable[[bool], object]) -> bool:
        """What ``place`` is told; False once ``until`` or the fence comes first. ``undo``: if cancelled too late."""
        timer = self._loop.call_at(until, _wake, place) if until is not None else None
        forget = self.fence.on_close(lambda: _wake(place)) if self.fence is not None else None
        try:
            return await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                undo(place.result())
            raise
        finally:
            if timer is not None:
                timer.cancel()
            if forget is not None:
                forget()

    async def _try(self, *, fresh: bool) -> Outcome | None:
        answer: asyncio.Future[Outcome | None] = self._loop.create_future()
        self._answer = answer
        try:
            self._begin(fresh=fresh)
        except Exception:
            self._lane.places.give_back()
            self._end_probe()
            raise
        try:
            return await answer
        except asyncio.CancelledError:
            if self.on_wire:  # else it ended in the same turn of the loop, and gave its place back
                self.give_up()
            elif self.answered_well:
                return self.last  # it was accepted in the very turn of the loop in which the drain ended
            self._end_probe()
            raise

    def _begin(self, *, fresh: bool) -> None:
        lane = self._lane
        if lane.batches is not None:
            self._join(lane.batches, fresh=fresh)
        else:
            address = lane.address
            if not self._lines:
                self._lines, self._body = address.encode(self.event)
                if self.extra_lines:
                    self._lines += self.extra_lines
            self._started = now = self._loop.time()
            self._end = address.begin(self._lines, self._body, self.tried, now, lane.timeout, fresh)
            self._sent = address.sent
        self.number += 1
        self.on_wire = True
        lane.counters.on_wire += 1

    def _join(self, batches: Batches, *, fresh: bool) -> None:
        self._body = self._body or encode_structured(self.event)
        member = batches.join(self._body, self._bound, self.tried, until=self._until, fence=self.fence, fresh=fresh)
        self._member, self._end = member, partial(batches.cancel, member)

    def tried(self, outcome: Outcome | None) -> None:
        """Called with how a try ended, in the loop; see `told`."""
        lane = self._lane
        counters = lane.counters
        self.on_wire = False
        lane.places.give_back()
        counters.on_wire -= 1
        self._end = unused  # else each event leaves a cycle to the collector
        member = self._member
        if member is not None:
            self._started, self._sent = member.began, member.sent
        elif outcome is not None:
            outcome = lane.address.noted(outcome, self._started)
        if outcome is None:
            self.number -= 1
        else:
            self.last = outcome
            if outcome.__class__ is Unanswered and outcome.why not in (NoAnswer.CONNECT, NoAnswer.TLS):
                self._unclear = True
            counters.count_try(outcome.word, self._loop.time() - self._started)
            if self.number > 1:
                counters.retries += 1
        self.told(outcome)

    def note_accepted(self) -> None:
        """What `start` began was accepted; `settle` is not called."""
        if self._lane.circuit is not None and self._lane.circuit.failures:
            self._lane.circuit.succeeded()

    def _tell_circuit(self, outcome: Outcome, decision: Decision) -> None:
        circuit = self._lane.circuit
        if circuit is None:
            return
        kind = reaction(outcome)
        if kind is Reaction.ACCEPT or (kind is Reaction.REFUSE and decision.verdict is not Verdict.HOLD):
            if circuit.failures:
                circuit.succeeded()
        elif self._member is None or self._member.speaks():
            circuit.failed(self._started, self._loop.time(), decision.after)
        self._end_probe()

    def _end_probe(self) -> None:
        if self._probe and self._lane.circuit is not None:
            self._probe = False
            self._lane.circuit.ended()

    async def _pause(self, decision: Decision) -> None:
        """Wait for the next try; a fence that closes ends the wait."""
        if decision.after > 0:
            held = decision.verdict is Verdict.HOLD
            self._lane.counters.held += held
            try:
                await self._wait(self._loop.create_future(), self._loop.time() + decision.after, unused)
            finally:
                self._lane.counters.held -= held
        if decision.verdict is Verdict.HOLD:
            self._lane.address.reread()


def unused(_outcome: object = None) -> None:
    """In the place of what a try has no more use for."""


def _wake(waiting: asyncio.Future[bool]) -> None:
    if not waiting.done():
        waiting.set_result(False)
