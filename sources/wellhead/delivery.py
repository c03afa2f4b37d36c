"""What to do after a try: values in, a decision out. Pure: no loop, no socket, no clock of its own.

The rules are the table "One delivery engine for all" of the design; `Verdict` names its outcomes. `wellhead.sink`
performs what is decided here.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, TypeAlias, TypeGuard

from .durations import iso_duration
from .errors import ConfigError, Loss, NoAnswer, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Backoff(enum.Enum):
    """DeliverySpec's ``backoffPolicy``. The wait before retry n (from 1) is delay·n or delay·2ⁿ."""

    LINEAR = "linear"
    EXPONENTIAL = "exponential"


class OnExhausted(enum.Enum):
    """What becomes of an event that a working sink does not accept for as long as `Policy.poison_after`."""

    REFUSE = "refuse"
    HOLD = "hold"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How long and how patiently one event is tried. The defaults are those where no ``delivery`` is given."""

    retries: int | None = None
    """Tries after the first; None: as long as deadline and fence allow."""
    backoff: Backoff = Backoff.EXPONENTIAL
    backoff_delay: timedelta = timedelta(milliseconds=50)
    cap: timedelta | None = timedelta(seconds=30)
    """The longest wait between two tries, and the wait of a held event; None: a given ``delivery`` is to the letter."""
    jitter: float = 0.2
    """Waits are spread by this part of themselves to either side."""
    retry_after_max: timedelta = timedelta(minutes=2)
    """``Retry-After`` on 429 and 503 is honoured up to this; zero: not at all."""
    timeout: timedelta | None = timedelta(seconds=30)
    """For one try, from connecting to the end of the answer's head; None: no limit."""
    poison_after: timedelta = timedelta(hours=1)
    on_exhausted: OnExhausted = OnExhausted.REFUSE
    brake_after: int = 20
    """So many different events refused in a row, none accepted: the sink is wrong, not the events."""


def policy_from_spec(spec: Mapping[str, object], base: Policy = Policy()) -> Policy:
    """The policy a Knative ``delivery`` asks for, to the letter: no cap, no jitter, a maximum of retries.

    Fields it leaves out stay as in ``base``; ``deadLetterSink`` is not read here. Raises `ConfigError` by path.
    """
    problems: list[Problem] = []
    changes: dict[str, object] = {}
    for name, (field_name, parse) in _SPEC_FIELDS.items():
        value = spec.get(name)
        if value is None:
            continue
        try:
            changes[field_name] = parse(value)
        except ValueError as error:
            problems.append(Problem(f"delivery.{name}", f"{value!r} {error}"))
    if problems:
        raise ConfigError(problems)
    if "backoff" in changes or "backoff_delay" in changes:
        changes |= {"cap": None, "jitter": 0.0}
    return replace(base, **changes)  # type: ignore[arg-type]  # each parser gives the type of its field


def _retry(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**31:
        raise ValueError("is not a whole number from 0 up")
    return value


def _backoff(value: object) -> Backoff:
    if value not in ("linear", "exponential"):
        raise ValueError("is not linear or exponential")
    return Backoff(value)


def _length(value: object) -> timedelta:
    length = iso_duration(value if isinstance(value, str) else "")
    if length < timedelta():
        raise ValueError("is negative")
    return length


def _timeout(value: object) -> timedelta:
    length = _length(value)
    if not length:
        raise ValueError("is not longer than 0")
    return length


_SPEC_FIELDS: Final[Mapping[str, tuple[str, Callable[[object], object]]]] = {
    "retry": ("retries", _retry),
    "backoffPolicy": ("backoff", _backoff),
    "backoffDelay": ("backoff_delay", _length),
    "timeout": ("timeout", _timeout),
    "retryAfterMax": ("retry_after_max", _length),
}


_STATUS: Final = tuple(map(str, range(600)))  # made once, as each event has one


@dataclass(frozen=True, slots=True)
class Answered:
    """The sink answered a try. ``retry_after`` is the header as it came; ``body`` its first bytes."""

    status: int
    retry_after: str | None = None
    body: bytes = b""

    def __str__(self) -> str:
        return f"HTTP {self.status}"

    @property
    def word(self) -> str:
        """Its name in metrics."""
        return _STATUS[self.status] if self.status < len(_STATUS) else str(self.status)


@dataclass(frozen=True, slots=True)
class Unanswered:
    """A try ended without an answer."""

    why: NoAnswer
    detail: str

    def __str__(self) -> str:
        return f"{self.why.value}: {self.detail}"

    @property
    def word(self) -> str:
        """Its name in metrics."""
        return self.why.value


Outcome: TypeAlias = Answered | Unanswered


class Reaction(enum.Enum):
    """What an outcome says, whatever was before it."""

    ACCEPT = "accept"
    RETRY = "retry"  # the sink cannot take it now
    HOLD = "hold"  # sink or credential is wrong, not this event
    REFUSE = "refuse"  # the event itself is wrong


_HELD: Final = frozenset((401, 403, 405, 407, 415))
_RETRIED: Final = frozenset((404, 408, 409, 425, 429))


def reaction(outcome: Outcome) -> Reaction:
    """The design's table of status codes and failures. A status beyond 599 is a broken sink: retried."""
    if is_accepted(outcome):
        return Reaction.ACCEPT
    if isinstance(outcome, Unanswered):
        return Reaction.HOLD if outcome.why is NoAnswer.TLS else Reaction.RETRY
    status = outcome.status
    if status >= 500 or status in _RETRIED:
        return Reaction.RETRY
    if 300 <= status < 400 or status in _HELD:
        return Reaction.HOLD
    return Reaction.REFUSE


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One event's history up to and including the try that has just ended. Times are in seconds of one clock."""

    number: int = 1
    """Tries that count, from 1."""
    held_since: float | None = None
    """When it was first held or braked."""
    failing_since: float | None = None
    """When its previous try ended, if there was one."""
    poisoned: float = 0.0
    """Seconds during which the sink accepted others and not this one."""


@dataclass(slots=True)
class SinkFacts:
    """What the sink did with other events, up to now: its `Address` keeps it."""

    accepted_started: float = field(default=float("-inf"))
    """When the newest try was sent that the sink accepted."""
    refused_in_a_row: int = 0
    """Different events refused since the sink last accepted one."""


class Verdict(enum.Enum):
    ACCEPTED = "accepted"
    RETRY = "retry"  # after `Decision.after` seconds
    HOLD = "hold"  # likewise; the sink is what is wrong, so credentials and CAs are read again first
    REFUSED = "refused"  # to the dead-letter sink, else `Decision.loss`
    GIVE_UP = "give up"  # likewise


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of the event, and its history for the next try."""

    verdict: Verdict
    attempt: Attempt
    after: float = 0.0
    loss: Loss | None = None


def decide(
    policy: Policy,
    attempt: Attempt,
    outcome: Outcome,
    *,
    sink: SinkFacts,
    now: float,
    luck: float,
    wall: datetime,
    deadline: float | None = None,
    fenced: bool = False,
) -> Decision:
    """Decide after a try. ``now`` is on the clock of ``attempt``; ``wall`` reads dates in ``Retry-After``.

    ``luck`` in [0, 1) spreads the waits. The order of the rules is the order of the lines.
    """
    kind = reaction(outcome)
    if kind is Reaction.ACCEPT:
        return Decision(Verdict.ACCEPTED, attempt)
    attempt = _aged(attempt, kind, sink, now)
    if fenced:
        return Decision(Verdict.GIVE_UP, attempt, loss=Loss.FENCED)
    if kind is Reaction.HOLD and isinstance(outcome, Answered) and _others_accepted(attempt, sink):
        kind = Reaction.REFUSE  # the sink takes others: it is the event after all (no handshake fails for an event)
    if kind is Reaction.REFUSE and sink.refused_in_a_row >= policy.brake_after:
        kind = Reaction.HOLD  # brake: a wrong URL must not swallow a backlog
        attempt = replace(attempt, held_since=attempt.held_since if attempt.held_since is not None else now)
    if kind is Reaction.REFUSE:
        return Decision(Verdict.REFUSED, attempt, loss=Loss.REFUSED)
    if attempt.poisoned >= policy.poison_after.total_seconds() and policy.on_exhausted is OnExhausted.REFUSE:
        return Decision(Verdict.REFUSED, attempt, loss=Loss.POISON)
    if policy.retries is not None and attempt.number > policy.retries and not is_stale(outcome):
        return Decision(Verdict.GIVE_UP, attempt, loss=Loss.EXHAUSTED)
    after = _wait(policy, attempt, outcome, kind, luck, wall)
    if deadline is not None and now + after >= deadline:
        return Decision(Verdict.GIVE_UP, attempt, loss=Loss.EXPIRED)
    return Decision(Verdict.HOLD if kind is Reaction.HOLD else Verdict.RETRY, attempt, after)


def backoff(policy: Policy, number: int) -> float:
    """Seconds before retry ``number`` (from 1), without jitter."""
    delay = policy.backoff_delay.total_seconds()
    wait = delay * number if policy.backoff is Backoff.LINEAR else delay * 2.0 ** min(number, 64)
    return wait if policy.cap is None else min(wait, policy.cap.total_seconds())


def jittered(policy: Policy, number: int, luck: float) -> float:
    """`backoff` spread by the policy's jitter, within its cap."""
    wait = backoff(policy, number) * (1 + policy.jitter * (2 * luck - 1))
    return wait if policy.cap is None else min(wait, policy.cap.total_seconds())


def retry_after(outcome: Outcome, wall: datetime) -> float | None:
    """Seconds that a 429 or 503 asks us to wait (a number of seconds, or a date); None where it asks nothing."""
    if not isinstance(outcome, Answered) or outcome.status not in (429, 503) or outcome.retry_after is None:
        return None
    text = outcome.retry_after.strip()
    if text.isascii() and text.isdigit():
        return float(text[:9])
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - 11 ms of start-up, and few sinks send dates

    try:
        date = parsedate_to_datetime(text)
    except (ValueError, IndexError, OverflowError):
        return None
    date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
    return max(0.0, (date - wall).total_seconds())


def _aged(attempt: Attempt, kind: Reaction, sink: SinkFacts, now: float) -> Attempt:
    """The history with this failed try added."""
    poisoned = attempt.poisoned
    if attempt.failing_since is not None and sink.accepted_started > attempt.failing_since:
        poisoned += now - attempt.failing_since
    held_since = now if kind is Reaction.HOLD and attempt.held_since is None else attempt.held_since
    return replace(attempt, poisoned=poisoned, failing_since=now, held_since=held_since)


def is_accepted(outcome: Outcome | None) -> TypeGuard[Answered]:
    """Any 2xx."""
    return isinstance(outcome, Answered) and 200 <= outcome.status < 300


def is_stale(outcome: Outcome) -> bool:
    """A connection that the sink had closed: the try never reached it, and is none."""
    return isinstance(outcome, Unanswered) and outcome.why is NoAnswer.STALE


def _others_accepted(attempt: Attempt, sink: SinkFacts) -> bool:
    return attempt.held_since is not None and sink.accepted_started > attempt.held_since


def _wait(policy: Policy, attempt: Attempt, outcome: Outcome, kind: Reaction, luck: float, wall: datetime) -> float:
    if is_stale(outcome):
        return 0.0
    if kind is Reaction.HOLD and policy.cap is not None:
        own = policy.cap.total_seconds()
    else:
        own = backoff(policy, attempt.number)
    own *= 1 + policy.jitter * (2 * luck - 1)
    if policy.cap is not None:
        own = min(own, policy.cap.total_seconds())
    asked = retry_after(outcome, wall)
    return own if asked is None else max(own, min(asked, policy.retry_after_max.total_seconds()))
