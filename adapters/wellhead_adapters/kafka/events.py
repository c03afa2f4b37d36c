"""A record in, an event out, as Knative's Java data plane maps them. Pure; nothing in a record makes it raise.

What no CloudEvent can hold is encoded or left out, and counted in a `Tally`.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, Protocol

from wellhead.errors import DecodeError, InvalidEvent, MalformedEvent
from wellhead.event import SPEC_ATTRIBUTES, CloudEvent, ExtensionValue, extension_problems, media_type, rfc3339_of
from wellhead.http_binding import STRUCTURED, decode_structured

from .keys import KeyType, key_value

EVENT_TYPE: Final = "dev.knative.kafka.event"

_CONTENT_TYPE: Final = "content-type"
_NOT_IN_A_NAME: Final = re.compile("[^a-z0-9]")
_JSON: Final = json.JSONDecoder(parse_int=str, parse_float=str)  # as numbers, some are an error to Python


class Record(Protocol):
    """What is read of aiokafka's ``ConsumerRecord``."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970; -1: none."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes | None]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class KafkaSource:
    """What the events of one KafkaSource have in common."""

    namespace: str
    name: str
    key_type: KeyType = KeyType.STRING

    def source(self, topic: str) -> str:
        """The attribute ``source`` of a record that is no CloudEvent."""
        return f"/apis/v1/namespaces/{self.namespace}/kafkasources/{self.name}#{topic}"


@dataclass(slots=True)
class Tally:
    """What records held that no event can hold as it was."""

    encoded: int = 0
    """Keys and header values that are no text, sent in base64."""
    dropped: int = 0
    """Headers whose name another one took, content types and schemas that are none, times beyond the year 9999."""
    wrapped: int = 0
    """Records that said they were a CloudEvent and broke its rules: sent whole, as data."""


def record_event(source: KafkaSource, record: Record, tally: Tally) -> CloudEvent:
    """The event of ``record``: the CloudEvent it holds, else one around it. The same each time it is read."""
    if record.headers:
        event = _cloud_event(record, tally)
        if event is not None:
            return event
    return _around(source, record, tally)


def _cloud_event(record: Record, tally: Tally) -> CloudEvent | None:
    """The CloudEvent that the record holds; None where it holds none, or a broken one."""
    kind = media_type(_text(_content_type(record)))
    try:
        if kind == STRUCTURED:
            event = _structured(record.value or b"", tally)
            return replace(event, extensions={**event.extensions, **_place(record.partition, record.offset)})
        specversion = _last(record, "ce_specversion")
        if specversion is not None:
            return _binary(specversion.decode("utf-8", "replace"), record, tally)
    except (DecodeError, InvalidEvent, RecursionError):  # the last by `without_member`, of what is nested too deep
        tally.wrapped += 1
    return None


def _structured(document: bytes, tally: Tally) -> CloudEvent:
    try:
        return decode_structured(document)
    except MalformedEvent as error:
        if [problem.where for problem in error.problems] != ["dataschema"]:
            raise
    tally.dropped += 1
    return decode_structured(without_member(document.decode(), "dataschema").encode())


def without_member(document: str, unwanted: str) -> str:
    """A JSON object without its member ``unwanted``, the others letter by letter as they were."""
    members = []
    at = _skip(document, document.index("{") + 1)
    while document[at] != "}":
        begin = at
        name, at = _JSON.raw_decode(document, at)
        _, at = _JSON.raw_decode(document, _skip(document, document.index(":", at) + 1))
        if name != unwanted:
            members.append(document[begin:at])
        at = _skip(document, at)
        if document[at] == ",":
            at = _skip(document, at + 1)
    return "{" + ",".join(members) + "}"


def _skip(document: str, at: int) -> int:
    while document[at] in " \t\n\r":
        at += 1
    return at


def _last(record: Record, header: str) -> bytes | None:
    """Of several headers by one name the last counts."""
    return next((value for name, value in reversed(record.headers) if name == header), None)


def _binary(specversion: str, record: Record, tally: Tally) -> CloudEvent:
    attributes: dict[str, str] = {}
    extensions: dict[str, ExtensionValue] = {}
    for header, value in record.headers:
        name = "datacontenttype" if header.lower() == _CONTENT_TYPE else _attribute(header)
        if name is None or value is None:
            continue
        if name in SPEC_ATTRIBUTES:
            attributes[name] = value.decode("utf-8", "replace")
        else:
            extensions[name] = _extension(value, tally)
    attributes["specversion"] = specversion
    # CloudEvents wants an absolute URI, Java takes any reference; for that the whole event is not given up.
    if "dataschema" in attributes and not _can_be("dataschema", attributes["dataschema"]):
        del attributes["dataschema"]
        tally.dropped += 1
    # `id`, `source` and `type` that are not there are refused like empty ones.
    return CloudEvent(
        **{"id": "", "source": "", "type": "", **attributes},  # type: ignore[arg-type]  # none of them is `extensions` or `data`
        extensions={**extensions, **_place(record.partition, record.offset)},
        data=record.value,
    )


def _attribute(header: str) -> str | None:
    """The attribute or extension that a header of this name carries, in lower case as Java reads it."""
    return header[3:].lower() if header.startswith("ce_") and header != "ce_" else None


def _around(source: KafkaSource, record: Record, tally: Tally) -> CloudEvent:
    """An event around a record that is none."""
    partition, offset = record.partition, record.offset
    extensions = _place(partition, offset)
    if record.key:
        extensions["key"] = extensions["partitionkey"] = _key(source.key_type, record.key, tally)
    content_type = None
    if record.headers:
        content_type = _media_type(_content_type(record), tally)
        for name, value in record.headers:
            if name.lower() != _CONTENT_TYPE and value is not None:
                extension = header_extension(name)
                tally.dropped += extension in extensions
                extensions[extension] = _extension(value, tally)
    return CloudEvent(
        id=f"partition:{partition}/offset:{offset}",
        source=source.source(record.topic),
        type=EVENT_TYPE,
        subject=f"partition:{partition}#{offset}",
        time=_time(record.timestamp, tally),
        datacontenttype=content_type,
        extensions=extensions,
        data=record.value,
    )


@lru_cache(maxsize=1024)
def header_extension(header: str) -> str:
    """The extension that carries a record's header of this name."""
    return "kafkaheader" + _NOT_IN_A_NAME.sub("", header.lower())


def _place(partition: int, offset: int) -> dict[str, ExtensionValue]:
    # A CloudEvents integer has 32 bits; on the wire of binary mode the text is the same.
    return {
        "knativekafkapartition": partition,
        "knativekafkaoffset": offset if offset < 2**31 else str(offset),
    }


def _key(kind: KeyType, key: bytes, tally: Tally) -> str | int:
    if kind is KeyType.STRING:  # as nearly all are
        return _extension(key, tally)
    try:
        value = key_value(kind, key)
    except UnicodeDecodeError:
        return _encoded(key, tally)
    return _encoded(key, tally) if isinstance(value, str) and not _can_be_held(value) else value


def _extension(octets: bytes, tally: Tally) -> str:
    try:
        value = octets.decode()
    except UnicodeDecodeError:
        return _encoded(octets, tally)
    is_plain = value.isascii() and value.isprintable()
    return value if is_plain or _can_be_held(value) else _encoded(octets, tally)


def _can_be_held(value: str) -> bool:
    """Whether it is text that an attribute can hold: no control characters (CloudEvents 1.0.2, 3.1 "String")."""
    return not any(extension_problems("value", value))


def _encoded(octets: bytes, tally: Tally) -> str:
    """Octets that are no text, as the key type byte-array is sent."""
    tally.encoded += 1
    return base64.b64encode(octets).decode()


def _content_type(record: Record) -> bytes | None:
    found = None
    for name, value in record.headers:
        if name.lower() == _CONTENT_TYPE and value is not None:
            found = value
    return found


def _text(value: bytes | None) -> str | None:
    return value.decode("utf-8", "replace") if value else None


@lru_cache(maxsize=256)
def _can_be(attribute: str, value: str) -> bool:
    """Whether an event may have this attribute."""
    try:
        CloudEvent(**{"id": "-", "source": "-", "type": "-", attribute: value})  # type: ignore[arg-type]  # of text only
    except InvalidEvent:
        return False
    return True


def _media_type(value: bytes | None, tally: Tally) -> str | None:
    said = _text(value)
    if said is None or _can_be("datacontenttype", said.lower()):
        return said.lower() if said is not None else None
    tally.dropped += 1
    return None


def _time(milliseconds: int, tally: Tally) -> str | None:
    text = _instant(milliseconds)
    tally.dropped += text is None
    return text


@lru_cache(maxsize=64)
def _instant(milliseconds: int) -> str | None:
    """None beyond the year 9999. Remembered, as many records in a row are of one millisecond."""
    try:
        return rfc3339_of(milliseconds * 1_000_000)
    except OverflowError:
        return None
