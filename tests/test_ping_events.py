from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.errors import ConfigError
from wellhead_adapters.ping.data import body, check_json_object, decode_base64
from wellhead_adapters.ping.events import PingSource, tick
from wellhead_adapters.ping.schedule import Schedule

SAMPLES: Final = Path(__file__).parent / "samples/pingsource"
RUN: Final[dict[str, Any]] = json.loads((SAMPLES / "run.json").read_text(encoding="utf-8"))
VALIDATION: Final[list[dict[str, Any]]] = json.loads((SAMPLES / "validation.json").read_text(encoding="utf-8"))["rows"]

AT: Final = datetime(2026, 1, 1, 12, 5, tzinfo=UTC)
NOW: Final = datetime(2026, 1, 1, 12, 5, 0, 123_000, tzinfo=UTC)
EVERY_FIVE: Final = Schedule.parse("*/5 * * * *", "Europe/Paris")


def ping(**options: Any) -> PingSource:
    return PingSource(**{"namespace": "ns1", "name": "src", "schedule": EVERY_FIVE, **options})


def refusals(**given: Any) -> list[tuple[str, str]]:
    with pytest.raises(ConfigError) as caught:
        body(**given)
    return [(problem.where, problem.what) for problem in caught.value.problems]


@pytest.mark.parametrize("row", RUN["rows"], ids=str)
def test_an_event_carries_the_bytes_that_knative_sends(row: dict[str, str]) -> None:
    data = body(row.get("data", ""), row.get("dataBase64", ""), row["contentType"])
    event = tick(ping(data=data, content_type=row["contentType"]), AT, NOW)
    assert event.data == base64.b64decode(row["want_bytes_b64"])
    assert (event.type, event.datacontenttype) == (RUN["type"], row["contentType"])
    assert event.source == RUN["source_format"].replace("<ns>", "ns1").replace("<name>", "src")


@pytest.mark.parametrize("row", VALIDATION, ids=str)
def test_a_spec_is_judged_as_knatives_webhook_judges_it(row: dict[str, Any]) -> None:
    spec, verdict = row["spec"], []
    data = "x" * 5000 if spec.get("data") == "<5000 bytes>" else spec.get("data", "")
    try:
        Schedule.parse(spec["schedule"], spec.get("timezone", ""), every=False)
        body(data, spec.get("dataBase64", ""), spec.get("contentType", ""), max_size=row.get("data_max_size", -1))
    except ConfigError as error:
        verdict = [(f"spec.{problem.where}", problem.what) for problem in error.problems]
    if row["ok"] or "_sink" in spec:  # a sink is the manifest's to judge
        assert not verdict
    else:
        ((where, what),) = verdict
        assert where == row["field"]
        assert row.get("message", "") in what


def test_the_least_event_has_what_knative_sends_and_nothing_else() -> None:
    event = tick(ping(content_type="text/plain"), AT, NOW)
    assert (event.type, event.source) == ("dev.knative.sources.ping", "/apis/v1/namespaces/ns1/pingsources/src")
    assert (event.time, event.subject, event.dataschema, event.data) == ("2026-01-01T12:05:00.123Z", None, None, None)
    assert (event.datacontenttype, dict(event.extensions)) == (None, {})


def test_data_without_a_content_type_has_none() -> None:
    assert tick(ping(data=b"x"), AT, NOW).datacontenttype is None


def test_the_id_says_which_tick_and_is_the_same_on_every_try() -> None:
    event = tick(ping(), AT, NOW)
    assert event.id == tick(ping(data=b"other"), AT, AT).id == "14cb2827-83e6-844f-a37b-6af0b0f48322"
    others = [
        tick(ping(name="other"), AT, NOW),
        tick(ping(schedule=Schedule.parse("*/5 * * * *", "Europe/Rome")), AT, NOW),
        tick(ping(schedule=Schedule.parse("*/1 * * * *", "Europe/Paris")), AT, NOW),
        tick(ping(), NOW, NOW),
    ]
    assert len({event.id, *(other.id for other in others)}) == 5


def test_the_scheduled_instant_is_an_extra_attribute_where_wanted() -> None:
    event = tick(ping(extra_attributes=True), AT, NOW)
    assert dict(event.extensions) == {"scheduledtime": "2026-01-01T12:05:00Z"}


def test_a_source_of_which_no_event_can_be_made_is_refused_before_the_first_tick() -> None:
    with pytest.raises(ConfigError, match=r"namespace, name: .* is not a URI-reference"):
        ping(name="a b")
    with pytest.raises(ConfigError, match=r"contentType: 'x' is not a media type"):
        ping(content_type="x")


@pytest.mark.parametrize(
    ("given", "problems"),
    [
        ({"data": "a", "data_base64": "YQ=="}, [("data, dataBase64", "expected exactly one, got both")]),
        ({"data_base64": "YQ"}, [("dataBase64", "illegal base64 data at input byte 0")]),
        ({"data_base64": "YQ==" * 3, "max_size": 9},
         [("dataBase64", "the dataBase64 length of 12 bytes exceeds limit set at 9."),
          ("dataBase64", "illegal base64 data at input byte 4")]),
        ({"data": "Invalid", "content_type": "application/json"},
         [("data", "invalid character 'I' looking for beginning of value")]),
        ({"data": "[1]", "content_type": "application/json"},
         [("data", "json: cannot unmarshal array into Go value of type map[string]interface {}")]),
        ({"data_base64": "W10=", "content_type": "application/json"},
         [("dataBase64", "json: cannot unmarshal array into Go value of type map[string]interface {}")]),
        ({"data": "\ud800"}, [("data", "holds half a surrogate pair, which no text does")]),
        ({"data": "x", "content_type": "json"}, [("contentType", "'json' is not a media type (RFC 2046)")]),
    ],
)  # fmt: skip
def test_bad_data_is_refused_in_knatives_words(given: dict[str, Any], problems: list[tuple[str, str]]) -> None:
    assert refusals(**given) == problems


@pytest.mark.parametrize(
    ("given", "octets"),
    [
        ({}, None),
        ({"content_type": "application/json"}, None),
        ({"data": "é"}, "é".encode()),
        ({"data": "\udcff"}, b"\xff"),
        ({"data_base64": "\n"}, b""),
        ({"data_base64": "YWJ\nj\r\n"}, b"abc"),
        ({"data": "[1]", "content_type": "application/json; charset=utf-8"}, b"[1]"),
        ({"data": "not json", "content_type": "APPLICATION/JSON"}, b"not json"),
        ({"data": "x" * 9, "max_size": 9}, b"x" * 9),
    ],
)
def test_data_that_knative_takes_is_taken_byte_for_byte(given: dict[str, Any], octets: bytes | None) -> None:
    assert body(**given) == octets


# What Go's base64.StdEncoding and encoding/json say (recorded by running them).
@pytest.mark.parametrize(
    ("text", "at"),
    [("A", 0), ("AB", 0), ("ABC", 0), ("AB=", 3), ("AB=C", 2), ("A===", 1), ("=", 0), ("AB==C", 4), ("ABC=A", 4), ("AB==\n=", 5),
     ("AB-=", 2), ("é", 0), ("AAA\nA!", 5), ("AB=\n", 4), ("AB\n=", 4)],
)  # fmt: skip
def test_base64_is_refused_at_the_byte_at_which_go_refuses_it(text: str, at: int) -> None:
    with pytest.raises(ValueError, match=f"^illegal base64 data at input byte {at}$"):
        decode_base64(text)


@given(st.binary())
def test_base64_comes_back(octets: bytes) -> None:
    assert decode_base64(base64.encodebytes(octets).decode()) == octets


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "unexpected end of JSON input"), ('{"a":', "unexpected end of JSON input"), ('{"a":"b', "unexpected end of JSON input"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair or array element"),
        ('{"a" 1}', "invalid character '1' after object key"), ("{}x", "invalid character 'x' after top-level value"),
        ('{"a":\n"\t"}', "invalid character '\\t' in string literal"), ('{"a":"\\q"}', "invalid character 'q' in string escape code"),
        ("NaN", "invalid character 'N' looking for beginning of value"), ("-Infinity", "invalid character 'I' in numeric literal"),
        ('{"a":1e999}', "json: cannot unmarshal number 1e999 into Go value of type float64"), ("[" * 10**5, "exceeded max depth"),
        ("1", "json: cannot unmarshal number into Go value of type map[string]interface {}"),
        ("true", "json: cannot unmarshal bool into Go value of type map[string]interface {}"),
        ('"s"', "json: cannot unmarshal string into Go value of type map[string]interface {}"),
        ("\ufeff{}", "Unexpected UTF-8 BOM (decode using utf-8-sig)"),
    ],
)  # fmt: skip
def test_json_that_is_no_object_is_refused_as_go_words_it(text: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:  # noqa: PT011 - compared whole below
        check_json_object(text.encode())
    assert str(caught.value) == why


@pytest.mark.parametrize("text", ["null", "{}", ' {"a": 1.5e3} ', '{"a":' + "9" * 300 + "}"])
def test_a_json_object_or_null_passes(text: str) -> None:
    check_json_object(text.encode())
