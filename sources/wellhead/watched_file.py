"""Values in files that are renewed under us: certificates, tokens, passwords. Knows nothing of what is in them."""

from __future__ import annotations

import logging
import stat
from typing import TYPE_CHECKING, Final, Generic, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
Stamp: TypeAlias = "tuple[int, int, int, int]"

LOOK_SECONDS: Final = 1.0
"""How often files are looked at, at most."""
_LARGEST: Final = 4 << 20  # no certificate bundle is near it; a log file given by mistake is not read whole

_log = logging.getLogger(__name__)


def stamp(path: Path) -> Stamp | None:
    """What is another once the file is another; None where there is none.

    It follows links, so that a swap of the link on the way to a file, as Kubernetes updates its mounts, is noticed.
    """
    try:
        facts = path.stat()
    except (OSError, ValueError):
        return None
    return facts.st_dev, facts.st_ino, facts.st_mtime_ns, facts.st_size


def content(path: Path) -> bytes:
    """The octets of a file. Raises ValueError, which says what is wrong with it, as in "is not there"."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):  # reading a pipe would wait, and empty it
            raise ValueError("is not a file that can be read again")
        if facts.st_size > _LARGEST:
            raise ValueError(f"is larger than {_LARGEST} bytes")
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError("is not there") from None
    except OSError as error:
        raise ValueError(f"cannot be read: {error.strerror}") from None


class WatchedFile(Generic[T]):
    """A value read from a file, and read again when the file has changed.

    A file that cannot be read, or holds nothing that ``parse`` takes (it raises ValueError with the rule), leaves
    `value` as it was: half a file must not break what works. That is logged, once for each thing that is wrong.
    A file that is not there has the value ``absent``; where that is None, it too leaves `value` as it was.
    """

    def __init__(
        self, path: Path, parse: Callable[[bytes], T], *, what: str, initial: T, absent: T | None = None
    ) -> None:
        self.value = initial
        self._path = path
        self._parse = parse
        self._what = what
        self._absent = absent
        self._stamp: Stamp | None = None
        self._looked = False
        self._told = ""

    def look(self, *, force: bool = False) -> bool:
        """Read the file if it has changed since, or in any case with ``force``. Whether `value` is another now."""
        now = stamp(self._path)
        if self._looked and now == self._stamp and not force:
            return False
        self._looked, self._stamp = True, now
        before = self.value
        try:
            if now is None and self._absent is not None:
                self.value = self._absent
            else:
                self.value = self._parse(content(self._path))
        except ValueError as error:
            self._tell(str(error))
            return False
        self._told = ""
        return self.value != before

    def _tell(self, problem: str) -> None:
        if problem != self._told:
            self._told = problem
            facts = {"file": str(self._path), "what": self._what, "problem": problem}
            _log.warning("a file is not as it should be; what it held before stays in use", extra=facts)
