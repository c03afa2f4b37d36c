"""What can go wrong between us and an API server, as one exception. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wellhead.errors import WellheadError

if TYPE_CHECKING:
    from collections.abc import Mapping

CONNECT = "Connect"
"""No connection: refused, unreachable, name not found."""
TLS = "TLS"
"""The handshake failed: a CA that is not trusted, a host name, a client certificate."""
SILENT = "Silent"
"""Nothing came for longer than it may take: a connection that is half open, or a server that hangs."""
BROKEN = "Broken"
"""The connection broke before the answer was complete."""
GARBLED = "Garbled"
"""What came is not what an API server says."""
CREDENTIALS = "Credentials"
"""There is nothing to show who we are: a kubeconfig or what it starts does not work."""


class ApiError(WellheadError):
    """A request that the API server did not grant, or that did not reach it.

    ``status`` is the HTTP status, or the code of an ERROR in a watch; 0 where there was no answer. ``reason`` is
    Kubernetes' own word (``Expired``, ``Forbidden``), or one of this module's where there was no answer.
    ``retry_after`` is how many seconds the server asks us to wait.
    """

    def __init__(self, status: int, reason: str, message: str, *, retry_after: float | None = None) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        self.retry_after = retry_after
        super().__init__(f"{status or 'no answer'} {reason}: {message}")


def from_status(body: Mapping[str, object], *, status: int = 0, retry_after: float | None = None) -> ApiError:
    """The error that a ``Status`` object tells; what it leaves out is taken from the HTTP answer that brought it."""
    details = body.get("details")
    seconds = details.get("retryAfterSeconds") if isinstance(details, dict) else None
    code = body.get("code")
    return ApiError(
        code if isinstance(code, int) and code else status,
        str(body.get("reason") or "Unknown"),
        str(body.get("message") or "")[:1000],
        retry_after=retry_after if retry_after is not None else _seconds(seconds),
    )


def _seconds(value: object) -> float | None:
    return float(value) if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
