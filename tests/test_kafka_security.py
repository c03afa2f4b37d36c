"""What may be said of a connection to Kafka, what aiokafka is told of it, and what a person is told when it fails."""

from __future__ import annotations

import asyncio
import base64
import contextvars
import logging
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final

import pytest
import trustme
from aiokafka.errors import KafkaConnectionError, SaslAuthenticationFailed, UnsupportedSaslMechanismError
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from wellhead.env import read
from wellhead.errors import ConfigError
from wellhead_adapters.kafka.connection import ConnectionSettings, bootstrap_servers
from wellhead_adapters.kafka.failures import Failures, cause_of
from wellhead_adapters.kafka.net import net_path, net_variables
from wellhead_adapters.kafka.security import client_options
from wellhead_adapters.kafka.tokens import NoToken, TokenFile

if TYPE_CHECKING:
    from pathlib import Path

SERVERS: Final = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092"}
USER: Final = {"KAFKA_NET_SASL_USER": "alice", "KAFKA_NET_SASL_PASSWORD": "hunter2"}
TOKEN_SOURCES: Final = "KAFKA_NET_SASL_OAUTH_TOKEN_FILE, KAFKA_NET_SASL_OAUTH_TOKEN_URL"
CLIENT_SECRET: Final = "KAFKA_NET_SASL_OAUTH_CLIENT_SECRET"
KEY: Final = "-----BEGIN PRIVATE KEY-----\nhunter2\n-----END PRIVATE KEY-----"
CERTIFICATE: Final = "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----"


def settings(**environment: str) -> ConnectionSettings:
    return read(ConnectionSettings, {**SERVERS, **environment})


def problems(**environment: str) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        client_options(settings(**environment))
    return [str(problem) for problem in wrong.value.problems]


# --- settings ---


@pytest.mark.parametrize(
    ("text", "servers"),
    [
        ("kafka", ("kafka:9092",)),
        ("kafka:9093", ("kafka:9093",)),
        (" a:1 , b:2,", ("a:1", "b:2")),
        ("[::1]:9092,[fe80::1]", ("[::1]:9092", "[fe80::1]:9092")),
        ("my-cluster-kafka-bootstrap.kafka.svc:9092", ("my-cluster-kafka-bootstrap.kafka.svc:9092",)),
    ],
)
def test_brokers_are_a_list_of_hosts_and_ports(text: str, servers: tuple[str, ...]) -> None:
    assert bootstrap_servers(text) == servers


@pytest.mark.parametrize(
    "text", ["", ",", "kafka:0", "kafka:65536", "kafka:x", "http://kafka:9092", "a b", "::1", "-a"]
)
def test_what_is_no_list_of_brokers_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"no list of brokers|names no broker"):
        bootstrap_servers(text)


@given(st.text(max_size=80))
def test_any_text_is_brokers_or_a_value_error(text: str) -> None:
    try:
        servers = bootstrap_servers(text)
    except ValueError:
        return
    assert servers
    assert bootstrap_servers(",".join(servers)) == servers


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, "PLAINTEXT"),
        (USER, "SASL_PLAINTEXT"),
        ({**USER, "KAFKA_NET_SASL_ENABLE": "false"}, "PLAINTEXT"),
        ({"KAFKA_NET_TLS_ENABLE": "true"}, "SSL"),
        ({**USER, "KAFKA_NET_TLS_ENABLE": "true"}, "SASL_SSL"),
        ({"KAFKA_NET_TLS_CA_CERT": CERTIFICATE, "KAFKA_NET_TLS_ENABLE": "false"}, "PLAINTEXT"),
        # as Knative's controller sends it of a source without spec.net
        ({"KAFKA_NET_SASL_ENABLE": "false", "KAFKA_NET_TLS_ENABLE": "false", "KAFKA_NET_SASL_USER": ""}, "PLAINTEXT"),
    ],
)
def test_the_protocol_follows_from_what_is_given(environment: dict[str, str], expected: str) -> None:
    assert client_options(settings(**environment))["security_protocol"] == expected


def test_plain_is_the_mechanism_where_none_is_said() -> None:
    options = client_options(settings(**USER))
    assert options["sasl_mechanism"] == "PLAIN"
    assert (options["sasl_plain_username"], options["sasl_plain_password"]) == ("alice", "hunter2")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        (
            {"KAFKA_NET_SASL_ENABLE": "true"},
            [
                "KAFKA_NET_SASL_USER or KAFKA_NET_SASL_USER_FILE: is not set, and PLAIN needs it",
                "KAFKA_NET_SASL_PASSWORD or KAFKA_NET_SASL_PASSWORD_FILE: is not set, and PLAIN needs it",
            ],
        ),
        (
            {**USER, "KAFKA_NET_SASL_TYPE": "scram"},
            [
                "KAFKA_NET_SASL_TYPE: 'scram' is not one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512, OAUTHBEARER, AWS_MSK_IAM"
            ],
        ),
        (
            {**USER, "KAFKA_NET_SASL_PASSWORD_FILE": "/somewhere"},
            ["KAFKA_NET_SASL_PASSWORD: is given twice: as itself and as KAFKA_NET_SASL_PASSWORD_FILE"],
        ),
        (
            {"KAFKA_NET_SASL_TYPE": "OAUTHBEARER"},
            [
                f"{TOKEN_SOURCES}: OAUTHBEARER needs one of them, and not both",
            ],
        ),
        (
            {"KAFKA_NET_SASL_OAUTH_TOKEN_URL": "https://id.example/token"},
            [
                "KAFKA_NET_SASL_OAUTH_CLIENT_ID: is not set, and client credentials need it",
                f"{CLIENT_SECRET} or {CLIENT_SECRET}_FILE: is not set, and client credentials need it",
            ],
        ),
        (
            {"KAFKA_NET_SASL_OAUTH_TOKEN_URL": "https://me:hunter2@id.example/token", "KAFKA_NET_TLS_ENABLE": "maybe"},
            [
                "KAFKA_NET_SASL_OAUTH_TOKEN_URL: is not an http or https URL without a user in it",
                "KAFKA_NET_TLS_ENABLE: 'maybe' is not true or false",
            ],
        ),
        (
            {"KAFKA_NET_SASL_TYPE": "AWS_MSK_IAM", "KAFKA_NET_TLS_ENABLE": "false"},
            [
                "KAFKA_NET_SASL_AWS_REGION or AWS_REGION: is not set, and AWS_MSK_IAM needs it",
                "KAFKA_NET_TLS_ENABLE: is false, and AWS_MSK_IAM goes by TLS only",
            ],
        ),
        (
            {"KAFKA_NET_TLS_ENABLE": "true", "KAFKA_NET_TLS_KEY": KEY},
            ["KAFKA_NET_TLS_CERT or KAFKA_NET_TLS_CERT_FILE: is not set, and there is a key"],
        ),
        (
            {"KAFKA_NET_TLS_CERT": CERTIFICATE},
            ["KAFKA_NET_TLS_KEY or KAFKA_NET_TLS_KEY_FILE: is not set, and there is a certificate"],
        ),
        (
            {"KAFKA_NET_TLS_CA_CERT": CERTIFICATE, "KAFKA_NET_TLS_CERT": CERTIFICATE, "KAFKA_NET_TLS_KEY": KEY},
            [
                "KAFKA_NET_TLS_CA_CERT: is not a PEM certificate (-----BEGIN …)",
                "KAFKA_NET_TLS_CERT: is not a PEM certificate with its private key (-----BEGIN …)",
            ],
        ),
        (
            dict.fromkeys(("KAFKA_NET_TLS_CA_CERT", "KAFKA_NET_TLS_CERT", "KAFKA_NET_TLS_KEY"), "hunter2"),
            [
                "KAFKA_NET_TLS_CA_CERT: is not a PEM certificate (-----BEGIN CERTIFICATE-----…)",
                "KAFKA_NET_TLS_CERT: is not a PEM certificate (-----BEGIN CERTIFICATE-----…)",
                "KAFKA_NET_TLS_KEY: is not a PEM private key (-----BEGIN PRIVATE KEY-----…)",
            ],
        ),
        (
            {
                "KAFKA_NET_SASL_USER": "alice",
                "KAFKA_NET_SASL_PASSWORD_FILE": "/no/such/file",
                "KAFKA_NET_TLS_CA_CERT_FILE": "/no/ca",
            },
            [
                "KAFKA_NET_TLS_CA_CERT_FILE: /no/ca cannot be read: No such file or directory",
                "KAFKA_NET_SASL_PASSWORD_FILE: /no/such/file cannot be read: No such file or directory",
            ],
        ),
    ],
)
def test_what_is_wrong_is_told_all_at_once_and_without_secrets(
    environment: dict[str, str], expected: list[str]
) -> None:
    told = problems(**environment)
    assert told == expected
    assert "hunter2" not in "".join(told)


def test_what_is_right_in_part_is_not_complained_of(tmp_path: Path) -> None:
    both = tmp_path / "both.pem"  # certificate and key in one file, as many tools write it
    both.write_text(pem(trustme.CA().issue_cert("client.example")))
    client_options(settings(KAFKA_NET_TLS_CERT_FILE=str(both)))
    settings(KAFKA_NET_SASL_OAUTH_TOKEN_FILE="/token")
    settings(
        KAFKA_NET_SASL_OAUTH_TOKEN_URL="https://id.example/token",
        KAFKA_NET_SASL_OAUTH_CLIENT_ID="me",
        KAFKA_NET_SASL_OAUTH_CLIENT_SECRET="hunter2",
    )


@pytest.mark.parametrize("url", ["ftp://x/", "https://", "http://[::1", "x"])
def test_what_is_no_token_url_is_told_of_without_the_url(url: str) -> None:
    with pytest.raises(ConfigError, match="KAFKA_NET_SASL_OAUTH_TOKEN_URL: is not an http or https URL"):
        settings(KAFKA_NET_SASL_OAUTH_TOKEN_URL=url)


def test_a_path_has_no_zero_in_it() -> None:
    with pytest.raises(ConfigError, match="is no path"):
        settings(KAFKA_NET_SASL_PASSWORD_FILE="a\0b")


def test_no_secret_is_in_the_repr() -> None:
    tls = {"KAFKA_NET_TLS_CERT": CERTIFICATE, "KAFKA_NET_TLS_KEY": KEY}
    assert "hunter2" not in repr(settings(**USER, **tls, KAFKA_NET_SASL_OAUTH_CLIENT_SECRET="hunter2"))


# --- files ---


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


def pem(issued: trustme.LeafCert) -> str:
    return issued.private_key_and_cert_chain_pem.bytes().decode()


def test_a_password_loses_the_line_end_of_its_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_bytes(" hünter2 \r\n".encode())
    options = client_options(settings(KAFKA_NET_SASL_USER="a", KAFKA_NET_SASL_PASSWORD_FILE=str(file)))
    assert options["sasl_plain_password"] == " hünter2 "


@pytest.mark.parametrize(("octets", "what"), [(b"", "is empty"), (b"\n", "is empty"), (b"\xff", "is not UTF-8")])
def test_a_file_that_holds_no_secret_is_told_of(tmp_path: Path, octets: bytes, what: str) -> None:
    file = tmp_path / "password"
    file.write_bytes(octets)
    told = problems(KAFKA_NET_SASL_USER="a", KAFKA_NET_SASL_PASSWORD_FILE=str(file))
    assert told == [f"KAFKA_NET_SASL_PASSWORD_FILE: {file} {what}"]


def test_an_encrypted_key_is_told_of_and_nobody_is_asked_for_its_password(authority: trustme.CA) -> None:
    issued = authority.issue_cert("client.example")
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"hunter2"),
    ).decode()
    told = problems(KAFKA_NET_TLS_CERT=issued.cert_chain_pems[0].bytes().decode(), KAFKA_NET_TLS_KEY=encrypted)
    assert told == ["KAFKA_NET_TLS_CERT: its private key is encrypted"]


def test_a_certificate_and_the_key_of_another_are_told_of(authority: trustme.CA) -> None:
    one, other = authority.issue_cert("one.example"), authority.issue_cert("other.example")
    told = problems(
        KAFKA_NET_TLS_CERT=one.cert_chain_pems[0].bytes().decode(),
        KAFKA_NET_TLS_KEY=other.private_key_pem.bytes().decode(),
    )
    assert told == ["KAFKA_NET_TLS_CERT: is not the certificate of this private key (KAFKA_NET_TLS_KEY)"]


def test_each_new_connection_has_the_certificates_as_their_files_are_then(
    tmp_path: Path, authority: trustme.CA, caplog: pytest.LogCaptureFixture
) -> None:
    trusted = tmp_path / "ca.pem"
    trustme.CA().cert_pem.write_to_path(trusted)
    context = client_options(settings(KAFKA_NET_TLS_CA_CERT_FILE=str(trusted)))["ssl_context"]
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("kafka.example").configure_cert(server)

    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(context, server)
    authority.cert_pem.write_to_path(trusted)
    handshake(context, server)
    trusted.write_text("half of a cert")
    handshake(context, server)
    assert "certificates changed and cannot be used" in caplog.text


def handshake(client: ssl.SSLContext, server: ssl.SSLContext) -> None:
    """A TLS handshake in memory, as asyncio does it over a socket."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    ends = [client.wrap_bio(down, up, server_hostname="kafka.example"), server.wrap_bio(up, down, server_side=True)]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    assert ends[0].version() is not None
    assert ends[0].getpeercert() is not None


async def test_a_token_is_read_each_time(tmp_path: Path) -> None:
    file = tmp_path / "token"
    tokens = TokenFile(file)
    with pytest.raises(NoToken, match="cannot be read"):
        await tokens.token()
    for text in ("first", "second\n"):
        file.write_text(text)
        assert await tokens.token() == text.rstrip()


@pytest.mark.parametrize("text", ["a\x01b", "é", "a\nb"])
async def test_what_cannot_be_a_token_is_not_sent(tmp_path: Path, text: str) -> None:
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(NoToken, match="holds no token"):
        await TokenFile(file).token()


MSK: Final = {"KAFKA_NET_SASL_TYPE": "AWS_MSK_IAM", "AWS_REGION": "eu-central-1"}


async def test_msk_is_given_a_token_signed_with_the_aws_identity_at_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    identity = {
        "AWS_ACCESS_KEY_ID": "AKIDEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "hunter2",
        "AWS_EC2_METADATA_DISABLED": "1",
    }
    for name, value in identity.items():
        monkeypatch.setenv(name, value)
    options = client_options(settings(**MSK))
    assert (options["security_protocol"], options["sasl_mechanism"]) == ("SASL_SSL", "OAUTHBEARER")
    token = await options["sasl_oauth_token_provider"].token()
    signed = base64.urlsafe_b64decode(token + "==").decode()
    assert signed.startswith("https://kafka.eu-central-1.amazonaws.com/?Action=kafka-cluster%3AConnect&")
    assert "AKIDEXAMPLE" in signed
    assert "hunter2" not in signed


async def test_no_aws_identity_is_told_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "1")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(NoToken, match="no AWS identity to sign with"):
        await client_options(settings(**MSK))["sasl_oauth_token_provider"].token()


def test_without_its_extra_msk_is_told_how_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert problems(**MSK) == ["KAFKA_NET_SASL_TYPE: AWS_MSK_IAM needs a package: pip install 'wellhead[msk]'"]


# --- why it failed ---

SSL_ALERT: Final = ssl.SSLError(1, "x")
SSL_ALERT.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"


def closed_by(cause: BaseException) -> KafkaConnectionError:
    error = KafkaConnectionError("Connection at kafka:9092 closed")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (
            SaslAuthenticationFailed("Invalid username or password"),
            "it refuses 'alice' or the password (PLAIN): Invalid username or password",
        ),
        (UnsupportedSaslMechanismError("x"), "it does not take PLAIN there (KAFKA_NET_SASL_TYPE)"),
        (ConnectionRefusedError(111, "x"), "nothing listens there"),
        (socket.gaierror(-2, "x"), "there is no such host name"),
        (TimeoutError(), "it does not answer in time: does its listener want TLS?"),
        (closed_by(SSL_ALERT), "it wants a client certificate (KAFKA_NET_TLS_CERT, KAFKA_NET_TLS_KEY)"),
        (
            closed_by(asyncio.IncompleteReadError(b"", 4)),
            "it closes the connection at once: does its listener want TLS?",
        ),
        (NoToken("/token cannot be read: gone"), "/token cannot be read: gone"),
        (OSError(113, os.strerror(113)), "No route to host"),
        (KafkaConnectionError(), "KafkaConnectionError"),
    ],
)
def test_each_cause_has_its_words(error: BaseException, told: str) -> None:
    assert cause_of(error, settings(**USER)) == told


def test_a_connection_that_worked_before_is_told_no_setting() -> None:
    error = closed_by(asyncio.IncompleteReadError(b"", 4))
    assert cause_of(error, settings(**USER), worked=True) == "the connection broke"


def test_brokers_that_fail_alike_are_told_of_together() -> None:
    failures = Failures(settings())
    failures.note("a:1", ConnectionRefusedError())
    failures.note("b:1", socket.gaierror())
    failures.note("c:1", ConnectionRefusedError())
    assert failures.why() == "a:1, c:1: nothing listens there; b:1: there is no such host name"
    failures.forget()
    assert failures.why() == ""


class Client:
    """What a failed connection may be told of: aiokafka's client, as far as it matters here."""

    def __init__(self, brokers: int = 1) -> None:
        self.cluster = self
        self._brokers = brokers
        self._sasl_plain_username = "alice"
        self._sasl_plain_password = "old"

    def brokers(self) -> range:
        return range(self._brokers)


class Consumer:
    def __init__(self, client: Client) -> None:
        self._client = client


def refused(*, host: str = "a", port: int = 1) -> None:
    """As aiokafka tells of it."""
    error = SaslAuthenticationFailed("no")
    logging.getLogger("aiokafka").error('Unable connect to "%s:%s": %s', host, port, error)


def test_who_listens_hears_of_failures_and_the_log_does_not(caplog: pytest.LogCaptureFixture) -> None:
    def listen() -> str:
        failures = Failures(settings(**USER))
        failures.listen()
        refused()
        logging.getLogger("aiokafka").error("something else: %s", "x")
        return failures.why()

    assert contextvars.copy_context().run(listen) == "a:1: it refuses 'alice' or the password (PLAIN): no"
    refused()  # nobody listens here
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == [
        "something else",
        'Unable connect to "a',
    ]


def test_a_refused_password_is_read_again_for_the_next_connection(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "password"
    file.write_text("new")
    said = settings(KAFKA_NET_SASL_USER="alice", KAFKA_NET_SASL_PASSWORD_FILE=str(file))
    client = Client()

    def later() -> None:
        failures = Failures(said)
        failures.listen()
        failures.watch(Consumer(client))
        refused()
        refused(host="b")

    contextvars.copy_context().run(later)
    assert client._sasl_plain_password == "new"
    assert [record.getMessage() for record in caplog.records] == ["no connection to a broker"]  # the same cause: once

    file.unlink()
    contextvars.copy_context().run(later)
    assert client._sasl_plain_password == "new"
    assert "user and password cannot be read again" in caplog.text


def test_a_client_that_knows_no_broker_was_refused_its_token() -> None:
    failures = Failures(settings(KAFKA_NET_SASL_OAUTH_TOKEN_FILE="/token"))
    with pytest.raises(KafkaConnectionError, match=r"kafka:9092: it refuses our token \(OAUTHBEARER\)"):
        failures.watch(Consumer(Client(brokers=0)))


# --- spec.net ---


def secret(name: str, key: str) -> str | None:
    return {("kafka", "user"): "alice", ("kafka", "password"): "hunter2", ("kafka", "ca.crt"): "PEM"}.get((name, key))


def reference(key: str, name: str = "kafka") -> object:
    return {"secretKeyRef": {"name": name, "key": key}}


def test_a_net_becomes_what_the_controller_makes_of_it() -> None:
    net = {
        "sasl": {"enable": True, "user": reference("user"), "password": reference("password"), "type": {}},
        "tls": {"enable": True, "caCert": reference("ca.crt")},
    }
    assert net_variables(net, secret) == {
        "KAFKA_NET_SASL_ENABLE": "true",
        "KAFKA_NET_SASL_USER": "alice",
        "KAFKA_NET_SASL_PASSWORD": "hunter2",
        "KAFKA_NET_SASL_TYPE": "",
        "KAFKA_NET_TLS_ENABLE": "true",
        "KAFKA_NET_TLS_CERT": "",
        "KAFKA_NET_TLS_KEY": "",
        "KAFKA_NET_TLS_CA_CERT": "PEM",
    }


def test_what_is_not_enabled_is_not_looked_up() -> None:
    net = {"sasl": {"enable": False, "user": reference("nothing")}, "tls": None}
    assert net_variables(net, secret) == {"KAFKA_NET_SASL_ENABLE": "false", "KAFKA_NET_TLS_ENABLE": "false"}


def test_all_that_is_wrong_with_a_net_is_told_by_path() -> None:
    net = {
        "sasl": {"enable": True, "user": reference("nobody"), "password": "hunter2", "typ": {}},
        "tls": {"enable": "yes"},
        "ssl": {},
    }
    with pytest.raises(ConfigError) as wrong:
        net_variables(net, secret)
    assert [str(problem) for problem in wrong.value.problems] == [
        "spec.net.ssl: unknown field; did you mean sasl?",
        "spec.net.sasl.typ: unknown field; did you mean type?",
        "spec.net.sasl.user.secretKeyRef: there is no key 'nobody' in a Secret 'kafka' of its namespace",
        "spec.net.sasl.password: is not an object with a secretKeyRef",
        "spec.net.tls.enable: 'yes' is not true or false",
    ]


@pytest.mark.parametrize(
    "net",
    [
        "text",
        [],
        {"sasl": "x"},
        {"sasl": {"enable": True, "user": [1]}},
        {"tls": {"enable": True, "key": {"secretKeyRef": {}}}},
    ],
)
def test_a_net_of_another_shape_is_told_of(net: object) -> None:
    with pytest.raises(ConfigError, match=r"is not an object|needs a name and a key"):
        net_variables(net, secret)


def test_a_variable_is_told_of_by_its_path_in_the_document() -> None:
    assert net_path("KAFKA_NET_SASL_USER or KAFKA_NET_SASL_USER_FILE") == "spec.net.sasl.user"
    assert net_path("KAFKA_TOPICS") == "KAFKA_TOPICS"
