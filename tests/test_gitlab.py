"""The GitLab source as a program: its settings, GitLabSource documents, and the whole of it against GitLab over HTTP."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import threading
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never

import aiohttp
import pytest
from tests.gitlab.faults import late
from tests.gitlab.instance import GitLab as Instance
from tests.gitlab.namespaces import Role
from tests.gitlab.sender import HttpSender, perform_all
from tests.gitlab.server import GitLabServer
from tests.gitlab_requests import TOKEN
from tests.process import WELLHEAD, run, started

from wellhead.clock import SystemClock
from wellhead.env import Collector, read
from wellhead.errors import ConfigError
from wellhead.http_server import HttpServer, Request, Response
from wellhead.manifest import documents
from wellhead.metrics import adapter_metrics, exposition
from wellhead.settings import DeliverySettings, ProcessSettings, SinkSettings
from wellhead.testing import FakeSink, RecordingSink, running
from wellhead_adapters.cli.environment import mapping
from wellhead_adapters.cli.plan import World, plan
from wellhead_adapters.gitlab.adapter import Gitlab
from wellhead_adapters.gitlab.api import MOST_CALLS, InThread, api_of
from wellhead_adapters.gitlab.cleanup import CleanUp
from wellhead_adapters.gitlab.config import Cleanup, GitlabConfig
from wellhead_adapters.gitlab.events import Mapped, event_type
from wellhead_adapters.gitlab.kinds import FLAGS, Scope
from wellhead_adapters.gitlab.manifest import from_manifest
from wellhead_adapters.gitlab.projecturl import target
from wellhead_adapters.gitlab.sources import GitlabSources
from wellhead_adapters.gitlab.trouble import ApiError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from wellhead_adapters.gitlab.hook_api import HookApi

MANIFESTS: Final = Path(__file__).parents[1] / "manifests"
ACCESS: Final = "glpat-hunter2"
PROJECT: Final = "https://gitlab.example.com/g/p"
# What Knative's controller puts into the receive adapter's container (contract/sources.md, B4).
KNATIVE: Final = {
    "GITLAB_SECRET_TOKEN": TOKEN,
    "GITLAB_EVENT_SOURCE": PROJECT,
    "K_SINK": "http://broker-ingress.knative-eventing.svc.cluster.local/default/default",
    "NAMESPACE": "default",
    "PORT": "8080",
    "METRICS_DOMAIN": "knative.dev/eventing",
    "METRICS_PROMETHEUS_PORT": "9092",
    "K_LOGGING_CONFIG": "{}",
    "K_KLOG_VERBOSITY": "0",
    "K_OBSERVABILITY_CONFIG": "{}",
}
STANDALONE: Final = {
    "GITLAB_PROJECT_URL": PROJECT,
    "GITLAB_EVENT_TYPES": "push_events, issues_events",
    "GITLAB_HOOK_URL": "https://hooks.example.com/",
    "GITLAB_ACCESS_TOKEN": ACCESS,
    "GITLAB_SECRET_TOKEN": TOKEN,
}


def test_knatives_controllers_environment_makes_a_receiver_that_registers_nothing() -> None:
    collector = Collector(KNATIVE)
    config = collector.read(GitlabConfig)
    for common in (SinkSettings, DeliverySettings, ProcessSettings):
        collector.read(common)
    assert (collector.problems, collector.warnings) == ([], [])
    assert config is not None
    assert not config.registers
    assert (config.event_source, config.port, config.secret_token) == (PROJECT, 8080, TOKEN)


def test_standalone_it_registers_what_is_asked_for() -> None:
    config = read(GitlabConfig, STANDALONE)
    assert config.registers
    assert config.event_types == ("push_events", "issues_events")
    assert [one.url for one in config.targets] == [PROJECT]
    assert (config.cleanup, config.mapped, config.resend) == (Cleanup.NEVER, Mapped.KNATIVE, True)
    assert read(GitlabConfig, {**STANDALONE, "GITLAB_EVENT_TYPES": "all"}).event_types == FLAGS


def test_several_projects_groups_and_a_whole_instance_may_be_asked_for() -> None:
    more = {
        "GITLAB_PROJECT_URL": f"{PROJECT} https://gitlab.example.com/g/q",
        "GITLAB_GROUP_URL": "https://gitlab.example.com/groups/other",
        "GITLAB_SYSTEM_URL": "https://gitlab.example.com",
    }
    scopes = [one.scope for one in read(GitlabConfig, {**STANDALONE, **more}).targets]
    assert scopes == [Scope.PROJECT, Scope.PROJECT, Scope.GROUP, Scope.SYSTEM]


def test_no_secret_is_in_the_repr_of_a_configuration() -> None:
    config = read(
        GitlabConfig,
        {**STANDALONE} | {"GITLAB_HOOK_URL": "https://hooks.example.com/?t=hunter9"},
    )
    assert not any(secret in repr(config) for secret in (ACCESS, TOKEN, "hunter9"))


@pytest.mark.parametrize(
    ("change", "where", "what"),
    [
        ({"GITLAB_SECRET_TOKEN": ""}, "GITLAB_SECRET_TOKEN", "anyone could send events"),
        ({"GITLAB_ACCESS_TOKEN": ""}, "GITLAB_ACCESS_TOKEN", "is not set"),
        ({"GITLAB_EVENT_TYPES": ""}, "GITLAB_EVENT_TYPES", "is not set"),
        ({"GITLAB_EVENT_TYPES": "push"}, "GITLAB_EVENT_TYPES", "names no kind of event by 'push'"),
        ({"GITLAB_PROJECT_URL": ""}, "GITLAB_PROJECT_URL", "is not set"),
        ({"GITLAB_PROJECT_URL": "https://gitlab.com"}, "GITLAB_PROJECT_URL", "names no project"),
        ({"GITLAB_URL": "https://else.where"}, "GITLAB_PROJECT_URL", "is not on the GitLab"),
        ({"GITLAB_EVENT_SOURCE": "not a uri"}, "GITLAB_EVENT_SOURCE", "is not a URI-reference"),
        ({"GITLAB_INTERVAL": "5s"}, "GITLAB_INTERVAL", "is not between"),
        ({"GITLAB_HOOK_URL": "hooks.example.com"}, "GITLAB_HOOK_URL", "is not an absolute"),
        ({"GITLAB_SIGNING_TOKEN": "x"}, "GITLAB_SIGNING_TOKEN", "is not a signing token"),
        ({"PORT": "9000", "HEALTH_PORT": "9000"}, "PORT", "is the port of the probes too"),
        ({"PORT": "8081"}, "PORT", "is the port of the probes too"),
    ],
)
def test_what_is_wrong_is_told_with_its_name_and_rule(change: dict[str, str], where: str, what: str) -> None:
    with pytest.raises(ConfigError) as told:
        read(GitlabConfig, {**STANDALONE, **change})
    assert any(where in problem.where and what in problem.what for problem in told.value.problems), told.value


def test_an_empty_secret_is_taken_where_that_is_asked_for() -> None:
    assert read(GitlabConfig, {**KNATIVE, "GITLAB_SECRET_TOKEN": "", "GITLAB_ALLOW_ANYONE": "true"}).allow_anyone


# --- GitLabSource documents ---

SOURCE: Final = """
apiVersion: sources.knative.dev/v1alpha1
kind: GitLabSource
metadata: {name: sample}
spec:
  projectUrl: https://gitlab.example.com/g/p
  eventTypes: [push_events, deployment_events]
  accessToken: {secretKeyRef: {name: tokens, key: accessToken}}
  secretToken: {secretKeyRef: {name: tokens, key: secretToken}}
  sink: {ref: {apiVersion: v1, kind: Service, name: display}}
"""
TOKENS: Final = f"""
apiVersion: v1
kind: Secret
metadata: {{name: tokens}}
stringData: {{accessToken: {ACCESS}}}
data: {{secretToken: {base64.b64encode(f"{TOKEN}{chr(10)}".encode()).decode()}}}
"""


def configured(text: str, environment: dict[str, str] | None = None) -> GitlabConfig:
    found, problems = documents(text, "file")
    assert problems == []
    (source,) = (document for document in found if document.kind == "GitLabSource")
    return from_manifest(source, found, environment)


def test_a_document_takes_its_secrets_from_the_same_file_and_registers_where_a_hook_url_is_given() -> None:
    config = configured(f"{SOURCE}---{TOKENS}", {"GITLAB_HOOK_URL": "https://hooks.example.com/"})
    assert (config.access_token, config.secret_token) == (ACCESS, TOKEN)
    assert (config.project_urls, config.event_types) == ((PROJECT,), ("push_events", "deployment_events"))
    assert config.hook_ssl_verify is False, "the CRD's default"
    assert config.registers
    assert not configured(f"{SOURCE}---{TOKENS}").registers


def test_the_manifests_are_read_as_run_f_reads_them() -> None:
    text = (MANIFESTS / "gitlabsource.yaml").read_text(encoding="utf-8")
    found, problems = documents(text, "gitlabsource.yaml")
    planned = plan(found, World(adapters={"gitlab": lambda: Gitlab})).sources
    assert problems == []
    assert [source.config.event_types for source in planned.values()] == [  # type: ignore[attr-defined]  # ours
        ("push_events", "tag_push_events"),
        ("pipeline_events", "job_events", "deployment_events", "releases_events"),
        ("issues_events", "note_events", "merge_requests_events"),
    ]
    types = [
        mapping(mapping(mapping(one.spec["filter"]).get("attributes"))).get("type")
        for one in found
        if one.kind == "Trigger"
    ]
    assert types == [event_type("Merge Request Hook"), event_type("Issue Hook")]


def test_a_document_without_its_secret_takes_the_environments() -> None:
    config = configured(SOURCE, {"GITLAB_ACCESS_TOKEN": "a", "GITLAB_SECRET_TOKEN": "b"})
    assert (config.access_token, config.secret_token) == ("a", "b")


def test_a_document_takes_the_environments_files_and_a_signing_token(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(TOKEN)
    environment = {
        "GITLAB_SECRET_TOKEN_FILE": str(tmp_path / "secret"),
        "GITLAB_ACCESS_TOKEN_FILE": str(tmp_path / "access"),
        "GITLAB_SIGNING_TOKEN": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "GITLAB_API_TIMEOUT": "3s",
        "GITLAB_BRANCH_FILTER": "release/*",
        "GITLAB_HOOK_URL": "https://hooks.example.com",
    }
    config = configured(SOURCE, environment)
    assert (config.secret_token_file, config.access_token_file) == (tmp_path / "secret", tmp_path / "access")
    assert config.signing_tokens == ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",)
    assert (config.api_timeout, config.branch_filter) == (timedelta(seconds=3), "release/*")
    assert configured(f"{SOURCE}---{TOKENS}", environment).secret_token_file is None, "the document's own is nearer"


def test_who_only_receives_needs_no_access_token() -> None:
    config = configured(SOURCE, {"GITLAB_SECRET_TOKEN": TOKEN})
    assert (config.registers, config.access_token, config.secret_token) == (False, "", TOKEN)


@pytest.mark.parametrize(
    ("before", "after", "path", "what"),
    [
        ("projectUrl: https://gitlab.example.com/g/p", "x: y", "spec.projectUrl", "missing field"),
        (
            "projectUrl: https://gitlab.example.com/g/p",
            "projectUrl: https://gitlab.example.com",
            "spec.projectUrl",
            "names no project",
        ),
        ("[push_events, deployment_events]", "[]", "spec.eventTypes", "missing field"),
        ("[push_events, deployment_events]", "push_events", "spec.eventTypes", "is not a list"),
        ("[push_events, deployment_events]", "[pushes]", "spec.eventTypes", "names no kind of event by 'pushes'"),
        (
            "{name: tokens, key: secretToken}",
            "{name: tokens, key: other}",
            "spec.secretToken.secretKeyRef.key",
            "is not in Secret tokens",
        ),
        (
            "{name: tokens, key: secretToken}",
            "{name: others, key: x}",
            "spec.secretToken.secretKeyRef",
            "is not among these documents",
        ),
        ("{name: tokens, key: secretToken}", "{name: tokens}", "spec.secretToken.secretKeyRef", "needs name and key"),
        (
            "accessToken: {secretKeyRef",
            "sslverify: maybe\n  accessToken: {secretKeyRef",
            "spec.sslverify",
            "is not true or false",
        ),
    ],
)
def test_what_is_wrong_with_a_document_is_told_by_path(before: str, after: str, path: str, what: str) -> None:
    with pytest.raises(ConfigError) as told:
        configured(f"{SOURCE.replace(before, after)}---{TOKENS}")
    assert [what in problem.what for problem in told.value.problems if problem.where == path] == [True], told.value
    assert ACCESS not in str(told.value)


# --- the whole of it, over HTTP ---


class Place:
    """A GitLab with a project, served over HTTP, and a configuration that leads to it."""

    def __init__(self, server: GitLabServer, instance: Instance) -> None:
        self.server = server
        self.instance = instance
        user = instance.add_user("maintainer")
        instance.add_token(user, ACCESS)
        self.project = instance.add_project("g/p", maintainer=user)
        instance.namespaces.let(user, Role.OWNER, self.project)

    def settings(self, port: int, **more: str) -> dict[str, str]:
        return {
            **STANDALONE,
            "GITLAB_PROJECT_URL": f"{self.server.url}/g/p",
            "GITLAB_HOOK_URL": f"http://127.0.0.1:{port}/",
            "PORT": str(port),
            "ADDRESS": "127.0.0.1",
            **more,
        }


@asynccontextmanager
async def place() -> AsyncIterator[Place]:
    instance = Instance(SystemClock())
    async with GitLabServer(instance) as server:
        yield Place(server, instance)


@pytest.fixture
def free_port() -> int:
    import socket

    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def test_it_registers_receives_and_removes_its_webhook(free_port: int) -> None:
    async with place() as there, RecordingSink() as sink:
        adapter = Gitlab(read(GitlabConfig, there.settings(free_port, GITLAB_CLEANUP="on-exit")))
        async with running(adapter, sink.url) as it:
            await it.ready()
            (hook,) = there.instance.hooks_of(there.project)
            assert hook.token == TOKEN
            body = b'{"object_kind": "push",   "ref":"refs/heads/main"}'
            fired = there.instance.fire(there.project, "push_hooks", body)
            await perform_all(there.instance, fired, HttpSender())
            assert [(event.data, event.id) for event in sink.events] == [(body, fired[0].idempotency_key)]
            text = {metric.name: metric.samples for metric in adapter.metrics()}
            assert text["wellhead_gitlab_webhook_up"][0][2] == 1
            await it.stop()
        assert there.instance.hooks_of(there.project) == []


async def test_a_gitlab_that_does_not_answer_holds_up_neither_receiving_nor_the_end(free_port: int) -> None:
    async with place() as there, RecordingSink() as sink:
        there.server.faults.whenever(lambda _: late(3600))
        settings = there.settings(free_port, GITLAB_API_TIMEOUT="50ms", GITLAB_CLEANUP="on-exit")
        async with running(Gitlab(read(GitlabConfig, settings)), sink.url) as it:
            await it.ready(5)
            async with asyncio.timeout(5):
                await it.stop()


async def test_no_redirect_takes_the_access_token_elsewhere(free_port: int) -> None:
    seen: list[Request] = []

    def elsewhere(request: Request) -> Response:
        seen.append(request)
        return Response(200, b'{"id":1}', ((b"content-type", b"application/json"),))

    thief = HttpServer(elsewhere)
    host, port = await thief.start("127.0.0.1", 0)
    door = HttpServer(
        lambda request: Response(302, b"", ((b"location", f"http://{host}:{port}{request.target}".encode()),))
    )
    _, door_port = await door.start("127.0.0.1", 0)
    config = read(GitlabConfig, {**STANDALONE, "GITLAB_PROJECT_URL": f"http://127.0.0.1:{door_port}/g/p"})
    with pytest.raises(ApiError, match="sends us on to"):
        await api_of(config).locate(target(config.project_urls[0], Scope.PROJECT))
    assert seen == []
    await door.stop(1)
    await thief.stop(1)


async def test_the_access_token_is_read_from_its_file_at_each_use(tmp_path: Path, free_port: int) -> None:
    async with place() as there:
        path = tmp_path / "token"
        settings = there.settings(free_port, GITLAB_ACCESS_TOKEN="", GITLAB_ACCESS_TOKEN_FILE=str(path))
        config = read(GitlabConfig, settings)
        api = api_of(config)
        with pytest.raises(ApiError, match="is not there"):
            await api.locate(config.targets[0])
        path.write_text("wrong\n", encoding="utf-8")
        with pytest.raises(ApiError) as told:
            await api.locate(config.targets[0])
        assert told.value.status == 401
        assert "expired" in told.value.advice
        path.write_text(f"{ACCESS}\n", encoding="utf-8")
        assert (await api.locate(config.targets[0])).path.startswith("/projects/")


@pytest.mark.usefixtures("logging_as_before")
async def test_the_command_removes_the_webhooks_by_their_url(free_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async with place() as there:
        there.instance.create_hook(there.project, {"url": f"http://127.0.0.1:{free_port}/"})
        other = there.instance.create_hook(there.project, {"url": "http://else.where/"})
        for name, value in there.settings(free_port).items():
            monkeypatch.setenv(name, value)
        assert await asyncio.to_thread(CleanUp().main, ["--log-level", "error"]) == 0
        assert there.instance.hooks_of(there.project) == [other]
        assert await asyncio.to_thread(CleanUp().main, ["--log-level", "error"]) == 0, "gone already is fine"
        there.instance.tokens.clear()
        assert await asyncio.to_thread(CleanUp().main, ["--log-level", "error"]) == 1


async def test_the_command_needs_no_more_than_the_readme_gives_it(free_port: int) -> None:
    async with place() as there:
        hook_url = f"http://127.0.0.1:{free_port}/"
        there.instance.create_hook(there.project, {"url": hook_url})
        flags = ("--project-url", f"{there.server.url}/g/p", "--hook-url", hook_url)
        code, it = await run(WELLHEAD, "gitlab", "cleanup", *flags, env={"GITLAB_ACCESS_TOKEN": ACCESS})
        assert code == 0, it.stderr.text
        assert there.instance.hooks_of(there.project) == []
        code, it = await run(WELLHEAD, "gitlab", "cleanup", *flags, env={"GITLAB_ACCESS_TOKEN": "another"})
        assert code == 1
        assert "401" in it.stderr.text
        code, it = await run(WELLHEAD, "gitlab", "cleanup", "--project-url", f"{there.server.url}/g/p")
        assert code == 2
        assert "--hook-url or GITLAB_HOOK_URL: is not set" in it.stderr.text
        code, it = await run(WELLHEAD, "gitlab", "cleanup", "--hook-url", hook_url)
        assert code == 2
        assert [line.split(":")[0].strip() for line in it.stderr.lines[1:]] == [
            "project-url, GITLAB_PROJECT_URL", "GITLAB_ACCESS_TOKEN",
        ]  # fmt: skip


def test_a_sample_document_of_upstreams_is_json_too() -> None:
    # JSON is YAML: what `kubectl get -o json` prints can be run as it is.
    found, _ = documents(f"{SOURCE}---{TOKENS}", "file")
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": [dict(one.body) for one in found]})
    assert configured(text).project_urls == (PROJECT,)


async def test_all_sources_of_files_share_a_port_each_with_a_path_and_a_webhook_of_its_own(free_port: int) -> None:
    async with place() as there:
        sinks = {"one": FakeSink(), "two": FakeSink()}
        many = GitlabSources(clock=SystemClock(), api=api_of)
        ready = asyncio.Event()
        running_all = asyncio.create_task(many.run(ready.set), name="all sources")
        for name, sink in sinks.items():
            hook_url = f"http://127.0.0.1:{free_port}/default/{name}"
            config = read(GitlabConfig, there.settings(free_port, GITLAB_HOOK_URL=hook_url))
            many.put(f"GitLabSource default/{name}", config, sink)
        await ready.wait()
        async with asyncio.timeout(10):
            while len(there.instance.hooks_of(there.project)) < 2:  # noqa: ASYNC110 - another program's state
                await asyncio.sleep(0.01)
        fired = there.instance.fire(there.project, "push_hooks", {"object_kind": "push"})
        await perform_all(there.instance, fired, HttpSender())
        assert [len(sink.events) for sink in sinks.values()] == [1, 1]
        text = exposition(adapter_metrics(many.measured())).decode()
        for name in sinks:
            assert f'wellhead_gitlab_answers_total{{name="GitLabSource default/{name}",status="202"}} 1' in text
            assert f'wellhead_gitlab_webhook_changes_total{{name="GitLabSource default/{name}",target="project ' in text
        many.remove("GitLabSource default/one")
        fired = there.instance.fire(there.project, "push_hooks", {"object_kind": "push"})
        await perform_all(there.instance, fired, HttpSender())
        assert [len(sink.events) for sink in sinks.values()] == [1, 2]
        running_all.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running_all


@asynccontextmanager
async def many_sources(api: Callable[[GitlabConfig], HookApi] = api_of) -> AsyncIterator[GitlabSources]:
    many = GitlabSources(clock=SystemClock(), api=api)
    task = asyncio.create_task(many.run(lambda: None), name="all sources")
    try:
        yield many
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def knock(port: int, token: str, key: str = "") -> int:
    headers = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": token, **({"Idempotency-Key": key} if key else {})}
    url = f"http://127.0.0.1:{port}/default/one"
    async with aiohttp.ClientSession() as client, client.post(url, data=b"{}", headers=headers) as answer:
        return answer.status


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - another program's state
            await asyncio.sleep(0.01)


async def test_a_document_whose_secret_changes_refuses_nothing_meanwhile_and_forgets_no_delivery(
    free_port: int,
) -> None:
    async with place() as there, many_sources() as many:
        sink, key = FakeSink(), "GitLabSource default/one"
        settings = there.settings(free_port, GITLAB_HOOK_URL=f"http://127.0.0.1:{free_port}/default/one")
        many.put(key, read(GitlabConfig, settings), sink)
        await until(lambda: len(there.instance.hooks_of(there.project)) == 1)
        assert await knock(free_port, TOKEN, "a-key") == 202
        many.put(key, read(GitlabConfig, {**settings, "GITLAB_SECRET_TOKEN": "new"}), sink)
        assert await knock(free_port, TOKEN, "a-key") == 202
        assert [event.id for event in sink.events] == ["a-key"]
        assert await knock(free_port, TOKEN) == 202, "GitLab may still have the old one"
        assert await knock(free_port, "new") == 202
        assert await knock(free_port, "other") == 401
        await until(lambda: there.instance.hooks_of(there.project)[0].token == "new")
        assert len(there.instance.hooks_of(there.project)) == 1


async def test_who_only_receives_takes_no_secret_of_before(free_port: int) -> None:
    async with many_sources() as many:
        sink, key = FakeSink(), "GitLabSource default/one"
        settings = {**KNATIVE, "PORT": str(free_port), "ADDRESS": "127.0.0.1"}
        many.put(key, read(GitlabConfig, settings), sink)
        many.put(key, read(GitlabConfig, {**settings, "GITLAB_SECRET_TOKEN": "new"}), sink)
        await until(lambda: many.bound is not None)
        assert await knock(free_port, TOKEN) == 401
        assert await knock(free_port, "new") == 202


class BrokenApi:
    """A bug of ours."""

    def __getattr__(self, _: str) -> Never:
        raise RuntimeError("a bug")


async def test_a_registrar_that_breaks_ends_the_program_as_with_one_source(free_port: int) -> None:
    many = GitlabSources(clock=SystemClock(), api=lambda _: BrokenApi())
    many.put("GitLabSource default/one", read(GitlabConfig, {**STANDALONE, "PORT": str(free_port)}), FakeSink())
    async with asyncio.timeout(20):
        with pytest.raises(ExceptionGroup, match="unhandled errors in a TaskGroup"):
            await many.run(lambda: None)


class SilentSink:
    """A sink whose connection hangs: its try outlasts the deadline, and the grace."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def send(self, *_: object, **__: object) -> None:
        self.asked.set()
        await asyncio.Event().wait()


async def test_a_delivery_that_outlasts_the_end_is_the_runtimes_to_count_and_no_failure(
    free_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wellhead_adapters.gitlab.adapter.DELIVERY_SECONDS", 0.0)
    monkeypatch.setattr("wellhead_adapters.gitlab.adapter.SETTLE_SECONDS", 0.05)
    sink = SilentSink()
    adapter = Gitlab(read(GitlabConfig, {**KNATIVE, "PORT": str(free_port), "ADDRESS": "127.0.0.1"}))
    task = asyncio.create_task(adapter.run(sink, lambda: None), name="the adapter")
    await until(lambda: adapter.bound is not None)
    asking = asyncio.create_task(knock(free_port, TOKEN), name="GitLab")
    await sink.asked.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with pytest.raises(aiohttp.ClientError):
        await asking


def test_one_project_in_two_spellings_is_one_target() -> None:
    urls = f"{PROJECT},{PROJECT}.git,{PROJECT}/,{PROJECT.replace('/g/p', '/G/p/-/tree/main')},{PROJECT}2"
    config = read(GitlabConfig, {**STANDALONE, "GITLAB_PROJECT_URL": urls})
    assert [one.url for one in config.targets] == [PROJECT, f"{PROJECT}2"], "two keepers of one webhook undo each other"


@pytest.mark.parametrize("status", [401, 403, 405, 404, 200])
async def test_a_gitlab_under_a_path_is_found_though_something_else_answers_at_the_root(status: int) -> None:
    def answer(request: Request) -> Response:
        if request.target.startswith("/gitlab/api/v4/projects/g%2Fp"):
            return Response(200, b'{"id": 7}', ((b"content-type", b"application/json"),))
        return Response(status, b"<html>no GitLab</html>", ((b"content-type", b"text/html"),))

    server = HttpServer(answer)
    host, port = await server.start("127.0.0.1", 0)
    config = read(GitlabConfig, {**STANDALONE, "GITLAB_PROJECT_URL": f"http://{host}:{port}/gitlab/g/p"})
    try:
        found = await api_of(config).locate(config.targets[0])
    finally:
        await server.stop(0)
    assert (found.base, found.path) == (f"http://{host}:{port}/gitlab", "/projects/7")


async def test_calls_that_hang_are_not_without_number() -> None:
    aside, answered = InThread(), threading.Event()
    calls = [asyncio.create_task(aside(answered.wait), name="a call") for _ in range(MOST_CALLS)]
    await asyncio.sleep(0)
    with pytest.raises(ApiError, match="earlier calls were not answered yet"):
        await aside(answered.wait)
    answered.set()
    await asyncio.gather(*calls)
    assert await aside(lambda: 7) == 7


async def test_yaml_runs_into_the_display_which_leaves_the_port_to_gitlab(free_port: int, tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE.replace("name: sample", "name: one"))
    environment = {"GITLAB_SECRET_TOKEN": TOKEN, "PORT": str(free_port)}
    async with started(WELLHEAD, "run", "-f", str(tmp_path), env=environment) as it:
        await it.stderr.line("GitLab's requests are taken")
        assert await knock(free_port, TOKEN) == 202
        await it.stdout.line("type: dev.knative.sources.gitlab.push")
        assert await it.stop() == 0
        assert f"localhost:{free_port}" not in it.stdout.text


@pytest.mark.parametrize("command", ["gitlab", "run"])
async def test_a_port_that_is_taken_is_told_without_a_traceback(command: str, free_port: int, tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE)
    environment = {"PORT": str(free_port), "GITLAB_SECRET_TOKEN": TOKEN, "GITLAB_EVENT_SOURCE": PROJECT}
    flags = {"gitlab": (), "run": ("-f", str(tmp_path))}[command]
    server = HttpServer(lambda _: Response(200))
    await server.start("", free_port)
    try:
        async with started(WELLHEAD, command, *flags, "--sink", "http://127.0.0.1:1/", env=environment) as it:
            await it.stderr.line(f"port, PORT: cannot listen on *:{free_port}: Address already in use")
            await it.stop()
    finally:
        await server.stop(0)
    assert "Traceback" not in it.stderr.text
