"""The state file: the last tick of each source that was settled, so that a restart knows what it missed."""

from __future__ import annotations

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from wellhead.errors import ConfigError, Problem
from wellhead.event import rfc3339

_FORMAT: Final = "wellhead-ping-1"
_BROKEN: Final = "is broken: move it away to begin anew"


class State:
    """The last settled tick of each source, by its source and schedule. Kept in one small JSON file, replaced whole."""

    def __init__(self, path: Path) -> None:
        """Read the file; one that is not there is empty.

        Raises `ConfigError` for a file that is not ours, is broken, or cannot be written: better told at the start
        than found out after the next restart.
        """
        self._path = path
        self._ticks = self._read()
        self._on_the_way: dict[str, set[datetime]] = {}
        self._ahead: dict[str, datetime] = {}
        self.write()

    def last(self, key: str) -> datetime | None:
        """The last settled tick of ``key``; None where it is not known."""
        return self._ticks.get(key)

    def begin(self, key: str, at: datetime) -> None:
        """The tick ``at`` is on its way: until it is settled, none after it counts as the last."""
        self._on_the_way.setdefault(key, set()).add(at)

    def settle(self, key: str, at: datetime) -> bool:
        """A tick that was begun is over. Whether there is something new to `write`."""
        on_the_way = self._on_the_way[key]
        on_the_way.discard(at)
        ahead = self._ahead[key] = max(at, self._ahead.get(key, self._ticks.get(key, at)))
        if any(earlier < ahead for earlier in on_the_way):
            return False
        self._ticks[key] = ahead
        return True

    def write(self) -> None:
        """Replace the file, in one step. Raises `ConfigError` where that is not possible."""
        ticks = {key: rfc3339(at) for key, at in self._ticks.items()}
        try:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            try:
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump({"format": _FORMAT, "ticks": ticks}, file)
                Path(name).replace(self._path)
            except BaseException:
                Path(name).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ConfigError([self._problem(f"cannot be written: {error.strerror}")]) from None

    def _read(self) -> dict[str, datetime]:
        try:
            content = json.loads(self._path.read_bytes())
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ConfigError([self._problem(f"cannot be read: {error.strerror}")]) from None
        except (ValueError, RecursionError):
            raise ConfigError([self._problem(_BROKEN)]) from None
        if not isinstance(content, dict) or content.get("format") != _FORMAT:
            raise ConfigError([self._problem("is no state file of ours; nothing was changed")])
        try:
            return {str(key): datetime.fromisoformat(at).astimezone(UTC) for key, at in content["ticks"].items()}
        except (ValueError, KeyError, AttributeError, TypeError, OverflowError):
            raise ConfigError([self._problem(_BROKEN)]) from None

    def _problem(self, what: str) -> Problem:
        return Problem("state-file, PING_STATE_FILE", f"{str(self._path)!r} {what}")
