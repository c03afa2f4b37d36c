"""Lines that ``wellhead produce`` writes as records, and what it says of those it does not."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead_adapters.cli.command import main
from wellhead_adapters.kafka.lines import NewRecord, header, jsonl, keyed, plain

if TYPE_CHECKING:
    from pathlib import Path

HEADERS = (("content-type", b"text/plain"),)


@given(st.binary())
def test_a_plain_line_is_the_value_as_it_stands(line: bytes) -> None:
    assert plain(b"k", HEADERS)(line) == NewRecord(key=b"k", value=line, headers=HEADERS)


@pytest.mark.parametrize(
    ("line", "key", "value"), [(b"k:v", b"k", b"v"), (b":v", b"", b"v"), (b"k:", b"k", b""), (b"k:a:b", b"k", b"a:b")]
)
def test_a_keyed_line_ends_its_key_at_the_first_separator(line: bytes, key: bytes, value: bytes) -> None:
    assert keyed(b":", ())(line) == NewRecord(key=key, value=value)


def test_a_keyed_line_without_separator_is_wrong() -> None:
    with pytest.raises(ValueError, match="holds no '=>' between key and value"):
        keyed(b"=>", ())(b"k:v")


@pytest.mark.parametrize(
    ("said", "record"),
    [
        ({"value": "v"}, NewRecord(key=b"all", value=b"v")),
        ({"key": None, "value": "v"}, NewRecord(key=None, value=b"v")),
        ({"key": "é", "value": {"a": [1, None]}}, NewRecord(key="é".encode(), value=b'{"a":[1,null]}')),
        ({"key": 1, "value": None}, NewRecord(key=b"1", value=None)),
        ({"key": "tombstone"}, NewRecord(key=b"tombstone")),
        (
            {"value": "", "headers": {"a": "b", "n": None, "o": {"x": 1}}},
            NewRecord(key=b"all", value=b"", headers=(("a", b"b"), ("n", None), ("o", b'{"x":1}'))),
        ),
    ],
)
def test_a_line_of_json_says_key_value_and_headers(said: object, record: NewRecord) -> None:
    assert jsonl(b"all", ())(json.dumps(said).encode()) == record


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"\xff", "is not JSON"),
        (b"[]", "is not an object like"),
        (b'{"val":1}', "has 'val', and known are key, value, headers"),
        (b'{"headers":[]}', "has neither key nor value"),
        (b'{"value":1,"headers":["a"]}', "has headers that are no object"),
        (b"{}", "has neither key nor value"),
        (b'{"value":"\\ud800"}', "half of a surrogate pair"),
    ],
)
def test_what_a_line_of_json_may_not_be(line: bytes, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        jsonl(None, ())(line)


@given(st.binary(max_size=60))
def test_any_octets_are_a_record_or_a_value_error(line: bytes) -> None:
    try:
        record = jsonl(None, ())(line)
    except ValueError:
        return
    assert record.key is not None or record.value is not None


def test_a_header_is_a_name_and_a_value() -> None:
    assert header("a=b=c") == ("a", b"b=c")
    assert header("a=") == ("a", b"")
    for wrong in ("a", "=b", ""):
        with pytest.raises(ValueError, match="is not NAME=VALUE"):
            header(wrong)


def test_all_that_is_wrong_with_a_call_is_told_at_once(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("KAFKA_")]:
        monkeypatch.delenv(name)
    missing = str(tmp_path / "missing")
    words = ("--key", "k", "--key-separator", ":", "--header", "x", "--create", "0", "--bootstrap-servers", "a:b")
    assert main(["produce", *words, "--topic", "t", missing]) == 2
    assert capsys.readouterr().err.splitlines()[1:] == [
        "  --header: 'x' is not NAME=VALUE",
        "  --create: '0' is not a whole number from 1 to 10000",
        "  --key, --key-separator, --jsonl: say in two ways what a line is",
        "  --bootstrap-servers: 'a:b' is no list of brokers: 'a:b' is not host:port",
        f"  {missing}: is no file",
    ]
