"""``wellhead run -f`` and ``wellhead validate -f`` as a user starts them."""

from __future__ import annotations

import asyncio
import re
import signal
import sys
from base64 import b64encode
from pathlib import Path
from typing import Final

from tests.process import WELLHEAD, run, started

from wellhead.dead_letter import decode_line
from wellhead.testing import Answer, RecordingSink

ROOT: Final = Path(__file__).parents[1]
TUTORIAL: Final = ROOT / "tests/samples/tutorial"
PING: Final = """
apiVersion: sources.knative.dev/v1
kind: PingSource
metadata: {{name: {name}}}
spec:
  schedule: "* * * * * *"
  data: hello
  sink: {{ref: {{apiVersion: v1, kind: Service, name: event-display}}}}
"""
IN_TIME: Final = 20
# `wellhead run`, in which the wall clock of every PingSource stands half a second before a full minute.
HALF_A_SECOND_BEFORE_THE_MINUTE: Final = """
import sys
from datetime import UTC, datetime, timedelta
from wellhead_adapters.cli.command import adapters
from wellhead_adapters.cli.run import main
from wellhead_adapters.ping.adapter import Ping
from wellhead_adapters.ping.pings import Pings

class Clock:
    ahead = timedelta(seconds=59.5 - datetime.now(UTC).timestamp() % 60)
    def now(self):
        return datetime.now(UTC) + self.ahead

class Soon(Ping):
    many = staticmethod(lambda: Pings(clock=Clock()))

raise SystemExit(main(sys.argv[1:], {**adapters(), "ping": lambda: Soon}))
"""
DRAWN_BY_LOT: Final = re.compile(r"^  (id|time): .*$", re.MULTILINE)
HEARTBEAT: Final = """\
☁️  cloudevents.Event
Context Attributes,
  specversion: 1.0
  type: dev.knative.eventing.samples.heartbeat
  source: https://knative.dev/eventing-contrib/cmd/heartbeats/#event-test/mypod
  id: …
  time: …
  datacontenttype: application/json
Extensions,
  beats: true
  heart: yes
  the: 42
Data,
  {
    "id": 1,
    "label": ""
  }
"""


def source(name: str) -> str:
    return f"/apis/v1/namespaces/default/pingsources/{name}"


async def came(sink: RecordingSink, name: str, more_than: int = 0) -> None:
    """Wait until an event of this PingSource came behind the first ``more_than``."""
    number = more_than + 1
    async with asyncio.timeout(IN_TIME):
        while source(name) not in [event.source for event in (await sink.accepted(number))[more_than:]]:
            number += 1


async def test_knative_yaml_fires_into_the_display_it_opens_unchanged(tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(PING.format(name="tick"))
    async with started(WELLHEAD, "run", "-f", str(tmp_path), "--port=0") as it:
        await it.stdout.line("Events arrive at ")
        await it.stdout.line(f"source: {source('tick')}")
        assert await it.stop(signal.SIGINT) == 0
    assert "nothing says where this sink is" in it.stderr.text


async def test_sources_come_go_and_change_with_the_file_and_a_broken_file_ends_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(PING.format(name="one"))
    async with RecordingSink() as sink, started(WELLHEAD, "run", "-f", str(tmp_path), "--sink", sink.url) as it:
        await came(sink, "one")
        file.write_text(PING.format(name="one") + "---" + PING.format(name="two"))
        await came(sink, "two")
        (tmp_path / "more.yml").write_text(PING.format(name="three"))  # a new file in the folder
        await came(sink, "three", len(sink.events))
        file.write_text("kind: [")
        await it.stderr.line("files are wrong; what runs goes on")
        await came(sink, "one", len(sink.events))
        file.write_text(PING.format(name="two"))
        await came(sink, "two", len(sink.events))
        assert await it.stop() == 0


async def test_a_ref_is_mapped_by_a_flag(tmp_path: Path) -> None:
    file = tmp_path / "source.yaml"
    file.write_text(PING.format(name="tick"))
    async with RecordingSink() as sink:
        flags = ("-f", str(file), "--port=0", f"--ref=event-display={sink.url}")
        async with started(WELLHEAD, "run", *flags) as it:
            await came(sink, "tick")
            assert await it.stop() == 0


async def test_the_credentials_of_a_sink_that_was_given_go_with_every_documents_events(tmp_path: Path) -> None:
    file = tmp_path / "source.yaml"
    file.write_text(PING.format(name="tick"))
    async with RecordingSink() as sink:
        flags = ("-f", str(file), "--sink", sink.url, "--username=me")
        async with started(WELLHEAD, "run", *flags, env={"SINK_PASSWORD": "hunter2"}) as it:
            await came(sink, "tick")
            assert await it.stop() == 0
        assert sink.requests[0].request.header("authorization") == f"Basic {b64encode(b'me:hunter2').decode()}"


async def test_the_credentials_of_no_given_sink_go_to_none_of_the_documents(tmp_path: Path) -> None:
    file = tmp_path / "source.yaml"
    file.write_text(PING.format(name="tick"))
    async with RecordingSink() as sink:
        flags = ("-f", str(file), "--port=0", f"--ref=event-display={sink.url}")
        async with started(WELLHEAD, "run", *flags, env={"SINK_TOKEN": "hunter2"}) as it:
            await came(sink, "tick")
            assert await it.stop() == 0
        assert sink.requests[0].request.header("authorization") is None


async def test_a_document_without_a_dead_letter_sink_takes_the_flags(tmp_path: Path) -> None:
    file, dead = tmp_path / "source.yaml", tmp_path / "dead.jsonl"
    file.write_text(PING.format(name="tick"))
    async with RecordingSink() as sink:
        sink.always(Answer(422))
        flags = ("-f", str(file), "--sink", sink.url, "--dead-letter-sink", f"file://{dead}")
        async with started(WELLHEAD, "run", *flags) as it:
            await sink.came(1)
            assert await it.stop() == 0
    assert [decode_line(line).source for line in dead.read_bytes().splitlines()][:1] == [source("tick")]


async def test_validate_says_what_is_wrong_or_what_would_run_it(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right.yaml", tmp_path / "wrong.yaml"
    right.write_text(PING.format(name="tick"))
    wrong.write_text(PING.format(name="tick").replace("* * * * * *", "61 * * * *"))
    code, it = await run(WELLHEAD, "validate", "-f", str(right))
    assert (code, it.stdout.lines) == (0, ["PingSource default/tick: valid, run by ping"])
    code, it = await run(WELLHEAD, "validate", "-f", str(wrong))
    assert code == 2
    assert "spec.schedule: minute: end of range (61) above maximum (59): 61" in it.stderr.text


async def test_files_that_are_wrong_are_told_before_anything_is_started(tmp_path: Path) -> None:
    code, it = await run(WELLHEAD, "run", "-f", str(tmp_path / "none.yaml"))
    assert code == 2
    assert "cannot be read" in it.stderr.text
    assert "Traceback" not in it.stderr.text
    code, it = await run(WELLHEAD, "run", "-f", str(tmp_path))
    assert code == 2
    assert "is a folder without a .yaml or .yml file" in it.stderr.text


async def test_the_yaml_of_a_knative_tutorial_prints_what_the_readme_shows() -> None:
    readme = (ROOT / "adapters/wellhead_adapters/ping/README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```console\n\$ wellhead run -f pingsource.yaml\n(.*?)```", readme, re.DOTALL)
    files = [word for name in ("pingsource", "containersource") for word in ("-f", str(TUTORIAL / f"{name}.yaml"))]
    command = (sys.executable, "-c", HALF_A_SECOND_BEFORE_THE_MINUTE, *files, "--port=0")
    async with started(*command, env={"PYTHONIOENCODING": "utf-8"}) as it:
        await it.stdout.line("Hello world!")
        await it.stdout.line('"id": 2')
        assert await it.stop(signal.SIGINT) == 0
    printed = DRAWN_BY_LOT.sub(r"  \1: …", it.stdout.text)
    assert HEARTBEAT in printed
    assert DRAWN_BY_LOT.sub(r"  \1: …", shown) in printed


async def test_what_does_not_run_here_is_said(tmp_path: Path) -> None:
    file = tmp_path / "deployment.yaml"
    file.write_text("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: mine}\nspec: {}\n")
    code, it = await run(WELLHEAD, "validate", "-f", str(file))
    assert (code, it.stdout.lines) == (
        0,
        [f"{file}, document 1: Deployment default/mine is bound by no SinkBinding, and skipped"],
    )
    async with started(WELLHEAD, "run", "-f", str(file), "--port=0") as running:
        await running.stderr.line("nothing in these files is a source that runs here")
        assert await running.stop() == 0


async def test_data_longer_than_the_cluster_takes_is_refused_where_its_configmap_is_among_the_files(
    tmp_path: Path,
) -> None:
    (tmp_path / "ping.yaml").write_text(PING.format(name="tick"))
    defaults = tmp_path / "defaults.yaml"
    for name, size, wrong in (
        ("data-max-size", "5", ""),
        ("dataMaxSize", "4", "spec.data: the data length of 5 bytes exceeds limit set at 4."),
        ("data-max-size", "many", "data.data-max-size: 'many' is not an integer"),
    ):
        defaults.write_text(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config-ping-defaults, namespace: knative-eventing}\n"
            f'data: {{{name}: "{size}"}}\n'
        )
        code, it = await run(WELLHEAD, "validate", "-f", str(tmp_path))
        assert code == (2 if wrong else 0)
        assert wrong in it.stderr.text
