"""Events to try on real peers: listed ones, one for each thing that is easily got wrong, and generated ones."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Final

from hypothesis import reject
from hypothesis import strategies as st

from wellhead.display.text import go_uri
from wellhead.errors import InvalidEvent
from wellhead.event import CloudEvent

_LEAST: Final = {"id": "1", "source": "/s", "type": "t"}
_JSON: Final = "application/json"


def _event(**attributes: object) -> CloudEvent:
    return CloudEvent(**{**_LEAST, **attributes})  # type: ignore[arg-type]  # the rows below are right, or it raises


LISTED: Final = {
    "least": _event(),
    "all attributes": _event(
        subject="sub", time="2020-01-02T03:04:05.123456789Z", dataschema="http://x/y", datacontenttype=_JSON, data=b"{}"
    ),
    "time with an offset": _event(time="2020-01-02T03:04:05.10+02:00"),
    "the end of time": _event(time="9999-12-31T23:59:59.999999999Z"),
    "extensions of every type": _event(extensions={"b": True, "a": "x", "c": -(2**31), "d": b"\x00\xff", "e": ""}),
    "blanks and quotes": _event(subject='a "b" c', extensions={"q": '"whole"', "s": "a  b"}),
    "blanks at the ends": _event(subject=" a", extensions={"x": "b "}),
    "percent signs": _event(subject="100%", extensions={"p": "%41"}),
    "not ASCII": _event(id="é☁️", subject="日本", extensions={"x": "ü"}),
    "a source of parts": _event(source="https://user@example.com:8443/a%20b/c?d=e&f#g/h"),
    "a source that is a urn": _event(source="urn:uuid:6e8bc430-9c3a-11d9-9669-0800200c9a66"),
    "a source that is a name": _event(source="a/b"),
    "nested JSON": _event(datacontenttype=_JSON, data=b'{"b":[1,{"a":[]},{}],"a":1.50,"c":"\\u003c<"}'),
    "JSON with a charset": _event(datacontenttype="application/json; charset=utf-8", data=b"[1]"),
    "JSON that is none": _event(datacontenttype=_JSON, data=b"{nonsense"),
    "JSON null of another type": _event(datacontenttype="application/vnd.x+json", data=b"null"),
    "JSON of another type": _event(datacontenttype="application/vnd.x+json", data=b'{"a":1}'),
    "JSON, a single string": _event(datacontenttype=_JSON, data=b'"x"'),
    "text of lines": _event(datacontenttype="text/plain", data="one\ntwo\r\n☁".encode()),
    "XML": _event(datacontenttype="application/xml", data=b"<a>1</a>"),
    "octets": _event(datacontenttype="application/octet-stream", data=bytes(range(256))),
    "data of no type": _event(data=b'{"a":1}'),
    "empty data": _event(datacontenttype="text/plain", data=b""),
    "large": _event(datacontenttype="text/plain", data=b"x" * (1 << 19)),
}

_TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=20)
_ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), min_size=1, max_size=20)
_REFERENCE = st.text("abZ09-._~:/?#@!$&'()*+,;=", min_size=1, max_size=20)
_JSON_VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=8,
)
_FIRST, _LAST = datetime.fromisoformat("0001-01-02"), datetime.fromisoformat("9999-12-30")
_TIME = st.builds(
    lambda moment, digits, zone: f"{moment:%Y-%m-%dT%H:%M:%S}{digits}{zone}".rjust(20, "0"),
    st.datetimes(min_value=_FIRST, max_value=_LAST),
    st.from_regex(r"(\.[0-9]{1,9})?", fullmatch=True),
    st.sampled_from(("Z", "+00:00", "-11:30", "+14:00")),
)
_DATA = st.one_of(
    st.tuples(st.none(), st.none()),
    st.tuples(
        st.sampled_from((_JSON, "application/json;charset=utf-8", "text/json", "application/x+json")),
        st.builds(lambda value: json.dumps(value).encode(), _JSON_VALUE),
    ),
    st.tuples(st.sampled_from(("text/plain", "application/octet-stream", None)), st.binary(max_size=40)),
    st.tuples(st.just(_JSON), _TEXT.map(str.encode)),
)


@st.composite
def events(draw: st.DrawFn) -> CloudEvent:
    """Any valid event that ours could send."""
    datacontenttype, data = draw(_DATA)
    source = draw(_REFERENCE | st.sampled_from(("/s", "https://example.com/a?b#c", "urn:a:b")))
    if not go_uri(source):
        reject()  # "#" is a URI-reference, and to Go an empty one: it answers 400, so the event is refused
    names = st.text("abcxyz019", min_size=1, max_size=8)
    values = _TEXT | _ASCII | st.booleans() | st.integers(-(2**31), 2**31 - 1) | st.binary(max_size=8)
    try:
        return CloudEvent(
            id=draw(_TEXT | _ASCII),
            source=source,
            type=draw(_TEXT | _ASCII),
            subject=draw(st.none() | _TEXT | _ASCII),
            time=draw(st.none() | _TIME),
            dataschema=draw(st.none() | st.just("http://example.com/schema?a=b")),
            datacontenttype=datacontenttype,
            data=data,
            extensions=draw(st.dictionaries(names, values, max_size=4)),
        )
    except InvalidEvent:
        reject()
