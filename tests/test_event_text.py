"""The display's text against what Go programs printed (samples/event_display), and the laws of JSON's indentation."""

from __future__ import annotations

import base64
import json
import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.display.text import event_text, go_uri, indent_json
from wellhead.event import CloudEvent
from wellhead.http_binding import decode, decode_structured

SAMPLES = Path(__file__).parent / "samples" / "event_display"
SDK_ROWS = json.loads((SAMPLES / "sdk_go_texts.json").read_text())["rows"]
INDENT_ROWS = json.loads((SAMPLES / "go_json_indent.json").read_text())
URL_ROWS = json.loads((SAMPLES / "go_urls.json").read_text())

# An extension of type Binary: JSON has no way to say so, the Go program that printed the row had the octets.
BINARY_EXTENSION = "full, json object"
# The Go SDK cannot encode this event as JSON; the row tells its error.
NOT_STRUCTURED = "no content type bytes"
HEAD = "☁️  cloudevents.Event\nContext Attributes,\n  specversion: 1.0\n  type: t\n  source: /s\n  id: 1\n"


def an_event(**attributes: object) -> CloudEvent:
    return CloudEvent(**{"id": "1", "source": "/s", "type": "t", **attributes})  # type: ignore[arg-type]


def text_of(**attributes: object) -> str:
    text = event_text(an_event(**attributes)).decode()
    assert text.startswith(HEAD)
    return text.removeprefix(HEAD)


@pytest.mark.parametrize("row", [row for row in SDK_ROWS if row["name"] != NOT_STRUCTURED], ids=lambda row: row["name"])
def test_an_event_is_printed_as_the_go_sdk_prints_it(row: dict[str, object]) -> None:
    event = decode_structured(str(row["structured_body"]).encode())
    if row["name"] == BINARY_EXTENSION:
        octets = base64.b64decode(str(event.extensions["abin"]))
        event = an_event(
            **{name: getattr(event, name) for name in event.__dataclass_fields__}
            | {"extensions": {**event.extensions, "abin": octets}}
        )
    assert event_text(event).decode() == row["display_text"]


def test_what_the_go_sdk_cannot_encode_is_printed_as_it_came() -> None:
    (row,) = (row for row in SDK_ROWS if row["name"] == NOT_STRUCTURED)
    headers = [(name.encode(), value.encode()) for name, (value,) in row["binary_headers"].items()]
    (event,) = decode(headers, base64.b64decode(row["binary_body_base64"]))
    assert event_text(event).decode().endswith("  id: A234-1234-1234\nData,\n  simple 10\n")


def test_a_time_is_printed_in_utc_without_zeros_at_its_end() -> None:
    assert text_of(time="2020-01-02T03:04:05.100+02:30") == "  time: 2020-01-02T00:34:05.1Z\n"
    assert text_of(time="2020-01-02T03:04:05.120Z") == "  time: 2020-01-02T03:04:05.12Z\n"
    assert text_of(time="2020-01-02T03:04:05.123456789Z") == "  time: 2020-01-02T03:04:05.123456789Z\n"
    assert text_of(time="2020-01-02T03:04:05Z") == "  time: 2020-01-02T03:04:05Z\n"


def test_extensions_are_sorted_and_printed_as_go_prints_values() -> None:
    extensions = {"z": "", "b": True, "a10": b"\x00\xff", "a2": -7, "none": b""}
    assert text_of(extensions=extensions) == "Extensions,\n  a10: [0 255]\n  a2: -7\n  b: true\n  none: []\n  z: \n"


@pytest.mark.parametrize(
    ("datacontenttype", "is_indented"),
    [
        ("application/json", True),
        ("application/json; charset=utf-8", True),
        ("application/json ;a=b", True),
        ("application/JSON", False),
        ("text/json", False),
        ("application/vnd.x+json", False),
        ("application/jsonlines", False),
    ],
)
def test_only_application_json_is_indented(datacontenttype: str, *, is_indented: bool) -> None:
    data = '{\n    "a": 1\n  }' if is_indented else '{"a":1}'
    expected = f"  datacontenttype: {datacontenttype}\nData,\n  {data}\n"
    assert text_of(datacontenttype=datacontenttype, data=b'{"a":1}') == expected


def test_json_without_a_media_type_is_printed_as_it_came() -> None:
    assert text_of(data=b'{"a":1}\n') == 'Data,\n  {"a":1}\n\n'


def test_no_data_and_empty_data_differ() -> None:
    assert text_of(data=None) == ""
    assert text_of(data=b"", data_base64=True) == "Data (binary),\n  \n"


def test_octets_are_printed_as_octets() -> None:
    assert event_text(an_event(data=b"\x00\xff\n")).endswith(b"Data,\n  \x00\xff\n\n")


def test_cloudevents_0_3_has_its_own_names() -> None:
    event = an_event(
        specversion="0.3", dataschema="http://x/y", extensions={"datacontentencoding": "base64", "a": "b"}, data=b"aGk="
    )
    assert event_text(event).decode() == (
        HEAD.replace("1.0", "0.3")
        + "  schemaurl: http://x/y\n  datacontentencoding: base64\nExtensions,\n  a: b\nData,\n  aGk=\n"
    )


def test_in_cloudevents_1_0_datacontentencoding_is_an_extension() -> None:
    assert text_of(extensions={"datacontentencoding": "x"}) == "Extensions,\n  datacontentencoding: x\n"


def test_json_that_would_grow_out_of_all_proportion_is_printed_as_it_came() -> None:
    data = b"[" * 9000 + b"]" * 9000
    assert event_text(an_event(datacontenttype="application/json", data=data)).endswith(b"Data,\n  " + data + b"\n")


# URI-references.


@pytest.mark.parametrize("row", [row for row in URL_ROWS if row["out"] is not None], ids=lambda row: row["in"])
def test_a_uri_reference_is_spelled_as_go_spells_it(row: dict[str, str]) -> None:
    assert go_uri(row["in"]) == row["out"]


# JSON's indentation.


@pytest.mark.parametrize("row", INDENT_ROWS, ids=lambda row: ascii(row["in"]))
def test_json_is_indented_as_go_indents_it(row: dict[str, str | None]) -> None:
    expected = row["out"]
    assert indent_json(str(row["in"]).encode("latin-1")) == (None if expected is None else expected.encode("latin-1"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=30,
)
BLANKS = st.text(" \t\r\n", max_size=3)


@given(value=JSON, blanks=BLANKS, ascii_only=st.booleans())
def test_what_python_writes_is_indented_as_python_indents_it(*, value: object, blanks: str, ascii_only: bool) -> None:
    separators = (f",{blanks}", f"{blanks}:{blanks}")
    text = blanks + json.dumps(value, ensure_ascii=ascii_only, separators=separators)
    pythons = json.dumps(value, ensure_ascii=ascii_only, indent=2)
    assert indent_json(text.encode("utf-8", "surrogatepass"), b"", b"  ") == pythons.encode("utf-8", "surrogatepass")


@given(JSON, st.sampled_from([b"", b"  ", b"\t"]), st.sampled_from([b"", b" ", b"  "]))
def test_indenting_again_changes_nothing(value: object, prefix: bytes, step: bytes) -> None:
    once = indent_json(json.dumps(value).encode(), prefix, step)
    assert once is not None
    assert indent_json(once, prefix, step) == once


@given(st.text(alphabet='{}[],:"\\ \n01-.eEtrufalsn' + "é", max_size=12))
def test_what_is_json_to_python_is_json_to_us_and_nothing_else(text: str) -> None:
    def no_constant(name: str) -> object:
        raise ValueError(name)

    try:
        json.loads(text, parse_constant=no_constant)
    except ValueError:
        assert indent_json(text.encode()) is None
    else:
        assert indent_json(text.encode()) is not None


@given(st.binary(max_size=30))
def test_any_octets_are_indented_or_refused(data: bytes) -> None:
    indented = indent_json(data)
    if indented is not None:
        assert re.sub(rb"[ \n]", b"", indented) == re.sub(rb"[ \t\r\n]", b"", data) or b'"' in data


@pytest.mark.parametrize(("depth", "is_json"), [(10_000, True), (10_001, False)])
def test_json_is_as_deep_as_go_reads_it(depth: int, *, is_json: bool) -> None:
    assert (indent_json(b"[" * depth + b"]" * depth, b"", b"") is not None) is is_json
    outer = depth - 1
    assert (indent_json(b'{"a":' * outer + b"{}" + b"}" * outer, b"", b"") is not None) is is_json
    assert (indent_json(b"[" * depth + b"1" + b"]" * depth, b"", b"") is not None) is is_json


def test_a_limit_stops_growth() -> None:
    assert indent_json(b"[[1]]", limit=30) == b"[\n    [\n      1\n    ]\n  ]"
    assert indent_json(b"[[1]]", limit=20) is None


HOSTILE = {
    "many small values": b"[" + b"1," * 500_000 + b"1]",
    "escapes": b'"' + b"\\n" * 500_000 + b'"',
    "a string without end": b'"' + b"a" * 1_000_000,
    "escapes without end": b'"' + b"\\\\" * 500_000,
    "a long number": b"1" * 1_000_000,
    "openings": b"[" * 1_000_000,
    "keys": b'{"a":' * 200_000,
    "blanks": b" " * 1_000_000,
    "blanks between": b"[" + b" " * 500_000 + b"1" + b" " * 500_000 + b"x",
    "keys without values": b"{" + b'"a" ' * 250_000,
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_megabyte_takes_linear_time(data: bytes) -> None:
    begun = time.process_time()
    indent_json(data, limit=64 << 20)
    assert time.process_time() - begun < 30  # it takes half a second; quadratic time would be an hour
