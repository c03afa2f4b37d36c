"""What was delivered of each watch, so that a restart tells what happened meanwhile, and only that; and the file it is in.

The file is a journal: a line for each object that is settled or gone, and for each position reached. It is read once, at
the start, and written anew when it holds more past than present. Lines are on their way to the disk a second later at
most, so that a crash repeats what was sent in its last second, under the same ids.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from typing import TYPE_CHECKING, Final, Protocol

from wellhead.errors import ConfigError, Problem

from .journal import Saved, forgotten_line, gone_line, object_line, position_line, read, watch_line, written

if TYPE_CHECKING:
    from pathlib import Path

    from wellhead.kubernetes.index import Seen

_FORMAT: Final = "wellhead-apiserver-1"
_SPARE_LINES: Final = 20_000


class State(Protocol):
    """What was delivered of all watches of one source, kept somewhere."""

    def take(self, watch: str, /) -> Saved | None:
        """What is saved of a watch, given out once; None where nothing is, or not all of its first list."""

    def put(self, watch: str, seen: Seen, /) -> None:
        """An object is there in this version, and whoever is to know it does."""

    def remove(self, watch: str, seen: Seen, /) -> None:
        """An object is gone, likewise."""

    def position(self, watch: str, version: str, /) -> None:
        """A restart may go on from here."""

    def start_over(self, watch: str, /) -> None:
        """Its position counts for nothing any more. Once it has one again, all of its objects were put since it was taken,
        or were in what was taken.
        """

    def forget(self, watch: str, /) -> None:
        """Nobody wants to know of this watch any more."""

    async def write(self, *, at_once: bool = False) -> None:
        """Called each second: put down what is new, if it is time to; ``at_once``: it is. Raises `ConfigError` where
        that is not possible; it is kept for the next time.
        """


class StateFile:
    """The journal of all watches of one source. Raises `ConfigError` for a file that is not ours, or cannot be written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._numbers: dict[str, int] = {}
        self._positions: dict[str, str] = {}
        self._pending: list[str] = []
        self._lines = self._enough = 0
        self._watches = self._read()
        self._compact(self._watches)

    def take(self, watch: str) -> Saved | None:
        saved = self._watches.pop(watch, None)
        if saved is None or (saved.version and saved.index is not None):
            return saved
        self.forget(watch)  # else what a list that never ended had shown would mingle with what the next one shows
        return None

    def put(self, watch: str, seen: Seen) -> None:
        self._pending.append(object_line(self._number(watch), seen))

    def remove(self, watch: str, seen: Seen) -> None:
        self._pending.append(gone_line(self._number(watch), seen))

    def position(self, watch: str, version: str) -> None:
        if version and self._positions.get(watch) != version:
            self._positions[watch] = version
            self._pending.append(position_line(self._number(watch), version))

    def start_over(self, watch: str) -> None:
        self._positions[watch] = ""
        self._pending.append(position_line(self._number(watch), ""))

    def forget(self, watch: str) -> None:
        self._positions.pop(watch, None)
        self._pending.append(forgotten_line(self._number(watch)))

    async def write(self, *, at_once: bool = False) -> None:  # noqa: ARG002 - it is always time to
        if not self._pending:
            return
        whole = self._size()
        try:
            with self._path.open("a", encoding="utf-8") as file:
                file.writelines(self._pending)
        except OSError as error:
            with contextlib.suppress(OSError):
                os.truncate(self._path, whole)  # what a full disk took of it may end in the middle of a line
            raise ConfigError([self._problem(f"cannot be written: {error.strerror}")]) from None
        self._lines += len(self._pending)
        self._pending.clear()
        if self._lines > self._enough:
            self._compact(self._read())

    def _size(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError:
            return 0

    def _number(self, watch: str) -> int:
        number = self._numbers.get(watch)
        if number is None:
            number = self._numbers[watch] = len(self._numbers)
            self._pending.append(watch_line(number, watch))
        return number

    def _read(self) -> dict[str, Saved]:
        try:
            with self._path.open(encoding="utf-8") as file:
                if file.readline().rstrip("\n") != _FORMAT:
                    raise ConfigError([self._problem("is no state file of ours; nothing was changed")])
                return read(file)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError([self._problem(f"cannot be read: {error.strerror}")]) from None
        except ValueError as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError([self._problem("is broken: move it away to begin anew")]) from None

    def _compact(self, watches: dict[str, Saved]) -> None:
        """Replace the file, in one step, by what it comes to."""
        watches = {watch: saved for watch, saved in watches.items() if saved.version or saved.index}
        self._numbers = {watch: number for number, watch in enumerate(watches)}
        lines = 1
        try:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    file.write(f"{_FORMAT}\n")
                    for line in written(watches):
                        file.write(line)
                        lines += 1
                os.replace(name, self._path)  # noqa: PTH105 - a name from mkstemp
            except BaseException:
                with contextlib.suppress(OSError):
                    os.unlink(name)  # noqa: PTH108 - likewise
                raise
        except OSError as error:
            raise ConfigError([self._problem(f"cannot be written: {error.strerror}")]) from None
        self._lines = lines
        self._enough = 2 * lines + _SPARE_LINES

    def _problem(self, what: str) -> Problem:
        return Problem("state-file, APISERVER_STATE_FILE", f"{str(self._path)!r} {what}")
