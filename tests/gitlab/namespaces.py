"""Users, their tokens and roles; groups and projects, found by id or path as GitLab finds them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from typing import Final

INTEGER_ID: Final = re.compile(r"-?\d+")
"""lib/api/helpers.rb, `INTEGER_ID_REGEX`: what looks like a number is an id, never a path."""


class Role(IntEnum):
    """*Members API*, "Roles": the levels that matter here."""

    NONE = 0
    GUEST = 10
    DEVELOPER = 30
    MAINTAINER = 40
    OWNER = 50


@dataclass(frozen=True, slots=True)
class User:
    id: int
    username: str
    admin: bool = False


@dataclass(slots=True)
class Token:
    """A personal, project or group access token."""

    value: str = field(repr=False)
    user: User
    scopes: tuple[str, ...] = ("api",)
    revoked: bool = False
    expires_at: datetime | None = None


@dataclass(slots=True, eq=False)
class Group:
    id: int
    path: str


@dataclass(slots=True, eq=False)
class Project:
    id: int
    path: str
    """With namespace."""
    former_paths: list[str] = field(default_factory=list)
    """Those that redirect (*Repository redirects when a project is renamed or moved*)."""


Namespace = Group | Project


class Namespaces:
    """Groups and projects of an instance, and who may what in them."""

    def __init__(self) -> None:
        self.groups: dict[int, Group] = {}
        self.projects: dict[int, Project] = {}
        self._roles: dict[tuple[int, int | None, int | None], Role] = {}

    def group(self, id_or_path: str) -> Group | None:
        """lib/api/helpers.rb, `find_group`: a former path finds nothing."""
        if INTEGER_ID.fullmatch(id_or_path):
            return self.groups.get(int(id_or_path))
        return next((group for group in self.groups.values() if same(group.path, id_or_path)), None)

    def project(self, id_or_path: str) -> Project | None:
        """lib/api/helpers.rb, `find_project`: `find_by_full_path(id, follow_redirects: true)`, only where it has a "/"."""
        if INTEGER_ID.fullmatch(id_or_path):
            return self.projects.get(int(id_or_path))
        if "/" not in id_or_path:
            return None
        everyone = self.projects.values()
        current = next((project for project in everyone if same(project.path, id_or_path)), None)
        return current or next(
            (project for project in everyone if any(same(path, id_or_path) for path in project.former_paths)), None
        )

    def ancestors(self, of: Namespace) -> list[Group]:
        """The groups a project or group is in, nearest first; for a group, itself first."""
        path = of.path if isinstance(of, Group) else of.path.rpartition("/")[0]
        found = []
        while path:
            group = next((group for group in self.groups.values() if same(group.path, path)), None)
            if group is not None:
                found.append(group)
            path = path.rpartition("/")[0]
        return found

    def let(self, user: User, role: Role, within: Namespace) -> None:
        self._roles[user.id, *_key(within)] = role

    def role(self, user: User, within: Namespace) -> Role:
        """The highest of one's own and those inherited from the groups above (*Roles and permissions*, "Inherited")."""
        if user.admin:
            return Role.OWNER
        places: list[Namespace] = [within, *self.ancestors(within)]
        return max(self._roles.get((user.id, *_key(place)), Role.NONE) for place in places)

    def rename(self, project: Project, path: str) -> None:
        project.former_paths.append(project.path)
        project.path = path


def same(path: str, other: str) -> bool:
    """app/models/concerns/routable.rb, `find_by_full_path`: paths are found in any case."""
    return path.lower() == other.lower()


def _key(namespace: Namespace) -> tuple[int | None, int | None]:
    return (namespace.id, None) if isinstance(namespace, Group) else (None, namespace.id)
