"""Which changes become events, what of an object counts as a change, and what the data says. Pure."""

from __future__ import annotations

import enum
import fnmatch
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from wellhead.kubernetes.change import Change, Operation, json_bytes

from .patch import diff, pointer, without
from .subject import Mode, Owner

if TYPE_CHECKING:
    from .patch import Way

_MANAGED_FIELDS: Final = ("metadata", "managedFields")
_NEVER_COUNT: Final = (("metadata", "resourceVersion"), _MANAGED_FIELDS)
_WORDS: Final = {
    "status": (("status",),),
    "managedFields": (_MANAGED_FIELDS,),
    "leases": (
        ("spec", "renewTime"),
        ("metadata", "annotations", "control-plane.alpha.kubernetes.io/leader"),
    ),
}


class UpdateData(enum.Enum):
    """What the data of an update is, in Resource mode."""

    OBJECT = "object"
    OLD = "old"
    PATCH = "patch"


def parse_ignored(text: str) -> tuple[Way, ...]:
    """Words and JSON Pointers, comma-separated. Raises ValueError with the rule."""
    ways: list[Way] = []
    for word in filter(None, map(str.strip, text.split(","))):
        if word in _WORDS:
            ways += _WORDS[word]
        elif word.startswith("/"):
            ways.append(pointer(word))
        else:
            raise ValueError(f"has {word!r}, which is none of {', '.join(_WORDS)} and no JSON Pointer")
    return tuple(ways)


def parse_operations(text: str) -> frozenset[Operation]:
    """``add,update,delete`` or some of them. Raises ValueError with the rule."""
    words = [word.strip() for word in text.split(",")]
    known = {operation.value: operation for operation in Operation}
    if not set(words) <= known.keys():
        raise ValueError(f"is not some of {', '.join(known)}")
    return frozenset(known[word] for word in words)


def is_owned(body: Mapping[str, object], owner: Owner) -> bool:
    """Whether the object's controller is as wanted: only the owner reference with ``controller: true`` counts."""
    metadata = body.get("metadata")
    references = metadata.get("ownerReferences") if isinstance(metadata, Mapping) else None
    for one in references if isinstance(references, list) else ():
        if isinstance(one, Mapping) and one.get("controller") is True:
            return owner.api_version in ("", one.get("apiVersion")) and owner.kind in ("", one.get("kind"))
    return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What somebody wants to be told of."""

    operations: frozenset[Operation] = frozenset(Operation)
    name_pattern: str = ""
    owner: Owner | None = None
    ignored: tuple[Way, ...] = ()
    drop_managed_fields: bool = False
    update_data: UpdateData = UpdateData.OBJECT
    mode: Mode = Mode.REFERENCE
    _name: re.Pattern[str] | None = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        pattern = re.compile(fnmatch.translate(self.name_pattern)) if self.name_pattern else None
        object.__setattr__(self, "_name", pattern)

    @property
    def needs_old(self) -> bool:
        """Whether updates tell what was before."""
        return self.mode is Mode.RESOURCE and self.update_data is not UpdateData.OBJECT

    @property
    def needs_metadata_only(self) -> bool:
        """Whether nothing but metadata decides and is told."""
        return self.mode is Mode.REFERENCE and not self.ignored

    def wants(self, change: Change) -> bool:
        """Whether the change becomes an event.

        A delete that a list found does not say who owned the object: it passes where an owner is wanted, as whoever was
        told of the object must be told that it is gone.
        """
        if change.operation not in self.operations:
            return False
        if self._name is not None and not self._name.match(change.seen.name):
            return False
        if self.owner is None or (change.found and change.operation is Operation.DELETE):
            return True
        return is_owned(change.object, self.owner)

    def digest(self, body: Mapping[str, object]) -> str:
        """Of what counts in the object; the same as long as nothing of that changed."""
        counting = without(body, (*_NEVER_COUNT, *self.ignored, ("kind",), ("apiVersion",)))
        text = json.dumps(counting, sort_keys=True, separators=(",", ":"))
        return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()

    def data(self, change: Change) -> bytes | None:
        """What the event says in Resource mode; None where that is the object as it is."""
        if self.mode is Mode.REFERENCE:
            return None
        body: object = change.object
        if self.drop_managed_fields:
            body = without(body, (_MANAGED_FIELDS,))
        if change.operation is Operation.UPDATE and self.update_data is not UpdateData.OBJECT:
            return json_bytes(self._with_old(change, body))
        return json_bytes(body) if self.drop_managed_fields else None

    def _with_old(self, change: Change, body: object) -> dict[str, object]:
        said: dict[str, object] = {"object": body}
        if change.old is not None:
            old = json.loads(change.old)
            said["old"] = without(old, (_MANAGED_FIELDS,)) if self.drop_managed_fields else old
            if self.update_data is UpdateData.PATCH:
                said["patch"] = diff(said["old"], body)
        return said
