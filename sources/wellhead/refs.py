"""Where a program's sinks by reference are: as ``--ref`` says, else as the API server of the pod or kubeconfig does.

Opens no connection, and imports nothing of Kubernetes, unless a sink needs it.
"""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Final

from .binding import Addressable, MappedRefs, Ref, resolve
from .errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .address import Address
    from .binding import Destination
    from .kubernetes.api import Api

_log = logging.getLogger(__name__)
_RESOLV_CONF: Final = Path("/etc/resolv.conf")


class Refs:
    """Finds addresses, and keeps them where they are. Close it with `aclose`."""

    def __init__(
        self,
        said: Mapping[str, str],
        environment: Mapping[str, str],
        *,
        namespace: str = "",
        account: str = "",
        audience: str = "",
        ca_certs: str = "",
    ) -> None:
        """``said`` is what ``--ref`` says; ``account`` the ServiceAccount that sinks with an audience get a token of."""
        self._said = MappedRefs(said)
        self._environment = environment
        self._namespace = namespace or "default"
        self._account = account
        self._audience = audience
        self._ca_certs = ca_certs
        self._api: Api | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def find(self, destination: Destination) -> Addressable:
        """Where ``destination`` is. What only the API server knows has an address that is none, until `keep` has asked.

        Raises `ConfigError` where nobody can say.
        """
        try:
            return await resolve(destination, self._said)
        except ConfigError:
            if destination.ref is None or not self._reach_api():
                raise
        return Addressable(url=_nowhere(destination.ref, self._namespace), ca_certs=destination.ca_certs)

    def keep(self, address: Address, destination: Destination) -> None:
        """Keep ``address`` at where ``destination`` is, with a token for it, as far as the API server has a part in it."""
        asked = destination.ref is not None and address.url == _nowhere(destination.ref, self._namespace)
        audience = self._audience or destination.audience
        if not asked and not (self._account and audience and self._reach_api()):
            return
        assert self._api is not None  # noqa: S101 - `find` has reached it, or the line above
        from .kubernetes.resolver import follow  # noqa: PLC0415 - most programs have no need of it

        work = follow(
            address,
            destination,
            self._api,
            namespace=self._namespace,
            domain=self._environment.get("CLUSTER_DOMAIN") or _domain(),
            account=self._account,
            audience=audience,
            ca_certs=self._ca_certs,
            said=None if asked else Addressable(url=address.url, ca_certs=destination.ca_certs, audience=audience),
        )
        self._tasks.add(asyncio.create_task(work, name=f"keep the address of {destination.ref or 'the sink'}"))

    async def aclose(self) -> None:
        """Ask no more."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._api is not None:
            await self._api.aclose()

    def _reach_api(self) -> bool:
        """Whether there is an API server to ask."""
        if self._api is None:
            from .kubernetes.cluster import find_cluster  # noqa: PLC0415 - most programs have no need of it

            environment = self._environment
            try:
                cluster = find_cluster(
                    environment,
                    server=environment.get("KUBERNETES_SERVER", ""),
                    context=environment.get("KUBE_CONTEXT", ""),
                )
            except ConfigError:
                return False
            from .kubernetes.api import Api  # noqa: PLC0415 - aiohttp, which costs 10 MiB

            self._api = Api(cluster)
        return True


def _nowhere(ref: Ref, namespace: str) -> str:
    """A URL for logs and metrics until the real one is known (RFC 2606 keeps .invalid free)."""
    return f"http://{ref.name}.{ref.namespace or namespace}.{ref.kind.lower()}.invalid"


def _domain() -> str:
    from .kubernetes.addressable import domain_of  # noqa: PLC0415 - most programs have no need of it

    try:
        return domain_of(_RESOLV_CONF.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return domain_of("")
