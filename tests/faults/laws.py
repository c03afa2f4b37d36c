"""What holds whatever goes wrong: each law once, for any adapter and any world. A law says what breaks it, in words.

A world fills in a `Record` while it runs; `violations` reads it afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from wellhead.errors import Loss
from wellhead.log import JsonLines, TextLines

if TYPE_CHECKING:
    import logging
    from collections.abc import Iterator

    from tests.faults.simulated_sink import Seen

    from wellhead.errors import DeliveryError
    from wellhead.metrics import SinkCounters


@dataclass(slots=True)
class Record:
    """What a world and whoever sends in it wrote down."""

    sink: Seen
    dead_letters: Seen
    sent: dict[str, list[str]] = field(default_factory=dict)
    """By task: the ids that it sends, in order. Empty for adapters that promise no order."""
    acknowledged: dict[str, None] = field(default_factory=dict)
    """Events whose `send` returned, in that order."""
    losses: dict[str, list[DeliveryError]] = field(default_factory=dict)
    """What `send` raised, by event."""
    ended: list[SinkCounters] = field(default_factory=list)
    """The counters of every process that ended by itself, at its end."""
    interrupted: set[str] = field(default_factory=set)
    """Events of whose end nobody was told: their process ended, or was killed, first."""
    mortal: set[str] = field(default_factory=set)
    """Events that have a deadline."""
    logged: list[logging.LogRecord] = field(default_factory=list)
    secrets: tuple[str, ...] = ()
    retries: int | None = None
    broken: list[str] = field(default_factory=list)
    """Violations that were seen at the moment they happened."""


def violations(record: Record) -> list[str]:
    """Every law that was broken, in words; none as a rule."""
    laws = (conservation, acknowledged_is_accepted, losses_have_a_reason, unknown_is_told, order, identity, framing)
    return [*record.broken, *(broken for law in (*laws, secrecy, no_mistake_of_ours) for broken in law(record))]


def conservation(record: Record) -> Iterator[str]:
    """Everything taken in is accounted for, and nothing is on its way once a process has ended."""
    for counters in record.ended:
        if counters.balance or counters.in_flight:
            yield f"the counters do not add up: {counters}"
        tries, first = sum(counters.tries.values()), counters.taken
        if counters.retries > max(0, tries - 1) or (first == 0 and tries):
            yield f"more retries than tries: {counters}"


def acknowledged_is_accepted(record: Record) -> Iterator[str]:
    for event_id in record.acknowledged:
        if event_id not in record.sink.accepted and event_id not in record.dead_letters.accepted:
            yield f"{event_id} was acknowledged, and no sink had accepted it"


def losses_have_a_reason(record: Record) -> Iterator[str]:
    for event_id, errors in record.losses.items():
        for error in errors:
            if error.loss is Loss.REFUSED and event_id not in record.sink.statuses:
                yield f"{event_id} counts as refused, and the sink never said so"
            if error.loss is Loss.EXPIRED and event_id not in record.mortal:
                yield f"{event_id} expired, and had no deadline"
            if error.loss is Loss.EXHAUSTED and (record.retries is None or error.tries <= record.retries):
                yield f"{event_id} counts as exhausted after {error.tries} tries of {record.retries} retries"


def unknown_is_told(record: Record) -> Iterator[str]:
    """Who is told that an event was lost is told, too, if the sink may hold it."""
    taken = set(record.sink.taken) - record.interrupted - set(record.acknowledged)
    for event_id, errors in record.losses.items():
        if event_id in taken and not any(e.maybe_accepted for e in errors):
            yield f"{event_id} was taken, and its loss ({errors[0].loss.value}: {errors[0].last}) is told as certain"


def order(record: Record) -> Iterator[str]:
    """Of one task's events, those that were delivered came first in the order in which it sent them."""
    firsts = {event_id: place for place, event_id in reversed(list(enumerate(record.sink.taken)))}
    for task, ids in record.sent.items():
        delivered = [one for one in ids if one in record.acknowledged and one in record.sink.accepted]
        places = [firsts[one] for one in delivered]
        if places != sorted(places):
            yield f"task {task} sent {delivered}, which came in the order {sorted(delivered, key=firsts.__getitem__)}"


def identity(record: Record) -> Iterator[str]:
    """Every try of an event carries the same octets, credentials aside."""
    for seen in (record.sink, record.dead_letters):
        for event_id, forms in seen.identities.items():
            if len(forms) != 1 and seen is record.sink:
                yield f"{event_id} came in {len(forms)} forms: {forms}"


def framing(record: Record) -> Iterator[str]:
    """No sink gets to read anything but whole requests, one after another."""
    for seen in (record.sink, record.dead_letters):
        for octets in seen.broken:
            yield f"no request: {octets[:80]!r}"


def secrecy(record: Record) -> Iterator[str]:
    """No token and no value of a query stands in a log or an error."""
    lines = [form.format(one) for one in record.logged for form in (JsonLines(), TextLines(colour=False))]
    told = [f"{error} {error.last} {error!r}" for errors in record.losses.values() for error in errors]
    for line in (*lines, *told):
        for secret in record.secrets:
            if secret in line:
                yield f"a secret is told: {line}"


def no_mistake_of_ours(record: Record) -> Iterator[str]:
    for one in record.logged:
        if one.exc_info or one.name == "asyncio":
            yield f"a mistake of ours was logged: {JsonLines().format(one)}"
