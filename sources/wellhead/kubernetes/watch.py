"""What to do after a request of a watch has ended: values in, values out. Pure; the README's table is this module."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import BROKEN, CONNECT, CREDENTIALS, GARBLED, SILENT, TLS

if TYPE_CHECKING:
    from .errors import ApiError

FIRST_WAIT: Final = 0.2
LONGEST_WAIT: Final = 30.0
LOOK_FOR_KIND: Final = 10.0
"""Seconds between two looks for a kind that is not served (yet, or any more)."""
_RESUMES: Final = 5
"""Resumes that a server may refuse in a row before we list anew: its versions may not be ours any more."""
_UNREACHED: Final = (CONNECT, TLS, SILENT, BROKEN, GARBLED, CREDENTIALS)
_NO_WATCH_LIST: Final = (400, 405, 406, 415, 422)


class Phase(enum.Enum):
    """What the request was for."""

    WATCH_LIST = "watch list"
    """A watch that tells what there is first, then what changes (``sendInitialEvents``)."""
    LIST = "list"
    """A list, page by page."""
    WATCH = "watch"
    """What changes from a resourceVersion on."""


class Do(enum.Enum):
    """What comes next."""

    RESUME = "resume"
    """Watch on from the last resourceVersion."""
    RELIST = "relist"
    """List, compare with what was last seen, tell what is missing; then watch from there."""
    PAGES = "list by pages"
    """The same, without watch lists from now on: this server has none."""
    FIND = "wait for the kind"
    """Look for the kind until the server serves it; then relist."""
    GIVE_UP = "give up"
    """End the program: it was told to fail fast."""


@dataclass(frozen=True, slots=True)
class Next:
    """What to do, after so many seconds."""

    do: Do
    after: float = 0.0


def after_end(phase: Phase, failures: int) -> Next:
    """After an answer that ended as it should. ``failures`` counts the ends before it that brought nothing."""
    if phase is Phase.WATCH_LIST:  # before it told that all there is was told
        return Next(Do.PAGES, backoff(failures))
    return Next(Do.RESUME, backoff(failures))


def after_error(phase: Phase, error: ApiError, failures: int, *, fail_fast: bool = False) -> Next:
    """After a request that failed for the ``failures``-th time in a row (1: the first)."""
    if fail_fast and error.status in (401, 403, 404):
        return Next(Do.GIVE_UP)
    same = Do.RESUME if phase is Phase.WATCH and failures <= _RESUMES else Do.RELIST
    if is_expired(error):
        return Next(Do.RELIST, backoff(failures - 1))
    if error.status == 404:
        return Next(Do.FIND, min(LOOK_FOR_KIND, backoff(failures)))
    if phase is Phase.WATCH_LIST and _has_no_watch_list(error):
        return Next(Do.PAGES, backoff(failures - 1))
    if error.reason in _UNREACHED and not error.status:
        again = Do.RESUME if phase is Phase.WATCH else Do.RELIST
        return Next(again, backoff(failures - 1 if error.reason in (SILENT, BROKEN) else failures))
    if error.retry_after is not None:
        return Next(same, min(error.retry_after, LONGEST_WAIT))
    if error.status == 403:  # taken away; whoever gives it back does not tell us
        return Next(same, min(LONGEST_WAIT, max(1.0, backoff(failures + 2))))
    if error.status in (401, 408, 429) or error.status >= 500:
        return Next(same, backoff(failures))
    return Next(Do.RELIST, backoff(failures + 3))


def is_expired(error: ApiError) -> bool:
    """Whether the server has forgotten the version, or the ``continue`` token, that we named."""
    return error.status == 410 or error.reason in ("Expired", "Gone")


def backoff(failures: int) -> float:
    """Seconds to wait after so many failures in a row; none after none."""
    return 0.0 if failures <= 0 else min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(failures - 1, 10))


def _has_no_watch_list(error: ApiError) -> bool:
    return error.status in _NO_WATCH_LIST or (not error.status and error.reason in (SILENT, GARBLED))
