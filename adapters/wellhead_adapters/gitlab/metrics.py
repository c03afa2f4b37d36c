"""What the GitLab adapter tells at ``/metrics``, beside what its sink does. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from wellhead.metrics import Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .facts import KeeperFacts
    from .receiver import Tally


def receiver_metrics(tally: Tally) -> Iterator[Metric]:
    """What came of the requests, without the label ``name``."""
    name = "wellhead_gitlab_answers_total"
    samples = tuple((name, (("status", str(status)),), number) for status, number in sorted(tally.answers.items()))
    yield Metric(name, "counter", "Requests answered, by status.", samples)
    name = "wellhead_gitlab_duplicates_total"
    yield Metric(name, "counter", "Requests of a delivery that was known already.", ((name, (), tally.duplicates),))


def keeper_metrics(facts: Mapping[str, KeeperFacts]) -> Iterator[Metric]:
    """What became of each target's webhook, without the label ``name``."""
    for name, kind, text, read in _FAMILIES:
        samples = tuple((name, (("target", target),), read(one)) for target, one in facts.items())
        yield Metric(name, kind, text, samples)


def _since(facts: KeeperFacts) -> float:
    gap = facts.last_gap
    return gap.since.timestamp() if gap is not None and gap.since is not None else 0.0


def _until(facts: KeeperFacts) -> float:
    return facts.last_gap.until.timestamp() if facts.last_gap is not None else 0.0


_FAMILIES: Final[tuple[tuple[str, str, str, Callable[[KeeperFacts], float]], ...]] = (
    ("wellhead_gitlab_webhook_up", "gauge", "1 while one right webhook is there and fired.", lambda one: int(one.up)),
    (
        "wellhead_gitlab_webhook_changes_total",
        "counter",
        "Times that a webhook had to be mended.",
        lambda one: one.changes,
    ),
    ("wellhead_gitlab_api_failures_total", "counter", "Rounds that GitLab's API made fail.", lambda one: one.failures),
    (
        "wellhead_gitlab_recovered_total",
        "counter",
        "Missed hook events that were asked back.",
        lambda one: one.recovered,
    ),
    (
        "wellhead_gitlab_given_up_total",
        "counter",
        "Hook events that were tried in vain too often.",
        lambda one: one.given_up,
    ),
    ("wellhead_gitlab_gaps_total", "counter", "Times in which GitLab told nothing.", lambda one: one.gaps),
    ("wellhead_gitlab_gap_seconds_total", "counter", "How long they were, in all.", lambda one: one.gap_seconds),
    ("wellhead_gitlab_last_gap_start_seconds", "gauge", "When the last one began, since 1970; 0: none.", _since),
    ("wellhead_gitlab_last_gap_end_seconds", "gauge", "When it ended.", _until),
)
