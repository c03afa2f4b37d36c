"""The endpoints of webhooks: those of projects, of groups and of the instance, from one set of functions.

lib/api/project_hooks.rb, ee/lib/api/group_hooks.rb, lib/api/system_hooks.rb, lib/api/hooks/*.rb.
"""

from __future__ import annotations

from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

from tests.gitlab.deliveries import Answered, Failed, Fired, NotSent, Outcome
from tests.gitlab.events_log import STATUSES, recent, resent_body, shown_entry
from tests.gitlab.hooks import EVENTS, Hook, Kind, shown_hook
from tests.gitlab.instance import GitLab, kind_of, trigger_of
from tests.gitlab.namespaces import INTEGER_ID, Group, Project, Role
from tests.gitlab.pages import by_offset
from tests.gitlab.params import hook_attributes
from tests.gitlab.replies import Refused, Reply, error, message, shown
from tests.gitlab.routes import Asked, Route, Send, group_of, project_of
from tests.gitlab.settings import HAS_EVENTS, HAS_RESEND, HAS_TEST, TELLS_RETRY_AFTER
from tests.gitlab.throttles import endpoint_limited

if TYPE_CHECKING:
    from collections.abc import Mapping

MOCK_DATA: Final[Mapping[str, object]] = {
    "event_name": "project_create",
    "name": "Ruby",
    "path": "ruby",
    "project_id": 1,
    "owner_name": "Someone",
    "owner_email": "example@gitlabhq.com",
}
"""lib/api/system_hooks.rb, what a test of a system hook sends."""
NO_DATA: Final[Mapping[str, str]] = {
    # app/services/concerns/integrations/project_test_data.rb
    "issues_events": "Ensure the project has issues.", "confidential_issues_events": "Ensure the project has issues.",
    "note_events": "Ensure the project has notes.", "confidential_note_events": "Ensure the project has notes.",
    "merge_requests_events": "Ensure the project has merge requests.",
    "job_events": "Ensure the project has CI jobs.", "pipeline_events": "Ensure the project has CI pipelines.",
    "wiki_page_events": "Ensure the wiki is enabled and has pages.",
    "deployment_events": "Ensure the project has deployments.", "releases_events": "Ensure the project has releases.",
}  # fmt: skip


def _owner(gitlab: GitLab, asked: Asked) -> Project | Group | None:
    """Whose webhooks are asked for, by somebody who may: maintainers, owners, administrators.

    Grape's order: who may (`before`), then whether the parameters are valid, then whether the webhook is there.
    """
    top = asked.path.split("/")[1]
    if top == "projects":
        project = project_of(gitlab, asked)
        return _allowed(gitlab, asked, project, Role.MAINTAINER)
    if top == "groups":
        if not gitlab.settings.premium:
            raise Refused(error(404, "404 Not Found"))  # ee/lib/api/group_hooks.rb is not there
        group = group_of(gitlab, asked)
        return _allowed(gitlab, asked, group, Role.OWNER)
    if not asked.token.user.admin:
        raise Refused(message(403, "403 Forbidden"))
    return None


def _allowed(gitlab: GitLab, asked: Asked, owner: Project | Group, least: Role) -> Project | Group:
    """*Project webhooks API*, *Group webhooks API*, "Prerequisites"; lib/api/helpers.rb, `authorize!`."""
    if gitlab.namespaces.role(asked.token.user, owner) < least:
        raise Refused(message(403, "403 Forbidden"))
    return owner


def _hook(gitlab: GitLab, asked: Asked) -> Hook:
    """`find_hook`; the id is declared an integer."""
    owner, number = _owner(gitlab, asked), asked.args["hook_id"]
    if not INTEGER_ID.fullmatch(number):
        raise Refused(error(400, "hook_id is invalid"))
    hook = gitlab.hooks.get(int(number))
    if hook is None or hook.owner is not owner:
        raise Refused(message(404, "404 Not found"))  # lib/api/api.rb, rescue_from RecordNotFound
    return hook


def _shown(gitlab: GitLab, hook: Hook, status: int = 200) -> Reply:
    return shown(status, shown_hook(hook, gitlab.now(), gitlab.settings))


def _list(gitlab: GitLab, asked: Asked) -> Reply:
    items = [shown_hook(hook, gitlab.now(), gitlab.settings) for hook in gitlab.hooks_of(_owner(gitlab, asked))]
    return by_offset(items, asked.raw, asked.path, gitlab.settings)


def _get(gitlab: GitLab, asked: Asked) -> Reply:
    return _shown(gitlab, _hook(gitlab, asked))


def _create(gitlab: GitLab, asked: Asked) -> Reply:
    owner = _owner(gitlab, asked)
    given = hook_attributes(asked.raw, kind_of(owner), gitlab.settings, creating=True)
    return _shown(gitlab, gitlab.create_hook(owner, given), 201)


def _update(gitlab: GitLab, asked: Asked) -> Reply:
    owner = _owner(gitlab, asked)
    given = hook_attributes(asked.raw, kind_of(owner), gitlab.settings, creating=False)
    hook = _hook(gitlab, asked)
    if not given:
        raise Refused(error(400, "No parameters provided"))
    return _shown(gitlab, gitlab.update_hook(hook, given))


def _delete(gitlab: GitLab, asked: Asked) -> Reply:
    """lib/api/helpers.rb, `destroy_conditionally!`: 204 without a body. The second time it is not found.

    `check_unmodified_since!`: not where it was written after `If-Unmodified-Since`; a date that is none says nothing.
    """
    hook = _hook(gitlab, asked)
    try:
        since = parsedate_to_datetime(asked.call.header("If-Unmodified-Since") or "")
    except ValueError:
        since = None
    if since is not None and (hook.updated_at or hook.created_at) > since:
        raise Refused(message(412, "412 Precondition Failed"))
    gitlab.delete_hook(hook)
    return Reply(204)


def _events(gitlab: GitLab, asked: Asked) -> Reply:
    """lib/api/hooks/events.rb: at most 20 a page, and more is refused, not cut down."""
    statuses = [status.strip() for status in str(asked.raw.get("status", "")).split(",") if status.strip()]
    _owner(gitlab, asked)
    if not set(statuses) <= STATUSES:
        raise Refused(error(400, "status does not have a valid value"))
    found = recent(gitlab.entries(_hook(gitlab, asked)), gitlab.now(), statuses)
    return by_offset([shown_entry(entry) for entry in found], asked.raw, asked.path, gitlab.settings, most=20)


def _resend(gitlab: GitLab, asked: Asked) -> Reply | Send:
    """lib/api/hooks/resend_hook.rb, app/services/web_hooks/events/resend_service.rb.

    The limit is counted first. A disabled webhook resends nothing (422). Any answer is a success here, a 500 too:
    `response_status` tells it; only where none came it is 422. What is sent is what the log kept, under the same
    `Idempotency-Key` (another where it had none), with the secrets of now.
    """
    hook = _hook(gitlab, asked)
    _limited(gitlab, asked, "web_hook_event_resend", hook, gitlab.settings.resends_per_minute)
    found = [entry for entry in gitlab.entries(hook) if str(entry.id) == asked.args["event_id"]]
    if not found:
        raise Refused(message(404, "404 Not found"))
    entry = found[0]
    if entry.sent_to != hook.interpolated_url:
        raise Refused(message(422, "The hook URL has changed, and this log entry cannot be retried"))
    key = entry.idempotency_key or gitlab.uuid()
    fired = Fired(hook, entry.trigger, entry.request_data, key, resent_body(entry))

    def then(outcome: Outcome | NotSent) -> Reply:
        match outcome:
            case Answered(status=status):
                return shown(201, {"response_status": status})
            case Failed(reason=reason) | NotSent(reason=reason):
                return message(422, reason)

    return Send(fired, then)


def _test(gitlab: GitLab, asked: Asked) -> Reply | Send:
    """lib/api/hooks/trigger_test.rb, app/services/test_hooks/base_service.rb: sent even while the webhook is disabled.

    Its success enables the webhook again (`enable!`); its failure while disabled changes nothing.
    """
    flag, _ = asked.args["trigger"], _owner(gitlab, asked)
    trigger = trigger_of(flag) if flag in EVENTS[Kind.PROJECT] else None  # a group's webhooks have no others here
    if trigger is None:
        raise Refused(error(400, "trigger does not have a valid value"))
    hook = _hook(gitlab, asked)
    _limited(gitlab, asked, "web_hook_test", hook, gitlab.settings.tests_per_minute)
    data = gitlab.samples.get(flag) or _sample(hook, flag)
    if data is None:
        raise Refused(message(422, NO_DATA.get(flag, "Testing not available for this hook")))

    def then(outcome: Outcome | NotSent) -> Reply:
        match outcome:
            case Answered(status=status) if 200 <= status < 300:
                return message(201, "201 Created")
            case Answered(body=body):
                return message(422, body.decode(errors="replace"))
            case Failed(reason=reason) | NotSent(reason=reason):
                return message(422, reason)

    return Send(Fired(hook, trigger, data, gitlab.uuid(), force=True), then)


def _sample(hook: Hook, flag: str) -> Mapping[str, object] | None:
    """lib/gitlab/data_builder/push.rb, `build_sample`: of pushes there is always one, invented if need be."""
    if flag not in ("push_events", "tag_push_events"):
        return None
    kind = flag.removesuffix("_events")
    ref = "refs/heads/main" if kind == "push" else "refs/tags/v1.0.0"
    path = hook.owner.path if hook.owner else ""
    return {
        "object_kind": kind,
        "event_name": kind,
        "ref": ref,
        "project": {"path_with_namespace": path},
        "commits": [],
    }


def _test_system_hook(gitlab: GitLab, asked: Asked) -> Reply | Send:
    """lib/api/hooks/test.rb: the answer is the mock data, whatever came of it."""
    fired = Fired(_hook(gitlab, asked), "system_hooks", MOCK_DATA, gitlab.uuid())
    return Send(fired, lambda _: shown(201, MOCK_DATA))


def _limited(gitlab: GitLab, asked: Asked, limit_name: str, hook: Hook, limit: int) -> None:
    """`check_rate_limit!(…, scope: [hook.parent, current_user])`: all webhooks of a project share it."""
    scope = (limit_name, hook.kind, hook.owner.id if hook.owner else None, asked.token.user.id)
    if gitlab.throttles.exceeded(scope, limit, gitlab.now()):
        raise Refused(endpoint_limited(tells_retry_after=gitlab.settings.version >= TELLS_RETRY_AFTER))


def _of(owners: str) -> tuple[Route, ...]:
    hooks, hook = f"{owners}hooks", f"{owners}hooks/:hook_id"
    return (
        Route("GET", hooks, _list),
        Route("POST", hooks, _create),
        Route("GET", hook, _get),
        Route("PUT", hook, _update),
        Route("DELETE", hook, _delete),
    )


def _more_of(owners: str) -> tuple[Route, ...]:
    """Mounted for projects and groups only; system hooks have no log in the API."""
    hook = f"{owners}hooks/:hook_id"
    return (
        Route("GET", f"{hook}/events", _events, HAS_EVENTS),
        Route("POST", f"{hook}/events/:event_id/resend", _resend, HAS_RESEND),
        Route("POST", f"{hook}/test/:trigger", _test, HAS_TEST),
    )


HOOK_ROUTES: Final = (
    *_of("projects/:id/"),
    *_more_of("projects/:id/"),
    *_of("groups/:id/"),
    *_more_of("groups/:id/"),
    *_of(""),
    Route("POST", "hooks/:hook_id", _test_system_hook),
)
