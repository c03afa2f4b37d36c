"""CloudEvent to and from HTTP headers and body: binary, structured and batch mode. Pure: it opens no connection.

After CloudEvents 1.0.2 ``bindings/http-protocol-binding.md`` and ``formats/json-format.md``, and what Knative's
receivers (the Go SDK) really read; see design "One delivery engine for all", row *format*.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from .errors import InvalidEvent, MalformedEvent, NotAnEvent, Problem
from .event import SPEC_ATTRIBUTES, CloudEvent, is_json, media_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from .event import ExtensionValue

Headers: TypeAlias = "Sequence[tuple[bytes, bytes]]"
"""HTTP headers as they travel: names in any case, values without the blanks around them."""

STRUCTURED: Final = "application/cloudevents+json"
BATCH: Final = "application/cloudevents-batch+json"

# What goes raw into a header: printable ASCII without "%", no blank at the ends, and not a whole quoted-string,
# which a conforming receiver would unquote (HTTP binding 3.1.3.2).
_RAW = re.compile(r'(?!".*"\Z)(?:[!-$&-~](?:[ -$&-~]*[!-$&-~])?)?')
# HTTP binding 3.1.3.2: these MUST be encoded: all but U+0021..U+007E, and of those the quote and the percent sign.
_ENCODED = re.compile(rb"[^!#$&-~]")
_PERCENT = re.compile(rb"%([0-9A-Fa-f]{2})")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_GO_JSON: Final = ("", "application/json", "text/json")
_STRUCTURED_LINE: Final = b"content-type: %b\r\n" % STRUCTURED.encode()
_REMEMBERED: Final = 512  # characters
_SOURCES: Final = 1024
_common: Final[dict[tuple[str, str, str, str | None], str]] = {}
"""The header lines of sources of late: short ones, and not many."""
_MAX_INTEGER_DIGITS: Final = 11


def percent_encode(value: str) -> str:
    """``value`` as the HTTP binding 3.1.3.2 wants it in a header."""
    return _ENCODED.sub(lambda match: b"%%%02X" % match[0][0], value.encode()).decode("ascii")


def percent_decode(header: str) -> str:
    """A header's value as the HTTP binding 3.1.3.2 reads it: unquoted, then one round of percent-decoding.

    A ``%`` that two hexadecimal digits do not follow is left as it is. Raises ValueError where the octets are not UTF-8.
    """
    quoted = _QUOTED.fullmatch(header)
    if quoted is not None:
        header = re.sub(r"\\(.)", r"\1", quoted[1], flags=re.DOTALL)
    if "%" not in header:
        return header
    return _PERCENT.sub(lambda match: bytes((int(match[1], 16),)), header.encode()).decode("utf-8")


def can_go_raw(event: CloudEvent) -> bool:
    """Whether every attribute can stand in a header as it is, so that every receiver reads it right."""
    return _raw_lines(event) is not None


def encode(
    event: CloudEvent, *, structured: bool = False, percent: bool = False
) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Headers and body of one request that carries ``event``; see `encode_lines`."""
    lines, body = encode_lines(event, structured=structured, percent=percent)
    return header_pairs(lines), body


def encode_lines(event: CloudEvent, *, structured: bool = False, percent: bool = False) -> tuple[bytes, bytes]:
    """Headers, as the lines that HTTP/1.1 has of them, and body of one request that carries ``event``.

    Binary mode unless ``structured``. An attribute that cannot stand raw in a header is percent-encoded where
    ``percent`` is set; else the event is sent structured, which also receivers that do not decode read right. So is
    one whose data is an event: its media type as Content-Type would say structured mode.
    """
    if not structured:
        lines = _percent_lines(event) if percent else event.lines or _raw_lines(event)
        if lines is not None:
            return lines, event.data or b""
    return _STRUCTURED_LINE, encode_structured(event)


def make_ahead(event: CloudEvent) -> None:
    """Make the header lines that `encode_lines` will want: for who has time now, and not when the event's turn comes."""
    object.__setattr__(event, "lines", _raw_lines(event))  # nobody can tell: it is what would be made later


def header_lines(headers: Headers) -> bytes:
    """``headers`` as HTTP/1.1 has them, each ended by CR LF. Names and values hold neither."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def header_pairs(lines: bytes) -> list[tuple[bytes, bytes]]:
    """What `header_lines` made of headers, taken apart again."""
    found = []
    for line in lines.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b": ")
        found.append((name, value))
    return found


def _raw_lines(event: CloudEvent) -> bytes | None:
    """The headers of binary mode with every attribute as it is; None where one cannot stand so."""
    origin = (event.specversion, event.source, event.type, event.datacontenttype)
    common = _common.get(origin)
    if common is None:
        common = _common_lines(*origin)
    if not common:
        return None
    # Joined, not formatted: a member of an enumeration of texts is its text here, and its name in a format.
    lines = ["ce-id: ", event.id, "\r\n"]
    blank = " " in event.id
    if event.time is not None:
        lines += ("ce-time: ", event.time, "\r\n")
    if event.subject is not None:
        lines += ("ce-subject: ", event.subject, "\r\n")
        blank = blank or " " in event.subject
    if event.dataschema is not None:
        lines += ("ce-dataschema: ", event.dataschema, "\r\n")
    for name, value in event.extensions.items():
        text = value if value.__class__ is str else _text(value)
        lines += ("ce-", name, ": ", text, "\r\n")
        blank = blank or " " in text
    own = "".join(lines)
    # Printable ASCII without these needs no expression, which costs many times as much.
    seems_raw = event.plain and not (blank or '"' in own or "%" in own)
    return (common + own).encode("ascii") if seems_raw or _can_all_go_raw(event) else None


def _can_all_go_raw(event: CloudEvent) -> bool:
    return all(_RAW.fullmatch(value) for _, value in _header_attributes(event))


def _common_lines(specversion: str, source: str, kind: str, datacontenttype: str | None) -> str:
    """Those that all events of a source have in common, for `_common` to remember.

    "" where one cannot be had, or would say structured mode.
    """
    lines = ""
    if _RAW.fullmatch(source) and _RAW.fullmatch(kind) and not _names_a_mode(media_type(datacontenttype)):
        parts = ("ce-specversion: ", specversion, "\r\nce-source: ", source, "\r\nce-type: ", kind, "\r\n")
        content = () if datacontenttype is None else ("content-type: ", datacontenttype, "\r\n")
        lines = "".join((*parts, *content))
    if len(source) + len(kind) + len(datacontenttype or "") <= _REMEMBERED:
        if len(_common) >= _SOURCES:
            _common.clear()
        _common[specversion, source, kind, datacontenttype] = lines
    return lines


def _percent_lines(event: CloudEvent) -> bytes | None:
    """The headers of binary mode, encoded as HTTP binding 3.1.3.2 says; None where the media type says structured."""
    if _names_a_mode(media_type(event.datacontenttype)):
        return None
    headers = [(b"ce-" + name.encode(), percent_encode(value).encode()) for name, value in _header_attributes(event)]
    if event.datacontenttype is not None:
        headers.append((b"content-type", event.datacontenttype.encode()))
    return header_lines(headers)


def encode_structured(event: CloudEvent) -> bytes:
    """``event`` in the JSON format, members in the Go SDK's order, extensions sorted."""
    members = [
        f'"{name}":{_json(value)}'
        for name in ("specversion", "id", "source", "type", "subject", "datacontenttype", "dataschema", "time")
        if (value := getattr(event, name)) is not None
    ]
    document = ",".join(members).encode()
    if event.data is not None:
        document += b"," + _data_member(event, event.data)
    for name in sorted(event.extensions):
        document += f',"{name}":{_json(event.extensions[name])}'.encode()
    return b"{" + document + b"}"


def encode_batch(events: Iterable[CloudEvent]) -> bytes:
    """``events`` as one JSON batch (media type ``application/cloudevents-batch+json``)."""
    return b"[" + b",".join(map(encode_structured, events)) + b"]"


def decode(headers: Headers, body: bytes, *, percent: bool = True) -> list[CloudEvent]:
    """The events of one request: one in binary and structured mode, any number in a batch.

    ``percent=False`` leaves header values as they came, which is how Knative's Go receivers read them.
    Raises `NotAnEvent` where nothing says CloudEvent, `MalformedEvent` with every problem where something is wrong.
    """
    fields = _fields(headers)
    kind = media_type(fields.get("content-type"))
    if kind == STRUCTURED:
        return [decode_structured(body)]
    if kind == BATCH:
        return decode_batch(body)
    if _names_a_mode(kind):
        raise NotAnEvent([Problem("content-type", f"{kind} is not a format we read; JSON is")])
    if "ce-specversion" not in fields:
        raise NotAnEvent([Problem("ce-specversion", "missing, and content-type is no CloudEvents type")])
    return [_decode_binary(fields, body, percent=percent)]


def decode_structured(body: bytes) -> CloudEvent:
    """One event in the JSON format. Raises `MalformedEvent`, or `NotAnEvent` for a specversion nobody speaks."""
    text = _utf8(body)
    event, end = _json_object(text, _skip(text, 0))
    if _skip(text, end) != len(text):
        raise MalformedEvent([Problem("body", f"goes on after the event, at character {end}")])
    return event


def decode_batch(body: bytes) -> list[CloudEvent]:
    """Every event of a JSON batch; one that is wrong refuses the whole, as nobody could tell which were read."""
    text = _utf8(body)
    at = _skip(text, 0)
    if text[at : at + 1] != "[":
        raise MalformedEvent([Problem("body", "a batch is a JSON array")])
    events: list[CloudEvent] = []
    at = _skip(text, at + 1)
    while text[at : at + 1] != "]":
        if events:
            at = _skip(text, _expect(text, at, ","))
        event, at = _json_object(text, at)
        events.append(event)
        at = _skip(text, at)
    if _skip(text, at + 1) != len(text):
        raise MalformedEvent([Problem("body", f"goes on after the batch, at character {at + 1}")])
    return events


def _names_a_mode(kind: str) -> bool:
    # HTTP binding 3: this prefix, and nothing else, tells structured and batch mode from binary mode.
    return kind.startswith("application/cloudevents")


def _header_attributes(event: CloudEvent) -> Iterator[tuple[str, str]]:
    """Name and text of everything that becomes a ``ce-`` header, in the Go SDK's terms for extension values."""
    yield "specversion", event.specversion
    yield "id", event.id
    yield "source", event.source
    yield "type", event.type
    if event.time is not None:
        yield "time", event.time
    if event.subject is not None:
        yield "subject", event.subject
    if event.dataschema is not None:
        yield "dataschema", event.dataschema
    for name, value in event.extensions.items():
        yield name, _text(value)


def _text(value: ExtensionValue) -> str:
    """An extension as a header carries it, in the Go SDK's terms."""
    if type(value) is int:
        return str(value)
    return value if isinstance(value, str) else _json(value).strip('"')


def _json(value: ExtensionValue) -> str:
    if isinstance(value, bytes):
        return f'"{base64.b64encode(value).decode()}"'
    return json.dumps(value, ensure_ascii=False)


def _data_member(event: CloudEvent, data: bytes) -> bytes:
    if not event.data_base64:
        if is_json(event.datacontenttype):
            # The Go SDK takes JSON as data of these types only; under application/vnd.x+json it wants a string there,
            # which to a conforming receiver is a JSON string, and answers 500. Octets are read right by both.
            if media_type(event.datacontenttype) in _GO_JSON and _is_json_text(data):
                return b'"data":' + data
        elif (text := _as_text(data)) is not None:
            return f'"data":{json.dumps(text, ensure_ascii=False)}'.encode()
    return b'"data_base64":"' + base64.b64encode(data) + b'"'


def _is_json_text(data: bytes) -> bool:
    try:
        _parse_json(data.decode())
    except (ValueError, RecursionError):
        return False
    return True


def _as_text(data: bytes) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return None


def _fields(headers: Headers) -> dict[str, str]:
    fields: dict[str, str] = {}
    problems = []
    for raw_name, raw_value in headers:
        name = raw_name.decode("latin-1").lower()
        if name != "content-type" and not name.startswith("ce-"):
            continue
        value = _as_text(raw_value)
        if value is None:
            problems.append(Problem(name, "is not UTF-8"))
        elif name in fields:
            problems.append(Problem(name, "is given twice"))
        else:
            fields[name] = value
    if problems:
        raise MalformedEvent(problems)
    return fields


def _decode_binary(fields: Mapping[str, str], body: bytes, *, percent: bool) -> CloudEvent:
    attributes: dict[str, ExtensionValue] = {}
    problems = []
    for field, value in fields.items():
        if field == "content-type":
            continue
        name = field.removeprefix("ce-")
        try:
            attributes[name] = percent_decode(value) if percent else value
        except ValueError:
            problems.append(Problem(name, "is percent-encoded, and its octets are not UTF-8"))
    if "datacontenttype" in attributes:
        problems.append(Problem("datacontenttype", "travels as Content-Type, not as ce-datacontenttype"))
        del attributes["datacontenttype"]
    if fields.get("content-type"):
        attributes["datacontenttype"] = fields["content-type"]
    return _build(attributes, body or None, data_base64=False, problems=problems)


def _build(
    attributes: dict[str, ExtensionValue], data: bytes | None, *, data_base64: bool, problems: list[Problem]
) -> CloudEvent:
    """The event of what was read; every problem at once, those met while reading first."""
    version = attributes.get("specversion")
    if version not in ("1.0", "0.3"):
        raise NotAnEvent([Problem("specversion", "missing" if version is None else f"{version!r} is not 1.0 or 0.3")])
    if version == "0.3" and "schemaurl" in attributes:
        attributes["dataschema"] = attributes.pop("schemaurl")
    known = {name: attributes.pop(name) for name in SPEC_ATTRIBUTES if name in attributes}
    for name in ("id", "source", "type"):
        known.setdefault(name, "")
    try:
        event = CloudEvent(
            **known,  # type: ignore[arg-type]  # an attribute of the wrong type is what CloudEvent refuses
            extensions=attributes,
            data=data,
            data_base64=data_base64,
        )
    except InvalidEvent as invalid:
        raise MalformedEvent([*problems, *invalid.problems]) from None
    if problems:
        raise MalformedEvent(problems)
    return event


def _utf8(body: bytes) -> str:
    text = _as_text(body)
    if text is None:
        raise MalformedEvent([Problem("body", "is not UTF-8")])
    return text


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _short_int(digits: str) -> int:
    # A number of a million digits would cost minutes to convert; it fits no CloudEvents integer anyway.
    return int(digits) if len(digits) <= _MAX_INTEGER_DIGITS else 2**31


_DECODER = json.JSONDecoder(parse_constant=_no_constant, parse_int=_short_int, parse_float=str)
_JSON_SPACE = re.compile(r"[ \t\n\r]*")


def _parse_json(text: str) -> object:
    value: object = _DECODER.decode(text)
    return value


def _skip(text: str, at: int) -> int:
    match = _JSON_SPACE.match(text, at)
    return match.end() if match else at


def _expect(text: str, at: int, sign: str) -> int:
    if text[at : at + 1] != sign:
        raise MalformedEvent([Problem("body", f"is not JSON: expected {sign!r} at character {at}")])
    return at + 1


def _value(text: str, at: int) -> tuple[object, int]:
    try:
        return _DECODER.raw_decode(text, at)
    except RecursionError:
        raise MalformedEvent([Problem("body", "is nested too deep")]) from None
    except ValueError:
        raise MalformedEvent([Problem("body", f"is not JSON near character {at}")]) from None


def _json_object(text: str, at: int) -> tuple[CloudEvent, int]:
    """The event that the JSON object at ``at`` is, and where it ends.

    Members are read one by one because data that is JSON is kept letter by letter: the order of its members and the
    spelling of its numbers are the sender's.
    """
    attributes: dict[str, ExtensionValue] = {}
    data: dict[str, tuple[object, str]] = {}
    problems: list[Problem] = []
    at = begin = _skip(text, _expect(text, at, "{"))
    while text[at : at + 1] != "}":
        if at != begin:
            at = _skip(text, _expect(text, at, ","))
        name, at = _value(text, at)
        if not isinstance(name, str):
            raise MalformedEvent([Problem("body", "is not JSON: a member's name is a string")])
        start = _skip(text, _expect(text, _skip(text, at), ":"))
        value, at = _value(text, start)
        if name in attributes or name in data:
            problems.append(Problem(ascii(name), "is given twice"))
        elif name in ("data", "data_base64"):
            data[name] = value, text[start:at]
        else:
            _read_member(name, value, text[start:at], attributes, problems)
        at = _skip(text, at)
    payload = _read_data(data, attributes.get("datacontenttype"), problems)
    return _build(attributes, payload, data_base64="data_base64" in data, problems=problems), at + 1


def _read_member(
    name: str, value: object, spelled: str, attributes: dict[str, ExtensionValue], problems: list[Problem]
) -> None:
    if value is None:  # JSON format 2.2: the same as a member that is not there
        return
    if spelled[0] in "-0123456789" and not isinstance(value, int):
        problems.append(Problem(ascii(name), f"{spelled[:40]} is no integer, and CloudEvents has no other numbers"))
    elif name in SPEC_ATTRIBUTES and not isinstance(value, str):
        problems.append(Problem(name, "is not a JSON string"))
    elif isinstance(value, str | bool | int):
        attributes[name] = value
    else:
        problems.append(Problem(ascii(name), "an extension is a JSON string, number or boolean"))


def _read_data(
    data: Mapping[str, tuple[object, str]], datacontenttype: object, problems: list[Problem]
) -> bytes | None:
    if len(data) > 1:
        problems.append(Problem("data", "is given beside data_base64; one of them"))
    if "data_base64" in data:
        value, _ = data["data_base64"]
        try:
            return base64.b64decode(value if isinstance(value, str) else "?", validate=True)
        except (binascii.Error, ValueError):
            problems.append(Problem("data_base64", "is not base64"))
            return None
    if "data" not in data:
        return None
    value, spelled = data["data"]
    if isinstance(value, str) and not is_json(datacontenttype if isinstance(datacontenttype, str) else None):
        return value.encode("utf-8", "replace")
    return spelled.encode("utf-8", "replace")
