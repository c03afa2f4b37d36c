from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.delivery import (
    Answered,
    Attempt,
    Backoff,
    Decision,
    OnExhausted,
    Outcome,
    Policy,
    Reaction,
    SinkFacts,
    Unanswered,
    Verdict,
    backoff,
    decide,
    policy_from_spec,
    reaction,
    retry_after,
)
from wellhead.errors import ConfigError, Loss, NoAnswer

SAMPLES: Final = Path(__file__).parent / "samples/knative_delivery"
BACKOFF: Final[dict[str, Any]] = json.loads((SAMPLES / "backoff.json").read_text(encoding="utf-8"))
RETRY_AFTER: Final[list[dict[str, Any]]] = json.loads((SAMPLES / "retry_after.json").read_text(encoding="utf-8"))[
    "rows"
]
SELECTIVE: Final[dict[str, Any]] = json.loads((SAMPLES / "selective_retry.json").read_text(encoding="utf-8"))
SDK_GO: Final[list[dict[str, Any]]] = json.loads((SAMPLES / "sdk_go_retry.json").read_text(encoding="utf-8"))["rows"]

# The design's table "One delivery engine for all", rows accepted, retried, held and refused.
RETRIED: Final = {404, 408, 409, 425, 429, *range(500, 600)}
HELD: Final = {401, 403, 405, 407, 415, *range(300, 400)}
STATUSES: Final = range(100, 600)

NOW: Final = 1000.0
WALL: Final = datetime(2026, 1, 1, tzinfo=UTC)
NO_LUCK: Final = 0.5  # in the middle: no jitter
POLICY: Final = Policy()
QUIET: Final = SinkFacts()
FIRST: Final = Attempt()
HOUR: Final = 3600.0
RETRY_LATER: Final = Answered(503)
UNAUTHORIZED: Final = Answered(401)
BAD_REQUEST: Final = Answered(400)
STALE: Final = Unanswered(NoAnswer.STALE, "closed")

# What a Knative broker does not try again, and we do; the reason stands beside.
OURS_STATUS: Final = {
    "300": "held: the sink has moved, no event is wrong (design, held)",
    "301": "held: the sink has moved, no event is wrong (design, held)",
    "401": "held: the credential is wrong, no event is (design, held)",
    "403": "held: the credential is wrong, no event is (design, held)",
}
OURS_RETRY_AFTER: Final = {"nil max 503 seconds": 30}  # honoured where no maximum is set, up to our two minutes
OURS_SDK_GO: Final = {"500 not retried by default": (2, True)}  # 5xx is retried (design, retried)


def decided(
    outcome: Outcome,
    *,
    policy: Policy = POLICY,
    attempt: Attempt = FIRST,
    sink: SinkFacts = QUIET,
    now: float = NOW,
    luck: float = NO_LUCK,
    deadline: float | None = None,
    fenced: bool = False,
) -> Decision:
    return decide(policy, attempt, outcome, sink=sink, now=now, luck=luck, wall=WALL, deadline=deadline, fenced=fenced)


def class_of(status: int) -> Reaction:
    if 200 <= status <= 299:
        return Reaction.ACCEPT
    if status in RETRIED:
        return Reaction.RETRY
    return Reaction.HOLD if status in HELD else Reaction.REFUSE


# --- What an outcome says


def test_a_status_is_accepted_retried_held_or_refused_as_the_design_says() -> None:
    verdicts = {
        Reaction.ACCEPT: (Verdict.ACCEPTED, None),
        Reaction.RETRY: (Verdict.RETRY, None),
        Reaction.HOLD: (Verdict.HOLD, None),
        Reaction.REFUSE: (Verdict.REFUSED, Loss.REFUSED),
    }
    decisions = {status: decided(Answered(status)) for status in STATUSES}
    assert {status: reaction(Answered(status)) for status in STATUSES} == {
        status: class_of(status) for status in STATUSES
    }
    assert {status: (decision.verdict, decision.loss) for status, decision in decisions.items()} == {
        status: verdicts[class_of(status)] for status in STATUSES
    }


@pytest.mark.parametrize("status", [600, 799, 999])
def test_a_status_that_http_does_not_have_is_a_broken_sink_and_retried(status: int) -> None:
    assert decided(Answered(status)).verdict is Verdict.RETRY


@pytest.mark.parametrize("why", [why for why in NoAnswer if why is not NoAnswer.TLS])
def test_a_try_without_an_answer_is_retried(why: NoAnswer) -> None:
    assert decided(Unanswered(why, "x")).verdict is Verdict.RETRY


def test_a_tls_failure_is_held() -> None:
    assert decided(Unanswered(NoAnswer.TLS, "certificate has expired")).verdict is Verdict.HOLD


def test_outcomes_print_as_people_say_them() -> None:
    assert str(Answered(503)) == "HTTP 503"
    assert str(Unanswered(NoAnswer.TIMEOUT, "after 30 s")) == "timeout: after 30 s"


@pytest.mark.parametrize(
    ("status", "retriable"),
    [pytest.param(s, r, id=s + ("-ours" if s in OURS_STATUS else "")) for s, r in SELECTIVE["status"].items()],
)
def test_knatives_selective_retry_is_ours_but_for_what_we_hold(status: str, *, retriable: bool) -> None:
    # -1 is Go's word for an answer that did not come.
    outcome: Outcome = Unanswered(NoAnswer.RESET, "") if status == "-1" else Answered(int(status))
    verdict = decided(outcome).verdict
    if status in OURS_STATUS:
        assert verdict is Verdict.HOLD
    else:
        assert (verdict is Verdict.RETRY) is retriable


@pytest.mark.parametrize(("fact", "why"), [("transport_error", NoAnswer.CONNECT), ("nil_response", NoAnswer.RESET)])
def test_knative_retries_where_no_answer_came_and_so_do_we(fact: str, why: NoAnswer) -> None:
    assert (decided(Unanswered(why, "")).verdict is Verdict.RETRY) is SELECTIVE[fact]


# --- Held


@pytest.mark.parametrize("status", sorted(HELD))
def test_a_held_event_is_refused_once_the_sink_accepts_others_sent_after_it_was_held(status: int) -> None:
    first = decided(Answered(status), sink=SinkFacts(accepted_started=NOW - 1))
    assert (first.verdict, first.attempt.held_since) == (Verdict.HOLD, NOW)
    still = decided(Answered(status), attempt=first.attempt, now=NOW + 30, sink=SinkFacts(accepted_started=NOW))
    assert (still.verdict, still.attempt.held_since) == (Verdict.HOLD, NOW)
    last = decided(Answered(status), attempt=still.attempt, now=NOW + 60, sink=SinkFacts(accepted_started=NOW + 1))
    assert (last.verdict, last.loss) == (Verdict.REFUSED, Loss.REFUSED)


def test_a_tls_failure_is_held_even_while_kept_connections_still_take_others() -> None:
    # A handshake fails before the event is seen: it cannot be the event.
    tls = Unanswered(NoAnswer.TLS, "certificate has expired")
    held = decided(tls)
    assert (
        decided(tls, attempt=held.attempt, now=NOW + 30, sink=SinkFacts(accepted_started=NOW + 1)).verdict
        is Verdict.HOLD
    )


def test_a_held_event_waits_for_the_cap_from_the_first_try_on() -> None:
    assert decided(UNAUTHORIZED).after == 30.0
    assert decided(UNAUTHORIZED, luck=0.0).after == pytest.approx(24.0)


def test_a_held_event_waits_as_the_given_delivery_says() -> None:
    policy = policy_from_spec({"retry": 2, "backoffPolicy": "linear", "backoffDelay": "PT2S"})
    assert decided(UNAUTHORIZED, policy=policy).after == 2.0


def test_an_outage_between_does_not_let_go_of_a_held_event() -> None:
    held = decided(UNAUTHORIZED)
    away = decided(RETRY_LATER, attempt=held.attempt, now=NOW + 30)
    assert (away.verdict, away.attempt.held_since) == (Verdict.RETRY, NOW)


# --- Refused, and the brake


@pytest.mark.parametrize("status", [status for status in STATUSES if class_of(status) is Reaction.REFUSE])
def test_after_20_different_events_refused_in_a_row_none_is_refused_any_more(status: int) -> None:
    assert decided(Answered(status), sink=SinkFacts(refused_in_a_row=19)).verdict is Verdict.REFUSED
    braked = decided(Answered(status), sink=SinkFacts(refused_in_a_row=20))
    assert (braked.verdict, braked.attempt.held_since) == (Verdict.HOLD, NOW)


def test_a_braked_event_is_refused_once_the_sink_accepts_another() -> None:
    braked = decided(BAD_REQUEST, sink=SinkFacts(refused_in_a_row=20))
    again = decided(BAD_REQUEST, attempt=braked.attempt, now=NOW + 30, sink=SinkFacts(refused_in_a_row=20))
    assert (again.verdict, again.attempt.held_since) == (Verdict.HOLD, NOW)
    last = decided(BAD_REQUEST, attempt=again.attempt, now=NOW + 60, sink=SinkFacts(accepted_started=NOW + 40))
    assert last.verdict is Verdict.REFUSED


def test_a_braked_event_still_ends_with_its_deadline() -> None:
    decision = decided(BAD_REQUEST, sink=SinkFacts(refused_in_a_row=20), deadline=NOW + 10)
    assert (decision.verdict, decision.loss) == (Verdict.GIVE_UP, Loss.EXPIRED)


@pytest.mark.parametrize("fact", [{}, {"deadline": NOW + 1}, {"policy": Policy(retries=9)}])
def test_what_is_refused_is_refused_at_the_first_try_whatever_time_is_left(fact: dict[str, Any]) -> None:
    decision = decided(BAD_REQUEST, **fact)
    assert (decision.verdict, decision.loss) == (Verdict.REFUSED, Loss.REFUSED)


# --- Poison


def hours_until_refused(policy: Policy, *, others_accepted: bool, hours: int = 4) -> float | None:
    """When an event is refused that is answered 503 every half minute; None where it is still tried after ``hours``."""
    attempt = Attempt()
    for minute in range(hours * 120):
        now = minute * 30.0
        sink = SinkFacts(accepted_started=now - 1) if others_accepted else QUIET
        decision = decided(RETRY_LATER, policy=policy, attempt=attempt, now=now, sink=sink)
        if decision.verdict is Verdict.REFUSED:
            assert decision.loss is Loss.POISON
            return now / HOUR
        assert decision.verdict is Verdict.RETRY
        attempt = replace(decision.attempt, number=decision.attempt.number + 1)
    return None


def test_an_event_retried_for_an_hour_while_the_sink_accepts_others_is_refused_as_poison() -> None:
    assert hours_until_refused(POLICY, others_accepted=True) == 1.0


def test_no_event_is_poison_while_the_sink_accepts_nothing() -> None:
    assert hours_until_refused(POLICY, others_accepted=False) is None


def test_the_time_until_an_event_is_poison_can_be_set() -> None:
    assert hours_until_refused(Policy(poison_after=timedelta(hours=2)), others_accepted=True) == 2.0


def test_on_exhausted_hold_tries_a_poisonous_event_for_ever() -> None:
    assert hours_until_refused(Policy(on_exhausted=OnExhausted.HOLD), others_accepted=True) is None


def test_only_time_between_failing_tries_in_which_others_were_accepted_counts_towards_poison() -> None:
    first = decided(RETRY_LATER, now=0.0, sink=SinkFacts(accepted_started=-1.0))
    assert (first.attempt.failing_since, first.attempt.poisoned) == (0.0, 0.0)  # others before its first try: no matter
    down = decided(RETRY_LATER, attempt=first.attempt, now=100.0, sink=SinkFacts(accepted_started=-1.0))
    assert down.attempt.poisoned == 0.0
    others = decided(RETRY_LATER, attempt=down.attempt, now=130.0, sink=SinkFacts(accepted_started=110.0))
    assert others.attempt.poisoned == 30.0
    down_again = decided(RETRY_LATER, attempt=others.attempt, now=200.0, sink=SinkFacts(accepted_started=110.0))
    assert (down_again.attempt.poisoned, down_again.attempt.failing_since) == (30.0, 200.0)


# --- How long


def tried(policy: Policy, outcomes: list[Outcome]) -> list[Decision]:
    """The decisions on one event as `HttpSink` takes them, until it ends or the outcomes do."""
    decisions: list[Decision] = []
    attempt = Attempt()
    for outcome in outcomes:
        decision = decided(outcome, policy=policy, attempt=attempt)
        decisions.append(decision)
        if decision.verdict not in (Verdict.RETRY, Verdict.HOLD):
            break
        counts = outcome != STALE
        attempt = replace(decision.attempt, number=decision.attempt.number + counts)
    return decisions


@pytest.mark.parametrize(
    "outcome", [RETRY_LATER, UNAUTHORIZED, Unanswered(NoAnswer.TLS, ""), Unanswered(NoAnswer.CONNECT, "")], ids=str
)
@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_given_number_of_retries_is_obeyed_to_the_letter(outcome: Outcome, retries: int) -> None:
    decisions = tried(Policy(retries=retries), [outcome] * 10)
    assert len(decisions) == retries + 1
    assert (decisions[-1].verdict, decisions[-1].loss) == (Verdict.GIVE_UP, Loss.EXHAUSTED)


def test_where_no_number_of_retries_is_given_there_is_always_another() -> None:
    assert decided(RETRY_LATER, attempt=Attempt(number=10**9)).verdict is Verdict.RETRY


@pytest.mark.parametrize("retries", [0, 1, None])
def test_a_stale_connection_is_retried_at_once_and_is_no_attempt(retries: int | None) -> None:
    decisions = tried(Policy(retries=retries), [STALE, STALE, RETRY_LATER])
    assert [(decision.verdict, decision.after) for decision in decisions[:2]] == [(Verdict.RETRY, 0.0)] * 2
    assert decisions[2].attempt.number == 1


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=row["name"] + ("-ours" if row["name"] in OURS_SDK_GO else "")) for row in SDK_GO]
)
def test_the_go_sdks_retries_are_ours_but_for_what_it_loses(row: dict[str, Any]) -> None:
    late = [seconds >= row.get("client_timeout_s", 1e9) for seconds in row.get("delays_s", [0] * len(row["statuses"]))]
    timeout = Unanswered(NoAnswer.TIMEOUT, "")
    outcomes = [timeout if is_late else Answered(s) for s, is_late in zip(row["statuses"], late, strict=True)]
    decisions = tried(Policy(retries=row["retries"]), outcomes)
    requests, accepted = OURS_SDK_GO.get(row["name"], (row["requests"], row["ack"]))
    assert len(decisions) == requests
    assert (decisions[-1].verdict is Verdict.ACCEPTED) is accepted


@pytest.mark.parametrize("outcome", [RETRY_LATER, UNAUTHORIZED], ids=str)
def test_an_event_ends_when_its_next_try_would_be_at_or_after_its_deadline(outcome: Outcome) -> None:
    after = decided(outcome).after
    late = decided(outcome, deadline=NOW + after)
    assert (late.verdict, late.loss) == (Verdict.GIVE_UP, Loss.EXPIRED)
    assert decided(outcome, deadline=NOW + after + 0.001).after == after


def test_a_closed_fence_ends_it_whatever_the_answer_except_accepted() -> None:
    facts = SinkFacts(refused_in_a_row=20)
    decisions = {status: decided(Answered(status), fenced=True, sink=facts, deadline=NOW) for status in STATUSES}
    assert {status: (decision.verdict, decision.loss) for status, decision in decisions.items()} == {
        status: (Verdict.ACCEPTED, None) if 200 <= status <= 299 else (Verdict.GIVE_UP, Loss.FENCED)
        for status in STATUSES
    }


@pytest.mark.parametrize("why", list(NoAnswer))
def test_a_closed_fence_ends_what_was_not_answered(why: NoAnswer) -> None:
    assert decided(Unanswered(why, ""), fenced=True).loss is Loss.FENCED


@given(
    status=st.integers(200, 299),
    attempt=st.builds(
        Attempt, number=st.integers(1, 100), poisoned=st.floats(0, 1e5), held_since=st.none() | st.floats(0, NOW)
    ),
    sink=st.builds(SinkFacts, st.floats(0, NOW), st.integers(0, 50)),
    deadline=st.none() | st.floats(0, 2 * NOW),
)
def test_accepted_is_accepted_whatever_was_before_and_however_late(
    status: int, attempt: Attempt, sink: SinkFacts, deadline: float | None
) -> None:
    decision = decided(Answered(status), policy=Policy(retries=0), attempt=attempt, sink=sink, deadline=deadline)
    assert decision == Decision(Verdict.ACCEPTED, attempt)


# --- Waits


@pytest.mark.parametrize("row", BACKOFF["rows"], ids=lambda row: f"{row['backoffPolicy']} {row['backoffDelay']}")
def test_waits_grow_as_knatives_do(row: dict[str, Any]) -> None:
    policy = policy_from_spec({name: row[name] for name in ("retry", "backoffPolicy", "backoffDelay")})
    decisions = tried(policy, [RETRY_LATER] * 10)
    assert [round(decision.after * 1000) for decision in decisions[:-1]] == row["delays_ms"]
    assert decisions[-1].loss is Loss.EXHAUSTED


def test_waits_end_at_the_cap_where_no_delivery_is_given() -> None:
    waits = [backoff(POLICY, number) for number in range(1, 12)]
    assert waits == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 30.0, 30.0]


@pytest.mark.parametrize("kind", list(Backoff))
def test_waits_stay_finite_however_many_tries_there_were(kind: Backoff) -> None:
    assert backoff(Policy(backoff=kind, cap=None), 10**9) < float("inf")


OUTCOMES: Final = st.one_of(
    st.builds(Answered, st.integers(300, 599)), st.builds(Unanswered, st.sampled_from(NoAnswer), st.just(""))
)


@given(
    outcome=OUTCOMES,
    number=st.integers(1, 200),
    luck=st.floats(0, 1, exclude_max=True),
    delay=st.timedeltas(timedelta(), timedelta(days=1)),
    kind=st.sampled_from(Backoff),
)
def test_a_wait_never_exceeds_the_cap(
    outcome: Outcome, number: int, luck: float, delay: timedelta, kind: Backoff
) -> None:
    policy = Policy(backoff=kind, backoff_delay=delay)
    decision = decided(outcome, policy=policy, attempt=Attempt(number=number), luck=luck)
    assert 0.0 <= decision.after <= 30.0


@given(number=st.integers(1, 200), luck=st.floats(0, 1, exclude_max=True), jitter=st.floats(0, 1))
def test_a_wait_is_spread_by_the_jitter_to_either_side(number: int, luck: float, jitter: float) -> None:
    policy = Policy(jitter=jitter, cap=None)
    after = decided(RETRY_LATER, policy=policy, attempt=Attempt(number=number), luck=luck).after
    own = backoff(policy, number)
    assert own * (1 - jitter) <= after <= own * (1 + jitter)


@given(
    seconds=st.integers(0, 10**12),
    number=st.integers(1, 200),
    luck=st.floats(0, 1, exclude_max=True),
    status=st.sampled_from([429, 503]),
)
def test_retry_after_is_never_undercut_but_for_its_own_cap(seconds: int, number: int, luck: float, status: int) -> None:
    decision = decided(Answered(status, str(seconds)), attempt=Attempt(number=number), luck=luck)
    assert min(seconds, 120) <= decision.after <= max(30.0, min(seconds, 120))


def named(row: dict[str, Any]) -> str:
    return str(row["name"]) + ("-ours" if row["name"] in OURS_RETRY_AFTER else "")


@pytest.mark.parametrize("row", RETRY_AFTER, ids=named)
def test_retry_after_is_read_as_knative_reads_it_and_honoured_where_no_maximum_is_set(row: dict[str, Any]) -> None:
    spec: dict[str, object] = {
        "retry": 5,
        "backoffPolicy": "exponential",
        "backoffDelay": f"PT{row['own_backoff_s'] / 2}S",
    }
    if row["retry_after_max_s"] is not None:
        spec["retryAfterMax"] = f"PT{row['retry_after_max_s']}S"
    header = row["retry_after"]
    if header is not None and header.startswith("<now+30s"):
        header = (WALL + timedelta(seconds=30)).strftime("%A, %d-%b-%y %H:%M:%S GMT")
    decision = decided(Answered(row["status"], header), policy=policy_from_spec(spec))
    assert decision.after == OURS_RETRY_AFTER.get(row["name"], row["expected_wait_s"])


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("0", 0.0),
        (" 7 ", 7.0),
        ("99999999999999999999", 999999999.0),
        ("9" * 10_000, 999999999.0),
        ("Thu, 01 Jan 2026 00:00:30 GMT", 30.0),
        ("Thursday, 01-Jan-26 00:00:30 GMT", 30.0),
        ("Thu Jan  1 00:00:30 2026", 30.0),
        ("Thu, 01 Jan 2026 02:00:30 +0200", 30.0),
        ("Thu, 01 Jan 2026 00:00:30 -0000", 30.0),
        (format_datetime(WALL - timedelta(days=1), usegmt=True), 0.0),
        (format_datetime(WALL + timedelta(days=365), usegmt=True), 365 * 86400.0),
        ("", None),
        ("FOO", None),
        ("-5", None),
        ("1.5", None),
        ("1e3", None),
        ("٣", None),
        ("Thu, 32 Jan 2026 00:00:30 GMT", None),
        ("Thu, 01 Jan 99999 00:00:30 GMT", None),
        ("Thu, 01 Jan 2026 00:00:30 +99999999999999999999", None),
    ],
    ids=lambda value: ascii(value)[:32],
)
def test_retry_after_is_seconds_or_a_date_and_nothing_else(header: str, seconds: float | None) -> None:
    assert retry_after(Answered(503, header), WALL) == seconds


@pytest.mark.parametrize(
    "outcome", [Answered(500, "5"), Answered(302, "5"), Answered(503), Unanswered(NoAnswer.RESET, "5")], ids=str
)
def test_only_429_and_503_can_ask_for_a_wait(outcome: Outcome) -> None:
    assert retry_after(outcome, WALL) is None


@given(
    header=st.text(max_size=40)
    | st.from_regex(r"[A-Z][a-z]{2}, \d+ [A-Z][a-z]{2} \d+ \d+:\d+:\d+ [+-]?\w+", fullmatch=True)
)
def test_no_retry_after_header_breaks_the_decision(header: str) -> None:
    assert 0.0 <= decided(Answered(503, header)).after <= 120.0


def test_a_retry_after_max_of_0_ignores_the_header() -> None:
    assert decided(Answered(503, "60"), policy=Policy(retry_after_max=timedelta())).after == pytest.approx(0.1)


def test_a_retry_after_beyond_the_deadline_ends_the_event_now() -> None:
    assert decided(Answered(503, "60"), deadline=NOW + 30).loss is Loss.EXPIRED


# --- DeliverySpec


@pytest.mark.parametrize("spec", BACKOFF["invalid"], ids=str)
def test_a_delivery_that_knative_refuses_is_refused_by_path(spec: dict[str, object]) -> None:
    (bad,) = (name for name in spec if name != "backoffPolicy")
    with pytest.raises(ConfigError) as caught:
        policy_from_spec(spec)
    assert [problem.where for problem in caught.value.problems] == [f"delivery.{bad}"]


@pytest.mark.parametrize("spec", BACKOFF["valid"], ids=str)
def test_a_delivery_that_knative_takes_is_taken(spec: dict[str, object]) -> None:
    policy = policy_from_spec(spec)
    assert policy.retries == spec.get("retry")
    assert policy.timeout == timedelta(seconds=10 if "timeout" in spec else 30)
    assert policy.retry_after_max == timedelta(seconds=30 if "retryAfterMax" in spec else 120)
    assert policy.backoff is (Backoff.LINEAR if "backoffPolicy" in spec else Backoff.EXPONENTIAL)
    assert policy.cap == (None if "backoffPolicy" in spec else timedelta(seconds=30))


def test_a_backoff_that_is_given_is_neither_capped_nor_jittered() -> None:
    policy = policy_from_spec({"backoffDelay": "PT1M"})
    assert decided(RETRY_LATER, policy=policy, luck=0.9).after == 120.0


def test_an_empty_delivery_leaves_everything_as_it_was() -> None:
    base = Policy(retries=7, timeout=None)
    assert policy_from_spec({}, base) == base
    assert (
        policy_from_spec({"retry": None, "backoffPolicy": None, "backoffDelay": None, "deadLetterSink": {}}, base)
        == base
    )


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"retry": -1}, "delivery.retry: -1 is not a whole number from 0 up"),
        ({"retry": True}, "delivery.retry: True is not a whole number from 0 up"),
        ({"retry": "3"}, "delivery.retry: '3' is not a whole number from 0 up"),
        ({"backoffPolicy": "cubic"}, "delivery.backoffPolicy: 'cubic' is not linear or exponential"),
        ({"backoffPolicy": []}, "delivery.backoffPolicy: [] is not linear or exponential"),
        ({"backoffDelay": 5}, "delivery.backoffDelay: 5 is not an ISO 8601 duration such as PT0.5S, PT1M or P1D"),
        ({"backoffDelay": "-PT1S"}, "delivery.backoffDelay: '-PT1S' is negative"),
        ({"timeout": "PT0S"}, "delivery.timeout: 'PT0S' is not longer than 0"),
        ({"retryAfterMax": "-PT1S"}, "delivery.retryAfterMax: '-PT1S' is negative"),
    ],
)
def test_a_wrong_delivery_is_told_by_path_value_and_rule(spec: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_from_spec(spec)
    assert str(caught.value) == problem


def test_every_problem_of_a_delivery_is_told_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        policy_from_spec({"retry": -1, "backoffPolicy": "x", "backoffDelay": "x", "timeout": "x", "retryAfterMax": "x"})
    names = [problem.where.removeprefix("delivery.") for problem in caught.value.problems]
    assert names == ["retry", "backoffPolicy", "backoffDelay", "timeout", "retryAfterMax"]
