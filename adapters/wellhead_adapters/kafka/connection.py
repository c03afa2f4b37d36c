"""Which Kafka to talk to, and as whom: settings for every Kafka client here. Reads and connects to nothing.

The variables are those that Knative's controller gives its Go adapter (KAFKA_NET_SASL_*, KAFKA_NET_TLS_*), and beside
each secret a ``_FILE`` form. What aiokafka is told of them is `security`'s matter.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from wellhead.env import boolean, one_of, setting, text
from wellhead.errors import ConfigError, Problem

DEFAULT_PORT: Final = 9092
_SERVER: Final = re.compile(
    r"(\[[0-9A-Fa-f:.]+\]|[0-9A-Za-z](?:[0-9A-Za-z._-]{0,251}[0-9A-Za-z])?)(?::(\d{1,5}))?", re.ASCII
)
_CERTIFICATE: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*CERTIFICATE-----")
_PRIVATE_KEY: Final = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----")


class Mechanism(enum.Enum):
    """How a SASL client says who it is."""

    PLAIN = "PLAIN"
    SCRAM_SHA_256 = "SCRAM-SHA-256"
    SCRAM_SHA_512 = "SCRAM-SHA-512"
    OAUTHBEARER = "OAUTHBEARER"
    AWS_MSK_IAM = "AWS_MSK_IAM"

    @property
    def takes_password(self) -> bool:
        """Whether it is a user and a password, and not a token."""
        return self in (Mechanism.PLAIN, Mechanism.SCRAM_SHA_256, Mechanism.SCRAM_SHA_512)


def bootstrap_servers(value: str) -> tuple[str, ...]:
    """``host:port``, comma-separated; without a port, 9092."""
    servers = []
    for part in filter(None, (part.strip() for part in value.split(","))):
        match = _SERVER.fullmatch(part)
        if match is None or not 0 < int(match[2] or DEFAULT_PORT) < 65536:
            raise ValueError(f"is no list of brokers: {ascii(part)[:60]} is not host:port")
        servers.append(part if match[2] else f"{part}:{DEFAULT_PORT}")
    if not servers:
        raise ValueError("names no broker")
    return tuple(servers)


def path(value: str) -> Path:
    """Where a file is."""
    if "\0" in value:
        raise ValueError("is no path")
    return Path(value)


def certificates(value: str) -> str:
    """PEM with a certificate in it. Whether it is one that TLS can use shows at the first connection."""
    if not _CERTIFICATE.search(value):
        raise ValueError("is not a PEM certificate (-----BEGIN CERTIFICATE-----…)")
    return value


def private_key(value: str) -> str:
    """PEM with a private key in it, likewise."""
    if not _PRIVATE_KEY.search(value):
        raise ValueError("is not a PEM private key (-----BEGIN PRIVATE KEY-----…)")
    return value


def token_url(value: str) -> str:
    """Where an OAuth client gets its tokens."""
    try:
        parts = urlsplit(value)
        right = parts.scheme in ("http", "https") and bool(parts.hostname) and not parts.username
    except ValueError:
        right = False
    if not right:
        raise ValueError("is not an http or https URL without a user in it")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """Which Kafka, and as whom"""

    bootstrap_servers: tuple[str, ...] = setting(
        bootstrap_servers, "brokers to begin with: host:port, comma-separated",
        flag="bootstrap-servers", env="KAFKA_BOOTSTRAP_SERVERS", required=True,
    )
    sasl_enable: bool | None = setting(
        boolean, "authenticate by SASL",
        flag="sasl", env="KAFKA_NET_SASL_ENABLE", shown_default="true where a SASL setting is given", switch=True,
    )
    sasl_mechanism: Mechanism | None = setting(
        one_of(Mechanism), "how",
        flag="sasl-mechanism", env="KAFKA_NET_SASL_TYPE", shown_default="PLAIN", choices=tuple(mechanism.value for mechanism in Mechanism),
    )
    sasl_user: str = setting(text, "user", flag="sasl-user", env="KAFKA_NET_SASL_USER", default="")
    sasl_user_file: Path | None = setting(
        path, "file with the user", flag="sasl-user-file", env="KAFKA_NET_SASL_USER_FILE"
    )
    sasl_password: str = setting(text, "password", env="KAFKA_NET_SASL_PASSWORD", default="", secret=True)
    sasl_password_file: Path | None = setting(
        path, "file with the password, read again at each connection",
        flag="sasl-password-file", env="KAFKA_NET_SASL_PASSWORD_FILE",
    )
    oauth_token_file: Path | None = setting(
        path, "OAUTHBEARER: file with the token, read again at each connection",
        flag="oauth-token-file", env="KAFKA_NET_SASL_OAUTH_TOKEN_FILE",
    )
    oauth_token_url: str = setting(
        token_url, "OAUTHBEARER: where tokens are had for client credentials",
        flag="oauth-token-url", env="KAFKA_NET_SASL_OAUTH_TOKEN_URL", default="", secret=True,
    )
    oauth_client_id: str = setting(
        text, "OAUTHBEARER: client id", flag="oauth-client-id", env="KAFKA_NET_SASL_OAUTH_CLIENT_ID", default=""
    )
    oauth_client_secret: str = setting(
        text, "OAUTHBEARER: client secret", env="KAFKA_NET_SASL_OAUTH_CLIENT_SECRET", default="", secret=True
    )
    oauth_client_secret_file: Path | None = setting(
        path, "OAUTHBEARER: file with the client secret, read again for each token",
        flag="oauth-client-secret-file", env="KAFKA_NET_SASL_OAUTH_CLIENT_SECRET_FILE",
    )
    oauth_scope: str = setting(
        text, "OAUTHBEARER: scope to ask for", flag="oauth-scope", env="KAFKA_NET_SASL_OAUTH_SCOPE", default=""
    )
    aws_region: str = setting(
        text, "AWS_MSK_IAM: region of the cluster",
        flag="aws-region", env=("KAFKA_NET_SASL_AWS_REGION", "AWS_REGION"), default="",
    )
    tls_enable: bool | None = setting(
        boolean, "connect by TLS",
        flag="tls", env="KAFKA_NET_TLS_ENABLE", shown_default="true where a TLS setting is given", switch=True,
    )
    tls_ca_cert: str = setting(
        certificates, "PEM certificates to trust in place of the system's",
        env="KAFKA_NET_TLS_CA_CERT", default="", secret=True,
    )
    tls_ca_cert_file: Path | None = setting(
        path, "file with them, read again when it changes", flag="tls-ca-file", env="KAFKA_NET_TLS_CA_CERT_FILE"
    )
    tls_cert: str = setting(
        certificates, "PEM certificate that says who we are", env="KAFKA_NET_TLS_CERT", default="", secret=True
    )
    tls_cert_file: Path | None = setting(
        path, "file with it, read again when it changes", flag="tls-cert-file", env="KAFKA_NET_TLS_CERT_FILE"
    )
    tls_key: str = setting(private_key, "its PEM private key", env="KAFKA_NET_TLS_KEY", default="", secret=True)
    tls_key_file: Path | None = setting(
        path, "file with it, read again when it changes", flag="tls-key-file", env="KAFKA_NET_TLS_KEY_FILE"
    )
    tls_verify_host_name: bool = setting(
        boolean, "hold the brokers' certificates against their names; Knative's Go adapter does not",
        flag="tls-verify-host-name", env="KAFKA_NET_TLS_VERIFY_HOST_NAME", default=True,
    )

    def __post_init__(self) -> None:
        problems = [*self._given_twice(), *(self._sasl_problems() if self.uses_sasl else ())]
        if self.uses_tls:
            problems += self._tls_problems()
        if problems:
            raise ConfigError(problems)

    @property
    def uses_sasl(self) -> bool:
        """Whether to authenticate by SASL: as told, else where anything of it is given."""
        if self.sasl_enable is not None:
            return self.sasl_enable
        return bool(
            self.sasl_mechanism
            or self.sasl_user
            or self.sasl_user_file
            or self.oauth_token_url
            or self.oauth_token_file
        )

    @property
    def uses_tls(self) -> bool:
        """Whether to connect by TLS: as told, else where anything of it is given. MSK's IAM is by TLS only."""
        if self.tls_enable is not None:
            return self.tls_enable
        given = (self.tls_ca_cert, self.tls_ca_cert_file, self.tls_cert, self.tls_cert_file)
        return any(given) or (self.uses_sasl and self.mechanism is Mechanism.AWS_MSK_IAM)

    @property
    def mechanism(self) -> Mechanism:
        """How to authenticate, if at all."""
        if self.sasl_mechanism is None and (self.oauth_token_file or self.oauth_token_url):
            return Mechanism.OAUTHBEARER
        return self.sasl_mechanism or Mechanism.PLAIN

    def _given_twice(self) -> Iterator[Problem]:
        pairs = (
            ("KAFKA_NET_SASL_USER", self.sasl_user, self.sasl_user_file),
            ("KAFKA_NET_SASL_PASSWORD", self.sasl_password, self.sasl_password_file),
            ("KAFKA_NET_SASL_OAUTH_CLIENT_SECRET", self.oauth_client_secret, self.oauth_client_secret_file),
            ("KAFKA_NET_TLS_CA_CERT", self.tls_ca_cert, self.tls_ca_cert_file),
            ("KAFKA_NET_TLS_CERT", self.tls_cert, self.tls_cert_file),
            ("KAFKA_NET_TLS_KEY", self.tls_key, self.tls_key_file),
        )
        for name, value, file in pairs:
            if value and file:
                yield Problem(name, f"is given twice: as itself and as {name}_FILE")

    def _sasl_problems(self) -> Iterator[Problem]:
        mechanism = self.mechanism
        why = f"is not set, and {mechanism.value} needs it"
        if mechanism.takes_password:
            if not (self.sasl_user or self.sasl_user_file):
                yield Problem("KAFKA_NET_SASL_USER or KAFKA_NET_SASL_USER_FILE", why)
            if not (self.sasl_password or self.sasl_password_file):
                yield Problem("KAFKA_NET_SASL_PASSWORD or KAFKA_NET_SASL_PASSWORD_FILE", why)
        elif mechanism is Mechanism.AWS_MSK_IAM:
            if not self.aws_region:
                yield Problem("KAFKA_NET_SASL_AWS_REGION or AWS_REGION", why)
            if self.tls_enable is False:
                yield Problem("KAFKA_NET_TLS_ENABLE", "is false, and AWS_MSK_IAM goes by TLS only")
        else:
            yield from self._oauth_problems()

    def _oauth_problems(self) -> Iterator[Problem]:
        if bool(self.oauth_token_file) == bool(self.oauth_token_url):
            names = "KAFKA_NET_SASL_OAUTH_TOKEN_FILE, KAFKA_NET_SASL_OAUTH_TOKEN_URL"
            yield Problem(names, "OAUTHBEARER needs one of them, and not both")
            return
        if not self.oauth_token_url:
            return
        why = "is not set, and client credentials need it"
        if not self.oauth_client_id:
            yield Problem("KAFKA_NET_SASL_OAUTH_CLIENT_ID", why)
        if not (self.oauth_client_secret or self.oauth_client_secret_file):
            name = "KAFKA_NET_SASL_OAUTH_CLIENT_SECRET"
            yield Problem(f"{name} or {name}_FILE", why)

    def _tls_problems(self) -> Iterator[Problem]:
        has_key = bool(self.tls_key or self.tls_key_file)
        has_certificate = bool(self.tls_cert or self.tls_cert_file)
        if has_key and not has_certificate:
            yield Problem("KAFKA_NET_TLS_CERT or KAFKA_NET_TLS_CERT_FILE", "is not set, and there is a key")
        if self.tls_cert and not has_key:
            yield Problem("KAFKA_NET_TLS_KEY or KAFKA_NET_TLS_KEY_FILE", "is not set, and there is a certificate")
