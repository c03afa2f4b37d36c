from __future__ import annotations

import copy
import dataclasses
import enum
import math
import pickle
import string
import subprocess
import sys
import uuid
from datetime import UTC, datetime, timedelta, timezone
from typing import Any, Final

import pytest
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from hypothesis import given
from hypothesis import strategies as st

import wellhead.event
import wellhead.http_binding
from wellhead.errors import InvalidEvent, Problem
from wellhead.event import (
    CloudEvent,
    ExtensionValue,
    is_json,
    media_type,
    random_id,
    rfc3339,
    rfc3339_of,
    stable_id,
    utc_text,
)
from wellhead.http_binding import encode

MINIMAL: Final[dict[str, Any]] = {"id": "1", "source": "/s", "type": "t"}
NONCHARACTERS: Final = ("\ufdd0", "\ufdef", "\ufffe", "\uffff", "\U0001fffe", "\U0010ffff")
SURROGATE: Final = "\ud800"
UTC_PLUS_2: Final = timezone(timedelta(hours=2))


def problems(**attributes: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidEvent) as caught:
        CloudEvent(**{**MINIMAL, **attributes})
    return [(problem.where, problem.what) for problem in caught.value.problems]


class Kind(str, enum.Enum):  # noqa: UP042 - what is meant: its text in a format is its name
    PUSH = "com.example.push"


@pytest.mark.parametrize("percent", [False, True])
def test_a_member_of_an_enumeration_of_texts_travels_as_its_text_and_so_does_the_text_after_it(
    *, percent: bool
) -> None:
    for kind in (Kind.PUSH, "com.example.push"):
        event = CloudEvent(
            id=kind, source=kind, type=kind, subject=kind, datacontenttype="a/b", extensions={"kind": kind}
        )
        headers, _ = encode(event, percent=percent)
        assert {value for name, value in headers if name not in (b"ce-specversion", b"content-type")} == {
            b"com.example.push"
        }


def test_an_event_is_copied_and_pickled_as_the_value_it_is() -> None:
    event = CloudEvent(id="1", source="/s", type="t", extensions={"a": 1}, data=b"x", datacontenttype="a/b")
    for same in (copy.copy(event), copy.deepcopy(event), pickle.loads(pickle.dumps(event))):
        assert same == event
        assert encode(same) == encode(event)


def test_there_is_no_kind_of_event_but_one() -> None:
    with pytest.raises(TypeError, match="extensions"):
        type("Other", (CloudEvent,), {})


@pytest.mark.parametrize("wrong", [5, "ab", [1]])
def test_an_event_stays_frozen_whatever_it_is_made_from(wrong: Any) -> None:
    event = CloudEvent(id="1", source="/s", type="t")
    with pytest.raises((TypeError, ValueError)):
        event.__init__(id="2", source="/s", type="t", extensions=wrong)
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = "3"  # type: ignore[misc]  # the point of the test


def test_the_least_event_has_id_source_and_type() -> None:
    event = CloudEvent(id="1", source="/s", type="t")
    assert (event.specversion, event.subject, event.time, event.datacontenttype, event.dataschema) == ("1.0",) + (
        None,
    ) * 4
    assert (dict(event.extensions), event.data, event.data_base64) == ({}, None, False)


def test_an_event_cannot_be_changed() -> None:
    event = CloudEvent(**MINIMAL, extensions={"a": 1})
    with pytest.raises(dataclasses.FrozenInstanceError):
        event.id = "2"  # type: ignore[misc]  # the point of the test
    with pytest.raises(TypeError):
        event.extensions["a"] = 2  # type: ignore[index]  # the point of the test


def test_a_dict_reused_for_the_next_event_does_not_change_the_first() -> None:
    extensions: dict[str, ExtensionValue] = {"a": 1}
    first = CloudEvent(**MINIMAL, extensions=extensions)
    extensions["a"] = 2
    assert first.extensions["a"] == 1


def test_events_are_equal_when_everything_is_and_hash_by_source_and_id() -> None:
    first, same, other = (CloudEvent(**MINIMAL, subject=subject) for subject in ("a", "a", "b"))
    assert first == same
    assert first != other
    assert hash(first) == hash(other)
    assert {first, same, other} == {first, other}


def test_no_data_and_empty_data_are_different_things() -> None:
    assert CloudEvent(**MINIMAL) != CloudEvent(**MINIMAL, data=b"")


def test_every_problem_is_told_at_once() -> None:
    with pytest.raises(InvalidEvent) as caught:
        CloudEvent(id="", source="a b", type=" ", time="yesterday", extensions={"Bad": 1, "id": "x"})
    assert [problem.where for problem in caught.value.problems] == ["id", "source", "type", "time", "'Bad'", "id"]
    assert str(caught.value) == "; ".join(str(problem) for problem in caught.value.problems)


@pytest.mark.parametrize(
    ("attributes", "problem"),
    [
        ({"specversion": "2.0"}, ("specversion", "'2.0' is not 1.0 or 0.3")),
        ({"specversion": None}, ("specversion", "None is not 1.0 or 0.3")),
        ({"id": ""}, ("id", "MUST be a non-empty string")),
        ({"id": " \t"}, ("id", "MUST be a non-empty string")),
        ({"id": 5}, ("id", "MUST be a non-empty string")),
        ({"id": "a\nb"}, ("id", "'a\\nb' holds a control character or half a surrogate pair")),
        ({"source": ""}, ("source", "REQUIRED")),
        ({"source": "a b"}, ("source", "'a b' is not a URI-reference")),
        ({"type": None}, ("type", "MUST be a non-empty string")),
        ({"subject": ""}, ("subject", "if present, MUST be a non-empty string")),
        ({"time": "2026-01-01"}, ("time", "'2026-01-01' is not an RFC 3339 timestamp")),
        ({"time": datetime(2026, 1, 1, tzinfo=UTC)}, ("time", repr(datetime(2026, 1, 1, tzinfo=UTC)) + " is not an RFC 3339 timestamp")),
        ({"datacontenttype": "json"}, ("datacontenttype", "'json' is not a media type (RFC 2046)")),
        ({"datacontenttype": 1}, ("datacontenttype", "1 is not a media type (RFC 2046)")),
        ({"dataschema": "/relative"}, ("dataschema", "'/relative' is not an absolute URI")),
        ({"dataschema": "http://a b"}, ("dataschema", "'http://a b' is not an absolute URI")),
        ({"dataschema": 1}, ("dataschema", "1 is not an absolute URI")),
        ({"data": "text"}, ("data", "is str, not bytes; encode it first")),
        ({"data": bytearray(b"x")}, ("data", "is bytearray, not bytes; encode it first")),
        ({"extensions": {"": "x"}}, ("''", "an extension's name consists of a-z and 0-9 only")),
        ({"extensions": {"a\n": "x"}}, ("'a\\n'", "an extension's name consists of a-z and 0-9 only")),
        ({"extensions": {"a-b": "x"}}, ("'a-b'", "an extension's name consists of a-z and 0-9 only")),
        ({"extensions": {1: "x"}}, ("1", "an extension's name consists of a-z and 0-9 only")),
        ({"extensions": {"é": "x"}}, ("'\\xe9'", "an extension's name consists of a-z and 0-9 only")),
        ({"extensions": {"data": "x"}}, ("data", "is an attribute of CloudEvents itself and cannot be an extension")),
        ({"extensions": {"type": "x"}}, ("type", "is an attribute of CloudEvents itself and cannot be an extension")),
        ({"extensions": {"a": "\x00"}}, ("'a'", "'\\x00' holds a control character or half a surrogate pair")),
        ({"extensions": {"a": 1.5}}, ("'a'", "is float; an extension is str, bool, int or bytes")),
        ({"extensions": {"a": None}}, ("'a'", "is NoneType; an extension is str, bool, int or bytes")),
        ({"extensions": {"a": 2**31}}, ("a", "2147483648 does not fit the 32 bits of a CloudEvents integer")),
        ({"extensions": {"a": -(2**31) - 1}}, ("a", "-2147483649 does not fit the 32 bits of a CloudEvents integer")),
    ],
)  # fmt: skip
def test_a_forbidden_event_is_not_built_and_the_problem_names_attribute_value_and_rule(
    attributes: dict[str, Any], problem: tuple[str, str]
) -> None:
    assert problems(**attributes) == [problem]


def test_a_source_that_is_no_string_is_told() -> None:
    assert ("source", "REQUIRED") in problems(source=5)


def test_a_long_value_is_cut_in_the_message() -> None:
    ((_, what),) = problems(source=" " + "x" * 1000)
    assert what == f"' {'x' * 78}… (1003 characters) is not a URI-reference"


@pytest.mark.parametrize(
    "sign", [*NONCHARACTERS, SURROGATE, "\udfff", "\x00", "\x1f", "\x7f", "\x80", "\x9f"], ids=ascii
)
@pytest.mark.parametrize("where", ["id", "type", "subject"])
def test_no_string_holds_what_cloudevents_keeps_out_of_strings(sign: str, where: str) -> None:
    assert [name for name, _ in problems(**{where: f"a{sign}"})] == [where]


@pytest.mark.parametrize(
    "text", ["\xa0x", "é", "日本", "😀", "a\u2028", "\ue000", "\ufffd", "\ufdf0", "a b"], ids=ascii
)
def test_every_other_character_may_stand_in_a_string(text: str) -> None:
    event = CloudEvent(**{**MINIMAL, "id": text}, subject=text, extensions={"a": text})
    assert (event.id, event.subject, event.extensions["a"]) == (text, text, text)


@pytest.mark.parametrize("value", ["", "text", True, False, 0, 2**31 - 1, -(2**31), b"", b"\x00\xff"])
def test_an_extension_is_text_a_truth_value_an_integer_of_32_bits_or_bytes(value: ExtensionValue) -> None:
    assert CloudEvent(**MINIMAL, extensions={"a1": value}).extensions["a1"] == value


@pytest.mark.parametrize(
    "source",
    [
        "/", "a", "a/b:c", "./a:b", "?q", "#f", "urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66", "mailto:a@b.c", "//host/x",
        "http://h:80/x", "http://h:/x", "http://[::1]:80/", "http://[::1]/", "http://u:p@h/", "//u:p@h:80", "/a%20b", "/é/日本", "http://h/a:b",
        "https://knative.dev/eventing-contrib/cmd/heartbeats/#ns/pod", "/apis/v1/namespaces/ns/pingsources/p", "http://h#a:b",
    ],
)  # fmt: skip
def test_a_source_is_any_uri_reference(source: str) -> None:
    assert CloudEvent(id="1", source=source, type="t").source == source


@pytest.mark.parametrize(
    "source",
    [
        "a b", "%", "%zz", "/a%2", "<x>", 'a"b', "a\\b", "^", "`", "{x}", "a|b", "1a:b", "é:b", ":b", "http://h:port/",
        "//h:80x", "http://[::1]:x/", "//u:p@h:80x",
    ],
)  # fmt: skip
def test_a_source_that_go_receivers_cannot_parse_is_refused(source: str) -> None:
    assert [name for name, _ in problems(source=source)] == ["source"]


@pytest.mark.parametrize("schema", ["http://h/s", "urn:x", "a:b"])
def test_a_dataschema_is_an_absolute_uri(schema: str) -> None:
    assert CloudEvent(**MINIMAL, dataschema=schema).dataschema == schema


@pytest.mark.parametrize(
    "kind",
    [
        "application/json", "text/plain;charset=utf-8", 'text/plain ; a=b; c="d e\\""', "application/vnd.x+json", "a/b;",
        'multipart/mixed; boundary="a,b"', "application/x-ndjson",
    ],
)  # fmt: skip
def test_a_datacontenttype_is_a_media_type_with_parameters(kind: str) -> None:
    assert CloudEvent(**MINIMAL, datacontenttype=kind).datacontenttype == kind


@pytest.mark.parametrize(
    "kind", ["", "a", "a/", "/b", "a b/c", "a/b; c", "a/b; c=", 'a/b; c="', "a/b\r\nx: y", "a/é", "a/b c"]
)
def test_a_datacontenttype_that_is_no_media_type_is_refused(kind: str) -> None:
    assert [name for name, _ in problems(datacontenttype=kind)] == ["datacontenttype"]


@pytest.mark.parametrize(
    ("time", "in_utc"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00.123456789Z", "2026-01-01T00:00:00.123456789Z"),
        ("2026-01-01T00:00:00.100Z", "2026-01-01T00:00:00.1Z"),
        ("2026-01-01T00:00:00.000Z", "2026-01-01T00:00:00Z"),
        ("2018-04-05T19:31:00.5+02:00", "2018-04-05T17:31:00.5Z"),
        ("2018-04-05T17:31:00-23:59", "2018-04-06T17:30:00Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("0001-01-01T00:00:00Z", "0001-01-01T00:00:00Z"),
        ("9999-12-31T23:59:59.999999999Z", "9999-12-31T23:59:59.999999999Z"),
    ],
)
def test_a_time_is_rfc_3339_and_prints_in_utc_with_all_its_digits(time: str, in_utc: str) -> None:
    assert utc_text(str(CloudEvent(**MINIMAL, time=time).time)) == in_utc


@pytest.mark.parametrize(
    "time",
    [
        "", "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-01-01t00:00:00Z", "2026-01-01T00:00:00z", "2026-13-01T00:00:00Z",
        "2026-02-29T00:00:00Z", "2026-01-01T24:00:00Z", "2026-01-01T00:60:00Z", "2016-12-31T23:59:60Z", "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00.1234567890Z", "2026-01-01T00:00:00+24:00", "2026-01-01T00:00:00+0200", "0000-01-01T00:00:00Z",
        "0001-01-01T00:00:00+00:01", "9999-12-31T23:59:59-00:01", "٢٠٢٦-01-01T00:00:00Z", "2026-01-01T00:00:00Z\n",
    ],
)  # fmt: skip
def test_a_time_that_go_receivers_answer_500_to_is_refused(time: str) -> None:
    assert [name for name, _ in problems(time=time)] == ["time"]


def test_utc_text_refuses_what_is_no_timestamp() -> None:
    with pytest.raises(ValueError, match=r"'now' is not an RFC 3339 timestamp"):
        utc_text("now")


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02T03:04:05Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 120000, tzinfo=UTC), "2026-01-02T03:04:05.12Z"),
        (datetime(2026, 1, 2, 3, 4, 10, tzinfo=UTC), "2026-01-02T03:04:10Z"),
        (datetime(2026, 1, 2, 3, 4, 5, 1, tzinfo=UTC_PLUS_2), "2026-01-02T01:04:05.000001Z"),
        (datetime(33, 1, 2, tzinfo=UTC), "0033-01-02T00:00:00Z"),
    ],
)
def test_rfc3339_writes_utc_without_trailing_zeros_as_go_does(moment: datetime, text: str) -> None:
    assert rfc3339(moment) == text
    assert CloudEvent(**MINIMAL, time=text).time == text


def test_rfc3339_refuses_a_moment_without_a_zone() -> None:
    with pytest.raises(ValueError, match=r"has no time zone"):
        rfc3339(datetime(2026, 1, 1))  # noqa: DTZ001 - the point of the test


@given(st.datetimes(min_value=datetime(1, 1, 2), max_value=datetime(9999, 12, 30), timezones=st.just(UTC)))  # noqa: DTZ001
def test_nanoseconds_since_1970_are_written_as_their_moment_is(moment: datetime) -> None:
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert rfc3339_of(microseconds * 1000) == rfc3339(moment)


@given(st.integers(0, 10**9 - 1))
def test_all_nine_digits_of_a_second_are_written(nanoseconds: int) -> None:
    text = rfc3339_of(1_767_323_045 * 10**9 + nanoseconds)
    assert utc_text(text) == text
    assert text[:19] == "2026-01-02T03:04:05"
    assert int(text[20:-1].ljust(9, "0") or 0) == nanoseconds


def test_an_instant_beyond_the_calendar_is_refused() -> None:
    with pytest.raises(OverflowError):
        rfc3339_of(2**63 * 10**3)


def test_a_random_id_is_a_uuid_of_version_4_and_another_each_time() -> None:
    ids = [random_id() for _ in range(1000)]
    assert len({*ids}) == 1000
    assert {uuid.UUID(one).version for one in ids} == {4}
    assert {uuid.UUID(one).variant for one in ids} == {uuid.RFC_4122}


def test_sources_without_end_do_not_fill_the_memory() -> None:
    for number in range(3000):
        encode(CloudEvent(id="1", source=f"/{number}", type="a"))
    for start in ("/", "/%20", "/ü"):  # the last two cannot stand in a header
        encode(CloudEvent(id="1", source=start + "long" * 1000, type="a"))
    for known in (wellhead.event._valid, wellhead.http_binding._common):
        assert len(known) <= 1024
        assert max(sum(map(len, map(str, key))) for key in known) < 600


@given(moment=st.datetimes(min_value=datetime(2, 1, 1), timezones=st.just(UTC)))  # noqa: DTZ001 - Hypothesis wants it so
def test_rfc3339_loses_nothing(moment: datetime) -> None:
    text = rfc3339(moment)
    assert datetime.fromisoformat(text) == moment
    assert utc_text(text) == text


# Worked out beside the code: SHA-256 of b"4:ping2:ns4:name", first 16 octets, version and variant set.
@pytest.mark.parametrize(
    ("parts", "identity"),
    [
        ((), "e3b0c442-98fc-8c14-9afb-f4c8996fb924"),
        (("",), "ba768b33-1fd8-8cec-803b-e04e56ab2b3d"),
        (("ping", "ns", "name"), "9fed79f9-3dbd-828b-b663-fd7b338d9534"),
        (("é", "\udc80"), "523f3747-1ee2-8975-bbc0-8f44e4aabe98"),
    ],
)
def test_a_stable_id_is_the_same_in_every_release(parts: tuple[str, ...], identity: str) -> None:
    assert stable_id(*parts) == identity


@given(first=st.lists(st.text(max_size=4), max_size=4), second=st.lists(st.text(max_size=4), max_size=4))
def test_stable_ids_differ_where_parts_do(first: list[str], second: list[str]) -> None:
    assert (stable_id(*first) == stable_id(*second)) is (first == second)


@given(text=st.text(max_size=8), cuts=st.tuples(st.integers(0, 8), st.integers(0, 8)))
def test_stable_ids_tell_where_one_part_ends_and_the_next_begins(text: str, cuts: tuple[int, int]) -> None:
    first, second = ((text[:cut], text[cut:]) for cut in cuts)
    assert (stable_id(*first) == stable_id(*second)) is (first == second)


@given(parts=st.lists(st.text(max_size=8)))
def test_a_stable_id_is_a_uuid_of_version_8(parts: list[str]) -> None:
    identity = stable_id(*parts)
    assert len(identity) == 36
    assert set(identity) <= set(string.hexdigits.lower() + "-")
    assert (identity[14], identity[19] in "89ab") == ("8", True)


@pytest.mark.parametrize(
    ("kind", "plain", "json"),
    [
        (None, "", True),
        ("application/json", "application/json", True),
        ("Application/JSON; charset=utf-8", "application/json", True),
        ("text/json", "text/json", True),
        ("application/vnd.x+json", "application/vnd.x+json", True),
        ("application/jsonp", "application/jsonp", False),
        ("text/plain", "text/plain", False),
    ],
)
def test_json_is_told_by_the_media_type_and_is_the_default(kind: str | None, plain: str, *, json: bool) -> None:
    assert (media_type(kind), is_json(kind)) == (plain, json)


# --- The CloudEvents SDK's type


def test_to_sdk_gives_every_attribute_and_the_data() -> None:
    event = CloudEvent(
        **MINIMAL, subject="s", time="2026-01-02T03:04:05.123456789Z", datacontenttype="text/plain", dataschema="urn:x",
        extensions={"a": 1, "b": True}, data=b"x",
    )  # fmt: skip
    sdk = event.to_sdk()
    assert sdk.get_attributes() == {
        **MINIMAL, "specversion": "1.0", "subject": "s", "time": datetime(2026, 1, 2, 3, 4, 5, 123456, UTC), "a": 1, "b": True,
        "datacontenttype": "text/plain", "dataschema": "urn:x",
    }  # fmt: skip
    assert sdk.get_data() == b"x"


def test_to_sdk_leaves_a_time_that_is_not_there_to_the_sdk() -> None:
    assert set(CloudEvent(**MINIMAL).to_sdk().get_attributes()) == {"specversion", "id", "source", "type", "time"}


def test_to_sdk_gives_each_sdk_event_attributes_of_its_own() -> None:
    event = CloudEvent(**MINIMAL, time="2026-01-01T00:00:00Z")
    event.to_sdk().get_attributes()["id"] = "2"
    assert event.to_sdk().get_id() == "1"


@pytest.mark.parametrize(
    ("data", "kind", "encoded"),
    [
        (None, None, None),
        (b"\x00", "text/plain", b"\x00"),
        ("té", "text/plain", "té".encode()),
        ("text", None, b"text"),
        ("text", "application/json", b'"text"'),
        ({"a": ["é", 1]}, "application/json", '{"a":["é",1]}'.encode()),
        ({"a": 1}, None, b'{"a":1}'),
    ],
)
def test_from_sdk_encodes_data_by_its_type(data: Any, kind: str | None, encoded: bytes | None) -> None:
    attributes = MINIMAL if kind is None else {**MINIMAL, "datacontenttype": kind}
    assert CloudEvent.from_sdk(SdkEvent(dict(attributes), data)).data == encoded


def test_from_sdk_keeps_attributes_and_writes_times_as_text() -> None:
    moment = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC_PLUS_2)
    event = CloudEvent.from_sdk(SdkEvent({**MINIMAL, "time": moment, "at": moment, "n": 5}))
    assert event == CloudEvent(
        **MINIMAL, time="2026-01-02T01:04:05Z", extensions={"at": "2026-01-02T01:04:05Z", "n": 5}
    )


def test_from_sdk_invents_no_time_where_the_sdk_event_has_lost_its_own() -> None:
    sdk = SdkEvent(dict(MINIMAL))
    del sdk.get_attributes()["time"]
    assert CloudEvent.from_sdk(sdk) == CloudEvent(**MINIMAL)


@pytest.mark.parametrize(
    ("attributes", "where"),
    [
        ({"a": 1.5}, "'a'"),
        ({"a": {"b": 1}}, "'a'"),
        ({"a": 2**40}, "a"),
        ({"source": "a b"}, "source"),
        ({"subject": "\n"}, "subject"),
    ],
)
def test_from_sdk_refuses_what_the_sdk_lets_through(attributes: dict[str, Any], where: str) -> None:
    with pytest.raises(InvalidEvent) as caught:
        CloudEvent.from_sdk(SdkEvent({**MINIMAL, **attributes}))
    assert [problem.where for problem in caught.value.problems] == [where]


@pytest.mark.parametrize(
    "data", [{"a": {1, 2}}, {"a": math.nan}, object(), SURROGATE], ids=["set", "nan", "object", "surrogate"]
)
def test_from_sdk_refuses_data_that_no_json_can_hold(data: Any) -> None:
    with pytest.raises(InvalidEvent) as caught:
        CloudEvent.from_sdk(SdkEvent(dict(MINIMAL), data))
    assert caught.value.problems[0].where == "data"


def test_a_problem_prints_where_and_what() -> None:
    assert str(Problem("id", "MUST be a non-empty string")) == "id: MUST be a non-empty string"


def test_the_first_event_of_a_process_may_not_have_an_empty_time_either() -> None:
    program = "from wellhead.event import CloudEvent; CloudEvent(id='1', source='/s', type='t', time='')"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert "time: '' is not an RFC 3339 timestamp" in ended.stderr
