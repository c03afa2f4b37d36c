"""What an ApiServerSource watches, as Knative's controller, a manifest or a person says it. Pure."""

from __future__ import annotations

import enum
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wellhead.errors import ConfigError, Problem
from wellhead.kubernetes.kinds import Gvr, guess_plural, parse_api_version
from wellhead.kubernetes.selectors import LabelSelector, label_selector, parse_labels
from wellhead.manifest import Collected, unknown_fields

if TYPE_CHECKING:
    from wellhead.manifest import Document

SKIP_PERMISSIONS_CHECK: Final = "features.knative.dev/apiserversource-skip-permissions-check"
_NAMESPACE: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


class Mode(enum.Enum):
    """What an event's data is."""

    REFERENCE = "Reference"
    RESOURCE = "Resource"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind to watch, of it what the selector means."""

    gvr: Gvr
    selector: str = ""


@dataclass(frozen=True, slots=True)
class Owner:
    """The controller that objects must have; an empty part is any."""

    api_version: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What is watched, and what is said of it."""

    resources: tuple[Resource, ...]
    namespaces: tuple[str, ...] = ()
    """Empty: all."""
    namespace_selector: LabelSelector | None = None
    """Which of them, by their labels; followed as they change."""
    owner: Owner | None = None
    mode: Mode = Mode.REFERENCE
    filters: object = None
    """The ``filters`` list, not read yet."""
    fail_fast: bool = False


def parse_source_config(text: str) -> Subject:
    """``K_SOURCE_CONFIG``, as Knative's controller writes it. Keys in any case, unknown ones ignored, as Go reads it.

    Raises `ConfigError` with every problem by path.
    """
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(config, dict):
        raise ValueError('is not a JSON object such as {"namespaces":["ns"],"resources":[…]}')
    problems: list[Problem] = []
    config = _lower(config)
    resources = []
    given = config.get("resources")
    for number, one in enumerate(given if isinstance(given, list) else ()):
        with Collected(problems):
            resources.append(_configured(one, f"resources[{number}]"))
    if not given or not isinstance(given, list):
        problems.append(Problem("resources", "names no resource to watch"))
    namespaces: tuple[str, ...] = ()
    with Collected(problems):
        namespaces = _namespaces(config.get("namespaces"), everywhere=config.get("allnamespaces") is True)
    owner = None
    with Collected(problems):
        owner = _owner(config.get("owner"), "owner")
    if problems:
        raise ConfigError(problems)
    return Subject(
        resources=tuple(resources),
        namespaces=namespaces,
        owner=owner,
        mode=Mode.REFERENCE if config.get("mode") == Mode.REFERENCE.value else Mode.RESOURCE,  # as upstream
        filters=config.get("filters"),
        fail_fast=config.get("failfast") is True,
    )


def from_spec(document: Document) -> Subject:
    """What an ApiServerSource document says. Raises `ConfigError` with every problem by path."""
    spec = document.spec
    problems: list[Problem] = []
    resources = []
    given = spec.get("resources")
    for number, one in enumerate(given if isinstance(given, list) else ()):
        with Collected(problems):
            resources.append(_specified(one, f"spec.resources[{number}]"))
    if not given or not isinstance(given, list):
        problems.append(Problem("spec.resources", "missing field"))
    owner = selector = None
    with Collected(problems):
        owner = _owner(spec.get("owner"), "spec.owner", both=True)
    if spec.get("namespaceSelector") is not None:
        with Collected(problems):
            selector = label_selector(spec["namespaceSelector"], "spec.namespaceSelector")
    mode = spec.get("mode") or Mode.REFERENCE.value
    if mode not in (Mode.REFERENCE.value, Mode.RESOURCE.value):
        problems.append(Problem("spec.mode", f"{mode!r} is not Reference or Resource"))
    if problems:
        raise ConfigError(problems)
    metadata = document.body.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    return Subject(
        resources=tuple(resources),
        namespaces=(document.namespace,) if selector is None else (),
        namespace_selector=selector if selector is not None and selector.requirements else None,
        owner=owner,
        mode=Mode(mode),
        filters=spec.get("filters"),
        fail_fast=isinstance(annotations, Mapping) and annotations.get(SKIP_PERMISSIONS_CHECK) == "true",
    )


def parse_resources(text: str) -> tuple[Resource, ...]:
    """``apiVersion:Kind[:labelSelector]``, one a line. Raises ValueError with the rule."""
    found = []
    for line in filter(None, map(str.strip, text.splitlines())):
        api_version, _, rest = line.partition(":")
        kind, _, selector = rest.partition(":")
        if not kind:
            raise ValueError(
                "is not apiVersion:Kind or apiVersion:Kind:labels, as v1:Pod or apps/v1:Deployment:app=web"
            )
        found.append(_resource(api_version, kind, parse_labels(selector)))
    return tuple(found)


def parse_namespaces(text: str) -> tuple[str, ...]:
    """Names, comma-separated; ``*`` is all of them. Raises ValueError with the rule."""
    names = tuple(filter(None, (name.strip() for name in text.split(","))))
    if "*" in names:
        if len(names) > 1:
            raise ValueError("names namespaces beside *, which is all of them")
        return ("*",)
    for name in names:
        if not _NAMESPACE.fullmatch(name):
            raise ValueError(f"has {name!r}, which is no namespace's name")
    return names


def parse_owner(text: str) -> Owner:
    """``apiVersion:Kind``; one of them may be left out. Raises ValueError with the rule."""
    api_version, colon, kind = text.partition(":")
    if not colon or not (api_version or kind):
        raise ValueError("is not apiVersion:Kind, as apps/v1:ReplicaSet or :ReplicaSet")
    if api_version:
        parse_api_version(api_version)
    return Owner(api_version, kind)


def _resource(api_version: str, kind: str, selector: LabelSelector) -> Resource:
    try:
        group, version = parse_api_version(api_version)
    except ValueError as error:
        raise ValueError(f"has the apiVersion {api_version!r}, which {error}") from None
    return Resource(Gvr(group, version, guess_plural(kind)), str(selector))


def _configured(value: object, path: str) -> Resource:
    one = _lower(value) if isinstance(value, Mapping) else {}
    given = one.get("gvr")
    gvr = _lower(given) if isinstance(given, Mapping) else {}
    problems = [
        Problem(f"{path}.gvr.{name.title()}", "is missing")
        for name in ("version", "resource")
        if not isinstance(gvr.get(name), str) or not gvr[name]
    ]
    selector = one.get("selector") or ""
    try:
        parse_labels(str(selector))
    except ValueError as error:
        problems.append(Problem(f"{path}.selector", f"{str(selector)[:80]!r} {error}"))
    if problems:
        raise ConfigError(problems)
    return Resource(Gvr(str(gvr.get("group") or ""), str(gvr["version"]), str(gvr["resource"])), str(selector))


def _specified(value: object, path: str) -> Resource:
    if not isinstance(value, Mapping):
        raise ConfigError([Problem(path, "is not an object")])
    problems = list(unknown_fields(value, ("apiVersion", "kind", "selector"), path))
    problems += [
        Problem(f"{path}.{name}", "missing field")
        for name in ("apiVersion", "kind")
        if not isinstance(value.get(name), str) or not str(value[name]).strip()
    ]
    selector = LabelSelector()
    if value.get("selector") is not None:
        with Collected(problems):
            selector = label_selector(value["selector"], f"{path}.selector")
    if not problems:
        try:
            return _resource(str(value["apiVersion"]), str(value["kind"]), selector)
        except ValueError as error:
            problems.append(Problem(f"{path}.apiVersion", str(error)))
    raise ConfigError(problems)


def _namespaces(value: object, *, everywhere: bool) -> tuple[str, ...]:
    names = value if isinstance(value, list) else []
    if everywhere or "" in names:  # "" is metav1.NamespaceAll
        return ()
    wrong = [name for name in names if not isinstance(name, str) or not _NAMESPACE.fullmatch(name)]
    if wrong:
        raise ConfigError([Problem("namespaces", f"{name!r} is no namespace's name") for name in wrong])
    if not names:
        raise ConfigError([Problem("namespaces", "names none, and allNamespaces is not true")])
    return tuple(dict.fromkeys(names))


def _owner(value: object, path: str, *, both: bool = False) -> Owner | None:
    if value is None:
        return None
    if not isinstance(value, Mapping):
        raise ConfigError([Problem(path, "is not an object")])
    given = _lower(value)
    api_version, kind = str(given.get("apiversion") or ""), str(given.get("kind") or "")
    problems = [
        Problem(f"{path}.{name}", "missing field")
        for name, said in (("apiVersion", api_version), ("kind", kind))
        if both and not said
    ]
    if api_version:
        try:
            parse_api_version(api_version)
        except ValueError as error:
            problems.append(Problem(f"{path}.apiVersion", f"{api_version!r} {error}"))
    if problems:
        raise ConfigError(problems)
    return Owner(api_version, kind)


def _lower(value: Mapping[str, object]) -> dict[str, object]:
    """Keys as Go reads them: in any case; the exact one wins."""
    return {str(name).lower(): value[name] for name in sorted(value, key=lambda name: str(name) == str(name).lower())}
