"""One hook event on its way: the request GitLab makes of it, and what its answer counts as. Nothing is sent here.

app/services/web_hook_service.rb. GitLab tries once: `execute` catches every HTTP error and logs it, so that Sidekiq,
which would run a failed `WebHookWorker` again, never sees it fail (app/workers/web_hook_worker.rb). What comes twice was
resent by somebody; `Idempotency-Key` stays the same then, `X-Gitlab-Webhook-UUID` and `X-Gitlab-Event-UUID` do not.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote, urlsplit

from tests.gitlab.hooks import Hook, Kind
from tests.gitlab.settings import HAS_IDEMPOTENCY_KEY, HAS_SIGNING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from tests.gitlab.replies import Headers
    from tests.gitlab.settings import Settings

REQUEST_BODY_SIZE_LIMIT: Final = 25 << 20
RESPONSE_BODY_SIZE_LIMIT: Final = 8 << 10
RESPONSE_HEADERS_COUNT_LIMIT: Final = 50
RESPONSE_HEADERS_SIZE_LIMIT: Final = 1 << 10
INTERNAL_ERROR: Final = "internal error"
"""`InternalErrorResponse`: the status in the log where there was no answer."""


@dataclass(frozen=True, slots=True)
class Fired:
    """A hook event that waits for its turn (a job of `WebHookWorker`), or that somebody asked to be sent at once."""

    hook: Hook = field(repr=False)
    trigger: str
    data: Mapping[str, object] = field(repr=False)
    idempotency_key: str
    body: bytes | None = field(default=None, repr=False)
    """Given, it is sent as it stands instead of ``data`` as JSON."""
    force: bool = False
    """Sent although the webhook is disabled: a test request (app/services/test_hooks/base_service.rb)."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The request: one POST that may take ``timeout_seconds``."""

    fired: Fired
    url: str
    headers: Headers = field(repr=False)
    logged_headers: Headers = field(repr=False)
    """Those without the credentials of the URL, which HTTParty adds."""
    body: bytes = field(repr=False)
    verify_tls: bool
    timeout_seconds: float


@dataclass(frozen=True, slots=True)
class Answered:
    status: int
    headers: Headers = ()
    body: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """`response_category`: redirects are as good as success."""
        return 200 <= self.status < 400


@dataclass(frozen=True, slots=True)
class Failed:
    """No answer: refused, reset, too slow, TLS."""

    reason: str
    ok: bool = False


@dataclass(frozen=True, slots=True)
class NotSent:
    """Nothing was attempted, and nothing logged."""

    reason: str


Outcome = Answered | Failed


def event_header(trigger: str, kind: Kind) -> str:
    """`hook_to_event`: the trigger's name in the singular, as a title; all events of a system hook are "System Hook"."""
    if kind is Kind.SYSTEM:
        return "System Hook"
    return trigger.removesuffix("s").replace("_", " ").title()


def request(fired: Fired, body: bytes, now: datetime, settings: Settings, uuid: Callable[[], str]) -> Delivery:
    """`build_headers`, `make_request`, `make_request_with_auth`; *Webhooks*, "Delivery headers"."""
    hook = fired.hook
    url, authorization = without_credentials(hook.interpolated_url)
    parts = urlsplit(settings.external_url)
    headers = hook.custom_headers | {  # GitLab's own win over custom ones
        "Content-Type": "application/json",
        "User-Agent": f"GitLab/{settings.version[0]}.{settings.version[1]}.0",
        "X-Gitlab-Event": event_header(fired.trigger, hook.kind),
        "X-Gitlab-Webhook-UUID": uuid(),
        "X-Gitlab-Instance": f"{parts.scheme}://{parts.netloc}",  # `gitlab.base_url`: without the relative root
        "X-Gitlab-Event-UUID": uuid(),
    }
    if settings.version >= HAS_IDEMPOTENCY_KEY:
        headers["Idempotency-Key"] = fired.idempotency_key
    if hook.token:
        headers["X-Gitlab-Token"] = hook.token
    if settings.version >= HAS_SIGNING:
        headers |= signature(hook.signing_token if settings.signs else None, fired.idempotency_key, now, body)
    logged = tuple(headers.items())
    if authorization:
        headers["Authorization"] = authorization
    verify = hook.values["enable_ssl_verification"] is not False
    return Delivery(fired, url, tuple(headers.items()), logged, body, verify, settings.webhook_timeout_seconds)


def signature(token: str | None, message_id: str, now: datetime, body: bytes) -> dict[str, str]:
    """*Webhooks*, "Signing tokens": id and time with each delivery since 19.0, the signature where there is a token.

    Merge request 230944: HMAC-SHA256 over `{webhook-id}.{webhook-timestamp}.{body}`, keyed with the decoded token.
    """
    stamp = str(int(now.timestamp()))
    headers = {"webhook-id": message_id, "webhook-timestamp": stamp}
    if token is None:
        return headers
    key = base64.b64decode(token.removeprefix("whsec_"))
    digest = hmac.new(key, f"{message_id}.{stamp}.".encode() + body, hashlib.sha256).digest()
    return headers | {"webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def without_credentials(url: str) -> tuple[str, str | None]:
    """`make_request_with_auth`: what stands before the "@" goes into an Authorization header."""
    parts = urlsplit(url)
    if parts.username is None:
        return url, None
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return bare, f"Basic {base64.b64encode(pair.encode()).decode()}"
