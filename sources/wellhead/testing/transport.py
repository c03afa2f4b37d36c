"""A `Transport` in memory, for tests of deliveries that need no HTTP: with looptime, hours of retries in a blink.

Keeps the contract of the real one (tests/test_transport.py runs the same tests over both). No TLS, no names.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from typing import TYPE_CHECKING

from wellhead.delivery import Answered, Unanswered, is_accepted
from wellhead.errors import NoAnswer
from wellhead.http_binding import decode
from wellhead.transport import BODY_KEPT, in_task

from .recorder import Answer, Behaviour, HalfAnswer, Hang, Reset

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.delivery import Outcome
    from wellhead.event import CloudEvent
    from wellhead.transport import Post


class FakeTransport:
    """Answers every POST 202, unless told else: the next ones by `then`, the rest by `always`.

    ``latency`` gives the seconds that each takes. ``posts`` holds what came; ``events`` what was answered 2xx.
    """

    def __init__(self, *, latency: Callable[[], float] = lambda: 0.0) -> None:
        self.posts: list[Post] = []
        self.events: list[CloudEvent] = []
        self.on_wire = 0
        self.most_on_wire = 0
        self._latency = latency
        self._script: deque[Behaviour] = deque()
        self._default: Callable[[Post], Behaviour] = lambda _: Answer()
        self._kept: Counter[str] = Counter()
        self._tries: set[asyncio.Task[Outcome]] = set()
        self._waiting: set[asyncio.Future[None]] = set()
        self._closed = asyncio.Event()

    @property
    def tried(self) -> list[CloudEvent]:
        """The events of all POSTs, in order, repeated as often as they came."""
        return [event for post in self.posts for event in decode(post.headers, post.body)]

    def then(self, *behaviours: Behaviour) -> None:
        """Behave so at the next POSTs, one each; afterwards as `always` said."""
        self._script.extend(behaviours)

    def always(self, behaviour: Behaviour | Callable[[Post], Behaviour]) -> None:
        """Behave so from now on, or as a function of the POST says."""
        self._script.clear()
        self._default = behaviour if callable(behaviour) else lambda _: behaviour

    async def accepted(self, number: int) -> list[CloudEvent]:
        """Wait until ``number`` events were accepted; they are returned."""
        while len(self.events) < number:
            await self._change()
        return self.events[:number]

    async def came(self, number: int) -> list[Post]:
        """Wait until ``number`` POSTs came; they are returned."""
        while len(self.posts) < number:
            await self._change()
        return self.posts[:number]

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        """See `wellhead.transport.Transport.begin`."""

        def told(outcome: Outcome) -> None:
            if is_accepted(outcome):
                self.events.extend(decode(post.headers, post.body))
                self._note()
            done(outcome)

        return in_task(self._try(post), told, self._tries)

    async def _try(self, post: Post) -> Outcome:
        if self._closed.is_set():
            return Unanswered(NoAnswer.CONNECT, "the transport is closed")
        url = post.target.url
        behaviour = self._script.popleft() if self._script else self._default(post)
        reused = not post.fresh and self._kept[url] > 0
        self._kept[url] -= reused
        self.posts.append(post)
        self.on_wire += 1
        self.most_on_wire = max(self.most_on_wire, self.on_wire)
        try:
            self._note()
            async with asyncio.timeout(post.timeout):
                outcome = await self._unless_closed(behaviour, reused=reused)
        except TimeoutError:
            return Unanswered(NoAnswer.TIMEOUT, f"no answer within {post.timeout} s")
        finally:
            self.on_wire -= 1
        self._kept[url] += isinstance(behaviour, Answer) and not (behaviour.close or post.fresh)
        return outcome

    async def aclose(self) -> None:
        """See `wellhead.transport.Transport.aclose`."""
        self._closed.set()

    async def _unless_closed(self, behaviour: Behaviour, *, reused: bool) -> Outcome:
        closed = asyncio.create_task(self._closed.wait(), name="fake transport: until closed")
        answer = asyncio.create_task(self._answer(behaviour, reused=reused), name="fake transport: a try")
        try:
            await asyncio.wait((closed, answer), return_when=asyncio.FIRST_COMPLETED)
            return answer.result() if answer.done() else Unanswered(NoAnswer.RESET, "the transport was closed")
        finally:
            closed.cancel()
            answer.cancel()

    async def _answer(self, behaviour: Behaviour, *, reused: bool) -> Outcome:
        await asyncio.sleep(self._latency())
        if isinstance(behaviour, Answer):
            if behaviour.until is not None:
                await behaviour.until.wait()
            return Answered(behaviour.status, _retry_after(behaviour), behaviour.body[:BODY_KEPT])
        if isinstance(behaviour, Hang):
            await asyncio.Event().wait()
        if isinstance(behaviour, HalfAnswer) and behaviour.status is not None:
            return Answered(behaviour.status)
        if isinstance(behaviour, Reset | HalfAnswer):
            return Unanswered(NoAnswer.STALE if reused else NoAnswer.RESET, "connection reset")
        return Unanswered(NoAnswer.PROTOCOL, "not HTTP")

    def _note(self) -> None:
        for waiting in self._waiting:
            if not waiting.done():
                waiting.set_result(None)

    async def _change(self) -> None:
        waiting: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(waiting)
        try:
            await waiting
        finally:
            self._waiting.discard(waiting)


def _retry_after(answer: Answer) -> str | None:
    return next((value.decode() for name, value in answer.headers if name.lower() == b"retry-after"), None)
