"""Asks the API server where a ``ref`` is, and for tokens to show there; keeps an address at what it says.

Polls with ``get``, which is all its Role needs: a watch of one object would need ``list`` and ``watch`` of its kind.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Final, Never, Protocol
from urllib.parse import quote

from wellhead.binding import Addressable, resolve
from wellhead.errors import ConfigError

from .addressable import CLUSTER_DOMAIN, address_of, api_version_of, is_core_service, problem, service_address
from .discovery import Discovery
from .errors import ApiError
from .kinds import Gvr, guess_plural, parse_api_version
from .tokens import TokenRequester

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping

    from wellhead.address import Address
    from wellhead.binding import Destination, Ref

LOOK_SECONDS: Final = 10.0
"""How often an address that is known is looked at again."""
_FIRST_WAIT: Final = 0.25

_log = logging.getLogger(__name__)


class ApiServer(Protocol):
    """What of `wellhead.kubernetes.api.Api` is needed here."""

    async def get(self, path: str, /) -> Mapping[str, object]: ...
    async def post(self, path: str, body: Mapping[str, object], /) -> Mapping[str, object]: ...


class ApiResolver:
    """A `wellhead.binding.Resolver` that asks the API server: a Service of Kubernetes or Knative, Channel, Broker,
    Sequence, Parallel, KafkaChannel, or whatever else has an address in its status.
    """

    def __init__(
        self, api: ApiServer, *, namespace: str, domain: str = CLUSTER_DOMAIN, secure_services: bool = False
    ) -> None:
        """``namespace`` is that of a ``ref`` without one. ``secure_services``: a Service is reached by https."""
        self._api = api
        self._discovery = Discovery(api)
        self._namespace = namespace
        self._domain = domain
        self._secure_services = secure_services

    async def resolve(self, ref: Ref) -> Addressable:
        """Raises `ConfigError` that says what is not there (yet), or why the server does not tell."""
        namespace = ref.namespace or self._namespace
        body = await self._object(ref, namespace)
        if is_core_service(ref):
            return service_address(ref, namespace, self._domain, secure=self._secure_services)
        return address_of(ref, body)

    async def _object(self, ref: Ref, namespace: str) -> Mapping[str, object]:
        version = api_version_of(ref)
        try:
            gvr = Gvr(*parse_api_version(version), guess_plural(ref.kind))
        except ValueError as error:
            raise problem(ref, f"apiVersion {version[:80]!a} {error}") from None
        try:
            kind = await self._discovery.find(gvr)
            if kind is None:
                raise problem(ref, f"is of a kind that the API server does not serve: {ref.kind} of {version}")
            return await self._api.get(f"{kind.path(namespace)}/{quote(ref.name, safe='')}")
        except ApiError as error:
            if error.status == 404:
                raise problem(ref, f"is not there (namespace {namespace})") from None
            raise problem(ref, f"cannot be looked up: {error}") from None


async def resolved(api: ApiServer, destination: Destination, *, namespace: str, domain: str) -> Addressable:
    """Where ``destination`` is now. Raises `ConfigError`."""
    secure = bool(destination.ca_certs)
    return await resolve(destination, ApiResolver(api, namespace=namespace, domain=domain, secure_services=secure))


def follow(
    address: Address,
    destination: Destination,
    api: ApiServer,
    *,
    namespace: str,
    domain: str = CLUSTER_DOMAIN,
    account: str = "",
    audience: str = "",
    ca_certs: str = "",
    said: Addressable | None = None,
    wall: Callable[[], float] = time.time,
) -> Coroutine[object, object, Never]:
    """Keep ``address`` at what ``destination`` resolves to, until cancelled; with tokens of the ServiceAccount
    ``account`` for its audience, where both are known.

    From the call on, until it resolves and a token that is needed is there, tries fail as those of a sink that takes
    no connection, and say why. Later an object that is gone, or a server that is away, leaves the address as it is.
    ``audience`` and ``ca_certs`` are what was said about the sink beside the ``ref``. Where an address was ``said``,
    it is not asked for: only tokens are.
    """
    address.unreachable = f"{destination.ref or 'the sink'} is not resolved yet"
    tokens = None
    if account:
        tokens = TokenRequester(api, address.credentials, account=account, namespace=namespace, wall=wall)

    async def look() -> Addressable:
        return said or await resolved(api, destination, namespace=namespace, domain=domain)

    return _follow(address, look, tokens, audience=audience, ca_certs=ca_certs)


async def _follow(
    address: Address,
    look: Callable[[], Awaitable[Addressable]],
    tokens: TokenRequester | None,
    *,
    audience: str,
    ca_certs: str,
) -> Never:
    told, failures = "", 0
    while True:
        trouble = ""
        try:
            found = await look()
        except ConfigError as error:
            trouble = str(error)
        else:
            trouble = await _renewed(tokens, audience or found.audience)
            if not trouble or not address.unreachable:  # the last token may still do
                address.move(found.url, "\n".join(filter(None, (ca_certs, found.ca_certs))))
        if trouble and address.unreachable:
            address.unreachable = trouble
        if trouble != told:
            _tell(address, trouble)
        told, failures = trouble, failures + 1 if trouble else 0
        wait = LOOK_SECONDS if not failures else min(LOOK_SECONDS, _FIRST_WAIT * 2.0 ** min(failures - 1, 10))
        await (tokens.sleep(wait) if tokens is not None else asyncio.sleep(wait))


async def _renewed(tokens: TokenRequester | None, audience: str) -> str:
    """Why there is no new token, where one is due; "" otherwise."""
    try:
        if tokens is not None and audience:
            await tokens.renew(audience)
    except ConfigError as error:
        return str(error)
    return ""


def _tell(address: Address, trouble: str) -> None:
    if trouble:
        _log.warning("sink is not resolved", extra={"sink": address.shown, "problem": trouble})
    else:
        _log.info("sink is resolved again", extra={"sink": address.shown})
