"""Which deliveries GitLab tried in vain and has to be asked for again, from its log of hook events. Pure.

GitLab tries once. What it tried is in the log for some days, and can be resent; each resend is an entry of its own with
the same Idempotency-Key. What it did not try, because it had disabled the webhook, is in no log: that is a `Gap`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_TRIES: Final = 20
"""Of one delivery; then it is given up, and told."""
# What our receiver says of an event itself, not of the moment: asked again, it would say the same.
_FOR_GOOD: Final = frozenset(("400", "405", "413", "422"))

_LEFT_OUT: Final = {"oversize": True}  # app/models/hooks/web_hook_log.rb, OVERSIZE_REQUEST_DATA


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One entry of the log. ``status`` is an HTTP status, or words where there was no answer."""

    id: int
    key: str
    """The same for all tries of one delivery. See ``keyed``."""
    status: str
    url: str = ""
    at: datetime | None = None
    name: str = ""
    """Its ``X-Gitlab-Event``."""
    whole: bool = True
    """Whether the log holds what was sent: too large, it is left out, and a resend would tell something else."""
    keyed: bool = True
    """Whether it has the key from GitLab. It has none from before 17.4, and its resend is an entry with another key."""

    @property
    def accepted(self) -> bool:
        return len(self.status) == 3 and self.status.startswith("2")


@dataclass(frozen=True, slots=True)
class Missed:
    """A delivery that was never accepted; ``id`` is the entry to ask for."""

    id: int
    key: str
    tries: int
    whole: bool = True
    keyed: bool = True


@dataclass(frozen=True, slots=True)
class Gap:
    """A time in which GitLab told nothing, and nobody can say what it would have told. ``since`` None: not known."""

    since: datetime | None
    until: datetime

    @property
    def seconds(self) -> float:
        return max(0.0, (self.until - self.since).total_seconds()) if self.since is not None else 0.0

    def without(self, other: Gap | None) -> Gap | None:
        """What of it is before or behind ``other``; None where that is nothing."""
        if other is None or self.since is None or other.since is None:
            return self
        if other.since <= self.since < other.until:
            return Gap(other.until, self.until) if self.until > other.until else None
        if self.since < other.since < self.until <= other.until:
            return Gap(self.since, other.since)
        return self


def missed(log: Iterable[Attempt], url: str) -> tuple[Missed, ...]:
    """The deliveries to ask for again, the oldest first: none of their attempts was accepted, nor the last refused.

    An attempt at another URL than the webhook's present one is not among them: GitLab does not resend it.
    """
    by_key: dict[str, list[Attempt]] = {}
    for attempt in sorted(log, key=lambda attempt: attempt.id):
        by_key.setdefault(attempt.key, []).append(attempt)
    return tuple(
        Missed(attempts[0].id, key, len(attempts), attempts[0].whole, attempts[0].keyed)
        for key, attempts in by_key.items()
        if not any(attempt.accepted for attempt in attempts)
        and attempts[-1].status not in _FOR_GOOD
        and attempts[0].url in ("", url)
    )


def attempts(listed: Iterable[object]) -> list[Attempt]:
    """The entries of a page of the log; what is none is left out."""
    return [made for item in listed if isinstance(item, Mapping) and (made := _attempt(item)) is not None]


def last_attempt(log: Iterable[Attempt]) -> datetime | None:
    """When GitLab last tried, where it says so."""
    return max((attempt.at for attempt in log if attempt.at is not None), default=None)


def _attempt(item: Mapping[str, object]) -> Attempt | None:
    number, headers = item.get("id"), item.get("request_headers")
    if type(number) is not int:
        return None
    named = {str(name).lower(): str(value) for name, value in headers.items()} if isinstance(headers, Mapping) else {}
    key = named.get("idempotency-key") or named.get("webhook-id")
    return Attempt(
        id=number,
        key=key or f"entry {number}",
        status=str(item.get("response_status") or ""),
        url=str(item.get("url") or ""),
        at=_instant(item.get("created_at")),
        name=named.get("x-gitlab-event", ""),
        whole=item.get("request_data") != _LEFT_OUT,
        keyed=bool(key),
    )


def _instant(value: object) -> datetime | None:
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        return None
    return moment.astimezone(UTC) if moment is not None and moment.tzinfo is not None else None
