from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from cloudevents.core.bindings import http as sdk_http
from cloudevents.core.formats.json import JSONFormat
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from wellhead.errors import DecodeError, MalformedEvent, NotAnEvent
from wellhead.event import RESERVED_NAMES, CloudEvent, ExtensionValue, is_json, media_type, rfc3339
from wellhead.http_binding import (
    _RAW,
    BATCH,
    STRUCTURED,
    can_go_raw,
    decode,
    decode_batch,
    decode_structured,
    encode,
    encode_batch,
    encode_structured,
    header_lines,
    header_pairs,
    make_ahead,
    percent_decode,
    percent_encode,
)

SAMPLES: Final = Path(__file__).parent / "samples/cloudevents_http"
PERCENT: Final[dict[str, Any]] = json.loads((SAMPLES / "percent_encoding.json").read_text(encoding="utf-8"))
GO_ROWS: Final[list[dict[str, Any]]] = json.loads((SAMPLES / "sdk_go_encode.json").read_text(encoding="utf-8"))["rows"]

MINIMAL: Final[dict[str, Any]] = {"id": "1", "source": "/s", "type": "t"}
MINIMAL_JSON: Final = b'{"specversion":"1.0","id":"1","source":"/s","type":"t"}'
MINIMAL_HEADERS: Final = [(b"ce-specversion", b"1.0"), (b"ce-id", b"1"), (b"ce-source", b"/s"), (b"ce-type", b"t")]
JSON_BLANKS: Final = b" \t\r\n"
DEEP: Final = 100_000

# Rows whose outcome here is not the peer's; the reason stands beside.
OURS_BINARY: Final = {
    # A `%` or non-ASCII cannot stand raw in a header so that every receiver reads it right: sent structured (design).
    "subject with space, quote, percent, unicode",
}
OURS_STRUCTURED: Final = {
    # Without a content type the Go SDK fails on data that is no JSON; ours writes data_base64, which it reads.
    "no content type bytes",
}


def rows(ours: set[str]) -> list[Any]:
    return [pytest.param(row, id=row["name"] + ("-ours" if row["name"] in ours else "")) for row in GO_ROWS]


def go_event(row: dict[str, Any]) -> CloudEvent:
    """The event of a row, from its JSON members (or headers, where the Go SDK could not write JSON)."""
    members = dict(
        row["event_structured_json"] or {n[3:]: v[0] for n, v in row["binary_headers"].items() if n[:3] == "ce-"}
    )
    has_data = bool(row["binary_body_base64"]) or not members.keys().isdisjoint(("data", "data_base64"))
    in_base64 = members.pop("data_base64", None) is not None
    members.pop("data", None)
    names = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
    attributes = {name: members.pop(name) for name in names if name in members}
    data = base64.b64decode(row["binary_body_base64"]) if has_data else None
    return CloudEvent(**attributes, extensions=members, data=data, data_base64=in_base64)


def read_problems(
    headers: list[tuple[bytes, bytes]], body: bytes = b"", *, percent: bool = True
) -> list[tuple[str, str]]:
    with pytest.raises(DecodeError) as caught:
        decode(headers, body, percent=percent)
    return [(problem.where, problem.what) for problem in caught.value.problems]


def structured_problems(body: bytes) -> list[tuple[str, str]]:
    return read_problems([(b"content-type", STRUCTURED.encode())], body)


def one(headers: list[tuple[bytes, bytes]], body: bytes = b"", *, percent: bool = True) -> CloudEvent:
    (event,) = decode(headers, body, percent=percent)
    return event


def members(**more: Any) -> bytes:
    return json.dumps({"specversion": "1.0", **MINIMAL, **more}).encode()


# --- Header values (HTTP binding 3.1.3.2)


@pytest.mark.parametrize("row", PERCENT["encode"], ids=lambda row: ascii(row["value"]))
def test_percent_encode_writes_header_values_as_the_binding_says(row: dict[str, str]) -> None:
    assert percent_encode(row["value"]) == row["header"]


@pytest.mark.parametrize("row", PERCENT["decode"], ids=lambda row: ascii(row["header"]))
def test_percent_decode_reads_header_values_as_the_binding_says(row: dict[str, str]) -> None:
    assert percent_decode(row["header"]) == row["value"]


@pytest.mark.parametrize("row", PERCENT["decode_must_reject"], ids=lambda row: row["why"])
def test_percent_decode_refuses_octets_that_are_not_utf_8(row: dict[str, str]) -> None:
    with pytest.raises(UnicodeDecodeError):
        percent_decode(row["header"])
    headers = [*MINIMAL_HEADERS, (b"ce-a", row["header"].encode())]
    assert read_problems(headers) == [("a", "is percent-encoded, and its octets are not UTF-8")]


@pytest.mark.parametrize(("header", "value"), list(zip(PERCENT["unspecified"], ("a%zz", "a% "), strict=True)))
def test_a_percent_sign_without_two_hexadecimal_digits_is_left_as_it_is(header: str, value: str) -> None:
    assert percent_decode(header) == value


@pytest.mark.parametrize(
    ("header", "value"),
    [
        ('"a \\"b\\" \\\\"', 'a "b" \\'),
        ('""', ""),
        ('"', '"'),
        ('a"b"', 'a"b"'),
        ('"a"b"', '"a"b"'),
        ('"a\\"', '"a\\"'),
        ('"%22"', '"'),
    ],
)
def test_a_whole_quoted_string_is_unquoted_once(header: str, value: str) -> None:
    assert percent_decode(header) == value


@given(value=st.text(alphabet=st.characters(exclude_categories=["Cs"])))
def test_percent_decode_undoes_percent_encode(value: str) -> None:
    header = percent_encode(value)
    assert all("!" <= sign <= "~" and sign != '"' for sign in header)
    assert percent_decode(header) == value


@pytest.mark.parametrize("subject", ["a b", 'say "x"', '"', "a,b;c=d", "~!", "\\"])
def test_printable_ascii_goes_raw_into_headers_blank_and_quote_included(subject: str) -> None:
    # ours: the binding says to encode the blank and the quote; Knative's receivers do not decode (design, "format").
    event = CloudEvent(**MINIMAL, subject=subject)
    headers, _ = encode(event)
    assert dict(headers)[b"ce-subject"] == subject.encode()
    assert can_go_raw(event)
    assert one(headers).subject == subject


@pytest.mark.parametrize("subject", ["100%", "é", " a", "a ", '"a"', '""', "\u2028x"], ids=ascii)
def test_an_attribute_that_cannot_go_raw_sends_its_event_structured_or_percent_encoded_where_asked(
    subject: str,
) -> None:
    event = CloudEvent(**MINIMAL, subject=subject, data=b"1")
    assert not can_go_raw(event)
    assert encode(event) == ([(b"content-type", STRUCTURED.encode())], encode_structured(event))
    headers, body = encode(event, percent=True)
    assert (dict(headers)[b"ce-subject"], body) == (percent_encode(subject).encode(), b"1")
    assert one(headers, body).subject == subject


@pytest.mark.parametrize(
    "kind", [STRUCTURED, BATCH, "Application/CloudEvents+JSON; charset=utf-8", "application/cloudevents+avro"]
)
@pytest.mark.parametrize("percent", [False, True], ids=["raw", "percent"])
def test_an_event_whose_data_is_an_event_is_sent_structured_as_receivers_would_take_the_data_for_it(
    kind: str, *, percent: bool
) -> None:
    event = CloudEvent(
        **MINIMAL, datacontenttype=kind, data=b'{"specversion":"1.0","id":"inner","source":"/i","type":"t"}'
    )
    assert not can_go_raw(event)
    headers, body = encode(event, percent=percent)
    assert headers == [(b"content-type", STRUCTURED.encode())]
    assert (one(headers, body).id, one(headers, body).data, one(headers, body).datacontenttype) == (
        "1",
        event.data,
        kind,
    )


# --- What the Go SDK writes


@pytest.mark.parametrize("row", rows(OURS_BINARY))
def test_binary_mode_writes_the_headers_and_the_body_that_the_go_sdk_writes(row: dict[str, Any]) -> None:
    event = go_event(row)
    headers, body = encode(event)
    if row["name"] in OURS_BINARY:
        assert (headers, body) == ([(b"content-type", STRUCTURED.encode())], encode_structured(event))
        return
    assert {name.decode(): [value.decode()] for name, value in headers} == row["binary_headers"]
    assert body == base64.b64decode(row["binary_body_base64"])


@pytest.mark.parametrize("row", rows(OURS_STRUCTURED))
def test_structured_mode_writes_the_bytes_that_the_go_sdk_writes(row: dict[str, Any]) -> None:
    headers, body = encode(go_event(row), structured=True)
    assert headers == [(b"content-type", STRUCTURED.encode())]
    if row["name"] in OURS_STRUCTURED:
        assert json.loads(body)["data_base64"] == row["binary_body_base64"]
        return
    assert body == row["structured_body"].encode()


@pytest.mark.parametrize("row", GO_ROWS, ids=lambda row: row["name"])
def test_what_the_go_sdk_writes_in_binary_mode_is_read_as_the_same_event(row: dict[str, Any]) -> None:
    headers = [(name.encode(), value.encode()) for name, values in row["binary_headers"].items() for value in values]
    event = one(headers, base64.b64decode(row["binary_body_base64"]), percent=False)
    assert event == in_binary_mode(go_event(row))


@pytest.mark.parametrize("row", [row for row in GO_ROWS if row["structured_body"]], ids=lambda row: row["name"])
def test_what_the_go_sdk_writes_in_structured_mode_is_read_and_written_again_byte_for_byte(row: dict[str, Any]) -> None:
    event = one([(b"Content-Type", STRUCTURED.encode())], row["structured_body"].encode())
    assert event == go_event(row)
    assert encode_structured(event).decode() == row["structured_body"]


def test_data_base64_follows_its_colon_without_a_blank() -> None:
    # Go's SDK answers 500 to `"data_base64": "AA=="` when specversion comes first and there is no datacontenttype.
    assert encode_structured(CloudEvent(**MINIMAL, data=b"\x00")) == MINIMAL_JSON[:-1] + b',"data_base64":"AA=="}'


# --- Round trips

TEXTS: Final = st.text(alphabet=st.characters(exclude_categories=["Cs", "Cc", "Cn"]), min_size=1, max_size=12).filter(
    lambda text: not text.isspace()
)
HEADER_TEXTS: Final = st.text(
    alphabet=st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=12
).filter(lambda text: not text.isspace())
SOURCES: Final = st.one_of(
    st.sampled_from(["/", "urn:x", "http://h:1/p?q#f", "//h", "é/日本", "/a%20b", "mailto:a@b.c"]),
    st.text(alphabet="abz09-._~!$&'()*+,;=@/é", max_size=12).map("/".__add__),
)
TIMES: Final = st.one_of(
    st.datetimes(min_value=datetime(2, 1, 1), timezones=st.just(UTC)).map(rfc3339),  # noqa: DTZ001 - Hypothesis' way
    st.sampled_from(["2026-01-02T03:04:05.123456789Z", "2018-04-05T19:31:00.50+02:00"]),
)
KINDS: Final = st.sampled_from(
    [
        "application/json", "Application/JSON; charset=utf-8", "text/plain", 'text/plain; a="b %41"', "application/vnd.x+json",
        "application/octet-stream", STRUCTURED, BATCH, "application/cloudevents",
    ]
)  # fmt: skip
JSON_VALUES: Final = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(max_size=5)
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=3), inner, max_size=3)),
    max_leaves=6,
)
DATA: Final = st.one_of(
    st.none(),
    st.binary(max_size=20),
    TEXTS.map(str.encode),
    JSON_VALUES.map(lambda value: json.dumps(value).encode()),
    JSON_VALUES.map(lambda value: json.dumps(value, indent=1, ensure_ascii=True).encode() + b"\n"),
)
NAMES: Final = st.text(alphabet="abz059", min_size=1, max_size=6).filter(lambda name: name not in RESERVED_NAMES)
INTEGERS: Final = st.integers(-(2**31), 2**31 - 1)


EXTENSIONS: Final[st.SearchStrategy[ExtensionValue]] = st.one_of(
    TEXTS, st.just(""), st.booleans(), INTEGERS, st.binary(max_size=6)
)
MAYBE_TIMES: Final = st.none() | TIMES
MAYBE_KINDS: Final = st.none() | KINDS


def cloud_events(
    texts: st.SearchStrategy[str] = TEXTS,
    extensions: st.SearchStrategy[ExtensionValue] = EXTENSIONS,
    times: st.SearchStrategy[str | None] = MAYBE_TIMES,
    kinds: st.SearchStrategy[str | None] = MAYBE_KINDS,
) -> st.SearchStrategy[CloudEvent]:
    return st.builds(
        CloudEvent,
        id=texts,
        source=SOURCES,
        type=texts,
        subject=st.none() | texts,
        time=times,
        datacontenttype=kinds,
        dataschema=st.sampled_from([None, "urn:x", "http://h/s"]),
        extensions=st.dictionaries(NAMES, extensions, max_size=3),
        data=DATA,
        data_base64=st.booleans(),
    )


def in_json_types(value: ExtensionValue) -> ExtensionValue:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def in_text(value: ExtensionValue) -> str:
    return value if isinstance(value, str) else json.dumps(in_json_types(value)).strip('"')


def in_binary_mode(event: CloudEvent) -> CloudEvent:
    """What binary mode can tell of ``event``: extensions are text, and no data is empty data."""
    extensions = {name: in_text(value) for name, value in event.extensions.items()}
    return replace(event, extensions=extensions, data=event.data or None, data_base64=False)


def in_structured_mode(event: CloudEvent) -> CloudEvent:
    """What the JSON format can tell: blanks around JSON data belong to the document, not to the data."""
    extensions = {name: in_json_types(value) for name, value in event.extensions.items()}
    data = event.data
    as_json = media_type(event.datacontenttype) in ("", "application/json", "text/json")  # +json travels in base64
    if data is not None and not event.data_base64 and as_json and reads_as_json(data):
        data = data.strip(JSON_BLANKS)
    return replace(event, extensions=extensions, data=data, data_base64=False)


def reads_as_json(data: bytes) -> bool:
    try:
        json.loads(data.decode(), parse_constant=int)  # int("NaN") raises: JSON has no such constants
    except ValueError:
        return False
    return True


def is_structured(headers: list[tuple[bytes, bytes]]) -> bool:
    return headers == [(b"content-type", STRUCTURED.encode())]


@given(event=cloud_events(), structured=st.booleans(), percent=st.booleans())
def test_every_event_is_read_as_it_was_sent_in_every_mode(
    event: CloudEvent, *, structured: bool, percent: bool
) -> None:
    headers, body = encode(event, structured=structured, percent=percent)
    expected = in_structured_mode(event) if is_structured(headers) else in_binary_mode(event)
    assert replace(one(headers, body), data_base64=False) == expected


@given(
    st.lists(
        st.tuples(st.from_regex(rb"[a-z-]{1,20}", fullmatch=True), st.from_regex(rb"[!-~ ]{0,40}", fullmatch=True))
    )
)
def test_headers_and_the_lines_that_hold_them_are_the_same(headers: list[tuple[bytes, bytes]]) -> None:
    assert header_pairs(header_lines(headers)) == headers


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1).filter(str.strip))
def test_printable_ascii_is_told_raw_by_a_look_as_by_the_whole_rule(value: str) -> None:
    events = [
        CloudEvent(id=value, source="/s", type="t"),
        CloudEvent(id="1", source="/s", type="t", subject=value),
        CloudEvent(id="1", source="/s", type="t", extensions={"seen": 1, "said": value}),
    ]
    assert {can_go_raw(event) for event in events} == {_RAW.fullmatch(value) is not None}


@given(event=cloud_events())
def test_an_event_whose_header_lines_were_made_ahead_is_sent_as_any_other(event: CloudEvent) -> None:
    expected = [
        encode(event, structured=structured, percent=percent)
        for structured in (False, True)
        for percent in (False, True)
    ]
    make_ahead(event)
    assert [
        encode(event, structured=structured, percent=percent)
        for structured in (False, True)
        for percent in (False, True)
    ] == expected
    assert replace(event) == event


@given(event=cloud_events(texts=HEADER_TEXTS, extensions=HEADER_TEXTS))
def test_receivers_that_do_not_decode_read_what_goes_raw_as_it_was_sent(event: CloudEvent) -> None:
    headers, body = encode(event)
    expected = in_structured_mode(event) if is_structured(headers) else in_binary_mode(event)
    assert is_structured(headers) is not can_go_raw(event)
    assert replace(one(headers, body, percent=False), data_base64=False) == expected


@given(events=st.lists(cloud_events(), max_size=4))
def test_a_batch_is_read_as_it_was_sent(events: list[CloudEvent]) -> None:
    read = decode([(b"content-type", BATCH.encode() + b"; charset=utf-8")], encode_batch(events))
    assert [replace(event, data_base64=False) for event in read] == [in_structured_mode(event) for event in events]


@given(event=cloud_events(kinds=st.just("application/octet-stream")))
def test_the_json_format_is_written_without_blanks_between_its_tokens(event: CloudEvent) -> None:
    body = encode_structured(event)
    assert json.dumps(json.loads(body), ensure_ascii=False, separators=(",", ":")).encode() == body


@given(event=cloud_events())
def test_an_event_read_and_sent_on_is_the_same_to_the_byte(event: CloudEvent) -> None:
    body = encode_structured(in_structured_mode(replace(event, data_base64=False)))
    assert encode_structured(decode_structured(body)) == body


def test_json_data_keeps_the_order_of_members_and_the_spelling_of_numbers() -> None:
    data = b'{"b":1.0,"a":1e3,"a":"\\u00e9"}'
    headers, body = encode(CloudEvent(**MINIMAL, datacontenttype="application/json", data=data), structured=True)
    assert one(headers, body).data == data


@pytest.mark.parametrize(
    "data", [b"", b"{", b"NaN", b"\xff", b'"\n"', b"\xef\xbb\xbf{}", b"[" * DEEP, b"{} x"], ids=lambda d: ascii(d[:6])
)
def test_data_that_claims_to_be_json_and_is_not_travels_in_base64(data: bytes) -> None:
    body = encode_structured(CloudEvent(**MINIMAL, datacontenttype="application/json", data=data))
    assert base64.b64decode(json.loads(body)["data_base64"]) == data


@pytest.mark.parametrize(
    ("data", "member"),
    [("é\n".encode(), '"data":"é\\n"'), (b"\xff", '"data_base64":"/w=="'), (b"", '"data":""'), (b"{}", '"data":"{}"')],
)
def test_text_travels_as_a_json_string_and_what_is_no_text_in_base64(data: bytes, member: str) -> None:
    body = encode_structured(CloudEvent(**MINIMAL, datacontenttype="text/plain", data=data)).decode()
    assert body.endswith(f',"datacontenttype":"text/plain",{member}}}')


def test_json_of_a_type_that_the_go_sdk_takes_for_text_travels_in_base64() -> None:
    # Under application/vnd.x+json the Go SDK wants data to be a string, and answers 500 to an object.
    event = CloudEvent(**MINIMAL, datacontenttype="application/vnd.x+json", data=b"{}")
    assert json.loads(encode_structured(event))["data_base64"] == "e30="
    assert decode_structured(encode_structured(event)).data == b"{}"


# --- The CloudEvents SDK as oracle


def sdk_message(headers: list[tuple[bytes, bytes]], body: bytes) -> sdk_http.HTTPMessage:
    return sdk_http.HTTPMessage({name.decode(): value.decode() for name, value in headers}, body)


def as_sdk_reads(event: CloudEvent) -> dict[str, object]:
    named = ("specversion", "id", "source", "type", "subject", "datacontenttype", "dataschema")
    attributes = {name: getattr(event, name) for name in named if getattr(event, name) is not None}
    return {**attributes, "time": datetime.fromisoformat(str(event.time)), **event.extensions}


def as_sdk_reads_data(data: bytes | None, kind: str | None) -> object:
    """JSON where the type says so and it is, else text where it is, else bytes."""
    if not data:
        return None
    if JSONFormat.JSON_CONTENT_TYPE_PATTERN.match(kind or "application/json") and reads_as_json(data):
        return json.loads(data)
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data


@given(event=cloud_events(times=TIMES), percent=st.booleans())
def test_the_sdk_reads_what_we_send_in_binary_mode_as_the_same_event(event: CloudEvent, *, percent: bool) -> None:
    headers, body = encode(event, percent=percent)
    assume(not is_structured(headers))  # that is the next test's
    read = sdk_http.from_binary(sdk_message(headers, body), JSONFormat())
    assert read.get_attributes() == as_sdk_reads(in_binary_mode(event))
    if body not in (b"NaN", b"Infinity", b"-Infinity"):  # which the SDK takes for JSON
        assert read.get_data() == as_sdk_reads_data(event.data, event.datacontenttype)


@given(event=cloud_events(times=TIMES))
def test_the_sdk_reads_what_we_send_in_structured_mode_as_the_same_event(event: CloudEvent) -> None:
    message = sdk_message(*encode(event, structured=True))
    read = sdk_http.from_structured(message, JSONFormat())
    assert read.get_attributes() == as_sdk_reads(in_structured_mode(event))
    data = read.get_data()
    if isinstance(data, bytes):
        assert data == event.data
    elif is_json(event.datacontenttype):
        assert data == (None if event.data is None else json.loads(event.data))
    else:
        assert data == (None if event.data is None else event.data.decode())


# The SDK writes bytes and truth values of extensions by str(), and an event's media type into Content-Type.
SDK_KINDS: Final = st.sampled_from([None, "application/json", "text/plain", "application/octet-stream"])


@given(event=cloud_events(times=TIMES, kinds=SDK_KINDS, extensions=TEXTS | INTEGERS))
def test_what_the_sdk_sends_in_binary_mode_is_read_as_the_same_event(event: CloudEvent) -> None:
    message = sdk_http.to_binary(event.to_sdk(), JSONFormat())
    headers = [(name.encode(), value.encode()) for name, value in message.headers.items()]
    assert one(headers, message.body) == in_binary_mode(to_the_microsecond(event, offset=True))


@given(event=cloud_events(times=TIMES, kinds=SDK_KINDS, extensions=TEXTS | INTEGERS | st.booleans()))
def test_what_the_sdk_sends_in_structured_mode_is_read_as_the_same_event(event: CloudEvent) -> None:
    message = sdk_http.to_structured(event.to_sdk(), JSONFormat())
    read = one([(b"content-type", message.headers["content-type"].encode())], message.body)
    expected = to_the_microsecond(event, offset=True)
    assert read == replace(expected, data_base64=event.data is not None)


@given(event=cloud_events(times=TIMES))
def test_an_event_goes_to_the_sdk_and_back_unchanged(event: CloudEvent) -> None:
    assert CloudEvent.from_sdk(event.to_sdk()) == to_the_microsecond(replace(event, data_base64=False))


def to_the_microsecond(event: CloudEvent, *, offset: bool = False) -> CloudEvent:
    """``event`` as the SDK's datetime can hold it; ``offset``: and as its ``isoformat`` writes it."""
    moment = datetime.fromisoformat(str(event.time))
    return replace(event, time=moment.isoformat().replace("+00:00", "Z") if offset else rfc3339(moment))


# --- What is no event


@pytest.mark.parametrize(
    ("headers", "problem"),
    [
        ([], ("ce-specversion", "missing, and content-type is no CloudEvents type")),
        ([(b"content-type", b"application/json")], ("ce-specversion", "missing, and content-type is no CloudEvents type")),
        ([(b"ce-id", b"1")], ("ce-specversion", "missing, and content-type is no CloudEvents type")),
        ([(b"ce-specversion", b"2.0")], ("specversion", "'2.0' is not 1.0 or 0.3")),
        ([(b"ce-specversion", b"")], ("specversion", "'' is not 1.0 or 0.3")),
        ([(b"ce-specversion", b"%FF")], ("specversion", "missing")),
        ([(b"content-type", b"application/cloudevents+avro")], ("content-type", "application/cloudevents+avro is not a format we read; JSON is")),
    ],
)  # fmt: skip
def test_what_does_not_say_cloudevents_1_0_is_no_event_and_answered_415(
    headers: list[tuple[bytes, bytes]], problem: tuple[str, str]
) -> None:
    with pytest.raises(NotAnEvent) as caught:
        decode(headers, b"")
    assert [(one.where, one.what) for one in caught.value.problems] == [problem]
    assert caught.value.status == 415


@pytest.mark.parametrize(
    "body", [b'{"id":"1","source":"/s","type":"t"}', b'{"specversion":"1.1"}', b'{"specversion":null}']
)
def test_a_structured_event_of_no_version_we_speak_is_answered_415(body: bytes) -> None:
    with pytest.raises(NotAnEvent):
        decode_structured(body)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ((b"ce-id", b"2"), ("ce-id", "is given twice")),
        ((b"CE-ID", b"2"), ("ce-id", "is given twice")),
        ((b"ce-a", b"\xff"), ("ce-a", "is not UTF-8")),
        ((b"ce-datacontenttype", b"text/plain"), ("datacontenttype", "travels as Content-Type, not as ce-datacontenttype")),
        ((b"ce-", b"x"), ("''", "an extension's name consists of a-z and 0-9 only")),
        ((b"ce-a-b", b"x"), ("'a-b'", "an extension's name consists of a-z and 0-9 only")),
        ((b"ce-data", b"x"), ("data", "is an attribute of CloudEvents itself and cannot be an extension")),
        ((b"ce-time", b"now"), ("time", "'now' is not an RFC 3339 timestamp")),
        ((b"ce-a", b"%00"), ("'a'", "'\\x00' holds a control character or half a surrogate pair")),
        ((b"content-type", b"json"), ("datacontenttype", "'json' is not a media type (RFC 2046)")),
    ],
)  # fmt: skip
def test_a_broken_header_is_named_and_answered_400(header: tuple[bytes, bytes], problem: tuple[str, str]) -> None:
    with pytest.raises(MalformedEvent) as caught:
        decode([*MINIMAL_HEADERS, header], b"")
    assert [(one.where, one.what) for one in caught.value.problems] == [problem]
    assert caught.value.status == 400


def test_every_problem_of_the_headers_is_told_at_once() -> None:
    headers = [(b"ce-specversion", b"1.0"), (b"ce-datacontenttype", b"x"), (b"ce-a", b"%FF"), (b"ce-time", b"x")]
    assert [where for where, _ in read_problems(headers)] == ["a", "datacontenttype", "id", "source", "type", "time"]


def test_a_content_type_given_twice_is_refused() -> None:
    assert read_problems([*MINIMAL_HEADERS, (b"content-type", b"a/b"), (b"Content-Type", b"a/b")]) == [
        ("content-type", "is given twice")
    ]


def test_other_headers_may_hold_and_repeat_anything() -> None:
    other = [(b"x", b"\xff"), (b"x", b"\xff"), (b"cookie", b"a"), (b"\xe9", b"b"), (b"content-type", b"")]
    assert one([*MINIMAL_HEADERS, *other], b"") == CloudEvent(**MINIMAL)


def test_a_structured_content_type_wins_over_ce_headers() -> None:
    assert one([*MINIMAL_HEADERS, (b"content-type", STRUCTURED.encode())], members(id="inner")).id == "inner"


def test_percent_false_leaves_header_values_as_they_came() -> None:
    assert one([*MINIMAL_HEADERS, (b"ce-a", b'"%41"')], percent=False).extensions == {"a": '"%41"'}


def test_specversion_0_3_is_read_with_its_schemaurl() -> None:
    headers = [(b"ce-specversion", b"0.3"), *MINIMAL_HEADERS[1:], (b"ce-schemaurl", b"http://h/s")]
    event = one(headers)
    assert (event.specversion, event.dataschema, dict(event.extensions)) == ("0.3", "http://h/s", {})


# --- The JSON format

NESTED: Final = b"[" * DEEP
LONG_NUMBER: Final = b"9" * 1_000_000


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "is not JSON: expected '{' at character 0"),
        (b"[]", "is not JSON: expected '{' at character 0"),
        (b"null", "is not JSON: expected '{' at character 0"),
        (b"\xef\xbb\xbf" + MINIMAL_JSON, "is not JSON: expected '{' at character 0"),
        (b"{", "is not JSON near character 1"),
        (b'{"id"', "is not JSON: expected ':' at character 5"),
        (b'{"id":', "is not JSON near character 6"),
        (b'{"id":"1"', "is not JSON: expected ',' at character 9"),
        (b'{"id":"1",}', "is not JSON near character 10"),
        (b"{,}", "is not JSON near character 1"),
        (b'{1:"x"}', "is not JSON: a member's name is a string"),
        (b'{"a":NaN}', "is not JSON near character 5"),
        (b'{"a":-Infinity}', "is not JSON near character 5"),
        (b'{"a":01}', "is not JSON: expected ',' at character 6"),
        (b'{"a":"\n"}', "is not JSON near character 5"),
        (b"{\"a\":'x'}", "is not JSON near character 5"),
        (b'{"data":' + NESTED + b"}", "is nested too deep"),
        (b"\xff", "is not UTF-8"),
        (b"\xed\xa0\x80", "is not UTF-8"),
        (MINIMAL_JSON + b"x", f"goes on after the event, at character {len(MINIMAL_JSON)}"),
        (MINIMAL_JSON + MINIMAL_JSON, f"goes on after the event, at character {len(MINIMAL_JSON)}"),
    ],
    ids=lambda value: ascii(value[:16]),
)
def test_a_body_that_is_not_one_json_object_is_refused(body: bytes, problem: str) -> None:
    assert structured_problems(body) == [("body", problem)]


@pytest.mark.parametrize(
    ("member", "problem"),
    [
        (b'"id":"2"', ("'id'", "is given twice")),
        (b'"a":1,"a":1', ("'a'", "is given twice")),
        (b'"data":1,"data":2', ("'data'", "is given twice")),
        (b'"data":1,"data_base64":"AA=="', ("data", "is given beside data_base64; one of them")),
        (b'"data_base64":"A"', ("data_base64", "is not base64")),
        (b'"data_base64":"A A="', ("data_base64", "is not base64")),
        (b'"data_base64":"\xc3\xa9"', ("data_base64", "is not base64")),
        (b'"data_base64":5', ("data_base64", "is not base64")),
        (b'"subject":5', ("subject", "is not a JSON string")),
        (b'"time":true', ("time", "is not a JSON string")),
        (b'"a":1.5', ("'a'", "1.5 is no integer, and CloudEvents has no other numbers")),
        (b'"a":1e3', ("'a'", "1e3 is no integer, and CloudEvents has no other numbers")),
        (b'"a":2147483648', ("a", "2147483648 does not fit the 32 bits of a CloudEvents integer")),
        (b'"a":' + LONG_NUMBER, ("a", "2147483648 does not fit the 32 bits of a CloudEvents integer")),
        (b'"a":1.' + LONG_NUMBER, ("'a'", f"1.{'9' * 38} is no integer, and CloudEvents has no other numbers")),
        (b'"a":[]', ("'a'", "an extension is a JSON string, number or boolean")),
        (b'"a":{"b":1}', ("'a'", "an extension is a JSON string, number or boolean")),
        (b'"a":"\\ud800"', ("'a'", "'\\ud800' holds a control character or half a surrogate pair")),
        (b'"A":1', ("'A'", "an extension's name consists of a-z and 0-9 only")),
        (b'"\\ud800":1', ("'\\ud800'", "an extension's name consists of a-z and 0-9 only")),
    ],
    ids=lambda value: ascii(value[:24]),
)  # fmt: skip
def test_a_wrong_member_is_named_with_the_rule_it_breaks(member: bytes, problem: tuple[str, str]) -> None:
    assert structured_problems(MINIMAL_JSON[:-1] + b"," + member + b"}") == [problem]


def test_every_problem_of_the_members_is_told_at_once() -> None:
    body = b'{"specversion":"1.0","id":"","a":1.5,"a":1,"data":1,"data_base64":"?"}'
    wheres = [where for where, _ in structured_problems(body)]
    assert wheres == ["'a'", "data", "data_base64", "id", "source", "type"]


def test_members_that_are_null_are_members_that_are_not_there() -> None:
    assert decode_structured(members(subject=None, time=None, a=None)) == CloudEvent(**MINIMAL)


@pytest.mark.parametrize(
    ("kind", "member", "data"),
    [
        (None, b'"data":{"b": 1.0}', b'{"b": 1.0}'),
        (None, b'"data" : [1,2] ', b"[1,2]"),
        ("application/json", b'"data":"x"', b'"x"'),
        ("application/json", b'"data":"\\u00e9"', b'"\\u00e9"'),
        ("text/plain", b'"data":"\\u00e9"', "é".encode()),
        ("text/plain", b'"data":"\\ud800"', b"?"),
        ("text/plain", b'"data":{"b": 1}', b'{"b": 1}'),
        (None, b'"data_base64":"AP8="', b"\x00\xff"),
        (None, b'"data":' + LONG_NUMBER, LONG_NUMBER),
    ],
    ids=lambda value: ascii(value[:24]) if value else "none",
)
def test_data_is_kept_letter_by_letter_and_text_is_read_out_of_its_string(
    kind: str | None, member: bytes, data: bytes
) -> None:
    stated = b',"datacontenttype":"%b"' % kind.encode() if kind else b""
    assert decode_structured(b" \n" + MINIMAL_JSON[:-1] + stated + b"," + member + b"}\r\n").data == data


def test_data_that_came_in_base64_goes_on_in_base64() -> None:
    body = MINIMAL_JSON[:-1] + b',"data_base64":"e30="}'
    assert encode_structured(decode_structured(body)) == body


@pytest.mark.parametrize("body", [b"[]", b" [ \n] \t"])
def test_a_batch_may_be_empty(body: bytes) -> None:
    assert decode_batch(body) == []


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (b"", "a batch is a JSON array"),
        (MINIMAL_JSON, "a batch is a JSON array"),
        (b"[", "is not JSON: expected '{' at character 1"),
        (b"[1]", "is not JSON: expected '{' at character 1"),
        (b"[" + MINIMAL_JSON, f"is not JSON: expected ',' at character {len(MINIMAL_JSON) + 1}"),
        (b"[" + MINIMAL_JSON + b",]", f"is not JSON: expected '{{' at character {len(MINIMAL_JSON) + 2}"),
        (b"[] []", "goes on after the batch, at character 2"),
        (b"\xff", "is not UTF-8"),
    ],
    ids=lambda value: ascii(value[:12]),
)
def test_a_body_that_is_no_array_of_events_is_refused(body: bytes, problem: str) -> None:
    assert read_problems([(b"content-type", BATCH.encode())], body) == [("body", problem)]


def test_one_wrong_event_refuses_the_whole_batch() -> None:
    with pytest.raises(MalformedEvent) as caught:
        decode_batch(b"[" + MINIMAL_JSON + b"," + members(id="") + b"]")
    assert [problem.where for problem in caught.value.problems] == ["id"]


# --- Whatever comes, the decoder answers or raises DecodeError

HOSTILE: Final = [
    b"{", b"}", b"[", b"]", b",", b":", b'"', b"\\", b"\\ud800", b"\\u0000", b"NaN", b"-", b"1e999", b"9" * 400, b"null",
    b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\x00", b" ", b'"id":"2",', b'"data_base64":"=",', b"{" * 2000, b"[" * 2000,
]  # fmt: skip
HEADER_NAMES: Final = st.sampled_from(
    [b"ce-specversion", b"ce-id", b"CE-Type", b"ce-source", b"ce-time", b"content-type", b"ce-", b"x"]
)
HEADER_VALUES: Final = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        [b"1.0", b"0.3", b"%", b"%C3", b'"%22"', STRUCTURED.encode(), BATCH.encode(), b"application/json", b"/s"]
    ),
)


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """A structured event or batch with a few of its bytes replaced."""
    body = draw(cloud_events().map(encode_structured) | st.lists(cloud_events(), max_size=2).map(encode_batch))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(body)))
        cut = draw(st.integers(0, 6))
        body = body[:at] + draw(st.sampled_from(HOSTILE) | st.binary(max_size=4)) + body[at + cut :]
    return body


def answers_or_raises_decode_error(headers: list[tuple[bytes, bytes]], body: bytes, *, percent: bool = True) -> None:
    try:
        events = decode(headers, body, percent=percent)
    except DecodeError as error:
        problems = error.problems
    else:
        problems = ()
        again = decode([(b"content-type", BATCH.encode())], encode_batch(events))
        assert list(map(in_structured_mode, again)) == list(map(in_structured_mode, events))
    assert all(str(problem).isprintable() for problem in problems)


@given(
    headers=st.lists(st.tuples(HEADER_NAMES | st.binary(max_size=8), HEADER_VALUES), max_size=8),
    body=st.binary(max_size=40),
    percent=st.booleans(),
)
@example(headers=[(b"ce-specversion", b"1.0"), (b"ce-\xff", b"1")], body=b"", percent=True)
def test_any_headers_are_an_event_or_a_decode_error(
    headers: list[tuple[bytes, bytes]], body: bytes, *, percent: bool
) -> None:
    answers_or_raises_decode_error(headers, body, percent=percent)


@given(body=broken() | st.binary(max_size=60), kind=st.sampled_from([STRUCTURED, BATCH]))
@settings(suppress_health_check=[HealthCheck.too_slow], max_examples=200)
def test_any_body_is_an_event_or_a_decode_error(body: bytes, kind: str) -> None:
    answers_or_raises_decode_error([(b"content-type", kind.encode())], body)
