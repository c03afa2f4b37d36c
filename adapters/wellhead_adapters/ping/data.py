"""What a PingSource says its events carry, held against Knative's rules and in Knative's words (contract 4.1). Pure."""

from __future__ import annotations

import base64
import json
import math
import re
from typing import TYPE_CHECKING, Final

from wellhead.errors import ConfigError, InvalidEvent, Problem
from wellhead.event import CloudEvent

if TYPE_CHECKING:
    from collections.abc import Iterator

_JSON: Final = "application/json"
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?", re.ASCII)
_ALPHABET: Final = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")
# What Go's encoding/json says where Python's parser says this.
_GO_WORDS: Final = (
    ("Expecting value", "looking for beginning of value"),
    ("Illegal trailing comma before end of object", "looking for beginning of object key string"),
    ("Illegal trailing comma before end of array", "looking for beginning of value"),
    ("Expecting property name", "looking for beginning of object key string"),
    ("Expecting ':'", "after object key"),
    ("Extra data", "after top-level value"),
    ("Invalid control character", "in string literal"),
    ("Invalid \\", "in string escape code"),
)


def body(data: str = "", data_base64: str = "", content_type: str = "", *, max_size: int = -1) -> bytes | None:
    """The bytes that every event carries; None where the source has no data.

    Raises `ConfigError` with every problem, at ``data``, ``dataBase64`` or ``contentType``. ``max_size`` is Knative's
    ``data-max-size``: of the text as it is given, -1 for no limit. Of ``contentType`` Knative checks nothing, and
    sends what no receiver can read; here it is a media type.
    """
    problems: list[Problem] = []
    octets: bytes | None = None
    if data and data_base64:
        problems.append(Problem("data, dataBase64", "expected exactly one, got both"))
    elif data or data_base64:
        where, text = ("data", data) if data else ("dataBase64", data_base64)
        problems += [Problem(where, what) for what in too_long(where, text, max_size)]
        try:
            octets = _octets(data) if data else decode_base64(data_base64)
            if content_type == _JSON:
                check_json_object(octets)
        except ValueError as error:
            problems.append(Problem(where, str(error)))
    problems += _type_problems(content_type)
    if problems:
        raise ConfigError(problems)
    return octets


def decode_base64(text: str) -> bytes:
    """What Go's ``base64.StdEncoding`` decodes: padded, line breaks ignored. Raises ValueError as Go words it."""
    plain = text.replace("\r", "").replace("\n", "")
    if _BASE64.fullmatch(plain) is None:
        raise ValueError(f"illegal base64 data at input byte {_illegal_at(text)}")
    return base64.b64decode(plain)


def check_json_object(octets: bytes) -> None:
    """Raises ValueError, as Go words it, unless this is JSON, and an object or null: nothing else passes Knative."""
    text = octets.decode("utf-8", "replace")
    try:
        value = json.loads(text, parse_constant=_refuse_constant, parse_int=_number, parse_float=_number)
    except json.JSONDecodeError as error:
        raise ValueError(_go_words(error, text)) from None
    except RecursionError:
        raise ValueError("exceeded max depth") from None
    if value is not None and not isinstance(value, dict):
        kind = {bool: "bool", str: "string", list: "array"}.get(type(value), "number")
        raise ValueError(f"json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}")


def _octets(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")  # what came as an argument goes out byte for byte
    except UnicodeEncodeError:
        raise ValueError("holds half a surrogate pair, which no text does") from None


def too_long(name: str, text: str, limit: int) -> Iterator[str]:
    """What Knative says where ``text``, the field ``name`` as it is given, has more than ``limit`` bytes."""
    size = len(text.encode("utf-8", "surrogatepass"))
    if -1 < limit < size:
        yield f"the {name} length of {size} bytes exceeds limit set at {limit}."


def _type_problems(content_type: str) -> Iterator[Problem]:
    try:
        CloudEvent(id="-", source="-", type="-", datacontenttype=content_type or None)
    except InvalidEvent as invalid:
        yield from (Problem("contentType", problem.what) for problem in invalid.problems)


def _illegal_at(text: str) -> int:
    """Where Go's decoder stops, counted in bytes."""
    octets = text.encode("utf-8", "surrogatepass").decode("latin-1")
    signs = [(at, sign) for at, sign in enumerate(octets) if sign not in "\r\n"]
    for number, (at, sign) in enumerate(signs):
        if sign in _ALPHABET:
            continue
        if sign != "=" or number % 4 < 2:
            return at
        return _after_padding(number, signs, octets)
    # It ends in the middle of a group of four.
    return len(octets) - len(signs) % 4


def _after_padding(number: int, signs: list[tuple[int, str]], octets: str) -> int:
    """Where Go stops when the first ``=``, in place of the third or fourth letter of a group, is not the end's."""
    rest = signs[number + 1 :]
    if number % 4 == 3:
        return rest[0][0]
    if not rest:
        return len(octets)
    return rest[0][0] - 1 if rest[0][1] != "=" else rest[1][0]


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(f"json: cannot unmarshal number {text[:40]} into Go value of type float64")
    return value


def _refuse_constant(name: str) -> float:
    raise ValueError(
        f"invalid character '{name.lstrip('-')[0]}' "
        + ("in numeric literal" if name.startswith("-") else "looking for beginning of value")
    )


def _go_words(error: json.JSONDecodeError, text: str) -> str:
    if error.pos >= len(text.rstrip(" \t\r\n")) or error.msg.startswith("Unterminated string"):
        return "unexpected end of JSON input"
    words = next((go for python, go in _GO_WORDS if error.msg.startswith(python)), "")
    if error.msg.startswith("Expecting ','"):
        words = "after object key:value pair or array element"
    at = error.pos + (error.msg.startswith("Invalid \\escape"))
    return f"invalid character {text[at]!a} {words}" if words else error.msg
