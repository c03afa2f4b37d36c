"""JSON Pointer (RFC 6901) and JSON Patch (RFC 6902), as far as they are needed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

Way: TypeAlias = "tuple[str, ...]"
"""The keys on the way to a value: a JSON Pointer, taken apart."""


def pointer(text: str) -> Way:
    """The keys of a JSON Pointer. Raises ValueError with the rule."""
    if not text.startswith("/") or text == "/":
        raise ValueError("is not a JSON Pointer such as /metadata/labels/app")
    return tuple(part.replace("~1", "/").replace("~0", "~") for part in text[1:].split("/"))


def pointed(value: object, way: Way) -> object:
    """What is at the end of the way; None where nothing is."""
    for key in way:
        if isinstance(value, Mapping):
            value = value.get(key)
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            return None
    return value


def without(value: object, ways: tuple[Way, ...]) -> object:
    """``value`` less what is at the ends of ``ways``; what of it is not on them is shared, not copied."""
    if not ways or not isinstance(value, Mapping):
        return value
    left: dict[str, object] = {}
    for key, member in value.items():
        deeper = tuple(way[1:] for way in ways if way[0] == key)
        if () not in deeper:
            left[key] = without(member, deeper)
    return left


def diff(old: object, new: object) -> list[dict[str, object]]:
    """A JSON Patch that makes ``new`` of ``old``. Lists are replaced where they differ: what moved in them is not searched."""
    return list(_diff(old, new, ""))


def _diff(old: object, new: object, path: str) -> Iterator[dict[str, object]]:
    if _same(old, new):
        return
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        yield {"op": "replace", "path": path, "value": new}
        return
    for key in old:
        if key not in new:
            yield {"op": "remove", "path": f"{path}/{_escaped(key)}"}
    for key, value in new.items():
        if key in old:
            yield from _diff(old[key], value, f"{path}/{_escaped(key)}")
        else:
            yield {"op": "add", "path": f"{path}/{_escaped(key)}", "value": value}


def _same(old: object, new: object) -> bool:
    """Equal as JSON: Python takes True for 1."""
    if isinstance(old, list) and isinstance(new, list):
        return len(old) == len(new) and all(map(_same, old, new))
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return old.keys() == new.keys() and all(_same(old[key], new[key]) for key in old)
    return isinstance(old, bool) == isinstance(new, bool) and old == new


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1")
