"""What a GitLab source can be told, by flags and variables: those of Knative's adapter, and ours. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Final

from wellhead.durations import duration
from wellhead.env import boolean, integer, one_of, setting, text
from wellhead.errors import ConfigError, InvalidEvent, Problem
from wellhead.event import CloudEvent

from .events import TYPE_PREFIX, Mapped
from .kinds import FLAGS, Scope
from .projecturl import Target, base_url, target
from .signature import signing_key

PROBE_PORT: Final = 8081
_LEAST_INTERVAL: Final = timedelta(seconds=15)  # GitLab's limits are of some calls a minute
_SPLIT: Final = re.compile(r"[\s,]+")


class Cleanup(enum.Enum):
    """What becomes of the webhook when the program ends."""

    NEVER = "never"
    ON_EXIT = "on-exit"


def words(value: str) -> tuple[str, ...]:
    """Words between blanks, commas or ends of lines."""
    return tuple(dict.fromkeys(word for word in _SPLIT.split(value) if word))


def event_types(value: str) -> tuple[str, ...]:
    """GitLab's names of the kinds of event, as ``push_events``; ``all`` for every one."""
    named = words(value)
    if named == ("all",):
        return FLAGS
    unknown = [name for name in named if name not in FLAGS]
    if unknown or not named:
        raise ValueError(f"names no kind of event by {', '.join(map(ascii, unknown)) or 'nothing'}: {', '.join(FLAGS)}")
    return named


def secret(value: str) -> str:
    """A token that a header can carry."""
    if not (value.isascii() and value.isprintable()) or value != value.strip():
        raise ValueError("holds blanks at its ends, control characters or letters beyond ASCII, which no header carries")
    return value


def signing_tokens(value: str) -> tuple[str, ...]:
    """Signing tokens between blanks, the present one first."""
    for token in words(value):
        signing_key(token)
    return words(value)


def hook_url(value: str) -> str:
    """Where GitLab reaches us."""
    base_url(value.partition("?")[0])
    return value


def interval(value: str) -> timedelta:
    """A duration that leaves GitLab in peace."""
    length = duration(value)
    if not _LEAST_INTERVAL <= length <= timedelta(days=1):
        raise ValueError("is not between 15s and a day")
    return length


@dataclass(frozen=True, slots=True, kw_only=True)
class GitlabConfig:
    """Raises `ConfigError` with every problem between settings: who is let in, what is registered, ports that collide."""

    project_urls: tuple[str, ...] = setting(
        words, "projects to hear of, by their pages' URLs; may be repeated",
        flag="project-url", env="GITLAB_PROJECT_URL", default=(), shown_default="", repeated=True,
    )
    group_urls: tuple[str, ...] = setting(
        words, "groups to hear of (GitLab Premium); may be repeated",
        flag="group-url", env="GITLAB_GROUP_URL", default=(), shown_default="", repeated=True,
    )
    system_url: str = setting(
        text, "a whole GitLab to hear of, by its URL (takes an administrator's token)",
        flag="system-url", env="GITLAB_SYSTEM_URL", default="",
    )
    gitlab_url: str = setting(
        text, "where GitLab itself is, if under a path; found out if not given",
        flag="gitlab-url", env="GITLAB_URL", default="",
    )
    event_types: tuple[str, ...] = setting(
        event_types, "kinds of event, as push_events,issues_events; all: every one",
        flag="event-types", env="GITLAB_EVENT_TYPES", default=(), shown_default="",
    )
    branch_filter: str = setting(
        text, "branches whose pushes are told, as release/*; empty: all",
        flag="branch-filter", env="GITLAB_BRANCH_FILTER", default="",
    )
    hook_url: str = setting(
        hook_url, "where GitLab reaches this program; empty: webhooks are registered by somebody else",
        flag="hook-url", env="GITLAB_HOOK_URL", default="", secret=True,
    )
    hook_ssl_verify: bool = setting(
        boolean, "whether GitLab verifies the certificate there",
        flag="hook-ssl-verify", env="GITLAB_HOOK_SSL_VERIFY", default=True, switch=True,
    )
    access_token: str = setting(
        secret, "token for GitLab's API, of scope api, where no file holds it",
        env="GITLAB_ACCESS_TOKEN", default="", secret=True,
    )
    access_token_file: Path | None = setting(
        Path, "file with that token; read again at each use", flag="access-token-file", env="GITLAB_ACCESS_TOKEN_FILE"
    )
    api_ca_file: Path | None = setting(
        Path, "file with CA certificates (PEM) for GitLab's API", flag="api-ca-file", env="GITLAB_API_CA_FILE"
    )
    api_ssl_verify: bool = setting(
        boolean, "whether the certificate of GitLab's API is verified",
        flag="api-ssl-verify", env="GITLAB_API_SSL_VERIFY", default=True, switch=True,
    )
    api_timeout: timedelta = setting(
        duration, "how long GitLab's API may take to answer",
        flag="api-timeout", env="GITLAB_API_TIMEOUT", default=timedelta(seconds=10), shown_default="10s",
    )
    secret_token: str = setting(
        secret, "what GitLab shows us as X-Gitlab-Token, where no file holds it",
        env="GITLAB_SECRET_TOKEN", default="", secret=True,
    )
    secret_token_file: Path | None = setting(
        Path, "file with it, and on further lines those accepted besides; followed",
        flag="secret-token-file", env="GITLAB_SECRET_TOKEN_FILE",
    )
    signing_tokens: tuple[str, ...] = setting(
        signing_tokens, "signing tokens (whsec_…) of GitLab 19, the present one first, where no file holds them",
        env="GITLAB_SIGNING_TOKEN", default=(), shown_default="", secret=True,
    )
    signing_token_file: Path | None = setting(
        Path, "file with them, one a line; followed", flag="signing-token-file", env="GITLAB_SIGNING_TOKEN_FILE"
    )
    allow_anyone: bool = setting(
        boolean, "take hook events from anyone, where there is no token",
        flag="allow-anyone", env="GITLAB_ALLOW_ANYONE", default=False, switch=True,
    )
    interval: timedelta = setting(
        interval, "how often webhooks are looked at",
        flag="interval", env="GITLAB_INTERVAL", default=timedelta(minutes=1), shown_default="1m",
    )
    resend: bool = setting(
        boolean, "have GitLab send again what it tried in vain (17.4 and later)",
        flag="resend", env="GITLAB_RESEND", default=True, switch=True,
    )
    cleanup: Cleanup = setting(
        one_of(Cleanup), "whether the webhook is removed when the program ends",
        flag="cleanup", env="GITLAB_CLEANUP", default=Cleanup.NEVER, choices=("never", "on-exit"),
    )
    event_source: str = setting(
        text, "the events' source; the project's URL if not given",
        flag="event-source", env="GITLAB_EVENT_SOURCE", default="",
    )
    mapped: Mapped = setting(
        one_of(Mapped), "the events' attributes: Knative's, or those of the CloudEvents spec's GitLab adapter",
        flag="mapping", env="GITLAB_MAPPING", default=Mapped.KNATIVE, choices=("knative", "spec"),
    )
    extra_attributes: bool = setting(
        boolean, "say the subject, and GitLab's ids of delivery and event",
        flag="extra-attributes", env="EXTRA_ATTRIBUTES", default=False, switch=True,
    )
    port: int = setting(integer(0, 65535), "port that GitLab's requests come to; 0: a free one", flag="port", env="PORT", default=8080)
    address: str = setting(text, "address it listens on; empty: all", flag="address", env="ADDRESS", default="")
    health_port: int = setting(
        integer(0, 65535), "port of the probes, another than that", flag="health-port", env="HEALTH_PORT", default=PROBE_PORT
    )
    targets: tuple[Target, ...] = field(init=False, repr=False, compare=False)
    """What is registered, or what hook events are told of."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        object.__setattr__(self, "targets", tuple(self._targets(problems)))
        problems += self._of_registering()
        if not self.verifies and not self.allow_anyone:
            problems.append(
                Problem(
                    "GITLAB_SECRET_TOKEN",
                    "is empty, and there is no other token: anyone could send events (--allow-anyone if that is meant)",
                )
            )
        problems += self._of_event_source()
        if self.port and self.port == self.health_port:
            problems.append(Problem("port, PORT", f"{self.port} is the port of the probes too; give another HEALTH_PORT"))
        if problems:
            raise ConfigError(problems)

    @property
    def registers(self) -> bool:
        """Whether webhooks are ours to register."""
        return bool(self.hook_url)

    @property
    def verifies(self) -> bool:
        """Whether who sends has to know a token."""
        return bool(self.secret_token or self.secret_token_file or self.signing_tokens or self.signing_token_file)

    def _targets(self, problems: list[Problem]) -> list[Target]:
        named = (
            ("project-url, GITLAB_PROJECT_URL", Scope.PROJECT, self.project_urls),
            ("group-url, GITLAB_GROUP_URL", Scope.GROUP, self.group_urls),
            ("system-url, GITLAB_SYSTEM_URL", Scope.SYSTEM, (self.system_url,) if self.system_url else ()),
        )
        found: list[Target] = []
        for where, scope, urls in named:
            for url in urls:
                try:
                    one = target(url, scope, self.gitlab_url)
                except ValueError as error:
                    problems.append(Problem(where, f"{_shown(url)} {error}"))
                    continue
                if not any(one.is_same(other) for other in found):
                    found.append(one)
        return found

    def _of_registering(self) -> list[Problem]:
        if not self.registers:
            return []
        problems: list[Problem] = []
        if not (self.project_urls or self.group_urls or self.system_url):
            problems.append(Problem("project-url, GITLAB_PROJECT_URL", "is not set: which project tells of itself?"))
        if not self.access_token and self.access_token_file is None:
            problems.append(Problem("GITLAB_ACCESS_TOKEN", "is not set, nor --access-token-file: webhooks are registered with it"))
        if not self.event_types:
            problems.append(Problem("event-types, GITLAB_EVENT_TYPES", "is not set: what shall GitLab tell of?"))
        return problems

    def _of_event_source(self) -> list[Problem]:
        if not self.event_source and not self.targets:
            if self.project_urls or self.group_urls or self.system_url:
                return []  # what is wrong with those is told already
            return [Problem("GITLAB_EVENT_SOURCE", "is not set, nor GITLAB_PROJECT_URL: the events' source is made of it")]
        for source in (self.event_source or None, *(one.url for one in self.targets)):
            try:
                if source is not None:
                    CloudEvent(id="-", source=source, type=TYPE_PREFIX)
            except InvalidEvent as invalid:
                return [Problem("event-source, GITLAB_EVENT_SOURCE", problem.what) for problem in invalid.problems]
        return []


def _shown(url: str) -> str:
    """A URL for a message, without what may be a secret in it."""
    before, at, after = url.rpartition("@")
    return ascii(f"…@{after}" if at and "/" in before else url)[:80]
