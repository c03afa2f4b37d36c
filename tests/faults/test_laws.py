"""A law that cannot be broken is none: each of them says so where it is."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

import pytest
from tests.faults.laws import Record, violations
from tests.faults.simulated_sink import Seen

from wellhead.errors import DeliveryError, Loss
from wellhead.metrics import SinkCounters

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def record() -> Record:
    """Two events of one task, accepted and acknowledged."""
    seen = Seen(taken=["0/0", "0/1"], accepted={"0/0", "0/1"}, identities={"0/0": {("a",)}, "0/1": {("b",)}})
    counters = SinkCounters(taken=2, delivered=2, tries={"202": 2})
    told: dict[str, None] = {"0/0": None, "0/1": None}
    return Record(seen, Seen(), sent={"0": ["0/0", "0/1"]}, acknowledged=told, ended=[counters])


def lost(it: Record, loss: Loss, *, tries: int = 1, last: str = "HTTP 400") -> None:
    it.acknowledged.pop("0/1")
    it.sink.taken.remove("0/1")
    error = DeliveryError(event_id="0/1", loss=loss, last=last, tries=tries, maybe_accepted=False)
    it.losses["0/1"] = [error]


def logged(it: Record, text: str, *, name: str = "wellhead.sink") -> None:
    it.logged.append(logging.makeLogRecord({"name": name, "msg": text}))


def taken_and_lost(it: Record) -> None:
    lost(it, Loss.EXPIRED)
    it.mortal.add("0/1")
    it.sink.taken.append("0/1")


def both(*breaking: Callable[[Record], object]) -> Callable[[Record], object]:
    return lambda it: [one(it) for one in breaking]


BREAKS: Final[Mapping[str, tuple[Callable[[Record], object], str]]] = {
    "one is missing in the counters": (lambda it: setattr(it.ended[0], "delivered", 1), "add up"),
    "one is still on its way": (both(lambda it: setattr(it.ended[0], "delivered", 1), lambda it: setattr(it.ended[0], "in_flight", 1)), "add up"),
    "more retries than tries": (lambda it: setattr(it.ended[0], "retries", 5), "more retries"),
    "acknowledged, and accepted by nobody": (lambda it: it.sink.accepted.remove("0/1"), "no sink had accepted"),
    "refused, and the sink never said so": (lambda it: lost(it, Loss.REFUSED), "never said so"),
    "expired without a deadline": (lambda it: lost(it, Loss.EXPIRED), "had no deadline"),
    "exhausted too early": (both(lambda it: setattr(it, "retries", 3), lambda it: lost(it, Loss.EXHAUSTED, tries=3)), "exhausted"),
    "taken, and told as lost for certain": (taken_and_lost, "told as certain"),
    "out of order": (lambda it: it.sink.taken.reverse(), "came in the order"),
    "another identity at the second try": (lambda it: it.sink.identities["0/0"].add(("c",)), "2 forms"),
    "half a request": (lambda it: it.sink.broken.append(b"ost / HTTP"), "no request"),
    "a secret in the log": (both(lambda it: setattr(it, "secrets", ("hunter2",)), lambda it: logged(it, "key=hunter2")), "secret"),
    "a secret in an error": (
        both(
            lambda it: setattr(it, "secrets", ("hunter2",)),
            lambda it: it.sink.statuses.update({"0/1": [400]}),
            lambda it: lost(it, Loss.REFUSED, last="hunter2"),
        ),
        "secret",
    ),
    "an exception in the loop": (lambda it: logged(it, "Exception in callback", name="asyncio"), "mistake of ours"),
    "what was seen at the moment": (lambda it: it.broken.append("seen"), "seen"),
}  # fmt: skip


def test_nothing_is_said_of_what_is_in_order() -> None:
    assert violations(record()) == []


@pytest.mark.parametrize("name", BREAKS)
def test_a_broken_law_is_told(name: str) -> None:
    breaking, says = BREAKS[name]
    it = record()
    breaking(it)
    told = violations(it)
    assert told
    assert all(says in one for one in told)
