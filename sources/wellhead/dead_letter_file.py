"""Dead letters in a file of JSON lines: appended and on disk before anybody is told so. Decides nothing about events.

The file is opened and locked for each group of writes only, so that several programs can share it and
``wellhead replay`` can take lines out of it while a source runs.
"""

from __future__ import annotations

import asyncio
import errno
import fcntl
import logging
import os
import stat
import time
from collections import deque
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from .dead_letter import encode_line
from .errors import DeadLetterFull

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from .event import CloudEvent

MAX_BYTES: Final = 100 * 1024 * 1024
_GROUP_BYTES: Final = 4 * 1024 * 1024  # of data that one commit holds in memory beside its callers
_LOCK_SECONDS: Final = 5.0
_LOCK_AGAIN_SECONDS: Final = 0.02
_log = logging.getLogger(__name__)


class DeadLetterFile:
    """A file that takes dead letters. Costs no task, thread or descriptor until it is written to.

    Events are encoded and written by a thread, all that wait with one fsync. What waits is held by its callers:
    the file keeps no more in memory than one group. A new file is readable by its owner only.
    """

    def __init__(self, path: Path, *, max_bytes: int = MAX_BYTES) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._waiting: deque[tuple[CloudEvent, asyncio.Future[None]]] = deque()
        self._writer: asyncio.Task[None] | None = None
        self._full = False

    def check(self) -> None:
        """Make the file where there is none, and end a last line that a crash has torn. Blocks; called at the start.

        Raises OSError where events could not be written to it.
        """
        with locked(self.path) as descriptor:
            _end_torn_line(descriptor, self.path)

    async def write(self, event: CloudEvent) -> None:
        """Return once ``event`` is on disk; lines stand in the order of the calls.

        Raises `DeadLetterFull` where it has no room, OSError where it cannot be written; then the file is without it.
        A caller that is cancelled cannot know which of both it is.
        """
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((event, done))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write_groups(), name="writer of the dead-letter file")
        await done

    async def _write_groups(self) -> None:
        try:
            while self._waiting:
                group = self._next_group()
                ends = await asyncio.to_thread(self._commit, [event for event, _ in group])
                self._tell_if_full(ends)
                for (_, done), end in zip(group, ends, strict=True):
                    if done.done():
                        continue  # the caller is gone
                    if end is None:
                        done.set_result(None)
                    else:
                        done.set_exception(end)
        finally:
            self._writer = None

    def _next_group(self) -> list[tuple[CloudEvent, asyncio.Future[None]]]:
        group: list[tuple[CloudEvent, asyncio.Future[None]]] = []
        size = 0
        while self._waiting and size < _GROUP_BYTES:
            event, done = self._waiting.popleft()
            if not done.done():
                group.append((event, done))
                size += len(event.data or b"")
        return group

    def _commit(self, events: Sequence[CloudEvent]) -> list[Exception | None]:
        """Append those that have room; how each ended. Runs in a thread."""
        ends: list[Exception | None] = []
        lines: list[bytes] = []
        try:
            with locked(self.path) as descriptor:
                size = _end_torn_line(descriptor, self.path)
                for event in events:
                    line = encode_line(event)
                    if size + len(line) > self._max_bytes:
                        ends.append(DeadLetterFull(str(self.path), self._max_bytes))
                        continue
                    size += len(line)
                    lines.append(line)
                    ends.append(None)
                _append(descriptor, b"".join(lines))
        except OSError as error:
            return [OSError(error.errno, error.strerror, str(self.path)) for _ in events]
        return ends

    def _tell_if_full(self, ends: Sequence[Exception | None]) -> None:
        full = any(isinstance(end, DeadLetterFull) for end in ends)
        if full and not self._full:
            facts = {"path": str(self.path), "max_bytes": self._max_bytes}
            _log.error("dead-letter file is full: events are not acknowledged until it is replayed", extra=facts)
        elif self._full and not full and None in ends:
            _log.info("dead-letter file has room again", extra={"path": str(self.path)})
        if full or None in ends:
            self._full = full


class DeadLetterFiles:
    """The dead-letter files of one process, so that all sources that name the same one share one writer."""

    def __init__(self) -> None:
        self._files: dict[str, DeadLetterFile] = {}

    def open(self, path: Path, *, max_bytes: int = MAX_BYTES) -> DeadLetterFile:
        """The file at ``path``, checked; the first to ask sets the bound. Raises OSError where it cannot be written."""
        key = os.path.realpath(path)
        if key not in self._files:
            file = DeadLetterFile(path, max_bytes=max_bytes)
            file.check()
            self._files[key] = file
        return self._files[key]


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """A descriptor of the file at ``path``, made if it is not there, that nobody else has locked meanwhile.

    Raises OSError, also where another program holds it for longer than 5 s.
    """
    until = time.monotonic() + _LOCK_SECONDS
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NONBLOCK, 0o600)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "is no regular file", str(path))
            _lock(descriptor, path, until)
            if _is_at(descriptor, path):  # else it was replaced while we waited for the lock
                yield descriptor
                return
        finally:
            os.close(descriptor)  # and so unlocks


def _lock(descriptor: int, path: Path, until: float) -> None:
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > until:
                raise OSError(errno.EWOULDBLOCK, "is locked by another program", str(path)) from None
            time.sleep(_LOCK_AGAIN_SECONDS)
        else:
            return


def _is_at(descriptor: int, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _end_torn_line(descriptor: int, path: Path) -> int:
    """End a last line that has no newline, so that the next event begins its own; the file's size.

    The torn line is kept: it was never acknowledged, so nothing is lost with it, but it may be a person's own file.
    """
    size = os.fstat(descriptor).st_size
    if size == 0:
        sync_folder(path)  # perhaps made just now: its name has to survive as well
        return 0
    if os.pread(descriptor, 1, size - 1) == b"\n":
        return size
    _log.warning("the dead-letter file's last line is torn; it is kept, and no event", extra={"path": str(path)})
    _append(descriptor, b"\n")
    return size + 1


def _append(descriptor: int, octets: bytes) -> None:
    """Append all of it durably, or nothing."""
    before = os.fstat(descriptor).st_size
    try:
        left = memoryview(octets)
        while left:
            left = left[os.write(descriptor, left) :]
        os.fsync(descriptor)
    except OSError:
        with suppress(OSError):  # where this fails too, the next writer ends the torn line
            os.ftruncate(descriptor, before)
        raise


def sync_folder(path: Path) -> None:
    """Make durable which files the folder of ``path`` has."""
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
