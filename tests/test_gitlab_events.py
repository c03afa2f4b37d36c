"""What a hook event becomes: upstream's attributes, the spec's mapping, GitLab's ids, and what is no hook event."""

from __future__ import annotations

import contextlib
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gitlab_requests import KEY, PUSH, SAMPLES, hook_request, payloads

from wellhead_adapters.gitlab.events import Mapped, cloud_event, event_type
from wellhead_adapters.gitlab.hook_event import Malformed, read
from wellhead_adapters.gitlab.kinds import FLAGS, KINDS, Scope, flags_of, header_of, sample_triggers

if TYPE_CHECKING:
    from wellhead.event import CloudEvent

SOURCE: Final = "https://gitlab.example.com/g/p"
NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
FACTS: Final = json.loads((SAMPLES / "gitlab_receiver/receiver_cases.json").read_text(encoding="utf-8"))
PAYLOADS: Final = payloads()
CRD_FLAGS: Final = (
    "confidential_issues_events", "confidential_note_events", "deployment_events", "feature_flag_events", "issues_events",
    "job_events", "merge_requests_events", "note_events", "pipeline_events", "push_events", "releases_events",
    "tag_push_events", "wiki_page_events", "resource_access_token_events",
)  # fmt: skip
SPEC: Final = {
    "push-event.json": ("com.gitlab.push", "http://example.com/mike/diaspora", "da1560886d4f094c3e6c9ef40349f7d38b5d27d7"),
    "tag-event.json": ("com.gitlab.tag_push", "http://example.com/jsmith/example", "refs/tags/v1.0.0"),
    "issue-event.json": ("com.gitlab.issue.opened", "http://example.com/gitlabhq/gitlab-test", "23"),
    "comment-commit-event.json": (
        "com.gitlab.note.commit",
        "http://example.com/gitlab-org/gitlab-test/commit/cfe32cf61b73a0d5e9f13e774abde7ff789b1660",
        "1243",
    ),
    "comment-merge-request-event.json": (
        "com.gitlab.note.merge_request",
        "http://example.com/gitlab-org/gitlab-test/merge_requests/1",
        "1244",
    ),
    "comment-issue-event.json": (
        "com.gitlab.note.issue", "http://example.com/gitlab-org/gitlab-test/issues/17", "1241",
    ),
    "comment-snippet-event.json": (
        "com.gitlab.note.snippet", "http://example.com/gitlab-org/gitlab-test/snippets/53", "1245",
    ),
    "merge-request-event.json": ("com.gitlab.merge_request.open", "http://example.com/gitlabhq/gitlab-test", "1"),
    "wikipage-event.json": ("com.gitlab.wiki_page.create", "http://example.com/root/awesome-project", "awesome"),
    "pipeline-event.json": ("com.gitlab.pipeline.success", "http://192.168.64.1:3005/gitlab-org/gitlab-test", "31"),
    "job-event.json": ("com.gitlab.job.created", "http://192.168.64.1:3005/gitlab-org/gitlab-test", "1977"),
}  # fmt: skip


def event(
    body: bytes = PUSH,
    name: str = "Push Hook",
    *,
    mapped: Mapped = Mapped.KNATIVE,
    extra_attributes: bool = False,
    key: str | None = KEY,
) -> CloudEvent:
    request = hook_request(body, name=name, key=key)
    told = read(request.header, request.body)
    return cloud_event(told, source=SOURCE, now=NOW, mapped=mapped, extra_attributes=extra_attributes)


@pytest.mark.parametrize(("file", "name", "expected", "body"), PAYLOADS, ids=[row[0] for row in PAYLOADS])
def test_every_payload_becomes_upstreams_event_byte_for_byte(file: str, name: str, expected: str, body: bytes) -> None:
    made = event(body, name)
    assert made.type == expected
    assert (made.source, made.subject, made.datacontenttype) == (SOURCE, None, "application/json")
    assert made.extensions == {"comgitlabevent": name}
    assert made.data == body
    assert made.id == KEY


@pytest.mark.parametrize("row", FACTS["header_to_type"], ids=lambda row: row["header"])
def test_the_type_is_made_of_the_header_as_upstream_does(row: dict[str, str | None]) -> None:
    header = str(row["header"])
    # Ours: upstream refuses a name without " Hook", which in the end disables the webhook; here it is passed on.
    ours = "dev.knative.sources.gitlab.missing_the_suffix"
    assert event_type(header) == (row["type"] or ours)


@pytest.mark.parametrize("file", SPEC)
def test_the_specs_mapping_is_that_of_its_page(file: str) -> None:
    body = (SAMPLES / "gitlab_webhooks/go-playground" / file).read_bytes()
    made = event(body, "Any Hook", mapped=Mapped.SPEC)
    assert (made.type, made.source, made.subject) == SPEC[file]
    assert (made.extensions, made.data, made.id) == ({}, body, KEY)


def test_the_specs_mapping_takes_the_time_of_a_note_and_of_a_merge_request() -> None:
    body = (SAMPLES / "gitlab_webhooks/go-playground/comment-issue-event.json").read_bytes()
    assert event(body, "Note Hook", mapped=Mapped.SPEC).time == "2015-05-17T17:06:40Z"
    assert event(PUSH, mapped=Mapped.SPEC).time == "2026-01-01T00:00:00Z"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "object_kind",
                        "object_attributes",
                        "iid",
                        "project",
                        "repository",
                        "homepage",
                        "web_url",
                        "url",
                        "commit",
                        "created_at",
                        "noteable_type",
                        "state",
                        "ref",
                    ]
                ),
                inner,
            )
        ),
        max_leaves=12,
    ),
    st.sampled_from(
        ["push", "note", "issue", "merge_request", "wiki_page", "pipeline", "job", "emoji", "nothing we know"]
    ),
    st.sampled_from(Mapped),
)
def test_whatever_json_comes_an_event_is_made_or_it_is_malformed(value: object, kind: str, mapped: Mapped) -> None:
    content = {"object_kind": kind, **value} if isinstance(value, dict) else value
    body = json.dumps(content).encode()
    with contextlib.suppress(Malformed):
        assert event(body, mapped=mapped, extra_attributes=True).data == body


def test_subject_and_ids_of_the_delivery_come_by_setting() -> None:
    made = event(extra_attributes=True)
    assert made.subject == "abc"
    assert made.extensions == {
        "comgitlabevent": "Push Hook",
        "gitlabeventuuid": "9cebe914-4827-408f-b014-cfa23a47a35f",
        "gitlabwebhookuuid": "3c5c0404-c866-44bc-a5f6-452bb1bfc76e",
        "gitlabinstance": "https://gitlab.example.com",
    }


def test_without_an_idempotency_key_every_event_has_another_id() -> None:
    assert event(key=None).id != event(key=None).id


def test_a_key_that_is_no_usual_one_makes_an_id_that_is_the_same_each_time() -> None:
    assert event(key="x" * 9000).id == event(key="x" * 9000).id
    assert len(event(key="x" * 9000).id) < 100


@pytest.mark.parametrize(
    ("body", "what"),
    [
        (b"", "is empty"),
        (b'{"a":', "is not JSON"),
        (b"eyJhIjoxfQ==", "is not JSON"),
        (b'{"a":NaN}', "is not JSON"),
        (b'{"a":"\xff"}', "is not UTF-8"),
        (b"[" * 200_000, "nested too deeply"),
        (b'{"a":1}{', "is not JSON"),
    ],
)
def test_a_body_that_is_no_json_is_malformed(body: bytes, what: str) -> None:
    with pytest.raises(Malformed, match=what):
        event(body)


def test_an_integer_of_many_digits_is_json() -> None:
    body = b'{"a":' + b"9" * 10_000 + b"}"
    assert event(body).data == body


@pytest.mark.parametrize("name", [None, "", "  "])
def test_without_the_event_header_it_is_malformed(name: str | None) -> None:
    request = hook_request(name=name)
    with pytest.raises(Malformed, match="missing X-Gitlab-Event header"):
        read(request.header, request.body)


def test_a_header_with_control_characters_makes_no_event() -> None:
    with pytest.raises(Malformed, match="make no event"):
        event(name="Push\x7fed Hook")


def test_every_kind_of_the_crd_is_registered_with_projects_and_groups() -> None:
    for scope in (Scope.PROJECT, Scope.GROUP):
        flags = flags_of(scope, CRD_FLAGS)
        assert {flag for flag, on in flags.items() if on} == set(CRD_FLAGS)


def test_every_flag_is_said_explicitly() -> None:
    assert flags_of(Scope.PROJECT, ["note_events"])["push_events"] is False
    assert flags_of(Scope.SYSTEM, FLAGS) == dict.fromkeys(
        ("merge_requests_events", "push_events", "tag_push_events", "repository_update_events"), True
    )


def test_a_test_is_asked_for_what_nobody_wants() -> None:
    assert sample_triggers(["push_events"])[0] == "resource_access_token_events"
    assert not set(sample_triggers(CRD_FLAGS)) & set(CRD_FLAGS)
    assert sample_triggers(FLAGS) == ()
    assert header_of("emoji_events") == "Emoji Hook"
    assert len({kind.header for kind in KINDS}) == len(KINDS)
