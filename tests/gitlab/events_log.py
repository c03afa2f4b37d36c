"""The log of hook events: one entry for each attempt, what it keeps, how it is searched.

app/models/hooks/web_hook_log.rb, app/services/web_hook_service.rb (`log_execution`), app/finders/web_hooks/
web_hook_logs_finder.rb. What was not attempted (webhook disabled, rate limit of the namespace) leaves no entry.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tests.gitlab.deliveries import (
    INTERNAL_ERROR,
    RESPONSE_BODY_SIZE_LIMIT,
    RESPONSE_HEADERS_COUNT_LIMIT,
    RESPONSE_HEADERS_SIZE_LIMIT,
    Answered,
    Delivery,
    Outcome,
)
from tests.gitlab.hooks import timestamp
from tests.gitlab.replies import dumped

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime

MAX_RECENT_DAYS: Final = 7
RETAINED: Final = timedelta(days=14)
OVERSIZE_REQUEST_DATA: Final[Mapping[str, object]] = {"oversize": True}
CATEGORIES: Final = {
    "successful": range(200, 300),
    "client_failure": range(400, 500),
    "server_failure": range(500, 600),
}
STATUSES: Final = frozenset(str(status.value) for status in HTTPStatus) | CATEGORIES.keys()
_EMAIL: Final = re.compile(r"[a-zA-Z0-9.!#$%&'*+/=?^_`{|}~-]+@[a-zA-Z0-9](?:[a-zA-Z0-9.-]*[a-zA-Z0-9])?")


@dataclass(frozen=True, slots=True)
class LogEntry:
    id: int
    hook_id: int
    url: str
    sent_to: str
    """The URL with its variables filled in, kept by GitLab as a hash only (`url_hash`)."""
    trigger: str
    idempotency_key: str
    """Read from the headers, which had none before GitLab 17.4."""
    request_headers: Mapping[str, str] = field(repr=False)
    request_data: Mapping[str, object] = field(repr=False)
    response_headers: Mapping[str, str] = field(repr=False)
    response_body: str = field(repr=False)
    response_status: str
    execution_duration: float
    created_at: datetime


def entry(number: int, delivery: Delivery, outcome: Outcome, *, took: float, now: datetime, limit: int) -> LogEntry:
    """`limit` in bytes of the data, 0 for none."""
    fired = delivery.fired
    secret = {"X-Gitlab-Token", *fired.hook.custom_headers}
    oversize = limit and len(delivery.body) > limit
    answer = outcome if isinstance(outcome, Answered) else None
    return LogEntry(
        id=number,
        hook_id=fired.hook.id,
        url=without_secrets(fired.hook.url),
        sent_to=fired.hook.interpolated_url,
        trigger=fired.trigger,
        idempotency_key=dict(delivery.logged_headers).get("Idempotency-Key", ""),
        request_headers={name: "[REDACTED]" if name in secret else value for name, value in delivery.logged_headers},
        request_data=OVERSIZE_REQUEST_DATA if oversize else redacted(fired.data),
        response_headers=_kept_headers(answer) if answer else {},
        response_body=answer.body[:RESPONSE_BODY_SIZE_LIMIT].decode(errors="replace") if answer else "",
        response_status=str(answer.status) if answer else INTERNAL_ERROR,
        execution_duration=took,
        created_at=now,
    )


def without_secrets(url: str) -> str:
    """`obfuscate_basic_auth`, lib/gitlab/url_sanitizer.rb; variables are not filled in either."""
    parts = urlsplit(url)
    credentials, _, host = parts.netloc.rpartition("@")
    if not credentials:
        return url
    return parts._replace(netloc=("*****:*****@" if ":" in credentials else "*****@") + host).geturl()


def redacted(data: Mapping[str, object]) -> Mapping[str, object]:
    """`redact_user_emails`: whatever is an e-mail address as a whole. A resent hook event has it so as well."""
    return {name: _redacted(value) for name, value in data.items()}


def recent(log: Iterable[LogEntry], now: datetime, statuses: Iterable[str] = ()) -> list[LogEntry]:
    """`recent(7)`, newest first: from the beginning of the day a week ago; with any of the statuses, if some are given."""
    since = (now - timedelta(days=MAX_RECENT_DAYS)).replace(hour=0, minute=0, second=0, microsecond=0)
    wanted = tuple(statuses)
    found = [
        entry
        for entry in log
        if entry.created_at >= since
        and (not wanted or any(_has_status(entry.response_status, status) for status in wanted))
    ]
    return sorted(found, key=lambda entry: (entry.created_at, entry.id), reverse=True)


def shown_entry(entry: LogEntry) -> dict[str, object]:
    """lib/api/entities/web_hook_log.rb."""
    return {
        "id": entry.id,
        "url": entry.url,
        "trigger": entry.trigger,
        "request_headers": entry.request_headers,
        "request_data": entry.request_data,
        "response_headers": entry.response_headers,
        "response_body": entry.response_body,
        "execution_duration": entry.execution_duration,
        "response_status": entry.response_status,
        "created_at": timestamp(entry.created_at),
    }


def resent_body(entry: LogEntry) -> bytes:
    return dumped(entry.request_data)


def _has_status(status: str, wanted: str) -> bool:
    """`string_filter_to_code`: attempts without an answer are server failures."""
    if wanted in CATEGORIES:
        return (status.isdigit() and int(status) in CATEGORIES[wanted]) or (
            wanted == "server_failure" and status == INTERNAL_ERROR
        )
    return status == wanted


def _kept_headers(answer: Answered) -> dict[str, str]:
    return {
        name.title(): value.encode()[:RESPONSE_HEADERS_SIZE_LIMIT].decode(errors="ignore")
        for name, value in answer.headers[:RESPONSE_HEADERS_COUNT_LIMIT]
    }


def _redacted(value: object) -> object:
    match value:
        case dict():
            return {name: _redacted(inner) for name, inner in value.items()}
        case list():
            return [_redacted(inner) for inner in value]
        case str() if _EMAIL.fullmatch(value):
            return "[REDACTED]"
        case _:
            return value
