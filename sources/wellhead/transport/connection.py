"""One connection to a sink: sends a request, reads its answer, and says how it ended. One request at a time."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from wellhead.delivery import Unanswered
from wellhead.errors import NoAnswer
from wellhead.tls import refused_us

from .answer import AnswerReader, BadAnswer, Memo

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.delivery import Outcome

    from . import Post


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """Seconds that each phase of a try may take, within `Post.timeout` for the whole; None: as long as that."""

    connect: float | None = 10.0
    """From the start, waiting for a free connection included, to the end of the TLS handshake."""
    write: float | None = None
    """For the request to leave, once more of it waits than the socket takes at once."""
    first_byte: float | None = None
    """From then to the first byte of the answer."""
    body: float = 1.0
    """For the rest of an answer whose head has come, which is what counts."""


class Try:
    """One POST from its start to its end: which connection has it, and until when. ``done`` None: it has ended."""

    __slots__ = ("asked", "connection", "done", "due", "late", "octets", "over", "post")

    def __init__(self, post: Post, octets: bytes, done: Callable[[Outcome], object], over: float) -> None:
        self.post = post
        self.octets = octets
        self.done: Callable[[Outcome], object] | None = done
        self.over = over
        """When its time is over, in seconds of the loop."""
        self.due = over
        """When the phase it is in has taken too long; at most ``over``."""
        self.late = ""
        """What is told then, where that is not that the whole took too long."""
        self.asked: Asked | None = None
        """The connection that is being made for it."""
        self.connection: Connection | None = None

    @property
    def waits(self) -> bool:
        """Whether it needs a connection: it has none, and has not ended."""
        return self.done is not None and self.connection is None

    def end(self, outcome: Outcome) -> None:
        """Tell the outcome, once."""
        done, self.done, self.connection = self.done, None, None
        if done is not None:
            done(outcome)

    def cancel(self) -> None:
        """End it and its connection, and tell nobody; after its end, do nothing."""
        self.done = None
        if self.connection is not None:
            self.connection.abort()

    def within(self, seconds: float | None, late: str) -> None:
        """A phase begins, which may take so long."""
        self.due, self.late = self.over, ""
        if seconds is not None:
            due = asyncio.get_running_loop().time() + seconds
            if due < self.over:
                self.due, self.late = due, late


class Asked:
    """A connection that is being made, and for whom: where it fails, that one fails."""

    __slots__ = ("by",)

    def __init__(self, by: Try) -> None:
        self.by = by
        by.asked = self


class Owner(Protocol):
    """Whom a connection tells about itself: its pool."""

    def established(self, connection: Connection) -> None:
        """It is there, its TLS handshake done."""

    def released(self, connection: Connection) -> None:
        """Its answer was read whole, and it can carry the next request. Called before the outcome is told."""

    def lost(self, connection: Connection) -> None:
        """It is closed. Called once, before the outcome of what it carried is told."""

    def hurried(self, attempt: Try) -> None:
        """``attempt`` is due sooner than it was."""


class Connection(asyncio.Protocol):
    """See the module. Its pool keeps ``idle_since`` and ``renew_at``, in seconds of the loop."""

    __slots__ = (
        "_closed",
        "_owner",
        "_reader",
        "_stuck",
        "_timeouts",
        "_transport",
        "attempt",
        "idle_since",
        "kept",
        "open",
        "peer",
        "renew_at",
    )

    def __init__(self, owner: Owner, memo: Memo, timeouts: Timeouts) -> None:
        self.idle_since = 0.0
        self.renew_at = 0.0
        self.peer: object = None
        self.kept = False
        """Whether it has carried a request to its end, or rested: it may be closed under us."""
        self._owner = owner
        self._timeouts = timeouts
        self._reader = AnswerReader(memo)
        self._transport: asyncio.Transport | None = None
        self.attempt: Try | None = None
        """What it carries."""
        self._stuck = False  # more waits to be written than the socket takes
        self._closed = False
        self.open = False
        """Whether a request may be sent on it, as far as we know."""

    def carry(self, attempt: Try) -> None:
        """Send its request, and tell how it ends."""
        assert self._transport is not None  # noqa: S101 - carried only once established
        self.attempt = attempt
        attempt.connection = self
        if attempt.late or self._timeouts.first_byte is not None:
            attempt.within(self._timeouts.first_byte, "no answer began")
        self._transport.write(attempt.octets)

    def abort(self) -> None:
        """Close at once. What it carries is told nothing any more; the pool is."""
        self.attempt = None
        self._end(None)

    def fail(self, why: NoAnswer, detail: str) -> None:
        """Close at once, and tell what it carries why."""
        self._end(Unanswered(why, detail))

    def overdue(self, detail: str) -> None:
        """Its request has had its time. Where the head of the answer came, that is the answer."""
        if self._reader.head_came:
            self._end(self._reader.so_far())
        else:
            self._end(Unanswered(NoAnswer.TIMEOUT, detail))

    # asyncio calls these.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self.open = True
        self.peer = transport.get_extra_info("peername")
        self._owner.established(self)

    def pause_writing(self) -> None:
        self._stuck = True
        self._hurry(self._timeouts.write, "the request was not taken")

    def resume_writing(self) -> None:
        self._stuck = False
        self._hurry(self._timeouts.first_byte, "no answer began")

    def data_received(self, data: bytes) -> None:
        attempt = self.attempt
        if attempt is None:  # nobody asked
            self._end(None)
            return
        in_body = self._reader.head_came
        try:
            answer = self._reader.feed(data)
        except BadAnswer as error:
            came = self._reader.head_came
            self._end(self._reader.so_far() if came else Unanswered(NoAnswer.PROTOCOL, str(error)))
            return
        if answer is None:
            if not in_body:  # the body's time runs from its head, and not anew from each of its bytes
                self._hurry(self._timeouts.body if self._reader.head_came else None, "")
            return
        if self._stuck or not self._reader.reusable:
            self._end(answer)
            return
        self.kept = True
        self.attempt = None
        self._owner.released(self)
        attempt.end(answer)

    def eof_received(self) -> None:
        self.open = False  # the transport closes itself, in a later turn of the loop

    def connection_lost(self, exc: Exception | None) -> None:
        if self._closed:
            return
        if self.attempt is None:
            self._end(None)
        elif self._reader.head_came:
            self._end(self._reader.so_far())
        else:
            self._end(Unanswered(self._why(exc), str(exc or "closed before the answer was complete")[:200]))

    def _hurry(self, seconds: float | None, late: str) -> None:
        if self.attempt is not None:
            self.attempt.within(seconds, late)
            self._owner.hurried(self.attempt)

    def _why(self, exc: Exception | None) -> NoAnswer:
        if exc is not None and refused_us(exc):  # with TLS 1.3 that comes after the handshake
            return NoAnswer.TLS
        return NoAnswer.STALE if self.kept and not self._reader.begun else NoAnswer.RESET

    def _end(self, outcome: Outcome | None) -> None:
        if self._closed:
            return
        self._closed, self.open = True, False
        attempt, self.attempt = self.attempt, None
        if self._transport is not None:
            self._transport.abort()
        self._owner.lost(self)
        if attempt is not None and outcome is not None:
            attempt.end(outcome)
