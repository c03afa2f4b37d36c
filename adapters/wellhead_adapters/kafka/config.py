"""What a Kafka source can be told, by flags and variables: those of Knative's Go adapter, and ours. Pure."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import timedelta

from wellhead.durations import duration
from wellhead.env import boolean, integer, one_of, setting, text
from wellhead.errors import ConfigError, InvalidEvent, Problem
from wellhead.event import CloudEvent

from .connection import ConnectionSettings
from .events import KafkaSource
from .keys import KeyType
from .lanes import Ordering
from .starting import LATEST, InitialOffset, initial_offset

_TOPIC = re.compile(r"(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,249}", re.ASCII)
_SIZE = re.compile(r"(\d{1,12})(|Ki|Mi|Gi)", re.ASCII)
_UNITS = {"": 1, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}
_LEAST_BUFFER = 1 << 16


class Isolation(enum.Enum):
    """Which records of transactions are read."""

    READ_COMMITTED = "read_committed"
    READ_UNCOMMITTED = "read_uncommitted"


class OutOfRange(enum.Enum):
    """Where to go on when the next record is not there any more."""

    EARLIEST = "earliest"
    LATEST = "latest"
    NONE = "none"


class MissingTopic(enum.Enum):
    """What to do about a topic that does not exist."""

    WAIT = "wait"
    FAIL = "fail"


def topics(value: str) -> tuple[str, ...]:
    """Names of topics, comma-separated."""
    names = tuple(dict.fromkeys(part.strip() for part in value.split(",") if part.strip()))
    for name in names:
        if not _TOPIC.fullmatch(name):
            raise ValueError(f"names no topic by {ascii(name)[:60]}: letters, digits, . _ - and at most 249 of them")
    if not names:
        raise ValueError("names no topic")
    return names


def pattern(value: str) -> str:
    """A regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is not a regular expression: {error}") from None
    return value


def octets(value: str) -> int:
    """A number of bytes: 16Mi."""
    match = _SIZE.fullmatch(value)
    number = int(match[1]) * _UNITS[match[2]] if match is not None else 0
    if not _LEAST_BUFFER <= number < 1 << 40:
        raise ValueError("is not a size such as 16Mi, 64Ki at least")
    return number


def _positive(value: str) -> timedelta:
    length = duration(value)
    if not timedelta(milliseconds=1) <= length <= timedelta(days=7):
        raise ValueError("is not between 1ms and 7 days")
    return length


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig(ConnectionSettings):
    """Raises `ConfigError` with every problem: of the connection, of topics and group, of times that do not fit."""

    topics: tuple[str, ...] = setting(
        topics, "topics to read, comma-separated", flag="topics", env="KAFKA_TOPICS", default=(), shown_default=""
    )
    topics_pattern: str = setting(
        pattern, "or a regular expression that their names begin with", flag="topics-pattern",
        env="KAFKA_TOPICS_PATTERN", default="",
    )
    consumer_group: str = setting(
        text, "the consumer group whose offsets say what is done", flag="consumer-group", env="KAFKA_CONSUMER_GROUP",
        default="",
    )
    initial_offset: InitialOffset = setting(
        initial_offset, "where a group begins that has committed nothing: earliest, latest, or an instant",
        flag="initial-offset", env="KAFKA_INITIAL_OFFSET", default=LATEST, shown_default="latest",  # type: ignore[assignment]  # mypy joins the two of the union to object,
    )
    key_type: KeyType = setting(
        one_of(KeyType), "what the octets of keys are", flag="key-type", env="KEY_TYPE", default=KeyType.STRING,
        choices=tuple(kind.value for kind in KeyType),
    )
    ordering: Ordering = setting(
        one_of(Ordering), "what keeps its order: each partition, the records of each key, or nothing",
        flag="ordering", env="KAFKA_ORDERING", default=Ordering.PARTITION,
        choices=tuple(kind.value for kind in Ordering),
    )
    max_in_flight: int = setting(
        integer(1, 10_000), "records on their way at once, each on a connection of its own unless --concurrency says fewer",
        flag="max-in-flight", env="KAFKA_MAX_IN_FLIGHT", default=128,
    )
    buffer: int = setting(
        octets, "bytes of records held in memory", flag="buffer", env="KAFKA_BUFFER", default=16 << 20,
        shown_default="16Mi",
    )
    max_ahead: int = setting(
        integer(1, 1_000_000), "records that a partition is read on behind one that is not done",
        flag="max-ahead", env="KAFKA_MAX_AHEAD", default=10_000,
    )
    name: str = setting(text, "the source's name, part of the events' source", flag="name", env="NAME", default="kafka")
    namespace: str = setting(
        text, "its namespace, likewise", flag="namespace", env="NAMESPACE", default="default"
    )
    isolation: Isolation = setting(
        one_of(Isolation), "whether records of transactions wait for their commit",
        flag="isolation", env="KAFKA_ISOLATION", default=Isolation.READ_COMMITTED,
        choices=tuple(kind.value for kind in Isolation),
    )
    out_of_range: OutOfRange = setting(
        one_of(OutOfRange), "where to go on when the next record was deleted; none: end with exit code 1",
        flag="out-of-range", env="KAFKA_OUT_OF_RANGE", default=OutOfRange.EARLIEST,
        choices=tuple(kind.value for kind in OutOfRange),
    )
    missing_topic: MissingTopic = setting(
        one_of(MissingTopic), "what to do about a topic that does not exist",
        flag="missing-topic", env="KAFKA_MISSING_TOPIC", default=MissingTopic.WAIT,
        choices=tuple(kind.value for kind in MissingTopic),
    )
    commit_interval: timedelta = setting(
        _positive, "offsets are committed this often", flag="commit-interval", env="KAFKA_COMMIT_INTERVAL",
        default=timedelta(seconds=1), shown_default="1s",
    )
    commit_records: int = setting(
        integer(1, 1_000_000), "and after so many records", flag="commit-records", env="KAFKA_COMMIT_RECORDS",
        default=5000,
    )
    drain: timedelta = setting(
        _positive, "how long deliveries go on when a partition is taken away, or the program stops",
        flag="drain", env="KAFKA_DRAIN", default=timedelta(seconds=5), shown_default="5s",
    )
    session_timeout: timedelta = setting(
        _positive, "a member that is not heard of for so long is replaced",
        flag="session-timeout", env="KAFKA_SESSION_TIMEOUT", default=timedelta(seconds=10), shown_default="10s",
    )
    rebalance_timeout: timedelta = setting(
        _positive, "how long members may take to let go of their partitions",
        flag="rebalance-timeout", env="KAFKA_REBALANCE_TIMEOUT", default=timedelta(seconds=60), shown_default="60s",
    )
    instance_id: str = setting(
        text, "static membership: a name of this replica's own, such as its pod's; a restart then moves no partition",
        flag="instance-id", env="KAFKA_GROUP_INSTANCE_ID", default="",
    )
    stuck_after: timedelta = setting(
        _positive, "no record for so long though there are some: the consumer is replaced, then the program ends",
        flag="stuck-after", env="KAFKA_STUCK_AFTER", default=timedelta(minutes=3), shown_default="3m",
    )
    dry_run: bool = setting(
        boolean, "print what would be sent, from --initial-offset on: without a sink, without a group", flag="dry-run",
        default=False, switch=True,
    )

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        try:
            ConnectionSettings.__post_init__(self)
        except ConfigError as error:
            problems += error.problems
        problems += self._problems()
        if problems:
            raise ConfigError(problems)

    def source(self) -> KafkaSource:
        """What its events have in common."""
        return KafkaSource(namespace=self.namespace, name=self.name, key_type=self.key_type)

    def _problems(self) -> list[Problem]:
        problems: list[Problem] = []
        if bool(self.topics) == bool(self.topics_pattern):
            problems.append(Problem("--topics or KAFKA_TOPICS, --topics-pattern or KAFKA_TOPICS_PATTERN", "give one of them, and not both"))
        if not self.consumer_group and not self.dry_run:
            problems.append(Problem("--consumer-group or KAFKA_CONSUMER_GROUP", "is not set: the group whose offsets say what is done"))
        try:
            CloudEvent(id="-", type="-", source=self.source().source("topic"))
        except InvalidEvent:
            problems.append(Problem("namespace, name, NAMESPACE, NAME", f"{self.namespace!r}, {self.name!r} make no URI-reference"))
        # Twice: what is on the wire when the fences close has as long again to be accepted.
        if 2 * self.drain >= self.rebalance_timeout:
            problems.append(Problem("--drain or KAFKA_DRAIN", f"{self.drain} is not less than half of the rebalance timeout, {self.rebalance_timeout}"))
        if self.session_timeout > self.rebalance_timeout:
            problems.append(Problem("--session-timeout or KAFKA_SESSION_TIMEOUT", f"{self.session_timeout} is longer than the rebalance timeout, {self.rebalance_timeout}"))
        return problems
