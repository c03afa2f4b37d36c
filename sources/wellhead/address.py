"""One address that takes events: a sink's or a dead-letter sink's. Performs single tries; decides nothing.

Keeps what all deliveries to it share: certificates, credentials, what it did with other events, and whether it is up.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, unquote_plus

from . import __version__
from .binding import public_url
from .credentials import Credentials
from .delivery import Answered, Outcome, Reaction, SinkFacts, Unanswered, is_accepted, is_stale, reaction
from .errors import NoAnswer
from .http_binding import encode_lines
from .tls import Trust
from .transport import Post, Target

if TYPE_CHECKING:
    from collections.abc import Callable

    from .binding import SinkBinding
    from .credentials import Headers
    from .event import CloudEvent
    from .transport import Transport

_log = logging.getLogger(__name__)
_JUST_NOW: Final = 1.0  # seconds
_FAILURES: Final = 3
_SECRET_LENGTH: Final = 4  # what is shorter is no secret, and blanking it would garble every answer


class Address:
    """Where POSTs go: a resolved binding with its certificates and its credentials."""

    def __init__(
        self,
        binding: SinkBinding,
        transport: Transport,
        *,
        credentials: Credentials | None = None,
        structured: bool = False,
        percent: bool = False,
        trust: Trust | None = None,
    ) -> None:
        self.unreachable = ""
        """Why no try can be made as long as none can, as nothing says where it is; set by who finds that out."""
        self.up = True
        self.down_reason = ""
        self.down_since = 0.0
        self.since: float | None = None
        """When it last went up or down, by the loop's clock."""
        self._held = False
        self._failures = 0
        self._failed_at = float("-inf")
        self._transport = transport
        self._credentials = credentials or Credentials()
        self._structured = structured
        self._percent = percent
        self._trust = trust or Trust(binding.ca_certs)
        self.held: Callable[[], int] = lambda: 0
        """How many events are on their way to it, for the log."""
        own = [(b"user-agent", b"wellhead/" + __version__.encode())]
        if binding.namespace:
            own.append((b"kn-namespace", binding.namespace.encode()))
        self._headers = tuple(own)
        self.sent: Headers = ()
        """The headers of the newest try that say who we are."""
        self._go_to(binding.sink)

    def _go_to(self, url: str) -> None:
        self.url = url
        self.shown = public_url(url)
        self.facts = SinkFacts()
        values = [part.rpartition("=")[2] for part in url.partition("?")[2].split("&")]
        self._query_values = tuple(dict.fromkeys((*values, *map(unquote, values), *map(unquote_plus, values))))
        self._secure = url.lower().startswith("https:")
        self._target = Target(url, headers=self._headers)

    def move(self, url: str, ca_certs: str) -> None:
        """From the next try on, of whatever event, it is at ``url``: what its ``ref`` resolves to is another now."""
        self.unreachable = ""
        self._trust = self._trust.with_ca_certs(ca_certs)
        if url != self.url:
            self._go_to(url)
            self.sent = ()

    @property
    def credentials(self) -> Credentials:
        """Who we are to it."""
        return self._credentials

    def encode(self, event: CloudEvent) -> tuple[bytes, bytes]:
        """Header lines and body of ``event``, the same for all its tries; credentials are added at each."""
        return encode_lines(event, structured=self._structured, percent=self._percent)

    def credentials_changed_since(self, sent: Headers, now: float) -> bool:
        """Whether a try that went with ``sent`` (the object that was in `Address.sent`) would go with others now."""
        return self._credentials.changed_since(sent, now)

    def begin(
        self,
        lines: bytes,
        body: bytes,
        done: Callable[[Outcome], object],
        started: float,
        timeout: float | None,
        fresh: bool = False,  # noqa: FBT001, FBT002 - by position: this is called for each event
    ) -> Callable[[], None]:
        """One try: `wellhead.transport.Transport.begin` with this address's credentials and certificates.

        ``started`` is now. Afterwards ``sent`` holds the credentials that this try goes with. Whoever called `begin`
        calls `noted` once it has ended.
        """
        tls = None
        if self.unreachable:
            unanswered = Unanswered(NoAnswer.CONNECT, self.unreachable)
            return asyncio.get_running_loop().call_soon(done, unanswered).cancel
        if self._secure:
            try:
                tls = self._trust.context()
            except ssl.SSLError as error:
                loop = asyncio.get_running_loop()
                return loop.call_soon(done, Unanswered(NoAnswer.TLS, str(error))).cancel
        credentials = self._credentials.headers(started)
        if credentials is not self.sent or tls is not self._target.tls:
            self.sent = credentials
            self._target = Target(self.url, tls, (*self._headers, *credentials))
        return self._transport.begin(Post(self._target, lines, body, timeout, fresh), done)

    def noted(self, outcome: Outcome, started: float) -> Outcome:
        """How the try that began at ``started`` ended, without our secrets; what it tells of the address is kept."""
        if is_accepted(outcome):
            self.accepted(started)
            return outcome
        outcome = self._without_secrets(outcome)
        self._note_trouble(outcome, started)
        return outcome

    def accepted(self, started: float) -> None:
        """What `noted` keeps of a try that was accepted."""
        facts = self.facts
        facts.refused_in_a_row = self._failures = 0
        if started > facts.accepted_started:  # noqa: PLR1730 - a call less for each event
            facts.accepted_started = started
        if not self.up:
            self._note_up()

    def note_refused(self) -> None:
        """An event was refused for good: one more in a row, which the brake counts."""
        self.facts.refused_in_a_row += 1

    def reread(self) -> None:
        """Read certificates and credentials again before the next try: something about them may be wrong."""
        self._trust.reread()
        self._credentials.reread()

    def _without_secrets(self, outcome: Outcome) -> Outcome:
        """A sink may repeat what it was sent; its words go to logs, errors and dead letters."""
        if not isinstance(outcome, Answered) or not outcome.body:
            return outcome
        body = outcome.body
        for secret in (*self._credentials.secrets(), *self._query_values):
            if len(secret) >= _SECRET_LENGTH:
                body = body.replace(secret.encode(), b"***")
        return replace(outcome, body=body)

    def _note_up(self) -> None:
        self.up, self.since = True, asyncio.get_running_loop().time()
        seconds = round(self.since - self.down_since, 3)
        _log.info("sink is up again", extra={"sink": self.shown, "down_seconds": seconds, "held": self.held()})

    def _note_trouble(self, outcome: Outcome, started: float) -> None:
        """It is down once it has failed; one that accepted others just now, only when it fails again and again."""
        kind = reaction(outcome)
        if kind is Reaction.REFUSE or self.facts.accepted_started >= started or is_stale(outcome):
            return
        now = asyncio.get_running_loop().time()
        if started >= self._failed_at:  # those that were on the wire together count as one
            self._failures, self._failed_at = self._failures + 1, now
        just_now = started - self.facts.accepted_started <= _JUST_NOW
        if self._failures >= _FAILURES or not just_now or _is_about_us(outcome):
            self._note_down(outcome, now, held=kind is Reaction.HOLD)

    def _note_down(self, outcome: Outcome, now: float, *, held: bool) -> None:
        self.down_reason = describe(outcome)
        if self.up or (held and not self._held):  # once when it goes down, and once more when it needs a person
            level = logging.ERROR if held else logging.WARNING
            _log.log(level, "sink is down", extra={"sink": self.shown, "reason": self.down_reason})
            self._held = held
        if self.up:
            self.up, self.down_since, self.since = False, now, now


def _is_about_us(outcome: Outcome) -> bool:
    """Whether it is told of our certificates or credentials, which are no one event's."""
    return outcome.status in (401, 407) if isinstance(outcome, Answered) else outcome.why is NoAnswer.TLS


def describe(outcome: Outcome) -> str:
    """An outcome in words for people, with the first of what the sink answered."""
    if isinstance(outcome, Answered) and outcome.body:
        said = outcome.body[:200].decode("utf-8", "replace")
        return f"{outcome}: {ascii(said)[1:-1]}"
    return str(outcome)
