"""The pattern of LIKE (specification, 3.4.3): ``%`` any characters, ``_`` one; a backslash makes them themselves."""

from __future__ import annotations

import re
from typing import Final

_PIECE: Final = re.compile(r"\\[%_]|[\s\S]")


class Pattern:
    """A compiled pattern: the parts between its ``%``, each of a known length."""

    __slots__ = ("_last_length", "_parts", "cost")

    def __init__(self, pattern: str) -> None:
        parts: list[list[str]] = [[]]
        for piece in _PIECE.findall(pattern):
            if piece == "%":
                parts.append([])
            else:
                parts[-1].append("." if piece == "_" else re.escape(piece[-1]))
        self._parts = [re.compile("".join(part), re.DOTALL) for part in parts]
        self._last_length = len(parts[-1])
        self.cost = 1 + len(pattern)
        """Steps for a character of the text, at worst."""

    def matches(self, text: str) -> bool:
        """Whether the whole of ``text`` is as the pattern says. The leftmost place for each part is as good as any."""
        first, *rest = self._parts
        if not rest:
            return first.fullmatch(text) is not None
        found = first.match(text)
        for part in rest[:-1]:
            if found is not None:
                found = part.search(text, found.end())
        if found is None:
            return False
        begin = len(text) - self._last_length
        return begin >= found.end() and rest[-1].fullmatch(text, begin) is not None
