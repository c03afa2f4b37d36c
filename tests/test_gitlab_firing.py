"""The faithful GitLab fires hook events: to whom, with which headers, once, and what failing makes of a webhook."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gitlab.clock import START, HandClock
from tests.gitlab.deliveries import (
    INTERNAL_ERROR,
    REQUEST_BODY_SIZE_LIMIT,
    Answered,
    Delivery,
    Failed,
    NotSent,
    Outcome,
    event_header,
    signature,
)
from tests.gitlab.disabling import Health
from tests.gitlab.hooks import EVENTS, TRIGGERS, Kind
from tests.gitlab.instance import GitLab, Missed
from tests.gitlab.sender import HttpSender, perform, perform_all
from tests.gitlab.settings import Settings

from wellhead.http_server import HttpServer, Request, Response

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from tests.gitlab.hooks import Hook

    from wellhead.http_server import Handler

    Serve = Callable[[Handler], Awaitable[str]]

URL: Final = "http://wellhead.example.com/"
PUSH: Final = {"object_kind": "push", "ref": "refs/heads/main"}
SIGNING_KEY: Final = b"01234567890123456789012345678901"
SIGNING_TOKEN: Final = f"whsec_{base64.b64encode(SIGNING_KEY).decode()}"


class World:
    """An instance with a project in two groups, and what its receivers do."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.clock = HandClock()
        self.gitlab = GitLab(self.clock, settings)
        self.project = self.gitlab.add_project("acme/tools/anvil")
        self.outcome: Outcome = Answered(202)
        self.received: list[Delivery] = []

    async def send(self, delivery: Delivery) -> Outcome:
        self.received.append(delivery)
        return self.outcome

    def hook(self, **given: object) -> Hook:
        return self.gitlab.create_hook(self.project, {"url": URL, **given})

    async def push(self, times: int = 1) -> None:
        """One after another."""
        for _ in range(times):
            await perform_all(self.gitlab, self.gitlab.fire(self.project, "push_hooks", PUSH), self.send)


# --- to whom ---


async def test_a_push_is_told_to_the_project_the_groups_above_it_and_the_instance() -> None:
    world = World(Settings())
    tools, acme = world.gitlab.namespaces.ancestors(world.project)
    other = world.gitlab.add_project("acme/other")
    for owner in (world.project, tools, acme, None, other):
        world.gitlab.create_hook(owner, {"url": URL, "push_events": True})
    await world.push()
    assert sorted(delivery.fired.hook.id for delivery in world.received) == [1, 2, 3, 4]


async def test_who_did_not_ask_for_an_event_is_not_told() -> None:
    world = World()
    world.hook(push_events=False, issues_events=True)
    await world.push()
    assert world.received == []


@pytest.mark.parametrize(
    ("strategy", "wanted", "branch", "told"),
    [
        ("wildcard", "main", "main", True),
        ("wildcard", "feature/*", "feature/a/b", True),
        ("wildcard", "feature/*", "main", False),
        ("regex", "^v[0-9]+$", "v12", True),
        ("regex", "^v[0-9]+$", "v12b", False),
        ("all_branches", "main", "other", True),
        ("wildcard", None, "other", True),
    ],
)
def test_pushes_are_told_of_the_branches_asked_for(strategy: str, wanted: str | None, branch: str, told: bool) -> None:  # noqa: FBT001
    world = World()
    world.hook(branch_filter_strategy=strategy, push_events_branch_filter=wanted)
    assert bool(world.gitlab.fire(world.project, "push_hooks", {"ref": f"refs/heads/{branch}"})) is told


def test_events_of_a_group_are_told_to_it_and_those_above_and_those_of_the_instance_to_every_system_hook() -> None:
    world = World()
    tools, acme = world.gitlab.namespaces.ancestors(world.project)
    for owner in (world.project, tools, acme):
        given = {} if owner is world.project else {"member_events": True}
        world.gitlab.create_hook(owner, {"url": URL, **given})
    world.gitlab.create_hook(None, {"url": URL, "push_events": False})
    assert [fired.hook.id for fired in world.gitlab.fire_in_group(tools, "member_hooks", {})] == [2, 3]
    assert [fired.hook.id for fired in world.gitlab.fire_in_instance({"event_name": "user_create"})] == [4]


def test_every_flag_of_a_webhook_has_its_trigger() -> None:
    assert {flag for flags in EVENTS.values() for flag in flags} == set(TRIGGERS.values())


# --- the request ---


async def test_a_hook_event_has_gitlabs_headers() -> None:
    world = World(Settings(external_url="https://gitlab.example.com:8443/git"))
    world.hook(token="s3cret")
    await world.push()
    headers = dict(world.received[0].headers)
    for name in ("X-Gitlab-Webhook-UUID", "X-Gitlab-Event-UUID", "Idempotency-Key"):
        assert len(headers.pop(name)) == 36
    assert headers.pop("webhook-id") == dict(world.received[0].headers)["Idempotency-Key"]
    assert headers == {
        "Content-Type": "application/json",
        "User-Agent": "GitLab/19.0.0",
        "X-Gitlab-Event": "Push Hook",
        "X-Gitlab-Instance": "https://gitlab.example.com:8443",
        "X-Gitlab-Token": "s3cret",
        "webhook-timestamp": str(int(START.timestamp())),
    }


async def test_a_signing_token_signs_id_time_and_body() -> None:
    world = World()
    world.hook(signing_token=SIGNING_TOKEN)
    await world.push()
    (sent,) = world.received
    headers = dict(sent.headers)
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + sent.body
    expected = base64.b64encode(hmac.new(SIGNING_KEY, signed, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"
    assert "X-Gitlab-Token" not in headers


def test_the_signature_is_the_one_of_standard_webhooks_own_example() -> None:
    headers = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        datetime.fromtimestamp(1614265330, UTC),
        b'{"test": 2432232314}',
    )
    assert headers["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize(
    ("version", "names"),
    [
        ((17, 3), set()),
        ((17, 4), {"Idempotency-Key"}),
        ((18, 11), {"Idempotency-Key"}),
        ((19, 0), {"Idempotency-Key", "webhook-id", "webhook-timestamp"}),
    ],
)
async def test_older_versions_send_fewer_headers(version: tuple[int, int], names: set[str]) -> None:
    world = World(Settings(version=version))
    world.hook()
    await world.push()
    assert {"Idempotency-Key", "webhook-id", "webhook-timestamp"} & {n for n, _ in world.received[0].headers} == names


@pytest.mark.parametrize(
    ("trigger", "header"),
    [
        ("push_hooks", "Push Hook"),
        ("tag_push_hooks", "Tag Push Hook"),
        ("confidential_issue_hooks", "Confidential Issue Hook"),
        ("wiki_page_hooks", "Wiki Page Hook"),
        ("release_hooks", "Release Hook"),
        ("feature_flag_hooks", "Feature Flag Hook"),
        ("resource_access_token_hooks", "Resource Access Token Hook"),
        ("emoji_hooks", "Emoji Hook"),
    ],
)
def test_the_events_name_is_its_triggers(trigger: str, header: str) -> None:
    assert event_header(trigger, Kind.PROJECT) == header
    assert event_header(trigger, Kind.SYSTEM) == "System Hook"


async def test_credentials_of_the_url_travel_as_a_header() -> None:
    world = World()
    world.gitlab.create_hook(world.project, {"url": "http://me:p%40ss@example.com:81/x"})
    await world.push()
    assert world.received[0].url == "http://example.com:81/x"
    assert dict(world.received[0].headers)["Authorization"] == f"Basic {base64.b64encode(b'me:p@ss').decode()}"


async def test_json_is_written_as_rails_writes_it_and_bytes_go_as_they_are() -> None:
    world = World()
    world.hook(issues_events=True)
    data = {"title": "<a> & é"}
    raw = b'{ "title" : "<a>" }\n'
    for fired in (
        *world.gitlab.fire(world.project, "issue_hooks", data),
        *world.gitlab.fire(world.project, "issue_hooks", raw),
    ):
        await perform(world.gitlab, fired, world.send)
    assert [sent.body for sent in world.received] == [
        '{"title":"\\u003ca\\u003e \\u0026 é"}'.encode(),
        raw,
    ]


# --- once ---


@pytest.mark.parametrize("outcome", [Answered(500), Answered(400), Failed("Net::ReadTimeout")])
async def test_gitlab_tries_once_whatever_comes_of_it(outcome: Outcome) -> None:
    world = World()
    world.hook()
    world.outcome = outcome
    await world.push()
    world.clock.go(timedelta(days=2))
    assert len(world.received) == len(world.gitlab.log) == 1


async def test_more_than_25_mib_are_not_sent_but_logged_and_counted_as_a_failure() -> None:
    world = World()
    hook = world.hook()
    body = json.dumps({**PUSH, "x": "y" * REQUEST_BODY_SIZE_LIMIT}).encode()
    for fired in world.gitlab.fire(world.project, "push_hooks", body):
        assert isinstance(await perform(world.gitlab, fired, world.send), NotSent)
    assert world.received == []
    assert [entry.response_status for entry in world.gitlab.log] == [INTERNAL_ERROR]
    assert hook.health.recent_failures == 1


async def test_what_is_too_large_for_the_log_is_logged_without_its_data() -> None:
    world = World(Settings(log_bytes=10))
    world.hook()
    await world.push()
    assert world.gitlab.log[0].request_data == {"oversize": True}


async def test_over_the_rate_limit_of_the_root_group_nothing_is_sent_nor_logged_nor_sent_later() -> None:
    world = World(Settings(hook_calls_per_minute=3))
    world.hook()
    world.gitlab.create_hook(None, {"url": URL, "push_events": True})
    await world.push(5)
    by_hook = [entry.hook_id for entry in world.gitlab.log]
    assert (by_hook.count(1), by_hook.count(2)) == (3, 5)
    assert world.gitlab.missed == [Missed(START, 1, "push_hooks", "Webhook rate limit exceeded")] * 2
    world.clock.go(timedelta(minutes=1))
    await world.push()
    assert [entry.hook_id for entry in world.gitlab.log].count(1) == 4


# --- disabling ---


def failing(now: datetime, failures: int) -> Health:
    """So many in a row, each as soon as it is tried again."""
    health = Health()
    for _ in range(failures):
        if health.disabled_until is not None:
            now = max(now, health.disabled_until + timedelta(microseconds=1))
        health = health.after_failure(now)
    return health


@pytest.mark.parametrize(
    ("failures", "status", "minutes"),
    [
        (3, "executable", None),
        (4, "temporarily_disabled", 1),
        (5, "temporarily_disabled", 2),
        (6, "temporarily_disabled", 4),
        (14, "temporarily_disabled", 1024),
        (15, "temporarily_disabled", 1440),
        (39, "temporarily_disabled", 1440),
        (40, "disabled", 1440),
    ],
)
def test_four_failures_disable_for_a_minute_that_doubles_to_a_day_and_forty_for_good(
    failures: int, status: str, minutes: int | None
) -> None:
    before = failing(START, failures - 1)
    now = (before.disabled_until or START) + timedelta(seconds=1)
    health = before.after_failure(now)
    assert health.recent_failures == failures
    assert health.alert_status(now) == status
    assert health.disabled_until == (None if minutes is None else now + timedelta(minutes=minutes))
    if status == "temporarily_disabled":
        assert health.disabled_until is not None
        assert not health.executable(health.disabled_until)
        assert health.executable(health.disabled_until + timedelta(microseconds=1))
    if status == "disabled":
        assert not health.executable(now + timedelta(days=10_000))


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 100_000)), max_size=80))
def test_a_success_forgets_all_failures_and_failures_while_disabled_do_not_count(
    history: list[tuple[bool, int]],
) -> None:
    health, now, in_a_row = Health(), START, 0
    for ok, seconds in history:
        now += timedelta(seconds=seconds)
        in_a_row = 0 if ok else in_a_row + health.executable(now)
        health = health.after_success() if ok else health.after_failure(now)
        assert health.recent_failures == in_a_row <= 40
        assert health.executable(now) == (in_a_row <= 3)


async def test_while_a_webhook_is_disabled_nothing_is_sent_nor_logged_nor_sent_later() -> None:
    world = World()
    hook = world.hook()
    world.outcome = Answered(503)
    await world.push(10)
    assert len(world.received) == len(world.gitlab.log) == 4
    assert world.gitlab.missed == [Missed(START, 1, "push_hooks", "Hook disabled")] * 6
    assert hook.health.alert_status(world.gitlab.now()) == "temporarily_disabled"
    world.clock.go(timedelta(minutes=1, seconds=1))
    assert hook.health.alert_status(world.gitlab.now()) == "executable"
    assert len(world.received) == 4
    await world.push(2)
    assert len(world.received) == 5
    world.clock.go(timedelta(minutes=2, seconds=1))
    world.outcome = Answered(202)
    await world.push(2)
    assert len(world.received) == len(world.gitlab.log) == 7
    assert hook.health == Health()


async def test_what_waited_when_its_webhook_was_disabled_or_deleted_is_not_sent() -> None:
    world = World()
    hook = world.hook()
    waiting = [fired for _ in range(6) for fired in world.gitlab.fire(world.project, "push_hooks", PUSH)]
    world.outcome = Failed("Net::ReadTimeout")
    ended = [await perform(world.gitlab, fired, world.send) for fired in waiting]
    assert ended[4:] == [NotSent("Hook disabled")] * 2
    world.gitlab.delete_hook(hook)
    assert await perform(world.gitlab, waiting[0], world.send) == NotSent("Hook not found")
    assert world.gitlab.log == []


async def test_more_than_four_that_are_under_way_at_once_are_all_logged_and_four_counted() -> None:
    world = World()
    hook = world.hook()
    all_under_way, under_way = asyncio.Event(), 0

    async def send(delivery: Delivery) -> Outcome:
        nonlocal under_way
        under_way += 1
        if under_way == 10:
            all_under_way.set()
        await all_under_way.wait()
        return Answered(500)

    waiting = [fired for _ in range(10) for fired in world.gitlab.fire(world.project, "push_hooks", PUSH)]
    await perform_all(world.gitlab, waiting, send)
    assert len(world.gitlab.log) == 10
    assert hook.health.recent_failures == 4


async def test_what_ends_after_its_webhook_was_deleted_leaves_nothing() -> None:
    world = World()
    hook = world.hook()

    async def send(delivery: Delivery) -> Outcome:
        world.gitlab.delete_hook(hook)
        return Answered(202)

    await perform_all(world.gitlab, world.gitlab.fire(world.project, "push_hooks", PUSH), send)
    assert world.gitlab.log == []


@pytest.mark.parametrize("auto_disabling", [True, False])
async def test_system_hooks_are_never_disabled_and_others_not_where_that_is_off(auto_disabling: bool) -> None:  # noqa: FBT001
    world = World(Settings(auto_disabling=auto_disabling))
    world.hook()
    world.gitlab.create_hook(None, {"url": URL, "push_events": True})
    world.outcome = Answered(500)
    await world.push(50)
    by_hook = [entry.hook_id for entry in world.gitlab.log]
    assert (by_hook.count(1), by_hook.count(2)) == (4 if auto_disabling else 50, 50)


async def test_redirects_count_as_success() -> None:
    world = World()
    hook = world.hook()
    world.outcome = Answered(302)
    await world.push(5)
    assert hook.health == Health()


async def test_a_change_does_not_enable_a_disabled_webhook() -> None:
    world = World()
    hook = world.hook()
    world.outcome = Answered(500)
    await world.push(4)
    world.gitlab.update_hook(hook, {"url": "http://elsewhere.example.com/", "token": "new"})
    assert hook.health.alert_status(world.gitlab.now()) == "temporarily_disabled"


# --- over HTTP ---


@pytest.fixture
async def receiver() -> AsyncIterator[Serve]:
    servers: list[HttpServer] = []

    async def serve(handler: Handler) -> str:
        servers.append(HttpServer(handler, name="receiver"))
        host, port = await servers[-1].start("127.0.0.1", 0)
        return f"http://{host}:{port}/hook"

    yield serve
    for server in servers:
        await server.stop(grace=0)


async def test_a_hook_event_arrives_over_http_as_it_was_made(receiver: Serve) -> None:
    came: list[Request] = []

    def handler(request: Request) -> Response:
        came.append(request)
        return Response(202, b"taken", ((b"x-own", b"1"),))

    world = World()
    world.gitlab.create_hook(world.project, {"url": await receiver(handler), "token": "s3cret"})
    await perform_all(world.gitlab, world.gitlab.fire(world.project, "push_hooks", PUSH), HttpSender())
    (request,) = came
    assert (request.method, request.path) == ("POST", "/hook")
    assert json.loads(request.body) == PUSH
    assert request.header("X-Gitlab-Token") == "s3cret"
    (entry,) = world.gitlab.log
    assert (entry.response_status, entry.response_body) == ("202", "taken")
    assert entry.response_headers["X-Own"] == "1"


async def test_a_receiver_that_does_not_answer_in_time_or_at_all_has_failed(receiver: Serve) -> None:
    async def never(request: Request) -> Response:
        await asyncio.Event().wait()
        raise AssertionError

    world = World(Settings(webhook_timeout_seconds=0.05))
    for url in (await receiver(never), "http://127.0.0.1:1/", "http://127.0.0.1:99999/"):
        world.gitlab.hooks.clear()
        hook = world.gitlab.create_hook(world.project, {"url": "http://x.example.com/"})
        hook.url = url
        await perform_all(world.gitlab, world.gitlab.fire(world.project, "push_hooks", PUSH), HttpSender())
    assert [entry.response_status for entry in world.gitlab.log] == [INTERNAL_ERROR] * 3


async def test_a_redirect_is_an_answer(receiver: Serve) -> None:
    url = await receiver(lambda _: Response(302, headers=((b"Location", b"http://elsewhere.example.com/"),)))
    world = World()
    world.gitlab.create_hook(world.project, {"url": url})
    await perform_all(world.gitlab, world.gitlab.fire(world.project, "push_hooks", PUSH), HttpSender())
    assert world.gitlab.log[0].response_status == "302"
