"""The settings that every source has, whatever it listens to: its sink, its delivery, its process.

Names are Knative's where Knative has one (contract/core.md 1). An empty variable is an unset one, as its controllers
send empty strings for what is not there.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from .address import OIDC_TOKEN
from .binding import Destination, parse_overrides, parse_refs, parse_sink
from .delivery import Backoff, OnExhausted, Policy
from .durations import duration
from .env import integer, json_object, one_of, setting, text
from .log import LogFormat, LogLevel, level_of_logging_config
from .tls import ca_certs

if TYPE_CHECKING:
    from collections.abc import Mapping

_NAME = re.compile(r"[!-~]{0,253}")
_ENDPOINT = re.compile(r"(.*):(\d{1,5})", re.ASCII)
_ADDRESS = re.compile(r"(?!.{254})(?:[0-9A-Za-z_:%-]{1,63}\.)*[0-9A-Za-z_:%-]{0,63}")


class EventMode(enum.Enum):
    """How an event travels over HTTP."""

    BINARY = "binary"
    STRUCTURED = "structured"


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


def _path(value: str) -> Path:
    if "\0" in value:
        raise ValueError("is no path")
    return Path(value)


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
    audience: str = setting(text, "the sink's OIDC audience", flag="audience", env="K_AUDIENCE", default="")
    oidc_service_account: str = setting(
        text, "identity to ask a token for (with the API server's adapters)", env="K_OIDC_SERVICE_ACCOUNT", default=""
    )
    token_file: Path = setting(
        _path, "file with a bearer token for the sink; read again when it changes",
        flag="token-file", env="OIDC_TOKEN_FILE", default=OIDC_TOKEN,
    )
    mode: EventMode = setting(
        one_of(EventMode), "how events travel over HTTP",
        flag="mode", env="EVENT_MODE", default=EventMode.BINARY, choices=("binary", "structured"),
    )
    headers: HeaderValues = setting(
        one_of(HeaderValues), "attributes that no header can hold raw: send the event structured (raw), or encode them",
        flag="headers", env="EVENT_HEADERS", default=HeaderValues.RAW, choices=("raw", "percent-encode"),
    )


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
    dead_letter_sink: Destination | None = setting(
        parse_sink, "where events go that the sink refused or that ran out of time",
        flag="dead-letter-sink", env="DEAD_LETTER_SINK", secret=True,
    )
    poison_after: timedelta = setting(
        duration, "an event retried for so long while the sink accepts others counts as refused",
        flag="poison-after", env="DELIVERY_POISON_AFTER", default=timedelta(hours=1), shown_default="1h",
    )
    on_exhausted: OnExhausted = setting(
        one_of(OnExhausted), "what becomes of it then: refuse it, or hold it for ever",
        flag="on-exhausted", env="DELIVERY_ON_EXHAUSTED", default=OnExhausted.REFUSE, choices=("refuse", "hold"),
    )

    def policy(self) -> Policy:
        """The policy that these settings ask for."""
        timeout = Policy().timeout if self.sink_timeout is None else self.sink_timeout
        return Policy(
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


KNATIVE_IGNORED = (
    "K_LEADER_ELECTION_CONFIG", "K_METRICS_CONFIG", "K_TRACING_CONFIG", "K_RESOURCE_GROUP", "K_KLOG_VERBOSITY",
    "K_NO_SHUTDOWN_AFTER", "METRICS_DOMAIN", "SYSTEM_NAMESPACE",
)
"""Variables that Knative's controllers set and that ask nothing of us."""
