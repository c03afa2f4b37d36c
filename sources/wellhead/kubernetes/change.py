"""What became of an object, as a watch tells it or as a list that is compared with what was last seen. Pure."""

from __future__ import annotations

import enum
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from .errors import GARBLED, ApiError
from .index import Seen

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .kinds import Kind

_encoded: Final = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode  # dumps would make one each time
_GO_ESCAPES: Final = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


class Operation(enum.Enum):
    """What happened to an object."""

    ADD = "add"
    UPDATE = "update"
    DELETE = "delete"


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One change of one object."""

    operation: Operation
    kind: Kind
    seen: Seen
    """The object's name, uid and version."""
    object: Mapping[str, object]
    """As it is now; as it last was, for a delete on the stream; what is known of it, for a delete that a list found."""
    raw: bytes | None = None
    """The same as the server wrote it, where it came alone."""
    old: bytes | None = None
    """As it was before, where that is kept."""
    found: bool = False
    """A list found it: the watch was interrupted, and what else became of the object meanwhile is part of this."""

    @property
    def data(self) -> bytes:
        """The object as JSON, as the server writes it."""
        return self.raw if self.raw is not None else json_bytes(self.object)


def json_bytes(value: object) -> bytes:
    """``value`` as Go writes JSON: without blanks, ``<``, ``>`` and ``&`` escaped."""
    return _encoded(value).translate(_GO_ESCAPES).encode("utf-8", "replace")


def metadata_of(body: Mapping[str, object]) -> Mapping[str, object]:
    """The object's ``metadata``. Raises `ApiError` (``Garbled``) where it has none."""
    metadata = body.get("metadata")
    if not isinstance(metadata, dict):
        raise ApiError(0, GARBLED, "an object has no metadata")
    return metadata


def seen(body: Mapping[str, object], digest: Callable[[Mapping[str, object]], str] | None = None) -> Seen:
    """What is to be remembered of an object. Raises `ApiError` (``Garbled``) where it has no name or version."""
    metadata = metadata_of(body)
    name, version = metadata.get("name"), metadata.get("resourceVersion")
    if not isinstance(name, str) or not isinstance(version, str) or not name or not version:
        raise ApiError(0, GARBLED, "an object has no name or no resourceVersion")
    return Seen(
        str(metadata.get("namespace") or ""),
        name,
        str(metadata.get("uid") or ""),
        version,
        digest(body) if digest is not None else "",
    )


def told_before(operation: Operation, version: str, known: Seen | None) -> bool:
    """Whether a stream that was resumed repeats what is known: versions of one server count up.

    A delete in the version that is known is none of those: servers without etcd tell deletes so.
    """
    if known is None or (operation is Operation.DELETE and version == known.version):
        return False
    if version.isdecimal() and known.version.isdecimal():
        return int(version) <= int(known.version)
    return version == known.version


def listed(now: Seen, known: Seen | None) -> tuple[Operation, ...]:
    """What happened since an object was last seen, if a list shows it as it is ``now``."""
    if known is None:
        return (Operation.ADD,)
    if now.uid != known.uid:  # deleted and made again
        return (Operation.DELETE, Operation.ADD)
    if now.version == known.version or (now.digest and now.digest == known.digest):
        return ()
    return (Operation.UPDATE,)


def remains(gone: Seen, kind: Kind) -> dict[str, object]:
    """What is known of an object that a list did not show any more."""
    names = {"name": gone.name, "namespace": gone.namespace, "resourceVersion": gone.version, "uid": gone.uid}
    metadata = {name: value for name, value in names.items() if value}
    return {"apiVersion": kind.gvr.api_version, "kind": kind.kind, "metadata": metadata}
