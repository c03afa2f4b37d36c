"""The adapter of ApiServerSource: which watches run, in which order their events go out, what a restart knows."""

from __future__ import annotations

import asyncio
import json
import os
import random
import resource
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from tests.fake_cluster import FakeCluster, fake_api_server
from tests.process import IN_TIME, WELLHEAD, started

from wellhead.clock import SystemClock
from wellhead.errors import ConfigError, Loss
from wellhead.kubernetes.change import Operation
from wellhead.kubernetes.errors import ApiError
from wellhead.kubernetes.index import Seen
from wellhead.kubernetes.reflector import GaveUp, WatchCounters
from wellhead.kubernetes.selectors import parse_labels
from wellhead.testing import Answer, FakeSink, RecordingSink, running
from wellhead_adapters.apiserver.adapter import ApiServer
from wellhead_adapters.apiserver.config import ApiServerConfig, Initial, Ordering, Reach
from wellhead_adapters.apiserver.events import Origin
from wellhead_adapters.apiserver.lanes import Lanes
from wellhead_adapters.apiserver.ledger import Ledger, Turns
from wellhead_adapters.apiserver.state import State, StateFile
from wellhead_adapters.apiserver.subject import Mode, parse_resources, parse_source_config
from wellhead_adapters.apiserver.teller import Teller
from wellhead_adapters.apiserver.wanted import UpdateData, parse_ignored
from wellhead_adapters.apiserver.watches import Watches

if TYPE_CHECKING:
    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from wellhead.event import CloudEvent

APISERVER: Final = (sys.executable, "-m", "wellhead_adapters.apiserver")
POD: Final = parse_resources("v1:Pod")


def config(**more: Any) -> ApiServerConfig:
    return ApiServerConfig(**{"resources": POD, "namespace": "ns", "name": "source", **more})


def words(event: CloudEvent) -> str:
    namespace, name = (str(event.extensions[key]) for key in ("namespace", "name"))
    return f"{event.type.rpartition('.')[2]} {namespace}/{name}"


@dataclass
class Source:
    """Watches that run against a cluster in memory, into a sink in memory."""

    cluster: FakeCluster
    sink: FakeSink
    teller: Teller
    is_ready: asyncio.Event
    task: asyncio.Task[Any]

    @property
    def told(self) -> list[str]:
        return [words(event) for event in self.sink.events]

    async def settled(self) -> None:
        """Return once all that was done to the cluster was told, or was not to be."""
        await asyncio.sleep(60)


class SinkAway(FakeSink):
    """Takes nothing until it is ``back``."""

    def __init__(self) -> None:
        super().__init__()
        self.back = asyncio.Event()

    async def send(self, event: CloudEvent | SdkEvent, /, **how: object) -> None:
        await self.back.wait()
        await super().send(event)


@asynccontextmanager
async def watches(
    cluster: FakeCluster, of: ApiServerConfig, state: State | None = None, sink: FakeSink | None = None
) -> AsyncIterator[Source]:
    """The watches, ready."""
    sink, is_ready = sink or FakeSink(), asyncio.Event()
    origin = Origin(source="https://api", namespace="ns", name="source", mode=of.subject.mode, copies=of.copies)
    teller = Teller(sink, of, origin, SystemClock(), state)
    task = asyncio.create_task(Watches(cluster, of, teller, WatchCounters(), is_ready.set).run(), name="watches")
    ready = asyncio.create_task(is_ready.wait())
    try:
        await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if task.done():
            await task
        yield Source(cluster, sink, teller, is_ready, task)
    finally:
        task.cancel()
        await asyncio.wait({task})
        await teller.lanes.settle(1)


def asked(cluster: FakeCluster, part: str) -> int:
    return sum(part in request for request in cluster.requests)


# --- which watches run ---


@pytest.mark.looptime
async def test_few_namespaces_have_a_watch_each() -> None:
    cluster = FakeCluster()
    async with watches(cluster, config(namespaces=("a", "b"))) as source:
        for namespace in "abc":
            cluster.put("pods", "p", namespace)
        await source.settled()
    assert sorted(source.told) == ["add a/p", "add b/p"]
    assert asked(cluster, "/namespaces/a/pods")
    assert asked(cluster, "/namespaces/b/pods")
    assert not asked(cluster, "/api/v1/pods")


@pytest.mark.looptime
async def test_many_namespaces_share_a_watch_where_that_is_allowed() -> None:
    cluster = FakeCluster()
    names = tuple(f"n{number}" for number in range(1000))
    resources = parse_resources("v1:Pod\nv1:ConfigMap\napps/v1:Deployment\nlab.example/v1:Gateway\nv1:Namespace")
    async with watches(cluster, config(resources=resources, namespaces=names)) as source:
        cluster.put("pods", "p", "n7")
        cluster.put("pods", "p", "other")
        cluster.put("gateways", "g", "n999")
        cluster.put("namespaces", "n5", "")
        await source.settled()
    assert sorted(source.told) == ["add /n5", "add n7/p", "add n999/g"]
    assert len(cluster.requests) < 20


@pytest.mark.looptime
async def test_many_namespaces_have_a_watch_each_where_one_of_all_is_not_allowed() -> None:
    cluster = FakeCluster(standing={"/api/v1/pods": ApiError(403, "Forbidden", "pods is forbidden")})
    names = tuple(f"n{number}" for number in range(50))
    async with watches(cluster, config(namespaces=names)) as source:
        cluster.put("pods", "p", "n7")
        cluster.put("pods", "p", "other")
        await source.settled()
    assert source.told == ["add n7/p"]
    assert asked(cluster, "/namespaces/n") == 50


@pytest.mark.looptime
@pytest.mark.parametrize(
    ("reach", "paths"), [(Reach.CLUSTER, "/api/v1/pods"), (Reach.NAMESPACE, "/api/v1/namespaces/")]
)
async def test_how_watches_are_cut_can_be_said(reach: Reach, paths: str) -> None:
    cluster = FakeCluster()
    names = ("a", "b") if reach is Reach.CLUSTER else tuple(f"n{number}" for number in range(30))
    async with watches(cluster, config(namespaces=names, reach=reach)):
        pass
    assert {request.partition("?")[0].startswith(paths) for request in cluster.requests if "watch" in request} == {True}


@pytest.mark.looptime
async def test_lists_at_the_start_are_bounded_in_number() -> None:
    cluster = FakeCluster()
    at_once: list[int] = []
    names = tuple(f"n{number}" for number in range(100))
    listing: set[int] = set()

    class Slow(FakeCluster):
        async def get(self, path: str, /, *, accept: str = "") -> Any:
            if "limit=500" in path:
                listing.add(id(path))
                at_once.append(len(listing))
                await asyncio.sleep(1)
                listing.discard(id(path))
            return await super().get(path, accept=accept)

    cluster = Slow(watch_lists=False)
    async with watches(cluster, config(namespaces=names, reach=Reach.NAMESPACE)):
        pass
    assert len(at_once) == 100
    assert 1 < max(at_once) <= 16


@pytest.mark.looptime
async def test_everywhere_is_one_watch_and_cluster_scoped_kinds_have_one_wherever() -> None:
    cluster = FakeCluster()
    resources = parse_resources("v1:Pod\nv1:Namespace")
    async with watches(cluster, config(resources=resources, namespaces=("*",))) as source:
        cluster.put("pods", "p", "x")
        cluster.put("namespaces", "y", "")
        await source.settled()
    assert sorted(source.told) == ["add /y", "add x/p"]


@pytest.mark.looptime
@pytest.mark.parametrize("reach", [Reach.CLUSTER, Reach.NAMESPACE])
async def test_namespaces_by_selector_are_followed_as_they_come_and_go(reach: Reach) -> None:
    cluster = FakeCluster()
    cluster.put("namespaces", "old", "", metadata={"labels": {"team": "a"}})
    cluster.put("namespaces", "other", "")
    cluster.put("pods", "before", "old")
    cluster.put("pods", "before", "other")
    async with watches(cluster, config(namespace_selector=parse_labels("team=a"), reach=reach)) as source:
        cluster.put("pods", "in-old", "old")
        cluster.put("pods", "not-told", "other")
        cluster.put("namespaces", "new", "", metadata={"labels": {"team": "a"}})
        cluster.put("pods", "in-new", "new")
        await source.settled()
        assert sorted(source.told) == ["add new/in-new", "add old/in-old"]
        cluster.put("namespaces", "other", "", metadata={"labels": {"team": "a"}})
        await source.settled()
        cluster.put("pods", "joined", "other")
        cluster.put("namespaces", "old", "")
        await source.settled()
        cluster.put("pods", "left", "old")
        cluster.remove("pods", "in-new", "new")
        cluster.remove("namespaces", "new", "")
        await source.settled()
        await source.settled()
    assert sorted(source.told) == ["add new/in-new", "add old/in-old", "add other/joined", "delete new/in-new"]


def cut_off(cluster: FakeCluster, resource: str) -> None:
    """No word comes of these any more, for now."""
    cluster.standing[f"{resource}?watch"] = ApiError(503, "ServiceUnavailable", "…")
    for stream in tuple(cluster.streams):
        if stream.resource == resource:
            stream.end()


@pytest.mark.looptime
async def test_what_is_in_a_new_namespace_is_told_though_word_of_the_namespace_comes_late() -> None:
    cluster = FakeCluster()
    async with watches(cluster, config(namespace_selector=parse_labels("team=a"), reach=Reach.CLUSTER)) as source:
        cut_off(cluster, "namespaces")
        cluster.put("namespaces", "new", "", metadata={"labels": {"team": "a"}})
        cluster.put("namespaces", "other", "")
        cluster.put("pods", "in-new", "new")
        cluster.put("pods", "in-other", "other")
        cluster.put("pods", "in-none", "gone-long-since")
        await source.settled()
        assert source.told == ["add new/in-new"]
        del cluster.standing["namespaces?watch"]
        await source.settled()
        cluster.put("pods", "later", "new")
        await source.settled()
    assert source.told == ["add new/in-new", "add new/later"]


@pytest.mark.looptime
@pytest.mark.parametrize("reach", [Reach.CLUSTER, Reach.NAMESPACE])
async def test_of_a_namespace_that_is_deleted_while_nobody_runs_the_objects_are_told_to_be_gone(
    tmp_path: Path, reach: Reach
) -> None:
    cluster = FakeCluster()
    for name in ("brief", "stays", "leaves"):
        cluster.put("namespaces", name, "", metadata={"labels": {"team": "a"}})
    cluster.put("namespaces", "other", "")
    of = config(namespace_selector=parse_labels("team=a"), reach=reach)
    async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
        for name in ("brief", "stays", "leaves", "other"):
            cluster.put("pods", "p", name)
        await source.settled()
        await source.teller.write()
        assert sorted(source.told) == ["add brief/p", "add leaves/p", "add stays/p"]
    for name in ("brief", "other"):
        cluster.remove("pods", "p", name)
        cluster.remove("namespaces", name, "")
    cluster.put("namespaces", "leaves", "")
    for turn in ("first", "second"):
        async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
            await source.settled()
            await source.teller.write()
            assert source.told == (["delete brief/p"] if turn == "first" else [])


def put_brief(cluster: FakeCluster) -> None:
    cluster.put("namespaces", "brief", "", metadata={"labels": {"team": "a"}})
    cluster.put("pods", "p", "brief")


def remove_brief(cluster: FakeCluster) -> None:
    cluster.remove("pods", "p", "brief")
    cluster.remove("namespaces", "brief", "")


@pytest.mark.looptime
@pytest.mark.parametrize("reach", [Reach.CLUSTER, Reach.NAMESPACE])
@pytest.mark.parametrize("deleted", ["while it ran", "while nobody ran"])
async def test_of_a_namespace_that_is_deleted_the_objects_are_told_to_be_gone_though_the_sink_is_away_until_a_restart(
    tmp_path: Path, reach: Reach, deleted: str
) -> None:
    cluster = FakeCluster()
    cluster.put("namespaces", "stays", "", metadata={"labels": {"team": "a"}})
    put_brief(cluster)
    of = config(namespace_selector=parse_labels("team=a"), reach=reach)

    async def run(sink: FakeSink, *, meanwhile: bool = False) -> list[str]:
        async with watches(cluster, of, StateFile(tmp_path / "state"), sink) as source:
            await source.settled()
            if meanwhile:
                remove_brief(cluster)
            await source.settled()
            cluster.bookmark()
            await source.settled()
            await source.teller.write()
        return source.told

    if deleted == "while nobody ran":
        assert await run(FakeSink()) == []
        remove_brief(cluster)
        cluster.forget_history()
    for turn in range(3):
        assert await run(SinkAway(), meanwhile=deleted == "while it ran" and turn == 0) == []
    assert await run(FakeSink()) == ["delete brief/p"]
    assert await run(FakeSink()) == []
    saved = StateFile(tmp_path / "state")
    chosen = saved.take("namespaces that are chosen")
    assert chosen is not None
    assert [seen.name for seen in chosen.index or ()] == ["stays"]
    assert saved.take("pods of v1 in brief") is None


@pytest.mark.looptime
async def test_a_namespace_that_is_made_again_before_the_sink_knows_that_it_was_deleted_is_told_as_both(
    tmp_path: Path,
) -> None:
    cluster = FakeCluster()
    put_brief(cluster)
    of = config(namespace_selector=parse_labels("team=a"), reach=Reach.NAMESPACE)
    async with watches(cluster, of, StateFile(tmp_path / "state"), SinkAway()) as source:
        await source.settled()
        remove_brief(cluster)
        await source.settled()
        put_brief(cluster)
        await source.settled()
        cluster.bookmark()
        await source.settled()
        await source.teller.write()
    async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
        await source.settled()
        assert source.told == ["delete brief/p", "add brief/p"]
        await source.teller.write()
    async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
        await source.settled()
        cluster.remove("pods", "p", "brief")
        await source.settled()
    assert source.told == ["delete brief/p"]


@pytest.mark.looptime
async def test_of_a_namespace_that_is_made_again_a_restart_knows_the_new_objects_though_the_old_ones_are_told_late(
    tmp_path: Path,
) -> None:
    cluster, sink = FakeCluster(), SinkAway()
    put_brief(cluster)
    of = config(namespace_selector=parse_labels("team=a"), reach=Reach.NAMESPACE)
    async with watches(cluster, of, StateFile(tmp_path / "state"), sink) as source:
        await source.settled()
        remove_brief(cluster)
        await source.settled()
        put_brief(cluster)
        await source.settled()
        sink.back.set()
        await source.settled()
        await source.teller.write()
        assert source.told == ["delete brief/p", "add brief/p"]
    cluster.remove("pods", "p", "brief")
    cluster.forget_history()
    async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
        await source.settled()
    assert source.told == ["delete brief/p"]


@pytest.mark.looptime
async def test_a_namespace_that_is_deleted_is_remembered_while_a_kind_was_not_looked_at(tmp_path: Path) -> None:
    cluster = FakeCluster()
    put_brief(cluster)
    kinds = parse_resources("apps/v1:Deployment")
    of = config(resources=kinds, namespace_selector=parse_labels("team=a"), reach=Reach.NAMESPACE)
    cluster.put("deployments", "d", "brief")
    async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
        await source.settled()
        await source.teller.write()
    cluster.remove("deployments", "d", "brief")
    remove_brief(cluster)
    cluster.standing["/apis/apps/v1"] = ApiError(503, "ServiceUnavailable", "…")
    state = StateFile(tmp_path / "state")
    asyncio.get_running_loop().call_later(60, cluster.bookmark)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(120), watches(cluster, of, state):
            pass
    await state.write()
    cluster.standing.clear()
    async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
        await source.settled()
    assert source.told == ["delete brief/d"]


@pytest.mark.looptime
@pytest.mark.parametrize("reach", [Reach.CLUSTER, Reach.NAMESPACE])
async def test_deletes_that_are_found_long_after_their_namespace_was_deleted_are_told(reach: Reach) -> None:
    cluster = FakeCluster()
    cluster.put("namespaces", "brief", "", metadata={"labels": {"team": "a"}})
    async with watches(cluster, config(namespace_selector=parse_labels("team=a"), reach=reach)) as source:
        cluster.put("pods", "p", "brief")
        await source.settled()
        cluster.standing["/pods"] = ApiError(403, "Forbidden", "pods is forbidden")
        for stream in tuple(cluster.streams):
            if stream.resource == "pods":
                cluster.streams.discard(stream)
                stream.end()
        cluster.remove("pods", "p", "brief")
        cluster.remove("namespaces", "brief", "")
        await source.settled()
        await source.settled()
        cluster.standing.clear()
        await source.settled()
    assert source.told == ["add brief/p", "delete brief/p"]


@pytest.mark.looptime
@pytest.mark.parametrize("known", [True, False], ids=["deleted while it ran", "deleted while nobody ran"])
async def test_what_was_in_a_namespace_that_was_not_chosen_and_is_gone_holds_up_nothing(
    tmp_path: Path,
    known: bool,  # noqa: FBT001
) -> None:
    cluster = FakeCluster()
    cluster.put("namespaces", "chosen", "", metadata={"labels": {"team": "a"}})
    cluster.put("namespaces", "other", "")
    for number in range(200):
        cluster.put("pods", f"p{number}", "other")
    of = config(namespace_selector=parse_labels("team=a"), reach=Reach.CLUSTER)

    def gone() -> None:
        cluster.remove("namespaces", "other", "")
        for number in range(200):
            cluster.put("pods", f"p{number}", "other", status={"phase": "Failed"})
            cluster.remove("pods", f"p{number}", "other")

    async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
        await source.settled()
        await source.teller.write()
        if known:
            gone()
            cluster.put("pods", "later", "chosen")
            async with asyncio.timeout(3):
                await source.sink.accepted(1)
    if not known:
        gone()
        async with watches(cluster, of, StateFile(tmp_path / "state")) as source:
            cluster.put("pods", "later", "chosen")
            async with asyncio.timeout(3):
                await source.sink.accepted(1)
    assert source.told == ["add chosen/later"]
    assert asked(cluster, "metadata.name%3Dother") == (0 if known else 1)


@pytest.mark.looptime
async def test_a_namespace_that_is_made_again_and_chosen_is_told_of_though_word_of_it_comes_late() -> None:
    cluster = FakeCluster()
    cluster.put("namespaces", "again", "")
    async with watches(cluster, config(namespace_selector=parse_labels("team=a"), reach=Reach.CLUSTER)) as source:
        cluster.remove("namespaces", "again", "")
        await source.settled()
        cut_off(cluster, "namespaces")
        cluster.put("namespaces", "again", "", metadata={"labels": {"team": "a"}})
        cluster.put("pods", "p", "again")
        cluster.remove("pods", "p", "again")
        await source.settled()
    assert source.told == ["add again/p", "delete again/p"]


@pytest.mark.looptime
async def test_of_the_other_namespaces_of_a_shared_watch_nothing_is_kept(tmp_path: Path) -> None:
    cluster = FakeCluster()
    for namespace in ("a", "other"):
        cluster.put("pods", "p", namespace)
    of = config(namespaces=("a", "b"), reach=Reach.CLUSTER, state_file=tmp_path / "state")
    teller = Teller(
        FakeSink(),
        of,
        Origin(source="s", namespace="n", name="n", mode=Mode.REFERENCE),
        SystemClock(),
        StateFile(tmp_path / "state"),
    )
    task = asyncio.create_task(Watches(cluster, of, teller, WatchCounters(), lambda: None).run())
    await asyncio.sleep(5)
    cluster.put("pods", "q", "a")
    cluster.put("pods", "q", "other")
    await asyncio.sleep(5)
    await teller.write()
    task.cancel()
    await asyncio.wait({task})
    saved = StateFile(tmp_path / "state").take("pods of v1")
    assert saved is not None
    assert [(seen.namespace, seen.name) for seen in saved.index or ()] == [("a", "p"), ("a", "q")]
    assert saved.version == str(cluster.revision)


@pytest.mark.looptime
async def test_a_kind_that_is_not_served_yet_holds_up_nothing_and_all_of_it_is_new_when_it_is() -> None:
    cluster = FakeCluster()
    kinds = cluster.kinds.pop("/apis/lab.example/v1")
    resources = parse_resources("lab.example/v1:Gateway\nv1:Pod")
    async with watches(cluster, config(resources=resources)) as source:
        cluster.kinds["/apis/lab.example/v1"] = kinds
        cluster.put("gateways", "g")
        await source.settled()
    assert source.told == ["add ns/g"]
    assert source.sink.events[0].subject == "/apis/lab.example/v1/namespaces/ns/gatewaies/g"


@pytest.mark.looptime
async def test_without_permission_it_is_not_ready_until_it_has_it() -> None:
    cluster = FakeCluster(standing={"/pods": ApiError(403, "Forbidden", "no")})
    sink, is_ready = FakeSink(), asyncio.Event()
    of = config()
    teller = Teller(sink, of, Origin(source="s", namespace="n", name="n", mode=Mode.REFERENCE), SystemClock(), None)
    task = asyncio.create_task(Watches(cluster, of, teller, WatchCounters(), is_ready.set).run())
    await asyncio.sleep(300)
    assert not is_ready.is_set()
    cluster.standing.clear()
    await is_ready.wait()
    task.cancel()
    await asyncio.wait({task})


async def test_what_is_told_while_one_kind_may_not_be_read_is_put_down_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wellhead_adapters.apiserver.teller._WRITE_SECONDS", 0.01)
    written, write = asyncio.Event(), StateFile.write

    async def noted(self: StateFile, *, at_once: bool = False) -> None:
        await write(self, at_once=at_once)
        if not at_once and " pond " in (tmp_path / "state").read_text():
            written.set()

    monkeypatch.setattr(StateFile, "write", noted)
    cluster = FakeCluster(standing={"/secrets": ApiError(403, "Forbidden", "secrets is forbidden")})
    cluster.put("pods", "pond")
    async with fake_api_server(cluster) as server:
        of = config(
            resources=parse_resources("v1:Pod\nv1:Secret"),
            server=server.url,
            state_file=tmp_path / "state",
            initial=Initial.ADD,
        )
        running = asyncio.create_task(ApiServer(of).run(FakeSink(), pytest.fail))
        async with asyncio.timeout(10):
            await written.wait()
        running.cancel()
        await asyncio.wait({running})


@pytest.mark.looptime
@pytest.mark.parametrize(
    "standing", [{"/pods": ApiError(403, "Forbidden", "no")}, {"/api/v1": ApiError(401, "Unauthorized", "no")}]
)
async def test_told_to_fail_fast_it_ends_with_what_is_missing(standing: dict[str, ApiError]) -> None:
    with pytest.raises(BaseExceptionGroup) as caught:
        async with watches(FakeCluster(standing=standing), config(fail_fast=True)):
            pass
    assert caught.group_contains(GaveUp, match="no|40")


@pytest.mark.looptime
async def test_initial_objects_are_told_where_that_is_wanted() -> None:
    cluster = FakeCluster()
    cluster.put("pods", "a")
    async with watches(cluster, config(initial=Initial.ADD)) as source:
        await source.settled()
    assert source.told == ["add ns/a"]


@pytest.mark.looptime
async def test_filters_and_settings_decide_what_is_sent() -> None:
    given = '{"namespaces":["ns"],"resources":[{"gvr":{"Version":"v1","Resource":"pods"},"selector":"app=web"}],"mode":"Reference",'
    given += '"filters":[{"exact":{"type":"dev.knative.apiserver.ref.update"}},{"not":{"suffix":{"name":"x"}}}]}'
    cluster = FakeCluster()
    of = ApiServerConfig(source_config=parse_source_config(given), namespace="ns", name="source", name_pattern="?")
    async with watches(cluster, of) as source:
        for name in ("a", "x", "no"):
            for _ in range(2):
                cluster.put("pods", name, metadata={"labels": {"app": "web"}})
        cluster.put("pods", "b")
        await source.settled()
    assert source.told == ["update ns/a"]


@pytest.mark.looptime
async def test_what_is_copied_from_outside_of_the_metadata_is_there_in_reference_mode_too() -> None:
    cluster = FakeCluster()
    async with watches(cluster, config(copies=(("node", ("spec", "nodeName")),))) as source:
        cluster.put("pods", "a", spec={"nodeName": "n1"})
        await source.settled()
    assert source.sink.events[0].extensions["node"] == "n1"


# --- order and flow ---


@pytest.mark.looptime
async def test_lanes_keep_the_order_of_a_key_run_keys_side_by_side_and_hold_no_more_than_they_may() -> None:
    chance = random.Random(7)
    running_now: set[str] = set()
    done: list[tuple[str, int]] = []
    most = 0

    async def work(item: tuple[str, int]) -> None:
        nonlocal most
        assert item[0] not in running_now
        running_now.add(item[0])
        most = max(most, len(running_now))
        await asyncio.sleep(chance.random())
        running_now.discard(item[0])
        done.append(item)

    lanes = Lanes(work, at_once=4, held=6, held_octets=1000, name="test")
    put = [(chance.choice("abcdefgh"), number) for number in range(200)]
    for number, item in enumerate(put):
        await lanes.put(item[0], item, 1)
        assert number + 1 - len(done) <= 10
    assert await lanes.settle(1000) == 0
    assert most == 4
    assert {key: [number for of, number in done if of == key] for key in "abcdefgh"} == {
        key: [number for of, number in put if of == key] for key in "abcdefgh"
    }


@pytest.mark.looptime
async def test_lanes_bound_octets_and_take_one_item_of_any_size() -> None:
    go_on = asyncio.Event()

    async def work(_: int) -> None:
        await go_on.wait()

    lanes = Lanes(work, at_once=4, held=100, held_octets=10, name="test")
    await lanes.put("a", 1, 1000)
    second = asyncio.create_task(lanes.put("b", 2, 1))
    await asyncio.sleep(1)
    assert not second.done()
    go_on.set()
    await second
    assert await lanes.settle(1) == 0


@pytest.mark.looptime
async def test_lanes_tell_what_they_did_not_begin_and_raise_what_left_the_work() -> None:
    async def work(item: int) -> None:
        if item == 0:
            raise RuntimeError("broken")
        await asyncio.sleep(1000)

    lanes = Lanes(work, at_once=1, held=10, held_octets=10, name="test")
    for number in (1, 2, 3):
        await lanes.put(str(number), number, 1)
    assert await lanes.settle(2) == 2
    lanes = Lanes(work, at_once=1, held=10, held_octets=10, name="test")
    await lanes.put("a", 0, 1)
    with pytest.raises(RuntimeError, match="broken"):
        await lanes.failure()


async def test_changes_of_an_object_arrive_in_order_and_objects_do_not_wait_for_each_other() -> None:
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        go_on = asyncio.Event()
        sink.then(Answer(202, until=go_on))
        adapter = ApiServer(config(server=server.url, data=Mode.RESOURCE), environment={})
        async with running(adapter, sink.url) as it:
            await it.ready()
            server.cluster.put("pods", "slow", spec={"n": 1})
            await sink.came(1)
            server.cluster.put("pods", "slow", spec={"n": 2})
            server.cluster.put("pods", "quick", spec={"n": 3})
            server.cluster.remove("pods", "slow")
            await sink.accepted(1)
            assert [event.extensions["name"] for event in sink.events] == ["quick"]
            go_on.set()
            events = await sink.accepted(4)
    slow = [
        (event.type.rpartition(".")[2], json.loads(event.data or b"")["spec"])
        for event in events
        if event.extensions["name"] == "slow"
    ]
    assert slow == [("add", {"n": 1}), ("update", {"n": 2}), ("delete", {"n": 2})]


async def test_ordering_by_watch_sends_one_after_another_as_upstream() -> None:
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        sink.then(Answer(503), Answer(503))
        async with running(
            ApiServer(config(server=server.url, ordering=Ordering.WATCH), environment={}), sink.url
        ) as it:
            await it.ready()
            for number in range(20):
                server.cluster.put("pods", f"p{number}")
            events = await sink.accepted(20)
    assert [event.extensions["name"] for event in events] == [f"p{number}" for number in range(20)]


async def test_a_sink_that_is_slow_stops_the_reading_and_a_list_repairs_what_the_server_forgot_meanwhile() -> None:
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        go_on = asyncio.Event()
        sink.always(Answer(202, until=go_on))
        of = config(server=server.url, in_flight=1, queue=1)
        async with running(ApiServer(of, environment={}), sink.url) as it:
            await it.ready()
            for number in range(30):
                server.cluster.put("pods", f"p{number}")
            await sink.came(1)
            server.cluster.forget_history()
            server.cluster.remove("pods", "p29")
            server.cluster.forget_history()
            server.cluster.break_streams()
            assert len(sink.tried) == 1
            go_on.set()
            sink.always(Answer(202))
            while replayed(sink) != {f"p{number}" for number in range(29)}:
                await sink.accepted(len(sink.events) + 1)
    assert not sink.invalid


def replayed(sink: RecordingSink) -> set[str]:
    """The objects that there are, to one who only knows the events."""
    there: set[str] = set()
    for event in sink.events:
        name = str(event.extensions["name"])
        (there.discard if event.type.endswith("delete") else there.add)(name)
    return there


async def test_the_api_server_may_go_away_and_come_back() -> None:
    cluster = FakeCluster()
    async with asyncio.timeout(IN_TIME), RecordingSink() as sink:
        async with fake_api_server(cluster) as server:
            port = int(server.url.rpartition(":")[2])
            source = running(ApiServer(config(server=server.url), environment={}), sink.url)
            it = await source.__aenter__()
            await it.ready()
        cluster.put("pods", "meanwhile")
        async with fake_api_server(cluster, port=port):
            await sink.accepted(1)
            await source.__aexit__(None, None, None)
    assert [event.extensions["name"] for event in sink.events] == ["meanwhile"]


async def test_an_update_tells_what_was_before_where_that_is_wanted() -> None:
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        server.cluster.put("pods", "a", spec={"n": 1})
        of = config(server=server.url, data=Mode.RESOURCE, update_data=UpdateData.PATCH, drop_managed_fields=True)
        async with running(ApiServer(of, environment={}), sink.url) as it:
            await it.ready()
            server.cluster.put("pods", "a", spec={"n": 2})
            (event,) = await sink.accepted(1)
    said = json.loads(event.data or b"")
    assert (said["old"]["spec"], said["object"]["spec"]) == ({"n": 1}, {"n": 2})
    assert {"op": "replace", "path": "/spec/n", "value": 2} in said["patch"]


# --- what a restart knows ---


@pytest.mark.parametrize("forgets", [False, True], ids=["resumed", "relisted"])
async def test_a_restart_tells_what_happened_meanwhile_and_repeats_nothing(tmp_path: Path, forgets: bool) -> None:  # noqa: FBT001
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        of = config(server=server.url, state_file=tmp_path / "state")
        cluster = server.cluster
        for name in "ab":
            cluster.put("pods", name)
        async with running(ApiServer(of, environment={}), sink.url) as it:
            await it.ready()
            cluster.put("pods", "c")
            await sink.accepted(1)
        cluster.put("pods", "a")
        cluster.put("pods", "d")
        cluster.remove("pods", "b")
        cluster.put("pods", "b")
        if forgets:
            cluster.forget_history()
        async with running(ApiServer(of, environment={}), sink.url) as it:
            await it.ready()
            await sink.accepted(5)
        async with running(ApiServer(of, environment={}), sink.url) as it:
            await it.ready()
            cluster.put("pods", "e")
            await sink.accepted(6)
    told = [words(event) for event in sink.events]
    assert (told[0], told[5]) == ("add ns/c", "add ns/e")
    assert sorted(told[1:5]) == ["add ns/b", "add ns/d", "delete ns/b", "update ns/a"]
    assert told.index("delete ns/b") < told.index("add ns/b")


async def test_what_was_not_accepted_before_a_crash_comes_again_with_the_same_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wellhead_adapters.apiserver.adapter._SETTLE_SECONDS", 0.01)
    of = {"state_file": tmp_path / "state"}
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        async with running(ApiServer(config(server=server.url, **of), environment={}), sink.url, grace=0.01) as it:
            await it.ready()
            server.cluster.put("pods", "first")
            await sink.accepted(1)
            sink.always(Answer(503))
            server.cluster.put("pods", "second")
            await sink.came(2)
        tried = sink.tried[-1]
        sink.always(Answer(202))
        async with running(ApiServer(config(server=server.url, **of), environment={}), sink.url):
            events = await sink.accepted(2)
    assert [event.extensions["name"] for event in events] == ["first", "second"]
    assert events[1].id == tried.id


@pytest.mark.looptime
async def test_an_event_that_was_not_accounted_for_holds_the_position_back(tmp_path: Path) -> None:
    cluster = FakeCluster()
    of = config(state_file=tmp_path / "state")
    state = StateFile(tmp_path / "state")
    sink = FakeSink()
    is_ready = asyncio.Event()
    teller = Teller(sink, of, Origin(source="s", namespace="n", name="n", mode=Mode.REFERENCE), SystemClock(), state)
    task = asyncio.create_task(Watches(cluster, of, teller, WatchCounters(), is_ready.set).run())
    await is_ready.wait()
    sink.lose(Loss.REFUSED, Loss.STOPPED)
    before = cluster.revision
    for name in "abc":
        cluster.put("pods", name)
    await asyncio.sleep(5)
    await teller.write()
    task.cancel()
    await asyncio.wait({task})
    saved = StateFile(tmp_path / "state").take("pods of v1 in ns")
    assert saved is not None
    assert saved.version == str(before + 1)
    assert [seen.name for seen in saved.index or ()] == ["a", "c"]


@pytest.mark.looptime
@pytest.mark.parametrize("forgets", [False, True], ids=["resumed", "relisted"])
@pytest.mark.parametrize(
    "of",
    [{"ignored": parse_ignored("status")}, {"operations": frozenset({Operation.ADD, Operation.DELETE})}],
    ids=["ignored", "not wanted"],
)
async def test_an_update_that_is_not_told_does_not_get_ahead_of_an_event_that_the_sink_did_not_take_yet(
    tmp_path: Path,
    of: dict[str, Any],
    forgets: bool,  # noqa: FBT001
) -> None:
    cluster = FakeCluster()
    async with watches(cluster, config(**of), StateFile(tmp_path / "state"), SinkAway()) as source:
        cluster.put("pods", "p", spec={"node": 1})
        for phase in ("Pending", "Running"):
            cluster.put("pods", "p", spec={"node": 1}, status={"phase": phase})
        await source.settled()
        await source.teller.write()
    if forgets:
        cluster.forget_history()
    for turn in ("first", "second"):
        async with watches(cluster, config(**of), StateFile(tmp_path / "state")) as source:
            await source.settled()
            await source.teller.write()
            assert source.told == (["add ns/p"] if turn == "first" else [])


async def test_a_change_that_no_event_can_say_is_told_and_holds_up_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        asyncio.timeout(IN_TIME),
        fake_api_server() as server,
        RecordingSink() as sink,
        running(ApiServer(config(server=server.url), environment={}), sink.url) as it,
    ):
        await it.ready()
        server.cluster.put("pods", "bell\a")
        server.cluster.put("pods", "a")
        await sink.accepted(1)
    assert replayed(sink) == {"a"}
    assert "a change is lost: no event can say it" in caplog.text


def test_a_ledger_that_starts_over_has_no_position_until_all_is_settled() -> None:
    ledger = Ledger("5")
    first = ledger.begin()
    ledger.reach("6")
    ledger.start_over()
    second = ledger.begin()
    ledger.reach("9")
    assert ledger.position == ""
    ledger.settle(first)
    assert ledger.position == ""
    ledger.settle(second)
    assert ledger.position == "9"


def test_a_ledger_stands_before_the_first_that_is_not_settled() -> None:
    ledger = Ledger("5")
    first = ledger.begin()
    ledger.reach("6")
    second = ledger.begin()
    ledger.reach("7")
    assert ledger.position == "5"
    ledger.settle(second)
    assert ledger.position == "5"
    ledger.settle(first)
    assert ledger.position == "7"


def test_the_changes_of_an_object_are_put_down_in_the_order_they_came() -> None:
    down: list[tuple[Operation, str]] = []
    turns = Turns(lambda operation, seen: down.append((operation, seen.version)))

    def pod(version: str) -> Seen:
        return Seen("ns", "p", "uid", version)

    turns.skip(Operation.UPDATE, pod("1"))
    assert down == [(Operation.UPDATE, "1")]
    down.clear()
    turns.begin(1, Operation.ADD, pod("2"))
    turns.skip(Operation.UPDATE, pod("3"))
    turns.skip(Operation.UPDATE, pod("4"))
    turns.begin(2, Operation.UPDATE, pod("5"))
    turns.begin(3, Operation.DELETE, pod("6"))
    turns.skip(Operation.ADD, Seen("ns", "another", "uid", "7"))
    assert down == [(Operation.ADD, "7")]
    down.clear()
    turns.settle(2, pod("5"))
    assert down == []
    turns.settle(1, pod("2"))
    assert down == [(Operation.ADD, "2"), (Operation.UPDATE, "4"), (Operation.UPDATE, "5")]
    turns.settle(3, pod("6"))
    assert down[3:] == [(Operation.DELETE, "6")]
    turns.skip(Operation.ADD, pod("8"))
    assert down[4:] == [(Operation.ADD, "8")]


async def test_a_state_file_gives_back_what_it_was_given_and_stays_small(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wellhead_adapters.apiserver.state._SPARE_LINES", 50)
    path = tmp_path / "state"
    state = StateFile(path)
    objects = [Seen(namespace, f"a {number} é%", f"uid-{number}", str(number), digest)
               for number, (namespace, digest) in enumerate([("", ""), ("ns", "d"), ("ns", "")])]  # fmt: skip
    for turn in range(100):
        for seen in objects:
            state.put("a watch (app=web)", seen._replace(version=str(turn)))
        state.put("other", objects[0])
        state.remove("other", objects[0])
        state.position("a watch (app=web)", str(turn))
        await state.write()
    with path.open("a") as file:
        file.write("+ 0 ns torn")
    again = StateFile(path)
    saved = again.take("a watch (app=web)")
    assert saved is not None
    assert saved.version == "99"
    assert list(saved.index or ()) == [seen._replace(version="99") for seen in objects]
    assert again.take("a watch (app=web)") is None
    assert again.take("other") is None, "its first list never ended"
    assert len(path.read_text().splitlines()) < 250


async def test_a_state_file_forgets_a_list_that_never_ended_and_a_position_that_counts_for_nothing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "state"
    state = StateFile(path)
    state.put("w", Seen("ns", "gone", "uid-gone", "1"))
    await state.write()
    state = StateFile(path)
    assert state.take("w") is None
    state.put("w", Seen("ns", "a", "uid-a", "1"))
    state.position("w", "7")
    await state.write()
    saved = StateFile(path).take("w")
    assert saved is not None
    assert [seen.name for seen in saved.index or ()] == ["a"]
    state.start_over("w")
    await state.write()
    assert StateFile(path).take("w") is None


async def test_a_state_file_that_a_full_disk_cut_short_is_whole_again_when_there_is_room(tmp_path: Path) -> None:
    path = tmp_path / "state"
    state = StateFile(path)
    state.put("w", Seen("ns", "a", "uid-a", "1"))
    state.position("w", "1")
    await state.write()
    for number in range(100):
        state.put("w", Seen("ns", f"name-{number}", f"uid-{number}", "2"))
    state.position("w", "2")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 1001, before[1]))  # in the middle of a line
    try:
        with pytest.raises(ConfigError, match="cannot be written"):
            await state.write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    await state.write()
    saved = StateFile(path).take("w")
    assert saved is not None
    assert (len(saved.index or ()), saved.version) == (101, "2")


@pytest.mark.parametrize(
    "content",
    ["", "{}", "wellhead-apiserver-1\n* 1\n", "wellhead-apiserver-1\n+ 9 a b c d e\n", "wellhead-apiserver-1\n= 0\n"],
)
def test_a_state_file_that_is_none_of_ours_is_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "state"
    path.write_text(content)
    with pytest.raises(ConfigError, match="APISERVER_STATE_FILE"):
        StateFile(path)
    assert path.read_text() == content


def test_a_state_file_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        StateFile(tmp_path / "missing" / "state")


async def test_what_a_gap_swallowed_is_counted() -> None:
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        adapter = ApiServer(config(server=server.url), environment={})
        async with running(adapter, sink.url) as it:
            await it.ready()
            server.cluster.streams.clear()
            server.cluster.put("pods", "a")
            server.cluster.forget_history()
            for connection in tuple(server.connections):
                connection.abort()
            await sink.accepted(1)
    counted = {(name, *labels): value for metric in adapter.metrics() for name, labels, value in metric.samples}
    assert counted["wellhead_watch_found_total", ("operation", "add")] == 1
    assert counted[("wellhead_watch_lists_total",)] == 2
    readme = (Path(__file__).parents[1] / "adapters/wellhead_adapters/apiserver/README.md").read_text()
    assert all(f"`{metric.name}`" in readme for metric in adapter.metrics())


# --- the program ---


async def test_the_program_runs_from_knatives_environment_and_ends_on_sigterm() -> None:
    import signal

    given = (
        '{"namespaces":["ns"],"resources":[{"gvr":{"Group":"","Version":"v1","Resource":"pods"}}],"mode":"Reference"}'
    )
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        env = {"K_SINK": sink.url, "K_SOURCE_CONFIG": given, "NAME": "as1", "NAMESPACE": "ns", "HEALTH_PORT": "0",
               "K_CE_OVERRIDES": '{"extensions":{"team":"lab"}}', "KUBERNETES_SERVER": server.url}  # fmt: skip
        async with started(*APISERVER, env=env) as program:
            await program.stderr.line("source is ready")
            server.cluster.put("pods", "a")
            (event,) = await sink.accepted(1)
            program.send(signal.SIGTERM)
            assert await program.ended() == 0
    assert event.extensions["team"] == "lab"
    assert event.source == server.url
    assert dict(sink.requests[0].request.headers)[b"kn-namespace"] == b"ns"


async def test_the_program_tells_all_that_is_wrong_without_a_traceback() -> None:
    env = {"K_SINK": "x", "K_SOURCE_CONFIG": "{}", "HOME": "/nowhere"}
    async with started(*APISERVER, env=env) as program:
        assert await program.ended() == 2
        said = program.stderr.text
    assert "Traceback" not in said
    assert [part in said for part in ("K_SINK", "resources: names no resource", "namespaces: names none")] == [True] * 3


async def test_without_an_api_server_the_program_says_how_to_name_one() -> None:
    env = {"K_SINK": "http://127.0.0.1:1", "RESOURCES": "v1:Pod", "HOME": "/nowhere"}
    async with started(*APISERVER, env=env) as program:
        assert await program.ended() == 2
        assert "--kubeconfig" in program.stderr.text
        assert "Traceback" not in program.stderr.text


def test_help_needs_no_api_server_and_loads_nothing_heavy() -> None:
    import subprocess

    code = "import sys, wellhead_adapters.apiserver.adapter; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=dict(os.environ)
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"aiohttp", "kubernetes_asyncio", "yaml"}


async def test_wellhead_run_runs_the_tutorials_source_with_a_kubeconfig(tmp_path: Path) -> None:
    import yaml

    manifest = Path(__file__).parents[1] / "manifests/apiserversource.yaml"
    async with asyncio.timeout(IN_TIME), fake_api_server() as server, RecordingSink() as sink:
        server.tokens = {"secret"}
        kubeconfig = {
            "clusters": [{"name": "c", "cluster": {"server": server.url}}],
            "users": [{"name": "u", "user": {"token": "secret"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        (tmp_path / "config").write_text(yaml.safe_dump(kubeconfig))
        env = {"KUBECONFIG": str(tmp_path / "config"), "HOME": str(tmp_path)}
        words = ("run", "-f", str(manifest), "--sink", sink.url, "--health-port", "0")
        async with started(WELLHEAD, *words, env=env) as program:
            await program.stderr.line("source is ready")
            server.cluster.put("pods", "a", "default", spec={"x": 1})
            (event,) = await sink.accepted(1)
            assert "secret" not in program.stderr.text + program.stdout.text
    assert (event.type, event.source) == ("dev.knative.apiserver.resource.add", server.url)
    assert json.loads(event.data or b"")["spec"] == {"x": 1}
