"""Counters and gauges, and their text for Prometheus. No I/O; not thread-safe, as all of it runs in one event loop.

Not prometheus_client, which adds 50 ms and 12 MiB to every adapter's start; the tests parse our text with it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bucket bounds of durations: those of the OpenTelemetry histograms that Knative 1.19 and later export."""


@dataclass(slots=True)
class Histogram:
    """How often, how long in all, and in which buckets."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds


@dataclass(slots=True)
class SinkCounters:
    """What became of the events of one source. `taken` = the sum of all the others, at any moment (`balance`)."""

    taken: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    refused: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    tries: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    seconds: Histogram = field(default_factory=Histogram)
    up: Callable[[], bool] = field(default=lambda: True)

    @property
    def balance(self) -> int:
        """0 as long as nothing was lost without being counted."""
        ended = self.delivered + self.dead_lettered + self.refused + sum(self.dropped.values())
        return self.taken - ended - self.in_flight

    def count_drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def count_try(self, outcome: str, seconds: float) -> None:
        self.tries[outcome] = self.tries.get(outcome, 0) + 1
        self.seconds.observe(seconds)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric family and its samples at this moment."""

    name: str
    kind: str
    help: str
    samples: tuple[tuple[str, Labels, float], ...]


def sink_metrics(sinks: dict[str, SinkCounters]) -> Iterator[Metric]:
    """The families of every source's deliveries, labelled with the source's name."""
    for name, kind, help_text, value in _PLAIN:
        samples = tuple((name, (("name", source),), value(counters)) for source, counters in sinks.items())
        yield Metric(name, kind, help_text, samples)
    yield _by_label("wellhead_events_dropped_total", "Events no sink accepted, by reason.", "reason", sinks, _dropped)
    yield _by_label("wellhead_tries_total", "Tries on the wire, by status or failure.", "outcome", sinks, _tries)
    seconds = [sample for source, counters in sinks.items() for sample in _histogram(source, counters.seconds)]
    yield Metric("wellhead_try_seconds", "histogram", "How long tries took.", tuple(seconds))


def exposition(metrics: Iterator[Metric]) -> bytes:
    """The Prometheus text format, version 0.0.4."""
    lines: list[str] = []
    for metric in metrics:
        lines += (f"# HELP {metric.name} {metric.help}", f"# TYPE {metric.name} {metric.kind}")
        lines += [f"{name}{_labels(labels)} {value:.17g}" for name, labels, value in metric.samples]
    return ("\n".join(lines) + "\n").encode()


_PLAIN: Final[tuple[tuple[str, str, str, Callable[[SinkCounters], float]], ...]] = (
    ("wellhead_events_taken_total", "counter", "Events the adapter gave to its sink.", lambda c: c.taken),
    ("wellhead_events_delivered_total", "counter", "Events the sink accepted.", lambda c: c.delivered),
    (
        "wellhead_events_dead_lettered_total",
        "counter",
        "Events the dead-letter sink accepted.",
        lambda c: c.dead_lettered,
    ),
    ("wellhead_events_refused_total", "counter", "Events refused and not dead-lettered.", lambda c: c.refused),
    ("wellhead_events_in_flight", "gauge", "Events whose delivery goes on.", lambda c: c.in_flight),
    ("wellhead_retries_total", "counter", "Tries after an event's first.", lambda c: c.retries),
    ("wellhead_sink_up", "gauge", "1 while the sink answers as it should.", lambda c: int(c.up())),
)


def _dropped(counters: SinkCounters) -> dict[str, int]:
    return counters.dropped


def _tries(counters: SinkCounters) -> dict[str, int]:
    return counters.tries


def _by_label(
    name: str,
    help_text: str,
    label: str,
    sinks: dict[str, SinkCounters],
    values: Callable[[SinkCounters], dict[str, int]],
) -> Metric:
    samples = tuple(
        (name, (("name", source), (label, key)), float(value))
        for source, counters in sinks.items()
        for key, value in sorted(values(counters).items())
    )
    return Metric(name, "counter", help_text, samples)


def _histogram(source: str, histogram: Histogram) -> Iterator[tuple[str, Labels, float]]:
    count = 0
    for bound, number in zip((*map(str, SECONDS), "+Inf"), histogram.buckets, strict=True):
        count += number
        yield "wellhead_try_seconds_bucket", (("name", source), ("le", bound)), count
    yield "wellhead_try_seconds_sum", (("name", source),), histogram.total
    yield "wellhead_try_seconds_count", (("name", source),), count


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
