"""How far a command has come, as a line on the terminal that is drawn over itself."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_BAR: Final = 24
_EACH_SECONDS: Final = 0.1


class Progress:
    """A bar on the terminal: the part of the files that was read, or only a count where their size is not known."""

    def __init__(self, files: Sequence[Path], *, shown: bool) -> None:
        sizes = [file.stat().st_size for file in files if file.is_file()]
        self._all = sum(sizes) if len(sizes) == len(files) else 0
        self._shown = shown
        self._done = 0
        self._last = 0.0
        self._begun = time.monotonic()

    def read(self, octets: int, records: int) -> None:
        """So many octets more were read, and so many records are written by now."""
        self._done += octets
        now = time.monotonic()
        if not self._shown or now - self._last < _EACH_SECONDS:
            return
        self._last = now
        rate = records / max(now - self._begun, 0.001)
        sys.stderr.write(f"\r\x1b[K{self._bar()}{records:,} records, {rate:,.0f}/s")
        sys.stderr.flush()

    def clear(self) -> None:
        """Leave the line as it was."""
        if self._shown and self._last:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _bar(self) -> str:
        if not self._all:
            return ""
        part = min(1.0, self._done / self._all)
        full = round(part * _BAR)
        return f"{'█' * full}{'░' * (_BAR - full)} {part:4.0%}  "
