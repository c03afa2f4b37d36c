"""A kubeconfig with all its kinds of credentials: exec plugins, OIDC, client certificates, tokens.

kubernetes-asyncio reads it; its import, half of what a source weighs, happens only here, and never in a pod.
"""

from __future__ import annotations

import asyncio
import os
import re
import ssl
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from wellhead.credentials import bearer_token
from wellhead.jwt import claims
from wellhead.transport.proxies import Proxies
from wellhead.watched_file import Stamp, stamp

from .cluster import Approach, client_context
from .errors import CREDENTIALS, ApiError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes_asyncio.client import Configuration

_LOAD_SECONDS: Final = 300.0
"""How long what a kubeconfig starts may take: it may ask a person to log in."""
_FRESH_SECONDS: Final = 60.0
"""How long credentials that do not say when they expire are used before the kubeconfig is asked again."""


def usual_place(environment: Mapping[str, str]) -> str:
    """``KUBECONFIG`` (one or more paths), else ``~/.kube/config`` where it is there; else ""."""
    if environment.get("KUBECONFIG"):
        return environment["KUBECONFIG"]
    home = Path(environment.get("HOME") or "/") / ".kube/config"
    return str(home) if home.is_file() else ""


class KubeconfigCluster:
    """The cluster of a kubeconfig's context, with credentials as fresh as they must be."""

    def __init__(self, paths: str, *, context: str = "", environment: Mapping[str, str] | None = None) -> None:
        self._paths = paths
        self._context = context
        self._proxies = Proxies(environment or {})
        self._approach: Approach | None = None
        self._loading = asyncio.Lock()
        self._loads = 0
        self._stamps: tuple[Stamp | None, ...] = ()
        self._until = 0.0
        self._tls_of: tuple[object, ...] = ()
        self._tls: ssl.SSLContext | None = None

    async def approach(self, *, anew: bool = False) -> Approach:
        loads = self._loads
        if not anew and self._approach is not None and self._is_fresh():
            return self._approach
        async with self._loading:
            # Who waited for another's load has what that brought: a thousand watches start a plugin once.
            if self._approach is None or (loads == self._loads and (anew or not self._is_fresh())):
                stamps = self._stamps_now()
                self._approach = await self._load_in_time()
                self._stamps = stamps
                self._loads += 1
            return self._approach

    def _is_fresh(self) -> bool:
        return time.time() < self._until and self._stamps_now() == self._stamps

    def _stamps_now(self) -> tuple[Stamp | None, ...]:
        return tuple(stamp(Path(path)) for path in self._paths.split(os.pathsep))

    async def _load_in_time(self) -> Approach:
        try:
            async with asyncio.timeout(_LOAD_SECONDS):
                return await self._load()
        except TimeoutError:
            what = f"kubeconfig {self._paths}: no credentials within {_LOAD_SECONDS:.0f} s"
            raise ApiError(0, CREDENTIALS, what) from None

    async def _load(self) -> Approach:
        from kubernetes_asyncio.client import Configuration  # noqa: PLC0415 - heavy
        from kubernetes_asyncio.config import load_kube_config  # noqa: PLC0415 - heavy

        read = Configuration()
        try:
            await load_kube_config(self._paths, self._context or None, read)
        except Exception as error:  # noqa: BLE001 - it raises whatever its plugins and parsers raise
            said = str(error) or type(error).__name__
            raise ApiError(0, CREDENTIALS, f"kubeconfig {self._paths}: {said[:300]}") from None
        host = (read.host or "").rstrip("/")
        try:
            _check_place("server", host)
            proxy = read.proxy or self._proxies.proxy(host)
            if proxy:
                _check_place("proxy-url", proxy)
            authorization = _bearer(read.api_key.get("BearerToken"))
        except ValueError as error:
            raise ApiError(0, CREDENTIALS, f"kubeconfig {self._paths}: {error}") from None
        self._until = _until(authorization)
        return Approach(
            url=host,
            authorization=authorization,
            tls=self._context_of(read) if host.startswith("https://") else None,
            server_hostname=read.tls_server_name,
            proxy=proxy,
        )

    def _context_of(self, read: Configuration) -> ssl.SSLContext:
        files = (read.ssl_ca_cert, read.cert_file, read.key_file)
        facts = (*files, *(stamp(Path(path)) for path in files if path), read.verify_ssl)
        if self._tls is not None and facts == self._tls_of:
            return self._tls
        try:
            context = client_context(read.ssl_ca_cert)
            if read.cert_file:
                context.load_cert_chain(read.cert_file, read.key_file)
        except OSError as error:  # an SSLError is one
            raise ApiError(0, CREDENTIALS, f"kubeconfig {self._paths}: certificates: {error}") from None
        if not read.verify_ssl:  # the kubeconfig says insecure-skip-tls-verify
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        self._tls, self._tls_of = context, facts
        return context


def _check_place(what: str, url: str) -> None:
    """Raises ValueError where no request can be made there."""
    shown = f"{what} {re.sub('//[^/@]*@', '//…@', url)!r}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError(f"{shown} has a host or a port that cannot be read") from None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{shown} is no address such as https://10.0.0.1:6443")
    if not _can_be_looked_up(parts.hostname):
        raise ValueError(f"{shown} has a host that is no name: between its dots are 1 to 63 characters each")


def _can_be_looked_up(host: str) -> bool:
    """Whether it is an address, or a name that asyncio hands to DNS: it raises UnicodeError for any other."""
    try:
        return bool(host.encode("idna"))
    except UnicodeError:
        return False


def _bearer(authorization: str | None) -> str | None:
    """Raises ValueError, which does not show it, where it cannot be sent."""
    if not authorization or authorization.startswith("Basic "):
        return authorization or None
    try:
        return f"Bearer {bearer_token(authorization.removeprefix('Bearer '))}"
    except ValueError as error:
        raise ValueError(f"the token {error}") from None


def _until(authorization: str | None) -> float:
    said = claims(authorization.removeprefix("Bearer ")) if authorization else None
    if said is None or said.expires is None:
        return time.time() + _FRESH_SECONDS
    life = said.expires - (said.issued if said.issued is not None else time.time())
    return max(said.expires - max(60.0, life * 0.1), time.time() + 1.0)
