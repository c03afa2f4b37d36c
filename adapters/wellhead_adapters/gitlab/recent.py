"""The keys of deliveries that were accepted, the latest so many: what is known to be done is not sent twice. Pure."""

from __future__ import annotations

import hashlib
from collections import OrderedDict


class Recent:
    """At most ``limit`` keys, 16 bytes of each, whoever made them up; the oldest goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._keys: OrderedDict[bytes, None] = OrderedDict()

    def add(self, key: str) -> None:
        digest = _digest(key)
        self._keys[digest] = None
        self._keys.move_to_end(digest)
        if len(self._keys) > self._limit:
            self._keys.popitem(last=False)

    def __contains__(self, key: str) -> bool:
        return _digest(key) in self._keys

    def __len__(self) -> int:
        return len(self._keys)


def _digest(key: str) -> bytes:
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).digest()
