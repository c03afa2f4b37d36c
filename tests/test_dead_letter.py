from __future__ import annotations

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.dead_letter import decode_line, encode_line, without_error
from wellhead.errors import DecodeError
from wellhead.event import CloudEvent

ERROR: Final[dict[str, str | int]] = {
    "knativeerrordest": "http://sink",
    "knativeerrorcode": 422,
    "knativeerrordata": "bm8=",
}
PRETTY: Final = b'{\n  "a": 1\n}'
TEXTS: Final = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), max_size=12)
DATA: Final = (
    st.none() | st.binary(max_size=40) | st.sampled_from([PRETTY, b" 1 ", b'{"a":1}', b'"x"', b"a\nb", b"\xff"])
)
TYPES: Final = st.sampled_from([None, "application/json", "text/plain", "application/vnd.x+json", "image/png"])


@given(
    data=DATA,
    datacontenttype=TYPES,
    extensions=st.dictionaries(st.sampled_from(["a", "b"]), TEXTS),
    base64=st.booleans(),
)
def test_a_line_is_one_line_and_brings_the_event_back_byte_for_byte(
    data: bytes | None, datacontenttype: str | None, *, extensions: dict[str, str], base64: bool
) -> None:
    event = CloudEvent(
        id="1", source="/spring", type="drop", time="2026-01-01T00:00:00.123456789Z", data=data,
        datacontenttype=datacontenttype, extensions={**extensions, **ERROR}, data_base64=base64,
    )  # fmt: skip
    line = encode_line(event)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    back = decode_line(line)
    assert (back.data, back.datacontenttype, back.time) == (data, datacontenttype, event.time)
    assert dict(back.extensions) == dict(event.extensions)


def test_what_made_it_a_dead_letter_comes_off_and_the_rest_stays() -> None:
    event = CloudEvent(id="1", source="/spring", type="drop", extensions={"a": "b"})
    dead = CloudEvent(id="1", source="/spring", type="drop", extensions={"a": "b", **ERROR})
    assert without_error(dead) == event
    assert without_error(event) is event


@pytest.mark.parametrize("line", [b"\n", b"{}\n", b'{"id":"1","sour', b"\0\0\0\n", b"[]\n", b"\xff\n"])
def test_a_line_that_is_no_event_is_told(line: bytes) -> None:
    with pytest.raises(DecodeError):
        decode_line(line)
