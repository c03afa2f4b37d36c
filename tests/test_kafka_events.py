"""A record as an event: what Knative's Java data plane makes of it, and what is right where that would lose something."""

from __future__ import annotations

import base64
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.binding import SinkBinding
from wellhead.http_binding import decode, encode
from wellhead_adapters.kafka.events import KafkaSource, Tally, header_extension, record_event, without_member
from wellhead_adapters.kafka.keys import KeyType, java_float, key_value

if TYPE_CHECKING:
    from wellhead.event import CloudEvent

SAMPLES: Final = Path(__file__).parent / "samples/kafka_record_to_event"
JAVA: Final[dict[str, Any]] = json.loads((SAMPLES / "java_data_plane.json").read_text())
KEYS: Final[dict[str, Any]] = json.loads((SAMPLES / "key_types.json").read_text())
OVERRIDES: Final[dict[str, Any]] = json.loads((SAMPLES / "ce_overrides.json").read_text())
SOURCE: Final = KafkaSource(namespace="ns", name="ks")
PLACE: Final = {"knativekafkapartition", "knativekafkaoffset"}
BINARY: Final = (("ce_specversion", b"1.0"), ("ce_id", b"1"), ("ce_source", b"/s"), ("ce_type", b"t"))
STRUCTURED: Final = b'{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"a":1}}'


@dataclass(frozen=True)
class Record:
    topic: str = "t1"
    partition: int = 0
    offset: int = 0
    timestamp: int = 0
    key: bytes | None = None
    value: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()


def octets(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def recorded(said: dict[str, Any]) -> Record:
    headers = tuple((name, base64.b64decode(value)) for name, value in said["headers"])
    numbers = (said.get("partition", 0), said.get("offset", 0), said.get("timestamp_ms", 0))
    return Record(said["topic"], *numbers, octets(said.get("key_b64")), octets(said["value_b64"]), headers)


def event_of(record: Record, source: KafkaSource = SOURCE) -> CloudEvent:
    return record_event(source, record, Tally())


def attributes(event: CloudEvent) -> dict[str, object]:
    names = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
    return {name: getattr(event, name) for name in names if getattr(event, name) is not None}


# --- recorded from upstream ---


@pytest.mark.parametrize("row", JAVA["rows"], ids=lambda row: row["name"])
def test_a_record_becomes_what_the_java_data_plane_makes_of_it(row: dict[str, Any]) -> None:
    tally = Tally()
    event = record_event(SOURCE, recorded(row["record"]), tally)
    expected = dict(row["event"]["attributes"])
    # Ours: a dataschema that is no absolute URI breaks CloudEvents' rules, and receivers' patience; it is left out.
    assert tally.dropped == (expected.pop("dataschema", None) is not None)
    assert attributes(event) == expected
    own = {name: value for name, value in event.extensions.items() if name not in PLACE}
    assert own == row["event"].get("extensions", {})
    assert event.data == octets(row["event"]["data_b64"])


@pytest.mark.parametrize("row", JAVA["header_names_from_code"], ids=lambda row: repr(row["in"]))
def test_the_name_of_a_header_becomes_an_extension(row: dict[str, Any]) -> None:
    assert header_extension(row["in"]) == row["ext"]


@pytest.mark.parametrize("row", OVERRIDES["rows"], ids=lambda row: str(row["overrides"]))
def test_every_event_says_its_place_and_overrides_come_on_top(row: dict[str, Any]) -> None:
    binding = SinkBinding(sink="http://sink/", overrides=row["overrides"])
    event = binding.apply(event_of(Record(partition=row["partition"], offset=row["offset"], headers=BINARY)))
    assert dict(event.extensions) == row["adds"]


# Ours: a key whose octets are no text that an attribute may hold is sent in base64. Java's string of control characters
# makes the request invalid, and the record is dropped after its retries.
OURS: Final = {"AQIDBAUGBw==", "AQID"}


@pytest.mark.parametrize("row", KEYS["java"], ids=lambda row: f"{row['key_type']} {row['key_b64']}")
def test_a_key_is_read_as_its_type_says(row: dict[str, Any]) -> None:
    key = base64.b64decode(row["key_b64"])
    event = event_of(Record(key=key), KafkaSource(namespace="ns", name="ks", key_type=KeyType(row["key_type"])))
    assert event.extensions["key"] == event.extensions["partitionkey"]
    if row["key_b64"] in OURS:
        assert event.extensions["key"] == row["key_b64"]
        assert key_value(KeyType(row["key_type"]), key) == row["value"]
    elif row["kind"] == "double":
        assert float(str(event.extensions["key"])) == row["value"]
    else:
        assert event.extensions["key"] == row["value"]


@pytest.mark.parametrize("row", KEYS["go_older"], ids=lambda row: f"{row['key_type']} {row['key_b64']}")
def test_where_the_older_go_adapter_differs_java_is_followed(row: dict[str, Any]) -> None:
    key = base64.b64decode(row["key_b64"])
    event = event_of(Record(key=key), KafkaSource(namespace="ns", name="ks", key_type=KeyType(row["key_type"])))
    same = row["key_type"] == "byte-array"  # eight octets are no int to Java, but text; and here no text either
    assert event.extensions["key"] == (row["value"] if same else row["key_b64"])


def test_of_headers_with_one_name_the_last_counts() -> None:
    tally = Tally()
    event = record_event(SOURCE, Record(headers=(("a", b"1"), ("A-", b"2"))), tally)
    assert (event.extensions["kafkaheadera"], tally.dropped) == ("2", 1)
    twice = (*BINARY, ("ce_id", b"2"))
    assert event_of(Record(headers=twice)).id == "2"


def test_the_names_of_attributes_are_read_in_lower_case_as_java_does_it() -> None:
    headers = (("ce_specversion", b"1.0"), ("ce_ID", b"1"), ("ce_source", b"/s"), ("ce_Type", b"t"), ("ce_MyExt", b"x"))
    event = event_of(Record(headers=(*headers, ("ce_SpecVersion", b"7"))))
    assert (event.id, event.type, event.specversion, event.extensions["myext"]) == ("1", "t", "1.0", "x")
    assert event_of(Record(headers=(("CE_specversion", b"1.0"), *BINARY[1:]))).type == "dev.knative.kafka.event"


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ((("ce_datacontenttype", b"text/plain"),), "text/plain"),
        ((("content-type", b"text/xml"), ("ce_datacontenttype", b"text/plain")), "text/plain"),
        ((("ce_datacontenttype", b"text/plain"), ("content-type", b"text/xml")), "text/xml"),
        ((("ce_datacontenttype", None), ("content-type", b"text/xml")), "text/xml"),
    ],
)
def test_a_content_type_may_be_an_attribute_of_its_own_and_the_last_counts(
    headers: tuple[tuple[str, bytes | None], ...], kind: str
) -> None:
    assert event_of(Record(headers=(*BINARY, *headers))).datacontenttype == kind


def test_a_tombstone_with_ce_headers_is_an_event_without_data() -> None:
    assert event_of(Record(headers=BINARY)).data is None
    assert event_of(Record(headers=BINARY, value=b"")).data == b""


# --- our own rules ---


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param(BINARY[1:], id="no specversion"),
        pytest.param((*BINARY[:3], ("ce_type", b"")), id="an empty type"),
        pytest.param((*BINARY, ("ce_time", b"yesterday")), id="a bad time"),
        pytest.param((*BINARY, ("ce_no-name", b"x")), id="a bad extension name"),
        pytest.param((("ce_specversion", b"7"), *BINARY[1:]), id="another version"),
        pytest.param((*BINARY, ("content-type", b"nothing")), id="no media type"),
        pytest.param((("content-type", b"application/cloudevents+json"),), id="structured, and no JSON"),
        pytest.param((("content-type", b"application/cloudevents+avro"),), id="a format nobody reads"),
        pytest.param((("content-type", b"application/cloudevents-batch+json"),), id="a batch, which Kafka has not"),
    ],
)
def test_what_is_no_cloud_event_is_wrapped_whole(headers: tuple[tuple[str, bytes], ...]) -> None:
    event = event_of(Record(headers=headers, value=b"[]"))
    assert (event.type, event.id, event.data) == ("dev.knative.kafka.event", "partition:0/offset:0", b"[]")
    (arrived,) = decode(*encode(event))
    assert (arrived.id, arrived.type, arrived.data) == (event.id, event.type, event.data)


@given(
    st.dictionaries(st.text(max_size=5), st.floats(allow_nan=False) | st.lists(st.text(max_size=5), max_size=3)),
    st.booleans(),
)
def test_a_member_is_taken_out_of_a_document_and_the_rest_is_as_it_was(members: dict[str, object], dense: bool) -> None:  # noqa: FBT001
    document = json.dumps({**members, "gone": 1}, indent=None if dense else 1)
    assert json.loads(without_member(document, "gone")) == {name: members[name] for name in members if name != "gone"}
    assert without_member('{ "a" : 1.10 , "gone":"\\"}{" }', "gone") == '{"a" : 1.10}'


@pytest.mark.parametrize("data", ["9" * 5000, *("[" * depth + "]" * depth for depth in range(880, 1000))])
def test_a_document_beyond_what_python_reads_harms_nobody(data: str) -> None:
    # A number of more than 4,300 digits is an error to Python, and so is what is nested about a thousand deep: how deep,
    # depends on who asks.
    document = f'{{"specversion":"1.0","id":"1","source":"/s","type":"t","dataschema":"/relative","data":{data}}}'
    event = event_of(Record(headers=(("content-type", b"application/cloudevents+json"),), value=document.encode()))
    assert (event.type, event.data) in (("t", data.encode()), ("dev.knative.kafka.event", document.encode()))


def test_a_structured_event_keeps_its_data_letter_by_letter() -> None:
    headers = (("Content-Type", b"application/CloudEvents+JSON; charset=UTF-8"), ("x", b"y"))
    event = event_of(Record(offset=7, key=b"k", headers=headers, value=STRUCTURED))
    assert (event.id, event.data, dict(event.extensions)) == (
        "1", b'{"a":1}', {"knativekafkapartition": 0, "knativekafkaoffset": 7},
    )  # fmt: skip


@pytest.mark.parametrize("key", [None, b""])
def test_no_key_is_no_attribute(key: bytes | None) -> None:
    assert event_of(Record(key=key)).extensions.keys() == PLACE


def test_a_header_without_a_value_is_no_attribute() -> None:
    assert event_of(Record(headers=(("a", None), ("content-type", None)))).extensions.keys() == PLACE


@pytest.mark.parametrize("value", [b"\xff\xfe", b"line\nbreak", b"\x00", "￾".encode()])
def test_a_value_that_no_attribute_holds_is_sent_in_base64_and_counted(value: bytes) -> None:
    tally = Tally()
    event = record_event(SOURCE, Record(key=value, headers=(("a", value),)), tally)
    encoded = base64.b64encode(value).decode()
    assert (event.extensions["key"], event.extensions["kafkaheadera"], tally.encoded) == (encoded, encoded, 2)
    carried = event_of(Record(headers=(*BINARY, ("ce_a", value))))
    assert (carried.id, carried.extensions["a"]) == ("1", encoded)


def test_a_content_type_that_is_none_is_left_out_and_counted() -> None:
    tally = Tally()
    event = record_event(SOURCE, Record(headers=(("content-type", b"what?"),)), tally)
    assert (event.datacontenttype, tally.dropped) == (None, 1)


@pytest.mark.parametrize(
    ("timestamp", "time"),
    [
        (-1, "1969-12-31T23:59:59.999Z"),
        (0, "1970-01-01T00:00:00Z"),
        (1_700_000_000_120, "2023-11-14T22:13:20.12Z"),
        (2**62, None),
        (-(2**62), None),
    ],
)
def test_time_is_the_records_and_left_out_where_no_event_can_say_it(timestamp: int, time: str | None) -> None:
    assert event_of(Record(timestamp=timestamp)).time == time


def test_an_offset_beyond_32_bits_is_text_which_binary_mode_sends_alike() -> None:
    assert event_of(Record(offset=2**31)).extensions["knativekafkaoffset"] == "2147483648"


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0.0"), (-0.0, "-0.0"), (1.0, "1.0"), (1.5, "1.5"), (100.0, "100.0"), (1e7, "1.0E7"), (9999999.0, "9999999.0"),
        (0.001, "0.001"), (0.0009, "9.0E-4"), (-2.5, "-2.5"), (1e23, "1.0E23"), (float("inf"), "Infinity"),
        (float("-inf"), "-Infinity"), (float("nan"), "NaN"), (5e-324, "4.9E-324"), (8.20788039913184e-304, "8.20788039913184E-304"),
    ],
)  # fmt: skip
def test_a_double_is_written_as_java_writes_it(number: float, text: str) -> None:
    assert java_float(struct.pack(">d", number)) == text


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("00000001", "1.4E-45"),
        ("7f7fffff", "3.4028235E38"),
        ("3dcccccd", "0.1"),
        ("3f800000", "1.0"),
        ("4b189680", "1.0E7"),
    ],
)
def test_a_float_is_written_as_java_writes_it(key: str, text: str) -> None:
    assert java_float(bytes.fromhex(key)) == text


@given(st.binary(min_size=4, max_size=4) | st.binary(min_size=8, max_size=8))
def test_any_float_is_written_and_reads_back(key: bytes) -> None:
    shape = ">f" if len(key) == 4 else ">d"
    (number,) = struct.unpack(shape, key)
    if number == number:  # noqa: PLR0124 - not NaN
        assert struct.unpack(shape, struct.pack(shape, float(java_float(key).replace("Infinity", "inf"))))[0] == number


NAMES: Final = st.text(max_size=12) | st.sampled_from(
    ["content-type", "Content-Type", "ce_id", "ce_specversion", "ce_source", "ce_type", "ce_time", "ce_key", "ce_data"]
)
VALUES: Final = (
    st.none() | st.binary(max_size=20) | st.sampled_from([b"1.0", b"application/cloudevents+json", b"t", b"/s"])
)


@given(
    st.builds(
        Record,
        partition=st.integers(0, 2**31 - 1),
        offset=st.integers(0, 2**63 - 1),
        timestamp=st.integers(-(2**63), 2**63 - 1),
        key=st.none() | st.binary(max_size=12),
        value=st.none() | st.binary(max_size=40) | st.just(STRUCTURED),
        headers=st.lists(st.tuples(NAMES, VALUES), max_size=6).map(tuple),
    ),
    st.sampled_from(KeyType),
)
def test_nothing_in_a_record_raises_and_every_event_can_travel(record: Record, kind: KeyType) -> None:
    event = record_event(KafkaSource(namespace="ns", name="ks", key_type=kind), record, Tally())
    (arrived,) = decode(*encode(event))
    assert (arrived.source, arrived.id, arrived.type) == (event.source, event.id, event.type)
    assert event == record_event(KafkaSource(namespace="ns", name="ks", key_type=kind), record, Tally())
