"""A hook event as an event: as Knative's GitLabSource sends it, or by the CloudEvents spec's own mapping. Pure."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from wellhead.errors import InvalidEvent
from wellhead.event import CloudEvent, random_id, rfc3339, stable_id

from .hook_event import Malformed, is_usual

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .hook_event import HookEvent

TYPE_PREFIX: Final = "dev.knative.sources.gitlab."
SPEC_PREFIX: Final = "com.gitlab."
HEADER_EXTENSION: Final = "comgitlabevent"
_SUFFIX: Final = " Hook"
_JSON: Final = "application/json"
_NOTES: Final = {
    "Commit": "commit", "MergeRequest": "merge_request", "Issue": "issue", "Snippet": "snippet", "WorkItem": "work_item",
}  # fmt: skip
_NOTE_ANCHOR: Final = re.compile(r"#note_.*\Z")


class Mapped(enum.Enum):
    """Whose attributes an event has."""

    KNATIVE = "knative"
    SPEC = "spec"


@dataclass(frozen=True, slots=True)
class _Rule:
    """What the spec's mapping says of one kind: paths into the payload, several where versions of GitLab differ."""

    subject: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    """What is added to the type."""
    source: tuple[str, ...] = ("repository.homepage", "project.web_url")
    time: tuple[str, ...] = ()


# By object_kind. The first nine are the spec's (cloudevents/spec, adapters/gitlab.md); it names job_id and job_status,
# which GitLab calls build_id and build_status. The others are ours, after the same pattern.
_RULES: Final = {
    "push": _Rule(("checkout_sha",)),
    "tag_push": _Rule(("ref",)),
    "issue": _Rule(("object_attributes.iid",), ("object_attributes.state",)),
    "note": _Rule(("object_attributes.id",), time=("object_attributes.created_at",)),
    "merge_request": _Rule(
        ("object_attributes.iid",), ("object_attributes.action",), time=("object_attributes.created_at",)
    ),
    "wiki_page": _Rule(("object_attributes.slug",), ("object_attributes.action",), ("project.web_url",)),
    "pipeline": _Rule(("object_attributes.id",), ("object_attributes.status",), ("project.web_url",)),
    "job": _Rule(("job_id", "build_id"), ("job_status", "build_status")),
    "build": _Rule(("job_id", "build_id"), ("job_status", "build_status")),
    "work_item": _Rule(("object_attributes.iid",), ("object_attributes.state",)),
    "deployment": _Rule(("deployment_id",), ("status",)),
    "release": _Rule(("tag",), ("action",)),
    "feature_flag": _Rule(("object_attributes.id",)),
    "emoji": _Rule(("object_attributes.id",), ("event_type",)),
    "milestone": _Rule(("object_attributes.iid",), ("action",)),
    "access_token": _Rule(("object_attributes.id",), ("event_name",)),
    "vulnerability": _Rule(("object_attributes.url",), ("object_attributes.state",)),
}
_NO_RULE: Final = _Rule()


def event_type(name: str) -> str:
    """The type of ``X-Gitlab-Event``: ``dev.knative.sources.gitlab.merge_request`` of ``Merge Request Hook``.

    A name without `` Hook`` at its end, which Knative's adapter refuses, is taken whole.
    """
    return TYPE_PREFIX + name.removesuffix(_SUFFIX).replace(" ", "_").lower()


def cloud_event(
    told: HookEvent, *, source: str, now: datetime, mapped: Mapped = Mapped.KNATIVE, extra_attributes: bool = False
) -> CloudEvent:
    """The event, its data byte for byte what came. Raises `Malformed` where a header makes no valid attribute.

    The id is the same on every try and resend of one delivery, where GitLab says which it is.
    """
    try:
        return (_by_spec if mapped is Mapped.SPEC else _by_knative)(told, source, now, extra_attributes)
    except InvalidEvent as invalid:
        raise Malformed(f"the headers make no event: {invalid.problems[0].where}") from None


def subject(payload: Mapping[str, object]) -> str | None:
    """What the hook event is about, by the spec's mapping."""
    return _text(payload, _rule(payload).subject)


def _by_knative(told: HookEvent, source: str, now: datetime, extra_attributes: bool) -> CloudEvent:  # noqa: FBT001 - called in one place
    extensions = {HEADER_EXTENSION: told.name}
    if extra_attributes:
        extensions |= _delivery(told)
    return CloudEvent(
        id=_id(told),
        source=source,
        type=event_type(told.name),
        subject=subject(told.payload) if extra_attributes else None,
        time=rfc3339(now),
        datacontenttype=_JSON,
        extensions=extensions,
        data=told.body,
    )


def _by_spec(told: HookEvent, source: str, now: datetime, extra_attributes: bool) -> CloudEvent:  # noqa: FBT001 - called in one place
    rule, kind = _rule(told.payload), _kind(told)
    state = _note_state(told.payload) if kind == "note" else _text(told.payload, rule.state)
    made = CloudEvent(
        id=_id(told),
        source=(_note_source(told.payload) if kind == "note" else _text(told.payload, rule.source)) or source,
        type=".".join(filter(None, (f"{SPEC_PREFIX}{kind}", state))),
        subject=subject(told.payload),
        time=_moment(_text(told.payload, rule.time)) or rfc3339(now),
        datacontenttype=_JSON,
        extensions=_delivery(told) if extra_attributes else {},
        data=told.body,
    )
    return made


def _id(told: HookEvent) -> str:
    if not told.key:
        return random_id()
    return told.key if is_usual(told.key) else stable_id(told.key)


def _delivery(told: HookEvent) -> dict[str, str]:
    """GitLab's ids of the delivery. Those of the event are shared by the webhooks that one event fires."""
    ids = {
        "gitlabeventuuid": told.event_uuid,
        "gitlabwebhookuuid": told.webhook_uuid,
        "gitlabinstance": told.instance,
    }
    return {name: value for name, value in ids.items() if value}


def _rule(payload: Mapping[str, object]) -> _Rule:
    return _RULES.get(str(payload.get("object_kind")), _NO_RULE)


def _kind(told: HookEvent) -> str:
    known = _text(told.payload, ("object_kind", "event_name")) or event_type(told.name).removeprefix(TYPE_PREFIX)
    return "job" if known == "build" else known


def _note_state(payload: Mapping[str, object]) -> str | None:
    return _NOTES.get(_text(payload, ("object_attributes.noteable_type",)) or "")


def _note_source(payload: Mapping[str, object]) -> str | None:
    if _note_state(payload) == "commit":
        return _text(payload, ("commit.url",))
    url = _text(payload, ("object_attributes.url",))
    return _NOTE_ANCHOR.sub("", url) if url else None


def _text(payload: Mapping[str, object], paths: tuple[str, ...]) -> str | None:
    """The first of ``paths`` under which there is a text or a number."""
    return next(filter(None, _texts(payload, paths)), None)


def _texts(payload: Mapping[str, object], paths: tuple[str, ...]) -> Iterator[str | None]:
    for path in paths:
        found: object = payload
        for name in path.split("."):
            found = found.get(name) if isinstance(found, Mapping) else None
        if isinstance(found, float):  # all numbers are read as floats; ids are whole
            yield str(int(found)) if found.is_integer() else None
        elif isinstance(found, str) and found.strip() and found.isprintable():
            yield found


def _moment(text: str | None) -> str | None:
    """RFC 3339 of ``2015-05-17 18:08:09 UTC`` or ``2015-05-17T18:08:09.123Z``; None for what is no instant."""
    try:
        moment = datetime.fromisoformat((text or "").replace(" UTC", "Z"))
        return rfc3339(moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC))
    except (ValueError, OverflowError):
        return None
