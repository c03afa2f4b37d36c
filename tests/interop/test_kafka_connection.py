"""Every way to connect to a real broker, and what a person is told where it does not work."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import logging
import time
from typing import TYPE_CHECKING, Final

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, TopicAuthorizationFailedError
from tests.interop.kafka_cluster import (
    PASSWORD,
    REAUTHENTICATE_SECONDS,
    TOKEN_SUBJECT,
    UNPRIVILEGED,
    USER,
    Cluster,
    create_topic,
    free_ports,
)

from wellhead.env import read
from wellhead.http_server import HttpServer, Request, Response
from wellhead_adapters.kafka.connection import ConnectionSettings
from wellhead_adapters.kafka.failures import Failures
from wellhead_adapters.kafka.security import client_options

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

TOPIC: Final = "connections"
BY_PASSWORD: Final = {"KAFKA_NET_SASL_USER": USER, "KAFKA_NET_SASL_PASSWORD": PASSWORD}
PASSWORD_MECHANISMS: Final = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
REQUEST_MS: Final = 3_000
IN_TIME: Final = 20.0


@pytest.fixture(scope="module")
def cluster(kafka: Cluster) -> Cluster:
    asyncio.run(create_topic(kafka.bootstrap, TOPIC))
    return kafka


def tls(cluster: Cluster) -> dict[str, str]:
    return {"KAFKA_NET_TLS_CA_CERT_FILE": str(cluster.certificates.ca)}


def client_certificate(cluster: Cluster) -> dict[str, str]:
    files = cluster.certificates
    return {"KAFKA_NET_TLS_CERT": files.client_cert.read_text(), "KAFKA_NET_TLS_KEY": files.client_key.read_text()}


def token(subject: str = TOKEN_SUBJECT, seconds: float = 3600) -> str:
    """An unsecured JSON Web Token, which Kafka's own validator takes for tests."""
    now = time.time()
    parts = ({"alg": "none"}, {"sub": subject, "iat": now, "exp": now + seconds})
    return "".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") + "." for part in parts)


@contextlib.asynccontextmanager
async def producing(
    cluster: Cluster, listener: str, environment: Mapping[str, str]
) -> AsyncIterator[tuple[AIOKafkaProducer, Failures]]:
    settings = read(ConnectionSettings, {"KAFKA_BOOTSTRAP_SERVERS": cluster.servers(listener), **environment})
    failures = Failures(settings)
    failures.listen()
    producer = AIOKafkaProducer(**client_options(settings), request_timeout_ms=REQUEST_MS, acks="all")
    try:
        await producer.start()
        failures.watch(producer)
        yield producer, failures
    except KafkaConnectionError as error:
        raise ConnectionError(failures.why()) from error
    finally:
        await producer.stop()


async def send(cluster: Cluster, listener: str, environment: Mapping[str, str]) -> None:
    async with producing(cluster, listener, environment) as (producer, _):
        await producer.send_and_wait(TOPIC, b"x")


# --- every mechanism connects ---


async def test_plain_text(cluster: Cluster) -> None:
    await send(cluster, "PLAIN", {})


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
@pytest.mark.parametrize("listener", ["SASL", "SASL_TLS"])
async def test_user_and_password(cluster: Cluster, listener: str, mechanism: str) -> None:
    environment = {**BY_PASSWORD, "KAFKA_NET_SASL_TYPE": mechanism}
    await send(cluster, listener, environment | (tls(cluster) if listener == "SASL_TLS" else {}))


async def test_user_and_password_from_files(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "user").write_text(f"{USER}\n", encoding="utf-8")
    (tmp_path / "password").write_text(f"{PASSWORD}\n", encoding="utf-8")
    names = {"KAFKA_NET_SASL_USER_FILE": "user", "KAFKA_NET_SASL_PASSWORD_FILE": "password"}
    await send(cluster, "SASL", {variable: str(tmp_path / name) for variable, name in names.items()})


async def test_tls_with_an_authority_of_ones_own(cluster: Cluster) -> None:
    await send(cluster, "TLS", tls(cluster))


async def test_a_certificate_as_identity(cluster: Cluster) -> None:
    await send(cluster, "MTLS", tls(cluster) | client_certificate(cluster))


async def test_a_certificate_as_identity_from_files(cluster: Cluster) -> None:
    files = cluster.certificates
    named = {"KAFKA_NET_TLS_CERT_FILE": str(files.client_cert), "KAFKA_NET_TLS_KEY_FILE": str(files.client_key)}
    await send(cluster, "MTLS", tls(cluster) | named)


async def test_a_token_from_a_file(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token(), encoding="ascii")
    await send(cluster, "OAUTH", {"KAFKA_NET_SASL_OAUTH_TOKEN_FILE": str(tmp_path / "token")})


async def test_a_token_for_client_credentials(cluster: Cluster) -> None:
    asked: list[Request] = []

    def grant(request: Request) -> Response:
        asked.append(request)
        document = {"access_token": token(), "token_type": "Bearer", "expires_in": 3600}
        return Response(200, json.dumps(document).encode())

    server = HttpServer(grant, name="token server")
    _, port = await server.start("127.0.0.1", 0)
    try:
        environment = {
            "KAFKA_NET_SASL_OAUTH_TOKEN_URL": f"http://127.0.0.1:{port}/token",
            "KAFKA_NET_SASL_OAUTH_CLIENT_ID": "me",
            "KAFKA_NET_SASL_OAUTH_CLIENT_SECRET": "hunter2",
            "KAFKA_NET_SASL_OAUTH_SCOPE": "kafka",
        }
        await send(cluster, "OAUTH", environment)
    finally:
        await server.stop(0)
    (request,) = asked  # two connections, one token
    assert request.body == b"grant_type=client_credentials&scope=kafka"
    authorization = next(value for name, value in request.headers if name.lower() == b"authorization")
    assert base64.b64decode(authorization.removeprefix(b"Basic ")) == b"me:hunter2"


# --- and stays connected ---


async def test_the_broker_may_ask_for_the_token_again(cluster: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(token(seconds=REAUTHENTICATE_SECONDS), encoding="ascii")
    environment = {"KAFKA_NET_SASL_OAUTH_TOKEN_FILE": str(file)}
    async with producing(cluster, "OAUTH", environment) as (producer, _):
        await producer.send_and_wait(TOPIC, b"before")
        file.write_text(token(), encoding="ascii")
        await disconnected(producer)
        await asyncio.wait_for(producer.send_and_wait(TOPIC, b"after"), IN_TIME)


async def test_a_password_that_changed_is_read_again(
    cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "password"
    await asyncio.to_thread(cluster.change_password, "dave", "first")
    file.write_text("first", encoding="ascii")
    environment = {
        "KAFKA_NET_SASL_TYPE": "SCRAM-SHA-512",
        "KAFKA_NET_SASL_USER": "dave",
        "KAFKA_NET_SASL_PASSWORD_FILE": str(file),
    }
    async with producing(cluster, "SASL", environment) as (producer, failures):
        await asyncio.to_thread(cluster.change_password, "dave", "second")
        await disconnected(producer)
        file.write_text("second", encoding="ascii")
        # dave is allowed no topic: the broker's no to that is its yes to the password.
        with pytest.raises(TopicAuthorizationFailedError):
            await asyncio.wait_for(producer.send_and_wait(TOPIC, b"after"), IN_TIME)
    told = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert failures.why().count("'dave' or the password") == 1
    assert [record.getMessage() for record in told if record.name.startswith("wellhead")] == [
        "no connection to a broker"
    ]


async def disconnected(producer: AIOKafkaProducer) -> None:
    """Wait until the broker has closed every connection of the producer: it is asked for metadata until then."""
    connections = [*producer.client._conns.values()]
    async with asyncio.timeout(IN_TIME):
        for connection in connections:
            while connection.connected():
                await producer.client.force_metadata_update()
                await asyncio.sleep(0.05)


# --- what a person is told ---

WRONG_PASSWORD: Final = {"KAFKA_NET_SASL_USER": USER, "KAFKA_NET_SASL_PASSWORD": "hunter2"}


@pytest.mark.parametrize("mechanism", PASSWORD_MECHANISMS)
async def test_a_wrong_password(cluster: Cluster, mechanism: str) -> None:
    with pytest.raises(ConnectionError) as failed:
        await send(cluster, "SASL", {**WRONG_PASSWORD, "KAFKA_NET_SASL_TYPE": mechanism})
    assert f"{cluster.servers('SASL')}: it refuses 'alice' or the password ({mechanism})" in str(failed.value)
    assert "hunter2" not in str(failed.value)


async def test_a_mechanism_that_is_not_spoken_there(cluster: Cluster) -> None:
    environment = {**BY_PASSWORD, "KAFKA_NET_SASL_TYPE": "PLAIN"}
    with pytest.raises(ConnectionError, match="it does not take PLAIN there"):
        await send(cluster, "OAUTH", environment)


async def test_a_token_that_is_over(cluster: Cluster, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(token(seconds=-3600), encoding="ascii")
    with pytest.raises(ConnectionError, match=r"it refuses our token \(OAUTHBEARER\)|no token"):
        await send(cluster, "OAUTH", {"KAFKA_NET_SASL_OAUTH_TOKEN_FILE": str(tmp_path / "token")})


async def test_no_token_at_all(cluster: Cluster, tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="token cannot be read: No such file"):
        await send(cluster, "OAUTH", {"KAFKA_NET_SASL_OAUTH_TOKEN_FILE": str(tmp_path / "token")})


async def test_a_token_server_that_says_no(cluster: Cluster) -> None:
    server = HttpServer(lambda _: Response(401), name="token server")
    _, port = await server.start("127.0.0.1", 0)
    try:
        environment = {
            "KAFKA_NET_SASL_OAUTH_TOKEN_URL": f"http://127.0.0.1:{port}/token",
            "KAFKA_NET_SASL_OAUTH_CLIENT_ID": "me",
            "KAFKA_NET_SASL_OAUTH_CLIENT_SECRET": "hunter2",
        }
        with pytest.raises(ConnectionError, match=f":{port}/token answers 401 to me"):
            await send(cluster, "OAUTH", environment)
    finally:
        await server.stop(0)


async def test_a_foreign_authority(cluster: Cluster) -> None:
    with pytest.raises(ConnectionError, match=r"its certificate is not trusted: .* \(KAFKA_NET_TLS_CA_CERT\)"):
        await send(cluster, "TLS", {"KAFKA_NET_TLS_CA_CERT_FILE": str(cluster.certificates.foreign_ca)})


async def test_the_systems_authorities_where_none_are_given(cluster: Cluster) -> None:
    with pytest.raises(ConnectionError, match="its certificate is not trusted"):
        await send(cluster, "TLS", {"KAFKA_NET_TLS_ENABLE": "true"})


async def test_a_certificate_for_another_name(cluster: Cluster) -> None:
    with pytest.raises(ConnectionError, match=r"its certificate is for another name: .*127\.0\.0\.1"):
        await send(cluster, "ELSEWHERE", tls(cluster))


async def test_a_certificate_for_another_name_may_be_taken_with_a_warning(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    await send(cluster, "ELSEWHERE", {**tls(cluster), "KAFKA_NET_TLS_VERIFY_HOST_NAME": "false"})
    assert "brokers' certificates are not held against their names" in caplog.text


async def test_no_client_certificate_where_one_is_wanted(cluster: Cluster) -> None:
    with pytest.raises(ConnectionError, match="the alert 'bad certificate': about our certificate, or for want of one"):
        await send(cluster, "MTLS", tls(cluster))


async def test_a_client_certificate_of_a_foreign_authority(cluster: Cluster) -> None:
    files = cluster.certificates
    named = {"KAFKA_NET_TLS_CERT_FILE": str(files.foreign_cert), "KAFKA_NET_TLS_KEY_FILE": str(files.foreign_key)}
    with pytest.raises(ConnectionError, match="about our certificate"):
        await send(cluster, "MTLS", tls(cluster) | named)


async def test_tls_to_a_listener_without(cluster: Cluster) -> None:
    with pytest.raises(ConnectionError, match="closes the connection at once: does its listener speak TLS"):
        await send(cluster, "PLAIN", tls(cluster))


async def test_no_tls_to_a_listener_with(cluster: Cluster) -> None:
    with pytest.raises(ConnectionError, match="does its listener want TLS"):
        await send(cluster, "TLS", {})


async def test_no_sasl_to_a_listener_with(cluster: Cluster) -> None:
    with pytest.raises(ConnectionError, match="does its listener want TLS or SASL"):
        await send(cluster, "SASL", {})


async def test_nothing_listens(cluster: Cluster) -> None:
    (port,) = free_ports(1)
    with pytest.raises(ConnectionError, match=f"^127.0.0.1:{port}: nothing listens there$"):
        await send(cluster, "PLAIN", {"KAFKA_BOOTSTRAP_SERVERS": f"127.0.0.1:{port}"})


async def test_several_brokers_that_fail_alike_are_told_of_once(cluster: Cluster) -> None:
    first, second = free_ports(2)
    servers = f"127.0.0.1:{first},127.0.0.1:{second},no.such.host.invalid"
    with pytest.raises(ConnectionError) as failed:
        await send(cluster, "PLAIN", {"KAFKA_BOOTSTRAP_SERVERS": servers})
    told = dict(part.rsplit(": ", 1)[::-1] for part in str(failed.value).split("; "))
    assert set(told["nothing listens there"].split(", ")) == {f"127.0.0.1:{first}", f"127.0.0.1:{second}"}
    assert told["there is no such host name"] == "no.such.host.invalid:9092"


async def test_a_user_who_may_do_nothing(cluster: Cluster) -> None:
    with pytest.raises(TopicAuthorizationFailedError):
        await send(cluster, "SASL", {**BY_PASSWORD, "KAFKA_NET_SASL_USER": UNPRIVILEGED})
