"""One watch that misses nothing, whatever happens to the server: against a fake cluster in memory, in loop time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from tests.fake_cluster import FakeCluster

from wellhead.kubernetes.change import Change, Operation
from wellhead.kubernetes.discovery import Discovery
from wellhead.kubernetes.errors import BROKEN, CONNECT, GARBLED, SILENT, TLS, ApiError
from wellhead.kubernetes.index import Index, Seen
from wellhead.kubernetes.kinds import Gvr
from wellhead.kubernetes.reflector import GaveUp, Manner, Reflector, Scope, WatchCounters

PODS = Gvr("", "v1", "pods")
GATEWAYS = Gvr("lab.example", "v1", "gatewaies")
GONE = ApiError(410, "Expired", "too old resource version: 1 (2)")

pytestmark = pytest.mark.looptime


@dataclass
class Recorder:
    """A receiver that keeps what it is told, and what that comes to."""

    changes: list[Change] = field(default_factory=list)
    state: dict[tuple[str, str], str] = field(default_factory=dict)
    noted: dict[tuple[str, str], str] = field(default_factory=dict)
    version: str = ""
    over: int = 0
    is_ready: asyncio.Event = field(default_factory=asyncio.Event)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, change: Change) -> None:
        self.changes.append(change)
        seen = change.seen
        if change.operation is Operation.DELETE:
            self.state.pop((seen.namespace, seen.name), None)
        else:
            self.state[seen.namespace, seen.name] = seen.version
        self.news.set()

    def note(self, seen: Seen) -> None:
        self.noted[seen.namespace, seen.name] = seen.version

    def start_over(self) -> None:
        self.version = ""
        self.over += 1

    def reach(self, version: str) -> None:
        self.version = version
        self.news.set()

    def ready(self) -> None:
        self.is_ready.set()

    @property
    def told(self) -> list[str]:
        return [f"{change.operation.value} {change.seen.name}" for change in self.changes]

    async def until(self, cluster: FakeCluster) -> None:
        """Return once it has come as far as the cluster."""
        while self.version != str(cluster.revision):
            self.news.clear()
            await self.news.wait()


@asynccontextmanager
async def watching(
    cluster: FakeCluster, *, gvr: Gvr = PODS, namespace: str = "", manner: Manner | None = None, **more: Any
) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    selector = more.pop("label_selector", "")
    scope = Scope(gvr=gvr, namespace=namespace, label_selector=selector)
    reflector = Reflector(
        cluster, Discovery(cluster), scope, recorder, manner=manner or Manner(), **{"announce": False, **more}
    )
    task = asyncio.create_task(reflector.run(), name="watch under test")
    ready = asyncio.create_task(recorder.is_ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    ready.cancel()
    if task.done():
        await task
    try:
        yield recorder
    finally:
        task.cancel()
        await asyncio.wait({task})
        if not task.cancelled():
            task.result()


def truth(cluster: FakeCluster, resource: str = "pods") -> dict[tuple[str, str], str]:
    return {
        (namespace, name): body["metadata"]["resourceVersion"]
        for (of, namespace, name), body in cluster.objects.items()
        if of == resource
    }


WAYS = pytest.mark.parametrize("watch_lists", [True, False], ids=["watch list", "pages"])


# --- a saved position ---


@WAYS
async def test_a_saved_position_that_is_ahead_of_the_server_is_told_aloud_and_listed_instead(
    watch_lists: bool,  # noqa: FBT001
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = FakeCluster(watch_lists=watch_lists)
    kept = cluster.put("pods", "kept")
    index = Index()
    index.put(Seen("ns", "kept", kept["metadata"]["uid"], str(cluster.revision + 50_000)))
    index.put(Seen("ns", "of another cluster", "uid", "7"))
    cluster.put("pods", "unknown")
    async with watching(cluster, index=index, version=str(cluster.revision + 100_000)) as recorder:
        cluster.put("pods", "kept")
        cluster.put("pods", "later")
        cluster.remove("pods", "unknown")
        await recorder.until(cluster)
    assert sorted(recorder.told[:3]) == ["add unknown", "delete of another cluster", "update kept"]
    assert recorder.told[3:] == ["update kept", "add later", "delete unknown"]
    assert recorder.state == truth(cluster)
    assert caplog.text.count("the saved position is ahead of the server") == 1


async def test_a_saved_position_ahead_of_the_server_without_an_index_leaves_its_watch_to_start_over() -> None:
    cluster = FakeCluster()
    async with watching(cluster, version=str(cluster.revision + 100_000)) as recorder:
        cluster.put("pods", "a")
        await recorder.until(cluster)
    assert (recorder.told, recorder.over) == (["add a"], 1)


async def test_a_restored_object_that_changed_in_nothing_that_counts_is_noted_in_the_version_it_has_now() -> None:
    cluster = FakeCluster()
    pod = cluster.put("pods", "a", spec={"x": 1})
    index = Index()
    index.put(Seen("ns", "a", pod["metadata"]["uid"], str(cluster.revision + 50_000), "same"))
    manner = Manner(digest=lambda _: "same")
    async with watching(cluster, index=index, version=str(cluster.revision + 100_000), manner=manner) as recorder:
        await recorder.until(cluster)
    assert (recorder.told, recorder.noted) == ([], truth(cluster))


@pytest.mark.parametrize("status", [403, 405, 406, 429, 503, 0])
async def test_where_the_server_does_not_say_how_far_it_is_a_saved_position_is_resumed(status: int) -> None:
    cluster = FakeCluster(faults=[("limit=1", ApiError(status, BROKEN if not status else "", "not now"))])
    since = str(cluster.revision)
    cluster.put("pods", "a")
    async with watching(cluster, index=Index(), version=since) as recorder:
        await recorder.until(cluster)
    assert recorder.told == ["add a"]
    assert not any("sendInitialEvents" in request or "limit=500" in request for request in cluster.requests)


async def test_how_far_the_server_is_is_asked_once_and_only_where_a_position_was_saved() -> None:
    cluster = FakeCluster()
    for version, times in (("", 0), (str(cluster.revision), 1)):
        async with watching(cluster, index=Index() if version else None, version=version) as recorder:
            cluster.put("pods", "a")
            await recorder.until(cluster)
            cluster.break_streams()
            cluster.put("pods", "a")
            await recorder.until(cluster)
        assert sum("limit=1" in request for request in cluster.requests) == times


async def test_a_gap_after_a_position_without_an_index_is_told_once_however_often_the_list_breaks_off() -> None:
    cluster = FakeCluster(watch_lists=False)
    cluster.put("pods", "a")
    async with watching(cluster, version=str(cluster.revision)) as recorder:
        cluster.put("pods", "b")
        await recorder.until(cluster)
        cluster.faults = [("limit=500", ApiError(0, BROKEN, "the connection broke"))] * 3
        for lists in (4, 5):
            cluster.forget_history()
            cluster.break_streams(GONE)
            await cluster.asked("limit=500", lists)
            cluster.put("pods", "c")
            await recorder.until(cluster)
    assert recorder.over == 1


async def test_a_gap_is_no_reason_to_start_over_where_there_is_an_index_or_no_position() -> None:
    cluster = FakeCluster(watch_lists=False)
    cluster.put("pods", "a")
    saved: tuple[dict[str, Any], ...] = ({}, {"version": str(cluster.revision), "index": Index()})
    for position in saved:
        async with watching(cluster, **position) as recorder:
            cluster.requests.clear()
            cluster.break_streams(GONE)
            await cluster.asked("limit=500")
            cluster.put("pods", "b")
            await recorder.until(cluster)
        assert not recorder.over


# --- the start ---


@WAYS
async def test_what_is_there_at_the_start_is_not_told_as_upstream(watch_lists: bool) -> None:  # noqa: FBT001
    cluster = FakeCluster(watch_lists=watch_lists, page=2)
    for name in "abcde":
        cluster.put("pods", name)
    async with watching(cluster) as recorder:
        cluster.put("pods", "f")
        cluster.put("pods", "a")
        cluster.remove("pods", "b")
        await recorder.until(cluster)
    assert recorder.told == ["add f", "update a", "delete b"]
    assert recorder.noted.keys() == {("ns", name) for name in "abcde"}


@WAYS
async def test_what_is_there_at_the_start_is_told_as_added_where_that_is_wanted(watch_lists: bool) -> None:  # noqa: FBT001
    cluster = FakeCluster(watch_lists=watch_lists, page=2)
    for name in "abc":
        cluster.put("pods", name)
    async with watching(cluster, announce=True) as recorder:
        await recorder.until(cluster)
    assert recorder.told == ["add a", "add b", "add c"]
    assert all(change.object["kind"] == "Pod" and change.object["apiVersion"] == "v1" for change in recorder.changes)


async def test_a_server_without_watch_lists_is_listed_by_pages_and_not_asked_for_one_again() -> None:
    cluster = FakeCluster(watch_lists=False)
    async with watching(cluster) as recorder:
        cluster.forget_history()
        cluster.revision += 1
        cluster.forget_history()
        cluster.break_streams(GONE)
        cluster.put("pods", "a")
        await recorder.until(cluster)
    assert recorder.told == ["add a"]
    assert sum("sendInitialEvents" in request for request in cluster.requests) == 1


# --- gaps ---


@WAYS
async def test_after_a_gap_what_was_added_changed_and_deleted_is_told(watch_lists: bool) -> None:  # noqa: FBT001
    cluster = FakeCluster(watch_lists=watch_lists, page=2)
    for name in "abcd":
        cluster.put("pods", name)
    async with watching(cluster) as recorder:
        streams = tuple(cluster.streams)
        cluster.streams.clear()
        cluster.put("pods", "a")
        cluster.put("pods", "a")
        cluster.remove("pods", "b")
        cluster.remove("pods", "c")
        cluster.put("pods", "c")
        cluster.put("pods", "e")
        cluster.put("pods", "f")
        cluster.remove("pods", "f")
        cluster.forget_history()
        for stream in streams:
            stream.end()
        await recorder.until(cluster)
    assert sorted(recorder.told) == ["add c", "add e", "delete b", "delete c", "update a"]
    assert recorder.told.index("delete c") < recorder.told.index("add c")
    assert all(change.found for change in recorder.changes)
    assert {key: recorder.state[key] for key in (("ns", "a"), ("ns", "c"))} == {
        key: version for key, version in truth(cluster).items() if key[1] in "ac"
    }


async def test_what_changes_before_a_watch_list_has_ended_is_told() -> None:
    cluster = FakeCluster()
    for name in "abcd":
        cluster.put("pods", name)
    async with watching(cluster) as recorder:
        streams = tuple(cluster.streams)
        cluster.streams.clear()
        cluster.put("pods", "b")
        cluster.remove("pods", "d")
        cluster.forget_history()
        cluster.meanwhile = [
            lambda: cluster.put("pods", "a"),
            lambda: cluster.remove("pods", "b"),
            lambda: cluster.put("pods", "e"),
            lambda: cluster.remove("pods", "c"),
            lambda: cluster.put("pods", "c"),
        ]
        for stream in streams:
            stream.end(GONE)
        await cluster.asked("sendInitialEvents", 2)
        await recorder.until(cluster)
    assert recorder.told[-1] == "delete d"
    assert recorder.told[:-1] == ["update b", "update a", "delete b", "add e", "delete c", "add c"]
    assert recorder.state == {key: version for key, version in truth(cluster).items() if key[1] in "ace"}


async def test_what_changes_before_the_first_watch_list_has_ended_is_known_from_then_on() -> None:
    cluster = FakeCluster()
    for name in "ab":
        cluster.put("pods", name)
    cluster.meanwhile = [lambda: cluster.put("pods", "a"), lambda: cluster.remove("pods", "b")]
    async with watching(cluster) as recorder:
        cluster.forget_history()
        cluster.break_streams(GONE)
        cluster.put("pods", "c")
        await recorder.until(cluster)
    assert recorder.told == ["delete b", "add c"]


async def test_a_delete_that_a_list_found_tells_the_last_version_known() -> None:
    cluster = FakeCluster()
    made = cluster.put("pods", "a")
    cluster.remove("pods", "a")
    cluster.forget_history()
    known = Index()
    known.put(Seen("ns", "a", made["metadata"]["uid"], made["metadata"]["resourceVersion"]))
    async with watching(cluster, index=known, version="1") as recorder:
        await recorder.until(cluster)
    (change,) = recorder.changes
    assert change.operation is Operation.DELETE
    assert change.object == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": "a",
            "namespace": "ns",
            "resourceVersion": made["metadata"]["resourceVersion"],
            "uid": made["metadata"]["uid"],
        },
    }


async def test_a_stream_that_ends_as_it_should_is_resumed_without_a_list() -> None:
    cluster = FakeCluster()
    async with watching(cluster) as recorder:
        for number in range(5):
            cluster.put("pods", f"a{number}")
            await recorder.until(cluster)
            cluster.break_streams()
            cluster.put("pods", f"b{number}")
            await recorder.until(cluster)
    assert len(recorder.told) == 10
    assert sum("sendInitialEvents" in request for request in cluster.requests) == 1


@pytest.mark.parametrize("reason", [SILENT, BROKEN, CONNECT, TLS, GARBLED])
async def test_a_stream_that_breaks_is_resumed_and_loses_nothing(reason: str) -> None:
    cluster = FakeCluster()
    async with watching(cluster) as recorder:
        cluster.put("pods", "a")
        await recorder.until(cluster)
        streams = tuple(cluster.streams)
        cluster.streams.clear()
        cluster.put("pods", "b")
        cluster.faults = [("resourceVersion=", ApiError(0, reason, "…"))] * 3
        for stream in streams:
            stream.end(ApiError(0, reason, "…"))
        await recorder.until(cluster)
    assert recorder.told == ["add a", "add b"]
    assert sum("sendInitialEvents" in request for request in cluster.requests) == 1


@pytest.mark.parametrize(
    "error",
    [
        ApiError(401, "Unauthorized", "token expired"),
        ApiError(403, "Forbidden", "pods is forbidden"),
        ApiError(429, "TooManyRequests", "slow down", retry_after=3),
        ApiError(500, "InternalError", "etcdserver: leader changed"),
        ApiError(503, "ServiceUnavailable", "going down"),
        ApiError(504, "Timeout", "Too large resource version"),
        GONE,
    ],
    ids=lambda error: error.reason,
)
@pytest.mark.parametrize("times", [1, 4, 9])
async def test_whatever_a_server_answers_nothing_is_lost(error: ApiError, times: int) -> None:
    cluster = FakeCluster()
    async with watching(cluster) as recorder:
        streams = tuple(cluster.streams)
        cluster.streams.clear()
        cluster.put("pods", "a")
        cluster.faults = [("pods", error)] * times
        for stream in streams:
            stream.end()
        await recorder.until(cluster)
    assert recorder.told == ["add a"]


async def test_a_continue_token_that_expired_begins_the_list_anew_and_repeats_nothing() -> None:
    cluster = FakeCluster(watch_lists=False, page=2)
    for name in "abcde":
        cluster.put("pods", name)
    cluster.faults = [("continue=", GONE)]
    async with watching(cluster, announce=True) as recorder:
        await recorder.until(cluster)
    assert recorder.told == ["add a", "add b", "add c", "add d", "add e"]


@pytest.mark.parametrize(
    "nonsense",
    [b"{", b"[]", b'{"type":"ADDED"}', b'{"type":"ADDED","object":{}}', b'{"type":1,"object":{}}', b"\xff",
     b'{"type":"BOOKMARK","object":{"metadata":{}}}', b'{"type":"MODIFIED","object":{"metadata":{"name":"a"}}}'],
)  # fmt: skip
async def test_a_line_that_is_no_change_ends_the_stream_and_it_is_resumed(nonsense: bytes) -> None:
    cluster = FakeCluster()
    async with watching(cluster) as recorder:
        for stream in tuple(cluster.streams):
            stream.say(nonsense)
        cluster.put("pods", "a")
        await recorder.until(cluster)
    assert recorder.told == ["add a"]
    assert sum("watch=true" in request for request in cluster.requests) == 2


async def test_streams_that_last_are_resumed_at_once_however_many_there_were() -> None:
    cluster = FakeCluster()
    loop = asyncio.get_running_loop()
    async with watching(cluster) as recorder:
        for _ in range(20):
            await asyncio.sleep(300)
            cluster.break_streams()
            before = loop.time()
            await asyncio.sleep(0.01)
            assert cluster.streams, "it is not resumed yet"
            cluster.break_streams(ApiError(0, SILENT, "…"))
            await asyncio.sleep(1)
            assert loop.time() - before < 2
        cluster.put("pods", "a")
        await recorder.until(cluster)
    assert recorder.told == ["add a"]


async def test_the_error_object_of_a_watch_is_what_it_says() -> None:
    cluster = FakeCluster()
    async with watching(cluster) as recorder:
        (stream,) = cluster.streams
        cluster.streams.clear()
        cluster.put("pods", "a")
        status = {
            "kind": "Status",
            "metadata": {},
            "message": "too old resource version",
            "reason": "Gone",
            "code": 410,
        }
        stream.push({"type": "ERROR", "object": status})
        await recorder.until(cluster)
    assert recorder.told == ["add a"]
    assert sum("sendInitialEvents" in request for request in cluster.requests) == 2


async def test_a_server_that_forgets_faster_than_it_lists_is_not_listed_without_a_pause() -> None:
    cluster = FakeCluster(watch_lists=False)
    cluster.put("pods", "a")
    async with watching(cluster) as recorder:
        cluster.faults = [("resourceVersion=", GONE)] * 8
        loop, began = asyncio.get_running_loop(), asyncio.get_running_loop().time()
        cluster.break_streams(GONE)
        cluster.put("pods", "b")
        await cluster.asked("resourceVersion=", 1 + 8 + 1)
        assert loop.time() - began > 5
    assert recorder.told == ["add b"]


async def test_a_server_whose_deletes_say_the_last_version_of_the_object_is_believed() -> None:
    cluster = FakeCluster()
    made = cluster.put("pods", "a")
    async with watching(cluster) as recorder:
        for stream in cluster.streams:
            stream.push({"type": "DELETED", "object": made})
        cluster.put("pods", "b")
        await recorder.until(cluster)
    assert recorder.told == ["delete a", "add b"]


async def test_objects_that_are_announced_at_the_start_were_not_swallowed_by_a_gap() -> None:
    cluster = FakeCluster()
    cluster.put("pods", "a")
    counters = WatchCounters()
    async with watching(cluster, announce=True, counters=counters) as recorder:
        await recorder.until(cluster)
        assert recorder.told == ["add a"]
        assert counters.found[Operation.ADD] == 0
        cluster.forget_history()
        cluster.put("pods", "b")
        cluster.forget_history()
        for stream in tuple(cluster.streams):
            cluster.streams.discard(stream)
            stream.end(GONE)
        cluster.put("pods", "c")
        await recorder.until(cluster)
    assert not recorder.changes[0].found
    assert recorder.changes[-1].found
    assert counters.found[Operation.ADD] == 1


# --- permissions, kinds ---


async def test_a_kind_that_is_not_served_yet_is_waited_for_and_all_of_it_is_new() -> None:
    cluster = FakeCluster()
    kinds = cluster.kinds.pop("/apis/lab.example/v1")
    async with watching(cluster, gvr=GATEWAYS) as recorder:
        cluster.kinds["/apis/lab.example/v1"] = kinds
        cluster.put("gateways", "g")
        await recorder.until(cluster)
    assert recorder.told == ["add g"]
    assert recorder.changes[0].kind.gvr.resource == "gateways"


async def test_a_kind_that_is_taken_away_takes_its_objects_with_it_and_may_come_back() -> None:
    cluster = FakeCluster()
    cluster.put("gateways", "g")
    async with watching(cluster, gvr=GATEWAYS) as recorder:
        kinds = cluster.kinds.pop("/apis/lab.example/v1")
        cluster.objects.clear()
        cluster.break_streams()
        await asyncio.sleep(120)
        assert recorder.told == ["delete g"]
        cluster.kinds["/apis/lab.example/v1"] = kinds
        cluster.put("gateways", "g")
        await recorder.until(cluster)
    assert recorder.told == ["delete g", "add g"]


@pytest.mark.parametrize("status", [401, 403, 404])
async def test_told_to_fail_fast_it_gives_up_where_waiting_would_not_help(status: int) -> None:
    cluster = FakeCluster()
    cluster.standing["pods"] = ApiError(status, "No", "no")
    with pytest.raises(GaveUp, match="pods"):
        async with watching(cluster, manner=Manner(fail_fast=True)):
            pass


async def test_told_to_fail_fast_it_still_survives_what_is_usual() -> None:
    cluster = FakeCluster()
    async with watching(cluster, manner=Manner(fail_fast=True)) as recorder:
        for error in (None, GONE, ApiError(0, BROKEN, "…"), ApiError(503, "ServiceUnavailable", "…")):
            cluster.break_streams(error)
            cluster.put("pods", f"p{cluster.revision}")
            await recorder.until(cluster)
    assert len(recorder.told) == 4


# --- what counts, what is kept ---


async def test_an_object_that_comes_under_the_selector_is_added_and_deleted_when_it_leaves() -> None:
    cluster = FakeCluster()
    cluster.put("pods", "a")
    async with watching(cluster, label_selector="app=web") as recorder:
        cluster.put("pods", "a", metadata={"labels": {"app": "web"}})
        cluster.put("pods", "b")
        cluster.put("pods", "a")
        cluster.bookmark()
        await recorder.until(cluster)
    assert recorder.told == ["add a", "delete a"]


async def test_an_update_that_leaves_what_counts_as_it_was_is_none() -> None:
    cluster = FakeCluster()
    counters = WatchCounters()
    manner = Manner(digest=lambda body: str(body.get("spec")))
    async with watching(cluster, manner=manner, counters=counters) as recorder:
        cluster.put("pods", "a", spec={"x": 1})
        cluster.put("pods", "a", spec={"x": 1}, status={"y": 2})
        cluster.put("pods", "a", spec={"x": 2})
        await recorder.until(cluster)
        cluster.put("pods", "a", spec={"x": 2}, status={"y": 3})
        cluster.streams.clear()
        cluster.forget_history()
        await recorder.until(cluster)
    assert recorder.told == ["add a", "update a"]
    assert counters.ignored == 2


async def test_an_update_says_what_was_before_where_that_is_kept() -> None:
    cluster = FakeCluster()
    cluster.put("pods", "a", spec={"x": 1})
    async with watching(cluster, manner=Manner(keep_old=True)) as recorder:
        cluster.put("pods", "a", spec={"x": 2})
        cluster.put("pods", "a", spec={"x": 3})
        await recorder.until(cluster)
    assert [b'"x":1' in (change.old or b"") for change in recorder.changes] == [True, False]
    assert b'"x":2' in (recorder.changes[1].old or b"")


async def test_only_metadata_is_asked_for_where_no_more_is_needed() -> None:
    cluster = FakeCluster()
    cluster.put("pods", "a", spec={"x": 1})
    async with watching(cluster, manner=Manner(metadata_only=True), announce=True) as recorder:
        cluster.put("pods", "b", spec={"x": 1})
        await recorder.until(cluster)
    assert recorder.told == ["add a", "add b"]
    assert all("spec" not in change.object for change in recorder.changes)
    assert {change.kind.kind for change in recorder.changes} == {"Pod"}


async def test_a_saved_position_is_resumed_and_repeats_nothing_that_is_known() -> None:
    cluster = FakeCluster()
    first = cluster.put("pods", "a")
    since = str(cluster.revision - 1)
    cluster.put("pods", "b")
    index = Index()
    index.put(Seen("ns", "a", first["metadata"]["uid"], first["metadata"]["resourceVersion"]))
    async with watching(cluster, index=index, version=since) as recorder:
        await recorder.until(cluster)
    assert recorder.told == ["add b"]
    assert not any("sendInitialEvents" in request for request in cluster.requests)


async def test_a_saved_position_that_is_forgotten_and_has_no_index_is_told_aloud(
    caplog: pytest.LogCaptureFixture,
) -> None:
    cluster = FakeCluster()
    cluster.put("pods", "a")
    since = str(cluster.revision)
    cluster.put("pods", "a")
    cluster.forget_history()
    async with watching(cluster, version=since) as recorder:
        cluster.put("pods", "b")
        await recorder.until(cluster)
    assert recorder.told == ["add b"]
    assert "what happened while nobody watched is not known" in caplog.text


# --- anything at all ---

STEPS = st.lists(
    st.sampled_from(["put", "put", "put", "remove", "compact", "end", "break", "gap", "refuse", "busy", "ready"]),
    max_size=40,
)


@given(steps=STEPS, seed=st.integers(0, 2**32), watch_lists=st.booleans())
@hypothesis_settings(max_examples=60, deadline=None)
def test_replaying_what_is_told_gives_the_state_of_the_cluster(steps: list[str], seed: int, watch_lists: bool) -> None:  # noqa: FBT001
    import looptime

    loop = looptime.new_event_loop()
    try:
        loop.run_until_complete(_replay(steps, random.Random(seed), FakeCluster(watch_lists=watch_lists, page=2)))
    finally:
        loop.close()


def turned(cluster: FakeCluster, name: str) -> None:
    """Removed where it was there, else put."""
    if ("pods", "ns", name) in cluster.objects:
        cluster.remove("pods", name)
    else:
        cluster.put("pods", name)


def _happens(step: str, name: str, cluster: FakeCluster) -> None:
    match step:
        case "put":
            cluster.put("pods", name)
        case "remove" if ("pods", "ns", name) in cluster.objects:
            cluster.remove("pods", name)
        case "compact":
            cluster.forget_history()
        case "end":
            cluster.break_streams()
        case "break":
            cluster.break_streams(ApiError(0, BROKEN, "…"))
        case "gap":
            cluster.forget_history()
            cluster.break_streams(GONE)
        case "busy":
            cluster.meanwhile.append(lambda: turned(cluster, name))
        case "refuse":
            cluster.faults.append(("pods", ApiError(503, "ServiceUnavailable", "…")))


async def _replay(steps: list[str], chance: random.Random, cluster: FakeCluster) -> None:
    for name in "abc":
        cluster.put("pods", name)
    async with watching(cluster, announce=True) as recorder:
        for step in steps:
            if step == "ready":
                await asyncio.sleep(chance.random())
            _happens(step, chance.choice("abcdef"), cluster)
        cluster.faults.clear()
        cluster.put("pods", "last")
        await recorder.until(cluster)
        assert recorder.state == truth(cluster)
