"""Hears GitLab: verifies, delivers, answers. It registers nothing, and knows GitLab's API not at all.

===  =========================================================================================================
202  delivered (to the sink or the dead-letter sink), or known to have been
400  no hook event: no ``X-Gitlab-Event``, no JSON
401  no token of ours, or a signature that is wrong or old
405  not a POST
408  the client was slow (the server says it, as 413, 431 and 503 for too much at once)
413  more than 25 MiB, which is as much as GitLab sends
422  the sink refused this event, and no dead-letter sink took it: asked again, it would say the same
503  not delivered in time: GitLab counts it as failed and keeps it in its log, from where it is asked back
===  =========================================================================================================
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from wellhead.adapter import Deadline
from wellhead.errors import DeliveryError, Loss
from wellhead.http_server import Limits, Request, Response

from .events import Mapped, cloud_event
from .hook_event import HookEvent, Malformed, key_of, read
from .recent import Recent
from .signature import accepts

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from wellhead.adapter import Sink
    from wellhead.clock import Clock
    from wellhead.event import CloudEvent

    from .projecturl import Target
    from .secrets import Secrets

LIMITS: Final = Limits(
    body_bytes=25 << 20,  # GitLab's own limit (WebHookService::REQUEST_BODY_SIZE_LIMIT)
    all_bodies_bytes=100 << 20,
    connections=1000,
    header_seconds=5,
    request_seconds=10,  # GitLab gives up after as much
    idle_seconds=60,
)
DELIVERY_SECONDS: Final = 8.0
"""How long a delivery may take: GitLab waits 10 s."""
REMEMBERED: Final = 50_000
_LARGE: Final = 1 << 18  # a body from here on is read in a thread: 25 MiB take the loop for a second
_TEXT: Final = ((b"content-type", b"text/plain; charset=utf-8"),)
_ACCEPTED: Final = Response(202)
_LATE: Final = Response(503, b"not delivered in time\n", _TEXT)
_UNAUTHORIZED: Final = Response(401, b"no token of this webhook, or a wrong signature\n", _TEXT)
_NOT_A_POST: Final = Response(405, b"POST only\n", (*_TEXT, (b"allow", b"POST")))
_REFUSED: Final = Response(422, b"the sink refused this event\n", _TEXT)
_FOR_GOOD: Final = (Loss.REFUSED, Loss.POISON)
_Header: TypeAlias = "Callable[[str], str | None]"
_Waiter: TypeAlias = tuple[asyncio.Future[Response], asyncio.TimerHandle]


@dataclass(slots=True)
class Tally:
    """What came of the requests, for metrics."""

    answers: dict[int, int] = field(default_factory=dict)
    duplicates: int = 0
    tests: int = 0

    def count(self, response: Response) -> Response:
        self.answers[response.status] = self.answers.get(response.status, 0) + 1
        return response


@dataclass(slots=True)
class Memory:
    """What a receiver knows of deliveries."""

    tally: Tally = field(default_factory=Tally)
    accepted: Recent = field(default_factory=lambda: Recent(REMEMBERED))
    waiting: dict[str, list[_Waiter]] = field(default_factory=dict)
    """By their keys, who waits for those on their way."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)


@dataclass(frozen=True, slots=True, kw_only=True)
class Telling:
    """How hook events become events."""

    source: str = ""
    """Of all events; "": of the target whose webhook told it."""
    targets: Sequence[Target] = ()
    mapped: Mapped = Mapped.KNATIVE
    extra_attributes: bool = False
    test_headers: frozenset[str] = frozenset()
    """What only a test that we asked for can bring, as nobody asked for such events: answered, and not sent."""

    def source_of(self, told: HookEvent) -> str:
        if self.source or not self.targets:
            return self.source
        path = _project_path(told)
        return next((target.url for target in self.targets if path and target.is_about(path)), self.targets[0].url)


class Receiver:
    """Answers requests, as `HttpServer`'s handler. ``on_trouble`` is called whenever GitLab is told of a failure."""

    def __init__(
        self,
        sink: Sink,
        secrets: Secrets,
        telling: Telling,
        *,
        clock: Clock,
        on_trouble: Callable[[], None] = lambda: None,
        memory: Memory | None = None,
    ) -> None:
        """With the ``memory`` of one in whose place it stands, it knows what that one delivered and has on its way."""
        self.memory = memory or Memory()
        self.tally = self.memory.tally
        self._sink = sink
        self._secrets = secrets
        self._telling = telling
        self._clock = clock
        self._on_trouble = on_trouble
        self._accepted = self.memory.accepted
        self._waiting = self.memory.waiting
        self._tasks = self.memory.tasks

    def __call__(self, request: Request) -> Response | Awaitable[Response]:
        """The answer to one request; within 8 s where it is not there at once."""
        if request.method != "POST":
            return self.tally.count(_NOT_A_POST)
        header = _headers(request).get
        if not self._is_known(header, request.body):
            return self.tally.count(_UNAUTHORIZED)
        key = key_of(header)
        if key and key in self._accepted:
            self.tally.duplicates += 1
            return self.tally.count(_ACCEPTED)
        return self._answer(header, request.body, key)

    async def drain(self) -> None:
        """Return once nothing is on its way. Cancelling it leaves the deliveries to the runtime."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _is_known(self, header: _Header, body: bytes) -> bool:
        def verify() -> bool:
            return accepts(self._secrets.accepted, header, body, self._wall)

        # A secret that was changed a moment ago is in the file already.
        return verify() or (self._secrets.look() and verify())

    def _wall(self) -> float:
        return self._clock.now().timestamp()

    def _answer(self, header: _Header, body: bytes, key: str) -> asyncio.Future[Response]:
        """The answer, which is there within 8 s; the delivery may go on for longer, and though who asked hangs up.

        Who asks for what is on its way already is answered as the first who did.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Response] = loop.create_future()
        waiter = answer, loop.call_later(DELIVERY_SECONDS, self._settle, answer, _LATE)
        waiters = self._waiting.get(key)
        if waiters is not None:
            self.tally.duplicates += 1
            waiters.append(waiter)
            return answer
        waiters = [waiter]
        if key:
            self._waiting[key] = waiters
        deadline = Deadline(loop.time() + DELIVERY_SECONDS)
        task = loop.create_task(self._deliver(header, body, key, deadline, waiters), name="delivery of a hook event")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return answer

    async def _deliver(
        self, header: _Header, body: bytes, key: str, deadline: Deadline, waiters: list[_Waiter]
    ) -> None:
        response = _LATE
        try:
            response = await self._delivered(header, body, deadline)
        finally:
            self._waiting.pop(key, None)
            if key and response is _ACCEPTED:
                self._accepted.add(key)
            for answer, timer in waiters:
                timer.cancel()
                self._settle(answer, response)

    async def _delivered(self, header: _Header, body: bytes, deadline: Deadline) -> Response:
        try:
            told = await _read(header, body)
            if told.name in self._telling.test_headers:
                self.tally.tests += 1
                return _ACCEPTED
            event = self._event(told)
        except Malformed as error:
            return Response(400, f"{error}\n".encode(), _TEXT)
        try:
            await self._sink.send(event, deadline=deadline)
        except DeliveryError as error:
            return _REFUSED if error.loss in _FOR_GOOD and error.accounted else _LATE
        return _ACCEPTED

    def _settle(self, answer: asyncio.Future[Response], response: Response) -> None:
        if answer.done():  # told that it is late, or gone
            return
        answer.set_result(self.tally.count(response))
        if response is _LATE or response is _REFUSED:
            self._on_trouble()

    def _event(self, told: HookEvent) -> CloudEvent:
        return cloud_event(
            told,
            source=self._telling.source_of(told),
            now=self._clock.now(),
            mapped=self._telling.mapped,
            extra_attributes=self._telling.extra_attributes,
        )


def _headers(request: Request) -> dict[str, str]:
    """By their names in lower case, the first of each: ten are asked for, and each search would go through all."""
    found: dict[str, str] = {}
    for name, value in request.headers:
        found.setdefault(name.lower().decode("latin-1"), value.decode("utf-8", "backslashreplace"))
    return found


async def _read(header: _Header, body: bytes) -> HookEvent:
    if len(body) < _LARGE:
        return read(header, body)
    return await asyncio.to_thread(read, header, body)


def _project_path(told: HookEvent) -> str:
    """``group/project``, where the payload says it."""
    project = told.payload.get("project")
    path = (
        project.get("path_with_namespace") if isinstance(project, Mapping) else told.payload.get("path_with_namespace")
    )
    return path if isinstance(path, str) else ""
