"""The lines of a dead-letter file, one after another, and taking out of it those that are done with. Sends nothing."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from wellhead.dead_letter_file import locked, sync_folder

if TYPE_CHECKING:
    from collections.abc import Iterable

_COPIED_AT_ONCE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the file: its number from 1, and what it holds, its newline included."""

    number: int
    octets: bytes


class Letters:
    """What a dead-letter file held when it was opened. What is appended to it meanwhile stays in it, unread.

    The file is as it was until `take_out`, so a program that is killed loses nothing. Raises OSError where there is
    no such file.
    """

    def __init__(self, path: Path) -> None:
        self._path = Path(os.path.realpath(path))
        self._file = self._path.open("rb")
        self._until = self.size = os.fstat(self._file.fileno()).st_size
        self.done = 0
        """Bytes of ``size`` that are settled."""
        self.torn = False
        """Whether the last line has no end: a crash, or a source is writing it."""
        self._settled = 0
        self._number = 0
        self._kept: list[tuple[int, int]] = []
        self._changed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def next(self) -> Line | None:
        """The next line; the same again until it is settled; None after the last."""
        if self._settled >= self._until:
            return None
        self._file.seek(self._settled)
        octets = self._file.readline()
        if not octets.endswith(b"\n"):
            self.torn = True
            return None
        return Line(self._number + 1, octets)

    def settle(self, line: Line, *, keep: bool) -> None:
        """Go on behind ``line``, which stays in the file or not."""
        start, self._settled = self._settled, self._settled + len(line.octets)
        self._number = line.number
        self.done += len(line.octets)
        if not keep:
            self._changed = True
        elif self._kept and self._kept[-1][1] == start:
            self._kept[-1] = (self._kept[-1][0], self._settled)
        else:
            self._kept.append((start, self._settled))

    def take_out(self) -> None:
        """Leave in the file what is kept, what is not settled, and what came since; no line left: no file. Blocks.

        Raises OSError where that is not possible, or where another program has taken lines out; then the file is as
        it was.
        """
        if not self._changed:
            return
        with locked(self._path) as descriptor:
            facts = os.fstat(descriptor)
            if not os.path.samestat(facts, os.fstat(self._file.fileno())) or facts.st_size < self._settled:
                raise OSError(errno.EBUSY, "was changed by another program meanwhile", str(self._path))
            kept = sum(end - start for start, end in self._kept)
            if kept + facts.st_size == self._settled:
                self._path.unlink()
            else:
                self._replace((*self._kept, (self._settled, facts.st_size)), facts.st_mode)
            sync_folder(self._path)
        self._until += kept - self._settled
        self._settled, self._kept, self._changed = kept, [(0, kept)] if kept else [], False

    def _replace(self, ranges: Iterable[tuple[int, int]], mode: int) -> None:
        """Put these parts of the file in its place, durably and at once."""
        rest = self._path.with_name(self._path.name + ".rest")
        with suppress(FileNotFoundError):
            rest.unlink()  # of a replay that was killed
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(rest, flags, 0o600), "wb") as copy:
            os.fchmod(copy.fileno(), mode & 0o777)
            for start, end in ranges:
                for at in range(start, end, _COPIED_AT_ONCE):
                    copy.write(os.pread(self._file.fileno(), min(_COPIED_AT_ONCE, end - at), at))
            copy.flush()
            os.fsync(copy.fileno())
        rest.replace(self._path)
        self._file.close()
        self._file = self._path.open("rb")
