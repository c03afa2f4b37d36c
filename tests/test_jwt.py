from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.jwt import Claims, claims

NOW = 1_800_000_000.0
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def token(payload: object) -> str:
    said = base64.urlsafe_b64encode(json.dumps(payload).encode()).decode().rstrip("=")
    return f"eyJhbGciOiJub25lIn0.{said}.c2lnbmF0dXJl"


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({}, Claims()),
        ({"exp": 2, "iat": 1.5, "aud": "sink"}, Claims(expires=2.0, issued=1.5, audiences=("sink",))),
        ({"aud": ["a", "b", 5]}, Claims(audiences=("a", "b"))),
        ({"aud": []}, Claims(audiences=())),
        ({"exp": "2", "iat": True, "aud": {"a": 1}}, Claims()),
        ({"exp": float("nan"), "iat": float("inf")}, Claims()),
        ({"exp": 10**400}, Claims()),
    ],
)
def test_the_claims_that_matter_are_read_and_wrong_ones_count_as_missing(payload: object, expected: Claims) -> None:
    assert claims(token(payload)) == expected


@pytest.mark.parametrize(
    "text", ["", "opaque", "a.b", "a.b.c.d", "a.!.c", "a.bm8.c", token([]), token(None), "a.é.c", "a.gA.c"]
)
def test_what_is_no_jwt_has_no_claims(text: str) -> None:
    assert claims(text) is None


@given(st.text() | st.builds(token, st.dictionaries(st.sampled_from(["exp", "iat", "aud"]), JSON)))
def test_nothing_that_a_file_may_hold_raises(text: str) -> None:
    said = claims(text)
    if said is not None:
        assert said.expires_soon(NOW) in (True, False)
        assert said.meant_for("")


@pytest.mark.parametrize(
    ("expires_in", "life", "soon"),
    [
        (3600, 3600, False),
        (361, 3600, False),
        (360, 3600, True),  # its last tenth
        (61, 300, False),
        (60, 300, True),  # its last minute
        (61, None, False),
        (60, None, True),
        (5, 10, True),
        (-1, 3600, True),
        (100, -3600, False),
    ],
)
def test_a_token_expires_soon_in_its_last_tenth_or_minute(expires_in: float, life: float | None, *, soon: bool) -> None:
    expires = NOW + expires_in
    said = Claims(expires=expires, issued=None if life is None else expires - life)
    assert said.expires_soon(NOW) is soon
    assert said.expired(NOW) is (expires_in <= 0)


def test_a_token_that_names_no_end_has_none() -> None:
    assert not Claims(issued=NOW).expires_soon(NOW)
    assert not Claims(issued=NOW).expired(NOW)


@pytest.mark.parametrize(
    ("audiences", "audience", "meant"),
    [(("sink",), "sink", True), (("a", "sink"), "sink", True), (("a",), "sink", False), ((), "sink", False),
     (None, "sink", True), (("a",), "", True)],
)  # fmt: skip
def test_a_token_is_meant_for_the_audiences_it_names(
    audiences: tuple[str, ...] | None, audience: str, *, meant: bool
) -> None:
    assert Claims(audiences=audiences).meant_for(audience) is meant
