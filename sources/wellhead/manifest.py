"""Knative YAML as values: documents, what they say of sinks, and every error by path. Pure; it reads no file.

What a kind's ``spec`` means is its adapter's to say (`wellhead.adapter.ManifestKind`); what all sources share (``sink``,
``ceOverrides``, ``delivery``) is read here.
"""

from __future__ import annotations

import base64
import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from .binding import Destination, Ref, checked_overrides, url_problem
from .delivery import Policy, policy_from_spec
from .errors import ConfigError, Problem

MAX_BYTES: Final = 4 << 20
STAND_IN: Final = "read-from-the-cluster"


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One Kubernetes object of a file. ``origin`` tells a person where it stands."""

    origin: str
    apiVersion: str  # noqa: N815 - Kubernetes' own spelling
    kind: str
    name: str
    namespace: str
    body: Mapping[str, object] = field(repr=False)  # it may hold a Secret

    @property
    def spec(self) -> Mapping[str, object]:
        """Its ``spec``; empty where there is none."""
        spec = self.body.get("spec")
        return spec if isinstance(spec, Mapping) else {}

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}"


def secret(documents: Iterable[Document], namespace: str, name: str, key: str) -> str | None:
    """What the Secret of this name, among the documents, holds under ``key``; None where there is none."""
    found = find_secret(documents, namespace, name)
    return None if found is None else stored(found, key)


def find_secret(documents: Iterable[Document], namespace: str, name: str) -> Document | None:
    """The Secret of this name, among the documents."""
    wanted = ("Secret", namespace, name)
    return next((one for one in documents if (one.kind, one.namespace, one.name) == wanted), None)


def stored(document: Document, key: str) -> str | None:
    """What a Secret or a ConfigMap holds under ``key``; None where that is nothing, or is no text."""
    encodes = document.kind == "Secret"
    plain = _mapping(document.body.get("stringData" if encodes else "data")).get(key)
    if plain is not None or not encodes:
        return None if plain is None else str(plain)
    encoded = _mapping(document.body.get("data")).get(key)
    try:
        return None if encoded is None else base64.b64decode(str(encoded), validate=True).decode()
    except ValueError:
        return None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSpec:
    """What all sources say in their ``spec``: where events go, and how."""

    sink: Destination | None
    overrides: Mapping[str, str]
    policy: Policy | None
    dead_letter: Destination | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretKey:
    """A key of a Secret that a document refers to."""

    path: str
    """Where the document does so: ``spec.accessToken.secretKeyRef``."""
    namespace: str
    name: str
    key: str
    instead: str = ""
    """The variable that would do in its place, for a person: ``GITLAB_ACCESS_TOKEN``; "" where none would."""
    optional: bool = False
    """Whether it may be missing."""
    stand_in: str = STAND_IN
    """What has the form of a value and no worth: for who only looks whether the rest is right."""


def documents(text: str, origin: str) -> tuple[list[Document], list[Problem]]:
    """The objects of a YAML file, ``List``s opened, and what is wrong with those that are none.

    Raises `ConfigError` where the file as a whole is no YAML, is empty, or too big.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError([Problem(origin, f"has {len(text)} characters; a manifest has at most {MAX_BYTES}")])
    from .yaml_text import parse  # noqa: PLC0415 - PyYAML; who reads no file has no need of it

    problems: list[Problem] = []
    found: list[Document] = []
    for number, parsed in enumerate(parse(text, origin), 1):
        for item in _items(parsed):
            with Collected(problems):
                found.append(_document(item, f"{origin}, document {number}"))
    if not found and not problems:
        raise ConfigError([Problem(origin, "holds no document")])
    return found, problems


def source_spec(document: Document, *, own: Iterable[str], base: Policy = Policy()) -> SourceSpec:  # noqa: B008 - frozen
    """What the document says of sink, overrides and delivery. ``own`` are the fields of its kind beside
    those, ``base`` the policy for what a ``delivery`` leaves unsaid.

    Raises `ConfigError` with every problem by path: a field nobody knows is named, with the nearest right one.
    """
    problems = list(unknown_fields(document.spec, (*own, "sink", "ceOverrides", "delivery"), "spec"))
    sink = overrides = policy = dead_letter = None
    with Collected(problems):
        sink = destination(document.spec.get("sink"), "spec.sink", document.namespace)
    with Collected(problems):
        overrides = _overrides(document.spec.get("ceOverrides"))
    delivery = document.spec.get("delivery")
    if delivery is not None and not isinstance(delivery, Mapping):
        problems.append(Problem("spec.delivery", "is not an object"))
    elif delivery is not None:
        with Collected(problems, prefix="spec."):
            policy = policy_from_spec(delivery, base)
        with Collected(problems):
            if delivery.get("deadLetterSink") is not None:
                dead_letter = destination(
                    delivery["deadLetterSink"], "spec.delivery.deadLetterSink", document.namespace
                )
    if problems:
        raise ConfigError(problems)
    return SourceSpec(sink=sink, overrides=overrides or {}, policy=policy, dead_letter=dead_letter)


def destination(value: object, path: str, namespace: str) -> Destination:
    """A Knative Destination. A ``ref`` without a namespace is in the source's own."""
    if not isinstance(value, Mapping) or not (value.get("ref") or value.get("uri")):
        raise ConfigError([Problem(path, f"expected at least one, got none: {path}.ref, {path}.uri")])
    problems = list(unknown_fields(value, ("ref", "uri", "CACerts", "audience"), path))
    ref = value.get("ref")
    uri = value.get("uri") or ""
    if ref is not None and not isinstance(ref, Mapping):
        problems.append(Problem(f"{path}.ref", "is not an object"))
    elif ref is not None:
        problems += unknown_fields(ref, ("apiVersion", "kind", "name", "namespace", "address", "group"), f"{path}.ref")
        missing = [
            f"{path}.ref.{name}" for name in ("kind", "name", "apiVersion") if not isinstance(ref.get(name), str)
        ]
        problems += [Problem(field_path, "missing field") for field_path in missing]
    elif not isinstance(uri, str) or url_problem(uri):
        problems.append(Problem(f"{path}.uri", f"{uri!r} {url_problem(str(uri)) or 'is not a string'}"))
    if problems:
        raise ConfigError(problems)
    try:
        return Destination(
            uri=str(uri),
            ref=_ref(ref, namespace) if isinstance(ref, Mapping) else None,
            ca_certs=str(value.get("CACerts") or ""),
            audience=str(value.get("audience") or ""),
        )
    except ConfigError as error:
        raise ConfigError([Problem(f"{path}.uri", problem.what) for problem in error.problems]) from None


def unknown_fields(value: Mapping[str, object], known: Iterable[str], path: str) -> Iterator[Problem]:
    """A problem for each member of ``value`` that is not ``known``, with the nearest that is."""
    known = tuple(known)
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(str(name), known, n=1)
            hint = f"; did you mean {close[0]}?" if close else f"; known are {', '.join(known)}"
            yield Problem(f"{path}.{name}", f"unknown field{hint}")


class Collected:
    """A ``with`` block whose `ConfigError` is added to ``problems`` instead of raised."""

    def __init__(self, problems: list[Problem], prefix: str = "") -> None:
        self._problems = problems
        self._prefix = prefix

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        if not isinstance(error, ConfigError):
            return False
        self._problems.extend(Problem(self._prefix + problem.where, problem.what) for problem in error.problems)
        return True


def _items(parsed: object) -> list[object]:
    if parsed is None:  # "---" and nothing behind it
        return []
    if isinstance(parsed, Mapping) and parsed.get("kind") == "List" and isinstance(parsed.get("items"), list):
        return list(parsed["items"])
    return [parsed]


def _document(item: object, where: str) -> Document:
    if not isinstance(item, Mapping):
        raise ConfigError([Problem(where, "is not an object with apiVersion, kind and metadata")])
    metadata = item.get("metadata")
    metadata = metadata if isinstance(metadata, Mapping) else {}
    wanted = {"apiVersion": item.get("apiVersion"), "kind": item.get("kind"), "metadata.name": metadata.get("name")}
    problems = [
        Problem(f"{where}: {path}", "missing field") for path, value in wanted.items() if not isinstance(value, str)
    ]
    if problems:
        raise ConfigError(problems)
    return Document(
        origin=where,
        apiVersion=str(item["apiVersion"]),
        kind=str(item["kind"]),
        name=str(metadata["name"]),
        namespace=str(metadata.get("namespace") or "default"),
        body=item,
    )


def _overrides(value: object) -> Mapping[str, str]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigError([Problem("spec.ceOverrides", "is not an object")])
    problems = list(unknown_fields(value, ("extensions",), "spec.ceOverrides"))
    overrides: Mapping[str, str] = {}
    with Collected(problems, prefix="spec.ceOverrides."):
        overrides = checked_overrides(value.get("extensions"))
    if problems:
        raise ConfigError(problems)
    return overrides


def _ref(ref: Mapping[str, object], namespace: str) -> Ref:
    return Ref(
        apiVersion=str(ref["apiVersion"]),
        kind=str(ref["kind"]),
        name=str(ref["name"]),
        namespace=str(ref.get("namespace") or namespace),
        address=str(ref.get("address") or ""),
    )
