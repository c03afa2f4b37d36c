"""Tokens for Kafka from an OAuth server: asked for once in most of their life, and what is told where there is none."""

from __future__ import annotations

import base64
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from tests.process import REFUSED_URL

from wellhead.env import read
from wellhead.http_server import HttpServer, Request, Response
from wellhead_adapters.kafka.connection import ConnectionSettings
from wellhead_adapters.kafka.tokens import ClientCredentials, NoToken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LIFE: Final = 100.0


class TokenServer:
    """Grants token-1, token-2, …, or answers as it is told to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.answer: Response | None = None

    def grant(self, request: Request) -> Response:
        self.requests.append(request)
        token = {"access_token": f"token-{len(self.requests)}", "expires_in": LIFE}
        return self.answer or Response(200, json.dumps(token).encode())

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = HttpServer(self.grant, name="token server")
        _, port = await server.start("127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{port}/token"
        finally:
            await server.stop(0)


def credentials(url: str, **own: str) -> ClientCredentials:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": "kafka",
        "KAFKA_NET_SASL_OAUTH_TOKEN_URL": url,
        "KAFKA_NET_SASL_OAUTH_CLIENT_ID": "me & you",
        "KAFKA_NET_SASL_OAUTH_CLIENT_SECRET": "hunter:2",
        **own,
    }
    return ClientCredentials(read(ConnectionSettings, environment))


async def test_a_token_is_used_for_most_of_its_life_and_then_another(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("wellhead_adapters.kafka.tokens.time.monotonic", lambda: now)
    server = TokenServer()
    async with server.running() as url:
        tokens = credentials(url)
        assert [await tokens.token(), await tokens.token()] == ["token-1", "token-1"]
        now += 0.79 * LIFE
        assert await tokens.token() == "token-1"
        now += 0.02 * LIFE
        assert await tokens.token() == "token-2"


async def test_id_and_secret_are_form_encoded_and_a_scope_is_asked_for() -> None:
    server = TokenServer()
    async with server.running() as url:
        await credentials(url, KAFKA_NET_SASL_OAUTH_SCOPE="a b").token()
    (request,) = server.requests
    assert request.body == b"grant_type=client_credentials&scope=a+b"
    said = (request.header("authorization") or "").removeprefix("Basic ")
    assert base64.b64decode(said) == b"me+%26+you:hunter%3A2"  # RFC 6749, 2.3.1


async def test_the_secret_is_read_for_each_token(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    server = TokenServer()
    async with server.running() as url:
        own = {"KAFKA_NET_SASL_OAUTH_CLIENT_SECRET": "", "KAFKA_NET_SASL_OAUTH_CLIENT_SECRET_FILE": str(file)}
        tokens = credentials(url, **own)
        with pytest.raises(NoToken, match="secret cannot be read"):
            await tokens.token()
        file.write_text("first\n")
        assert await tokens.token() == "token-1"


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (Response(401), "answers 401 to me & you"),
        (Response(302), "answers 302 to me & you"),  # a redirect would carry the secret elsewhere
        (Response(200, b"<html>"), "answers what is not JSON"),
        (Response(200, b"{}"), "answers without an access_token"),
        (Response(200, b"[]"), "answers without an access_token"),
        (Response(200, b'{"access_token":""}'), "holds no token"),
    ],
)
async def test_where_there_is_no_token_it_is_told_why(answer: Response, told: str) -> None:
    server = TokenServer()
    server.answer = answer
    async with server.running() as url:
        with pytest.raises(NoToken) as no_token:
            await credentials(url).token()
    assert str(no_token.value) == f"{url} {told}"


async def test_a_server_that_is_not_there_is_told_of() -> None:
    with pytest.raises(NoToken, match=r"^http://127\.0\.0\.1:1/: "):
        await credentials(REFUSED_URL).token()
