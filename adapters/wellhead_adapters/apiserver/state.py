"""The state file: what was delivered of each watch, so that a restart tells what happened meanwhile, and only that.

A journal: a line for each object that is settled or gone, and for each position reached. It is read once, at the start,
and written anew when it holds more past than present. Lines are on their way to the disk a second later at most, so
that a crash repeats what was sent in its last second, under the same ids.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, unquote

from wellhead.errors import ConfigError, Problem
from wellhead.kubernetes.index import Index, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import TextIO

_log = logging.getLogger(__name__)
_FORMAT: Final = "wellhead-apiserver-1"
_SPARE_LINES: Final = 20_000


class Saved:
    """What is known of one watch."""

    def __init__(self, index: Index, version: str) -> None:
        self.index = index
        self.version = version


class State:
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
        """What is saved of a watch, given out once; None where nothing is, or not all of its first list."""
        saved = self._watches.pop(watch, None)
        return saved if saved is not None and saved.version else None

    def put(self, watch: str, seen: Seen) -> None:
        """An object is there in this version, and whoever is to know it does."""
        fields = (seen.namespace, seen.name, seen.uid, seen.version, seen.digest)
        self._pending.append(f"+ {self._number(watch)} {_joined(fields)}\n")

    def remove(self, watch: str, seen: Seen) -> None:
        """An object is gone, likewise."""
        self._pending.append(f"- {self._number(watch)} {_joined((seen.namespace, seen.name))}\n")

    def position(self, watch: str, version: str) -> None:
        """A restart may go on from here."""
        if version and self._positions.get(watch) != version:
            self._positions[watch] = version
            self._pending.append(f"@ {self._number(watch)} {_joined((version,))}\n")

    def write(self) -> None:
        """Put down what is new. Raises `ConfigError` where that is not possible; it is kept for the next time."""
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
            self._pending.append(f"= {number} {quote(watch, safe='')}\n")
        return number

    def _read(self) -> dict[str, Saved]:
        try:
            with self._path.open(encoding="utf-8") as file:
                if file.readline().rstrip("\n") != _FORMAT:
                    raise ConfigError([self._problem("is no state file of ours; nothing was changed")])
                return _watches(file)
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
        self._numbers = {watch: number for number, watch in enumerate(watches)}
        lines = 0
        try:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    for line in _journal(watches):
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


def _journal(watches: dict[str, Saved]) -> Iterator[str]:
    yield f"{_FORMAT}\n"
    for number, (watch, saved) in enumerate(watches.items()):
        yield f"= {number} {quote(watch, safe='')}\n"
        for seen in saved.index:
            yield f"+ {number} {_joined((seen.namespace, seen.name, seen.uid, seen.version, seen.digest))}\n"
        if saved.version:
            yield f"@ {number} {_joined((saved.version,))}\n"


def _watches(file: TextIO) -> dict[str, Saved]:
    """What the lines come to. A last line without its end was never whole, and counts for nothing."""
    named: dict[str, str] = {}
    watches: dict[str, Saved] = {}
    for line in file:
        if not line.endswith("\n"):
            break
        sign, number, *fields = line.rstrip("\n").split(" ")
        values = [unquote(one) for one in fields]
        if sign == "=":
            named[number] = values[0]
            watches.setdefault(values[0], Saved(Index(), ""))
            continue
        saved = watches.get(named.get(number, ""))
        if saved is None:
            raise ValueError(line)
        match sign, values:
            case "+", [namespace, name, uid, version, digest]:
                saved.index.put(Seen(namespace, name, uid, version, digest))
            case "-", [namespace, name]:
                saved.index.remove(namespace, name)
            case "@", [version]:
                saved.version = version
            case _:
                raise ValueError(line)
    return watches


def _joined(fields: tuple[str, ...]) -> str:
    return " ".join(quote(one, safe="/:") for one in fields)
