"""What a projectUrl means: which GitLab, and which project or group on it. Pure; it asks nobody.

Where GitLab lives under a path of its own (a relative root, ``https://example.com/gitlab/group/project``), the URL alone
does not tell; `candidates` are tried in order, or a base URL is given.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import quote, unquote, urlsplit

from .kinds import Scope

_SEGMENT: Final = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.+-]*", re.ASCII)
_SSH: Final = re.compile(r"(?:ssh://|[A-Za-z0-9_.-]+@[^/:]+:)")


@dataclass(frozen=True, slots=True)
class Place:
    """``path`` (``group/sub/project``) on the GitLab at ``base``; "" for the whole instance."""

    base: str
    path: str

    @property
    def encoded(self) -> str:
        """The path as GitLab's API takes it in place of an id."""
        return quote(self.path, safe="")


@dataclass(frozen=True, slots=True)
class Target:
    """What one webhook is for. ``url`` is as it was given, and the source of its events."""

    scope: Scope
    url: str
    candidates: tuple[Place, ...]
    """The first is the likeliest."""

    def __str__(self) -> str:
        return f"{self.scope.value} {self.url}"

    def is_same(self, other: Target) -> bool:
        """Whether ``other`` is another spelling of this."""
        return self.scope is other.scope and _folded(self) == _folded(other)

    def is_about(self, path: str) -> bool:
        """Whether what happened in the project ``path`` is told by this webhook."""
        path = path.lower()
        for place in self.candidates:
            own = place.path.lower()
            if own == path or self.scope is Scope.SYSTEM or (self.scope is Scope.GROUP and path.startswith(f"{own}/")):
                return True
        return False


def _folded(one: Target) -> list[tuple[str, str]]:
    return [(place.base.lower(), place.path.lower()) for place in one.candidates]


def target(url: str, scope: Scope, base: str = "") -> Target:
    """What ``url`` names, on the GitLab at ``base`` if that is given. Raises ValueError with the rule it breaks."""
    origin, segments = _parsed(url)
    if scope is Scope.GROUP and segments[:1] == ["groups"]:
        segments = segments[1:]
    if scope is Scope.SYSTEM:
        return Target(scope, url, (Place("/".join((origin, *segments)), ""),))
    least = 2 if scope is Scope.PROJECT else 1
    if base:
        found = [_under(base, origin, segments)]
    else:
        found = [
            Place("/".join((origin, *map(quote, segments[:roots]))), "/".join(segments[roots:]))
            for roots in range(max(1, len(segments) - least + 1))
        ]
    if any(place.path.count("/") + 1 < least for place in found) or not found[0].path:
        raise ValueError(
            f"names no {scope.value}: https://gitlab.example.com/{'group/project' if least == 2 else 'group'}"
        )
    return Target(scope, url, tuple(found))


def base_url(url: str) -> str:
    """The URL of a GitLab, without a slash at its end. Raises ValueError."""
    origin, segments = _parsed(url)
    return "/".join((origin, *map(quote, segments)))


def _parsed(url: str) -> tuple[str, list[str]]:
    """Scheme with host and port, and the segments of the path, unescaped, without ``.git`` and GitLab's own ``/-/…``."""
    if _SSH.match(url):
        raise ValueError("is an address for ssh; give the project's page, https://…")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("is not a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("is not an absolute http or https URL")
    if parts.username is not None or parts.password is not None:
        raise ValueError("holds user info; the access token is a setting of its own")
    if parts.query or parts.fragment:
        raise ValueError("has a query or a fragment, which name no project")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    default = {"http": 80, "https": 443}[parts.scheme]
    origin = f"{parts.scheme}://{host}" + (f":{port}" if port not in (None, default) else "")
    path = unquote(parts.path).partition("/-/")[0].rstrip("/")
    segments = [segment for segment in path.removesuffix(".git").split("/") if segment]
    for segment in segments:
        if not _SEGMENT.fullmatch(segment) or segment in (".", ".."):
            raise ValueError("has a path that GitLab cannot have: letters, digits, _ . + - between slashes")
    return origin, segments


def _under(base: str, origin: str, segments: list[str]) -> Place:
    base_origin, roots = _parsed(base)
    if base_origin != origin or segments[: len(roots)] != roots:
        raise ValueError("is not on the GitLab whose URL is given")
    return Place(base_url(base), "/".join(segments[len(roots) :]))
