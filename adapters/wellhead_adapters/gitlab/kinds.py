"""What a webhook can be asked to tell: GitLab's flags, the headers that come of them, and where each exists. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection


class Scope(enum.Enum):
    """Whose webhook it is. The values are the words of logs and metrics."""

    PROJECT = "project"
    GROUP = "group"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class EventKind:
    """One flag of a webhook, and the ``X-Gitlab-Event`` that GitLab sends for it."""

    flag: str
    header: str
    scopes: frozenset[Scope]


_ANY: Final = frozenset(Scope)
_BOTH: Final = frozenset((Scope.PROJECT, Scope.GROUP))
_GROUP: Final = frozenset((Scope.GROUP,))
_SYSTEM: Final = frozenset((Scope.SYSTEM,))

# GitLab's lib/api/{project,group,system}_hooks.rb; the first 14 are those of Knative's CRD.
KINDS: Final = (
    EventKind("confidential_issues_events", "Confidential Issue Hook", _BOTH),
    EventKind("confidential_note_events", "Confidential Note Hook", _BOTH),
    EventKind("deployment_events", "Deployment Hook", _BOTH),
    EventKind("feature_flag_events", "Feature Flag Hook", _BOTH),
    EventKind("issues_events", "Issue Hook", _BOTH),
    EventKind("job_events", "Job Hook", _BOTH),
    EventKind("merge_requests_events", "Merge Request Hook", _ANY),
    EventKind("note_events", "Note Hook", _BOTH),
    EventKind("pipeline_events", "Pipeline Hook", _BOTH),
    EventKind("push_events", "Push Hook", _ANY),
    EventKind("releases_events", "Release Hook", _BOTH),
    EventKind("tag_push_events", "Tag Push Hook", _ANY),
    EventKind("wiki_page_events", "Wiki Page Hook", _BOTH),
    EventKind("resource_access_token_events", "Resource Access Token Hook", _BOTH),
    EventKind("resource_deploy_token_events", "Resource Deploy Token Hook", _BOTH),
    EventKind("emoji_events", "Emoji Hook", _BOTH),
    EventKind("milestone_events", "Milestone Hook", _BOTH),
    EventKind("vulnerability_events", "Vulnerability Hook", _BOTH),
    EventKind("member_events", "Member Hook", _GROUP),
    EventKind("project_events", "Project Hook", _GROUP),
    EventKind("subgroup_events", "Subgroup Hook", _GROUP),
    EventKind("repository_update_events", "System Hook", _SYSTEM),
)
FLAGS: Final = tuple(kind.flag for kind in KINDS)

# What GitLab can be asked to test (doc/api/project_webhooks.md). The first needs nothing in the project; most of the
# others need an issue, a note, … to make a sample of.
_TESTABLE: Final = (
    "resource_access_token_events", "push_events", "tag_push_events", "emoji_events", "note_events", "issues_events",
    "confidential_issues_events", "merge_requests_events", "job_events", "pipeline_events", "wiki_page_events",
    "releases_events",
)  # fmt: skip


def flags_of(scope: Scope, wanted: Collection[str]) -> dict[str, bool]:
    """Every flag that a webhook of this scope has, each said: GitLab's own default of ``push_events`` is true."""
    return {kind.flag: kind.flag in wanted for kind in KINDS if scope in kind.scopes}


def sample_triggers(wanted: Collection[str]) -> tuple[str, ...]:
    """What GitLab may be asked to test without a sample passing for an occurrence: kinds that nobody asked for."""
    return tuple(flag for flag in _TESTABLE if flag not in wanted)


def header_of(flag: str) -> str:
    """``Push Hook`` of ``push_events``."""
    return next(kind.header for kind in KINDS if kind.flag == flag)
