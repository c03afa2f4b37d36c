"""What an ApiServerSource can be told: Knative's variables, and ours for standalone runs. Pure."""

from __future__ import annotations

import dataclasses
import enum
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wellhead.binding import url_problem
from wellhead.env import boolean, integer, one_of, setting, text
from wellhead.errors import ConfigError, Problem
from wellhead.event import extension_problems
from wellhead.filters import All, parse_filters
from wellhead.kubernetes.change import Operation
from wellhead.kubernetes.selectors import LabelSelector, parse_fields, parse_labels

from .patch import Way, pointer
from .subject import (
    Mode,
    Owner,
    Resource,
    Subject,
    from_spec,
    parse_namespaces,
    parse_owner,
    parse_resources,
    parse_source_config,
)
from .wanted import UpdateData, Wanted, parse_ignored, parse_operations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wellhead.manifest import Document

SPEC_FIELDS: Final = ("resources", "owner", "mode", "serviceAccountName", "namespaceSelector", "filters")
_SUBJECT: Final = "K_SOURCE_CONFIG"
_BESIDE: Final = ("resources", "namespaces", "namespace_selector", "owner", "filters")
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_SOURCE: Final = "{name}"
_OWN_NAMES: Final = ("apiversion", "kind", "name", "namespace")


class Initial(enum.Enum):
    """What is told of the objects that there are at the start."""

    NONE = "none"
    ADD = "add"


class Ordering(enum.Enum):
    """What is told one after another."""

    OBJECT = "object"
    WATCH = "watch"


class Reach(enum.Enum):
    """How watches are cut."""

    AUTO = "auto"
    CLUSTER = "cluster"
    NAMESPACE = "namespace"


def _subject(value: str) -> Subject:
    return parse_source_config(value)


def _labels(value: str) -> LabelSelector:
    return parse_labels(value)


def _fields(value: str) -> str:
    parse_fields(value)
    return value


def _filters(value: str) -> All:
    try:
        return parse_filters(json.loads(value))
    except ConfigError:
        raise
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None


def _server(value: str) -> str:
    problem = url_problem(value)
    if problem:
        raise ValueError(problem)
    return value.rstrip("/")


def _object_name(value: str) -> str:
    if value and (len(value) > 253 or not _NAME.fullmatch(value.replace(_SOURCE, "x"))):
        raise ValueError("is no name of an object: small letters, digits, - and .")
    return value


def _copies(value: str) -> tuple[tuple[str, Way], ...]:
    """``NAME=WAY``, one a line: ``label:KEY``, ``annotation:KEY``, or a JSON Pointer."""
    copies: list[tuple[str, Way]] = []
    for entry in value.split():
        name, _, way = entry.partition("=")
        problems = list(extension_problems(name, ""))
        if problems or name in _OWN_NAMES:
            raise ValueError(f"has {name!r}, {problems[0].what if problems else 'which the event says itself'}")
        kind, colon, key = way.partition(":")
        if colon and kind in ("label", "annotation") and key:
            copies.append((name, ("metadata", f"{kind}s", key)))
        else:
            copies.append((name, pointer(way)))
    return tuple(copies)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiServerConfig:
    """Raises `ConfigError` with every problem: nothing to watch, or what contradicts itself."""

    source_config: Subject | None = setting(
        _subject, "what Knative's controller says to watch; in place of --resource and what belongs to it", env=_SUBJECT,
    )
    resources: tuple[Resource, ...] = setting(
        parse_resources, "a kind to watch: apiVersion:Kind[:labels], as v1:Pod or apps/v1:Deployment:app=web; may be repeated",
        flag="resource", env="RESOURCES", default=(), shown_default="", repeated=True,
    )
    namespaces: tuple[str, ...] = setting(
        parse_namespaces, "where: names, comma-separated; * is everywhere",
        flag="namespaces", env="WATCH_NAMESPACES", default=(), shown_default="--namespace",
    )
    namespace_selector: LabelSelector | None = setting(
        _labels, "where: in namespaces with these labels, as team=a,env in (test,prod), whenever they have them",
        flag="namespace-selector", env="NAMESPACE_SELECTOR",
    )
    data: Mode = setting(
        one_of(Mode), "what an event's data is: where the object is found, or the object itself",
        flag="data", env="APISERVER_MODE", default=Mode.REFERENCE, choices=("Reference", "Resource"),
    )
    owner: Owner | None = setting(
        parse_owner, "only objects with such a controller: apiVersion:Kind, either may be left out",
        flag="owner", env="OWNER",
    )
    filters: All | None = setting(
        _filters, 'only events that pass: [{"exact":{"type":"…"}}, …], as in spec.filters', flag="filters", env="FILTERS",
    )
    field_selector: str = setting(
        _fields, "only objects with such fields: metadata.name=web,status.phase!=Running",
        flag="field-selector", env="FIELD_SELECTOR", default="",
    )
    name_pattern: str = setting(
        text, "only objects of such names: web-*", flag="object-name", env="OBJECT_NAME", default=""
    )
    operations: frozenset[Operation] = setting(
        parse_operations, "which changes: add, update, delete, comma-separated",
        flag="operations", env="OPERATIONS", default=frozenset(Operation), shown_default="add,update,delete",
    )
    initial: Initial = setting(
        one_of(Initial), "what is told of objects that are there at the start",
        flag="initial", env="INITIAL_OBJECTS", default=Initial.NONE, choices=("none", "add"),
    )
    ignored: tuple[Way, ...] = setting(
        parse_ignored, "updates that change only these are none: status, managedFields, leases, /json/pointer, comma-separated",
        flag="ignore-changes", env="IGNORE_CHANGES", default=(), shown_default="",
    )
    drop_managed_fields: bool = setting(
        boolean, "leave metadata.managedFields out of the data",
        flag="drop-managed-fields", env="DROP_MANAGED_FIELDS", default=False, switch=True,
    )
    update_data: UpdateData = setting(
        one_of(UpdateData), "data of updates: the object; {object, old}; or {object, old, patch} (RFC 6902). Holds all in memory",
        flag="update-data", env="UPDATE_DATA", default=UpdateData.OBJECT, choices=("object", "old", "patch"),
    )
    copies: tuple[tuple[str, Way], ...] = setting(
        _copies, "an extension copied from the object: NAME=label:KEY, annotation:KEY or /json/pointer; may be repeated",
        flag="copy", env="COPY", default=(), shown_default="", repeated=True,
    )
    ordering: Ordering = setting(
        one_of(Ordering), "what is sent one after another: changes of an object, or of a watch, as upstream",
        flag="ordering", env="ORDERING", default=Ordering.OBJECT, choices=("object", "watch"),
    )
    in_flight: int = setting(
        integer(1, 1024), "how many events may be on their way at once", flag="in-flight", env="IN_FLIGHT", default=32
    )
    queue: int = setting(
        integer(1, 100_000), "how many more may wait; then watches are not read on", flag="queue", env="QUEUE", default=500
    )
    reach: Reach = setting(
        one_of(Reach), "watches of many namespaces: one per kind, one per namespace; auto: one for more than ten, where allowed",
        flag="watch-scope", env="WATCH_SCOPE", default=Reach.AUTO, choices=("auto", "cluster", "namespace"),
    )
    state_file: Path | None = setting(
        Path, "file that remembers what was delivered, so that a restart misses nothing", flag="state-file", env="APISERVER_STATE_FILE"
    )
    state_config_map: str = setting(
        _object_name, "the same in a ConfigMap of the source's namespace, for programs without a disk; {name} is the source's",
        flag="state-config-map", env="APISERVER_STATE_CONFIG_MAP", default="",
    )
    fail_fast: bool = setting(
        boolean, "end when a permission or a kind is missing, instead of waiting for it",
        flag="fail-fast", env="FAIL_FAST", default=False, switch=True,
    )
    name: str = setting(text, "the source's name, part of the events' ids", flag="name", env="NAME", default="apiserver")
    namespace: str = setting(
        text, "its namespace, likewise; watched where no other is named", flag="namespace", env="NAMESPACE", default="default"
    )
    server: str = setting(
        _server, "the API server's URL, where it asks for no credentials (kubectl proxy)", flag="server", env="KUBERNETES_SERVER", default="", secret=True
    )
    kubeconfig: str = setting(
        text, "the kubeconfig; in a pod, its ServiceAccount unless this is given", flag="kubeconfig", env="KUBECONFIG", default="", shown_default="~/.kube/config",
    )
    context: str = setting(text, "which of its contexts", flag="context", env="KUBE_CONTEXT", default="", shown_default="the current one")
    subject: Subject = field(init=False, repr=False, compare=False)
    """What is watched, whoever said it."""
    passes: All = field(init=False, repr=False, compare=False)
    """The filters, read."""
    wanted: Wanted = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        problems = self._contradictions()
        subject = self.source_config or self._own_subject()
        passes = self.filters or All()
        if self.source_config is not None:
            try:
                passes = parse_filters(self.source_config.filters)
            except ConfigError as error:
                problems += [Problem(f"{_SUBJECT}: {problem.where}", problem.what) for problem in error.problems]
        if problems:
            raise ConfigError(problems)
        object.__setattr__(self, "subject", subject)
        object.__setattr__(self, "passes", passes)
        object.__setattr__(self, "wanted", self._wanted(subject))

    @property
    def state_object(self) -> tuple[str, str] | None:
        """Namespace and name of the ConfigMap in which the state is kept."""
        name = self.state_config_map.replace(_SOURCE, self.name)
        return (self.namespace, name) if name else None

    @property
    def needs_metadata_only(self) -> bool:
        """Whether nothing but the metadata of objects is looked at."""
        return self.wanted.needs_metadata_only and all(way[0] == "metadata" for _, way in self.copies)

    def _own_subject(self) -> Subject:
        everywhere = self.namespaces == ("*",) or self.namespace_selector is not None
        return Subject(
            resources=self.resources,
            namespaces=() if everywhere else self.namespaces or (self.namespace,),
            namespace_selector=self.namespace_selector,
            owner=self.owner,
            mode=self.data,
            fail_fast=self.fail_fast,
        )

    def _wanted(self, subject: Subject) -> Wanted:
        return Wanted(
            operations=self.operations,
            name_pattern=self.name_pattern,
            owner=subject.owner,
            ignored=self.ignored,
            drop_managed_fields=self.drop_managed_fields,
            update_data=self.update_data,
            mode=subject.mode,
        )

    def _contradictions(self) -> list[Problem]:
        problems = []
        if self.source_config is None and not self.resources:
            problems.append(Problem(f"{_SUBJECT} or --resource", "say what to watch, as in --resource v1:Pod"))
        if self.source_config is not None:
            known = {one.name: one.metadata["setting"] for one in dataclasses.fields(self) if "setting" in one.metadata}
            problems += [
                Problem(f"{known[name].flag}, {known[name].env[0]}", f"is set beside {_SUBJECT}, which says that itself")
                for name in _BESIDE
                if getattr(self, name)
            ]
        if self.namespaces and self.namespace_selector is not None:
            problems.append(
                Problem("namespaces, WATCH_NAMESPACES", "is set beside NAMESPACE_SELECTOR; one of them")
            )
        if self.state_file is not None and self.state_config_map:
            problems.append(
                Problem("state-file, APISERVER_STATE_FILE", "is set beside APISERVER_STATE_CONFIG_MAP; one of them")
            )
        return problems


def from_manifest(document: Document, documents: Sequence[Document] = ()) -> ApiServerConfig:  # noqa: ARG001 - it refers to no other
    """The configuration an ApiServerSource document says. Raises `ConfigError` by path."""
    problems: list[Problem] = []
    subject: Subject | None = None
    try:
        subject = from_spec(document)
    except ConfigError as error:
        problems += error.problems
    try:
        parse_filters(document.spec.get("filters"), "spec.filters")
    except ConfigError as error:
        problems += error.problems
    if problems or subject is None:
        raise ConfigError(problems)
    return ApiServerConfig(source_config=subject, name=document.name, namespace=document.namespace)
