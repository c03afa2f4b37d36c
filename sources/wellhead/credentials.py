"""Who we are to a sink: a bearer token, a name and password, or headers of one's own; renewed without a restart.

Client certificates are TLS's affair (`wellhead.tls`).
"""

from __future__ import annotations

import base64
import logging
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from .clock import SystemClock
from .errors import ConfigError, Problem
from .extra_headers import ExtraHeaders, extra_headers
from .jwt import Claims, claims
from .watched_file import LOOK_SECONDS, WatchedFile, content

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .clock import Clock

Headers: TypeAlias = "tuple[tuple[bytes, bytes], ...]"

OIDC_TOKEN: Final = Path("/oidc/token")
"""Where a SinkBinding mounts the token for its sink (contract/core.md 3.2)."""

_log = logging.getLogger(__name__)
_TOKEN: Final = re.compile(r"[!-~]{1,16384}")
# RFC 7617, 2: no control characters, and a name without colon. Surrogates are what an environment has for broken UTF-8.
_USERNAME: Final = re.compile(r"[^:\x00-\x1f\x7f\ud800-\udfff]{1,1024}")
_PASSWORD: Final = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{1,16384}")
_SECRET_LENGTH: Final = 4  # what is shorter is no secret, and blanking it would garble every answer
_WORD_LENGTH: Final = 8  # of a header's words: "Bearer" and "token" are no secrets


@dataclass(frozen=True, slots=True, kw_only=True)
class CredentialSources:
    """Where credentials for one sink come from. At most one of them makes the ``Authorization`` header.

    Raises `ConfigError` with every contradiction. Files are not opened here (`file_problems` does).
    """

    token_file: Path | None = OIDC_TOKEN
    """A bearer token; where there is no such file, none is sent."""
    token: str = field(default="", repr=False)
    username: str = ""
    password: str = field(default="", repr=False)
    password_file: Path | None = None
    headers: ExtraHeaders = field(default=(), repr=False)
    headers_file: Path | None = None
    """A header in it replaces one of the same name in ``headers``."""

    def __post_init__(self) -> None:
        problems = list(self._contradictions())
        if problems:
            raise ConfigError(problems)

    def _contradictions(self) -> Iterator[Problem]:
        if self.username and not _USERNAME.fullmatch(self.username):
            yield Problem("SINK_USERNAME", "holds a colon or control characters, or is longer than 1024 characters")
        if self.username and not self.password and self.password_file is None:
            yield Problem("SINK_USERNAME", "is set without SINK_PASSWORD_FILE or SINK_PASSWORD")
        if self.password and self.password_file is not None:
            yield Problem("SINK_PASSWORD", "is set beside SINK_PASSWORD_FILE; one of them")
        if (self.password or self.password_file is not None) and not self.username:
            yield Problem("SINK_PASSWORD or SINK_PASSWORD_FILE", "is set without SINK_USERNAME")
        said = {
            "SINK_USERNAME": self.username,
            "SINK_TOKEN": self.token,
            "OIDC_TOKEN_FILE": self.token_file not in (None, OIDC_TOKEN),
            "Authorization in SINK_HEADERS": any(name.lower() == "authorization" for name, _ in self.headers),
        }
        names = [name for name, given in said.items() if given]
        if len(names) > 1:
            yield Problem(" and ".join(names), "each say what Authorization to send; one of them")

    def file_problems(self) -> list[Problem]:
        """What is wrong with the files as they are now. A token's may be missing: a SinkBinding mounts it or not."""
        problems: list[Problem] = []
        for name, path, parse in (
            ("SINK_PASSWORD_FILE", self.password_file, _password_of),
            ("SINK_HEADERS_FILE", self.headers_file, _headers_of),
        ):
            try:
                if path is not None:
                    parse(content(path))
            except ConfigError as error:
                problems += [Problem(f"{name}: {path}: {wrong.where}", wrong.what) for wrong in error.problems]
            except ValueError as error:
                problems.append(Problem(name, f"{path} {error}"))
        return problems


NO_CREDENTIALS: Final = CredentialSources(token_file=None)
"""For a sink that is not to learn who we are: a dead-letter sink, unless it was said otherwise."""


class Credentials:
    """The headers that tell one sink who we are, as its sources hold them now. One for each address; not shared.

    Files are looked at once a second at most, and read when they changed; a JWT's file also in each second of the
    JWT's last tenth or minute. A file that went wrong leaves what it held before in use, and is logged once.
    """

    def __init__(
        self,
        sources: CredentialSources = NO_CREDENTIALS,
        *,
        audience: str = "",
        clock: Clock = SystemClock(),  # noqa: B008 - has no state
    ) -> None:
        self._sources = sources
        self._audience = audience
        self._clock = clock
        self._token = _watched_token(sources)
        self._password = _watched_password(sources)
        self._extra = _watched_headers(sources)
        self._given = ""
        self.asked_anew: Callable[[], object] = lambda: None
        """Called when the sink did not like what it was shown; whoever gives tokens (`give`) gets another."""
        self._claims: Claims | None = None
        self._told_expired = False
        self._look_at = float("-inf")
        self._force = False
        self._headers: Headers = ()
        self._secrets: tuple[str, ...] = ()
        self._secrets_before: tuple[str, ...] = ()
        self._compose()

    def headers(self, now: float) -> Headers:
        """The headers to send at ``now`` (monotonic): the same object as long as nothing about them changes."""
        if now >= self._look_at:
            self._look(now)
        return self._headers

    def reread(self) -> None:
        """Let the next `headers` read every file, whatever its stamp says: the sink did not like what they held."""
        self._look_at = float("-inf")
        self._force = True
        self.asked_anew()

    def give(self, token: str, *, audience: str) -> None:
        """From now on show this bearer token, which was asked for (TokenRequest), in place of a file's."""
        self._given, self._audience = token, audience
        self._compose()

    def changed_since(self, sent: Headers, now: float) -> bool:
        """Whether a try that went with ``sent`` (the very object that `headers` gave) would go with others now.

        Reads the files to know. After a 401: if so, try again at once; if not, the sink means it.
        """
        if self._headers is sent:
            self.reread()
        return self.headers(now) is not sent

    def secrets(self) -> tuple[str, ...]:
        """What must be blanked in answers and logs, the longest first: of now, and of before the latest change, as a
        try that went with the old ones may still be on the wire.
        """
        return self._secrets

    def _look(self, now: float) -> None:
        self._look_at = now + LOOK_SECONDS
        force, self._force = self._force, False
        wall = self._clock.now().timestamp()
        due = self._claims is not None and self._claims.expires_soon(wall)
        changed = [
            self._token is not None and self._token.look(force=force or due),
            self._password is not None and self._password.look(force=force),
            self._extra is not None and self._extra.look(force=force),
        ]
        if any(changed):
            self._compose()
        self._tell_expired(wall)

    def _compose(self) -> None:
        named = {name.lower(): (name, value) for name, value in self._sources.headers}
        if self._extra is not None:
            named |= {name.lower(): (name, value) for name, value in self._extra.value}
        token = self._sources.token or self._given or (self._token.value if self._token is not None else "")
        secret = self._sources.password or (self._password.value if self._password is not None else "")
        if "authorization" in named:
            token = secret = ""
        elif secret:
            named["authorization"] = ("Authorization", _basic(self._sources.username, secret))
        elif token:
            named["authorization"] = ("Authorization", f"Bearer {token}")
        self._note_claims(token)
        headers = tuple((name.lower().encode(), value.encode()) for name, value in named.values())
        if headers == self._headers:  # a token file, say, beside an Authorization of one's own
            return
        self._headers = headers
        secrets = {secret, token, *(word for _, value in named.values() for word in (value, *_words(value)))}
        present = tuple(one for one in secrets if len(one) >= _SECRET_LENGTH)
        self._secrets = tuple(sorted({*present, *self._secrets_before}, key=lambda one: (-len(one), one)))
        self._secrets_before = present

    def _note_claims(self, token: str) -> None:
        said = claims(token)
        if (
            said is not None
            and not said.meant_for(self._audience)
            and (self._claims is None or self._claims.audiences != said.audiences)
        ):
            facts = {"audience": self._audience, "token_audience": ascii(said.audiences)[:200]}
            _log.warning("the token is meant for another audience than the sink's", extra=facts)
        self._claims = said
        self._told_expired = False

    def _tell_expired(self, wall: float) -> None:
        if self._claims is not None and self._claims.expired(wall) and not self._told_expired:
            self._told_expired = True
            _log.warning("the token has expired and no newer one is there; sending with it")


def bearer_token(text: str) -> str:
    """A bearer token, less the blanks around it. Raises ValueError with the rule; never shows it."""
    token = text.strip()
    if not token:
        raise ValueError("is empty")
    if not _TOKEN.fullmatch(token):
        raise ValueError("is no token: printable ASCII without blanks, 16384 characters at most")
    return token


def password(text: str) -> str:
    """A password for Basic credentials. Raises ValueError with the rule; never shows it."""
    if not _PASSWORD.fullmatch(text):
        raise ValueError("is no password: one line without control characters, 16384 characters at most")
    return text


def _token_of(octets: bytes) -> str:
    return bearer_token(_text(octets))


def _password_of(octets: bytes) -> str:
    """A file's password: all of it but the end of its last line, which editors add."""
    return password(_text(octets).removesuffix("\n").removesuffix("\r"))


def _headers_of(octets: bytes) -> ExtraHeaders:
    return extra_headers(_text(octets))


def _text(octets: bytes) -> str:
    try:
        return octets.decode("utf-8")
    except UnicodeDecodeError:  # which would show the octet
        raise ValueError("is not UTF-8") from None


def _watched_token(sources: CredentialSources) -> WatchedFile[str] | None:
    if sources.token_file is None or sources.token or sources.username:
        return None
    return WatchedFile(sources.token_file, _token_of, what="token", initial="", absent="")


def _watched_password(sources: CredentialSources) -> WatchedFile[str] | None:
    if sources.password_file is None:
        return None
    return WatchedFile(sources.password_file, _password_of, what="password", initial="")


def _watched_headers(sources: CredentialSources) -> WatchedFile[ExtraHeaders] | None:
    if sources.headers_file is None:
        return None
    return WatchedFile(sources.headers_file, _headers_of, what="headers", initial=())


def _basic(username: str, password: str) -> str:
    """RFC 7617, in UTF-8."""
    return f"Basic {base64.b64encode(f'{username}:{password}'.encode()).decode()}"


def _words(value: str) -> Iterator[str]:
    return (word for word in re.split(r"[\s,;=\"]+", value) if len(word) >= _WORD_LENGTH)
