"""Kinds and where they are served: the plural that Knative guesses, the paths of lists and watches. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote, urlencode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_SEGMENT: Final = re.compile(r"[a-z0-9]([-a-z0-9.]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, order=True)
class Gvr:
    """Group, version and resource as somebody named them; the resource may be a wrong guess of the plural."""

    group: str
    version: str
    resource: str

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def __str__(self) -> str:
        return f"{self.resource} of {self.api_version}"


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind as the server serves it."""

    gvr: Gvr
    """With the plural that the server has."""
    kind: str
    namespaced: bool

    def path(self, namespace: str = "") -> str:
        """Where its objects are, in one namespace or in all."""
        within = f"namespaces/{quote(namespace, safe='')}/" if namespace and self.namespaced else ""
        return f"{group_path(self.gvr)}/{within}{self.gvr.resource}"


def guess_plural(kind: str) -> str:
    """The resource that Knative's controller guesses for a kind: right for most, and what stands in ``subject``."""
    word = kind.lower()
    if word.endswith("endpoints"):
        return word
    if word.endswith("s"):
        return f"{word}es"
    if word.endswith("y"):
        return f"{word[:-1]}ies"
    return f"{word}s"


def group_path(gvr: Gvr) -> str:
    """Where the server tells what it serves of a group and version."""
    return f"/apis/{gvr.group}/{gvr.version}" if gvr.group else f"/api/{gvr.version}"


def parse_api_version(text: str) -> tuple[str, str]:
    """Group and version. Raises ValueError with the rule."""
    group, slash, version = text.rpartition("/")
    if "/" in group or (slash and not group) or not all(_SEGMENT.fullmatch(part) for part in (group or "v", version)):
        raise ValueError("is not group/version, as apps/v1 or v1")
    return group, version


def served(gvr: Gvr, resources: Iterable[Mapping[str, object]]) -> Kind | None:
    """The kind meant by ``gvr`` among an ``APIResourceList``'s resources; None where there is none.

    A plural that the server does not have is a guess: meant is the kind whose guess it is.
    """
    whole = [one for one in resources if "/" not in str(one.get("name") or "/")]
    exact = [one for one in whole if one["name"] == gvr.resource]
    guessed = [one for one in whole if guess_plural(str(one.get("kind") or "")) == gvr.resource]
    for one in (*exact, *guessed):
        return Kind(
            Gvr(gvr.group, gvr.version, str(one["name"])), str(one.get("kind") or ""), one.get("namespaced") is True
        )
    return None


def query(path: str, **parameters: str | int | None) -> str:
    """``path`` with the parameters that are given, in the names of the API (``resourceVersion``)."""
    given = {name: str(value) for name, value in parameters.items() if value not in (None, "")}
    return f"{path}?{urlencode(given, quote_via=quote)}" if given else path
