"""The instance: who and what is in it, its webhooks, the hook events it fires, their log. Pure; it sends nothing itself.

Tests use it as an administrator would (`add_project`, `rename`, hand edits by `create_hook`, `update_hook`,
`delete_hook`) and as GitLab's own events would (`fire`, `fire_in_group`, `fire_in_instance`). What is fired is sent by
an edge: `begin` when its turn comes, `ended` with the outcome.
"""

from __future__ import annotations

import json
import random
import uuid
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from tests.gitlab.deliveries import REQUEST_BODY_SIZE_LIMIT, Delivery, Failed, Fired, NotSent, Outcome, request
from tests.gitlab.events_log import LogEntry, entry
from tests.gitlab.hooks import TRIGGERS, Hook, Kind, defaults, invalid
from tests.gitlab.namespaces import Group, Namespaces, Project, Role, Token, User
from tests.gitlab.replies import Refused, dumped, error
from tests.gitlab.settings import Settings
from tests.gitlab.throttles import Throttles

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from wellhead.clock import Clock

SYSTEM_TRIGGERS: Final = ("repository_update_hooks", "push_hooks", "tag_push_hooks", "merge_request_hooks")
"""app/models/hooks/system_hook.rb, AVAILABLE_HOOKS: of a project's events these are a system hook's as well."""


@dataclass(frozen=True, slots=True)
class Missed:
    """A hook event that was never attempted."""

    at: datetime
    hook_id: int
    trigger: str
    reason: str


class GitLab:
    def __init__(self, clock: Clock, settings: Settings | None = None, *, seed: int = 0) -> None:
        self.clock = clock
        self.settings = settings or Settings()
        self.namespaces = Namespaces()
        self.throttles = Throttles()
        self.tokens: dict[str, Token] = {}
        self.hooks: dict[int, Hook] = {}
        self.log: list[LogEntry] = []
        self.missed: list[Missed] = []
        """For tests to know; GitLab tells nobody."""
        self.samples: dict[str, Mapping[str, object]] = {}
        """Data for test requests by flag (``issues_events``), beside those that GitLab always has."""
        self._random = random.Random(seed)
        self._ids = {"users": 0, "namespaces": 0, "hooks": 0, "log": 0}

    def now(self) -> datetime:
        return self.clock.now()

    # What an administrator sets up.

    def add_user(self, username: str, *, admin: bool = False) -> User:
        return User(self._next("users"), username, admin)

    def add_token(self, user: User, value: str, scopes: tuple[str, ...] = ("api",)) -> Token:
        self.tokens[value] = Token(value, user, scopes)
        return self.tokens[value]

    def add_group(self, path: str) -> Group:
        """With the groups above it, where they are missing."""
        parent = path.rpartition("/")[0]
        if parent and self.namespaces.group(parent) is None:
            self.add_group(parent)
        group = Group(self._next("namespaces"), path)
        self.namespaces.groups[group.id] = group
        return group

    def add_project(self, path: str, *, maintainer: User | None = None) -> Project:
        """With the groups it is in, where they are missing."""
        parent = path.rpartition("/")[0]
        if self.namespaces.group(parent) is None:
            self.add_group(parent)
        project = Project(self._next("namespaces"), path)
        self.namespaces.projects[project.id] = project
        if maintainer is not None:
            self.namespaces.let(maintainer, Role.MAINTAINER, project)
        return project

    # Webhooks, as the API and people in the web interface change them.

    def hooks_of(self, owner: Project | Group | None) -> list[Hook]:
        """Those of a project or a group, or all system hooks, by id (`add_default_order`)."""
        return [hook for _, hook in sorted(self.hooks.items()) if hook.owner is owner]

    def create_hook(self, owner: Project | Group | None, given: Mapping[str, object]) -> Hook:
        """app/services/web_hooks/create_service.rb. The same URL may be there already. Raises Refused (422)."""
        kind = kind_of(owner)
        hook = Hook(self._ids["hooks"] + 1, kind, owner, self.now(), values=defaults(kind))
        hook.assign(given)
        self._check(hook)
        # app/models/concerns/limitable.rb; *Application limits*, "Number of webhooks"
        limits = {Kind.PROJECT: self.settings.project_hooks, Kind.GROUP: self.settings.group_hooks}
        limit = limits.get(kind, 0)
        if limit and len(self.hooks_of(owner)) >= limit:
            raise Refused(error(422, f"Maximum number of {kind.name.lower()} hooks ({limit}) exceeded"))
        self.hooks[self._next("hooks")] = hook
        return hook

    def update_hook(self, hook: Hook, given: Mapping[str, object]) -> Hook:
        """lib/api/helpers/web_hooks_helpers.rb, `update_hook`: variables and headers are added to those there are.

        It changes nothing about a webhook's being disabled. Raises Refused (422), and then nothing is changed.
        """
        merged = dict(given)
        for name in ("url_variables", "custom_headers"):
            more = given.get(name)
            if isinstance(more, dict):
                merged[name] = getattr(hook, name) | more
        tried = replace(hook, values=dict(hook.values))
        tried.assign(merged)
        self._check(tried)
        hook.assign(merged)
        hook.updated_at = self.now()
        return hook

    def delete_hook(self, hook: Hook) -> None:
        """app/services/web_hooks/destroy_service.rb: its log goes with it."""
        del self.hooks[hook.id]
        self.log = [entry for entry in self.log if entry.hook_id != hook.id]

    def entries(self, hook: Hook) -> list[LogEntry]:
        return [entry for entry in self.log if entry.hook_id == hook.id]

    # What happens in GitLab, and the hook events it makes.

    def fire(self, project: Project, trigger: str, data: Mapping[str, object] | bytes) -> list[Fired]:
        """app/models/project.rb, `execute_hooks`: webhooks of the project and of all groups above, and system hooks.

        ``data`` as bytes is sent byte for byte. Webhooks that are disabled or over their rate limit get nothing, and
        nothing tells it later.
        """
        owners: list[Project | Group] = [project, *self.namespaces.ancestors(project)]
        hooks = [hook for owner in owners for hook in self.hooks_of(owner)]
        if trigger in SYSTEM_TRIGGERS:
            hooks += self.hooks_of(None)
        return self._fire([hook for hook in hooks if hook.wants(trigger, _read(data))], trigger, data)

    def fire_in_group(self, group: Group, trigger: str, data: Mapping[str, object] | bytes) -> list[Fired]:
        """EE's group hooks: members, subgroups and projects of a group, told to it and the groups above."""
        hooks = [hook for owner in self.namespaces.ancestors(group) for hook in self.hooks_of(owner)]
        return self._fire([hook for hook in hooks if hook.wants(trigger, _read(data))], trigger, data)

    def fire_in_instance(self, data: Mapping[str, object] | bytes) -> list[Fired]:
        """app/services/system_hooks_service.rb: events of the instance go to every system hook, whatever its flags."""
        return self._fire(self.hooks_of(None), "system_hooks", data)

    def begin(self, fired: Fired) -> Delivery | NotSent:
        """`WebHookService#execute`, up to the request: a webhook that is gone or disabled by now gets nothing."""
        if fired.hook.id not in self.hooks:
            return NotSent("Hook not found")
        if not fired.force and not self.executable(fired.hook):
            self.missed.append(Missed(self.now(), fired.hook.id, fired.trigger, "Hook disabled"))
            return NotSent("Hook disabled")
        body = dumped(fired.data) if fired.body is None else fired.body
        delivery = request(fired, body, self.now(), self.settings, self.uuid)
        if len(body) > REQUEST_BODY_SIZE_LIMIT:
            # lib/gitlab/json.rb, LimitedEncoder: nothing is sent, but it is logged and counts as a failure
            self.ended(delivery, Failed("Gitlab::Json::LimitedEncoder::LimitExceeded"), took=0)
            return NotSent("Gitlab::Json::LimitedEncoder::LimitExceeded")
        return delivery

    def ended(self, delivery: Delivery, outcome: Outcome, *, took: float) -> None:
        """app/services/web_hooks/log_execution_service.rb: logged first, then counted for or against the webhook."""
        hook, now = delivery.fired.hook, self.now()
        if hook.id not in self.hooks:
            return
        limit = self.settings.log_bytes
        self.log.append(entry(self._next("log"), delivery, outcome, took=took, now=now, limit=limit))
        if hook.auto_disabled(self.settings):
            before = hook.health
            hook.health = before.after_success() if outcome.ok else before.after_failure(now)
            if hook.health != before:
                hook.updated_at = now

    def executable(self, hook: Hook) -> bool:
        return hook.alert_status(self.now(), self.settings) == "executable"

    def uuid(self) -> str:
        return str(uuid.UUID(int=self._random.getrandbits(128), version=4))

    def _fire(self, hooks: list[Hook], trigger: str, data: Mapping[str, object] | bytes) -> list[Fired]:
        """app/models/concerns/web_hooks/hook.rb, `async_execute`: executable first, then the rate limit."""
        body = data if isinstance(data, bytes) else None
        fired = []
        for hook in hooks:
            reason = self._unfit(hook)
            if reason is None:
                fired.append(Fired(hook, trigger, _read(data), self.uuid(), body))
            else:
                self.missed.append(Missed(self.now(), hook.id, trigger, reason))
        return fired

    def _unfit(self, hook: Hook) -> str | None:
        if not self.executable(hook):
            return "Hook disabled"
        return "Webhook rate limit exceeded" if self._rate_limited(hook) else None

    def _rate_limited(self, hook: Hook) -> bool:
        """lib/gitlab/web_hooks/rate_limiter.rb: by root namespace, never for system hooks."""
        if hook.owner is None:
            return False
        root = hook.owner.path.partition("/")[0]
        return self.throttles.exceeded(("web_hook_calls", root), self.settings.hook_calls_per_minute, self.now())

    def _check(self, hook: Hook) -> None:
        problem = invalid(hook, self.settings)
        if problem is not None:
            raise Refused(error(422, problem))

    def _next(self, of: str) -> int:
        self._ids[of] += 1
        return self._ids[of]


def kind_of(owner: Project | Group | None) -> Kind:
    match owner:
        case Project():
            return Kind.PROJECT
        case Group():
            return Kind.GROUP
        case None:
            return Kind.SYSTEM


def _read(data: Mapping[str, object] | bytes) -> Mapping[str, object]:
    if not isinstance(data, bytes):
        return data
    read = json.loads(data)
    if not isinstance(read, dict):
        raise ValueError("a hook event is a JSON object")
    return read


def trigger_of(flag: str) -> str | None:
    """The trigger that a flag asks for."""
    return next((trigger for trigger, name in TRIGGERS.items() if name == flag), None)
