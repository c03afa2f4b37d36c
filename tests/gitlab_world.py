"""A GitLab, replicas of our program and a sink, all in memory on one simulated clock: no socket, no thread, no wait.

The replicas are what the adapter is made of (receiver, registrar, python-gitlab) without its HTTP server; the GitLab is
the faithful one.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from tests.gitlab.api import Api
from tests.gitlab.deliveries import Answered, Failed
from tests.gitlab.in_process import InProcess
from tests.gitlab.instance import GitLab
from tests.gitlab.namespaces import Role
from tests.gitlab.routes import Send
from tests.gitlab.sender import perform, perform_all
from tests.gitlab.settings import Settings

from wellhead.errors import DeliveryError, Loss
from wellhead.http_server import Request, Response
from wellhead.testing import LoopClock
from wellhead_adapters.gitlab.api import PythonGitlab, open_client
from wellhead_adapters.gitlab.config import GitlabConfig
from wellhead_adapters.gitlab.kinds import header_of, sample_triggers
from wellhead_adapters.gitlab.receiver import Receiver, Telling
from wellhead_adapters.gitlab.source import registrar_of, secrets_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import gitlab
    from tests.gitlab.deliveries import Delivery, Fired, Outcome
    from tests.gitlab.hooks import Hook
    from tests.gitlab.replies import Call, Reply

    from wellhead.adapter import Deadline, Fence
    from wellhead.event import CloudEvent

T = TypeVar("T")
HOOK_URL: Final = "http://hooks.example.com/gitlab"
ACCESS: Final = "glpat-maintainer"
INTERVAL: Final = timedelta(minutes=1)
PUSH: Final = {"object_kind": "push", "ref": "refs/heads/main", "project": {"path_with_namespace": "acme/anvil"}}


class Crash(BaseException):
    """The program is killed in a call."""


class NeedsSend(Exception):
    """A call that GitLab answers only after it has sent something to us."""

    def __init__(self, asked: Send) -> None:
        super().__init__()
        self.asked = asked


class Line(InProcess):
    """The way from one replica to GitLab. What GitLab sends meanwhile is sent by the event loop, and the call made anew."""

    def __init__(self, instance: GitLab) -> None:
        super().__init__(instance)
        self._api_of_instance = Api(instance)
        self.ready_reply: Reply | None = None

    def _true_reply(self, call: Call) -> Reply:
        if self.ready_reply is not None:
            reply, self.ready_reply = self.ready_reply, None
            return reply
        answer = self._api_of_instance.answer(call)
        if isinstance(answer, Send):
            raise NeedsSend(answer)
        return answer


class Sink:
    """Takes events while it is up; while it is down it tries until the deadline, as the real one does."""

    def __init__(self) -> None:
        self.up = True
        self.never: set[str] = set()
        """Ids of events that it never takes."""
        self.events: list[CloudEvent] = []

    async def send(self, event: CloudEvent, /, *, deadline: Deadline | None = None, fence: Fence | None = None) -> None:
        loop = asyncio.get_running_loop()
        while not self.up or event.id in self.never:
            if deadline is not None and loop.time() >= deadline.at:
                raise DeliveryError(event_id=event.id, loss=Loss.EXPIRED, last="connect", tries=1, maybe_accepted=False)
            await asyncio.sleep(1)
        await asyncio.sleep(0.01)
        self.events.append(event)

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]


class Replica:
    """One process of ours. ``crash`` says after how many calls it is killed, and whether GitLab did what it was asked."""

    def __init__(self, world: World, config: GitlabConfig) -> None:
        self.world = world
        self.line = Line(world.gitlab)
        self.crash: tuple[int, bool] | None = None
        self.calls = 0
        secrets = secrets_of(config)
        triggers = sample_triggers(config.event_types)
        self.owner = f"replica {id(self)}"
        self.registrar = registrar_of(
            config, secrets, PythonGitlab(self._client, aside=self), clock=world.clock, owner=self.owner
        )
        telling = Telling(targets=config.targets, test_headers=frozenset(map(header_of, triggers)))
        self.receiver = Receiver(world.sink, secrets, telling, clock=world.clock, on_trouble=self.registrar.poke)  # type: ignore[arg-type]  # a sink that takes our own events only
        self.task: asyncio.Task[None] = asyncio.create_task(self._run(), name="a replica")

    async def __call__(self, call: Callable[[], T], /) -> T:
        """As `Aside`: in the loop itself."""
        self.calls += 1
        crashes = self.crash is not None and self.calls >= self.crash[0]
        if crashes and self.crash is not None and not self.crash[1]:
            raise Crash
        await asyncio.sleep(0.01)
        try:
            result = call()
        except NeedsSend as needs:
            outcome = await perform(self.world.gitlab, needs.asked.fired, self.world.send)
            self.line.ready_reply = needs.asked.then(outcome)
            result = call()
        if crashes:
            raise Crash
        return result

    async def stop(self, *, clean_up: bool = False) -> None:
        self.task.cancel()
        await asyncio.wait((self.task,))
        if clean_up:
            with contextlib.suppress(Crash):
                await self.registrar.clean_up(self.owner)
        self.world.replicas.remove(self)

    @property
    def runs(self) -> bool:
        return not self.task.done()

    async def _run(self) -> None:
        with contextlib.suppress(BaseExceptionGroup):  # a crash: whoever looks sees that it runs no more
            await self.registrar.run()

    def _client(self, base: str) -> gitlab.Gitlab:
        client = open_client(base, ACCESS)
        client.session.mount("http://", self.line)
        return client


class World:
    """To be made in a test's event loop, under looptime."""

    def __init__(self, folder: Path, settings: Settings | None = None, **config: object) -> None:
        self.clock = LoopClock()
        self.gitlab = GitLab(self.clock, settings or Settings())
        user = self.gitlab.add_user("maintainer")
        self.gitlab.add_token(user, ACCESS)
        self.project = self.gitlab.add_project("acme/anvil", maintainer=user)
        self.gitlab.namespaces.let(user, Role.OWNER, self.project)
        self.sink = Sink()
        self.replicas: list[Replica] = []
        self.unreachable = False
        self._secret_file = folder / "secret"
        self.rotate("first")
        base = self.gitlab.settings.external_url
        self.config = GitlabConfig(
            **{
                "project_urls": (f"{base}/acme/anvil",),
                "event_types": ("push_events", "note_events"),
                "hook_url": HOOK_URL,
                "access_token": ACCESS,
                "secret_token_file": self._secret_file,
                "interval": INTERVAL,
                **config,
            }  # type: ignore[arg-type]  # a table of settings
        )

    def start(self) -> Replica:
        self.replicas.append(Replica(self, self.config))
        return self.replicas[-1]

    def rotate(self, secret: str) -> None:
        """Put another secret into the file that every replica follows."""
        new = self._secret_file.with_suffix(".new")
        new.write_text(secret, encoding="utf-8")
        new.replace(self._secret_file)
        self.secret = secret

    @property
    def webhooks(self) -> list[Hook]:
        return [hook for hook in self.gitlab.hooks_of(self.project) if hook.url == HOOK_URL]

    def fire(self, number: int = 1) -> list[Fired]:
        return [fired for _ in range(number) for fired in self.gitlab.fire(self.project, "push_hooks", PUSH)]

    async def push(self, number: int = 1) -> list[str]:
        """So many pushes, each told at once; the keys of those that GitLab fires at all."""
        fired = self.fire(number)
        await perform_all(self.gitlab, fired, self.send)
        return [one.idempotency_key for one in fired]

    async def send(self, delivery: Delivery, /) -> Outcome:
        """As GitLab's HTTP: to one of the replicas that run, within 10 s."""
        running = [replica for replica in self.replicas if replica.runs]
        if not running or self.unreachable:
            return Failed("Connection refused")
        headers = tuple((name.encode(), value.encode()) for name, value in delivery.headers)
        request = Request("POST", "/gitlab", "/gitlab", "", headers, delivery.body, "192.0.2.1:4711")
        answer = running[-1].receiver(request)
        try:
            async with asyncio.timeout(delivery.timeout_seconds):
                response = answer if isinstance(answer, Response) else await answer
        except TimeoutError:
            return Failed("Net::ReadTimeout")
        assert isinstance(response, Response)
        return Answered(response.status)

    async def aclose(self) -> None:
        for replica in tuple(self.replicas):
            await replica.stop()

    def disable(self, hook: Hook) -> None:
        """As 40 failures do."""
        hook.health = replace(hook.health, recent_failures=40)
