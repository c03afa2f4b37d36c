"""Traces and metrics by the SDK: spans kept in memory, and a whole program against a collector on loopback."""

from __future__ import annotations

import asyncio
import sys
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.metrics import export as points
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode
from tests.process import HEARTBEAT, IN_TIME, POD, run

from wellhead import otel
from wellhead.binding import SinkBinding
from wellhead.delivery import Policy
from wellhead.errors import DeliveryError
from wellhead.event import CloudEvent
from wellhead.host import Host
from wellhead.http_server import HttpServer
from wellhead.http_server.exchange import Request, Response
from wellhead.metrics import SECONDS, CircuitState, SinkCounters, SinkState, sink_metrics
from wellhead.telemetry import Exporter, Signal, Wanted
from wellhead.testing import Answer, FakeTransport, LoopClock, RecordingSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from wellhead.sink import HttpSink
    from wellhead.transport import Post

TRACE: Final = "0af7651916cd43dd8448eb211c80319c"
PARENT: Final = "b7ad6b7169203331"
EVENT: Final = CloudEvent(id="1", source="/spring", type="drop", subject="s")


def traceparent(post: Post) -> str | None:
    return next((value.decode() for name, value in post.headers if name == b"traceparent"), None)


class Traced:
    """A sink whose spans are kept."""

    def __init__(self, provider: TracerProvider | None = None) -> None:
        self.transport = FakeTransport()
        self.spans = InMemorySpanExporter()
        provider = provider or TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self.spans))
        self.host = Host(self.transport, LoopClock())
        self.host.tracer = otel.OtelTracer(provider)

    def sink(self, *, dead_letter: bool = False) -> HttpSink:
        return self.host.open_sink(
            "well",
            SinkBinding(sink="http://sink/?key=hunter2"),
            policy=Policy(),
            dead_letter=SinkBinding(sink="http://dead/") if dead_letter else None,
        )

    def span(self) -> ReadableSpan:
        (span,) = self.spans.get_finished_spans()
        return span


@pytest.mark.looptime
async def test_a_delivery_is_one_span_and_each_of_its_tries_carries_it() -> None:
    traced = Traced()
    traced.transport.then(Answer(503), Answer(202))
    await traced.sink().send(EVENT)
    span = traced.span()
    assert (span.name, span.kind) == ("cloudevents.client.drop send", SpanKind.PRODUCER)
    assert dict(span.attributes or {}) == {
        "cloudevents.event_id": "1",
        "cloudevents.event_source": "/spring",
        "cloudevents.event_type": "drop",
        "cloudevents.event_subject": "s",
        "cloudevents.event_spec_version": "1.0",
        "url.full": "http://sink/?…",
        "wellhead.outcome": "delivered",
    }
    assert span.status.status_code is StatusCode.UNSET
    context = span.context
    assert context is not None
    sent = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    assert [traceparent(post) for post in traced.transport.posts] == [sent, sent]
    assert context.trace_flags.sampled


@pytest.mark.looptime
async def test_an_event_that_names_a_trace_is_delivered_in_it_and_keeps_its_own_words() -> None:
    traced = Traced()
    own = f"00-{TRACE}-{PARENT}-01"
    named = CloudEvent(id="1", source="/spring", type="drop", extensions={"traceparent": own, "tracestate": "a=b"})
    await traced.sink().send(named)
    span = traced.span()
    assert span.context is not None
    assert span.parent is not None
    assert (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}") == (TRACE, PARENT)
    (post,) = traced.transport.posts
    assert traceparent(post) == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert (b"tracestate", b"a=b") in post.headers
    assert traced.transport.events == [named]


@pytest.mark.looptime
@pytest.mark.parametrize("words", ["", "nonsense", "00-0-0-01"])
async def test_a_trace_that_cannot_be_read_is_none(words: str) -> None:
    traced = Traced()
    await traced.sink().send(CloudEvent(id="1", source="/spring", type="drop", extensions={"traceparent": words}))
    assert traced.span().parent is None


@pytest.mark.looptime
async def test_an_event_that_is_lost_is_a_span_that_failed() -> None:
    traced = Traced()
    traced.transport.always(Answer(422))
    with pytest.raises(DeliveryError):
        await traced.sink().send(EVENT)
    span = traced.span()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "refused")


@pytest.mark.looptime
async def test_a_dead_letter_is_no_failure_and_travels_in_the_same_span() -> None:
    traced = Traced()
    traced.transport.then(Answer(422), Answer(202))
    await traced.sink(dead_letter=True).send(EVENT)
    span = traced.span()
    assert (span.attributes or {})["wellhead.outcome"] == "dead_lettered"
    first, second = map(traceparent, traced.transport.posts)
    assert first == second is not None


@pytest.mark.looptime
async def test_a_delivery_that_the_drain_ends_ends_its_span() -> None:
    traced = Traced()
    traced.transport.always(Answer(503))
    sink = traced.sink()
    sending = asyncio.create_task(sink.send(EVENT))
    await traced.transport.came(1)
    await sink.drain(0)
    with pytest.raises(DeliveryError):
        await sending
    assert traced.span().status.description == "stopped"


@pytest.mark.looptime
async def test_who_samples_nothing_tells_the_sink_so() -> None:
    traced = Traced(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))
    await traced.sink().send(EVENT)
    assert traced.spans.get_finished_spans() == ()
    flags = (traceparent(traced.transport.posts[0]) or "").rpartition("-")[2]
    assert int(flags, 16) & 1 == 0


@pytest.mark.looptime
async def test_without_tracing_no_header_goes_out() -> None:
    transport = FakeTransport()
    await Host(transport, LoopClock()).open_sink("well", SinkBinding(sink="http://sink/")).send(EVENT)
    assert traceparent(transport.posts[0]) is None


# --- metrics ---


def test_our_families_become_opentelemetrys_under_the_same_names() -> None:
    counters = SinkCounters(taken=3, delivered=2, in_flight=1, state=lambda: SinkState(circuit=CircuitState.OPEN))
    counters.count_try("202", 0.005)
    counters.count_try("503", 0.3)
    counters.count_try("503", 60.0)
    families = list(sink_metrics({"a": counters}))
    (resource,) = otel.metrics_data(families, Resource({}), 1, 2).resource_metrics
    (scope,) = resource.scope_metrics
    made = {metric.name: metric for metric in scope.metrics}
    assert set(made) == {family.name for family in families}
    taken = made["wellhead_events_taken_total"].data
    assert isinstance(taken, points.Sum)
    assert taken.is_monotonic
    assert [(point.value, dict(point.attributes or {})) for point in taken.data_points] == [(3, {"name": "a"})]
    assert isinstance(made["wellhead_sink_circuit_open"].data, points.Gauge)
    tries = made["wellhead_try_duration_seconds"]
    assert tries.unit == "s"
    assert isinstance(tries.data, points.Histogram)
    (point,) = tries.data.data_points
    assert tuple(point.explicit_bounds) == SECONDS
    assert (point.count, point.sum, sum(point.bucket_counts)) == (3, 60.305, 3)
    assert [number for number in point.bucket_counts if number] == [1, 1, 1]
    assert (point.bucket_counts[0], point.bucket_counts[-1]) == (1, 1)


# --- a program and a collector ---


class Collector:
    """Takes OTLP over HTTP, and keeps what came by its path."""

    def __init__(self) -> None:
        self.came: dict[str, list[bytes]] = {}
        self.url = ""

    def answer(self, request: Request) -> Response:
        self.came.setdefault(request.path, []).append(request.body)
        return Response(200, b"", ((b"content-type", b"application/x-protobuf"),))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        server = HttpServer(self.answer, name="collector")
        host, port = await server.start("127.0.0.1", 0)
        self.url = f"http://{host}:{port}"
        try:
            yield
        finally:
            await server.stop(1.0)


async def test_a_program_exports_its_spans_and_its_metrics_before_it_ends() -> None:
    collector = Collector()
    async with collector.serving(), RecordingSink() as sink:
        environment = {
            **POD, "ONE_SHOT": "1", "SINK": sink.url, "NAME": "beat", "NAMESPACE": "n",
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_EXPORTER_OTLP_COMPRESSION": "none",
        }  # fmt: skip
        code, program = await run(*HEARTBEAT, env=environment)
        assert code == 0, program.stderr.text
        (received,) = sink.requests
        header = dict(received.request.headers)[b"traceparent"].decode()
    traces = ExportTraceServiceRequest.FromString(b"".join(collector.came["/v1/traces"]))
    (resource,) = traces.resource_spans
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert (attributes["service.name"], attributes["k8s.namespace.name"]) == ("beat", "n")
    (span,) = resource.scope_spans[0].spans
    assert header.startswith(f"00-{span.trace_id.hex()}-{span.span_id.hex()}-")
    metrics = ExportMetricsServiceRequest.FromString(collector.came["/v1/metrics"][-1])
    by_name = {one.name: one for one in metrics.resource_metrics[0].scope_metrics[0].metrics}
    (delivered,) = by_name["wellhead_events_delivered_total"].sum.data_points
    assert delivered.as_int == 1


async def test_knatives_config_asks_for_traces_as_well() -> None:
    collector = Collector()
    async with collector.serving(), RecordingSink() as sink:
        config = f'{{"tracing":{{"protocol":"http/protobuf","endpoint":"{collector.url}/t","samplingRate":1}}}}'
        environment = {**POD, "ONE_SHOT": "1", "SINK": sink.url, "K_OBSERVABILITY_CONFIG": config}
        code, program = await run(*HEARTBEAT, env=environment)
        assert code == 0, program.stderr.text
    assert set(collector.came) == {"/t"}


@pytest.mark.parametrize(
    ("missing", "protocol", "package"),
    [
        ("opentelemetry", "http/protobuf", "wellhead[otel]"),
        ("opentelemetry.exporter.otlp.proto.grpc", "grpc", "opentelemetry-exporter-otlp-proto-grpc"),
    ],
)
async def test_asked_for_and_not_installed_is_one_warning(missing: str, protocol: str, package: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; import runpy; runpy.run_module({HEARTBEAT[2]!r}, run_name='__main__')"
    async with RecordingSink() as sink:
        environment = {
            **POD, "ONE_SHOT": "1", "SINK": sink.url,
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        }  # fmt: skip
        code, ran = await run(sys.executable, "-c", program, env=environment)
        assert code == 0, ran.stderr.text
        assert len(sink.events) == 1
    assert ran.stderr.text.count("not installed") == 1
    assert f"pip install '{package}'" in ran.stderr.text


async def test_metrics_are_exported_each_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    collector = Collector()
    async with collector.serving():
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        asked = Wanted(metrics=Signal(Exporter.HTTP), interval=0.01)
        told = asyncio.Event()
        rounds = 0

        def metrics() -> list[object]:
            nonlocal rounds
            rounds += 1
            if rounds == 3:
                told.set()
            return []

        exports = otel.begin(asked, name="a", namespace="", metrics=metrics)  # type: ignore[arg-type]
        assert exports.tracer is None
        async with asyncio.timeout(IN_TIME):
            await told.wait()
        await exports.stop()
    assert len(collector.came["/v1/metrics"]) >= 2


async def test_a_collector_that_is_away_does_not_keep_the_program_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setattr(otel, "_LAST_EXPORT_SECONDS", 0.05)
    asked = Wanted(traces=Signal(Exporter.HTTP), metrics=Signal(Exporter.HTTP))
    exports = otel.begin(asked, name="a", namespace="", metrics=list)
    assert exports.tracer is not None
    exports.tracer.start(EVENT, "http://sink/").end("delivered")
    async with asyncio.timeout(IN_TIME):
        await exports.stop()


class Stubborn(SpanExporter):
    """Tries until it is told to end."""

    def __init__(self) -> None:
        self.ended = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.ended.wait()
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self.ended.set()


async def test_what_still_tries_when_the_time_is_over_is_told_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    exporter = Stubborn()
    monkeypatch.setattr(otel, "_span_exporter", lambda _: exporter)
    monkeypatch.setattr(otel, "_LAST_EXPORT_SECONDS", 0.05)
    exports = otel.begin(Wanted(traces=Signal(Exporter.HTTP)), name="a", namespace="", metrics=list)
    assert exports.tracer is not None
    exports.tracer.start(EVENT, "http://sink/").end("delivered")
    await exports.stop()
    assert await asyncio.to_thread(exporter.ended.wait, IN_TIME)
