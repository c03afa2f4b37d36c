"""Lines of text as records to be written: plain, ``key:value``, or JSON. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

_MEMBERS: Final = ("key", "value", "headers")

Headers: TypeAlias = tuple[tuple[str, bytes | None], ...]
ReadLine: TypeAlias = Callable[[bytes], "NewRecord"]
"""A line without its end, as a record. Raises ValueError with the rule that it breaks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRecord:
    """A record that no partition holds yet. No value is a tombstone: it deletes its key from a compacted topic."""

    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()


def plain(key: bytes | None, headers: Headers) -> ReadLine:
    """Each line is a value; all have the same key, if any."""
    return lambda line: NewRecord(key=key, value=line, headers=headers)


def keyed(separator: bytes, headers: Headers) -> ReadLine:
    """Each line is a key, the separator, a value; the separator may occur in the value."""

    def record(line: bytes) -> NewRecord:
        key, found, value = line.partition(separator)
        if not found:
            raise ValueError(f"holds no {separator.decode()!a} between key and value")
        return NewRecord(key=key, value=value, headers=headers)

    return record


def jsonl(key: bytes | None, headers: Headers) -> ReadLine:
    """Each line is ``{"key": …, "value": …, "headers": {…}}``; what it leaves out is as for all.

    Text stands for itself; any other JSON is written as compact JSON; null is none.
    """

    def record(line: bytes) -> NewRecord:
        try:
            said = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError("is not JSON") from None
        if not isinstance(said, dict):
            raise ValueError('is not an object like {"key":"k","value":"v","headers":{"name":"text"}}')
        unknown = [name for name in said if name not in _MEMBERS]
        if unknown:
            raise ValueError(f"has {ascii(unknown[0])[:60]}, and known are {', '.join(_MEMBERS)}")
        own = said.get("headers") or {}
        if not isinstance(own, dict):
            raise ValueError("has headers that are no object")
        whose = _octets(said["key"]) if "key" in said else key
        value = _octets(said.get("value"))
        if whose is None and value is None:
            raise ValueError("has neither key nor value")
        return NewRecord(
            key=whose, value=value, headers=(*headers, *((name, _octets(held)) for name, held in own.items()))
        )

    return record


def header(text: str) -> tuple[str, bytes]:
    """``name=value``."""
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise ValueError("is not NAME=VALUE")
    return name, _octets_of_text(value)


def _octets(value: object) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        return _octets_of_text(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(errors="surrogatepass")


def _octets_of_text(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("holds half of a surrogate pair, which no UTF-8 has") from None
