"""The API: who asks, what for, and where it is answered. Pure: a call in, a reply out, or a hook event to send first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from tests.gitlab.hook_endpoints import HOOK_ROUTES
from tests.gitlab.other_endpoints import OTHER_ROUTES
from tests.gitlab.pages import relative_root
from tests.gitlab.params import given
from tests.gitlab.replies import Call, Refused, Reply, error, message, shown
from tests.gitlab.routes import Asked, Route, Send
from tests.gitlab.throttles import api_limited

if TYPE_CHECKING:
    from tests.gitlab.instance import GitLab
    from tests.gitlab.namespaces import Token


class Api:
    """Answers calls to one instance."""

    def __init__(self, gitlab: GitLab) -> None:
        self.gitlab = gitlab

    def answer(self, call: Call) -> Reply | Send:
        try:
            return self._answer(call)
        except Refused as refused:
            return refused.reply

    def _answer(self, call: Call) -> Reply | Send:
        prefix = f"{relative_root(self.gitlab.settings)}/api/v4/"
        path = call.target.partition("?")[0]
        if not path.startswith(prefix):
            return Reply(404, NOT_AN_API, (("Content-Type", "text/html; charset=utf-8"),))
        path = path.removeprefix(prefix).rstrip("/")
        found = [(route, args) for route in ROUTES if (args := self._matches(route, path)) is not None]
        if not found:
            return error(404, "404 Not Found")  # lib/api/api.rb, the route for any other path
        for route, args in found:
            if route.method == call.method:
                token = authenticated(self.gitlab, call)
                return route.answer(self.gitlab, Asked(call, token, f"/{path}", args, given(call)))
        return error(405, "405 Not Allowed")

    def _matches(self, route: Route, path: str) -> dict[str, str] | None:
        """Segments are told apart before they are decoded: a project's path is one of them (*REST API*, "Namespaced paths")."""
        wanted, parts = route.path.split("/"), path.split("/")
        if len(wanted) != len(parts) or self.gitlab.settings.version < route.since:
            return None
        args = {}
        for name, value in zip(wanted, parts, strict=True):
            if name.startswith(":"):
                args[name[1:]] = unquote(value)
            elif name != value:
                return None
        return args


ROUTES: Final = (*OTHER_ROUTES, *HOOK_ROUTES)
NOT_AN_API: Final = b"<!DOCTYPE html>\n<html><head><title>Not Found</title></head><body><h1>404</h1></body></html>\n"


def authenticated(gitlab: GitLab, call: Call) -> Token:
    """lib/gitlab/auth/auth_finders.rb and lib/api/api_guard.rb: what a token is good for; then the API's rate limit."""
    value = call.header("PRIVATE-TOKEN") or (call.header("Authorization") or "").removeprefix("Bearer ").strip()
    token = gitlab.tokens.get(value)
    if token is None:
        raise Refused(message(401, "401 Unauthorized"))
    if token.revoked:
        raise Refused(bad_token("Token was revoked. You have to re-authorize from the user."))
    if token.expires_at is not None and token.expires_at <= gitlab.now():
        raise Refused(bad_token("Token is expired. You can either do re-authorization or token refresh."))
    # lib/api/api.rb, allow_access_with_scope: `api`, and to read `read_api`
    if not {"api", "read_api" if call.method == "GET" else "api"} & set(token.scopes):
        description = "The request requires higher privileges than provided by the access token."
        answer = {"error": "insufficient_scope", "error_description": description, "scope": "api"}
        raise Refused(shown(403, answer))
    limit = gitlab.settings.api_calls_per_minute
    if limit and (observed := gitlab.throttles.count(("api", token.user.id), gitlab.now())) > limit:
        raise Refused(api_limited(limit, observed, gitlab.now()))
    return token


def bad_token(description: str) -> Reply:
    header = f'Bearer realm="The API", error="invalid_token", error_description="{description}"'
    answer = {"error": "invalid_token", "error_description": description}
    return shown(401, answer, (("WWW-Authenticate", header),))
