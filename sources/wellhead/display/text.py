"""The text in which Knative's event_display prints an event, byte for byte. Pure: it prints nothing itself.

The Go SDK makes that text (``event.Event.String``) with Go's ``encoding/json`` and ``net/url``: the rules are theirs.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from wellhead.event import utc_text

if TYPE_CHECKING:
    from wellhead.event import CloudEvent, ExtensionValue

_BANNER: Final = "☁️  cloudevents.Event\nContext Attributes,\n"
_ENCODING_03: Final = "datacontentencoding"  # an attribute of CloudEvents 0.3, to us an extension

# Indentation is quadratic in depth: 20 KB of brackets become 200 MB. JSON that would grow beyond four times its
# length and this is printed as it came.
_GROWTH: Final = 16 << 20
_MAX_DEPTH: Final = 10_000  # maxNestingDepth in encoding/json/scanner.go

# JSON as encoding/json/scanner.go takes it: control characters may not stand in a string, octets that are not UTF-8
# may. One match is a value with its key and its comma, an opening, a closing, the end, or (no group) none of these.
_SPACE: Final = rb"[ \t\r\n]*+"
_STRING: Final = rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*+"'
_NUMBER: Final = rb"-?(?:0|[1-9][0-9]*+)(?:\.[0-9]++)?(?:[eE][+-]?[0-9]++)?"
_TOKEN: Final = re.compile(
    rb"S(?:(?:(T)S:S)?(?:(?:(T|N|true|false|null)|(\{S\}|\[S\]))(?:S(,))?|([{\[]))|([}\]])(?:S(,))?|(\Z)|.)"
    .replace(b"S", _SPACE).replace(b"T", _STRING).replace(b"N", _NUMBER),
    re.DOTALL,
)  # fmt: skip

# What Go's url.Parse and String leave as it is, the usual sources; the others go through `_respelled`.
_SAME_IN_GO: Final = re.compile(
    r"(?:[a-z][a-z0-9+.-]*:(?://[A-Za-z0-9_.~-]+(?::[0-9]*)?(?=[/?#]|\Z)|(?!//))|(?=/(?!/)))[!\"$-~]*(?:#[!\"$-~]+)?"
)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# What net/url leaves unescaped beside letters, digits and "-._~" (its encoding_table.go).
_PATH, _FRAGMENT, _USERINFO, _HOST = "$&+,/:;=@", "!$&()*+,/:;=?@", "$&+,;=", "!\"$&'()*+,:;<=>[]"


def event_text(event: CloudEvent) -> bytes:
    """``event`` as event_display prints it: banner, attributes, extensions by name, data. It ends with a newline."""
    head = (_attributes(event) + _extensions(event)).encode()
    if event.data is None:
        return head
    label = b"Data (binary),\n  " if event.data_base64 else b"Data,\n  "
    return head + label + _data(event, event.data) + b"\n"


def indent_json(data: bytes, prefix: bytes = b"  ", step: bytes = b"  ", *, limit: int | None = None) -> bytes | None:
    """``data`` laid out as Go's ``json.Indent`` does it, or None where Go says that it is not JSON.

    Tokens keep their order and spelling (digits, escapes). Empty objects and arrays are closed up. White space is
    dropped before the value and kept behind it. None as well where the result would exceed ``limit`` bytes.
    """
    layout = _Layout(prefix, step)
    tokens = _TOKEN.finditer(data)
    while True:  # the end is a token too
        key, scalar, empty, comma, opening, closing, closing_comma, end = next(tokens).groups()
        if scalar is not None:
            fits = layout.value(key, scalar, comma)
        elif closing is not None:
            fits = layout.close(closing, closing_comma)
        elif opening is not None:
            fits = layout.open(key, opening)
        elif empty is not None:
            fits = layout.may_go_deeper and layout.value(key, empty[:1] + empty[-1:], comma)
        else:
            break
        if not fits or (limit is not None and len(layout.out) > limit):
            return None
    if end is None or not layout.is_whole:
        return None
    return bytes(layout.out) + data[len(data.rstrip(b" \t\r\n")) :]


def go_uri(text: str) -> str:
    """A URI-reference as it comes out of Go's ``url.Parse`` and ``String``."""
    return text if _SAME_IN_GO.fullmatch(text) else _respelled(text)


class _Layout:
    """Lines up one token after another as ``json.Indent`` does; a method answers False where its token cannot stand."""

    __slots__ = ("_closer", "_newline", "_outer", "_step", "_value_next", "out")

    def __init__(self, prefix: bytes, step: bytes) -> None:
        self.out = bytearray()
        self._newline = b"\n" + prefix
        self._step = step
        self._closer = b""  # what ends the innermost object or array; empty around the whole value
        self._outer: list[bytes] = []  # the closers of those around it
        self._value_next = True

    @property
    def is_whole(self) -> bool:
        return not self._outer and not self._value_next

    @property
    def may_go_deeper(self) -> bool:
        return len(self._outer) < _MAX_DEPTH

    def value(self, key: bytes | None, text: bytes, comma: bytes | None) -> bool:
        return self._begin(key, text) and self._end(comma)

    def open(self, key: bytes | None, opening: bytes) -> bool:
        if not (self.may_go_deeper and self._begin(key, opening)):
            return False
        self._outer.append(self._closer)
        self._closer = b"}" if opening == b"{" else b"]"
        self._newline += self._step
        return True

    def close(self, closing: bytes, comma: bytes | None) -> bool:
        if self._value_next or closing != self._closer:
            return False
        self._closer = self._outer.pop()
        self._newline = self._newline[: len(self._newline) - len(self._step)]
        self.out += self._newline + closing
        return self._end(comma)

    def _begin(self, key: bytes | None, text: bytes) -> bool:
        if not self._value_next or (key is not None) is not (self._closer == b"}"):
            return False
        if self._closer:
            self.out += self._newline
        self.out += text if key is None else key + b": " + text
        return True

    def _end(self, comma: bytes | None) -> bool:
        self._value_next = comma is not None
        if comma is not None:
            self.out += comma
        return comma is None or self._closer != b""


def _attributes(event: CloudEvent) -> str:
    text = f"{_BANNER}  specversion: {event.specversion}\n  type: {event.type}\n  source: {go_uri(event.source)}\n"
    if event.subject is not None:
        text += f"  subject: {event.subject}\n"
    text += f"  id: {event.id}\n"
    if event.time is not None:
        text += f"  time: {_go_time(event.time)}\n"
    if event.dataschema is not None:
        text += f"  {'schemaurl' if event.specversion == '0.3' else 'dataschema'}: {go_uri(event.dataschema)}\n"
    if event.datacontenttype is not None:
        text += f"  datacontenttype: {event.datacontenttype}\n"
    if event.specversion == "0.3" and _ENCODING_03 in event.extensions:
        text += f"  {_ENCODING_03}: {_go_value(event.extensions[_ENCODING_03])}\n"
    return text


def _extensions(event: CloudEvent) -> str:
    attribute = _ENCODING_03 if event.specversion == "0.3" else None
    lines = [
        f"  {name}: {_go_value(event.extensions[name])}\n" for name in sorted(event.extensions) if name != attribute
    ]
    return "Extensions,\n" + "".join(lines) if lines else ""


def _go_time(time: str) -> str:
    is_final = time[-1] == "Z" and (len(time) == len("2006-01-02T15:04:05Z") or time[-2] != "0")
    return time if is_final else utc_text(time)


def _go_value(value: ExtensionValue) -> str:
    """``value`` as Go's ``%v`` prints it."""
    if isinstance(value, bytes):
        return f"[{' '.join(map(str, value))}]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _data(event: CloudEvent, data: bytes) -> bytes:
    # As Go does it: the case of the media type counts, and application/vnd.x+json is not indented.
    if (event.datacontenttype or "").partition(";")[0].strip() != "application/json":
        return data
    laid_out = indent_json(data, limit=4 * len(data) + _GROWTH)
    return data if laid_out is None else laid_out


def _respelled(text: str) -> str:
    text, _, fragment = text.partition("#")
    text, mark, query = text.partition("?")
    scheme = _SCHEME.match(text)
    prefix = scheme[0].lower() if scheme else ""
    rest = text[len(prefix) :]
    # After a scheme, what has no slash at its beginning is opaque to Go.
    middle = rest if prefix and not rest.startswith("/") else _authority_and_path(prefix, rest)
    if fragment:  # an empty one is dropped
        fragment = "#" + (fragment if _is_plain(fragment) else _escape(fragment, _FRAGMENT))
    return prefix + middle + mark + query + fragment


def _authority_and_path(scheme: str, rest: str) -> str:
    authority = ""
    if rest.startswith("//") and (scheme or not rest.startswith("///")):
        named, slash, path = rest[2:].partition("/")
        rest = slash + path
        userinfo, at, host = named.rpartition("@")
        user, colon, password = userinfo.partition(":")
        authority = _escape(user, _USERINFO) + colon + _escape(password, _USERINFO) + at + _escape(host, _HOST)
        if authority or (scheme and rest):
            authority = "//" + authority
    path = rest if _is_plain(rest) else _escape(rest, _PATH)
    # RFC 3986, 4.2: a colon in the first segment would be read as a scheme; unescaping may have brought one.
    needs_dot = not scheme and not authority and ":" in path.partition("/")[0]
    return authority + ("./" if needs_dot else "") + path


def _is_plain(part: str) -> bool:
    return part.isascii() and "#" not in part


def _escape(part: str, safe: str) -> str:
    from urllib.parse import quote, unquote_to_bytes  # noqa: PLC0415 - costs 3 ms; hardly any source needs it

    return quote(unquote_to_bytes(part), safe)
