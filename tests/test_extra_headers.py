from __future__ import annotations

import json
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.errors import ConfigError
from wellhead.extra_headers import extra_headers

SECRET: Final = "hunter2"
NAMES: Final = st.from_regex(r"X-[A-Za-z0-9!#$%&'*+.^_`|~-]{1,20}", fullmatch=True)
VALUES: Final = st.from_regex(r"[!-~]([ -~\t]{0,20}[!-~])?", fullmatch=True)


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as wrong:
        extra_headers(text)
    return list(map(str, wrong.value.problems))


@pytest.mark.parametrize("text", ["", "\n\n", "# nothing\r\n", "{}", "  {} "])
def test_there_may_be_none(text: str) -> None:
    assert extra_headers(text) == ()


def test_they_are_lines() -> None:
    text = "# for the gateway\r\nX-Api-Key:\tk:e y \r\n\nAuthorization: Splunk abc"
    assert extra_headers(text) == (("X-Api-Key", "k:e y"), ("Authorization", "Splunk abc"))


def test_or_a_json_object() -> None:
    assert extra_headers('\n{"X-Api-Key": "k", "b": "c"}') == (("X-Api-Key", "k"), ("b", "c"))


@given(st.dictionaries(NAMES, VALUES).filter(lambda all_: len({name.lower() for name in all_}) == len(all_)))
def test_both_forms_say_the_same(headers: dict[str, str]) -> None:
    lines = "\n".join(f"{name}: {value}" for name, value in headers.items())
    assert extra_headers(lines) == tuple(headers.items()) == extra_headers(json.dumps(headers))


@pytest.mark.parametrize(
    "name",
    ["ce-id", "Ce-MyExtension", "content-type", "Content-Length", "CONTENT-ENCODING", "Host", "Transfer-Encoding",
     "connection", "te", "upgrade", "expect", "user-agent", "kn-namespace", "traceparent"],
)  # fmt: skip
def test_what_the_event_and_the_connection_need_cannot_be_replaced(name: str) -> None:
    assert problems(f"{name}: {SECRET}") == [f"line 1: gives {name}, which is Wellhead's own to send"]


def test_every_wrong_line_is_told_by_its_number_and_none_is_shown() -> None:
    text = f"X-Fine: a\n{SECRET}\n: {SECRET}\nX y: {SECRET}\nX-Empty:\nX-Text: {SECRET}é\nx-fine: {SECRET}"
    no_name = "is not Name: value, with a name that HTTP allows"
    assert problems(text) == [
        f"line 2: {no_name}",
        f"line 3: {no_name}",
        f"line 4: {no_name}",
        "line 5: gives X-Empty no value",
        "line 6: gives X-Text a value that no header can hold: a string of printable ASCII, 16384 characters at most",
        "line 7: gives x-fine a second time",
    ]


@pytest.mark.parametrize("value", [5, None, ["a"], {"a": "b"}, f"a\r\nce-id: {SECRET}", f"{SECRET}\0", " a", "a "])
def test_a_json_value_that_no_header_can_hold_is_told_without_it(value: object) -> None:
    (problem,) = problems(json.dumps({"X-Fine": "a", "X-Key": value}))
    assert problem.startswith("header 2: gives X-Key a value that no header can hold")


@pytest.mark.parametrize("text", [f"{{{SECRET}", '{"a": ', '{"a":"b"} x', "{" * 100_000])
def test_what_begins_as_json_is_json(text: str) -> None:
    assert problems(text) == ["headers: begin with { and are not JSON"]


def test_a_name_given_twice_in_json_is_told() -> None:
    assert problems('{"X-a": "1", "x-A": "2"}') == ["header 2: gives x-A a second time"]


@given(st.text())
def test_no_text_becomes_a_header_that_could_break_a_request(text: str) -> None:
    try:
        headers = extra_headers(text)
    except ConfigError:
        return
    for name, value in headers:
        assert (name + value).isascii()
        assert not set(name + value) & set("\r\n\0")
