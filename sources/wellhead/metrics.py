"""Counters and gauges, and their text for Prometheus. No I/O; not thread-safe, as all of it runs in one event loop.

Not prometheus_client, which adds 50 ms and 12 MiB to every adapter's start; the tests parse our text with it.
"""

from __future__ import annotations

import enum
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Final, Protocol, TypeAlias

Labels: TypeAlias = tuple[tuple[str, str], ...]

SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
"""Bucket bounds of a try: those of the OpenTelemetry histograms that Knative 1.19 and later export."""
DELIVERY_SECONDS: Final = (*SECONDS, 30.0, 60.0, 300.0, 900.0, 3600.0)
"""Bucket bounds of a delivery, which goes on while the sink is down."""


class Histogram:
    """How often, how long in all, and in which buckets."""

    __slots__ = ("bounds", "buckets", "total")

    def __init__(self, bounds: tuple[float, ...] = SECONDS) -> None:
        self.bounds = bounds
        self.buckets = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, seconds: float) -> None:
        self.buckets[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class CircuitState(enum.Enum):
    """Whether a sink gets all its events (the values are the words of ``/sinkz``)."""

    CLOSED = "closed"  # all of them
    OPEN = "open"  # none: the next probe is waited for
    PROBING = "probing"  # one, to see whether it is up again


@dataclass(frozen=True, slots=True)
class SinkState:
    """A sink as it is now. ``since`` is when it last went up or down, by the event loop's clock; None: it never did."""

    up: bool = True
    since: float | None = None
    reason: str = ""
    """Why it is down."""
    circuit: CircuitState = CircuitState.CLOSED


@dataclass(slots=True)
class SinkCounters:
    """What became of the events of one source. `taken` = the sum of all the others, at any moment (`balance`)."""

    taken: int = 0
    delivered: int = 0
    dead_lettered: int = 0
    refused: int = 0
    dropped: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    held: int = 0
    """Of those in flight: wait because sink or credential is wrong."""
    on_wire: int = 0
    """Of those in flight: wait for the sink's answer."""
    tries: dict[str, int] = field(default_factory=dict)
    retries: int = 0
    seconds: Histogram = field(default_factory=Histogram)
    delivery_seconds: Histogram = field(default_factory=lambda: Histogram(DELIVERY_SECONDS))
    """From `Sink.send` to the event's end, whatever that is."""
    state: Callable[[], SinkState] = field(default=SinkState)
    """How the sink is; whoever delivers sets it."""

    @property
    def balance(self) -> int:
        """0 as long as nothing was lost without being counted."""
        ended = self.delivered + self.dead_lettered + self.refused + sum(self.dropped.values())
        return self.taken - ended - self.in_flight

    def count_drop(self, reason: str) -> None:
        self.dropped[reason] = self.dropped.get(reason, 0) + 1

    def count_accepted_at_once(self, status: str, tried: float, delivered: float) -> None:
        """The end of an event that its first try brought to the sink: how long the try took, and the delivery."""
        self.on_wire -= 1
        self.in_flight -= 1
        self.delivered += 1
        self.tries[status] = self.tries.get(status, 0) + 1
        self.seconds.observe(tried)
        self.delivery_seconds.observe(delivered)

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


class Measured(Protocol):
    """What an adapter adds to be asked for metrics of its own."""

    def metrics(self) -> Iterator[Metric]:
        """Its families at this moment, without the label ``name``; the same ones each time. Called in the event loop."""


def adapter_metrics(adapters: Mapping[str, object]) -> Iterator[Metric]:
    """The families of every adapter that is `Measured`, labelled with the source's name; one family is told once."""
    families: dict[str, Metric] = {}
    for source, adapter in adapters.items():
        measured = getattr(adapter, "metrics", None)
        for metric in measured() if measured is not None else ():
            samples = tuple((name, (("name", source), *labels), value) for name, labels, value in metric.samples)
            known = families.get(metric.name, replace(metric, samples=()))
            families[metric.name] = replace(known, samples=(*known.samples, *samples))
    yield from families.values()


def sink_metrics(sinks: dict[str, SinkCounters]) -> Iterator[Metric]:
    """The families of every source's deliveries, labelled with the source's name."""
    for name, kind, help_text, value in _PLAIN:
        samples = tuple((name, (("name", source),), value(counters)) for source, counters in sinks.items())
        yield Metric(name, kind, help_text, samples)
    dropped, tries = "wellhead_events_dropped_total", "wellhead_tries_total"
    yield Metric(dropped, "counter", "Events no sink accepted, by reason.", tuple(_dropped(dropped, sinks)))
    yield Metric(tries, "counter", "Tries on the wire, by status or failure.", tuple(_tries(tries, sinks)))
    for name, help_text, histogram in _HISTOGRAMS:
        rows = (_histogram(name, source, histogram(counters)) for source, counters in sinks.items())
        yield Metric(name, "histogram", help_text, tuple(chain.from_iterable(rows)))


def exposition(metrics: Iterable[Metric]) -> bytes:
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
    ("wellhead_events_held", "gauge", "Of these, wait as sink or credential is wrong.", lambda c: c.held),
    ("wellhead_events_on_wire", "gauge", "Of these, wait for the sink's answer.", lambda c: c.on_wire),
    ("wellhead_retries_total", "counter", "Tries after an event's first.", lambda c: c.retries),
    ("wellhead_sink_up", "gauge", "1 while the sink answers as it should.", lambda c: int(c.state().up)),
    (
        "wellhead_sink_circuit_open",
        "gauge",
        "1 while the sink gets no events but probes.",
        lambda c: int(c.state().circuit is not CircuitState.CLOSED),
    ),
)
_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[SinkCounters], Histogram]], ...]] = (
    ("wellhead_try_duration_seconds", "How long tries took.", lambda c: c.seconds),
    (
        "wellhead_delivery_duration_seconds",
        "From send to an event's end, retries included.",
        lambda c: c.delivery_seconds,
    ),
)


def _dropped(name: str, sinks: dict[str, SinkCounters]) -> Iterator[tuple[str, Labels, float]]:
    for source, counters in sinks.items():
        for reason, number in sorted(counters.dropped.items()):
            yield name, (("name", source), ("reason", reason)), number


def _tries(name: str, sinks: dict[str, SinkCounters]) -> Iterator[tuple[str, Labels, float]]:
    for source, counters in sinks.items():
        for outcome, number in sorted(counters.tries.items()):
            status_class = f"{outcome[0]}xx" if len(outcome) == 3 and outcome.isdecimal() else "none"
            yield name, (("name", source), ("outcome", outcome), ("class", status_class)), number


def _histogram(name: str, source: str, histogram: Histogram) -> Iterator[tuple[str, Labels, float]]:
    count = 0
    for bound, number in zip((*map(str, histogram.bounds), "+Inf"), histogram.buckets, strict=True):
        count += number
        yield f"{name}_bucket", (("name", source), ("le", bound)), count
    yield f"{name}_sum", (("name", source),), histogram.total
    yield f"{name}_count", (("name", source),), count


def _labels(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escape(value)}"' for name, value in labels) + "}" if labels else ""


def _escape(value: str) -> str:
    return value.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
