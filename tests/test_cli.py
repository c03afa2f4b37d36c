"""The command `wellhead`: help, completion, display, run."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import subprocess
from importlib.metadata import entry_points
from typing import TYPE_CHECKING

import aiohttp
import pytest
from tests.process import IN_TIME, WELLHEAD, Program, dead_pipe, started

from wellhead import __version__
from wellhead.display.text import event_text
from wellhead.env import known_names, settings
from wellhead.event import CloudEvent
from wellhead.http_binding import encode
from wellhead.settings import DeliverySettings, ProcessSettings, SinkSettings
from wellhead_adapters.cli.command import adapters, main, overview
from wellhead_adapters.cli.display import DisplaySettings
from wellhead_adapters.cli.plan import FileSettings
from wellhead_adapters.cli.run import RunSettings
from wellhead_adapters.heartbeat.config import HeartbeatConfig

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

COMMON = (SinkSettings, DeliverySettings, ProcessSettings)
CONFIGS = {
    "heartbeat": (HeartbeatConfig, *COMMON),
    "display": (DisplaySettings, ProcessSettings),
    "run": (RunSettings, FileSettings, *COMMON),
}
EVENT = CloudEvent(
    id="1", source="/s", type="t", time="2026-01-01T00:00:00Z", datacontenttype="application/json", data=b'{"a":[1,2]}',
    extensions={"n": 1},
)  # fmt: skip


# --- help ---


@pytest.mark.parametrize("name", sorted(entry_points(group="wellhead.commands").names))
def test_every_command_of_an_adapter_is_started_as_a_user_does(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*name.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: wellhead {name}")


@pytest.mark.parametrize("arguments", [(), ("help",), ("--help",), ("-h",), ("-help",)])
def test_the_first_screen_names_every_source_and_command(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.argv", ["wellhead", *arguments])
    assert main() == 0
    shown = capsys.readouterr().out
    assert shown == overview() + "\n"
    for word in (*adapters(), "display", "run", "version", "completion"):
        assert f"\n  {word} " in shown
    assert all(len(line) <= 110 for line in shown.splitlines())


@pytest.mark.parametrize("command", CONFIGS)
@pytest.mark.parametrize("flag", ["--help", "-h", "-help"])
def test_the_help_of_a_command_has_every_setting_with_its_variable(
    command: str, flag: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, "--nonsense", flag]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: wellhead {command} [flags]\n")
    words = shown.replace(",", " ").split()
    for config in CONFIGS[command]:
        for known in settings(config):
            assert not known.flag or f"--{known.flag}" in words
            assert all(f"${name}" in words for name in known.env)
            assert known.help.split()[0] in shown
    assert "Exit codes: " in shown


def test_no_setting_is_named_twice() -> None:
    for command, configs in CONFIGS.items():
        flags = [known.flag for config in configs for known in settings(config) if known.flag]
        names = list(known_names(configs))
        assert len(set(flags)) == len(flags), command
        assert len(set(names)) == len(names), command


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    for word in ("version", "--version", "-version"):
        assert main([word]) == 0
        assert capsys.readouterr().out == f"wellhead {__version__}\n"


@pytest.mark.parametrize(
    ("word", "hint"), [("hartbeat", "; did you mean heartbeat?"), ("disply", "; did you mean display?"), ("xyz", "")]
)
def test_an_unknown_command_is_told_of_with_the_nearest(
    word: str, hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([word, "--help"]) == 2
    assert capsys.readouterr().err == f"wellhead: no command '{word}'{hint} (wellhead --help lists them)\n"


@pytest.mark.parametrize("word", ["\x1b[31m", "a\nb", "\udcff", "x" * 10_000, ""])
def test_a_hostile_command_is_told_of_in_one_printable_line(word: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([word]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.isprintable()
    assert len(line) < 200


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("display", "--prt=1"), "--prt: no such flag; did you mean --port?"),
        (("display", "--port=65536"), "--port: '65536' is not a whole number from 0 to 65535"),
        (("display", "--quiet=maybe"), "--quiet: 'maybe' is not true or false"),
        (("display", "--address", "a b"), "--address: 'a b' is no host name and no IP address"),
        (("run",), "-f: is not given, nor --demo: say what to run"),
        (("run", "--demo", "--sink=ftp://me:hunter2@h"), "--sink: 'ftp://h' has the scheme 'ftp'"),
        (("run", "--demo", "--sink=ksvc:show"), "sink.ref Service show: no API server to ask here"),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_a_wrong_flag_of_a_command_is_told_of(
    arguments: tuple[str, ...], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert f"\n  {told}" in said
    assert "hunter2" not in said


# --- completion ---


@pytest.fixture(scope="module")
def bash_script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return script("bash", tmp_path_factory.mktemp("completion"))


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        (
            "",
            {
                "apiserver",
                "heartbeat",
                "gitlab",
                "kafka",
                "ping",
                "doctor",
                "next",
                "produce",
                "replay",
                "demo",
                "display",
                "run",
                "validate",
                "version",
                "completion",
            },
        ),
        ("h", {"heartbeat"}),
        ("heartbeat --per", {"--period"}),
        ("heartbeat --mode ", {"binary", "structured", "batch"}),
        ("heartbeat --mode s", {"structured"}),
        ("heartbeat --log-level ", {"debug", "info", "warn", "error"}),
        ("display --po", {"--port"}),
        ("display --log-l", {"--log-level"}),
        ("display --log-level d", {"debug"}),
        (
            "run --de",
            {"--demo", "--dead-letter-sink", "--dead-letter-credentials", "--dead-letter-max-bytes"},
        ),
        ("nonsense ", set()),
    ],
)
def test_bash_completes(typed: str, offered: set[str], bash_script: Path) -> None:
    words = ["wellhead", *typed.split(" ")]
    quoted = " ".join(map(shlex.quote, words))
    program = f'. {bash_script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _wellhead || :; printf "%s\\n" "${{COMPREPLY[@]}}"'
    shown = subprocess.run(["bash", "-euc", program], capture_output=True, text=True, timeout=IN_TIME, check=True)
    assert shown.stderr == ""
    assert set(shown.stdout.split()) == offered


def test_bash_offers_every_flag_of_a_source(bash_script: Path) -> None:
    known = {f"--{known.flag}" for config in CONFIGS["heartbeat"] for known in settings(config) if known.flag}
    program = f'. {bash_script}; COMP_WORDS=(wellhead heartbeat --); COMP_CWORD=2; _wellhead; echo "${{COMPREPLY[@]}}"'
    shown = subprocess.run(["bash", "-euc", program], capture_output=True, text=True, timeout=IN_TIME, check=True)
    assert set(shown.stdout.split()) == known | {"--help"}


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_completion_script_parses(shell: str, tmp_path: Path) -> None:
    made = script(shell, tmp_path)
    if shutil.which(shell) is None:
        pytest.skip(f"{shell.upper()} IS NOT INSTALLED: its completion script is not parsed")
    subprocess.run([shell, "-n", str(made)], check=True, timeout=IN_TIME)


def test_fish_is_told_of_every_flag(tmp_path: Path) -> None:
    lines = script("fish", tmp_path).read_text(encoding="utf-8").splitlines()
    for line in lines:
        shlex.split(line.replace(r"\'", ""))  # every quote that is opened is closed
    for command, configs in CONFIGS.items():
        for known in (known for config in configs for known in settings(config) if known.flag):
            assert any(f"from {command}' -l {known.flag} " in line for line in lines)


@pytest.mark.parametrize("arguments", [(), ("tcsh",)])
def test_completion_for_no_shell_we_know_says_which(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", *arguments]) == 2
    assert capsys.readouterr().err == "wellhead completion: say which shell: bash, zsh, fish\n"


def script(shell: str, folder: Path) -> Path:
    import contextlib

    made = folder / f"wellhead.{shell}"
    with made.open("w", encoding="utf-8") as file, contextlib.redirect_stdout(file):
        assert main(["completion", shell]) == 0
    return made


# --- display ---


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=IN_TIME)) as session:
        yield session


async def test_the_display_prints_what_knatives_prints_and_answers_like_it(client: aiohttp.ClientSession) -> None:
    async with started(WELLHEAD, "display", "--port=0", "--address=127.0.0.1") as it:
        url = await opened(it)
        for structured in (False, True):
            headers, body = encode(EVENT, structured=structured)
            async with client.post(f"{url}/any/path", data=body, headers=text(headers)) as answer:
                assert (answer.status, await answer.read()) == (200, b"")
        expected = event_text(EVENT) * 2
        await it.stdout.has(lambda output: len(output.octets) >= len(expected))
        assert it.stdout.octets == expected
        async with client.get(f"{url}/healthz") as answer:
            assert answer.status == 204
        async with client.post(url, data=b"x") as answer:
            assert answer.status == 415
        async with client.get(f"{url}/events") as answer:
            assert [one["id"] for one in shown(await answer.json())] == ["1", "1"]
        assert await it.stop() == 0
    assert "Traceback" not in it.stderr.text


async def test_the_display_goes_on_when_its_reader_goes_away(client: aiohttp.ClientSession) -> None:
    writing = dead_pipe()
    headers, body = encode(EVENT)
    try:
        async with started(WELLHEAD, "display", "--port=0", "--address=127.0.0.1", stdout=writing) as it:
            url = await opened(it)
            for _ in range(2):
                async with client.post(url, data=body, headers=text(headers)) as answer:
                    assert answer.status == 200
            assert await it.stop(signal.SIGINT) == 0
    finally:
        os.close(writing)


async def test_the_display_takes_its_settings_from_the_environment_as_well(client: aiohttp.ClientSession) -> None:
    env = {"PORT": "0", "ADDRESS": "127.0.0.1", "QUIET": "true", "REQUEST_LOGGING_ENABLED": "true", "KEEP_EVENTS": "1"}
    headers, body = encode(EVENT)
    async with started(WELLHEAD, "display", env=env) as it:
        url = await opened(it)
        for _ in range(2):
            async with client.post(url, data=body, headers=text(headers)) as answer:
                assert answer.status == 200
        async with client.get(f"{url}/events") as answer:
            assert len(shown(await answer.json())) == 1
        assert await it.stop() == 0
    assert it.stdout.octets == b""
    assert '"Ce-Type"' in it.stderr.text


# --- run ---


async def test_the_demo_sends_heartbeats_to_the_display_it_opens(client: aiohttp.ClientSession) -> None:
    async with started(WELLHEAD, "run", "--demo", "--port", "0") as it:
        line = await it.stdout.line("Heartbeats and ticks arrive at ")
        url = line.split()[-1]
        await it.stdout.line("type: dev.knative.eventing.samples.heartbeat")
        async with client.get(f"{url}/events") as answer:
            sources = {event["source"] for event in shown(await answer.json())}
        assert "https://knative.dev/eventing-contrib/cmd/heartbeats/#laptop/demo" in sources
        assert await it.stop(signal.SIGINT) == 0
    assert "Traceback" not in it.stderr.text


async def opened(it: Program) -> str:
    line = json.loads(await it.stderr.line("the event display is open"))
    return str(line["url"])


def text(headers: list[tuple[bytes, bytes]]) -> dict[str, str]:
    return {name.decode(): value.decode() for name, value in headers}


def shown(page: Mapping[str, list[Mapping[str, Mapping[str, str]]]]) -> list[Mapping[str, str]]:
    """The events of ``/events``."""
    return [kept["event"] for kept in page["events"]]
