"""The endpoints beside webhooks that a client needs to find its way: version, user, projects, groups."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.gitlab.namespaces import Project, Role
from tests.gitlab.pages import by_keyset, by_offset
from tests.gitlab.replies import Reply, shown
from tests.gitlab.routes import Asked, Route, group_of, project_of

if TYPE_CHECKING:
    from tests.gitlab.instance import GitLab


def _version(gitlab: GitLab, asked: Asked) -> Reply:
    """lib/api/metadata.rb."""
    major, minor = gitlab.settings.version
    return shown(
        200, {"version": f"{major}.{minor}.0", "revision": "0123456789a", "enterprise": gitlab.settings.premium}
    )


def _user(gitlab: GitLab, asked: Asked) -> Reply:
    """lib/api/users.rb. Others' `is_admin` is shown to administrators only, one's own only where it is true."""
    user = asked.token.user
    return shown(
        200, {"id": user.id, "username": user.username, "state": "active"} | ({"is_admin": True} if user.admin else {})
    )


def _project(gitlab: GitLab, asked: Asked) -> Reply:
    return shown(200, shown_project(gitlab, project_of(gitlab, asked)))


def _projects(gitlab: GitLab, asked: Asked) -> Reply:
    """lib/api/projects.rb: by keyset where asked for (`pagination=keyset`)."""
    roles = gitlab.namespaces
    mine = [p for p in roles.projects.values() if roles.role(asked.token.user, p) > Role.NONE]
    return _listed(gitlab, asked, mine)


def _group(gitlab: GitLab, asked: Asked) -> Reply:
    group = group_of(gitlab, asked)
    return shown(200, {"id": group.id, "full_path": group.path, "path": group.path.rpartition("/")[2], "kind": "group"})


def _group_projects(gitlab: GitLab, asked: Asked) -> Reply:
    """lib/api/groups.rb: those of the group itself, and with `include_subgroups` all below."""
    group = group_of(gitlab, asked)
    deep = asked.raw.get("include_subgroups") in ("true", "True", "1")
    within = [
        project
        for project in gitlab.namespaces.projects.values()
        if (above := gitlab.namespaces.ancestors(project)) and (group in above if deep else above[0] is group)
    ]
    return _listed(gitlab, asked, within)


def _listed(gitlab: GitLab, asked: Asked, projects: list[Project]) -> Reply:
    """Newest first, as both lists are by default."""
    items = [shown_project(gitlab, project) for project in sorted(projects, key=lambda p: p.id, reverse=True)]
    if asked.raw.get("pagination") == "keyset":
        return by_keyset(items, asked.raw, asked.path, gitlab.settings)
    return by_offset(items, asked.raw, asked.path, gitlab.settings)


def shown_project(gitlab: GitLab, project: Project) -> dict[str, object]:
    """lib/api/entities/project.rb, in part."""
    namespace, _, path = project.path.rpartition("/")
    url = f"{gitlab.settings.external_url.rstrip('/')}/{project.path}"
    return {
        "id": project.id,
        "name": path,
        "path": path,
        "path_with_namespace": project.path,
        "web_url": url,
        "http_url_to_repo": f"{url}.git",
        "namespace": {"full_path": namespace, "kind": "group"},
    }


OTHER_ROUTES: Final = (
    Route("GET", "version", _version),
    Route("GET", "metadata", _version),
    Route("GET", "user", _user),
    Route("GET", "projects", _projects),
    Route("GET", "projects/:id", _project),
    Route("GET", "groups/:id", _group),
    Route("GET", "groups/:id/projects", _group_projects),
)
