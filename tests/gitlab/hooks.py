"""A webhook: its attributes by kind with GitLab's defaults, what makes it invalid, and what the API shows of it."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from tests.gitlab.disabling import AlertStatus, Health
from tests.gitlab.namespaces import Group, Project

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from tests.gitlab.settings import Settings


class Kind(Enum):
    PROJECT = "ProjectHook"
    GROUP = "GroupHook"
    SYSTEM = "SystemHook"


_BOTH: Final = (
    "push_events", "tag_push_events", "merge_requests_events", "issues_events", "confidential_issues_events",
    "note_events", "confidential_note_events", "job_events", "pipeline_events", "wiki_page_events", "deployment_events",
    "feature_flag_events", "releases_events", "milestone_events", "emoji_events", "resource_access_token_events",
    "vulnerability_events",
)  # fmt: skip
EVENTS: Final[Mapping[Kind, tuple[str, ...]]] = {
    # lib/api/entities/project_hook.rb, lib/api/project_hooks.rb
    Kind.PROJECT: (*_BOTH, "resource_deploy_token_events"),
    # ee/lib/api/group_hooks.rb, params :group_hook_properties
    Kind.GROUP: (*_BOTH, "subgroup_events", "member_events", "project_events"),
    # lib/api/system_hooks.rb, params :hook_parameters
    Kind.SYSTEM: ("push_events", "tag_push_events", "merge_requests_events", "repository_update_events"),
}
"""The flags that a client can set."""

TRIGGERS: Final[Mapping[str, str]] = {
    # app/models/concerns/triggerable_hooks.rb, AVAILABLE_TRIGGERS
    "repository_update_hooks": "repository_update_events", "push_hooks": "push_events", "tag_push_hooks": "tag_push_events",
    "issue_hooks": "issues_events", "confidential_note_hooks": "confidential_note_events",
    "confidential_issue_hooks": "confidential_issues_events", "note_hooks": "note_events",
    "merge_request_hooks": "merge_requests_events", "job_hooks": "job_events", "pipeline_hooks": "pipeline_events",
    "wiki_page_hooks": "wiki_page_events", "deployment_hooks": "deployment_events",
    "feature_flag_hooks": "feature_flag_events", "release_hooks": "releases_events", "member_hooks": "member_events",
    "subgroup_hooks": "subgroup_events", "project_hooks": "project_events", "emoji_hooks": "emoji_events",
    "milestone_hooks": "milestone_events", "resource_access_token_hooks": "resource_access_token_events",
    "resource_deploy_token_hooks": "resource_deploy_token_events", "vulnerability_hooks": "vulnerability_events",
}  # fmt: skip
"""What happens, as GitLab names it inside and in the log, and the flag that asks for it."""

AUTO_DISABLED: Final = (Kind.PROJECT, Kind.GROUP)
"""app/models/concerns/web_hooks/auto_disabling.rb, ENABLED_HOOK_TYPES, and EE's addition; never system hooks."""

TEXTS: Final = (
    "url", "name", "description", "token", "push_events_branch_filter", "branch_filter_strategy",
    "custom_webhook_template",
)  # fmt: skip
STRATEGIES: Final = ("wildcard", "regex", "all_branches")
_VARIABLE: Final = re.compile(r"\{([A-Za-z]+[0-9]*(?:[._-][A-Za-z0-9]+)*)\}")
_BRANCH: Final = re.compile(r"[^\s~^:?\[\\]+(?<![/.])")


def defaults(kind: Kind) -> dict[str, object]:
    """db/structure.sql, web_hooks; app/models/hooks/system_hook.rb: `push_events` is true unless it is a system hook's.

    `confidential_note_events` has no default: null, until it is given.
    """
    values: dict[str, object] = dict.fromkeys(EVENTS[kind], False)
    values["repository_update_events"] = kind is Kind.SYSTEM
    values["push_events"] = kind is not Kind.SYSTEM
    if kind is not Kind.SYSTEM:
        values["confidential_note_events"] = None
    values |= dict.fromkeys(("name", "description", "push_events_branch_filter", "custom_webhook_template"))
    return values | {"enable_ssl_verification": True, "branch_filter_strategy": "wildcard"}


@dataclass(slots=True, eq=False)
class Hook:
    """A webhook as the instance holds it. Changed only by `assign` and by how its deliveries end."""

    id: int
    kind: Kind
    owner: Project | Group | None
    created_at: datetime
    url: str = ""
    values: dict[str, object] = field(default_factory=dict)
    token: str | None = field(default=None, repr=False)
    signing_token: str | None = field(default=None, repr=False)
    url_variables: dict[str, str] = field(default_factory=dict, repr=False)
    custom_headers: dict[str, str] = field(default_factory=dict, repr=False)
    health: Health = Health()
    updated_at: datetime | None = None
    """When it was last written, by a call or for its health; None: when it was created."""

    def assign(self, given: Mapping[str, object]) -> None:
        """Take over what a call gives. A new URL forgets the secrets that are not given with it.

        app/models/concerns/web_hooks/hook.rb, `reset_token`, `reset_custom_headers`; *Project webhooks API*, `token`:
        "When you change the webhook URL, the secret token is reset and not retained." That the signing token is
        treated likewise could not be looked up; it is the harder case for a client.
        """
        before = self.interpolated_url
        moved = "url" in given and given["url"] != self.url
        if moved:
            self.token = self.signing_token = None
        for name, value in given.items():
            match name:
                case "url" | "token" | "signing_token" | "url_variables" | "custom_headers":
                    setattr(self, name, value)
                case _:
                    self.values[name] = value
        if self.values["branch_filter_strategy"] == "all_branches":  # `set_branch_filter_nil`
            self.values["push_events_branch_filter"] = None
        if before and self.interpolated_url != before:
            self.custom_headers = {}

    @property
    def interpolated_url(self) -> str:
        """`interpolated_url`; a variable that is missing leaves the URL as it is."""
        try:
            return _VARIABLE.sub(lambda match: self.url_variables[match[1]], self.url)
        except KeyError:
            return self.url

    def auto_disabled(self, settings: Settings) -> bool:
        """`auto_disabling_enabled?`: whether failures can disable it at all."""
        return settings.auto_disabling and self.kind in AUTO_DISABLED

    def alert_status(self, now: datetime, settings: Settings) -> AlertStatus:
        return self.health.alert_status(now) if self.auto_disabled(settings) else "executable"

    def wants(self, trigger: str, data: Mapping[str, object]) -> bool:
        """app/models/hooks/active_hook_filter.rb: branch filters are for pushes only."""
        if self.values.get(TRIGGERS[trigger]) is not True:
            return False
        if trigger != "push_hooks":
            return True
        return branch_matches(self.values, str(data.get("ref", "")).removeprefix("refs/heads/"))


def branch_matches(values: Mapping[str, object], branch: str) -> bool:
    """*Webhooks*, "Filter push events by branch"; app/models/protected_branch…/RefMatcher: `*` stands for anything."""
    wanted = values["push_events_branch_filter"]
    if not isinstance(wanted, str) or not wanted:
        return True
    if values["branch_filter_strategy"] == "regex":
        return re.search(wanted, branch) is not None
    return re.fullmatch(".*".join(map(re.escape, wanted.split("*"))), branch) is not None


def invalid(hook: Hook, settings: Settings) -> str | None:
    """Why it cannot be saved, in the words of the API (app/services/web_hooks/create_service.rb), or None."""
    wanted = hook.values["push_events_branch_filter"]
    template = hook.values["custom_webhook_template"]
    if _missing_variables(hook) or not _valid_url(hook, settings):
        return "Invalid url given"
    if isinstance(wanted, str) and wanted and not _valid_filter(wanted, str(hook.values["branch_filter_strategy"])):
        return "Invalid branch filter given"
    if any(not key or not value for key, value in hook.custom_headers.items()):
        return "Custom headers must be a valid json schema"
    if hook.token is not None and "\n" in hook.token:
        return "Token is invalid"
    if hook.signing_token is not None and not _valid_signing_token(hook.signing_token):
        return "Signing token is invalid"
    if isinstance(template, str) and len(template) > 4096:
        return "Custom webhook template is too long (maximum is 4096 characters)"
    return None


def shown_hook(hook: Hook, now: datetime, settings: Settings) -> dict[str, object]:
    """lib/api/entities/hook.rb, project_hook.rb; EE's GroupHook. Never a secret; since 19.0 whether there is one."""
    flags = {name: hook.values[name] for name in EVENTS[hook.kind]}
    until = hook.health.disabled_until
    entity: dict[str, object] = {
        "id": hook.id,
        "url": hook.url,
        "name": hook.values["name"],
        "description": hook.values["description"],
        "created_at": timestamp(hook.created_at),
        **flags,
        "repository_update_events": hook.values["repository_update_events"],
        "enable_ssl_verification": hook.values["enable_ssl_verification"],
        "alert_status": hook.alert_status(now, settings),
        "disabled_until": timestamp(until) if until else None,
        "url_variables": [{"key": key} for key in hook.url_variables],
        "push_events_branch_filter": hook.values["push_events_branch_filter"],
        "branch_filter_strategy": hook.values["branch_filter_strategy"],
        "custom_webhook_template": hook.values["custom_webhook_template"],
        "custom_headers": [{"key": key} for key in hook.custom_headers],
    }
    if settings.signs:
        entity |= {"token_present": bool(hook.token), "signing_token_present": bool(hook.signing_token)}
    match hook.owner:
        case Project(id=owner):
            entity["project_id"] = owner
        case Group(id=owner):
            entity["group_id"] = owner
        case None:
            entity["organization_id"] = 1
    return entity


def timestamp(at: datetime) -> str:
    """config/initializers: JSON times in UTC with milliseconds."""
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


def _missing_variables(hook: Hook) -> bool:
    return any(name not in hook.url_variables for name in _VARIABLE.findall(hook.url))


def _valid_url(hook: Hook, settings: Settings) -> bool:
    """app/validators/public_url_validator.rb: http or https, a host, and not the local network unless that is allowed."""
    try:
        parts = urlsplit(hook.interpolated_url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not host or re.search(r"\s", hook.interpolated_url):
        return False
    return settings.allow_local_requests or not _local(host)


def _local(host: str) -> bool:
    """*Filtering outbound requests*, "Allow requests to the local network from webhooks and integrations"."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
    return address.is_loopback or address.is_private or address.is_link_local


def _valid_filter(wanted: str, strategy: str) -> bool:
    if strategy == "regex":
        try:
            re.compile(wanted)
        except re.error:
            return False
        return True
    return _BRANCH.fullmatch(wanted.replace("*", "x")) is not None


def _valid_signing_token(token: str) -> bool:
    """*Project webhooks API*, `signing_token`: `whsec_<base64>`, encoding a 32-byte key."""
    try:
        return token.startswith("whsec_") and len(base64.b64decode(token.removeprefix("whsec_"), validate=True)) == 32
    except binascii.Error:
        return False
