"""ApiServerSource on a real API server: what upstream's events are, and that nothing is missed, whatever is done to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
from typing import TYPE_CHECKING, Final

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
    """The objects that there are."""
    listed = kube.request("GET", f"/api/v1/namespaces/{namespace}/configmaps")["items"]
    return {one["metadata"]["name"]: one.get("data", {}) for one in listed}


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
