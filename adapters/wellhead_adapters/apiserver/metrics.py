"""What happened to watches, as metrics: the gaps there were, and what they swallowed. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wellhead.metrics import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator

    from wellhead.kubernetes.reflector import WatchCounters

_PLAIN = (
    ("lists", "Lists begun: one a watch at the start, one after each gap."),
    ("streams", "Streams of watches that stood."),
    ("interruptions", "Requests of watches that failed, for whatever reason."),
    ("ignored", "Updates that changed nothing that counts."),
)


def watch_metrics(counters: WatchCounters) -> Iterator[Metric]:
    """The families of one source's watches."""
    values = {
        "lists": counters.lists,
        "streams": counters.streams,
        "interruptions": counters.interruptions,
        "ignored": counters.ignored,
    }
    for what, help_text in _PLAIN:
        name = f"wellhead_watch_{what}_total"
        yield Metric(name, "counter", help_text, ((name, (), values[what]),))
    name = "wellhead_watch_found_total"
    samples = tuple((name, (("operation", one.value),), number) for one, number in counters.found.items())
    yield Metric(name, "counter", "Changes that a list found after a gap; each may stand for several.", samples)
