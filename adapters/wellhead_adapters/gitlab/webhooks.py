"""The registrar's plan: what has to be done so that exactly one webhook of ours is left, and right. Pure; it calls nobody.

A webhook is ours by its URL, never by a remembered id. Of several the lowest id survives: every replica decides alike
from the same list, and none removes a webhook without having seen one of ours with a lower id beside it.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

NAME: Final = "wellhead"
_OWNER: Final = "Kept by wellhead gitlab. Started last by "


class Alert(enum.Enum):
    """GitLab's ``alert_status``: whether it fires the webhook. One that we do not know counts as executable."""

    EXECUTABLE = "executable"
    TEMPORARILY_DISABLED = "temporarily_disabled"
    DISABLED = "disabled"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What the webhook shall be. Every flag of its scope is said, as GitLab has defaults of its own."""

    url: str
    flags: Mapping[str, bool]
    ssl_verify: bool = True
    branch_filter: str | None = None
    """Which branches pushes are told of, as ``release/*``; "" for all, None where the scope has no such filter."""
    secrets: frozenset[str] = frozenset()
    """Which there are to be: ``token``, ``signing_token``."""
    version: str = ""
    """Of the secrets: another one once another secret is to be shown to us."""
    owner: str = ""
    """Which process of ours: the one that wrote the webhook last may remove it when it ends."""

    def body(self, secrets: Mapping[str, str]) -> dict[str, object]:
        """What is put to GitLab: all of it, secrets included, which it never tells."""
        body: dict[str, object] = {"url": self.url, **self.flags, "enable_ssl_verification": self.ssl_verify, **secrets}
        if self.branch_filter is not None:
            body["push_events_branch_filter"] = self.branch_filter
            body["branch_filter_strategy"] = "wildcard" if self.branch_filter else "all_branches"
            body["custom_webhook_template"] = ""  # it would make another body of what GitLab tells
        return {**body, "name": NAME, "description": f"{_OWNER}{self.owner}"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Webhook:
    """One webhook as GitLab lists it. ``facts`` are all it said."""

    id: int
    url: str
    facts: Mapping[str, object] = field(repr=False, default_factory=dict)

    @property
    def alert(self) -> Alert:
        said = self.facts.get("alert_status")
        return next((alert for alert in Alert if alert.value == said), Alert.EXECUTABLE)

    @property
    def owner(self) -> str | None:
        """Which process of ours wrote it last; None where GitLab, before 17.1, keeps no description."""
        said = self.facts.get("description")
        return said.removeprefix(_OWNER) if isinstance(said, str) and said.startswith(_OWNER) else None


@dataclass(frozen=True, slots=True)
class Create:
    """There is none of ours."""


@dataclass(frozen=True, slots=True)
class Update:
    """It differs from what is wanted in ``fields``, or nobody can say which secret it has ("secret")."""

    id: int
    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Enable:
    """GitLab fires it no more, after failures."""

    id: int
    alert: Alert


@dataclass(frozen=True, slots=True)
class Remove:
    """It is one of ours too many."""

    id: int


Step: TypeAlias = Create | Update | Enable | Remove


def plan(wanted: Wanted, existing: Iterable[Webhook], known: Mapping[int, str]) -> tuple[Step, ...]:
    """What to do, in this order; nothing where all is right.

    ``known`` says of which webhooks this process has put which version of the secrets. Only what GitLab lists is
    compared: a flag it does not list, because its version does not know it, is no difference.
    """
    own = ours(wanted.url, existing)
    if not own:
        return (Create(),)
    kept, surplus = own[0], own[1:]
    steps: list[Step] = []
    fields = differences(wanted, kept)
    if known.get(kept.id) != wanted.version:
        fields = (*fields, "secret")
    if fields:
        steps.append(Update(kept.id, fields))
    if kept.alert is not Alert.EXECUTABLE:
        steps.append(Enable(kept.id, kept.alert))
    return (*steps, *(Remove(webhook.id) for webhook in surplus))


def ours(url: str, existing: Iterable[Webhook]) -> list[Webhook]:
    """Those with our URL, the lowest id first."""
    return sorted((webhook for webhook in existing if is_same_url(webhook.url, url)), key=lambda webhook: webhook.id)


def is_surplus(number: int, own: list[Webhook]) -> bool:
    """Whether it may go: one of ours with a lower id stays. To be asked of a list made just before."""
    return any(webhook.id < number for webhook in own)


def may_remove(webhook: Webhook, owner: str) -> bool:
    """Whether the process ``owner``, which ends, is the last that wrote it: a newer one would need it."""
    return webhook.owner == owner


def unsupported(wanted: Wanted, webhook: Webhook) -> tuple[str, ...]:
    """Flags that are wanted and that this GitLab does not know."""
    return tuple(sorted(flag for flag, on in wanted.flags.items() if on and flag not in webhook.facts))


def differences(wanted: Wanted, webhook: Webhook) -> tuple[str, ...]:
    """The fields in which a webhook is not as wanted."""
    facts = webhook.facts
    fields = [flag for flag, on in wanted.flags.items() if flag in facts and bool(facts[flag]) is not on]
    if "enable_ssl_verification" in facts and facts["enable_ssl_verification"] is not wanted.ssl_verify:
        fields.append("enable_ssl_verification")
    # From GitLab 19 on it says whether there is a secret, and never which.
    fields += [name for name in sorted(wanted.secrets) if facts.get(f"{name}_present") is False]
    if wanted.branch_filter is not None:
        if (facts.get("push_events_branch_filter") or "") != wanted.branch_filter:
            fields.append("push_events_branch_filter")
        if facts.get("custom_webhook_template"):
            fields.append("custom_webhook_template")
    return tuple(fields)


def is_same_url(one: str, other: str) -> bool:
    """Whether both lead to the same place: case of scheme and host, a default port, and an empty path aside."""
    return one == other or _normal(one) == _normal(other)


def _normal(url: str) -> tuple[object, ...]:
    try:
        parts = urlsplit(url.strip())
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return (url,)
    return parts.scheme, parts.username, parts.password, parts.hostname, port, parts.path or "/", parts.query


def webhooks(listed: Collection[object]) -> list[Webhook]:
    """What GitLab listed. Raises ValueError where that is no list of webhooks."""
    found: list[Webhook] = []
    for item in listed:
        if not isinstance(item, Mapping) or type(item.get("id")) is not int or not isinstance(item.get("url"), str):
            raise ValueError("GitLab listed something that is no webhook")
        found.append(Webhook(id=item["id"], url=item["url"], facts=item))
    return found
