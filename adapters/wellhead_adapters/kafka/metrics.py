"""What an adapter that reads Kafka tells at ``/metrics``, beside what its sink does. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wellhead.metrics import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .events import Tally


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionFacts:
    """One partition at this moment."""

    topic: str
    partition: int
    lag: int | None
    committed_lag: int | None
    in_flight: int
    octets: int
    paused: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderFacts:
    """The reading at this moment, and since the start of the process."""

    partitions: Sequence[PartitionFacts]
    progress_age: float
    rebalances: int
    new_consumers: int
    resets: int
    unreadable: int
    suppressed: int
    tally: Tally


def kafka_metrics(facts: ReaderFacts) -> Iterator[Metric]:
    """The families, without the label ``name``."""
    for name, text, value in _OF_PARTITIONS:
        samples = tuple(
            (name, (("topic", one.topic), ("partition", str(one.partition))), number)
            for one in facts.partitions
            if (number := value(one)) is not None
        )
        yield Metric(name, "gauge", text, samples)
    for name, kind, text, read in _OF_ALL:
        yield Metric(name, kind, text, ((name, (), read(facts)),))


_OF_PARTITIONS: Final[tuple[tuple[str, str, Callable[[PartitionFacts], float | None]], ...]] = (
    ("wellhead_kafka_lag", "Records of a partition that are not done.", lambda one: one.lag),
    ("wellhead_kafka_committed_lag", "Records behind the committed offset.", lambda one: one.committed_lag),
    ("wellhead_kafka_in_flight", "Records of a partition whose delivery goes on.", lambda one: one.in_flight),
    ("wellhead_kafka_held_bytes", "What the records in hand of a partition weigh.", lambda one: one.octets),
    (
        "wellhead_kafka_paused",
        "1 while a partition is read no further: for want of room, or as its records are damaged.",
        lambda one: int(one.paused),
    ),
)
_OF_ALL: Final[tuple[tuple[str, str, str, Callable[[ReaderFacts], float]], ...]] = (
    (
        "wellhead_kafka_progress_age_seconds",
        "gauge",
        "Seconds since records came or there were none to come.",
        lambda facts: facts.progress_age,
    ),
    ("wellhead_kafka_rebalances_total", "counter", "Assignments of partitions.", lambda facts: facts.rebalances),
    (
        "wellhead_kafka_new_consumers_total",
        "counter",
        "Consumers that took the place of one of no more use.",
        lambda facts: facts.new_consumers,
    ),
    (
        "wellhead_kafka_records_gone_total",
        "counter",
        "Times that the next record had been deleted.",
        lambda facts: facts.resets,
    ),
    (
        "wellhead_kafka_records_unreadable_total",
        "counter",
        "Records passed because nobody can decode them.",
        lambda facts: facts.unreadable,
    ),
    (
        "wellhead_kafka_duplicates_suppressed_total",
        "counter",
        "Records read again after a rebalance or a restart that were known to be done.",
        lambda facts: facts.suppressed,
    ),
    (
        "wellhead_kafka_values_encoded_total",
        "counter",
        "Keys and header values that are no text, sent in base64.",
        lambda facts: facts.tally.encoded,
    ),
    (
        "wellhead_kafka_values_dropped_total",
        "counter",
        "Headers, content types and times that no event can hold.",
        lambda facts: facts.tally.dropped,
    ),
    (
        "wellhead_kafka_events_wrapped_total",
        "counter",
        "Records that are broken CloudEvents, sent whole as data.",
        lambda facts: facts.tally.wrapped,
    ),
)
