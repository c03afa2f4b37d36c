"""The secrets a webhook shows us, as they are now: from settings or files, rotated with an overlap. It calls nobody.

A new secret is accepted at once, and so is the old one, until every webhook was told the new one and a minute has passed.
Where webhooks are not ours to tell, nobody knows when that is: only what is in the files is accepted (``overlap`` False).
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

from wellhead.watched_file import WatchedFile

from .signature import Credentials, signing_key

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OVERLAP_SECONDS: Final = 60.0


def lines(content: bytes) -> tuple[str, ...]:
    """The secrets of a file, a line each, the present one first. Raises ValueError."""
    found = tuple(line.strip() for line in content.decode("utf-8").splitlines() if line.strip())
    if not found:
        raise ValueError("holds no secret")
    return found


def signing_lines(content: bytes) -> tuple[str, ...]:
    """The same, of signing tokens."""
    found = lines(content)
    for line in found:
        signing_key(line)
    return found


class Secrets:
    """Which secrets are accepted (`accepted`), and which one a webhook is to have (`wanted`, `version`)."""

    def __init__(
        self,
        *,
        token: str = "",
        signing: tuple[str, ...] = (),
        token_file: Path | None = None,
        signing_file: Path | None = None,
        open_to_all: bool = False,
        overlap: bool = True,
    ) -> None:
        self._tokens: tuple[str, ...] = (token,) if token else ()
        self._signing = signing
        self._open = open_to_all
        self._overlap = overlap
        self._token_file = _watched(token_file, lines)
        self._signing_file = _watched(signing_file, signing_lines)
        self._old: tuple[str, ...] = ()
        self._old_signing: tuple[str, ...] = ()
        self._old_until: float | None = None
        self._look_at_files()
        self._take()

    @property
    def accepted(self) -> Credentials:
        """Those of now, and while they are rotated those of before."""
        return self._accepted

    @property
    def wanted(self) -> dict[str, str]:
        """What a webhook is to have, by the names of GitLab's API."""
        found = {"token": self._tokens[0]} if self._tokens else {}
        if self._signing:
            found["signing_token"] = self._signing[0]
        return found

    @property
    def version(self) -> str:
        """Another one once `wanted` is another; it tells nothing of it."""
        return hashlib.sha256(repr(sorted(self.wanted.items())).encode()).hexdigest()[:16]

    def look(self) -> bool:
        """Read the files if they have changed. Whether the secrets are others now."""
        if not self._look_at_files():
            return False
        before, before_signing = self._tokens, self._signing
        self._take()
        if (self._tokens, self._signing) == (before, before_signing):
            return False
        self._accept_too((*before, *self._old), (*before_signing, *self._old_signing))
        return True

    def follow_on(self, before: Secrets) -> None:
        """Settings were changed, and these stand in the place of ``before``: accept what that one did, for as long."""
        self._accept_too((*before._tokens, *before._old), (*before._signing, *before._old_signing))

    def _accept_too(self, tokens: tuple[str, ...], signing: tuple[str, ...]) -> None:
        if not self._overlap:
            return
        self._old = tuple(dict.fromkeys(one for one in tokens if one not in self._tokens))[:8]
        self._old_signing = tuple(dict.fromkeys(one for one in signing if one not in self._signing))[:8]
        self._old_until = None
        self._make()

    def confirmed(self, now: float) -> None:
        """Every webhook was told the present secrets by ``now`` (the loop's time): the old ones end in a minute."""
        if self._old_until is None:
            self._old_until = now + OVERLAP_SECONDS
        elif now >= self._old_until and (self._old or self._old_signing):
            self._old, self._old_signing = (), ()
            self._make()

    def _look_at_files(self) -> bool:
        found = [file.look() for file in (self._token_file, self._signing_file) if file is not None]
        return any(found)

    def _take(self) -> None:
        if self._token_file is not None and self._token_file.value:
            self._tokens = self._token_file.value
        if self._signing_file is not None and self._signing_file.value:
            self._signing = self._signing_file.value
        self._make()

    def _make(self) -> None:
        self._accepted = Credentials(
            tokens=tuple(dict.fromkeys((*self._tokens, *self._old))),
            keys=tuple(signing_key(one) for one in dict.fromkeys((*self._signing, *self._old_signing))),
            open=self._open,
        )


def _watched(path: Path | None, parse: Callable[[bytes], tuple[str, ...]]) -> WatchedFile[tuple[str, ...]] | None:
    if path is None:
        return None
    nothing: tuple[str, ...] = ()
    return WatchedFile(path, parse, what="secret of the webhook", initial=nothing)
