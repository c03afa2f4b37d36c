from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.errors import ConfigError
from wellhead.event import CloudEvent
from wellhead.filters import MAX_DEPTH, parse_filters

if TYPE_CHECKING:
    from collections.abc import Mapping

EVENT: Final = CloudEvent(
    id="7",
    source="https://10.96.0.1:443",
    type="dev.knative.apiserver.resource.update",
    subject="/apis/v1/namespaces/pond/pods/frog",
    datacontenttype="application/json",
    extensions={"kind": "Pod", "namespace": "pond", "hops": 7, "wet": True, "empty": ""},
)

POD: Final = {"exact": {"kind": "Pod"}}
NODE: Final = {"exact": {"kind": "Node"}}


def passes(*filters: Mapping[str, object]) -> bool:
    return parse_filters(filters).passes(EVENT)


@pytest.mark.parametrize(
    ("one", "expected"),
    [
        ({"exact": {"kind": "Pod"}}, True),
        ({"exact": {"kind": "pod"}}, False),
        ({"exact": {"kind": "Pod", "namespace": "lake"}}, False),
        ({"exact": {"hops": "7", "wet": "true"}}, True),
        ({"exact": {"missing": "x"}}, False),
        ({"exact": {"dataschema": "x"}}, False),
        ({"exact": {"specversion": "1.0"}}, True),
        ({"prefix": {"type": "dev.knative.", "subject": "/apis/v1/"}}, True),
        ({"prefix": {"type": "knative"}}, False),
        ({"prefix": {"missing": "x"}}, False),
        ({"suffix": {"type": ".update"}}, True),
        ({"suffix": {"type": ".update", "subject": "toad"}}, False),
        ({"all": [POD]}, True),
        ({"all": [POD, NODE]}, False),
        ({"any": [NODE, POD]}, True),
        ({"any": [NODE]}, False),
        ({"not": NODE}, True),
        ({"not": {"not": POD}}, True),
        ({"not": {"any": [NODE, {"all": [POD, {"prefix": {"namespace": "p"}}]}]}}, False),
        ({"cesql": "kind = 'Pod' AND hops < 10"}, True),
        ({"cesql": "hops"}, False),  # no Boolean: Knative's adapter panics at it
        ({"cesql": "missing = 'x'"}, False),
        ({"not": {"cesql": "missing = 'x'"}}, True),
        ({}, True),
    ],
)
def test_a_filter_says_whether_an_event_passes(one: Mapping[str, object], expected: object) -> None:
    assert passes(one) is expected


def test_an_event_has_to_pass_every_filter_of_the_list() -> None:
    assert passes(POD, {"suffix": {"subject": "frog"}})
    assert not passes(POD, NODE)
    assert parse_filters(None).passes(EVENT)
    assert parse_filters([]).passes(EVENT)


@pytest.mark.parametrize(
    ("one", "where", "what"),
    [
        ("exact", "filters[0]", "is not an object such as {exact: {type: …}}"),
        ({"exact": {"a": "b"}, "not": POD}, "filters[0]", "has more than one dialect: exact, not; put them into all"),
        (
            {"regex": {"type": ".*"}},
            "filters[0].regex",
            "is no dialect; known are exact, prefix, suffix, all, any, not",
        ),
        ({"exact": {}}, "filters[0].exact", "is not an object of at least one attribute and its text"),
        ({"exact": {"Kind": "Pod"}}, "filters[0].exact.'Kind'", "is no attribute's name: a-z and 0-9"),
        ({"prefix": {"kind": ""}}, "filters[0].prefix.kind", "is not a text of at least one character"),
        ({"suffix": {"hops": 7}}, "filters[0].suffix.hops", "is not a text of at least one character"),
        ({"all": []}, "filters[0].all", "is not a list of at least one filter"),
        ({"any": [POD, {"not": [POD]}]}, "filters[0].any[1].not", "is not an object such as {exact: {type: …}}"),
        ({"cesql": 5}, "filters[0].cesql", "is not a text"),
        (
            {"cesql": "kind = "},
            "filters[0].cesql",
            "'kind = ' is no CESQL expression: at character 8: expected an operand",
        ),
        ({"cesql": "FROGS(1)"}, "filters[0].cesql", "calls functions that there are not: FROGS/1"),
    ],
)
def test_a_broken_filter_is_told_by_path(one: object, where: str, what: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_filters([one])
    (problem,) = error.value.problems
    assert problem.where == where
    assert problem.what.startswith(what)


def test_all_problems_are_told_at_once() -> None:
    with pytest.raises(ConfigError) as error:
        parse_filters([POD, {"exact": {"Kind": "", "b": ""}}, {"any": [{"sql": ""}, {"cesql": "("}]}])
    assert [problem.where for problem in error.value.problems] == [
        "filters[1].exact.'Kind'",
        "filters[1].exact.b",
        "filters[2].any[0].sql",
        "filters[2].any[1].cesql",
    ]


def test_what_is_no_list_of_filters_is_told() -> None:
    with pytest.raises(ConfigError, match=r"spec\.filters: is not a list of filters"):
        parse_filters("all", "spec.filters")


def test_filters_nest_only_so_deep() -> None:
    deep: Mapping[str, object] = POD
    for _ in range(MAX_DEPTH - 1):
        deep = {"not": deep}
    assert passes(deep) is (MAX_DEPTH % 2 == 1)
    with pytest.raises(ConfigError, match=f"nested deeper than {MAX_DEPTH}"):
        passes({"not": deep})


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["exact", "prefix", "suffix", "all", "any", "not", "cesql", "kind", "X"]), inner, max_size=2
        )
    ),
    max_leaves=12,
)


@given(JSON)
def test_whatever_json_comes_it_filters_or_is_refused(value: object) -> None:
    try:
        filters = parse_filters(value)
    except ConfigError as error:
        told = [problem.where for problem in error.problems]
    else:
        told = ["filters"]
        assert isinstance(filters.passes(EVENT), bool)
    assert all(where.startswith("filters") for where in told)
