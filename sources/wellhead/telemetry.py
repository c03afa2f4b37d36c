"""OpenTelemetry: what the environment asks for, as a value, and the seam to the engine. Imports none of it itself.

The implementation is `wellhead.otel`, loaded by `start` only where something is asked for.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from .env import json_object

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .event import CloudEvent
    from .metrics import Metric

_log = logging.getLogger(__name__)

DELIVERED: Final = "delivered"
DEAD_LETTERED: Final = "dead_lettered"
"""Outcomes of a span that are no failure; every other is the value of a `wellhead.errors.Loss`."""


class Span(Protocol):
    """One event's delivery, as traces show it."""

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What each try carries beside the event: W3C ``traceparent``, and what else ``OTEL_PROPAGATORS`` names."""

    def end(self, outcome: str) -> None:
        """The delivery has ended: `DELIVERED`, `DEAD_LETTERED`, or the value of a `Loss`. Called once."""


class Tracer(Protocol):
    """What the engine asks for each event. Without tracing there is none, and it costs a test for None."""

    def start(self, event: CloudEvent, sink: str) -> Span | None:
        """A span for the delivery of ``event``, below the trace that the event itself names; None: it has none.

        The event's own ``traceparent`` extension stays as it is. ``sink`` is the address without what may be secret.
        """


class Telemetry(Protocol):
    """What runs beside a program. `stop` is called once, when nothing is delivered any more."""

    @property
    def tracer(self) -> Tracer | None:
        """None where no traces are asked for."""

    async def stop(self) -> None:
        """Export what is left; waits for the collector for some seconds at most."""


class Exporter(enum.Enum):
    """Where a signal goes: the protocols that both Knative's config and OpenTelemetry's variables know."""

    HTTP = "http/protobuf"
    GRPC = "grpc"
    STDOUT = "stdout"


@dataclass(frozen=True, slots=True)
class Signal:
    """Where traces or metrics go. ``endpoint`` "": where OpenTelemetry's own variables and defaults say."""

    exporter: Exporter
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What is asked for."""

    traces: Signal | None = None
    metrics: Signal | None = None
    sampling_rate: float | None = None
    """The part of traces to keep where Knative's config says so; None: as ``OTEL_TRACES_SAMPLER`` says, else all."""
    interval: float = 60.0
    """Seconds between two exports of metrics."""
    ignored: tuple[str, ...] = ()
    """What was asked for and cannot be had, in words."""


def wanted(environment: Mapping[str, str]) -> Wanted:
    """What ``OTEL_*`` and ``K_OBSERVABILITY_CONFIG`` ask for; the former win.

    A collector's address (``OTEL_EXPORTER_OTLP_ENDPOINT``) is enough: Knative's controllers send the protocol ``none``
    to everyone, so theirs is no refusal. ``OTEL_TRACES_EXPORTER=none`` and ``OTEL_SDK_DISABLED=true`` are.
    """
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return Wanted()
    config = _observability(environment.get("K_OBSERVABILITY_CONFIG", ""))
    tracing, metrics = _block(config, "tracing"), _block(config, "metrics")
    ignored: list[str] = []
    rate = tracing.get("samplingRate")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate <= 1:
        rate = None
    return Wanted(
        traces=_signal("TRACES", tracing, environment, ignored),
        metrics=_signal("METRICS", metrics, environment, ignored),
        sampling_rate=rate if not environment.get("OTEL_TRACES_SAMPLER") else None,
        interval=_interval(metrics, environment, ignored),
        ignored=tuple(ignored),
    )


def start(asked: Wanted, *, name: str, namespace: str, metrics: Callable[[], Sequence[Metric]]) -> Telemetry | None:
    """Begin what is asked for; None where nothing is, or where it is not installed, which is told once.

    Called in the running loop. ``metrics`` gives every family as it is at that moment.
    """
    for words in asked.ignored:
        _log.warning("a setting of OpenTelemetry is ignored", extra={"reason": words})
    if asked.traces is None and asked.metrics is None:
        return None
    try:
        from . import otel  # noqa: PLC0415 - 150 ms of start-up that only who asks for it pays

        return otel.begin(asked, name=name, namespace=namespace, metrics=metrics)
    except ImportError as error:
        missing = error.name or str(error)
        package = "opentelemetry-exporter-otlp-proto-grpc" if "grpc" in missing else "wellhead[otel]"
        _log.warning(
            "OpenTelemetry is asked for and not installed; nothing is exported",
            extra={"missing": missing, "install": f"pip install '{package}'"},
        )
        return None


def _signal(
    signal: str, config: Mapping[str, object], environment: Mapping[str, str], ignored: list[str]
) -> Signal | None:
    variable = f"OTEL_{signal}_EXPORTER"
    named = environment.get(variable, "").strip().lower()
    if named in ("console", "stdout"):
        return Signal(Exporter.STDOUT)
    if named == "none" or (named == "prometheus" and signal == "METRICS"):  # /metrics is there anyway
        return None
    if named not in ("", "otlp"):
        ignored.append(f"{variable} is {ascii(named)[:40]}, not otlp, console or none")
        return None
    theirs = config.get("protocol")
    placed = any(environment.get(f"OTEL_EXPORTER_OTLP_{part}ENDPOINT") for part in ("", f"{signal}_"))
    if not named and not placed and theirs in (None, "", "none", "prometheus"):
        return None
    spoken = environment.get(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environment.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if not spoken and theirs not in (None, "", "none", "prometheus"):
        spoken = str(theirs)
    try:
        exporter = Exporter(spoken or "http/protobuf")
    except ValueError:
        ignored.append(f"{signal.lower()} have the protocol {ascii(spoken)[:40]}, not http/protobuf or grpc")
        return None
    endpoint = config.get("endpoint")
    return Signal(exporter, endpoint if isinstance(endpoint, str) and theirs == exporter.value and not placed else "")


def _interval(config: Mapping[str, object], environment: Mapping[str, str], ignored: list[str]) -> float:
    said = environment.get("OTEL_METRIC_EXPORT_INTERVAL", "").strip()
    if said.isascii() and said.isdigit() and int(said[:12]) > 0:
        return int(said[:12]) / 1000
    if said:
        ignored.append(f"OTEL_METRIC_EXPORT_INTERVAL is {ascii(said)[:40]}, not milliseconds")
    nanoseconds = config.get("exportInterval")
    if isinstance(nanoseconds, bool) or not isinstance(nanoseconds, int) or nanoseconds <= 0:
        return 60.0
    return nanoseconds / 1e9


def _observability(text: str) -> Mapping[str, object]:
    try:
        return json_object(text) if text else {}
    except ValueError:
        return {}  # the settings tell


def _block(config: Mapping[str, object], name: str) -> Mapping[str, object]:
    block = config.get(name)
    return block if isinstance(block, dict) else {}
