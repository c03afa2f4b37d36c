"""The programs as a user starts them: real processes, killed, starved and lied to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
from pathlib import Path

import pytest
from tests.process import HEARTBEAT, POD, REFUSED_URL, WELLHEAD, Program, dead_pipe, run, started

from wellhead.testing import Answer, Behaviour, Garbage, HalfAnswer, Hang, RecordingSink, Reset

SECRET = "hunter2"
STOPS = (signal.SIGTERM, signal.SIGINT)
READY = "source is ready"
BURST = '''
"""A third party's adapter: sends as many events as it is told, all at once, and stays."""
import asyncio
import os

from wellhead.event import CloudEvent
from wellhead_adapters.heartbeat.config import HeartbeatConfig


class Burst:
    """Send a burst of events, from another package."""

    Config = HeartbeatConfig
    event_types = ("com.example.burst",)

    def __init__(self, config):
        self._number = int(config.msg)

    async def run(self, sink, ready):
        ready()
        events = [CloudEvent(id=str(n), source="/burst", type="com.example.burst") for n in range(self._number)]
        await asyncio.gather(*(sink.send(event) for event in events), return_exceptions=True)
        await asyncio.Event().wait()
'''


# --- bad input ---


@pytest.mark.parametrize("program", [(WELLHEAD, "heartbeat"), HEARTBEAT], ids=["wellhead heartbeat", "python -m"])
async def test_all_that_is_wrong_is_one_message_exit_code_2_and_no_secret(program: tuple[str, ...]) -> None:
    environment = {"K_SINK": f"http://me:{SECRET}@h/", "K_CE_OVERRIDES": "{", "K_CA_CERTS": SECRET}
    code, it = await run(*program, "-period=0", "--nope", "x", env=environment)
    assert (code, it.stdout.text) == (2, "")
    first, *rest = it.stderr.lines
    assert first == "wellhead heartbeat: 7 problems in the configuration (--help lists every setting)"
    named = [line.split(":")[0].strip() for line in rest]
    assert sorted(named) == sorted(
        ["--nope", "--period", "POD_NAME", "POD_NAMESPACE", "K_SINK", "K_CE_OVERRIDES", "K_CA_CERTS"]
    )
    assert SECRET not in it.stderr.text


async def test_octets_that_are_no_text_in_arguments_and_environment_are_told_of_in_ascii() -> None:
    environment = {b"K_SINK": b"http://\xff\x1b[31m/", b"POD_NAME": b"\xc3(", b"POD_NAMESPACE": b"n" * 100_000}
    code, it = await run(*HEARTBEAT, b"--\xff\n\x07", b"--period=\xfe\x00"[:-1], env=environment)
    assert code == 2
    assert all(line.isprintable() for line in it.stderr.lines)
    assert len(it.stderr.text) < 3000
    assert "Traceback" not in it.stderr.text


async def test_octets_that_are_no_text_become_the_replacement_character_in_data_as_in_go() -> None:
    async with RecordingSink() as sink:
        environment = {k.encode(): v.encode() for k, v in beats(sink.url, ONE_SHOT="1").items()}
        environment[b"HEARTBEAT_LABEL"] = b'"\xff\\xfe"'
        code, _ = await run(*HEARTBEAT, b"--msg", b"\xc3(", env=environment)
        assert code == 0
        assert sink.events[0].data == '{"id":1,"label":"\ufffd\ufffd","msg":"\ufffd("}'.encode()


@pytest.mark.parametrize(
    "command", [("heartbeat", "--health-port"), ("display", "--port"), ("run", "--demo", "--port")]
)
async def test_a_port_that_is_taken_is_exit_code_2_and_named(command: tuple[str, ...]) -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        sink = {"K_SINK": REFUSED_URL} if command[0] == "heartbeat" else {}
        code, it = await run(WELLHEAD, *command, str(port), env={**POD, **sink})
    assert code == 2
    (told,) = it.stderr.lines[1:]
    assert told.startswith(f"  {command[-1]}: cannot listen on *:{port}: Address already in use")


# --- sinks that misbehave ---


MISBEHAVIOURS: tuple[Behaviour, ...] = (
    Reset(),
    Garbage(),
    HalfAnswer(),
    Answer(503),
    Answer(307, ((b"location", b"http://127.0.0.1:1/elsewhere"),)),
    Answer(401),
    Answer(400, body=b"\x1b[31mno"),
    Hang(),
)


async def test_whatever_the_sink_does_the_program_goes_on_and_tells_at_the_end() -> None:
    async with RecordingSink() as sink:
        env = beats(sink.url, GRACE="10ms", K_SINK_TIMEOUT="1")
        async with started(*HEARTBEAT, "--period=150ms", env=env) as it:
            for number, misbehaviour in enumerate(MISBEHAVIOURS, 1):
                sink.always(misbehaviour)
                await it.stderr.line("event was not delivered", number)
                sink.always(Answer(202))
                await sink.accepted(len(sink.events) + 1)
            sink.always(Hang())
            await sink.came(len(sink.tried) + 1)
            assert await it.stop() == 3
        assert "Traceback" not in it.stderr.text
        assert "\x1b" not in it.stderr.text


async def test_a_sink_that_is_not_there_yet_is_waited_for() -> None:
    async with RecordingSink() as sink:
        await sink.stop()
        async with started(*HEARTBEAT, "--period=300ms", env=beats(sink.url)) as it:
            await it.stderr.line("sink is down")
            await sink.start()
            await sink.accepted(2)
            assert await it.stop() == 0
        assert "sink is up again" in it.stderr.text


# --- kills ---


@pytest.fixture
def third_party(tmp_path: Path) -> dict[str, str]:
    """The environment in which a package of a third party is installed."""
    (tmp_path / "burst.py").write_text(BURST, encoding="utf-8")
    facts = tmp_path / "burst-1.0.dist-info"
    facts.mkdir()
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: burst\nVersion: 1.0\n", encoding="utf-8")
    (facts / "entry_points.txt").write_text(
        "[wellhead.adapters]\nburst = burst:Burst\nbroken = nowhere:Nothing\n", encoding="utf-8"
    )
    return {"PYTHONPATH": str(tmp_path)}


@pytest.mark.parametrize("number", STOPS)
async def test_deliveries_in_flight_at_a_signal_all_land(number: signal.Signals, third_party: dict[str, str]) -> None:
    held = asyncio.Event()
    async with RecordingSink() as sink:
        sink.always(Answer(202, until=held))
        async with started(WELLHEAD, "burst", "--msg=100", env={**third_party, **beats(sink.url)}) as it:
            await sink.came(100)
            it.send(number)
            await it.stderr.line("stopping")
            held.set()
            assert await it.ended() == 0
        assert len({event.id for event in sink.events}) == 100


@pytest.mark.parametrize("number", STOPS)
async def test_deliveries_that_do_not_land_are_counted_and_the_exit_code_is_3(
    number: signal.Signals, third_party: dict[str, str]
) -> None:
    async with RecordingSink() as sink:
        sink.always(Hang())
        sink.then(*[Answer(202)] * 40)
        env = {**third_party, **beats(sink.url, GRACE="100ms")}
        async with started(WELLHEAD, "burst", "--msg=100", env=env) as it:
            await sink.came(100)
            assert await it.stop(number) == 3
        assert len(sink.events) == 40
        lost = {line["id"] for line in logged(it) if line["message"] == "event was not delivered"}
        assert lost == {str(n) for n in range(100)} - {event.id for event in sink.events}
        (told,) = [line for line in logged(it) if "not delivered within the grace" in str(line["message"])]
        assert told["events"] == 60


@pytest.mark.parametrize(("first", "second"), [STOPS, STOPS[::-1]])
async def test_a_second_signal_ends_it_at_once_with_128_and_its_number(
    first: signal.Signals, second: signal.Signals
) -> None:
    async with RecordingSink() as sink:
        sink.always(Hang())
        async with started(*HEARTBEAT, "--period=1h", env=beats(sink.url, GRACE="1h")) as it:
            await sink.came(1)
            it.send(first)
            await it.stderr.line("stopping")
            assert await it.stop(second) == 128 + second


async def test_after_kill_9_the_next_start_is_clean() -> None:
    port = free_port()
    async with RecordingSink() as sink:
        env = beats(sink.url, HEALTH_PORT=str(port), HEALTH_ADDRESS="127.0.0.1")
        async with started(*HEARTBEAT, "--period=50ms", env=env) as it:
            await sink.accepted(2)
            assert await it.stop(signal.SIGKILL) == -signal.SIGKILL
        before = len(sink.events)
        async with started(*HEARTBEAT, "--period=50ms", env=env) as it:
            await sink.accepted(before + 2)
            assert await it.stop() == 0
        assert b'{"id":1,' in (sink.events[before].data or b"")
        assert len({event.id for event in sink.events}) == len(sink.events)


async def test_a_sigterm_while_it_starts_ends_it_without_an_event() -> None:
    async with RecordingSink() as sink:
        async with started(*HEARTBEAT, env=beats(sink.url)) as it:
            assert await it.stop() in (-signal.SIGTERM, 0)
            assert "Traceback" not in it.stderr.text
        assert len(sink.tried) == len(sink.events)


async def test_a_log_reader_that_goes_away_does_not_end_it() -> None:
    writing = dead_pipe()
    try:
        async with RecordingSink() as sink:
            sink.then(*[Answer(422)] * 3)
            async with started(*HEARTBEAT, "--period=50ms", env=beats(sink.url), stderr=writing) as it:
                await sink.accepted(2)
                assert await it.stop() == 0
    finally:
        os.close(writing)


@pytest.mark.parametrize("command", [("--help",), ("heartbeat", "--help"), ("completion", "bash"), ("version",)])
async def test_a_reader_of_help_that_goes_away_is_no_error(command: tuple[str, ...]) -> None:
    writing = dead_pipe()
    try:
        async with started(WELLHEAD, *command, stdout=writing) as it:
            assert await it.ended() == 0
            assert it.stderr.text == ""
    finally:
        os.close(writing)


# --- one shot ---


async def test_one_shot_ends_with_0_when_the_event_was_delivered() -> None:
    async with RecordingSink() as sink:
        sink.then(Answer(503), Answer(503))
        code, _ = await run(*HEARTBEAT, env=beats(sink.url, ONE_SHOT="true"))
        assert code == 0
        assert len(sink.events) == 1
        assert len({(event.id, event.time) for event in sink.tried}) == 1, "a retry is the same event"
        assert len(sink.tried) == 3


@pytest.mark.parametrize("how", ["refused", "exhausted", "stopped"])
async def test_one_shot_ends_with_3_when_it_was_not(how: str) -> None:
    async with RecordingSink() as sink:
        sink.always(Answer(400 if how == "refused" else 503))
        retries = ("--retry=2",) if how == "exhausted" else ()
        async with started(*HEARTBEAT, *retries, env=beats(sink.url, ONE_SHOT="1", GRACE="10ms")) as it:
            await sink.came(1)
            if how == "stopped":
                it.send(signal.SIGTERM)
            assert await it.ended() == 3
        assert (sink.events, "Traceback" in it.stderr.text) == ([], False)


# --- a third party's adapter ---


async def test_an_adapter_of_another_package_is_found_by_its_entry_point(third_party: dict[str, str]) -> None:
    code, it = await run(WELLHEAD, "--help", env=third_party)
    assert code == 0
    assert "  burst         Send a burst of events, from another package\n" in it.stdout.text
    code, it = await run(WELLHEAD, "completion", "bash", env=third_party)
    assert code == 0
    assert (
        'words="apiserver broken burst gitlab heartbeat kafka ping doctor next produce replay demo display run validate version completion"'
        in it.stdout.text
    )


async def test_an_adapter_that_cannot_be_loaded_spoils_only_itself(third_party: dict[str, str]) -> None:
    code, it = await run(WELLHEAD, "--help", env=third_party)
    assert code == 0
    assert "  broken        cannot be loaded: No module named 'nowhere'\n" in it.stdout.text
    code, it = await run(WELLHEAD, "broken", env=third_party)
    assert code == 2
    assert it.stderr.lines[1:] == ["  broken: cannot be loaded: No module named 'nowhere'"]


def beats(url: str, **more: str) -> dict[str, str]:
    return {**POD, "K_SINK": url, **more}


def logged(it: Program) -> list[dict[str, object]]:
    return [json.loads(line) for line in it.stderr.lines]


def free_port() -> int:
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
        return int(server.getsockname()[1])


@pytest.mark.skipif(not Path("/proc/self/limits").exists(), reason="only Linux says it")
async def test_as_many_files_are_open_as_the_machine_allows() -> None:
    """As Go's programs have it: a source of a thousand namespaces needs thousands of connections, a shell allows 1024."""
    words = ("sh", "-ec", 'ulimit -S -n 64; exec "$@"', "sh", *HEARTBEAT)
    async with started(*words, env={"K_SINK": REFUSED_URL, **POD}) as program:
        await program.stderr.line("source is ready")
        limits = Path(f"/proc/{program.process.pid}/limits").read_text()
    (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
    soft, hard = line.split()[3:5]
    assert soft == hard
