"""A call that was understood, the ways to answer it, and the project or group it is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.gitlab.namespaces import Group, Project, Role, Token
from tests.gitlab.pages import relative_root
from tests.gitlab.replies import Call, Refused, Reply, message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.gitlab.deliveries import Fired, NotSent, Outcome
    from tests.gitlab.instance import GitLab
    from tests.gitlab.params import Given
    from tests.gitlab.settings import Version


@dataclass(frozen=True, slots=True)
class Asked:
    """A call that was understood: by whom, with which parameters, for which path below `/api/v4`."""

    call: Call
    token: Token
    path: str
    args: dict[str, str]
    raw: Given


@dataclass(frozen=True, slots=True)
class Send:
    """The call is answered once this hook event was sent, with what came of it: test requests and resending."""

    fired: Fired
    then: Callable[[Outcome | NotSent], Reply]


@dataclass(frozen=True, slots=True)
class Route:
    method: str
    path: str
    answer: Callable[[GitLab, Asked], Reply | Send]
    since: Version = (0, 0)


def project_of(gitlab: GitLab, asked: Asked) -> Project:
    """lib/api/helpers.rb, `find_project!`: what one may not see is not there; what moved is redirected to, to read only.

    *Project* paths are found in any case, but only the exact one is not taken for a former one (`project_moved?`).
    """
    id_or_path = asked.args["id"]
    project = gitlab.namespaces.project(id_or_path)
    if project is None or gitlab.namespaces.role(asked.token.user, project) == Role.NONE:
        raise Refused(message(404, "404 Project Not Found"))
    if "/" in id_or_path and id_or_path != project.path:
        if asked.call.method != "GET":
            raise Refused(message(405, "Non GET methods are not allowed for moved projects"))
        raise Refused(moved(gitlab, asked, project))
    return project


def moved(gitlab: GitLab, asked: Asked, project: Project) -> Reply:
    """`url_with_project_id`: the same request, by id."""
    below = asked.path.removeprefix("/projects/").partition("/")[2]
    query = asked.call.target.partition("?")[2]
    target = f"{relative_root(gitlab.settings)}/api/v4/projects/{project.id}"
    target += (f"/{below}" if below else "") + (f"?{query}" if query else "")
    return Reply(302, b"", (("Location", target), ("Content-Type", "text/plain")))


def group_of(gitlab: GitLab, asked: Asked) -> Group:
    """lib/api/helpers.rb, `find_group!`."""
    group = gitlab.namespaces.group(asked.args["id"])
    if group is None or gitlab.namespaces.role(asked.token.user, group) == Role.NONE:
        raise Refused(message(404, "404 Group Not Found"))
    return group
