"""The exceptions of Wellhead, one tree. Facts are attributes; prose is for people.

WellheadError
├── InvalidEvent (ValueError)      an event was to be built that CloudEvents forbids
├── DecodeError (ValueError)       what came over HTTP is no event we can read
│   ├── NotAnEvent                   nothing in it says CloudEvent (HTTP 415)
│   └── MalformedEvent               it says so and breaks the rules (HTTP 400)
├── InvalidExpression (ValueError) a text is no CESQL expression
├── ConfigError (ValueError)       flags, variables or files are wrong; holds every problem at once
├── DeadLetterFull                 a dead-letter file has no room for one more event
└── DeliveryError                  neither the sink nor the dead-letter sink accepted an event
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .delivery import Attempt


class WellheadError(Exception):
    """Every exception this library raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong with what somebody gave us: which thing, and the rule it breaks.

    ``where`` is the attribute, variable, flag or path; ``what`` quotes the value (never a secret) and the rule.
    """

    where: str
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


class _Problems(WellheadError, ValueError):
    """An error that carries every problem found, not just the first."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(map(str, self.problems)))


class InvalidEvent(_Problems):
    """An event that CloudEvents 1.0 forbids was to be built; nothing was built."""


class DecodeError(_Problems):
    """What was received cannot be read as an event. ``status`` is the HTTP status to answer with."""

    status = 400


class NotAnEvent(DecodeError):
    """Neither ``ce-specversion`` nor a CloudEvents media type, or a specversion nobody speaks."""

    status = 415


class MalformedEvent(DecodeError):
    """It claims to be an event, and breaks the rules of CloudEvents or of JSON."""


class InvalidExpression(WellheadError, ValueError):
    """A text is no CESQL expression (its ParseError). ``at`` is the offset of the character at fault."""

    def __init__(self, at: int, what: str) -> None:
        self.at = at
        super().__init__(f"at character {at + 1}: {what}")


class ConfigError(_Problems):
    """The configuration is wrong; ``problems`` names every variable, flag or file at fault."""


class NoAnswer(enum.Enum):
    """Why a try ended without an HTTP answer (the values are the words of metrics and logs).

    Whether the sink took the event is unknown then, unless it is CONNECT or TLS.
    """

    CONNECT = "connect"  # no connection: refused, unreachable, name not found
    TLS = "tls"  # the handshake failed: certificate, host name, protocol
    TIMEOUT = "timeout"  # the try took longer than it may
    RESET = "reset"  # the connection broke before the answer was complete
    STALE = "stale"  # a kept-alive connection was closed under us before a byte of the answer came
    PROTOCOL = "protocol"  # what came back is not HTTP


class DeadLetterFull(WellheadError):
    """A dead-letter file has no room for one more event, which was not written."""

    def __init__(self, path: str, max_bytes: int) -> None:
        self.path = path
        self.max_bytes = max_bytes
        super().__init__(f"{path} is full: it may hold {max_bytes} bytes (--dead-letter-max-bytes)")


class Loss(enum.Enum):
    """How an event ended that no sink accepted (the values are label values of metrics)."""

    REFUSED = "refused"  # the sink said no to the event itself
    POISON = "poison"  # retried for so long while the sink accepted others
    EXHAUSTED = "exhausted"  # the given number of retries is used up
    EXPIRED = "expired"  # its deadline passed
    FENCED = "fenced"  # its fence was closed
    STOPPED = "stopped"  # the program's grace ended first


class DeliveryError(WellheadError):
    """Neither the sink nor the dead-letter sink accepted the event. It has been counted and logged.

    ``loss`` says how it ended; ``last`` is the last answer or failure in words; ``tries`` counts the tries on the
    wire. ``maybe_accepted`` is true where a try, not just the last, ended without an answer: the sink may hold the event.
    ``dead_letter_failed`` is true where there is a dead-letter sink and it did not take the event either. ``attempt``
    is its history, for whoever sends it again.
    """

    def __init__(
        self,
        *,
        event_id: str,
        loss: Loss,
        last: str,
        tries: int,
        maybe_accepted: bool,
        dead_letter_failed: bool = False,
        attempt: Attempt | None = None,
    ) -> None:
        self.event_id = event_id
        self.loss = loss
        self.last = last
        self.tries = tries
        self.maybe_accepted = maybe_accepted
        self.dead_letter_failed = dead_letter_failed
        self.attempt = attempt
        super().__init__(f"event {event_id} {loss.value} after {tries} tries; last: {last}")

    @property
    def accounted(self) -> bool:
        """Whether the event's fate is sealed, and counted: who acknowledges to where it came from may do so.

        Not so where it is another's to deliver (fenced), where the program stopped before the end, and where the
        dead-letter sink refused it as well: such an event is read again.
        """
        return self.loss not in (Loss.FENCED, Loss.STOPPED) and not self.dead_letter_failed
