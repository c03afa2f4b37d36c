"""The faithful GitLab under its conformance test: python-gitlab, over HTTP and in process, asks for all there is."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

import gitlab
import pytest
import trustme
from gitlab.exceptions import (
    GitlabAuthenticationError,
    GitlabCreateError,
    GitlabDeleteError,
    GitlabError,
    GitlabGetError,
    GitlabHookTestError,
    GitlabHttpError,
    GitlabListError,
    GitlabParsingError,
    GitlabUpdateError,
)
from requests import ConnectionError as NoConnection
from requests import ReadTimeout
from requests.exceptions import SSLError as NoTrust
from tests.gitlab.clock import HandClock
from tests.gitlab.deliveries import Answered, Delivery, Failed, NotSent, Outcome
from tests.gitlab.faults import (
    LOST_AFTER,
    LOST_BEFORE,
    RESOURCE_LOCK,
    Faults,
    answered,
    html,
    late,
    too_many_requests,
)
from tests.gitlab.hooks import EVENTS, Hook, Kind
from tests.gitlab.in_process import InProcess
from tests.gitlab.instance import GitLab
from tests.gitlab.namespaces import Role
from tests.gitlab.server import GitLabServer
from tests.gitlab.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from gitlab.v4.objects import Group, Project, ProjectHook

URL: Final = "http://wellhead.example.com:8080/"
OTHER_URL: Final = "http://elsewhere.example.com/"
SIGNING_TOKEN: Final = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="
MAINTAINER: Final = "glpat-maintainer"
DEVELOPER: Final = "glpat-developer"
STRANGER: Final = "glpat-stranger"
ADMIN: Final = "glpat-admin"
PATIENCE: Final = 5.0


@dataclass
class Receiver:
    """Where all webhooks lead: keeps what comes, and answers as it is told."""

    outcome: Outcome = Answered(202)
    received: list[Delivery] = field(default_factory=list)

    def __call__(self, delivery: Delivery) -> Outcome:
        self.received.append(delivery)
        return self.outcome


@dataclass
class World:
    """An instance, a way to it, and where its webhooks lead."""

    instance: GitLab
    clock: HandClock
    receiver: Receiver
    url: str
    faults: Faults
    adapter: InProcess | None = None

    def client(self, token: str | None = MAINTAINER, *, bearer: bool = False) -> gitlab.Gitlab:
        private, oauth = (None, token) if bearer else (token, None)
        client = gitlab.Gitlab(self.url, timeout=PATIENCE, private_token=private, oauth_token=oauth)
        if self.adapter is not None:
            client.session.mount("http://", self.adapter)
        return client

    def project(self, token: str = MAINTAINER) -> Project:
        return self.client(token).projects.get("acme/tools/anvil")

    def group(self, token: str = MAINTAINER) -> Group:
        return self.client(token).groups.get("acme/tools")

    def held(self, number: int = 1) -> Hook:
        return self.instance.hooks[number]

    def happens(self, *, times: int = 1) -> None:
        """A push, told to whom it concerns, one after another."""
        project = self.instance.namespaces.project("acme/tools/anvil")
        assert project is not None
        for _ in range(times):
            for fired in self.instance.fire(
                project, "push_hooks", {"ref": "refs/heads/main", "email": "me@example.com"}
            ):
                delivery = self.instance.begin(fired)
                if not isinstance(delivery, NotSent):
                    self.instance.ended(delivery, self.receiver(delivery), took=0)


def made(settings: Settings) -> tuple[GitLab, HandClock]:
    clock = HandClock()
    instance = GitLab(clock, settings)
    project = instance.add_project("acme/tools/anvil")
    group = instance.namespaces.group("acme/tools")
    assert group is not None
    for token, role in ((MAINTAINER, Role.OWNER), (DEVELOPER, Role.DEVELOPER), (STRANGER, Role.NONE)):
        user = instance.add_user(token)
        instance.add_token(user, token)
        instance.namespaces.let(user, role, project)
        instance.namespaces.let(user, role, group)
    instance.add_token(instance.add_user("root", admin=True), ADMIN)
    return instance, clock


@contextlib.contextmanager
def in_process(settings: Settings) -> Iterator[World]:
    instance, clock = made(settings)
    receiver = Receiver()
    adapter = InProcess(instance, receiver)
    yield World(instance, clock, receiver, settings.external_url, adapter.faults, adapter)


@contextlib.contextmanager
def over_http(
    settings: Settings, *, keep_external_url: bool = False, tls: ssl.SSLContext | None = None
) -> Iterator[World]:
    """Served from a thread with a loop of its own, as python-gitlab blocks."""
    instance, clock = made(settings)
    receiver = Receiver()
    loop = asyncio.new_event_loop()
    up, down = threading.Event(), asyncio.Event()

    async def send(delivery: Delivery) -> Outcome:
        return receiver(delivery)

    server = GitLabServer(instance, send=send, keep_external_url=keep_external_url, tls=tls)

    async def serve() -> None:
        async with server:
            up.set()
            await down.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    try:
        assert up.wait(10)
        yield World(instance, clock, receiver, server.url, server.faults)
    finally:
        loop.call_soon_threadsafe(down.set)
        thread.join(10)
        loop.close()


@pytest.fixture
def settings() -> Settings:
    return Settings()


@pytest.fixture(params=[in_process, over_http], ids=["in process", "over HTTP"])
def world(request: pytest.FixtureRequest, settings: Settings) -> Iterator[World]:
    with request.param(settings) as world:
        yield world


def status(error: GitlabError) -> int | None:
    return error.response_code


# --- who asks ---


def test_a_private_token_and_a_bearer_token_are_both_known(world: World) -> None:
    for bearer in (False, True):
        client = world.client(bearer=bearer)
        client.auth()
        assert client.user is not None
        assert client.user.username == MAINTAINER


def test_no_token_an_unknown_one_and_one_that_was_revoked_or_expired_are_401(world: World) -> None:
    for token in (None, "glpat-nobodys"):
        with pytest.raises(GitlabAuthenticationError, match="401 Unauthorized"):
            world.client(token).projects.get(1)
    world.instance.tokens[MAINTAINER].revoked = True
    with pytest.raises(GitlabAuthenticationError, match="invalid_token"):
        world.client().projects.get(1)
    world.instance.tokens[DEVELOPER].expires_at = world.instance.now()
    with pytest.raises(GitlabAuthenticationError, match="invalid_token"):
        world.client(DEVELOPER).projects.get(1)


def test_a_token_that_may_read_may_not_write(world: World) -> None:
    world.instance.tokens[MAINTAINER].scopes = ("read_api",)
    hooks = world.project().hooks
    assert hooks.list(get_all=True) == []
    with pytest.raises(GitlabCreateError, match="insufficient_scope") as refused:
        hooks.create({"url": URL})
    assert status(refused.value) == 403


def test_a_project_that_one_may_not_see_is_not_there(world: World) -> None:
    with pytest.raises(GitlabGetError, match="404 Project Not Found"):
        world.project(STRANGER)


def test_webhooks_are_for_maintainers_those_of_groups_for_owners_those_of_the_instance_for_administrators(
    world: World,
) -> None:
    asked = (
        lambda: world.project(DEVELOPER).hooks.list(get_all=True),
        lambda: world.group(DEVELOPER).hooks.list(get_all=True),
        lambda: world.client().hooks.list(get_all=True),
    )
    for ask in asked:
        with pytest.raises(GitlabListError, match="403 Forbidden"):
            ask()
    assert world.client(ADMIN).hooks.list(get_all=True) == []


def test_who_may_not_is_told_so_before_what_is_wrong_with_the_parameters(world: World) -> None:
    with pytest.raises(GitlabHttpError, match="403 Forbidden"):
        world.client(DEVELOPER).http_post("/projects/acme%2Ftools%2Fanvil/hooks", post_data={})


# --- projects and groups ---


def test_a_project_is_found_by_id_and_by_path_of_any_depth(world: World) -> None:
    by_path = world.project()
    assert by_path.path_with_namespace == "acme/tools/anvil"
    assert world.client().projects.get(by_path.id).id == by_path.id


def test_a_path_that_is_not_encoded_is_not_a_path(world: World) -> None:
    with pytest.raises(GitlabHttpError, match="404 Not Found"):
        world.client().http_get("/projects/acme/tools/anvil")


def test_a_renamed_project_is_found_by_its_old_path_to_read_and_not_to_write(world: World) -> None:
    project = world.project()
    held = world.instance.namespaces.projects[project.id]
    world.instance.namespaces.rename(held, "acme/smithy/anvil")
    assert world.project().path_with_namespace == "acme/smithy/anvil"
    old = world.client().projects.get("acme/tools/anvil", lazy=True)
    assert old.hooks.list(get_all=True) == []
    with pytest.raises(GitlabCreateError, match="Non GET methods are not allowed for moved projects") as refused:
        old.hooks.create({"url": URL})
    assert status(refused.value) == 405


def test_a_path_in_other_case_is_a_moved_project(world: World) -> None:
    project = world.client().projects.get("Acme/Tools/Anvil")
    assert project.path_with_namespace == "acme/tools/anvil"
    with pytest.raises(GitlabCreateError, match="moved"):
        world.client().projects.get("Acme/Tools/Anvil", lazy=True).hooks.create({"url": URL})


@pytest.mark.parametrize("settings", [Settings(external_url="http://gitlab.example.com/git/lab")])
def test_an_instance_under_a_relative_root_is_served_there_and_nowhere_else(world: World) -> None:
    assert world.url.endswith("/git/lab")
    hooks = world.project().hooks
    for _ in range(3):
        hooks.create({"url": URL})
    assert len(hooks.list(get_all=True, per_page=1)) == 3
    world.url = world.url.removesuffix("/git/lab")
    with pytest.raises(GitlabHttpError, match="404"):
        world.client().http_get("/version")


def test_the_projects_of_a_group_are_listed_with_those_below_where_asked(world: World) -> None:
    world.instance.add_project("acme/rocket", maintainer=world.instance.tokens[MAINTAINER].user)
    acme = world.client(ADMIN).groups.get("acme")
    assert [p.path_with_namespace for p in acme.projects.list(get_all=True)] == ["acme/rocket"]
    deep = acme.projects.list(get_all=True, include_subgroups=True)
    assert [p.path_with_namespace for p in deep] == ["acme/rocket", "acme/tools/anvil"]


@pytest.mark.parametrize("sort", ["asc", "desc"])
def test_projects_come_by_keyset_where_asked(world: World, sort: str) -> None:
    for number in range(7):
        world.instance.add_project(f"acme/p{number}")
    pages = world.client(ADMIN).projects.list(iterator=True, pagination="keyset", order_by="id", sort=sort, per_page=3)
    assert pages.total is None
    found = [project.id for project in pages]
    assert found == sorted(world.instance.namespaces.projects, reverse=sort == "desc")


def test_an_instance_with_a_certificate_of_its_own_ca_is_known_to_who_trusts_that(tmp_path: Path) -> None:
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(tls)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    with over_http(Settings(), tls=tls) as world:
        known = gitlab.Gitlab(world.url, private_token=MAINTAINER, ssl_verify=str(tmp_path / "ca.pem"))
        assert known.projects.get("acme/tools/anvil").web_url.startswith("https://localhost:")
        with pytest.raises(NoTrust):
            gitlab.Gitlab(world.url, private_token=MAINTAINER, timeout=PATIENCE).http_get("/version")


# --- webhooks ---


def test_a_webhook_of_a_project_has_gitlabs_defaults(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    on = [name for name in EVENTS[Kind.PROJECT] if getattr(hook, name)]
    assert on == ["push_events"]
    assert hook.enable_ssl_verification is True
    assert hook.confidential_note_events is None
    assert hook.alert_status == "executable"
    assert hook.disabled_until is None
    assert hook.branch_filter_strategy == "wildcard"
    assert hook.project_id == world.project().id
    assert hook.created_at == "2026-01-01T00:00:00.000Z"


def test_a_system_hook_does_not_hear_of_pushes_unless_asked_to(world: World) -> None:
    hook = world.client(ADMIN).hooks.create({"url": URL})
    assert not hook.push_events
    assert hook.repository_update_events


def test_every_flag_can_be_set_and_unset(world: World) -> None:
    owners = ((world.project(), Kind.PROJECT), (world.group(), Kind.GROUP))
    for owner, kind in owners:
        hook = owner.hooks.create({"url": URL, **dict.fromkeys(EVENTS[kind], True)})
        assert all(getattr(hook, name) is True for name in EVENTS[kind])
        changed = owner.hooks.update(hook.id, {"url": URL, **dict.fromkeys(EVENTS[kind], False)})
        assert not any(changed[name] for name in EVENTS[kind])


def test_a_secret_never_comes_back_but_whether_there_is_one(world: World) -> None:
    secrets = {"token": "s3cret", "signing_token": SIGNING_TOKEN}
    hook = world.project().hooks.create({"url": URL, **secrets})
    got = world.project().hooks.get(hook.id)
    for seen in (hook, got):
        assert not secrets.keys() & seen.attributes.keys()
        assert seen.token_present
        assert seen.signing_token_present
    assert "s3cret" not in repr(world.held())
    assert world.held().token == "s3cret"


@pytest.mark.parametrize("settings", [Settings(version=(18, 11))])
def test_before_19_there_is_no_signing_token_and_none_is_said(world: World) -> None:
    hook = world.project().hooks.create({"url": URL, "token": "t", "signing_token": "not looked at"})
    assert "token_present" not in hook.attributes
    assert world.held().signing_token is None


def test_what_is_not_given_stays_when_a_webhook_is_changed(world: World) -> None:
    hook = world.project().hooks.create({"url": URL, "token": "s3cret", "issues_events": True, "name": "ours"})
    hook.push_events = False
    hook.save()
    assert world.held().token == "s3cret"
    assert hook.issues_events
    assert hook.name == "ours"
    assert not hook.push_events


def test_a_new_url_forgets_the_secrets_that_are_not_given_with_it(world: World) -> None:
    hooks = world.project().hooks
    hook = hooks.create({"url": URL, "token": "s3cret", "signing_token": SIGNING_TOKEN})
    changed = hooks.update(hook.id, {"url": OTHER_URL})
    assert not changed["token_present"]
    assert not changed["signing_token_present"]
    changed = hooks.update(hook.id, {"url": URL, "token": "new"})
    assert changed["token_present"]
    assert world.held().token == "new"


def test_an_empty_token_is_no_token(world: World) -> None:
    hook = world.project().hooks.create({"url": URL, "token": "s3cret"})
    assert not world.project().hooks.update(hook.id, {"url": URL, "token": ""})["token_present"]


def test_the_same_url_may_be_there_many_times(world: World) -> None:
    hooks = world.project().hooks
    assert [hooks.create({"url": URL}).id for _ in range(3)] == [1, 2, 3]
    assert [hook.id for hook in hooks.list(get_all=True)] == [1, 2, 3]


def test_a_webhook_is_deleted_once_and_then_not_there(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    hook.delete()
    with pytest.raises(GitlabDeleteError, match="404 Not found"):
        hook.delete()
    with pytest.raises(GitlabGetError, match="404 Not found"):
        world.project().hooks.get(hook.id)
    with pytest.raises(GitlabUpdateError, match="404 Not found"):
        world.project().hooks.update(hook.id, {"url": URL})


def test_a_webhook_that_was_written_since_is_not_deleted(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})

    def delete(since: datetime) -> None:
        headers = {"If-Unmodified-Since": format_datetime(since, usegmt=True)}
        world.client().http_delete(f"/projects/{world.project().id}/hooks/{hook.id}", extra_headers=headers)

    world.clock.go(timedelta(seconds=10))
    written = world.clock.now()
    world.project().hooks.update(hook.id, {"url": URL, "push_events": False})
    world.clock.go(timedelta(seconds=10))
    with pytest.raises(GitlabHttpError, match="412 Precondition Failed"):
        delete(written - timedelta(seconds=1))
    delete(written)


def test_a_webhook_is_found_with_its_owner_only(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    for hooks in (world.group().hooks, world.client(ADMIN).hooks):
        with pytest.raises(GitlabGetError, match="404 Not found"):
            hooks.get(hook.id)


def test_a_system_hook_is_changed_by_a_call_that_python_gitlab_has_no_method_for(world: World) -> None:
    client = world.client(ADMIN)
    hook = client.hooks.create({"url": URL})
    changed = client.http_put(f"/hooks/{hook.id}", post_data={"push_events": True})
    assert isinstance(changed, dict)
    assert changed["push_events"] is True
    assert client.hooks.get(hook.id).push_events
    client.hooks.delete(hook.id)
    assert client.hooks.list(get_all=True) == []


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        ({"push_events": True}, 400, "url is missing"),
        ({"url": URL, "push_events": "perhaps"}, 400, "push_events is invalid"),
        ({"push_events": "perhaps"}, 400, "url is missing, push_events is invalid"),
        ({"url": URL, "branch_filter_strategy": "some"}, 400, "branch_filter_strategy does not have a valid value"),
        ({"url": URL, "custom_headers": [{"key": "A"}]}, 400, r"custom_headers\[value\] is missing"),
        ({"url": ""}, 422, "Invalid url given"),
        ({"url": "ftp://example.com"}, 422, "Invalid url given"),
        ({"url": "http:///path"}, 422, "Invalid url given"),
        ({"url": "http://a b/"}, 422, "Invalid url given"),
        ({"url": "http://example.com/{token}"}, 422, "Invalid url given"),
        ({"url": URL, "push_events_branch_filter": "~badbranchname/"}, 422, "Invalid branch filter given"),
        ({"url": URL, "branch_filter_strategy": "regex", "push_events_branch_filter": "("}, 422, "Invalid branch"),
        ({"url": URL, "token": "foo\nbar"}, 422, "Token is invalid"),
        ({"url": URL, "signing_token": "whsec_dG9vIHNob3J0"}, 422, "Signing token is invalid"),
        ({"url": URL, "signing_token": "whsec_@@"}, 422, "Signing token is invalid"),
        ({"url": URL, "custom_webhook_template": "x" * 4097}, 422, "template is too long"),
    ],
)
def test_what_is_no_webhook_is_refused(world: World, given: dict[str, object], code: int, said: str) -> None:
    path = "/projects/acme%2Ftools%2Fanvil/hooks"
    with pytest.raises(GitlabHttpError, match=said) as refused:
        world.client().http_post(path, post_data=given)
    assert status(refused.value) == code
    assert not world.instance.hooks


def test_a_change_that_is_refused_changes_nothing(world: World) -> None:
    hook = world.project().hooks.create({"url": URL, "token": "s3cret"})
    with pytest.raises(GitlabUpdateError, match="Invalid url given"):
        world.project().hooks.update(hook.id, {"url": "ftp://example.com", "push_events": False})
    assert world.held().token == "s3cret"
    assert world.held().values["push_events"] is True
    with pytest.raises(GitlabHttpError, match="No parameters provided"):
        world.client().http_put(f"/projects/{world.project().id}/hooks/{hook.id}", post_data={})


@pytest.mark.parametrize("settings", [Settings(allow_local_requests=False)])
def test_a_receiver_in_the_local_network_may_be_forbidden(world: World) -> None:
    for url in ("http://localhost/", "http://127.0.0.1/", "http://10.1.2.3/", "http://[::1]/"):
        with pytest.raises(GitlabCreateError, match="Invalid url given"):
            world.project().hooks.create({"url": url})
    world.project().hooks.create({"url": URL})


@pytest.mark.parametrize("settings", [Settings(project_hooks=2, group_hooks=1)])
def test_there_is_an_end_of_webhooks(world: World) -> None:
    for owner, limit in ((world.project(), 2), (world.group(), 1)):
        for _ in range(limit):
            owner.hooks.create({"url": URL})
        with pytest.raises(GitlabCreateError, match=r"Maximum number of .* hooks .* exceeded") as refused:
            owner.hooks.create({"url": URL})
        assert status(refused.value) == 422


@pytest.mark.parametrize("settings", [Settings(premium=False)])
def test_without_premium_groups_have_no_webhooks(world: World) -> None:
    with pytest.raises(GitlabListError, match="404 Not Found"):
        world.group().hooks.list(get_all=True)


def test_url_variables_and_custom_headers_are_named_and_not_told(world: World) -> None:
    hook = world.project().hooks.create(
        {
            "url": "http://example.com/{token}",
            "url_variables": [{"key": "token", "value": "s3cret"}],
            "custom_headers": [{"key": "X-Own", "value": "s3cret"}],
        }
    )
    assert hook.url == "http://example.com/{token}"
    assert hook.url_variables == [{"key": "token"}]
    assert hook.custom_headers == [{"key": "X-Own"}]
    world.happens()
    assert world.receiver.received[0].url == "http://example.com/s3cret"
    assert dict(world.receiver.received[0].headers)["X-Own"] == "s3cret"
    assert "s3cret" not in str(events(world, hook))


def test_a_method_that_is_not_there_is_405_and_a_path_404(world: World) -> None:
    with pytest.raises(GitlabHttpError, match="405 Not Allowed"):
        world.client().http_post("/version")
    with pytest.raises(GitlabHttpError, match="404 Not Found"):
        world.client().http_get("/hooks/1/2/3")


# --- pages ---


def test_hooks_come_in_pages_of_20_and_at_most_100(world: World) -> None:
    world.instance.settings = replace(world.instance.settings, project_hooks=0)
    hooks = world.project().hooks
    for _ in range(45):
        world.instance.create_hook(world.instance.namespaces.project(str(world.project().id)), {"url": URL})
    assert len(hooks.list(get_all=False)) == 20
    assert [hook.id for hook in hooks.list(get_all=True)] == list(range(1, 46))
    page = hooks.list(iterator=True, per_page=1000)
    assert (page.per_page, page.total, page.total_pages, page.next_page) == (100, 45, 1, None)
    first = hooks.list(iterator=True, per_page=10)
    assert (first.current_page, first.prev_page, first.next_page, first.total_pages) == (1, None, 2, 5)
    assert [hook.id for hook in hooks.list(page=5, per_page=10, get_all=False)] == list(range(41, 46))


@pytest.mark.parametrize("page", [{"per_page": 0}, {"page": 0}, {"page": "two"}])
def test_a_page_that_cannot_be_is_refused(world: World, page: dict[str, object]) -> None:
    with pytest.raises(GitlabHttpError) as refused:
        world.client().http_list(f"/projects/{world.project().id}/hooks", page, get_all=False)
    assert status(refused.value) == 400


def test_links_lead_to_the_external_url_whatever_address_the_client_used() -> None:
    settings = Settings(external_url="http://gitlab.example.com")
    with over_http(settings, keep_external_url=True) as world:
        for _ in range(2):
            world.project().hooks.create({"url": URL})
        response = world.client().http_request("get", f"/projects/{world.project().id}/hooks", per_page=1)
        assert response.links["next"]["url"].startswith("http://gitlab.example.com/api/v4/projects/")


# --- hook events, their log, resending, test requests ---


def events(world: World, hook: ProjectHook, **query: object) -> list[dict[str, object]]:
    path = f"/projects/{hook.project_id}/hooks/{hook.id}/events"
    found = world.client().http_list(path, query, get_all=True)
    assert isinstance(found, list)
    return found


def resend(world: World, hook: ProjectHook, number: object) -> object:
    path = f"/projects/{hook.project_id}/hooks/{hook.id}/events/{number}/resend"
    return world.client().http_post(path, obey_rate_limit=False)


def test_an_attempt_is_logged_with_what_was_sent_and_answered_but_no_secret(world: World) -> None:
    hook = world.project().hooks.create({"url": "http://me:pw@example.com/", "token": "s3cret"})
    world.receiver.outcome = Answered(503, (("content-type", "text/plain"),), b"sink away")
    world.happens()
    (event,) = events(world, hook)
    assert event["url"] == "http://*****:*****@example.com/"
    assert event["trigger"] == "push_hooks"
    assert event["response_status"] == "503"
    assert event["response_body"] == "sink away"
    assert event["response_headers"] == {"Content-Type": "text/plain"}
    headers = event["request_headers"]
    assert isinstance(headers, dict)
    assert headers["X-Gitlab-Token"] == "[REDACTED]"
    assert "Authorization" not in headers
    assert event["request_data"] == {"ref": "refs/heads/main", "email": "[REDACTED]"}


def test_the_log_is_searched_by_status_newest_first(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    outcomes: list[Outcome] = [Answered(200), Answered(401), Answered(503), Failed("Net::ReadTimeout"), Answered(302)]
    for world.receiver.outcome in outcomes:
        world.happens()
        world.clock.go(timedelta(seconds=1))
    assert [event["response_status"] for event in events(world, hook)] == ["302", "internal error", "503", "401", "200"]
    assert [event["id"] for event in events(world, hook, status="successful")] == [1]
    assert [event["id"] for event in events(world, hook, status="server_failure,client_failure")] == [4, 3, 2]
    assert [event["id"] for event in events(world, hook, status="503")] == [3]
    with pytest.raises(GitlabHttpError, match="status does not have a valid value"):
        events(world, hook, status="failed")


def test_the_log_refuses_pages_of_more_than_20(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    world.happens(times=25)
    assert len(events(world, hook)) == 25
    with pytest.raises(GitlabHttpError, match="per_page does not have a valid value"):
        events(world, hook, per_page=21)


def test_the_log_forgets_after_a_week_to_the_beginning_of_its_day(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    world.clock.go(timedelta(hours=9))
    world.happens()
    world.clock.go(timedelta(days=7, hours=14))
    assert len(events(world, hook)) == 1
    world.clock.go(timedelta(hours=2))
    assert events(world, hook) == []


def test_what_is_resent_is_what_the_log_kept_under_the_same_key(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    world.receiver.outcome = Answered(503)
    world.happens()
    world.receiver.outcome = Answered(202)
    assert resend(world, hook, 1) == {"response_status": 202}
    first, second = world.receiver.received
    before, after = dict(first.headers), dict(second.headers)
    assert after["Idempotency-Key"] == before["Idempotency-Key"] == after["webhook-id"]
    assert after["X-Gitlab-Webhook-UUID"] != before["X-Gitlab-Webhook-UUID"]
    assert after["X-Gitlab-Event-UUID"] != before["X-Gitlab-Event-UUID"]
    assert second.body == b'{"ref":"refs/heads/main","email":"[REDACTED]"}'
    assert [event["response_status"] for event in events(world, hook)] == ["202", "503"]


def test_resending_succeeds_with_any_answer_and_fails_without_one(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    world.happens()
    world.receiver.outcome = Answered(500)
    assert resend(world, hook, 1) == {"response_status": 500}
    world.receiver.outcome = Failed("Net::ReadTimeout")
    with pytest.raises(GitlabHttpError, match="Net::ReadTimeout") as refused:
        resend(world, hook, 1)
    assert status(refused.value) == 422


def test_resending_what_is_not_there_or_went_elsewhere_is_refused(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    world.happens()
    with pytest.raises(GitlabHttpError, match="404 Not found"):
        resend(world, hook, 2)
    world.project().hooks.update(hook.id, {"url": OTHER_URL})
    with pytest.raises(GitlabHttpError, match="The hook URL has changed"):
        resend(world, hook, 1)


def test_a_disabled_webhook_resends_nothing(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    world.receiver.outcome = Answered(500)
    world.happens(times=4)
    with pytest.raises(GitlabHttpError, match="Hook disabled") as refused:
        resend(world, hook, 1)
    assert status(refused.value) == 422
    assert len(world.receiver.received) == 4


def test_resending_and_testing_are_limited_to_five_a_minute_each_for_all_webhooks_of_a_project(world: World) -> None:
    hooks = [world.project().hooks.create({"url": URL}) for _ in range(2)]
    world.happens()
    for _ in range(5):
        resend(world, hooks[0], 1)
    with pytest.raises(GitlabHttpError, match="requested too many times") as refused:
        resend(world, hooks[1], 2)
    assert status(refused.value) == 429
    for _ in range(5):
        hooks[1].test("push_events")
    world.clock.go(timedelta(minutes=1))
    resend(world, hooks[1], 2)


@pytest.mark.parametrize(("version", "told"), [((19, 0), "60"), ((18, 4), None)])
def test_the_limit_of_an_endpoint_tells_when_it_ends_since_18_5(version: tuple[int, int], told: str | None) -> None:
    with in_process(Settings(version=version, tests_per_minute=1)) as world:
        hook = world.project().hooks.create({"url": URL})
        hook.test("push_events")
        answer = world.client().session.post(
            f"{world.url}/api/v4/projects/{hook.project_id}/hooks/{hook.id}/test/push_events",
            headers={"PRIVATE-TOKEN": MAINTAINER},
        )
        assert answer.status_code == 429
        assert answer.headers.get("Retry-After") == told


def test_a_test_request_is_sent_while_the_webhook_is_disabled_and_enables_it(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    world.receiver.outcome = Answered(500, body=b"broken")
    world.happens(times=4)
    with pytest.raises(GitlabHookTestError, match="broken") as refused:
        hook.test("push_events")
    assert status(refused.value) == 422
    assert world.project().hooks.get(hook.id).alert_status == "temporarily_disabled"
    world.receiver.outcome = Answered(202)
    hook.test("push_events")
    assert world.project().hooks.get(hook.id).alert_status == "executable"


def test_a_test_request_needs_something_to_send(world: World) -> None:
    hook = world.project().hooks.create({"url": URL})
    with pytest.raises(GitlabHookTestError, match="Ensure the project has issues"):
        hook.test("issues_events")
    world.instance.samples["issues_events"] = {"object_kind": "issue"}
    hook.test("issues_events")
    with pytest.raises(GitlabHookTestError, match="trigger does not have a valid value") as refused:
        hook.test("issue_hooks")
    assert status(refused.value) == 400


def test_a_webhook_of_a_group_has_a_log_resending_and_tests_as_well(world: World) -> None:
    hook = world.group().hooks.create({"url": URL})
    hook.test("push_events")
    path = f"/groups/{hook.group_id}/hooks/{hook.id}/events"
    client = world.client()
    assert [event["id"] for event in client.http_list(path, get_all=True)] == [1]
    assert client.http_post(f"{path}/1/resend") == {"response_status": 202}


def test_a_test_of_a_system_hook_answers_its_mock_data_and_the_api_shows_no_log_of_it(world: World) -> None:
    client = world.client(ADMIN)
    hook = client.hooks.create({"url": URL})
    world.receiver.outcome = Answered(500)
    answer = client.http_post(f"/hooks/{hook.id}")
    assert isinstance(answer, dict)
    assert answer["event_name"] == "project_create"
    assert dict(world.receiver.received[0].headers)["X-Gitlab-Event"] == "System Hook"
    with pytest.raises(GitlabHttpError, match="404 Not Found"):
        client.http_list(f"/hooks/{hook.id}/events", get_all=True)


@pytest.mark.parametrize(
    ("version", "there"), [((16, 10), 0), ((16, 11), 1), ((17, 2), 1), ((17, 3), 2), ((17, 4), 3), ((19, 0), 3)]
)
def test_an_older_gitlab_lacks_test_requests_the_log_and_resending(version: tuple[int, int], there: int) -> None:
    with in_process(Settings(version=version)) as world:
        hook = world.project().hooks.create({"url": URL})
        world.happens()
        asked: tuple[Callable[[], object], ...] = (
            lambda: hook.test("push_events"),
            lambda: events(world, hook),
            lambda: resend(world, hook, 1),
        )
        for number, ask in enumerate(asked):
            if number < there:
                ask()
            else:
                with pytest.raises(GitlabError, match="404 Not Found"):
                    ask()


# --- what goes wrong ---


@pytest.mark.parametrize("settings", [Settings(api_calls_per_minute=3)])
def test_the_apis_rate_limit_answers_in_plain_text_with_headers(world: World) -> None:
    world.clock.go(timedelta(seconds=45))
    client = world.client()
    for _ in range(3):
        client.http_get("/version")
    answer = client.session.get(f"{world.url}/api/v4/version", headers={"PRIVATE-TOKEN": MAINTAINER})
    assert answer.status_code == 429
    assert answer.text == "Retry later\n"
    said = {name: value for name, value in answer.headers.items() if name.startswith(("RateLimit", "Retry"))}
    assert said == {
        "RateLimit-Name": "throttle_authenticated_api",
        "RateLimit-Limit": "3",
        "RateLimit-Observed": "4",
        "RateLimit-Remaining": "0",
        "RateLimit-Reset": "1767225660",
        "RateLimit-ResetTime": "Thu, 01 Jan 2026 00:01:00 GMT",
        "Retry-After": "15",
    }
    world.clock.go(timedelta(seconds=15))
    client.http_get("/version")


def test_a_call_is_lost_before_or_after_it_took_effect(world: World) -> None:
    hooks = world.project().hooks
    world.faults.then(LOST_BEFORE, LOST_AFTER)
    with pytest.raises(NoConnection):
        hooks.create({"url": URL})
    assert not world.instance.hooks
    with pytest.raises(NoConnection):
        hooks.create({"url": URL})
    assert list(world.instance.hooks) == [1]
    assert hooks.create({"url": URL}).id == 2


def test_a_client_that_does_not_wait_goes_without_knowing() -> None:
    with in_process(Settings()) as world:
        hooks = world.project().hooks
        world.faults.then(late(PATIENCE))
        with pytest.raises(ReadTimeout):
            hooks.create({"url": URL})
        assert list(world.instance.hooks) == [1]
        world.faults.then(late(PATIENCE - 1))
        assert hooks.create({"url": URL}).id == 2


def test_pages_of_html_locks_and_limits_come_by_order(world: World) -> None:
    hooks = world.project().hooks
    world.faults.then(answered(html(502, "Bad Gateway")), answered(html(200, "Sign in")), answered(RESOURCE_LOCK))
    with pytest.raises(GitlabListError, match="Bad Gateway") as refused:
        hooks.list(get_all=True)
    assert status(refused.value) == 502
    with pytest.raises(GitlabParsingError):
        hooks.list(get_all=True)
    with pytest.raises(GitlabListError, match="409 Conflict: Resource lock"):
        hooks.list(get_all=True)
    world.faults.then(answered(too_many_requests((("Retry-After", "0"),))), answered(too_many_requests(())))
    assert hooks.list(get_all=True) == []  # python-gitlab waited and asked again
    assert [call.method for call in world.faults.calls[-3:]] == ["GET", "GET", "GET"]


def test_a_fault_meets_the_call_of_its_number_or_each_that_fits(world: World) -> None:
    project = world.project()
    world.faults.at(2, LOST_AFTER)
    world.faults.whenever(lambda call: LOST_BEFORE if call.method == "DELETE" else None)
    hook = project.hooks.create({"url": URL})
    with pytest.raises(NoConnection):
        project.hooks.create({"url": URL})
    for _ in range(2):
        with pytest.raises(NoConnection):
            hook.delete()
    assert len(world.instance.hooks) == 2
    world.faults.clear()
    hook.delete()
    assert len(world.instance.hooks) == 1
