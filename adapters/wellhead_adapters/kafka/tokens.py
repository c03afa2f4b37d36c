"""Bearer tokens for SASL: from a file, for OAuth client credentials, for an AWS identity. aiokafka asks at each connection."""

from __future__ import annotations

import asyncio
import time
from base64 import b64encode
from typing import TYPE_CHECKING, Final
from urllib.parse import quote_plus

from aiokafka.abc import AbstractTokenProvider

from .connection import Mechanism
from .secret_files import FileProblem, secret

if TYPE_CHECKING:
    from pathlib import Path

    from .connection import ConnectionSettings

_TIMEOUT_SECONDS: Final = 20.0
_LONGEST: Final = 1 << 20
_USED_OF_LIFE: Final = 0.8
"""A token is asked for anew after this part of its life: a connection made at its very end would be refused."""


class NoToken(ConnectionError):
    """There is no token to be had, and the text says why. A ConnectionError, as aiokafka goes on trying after those."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """The token that somebody else keeps fresh in a file, as a kubelet does."""

    def __init__(self, file: Path) -> None:
        self._file = file

    async def token(self) -> str:
        try:
            found = secret("", self._file)
        except FileProblem as problem:
            raise NoToken(str(problem)) from None
        return _checked(found, str(self._file))


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Tokens of an OAuth server for client id and secret (RFC 6749, 4.4); one is used for most of its life."""

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._asking = asyncio.Lock()
        self._kept = ""
        self._until = 0.0

    async def token(self) -> str:
        async with self._asking:
            if time.monotonic() >= self._until:
                self._kept, life = await self._ask()
                self._until = time.monotonic() + life * _USED_OF_LIFE
            return self._kept

    async def _ask(self) -> tuple[str, float]:
        import aiohttp  # noqa: PLC0415 - takes 160 ms, and most connections need no token

        said = self._settings
        form = {"grant_type": "client_credentials"} | ({"scope": said.oauth_scope} if said.oauth_scope else {})
        try:
            word = secret(said.oauth_client_secret, said.oauth_client_secret_file)
            headers = {"Authorization": _basic(said.oauth_client_id, word), "Accept": "application/json"}
            timeout = aiohttp.ClientTimeout(total=_TIMEOUT_SECONDS)
            async with (
                aiohttp.ClientSession(trust_env=True, timeout=timeout) as session,
                session.post(said.oauth_token_url, data=form, headers=headers, allow_redirects=False) as answer,
            ):
                if answer.status != 200:
                    raise NoToken(f"{said.oauth_token_url} answers {answer.status} to {said.oauth_client_id}")
                document = await answer.json(content_type=None)
        except FileProblem as problem:
            raise NoToken(str(problem)) from None
        except (aiohttp.ClientError, TimeoutError) as error:
            raise NoToken(f"{said.oauth_token_url}: {str(error) or type(error).__name__}") from None
        except ValueError:
            raise NoToken(f"{said.oauth_token_url} answers what is not JSON") from None
        return _of_answer(document, said.oauth_token_url)


class MskIam(AbstractTokenProvider):  # type: ignore[misc]  # aiokafka ships no types
    """Tokens for Amazon MSK, signed with the AWS identity that boto3 finds (environment, pod identity, instance)."""

    def __init__(self, region: str) -> None:
        self._region = region

    async def token(self) -> str:
        return await asyncio.to_thread(self._sign)

    def _sign(self) -> str:
        from aws_msk_iam_sasl_signer import MSKAuthTokenProvider  # noqa: PLC0415 - the extra `msk`

        try:
            token, _ = MSKAuthTokenProvider.generate_auth_token(self._region)
        except Exception as error:  # noqa: BLE001 - botocore's errors have no root, and none of them is ours to raise
            raise NoToken(f"no AWS identity to sign with: {error}") from None
        return str(token)


def provider(settings: ConnectionSettings) -> AbstractTokenProvider:
    """Where this mechanism's tokens come from."""
    if settings.mechanism is Mechanism.AWS_MSK_IAM:
        return MskIam(settings.aws_region)
    if settings.oauth_token_file is not None:
        return TokenFile(settings.oauth_token_file)
    return ClientCredentials(settings)


def _basic(client_id: str, client_secret: str) -> str:
    """RFC 6749, 2.3.1: both are form-encoded before they are joined."""
    return "Basic " + b64encode(f"{quote_plus(client_id)}:{quote_plus(client_secret)}".encode()).decode()


def _of_answer(document: object, url: str) -> tuple[str, float]:
    token = document.get("access_token") if isinstance(document, dict) else None
    if not isinstance(token, str):
        raise NoToken(f"{url} answers without an access_token")
    life = document.get("expires_in", 0) if isinstance(document, dict) else 0
    return _checked(token, url), float(life) if isinstance(life, int | float) else 0.0


def _checked(token: str, where: str) -> str:
    # RFC 7628, 3.1: the token stands between ^A; anything else in it would be another field.
    if not token or not token.isascii() or not token.isprintable() or len(token) > _LONGEST:
        raise NoToken(f"{where} holds no token")
    return token
