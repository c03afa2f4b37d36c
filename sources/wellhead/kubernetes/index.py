"""What was last seen of each object, small enough for a hundred thousand of them. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

_UUID_OCTETS: Final = 16
_SEPARATOR: Final = b" "


class Seen(NamedTuple):
    """An object as it was last seen."""

    namespace: str
    name: str
    uid: str
    version: str
    """Its resourceVersion."""
    digest: str = ""
    """Of what in it counts as a change, where not all does."""


class Index:
    """Objects by namespace and name: some 250 bytes each.

    By name and not by uid, so that an object that was deleted and made again inside a gap is told as both, in order.
    """

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._unseen: set[str] | None = None

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[Seen]:
        return (_unpacked(key, packed) for key, packed in self._objects.items())

    def get(self, namespace: str, name: str) -> Seen | None:
        key = _key(namespace, name)
        packed = self._objects.get(key)
        return None if packed is None else _unpacked(key, packed)

    def put(self, seen: Seen) -> None:
        key = _key(seen.namespace, seen.name)
        self._objects[key] = _packed(seen)
        if self._unseen is not None:
            self._unseen.discard(key)

    def remove(self, namespace: str, name: str) -> None:
        key = _key(namespace, name)
        self._objects.pop(key, None)
        if self._unseen is not None:
            self._unseen.discard(key)

    def begin(self) -> None:
        """A list begins (anew): nothing of it was seen yet."""
        self._unseen = set(self._objects)

    def end(self) -> Iterator[Seen]:
        """The list is whole: what it did not show is gone. Each is in the index until the next is asked for."""
        unseen, self._unseen = self._unseen or set(), None
        for key in sorted(unseen):
            yield _unpacked(key, self._objects[key])
            self._objects.pop(key, None)


def _key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}"


def _packed(seen: Seen) -> bytes:
    """``uid version digest``; a UUID as its 16 octets behind a zero, which no other uid begins with."""
    digits = seen.uid.replace("-", "")
    try:
        octets = bytes.fromhex(digits) if len(seen.uid) == 36 else b""
    except ValueError:
        octets = b""
    uid = b"\0" + octets if len(octets) == _UUID_OCTETS and _dashed(octets.hex()) == seen.uid else _text(seen.uid)
    return uid + _SEPARATOR + seen.version.encode() + (_SEPARATOR + seen.digest.encode() if seen.digest else b"")


def _text(uid: str) -> bytes:
    return uid.replace(" ", "").lstrip("\0").encode()


def _unpacked(key: str, packed: bytes) -> Seen:
    namespace, _, name = key.partition("/")
    if packed.startswith(b"\0"):
        uid = _dashed(packed[1 : 1 + _UUID_OCTETS].hex())
        rest = packed[2 + _UUID_OCTETS :]
    else:
        text, _, rest = packed.partition(_SEPARATOR)
        uid = text.decode()
    version, _, digest = rest.decode().partition(" ")
    return Seen(namespace, name, uid, version, digest)


def _dashed(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
