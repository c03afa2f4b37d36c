"""One watch that never ends and misses nothing: list, watch from there, and after every gap list and compare.

Three layers: `Reflector.run` never ends; `_attempt` lists where it must and then watches; `_watch` is one stream. What
comes after an end or an error is decided in ``watch.py``, what a list tells in ``change.py``.
"""

from __future__ import annotations

import asyncio
import logging
import random
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Never, Protocol

from wellhead.errors import WellheadError

from .change import Change, Operation, listed, metadata_of, remains, seen, told_before
from .errors import GARBLED, ApiError, from_status
from .index import Index, Seen
from .kinds import Gvr, Kind, query
from .watch import Do, Next, Phase, after_end, after_error, is_expired
from .wire import JSON, METADATA, METADATA_LIST, parsed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

_log = logging.getLogger(__name__)
_PAGE: Final = 500
_STREAM_SECONDS: Final = (240, 360)
"""How long the server is asked to keep a watch; spread, so that a thousand do not end at once."""
_LONG_SECONDS: Final = 10.0
"""A stream that lasted so long did not fail, whatever ended it."""
_GONE_AFTER: Final = 3
"""Looks in a row that did not find a kind which was there: its objects are gone with it."""
_INITIAL_EVENTS_END: Final = "k8s.io/initial-events-end"
_OPERATIONS: Final = {"ADDED": Operation.ADD, "MODIFIED": Operation.UPDATE, "DELETED": Operation.DELETE}


class LineSource(Protocol):
    """Lines of one answer, as `wellhead.kubernetes.api.Lines`."""

    async def open(self) -> None: ...
    def __aiter__(self) -> AsyncIterator[bytes]: ...
    def close(self) -> None: ...


class ApiServer(Protocol):
    """What of `wellhead.kubernetes.api.Api` a watch needs."""

    async def get(self, path: str, /, *, accept: str = JSON) -> Mapping[str, object]: ...
    def lines(self, path: str, /, *, accept: str = JSON) -> LineSource: ...


class Finder(Protocol):
    """Says how the server serves a kind: `wellhead.kubernetes.discovery.Discovery`."""

    async def find(self, gvr: Gvr, /) -> Kind | None: ...


class Receiver(Protocol):
    """Who is told of changes. Called by one task, in the order of the watch."""

    async def take(self, change: Change, /) -> None:
        """Returns once there is room for it; until then nothing more is read."""

    def note(self, seen: Seen, /) -> None:
        """An object that is there, of which nobody wants to be told."""

    def start_over(self) -> None:
        """A list begins with no index to compare it with, only a position, which counts for nothing any more: what is
        there is what is told from now on, and what was told since the start.
        """

    def reach(self, version: str, /) -> None:
        """Everything up to this resourceVersion was told."""

    def ready(self) -> None:
        """Nothing that happens from now on will be missed. May be called more than once."""


class GaveUp(WellheadError):
    """A watch was told to fail fast, and something stood against it that will not go away by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scope:
    """What to watch."""

    gvr: Gvr
    namespace: str = ""
    """Empty: the whole cluster."""
    only: frozenset[str] = frozenset()
    """Of the whole cluster, what is in these namespaces; empty: all."""
    label_selector: str = ""
    field_selector: str = ""

    def holds(self, namespace: str) -> bool:
        """Whether what is in this namespace is to be told."""
        return not self.only or namespace in self.only

    def __str__(self) -> str:
        where = f" in {self.namespace}" if self.namespace else ""
        selectors = ", ".join(text for text in (self.label_selector, self.field_selector) if text)
        return f"{self.gvr}{where}{f' ({selectors})' if selectors else ''}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Manner:
    """How to watch."""

    metadata_only: bool = False
    """Ask for no more of an object than its metadata."""
    keep_old: bool = False
    """Hold every object in memory, so that an update can say what was before."""
    digest: Callable[[Mapping[str, object]], str] | None = None
    """What of an object counts: an update that leaves this as it was is none."""
    fail_fast: bool = False
    gate: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(16))
    """How many lists may go on at once, of all who share it."""


@dataclass(slots=True)
class WatchCounters:
    """What happened to watches, for logs and metrics; many may share one."""

    lists: int = 0
    streams: int = 0
    interruptions: int = 0
    found: dict[Operation, int] = field(default_factory=lambda: dict.fromkeys(Operation, 0))
    """Changes that a list found after a gap; each may stand for several."""
    ignored: int = 0
    """Updates that changed nothing that counts."""


class Reflector:
    """Tells a `Receiver` of every change in a `Scope`, whatever happens to the server and to the way there."""

    def __init__(
        self,
        api: ApiServer,
        finder: Finder,
        scope: Scope,
        receiver: Receiver,
        *,
        manner: Manner,
        announce: bool = False,
        index: Index | None = None,
        version: str = "",
        counters: WatchCounters | None = None,
    ) -> None:
        """``announce`` tells of what there is at the start as added. ``index`` and ``version`` are a saved position."""
        self._api = api
        self._finder = finder
        self._scope = scope
        self._receiver = receiver
        self._manner = manner
        self._announce = announce or index is not None
        self._index = index if index is not None else Index()
        self._version = version
        self._is_proven = not version
        self._is_blind = bool(version) and index is None
        self._counters = counters or WatchCounters()
        self._kind: Kind | None = None
        self._phase = Phase.WATCH
        self._watch_lists = True
        self._old: dict[tuple[str, str], bytes] = {}
        self._failures = 0
        self._expiries = 0
        self._missing = 0
        self._troubled = ""

    async def run(self) -> Never:
        """Watch until cancelled. Raises `GaveUp` where it was told to fail fast."""
        loop = asyncio.get_running_loop()
        then = Next(Do.RESUME if self._version else Do.RELIST)
        while True:
            await asyncio.sleep(then.after * random.uniform(0.8, 1.2))
            began = loop.time()
            try:
                await self._attempt(then.do)
            except ApiError as error:
                self._lasted(loop.time() - began)
                self._failures += 1
                self._expiries += is_expired(error)
                failures = max(self._failures, self._expiries)
                then = after_error(self._phase, error, failures, fail_fast=self._manner.fail_fast)
                self._tell(error, then)
            else:
                self._lasted(loop.time() - began)
                then = after_end(self._phase, self._failures)
                self._failures += 1  # unless the next stream brings something, or lasts
            if then.do is Do.GIVE_UP:
                raise GaveUp(f"watch of {self._scope}: {self._troubled}")
            if then.do is Do.PAGES:
                self._watch_lists = False

    async def _attempt(self, do: Do) -> None:
        """Find the kind and list, where that must be, then watch until the stream ends."""
        if self._kind is None or do is Do.FIND:
            self._kind = await self._find()
        if do is not Do.RESUME or not self._version or await self._is_ahead():
            self._counters.lists += 1
            if self._version and not self._announce:  # a saved position without an index to compare with
                _log.error("what happened while nobody watched is not known", extra={"watch": str(self._scope)})
            if self._is_blind:
                self._is_blind = False  # not again: what a list that broke off told is known
                self._receiver.start_over()
            if self._watch_lists:
                await self._watch_list()
                return
            await self._list()
        await self._resume()

    async def _is_ahead(self) -> bool:
        """Whether the server has not come to the saved position yet, which then is another server's, or of a time before
        its data was restored. A watch from there would tell nothing, and no error, until it has.
        """
        if self._is_proven:
            return False
        self._phase = Phase.WATCH
        version = await self._latest()
        self._is_proven = True
        if not (version.isdecimal() and self._version.isdecimal() and int(version) < int(self._version)):
            return False
        facts = {"watch": str(self._scope), "saved": self._version, "server": version}
        _log.error(
            "the saved position is ahead of the server: is it another's, or was it restored? listing", extra=facts
        )
        return True

    async def _latest(self) -> str:
        """The resourceVersion that the server is at; "" where it does not tell us. Without selectors: one object will do."""
        try:
            async with self._manner.gate:
                page = await self._api.get(query(self._path(), limit=1), accept=METADATA_LIST)
        except ApiError as error:
            if error.status in (403, 405, 406):  # what matters is whether the watch is allowed
                return ""
            raise
        return str(metadata_of(page).get("resourceVersion") or "")

    async def _find(self) -> Kind:
        self._phase = Phase.LIST
        kind = await self._finder.find(self._scope.gvr)
        if kind is None:
            # Nothing is there to be missed: whatever is there once it is served was added since.
            if not self._version:
                self._announce = True
            self._missing += 1
            if self._missing == _GONE_AFTER and self._kind is not None:
                await self.tell_all_gone(self._kind)
            self._receiver.ready()
            raise ApiError(404, "NotServed", f"the API server does not serve {self._scope.gvr} (yet)")
        self._missing = 0
        return kind

    async def tell_all_gone(self, kind: Kind) -> None:
        """What held the objects, their kind or their namespace, was taken away, and they with it. Not while `run` runs."""
        self._kind = kind
        self._index.begin()
        for gone in self._index.end():
            await self._tell_gone(gone)

    async def _resume(self) -> None:
        self._phase = Phase.WATCH
        lines = self._stream(resourceVersion=self._version)
        try:
            await lines.open()
            self._receiver.ready()
            await self._watch(lines)
        finally:
            lines.close()

    async def _watch_list(self) -> None:
        """A stream that begins with all there is."""
        self._phase = Phase.WATCH_LIST
        lines = self._stream(sendInitialEvents="true", resourceVersionMatch="NotOlderThan")
        try:
            async with self._manner.gate:
                self._index.begin()
                if not await self._initial(lines):
                    return
            self._phase = Phase.WATCH
            await self._watch(lines)
        finally:
            lines.close()

    async def _initial(self, lines: LineSource) -> bool:
        """Take in all there is. Whether the stream got to the end of that.

        Older servers (1.27 to 1.31) tell the end up to a second late: what changes meanwhile stands before it.
        """
        async for line in lines:
            kind, body = _told(line)
            if kind in ("ADDED", "MODIFIED"):
                await self._listed(body, line)
            elif kind == "DELETED":
                await self._changed(Operation.DELETE, body, line)
            elif kind == "BOOKMARK" and _ends_the_list(body):
                await self._list_ended(_version(body))
                return True
        return False

    async def _list(self) -> None:
        """The same, page by page."""
        self._phase = Phase.LIST
        accept = METADATA_LIST if self._manner.metadata_only else JSON
        selectors = {"labelSelector": self._scope.label_selector, "fieldSelector": self._scope.field_selector}
        token = ""
        async with self._manner.gate:
            self._index.begin()
            while True:
                path = query(self._path(), limit=_PAGE, **selectors, **{"continue": token})
                page = await self._api.get(path, accept=accept)
                items = page.get("items")
                for item in items if isinstance(items, list) else ():
                    await self._listed(item, None)
                token = str(metadata_of(page).get("continue") or "")
                if not token:
                    break
            await self._list_ended(_version(page))

    async def _watch(self, lines: LineSource) -> None:
        """One stream, to its end."""
        self._counters.streams += 1
        async for line in lines:
            kind, body = _told(line)
            if kind in _OPERATIONS:
                await self._changed(_OPERATIONS[kind], body, line)
            if kind in _OPERATIONS or kind == "BOOKMARK":
                self._version = _version(body)
                self._receiver.reach(self._version)
            self._recovered()
            self._expiries = 0  # not after a list: it may take longer than the server remembers

    async def _listed(self, body: Mapping[str, object], line: bytes | None) -> None:
        """An object of a list: tell what happened since it was last seen."""
        now = seen(body, self._manner.digest)
        if not self._scope.holds(now.namespace):
            return
        known = self._index.get(now.namespace, now.name)
        operations = listed(now, known)
        if not operations and now != known:
            self._receiver.note(
                now
            )  # in a version that whoever resumes has to know: it may be lower, on a restored server
        for operation in operations:
            if not self._announce:
                self._receiver.note(now)
            elif operation is Operation.DELETE and known is not None:
                await self._tell_gone(known)
            else:
                await self._tell_of(operation, now, body, line, found=bool(self._version))
        self._index.put(now)
        self._keep(now, body, line)

    async def _list_ended(self, version: str) -> None:
        for gone in self._index.end():
            await self._tell_gone(gone)
        self._announce = True
        self._version = version
        self._receiver.reach(version)
        self._receiver.ready()
        self._recovered()

    async def _changed(self, operation: Operation, body: Mapping[str, object], line: bytes) -> None:
        """A change of the stream, told unless it is known."""
        now = seen(body, self._manner.digest if operation is not Operation.DELETE else None)
        if not self._scope.holds(now.namespace):
            return
        known = self._index.get(now.namespace, now.name)
        if told_before(operation, now.version, known):
            return
        if operation is Operation.UPDATE and known is not None and now.digest and now.digest == known.digest:
            self._counters.ignored += 1
            self._receiver.note(now)
        else:
            await self._tell_of(operation, now, body, line, found=False)
        if operation is Operation.DELETE:
            self._index.remove(now.namespace, now.name)
            self._old.pop((now.namespace, now.name), None)
        else:
            self._index.put(now)
            self._keep(now, body, line)

    async def _tell_of(
        self, operation: Operation, now: Seen, body: Mapping[str, object], line: bytes | None, *, found: bool
    ) -> None:
        if found:
            self._counters.found[operation] += 1
        old = self._old.get((now.namespace, now.name)) if self._manner.keep_old else None
        whole = body if "kind" in body else {**self._names(), **body}  # the items of a list do not say their kind
        await self._receiver.take(
            Change(
                operation=operation,
                kind=self._served(),
                seen=now,
                object=whole,
                raw=_object_of(line),
                old=old if operation is Operation.UPDATE else None,
                found=found,
            )
        )

    async def _tell_gone(self, gone: Seen) -> None:
        """A delete that nobody told us of: the object's last version known."""
        self._counters.found[Operation.DELETE] += 1
        self._old.pop((gone.namespace, gone.name), None)
        kind = self._served()
        await self._receiver.take(
            Change(operation=Operation.DELETE, kind=kind, seen=gone, object=remains(gone, kind), found=True)
        )

    def _keep(self, now: Seen, body: Mapping[str, object], line: bytes | None) -> None:
        if self._manner.keep_old:
            change = Change(
                operation=Operation.ADD,
                kind=self._served(),
                seen=now,
                object={**self._names(), **body},
                raw=_object_of(line),
            )
            self._old[now.namespace, now.name] = change.data

    def _names(self) -> Mapping[str, object]:
        kind = self._served()
        return {"apiVersion": kind.gvr.api_version, "kind": kind.kind}

    def _served(self) -> Kind:
        assert self._kind is not None  # noqa: S101 - `_attempt` looks for it first
        return self._kind

    def _path(self) -> str:
        return self._served().path(self._scope.namespace)

    def _stream(self, **parameters: str) -> LineSource:
        path = query(
            self._path(),
            watch="true",
            allowWatchBookmarks="true",
            timeoutSeconds=random.randint(*_STREAM_SECONDS),
            labelSelector=self._scope.label_selector,
            fieldSelector=self._scope.field_selector,
            **parameters,
        )
        return self._api.lines(path, accept=METADATA if self._manner.metadata_only else JSON)

    def _lasted(self, seconds: float) -> None:
        if seconds > _LONG_SECONDS:
            self._failures = 0

    def _recovered(self) -> None:
        self._failures = 0
        if self._troubled:
            self._troubled = ""
            _log.info("watch goes on", extra={"watch": str(self._scope)})

    def _tell(self, error: ApiError, then: Next) -> None:
        """Log a trouble once, and again when it is another."""
        self._counters.interruptions += 1
        what = f"{error.status} {error.reason}" if error.status else error.reason
        if what == self._troubled.partition(":")[0]:
            return
        self._troubled = f"{what}: {error.message}"
        facts = {"watch": str(self._scope), "problem": self._troubled, "then": then.do.value}
        _log.log(_level(error), "watch is interrupted", extra=facts)


def _level(error: ApiError) -> int:
    """What servers do in passing is told as it is; what waits for a person is a warning."""
    return logging.INFO if error.status == 410 or error.reason in ("Broken", "Silent") else logging.WARNING


def _told(line: bytes) -> tuple[str, Mapping[str, object]]:
    """Type and object of a line of a watch. Raises `ApiError` for an ERROR, and for what is no such line."""
    told = parsed(line)
    kind, body = told.get("type"), told.get("object")
    if not isinstance(kind, str) or not isinstance(body, dict):
        raise ApiError(0, GARBLED, "a watch says something that is no change")
    if kind == "ERROR":
        raise from_status(body)
    return kind, body


def _object_of(line: bytes | None) -> bytes | None:
    """The object as it stands in a line, which servers write ``{"type":"ADDED","object":{…}}``."""
    if line is None or not line.startswith(b'{"type":"') or not line.endswith(b"}}"):
        return None
    begin = line.find(b'","object":{', 0, 32)
    return line[begin + 11 : -1] if begin > 0 else None


def _version(body: Mapping[str, object]) -> str:
    version = metadata_of(body).get("resourceVersion")
    if not isinstance(version, str) or not version:
        raise ApiError(0, GARBLED, "there is no resourceVersion to go on from")
    return version


def _ends_the_list(body: Mapping[str, object]) -> bool:
    annotations = metadata_of(body).get("annotations")
    return isinstance(annotations, dict) and annotations.get(_INITIAL_EVENTS_END) == "true"
