"""What the repository says of itself is so: tables of settings, commands in READMEs, layers, versions, imports."""

from __future__ import annotations

import ast
import re
import shlex
import subprocess
import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest
from tests.process import POD, started

from wellhead import __version__
from wellhead.env import parse_flags, settings
from wellhead.help import table
from wellhead.settings import KNATIVE_IGNORED, DeliverySettings, ProcessSettings, SinkSettings
from wellhead.testing import RecordingSink
from wellhead_adapters.apiserver.doctor import DoctorSettings
from wellhead_adapters.cli.command import adapters
from wellhead_adapters.cli.demo import DemoSettings
from wellhead_adapters.cli.display import DisplaySettings
from wellhead_adapters.cli.plan import FileSettings
from wellhead_adapters.cli.replay import ReplaySettings
from wellhead_adapters.cli.run import RunSettings
from wellhead_adapters.kafka.connection import ConnectionSettings
from wellhead_adapters.kafka.produce import ProduceSettings
from wellhead_adapters.ping.preview import NextSettings

ROOT: Final = Path(__file__).parents[1]
PROGRAMS: Final = ROOT / "adapters/wellhead_adapters"
COMMON: Final = (SinkSettings, DeliverySettings, ProcessSettings)
READMES: Final = sorted(
    path for path in ROOT.rglob("*.md") if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
)
SHELL_BLOCK: Final = re.compile(r"```sh\n(.*?)```", re.DOTALL)
LINK: Final = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#([^)\s]*))?\)")
TOP_LEVEL: Final = {
    ".ci", ".dockerignore", ".git", ".github", ".gitignore", ".pre-commit-config.yaml", "CHANGELOG.md", "CONTRIBUTING.md",
    "LICENSE", "Makefile", "README.md", "SECURITY.md", "adapters", "docker", "docs", "manifests", "pyproject.toml",
    "sources", "tests",
}  # fmt: skip
# What no program may load on the way to its first event over HTTP: each costs CPU time or memory of every start.
# zoneinfo and tempfile come with a timezone and a state file, the server with a port for probes.
HEAVY: Final = (
    "aiohttp", "aiokafka", "argparse", "cloudevents", "croniter", "email", "gitlab", "http", "importlib.metadata",
    "kubernetes_asyncio", "multiprocessing", "opentelemetry", "platform", "prometheus_client", "tempfile", "urllib.request",
    "uuid", "wellhead.display", "wellhead.health", "wellhead.http_server", "wellhead.manifest",
    "wellhead.otel", "wellhead.testing", "wellhead_adapters.cli", "yaml", "yarl", "zoneinfo",
)  # fmt: skip

# Runs a module as `python -m` does, and tells at its end what was loaded.
TELLING: Final = """
import runpy, sys
try:
    runpy.run_module(sys.argv[1], run_name="__main__", alter_sys=True)
finally:
    print(*sorted(sys.modules))
"""


# --- tables of settings ---


@pytest.mark.parametrize("kind", adapters())
def test_the_readme_of_an_adapter_has_the_table_of_its_settings(kind: str) -> None:
    readme = (PROGRAMS / kind / "README.md").read_text(encoding="utf-8")
    assert between(readme, "settings") == table(adapters()[kind]().Config)


def test_every_adapter_folder_is_an_adapter() -> None:
    folders = {path.parent.name for path in PROGRAMS.glob("*/__init__.py")} - {"cli"}
    assert folders == {kind.replace("-", "_") for kind in adapters()}


@pytest.mark.parametrize("config", [*COMMON, DisplaySettings], ids=lambda config: config.__name__)
def test_the_readme_of_the_library_has_the_tables_of_the_settings_of_all(config: type) -> None:
    readme = (ROOT / "sources/README.md").read_text(encoding="utf-8")
    assert between(readme, f"settings {config.__name__}") == table(config)


def test_the_readme_of_kafka_has_the_table_of_produce() -> None:
    readme = (PROGRAMS / "kafka/README.md").read_text(encoding="utf-8")
    assert between(readme, "settings ProduceSettings") == table(ProduceSettings)


def test_every_metric_and_no_other_is_in_the_readme_of_the_library() -> None:
    from wellhead.metrics import SinkCounters, sink_metrics

    readme = (ROOT / "sources/README.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\| `(wellhead_\w+)`", readme, re.MULTILINE)) == sorted(
        metric.name for metric in sink_metrics({"": SinkCounters()})
    )


def test_variables_of_knatives_that_ask_nothing_of_us_are_none_we_read() -> None:
    ours = {
        name for config in (*COMMON, DisplaySettings, RunSettings) for known in settings(config) for name in known.env
    }
    assert not ours & set(KNATIVE_IGNORED)


# --- READMEs ---


def shell_lines(path: Path) -> list[str]:
    text = "\n".join(SHELL_BLOCK.findall(path.read_text(encoding="utf-8"))).replace("\\\n", " ")
    return [line for line in text.splitlines() if line.strip() and not line.startswith("#")]


COMMANDS: Final = [
    pytest.param(words, id=f"{path.relative_to(ROOT)}: {line[:60]}")
    for path in READMES
    for line in shell_lines(path)
    for words in [
        [word for word in shlex.split(line, comments=True) if not re.fullmatch(r"[A-Z_]+=.*", word, re.DOTALL)]
    ]
    if words and words[0] in ("wellhead", "make")
]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) >= 4


@pytest.mark.parametrize("words", COMMANDS)
def test_a_command_in_a_readme_exists_with_its_flags(words: list[str]) -> None:
    program, *rest = words
    if program == "make":
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
        assert {word for word in rest if "=" not in word} <= targets
        return
    command, *flags = rest or ["help"]
    if flags[:1] == ["cleanup"]:  # a command of two words, that takes the flags of the first
        flags = flags[1:]
    configs = {
        **{kind: (load().Config, *COMMON) for kind, load in adapters().items()},
        "display": (DisplaySettings, ProcessSettings),
        "run": (RunSettings, FileSettings, *COMMON),
        "next": (NextSettings,),
        "produce": (ProduceSettings, ConnectionSettings),
        "demo": (DemoSettings, ProcessSettings),
        "doctor": (DoctorSettings,),
        "replay": (ReplaySettings, *COMMON),
        "validate": (FileSettings,),
    }
    if command == "demo":
        assert flags.pop(0) in entry_points(group="wellhead.demos").names
    if command in configs:
        known = [setting for config in configs[command] for setting in settings(config)]
        given = [word for word in flags if word not in ("--help", "-h")]
        if command == "replay":
            assert not given.pop(0).startswith("-"), "the file stands before the flags"
        assert parse_flags(given, known).problems == ()
        assert parse_flags(given, known).rest == ()
    else:
        assert command in ("version", "help", "--help", "completion")


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_links_of_a_readme_lead_somewhere(readme: Path) -> None:
    for target, anchor in LINK.findall(readme.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        there = (readme.parent / target).resolve()
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}, target


# --- layers, layout, versions ---


def test_the_layers_hold() -> None:
    lint = str(Path(sys.executable).with_name("lint-imports"))
    done = subprocess.run([lint, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_planted_import_of_another_adapter_would_be_found() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    assert {"layers", "independence", "forbidden"} == {contract["type"] for contract in contracts}
    (pure,) = (contract for contract in contracts if contract["type"] == "forbidden")
    for path in PROGRAMS.glob("*/events.py"):
        assert path.is_file()
        assert "wellhead_adapters.*.events" in pure["source_modules"]


def test_the_top_level_holds_what_it_should() -> None:
    ignored = (ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    found = {path.name for path in ROOT.iterdir() if not any(path.match(line.rstrip("/")) for line in ignored if line)}
    assert found <= TOP_LEVEL


@pytest.mark.parametrize(
    "path",
    sorted([*(ROOT / "sources/wellhead").rglob("*.py"), *PROGRAMS.rglob("*.py")]),
    ids=lambda path: str(path.relative_to(ROOT)),
)
def test_a_module_says_what_it_is_for(path: Path) -> None:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring
    assert len(docstring.splitlines()[0]) <= 130


def test_the_version_is_the_same_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["version"] == __version__
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## [{__version__}]" in changes or "## Unreleased" in changes


@pytest.mark.parametrize("kind", ["heartbeat", "ping"])
async def test_a_program_loads_nothing_heavy_from_its_start_over_an_event_to_its_end(kind: str) -> None:
    async with RecordingSink() as sink:
        environment = {"K_SINK": sink.url, "HEALTH_PORT": "0", "PING_SCHEDULE": "@every 1s", **POD}
        program = (sys.executable, "-c", TELLING, f"wellhead_adapters.{kind}")
        async with started(*program, env=environment) as running:
            await sink.accepted(1)
            assert await running.stop() == 0, running.stderr.text
    loaded = running.stdout.text.split()
    assert "wellhead.transport.http" in loaded
    assert [name for name in loaded if any(name == heavy or name.startswith(f"{heavy}.") for heavy in HEAVY)] == []


def between(text: str, marker: str) -> str:
    _, begin, rest = text.partition(f"<!-- {marker} -->\n")
    inside, end, _ = rest.partition(f"\n<!-- /{marker} -->")
    assert begin, f"no <!-- {marker} -->"
    assert end, f"no <!-- /{marker} -->"
    return inside
