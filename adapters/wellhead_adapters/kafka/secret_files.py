"""Secrets that stand in a variable or in a file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST: Final = 1 << 20


class FileProblem(Exception):
    """A file with a secret cannot be read; the text says which file and why, and nothing of what it holds."""


def secret(value: str, file: Path | None) -> str:
    """``value``, or what ``file`` holds now, without the line end that editors put behind it. Raises `FileProblem`."""
    if file is None:
        return value
    try:
        with file.open("rb") as opened:
            octets = opened.read(_LONGEST + 1)
        found = octets.decode()
    except OSError as error:
        raise FileProblem(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise FileProblem(f"{file} is not UTF-8") from None
    found = found.removesuffix("\n").removesuffix("\r")
    if not found or len(octets) > _LONGEST:
        raise FileProblem(f"{file} is {'longer than a secret' if found else 'empty'}")
    return found
