from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from wellhead.metrics import (
    DELIVERY_SECONDS,
    SECONDS,
    CircuitState,
    Histogram,
    Metric,
    SinkCounters,
    SinkState,
    exposition,
    sink_metrics,
)

LABELS: Final = st.text(max_size=8) | st.text(alphabet='\\"\n{},=# a', max_size=8)
COUNTS: Final = st.integers(0, 2**53)


def parsed(sinks: dict[str, SinkCounters]) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample that Prometheus' own parser reads, by name and labels."""
    text = exposition(sink_metrics(sinks)).decode()
    families = list(text_string_to_metric_families(text))
    return {(one.name, tuple(sorted(one.labels.items()))): one.value for family in families for one in family.samples}


def test_every_counter_of_a_source_is_exposed_with_its_name() -> None:
    counters = SinkCounters(
        taken=9, delivered=4, dead_lettered=1, refused=1, in_flight=5, held=2, on_wire=3, retries=3,
        state=lambda: SinkState(up=False, circuit=CircuitState.PROBING),
    )  # fmt: skip
    counters.count_drop("expired")
    counters.count_drop("expired")
    counters.count_try("200", 0.004)
    counters.count_try("timeout", 30.0)
    samples = parsed({"a": counters})
    name = (("name", "a"),)
    assert {key: value for key, value in samples.items() if "seconds" not in key[0]} == {
        ("wellhead_events_taken_total", name): 9,
        ("wellhead_events_delivered_total", name): 4,
        ("wellhead_events_dead_lettered_total", name): 1,
        ("wellhead_events_refused_total", name): 1,
        ("wellhead_events_in_flight", name): 5,
        ("wellhead_events_held", name): 2,
        ("wellhead_events_on_wire", name): 3,
        ("wellhead_retries_total", name): 3,
        ("wellhead_sink_up", name): 0,
        ("wellhead_sink_circuit_open", name): 1,
        ("wellhead_events_dropped_total", (*name, ("reason", "expired"))): 2,
        ("wellhead_tries_total", (("class", "2xx"), *name, ("outcome", "200"))): 1,
        ("wellhead_tries_total", (("class", "none"), *name, ("outcome", "timeout"))): 1,
    }


def test_a_sink_is_up_and_its_circuit_closed_until_it_is_known_to_be_down() -> None:
    samples = parsed({"a": SinkCounters()})
    assert samples["wellhead_sink_up", (("name", "a"),)] == 1
    assert samples["wellhead_sink_circuit_open", (("name", "a"),)] == 0


@pytest.mark.parametrize(
    ("circuit", "value"), [(CircuitState.CLOSED, 0), (CircuitState.OPEN, 1), (CircuitState.PROBING, 1)], ids=str
)
def test_a_circuit_that_lets_probes_through_is_not_closed(circuit: CircuitState, value: int) -> None:
    samples = parsed({"a": SinkCounters(state=lambda: SinkState(circuit=circuit))})
    assert samples["wellhead_sink_circuit_open", (("name", "a"),)] == value


@pytest.mark.parametrize(
    ("outcome", "status_class"),
    [
        ("204", "2xx"),
        ("503", "5xx"),
        ("100", "1xx"),
        ("999", "9xx"),
        ("connect", "none"),
        ("tls", "none"),
    ],
)
def test_tries_are_told_apart_by_class(outcome: str, status_class: str) -> None:
    counters = SinkCounters()
    counters.count_try(outcome, 0.1)
    key = ("wellhead_tries_total", (("class", status_class), ("name", "a"), ("outcome", outcome)))
    assert parsed({"a": counters})[key] == 1


def test_each_family_says_its_kind_and_what_it_is() -> None:
    kinds = {
        family.name: family.type for family in text_string_to_metric_families(exposition(sink_metrics({})).decode())
    }
    assert kinds == {
        "wellhead_events_taken": "counter",
        "wellhead_events_delivered": "counter",
        "wellhead_events_dead_lettered": "counter",
        "wellhead_events_refused": "counter",
        "wellhead_events_in_flight": "gauge",
        "wellhead_events_held": "gauge",
        "wellhead_events_on_wire": "gauge",
        "wellhead_sink_circuit_open": "gauge",
        "wellhead_delivery_duration_seconds": "histogram",
        "wellhead_retries": "counter",
        "wellhead_sink_up": "gauge",
        "wellhead_events_dropped": "counter",
        "wellhead_tries": "counter",
        "wellhead_try_duration_seconds": "histogram",
    }


def test_a_metric_without_labels_has_no_braces() -> None:
    assert (
        exposition(iter([Metric("up", "gauge", "Up.", (("up", (), 1.0),))]))
        == b"# HELP up Up.\n# TYPE up gauge\nup 1\n"
    )


@given(sources=st.dictionaries(LABELS, COUNTS, max_size=4), reason=LABELS, outcome=LABELS)
def test_prometheus_reads_any_label_value_as_it_was_written(sources: dict[str, int], reason: str, outcome: str) -> None:
    sinks = {source: SinkCounters(taken=taken) for source, taken in sources.items()}
    for counters in sinks.values():
        counters.count_drop(reason)
        counters.count_try(outcome, 0.1)
    samples = parsed(sinks)
    for source, taken in sources.items():
        assert samples["wellhead_events_taken_total", (("name", source),)] == taken
        assert samples["wellhead_events_dropped_total", (("name", source), ("reason", reason))] == 1
        assert sum(
            samples[key] for key in samples if key[0] == "wellhead_tries_total" and ("outcome", outcome) in key[1]
        ) == len(sinks)


@pytest.mark.parametrize(
    ("family", "bounds"),
    [("wellhead_try_duration_seconds", SECONDS), ("wellhead_delivery_duration_seconds", DELIVERY_SECONDS)],
)
@given(durations=st.lists(st.floats(0, 5000) | st.sampled_from(DELIVERY_SECONDS), max_size=30))
def test_a_histograms_buckets_are_cumulative_and_include_their_bounds(
    family: str, bounds: tuple[float, ...], durations: list[float]
) -> None:
    counters = SinkCounters()
    for seconds in durations:
        counters.count_try("200", seconds)
        counters.delivery_seconds.observe(seconds)
    samples = parsed({"a": counters})
    for bound in bounds:
        key = (f"{family}_bucket", (("le", str(bound)), ("name", "a")))
        assert samples[key] == sum(seconds <= bound for seconds in durations)
    name = (("name", "a"),)
    assert samples[f"{family}_bucket", (("le", "+Inf"), *name)] == len(durations)
    assert samples[f"{family}_count", name] == len(durations)
    assert samples[f"{family}_sum", name] == sum(durations)


def test_histograms_do_not_share_their_buckets() -> None:
    first, second = Histogram(), Histogram()
    first.observe(0.1)
    assert (sum(first.buckets), sum(second.buckets)) == (1, 0)


@given(
    delivered=COUNTS,
    dead_lettered=COUNTS,
    refused=COUNTS,
    in_flight=COUNTS,
    dropped=st.dictionaries(LABELS, COUNTS, max_size=3),
    lost=COUNTS,
)
def test_the_balance_is_what_was_taken_and_never_counted_again(
    delivered: int, dead_lettered: int, refused: int, in_flight: int, dropped: dict[str, int], lost: int
) -> None:
    counters = SinkCounters(
        taken=delivered + dead_lettered + refused + in_flight + sum(dropped.values()) + lost,
        delivered=delivered, dead_lettered=dead_lettered, refused=refused, in_flight=in_flight, dropped=dropped,
    )  # fmt: skip
    assert counters.balance == lost
