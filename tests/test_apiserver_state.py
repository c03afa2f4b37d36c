"""The state in a ConfigMap: what a restart knows, how seldom it is written, what becomes of it where it cannot be."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import copy
import dataclasses
import logging
import tracemalloc
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import pytest
from tests.fake_cluster import FakeCluster
from tests.test_apiserver import config, watches

from wellhead.errors import ConfigError
from wellhead.kubernetes.errors import SILENT, ApiError
from wellhead.kubernetes.index import Seen
from wellhead.kubernetes.wire import JSON
from wellhead_adapters.apiserver.state_map import StateMap
from wellhead_adapters.apiserver.subject import Mode, parse_resources

pytestmark = pytest.mark.looptime

PATH: Final = "/api/v1/namespaces/ns/configmaps/state"
FORBIDDEN: Final = ApiError(403, "Forbidden", "configmaps is forbidden")
WATCH: Final = "pods of v1 in ns (app=web)"
BROKEN_LINES: Final = (
    b"+ 9 a b c d e\n",
    b"= 0\n",
    b"= 0 w\n@ 0 torn",
    b"= 0 w\x0b",
    b"\xff\n",
)


@dataclass
class FakeConfigMap:
    """One ConfigMap of an API server; tests/interop has the real one."""

    body: dict[str, Any] | None = None
    faults: list[ApiError] = field(default_factory=list)
    writes: list[float] = field(default_factory=list)
    revision: int = 0

    async def get(self, path: str, /) -> Mapping[str, object]:
        return self._found(path)

    async def post(self, path: str, body: Mapping[str, object], /, *, accept: str = JSON) -> Mapping[str, object]:
        if path != PATH.rpartition("/")[0] or self.body is not None:
            raise ApiError(409, "AlreadyExists", "it is there")
        return self._written({**body})

    async def patch(self, path: str, body: Mapping[str, Any], /, *, accept: str = JSON) -> Mapping[str, object]:
        found = self._found(path)
        if body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        metadata = {**found["metadata"], "annotations": body["metadata"]["annotations"]}
        return self._written({**found, "metadata": metadata, "data": body["data"], "binaryData": body["binaryData"]})

    def touch(self, **data: str) -> None:
        """Somebody else writes it."""
        found = self._found(PATH)
        self._written({**found, "data": {**found.get("data", {}), **data}})
        self.writes.pop()

    def _found(self, path: str) -> dict[str, Any]:
        if self.faults:
            raise self.faults.pop(0)
        if path != PATH or self.body is None:
            raise ApiError(404, "NotFound", 'configmaps "state" not found')
        return copy.deepcopy(self.body)

    def _written(self, body: dict[str, Any]) -> Mapping[str, object]:
        if self.faults:
            raise self.faults.pop(0)
        self.revision += 1
        body["metadata"] = {**body["metadata"], "resourceVersion": str(self.revision)}
        self.body = copy.deepcopy(body)
        self.writes.append(asyncio.get_running_loop().time())
        return {"metadata": body["metadata"]}


def _state(lines: str) -> dict[str, Any]:
    """What is in a ConfigMap that holds these lines."""
    return {
        "metadata": {"resourceVersion": "1"},
        "data": {"source": "ns/pond", "format": "wellhead-apiserver-2"},
        "binaryData": {"state": base64.b64encode(zlib.compress(lines.encode())).decode()},
    }


class ClusterWithMaps(FakeCluster):
    """A cluster whose ConfigMaps can be written."""

    async def post(self, path: str, body: Mapping[str, Any], /, *, accept: str = JSON) -> Mapping[str, object]:
        return self._put(body["metadata"]["name"], body)

    async def patch(self, path: str, body: Mapping[str, Any], /, *, accept: str = JSON) -> Mapping[str, object]:
        return self._put(path.rpartition("/")[2], body)

    def _put(self, name: str, body: Mapping[str, Any]) -> Mapping[str, object]:
        fields = {field: body[field] for field in ("data", "binaryData") if field in body}
        return self.put("configmaps", name, metadata={"annotations": body["metadata"]["annotations"]}, **fields)


async def opened(server: FakeConfigMap, source: str = "ns/pond") -> StateMap:
    state = StateMap(server, namespace="ns", name="state", source=source)
    await state.open()
    return state


def seen(number: int, version: str = "1") -> Seen:
    return Seen("ns", f"name-{number}", f"2f7b1c9e-0000-4000-8000-{number:012}", version)


async def each_second(state: StateMap, seconds: int, *, put: bool) -> None:
    for second in range(seconds):
        state.position(WATCH, str(second))
        if put:
            state.put(WATCH, seen(0, str(second)))
        await state.write()
        await asyncio.sleep(1)


# --- what a restart knows ---


async def test_what_it_was_given_is_what_it_gives_back() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    assert state.take(WATCH) is None
    for number in range(3):
        state.put(WATCH, seen(number))
    state.put(WATCH, seen(1, "2"))
    state.remove(WATCH, seen(2))
    state.position(WATCH, "7")
    state.put("not listed to its end", seen(9))
    await state.write()
    again = await opened(server)
    saved = again.take(WATCH)
    assert saved is not None
    assert (list(saved.index or ()), saved.version) == ([seen(0), seen(1, "2")], "7")
    assert again.take(WATCH) is None
    assert again.take("not listed to its end") is None
    again.put(WATCH, seen(3))
    await again.write()
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert list(saved.index or ()) == [seen(0), seen(1, "2"), seen(3)]


async def test_a_watch_that_is_forgotten_leaves_nothing_behind() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    for watch in (WATCH, "other"):
        state.put(watch, seen(0))
        state.position(watch, "7")
    state.forget(WATCH)
    await state.write()
    again = await opened(server)
    assert again.take(WATCH) is None
    assert again.take("other") is not None


async def test_what_somebody_put_beside_it_stays() -> None:
    server = FakeConfigMap({"metadata": {"name": "state", "resourceVersion": "0", "labels": {"team": "a"}}})
    state = await opened(server)
    state.put(WATCH, seen(0))
    await state.write()
    assert server.body is not None
    assert server.body["metadata"]["labels"] == {"team": "a"}


@pytest.mark.parametrize(
    ("data", "octets", "problem"),
    [
        ({"source": "ns/other", "format": "wellhead-apiserver-2"}, b"", "is the state of 'ns/other', not of 'ns/pond'"),
        ({"game.properties": "lives=3"}, b"", "is no state of ours"),
        ({"source": "ns/pond", "format": "wellhead-apiserver-9"}, b"", "is no state of ours"),
        ({"source": "ns/pond", "format": "wellhead-apiserver-2"}, b"nonsense", "is broken"),
        *[
            ({"source": "ns/pond", "format": "wellhead-apiserver-2"}, zlib.compress(text), "is broken")
            for text in BROKEN_LINES
        ],
        ({"source": "ns/pond", "format": "wellhead-apiserver-2"}, zlib.compress(b"= 0 w\n")[:-1], "is broken"),
        ({"source": "ns/pond", "format": "wellhead-apiserver-2"}, zlib.compress(b"= 0 w\n") + b"more", "is broken"),
    ],
)
async def test_what_is_none_of_ours_is_told_and_left_alone(data: dict[str, str], octets: bytes, problem: str) -> None:
    binary = {"state": base64.b64encode(octets).decode()}
    body = {"metadata": {"resourceVersion": "1"}, "data": data, "binaryData": binary}
    with pytest.raises(ConfigError, match="APISERVER_STATE_CONFIG_MAP") as caught:
        await opened(FakeConfigMap(body))
    assert problem in str(caught.value)


async def test_a_small_one_that_would_unpack_to_a_huge_one_is_broken_and_is_not_unpacked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("wellhead_adapters.apiserver.state_map.MOST_UNPACKED", 10_000)
    lines = "= 0 w\n" + "+ 0 ns name uid 1 \n" * 100_000
    body = _state(lines)
    tracemalloc.start()
    try:
        with pytest.raises(ConfigError, match="is broken"):
            await opened(FakeConfigMap(body))
        assert tracemalloc.get_traced_memory()[1] < len(lines) // 4
    finally:
        tracemalloc.stop()


async def test_what_it_would_not_unpack_it_does_not_write(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wellhead_adapters.apiserver.state_map.MOST_UNPACKED", 10_000)
    server = FakeConfigMap()
    state = await opened(server)
    for number in range(1000):
        state.put(WATCH, seen(number))
    state.position(WATCH, "7")
    await state.write()
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert (saved.index, saved.version) == (None, "7")


async def test_a_uid_that_no_server_gives_does_no_harm() -> None:
    lines = f"= 0 {quote(WATCH, safe='')}\n+ 0 ns name %00{quote('é' * 9)} 1 \n@ 0 5\n"
    state = await opened(FakeConfigMap(_state(lines)))
    saved = state.take(WATCH)
    assert saved is not None
    assert list(saved.index or ()) == [Seen("ns", "name", "é" * 9, "1")]


# --- how often, how much ---


async def test_it_is_written_each_five_seconds_at_most() -> None:
    server = FakeConfigMap()
    await each_second(await opened(server), 60, put=True)
    assert len(server.writes) == 1 + 12
    assert min(later - earlier for earlier, later in zip(server.writes[1:], server.writes[2:], strict=False)) == 5


async def test_where_nothing_but_positions_move_it_is_written_each_minute_and_else_not() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    await each_second(state, 200, put=False)
    assert len(server.writes) == 1 + 4
    for _ in range(600):
        await state.write()
        await asyncio.sleep(1)
    assert len(server.writes) == 1 + 5


async def test_a_large_one_is_written_less_often() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    for number in range(10_000):
        state.put(WATCH, seen(number)._replace(uid=f"{hash((number, 'a')) & (2**64 - 1):016x}" * 2))
    await each_second(state, 60, put=True)
    assert server.body is not None
    octets = len(base64.b64decode(server.body["binaryData"]["state"]))
    assert len(server.writes) == 1 + 1 + 60 // (octets // 20_000 + 1)


async def test_the_last_one_is_written_whenever_it_is() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    for version in "12":
        state.put(WATCH, seen(0, version))
        state.position(WATCH, version)
        await state.write(at_once=version == "2")
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert saved.version == "2"
    await state.write(at_once=True)
    assert len(server.writes) == 1 + 2


async def test_what_has_no_room_keeps_its_position_and_that_is_told_once(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("wellhead_adapters.apiserver.state_map.MOST_OCTETS", 1000)
    server = FakeConfigMap()
    state = await opened(server)
    for number in range(200):
        state.put(WATCH, seen(number))
    await each_second(state, 30, put=True)
    assert caplog.text.count("the state has no room in its ConfigMap") == 1
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert (saved.index, saved.version) == (None, "25")
    for number in range(1, 200):
        state.remove(WATCH, seen(number))
    await each_second(state, 10, put=False)
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert list(saved.index or ()) == [seen(0, "29")]


async def test_what_had_no_room_is_not_taken_for_all_there_is_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wellhead_adapters.apiserver.state_map.MOST_OCTETS", 1000)
    server, cluster = FakeConfigMap(), FakeCluster()
    for number in range(200):
        cluster.put("pods", f"p{number}")
    told = []
    for turn in ("no room", "resumes", "after a gap", "after a gap that can be compared"):
        async with watches(cluster, config(), await opened(server)) as source:
            if turn == "resumes":
                cluster.put("pods", "p0", spec={})
            await source.settled()
            await source.teller.write(at_once=True)
        told.append(source.told)
        saved = (await opened(server)).take("pods of v1 in ns")
        assert saved is not None
        if turn == "resumes":
            assert saved.index is None
            monkeypatch.setattr("wellhead_adapters.apiserver.state_map.MOST_OCTETS", 1_000_000)
        if turn in ("resumes", "after a gap"):
            cluster.remove("pods", f"p{len(told)}")
            cluster.forget_history()
    assert told == [[], ["update ns/p0"], [], ["delete ns/p3"]]


async def test_a_list_that_has_nothing_to_compare_with_leaves_no_position_before_it_is_whole() -> None:
    server = FakeConfigMap(_state(f"= 0 {quote(WATCH, safe='')}\n! 0\n@ 0 5\n"))
    state = await opened(server)
    saved = state.take(WATCH)
    assert saved is not None
    state.put(WATCH, seen(0))
    state.start_over(WATCH)
    state.put(WATCH, seen(1))
    await state.write()
    assert (await opened(server)).take(WATCH) is None
    state.position(WATCH, "9")
    await state.write(at_once=True)
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert (list(saved.index or ()), saved.version) == ([seen(0), seen(1)], "9")


async def test_of_a_list_that_never_ended_nothing_is_left_in_the_next_one() -> None:
    server = FakeConfigMap(_state(f"= 0 {quote(WATCH, safe='')}\n+ 0 ns gone u 1 \n"))
    state = await opened(server)
    assert state.take(WATCH) is None
    state.put(WATCH, seen(0))
    state.position(WATCH, "9")
    await state.write()
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert list(saved.index or ()) == [seen(0)]


@pytest.mark.parametrize("mode", [Mode.REFERENCE, Mode.RESOURCE])
async def test_two_sources_that_watch_each_others_states_do_not_wake_each_other(mode: Mode) -> None:
    cluster = ClusterWithMaps()
    of = config(resources=parse_resources("v1:ConfigMap"), data=mode, state_config_map="wellhead-{name}")
    async with contextlib.AsyncExitStack() as stack:
        sources = []
        for name in ("a", "b"):
            state = StateMap(cluster, namespace="ns", name=f"wellhead-{name}", source=f"ns/{name}")
            await state.open()
            named = dataclasses.replace(of, name=name)
            sources.append(await stack.enter_async_context(watches(cluster, named, state)))
            keeping = asyncio.create_task(sources[-1].teller.keep())
            stack.callback(keeping.cancel)
        cluster.put("configmaps", "game")
        await sources[0].settled()
        before = cluster.revision
        for _ in range(10):
            await sources[0].settled()
        assert cluster.revision - before <= 2 * 10, "positions, each minute"
        cluster.remove("configmaps", "wellhead-a")
        await sources[1].settled()
    assert sources[1].told == ["add ns/game", "delete ns/wellhead-a"], "what was told before it was a state may be gone"
    assert sources[0].told == ["add ns/game"]


# --- when it cannot be written ---


async def test_what_could_not_be_written_is_written_later_and_not_asked_for_each_second() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    server.faults = [FORBIDDEN] * 3
    state.put(WATCH, seen(0))
    state.position(WATCH, "7")
    failed = []
    for second in range(60):
        try:
            await state.write()
        except ConfigError as error:
            failed.append(second)
            assert "'ns/state' cannot be written: 403 Forbidden" in str(error)  # noqa: PT017 - each of them
        await asyncio.sleep(1)
    assert failed == [0, 5, 15]
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert (list(saved.index or ()), saved.version) == ([seen(0)], "7")


async def test_somebody_else_who_writes_it_too_is_told_of_once_and_does_not_stop_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    server = FakeConfigMap()
    state = await opened(server)
    for version in "123":
        server.touch()
        state.put(WATCH, seen(0, version))
        state.position(WATCH, version)
        await state.write(at_once=True)
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert saved.version == "3"
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


async def test_a_write_that_was_cancelled_or_whose_answer_was_lost_is_nobody_elses(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeConfigMap()
    state = await opened(server)
    state.put(WATCH, seen(0))
    state.position(WATCH, "7")
    patch = server.patch

    async def deaf(path: str, body: Mapping[str, Any], /, *, accept: str = JSON) -> Mapping[str, object]:
        await patch(path, body, accept=accept)
        await asyncio.sleep(1000)
        return {}

    monkeypatch.setattr(server, "patch", deaf)
    writing = asyncio.create_task(state.write())
    await asyncio.sleep(10)
    writing.cancel()
    await asyncio.wait({writing})
    monkeypatch.setattr(server, "patch", patch)
    await state.write(at_once=True)
    assert len(server.writes) == 1 + 2
    assert not caplog.records


async def test_writes_whose_answers_were_lost_are_nobody_elses_when_there_is_more_to_write_since(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = FakeConfigMap()
    state = await opened(server)
    patch = server.patch

    async def deaf(path: str, body: Mapping[str, Any], /, *, accept: str = JSON) -> Mapping[str, object]:
        await patch(path, body, accept=accept)
        raise ApiError(0, SILENT, "nothing came in time")

    for version, way in (("1", deaf), ("2", deaf), ("3", patch), ("4", deaf), ("5", patch)):
        monkeypatch.setattr(server, "patch", way)
        state.position(WATCH, version)
        with pytest.raises(ConfigError) if way is deaf else contextlib.nullcontext():
            await state.write(at_once=True)
    assert not caplog.records
    saved = (await opened(server)).take(WATCH)
    assert saved is not None
    assert saved.version == "5"
    server.touch()
    state.position(WATCH, "6")
    await state.write(at_once=True)
    assert [record.levelno for record in caplog.records] == [logging.WARNING], "that was somebody else"


async def test_it_does_not_write_over_the_state_of_another_source_that_came_later() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    server.touch(source="ns/other", format="wellhead-apiserver-2")
    state.put(WATCH, seen(0))
    with pytest.raises(ConfigError, match="is the state of 'ns/other'"):
        await state.write()
    assert server.body is not None
    assert server.body["data"]["source"] == "ns/other"
    await asyncio.sleep(100)
    with pytest.raises(ConfigError, match="is the state of 'ns/other'"):
        await state.write()


async def test_one_that_is_deleted_is_made_anew() -> None:
    server = FakeConfigMap()
    state = await opened(server)
    server.body = None
    state.put(WATCH, seen(0))
    state.position(WATCH, "7")
    await state.write()
    assert (await opened(server)).take(WATCH) is not None


async def test_one_that_cannot_be_read_or_made_is_not_taken_for_an_empty_one() -> None:
    with pytest.raises(ApiError, match="Forbidden"):
        await opened(FakeConfigMap(faults=[FORBIDDEN]))
    with pytest.raises(ApiError, match="Forbidden"):
        await opened(FakeConfigMap(faults=[ApiError(404, "NotFound", "…"), FORBIDDEN]))
