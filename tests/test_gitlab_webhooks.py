"""The registrar's plan and what it asks back, as tables and properties, without a GitLab."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead_adapters.gitlab.kinds import Scope, flags_of
from wellhead_adapters.gitlab.missed import Attempt, Gap, attempts, last_attempt, missed
from wellhead_adapters.gitlab.silence import Silences
from wellhead_adapters.gitlab.trouble import LONGEST_WAIT, ApiError, retry_after, wait_after
from wellhead_adapters.gitlab.webhooks import (
    Alert,
    Create,
    Enable,
    Remove,
    Step,
    Update,
    Wanted,
    Webhook,
    is_same_url,
    is_surplus,
    may_remove,
    ours,
    plan,
    unsupported,
    webhooks,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

URL: Final = "https://hooks.example.com/gitlab"
WANTED: Final = Wanted(
    url=URL,
    flags=flags_of(Scope.PROJECT, ["push_events", "note_events"]),
    branch_filter="",
    secrets=frozenset(["token"]),
    version="v1",
    owner="me",
)
RIGHT: Final = {**WANTED.flags, "enable_ssl_verification": True, "push_events_branch_filter": None}


def webhook(number: int, url: str = URL, **facts: object) -> Webhook:
    return listed(number, facts, url)


def listed(number: int, facts: Mapping[str, object], url: str = URL) -> Webhook:
    return Webhook(id=number, url=url, facts={**RIGHT, **facts})


@pytest.mark.parametrize(
    ("existing", "known", "steps"),
    [
        ([], {}, (Create(),)),
        ([webhook(1, "https://else.where")], {}, (Create(),)),
        ([webhook(7)], {7: "v1"}, ()),
        ([webhook(7)], {}, (Update(7, ("secret",)),)),
        ([webhook(7)], {7: "v0"}, (Update(7, ("secret",)),)),
        ([webhook(7, push_events=False)], {7: "v1"}, (Update(7, ("push_events",)),)),
        ([webhook(7, issues_events=True)], {7: "v1"}, (Update(7, ("issues_events",)),)),
        ([webhook(7, enable_ssl_verification=False)], {7: "v1"}, (Update(7, ("enable_ssl_verification",)),)),
        ([webhook(7, push_events_branch_filter="x")], {7: "v1"}, (Update(7, ("push_events_branch_filter",)),)),
        ([webhook(7, custom_webhook_template="{}")], {7: "v1"}, (Update(7, ("custom_webhook_template",)),)),
        ([webhook(7, token_present=False)], {7: "v1"}, (Update(7, ("token",)),)),
        ([webhook(7, token_present=True)], {7: "v1"}, ()),
        ([webhook(9), webhook(8), webhook(7)], {7: "v1"}, (Remove(8), Remove(9))),
        ([webhook(7, alert_status="disabled")], {7: "v1"}, (Enable(7, Alert.DISABLED),)),
        (
            [webhook(7, alert_status="temporarily_disabled"), webhook(8)],
            {},
            (Update(7, ("secret",)), Enable(7, Alert.TEMPORARILY_DISABLED), Remove(8)),
        ),
        ([webhook(7, alert_status="a word of tomorrow")], {7: "v1"}, ()),
    ],
)
def test_the_plan(existing: list[Webhook], known: dict[int, str], steps: tuple[Step, ...]) -> None:
    assert plan(WANTED, existing, known) == steps


def test_a_flag_that_this_gitlab_does_not_know_is_no_difference_but_told() -> None:
    facts = {name: value for name, value in RIGHT.items() if name != "note_events"}
    old = Webhook(id=7, url=URL, facts=facts)
    assert plan(WANTED, [old], {7: "v1"}) == ()
    assert unsupported(WANTED, old) == ("note_events",)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        (URL, URL, True),
        ("https://Hooks.Example.com:443/gitlab", URL, True),
        ("https://hooks.example.com", "https://hooks.example.com/", True),
        ("https://hooks.example.com/GitLab", URL, False),
        ("http://hooks.example.com/gitlab", URL, False),
        (URL + "?x", URL, False),
        ("https://[broken", URL, False),
    ],
)
def test_a_webhook_is_ours_by_its_url(one: str, other: str, same: bool) -> None:  # noqa: FBT001 - a table
    assert is_same_url(one, other) is same


def test_only_the_process_that_wrote_a_webhook_last_may_remove_it_at_its_end() -> None:
    made = webhook(7, description=WANTED.body({})["description"])
    assert may_remove(made, "me")
    assert not may_remove(made, "the new one")
    assert not may_remove(webhook(7), "me")
    assert not may_remove(webhook(7, description="by hand"), "me")


def test_all_is_put_to_gitlab_and_no_secret_is_in_a_repr() -> None:
    body = WANTED.body({"token": "s3cret"})
    assert body["push_events"] is True
    assert body["issues_events"] is False
    assert (body["token"], body["custom_webhook_template"]) == ("s3cret", "")
    assert body["branch_filter_strategy"] == "all_branches"
    assert replace(WANTED, branch_filter="x/*").body({})["branch_filter_strategy"] == "wildcard"
    assert "s3cret" not in repr(WANTED)


def test_what_is_no_list_of_webhooks_is_told() -> None:
    with pytest.raises(ValueError, match="no webhook"):
        webhooks([{"id": "7", "url": URL}])
    with pytest.raises(ValueError, match="no webhook"):
        webhooks(["x"])


@dataclass
class Kept:
    """A GitLab of one project, as little of it as the plan can tell apart."""

    webhooks: dict[int, Webhook] = field(default_factory=dict)
    last: int = 0

    def do(self, step: Step, wanted: Wanted, known: dict[int, str]) -> None:
        match step:
            case Create():
                self.last += 1
                self.webhooks[self.last] = listed(self.last, wanted.body({}))
                known[self.last] = wanted.version
            case Update():
                if step.id in self.webhooks:
                    alert = self.webhooks[step.id].facts.get("alert_status")
                    self.webhooks[step.id] = listed(step.id, {**wanted.body({}), "alert_status": alert})
                    known[step.id] = wanted.version
            case Enable():
                if step.id in self.webhooks:
                    facts = {**self.webhooks[step.id].facts, "alert_status": "executable"}
                    self.webhooks[step.id] = Webhook(id=step.id, url=URL, facts=facts)
            case Remove():
                self.webhooks.pop(step.id, None)


_HANDS: Final = st.sampled_from(["another", "gone", "flag", "ssl", "disabled", "elsewhere", "nothing"])


def by_hand(kept: Kept, what: str) -> None:
    first = min(kept.webhooks, default=None)
    if what in ("another", "elsewhere"):
        kept.last += 1
        url = URL if what == "another" else "https://else.where"
        kept.webhooks[kept.last] = webhook(kept.last, url, push_events=False)
    elif first is not None and what == "gone":
        del kept.webhooks[first]
    elif first is not None and what != "nothing":
        change = {"flag": {"push_events": False}, "ssl": {"enable_ssl_verification": False}}
        facts = {**kept.webhooks[first].facts, **change.get(what, {"alert_status": "disabled"})}
        kept.webhooks[first] = replace(kept.webhooks[first], facts=facts)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3), _HANDS), max_size=30))
def test_whatever_replicas_crashes_and_hands_did_one_right_webhook_is_left(turns: list[tuple[int, int, str]]) -> None:
    """Replicas take turns, each with the list it saw at its last turn, and crash after any number of its steps."""
    kept = Kept()
    known: list[dict[int, str]] = [{}, {}, {}]
    seen: list[list[Webhook]] = [[], [], []]
    for replica, done, what in turns:
        before = bool(ours(URL, kept.webhooks.values()))
        for step in plan(WANTED, seen[replica], known[replica])[:done]:
            # As the keeper asks before it removes: the list may be old.
            if not isinstance(step, Remove) or is_surplus(step.id, ours(URL, kept.webhooks.values())):
                kept.do(step, WANTED, known[replica])
        assert bool(ours(URL, kept.webhooks.values())) >= before
        by_hand(kept, what)
        seen[replica] = list(kept.webhooks.values())
    others = [one for one in kept.webhooks.values() if one.url != URL]
    for _ in range(3):
        for own in known:
            for step in plan(WANTED, kept.webhooks.values(), own):
                kept.do(step, WANTED, own)
    left = ours(URL, kept.webhooks.values())
    assert len(left) == 1
    assert plan(WANTED, left, known[0]) == ()
    assert all(one in kept.webhooks.values() for one in others)


@given(st.lists(st.integers(1, 50), unique=True, min_size=1), st.booleans())
def test_the_lowest_id_survives_in_whatever_order_they_are_listed(numbers: list[int], known: bool) -> None:  # noqa: FBT001
    steps = plan(WANTED, [webhook(number) for number in numbers], {min(numbers): "v1"} if known else {})
    removed = {step.id for step in steps if isinstance(step, Remove)}
    assert removed == set(numbers) - {min(numbers)}


# --- what is asked back ---

MIDNIGHT: Final = datetime(2026, 1, 1, tzinfo=UTC)


def attempt(number: int, key: str, status: str, url: str = URL) -> Attempt:
    return Attempt(id=number, key=key, status=status, url=url)


@pytest.mark.parametrize(
    ("log", "keys"),
    [
        ([], []),
        ([attempt(1, "a", "202")], []),
        ([attempt(1, "a", "503")], ["a"]),
        ([attempt(1, "a", "internal error")], ["a"]),
        ([attempt(1, "a", "401")], ["a"]),
        ([attempt(1, "a", "404")], ["a"]),
        ([attempt(1, "a", "422")], []),
        ([attempt(1, "a", "413")], []),
        ([attempt(1, "a", "503"), attempt(2, "a", "202")], []),
        ([attempt(1, "a", "202"), attempt(2, "a", "503")], []),
        ([attempt(3, "b", "503"), attempt(2, "a", "503"), attempt(4, "a", "500")], ["a", "b"]),
        ([attempt(1, "a", "503", "https://else.where")], []),
        ([attempt(1, "a", "302")], ["a"]),
        ([attempt(1, "a", "")], ["a"]),
    ],
)
def test_what_was_never_accepted_is_asked_back_the_oldest_first(log: list[Attempt], keys: list[str]) -> None:
    assert [one.key for one in missed(log, URL)] == keys


def test_entries_of_the_log_are_read_whatever_else_is_in_them() -> None:
    page: list[object] = [
        {
            "id": 5,
            "request_headers": {"Idempotency-Key": "k"},
            "response_status": "202",
            "url": URL,
            "created_at": "2026-01-01T00:00:00Z",
        },
        {"id": 4, "request_headers": {"webhook-id": "w"}, "response_status": None, "created_at": "yesterday"},
        {"id": 3},
        {"id": "2"},
        "x",
    ]
    found = attempts(page)
    assert [(one.id, one.key, one.status) for one in found] == [(5, "k", "202"), (4, "w", ""), (3, "entry 3", "")]
    assert last_attempt(found) == datetime(2026, 1, 1, tzinfo=UTC)


def test_a_gap_is_as_long_as_it_is_known_to_be() -> None:
    until = datetime(2026, 1, 1, tzinfo=UTC)
    assert Gap(until - timedelta(minutes=3), until).seconds == 180
    assert Gap(None, until).seconds == 0
    assert Gap(until + timedelta(minutes=3), until).seconds == 0


@pytest.mark.parametrize(
    ("since", "until", "left"),
    [
        (0, 5, (0, 5)),
        (10, 20, None),
        (12, 18, None),
        (12, 25, (20, 25)),
        (5, 15, (5, 10)),
        (5, 25, (5, 25)),
        (25, 30, (25, 30)),
    ],
)
def test_of_a_gap_that_was_told_nothing_is_told_twice(since: int, until: int, left: tuple[int, int] | None) -> None:
    def at(minute: int) -> datetime:
        return MIDNIGHT + timedelta(minutes=minute)

    gap = Gap(at(since), at(until))
    assert gap.without(Gap(at(10), at(20))) == (Gap(*map(at, left)) if left else None)
    assert gap.without(None) == gap


# Seconds after midnight and how it went: + answered 2xx, - not, s a sample; gaps as (since, until).
@pytest.mark.parametrize(
    ("log", "now", "gaps"),
    [
        ([], 1000, []),
        (["0-", "1-", "2-", "3+"], 1000, []),
        (["0-", "1-", "2-", "3-"], 30, []),
        (["0-", "1-", "2-", "3-"], 63, [(3, 63)]),
        (["0-", "1-", "2-", "3-", "33s+"], 40, [(3, 33)]),
        (["0-", "1-", "2-", "3-", "33+"], 1000, []),
        (["0-", "1-", "2-", "3-", "33-", "38+"], 1000, []),
        (["0-", "1-", "2-", "3-", "33-", "90-", "200-"], 1000, []),
        (["0-", "1-", "2-", "3-", "33-", "38+", "50-", "51-", "52-", "53-"], 1000, [(53, 113)]),
        (["0-", "1-", "2-", "3-", "100+"], 100, [(3, 63)]),
        (["0-", "1-", "2-", "3-", "8-", "9-"], 1000, [(3, 63)]),
        (["0-", "1-", "2-", "3-", "33-"], 34, []),
        (["0-", "1-", "2-", "3-", "70-"], 1000, [(3, 63), (70, 190)]),
        (["0-", "1-", "2-", "3-", "70-", "200-"], 1000, [(3, 63), (70, 190), (200, 440)]),
        (["0-", "1-", "2-", "3-", "12+"], 1000, [(3, 12)]),
        (["0-", "1-", "2-", "3-", "3+"], 1000, []),
        (["0-", "1-", "2-", "3-", "33s-", "34s-", "40s+"], 1000, [(3, 40)]),
        (["0-", "1-", "2-", "3s-"], 1000, [(3, 63)]),
        (["0-", "1-", "2-", "3-", "70+", "71-"], 1000, [(3, 63)]),
    ],
)
def test_what_gitlab_did_not_try_shows_in_its_log(log: list[str], now: int, gaps: list[tuple[int, int]]) -> None:
    def at(second: int) -> datetime:
        return MIDNIGHT + timedelta(seconds=second)

    entries = [
        Attempt(
            id=number,
            key=str(number),
            status="202" if one[-1] == "+" else "503",
            at=at(int(one[:-1].removesuffix("s"))),
            name="Tag Push Hook" if "s" in one else "Push Hook",
        )
        for number, one in enumerate(log, 1)
    ]
    silences = Silences(MIDNIGHT, {"Tag Push Hook"})
    assert silences.gaps(reversed(entries), at(now)) == [Gap(at(since), at(until)) for since, until in gaps]
    assert silences.gaps(entries, at(now)) == [], "each is told once"
    silences.forget()
    assert silences.gaps([], at(10_000)) == []


def tried(number: int, second: int, status: str) -> Attempt:
    return Attempt(id=number, key=str(number), status=status, at=MIDNIGHT + timedelta(seconds=second))


def test_a_success_that_the_log_shows_after_later_tries_is_counted_all_the_same() -> None:
    failed = [tried(number, second, "503") for number, second in ((1, 0), (2, 1), (3, 2), (5, 4))]
    silences = Silences(MIDNIGHT)
    assert silences.gaps(failed, MIDNIGHT + timedelta(seconds=5)) == []
    assert silences.gaps([*failed, tried(4, 3, "202")], MIDNIGHT + timedelta(hours=1)) == []


def test_a_gap_that_was_told_is_not_told_again_as_another_when_the_log_shows_more() -> None:
    failed = [tried(number, number, "503") for number in (1, 2, 3, 4)]
    silences = Silences(MIDNIGHT)
    assert len(silences.gaps(failed, MIDNIGHT + timedelta(minutes=5))) == 1
    late = tried(5, 10, "202")
    assert silences.gaps([*failed, late], MIDNIGHT + timedelta(minutes=6)) == []
    again = [tried(number, 1000 + number, "503") for number in (6, 7, 8, 9)]
    told = [Gap(MIDNIGHT + timedelta(seconds=1009), MIDNIGHT + timedelta(seconds=1069))]
    assert silences.gaps([late, *again], MIDNIGHT + timedelta(hours=1)) == told


def test_a_log_that_comes_in_pieces_tells_what_it_tells_as_a_whole() -> None:
    log = [tried(n, 100 * n, "202" if n % 7 == 0 else "503") for n in range(1, 200)]
    later = MIDNIGHT + timedelta(days=1)
    silences = Silences(MIDNIGHT)
    pieces = [gap for n in range(0, 200, 3) for gap in silences.gaps(log[max(0, n - 20) : n + 3], log[n].at or later)]
    assert pieces == Silences(MIDNIGHT).gaps(log, later)
    assert len(pieces) == 199 // 7, "one for each six failures in a row"


@pytest.mark.parametrize(("started", "told"), [(0, 1), (69, 1), (71, 0)])
def test_a_gap_that_was_over_before_the_start_was_an_earlier_processs_to_tell(started: int, told: int) -> None:
    log = [*((second, "503") for second in (0, 1, 2, 3)), (70, "202")]
    entries = [
        Attempt(id=number, key="k", status=status, at=MIDNIGHT + timedelta(seconds=second))
        for number, (second, status) in enumerate(log, 1)
    ]
    assert len(Silences(MIDNIGHT + timedelta(seconds=started)).gaps(entries, MIDNIGHT + timedelta(hours=1))) == told


def test_forty_failures_are_waited_for_a_day_at_most() -> None:
    entries = [
        Attempt(id=number, key="k", status="internal error", at=MIDNIGHT + timedelta(days=2 * number))
        for number in range(1, 50)
    ]
    gaps = Silences(MIDNIGHT).gaps(entries, entries[-1].at or MIDNIGHT)
    assert max(gap.seconds for gap in gaps) == timedelta(days=1).total_seconds()
    assert Silences(MIDNIGHT).gaps([Attempt(id=1, key="k", status="503")] * 5, MIDNIGHT) == []


@pytest.mark.parametrize(
    ("error", "failures", "seconds"),
    [
        (ApiError("x", status=429, retry_after=30), 1, 30),
        (ApiError("x", status=429, retry_after=90_000), 1, LONGEST_WAIT),
        (ApiError("x", status=429, retry_after=0), 1, 1),
        (ApiError("x", status=429), 1, 60),
        (ApiError("x", status=401), 3, 240),
        (ApiError("x", status=403), 100, 240),
        (ApiError("x", status=502), 1, 5),
        (ApiError("x"), 100, 60),
    ],
)
def test_how_long_gitlab_is_left_alone(error: ApiError, failures: int, seconds: float) -> None:
    assert wait_after(error, failures, 60) == seconds


def test_retry_after_is_seconds_or_nothing() -> None:
    assert retry_after({"retry-after": "7"}) == 7
    assert retry_after({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}) is None
    assert retry_after({}) is None
