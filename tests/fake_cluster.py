"""An API server to test against, in memory and over HTTP: lists by pages, watch lists, watches, and what goes wrong.

It keeps the contract that the interop tests hold a real kube-apiserver to.
"""

from __future__ import annotations

import asyncio
import copy
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias
from urllib.parse import parse_qs, urlsplit

from wellhead.http_server import Answer, Connection, HttpServer, Request, Response, Takeover
from wellhead.kubernetes.errors import ApiError, from_status
from wellhead.kubernetes.selectors import parse_labels
from wellhead.kubernetes.wire import JSON

Object: TypeAlias = dict[str, Any]
KINDS: Final = {
    "/api/v1": [
        ("pods", "Pod", True),
        ("configmaps", "ConfigMap", True),
        ("namespaces", "Namespace", False),
        ("secrets", "Secret", True),
    ],
    "/apis/apps/v1": [("deployments", "Deployment", True)],
    "/apis/lab.example/v1": [("gateways", "Gateway", True)],
}


@dataclass(slots=True)
class Told:
    revision: int
    resource: str
    type: str
    object: Object
    before: Object | None


@dataclass(slots=True)
class FakeCluster:
    """Objects, their history, and whoever watches."""

    watch_lists: bool = True
    page: int = 500
    revision: int = 100
    kinds: dict[str, list[tuple[str, str, bool]]] = field(default_factory=lambda: copy.deepcopy(KINDS))
    objects: dict[tuple[str, str, str], Object] = field(default_factory=dict)
    history: list[Told] = field(default_factory=list)
    oldest: int = 0
    """Versions before this one are forgotten."""
    faults: list[tuple[str, ApiError]] = field(default_factory=list)
    """Errors of the next requests whose path and query hold the text."""
    standing: dict[str, ApiError] = field(default_factory=dict)
    """Errors of all such requests, until taken out."""
    requests: list[str] = field(default_factory=list)
    streams: set[FakeStream] = field(default_factory=set)
    meanwhile: list[Callable[[], object]] = field(default_factory=list)
    """What happens after the next watch list has shown what there is, and before it says that this was all."""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    def put(self, resource: str, name: str, namespace: str = "ns", **fields: Any) -> Object:
        """Create or change an object."""
        before = self.objects.get((resource, namespace, name))
        group, kind = next(
            (path, kind) for path, kinds in self.kinds.items() for plural, kind, _ in kinds if plural == resource
        )
        now = {"apiVersion": group.removeprefix("/apis/").removeprefix("/api/"), "kind": kind, **copy.deepcopy(fields)}
        metadata: Object = now.setdefault("metadata", {})
        metadata |= {"name": name, "uid": before["metadata"]["uid"] if before else str(uuid.uuid4())}
        if namespace:
            metadata["namespace"] = namespace
        self._tell(resource, "MODIFIED" if before else "ADDED", now, before)
        self.objects[resource, namespace, name] = now
        return now

    def remove(self, resource: str, name: str, namespace: str = "ns") -> None:
        before = self.objects.pop((resource, namespace, name))
        self._tell(resource, "DELETED", copy.deepcopy(before), before)

    def forget_history(self) -> None:
        """Compaction: whoever is behind must list anew."""
        self.oldest = self.revision

    def break_streams(self, error: ApiError | None = None) -> None:
        """End every watch: as it should, or by an error."""
        for stream in tuple(self.streams):
            stream.end(error)

    def bookmark(self) -> None:
        for stream in tuple(self.streams):
            stream.push({"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.revision)}}})

    def drop_kind(self, path: str, resource: str) -> None:
        self.kinds[path] = [one for one in self.kinds[path] if one[0] != resource]
        self.break_streams()

    def _tell(self, resource: str, kind: str, now: Object, before: Object | None) -> None:
        self.revision += 1
        now["metadata"]["resourceVersion"] = str(self.revision)
        told = Told(self.revision, resource, kind, now, before)
        self.history.append(told)
        for stream in tuple(self.streams):
            stream.tell(told)

    # What `wellhead.kubernetes.api.Api` offers.

    async def get(self, path: str, /, *, accept: str = JSON) -> Object:
        await asyncio.sleep(0)
        return self.answer(path, accept)

    def lines(self, path: str, /, *, accept: str = JSON) -> FakeStream:
        return FakeStream(self, path, accept)

    def answer(self, target: str, accept: str) -> Object:
        self._asked(target)
        path, query = _split(target)
        if path in self.kinds:
            return {
                "kind": "APIResourceList",
                "resources": [
                    {"name": name, "kind": kind, "namespaced": namespaced}
                    for name, kind, namespaced in self.kinds[path]
                ],
            }
        one = self._one(path)
        if one is not None:
            return one
        resource, namespace = self.served(path)
        return self._page(resource, namespace, query, accept)

    def _one(self, path: str) -> Object | None:
        """The object of a path that names one; None where it names a list."""
        for group, kinds in self.kinds.items():
            parts = path.removeprefix(f"{group}/").split("/")
            if path.startswith(f"{group}/") and len(parts) == 4 and parts[0] == "namespaces":
                for plural, _, _ in kinds:
                    if parts[2] == plural:
                        found = self.objects.get((plural, parts[1], parts[3]))
                        if found is None:
                            raise ApiError(404, "NotFound", f'{plural} "{parts[3]}" not found')
                        return copy.deepcopy(found)
        return None

    def _page(self, resource: str, namespace: str, query: dict[str, str], accept: str) -> Object:
        revision, _, skip = query.get("continue", f"{self.revision}:0").partition(":")
        if int(revision) < self.oldest:
            raise ApiError(410, "Expired", "the provided continue parameter is too old")
        found = self._matching(resource, namespace, query)
        size = min(int(query.get("limit", "100000")), self.page)
        items = [_shown(one, accept) for one in found[int(skip) : int(skip) + size]]
        for one in items:
            one.pop("kind", None)
            one.pop("apiVersion", None)
        more = f"{revision}:{int(skip) + size}" if int(skip) + size < len(found) else ""
        return {"kind": "List", "metadata": {"resourceVersion": revision, "continue": more}, "items": items}

    def _matching(self, resource: str, namespace: str, query: dict[str, str]) -> list[Object]:
        selector = parse_labels(query.get("labelSelector", ""))
        return [
            one
            for (of, within, _), one in sorted(self.objects.items())
            if of == resource and namespace in ("", within) and selector.matches(_labels(one)) and _is_meant(one, query)
        ]

    def _asked(self, target: str) -> None:
        self.requests.append(target)
        self.news.set()
        for text, error in self.standing.items():
            if text in target:
                raise error
        for number, (text, error) in enumerate(self.faults):
            if text in target:
                del self.faults[number]
                raise error

    def served(self, path: str) -> tuple[str, str]:
        """Resource and namespace of a path. Raises `ApiError` where there is none."""
        for group, kinds in self.kinds.items():
            if path.startswith(f"{group}/"):
                rest = path.removeprefix(f"{group}/").split("/")
                namespace = rest[1] if rest[0] == "namespaces" and len(rest) > 2 else ""
                if any(plural == rest[-1] for plural, _, _ in kinds):
                    return rest[-1], namespace
        raise ApiError(404, "NotFound", "the server could not find the requested resource")

    async def asked(self, text: str, times: int = 1) -> None:
        """Return once so many requests came that hold the text."""
        while sum(text in request for request in self.requests) < times:
            self.news.clear()
            await self.news.wait()


class FakeStream:
    """One watch."""

    def __init__(self, cluster: FakeCluster, target: str, accept: str) -> None:
        self._cluster = cluster
        self._target = target
        self._accept = accept
        self._lines: asyncio.Queue[bytes | ApiError | None] = asyncio.Queue()
        self._since = 0

    @property
    def resource(self) -> str:
        """What is watched."""
        return self._cluster.served(_split(self._target)[0])[0]

    async def open(self) -> None:
        await asyncio.sleep(0)
        if self in self._cluster.streams:
            return
        cluster = self._cluster
        cluster._asked(self._target)
        path, query = _split(self._target)
        self._query = query
        self._resource, self._namespace = cluster.served(path)
        self._selector = parse_labels(query.get("labelSelector", ""))
        initial = query.get("sendInitialEvents") == "true"
        if initial and not cluster.watch_lists:
            raise ApiError(422, "Invalid", "sendInitialEvents is forbidden for watch")
        cluster.streams.add(self)
        if initial:
            for one in cluster._matching(self._resource, self._namespace, query):
                self.push({"type": "ADDED", "object": _shown(one, self._accept)})
            while cluster.meanwhile:
                cluster.meanwhile.pop(0)()
            end = {"resourceVersion": str(cluster.revision), "annotations": {"k8s.io/initial-events-end": "true"}}
            self.push({"type": "BOOKMARK", "object": {"metadata": end}})
            return
        since = self._since = int(query["resourceVersion"])
        if since < cluster.oldest:
            gone = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
            self.push({"type": "ERROR", "object": gone})
            return
        for told in cluster.history:
            if told.revision > since:
                self.tell(told)

    def tell(self, told: Told) -> None:
        inside = self._namespace in ("", told.object["metadata"].get("namespace", ""))
        if told.resource != self._resource or not inside or told.revision <= self._since:
            return  # a real one says nothing, either, before it has come to the version it was asked for
        is_meant = self._selector.matches(_labels(told.object))
        was_meant = told.before is not None and self._selector.matches(_labels(told.before))
        kind = told.type
        if told.type == "MODIFIED" and is_meant != was_meant:
            kind = "ADDED" if is_meant else "DELETED"
        elif not is_meant:
            return
        self.push({"type": kind, "object": _shown(told.object, self._accept)})

    def push(self, line: Object) -> None:
        self._lines.put_nowait(json.dumps(line, separators=(",", ":")).encode())

    def say(self, octets: bytes) -> None:
        self._lines.put_nowait(octets)

    def end(self, error: ApiError | None = None) -> None:
        self._cluster.streams.discard(self)
        self._lines.put_nowait(error)

    def __aiter__(self) -> FakeStream:
        return self

    async def __anext__(self) -> bytes:
        if self not in self._cluster.streams and self._lines.empty():
            await self.open()
        line = await self._lines.get()
        if line is None:
            raise StopAsyncIteration
        if isinstance(line, ApiError):
            raise line
        return line

    def close(self) -> None:
        self._cluster.streams.discard(self)


class FakeApiServer:
    """A `FakeCluster` behind HTTP. ``tokens``: the bearer tokens it takes; none: it asks for none."""

    def __init__(self, cluster: FakeCluster) -> None:
        self.cluster = cluster
        self.tokens: set[str] = set()
        self.url = ""
        self.write: Callable[[Connection, bytes], None] = lambda connection, octets: connection.write(_chunk(octets))
        """How a line of a watch is put on the wire."""
        self.connections: set[Connection] = set()

    async def answer(self, request: Request) -> Answer:
        headers = {name.lower(): value for name, value in request.headers}
        authorization = headers.get(b"authorization", b"").decode()
        if self.tokens and authorization.removeprefix("Bearer ") not in self.tokens:
            return _status(ApiError(401, "Unauthorized", "Unauthorized"))
        accept = headers.get(b"accept", b"").decode()
        target = f"{request.path}?{request.query}" if request.query else request.path
        try:
            if "watch=true" not in target:
                return Response(200, json.dumps(self.cluster.answer(target, accept)).encode(), _JSON)
            stream = self.cluster.lines(target, accept=accept)
            await stream.open()
        except ApiError as error:
            return _status(error)
        return Takeover(lambda connection: self._stream(connection, stream))

    async def _stream(self, connection: Connection, stream: FakeStream) -> None:
        connection.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.connections.add(connection)
        sending = asyncio.create_task(self._send(connection, stream), name="fake API server: watch")
        try:
            await connection.wait_closed()
        finally:
            sending.cancel()
            self.connections.discard(connection)
            stream.close()

    async def _send(self, connection: Connection, stream: FakeStream) -> None:
        try:
            async for line in stream:
                self.write(connection, line + b"\n")
                await connection.drain()
            connection.write(b"0\r\n\r\n")
            connection.close()
        except ConnectionResetError:
            return
        except ApiError:  # told to break it
            connection.abort()


@asynccontextmanager
async def fake_api_server(cluster: FakeCluster | None = None, *, port: int = 0) -> AsyncIterator[FakeApiServer]:
    fake = FakeApiServer(cluster or FakeCluster())
    server = HttpServer(fake.answer, name="fake API server")
    host, port = await server.start("127.0.0.1", port)
    fake.url = f"http://{host}:{port}"
    try:
        yield fake
    finally:
        await server.stop(0)


_JSON: Final = ((b"Content-Type", b"application/json"),)


def _chunk(octets: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(octets), octets)


def _status(error: ApiError) -> Response:
    body = {"kind": "Status", "reason": error.reason, "message": error.message, "code": error.status}
    assert from_status(body).status == error.status
    retry = ((b"Retry-After", str(int(error.retry_after)).encode()),) if error.retry_after is not None else ()
    return Response(error.status, json.dumps(body).encode(), (*_JSON, *retry))


def _split(target: str) -> tuple[str, dict[str, str]]:
    parts = urlsplit(target)
    return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}


def _is_meant(body: Object, query: dict[str, str]) -> bool:
    """By the one field selector that is known here."""
    wanted = query.get("fieldSelector", "").partition("metadata.name=")[2]
    return wanted in ("", body["metadata"]["name"])


def _labels(body: Object) -> dict[str, str]:
    labels: dict[str, str] = body["metadata"].get("labels", {})
    return labels


def _shown(body: Object, accept: str) -> Object:
    if "PartialObjectMetadata" in accept:
        return {
            "kind": "PartialObjectMetadata",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": copy.deepcopy(body["metadata"]),
        }
    return copy.deepcopy(body)
