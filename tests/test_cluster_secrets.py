"""Secrets of the cluster under ``wellhead run -f``: which are asked for, what is told when they are not to be had."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Final

import aiohttp
import pytest
import yaml
from tests.fake_cluster import FakeCluster, fake_api_server
from tests.process import WELLHEAD, run, started

from wellhead.access import SinkAccess
from wellhead.errors import ConfigError
from wellhead.host import Host
from wellhead.kubernetes.errors import ApiError
from wellhead.manifest import SecretKey, documents
from wellhead.settings import DeliverySettings
from wellhead.testing import FakeTransport, LoopClock, RecordingSink
from wellhead_adapters.cli.cluster_secrets import ClusterSecrets, cluster_secrets, missing_secrets, stand_ins
from wellhead_adapters.cli.fleet import Fleet, read_plan
from wellhead_adapters.cli.plan import World
from wellhead_adapters.gitlab.adapter import Gitlab
from wellhead_adapters.kafka.adapter import Kafka

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from wellhead.manifest import Document

TOKEN: Final = "s3cret-of-the-webhook"
ACCESS: Final = "glpat-of-the-api"
SOURCE: Final = """
apiVersion: sources.knative.dev/v1alpha1
kind: GitLabSource
metadata: {name: sample, namespace: team}
spec:
  projectUrl: https://gitlab.example.com/g/p
  eventTypes: [push_events]
  accessToken: {secretKeyRef: {name: tokens, key: accessToken}}
  secretToken: {secretKeyRef: {name: tokens, key: secretToken}}
  sink: {ref: {apiVersion: v1, kind: Service, name: display}}
"""
KAFKA: Final = """
apiVersion: sources.knative.dev/v1
kind: KafkaSource
metadata: {name: sample, namespace: team}
spec:
  bootstrapServers: ["kafka:9093"]
  topics: [t]
  net:
    sasl:
      enable: true
      type: {secretKeyRef: {name: tokens, key: type, optional: true}}
      user: {secretKeyRef: {name: tokens, key: user}}
      password: {secretKeyRef: {name: tokens, key: password}}
    tls:
      enable: true
      cert: {secretKeyRef: {name: tls, key: tls.crt}}
      key: {secretKeyRef: {name: tls, key: tls.key}}
      caCert: {secretKeyRef: {name: tls, key: ca.crt}}
  sink: {ref: {apiVersion: v1, kind: Service, name: display}}
"""
WORLD: Final = World(adapters={"gitlab": lambda: Gitlab, "kafka": lambda: Kafka})
HOOK_URL: Final = "https://hooks.example.com"
PUSH: Final = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": TOKEN}
ASK_SECONDS: Final = 10


def encoded(**values: str) -> dict[str, str]:
    return {name: base64.b64encode(value.encode()).decode() for name, value in values.items()}


def cluster_with(**values: str) -> FakeCluster:
    """A cluster whose Secret team/tokens holds these values."""
    cluster = FakeCluster()
    cluster.put("secrets", "tokens", "team", data=encoded(**values))
    return cluster


class Reader:
    """`FakeCluster` as `SecretReader`."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster

    async def get(self, path: str, /) -> Mapping[str, object]:
        return await self.cluster.get(path)

    async def aclose(self) -> None:
        return None


def secrets_of(cluster: FakeCluster) -> ClusterSecrets:
    return ClusterSecrets(lambda: Reader(cluster))


def sources(text: str = SOURCE) -> list[Document]:
    found, problems = documents(text, "file")
    assert problems == []
    return found


@pytest.fixture(autouse=True)
def registering(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITLAB_ACCESS_TOKEN", "GITLAB_SECRET_TOKEN", "GITLAB_ACCESS_TOKEN_FILE", "GITLAB_SECRET_TOKEN_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GITLAB_HOOK_URL", HOOK_URL)


# --- which are asked for ---


def names(text: str) -> list[str]:
    return [key.key for _, key in missing_secrets(sources(text), WORLD)]


def test_what_no_file_and_no_variable_holds_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    assert names(SOURCE) == ["accessToken", "secretToken"]
    monkeypatch.setenv("GITLAB_SECRET_TOKEN", TOKEN)
    assert names(SOURCE) == ["accessToken"]
    monkeypatch.setenv("GITLAB_ACCESS_TOKEN_FILE", "/a/file")
    assert names(SOURCE) == []


def test_a_secret_among_the_files_is_not_asked_for() -> None:
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: tokens, namespace: team}\nstringData: {secretToken: a}"
    assert names(f"{SOURCE}---\n{secret}") == []
    assert names(f"{SOURCE}---\n{secret.replace('team', 'others')}") == ["accessToken", "secretToken"]


def test_who_registers_nothing_needs_no_access_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITLAB_HOOK_URL")
    assert names(SOURCE) == ["secretToken"]


def test_a_reference_that_is_wrong_is_left_to_who_reads_the_document() -> None:
    assert names(SOURCE.replace("name: tokens, key: secretToken", "name: tokens")) == ["accessToken"]


async def test_each_secret_is_asked_for_once_by_its_name_and_only_what_is_needed_is_kept() -> None:
    cluster = cluster_with(accessToken=ACCESS, secretToken=TOKEN, other="never")
    needed = list(missing_secrets(sources(), WORLD))
    (found,) = await secrets_of(cluster).fetch(needed)
    assert cluster.requests == ["/api/v1/namespaces/team/secrets/tokens"]
    assert found.body["stringData"] == {"accessToken": ACCESS, "secretToken": TOKEN}
    assert TOKEN not in repr(found)


async def test_where_nothing_is_needed_no_cluster_is_looked_for() -> None:
    def none() -> Reader:
        raise AssertionError

    async with aclosing(ClusterSecrets(none)) as secrets:
        assert await secrets.fetch([]) == []


# --- what is told ---

TELLS: Final = [
    (ApiError(403, "Forbidden", "no"), "get of secrets, resourceNames [tokens], in namespace team"),
    (ApiError(401, "Unauthorized", "who?"), "cannot be read: 401 Unauthorized: who?"),
    (ApiError(0, "Connect", "cannot connect to a:1"), "cannot be read: no answer Connect: cannot connect to a:1"),
]


async def told(cluster: FakeCluster, text: str = SOURCE) -> list[str]:
    """The problems, which name each the document and the path, what would do instead, and no secret."""
    with pytest.raises(ConfigError) as error:
        await secrets_of(cluster).fetch(list(missing_secrets(sources(text), WORLD)))
    problems = [str(problem) for problem in error.value.problems]
    assert all("file, document 1, " in one and "Source team/sample: spec." in one for one in problems)
    assert TOKEN not in str(error.value)
    assert ACCESS not in str(error.value)
    return problems


@pytest.mark.parametrize(("error", "what"), TELLS)
async def test_a_cluster_that_does_not_tell_is_told_with_what_to_do(error: ApiError, what: str) -> None:
    cluster = cluster_with(accessToken=ACCESS, secretToken=TOKEN)
    cluster.standing["secrets/tokens"] = error
    access, secret = await told(cluster)
    assert what in access
    assert "or set GITLAB_ACCESS_TOKEN" in access
    assert "or set GITLAB_SECRET_TOKEN" in secret
    assert "Secret team/tokens of the cluster" in secret


async def test_a_secret_that_is_not_there_is_told() -> None:
    access, _ = await told(FakeCluster())
    assert "spec.accessToken.secretKeyRef: there is no Secret team/tokens of the cluster: create it" in access


async def test_a_key_that_is_not_there_is_told_with_those_that_are() -> None:
    (problem,) = await told(cluster_with(accessToken=ACCESS, other=TOKEN))
    assert problem.endswith("Secret team/tokens of the cluster has no key 'secretToken'; it has 'accessToken', 'other'")


@pytest.mark.parametrize(
    ("data", "what"), [("Kg", "is no text"), ("gICA", "is no text"), ("", "is empty"), ("Cg==", "is empty")]
)
async def test_a_value_that_is_no_text_is_told(data: str, what: str) -> None:
    cluster = cluster_with(accessToken=ACCESS)
    cluster.put("secrets", "tokens", "team", data=encoded(accessToken=ACCESS) | {"secretToken": data})
    (problem,) = await told(cluster)
    assert problem.endswith(f"'secretToken' of Secret team/tokens of the cluster {what}")


async def test_where_there_is_no_cluster_that_is_told() -> None:
    with pytest.raises(ConfigError) as error:
        await cluster_secrets({}).fetch(list(missing_secrets(sources(), WORLD)))
    (problem, _) = map(str, error.value.problems)
    assert "no cluster can be asked for Secret team/tokens" in problem
    assert "nor is GITLAB_ACCESS_TOKEN set" in problem
    assert "no kubeconfig; give --kubeconfig" in problem


async def test_what_else_is_wrong_is_told_at_the_same_time(tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE.replace("[push_events]", "[pushes]"))
    with pytest.raises(ConfigError) as error:
        await read_plan([tmp_path], WORLD, secrets_of(FakeCluster()))
    text = str(error.value)
    assert "there is no Secret team/tokens" in text
    assert "names no kind of event by 'pushes'" in text
    assert len(error.value.problems) == 3


def test_stand_ins_hold_nothing_of_worth_and_make_a_configuration() -> None:
    found = sources()
    (secret,) = stand_ins(list(missing_secrets(found, WORLD)))
    assert Gitlab.from_manifest(found[0], [*found, secret]).secret_token == "read-from-the-cluster"


# --- a KafkaSource's ---


def test_of_a_kafka_source_what_is_enabled_is_asked_for_where_no_file_holds_its_secret() -> None:
    assert names(KAFKA) == ["user", "password", "type", "tls.crt", "tls.key", "ca.crt"]
    secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: tls, namespace: team}\nstringData: {tls.crt: a}"
    assert names(f"{KAFKA}---\n{secret}") == ["user", "password", "type"], "what is not in it is told, not asked for"
    assert names(KAFKA.replace("tls:\n      enable: true", "tls:\n      enable: false")) == ["user", "password", "type"]
    assert names(KAFKA.replace("name: tls, key: ca.crt", "name: tls")) == names(KAFKA)[:-1]


def test_stand_ins_have_the_form_of_what_they_stand_for() -> None:
    found = sources(KAFKA)
    config = Kafka.from_manifest(found[0], [*found, *stand_ins(list(missing_secrets(found, WORLD)))])
    assert (config.sasl_user, config.mechanism.value) == ("read-from-the-cluster", "PLAIN")
    found = sources(KAFKA.replace("tls.crt", "both.pem").replace("tls.key", "both.pem"))
    Kafka.from_manifest(found[0], [*found, *stand_ins(list(missing_secrets(found, WORLD)))])


async def test_what_is_optional_may_be_missing_and_nothing_else_may() -> None:
    cluster = cluster_with(user="u", password=TOKEN)
    cluster.put("secrets", "tls", "team", data=encoded(**{"tls.crt": "a", "tls.key": "b"}))
    (problem,) = await told(cluster, KAFKA)
    assert problem.endswith("Secret team/tls of the cluster has no key 'ca.crt'; it has 'tls.crt', 'tls.key'")
    cluster.put("secrets", "tls", "team", data=encoded(**{"tls.crt": "a", "tls.key": "b", "ca.crt": "c"}))
    found = await secrets_of(cluster).fetch(list(missing_secrets(sources(KAFKA), WORLD)))
    assert [one.body["stringData"] for one in found] == [
        {"user": "u", "password": TOKEN},
        {"tls.crt": "a", "tls.key": "b", "ca.crt": "c"},
    ]


async def test_what_is_optional_and_may_not_be_read_is_told_and_no_variable_is_named() -> None:
    cluster = cluster_with(user="u", password=TOKEN)
    cluster.standing["secrets/tokens"] = ApiError(403, "Forbidden", "no")
    problems = await told(cluster, KAFKA.partition("    tls:")[0] + "  sink: {uri: http://a}\n")
    assert len(problems) == 3
    assert all("may not be read" in one and "set" not in one.partition("secretKeyRef")[2] for one in problems)


# --- followed ---


class Taker:
    """An adapter for documents of kind Frog, which says what it was given."""

    Config: ClassVar[type] = str
    event_types: ClassVar[tuple[str, ...]] = ()
    manifest_kinds: ClassVar[tuple[str, ...]] = ("Frog",)
    spec_fields: ClassVar[tuple[str, ...]] = ("colour",)
    given: ClassVar[list[str]] = []
    news: ClassVar[asyncio.Event]

    @staticmethod
    def missing_secrets(document: Document, _: Sequence[Document]) -> list[SecretKey]:
        return [
            SecretKey(
                path="spec.colour", namespace=document.namespace, name="tokens", key="secretToken", instead="GREEN"
            )
        ]

    @staticmethod
    def from_manifest(_: Document, found: Sequence[Document]) -> str:
        (secret,) = (one for one in found if one.kind == "Secret")
        value: Any = secret.body["stringData"]
        return str(value["secretToken"])

    @classmethod
    def many(cls) -> type[Taker]:
        return cls

    @classmethod
    def put(cls, key: str, config: str, _: object) -> None:
        cls.given.append(f"{key}: {config}")
        cls.news.set()

    @classmethod
    def remove(cls, key: str) -> None:
        cls.given.append(f"{key}: gone")

    @classmethod
    async def run(cls, ready: Callable[[], None]) -> None:
        ready()
        await asyncio.Event().wait()


FROG: Final = """
apiVersion: pond.example/v1
kind: Frog
metadata: {name: one, namespace: team}
spec: {sink: {uri: "http://127.0.0.1:1/"}}
"""


@asynccontextmanager
async def following(folder: Path, cluster: FakeCluster, *, text: str = FROG) -> AsyncIterator[None]:
    """A fleet of frogs that follows its folder, where a file holds ``text`` at first, and the cluster."""
    Taker.given, Taker.news = [], asyncio.Event()
    (folder / "frog.yaml").write_text(text)
    world = World(adapters={"frog": lambda: Taker})  # type: ignore[dict-item, return-value]  # as much of an adapter as `Many` needs
    host = Host(FakeTransport(), LoopClock())
    secrets = secrets_of(cluster)
    fleet = Fleet(
        host, world, sink="http://127.0.0.1:1/", ca_certs="", given=False, refs={}, delivery=DeliverySettings(),
        access=SinkAccess(), secrets=secrets,
    )  # fmt: skip
    await fleet.apply(await read_plan([folder], world, secrets))
    task = asyncio.create_task(fleet.follow([folder]), name="fleet")
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await host.drain(1)


@pytest.mark.looptime
async def test_a_secret_that_changes_is_taken_without_stopping_the_source(tmp_path: Path) -> None:
    cluster = cluster_with(secretToken="old")
    async with following(tmp_path, cluster):
        await asyncio.sleep(3 * ASK_SECONDS)
        assert Taker.given == ["Frog team/one: old"]
        assert len(cluster.requests) <= 4, "not once a second"
        cluster.put("secrets", "tokens", "team", data=encoded(secretToken="new"))
        await asyncio.sleep(ASK_SECONDS + 1)
        assert Taker.given == ["Frog team/one: old", "Frog team/one: new"]
        (tmp_path / "frog.yaml").write_text(FROG.replace("one", "two"))
        await asyncio.sleep(2)
        assert Taker.given[2:] == ["Frog team/one: gone", "Frog team/two: new"]


@pytest.mark.looptime
async def test_a_cluster_in_trouble_ends_nothing_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = cluster_with(secretToken="old")
    async with following(tmp_path, cluster):
        cluster.standing["secrets"] = ApiError(0, "Connect", "away")
        await asyncio.sleep(5 * ASK_SECONDS)
        assert [one.message for one in caplog.records if one.levelno == logging.ERROR] == [
            "Secrets are not to be had; what runs goes on"
        ]
        cluster.standing.clear()
        cluster.put("secrets", "tokens", "team", data=encoded(secretToken="new"))
        await asyncio.sleep(ASK_SECONDS + 1)
        assert Taker.given == ["Frog team/one: old", "Frog team/one: new"]


NO_FROG: Final = """
apiVersion: v1
kind: ConfigMap
metadata: {name: one, namespace: team}
"""


@pytest.mark.looptime
async def test_a_secret_that_comes_after_the_first_file_which_needs_one_is_taken(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cluster = FakeCluster()
    async with following(tmp_path, cluster, text=NO_FROG):
        await asyncio.sleep(2)
        (tmp_path / "frog.yaml").write_text(FROG)
        await asyncio.sleep(3 * ASK_SECONDS)
        assert Taker.given == []
        assert [one.message for one in caplog.records if one.levelno == logging.ERROR] == [
            "files are wrong; what runs goes on"
        ]
        cluster.put("secrets", "tokens", "team", data=encoded(secretToken="new"))
        await asyncio.sleep(ASK_SECONDS + 1)
        assert Taker.given == ["Frog team/one: new"]


@pytest.mark.looptime
async def test_a_cluster_is_asked_no_more_once_no_file_needs_it(tmp_path: Path) -> None:
    cluster = FakeCluster()
    async with following(tmp_path, cluster, text=NO_FROG):
        await asyncio.sleep(2)
        (tmp_path / "frog.yaml").write_text(FROG)
        await asyncio.sleep(2)
        (tmp_path / "frog.yaml").write_text(NO_FROG)
        await asyncio.sleep(2)
        asked = len(cluster.requests)
        assert asked > 0
        await asyncio.sleep(3 * ASK_SECONDS)
        assert len(cluster.requests) == asked


# --- as a user starts it ---


def kubeconfig(path: Path, url: str, token: str) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": url}}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    path.write_text(yaml.safe_dump(document))
    return path


async def test_a_source_runs_on_the_clusters_secret_which_is_in_no_log(tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE)
    async with fake_api_server(cluster_with(secretToken=f"{TOKEN}\n")) as api, RecordingSink() as sink:
        api.tokens = {"token-of-a-pod"}
        config = kubeconfig(tmp_path / "config", api.url, "token-of-a-pod")
        flags = (
            "-f",
            str(tmp_path / "source.yaml"),
            "--sink",
            sink.url,
            "--kubeconfig",
            str(config),
            "--log-format=json",
        )
        environment = {"PORT": "0", "ADDRESS": "127.0.0.1", "LOG_LEVEL": "debug"}
        async with started(WELLHEAD, "run", *flags, env=environment) as it:
            bound = json.loads(await it.stderr.line("GitLab's requests are taken"))
            url = f"http://127.0.0.1:{bound['port']}/team/sample"
            async with aiohttp.ClientSession() as client:
                async with client.post(url, data=b"{}", headers=PUSH) as answer:
                    assert answer.status == 202
                async with client.post(url, data=b"{}", headers={**PUSH, "X-Gitlab-Token": "other"}) as answer:
                    assert answer.status == 401
            assert await it.stop() == 0
        assert [event.type for event in sink.events] == ["dev.knative.sources.gitlab.push"]
    for secret in (TOKEN, "token-of-a-pod"):
        assert secret not in it.stderr.text + it.stdout.text


async def test_a_secret_that_is_not_to_be_had_ends_the_program_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE)
    async with fake_api_server() as api:
        config = kubeconfig(tmp_path / "config", api.url, "token-of-a-pod")
        code, it = await run(WELLHEAD, "run", "-f", str(tmp_path / "source.yaml"), env={"KUBECONFIG": str(config)})
    assert code == 2
    assert "spec.secretToken.secretKeyRef: there is no Secret team/tokens of the cluster" in it.stderr.text
    assert "Traceback" not in it.stderr.text
    code, it = await run(WELLHEAD, "run", "-f", str(tmp_path / "source.yaml"))
    assert code == 2
    assert "no cluster can be asked for Secret team/tokens" in it.stderr.text


async def test_validate_asks_no_cluster_and_says_what_is_left_to_it(tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE)
    code, it = await run(WELLHEAD, "validate", "-f", str(tmp_path / "source.yaml"))
    assert code == 0, it.stderr.text
    assert it.stdout.lines == [
        "GitLabSource team/sample: valid, run by gitlab",
        "GitLabSource team/sample: spec.secretToken.secretKeyRef is in no file; Secret team/tokens of the cluster is asked for it",
    ]
