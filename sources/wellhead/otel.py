"""Traces and metrics by the OpenTelemetry SDK (the extra ``otel``). Loaded by `wellhead.telemetry`, where asked for.

Traces are the SDK's own. Metrics are ours, the families of ``/metrics`` under the same names, handed to the SDK's
exporters: its own instruments would count everything a second time.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from contextlib import suppress
from importlib import import_module
from itertools import pairwise
from typing import TYPE_CHECKING, Final, cast

from opentelemetry import propagate, trace
from opentelemetry.sdk.metrics import export as points
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from . import __version__
from .telemetry import DEAD_LETTERED, DELIVERED, Exporter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from opentelemetry.sdk.trace.export import SpanExporter

    from .event import CloudEvent
    from .metrics import Labels, Metric
    from .telemetry import Signal, Wanted

_EVENT_CONTEXT: Final = TraceContextTextMapPropagator()
_LAST_EXPORT_SECONDS: Final = 5.0


class OtelSpan:
    """See `wellhead.telemetry.Span`."""

    __slots__ = ("_headers", "_span")

    def __init__(self, span: trace.Span) -> None:
        self._span = span
        carrier: dict[str, str] = {}
        propagate.inject(carrier, trace.set_span_in_context(span))
        self._headers = tuple((name.lower().encode(), value.encode()) for name, value in carrier.items())

    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        return self._headers

    def end(self, outcome: str) -> None:
        self._span.set_attribute("wellhead.outcome", outcome)
        if outcome not in (DELIVERED, DEAD_LETTERED):
            self._span.set_status(trace.StatusCode.ERROR, outcome)
        self._span.end()


class OtelTracer:
    """See `wellhead.telemetry.Tracer`. Spans are named as those of Knative's client are, and as it has producers."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("wellhead", __version__)

    def start(self, event: CloudEvent, sink: str) -> OtelSpan:
        named = {
            name: value
            for name in ("traceparent", "tracestate")
            if isinstance(value := event.extensions.get(name), str)
        }
        attributes = {
            "cloudevents.event_id": event.id,
            "cloudevents.event_source": event.source,
            "cloudevents.event_type": event.type,
            "cloudevents.event_spec_version": event.specversion,
            "url.full": sink,
        }
        if event.subject is not None:
            attributes["cloudevents.event_subject"] = event.subject
        return OtelSpan(
            self._tracer.start_span(
                f"cloudevents.client.{event.type} send",
                context=_EVENT_CONTEXT.extract(named) if named else None,
                kind=trace.SpanKind.PRODUCER,
                attributes=attributes,
            )
        )


class Otel:
    """See `wellhead.telemetry.Telemetry`."""

    def __init__(
        self,
        *,
        provider: TracerProvider | None,
        span_exporter: SpanExporter | None,
        exporter: points.MetricExporter | None,
        resource: Resource,
        interval: float,
        metrics: Callable[[], Sequence[Metric]],
    ) -> None:
        self.tracer = OtelTracer(provider) if provider is not None else None
        self._provider = provider
        self._span_exporter = span_exporter
        self._exporter = exporter
        self._resource = resource
        self._metrics = metrics
        self._began = time.time_ns()
        self._exporting = (
            asyncio.create_task(self._export_each(interval), name="export of metrics") if exporter is not None else None
        )

    async def stop(self) -> None:
        if self._exporting is not None:
            self._exporting.cancel()
            await asyncio.wait((self._exporting,))
        trying = [exporter for exporter in (self._exporter, self._span_exporter) if exporter is not None]
        with suppress(TimeoutError):  # the collector is away, and the SDK has logged it
            async with asyncio.timeout(_LAST_EXPORT_SECONDS):
                await self._export()
                if self._provider is not None:
                    await _in_thread(self._provider.shutdown)
                    trying = [one for one in trying if one is not self._span_exporter]  # its provider has ended it
        for exporter in trying:  # not waited for: it ends an export that still tries
            threading.Thread(target=exporter.shutdown, name="end of telemetry", daemon=True).start()

    async def _export_each(self, interval: float) -> None:
        while True:
            await asyncio.sleep(interval)
            await self._export()

    async def _export(self) -> None:
        exporter = self._exporter
        if exporter is not None:  # gathered here, where counters change; the SDK logs what fails
            data = metrics_data(self._metrics(), self._resource, self._began, time.time_ns())
            await _in_thread(lambda: exporter.export(data))


def begin(asked: Wanted, *, name: str, namespace: str, metrics: Callable[[], Sequence[Metric]]) -> Otel:
    """Set up what is asked for. Raises ImportError where an exporter is not installed."""
    own = {"service.version": __version__}
    if namespace:
        own["k8s.namespace.name"] = namespace
    said = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    if not os.environ.get("OTEL_SERVICE_NAME") and "service.name=" not in said:
        own["service.name"] = name
    resource = Resource.create(own)
    exporter = _metric_exporter(asked.metrics) if asked.metrics is not None else None
    provider = span_exporter = None
    if asked.traces is not None:
        sampler = ParentBased(TraceIdRatioBased(asked.sampling_rate)) if asked.sampling_rate is not None else None
        provider = TracerProvider(sampler=sampler, resource=resource, shutdown_on_exit=False)
        span_exporter = _span_exporter(asked.traces)
        provider.add_span_processor(BatchSpanProcessor(span_exporter))
    return Otel(
        provider=provider,
        span_exporter=span_exporter,
        exporter=exporter,
        resource=resource,
        interval=asked.interval,
        metrics=metrics,
    )


def _span_exporter(signal: Signal) -> SpanExporter:
    if signal.exporter is Exporter.STDOUT:
        return ConsoleSpanExporter()
    return cast("SpanExporter", _otlp(signal, "trace_exporter", "OTLPSpanExporter"))


def _metric_exporter(signal: Signal) -> points.MetricExporter:
    if signal.exporter is Exporter.STDOUT:
        return points.ConsoleMetricExporter()
    return cast("points.MetricExporter", _otlp(signal, "metric_exporter", "OTLPMetricExporter"))


def _otlp(signal: Signal, module: str, kind: str) -> object:
    """Only the packages of the protocol that is spoken are loaded; gRPC's are not in the extra, for their size."""
    protocol = "grpc" if signal.exporter is Exporter.GRPC else "http"
    loaded = import_module(f"opentelemetry.exporter.otlp.proto.{protocol}.{module}")
    made: object = getattr(loaded, kind)(endpoint=signal.endpoint or None)
    return made


def metrics_data(families: Iterable[Metric], resource: Resource, began: int, now: int) -> points.MetricsData:
    """Our families as OpenTelemetry has them, under the same names; times in nanoseconds since 1970."""
    scope = InstrumentationScope("wellhead", __version__)
    made = [
        points.Metric(
            name=family.name,
            description=family.help,
            unit="s" if family.name.endswith("_seconds") else "",
            data=_data(family, began, now),
        )
        for family in families
    ]
    scoped = points.ScopeMetrics(scope=scope, metrics=made, schema_url="")
    return points.MetricsData([points.ResourceMetrics(resource=resource, scope_metrics=[scoped], schema_url="")])


def _data(family: Metric, began: int, now: int) -> points.Sum | points.Gauge | points.Histogram:
    if family.kind == "histogram":
        return points.Histogram(list(_distributions(family, began, now)), points.AggregationTemporality.CUMULATIVE)
    numbers = [
        points.NumberDataPoint(dict(labels), began, now, int(value) if value == int(value) else value)
        for _, labels, value in family.samples
    ]
    if family.kind == "counter":
        return points.Sum(numbers, points.AggregationTemporality.CUMULATIVE, is_monotonic=True)
    return points.Gauge(numbers)


def _distributions(family: Metric, began: int, now: int) -> Iterator[points.HistogramDataPoint]:
    """A point for each series of a histogram: Prometheus' buckets are cumulative, OpenTelemetry's are not."""
    series: dict[Labels, tuple[list[float], list[int]]] = {}
    sums: dict[Labels, float] = {}
    for name, labels, value in family.samples:
        own = tuple(label for label in labels if label[0] != "le")
        if name.endswith("_bucket"):
            bounds, counts = series.setdefault(own, ([], [0]))
            bounds.append(float(dict(labels)["le"]))
            counts.append(int(value))
        elif name.endswith("_sum"):
            sums[own] = value
    for own, (bounds, counts) in series.items():
        yield points.HistogramDataPoint(
            attributes=dict(own),
            start_time_unix_nano=began,
            time_unix_nano=now,
            count=counts[-1],
            sum=sums[own],
            bucket_counts=[after - before for before, after in pairwise(counts)],
            explicit_bounds=bounds[:-1],
            min=None,  # type: ignore[arg-type]  # unknown; the encoder leaves it out
            max=None,  # type: ignore[arg-type]
        )


async def _in_thread(call: Callable[[], object]) -> None:
    """Wait for ``call`` in a thread that does not keep the program from ending, as one of asyncio's would."""
    loop = asyncio.get_running_loop()
    done = asyncio.Event()

    def run() -> None:
        try:
            call()
        finally:
            with suppress(RuntimeError):  # nobody waits any more, and the loop is closed
                loop.call_soon_threadsafe(done.set)

    threading.Thread(target=run, name="export of telemetry", daemon=True).start()
    await done.wait()
