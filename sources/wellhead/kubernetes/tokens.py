"""Tokens for a sink by TokenRequest: ``K_OIDC_SERVICE_ACCOUNT`` shows itself to a sink with an audience."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import quote

from wellhead.credentials import bearer_token
from wellhead.errors import ConfigError, Problem
from wellhead.jwt import claims

from .errors import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from wellhead.credentials import Credentials

LIFE_SECONDS: Final = 3600
"""How long a token is asked to live, as Knative's adapters do."""
_EARLY_SECONDS: Final = 300.0
"""How long before its end a token is renewed; a shorter-lived one at half its life."""
_AGAIN_SECONDS: Final = 10.0
"""How often at most a token that the sink did not like is replaced."""


class Poster(Protocol):
    """What of `wellhead.kubernetes.api.Api` is needed here."""

    async def post(self, path: str, body: Mapping[str, object], /) -> Mapping[str, object]: ...


class TokenRequester:
    """Gives ``credentials`` tokens of one ServiceAccount, renewed before they expire and after a 401."""

    def __init__(
        self,
        api: Poster,
        credentials: Credentials,
        *,
        account: str,
        namespace: str,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._api = api
        self._credentials = credentials
        self._path = f"/api/v1/namespaces/{quote(namespace, safe='')}/serviceaccounts/{quote(account, safe='')}/token"
        self._account = f"ServiceAccount {namespace}/{account}"
        self._wall = wall
        self._audience = ""
        self._renew_at = float("-inf")
        self._asked_at = float("-inf")
        self._disliked = asyncio.Event()
        credentials.asked_anew = self._disliked.set

    async def renew(self, audience: str) -> None:
        """Ask for a token, if it is time, or if the sink did not like the last. Raises `ConfigError` where none is to
        be had; the last one stays in use.
        """
        now = self._wall()
        again = self._disliked.is_set() and now >= self._asked_at + _AGAIN_SECONDS
        if audience == self._audience and now < self._renew_at and not again:
            return
        self._disliked.clear()
        self._asked_at = now
        token = await self._token(audience)
        self._audience = audience
        self._renew_at = _renewal(token, now)
        self._credentials.give(token, audience=audience)

    async def sleep(self, seconds: float) -> None:
        """Wait so long; less where the sink does not like the token, or where it is to be renewed before."""
        now = self._wall()
        left = self._renew_at - now
        wait = min(seconds, left) if left > 0 else seconds  # overdue: it was refused, and is asked for at the next turn
        if self._disliked.is_set():
            await asyncio.sleep(min(wait, max(0.0, self._asked_at + _AGAIN_SECONDS - now)))
            return
        try:
            await asyncio.wait_for(self._disliked.wait(), wait)
        except TimeoutError:
            return

    async def _token(self, audience: str) -> str:
        spec = {"audiences": [audience], "expirationSeconds": LIFE_SECONDS}
        body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        try:
            answer = await self._api.post(self._path, body)
        except ApiError as error:
            raise self._problem(f"gets no token for audience {audience[:80]!a}: {error}") from None
        status = answer.get("status")
        try:
            return bearer_token(str(status.get("token") or "") if isinstance(status, dict) else "")
        except ValueError as error:
            raise self._problem(f"gets a token that {error}") from None

    def _problem(self, what: str) -> ConfigError:
        return ConfigError([Problem(self._account, what)])


def _renewal(token: str, now: float) -> float:
    """When to ask for the next. Lives are counted from now, by our clock: the server's may be another."""
    said = claims(token)
    life = float(LIFE_SECONDS)
    if said is not None and said.expires is not None:
        life = max(0.0, said.expires - (said.issued if said.issued is not None else now))
    return now + max(1.0, life - _EARLY_SECONDS, life / 2)
