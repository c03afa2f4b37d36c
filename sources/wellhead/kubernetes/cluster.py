"""Where the API server is, and who we are to it. Knows no request."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, Protocol

from wellhead.credentials import bearer_token
from wellhead.errors import ConfigError, Problem
from wellhead.watched_file import WatchedFile, content, stamp

if TYPE_CHECKING:
    from collections.abc import Mapping

MOUNTED: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the token and the CA of its ServiceAccount."""
_NO_KUBECONFIG: Final = "no API server: this is no pod, and there is no kubeconfig; give --kubeconfig or --server"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approach:
    """How to make one request, as credentials are now."""

    url: str
    """``https://10.96.0.1:443``, without a slash at its end; the ``source`` of events."""
    authorization: str | None = None
    tls: ssl.SSLContext | None = None
    """Another object exactly when what it holds has changed. None for http."""
    server_hostname: str | None = None
    proxy: str | None = None

    def __repr__(self) -> str:
        return f"Approach(url={self.url!r})"


class Cluster(Protocol):
    """A cluster to talk to."""

    async def approach(self, *, anew: bool = False) -> Approach:
        """How to make the next request. ``anew`` after a 401 or a failed handshake: read every file again.

        Raises `ApiError` (``Credentials``) where there is nothing to show.
        """


class PlainCluster:
    """An API server that asks for nothing: ``kubectl proxy``, or a fake of the tests."""

    def __init__(self, url: str) -> None:
        self._approach = Approach(url=url.rstrip("/"), tls=ssl.create_default_context() if _is_https(url) else None)

    async def approach(self, *, anew: bool = False) -> Approach:  # noqa: ARG002 - there is nothing to read again
        return self._approach


class PodCluster:
    """The cluster we run in: the token and the CA that are mounted into a pod, read again when they rotate.

    Knows no proxy: a pod's API server is in its own network.
    """

    def __init__(self, url: str, folder: Path = MOUNTED) -> None:
        self._url = url
        self._ca = folder / "ca.crt"
        self._token = WatchedFile(
            folder / "token", lambda octets: bearer_token(octets.decode("ascii", "replace")), what="token", initial=""
        )
        self._ca_stamp: object = None
        self._tls: ssl.SSLContext | None = None

    async def approach(self, *, anew: bool = False) -> Approach:
        self._token.look(force=anew)
        return Approach(
            url=self._url,
            authorization=f"Bearer {self._token.value}" if self._token.value else None,
            tls=self._context(anew=anew) if _is_https(self._url) else None,
        )

    def _context(self, *, anew: bool) -> ssl.SSLContext:
        now = stamp(self._ca)
        if self._tls is None or now != self._ca_stamp or anew:
            self._tls = _trusting(self._ca, self._tls)
            self._ca_stamp = now
        return self._tls


def in_pod(environment: Mapping[str, str], folder: Path = MOUNTED) -> PodCluster | None:
    """The cluster that this process is a pod of; None where it is none."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST"), environment.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (folder / "token").exists():
        return None
    return PodCluster(f"https://{f'[{host}]' if ':' in host else host}:{port}", folder)


def find_cluster(
    environment: Mapping[str, str], *, server: str = "", kubeconfig: str = "", context: str = "", folder: Path = MOUNTED
) -> Cluster:
    """``server``; else the kubeconfig that is named; else the pod's; else the kubeconfig at its usual place.

    Opens no connection. Raises `ConfigError` where there is none of them.
    """
    if server:
        return PlainCluster(server)
    pod = None if kubeconfig else in_pod(environment, folder)
    if pod is not None:
        return pod
    from .kubeconfig import KubeconfigCluster, usual_place  # noqa: PLC0415 - a pod has no need of it

    paths = kubeconfig or usual_place(environment)
    if not paths:
        raise ConfigError([Problem("kubeconfig, KUBECONFIG", _NO_KUBECONFIG)])
    return KubeconfigCluster(paths, context=context, environment=environment)


def client_context(ca_file: str | None) -> ssl.SSLContext:
    """TLS as Go's client speaks it. Raises OSError or ssl.SSLError for a CA file that is none."""
    context = ssl.create_default_context(cafile=ca_file)
    # As Go's TLS, and alike in every Python: 3.13 began to refuse the CAs of many a cluster for details of RFC 5280.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _trusting(ca: Path, before: ssl.SSLContext | None) -> ssl.SSLContext:
    """A context for what ``ca`` holds; the one before where it holds the same, or nothing that can be read."""
    try:
        pem = content(ca).decode("ascii", "ignore")
        context = client_context(None)
        context.load_verify_locations(cadata=pem)
    except (ValueError, ssl.SSLError):
        return before or client_context(None)
    same = before is not None and before.get_ca_certs(binary_form=True) == context.get_ca_certs(binary_form=True)
    return before if before is not None and same else context


def _is_https(url: str) -> bool:
    return url.startswith("https://")
