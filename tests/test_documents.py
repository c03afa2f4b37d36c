"""What the README and CONTRIBUTING say, done to the letter."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from pathlib import Path

from wellhead.testing import RecordingSink

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PYTHON_BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


async def test_the_library_example_of_the_readme_runs_as_a_program(tmp_path: Path) -> None:
    (program,) = PYTHON_BLOCK.findall(README)
    (tmp_path / "lines.py").write_text(program, encoding="utf-8")
    (tmp_path / "poem.txt").write_text("one\ntwo\n", encoding="utf-8")
    async with RecordingSink() as sink:
        done = await _run(tmp_path, "lines.py", "--path", "poem.txt", "--sink", sink.url)
        assert done.returncode == 0, done.stderr
        assert [event.data for event in sink.events] == [b"one", b"two"]
        assert {event.source for event in sink.events} == {"/files/poem.txt"}


async def test_the_wrong_call_in_the_readme_prints_what_it_says(tmp_path: Path) -> None:
    (shown,) = re.findall(r"```console\n\$ SINK=ftp://example.com wellhead (.*?)\n(.*?)```", README, re.DOTALL)
    command, expected = shown
    done = await _run(tmp_path, "-m", "wellhead_adapters.cli", *command.split(), SINK="ftp://example.com")
    assert (done.returncode, done.stderr) == (2, expected)


async def test_an_adapter_made_by_the_contributing_page_keeps_the_ten_laws(tmp_path: Path) -> None:
    files = [block.partition("\n") for block in PYTHON_BLOCK.findall(CONTRIBUTING)]
    for name, _, content in files:
        path = tmp_path / name.removeprefix("# ")
        path.parent.mkdir(exist_ok=True)
        path.write_text(content, encoding="utf-8")
    (tmp_path / "drops" / "__init__.py").touch()
    options = ("-o", "asyncio_mode=auto", "-p", "no:cacheprovider", "-q")
    done = await _run(tmp_path, "-m", "pytest", *options, "test_drops.py", PYTHONPATH=str(tmp_path))
    assert "10 passed" in done.stdout, done.stdout + done.stderr


async def _run(folder: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    keep = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    return await asyncio.to_thread(
        subprocess.run,
        [sys.executable, *arguments],
        cwd=folder,
        env={**keep, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
