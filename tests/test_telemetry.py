from __future__ import annotations

import json
import logging
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.telemetry import Exporter, Signal, Wanted, start, wanted

HTTP, GRPC, STDOUT = Signal(Exporter.HTTP), Signal(Exporter.GRPC), Signal(Exporter.STDOUT)
NAMES: Final = (
    "OTEL_SDK_DISABLED", "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT",
    "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_METRIC_EXPORT_INTERVAL", "OTEL_TRACES_SAMPLER", "K_OBSERVABILITY_CONFIG",
)  # fmt: skip


def knative(**blocks: object) -> dict[str, str]:
    return {"K_OBSERVABILITY_CONFIG": json.dumps(blocks)}


ENDPOINT: Final = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}
NONE: Final = knative(tracing={"protocol": "none"}, metrics={"protocol": "none"})


@pytest.mark.parametrize(
    ("environment", "traces", "metrics"),
    [
        ({}, None, None),
        (NONE, None, None),
        (knative(metrics={"protocol": "prometheus", "endpoint": ":9092"}), None, None),
        ({"K_OBSERVABILITY_CONFIG": "{broken"}, None, None),
        (knative(tracing=[], metrics=1), None, None),
        (ENDPOINT, HTTP, HTTP),
        ({**NONE, **ENDPOINT}, HTTP, HTTP),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, None, None),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, None, HTTP),
        ({**ENDPOINT, "OTEL_METRICS_EXPORTER": "prometheus"}, HTTP, None),
        ({"OTEL_TRACES_EXPORTER": "console"}, STDOUT, None),
        ({"OTEL_METRICS_EXPORTER": "otlp"}, None, HTTP),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://c/v1/traces"}, HTTP, None),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, GRPC, GRPC),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL": "grpc"}, HTTP, GRPC),
        (knative(tracing={"protocol": "stdout"}), STDOUT, None),
        (knative(tracing={"protocol": "grpc", "endpoint": "c:4317"}), Signal(Exporter.GRPC, "c:4317"), None),
        (
            knative(metrics={"protocol": "http/protobuf", "endpoint": "http://c/v1/metrics"}),
            None,
            Signal(Exporter.HTTP, "http://c/v1/metrics"),
        ),
        ({**knative(tracing={"protocol": "http/protobuf", "endpoint": "http://c"}), **ENDPOINT}, HTTP, HTTP),
        (
            {
                **knative(tracing={"protocol": "grpc", "endpoint": "c:4317"}),
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            },
            HTTP,
            None,
        ),
    ],
)
def test_what_is_exported_and_where_to(
    environment: dict[str, str], traces: Signal | None, metrics: Signal | None
) -> None:
    asked = wanted(environment)
    assert (asked.traces, asked.metrics, asked.ignored) == (traces, metrics, ())


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"OTEL_TRACES_EXPORTER": "zipkin"}, "OTEL_TRACES_EXPORTER is 'zipkin', not otlp, console or none"),
        (
            {**ENDPOINT, "OTEL_METRICS_EXPORTER": "none", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "traces have the protocol 'http/json', not http/protobuf or grpc",
        ),
        (knative(metrics={"protocol": "statsd"}), "metrics have the protocol 'statsd', not http/protobuf or grpc"),
        ({"OTEL_METRIC_EXPORT_INTERVAL": "1m"}, "OTEL_METRIC_EXPORT_INTERVAL is '1m', not milliseconds"),
    ],
)
def test_what_cannot_be_had_is_told_and_the_rest_goes_on(
    environment: dict[str, str], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    asked = wanted(environment)
    assert (asked.traces, asked.metrics, asked.ignored) == (None, None, (words,))
    assert start(asked, name="a", namespace="", metrics=list) is None
    assert [vars(record)["reason"] for record in caplog.records] == [words]


@pytest.mark.parametrize(
    ("environment", "rate"),
    [
        ({}, None),
        (knative(tracing={"samplingRate": 0.1}), 0.1),
        (knative(tracing={"samplingRate": 0}), 0),
        (knative(tracing={"samplingRate": True}), None),
        (knative(tracing={"samplingRate": 2}), None),
        ({**knative(tracing={"samplingRate": 0.1}), "OTEL_TRACES_SAMPLER": "always_on"}, None),
    ],
)
def test_the_part_of_traces_to_keep(environment: dict[str, str], rate: float | None) -> None:
    assert wanted(environment).sampling_rate == rate


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 60),
        (knative(metrics={"exportInterval": 15_000_000_000}), 15),
        (knative(metrics={"exportInterval": True}), 60),
        (knative(metrics={"exportInterval": -1}), 60),
        ({**knative(metrics={"exportInterval": 15_000_000_000}), "OTEL_METRIC_EXPORT_INTERVAL": "500"}, 0.5),
    ],
)
def test_how_often_metrics_are_exported(environment: dict[str, str], seconds: float) -> None:
    assert wanted(environment).interval == seconds


@given(
    environment=st.dictionaries(st.sampled_from(NAMES), st.text(max_size=8) | st.sampled_from(["grpc", "otlp", "{}"]))
)
def test_no_environment_is_too_odd(environment: dict[str, str]) -> None:
    assert wanted(environment).interval > 0


def test_nothing_is_begun_or_told_where_nothing_is_asked_for(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    assert start(Wanted(), name="a", namespace="", metrics=list) is None
    assert caplog.records == []
