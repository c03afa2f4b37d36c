"""From environment and flags to an exit code, in this process; test_programs.py does it to real ones."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import os
import resource
import signal
import socket
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.process import IN_TIME, POD, REFUSED_URL

from wellhead import runtime
from wellhead.adapter import Deadline
from wellhead.binding import SinkBinding
from wellhead.env import setting, text
from wellhead.errors import ConfigError, DeliveryError, Problem
from wellhead.event import CloudEvent
from wellhead.host import Host
from wellhead.runtime import Exit, _allow_connections, _new_transport, _run, main, run
from wellhead.settings import ProcessSettings
from wellhead.testing import Answer, RecordingSink
from wellhead.transport.http import HttpTransport
from wellhead_adapters.heartbeat.adapter import Heartbeat

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping

    from wellhead.adapter import Adapter, Sink
    from wellhead.clock import Clock
    from wellhead.runtime import Compose
    from wellhead.sink import HttpSink
    from wellhead.transport import Transport

GOOD = {**POD, "K_SINK": REFUSED_URL}
SECRET = "hunter2"
HOSTILE_ADDRESSES = ("999.1.1.1", "a" * 70, "a" * 9000, "\x1b[31m", "\udcff", "no such host")

# What is wrong, and what the one message says about it: the variable or flag, then the rule.
BAD: dict[str, tuple[dict[str, str], tuple[str, ...], tuple[str, ...]]] = {
    "no sink": ({"K_SINK": ""}, (), ("K_SINK: is not set, nor SINK, nor --sink: say where events go",)),
    "both empty": ({"K_SINK": "", "SINK": ""}, (), ("K_SINK: is not set, nor SINK, nor --sink",)),
    "an empty flag": ({"K_SINK": ""}, ("--sink=",), ("--sink: '' is not a URL: it is empty",)),
    "blank": ({"K_SINK": " "}, (), ("K_SINK: '' is not a URL",)),
    "no scheme": ({"K_SINK": "host/path"}, (), ("K_SINK: 'host/path' is not an absolute URL: it needs a scheme",)),
    "host and port": ({"K_SINK": "host:80"}, (), ("K_SINK: 'host:80' is not an absolute URL: it needs a scheme",)),
    "ftp": ({"K_SINK": "ftp://host"}, (), ("K_SINK: 'ftp://host' has the scheme 'ftp'",)),
    "spaces": ({"K_SINK": "http://a b/"}, (), ("K_SINK: 'http://a b/' is not a URL: it is empty or holds blanks",)),
    "bad port": ({"K_SINK": "http://h:x/"}, (), ("K_SINK: 'http://h:x/' is not a URL: its host or port cannot be",)),
    "no host": ({"K_SINK": "http:///p"}, (), ("K_SINK: 'http:///p' is not an absolute URL: it names no host",)),
    "user info": ({"K_SINK": f"http://u:{SECRET}@h/"}, (), ("K_SINK: 'http://h/' carries user info",)),
    "user info in SINK": ({"K_SINK": "", "SINK": f"http://{SECRET}@h/"}, (), ("SINK: 'http://h/' carries user info",)),
    "a secret in the query": ({"K_SINK": f"htp://h/?t={SECRET}"}, (), ("K_SINK: 'htp://h/?",)),
    "dead-letter sink": ({"DEAD_LETTER_SINK": f"ftp://u:{SECRET}@h"}, (), ("DEAD_LETTER_SINK: 'ftp://h' has the",)),
    "an unknown ref": ({"K_SINK": "ksvc:show:ns"}, (), ("sink.ref Service ns/show: no API server to ask here",)),
    "overrides: JSON": ({"K_CE_OVERRIDES": "{"}, (), ("K_CE_OVERRIDES: '{' is not JSON",)),
    "overrides: array": ({"K_CE_OVERRIDES": "[1]"}, (), ("K_CE_OVERRIDES: '[1]' is not a JSON object such as",)),
    "overrides: type": (
        {"K_CE_OVERRIDES": '{"extensions":{"type":"x","Data":"y"}}'},
        (),
        ("K_CE_OVERRIDES: extensions.type: is an attribute of Cl", "K_CE_OVERRIDES: extensions.Data: is an attribute"),
    ),
    "overrides: name": (
        {"K_CE_OVERRIDES": '{"extensions":{"a-b":"x","n":1}}'},
        (),
        ("K_CE_OVERRIDES: extensions.n: is not a string", "extensions.'a-b': an extension's name consists of a-z and"),
    ),
    "period 0": ({}, ("--period", "0"), ("--period: '0' is not longer than 0",)),
    "period 0s": ({}, ("-period=0s",), ("--period: '0s' is not longer than 0",)),
    "negative period": ({}, ("-period", "-5s"), ("--period: '-5s' is not longer than 0",)),
    "negative seconds": ({}, ("-period=-5",), ("--period: '-5' is not longer than 0",)),
    "period in words": ({}, ("-period=abc",), ("--period: 'abc' is not a duration such as 5s",)),
    "no POD_NAME": ({"POD_NAME": "\0"}, (), ("POD_NAME: is not set: the event's source is made from it",)),
    "one shot": ({"ONE_SHOT": "maybe"}, (), ("ONE_SHOT: 'maybe' is not true or false",)),
    "CA certificates": ({"K_CA_CERTS": SECRET}, (), ("K_CA_CERTS: is not a PEM certificate",)),
    "a CA file": ({"SINK_CA_FILE": "/nowhere/ca"}, (), ("SINK_CA_FILE: /nowhere/ca is not there",)),
    "a token": ({"SINK_TOKEN": f"{SECRET} x"}, (), ("SINK_TOKEN: is no token: printable ASCII without blanks",)),
    "headers": ({"SINK_HEADERS": f"host: {SECRET}"}, (), ("SINK_HEADERS: line 1: gives host, which is Wellhead's own",)),
    "no password": ({}, ("--username=me",), ("SINK_USERNAME: is set without SINK_PASSWORD_FILE or SINK_PASSWORD",)),
    "two passwords": (
        {"SINK_PASSWORD": SECRET, "SINK_PASSWORD_FILE": "/nowhere"}, ("--username=me",),
        ("SINK_PASSWORD: is set beside SINK_PASSWORD_FILE; one of them",),
    ),
    "a health port": ({"HEALTH_PORT": "65536"}, (), ("HEALTH_PORT: '65536' is not a whole number from 0 to 65535",)),
    "an unknown flag": ({}, ("--perod", "5s", "-x"), ("--perod: no such flag; did you mean --period?", "-x: no such")),
    "no value": ({}, ("--label",), ("--label: needs a value",)),
    "a dead letter's mode": ({"EVENT_MODE": "loud"}, (), ("EVENT_MODE: 'loud' is not one of binary, structured",)),
    "grace": ({"GRACE": "-1s"}, (), ("GRACE: '-1s' is negative",)),
}  # fmt: skip


# --- bad input ---


@pytest.mark.parametrize("case", BAD)
@pytest.mark.usefixtures("in_this_process")
def test_what_is_wrong_is_named_with_its_rule_and_nothing_starts(case: str, capsys: pytest.CaptureFixture[str]) -> None:
    environment, arguments, expected = BAD[case]
    code, said = configured({**GOOD, **environment}, *arguments, capsys=capsys)
    assert code == Exit.CONFIG
    assert said.count("\n") == 1 + len(expected)
    for line in expected:
        assert f"  {line}" in said or f": {line}" in said


def test_everything_that_is_wrong_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    environment = {"SINK": "ftp://host", "K_CE_OVERRIDES": "[]", "K_CA_CERTS": SECRET, "GRACE": "soon"}
    code, said = configured(environment, "--period=0", "--nope", capsys=capsys)
    assert code == Exit.CONFIG
    assert said.startswith("wellhead heartbeat: 8 problems in the configuration (--help lists every setting)\n")
    for name in ("--nope", "--period", "POD_NAME", "POD_NAMESPACE", "SINK", "K_CE_OVERRIDES", "K_CA_CERTS", "GRACE"):
        assert f"\n  {name}: " in said


@pytest.mark.parametrize("text", ["5", "5s", "1h2m3.5s", "300ms", ""])
def test_a_period_is_seconds_or_a_go_duration(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = configured({**GOOD, "K_SINK": ""}, f"--period={text}", capsys=capsys)
    assert code == Exit.CONFIG
    assert "period" not in said


@given(
    st.dictionaries(
        st.sampled_from(
            ("K_SINK", "K_CE_OVERRIDES", "K_CA_CERTS", "POD_NAME", "HEARTBEAT_LABEL", "ONE_SHOT", "NAMESPACE")
        ),
        st.text(st.characters(exclude_characters="\0")) | st.just("\x1b]0;x\x07" * 20_000) | st.just("[" * 100_000),
    ),
    st.lists(
        st.text(st.characters(exclude_characters="\0")) | st.just("--sink") | st.just("--p\x1b[31m\n=1"), max_size=4
    ),
)
def test_whatever_it_is_given_it_says_so_in_printable_lines(environment: dict[str, str], arguments: list[str]) -> None:
    code, said = quiet({**environment, "GRACE": "never"}, *arguments)
    if code == Exit.CONFIG:
        assert "Traceback" not in said
        assert all(line.isprintable() and len(line) < 1000 for line in said.splitlines())
        assert said.splitlines()[0].split()[2] == str(len(said.splitlines()) - 1)
    else:
        assert code == Exit.DONE  # a flag asked for help


@pytest.mark.parametrize(
    "config", ["{", "[]", '{"zap-logger-config":"{"}', '{"zap-logger-config":"{\\"level\\":\\"loud\\"}"}']
)
@pytest.mark.usefixtures("in_this_process")
def test_a_broken_logging_config_is_one_warning(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(Ends, "ends", arguments=[], environment={"K_SINK": REFUSED_URL, "K_LOGGING_CONFIG": config})
    assert code == Exit.DONE
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    (warning,) = [line for line in lines if line["severity"] == "WARNING"]
    assert warning["setting"] == "K_LOGGING_CONFIG"


@pytest.mark.parametrize(
    "endpoint", [":99999", "nonsense", "127.0.0.1:", 5], ids=["port beyond all", "no port", "empty port", "a number"]
)
@pytest.mark.usefixtures("in_this_process")
def test_a_broken_observability_config_is_one_warning(endpoint: object, capsys: pytest.CaptureFixture[str]) -> None:
    config = json.dumps({"metrics": {"protocol": "prometheus", "endpoint": endpoint}})
    code = main(Ends, "ends", arguments=[], environment={"K_SINK": REFUSED_URL, "K_OBSERVABILITY_CONFIG": config})
    assert code == Exit.DONE
    assert capsys.readouterr().err.count("WARNING") == 1


@pytest.mark.usefixtures("in_this_process")
def test_a_health_port_that_is_taken_is_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with taken_port() as port:
        code = main(Ends, "ends", arguments=[f"--health-port={port}"], environment={"K_SINK": REFUSED_URL})
    assert code == Exit.CONFIG
    assert f"  --health-port: cannot listen on *:{port}: {os.strerror(errno.EADDRINUSE)}" in capsys.readouterr().err


@pytest.mark.usefixtures("in_this_process")
def test_a_prometheus_port_that_is_taken_is_a_wrong_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with taken_port() as port:
        config = json.dumps({"metrics": {"protocol": "prometheus", "endpoint": f":{port}"}})
        code = main(Ends, "ends", arguments=[], environment={"K_SINK": REFUSED_URL, "K_OBSERVABILITY_CONFIG": config})
    assert code == Exit.CONFIG
    assert f"  K_OBSERVABILITY_CONFIG: cannot listen on *:{port}:" in capsys.readouterr().err


@pytest.mark.parametrize("address", HOSTILE_ADDRESSES, ids=lambda address: ascii(address)[:20])
@pytest.mark.usefixtures("in_this_process")
def test_a_health_address_that_cannot_be_listened_on_is_a_wrong_setting(
    address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environment = {"K_SINK": REFUSED_URL, "HEALTH_ADDRESS": address}
    assert main(Ends, "ends", arguments=["--health-port=1"], environment=environment) == Exit.CONFIG
    said = capsys.readouterr().err
    assert "cannot listen on" in said or "HEALTH_ADDRESS" in said
    assert "Traceback" not in said
    assert "\x1b" not in said


# --- exit codes ---


async def test_a_source_that_ends_with_all_events_accepted_ends_with_0() -> None:
    async with RecordingSink() as sink:
        assert await hosted(Burst(3), sink.url) == Exit.DONE
        assert len(sink.events) == 3


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_source_that_ends_with_an_event_refused_ends_with_3(status: int) -> None:
    async with RecordingSink() as sink:
        sink.then(Answer(202), Answer(status))
        assert await hosted(Burst(3, one_by_one=True), sink.url) == Exit.UNDELIVERED


async def test_a_source_that_ends_with_an_event_expired_ends_with_3() -> None:
    assert await hosted(Burst(1, worth=0.05), REFUSED_URL) == Exit.UNDELIVERED


async def test_a_dead_letter_is_no_loss() -> None:
    async with RecordingSink() as sink, RecordingSink() as dead_letters:
        sink.always(Answer(422))
        assert await hosted(Burst(2), sink.url, dead_letter=dead_letters.url) == Exit.DONE
        assert len(dead_letters.events) == 2


@pytest.mark.usefixtures("in_this_process")
def test_an_adapter_that_fails_ends_with_1_and_the_log_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(Fails, "fails", arguments=[], environment={"K_SINK": REFUSED_URL}) == Exit.FAILED
    failed = [json.loads(line) for line in capsys.readouterr().err.splitlines() if "source failed" in line]
    assert "ZeroDivisionError: on purpose" in failed[0]["stacktrace"]


@pytest.mark.parametrize("concurrency", [1, 200])
async def test_a_burst_reaches_a_sink_with_the_concurrency_that_was_asked_for(concurrency: int) -> None:
    held = asyncio.Event()
    async with RecordingSink() as sink:
        sink.always(Answer(202, until=held))

        async def let_go() -> None:
            await sink.came(concurrency)
            most.append(open_sinks[0].counters.on_wire)
            held.set()

        @asynccontextmanager
        async def compose(host: Host) -> AsyncIterator[None]:
            open_sinks.append(host.open_sink("sends", SinkBinding(sink=sink.url)))
            host.start("sends", Burst(300), open_sinks[0])
            host.start("lets go", Does(let_go), host.open_sink("lets go", SinkBinding(sink=sink.url)))
            yield

        most: list[int] = []
        open_sinks: list[HttpSink] = []
        assert await _ran(compose, ProcessSettings(concurrency=concurrency)) == Exit.DONE
        assert (most, len(sink.events)) == ([concurrency], 300)


@pytest.mark.parametrize(("concurrency", "connections"), [(1, 512), (128, 512), (600, 600)])
def test_a_target_may_have_as_many_connections_as_its_sink_has_tries(concurrency: int, connections: int) -> None:
    transport = _new_transport(ProcessSettings(concurrency=concurrency, connect_timeout=timedelta(seconds=3)))
    assert isinstance(transport, HttpTransport)
    assert (transport.limit, transport.timeouts.connect) == (connections, 3)


@pytest.mark.parametrize(
    ("arguments", "most"),
    [((), 200), (("--concurrency=7",), 7), (("--mode=batch",), 128)],
)
@pytest.mark.usefixtures("in_this_process")
def test_an_adapter_says_how_many_tries_it_has_at_once_where_nobody_else_does(
    arguments: tuple[str, ...], most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[int] = []

    class Wide(Ends):
        """Send many."""

        concurrency = staticmethod(lambda _: 200)

    def hosted(transport: Transport, clock: Clock, *, max_on_wire: int) -> Host:
        said.append(max_on_wire)
        return Host(transport, clock, max_on_wire=max_on_wire)

    monkeypatch.setattr(runtime, "Host", hosted)
    assert main(Wide, "wide", arguments=arguments, environment={"K_SINK": REFUSED_URL}) == Exit.DONE
    assert said == [most]


def test_a_system_that_gives_too_few_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    _allow_connections(10_000_000)
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    told = "the system lets us open too few files" in caplog.messages
    assert told == (limits[1] != resource.RLIM_INFINITY)


async def test_one_source_that_fails_lets_the_deliveries_of_the_others_land() -> None:
    held = asyncio.Event()
    async with RecordingSink() as sink:
        sink.then(Answer(202, until=held))

        async def fail_then_let_go() -> None:
            await sink.came(1)
            held.set()
            raise ZeroDivisionError

        @asynccontextmanager
        async def compose(host: Host) -> AsyncIterator[None]:
            host.start("sends", Burst(1), host.open_sink("sends", SinkBinding(sink=sink.url)))
            host.start("fails", Does(fail_then_let_go), host.open_sink("fails", SinkBinding(sink=sink.url)))
            yield

        assert await _ran(compose) == Exit.FAILED
        assert len(sink.events) == 1


@pytest.mark.usefixtures("in_this_process")
def test_a_wrong_setting_found_while_composing_is_reported_like_any_other(capsys: pytest.CaptureFixture[str]) -> None:
    @asynccontextmanager
    async def compose(_: Host) -> AsyncIterator[None]:
        raise ConfigError([Problem("somewhere", "is wrong")])
        yield

    assert run(compose, ProcessSettings(), program="wellhead that") == Exit.CONFIG
    said = capsys.readouterr().err
    assert said == "wellhead that: 1 problem in the configuration (--help lists every setting)\n  somewhere: is wrong\n"


# --- signals ---


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_on_a_signal_all_deliveries_in_flight_land_and_it_ends_with_0(number: signal.Signals) -> None:
    held = asyncio.Event()
    async with RecordingSink() as sink:
        sink.always(Answer(202, until=held))

        async def let_go() -> None:
            await sink.came(50)
            signal.raise_signal(number)
            held.set()

        assert await hosted(Burst(50), sink.url, meanwhile=let_go) == Exit.DONE
        assert len({event.id for event in sink.events}) == 50


async def test_what_the_grace_was_too_short_for_is_counted_and_ends_with_3(caplog: pytest.LogCaptureFixture) -> None:
    async with RecordingSink() as sink:
        sink.always(Answer(202, until=asyncio.Event()))
        sink.then(*[Answer(202)] * 20)

        async def stop() -> None:
            await sink.came(50)
            signal.raise_signal(signal.SIGTERM)

        kept: list[Host] = []
        assert await hosted(Burst(50), sink.url, meanwhile=stop, grace=0.05, kept=kept) == Exit.UNDELIVERED
        counters = kept[0].sinks()["it"].counters
        assert (counters.delivered, counters.dropped, counters.balance) == (20, {"stopped": 30}, 0)
    (told,) = [record for record in caplog.records if "not delivered within the grace" in record.message]
    assert vars(told)["events"] == 30


async def test_an_event_that_expires_while_stopping_was_not_accepted_either_and_ends_with_3() -> None:
    async def stop() -> None:
        signal.raise_signal(signal.SIGTERM)

    assert await hosted(Burst(1, worth=0.2), REFUSED_URL, meanwhile=stop) == Exit.UNDELIVERED


async def test_what_was_lost_before_the_signal_is_no_loss_of_the_stop() -> None:
    async with RecordingSink() as sink:
        sink.then(Answer(422))

        async def stop() -> None:
            await sink.accepted(1)
            signal.raise_signal(signal.SIGTERM)

        assert await hosted(Burst(2, one_by_one=True, stay=True), sink.url, meanwhile=stop) == Exit.DONE


async def test_an_adapter_that_settles_within_the_grace_may_still_send() -> None:
    async with RecordingSink() as sink:

        async def stop() -> None:
            signal.raise_signal(signal.SIGTERM)

        assert await hosted(LastWord(), sink.url, meanwhile=stop) == Exit.DONE
        assert len(sink.events) == 1


async def test_signals_are_nobodys_again_after_the_end() -> None:
    await hosted(Ends(Nothing()), REFUSED_URL)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)


# --- probes ---


async def test_readiness_is_the_adapters_and_health_ends_with_the_first_signal() -> None:
    go_on, established, asked = asyncio.Event(), asyncio.Event(), asyncio.Event()

    class Slow:
        async def run(self, _: Sink, ready: Callable[[], None]) -> None:
            await go_on.wait()
            ready()
            established.set()
            try:
                await asyncio.Event().wait()
            finally:
                await asked.wait()

    port = free_port()

    async def ask() -> None:
        assert await status(port, "/healthz") == 200
        for path in ("/readyz", "/readiness"):
            assert await status(port, path) == 503
        go_on.set()
        await established.wait()
        for path in ("/readyz", "/readiness", "/health", "/metrics", "/sinkz"):
            assert await status(port, path) == 200
        signal.raise_signal(signal.SIGTERM)
        while await status(port, "/health") == 200:  # the loop hears of the signal in a turn of its own
            pass
        assert await status(port, "/readyz") == 503
        assert await status(port, "/healthz") == 200
        asked.set()

    assert await hosted(Slow(), REFUSED_URL, meanwhile=ask, health_port=port) == Exit.DONE


async def test_prometheus_finds_the_metrics_where_knative_wants_them() -> None:
    port = free_port()

    async def ask() -> None:
        assert await status(port, "/metrics") == 200
        signal.raise_signal(signal.SIGTERM)

    process = ProcessSettings(prometheus=("127.0.0.1", port))
    assert await hosted(Stays(), REFUSED_URL, meanwhile=ask, process=process) == Exit.DONE


# --- adapters and helpers ---


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    unused: str = setting(text, "nothing", flag="unused", default="")


class Ends:
    """End at once."""

    Config: ClassVar[type] = Nothing
    event_types: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Nothing) -> None:
        self._config = config

    async def run(self, _: Sink, ready: Callable[[], None]) -> None:
        ready()


class Fails(Ends):
    """Fail."""

    async def run(self, _: Sink, ready: Callable[[], None]) -> None:
        ready()
        raise ZeroDivisionError("on purpose")


class Stays:
    async def run(self, _: Sink, ready: Callable[[], None]) -> None:
        ready()
        await asyncio.Event().wait()


class LastWord:
    """Sends what it holds when it is told to stop."""

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        ready()
        try:
            await asyncio.Event().wait()
        finally:
            await sink.send(event(1))


@dataclass
class Does:
    what: Callable[[], Awaitable[None]]

    async def run(self, _: Sink, ready: Callable[[], None]) -> None:
        ready()
        await self.what()


@dataclass
class Burst:
    """Sends events, together or one by one; ends with them, unless it is to stay."""

    number: int
    one_by_one: bool = False
    worth: float | None = None
    stay: bool = False

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        ready()
        at = asyncio.get_running_loop().time()
        deadline = Deadline(at + self.worth) if self.worth is not None else None
        sends = [sink.send(event(number), deadline=deadline) for number in range(self.number)]
        if self.one_by_one:
            for send in sends:
                with contextlib.suppress(DeliveryError):
                    await send
        else:
            await asyncio.gather(*sends, return_exceptions=True)
        if self.stay:
            await asyncio.Event().wait()


def event(number: int) -> CloudEvent:
    return CloudEvent(id=str(number), source="/burst", type="com.example.burst")


def configured(environment: Mapping[str, str], *arguments: str, capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
    """What the heartbeat says of a configuration; "\\0" stands for a variable that is not set."""
    given = {name: value for name, value in environment.items() if value != "\0"}
    code = main(Heartbeat, "heartbeat", arguments=arguments, environment=given)
    said = capsys.readouterr()
    assert "Traceback" not in said.err
    assert SECRET not in said.err + said.out
    assert said.out == ""
    return code, said.err


def quiet(environment: Mapping[str, str], *arguments: str) -> tuple[int, str]:
    import io

    with contextlib.redirect_stderr(io.StringIO()) as said, contextlib.redirect_stdout(io.StringIO()):
        return main(Heartbeat, "heartbeat", arguments=arguments, environment=environment), said.getvalue()


async def hosted(
    adapter: Adapter,
    url: str,
    *,
    dead_letter: str | None = None,
    meanwhile: Callable[[], Awaitable[None]] | None = None,
    grace: float = 5.0,
    health_port: int = 0,
    process: ProcessSettings | None = None,
    kept: list[Host] | None = None,
) -> int:
    """The exit code of a program with this one source; ``meanwhile`` runs beside it, from the source's start on."""

    @asynccontextmanager
    async def compose(host: Host) -> AsyncIterator[None]:
        dead = SinkBinding(sink=dead_letter) if dead_letter is not None else None
        host.start("it", adapter, host.open_sink("it", SinkBinding(sink=url), dead_letter=dead))
        beside = asyncio.create_task(_beside(host, meanwhile), name="meanwhile")
        yield
        await beside
        if kept is not None:
            kept.append(host)

    process = process or ProcessSettings(grace=timedelta(seconds=grace), health_address="127.0.0.1")
    return await _ran(compose, process, health_port)


async def _beside(host: Host, meanwhile: Callable[[], Awaitable[None]] | None) -> None:
    if meanwhile is not None:
        await asyncio.sleep(0)  # the source's first turn
        await meanwhile()


async def _ran(compose: Compose, process: ProcessSettings | None = None, health_port: int = 0) -> int:
    async with asyncio.timeout(IN_TIME):
        return await _run(compose, process or ProcessSettings(), health_port, until_signal=False)


async def status(port: int, path: str) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".encode())
        return int((await reader.read()).split()[1])
    finally:
        writer.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextlib.contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("", 0)) as server:
        yield server.getsockname()[1]
