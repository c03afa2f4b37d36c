"""Which project a projectUrl names, in every spelling there is; and who may tell us something."""

from __future__ import annotations

import contextlib
import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.gitlab_requests import SAMPLES, SIGNING, TOKEN, hook_request, signed

from wellhead_adapters.gitlab.kinds import Scope
from wellhead_adapters.gitlab.projecturl import Place, target
from wellhead_adapters.gitlab.recent import Recent
from wellhead_adapters.gitlab.signature import Credentials, accepts, is_fresh, is_signed, signing_key

SIGNED: Final = json.loads((SAMPLES / "gitlab_receiver/signing_token_vectors.json").read_text(encoding="utf-8"))
NOW: Final = 1_767_225_600.0


@pytest.mark.parametrize(
    ("url", "base", "path"),
    [
        ("https://gitlab.com/group/project", "https://gitlab.com", "group/project"),
        ("https://gitlab.com/group/project.git", "https://gitlab.com", "group/project"),
        ("https://gitlab.com/group/project/", "https://gitlab.com", "group/project"),
        ("https://gitlab.com/group/project.git/", "https://gitlab.com", "group/project"),
        ("https://gitlab.com/a/b/c/project", "https://gitlab.com", "a/b/c/project"),
        ("https://GitLab.com:443//group//project", "https://gitlab.com", "group/project"),
        ("http://10.0.0.1:8929/group/project", "http://10.0.0.1:8929", "group/project"),
        ("http://[::1]:8929/group/project", "http://[::1]:8929", "group/project"),
        ("https://gitlab.com/group/pro%2Dject", "https://gitlab.com", "group/pro-ject"),
        ("https://gitlab.com/group%2Fproject", "https://gitlab.com", "group/project"),
        ("https://gitlab.com/group/my.project_1", "https://gitlab.com", "group/my.project_1"),
        ("https://gitlab.com/group/project/-/tree/main/x", "https://gitlab.com", "group/project"),
    ],
)
def test_a_project_is_found_in_every_spelling(url: str, base: str, path: str) -> None:
    found = target(url, Scope.PROJECT)
    assert found.candidates[0] == Place(base, path)
    assert found.url == url


def test_a_gitlab_under_a_path_is_tried_after_the_likelier_one() -> None:
    found = target("https://example.com/tools/gitlab/group/project", Scope.PROJECT)
    assert found.candidates == (
        Place("https://example.com", "tools/gitlab/group/project"),
        Place("https://example.com/tools", "gitlab/group/project"),
        Place("https://example.com/tools/gitlab", "group/project"),
    )


def test_where_the_gitlab_is_said_nothing_else_is_tried() -> None:
    found = target("https://example.com/gitlab/group/project", Scope.PROJECT, "https://example.com/gitlab/")
    assert found.candidates == (Place("https://example.com/gitlab", "group/project"),)
    assert found.candidates[0].encoded == "group%2Fproject"


@pytest.mark.parametrize("url", ["https://gitlab.com/groups/a/b", "https://gitlab.com/a/b/"])
def test_a_group_is_found_by_both_its_addresses(url: str) -> None:
    assert target(url, Scope.GROUP).candidates[0] == Place("https://gitlab.com", "a/b")


def test_a_whole_instance_has_no_path() -> None:
    assert target("https://example.com/gitlab/", Scope.SYSTEM).candidates == (Place("https://example.com/gitlab", ""),)


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://gitlab.com", "names no project"),
        ("https://gitlab.com/", "names no project"),
        ("https://gitlab.com/project", "names no project"),
        ("gitlab.com/group/project", "is not an absolute"),
        ("ftp://gitlab.com/group/project", "is not an absolute"),
        ("git@gitlab.com:group/project.git", "is an address for ssh"),
        ("ssh://git@gitlab.com/group/project.git", "is an address for ssh"),
        ("https://me:hunter2@gitlab.com/group/project", "holds user info"),
        ("https://gitlab.com/group/project?x=1", "has a query"),
        ("https://gitlab.com/group/../project", "cannot have"),
        ("https://gitlab.com/group/pro ject", "cannot have"),
        ("https://gitlab.com:many/group/project", "is not a URL"),
        ("", "is not an absolute"),
    ],
)
def test_what_names_no_project_is_told_with_its_rule(url: str, rule: str) -> None:
    with pytest.raises(ValueError, match=rule):
        target(url, Scope.PROJECT)


def test_a_project_elsewhere_than_the_given_gitlab_is_told() -> None:
    with pytest.raises(ValueError, match="is not on the GitLab"):
        target("https://gitlab.com/group/project", Scope.PROJECT, "https://gitlab.example.com")


@given(st.text(max_size=80))
def test_any_text_is_a_target_or_a_rule_is_told(text: str) -> None:
    for scope in Scope:
        with contextlib.suppress(ValueError):
            assert target(text, scope).candidates


@given(st.lists(st.from_regex(r"[a-z][a-z0-9_-]{0,8}", fullmatch=True), min_size=2, max_size=6))
def test_a_projects_events_are_told_of_its_url(segments: list[str]) -> None:
    path = "/".join(segments)
    assert target(f"https://gitlab.com/{path}.git", Scope.PROJECT).is_about(path.upper())
    assert target(f"https://gitlab.com/{segments[0]}", Scope.GROUP).is_about(path)
    assert not target(f"https://gitlab.com/x{path}", Scope.PROJECT).is_about(f"y{path}")


# --- who may tell us something ---


@pytest.mark.parametrize("row", SIGNED["rows"], ids=lambda row: row["name"])
def test_a_signature_is_judged_as_standard_webhooks_says(row: dict[str, object]) -> None:
    key = signing_key(str(row["secret"]))
    identity, stamp = str(row["id"]), str(row["timestamp"])
    now = float(str(row["now"]))
    judged = is_fresh(stamp, now) and is_signed([key], identity, stamp, str(row["body"]).encode(), str(row["sig"]))
    assert judged is row["ok"]


def test_one_of_several_secrets_and_one_of_several_signatures_will_do() -> None:
    headers = signed(b"{}", NOW)
    keys = (signing_key("whsec_" + "A" * 32), signing_key(SIGNING))
    several = f"v1,AAAA v2,{headers['webhook-signature'][3:]} {headers['webhook-signature']}"
    assert is_signed(keys, headers["webhook-id"], headers["webhook-timestamp"], b"{}", several)
    assert not is_signed(keys, headers["webhook-id"], headers["webhook-timestamp"], b"{}", several.rpartition(" ")[0])


def test_the_signature_decides_where_there_is_one_and_the_token_where_not() -> None:
    both = Credentials(tokens=(TOKEN,), keys=(signing_key(SIGNING),))
    wrong = hook_request(b"{}", more={**signed(b"{}", NOW), "webhook-signature": "v1,AAAA"})
    right = hook_request(b"{}", token="wrong", more=signed(b"{}", NOW))
    assert not accepts(both, wrong.header, b"{}", lambda: NOW)
    assert accepts(both, right.header, b"{}", lambda: NOW)
    assert accepts(both, hook_request(b"{}").header, b"{}", lambda: NOW)
    assert not accepts(both, hook_request(b"{}", token=None).header, b"{}", lambda: NOW)
    assert not accepts(Credentials(keys=both.keys, open=True), hook_request(b"{}").header, b"{}", lambda: NOW)


@pytest.mark.parametrize("token", [None, "", "s3cre", "s3cret2", "S3cret", "s3cret\xe9"])
def test_another_token_is_not_ours(token: str | None) -> None:
    assert not accepts(Credentials(tokens=(TOKEN,)), hook_request(token=token).header, b"", lambda: NOW)


def test_without_any_token_nobody_is_let_in_unless_that_is_asked_for() -> None:
    assert not accepts(Credentials(), hook_request(token="").header, b"", lambda: NOW)
    assert accepts(Credentials(open=True), hook_request(token=None).header, b"", lambda: NOW)


@pytest.mark.parametrize("token", ["whsec_", "whsec_@@", "c2hvcnQ=", "whsec_" + "A" * 400])
def test_what_is_no_signing_token_is_told_without_showing_it(token: str) -> None:
    with pytest.raises(ValueError, match="is not a signing token") as told:
        signing_key(token)
    assert "@@" not in str(told.value)


@given(st.lists(st.text(max_size=5)), st.integers(1, 10))
def test_the_latest_keys_are_remembered_and_no_more(keys: list[str], limit: int) -> None:
    recent = Recent(limit)
    for key in keys:
        recent.add(key)
    assert len(recent) <= limit
    latest = list(dict.fromkeys(reversed(keys)))[:limit]
    assert all(key in recent for key in latest)
