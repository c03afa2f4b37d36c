"""The settings that every source has, whatever it listens to: its sink, its delivery, its process.

Names are Knative's where Knative has one (contract/core.md 1). An empty variable is an unset one, as its controllers
send empty strings for what is not there.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from .access import SinkAccess
from .batch import BatchLimits
from .binding import Destination, parse_overrides, parse_refs, parse_sink
from .credentials import OIDC_TOKEN, CredentialSources, bearer_token, password
from .dead_letter_file import MAX_BYTES
from .delivery import Backoff, OnExhausted, Policy
from .durations import duration
from .env import boolean, integer, json_object, one_of, setting, text
from .errors import ConfigError, Problem
from .extra_headers import ExtraHeaders, extra_headers
from .log import LogFormat, LogLevel, level_of_logging_config
from .tls import ClientCertificate, ca_certs, file_problems

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[!-~]{0,253}")
_FILE_URL = re.compile(r"file:(?://(?:localhost)?)?(/(?!/)[^?#]*)", re.IGNORECASE)
_ENDPOINT = re.compile(r"(.*):(\d{1,5})", re.ASCII)
_ADDRESS = re.compile(r"(?!.{254})(?:[0-9A-Za-z_:%-]{1,63}\.)*[0-9A-Za-z_:%-]{0,63}")

_MAX_LINGER = timedelta(seconds=10)


class EventMode(enum.Enum):
    """How an event travels over HTTP."""

    BINARY = "binary"
    STRUCTURED = "structured"
    BATCH = "batch"


class HeaderValues(enum.Enum):
    """What becomes of an attribute that cannot stand raw in a header: its event goes structured, or it is encoded."""

    RAW = "raw"
    PERCENT_ENCODE = "percent-encode"


class TransportChoice(enum.Enum):
    """Who performs the POSTs."""

    AUTO = "auto"
    OWN = "own"
    AIOHTTP = "aiohttp"


def _name(value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError("holds characters that no Kubernetes name has")
    return value


def _sink_timeout(value: str) -> timedelta | None:
    """``K_SINK_TIMEOUT``: whole seconds; 0 is none; below 0, which Knative's controllers always send, is our default."""
    seconds = integer(-(2**31), 86_400 * 365)(value)
    return None if seconds < 0 else timedelta(seconds=seconds)


def _linger(value: str) -> timedelta:
    linger = duration(value)
    if linger > _MAX_LINGER:
        raise ValueError("is longer than 10s")
    return linger


def _some_time(value: str) -> timedelta:
    length = duration(value)
    if not length:
        raise ValueError("is not longer than 0")
    return length


def _path(value: str) -> Path:
    if "\0" in value:
        raise ValueError("is no path")
    return Path(value)


def parse_dead_letter_sink(value: str) -> Destination | Path:
    """A sink as `parse_sink` reads it, or ``file:///path``."""
    if not value.strip().lower().startswith("file:"):
        return parse_sink(value)
    match = _FILE_URL.fullmatch(value.strip())
    path = unquote(match[1]) if match is not None else ""
    if not path or "\0" in path or path.endswith("/"):
        raise ValueError("is not a file such as file:///var/tmp/dead.jsonl")
    return Path(path)


def listen_address(value: str) -> str:
    """An address to listen on: a host name, an IPv4 or an IPv6 address; empty: all."""
    if not _ADDRESS.fullmatch(value):
        raise ValueError("is no host name and no IP address")
    return value


def prometheus_endpoint(value: str) -> tuple[str, int] | None:
    """Where ``K_OBSERVABILITY_CONFIG`` wants Prometheus to find /metrics; None where it asks for no Prometheus."""
    metrics = json_object(value).get("metrics")
    if not isinstance(metrics, dict) or metrics.get("protocol") != "prometheus":
        return None
    endpoint = metrics.get("endpoint") or ":9092"
    match = _ENDPOINT.fullmatch(endpoint) if isinstance(endpoint, str) else None
    if match is None or not _ADDRESS.fullmatch(match[1]) or not 0 < int(match[2]) < 65536:
        raise ValueError("has a metrics endpoint that is not host:port")
    return match[1], int(match[2])


ON_WIRE = 128
"""Tries of one sink at once, where nobody says another number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkSettings:
    """Where events go"""

    sink: Destination | None = setting(
        parse_sink, "where events go: a URL, or ksvc:name[:ns], svc:…, broker:…, channel:…",
        flag="sink", env=("K_SINK", "SINK"), secret=True,
    )
    refs: Mapping[str, str] = setting(
        parse_refs, "where a sink given by name is: [KIND:]NAME[:NAMESPACE]=URL; may be repeated",
        flag="ref", env="SINK_REFS", default={}, shown_default="", repeated=True, secret=True,
    )
    overrides: Mapping[str, str] = setting(
        parse_overrides, 'extensions set on every event: {"extensions":{"name":"value"}}',
        flag="ce-overrides", env="K_CE_OVERRIDES", default={}, shown_default="",
    )
    ca_certs: str = setting(
        ca_certs, "PEM certificates to trust for an https sink, beside the system's",
        flag="cacerts", env="K_CA_CERTS", default="", secret=True,
    )
    ca_file: Path | None = setting(
        _path, "file with PEM certificates to trust as well; read again when it changes",
        flag="ca-file", env="SINK_CA_FILE",
    )
    client_cert: Path | None = setting(
        _path, "file with a client certificate for an https sink (PEM); read again when it changes",
        flag="client-cert", env="SINK_CLIENT_CERT_FILE",
    )
    client_key: Path | None = setting(
        _path, "file with its key; unset: in the certificate's file",
        flag="client-key", env="SINK_CLIENT_KEY_FILE",
    )
    client_key_password: Path | None = setting(
        _path, "file with the key's password, if it is encrypted",
        flag="client-key-password-file", env="SINK_CLIENT_KEY_PASSWORD_FILE",
    )
    audience: str = setting(text, "the sink's OIDC audience", flag="audience", env="K_AUDIENCE", default="")
    oidc_service_account: str = setting(
        text, "the ServiceAccount whose token a sink with an audience is shown; asked for at the API server", env="K_OIDC_SERVICE_ACCOUNT", default=""
    )
    token_file: Path = setting(
        _path, "file with a bearer token for the sink; read again when it changes",
        flag="token-file", env="OIDC_TOKEN_FILE", default=OIDC_TOKEN,
    )
    token: str = setting(bearer_token, "a bearer token, where no file holds one", env="SINK_TOKEN", default="", secret=True)
    username: str = setting(
        text, "name for Basic credentials, with a password", flag="username", env="SINK_USERNAME", default=""
    )
    password: str = setting(
        password, "the password, where no file holds it", env="SINK_PASSWORD", default="", secret=True
    )
    password_file: Path | None = setting(
        _path, "file with the password; read again when it changes", flag="password-file", env="SINK_PASSWORD_FILE"
    )
    extra_headers: ExtraHeaders = setting(
        extra_headers, 'headers to send with each event: lines of Name: value, or {"Name":"value"}',
        env="SINK_HEADERS", default=(), shown_default="", secret=True,
    )
    headers_file: Path | None = setting(
        _path, "file with such headers; read again when it changes", flag="headers-file", env="SINK_HEADERS_FILE"
    )
    dead_letter_credentials: bool = setting(
        boolean, "show the sink's credentials and client certificate to the dead-letter sink too",
        flag="dead-letter-credentials", env="DEAD_LETTER_CREDENTIALS", default=False, switch=True,
    )
    mode: EventMode = setting(
        one_of(EventMode), "how events travel over HTTP",
        flag="mode", env="EVENT_MODE", default=EventMode.BINARY,
        choices=("binary", "structured", "batch"),
    )
    batch_size: int = setting(
        integer(1, 10_000), "in batch mode, events in one request", flag="batch-size", env="BATCH_SIZE",
        default=BatchLimits().events,
    )
    batch_bytes: int = setting(
        integer(1, 2**26), "in batch mode, bytes of one request; a larger event goes alone",
        flag="batch-bytes", env="BATCH_BYTES", default=BatchLimits().octets,
    )
    batch_linger: timedelta = setting(
        _linger, "in batch mode, how long an event waits for others, at most 10s",
        flag="batch-linger", env="BATCH_LINGER", default=BatchLimits().linger, shown_default="5ms",
    )
    headers: HeaderValues = setting(
        one_of(HeaderValues), "attributes that no header can hold raw: send the event structured (raw), or encode them",
        flag="headers", env="EVENT_HEADERS", default=HeaderValues.RAW, choices=("raw", "percent-encode"),
    )

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        try:
            access = self.access()
        except ConfigError as error:
            problems += error.problems
        else:
            problems += access.credentials.file_problems()
        if self.client_cert is None:
            beside = {
                "SINK_CLIENT_KEY_FILE": self.client_key, "SINK_CLIENT_KEY_PASSWORD_FILE": self.client_key_password,
            }
            problems += [
                Problem(name, "is set without SINK_CLIENT_CERT_FILE") for name, path in beside.items() if path is not None
            ]
        problems += file_problems(self.ca_file, self._client())
        if problems:
            raise ConfigError(problems)

    def access(self) -> SinkAccess:
        """How to approach the sink."""
        credentials = CredentialSources(
            token_file=self.token_file,
            token=self.token,
            username=self.username,
            password=self.password,
            password_file=self.password_file,
            headers=self.extra_headers,
            headers_file=self.headers_file,
        )
        return SinkAccess(
            credentials=credentials,
            client=self._client(),
            ca_file=self.ca_file,
            dead_letters_too=self.dead_letter_credentials,
        )

    def batch(self) -> BatchLimits | None:
        """How events travel together, if they do."""
        if self.mode is not EventMode.BATCH:
            return None
        return BatchLimits(self.batch_size, self.batch_bytes, self.batch_linger)

    def _client(self) -> ClientCertificate | None:
        if self.client_cert is None:
            return None
        return ClientCertificate(cert=self.client_cert, key=self.client_key, password_file=self.client_key_password)


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliverySettings:
    """How long and how patiently each event is tried"""

    sink_timeout: timedelta | None = setting(
        _sink_timeout, "seconds that one try may take; 0: no limit; -1: the default",
        flag="sink-timeout", env="K_SINK_TIMEOUT", shown_default="30", tolerant=True,
    )
    retry: int | None = setting(
        integer(0, 2**31 - 1), "tries after the first; unset: until the event's time is over",
        flag="retry", env="DELIVERY_RETRY",
    )
    backoff_policy: Backoff = setting(
        one_of(Backoff), "how waits grow: delay·2ⁿ or delay·n",
        flag="backoff-policy", env="DELIVERY_BACKOFF_POLICY", default=Backoff.EXPONENTIAL,
        choices=("exponential", "linear"),
    )
    backoff_delay: timedelta = setting(
        duration, "the delay they grow from (PT0.2S, 200ms)",
        flag="backoff-delay", env="DELIVERY_BACKOFF_DELAY", default=timedelta(milliseconds=50), shown_default="50ms",
    )
    retry_after_max: timedelta = setting(
        duration, "longest Retry-After of a 429 or 503 that is honoured; 0: none",
        flag="retry-after-max", env="DELIVERY_RETRY_AFTER_MAX", default=timedelta(minutes=2), shown_default="2m",
    )
    dead_letter_sink: Destination | Path | None = setting(
        parse_dead_letter_sink,
        "where events go that the sink refused or that ran out of time; file:///path: a file, for wellhead replay",
        flag="dead-letter-sink", env="DEAD_LETTER_SINK", secret=True,
    )
    dead_letter_max_bytes: int = setting(
        integer(1, 2**63 - 1), "how large that file may grow; full, it refuses the dead letter",
        flag="dead-letter-max-bytes", env="DEAD_LETTER_MAX_BYTES", default=MAX_BYTES,
    )
    poison_after: timedelta = setting(
        duration, "an event retried for so long while the sink accepts others counts as refused",
        flag="poison-after", env="DELIVERY_POISON_AFTER", default=timedelta(hours=1), shown_default="1h",
    )
    on_exhausted: OnExhausted = setting(
        one_of(OnExhausted), "what becomes of it then: refuse it, or hold it for ever",
        flag="on-exhausted", env="DELIVERY_ON_EXHAUSTED", default=OnExhausted.REFUSE, choices=("refuse", "hold"),
    )

    def policy(self, base: Policy = Policy()) -> Policy:  # noqa: B008 - frozen
        """The policy that these settings ask for; what they have no say in is as in ``base``, an adapter's own."""
        timeout = base.timeout if self.sink_timeout is None else self.sink_timeout
        return replace(
            base,
            retries=self.retry,
            backoff=self.backoff_policy,
            backoff_delay=self.backoff_delay,
            retry_after_max=self.retry_after_max,
            timeout=timeout or None,
            poison_after=self.poison_after,
            on_exhausted=self.on_exhausted,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """How the program runs"""

    name: str = setting(_name, "the source's name, in logs and metrics", flag="name", env="NAME", default="")
    namespace: str = setting(_name, "its namespace; sent as Kn-Namespace", flag="namespace", env="NAMESPACE", default="")
    component: str = setting(text, "the component's name in Knative's settings", env="K_COMPONENT", default="")
    health_port: int | None = setting(
        integer(0, 65535), "port of /healthz, /readyz, /metrics, /sinkz; 0: none",
        flag="health-port", env="HEALTH_PORT",
    )
    health_address: str = setting(
        listen_address, "address they listen on; empty: all", flag="health-address", env="HEALTH_ADDRESS", default=""
    )
    grace: timedelta = setting(
        duration, "how long deliveries may still take after SIGTERM",
        flag="grace", env="GRACE", default=timedelta(seconds=25), shown_default="25s",
    )
    transport: TransportChoice = setting(
        one_of(TransportChoice), "what sends: our own HTTP/1.1, or aiohttp, which goes through proxies; auto: as needed",
        flag="transport", env="HTTP_TRANSPORT", default=TransportChoice.AUTO, choices=("auto", "own", "aiohttp"),
    )
    concurrency: int | None = setting(
        integer(1, 10_000), "most tries of one sink on the wire at once, a connection each; unset: 128, or what the adapter asks for",
        flag="concurrency", env="SINK_CONCURRENCY", shown_default="128",
    )
    connect_timeout: timedelta = setting(
        _some_time, "how long connecting may take, TLS included; the rest of the try is the answer's",
        flag="connect-timeout", env="SINK_CONNECT_TIMEOUT", default=timedelta(seconds=10), shown_default="10s",
    )
    connection_age: timedelta = setting(
        _some_time, "how old a connection gets, a fifth more or less, so that new pods get their share (not with aiohttp)",
        flag="connection-age", env="SINK_CONNECTION_AGE", default=timedelta(seconds=60), shown_default="60s",
    )
    log_level: LogLevel | None = setting(
        one_of(LogLevel), "how much is logged",
        flag="log-level", env="LOG_LEVEL", shown_default="info", choices=("debug", "info", "warn", "error"),
    )
    log_format: LogFormat = setting(
        one_of(LogFormat), "how it looks; auto: text on a terminal, else JSON",
        flag="log-format", env="LOG_FORMAT", default=LogFormat.AUTO, choices=("auto", "json", "text"),
    )
    logging_config: LogLevel | None = setting(
        level_of_logging_config, "Knative's logging config, for the level", env="K_LOGGING_CONFIG", tolerant=True
    )
    prometheus: tuple[str, int] | None = setting(
        prometheus_endpoint, "Knative's observability config: where it wants /metrics",
        env="K_OBSERVABILITY_CONFIG", tolerant=True,
    )


    @property
    def on_wire(self) -> int:
        """Most tries of one sink on the wire at once."""
        return self.concurrency or ON_WIRE


KNATIVE_IGNORED = (
    "K_LEADER_ELECTION_CONFIG", "K_METRICS_CONFIG", "K_TRACING_CONFIG", "K_RESOURCE_GROUP", "K_KLOG_VERBOSITY",
    "K_NO_SHUTDOWN_AFTER", "METRICS_DOMAIN", "SYSTEM_NAMESPACE",
)
"""Variables that Knative's controllers set and that ask nothing of us."""
