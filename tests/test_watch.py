"""The pure parts of a watch: what comes after an end, what a list tells, what is remembered, names and selectors."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.errors import ConfigError
from wellhead.kubernetes.change import Operation, json_bytes, listed, remains, seen, told_before
from wellhead.kubernetes.errors import BROKEN, CONNECT, CREDENTIALS, GARBLED, SILENT, TLS, ApiError, from_status
from wellhead.kubernetes.index import Index, Seen
from wellhead.kubernetes.kinds import Gvr, Kind, guess_plural, parse_api_version, query, served
from wellhead.kubernetes.selectors import label_selector, parse_fields, parse_labels
from wellhead.kubernetes.watch import LONGEST_WAIT, Do, Next, Phase, after_end, after_error, backoff

SAMPLES: Final = Path(__file__).parent / "samples/kubernetes"
KINDS: Final = json.loads((SAMPLES / "kind_to_resource.json").read_text())["rows"]
SELECTORS: Final = json.loads((SAMPLES / "selectors.json").read_text())
STREAMS: Final = json.loads((SAMPLES / "watch_streams.json").read_text())["rows"]
WATCH, LIST, WATCH_LIST = Phase.WATCH, Phase.LIST, Phase.WATCH_LIST


def error(status: int, reason: str = "Unknown", retry_after: float | None = None) -> ApiError:
    return ApiError(status, reason, "…", retry_after=retry_after)


# --- after an end ---

# phase, what happened, failures in a row (1: the first) → what next, after how many seconds
DECISIONS: Final = (
    (WATCH, error(410, "Expired"), 1, Do.RELIST, 0),
    (WATCH, error(410, "Gone"), 2, Do.RELIST, 0.2),
    (WATCH, error(500, "Expired"), 1, Do.RELIST, 0),
    (LIST, error(410, "Expired"), 1, Do.RELIST, 0),
    (WATCH_LIST, error(410, "Expired"), 1, Do.RELIST, 0),
    (WATCH, error(0, SILENT), 1, Do.RESUME, 0),
    (WATCH, error(0, BROKEN), 1, Do.RESUME, 0),
    (WATCH, error(0, BROKEN), 2, Do.RESUME, 0.2),
    (WATCH, error(0, CONNECT), 1, Do.RESUME, 0.2),
    (WATCH, error(0, CONNECT), 50, Do.RESUME, LONGEST_WAIT),
    (WATCH, error(0, TLS), 1, Do.RESUME, 0.2),
    (WATCH, error(0, CREDENTIALS), 3, Do.RESUME, 0.8),
    (WATCH, error(0, GARBLED), 1, Do.RESUME, 0.2),
    (LIST, error(0, CONNECT), 2, Do.RELIST, 0.4),
    (WATCH_LIST, error(0, BROKEN), 1, Do.RELIST, 0),
    (WATCH_LIST, error(0, SILENT), 1, Do.PAGES, 0),
    (WATCH_LIST, error(0, GARBLED), 1, Do.PAGES, 0),
    (WATCH_LIST, error(400, "BadRequest"), 1, Do.PAGES, 0),
    (WATCH_LIST, error(422, "Invalid"), 1, Do.PAGES, 0),
    (WATCH, error(401, "Unauthorized"), 1, Do.RESUME, 0.2),
    (WATCH, error(403, "Forbidden"), 1, Do.RESUME, 1.0),
    (WATCH, error(403, "Forbidden"), 6, Do.RELIST, 25.6),
    (LIST, error(403, "Forbidden"), 20, Do.RELIST, LONGEST_WAIT),
    (WATCH, error(404, "NotFound"), 1, Do.FIND, 0.2),
    (LIST, error(404, "NotServed"), 20, Do.FIND, 10),
    (WATCH, error(429, "TooManyRequests", 7), 1, Do.RESUME, 7),
    (WATCH, error(429, "TooManyRequests", 3600), 1, Do.RESUME, LONGEST_WAIT),
    (LIST, error(429, "TooManyRequests"), 2, Do.RELIST, 0.4),
    (WATCH, error(503, "ServiceUnavailable"), 1, Do.RESUME, 0.2),
    (WATCH, error(504, "Timeout"), 5, Do.RESUME, 3.2),
    (WATCH, error(504, "Timeout"), 6, Do.RELIST, 6.4),
    (WATCH, error(400, "BadRequest"), 1, Do.RELIST, 1.6),
)


@pytest.mark.parametrize(("phase", "what", "failures", "do", "after"), DECISIONS)
def test_what_comes_after_an_error(phase: Phase, what: ApiError, failures: int, do: Do, after: float) -> None:
    assert after_error(phase, what, failures) == Next(do, after)


@pytest.mark.parametrize("status", [401, 403, 404])
@pytest.mark.parametrize("phase", Phase)
def test_told_to_fail_fast_it_gives_up_where_a_person_is_needed(phase: Phase, status: int) -> None:
    assert after_error(phase, error(status), 1, fail_fast=True) == Next(Do.GIVE_UP)


@pytest.mark.parametrize("what", [error(410), error(503), error(0, BROKEN), error(429)])
def test_told_to_fail_fast_it_survives_what_servers_do_in_passing(what: ApiError) -> None:
    assert after_error(WATCH, what, 1, fail_fast=True).do is not Do.GIVE_UP


def test_an_end_as_it_should_be_is_resumed_at_once_and_later_if_it_brought_nothing_again_and_again() -> None:
    assert [after_end(WATCH, failures) for failures in (0, 1, 3)] == [
        Next(Do.RESUME, 0), Next(Do.RESUME, 0.2), Next(Do.RESUME, 0.8),
    ]  # fmt: skip
    assert after_end(WATCH_LIST, 0) == Next(Do.PAGES, 0)


@given(
    phase=st.sampled_from(Phase),
    status=st.sampled_from([0, 400, 401, 403, 404, 409, 410, 429, 500, 503]),
    reason=st.sampled_from([SILENT, BROKEN, CONNECT, "Unknown"]),
    failures=st.integers(1, 10_000),
    retry_after=st.none() | st.floats(0, 1e6),
)
def test_it_never_gives_up_unasked_and_never_waits_longer_than_it_may(
    phase: Phase, status: int, reason: str, failures: int, retry_after: float | None
) -> None:
    then = after_error(phase, error(status, reason, retry_after), failures)
    assert then.do is not Do.GIVE_UP
    assert 0 <= then.after <= LONGEST_WAIT
    assert backoff(failures) <= backoff(failures + 1)


def test_the_errors_that_people_met_say_what_they_are() -> None:
    row = next(row for row in STREAMS if "error" in row)
    told = from_status(row["error"]["object"])
    assert (told.status, told.reason) == (410, "Gone")
    assert after_error(WATCH, told, 1) == Next(Do.RELIST)


def test_a_status_without_a_code_takes_the_answers_and_tells_how_long_to_wait() -> None:
    told = from_status({"reason": "TooManyRequests", "details": {"retryAfterSeconds": 3}}, status=429)
    assert (told.status, told.retry_after) == (429, 3.0)
    assert from_status({}, status=502).status == 502
    assert from_status({"code": 500, "details": {"retryAfterSeconds": True}}).retry_after is None


# --- what a list tells ---

SEEN: Final = Seen("ns", "a", "uid-a", "10")


@pytest.mark.parametrize(
    ("now", "known", "operations"),
    [
        (SEEN, None, (Operation.ADD,)),
        (SEEN, SEEN, ()),
        (SEEN._replace(version="11"), SEEN, (Operation.UPDATE,)),
        (SEEN._replace(uid="uid-b", version="11"), SEEN, (Operation.DELETE, Operation.ADD)),
        (SEEN._replace(version="11", digest="x"), SEEN._replace(digest="x"), ()),
        (SEEN._replace(version="11", digest="y"), SEEN._replace(digest="x"), (Operation.UPDATE,)),
        (SEEN._replace(version="11", digest="y"), SEEN, (Operation.UPDATE,)),
    ],
)
def test_what_happened_between_two_lists(now: Seen, known: Seen | None, operations: tuple[Operation, ...]) -> None:
    assert listed(now, known) == operations


@pytest.mark.parametrize(
    ("version", "known", "told"),
    [("11", SEEN, False), ("10", SEEN, True), ("9", SEEN, True), ("10", None, False), ("x", SEEN, False),
     ("x", SEEN._replace(version="x"), True)],
)  # fmt: skip
def test_a_resumed_stream_may_repeat_what_is_known(version: str, known: Seen | None, told: bool) -> None:  # noqa: FBT001
    assert told_before(Operation.UPDATE, version, known) is told


@pytest.mark.parametrize(("version", "told"), [("11", False), ("10", False), ("9", True)])
def test_a_delete_in_the_version_that_is_known_is_none_of_those(version: str, told: bool) -> None:  # noqa: FBT001
    assert told_before(Operation.DELETE, version, SEEN) is told


@pytest.mark.parametrize("body", [{}, {"metadata": {}}, {"metadata": {"name": "a"}}, {"metadata": {"name": 1}}])
def test_what_has_no_name_or_version_is_no_object(body: dict[str, Any]) -> None:
    with pytest.raises(ApiError, match=r"metadata|resourceVersion"):
        seen(body)


def test_of_an_object_that_is_gone_its_names_remain() -> None:
    kind = Kind(Gvr("apps", "v1", "deployments"), "Deployment", namespaced=True)
    assert remains(SEEN, kind)["apiVersion"] == "apps/v1"
    assert remains(Seen("", "n", "", "1"), kind)["metadata"] == {"name": "n", "resourceVersion": "1"}


def test_json_is_written_as_go_writes_it() -> None:
    assert json_bytes({"a": "<b> & é\u2028"}) == '{"a":"\\u003cb\\u003e \\u0026 é\\u2028"}'.encode()


# --- what is remembered ---

NAMES: Final = st.text(st.characters(codec="utf-8", exclude_characters="/% "), min_size=1, max_size=20)
UIDS: Final = st.uuids().map(str) | st.sampled_from(["", "uid-a", "A" * 36, "x" * 36, str(uuid.UUID(int=7)).upper()])
SEENS: Final = st.builds(
    Seen, st.sampled_from(["", "ns", "other"]), NAMES, UIDS, st.integers(0, 2**63).map(str), st.sampled_from(["", "d1"])
)


@given(st.lists(SEENS, max_size=20))
def test_the_index_gives_back_what_it_was_given(objects: list[Seen]) -> None:
    index = Index()
    for one in objects:
        index.put(one)
    last = {(one.namespace, one.name): one for one in objects}
    assert {(one.namespace, one.name): one for one in index} == last
    assert len(index) == len(last)
    for key, one in last.items():
        assert index.get(*key) == one
        index.remove(*key)
    assert len(index) == 0


def test_what_a_list_did_not_show_is_gone() -> None:
    index = Index()
    for name in "abc":
        index.put(SEEN._replace(name=name))
    index.begin()
    index.put(SEEN._replace(name="b"))
    assert [gone.name for gone in index.end()] == ["a", "c"]
    assert [one.name for one in index] == ["b"]


def test_a_list_that_begins_anew_has_shown_nothing_yet() -> None:
    index = Index()
    index.put(SEEN)
    index.begin()
    index.put(SEEN)
    index.begin()
    assert [gone.name for gone in index.end()] == ["a"]


# --- names ---


@pytest.mark.parametrize("row", KINDS, ids=lambda row: row["kind"])
def test_the_plural_is_guessed_as_knative_guesses_it(row: dict[str, str]) -> None:
    assert guess_plural(row["kind"]) == row["resource"]


@pytest.mark.parametrize(
    ("selector", "matches"), [("n>4", True), ("n>5", False), ("n<6", True), ("n<5", False), ("m<9", False)]
)
def test_labels_are_compared_as_integers(selector: str, matches: bool) -> None:  # noqa: FBT001
    assert parse_labels(selector).matches({"n": "5", "m": "x"}) is matches


def test_endpoints_are_their_own_plural() -> None:
    assert guess_plural("Endpoints") == "endpoints"


@pytest.mark.parametrize(
    ("text", "parsed"), [("v1", ("", "v1")), ("apps/v1", ("apps", "v1")), ("a.b/v1beta1", ("a.b", "v1beta1"))]
)
def test_an_api_version_is_group_and_version(text: str, parsed: tuple[str, str]) -> None:
    assert parse_api_version(text) == parsed


@pytest.mark.parametrize("text", ["", "/v1", "a/b/c", "apps/", "Apps/v1", "a b/v1"])
def test_what_is_no_api_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="group/version"):
        parse_api_version(text)


RESOURCES: Final = [
    {"name": "gateways", "kind": "Gateway", "namespaced": True},
    {"name": "gateways/status", "kind": "Gateway", "namespaced": True},
    {"name": "nodes", "kind": "Node", "namespaced": False},
]


def test_discovery_corrects_a_plural_that_was_guessed_wrong() -> None:
    found = served(Gvr("lab.example", "v1", "gatewaies"), RESOURCES)
    assert found == Kind(Gvr("lab.example", "v1", "gateways"), "Gateway", namespaced=True)
    assert found.path("ns") == "/apis/lab.example/v1/namespaces/ns/gateways"
    assert served(Gvr("lab.example", "v1", "widgets"), RESOURCES) is None


def test_paths_are_those_of_the_api() -> None:
    assert Kind(Gvr("", "v1", "nodes"), "Node", namespaced=False).path("ns") == "/api/v1/nodes"
    assert Kind(Gvr("", "v1", "pods"), "Pod", namespaced=True).path("") == "/api/v1/pods"
    assert (
        query("/p", labelSelector="a in (b,c)", limit=1, fieldSelector="")
        == "/p?labelSelector=a%20in%20%28b%2Cc%29&limit=1"
    )
    assert query("/p", limit=None) == "/p"


# --- selectors ---


@pytest.mark.parametrize("row", SELECTORS["label_selectors"], ids=lambda row: row["selector"])
def test_label_selectors_are_read_as_kubernetes_reads_them(row: dict[str, Any]) -> None:
    if not row["ok"]:
        with pytest.raises(ValueError, match=r"which is|no label"):
            parse_labels(row["selector"])
        return
    selector = parse_labels(row["selector"])
    assert selector.matches(SELECTORS["labels"]) is row["matches"]
    assert parse_labels(str(selector)) == parse_labels(str(parse_labels(str(selector))))
    assert parse_labels(str(selector)).matches(SELECTORS["labels"]) is row["matches"]


@pytest.mark.parametrize("row", SELECTORS["field_selectors"], ids=lambda row: row["selector"])
def test_field_selectors_are_read_as_kubernetes_reads_them(row: dict[str, Any]) -> None:
    terms = parse_fields(row["selector"])
    fields = SELECTORS["fields"]
    assert all((fields.get(key, "") == value) == (operator == "=") for key, operator, value in terms) is row["matches"]


@pytest.mark.parametrize("text", ["a", "a=b=c", "a!b"])
def test_what_is_no_field_selector_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="which is no term"):
        parse_fields(text)


def test_a_selector_object_is_the_text_that_knatives_controller_writes() -> None:
    selector = label_selector(
        {
            "matchLabels": {"app": "web"},
            "matchExpressions": [
                {"key": "tier", "operator": "In", "values": ["b", "a"]},
                {"key": "canary", "operator": "DoesNotExist"},
                {"key": "e2e", "operator": "Exists"},
                {"key": "env", "operator": "NotIn", "values": ["prod"]},
            ],
        },
        "spec.selector",
    )
    assert str(selector) == "app=web,!canary,e2e,env!=prod,tier in (a,b)"


def test_all_that_is_wrong_with_a_selector_object_is_told_by_path() -> None:
    with pytest.raises(ConfigError) as caught:
        label_selector(
            {
                "matchLabels": {"-app": "web", "x": "a b"},
                "matchExpressions": [{"key": "a", "operator": "Is"}, {"key": "a", "operator": "In"}, "x",
                                     {"key": "a", "operator": "Exists", "values": ["b"]}],
                "labels": {},
            },
            "spec.selector",
        )  # fmt: skip
    assert [re.sub(r"^spec\.selector\.", "", problem.where) for problem in caught.value.problems] == [
        "labels", "matchLabels.-app", "matchLabels.x", "matchExpressions[0]", "matchExpressions[1]",
        "matchExpressions[2]", "matchExpressions[3].values",
    ]  # fmt: skip


@pytest.mark.parametrize("value", [[], "a=b", {"matchLabels": ["a"]}, {"matchExpressions": {"a": 1}}])
def test_what_is_no_selector_object_is_refused(value: object) -> None:
    with pytest.raises(ConfigError):
        label_selector(value, "spec.selector")


@given(st.text(alphabet="ab=!<>,() in.-/", max_size=30))
def test_a_selector_that_is_read_reads_the_same_when_written(text: str) -> None:
    try:
        selector = parse_labels(text)
    except ValueError:
        return
    again = parse_labels(str(selector))
    for labels in ({}, {"a": "b"}, {"a": "", "b": "a"}):
        assert again.matches(labels) == selector.matches(labels)


# --- the table of the README ---

README: Final = Path(__file__).parents[1] / "adapters/wellhead_adapters/apiserver/README.md"
TOLD: Final = (
    ("the stream ends, as it does each few minutes", None),
    ("410, `Expired`, `Gone`: the version or the `continue` token is forgotten", error(410, "Expired")),
    ("nothing came for 70 s: half open (a list: a minute)", error(0, SILENT)),
    ("the connection broke", error(0, BROKEN)),
    ("no connection: the server restarts, or is away", error(0, CONNECT)),
    ("TLS failure; CA and certificates are read again", error(0, TLS)),
    ("the kubeconfig, or what it starts, does not work", error(0, CREDENTIALS)),
    ("what comes is no change, or no JSON", error(0, GARBLED)),
    ("401; the token is read again", error(401)),
    ("403: a permission is missing, or was taken away", error(403)),
    ("404: the kind is not served, or not any more", error(404)),
    ("429, or any answer with `Retry-After` (here 7)", error(429, "TooManyRequests", 7)),
    ("500, 503, 504, …", error(503)),
    ("400, 422 to a watch list: this server has none", error(422, "Invalid")),
)


def rules() -> str:
    lines = ["| what happens | to a watch | to a watch list | to a list | after (s) |", "|---|---|---|---|---|"]
    for words, what in TOLD:
        thens = [
            after_end(phase, 0) if what is None else after_error(phase, what, 1) for phase in (WATCH, WATCH_LIST, LIST)
        ]
        cells = [then.do.value for then in thens]
        if what is None:
            cells[2] = ""  # a list that ends is done
        lines.append(f"| {words} | {' | '.join(cells)} | {thens[0].after:g} |")
    return "\n".join(lines)


def test_the_table_of_rules_in_the_readme_is_what_the_code_does() -> None:
    assert rules() in README.read_text(encoding="utf-8")
