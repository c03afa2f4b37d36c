"""Dead letters in a real file; what a full or broken disk does is played by the calls that would fail."""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import signal
import stat
import sys
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

import pytest
from tests.process import started

from wellhead import dead_letter_file
from wellhead.dead_letter import decode_line, encode_line
from wellhead.dead_letter_file import DeadLetterFile, DeadLetterFiles
from wellhead.errors import DeadLetterFull, DecodeError
from wellhead.event import CloudEvent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TORN: Final = b'{"specversion":"1.0","id":"to'


def dead(number: int, data: bytes | None = None) -> CloudEvent:
    return CloudEvent(
        id=str(number), source="/spring", type="drop", data=data, extensions={"knativeerrordest": "http://sink/"}
    )


def ids(path: Path) -> list[str]:
    return [decode_line(line).id for line in path.read_bytes().splitlines(keepends=True)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "dead.jsonl"


async def test_an_event_that_was_written_is_a_line_of_the_file(path: Path) -> None:
    await DeadLetterFile(path).write(dead(1, b"{}"))
    (line,) = path.read_bytes().splitlines(keepends=True)
    assert decode_line(line) == dead(1, b"{}")


async def test_a_new_file_is_its_owners_alone_whatever_the_umask(path: Path) -> None:
    before = os.umask(0)
    try:
        await DeadLetterFile(path).write(dead(1))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_events_that_wait_share_one_fsync_and_keep_their_order(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    syncs: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            syncs.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", counted)
    file = DeadLetterFile(path)
    await asyncio.gather(*(file.write(dead(number)) for number in range(100)))
    assert ids(path) == [str(number) for number in range(100)]
    assert len(syncs) == 1


async def test_write_returns_only_when_the_line_is_on_disk(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    syncing, may_end = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        syncing.set()
        may_end.wait(10)

    monkeypatch.setattr(os, "fsync", slow)
    writing = asyncio.create_task(DeadLetterFile(path).write(dead(1)))
    await asyncio.to_thread(syncing.wait, 10)
    assert not writing.done()  # and the loop is free meanwhile
    may_end.set()
    await writing


async def test_a_group_is_bounded_in_bytes(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dead_letter_file, "_GROUP_BYTES", 10)
    groups: list[int] = []
    commit = DeadLetterFile._commit

    def counted(self: DeadLetterFile, events: list[CloudEvent]) -> list[Exception | None]:
        groups.append(len(events))
        return commit(self, events)

    monkeypatch.setattr(DeadLetterFile, "_commit", counted)
    file = DeadLetterFile(path)
    await asyncio.gather(*(file.write(dead(number, b"12345")) for number in range(6)))
    assert groups == [2, 2, 2]
    assert ids(path) == list("012345")


async def test_a_full_file_takes_no_more_tells_it_once_and_takes_what_still_fits(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    line = len(encode_line(dead(1)))
    file = DeadLetterFile(path, max_bytes=2 * line)
    await file.write(dead(1))
    for _ in range(2):
        with pytest.raises(DeadLetterFull, match="is full: it may hold"):
            await file.write(dead(2, b"x" * line))
    await file.write(dead(3))
    assert ids(path) == ["1", "3"]
    assert path.stat().st_size <= 2 * line
    path.unlink()  # replayed
    await file.write(dead(4))
    assert [(record.levelname, record.message.partition(":")[0]) for record in caplog.records] == [
        ("ERROR", "dead-letter file is full"),
        ("INFO", "dead-letter file has room again"),
    ]


async def test_a_torn_last_line_is_kept_told_and_spoils_no_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(encode_line(dead(1)) + TORN)
    await DeadLetterFile(path).write(dead(2))
    assert path.read_bytes() == encode_line(dead(1)) + TORN + b"\n" + encode_line(dead(2))
    assert "torn" in caplog.text


@pytest.mark.parametrize("failing", ["write", "fsync"])
async def test_a_disk_that_fails_leaves_the_file_as_it_was_and_is_told_to_every_caller(
    path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    file = DeadLetterFile(path)
    await file.write(dead(1))
    before = path.read_bytes()
    write = os.write

    def half(descriptor: int, octets: bytes) -> int:
        if os.fstat(descriptor).st_size > len(before):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, octets[:10])

    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, half if failing == "write" else broken)
        ends = await asyncio.gather(file.write(dead(2)), file.write(dead(3)), return_exceptions=True)
    assert [type(end) for end in ends] == [OSError, OSError]
    assert path.read_bytes() == before
    await file.write(dead(4))
    assert ids(path) == ["1", "4"]


async def test_a_caller_that_went_away_takes_no_other_along(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = DeadLetterFile(path)
    first = asyncio.create_task(file.write(dead(1)))
    others = [asyncio.create_task(file.write(dead(number))) for number in (2, 3)]
    await asyncio.sleep(0)
    others[0].cancel()
    await asyncio.gather(first, others[1])
    assert ids(path)[0] == "1"
    assert ids(path)[-1] == "3"
    await file.write(dead(4))
    assert ids(path)[-1] == "4"


async def test_a_file_that_was_removed_or_replaced_is_made_anew(path: Path) -> None:
    file = DeadLetterFile(path)
    await file.write(dead(1))
    path.rename(path.with_name("moved"))
    await file.write(dead(2))
    assert ids(path) == ["2"]


async def test_it_waits_for_another_program_that_holds_the_file_and_follows_what_that_left(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.write_bytes(encode_line(dead(1)))
    rest = path.with_name("rest")
    rest.write_bytes(encode_line(dead(2)))
    asked = threading.Event()
    monkeypatch.setattr(time, "sleep", lambda _: asked.set())
    with held(path):
        writing = asyncio.create_task(DeadLetterFile(path).write(dead(3)))
        await asyncio.to_thread(asked.wait, 10)
        rest.replace(path)
    await writing
    assert ids(path) == ["2", "3"]


async def test_a_file_that_another_program_holds_for_too_long_is_an_error(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dead_letter_file, "_LOCK_SECONDS", 0.0)
    path.touch()
    with held(path), pytest.raises(OSError, match="is locked by another program"):
        await DeadLetterFile(path).write(dead(1))


async def test_two_programs_may_write_to_one_file(path: Path) -> None:
    one, other = DeadLetterFile(path), DeadLetterFile(path)
    await asyncio.gather(*((one, other)[number % 2].write(dead(number)) for number in range(40)))
    assert sorted(map(int, ids(path))) == list(range(40))


WRITES_FOR_EVER: Final = """
import asyncio, itertools, sys
from pathlib import Path
from wellhead.dead_letter_file import DeadLetterFile
from wellhead.event import CloudEvent

async def main():
    file = DeadLetterFile(Path(sys.argv[1]))
    async def lane(first):
        for number in itertools.count(first, 4):
            await file.write(CloudEvent(id=str(number), source="/spring", type="drop", data=b"x" * 5000))
            print(number, flush=True)
    await asyncio.gather(*map(lane, range(4)))

asyncio.run(main())
"""


async def test_what_was_told_to_be_written_survives_a_kill(path: Path) -> None:
    async with started(sys.executable, "-c", WRITES_FOR_EVER, str(path)) as program:
        await program.stdout.has(lambda it: len(it.lines) >= 100)
        await program.stop(signal.SIGKILL)
    await DeadLetterFile(path).write(dead(-1))
    whole = set()
    for line in path.read_bytes().splitlines(keepends=True):
        with suppress(DecodeError):  # one may be torn
            whole.add(decode_line(line).id)
    assert set(program.stdout.lines) <= whole
    assert "-1" in whole


def test_what_cannot_be_a_dead_letter_file_is_told_at_the_start(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, words in [
        (tmp_path, "Is a directory"),
        (tmp_path / "missing" / "dead.jsonl", "No such file"),
        (tmp_path / "pipe", "is no regular file"),
    ]:
        with pytest.raises(OSError, match=words):
            DeadLetterFiles().open(path)


def test_sources_that_name_the_same_file_share_one_writer(tmp_path: Path) -> None:
    files = DeadLetterFiles()
    (tmp_path / "link").symlink_to(tmp_path)
    first = files.open(tmp_path / "dead.jsonl", max_bytes=5)
    assert files.open(tmp_path / "link" / "dead.jsonl") is first
    assert files.open(tmp_path / "other.jsonl") is not first
    assert (tmp_path / "dead.jsonl").exists()


@contextmanager
def held(path: Path) -> Iterator[None]:
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
