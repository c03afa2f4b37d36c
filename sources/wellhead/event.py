"""CloudEvent: one event as a value that cannot be built invalid. Knows no wire format and does no I/O."""

from __future__ import annotations

import hashlib
import random
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeAlias, TypeVar, final

from .errors import InvalidEvent, Problem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cloudevents.core.v1.event import CloudEvent as SdkEvent

T = TypeVar("T")
ExtensionValue: TypeAlias = str | bool | int | bytes
"""An extension's value. URIs and timestamps are their text. Integers have 32 bits (CloudEvents 1.0.2, 3.1)."""

SPEC_ATTRIBUTES = ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
RESERVED_NAMES = frozenset((*SPEC_ATTRIBUTES, "data", "data_base64"))

# CloudEvents 1.0.2, 3.1 "String": no C0 and C1 controls, no surrogates, no noncharacters.
_FORBIDDEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef"
    + "".join(chr(plane * 0x10000 + low) for plane in range(17) for low in (0xFFFE, 0xFFFF))
    + "]"
)
# RFC 3986 with what every URI library forbids left out. Non-ASCII is let through: Go and Java read it as an IRI.
_URI_REFERENCE = re.compile(r"(?:[^\x00-\x20\x7f\"<>\\^`{|}%]++|%[0-9A-Fa-f]{2})+")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
# RFC 3986, 4.2: a relative reference's first segment holds no colon, else it would be read as a scheme.
_BAD_FIRST_SEGMENT = re.compile(r"(?![A-Za-z][A-Za-z0-9+.-]*:)[^/?#]*:")
_BAD_PORT = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*:)?//[^/?#]*:(?![0-9]*(?:[/?#]|$))[^\]/?#@]*(?:[/?#]|$)")
# RFC 7230's token.
_WORD = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_MEDIA_TYPE = re.compile(rf'{_WORD}/{_WORD}(?:[ \t]*;[ \t]*{_WORD}=(?:{_WORD}|"(?:[ !#-\[\]-~]|\\[ -~])*"))*[ \t]*;?')
_EXTENSION_NAME = re.compile(r"[a-z0-9]+")
# RFC 3339 without lower-case t and z and without the leap second :60, at which Go receivers answer 500 for ever.
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):\d\d:[0-5]\d)(?:\.(\d{1,9}))?(Z|[+-](?:[01]\d|2[0-3]):[0-5]\d)", re.ASCII
)
# Of these every one is a date, which spares the usual one the calendar.
_PLAIN_TIME = re.compile(
    r"[1-9]\d{3}-(?:(?:0[1-9]|1[0-2])-(?:0[1-9]|1\d|2[0-8])|(?:0[13-9]|1[0-2])-(?:29|30)|(?:0[13578]|1[02])-31)"
    r"T(?:[01]\d|2[0-3]):[0-5]\d:[0-5]\d(?:\.\d{1,9})?Z",
    re.ASCII,
)
_REMEMBERED = 512  # characters; what strangers send must not fill our memory
_NO_EXTENSIONS: Mapping[str, ExtensionValue] = MappingProxyType({})
_SOURCES = 1024
_valid: set[tuple[str, str, str | None]] = set()
"""Sources, types and media types that were found valid: short ones, and not many."""
_plain_time: list[str | None] = [None]
"""The newest time that was found to be one: events of the same instant often have the same text."""
_names: set[str] = set()
"""Names of extensions, likewise."""
_VARIANT = {digit: "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}  # RFC 9562, 4.1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class _Unfrozen:
    """A `CloudEvent` while its attributes are put in place: for as long as its ``__init__`` takes.

    A frozen dataclass's own way, `object.__setattr__` for each attribute, costs as much as all the rest of an event.
    """

    __slots__ = (*SPEC_ATTRIBUTES, "data", "data_base64", "extensions", "lines", "plain")
    id: str
    source: str
    type: str
    specversion: str
    subject: str | None
    time: str | None
    datacontenttype: str | None
    dataschema: str | None
    extensions: Mapping[str, ExtensionValue]
    data: bytes | None
    data_base64: bool
    lines: bytes | None
    """Its header lines in binary mode, where `wellhead.http_binding.make_ahead` made them."""
    plain: bool
    """Whether id, subject and extensions are printable ASCII: known here, and dear to find out for who writes them."""


@final
@dataclass(frozen=True, slots=True, kw_only=True, init=False)
class CloudEvent(_Unfrozen):
    """An event as CloudEvents 1.0.2 defines it. Building an invalid one raises `InvalidEvent` with every problem.

    Attributes are spelled as in the specification. ``time`` is RFC 3339 text, because other languages write nine
    digits of a second and `datetime` holds six; see `rfc3339`. ``extensions`` is copied and read-only.
    ``data`` is bytes or None; None (no data) and ``b""`` (empty data) are different things.
    ``data_base64`` asks the JSON format to carry the data as ``data_base64`` whatever its media type; decoding
    keeps it, so that an event can be passed on as it came.
    """

    id: str
    source: str
    type: str
    specversion: str = "1.0"
    subject: str | None = None
    time: str | None = None
    datacontenttype: str | None = None
    dataschema: str | None = None
    extensions: Mapping[str, ExtensionValue] = field(default_factory=dict)
    data: bytes | None = None
    data_base64: bool = False

    def __init__(
        self,
        *,
        id: str,  # noqa: A002 - the specification's name
        source: str,
        type: str,  # noqa: A002 - the specification's name
        specversion: str = "1.0",
        subject: str | None = None,
        time: str | None = None,
        datacontenttype: str | None = None,
        dataschema: str | None = None,
        extensions: Mapping[str, ExtensionValue] = _NO_EXTENSIONS,
        data: bytes | None = None,
        data_base64: bool = False,
    ) -> None:
        extensions = MappingProxyType(dict(extensions)) if extensions else _NO_EXTENSIONS
        # Valid at first sight, as nearly all are, in a third of what `_problems` costs, which knows for sure.
        try:
            plain = (
                specversion == "1.0"
                and dataschema is None
                and _is_plain_text(id)
                and ((source, type, datacontenttype) in _valid or _are_valid(source, type, datacontenttype))
                and (subject is None or _is_plain_text(subject))
                and (time is None or time is _plain_time[0] or _is_plain_time(time))
                and (data is None or data.__class__ is bytes)
                and (not extensions or _are_plain(extensions))
            )
        except (TypeError, AttributeError):  # something is no text at all
            plain = False
        object.__setattr__(self, "__class__", _Unfrozen)  # and nothing raises until it is frozen again
        event: _Unfrozen = self
        event.id = id
        event.source = source
        event.type = type
        event.specversion = specversion
        event.subject = subject
        event.time = time
        event.datacontenttype = datacontenttype
        event.dataschema = dataschema
        event.extensions = extensions
        event.data = data
        event.data_base64 = data_base64
        event.lines = None
        event.plain = plain
        event.__class__ = CloudEvent
        if not plain and (problems := tuple(_problems(self))):
            raise InvalidEvent(problems)

    def __hash__(self) -> int:
        # source + id identify an occurrence (CloudEvents 1.0.2, 2.2); equality still compares everything.
        return hash((self.source, self.id))

    def __init_subclass__(cls) -> None:
        raise TypeError("CloudEvent is a value, and final: what an event has beyond it are extensions")

    def __copy__(self) -> CloudEvent:
        return self

    def __deepcopy__(self, _memo: object) -> CloudEvent:
        return self

    def __reduce__(self) -> tuple[Callable[[dict[str, object]], CloudEvent], tuple[dict[str, object]]]:
        values = {name: getattr(self, name) for name in (*SPEC_ATTRIBUTES, "data", "data_base64")}
        return _restored, ({**values, "extensions": dict(self.extensions)},)

    def to_sdk(self) -> SdkEvent:
        """The same event as the CloudEvents SDK's type.

        ``time`` loses what lies below a microsecond, which the SDK's `datetime` cannot hold.
        """
        from ._sdk import to_sdk  # noqa: PLC0415 - the SDK costs 33 ms; few need it

        return to_sdk(self)

    @staticmethod
    def from_sdk(event: SdkEvent) -> CloudEvent:
        """Our value of an SDK event. Raises `InvalidEvent`: the SDK checks less than we do."""
        from ._sdk import from_sdk  # noqa: PLC0415 - the SDK costs 33 ms; few need it

        return from_sdk(event)


def _restored(values: dict[str, object]) -> CloudEvent:
    """A pickled event, built again."""
    return CloudEvent(**values)  # type: ignore[arg-type]  # what an event held


def rfc3339(moment: datetime) -> str:
    """``moment`` as an event's ``time``: UTC, fraction without trailing zeros, as Go's RFC3339Nano writes it.

    Raises ValueError for a naive moment: nobody can say which instant that is.
    """
    if moment.tzinfo is not UTC:
        if moment.tzinfo is None:
            raise ValueError(f"{moment!r} has no time zone, so it names no instant")
        moment = moment.astimezone(UTC)
    text = moment.isoformat()[:-6]  # without +00:00
    return f"{text.rstrip('0')}Z" if moment.microsecond else f"{text}Z"


def rfc3339_of(nanoseconds: int) -> str:
    """The instant so many nanoseconds after 1970 (as `time.time_ns` tells now) as an event's ``time``, none lost.

    A third of what `rfc3339` costs: the events of a second have most of it in common. Raises OverflowError beyond the
    years 1 to 9999.
    """
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return f"{_second(seconds)}.{rest:09d}".rstrip("0") + "Z" if rest else f"{_second(seconds)}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:-6]


def random_id() -> str:
    """An id for an occurrence without an identity of its own: a random UUID (version 4). Unique; no secret."""
    return _uuid(random.getrandbits(128).to_bytes(16, "big").hex(), "4")


def utc_text(time: str) -> str:
    """An event's ``time`` in UTC with all its digits, trailing zeros dropped, as Go prints it."""
    match = _RFC3339.fullmatch(time)
    if match is None:
        raise ValueError(f"{time!r} is not an RFC 3339 timestamp")
    whole, fraction, zone = match.groups(default="")
    fraction = fraction.rstrip("0")
    if zone != "Z":
        whole = datetime.fromisoformat(whole + zone).astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{whole}.{fraction}Z" if fraction else f"{whole}Z"


def stable_id(*parts: str) -> str:
    """An id that is the same for the same parts for ever: in every process, on every try, from every replica.

    The form is a UUID (version 8, RFC 9562 5.8) over SHA-256 of the parts, each with its length before it, so that
    ("ab", "c") and ("a", "bc") differ.
    """
    encoded = (part.encode("utf-8", "surrogatepass") for part in parts)
    digest = hashlib.sha256(b"".join([b"%d:%b" % (len(part), part) for part in encoded])).hexdigest()
    return _uuid(digest, "8")


def _uuid(digits: str, version: str) -> str:
    """The first 32 hexadecimal ``digits`` as a UUID of that version (RFC 9562, 4)."""
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{_VARIANT[digits[16]]}{digits[17:20]}-{digits[20:32]}"


def media_type(datacontenttype: str | None) -> str:
    """The media type without parameters, in lower case; "" for None."""
    return (datacontenttype or "").partition(";")[0].strip().lower()


def is_json(datacontenttype: str | None) -> bool:
    """Whether data of this type is JSON; an absent one is (CloudEvents JSON format 1.0.2, 3.1)."""
    if datacontenttype is None:
        return True
    kind = media_type(datacontenttype)
    return kind in ("application/json", "text/json") or kind.endswith("+json")


def _is_plain_text(text: str) -> bool:
    return text.isascii() and text.isprintable() and not text.isspace() and text != ""


def _is_plain_time(time: str) -> bool:
    if _PLAIN_TIME.fullmatch(time) is None:
        return False
    _plain_time[0] = time
    return True


def _are_plain(extensions: Mapping[str, ExtensionValue]) -> bool:
    # A loop: `all` over a generator costs twice as much, and a Kafka event has four extensions.
    for name, value in extensions.items():
        if type(value) is str:
            if not (value.isascii() and value.isprintable()):
                return False
        elif type(value) is not int or not -(2**31) <= value < 2**31:
            return False
        if name not in _names and not _is_name(name):
            return False
    return True


def _is_name(name: str) -> bool:
    """Whether an extension may have this name; later events find it among `_names`."""
    if len(name) > _REMEMBERED or any(extension_problems(name, "")):
        return False
    _remember(_names, name)
    return True


def _remember(found: set[T], valid: T) -> None:
    if len(found) >= _SOURCES:
        found.clear()
    found.add(valid)


def _are_valid(source: str, kind: str, datacontenttype: str | None) -> bool:
    """What a source's events have in common, looked at once: later ones find it among `_valid`."""
    if any((*_origin_problems(source, kind), *_content_problems(datacontenttype, None))):
        return False
    if len(source) + len(kind) + len(datacontenttype or "") <= _REMEMBERED:
        _remember(_valid, (source, kind, datacontenttype))
    return True


def _problems(event: CloudEvent) -> Iterator[Problem]:
    if event.specversion not in ("1.0", "0.3"):  # 0.3 is still received; nothing of ours sends it
        yield Problem("specversion", f"{event.specversion!r} is not 1.0 or 0.3")
    yield from _text_problems("id", event.id, "MUST be a non-empty string")
    yield from _origin_problems(event.source, event.type)
    if event.subject is not None:
        yield from _text_problems("subject", event.subject, "if present, MUST be a non-empty string")
    if event.time is not None and not _is_rfc3339(event.time):
        yield Problem("time", f"{_short(event.time)} is not an RFC 3339 timestamp")
    yield from _content_problems(event.datacontenttype, event.dataschema)
    for name, value in event.extensions.items():
        yield from extension_problems(name, value)
    if event.data is not None and type(event.data) is not bytes:
        yield Problem("data", f"is {type(event.data).__name__}, not bytes; encode it first")


def _origin_problems(source: str, kind: str) -> Iterator[Problem]:
    yield from _text_problems("source", source, "REQUIRED")
    if source and _uri_problem(source):
        yield Problem("source", f"{_short(source)} is not a URI-reference")
    yield from _text_problems("type", kind, "MUST be a non-empty string")


def _content_problems(datacontenttype: str | None, dataschema: str | None) -> Iterator[Problem]:
    if datacontenttype is not None and not _matches(_MEDIA_TYPE, datacontenttype):
        yield Problem("datacontenttype", f"{_short(datacontenttype)} is not a media type (RFC 2046)")
    if dataschema is not None and (_uri_problem(dataschema) or not _SCHEME.match(dataschema)):
        yield Problem("dataschema", f"{_short(dataschema)} is not an absolute URI")


def extension_problems(name: str, value: ExtensionValue) -> Iterator[Problem]:
    """What CloudEvents 1.0.2 (3.1, "Extension Context Attributes") has against this extension."""
    if not _matches(_EXTENSION_NAME, name):
        yield Problem(_short(name), "an extension's name consists of a-z and 0-9 only")
    elif name in RESERVED_NAMES:
        yield Problem(name, "is an attribute of CloudEvents itself and cannot be an extension")
    if isinstance(value, str):
        if _has_forbidden(value):
            yield Problem(_short(name), f"{_short(value)} holds a control character or half a surrogate pair")
    elif isinstance(value, bool | bytes):
        return
    elif not isinstance(value, int):
        yield Problem(_short(name), f"is {type(value).__name__}; an extension is str, bool, int or bytes")
    elif not -(2**31) <= value < 2**31:
        yield Problem(name, f"{value} does not fit the 32 bits of a CloudEvents integer")


def _text_problems(name: str, value: str, rule: str) -> Iterator[Problem]:
    if not isinstance(value, str) or not value or value.isspace():
        yield Problem(name, rule)
    elif _has_forbidden(value):
        yield Problem(name, f"{_short(value)} holds a control character or half a surrogate pair")


def _has_forbidden(text: str) -> bool:
    # Printable ASCII, the usual case, holds none of them, and is told in a tenth of the time.
    return not (text.isascii() and text.isprintable()) and _FORBIDDEN.search(text) is not None


def _matches(pattern: re.Pattern[str], value: object) -> bool:
    return isinstance(value, str) and pattern.fullmatch(value) is not None


def _uri_problem(text: object) -> bool:
    return (
        not isinstance(text, str)
        or _URI_REFERENCE.fullmatch(text) is None
        or _BAD_FIRST_SEGMENT.match(text) is not None
        or _BAD_PORT.match(text) is not None
    )


def _is_rfc3339(text: object) -> bool:
    match = _RFC3339.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        return False
    try:  # the calendar: no 30 February, no year 0, and UTC must stay within the years 1 to 9999
        datetime.fromisoformat(match[1] + match[3]).astimezone(UTC)
    except (ValueError, OverflowError):
        return False
    return True


def _short(value: object, limit: int = 80) -> str:
    text = ascii(value) if isinstance(value, str) else repr(value)
    return text if len(text) <= limit else f"{text[:limit]}… ({len(text)} characters)"
