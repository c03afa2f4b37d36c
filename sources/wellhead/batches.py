"""The tries of many events at one address, gathered into POSTs of batches. Decides nothing about an event's end.

To `wellhead.tries` going along in a batch is a try like any other: each event has its own history, deadline and fence,
and is told the batch's outcome as its own, with how many shared it.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from functools import partial
from typing import TYPE_CHECKING, Final

from .batch import BatchLimits, fill
from .delivery import Outcome, Unanswered
from .errors import NoAnswer
from .http_binding import BATCH, header_lines

if TYPE_CHECKING:
    from collections.abc import Callable

    from .adapter import Fence
    from .address import Address
    from .credentials import Headers
    from .places import Places

_log = logging.getLogger(__name__)
_LINES: Final = header_lines(((b"content-type", BATCH.encode()),))
_TICK: Final = 0.001  # of uvloop's clock; a timer may be early by so much


class Member:
    """One event's place in a batch: it waits, then is on the wire, then is told the outcome."""

    __slots__ = ("began", "bound", "company", "done", "due", "forget", "fresh", "luck", "octets", "post", "sent")

    def __init__(self, octets: bytes, bound: int, done: Callable[[Outcome | None], object], *, fresh: bool) -> None:
        self.octets = octets
        self.bound = bound
        """The largest batch that it may be in."""
        self.fresh = fresh
        self.done: Callable[[Outcome | None], object] | None = done
        """None once it has left a batch that is on the wire."""
        self.due = 0.0
        self.forget: tuple[Callable[[], object], ...] = ()
        """How to take back what would have it leave."""
        self.company = 1
        """How many its batch holds, itself included. This and the rest: once it is on the wire."""
        self.began = 0.0
        self.sent: Headers = ()
        self.luck = 0.0
        """One for the whole batch, so that those who try again do it together."""
        self.post: _Post | None = None

    def speaks(self) -> bool:
        """Whether it is the first of its batch to ask: what failed once shall count once."""
        first = self.post is not None and not self.post.spoken_for
        if self.post is not None:
            self.post.spoken_for = True
        return first


class _Post:
    """A batch on the wire."""

    __slots__ = ("end", "ended", "members", "spoken_for")

    def __init__(self, members: list[Member]) -> None:
        self.members = members
        self.spoken_for = False
        self.ended = False
        self.end: Callable[[], None] = _nothing


class Batches:
    """Gathers for one address. Each batch on the wire takes one of ``places``; without one, batches grow."""

    def __init__(
        self,
        address: Address,
        limits: BatchLimits,
        *,
        places: Places,
        timeout: float | None,
        luck: Callable[[], float],
    ) -> None:
        self.limits = limits
        self._address = address
        self._places = places
        self._timeout = timeout
        self._luck = luck
        self._linger = limits.linger.total_seconds()
        self._waiting: deque[Member] = deque()
        self._octets = 0
        self._least = limits.events  # the smallest bound among those that wait, or smaller
        self._timer: asyncio.TimerHandle | None = None
        self._turn: asyncio.Future[bool] | None = None

    def join(
        self,
        octets: bytes,
        bound: int,
        done: Callable[[Outcome | None], object],
        *,
        until: float | None = None,
        fence: Fence | None = None,
        fresh: bool = False,
    ) -> Member:
        """Let an event, as JSON, go with the next batch that holds at most ``bound``.

        ``done`` is called once, after this has returned: with the batch's outcome, or with None if ``until`` came or
        ``fence`` closed before it was on the wire. ``fresh``: over no kept connection.
        """
        member = Member(octets, min(bound, self.limits.events), done, fresh=fresh)
        loop = asyncio.get_running_loop()
        member.due = loop.time() + self._linger
        self._waiting.append(member)
        self._octets += len(octets)
        self._least = min(self._least, member.bound)
        if self._turn is not None:
            pass  # all places are taken
        elif len(self._waiting) >= self._least or self._octets >= self.limits.octets:
            self._depart()
        else:
            self._arm()
        if member.post is None:
            if until is not None:
                member.forget = (loop.call_at(until, self._leave, member).cancel,)
            if fence is not None:
                member.forget += (fence.on_close(partial(self._leave, member)),)
        return member

    def cancel(self, member: Member) -> None:
        """Its outcome is of no interest any more. A batch on the wire that nobody is left in is given up."""
        if member.done is None:
            return
        member.done = None
        post = member.post
        if post is None:
            self._remove(member)
        elif not post.ended and all(other.done is None for other in post.members):
            post.end()
            self._places.give_back()

    def _leave(self, member: Member) -> None:
        """Its time is over before it is on the wire."""
        done, member.done = member.done, None
        self._remove(member)
        if done is not None:
            done(None)

    def _remove(self, member: Member) -> None:
        self._waiting.remove(member)
        self._octets -= len(member.octets)
        _stay(member)

    def _depart(self) -> None:
        """Send whatever is full or has waited long enough, as far as there are places."""
        while (number := self._ready()) > 0:
            if not self._places.take():
                if self._turn is None:
                    self._turn = self._places.place()
                    self._turn.add_done_callback(self._place_came)
                return
            self._send(number)
        self._arm()

    def _place_came(self, turn: asyncio.Future[bool]) -> None:
        self._turn = None
        if turn.cancelled():
            return
        number = self._ready()
        if number > 0:
            self._send(number)
        else:  # who waited has left meanwhile
            self._places.give_back()
        self._depart()

    def _ready(self) -> int:
        """How many are to go together now; 0: they wait for others."""
        if not self._waiting:
            return 0
        number, full = fill(((len(member.octets), member.bound) for member in self._waiting), self.limits)
        return number if full or self._waiting[0].due <= asyncio.get_running_loop().time() + _TICK else 0

    def _arm(self) -> None:
        if self._timer is None and self._waiting:
            self._timer = asyncio.get_running_loop().call_at(self._waiting[0].due, self._lingered)

    def _lingered(self) -> None:
        self._timer = None
        self._depart()

    def _send(self, number: int) -> None:
        """Put the first ``number`` on the wire. A place is held."""
        members = [self._waiting.popleft() for _ in range(number)]
        self._octets -= sum(len(member.octets) for member in members)
        if not self._waiting:
            self._least = self.limits.events
        post = _Post(members)
        now, luck = asyncio.get_running_loop().time(), self._luck()
        for member in members:
            _stay(member)
            member.post, member.company, member.began, member.luck = post, number, now, luck

        def ended(outcome: Outcome) -> None:
            tell(self._address.noted(outcome, now))

        def tell(outcome: Outcome) -> None:
            post.ended, post.members, post.end = True, [], _nothing  # else each batch leaves a cycle to the collector
            self._places.give_back()
            for member in members:
                done, member.done = member.done, None
                if done is not None:
                    done(outcome)

        try:
            post.end = self._address.begin(
                _LINES,
                b"[" + b",".join([member.octets for member in members]) + b"]",
                ended,
                started=now,
                timeout=self._timeout,
                fresh=any(member.fresh for member in members),
            )
        except Exception as bug:  # noqa: BLE001 - a mistake of ours: told, and each member decides about itself
            _log.exception("batch could not be sent")
            asyncio.get_running_loop().call_soon(tell, Unanswered(NoAnswer.PROTOCOL, type(bug).__name__))
            return
        for member in members:
            member.sent = self._address.sent


def _stay(member: Member) -> None:
    """It leaves no more for its deadline or its fence."""
    for forget in member.forget:
        forget()
    member.forget = ()


def _nothing() -> None:
    """In the place of what a batch has no more use for."""
