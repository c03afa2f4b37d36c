"""The state in one ConfigMap, for programs that have no disk. It is written whole: seldom, and only while it has room.

Two replicas, as in a rolling update, may share it: what either wrote is true for itself, the last one stays, and whoever
starts from it repeats some events under the same ids.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import logging
import zlib
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from wellhead.errors import ConfigError, Problem
from wellhead.kubernetes.change import metadata_of
from wellhead.kubernetes.errors import ApiError
from wellhead.kubernetes.wire import JSON, METADATA

from .journal import Saved, object_line, position_line, read, roomless_line, watch_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from wellhead.kubernetes.index import Seen

MOST_OCTETS: Final = 1_000_000
"""What a ConfigMap may hold is 1 MiB, names and annotations included."""
MOST_UNPACKED: Final = 16 << 20
"""What it may be unpacked to: five times what lines with random uids come to. A zlib of 1 MB may hold 1 GB of nothing."""
STATE_OF: Final = "apiserver.wellhead/state-of"
"""The annotation that says whose state a ConfigMap is: whoever asks for metadata only can tell by it, too."""
_FORMAT: Final = "wellhead-apiserver-2"
_SHORTEST_SECONDS: Final = 5.0
_OCTETS_A_SECOND: Final = 20_000
"""etcd keeps every version for some minutes: what is large is written less often."""
_POSITION_SECONDS: Final = 60.0
"""How often it is written where nothing but positions moved."""
_LONGEST_PAUSE: Final = 60.0

_log = logging.getLogger(__name__)


class ApiServer(Protocol):
    """What of `wellhead.kubernetes.api.Api` is needed here."""

    async def get(self, path: str, /) -> Mapping[str, object]: ...
    async def post(self, path: str, body: Mapping[str, object], /, *, accept: str = JSON) -> Mapping[str, object]: ...
    async def patch(self, path: str, body: Mapping[str, object], /, *, accept: str = JSON) -> Mapping[str, object]: ...


class _Kept:
    """What is to be saved of one watch; objects as the lines that say them."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.objects: dict[str, str] = {}
        self.version = ""
        self.is_partial = False
        """There was no room for its objects, and it was not listed since: those that are here are not all."""


class StateMap:
    """A `wellhead_adapters.apiserver.state.State` in a ConfigMap. Nothing is known before `open`."""

    def __init__(self, api: ApiServer, *, namespace: str, name: str, source: str) -> None:
        """``source`` is whose state it is: another's is not touched."""
        self._api = api
        self._folder = f"/api/v1/namespaces/{quote(namespace, safe='')}/configmaps"
        self._name = name
        self._called = f"{namespace}/{name}"
        self._source = source
        self._annotations = {STATE_OF: source}
        self._version = ""
        self._tried: set[bytes] = set()
        """What was sent since the last answer that came: any of it may be there. As digests."""
        self._saved: dict[str, Saved] = {}
        self._kept: dict[str, _Kept] = {}
        self._changed = self._moved = self._is_roomless = self._is_shared = False
        self._watches = self._failures = 0
        self._written_at = self._not_before = float("-inf")

    async def open(self) -> None:
        """Read it; make it where it is not there. Raises `ApiError`, and `ConfigError` where it is another's, or broken."""
        try:
            body = await self._api.get(f"{self._folder}/{quote(self._name, safe='')}")
        except ApiError as error:
            if error.status != 404:
                raise
            await self._create({})
            return
        self._version = _version(body)
        self._saved = await asyncio.to_thread(self._read, body)
        for watch, saved in self._saved.items():
            kept = self._of(watch)
            kept.version = saved.version
            kept.is_partial = saved.index is None
            for seen in saved.index or ():
                kept.objects[_key(seen)] = object_line(kept.number, seen)

    def take(self, watch: str) -> Saved | None:
        saved = self._saved.pop(watch, None)
        if saved is None or saved.version:
            return saved
        self.forget(watch)  # else what a list that never ended had shown would mingle with what the next one shows
        return None

    def put(self, watch: str, seen: Seen) -> None:
        kept = self._of(watch)
        kept.objects[_key(seen)] = object_line(kept.number, seen)
        self._changed = True

    def remove(self, watch: str, seen: Seen) -> None:
        self._of(watch).objects.pop(_key(seen), None)
        self._changed = True

    def position(self, watch: str, version: str) -> None:
        kept = self._of(watch)
        if version and version != kept.version:
            kept.version = version
            self._moved = True

    def start_over(self, watch: str) -> None:
        kept = self._of(watch)
        kept.version, kept.is_partial = "", False
        self._changed = True

    def forget(self, watch: str) -> None:
        self._changed = self._kept.pop(watch, None) is not None or self._changed

    async def write(self, *, at_once: bool = False) -> None:
        now = asyncio.get_running_loop().time()
        if not (at_once and (self._changed or self._moved)) and not self._is_due(now):
            return
        changed, self._changed, self._moved = self._changed, False, False
        try:
            octets = await self._put_down()
        except BaseException as error:  # a cancelled one as well: the last one follows it
            self._changed, self._moved = self._changed or changed, True
            self._failures += 1
            self._not_before = now + min(_LONGEST_PAUSE, _SHORTEST_SECONDS * 2.0 ** min(self._failures - 1, 4))
            if not isinstance(error, ApiError):
                raise
            raise ConfigError([self._problem(f"cannot be written: {error}")]) from None
        self._failures = 0
        self._written_at = now
        self._not_before = now + max(_SHORTEST_SECONDS, octets / _OCTETS_A_SECOND)

    def _is_due(self, now: float) -> bool:
        since = _POSITION_SECONDS if self._moved and not self._changed else 0.0
        return (self._changed or self._moved) and now >= self._not_before and now >= self._written_at + since

    async def _put_down(self) -> int:
        """Write all of it. Returns how many octets that were."""
        text = self._text(with_objects=True)
        octets = await asyncio.to_thread(zlib.compress, text, 6)
        roomless = len(octets) > MOST_OCTETS or len(text) > MOST_UNPACKED
        if roomless:
            octets = await asyncio.to_thread(zlib.compress, self._text(with_objects=False), 6)
        if roomless and not self._is_roomless:
            facts = {"configmap": self._called, "objects": sum(len(one.objects) for one in self._kept.values())}
            _log.error(
                "the state has no room in its ConfigMap: after a long pause changes would be missed", extra=facts
            )
        self._is_roomless = roomless
        encoded = base64.b64encode(octets).decode()
        self._tried.add(_digest(encoded))
        await self._patch({"data": {"format": _FORMAT, "source": self._source}, "binaryData": {"state": encoded}})
        self._tried.clear()
        return len(octets)

    async def _patch(self, said: Mapping[str, object]) -> None:
        """Replace what it says, unless somebody else did since: then look whose it is now, and once more."""
        path = f"{self._folder}/{quote(self._name, safe='')}"
        for is_again in (False, True):
            body = {"metadata": {"resourceVersion": self._version, "annotations": self._annotations}, **said}
            try:
                self._version = _version(await self._api.patch(path, body, accept=METADATA))
            except ApiError as error:
                if is_again or error.status not in (404, 409):
                    raise
                if error.status == 404:
                    await self._create(said)
                    return
                await self._look_again(path)
            else:
                return

    async def _look_again(self, path: str) -> None:
        body = await self._api.get(path)
        self._whose(body)
        self._version = _version(body)
        if not self._is_shared and _digest(_encoded(body)) not in self._tried:  # else the answer to ours was lost
            self._is_shared = True
            _log.warning(
                "somebody else writes the state, too; is there a second replica?", extra={"configmap": self._called}
            )

    async def _create(self, said: Mapping[str, object]) -> None:
        metadata = {"name": self._name, "annotations": self._annotations}
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, **said}
        self._version = _version(await self._api.post(self._folder, body, accept=METADATA))

    def _text(self, *, with_objects: bool) -> bytes:
        lines: list[str] = []
        for watch, kept in self._kept.items():
            lines.append(watch_line(kept.number, watch))
            if with_objects and not kept.is_partial:
                lines += kept.objects.values()
            else:
                lines.append(roomless_line(kept.number))
            if kept.version:
                lines.append(position_line(kept.number, kept.version))
        return "".join(lines).encode()

    def _of(self, watch: str) -> _Kept:
        kept = self._kept.get(watch)
        if kept is None:
            kept = self._kept[watch] = _Kept(self._watches)
            self._watches += 1
        return kept

    def _whose(self, body: Mapping[str, object]) -> Mapping[str, object]:
        """What its ``data`` says. Raises `ConfigError` where it is not ours to write."""
        data = body.get("data")
        said = data if isinstance(data, dict) else {}
        source = said.get("source", self._source)
        if source != self._source:
            raise ConfigError([self._problem(f"is the state of {str(source)[:80]!a}, not of {self._source!a}")])
        if said.get("format", _FORMAT) != _FORMAT or (said and "format" not in said):
            raise ConfigError([self._problem("is no state of ours; nothing was changed")])
        return said

    def _read(self, body: Mapping[str, object]) -> dict[str, Saved]:
        if not self._whose(body):
            return {}
        try:
            octets = _unpacked(base64.b64decode(_encoded(body), validate=True))
            return read(io.TextIOWrapper(io.BytesIO(octets), encoding="utf-8", newline="\n"))
        except (ValueError, zlib.error):
            raise ConfigError([self._problem("is broken: delete it to begin anew")]) from None

    def _problem(self, what: str) -> Problem:
        return Problem("state-config-map, APISERVER_STATE_CONFIG_MAP", f"{self._called!r} {what}")


def is_state(body: Mapping[str, object]) -> bool:
    """Whether a ConfigMap is the state of a source, ours or another's."""
    annotations = metadata_of(body).get("annotations")
    return isinstance(annotations, dict) and STATE_OF in annotations


def _key(seen: Seen) -> str:
    return f"{seen.namespace}/{seen.name}"


def _unpacked(octets: bytes) -> bytes:
    """All of it, and no more than it may be. Raises ValueError, or ``zlib.error``, where that is not so."""
    unpacking = zlib.decompressobj()
    text = unpacking.decompress(octets, MOST_UNPACKED)
    if not unpacking.eof:
        text += unpacking.decompress(unpacking.unconsumed_tail, 1)  # the end may be left where there was just room
    is_whole = unpacking.eof and not unpacking.unused_data and len(text) <= MOST_UNPACKED
    if not is_whole or (text and not text.endswith(b"\n")):
        raise ValueError("it is cut short, or too long")
    return text


def _encoded(body: Mapping[str, object]) -> str:
    binary = body.get("binaryData")
    return str(binary.get("state") or "") if isinstance(binary, dict) else ""


def _digest(encoded: str) -> bytes:
    return hashlib.sha256(encoded.encode()).digest()


def _version(body: Mapping[str, object]) -> str:
    return str(metadata_of(body).get("resourceVersion") or "")
