"""The heartbeat in place of Knative's: recorded requests reproduced, its flags and variables, its loop."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.process import HEARTBEAT, IN_TIME, POD, run, started

from wellhead.env import Collector, parse_flags, settings
from wellhead.errors import ConfigError, Loss
from wellhead.event import CloudEvent
from wellhead.settings import SinkSettings
from wellhead.testing import Answer, FakeSink, LoopClock, RecordingSink
from wellhead_adapters.heartbeat import sidecar
from wellhead_adapters.heartbeat.adapter import Heartbeat
from wellhead_adapters.heartbeat.config import HeartbeatConfig, go_unquote, label
from wellhead_adapters.heartbeat.events import beat

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from wellhead.adapter import Deadline, Fence
    from wellhead.delivery import Attempt
    from wellhead.http_server import Request

SAMPLES = Path(__file__).with_name("samples")
SEGMENT = re.compile(rb"\n##### conn (\d+) from [^\n]*\n")
UUID4 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")

# All in which a request of ours differs from the recorded one. Host is the sink's; what an id and a time are is
# compared by their form. A header's name is no difference in any case (RFC 9110, 5.1), nor is the order.
DIFFERENT: Final = ("user-agent", "accept-encoding")  # ours: wellhead/VERSION; none, as nothing in an answer is read


# --- recorded requests ---


@dataclass(frozen=True)
class Recorded:
    """One request as Knative's program sent it."""

    connection: int
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes


@dataclass(frozen=True)
class Run:
    """A run of Knative's program: the connection on which it was recorded, and the configuration that gives it."""

    connection: int
    path: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    beats: int


RUNS = (
    Run(
        connection=1, path="/x", beats=21, arguments=("--label", '"qq"'),
        environment={**POD, "K_CE_OVERRIDES": '{"extensions":{"sink":"bound"}}'},
    ),
    Run(
        connection=3, path="/", beats=1, arguments=("-eventSource=/my/src", "-eventType", "my.type", "-label=L", "--msg=hi there"),
        environment={"POD_NAME": "", "POD_NAMESPACE": "", "ONE_SHOT": "true"},
    ),
    Run(connection=6, path="/", beats=1, arguments=(), environment={"POD_NAME": "p", "POD_NAMESPACE": "n", "ONE_SHOT": "1"}),
)  # fmt: skip


@pytest.mark.parametrize("given_run", RUNS, ids=lambda given: f"connection {given.connection}")
async def test_a_recorded_run_is_reproduced(given_run: Run) -> None:
    expected = [request for request in recorded("requests.raw") if request.connection == given_run.connection]
    bodies = list(dict.fromkeys(request.body for request in expected))
    assert len(bodies) == given_run.beats
    async with RecordingSink() as sink:
        if given_run.connection == 6:  # there the sink answered 503 to each of 11 tries
            sink.then(*[Answer(503)] * 3)
        environment = {**given_run.environment, "K_SINK": sink.url.rstrip("/") + given_run.path}
        pace = (
            () if "ONE_SHOT" in environment else ("--period=100ms",)
        )  # the record's is 1s; a beat is worth nothing after that
        async with started(*HEARTBEAT, *pace, *given_run.arguments, env=environment) as it:
            await sink.accepted(given_run.beats)
            if pace:
                it.process.terminate()
            assert await it.ended() == 0
        ours = [received.request for received in sink.requests]
    assert_same(expected[0], ours[0])
    accepted = [received.request.body for received in sink.requests if received.accepted]
    assert accepted[: given_run.beats] == bodies


async def test_a_503_is_retried_with_the_same_event() -> None:
    tries = [request for request in recorded("requests.raw") if request.connection == 6]
    assert len({(request.headers, request.body) for request in tries}) == 1, "as upstream does"
    async with RecordingSink() as sink:
        sink.then(*[Answer(503)] * 3)
        code, _ = await run(*HEARTBEAT, env={**POD, "ONE_SHOT": "1", "K_SINK": sink.url})
        assert code == 0
        ours = [received.request for received in sink.requests]
    assert len(ours) == 4
    assert len({(request.headers, request.body) for request in ours}) == 1


async def test_the_pod_of_a_container_source_starts_ours_as_it_is() -> None:
    expected = next(request for request in recorded("controller_driven.raw") if request.target == "/cs1")
    container = pod("cs1-deployment.json")
    environment = container.environment
    async with RecordingSink() as sink:
        assert environment["K_CE_OVERRIDES"] == ""
        environment["K_SINK"] = environment["K_SINK"].replace("http://127.0.0.1:20080/", sink.url)
        async with started(*HEARTBEAT, *container.arguments, env=environment) as it:
            await sink.accepted(2)
            assert await it.stop() == 0
    assert_same(expected, sink.requests[0].request)


async def test_the_pod_of_a_sink_binding_starts_ours_as_it_is() -> None:
    environment = pod("bindme.json").environment
    assert environment["K_SINK"] == "http://display.kn.svc.cluster.local/some/path"
    async with RecordingSink() as sink:
        environment["K_SINK"] = f"{sink.url}some/path"
        code, _ = await run(*HEARTBEAT, env={**POD, "ONE_SHOT": "true", **environment})
        assert code == 0
        (received,) = sink.requests
    assert received.request.target == "/some/path"
    assert received.events[0].extensions["bound"] == "yes"


async def test_the_token_of_a_sink_binding_is_read_again_when_it_changes(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n", encoding="ascii")
    async with RecordingSink() as sink:
        arguments = ("--period=50ms", f"--token-file={token}")
        async with started(*HEARTBEAT, *arguments, env={**POD, "K_SINK": sink.url}) as it:
            await sink.accepted(1)
            assert authorization(sink.requests[0].request) == "Bearer first"
            renewed = tmp_path / "renewed"
            renewed.write_text("second\n", encoding="ascii")
            renewed.rename(token)
            async with asyncio.timeout(IN_TIME):
                while authorization(sink.requests[-1].request) != "Bearer second":
                    await sink.accepted(len(sink.events) + 1)
            assert await it.stop() == 0
        assert "second" not in it.stderr.text


# --- flags and variables ---


@pytest.mark.parametrize("dashes", ["-", "--"])
@pytest.mark.parametrize("between", ["=", " "])
def test_flags_take_one_dash_or_two_and_a_value_behind_an_equals_sign_or_a_blank(dashes: str, between: str) -> None:
    arguments = f"{dashes}period{between}3 {dashes}label{between}here {dashes}eventType{between}t".split(" ")
    config = configured(*arguments)
    assert (config.period, config.label, config.event_type) == (timedelta(seconds=3), "here", "t")


@pytest.mark.parametrize(
    "arguments", [("<no value>",), ("x", "--period=0"), ("--", "--period=0"), ("-", "--nope"), ("",)]
)
def test_words_that_belong_to_no_flag_are_ignored_and_so_is_what_follows(arguments: tuple[str, ...]) -> None:
    assert configured(*arguments).period == timedelta(seconds=5)


def test_a_variable_wins_over_its_flag_as_upstream() -> None:
    config = configured("--period=1s", "--label=flag", HEARTBEAT_PERIOD="2s", HEARTBEAT_LABEL="")
    assert (config.period, config.label) == (timedelta(seconds=2), "flag")
    known = settings(SinkSettings)
    flags = parse_flags(["--sink=http://flag/", "--cacerts=nonsense"], known)
    to = Collector({"K_SINK": "http://env/", "K_CA_CERTS": ""}, flags, environment_wins=True)
    to.read(SinkSettings)
    assert [problem.where for problem in to.problems] == ["--cacerts"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5), ("5s", 5), ("1m30s", 90), ("300ms", 0.3), ("1.5h", 5400), ("+5s", 5), ("", 5), ("0.000001s", 1e-6)],
)
def test_a_period_is_a_go_duration_or_whole_seconds(text: str, seconds: float) -> None:
    assert configured(f"--period={text}").period.total_seconds() == seconds


@pytest.mark.parametrize("text", ["0", "0s", "-1", "-5s", "abc", "5 s", "1d", "1e3", "5.", "0x5"])
def test_a_period_that_is_none_is_told_of(text: str) -> None:
    with pytest.raises(ConfigError, match=r"--period: .* is not"):
        configured(f"--period={text}")


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("", ""), ("plain", "plain"), ("it's", "it's"), ('a"b', 'a"b'), ("\\n", "\\n"),
        ('"qq"', "qq"), ('""', ""), ('"la\\"bel"', 'la"bel'), ('"\\n\\t\\\\"', "\n\t\\"), ('"\\u00e9\\x41\\101"', "éAA"),
        ('"\\xc3\\xa9"', "é"), ('"\\U0001F600"', "😀"), ('"\\xff"', "\ufffd"), ('"\udcff\\n"', "\ufffd\n"),
        ('"', ""), ('"open', ""), ('"a"b"', ""), ('"\\q"', ""), ('"\\"', ""), ('"a\nb"', ""), ('"\\400"', ""),
    ],
    ids=ascii,
)  # fmt: skip
def test_a_label_that_begins_with_a_quote_is_a_go_literal(written: str, read: str) -> None:
    assert label(written) == read


@pytest.mark.parametrize("literal", ['"\\ud800"', '"\\U00110000"', '"\\UFFFFFFFF"'])
def test_a_literal_of_what_is_no_character_is_broken(literal: str) -> None:
    assert go_unquote(literal) == ""  # strconv.Unquote: invalid syntax


@given(st.text(), st.text(), st.integers(1, 2**40))
def test_whatever_label_and_message_a_beat_is_a_valid_event_with_json(written: str, msg: str, number: int) -> None:
    config = HeartbeatConfig(label=label(written), msg=msg, pod_name="p", pod_namespace="n")
    event = beat(config, number, LoopClock()._start)
    data = json.loads(event.data or b"")
    assert list(data) == ["id", "label", "msg"][: 2 + bool(msg)]
    assert data["id"] == number
    assert not set(b"<>&") & set(event.data or b"")


@pytest.mark.parametrize("missing", ["POD_NAME", "POD_NAMESPACE"])
def test_the_pods_name_is_needed_unless_the_source_is_given(missing: str) -> None:
    environment = {name: value for name, value in POD.items() if name != missing}
    with pytest.raises(ConfigError, match=rf"^{missing}: is not set"):
        read(environment)
    assert read(environment, "--eventSource=/mine").source == "/mine"


@pytest.mark.parametrize(("variable", "value"), [("POD_NAME", "a b"), ("POD_NAME", "100%"), ("POD_NAMESPACE", "\n")])
def test_a_pod_of_which_no_source_can_be_made_is_told_of(variable: str, value: str) -> None:
    with pytest.raises(ConfigError, match="eventSource, POD_NAMESPACE, POD_NAME: "):
        read({**POD, variable: value})


# --- the loop ---


@pytest.mark.looptime
async def test_the_first_beat_goes_at_once_and_then_one_each_period() -> None:
    sink = TimedSink()
    await beating(sink, period=5, until=21)
    assert sink.began == [0, 5, 10, 15, 20]
    assert numbers(sink.events) == [1, 2, 3, 4, 5]


@pytest.mark.looptime
async def test_a_slow_sink_skips_beats_never_has_two_and_none_is_queued() -> None:
    sink = TimedSink(takes=[2.5, 0.1, 1, 3.9])
    await beating(sink, period=1, until=12)
    assert sink.began == [0, 3, 4, 5, 9, 10, 11]
    assert numbers(sink.events) == [1, 2, 3, 4, 5, 6, 7]
    assert sink.most == 1


@pytest.mark.looptime
async def test_a_beat_is_worth_nothing_once_the_next_is_due() -> None:
    sink = TimedSink(takes=[1.5])
    await beating(sink, period=1, until=4)
    assert sink.deadlines == [began + 1 for began in sink.began] == [1, 3, 4]


@pytest.mark.looptime
async def test_a_beat_that_is_lost_is_followed_by_the_next() -> None:
    sink = FakeSink()
    sink.lose(Loss.EXPIRED, Loss.REFUSED)
    await beating(sink, period=1, until=3.5)
    assert numbers(sink.events) == [3, 4]


@pytest.mark.looptime
async def test_the_time_of_a_beat_is_the_wall_clocks_and_its_pace_is_not() -> None:
    sink, clock = TimedSink(), LoopClock()
    async with asyncio.TaskGroup() as tasks:
        beats = tasks.create_task(Heartbeat(config(1), clock=clock).run(sink, lambda: None))
        await asyncio.sleep(1.5)
        clock.step(timedelta(days=-1))
        await asyncio.sleep(1)
        beats.cancel()
    assert sink.began == [0, 1, 2]
    assert [event.time for event in sink.events] == [
        "2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", "2025-12-31T00:00:02Z",
    ]  # fmt: skip


@pytest.mark.looptime
async def test_a_single_beat_has_a_minute() -> None:
    sink = TimedSink()
    await Heartbeat(config(1, one_shot=True)).run(sink, lambda: None)
    assert sink.deadlines == [60]


async def test_after_a_single_beat_istios_sidecar_is_told_to_quit(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = asyncio.get_running_loop().create_future()

    async def agent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set_result(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(agent, "127.0.0.1", 0) as server:
        monkeypatch.setattr(sidecar, "_AGENT", server.sockets[0].getsockname())
        await Heartbeat(config(1, one_shot=True)).run(FakeSink(), lambda: None)
        assert (await asked).startswith(b"POST /quitquitquit HTTP/1.1\r\nHost: localhost:15020\r\n")


# --- helpers ---


@dataclass
class TimedSink:
    """Accepts each event after a while, and knows when, how many at a time, and for how long they were worth it."""

    takes: list[float] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    deadlines: list[float] = field(default_factory=list)
    events: list[CloudEvent] = field(default_factory=list)
    most: int = 0
    _now: int = 0

    async def send(
        self,
        event: CloudEvent | SdkEvent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,
    ) -> None:
        assert isinstance(event, CloudEvent)
        assert deadline is not None
        assert fence is None
        self.began.append(asyncio.get_running_loop().time())
        self.deadlines.append(deadline.at)
        self.events.append(event)
        self._now += 1
        self.most = max(self.most, self._now)
        try:
            await asyncio.sleep(self.takes.pop(0) if self.takes else 0)
        finally:
            self._now -= 1


async def beating(sink: TimedSink | FakeSink, *, period: float, until: float) -> None:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(until):
            await Heartbeat(config(period), clock=LoopClock()).run(sink, lambda: None)


def config(period: float, *, one_shot: bool = False) -> HeartbeatConfig:
    return HeartbeatConfig(period=timedelta(seconds=period), pod_name="p", pod_namespace="n", one_shot=one_shot)


def configured(*arguments: str, **environment: str) -> HeartbeatConfig:
    return read({**POD, **environment}, *arguments)


def read(environment: Mapping[str, str], *arguments: str) -> HeartbeatConfig:
    collector = Collector(environment, parse_flags(arguments, settings(HeartbeatConfig)), environment_wins=True)
    made = collector.read(HeartbeatConfig)
    collector.check()
    assert made is not None
    return made


def numbers(events: Sequence[CloudEvent]) -> list[int]:
    return [json.loads(event.data or b"")["id"] for event in events]


def authorization(request: Request) -> str | None:
    return request.header("authorization")


def assert_same(expected: Recorded, ours: Request) -> None:
    """Method, target, every header but `DIFFERENT` and the sink's own, and the octets of the body."""
    assert (ours.method, ours.target, ours.body) == ("POST", expected.target, expected.body)
    theirs, own = dict(expected.headers), {k.decode().lower(): v.decode() for k, v in ours.headers}
    assert len(own) == len(ours.headers)
    for name in ("host", *DIFFERENT):
        theirs.pop(name)
        own.pop(name, None)
    for name, form in (("ce-id", UUID4), ("ce-time", TIME)):
        assert form.fullmatch(theirs.pop(name))
        assert form.fullmatch(own.pop(name))
    assert own == theirs


def recorded(name: str) -> Iterator[Recorded]:
    """The POSTs of a recording. A body that came in a packet of its own stands behind a header of the recorder's."""
    pieces = SEGMENT.split((SAMPLES / "heartbeats" / name).read_bytes())[1:]
    octets: dict[int, bytes] = {}
    for connection, piece in zip(map(int, pieces[::2]), pieces[1::2], strict=True):
        octets[connection] = octets.get(connection, b"") + piece
    for connection, stream in octets.items():
        yield from requests(connection, stream)


def requests(connection: int, stream: bytes) -> Iterator[Recorded]:
    while stream.strip():
        head, _, rest = stream.lstrip(b"\n").partition(b"\r\n\r\n")
        line, *fields = head.decode().split("\r\n")
        headers = tuple((name.lower(), value.strip()) for name, _, value in (field.partition(":") for field in fields))
        length = int(dict(headers).get("content-length", 0))
        rest = rest.lstrip(b"\n")
        body, stream = rest[:length], rest[length:]
        method, target, _ = line.split(" ")
        if method == "POST":
            yield Recorded(connection, target, headers, body)


@dataclass(frozen=True)
class Container:
    """What a kubelet starts a program with."""

    arguments: tuple[str, ...]
    environment: dict[str, str]


def pod(name: str) -> Container:
    deployment = json.loads((SAMPLES / "crs" / name).read_text(encoding="utf-8"))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    environment = {variable["name"]: variable.get("value", "") for variable in container["env"]}
    return Container(tuple(container.get("args", ())), environment)
