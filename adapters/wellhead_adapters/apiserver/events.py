"""A change as an event, as Knative's ApiServerSource sends it (contract/sources.md A5), with an id of its own. Pure."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from wellhead.event import CloudEvent, ExtensionValue, extension_problems, rfc3339, stable_id
from wellhead.kubernetes.change import Change, Operation, json_bytes
from wellhead.kubernetes.kinds import Kind, guess_plural

from .patch import pointed
from .subject import Mode

if TYPE_CHECKING:
    from datetime import datetime

    from .patch import Way

EVENT_TYPES: Final = {
    (Mode.REFERENCE, Operation.ADD): "dev.knative.apiserver.ref.add",
    (Mode.REFERENCE, Operation.UPDATE): "dev.knative.apiserver.ref.update",
    (Mode.REFERENCE, Operation.DELETE): "dev.knative.apiserver.ref.delete",
    (Mode.RESOURCE, Operation.ADD): "dev.knative.apiserver.resource.add",
    (Mode.RESOURCE, Operation.UPDATE): "dev.knative.apiserver.resource.update",
    (Mode.RESOURCE, Operation.DELETE): "dev.knative.apiserver.resource.delete",
}
_JSON: Final = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What the events of one ApiServerSource have in common."""

    source: str
    """The CloudEvents attribute: the API server's URL."""
    namespace: str
    name: str
    """Of the ApiServerSource; part of the ids, so that two sources of one object do not share them."""
    mode: Mode
    copies: tuple[tuple[str, Way], ...] = field(default=())
    """Extensions to copy from the object: name, and the way to the value."""


def change_event(origin: Origin, change: Change, now: datetime, data: bytes | None = None) -> CloudEvent:
    """The event of a change; ``data`` in place of the object, in Resource mode.

    The id says which source, which version of which object, and what happened to it: the same on every try, after
    every restart, from every replica. An extension that cannot hold what it should copy is left out.
    """
    kind = EVENT_TYPES[origin.mode, change.operation]
    seen = change.seen
    api_version, of_kind = change.kind.gvr.api_version, change.kind.kind
    extensions: dict[str, ExtensionValue] = {
        "apiversion": api_version,
        "kind": of_kind,
        "name": seen.name,
        "namespace": seen.namespace,
    }
    for name, way in origin.copies:
        value = _copied(pointed(change.object, way))
        if value is not None and not any(extension_problems(name, value)):
            extensions[name] = value
    if origin.mode is Mode.REFERENCE:
        data = _reference(change.kind, seen.namespace, seen.name)
    return CloudEvent(
        id=stable_id(origin.namespace, origin.name, seen.uid, seen.version, kind),
        source=origin.source,
        type=kind,
        subject=_prefix(change.kind, seen.namespace) + seen.name,
        time=rfc3339(now),
        datacontenttype=_JSON,
        extensions=extensions,
        data=change.data if data is None else data,
    )


@functools.lru_cache(maxsize=4096)
def _prefix(kind: Kind, namespace: str) -> str:
    """The subject up to the name: the plural as Knative guesses it, the core group under /apis too."""
    api_version = kind.gvr.api_version
    if "." in api_version and "/" not in api_version:
        api_version += "/versionUnknown"
    return f"/apis/{api_version}/namespaces/{namespace}/{guess_plural(kind.kind)}/"


def _reference(kind: Kind, namespace: str, name: str) -> bytes:
    names = {"kind": kind.kind, "namespace": namespace, "name": name, "apiVersion": kind.gvr.api_version}
    return json_bytes({key: value for key, value in names.items() if value})


def _copied(value: object) -> ExtensionValue | None:
    """What of JSON an extension can hold: text as it is, the rest as its JSON."""
    if value is None:
        return None
    return value if isinstance(value, str) else json_bytes(value).decode()
