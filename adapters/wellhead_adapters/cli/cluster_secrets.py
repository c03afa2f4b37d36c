"""Secrets to which documents refer and that no file holds: from the API server, each asked for by its name alone.

Needs ``get`` of those Secrets and nothing more. Keeps only the keys that are referred to, and puts none into a message.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections import defaultdict
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias, cast
from urllib.parse import quote

from wellhead.errors import ConfigError, Problem
from wellhead.kubernetes.cluster import find_cluster
from wellhead.kubernetes.errors import ApiError
from wellhead.manifest import Document, SecretKey

from .plan import own_kinds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from .plan import World

Needed: TypeAlias = "tuple[Document, SecretKey]"
_TIMEOUT_SECONDS: Final = 10.0


class RefersToSecrets(Protocol):
    """What a `wellhead_adapters.cli.plan.ManifestAdapter` may add, to be given Secrets of the cluster too."""

    def missing_secrets(self, document: Document, documents: Sequence[Document], /) -> Sequence[SecretKey]:
        """What `from_manifest` will look for in Secrets that are not among ``documents``, and has from nowhere else.

        A reference that is wrong in itself is left to `from_manifest` to tell.
        """


class SecretReader(Protocol):
    """What of `wellhead.kubernetes.api.Api` is needed here."""

    async def get(self, path: str, /) -> Mapping[str, object]: ...
    async def aclose(self) -> None: ...


def missing_secrets(documents: Sequence[Document], world: World) -> Iterator[Needed]:
    """What the documents need of Secrets that are not among them, each with the document that does. Pure."""
    own = own_kinds(world)
    for document in documents:
        reader = world.adapters[own[document.kind]]() if document.kind in own else None
        if hasattr(reader, "missing_secrets"):
            for key in cast("RefersToSecrets", reader).missing_secrets(document, documents):
                yield document, key


def stand_ins(needed: Sequence[Needed]) -> list[Document]:
    """Secrets with nothing of worth in them, for who only looks whether the rest is right. Pure."""
    return _documents({key: key.stand_in for _, key in needed})


class ClusterSecrets:
    """Asks the API server that ``open_api`` leads to, which is called when first something is needed of it."""

    def __init__(self, open_api: Callable[[], SecretReader]) -> None:
        self._open_api = open_api
        self._api: SecretReader | None = None

    async def fetch(self, needed: Sequence[Needed]) -> list[Document]:
        """Those Secrets as documents. Raises `ConfigError`, which tells of each what is wrong and what to do."""
        if not needed:
            return []
        try:
            api = self._api = self._api or self._open_api()
        except ConfigError as error:
            raise ConfigError(
                [_problem(one, f"no cluster can be asked for {_name(one)}: {error}") for one in needed]
            ) from None
        names = tuple(dict.fromkeys((key.namespace, key.name) for _, key in needed))
        bodies = dict(zip(names, await asyncio.gather(*(_body(api, *name) for name in names)), strict=True))
        problems: list[Problem] = []
        values: dict[SecretKey, str] = {}
        for one in needed:
            try:
                values[one[1]] = _value(bodies[one[1].namespace, one[1].name], one[1])
            except _Missing as error:
                if not one[1].optional:
                    problems.append(_problem(one, str(error)))
            except ValueError as error:
                problems.append(_problem(one, str(error)))
        if problems:
            raise ConfigError(problems)
        return _documents(values)

    async def aclose(self) -> None:
        """Close every connection."""
        if self._api is not None:
            await self._api.aclose()


def cluster_secrets(environment: Mapping[str, str], *, kubeconfig: str = "", context: str = "") -> ClusterSecrets:
    """Those of the pod's cluster, or of the kubeconfig's."""

    def open_api() -> SecretReader:
        cluster = find_cluster(environment, kubeconfig=kubeconfig, context=context)
        from wellhead.kubernetes.api import Api  # noqa: PLC0415 - aiohttp; most files hold all they need

        return Api(cluster, timeout=_TIMEOUT_SECONDS)

    return ClusterSecrets(open_api)


class _Missing(ValueError):
    """There is no such Secret, or no such key in it."""


async def _body(api: SecretReader, namespace: str, name: str) -> Mapping[str, object] | ApiError:
    try:
        return await api.get(f"/api/v1/namespaces/{quote(namespace, safe='')}/secrets/{quote(name, safe='')}")
    except ApiError as error:
        return error


def _value(body: Mapping[str, object] | ApiError, key: SecretKey) -> str:
    """What is stored under the key. Raises ValueError, for a person to read; `_Missing` where nothing is."""
    where = f"Secret {key.namespace}/{key.name} of the cluster"
    if isinstance(body, ApiError):
        raise (_Missing if body.status == 404 else ValueError)(_reason(body, where, key))
    data = body.get("data")
    stored = data if isinstance(data, Mapping) else {}
    if key.key not in stored:
        raise _Missing(f"{where} has no key {key.key!r}; it has {', '.join(sorted(map(ascii, stored))) or 'none'}")
    try:
        found = base64.b64decode(str(stored[key.key]), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        raise ValueError(f"{key.key!r} of {where} is no text") from None
    if not found.strip():
        raise ValueError(f"{key.key!r} of {where} is empty")
    return found


def _reason(error: ApiError, where: str, key: SecretKey) -> str:
    instead = "or put it into these files" + (f", or set {key.instead}" if key.instead else "")
    if error.status == 404:
        return f"there is no {where}: create it, {instead}"
    if error.status == 403:
        role = f"a Role that allows get of secrets, resourceNames [{key.name}], in namespace {key.namespace}"
        return f"{where} may not be read: it takes {role}; {instead} ({error})"
    return f"{where} cannot be read: {error}; try again, {instead}"


def _problem(needed: Needed, what: str) -> Problem:
    document, key = needed
    return Problem(f"{document.origin}, {document}: {key.path}", what)


def _name(needed: Needed) -> str:
    _, key = needed
    nor = f" (nor is {key.instead} set)" if key.instead else ""
    return f"Secret {key.namespace}/{key.name}, which is not among these documents{nor}"


def _documents(values: Mapping[SecretKey, str]) -> list[Document]:
    found: defaultdict[tuple[str, str], dict[str, str]] = defaultdict(dict)
    for key, value in values.items():
        found[key.namespace, key.name][key.key] = value
    return [
        Document(
            origin="the cluster",
            apiVersion="v1",
            kind="Secret",
            name=name,
            namespace=namespace,
            body={"metadata": {"name": name, "namespace": namespace}, "stringData": values},
        )
        for (namespace, name), values in found.items()
    ]
