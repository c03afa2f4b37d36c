"""``wellhead run -f`` and ``wellhead validate -f`` as a user starts them."""

from __future__ import annotations

import asyncio
import signal
from typing import TYPE_CHECKING, Final

from tests.process import WELLHEAD, run, started

from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from pathlib import Path

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
    assert "nothing says where its sink is" in it.stderr.text


async def test_sources_come_go_and_change_with_the_file_and_a_broken_file_ends_nothing(tmp_path: Path) -> None:
    file = tmp_path / "sources.yaml"
    file.write_text(PING.format(name="one"))
    async with RecordingSink() as sink, started(WELLHEAD, "run", "-f", str(file), "--sink", sink.url) as it:
        await came(sink, "one")
        file.write_text(PING.format(name="one") + "---" + PING.format(name="two"))
        await came(sink, "two")
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
