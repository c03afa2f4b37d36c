"""ApiServerSource on a real API server: what upstream's events are, and that nothing is missed, whatever is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING, Final

import trustme
from tests.interop.test_kubernetes_sinks import allow, crd
from tests.process import WELLHEAD, Program, started

from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path

    from tests.interop.kube import Json, Kube

    from wellhead.event import CloudEvent

READER: Final = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch"]}
RESOURCE: Final = ("--resource", "v1:ConfigMap", "--data", "Resource")


def config_map(namespace: str, name: str, **data: str) -> dict[str, Json]:
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": namespace},
        "data": data,
    }


class Replay:
    """The objects that there are by what events tell: name → data."""

    def __init__(self) -> None:
        self.there: dict[str, Json] = {}
        self._read = 0

    def go_on(self, events: Sequence[CloudEvent]) -> dict[str, Json]:
        """With those of ``events`` that came since."""
        for event in events[self._read :]:
            body = json.loads(event.data or b"null")
            name = body["metadata"]["name"]
            if event.type.endswith(".delete"):
                self.there.pop(name, None)
            else:
                self.there[name] = body.get("data", {})
        self._read = len(events)
        return self.there


def objects(kube: Kube, namespace: str) -> dict[str, Json]:
    """The objects that there are, but for a state of ours, which is not told of."""
    listed = kube.request("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"]
    return {one["metadata"]["name"]: one.get("data", {}) for one in listed if one["metadata"]["name"] != "state"}


class Place:
    """A namespace, a ServiceAccount that may read its ConfigMaps, and a kubeconfig with its token."""

    def __init__(self, kube: Kube, name: str, folder: Path) -> None:
        self.kube = kube
        self.namespace = kube.namespace(name)
        kube.service_account("frog", name)
        allow(kube, name, "frog", READER)
        self._config = folder / "config"
        self.renew_token()

    def renew_token(self) -> None:
        self.kube.kubeconfig(self._config, token=self.kube.token_of("frog", self.namespace), namespace=self.namespace)

    @contextlib.asynccontextmanager
    async def watching(self, sink: RecordingSink, *flags: str, **environment: str) -> AsyncIterator[Program]:
        """The program, from ready on."""
        known = {
            "KUBECONFIG": str(self._config),
            "K_SINK": sink.url,
            "NAMESPACE": self.namespace,
            "NAME": "pond",
            "HEALTH_PORT": "0",
        }
        async with started(WELLHEAD, "apiserver", *flags, env={**known, **environment}) as program:
            await program.stderr.line("source is ready")
            yield program

    def put(self, name: str, **data: str) -> None:
        self.kube.apply(config_map(self.namespace, name, **data))

    def remove(self, name: str) -> None:
        self.kube.delete(config_map(self.namespace, name))

    async def told(self, sink: RecordingSink, seconds: float = 30.0) -> None:
        """Wait until the events tell of the objects that there are."""
        there = objects(self.kube, self.namespace)
        replay = Replay()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while replay.go_on(sink.events) != there:
                    await sink.accepted(len(sink.events) + 1)
        assert replay.there == there, [(one.type, one.extensions["name"]) for one in sink.events[-100:]]


async def test_events_of_both_modes_are_as_knatives(kube: Kube, tmp_path: Path) -> None:
    place = Place(kube, "both-modes", tmp_path)
    async with (
        RecordingSink() as references,
        RecordingSink() as resources,
        place.watching(references, "--resource", "v1:ConfigMap"),
        place.watching(resources, *RESOURCE),
    ):
        place.put("a", x="1 < 2")
        place.put("a", x="2")
        place.remove("a")
        for sink, mode in ((references, "ref"), (resources, "resource")):
            events = await sink.accepted(3)
            assert [event.type for event in events] == [
                f"dev.knative.apiserver.{mode}.{what}" for what in ("add", "update", "delete")
            ]
            for event in events:
                assert event.source == kube.url
                assert event.subject == "/apis/v1/namespaces/both-modes/configmaps/a"
                assert event.datacontenttype == "application/json"
                assert dict(event.extensions) == {
                    "apiversion": "v1",
                    "kind": "ConfigMap",
                    "name": "a",
                    "namespace": "both-modes",
                }
        assert references.events[0].data == (
            b'{"kind":"ConfigMap","namespace":"both-modes","name":"a","apiVersion":"v1"}'
        )
        body = json.loads(resources.events[1].data or b"")
        assert (body["kind"], body["apiVersion"], body["data"]) == ("ConfigMap", "v1", {"x": "2"})


async def test_what_happens_while_the_server_is_down_or_just_back_is_told(brittle_kube: Kube, tmp_path: Path) -> None:
    place = Place(brittle_kube, "restart", tmp_path)
    async with RecordingSink() as sink, place.watching(sink, *RESOURCE) as program:
        place.put("a", x="1")
        await sink.accepted(1)
        brittle_kube.kill()
        await program.stderr.line("watch is interrupted")
        brittle_kube.start()
        place.put("a", x="2")
        place.put("b", x="1")
        await place.told(sink)


async def test_after_a_compaction_what_was_missed_is_found(brittle_kube: Kube, tmp_path: Path) -> None:
    place = Place(brittle_kube, "compaction", tmp_path)
    async with RecordingSink() as sink, place.watching(sink, *RESOURCE) as program:
        for name in ("kept", "changed", "gone", "again"):
            place.put(name, x="1")
        await place.told(sink)
        program.send(signal.SIGSTOP)
        brittle_kube.kill()
        brittle_kube.start()
        place.put("changed", x="2")
        place.remove("gone")
        place.remove("again")
        place.put("again", x="3")
        place.put("new", x="1")
        brittle_kube.compact()
        program.send(signal.SIGCONT)
        await place.told(sink)
        assert "410" in program.stderr.text
        assert [event.type.rpartition(".")[2] for event in sink.events if event.extensions["name"] == "again"] == [
            "add",
            "delete",
            "add",
        ]


async def test_killed_and_started_again_it_goes_on_where_it_was(kube: Kube, tmp_path: Path) -> None:
    place = Place(kube, "killed", tmp_path)
    state = ("--state-file", str(tmp_path / "state"))
    async with RecordingSink() as sink:
        async with place.watching(sink, *RESOURCE, *state) as program:
            for name in ("kept", "changed", "gone"):
                place.put(name, x="1")
            await place.told(sink)
            await program.stop(signal.SIGKILL)
        place.put("changed", x="2")
        place.remove("gone")
        place.put("new", x="1")
        async with place.watching(sink, *RESOURCE, *state):
            await place.told(sink)
    told: dict[str, set[bytes | None]] = {}
    for event in sink.events:
        told.setdefault(event.id, set()).add(event.data)
    assert all(len(bodies) == 1 for bodies in told.values()), "the same id means the same change"


async def test_a_position_of_another_cluster_is_listed_and_compared(kube: Kube, tmp_path: Path) -> None:
    place = Place(kube, "ahead", tmp_path)
    place.put("there", x="1")
    listed = kube.request("GET", f"/api/v1/namespaces/{place.namespace}/configmaps")
    ahead = int(listed["metadata"]["resourceVersion"]) + 100_000
    state = tmp_path / "state"
    watch = f"= 0 configmaps%20of%20v1%20in%20{place.namespace}"
    state.write_text(f"wellhead-apiserver-1\n{watch}\n+ 0 {place.namespace} old uid-old 7 \n@ 0 {ahead}\n")
    async with RecordingSink() as sink, place.watching(sink, *RESOURCE, "--state-file", str(state)) as program:
        await place.told(sink)
        place.put("new", x="1")
        await place.told(sink)
        assert "ahead of the server" in program.stderr.text
    assert [event.type.rpartition(".")[2] for event in sink.events if event.extensions["name"] == "old"] == ["delete"]


async def test_rights_that_are_taken_and_given_back_cost_no_change(brittle_kube: Kube, tmp_path: Path) -> None:
    place = Place(brittle_kube, "rights", tmp_path)
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "frog", "namespace": "rights"},
    }
    async with RecordingSink() as sink, place.watching(sink, *RESOURCE) as program:
        place.put("a", x="1")
        await sink.accepted(1)
        brittle_kube.delete(binding)
        brittle_kube.kill()  # an open watch is not asked again whether it may
        brittle_kube.start()
        await program.stderr.line("403 Forbidden")
        place.put("a", x="2")
        place.put("b", x="1")
        allow(brittle_kube, "rights", "frog", READER)
        await place.told(sink)


async def test_a_token_that_is_worth_nothing_any_more_is_replaced_from_its_file(
    brittle_kube: Kube, tmp_path: Path
) -> None:
    place = Place(brittle_kube, "tokens", tmp_path)
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "frog", "namespace": "tokens"}}
    async with RecordingSink() as sink, place.watching(sink, *RESOURCE) as program:
        place.put("a", x="1")
        await sink.accepted(1)
        brittle_kube.delete(account)
        brittle_kube.service_account("frog", "tokens")  # another, to the server; its tokens are others too
        brittle_kube.kill()
        brittle_kube.start()
        await program.stderr.line("401 Unauthorized")
        place.put("a", x="2")
        place.renew_token()
        await place.told(sink)


async def test_a_kind_that_goes_and_comes_again_is_followed(kube: Kube, tmp_path: Path) -> None:
    place = Place(kube, "kinds", tmp_path)
    frogs = crd("frogs", "Frog", "pond.example")
    reader = {"apiGroups": ["pond.example"], "resources": ["frogs"], "verbs": ["get", "list", "watch"]}
    allow(kube, "kinds", "frog", READER, reader)
    frog = {"apiVersion": "pond.example/v1", "kind": "Frog", "metadata": {"name": "a", "namespace": "kinds"}}
    kube.define(frogs)
    async with (
        RecordingSink() as sink,
        place.watching(sink, "--resource", "pond.example/v1:Frog", "--data", "Resource"),
    ):
        kube.create({**frog, "data": {"n": "1"}})
        await sink.accepted(1)
        kube.delete(frogs)
        await sink.accepted(2)
        kube.define(frogs)
        kube.create({**frog, "data": {"n": "2"}})
        events = await sink.accepted(3)
    assert [event.type.rpartition(".")[2] for event in events] == ["add", "delete", "add"]


async def test_objects_of_a_megabyte_and_names_of_any_letters_arrive_whole(kube: Kube, tmp_path: Path) -> None:
    place = Place(kube, "strange", tmp_path)
    roles = {"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["roles"], "verbs": ["get", "list", "watch"]}
    allow(kube, "strange", "frog", READER, roles)
    name = 'system:frög "<pond>" 100'
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}}
    flags = (*RESOURCE, "--resource", "rbac.authorization.k8s.io/v1:Role")
    async with RecordingSink() as sink, place.watching(sink, *flags):
        place.kube.request("POST", "/apis/rbac.authorization.k8s.io/v1/namespaces/strange/roles", role)
        (event,) = await sink.accepted(1)
        assert event.extensions["name"] == name
        assert event.subject == f"/apis/rbac.authorization.k8s.io/v1/namespaces/strange/roles/{name}"
        assert json.loads(event.data or b"")["metadata"]["name"] == name
        text = "ü" * 500_000
        place.kube.create(config_map("strange", "large", text=text))
        _, event = await sink.accepted(2)
        assert json.loads(event.data or b"")["data"] == {"text": text}


async def test_a_wrong_ca_and_a_token_of_nobody_are_told_and_waited_out(kube: Kube, tmp_path: Path) -> None:
    place = Place(kube, "strangers", tmp_path)
    config = tmp_path / "config"
    good = config.read_text()
    (tmp_path / "other.pem").write_bytes(trustme.CA().cert_pem.bytes())
    foreign = kube.kubeconfig(config, token="of-another-cluster").read_text()
    config.write_text(good.replace(str(kube.ca_file), str(tmp_path / "other.pem")))
    env = {"KUBECONFIG": str(config), "NAMESPACE": "strangers", "HEALTH_PORT": "0"}
    async with (
        RecordingSink() as sink,
        started(WELLHEAD, "apiserver", *RESOURCE, "--sink", sink.url, env=env) as program,
    ):
        await program.stderr.line("certificate verify failed")
        config.write_text(foreign)
        await program.stderr.line("401 Unauthorized")
        assert "source is ready" not in program.stderr.text
        assert "of-another-cluster" not in program.stderr.text
        config.write_text(good)
        await program.stderr.line("source is ready")
        place.put("a", x="1")
        await sink.accepted(1)


async def test_a_namespace_that_gets_the_labels_is_watched_from_then_on_without_a_restart(
    kube: Kube, tmp_path: Path
) -> None:
    place = Place(kube, "chosen", tmp_path)
    rbac = "rbac.authorization.k8s.io"
    rules = [READER, {**READER, "resources": ["namespaces"]}]
    kube.apply({"apiVersion": f"{rbac}/v1", "kind": "ClusterRole", "metadata": {"name": "follower"}, "rules": rules})
    kube.apply(
        {
            "apiVersion": f"{rbac}/v1",
            "kind": "ClusterRoleBinding",
            "metadata": {"name": "follower"},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": "follower"},
            "subjects": [{"kind": "ServiceAccount", "name": "frog", "namespace": "chosen"}],
        }
    )
    for name in ("joins", "stays-out"):
        kube.namespace(name)
    async with RecordingSink() as sink, place.watching(sink, *RESOURCE, "--namespace-selector", "pond=yes"):
        kube.create(config_map("joins", "too-early"))
        labelled = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "joins", "labels": {"pond": "yes"}}}
        kube.apply(labelled)
        number = 0
        while not sink.events:  # when it hears of the label is its own matter
            number += 1
            kube.create(config_map("joins", f"joined-{number}"))
            kube.create(config_map("stays-out", f"other-{number}"))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await sink.accepted(1)
        kube.create({**labelled, "metadata": {"name": "made", "labels": {"pond": "yes"}}})
        kube.create(config_map("made", "first"))
        while sink.events[-1].extensions["name"] != "first":
            await sink.accepted(len(sink.events) + 1)
    assert {event.extensions["namespace"] for event in sink.events} == {"joins", "made"}
    assert "too-early" not in {event.extensions["name"] for event in sink.events}
