from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.env import Collector, parse_flags, read, settings
from wellhead.errors import ConfigError
from wellhead_adapters.heartbeat.config import EVENT_TYPE, HeartbeatConfig, go_unquote, label
from wellhead_adapters.heartbeat.events import beat

POD: Final = {"POD_NAME": "mypod", "POD_NAMESPACE": "myns"}
NOW: Final = datetime(2026, 11, 21, 2, 49, 14, 190986, tzinfo=UTC)
SURROGATE: Final = "\udcff"  # how Python hands on the octet 0xFF of an argument

# What Go's strconv.Unquote says (recorded by running it); "" also where it fails.
GO_UNQUOTE: Final = (
    ('"', ""), ('""', ""), ('"abc"', "abc"), ('"la\\"bel"', 'la"bel'), ('"a\\nb"', "a\nb"),
    ('"\\a\\b\\f\\r\\t\\v\\\\"', "\a\b\f\r\t\v\\"), ('"\\x41"', "A"), ('"\\xff"', "\ufffd"), ('"\\xc3\\xa9"', "é"),
    ('"\\u00e9"', "é"), ('"\\U0001f600"', "😀"), ('"\\101"', "A"), ('"\\377"', "\ufffd"), ('"\\400"', ""), ('"\\18"', ""),
    ('"\\ud800"', ""), ('"\\U00110000"', ""), ('"\\\'"', ""), ('"a"b"', ""), ('"abc', ""), ('"a\nb"', ""), ('"\\q"', ""),
    ('"\\x4"', ""), ('"\\u12"', ""), (f'"{SURROGATE}"', "\ufffd"), (f'"{SURROGATE}\\n"', "\ufffd\n"), ('"é"', "é"),
    ('"a`b"', "a`b"), ('"\\"', ""), ('"\\\\"', "\\"), ('"\\\\\\""', '\\"'), ('"a\x00b"', "a\x00b"), ('"a\rb"', "a\rb"),
    ('"x\\ny\\tz"', "x\ny\tz"), ("", ""),
)  # fmt: skip


def config(*arguments: str, **env: str) -> HeartbeatConfig:
    return read(HeartbeatConfig, {**POD, **env}, parse_flags(arguments, settings(HeartbeatConfig)))


def problems(env: dict[str, str], *arguments: str) -> list[str]:
    collector = Collector(env, parse_flags(arguments, settings(HeartbeatConfig)), environment_wins=True)
    collector.read(HeartbeatConfig)
    with pytest.raises(ConfigError) as caught:
        collector.check()
    return list(map(str, caught.value.problems))


# --- One beat


def test_a_beat_is_what_knatives_heartbeats_sends_byte_for_byte() -> None:
    # contract/core.md, appendix A: captured from ONE_SHOT=true --label='"la\"bel"' --msg="hello <&> é".
    made = beat(config('--label="la\\"bel"', "--msg", "hello <&> é"), 1, NOW)
    assert made.data == '{"id":1,"label":"la\\"bel","msg":"hello \\u003c\\u0026\\u003e é"}'.encode()
    assert (made.type, made.source) == (EVENT_TYPE, "https://knative.dev/eventing-contrib/cmd/heartbeats/#myns/mypod")
    assert (made.time, made.datacontenttype) == ("2026-11-21T02:49:14.190986Z", "application/json")
    assert (made.subject, made.dataschema) == (None, None)
    assert dict(made.extensions) == {"the": 42, "heart": "yes", "beats": True}


def test_each_beat_has_an_id_of_its_own() -> None:
    first, second = (beat(config(), 1, NOW) for _ in range(2))
    assert first.id != second.id


def test_without_a_message_data_has_none() -> None:
    assert beat(config(), 7, NOW).data == b'{"id":7,"label":""}'


# What Go's encoding/json writes for these (recorded by running it).
@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("\a\b\f\r\t\v\n", "\\u0007\\b\\f\\r\\t\\u000b\\n"),
        ("\x00\x1f\x7f", "\\u0000\\u001f\x7f"),
        ("\u2028\u2029", "\\u2028\\u2029"),
        ('"\\/', '\\"\\\\/'),
        ("é日😀", "é日😀"),
        (f"a{SURROGATE}b", "a\ufffdb"),
    ],
    ids=ascii,
)
def test_text_is_escaped_as_go_escapes_json(text: str, written: str) -> None:
    assert beat(config("--msg", text), 1, NOW).data == f'{{"id":1,"label":"","msg":"{written}"}}'.encode()


@given(message=st.text(min_size=1), number=st.integers(1, 2**40))
def test_any_message_is_told_as_it_was_given(message: str, number: int) -> None:
    data = json.loads(beat(HeartbeatConfig(event_source="/s", msg=message), number, NOW).data or b"")
    assert data == {"id": number, "label": "", "msg": message}


# --- Labels


@pytest.mark.parametrize(("literal", "text"), GO_UNQUOTE, ids=ascii)
def test_a_go_literal_is_unquoted_as_go_does_it(literal: str, text: str) -> None:
    assert go_unquote(literal) == text


@pytest.mark.parametrize(
    ("value", "text"), [("plain", "plain"), ('a"b"', 'a"b"'), ('"a"', "a"), ('"broken', ""), ("", ""), ("\\n", "\\n")]
)
def test_only_a_label_that_begins_with_a_quote_is_a_literal(value: str, text: str) -> None:
    assert label(value) == text


@given(literal=st.text(alphabet='"\\abnxuU01789dfeé\n\udcff', max_size=12))
def test_any_literal_is_unquoted_or_empty_and_is_text_that_utf_8_can_hold(literal: str) -> None:
    go_unquote(f'"{literal}"').encode()


# --- Configuration


def test_the_defaults_are_knatives() -> None:
    made = config()
    assert (made.period, made.label, made.msg, made.event_type, made.one_shot) == (
        timedelta(seconds=5),
        "",
        "",
        EVENT_TYPE,
        False,
    )


@pytest.mark.parametrize(
    ("arguments", "field", "value"),
    [
        (["-period", "2"], "period", timedelta(seconds=2)),
        (["--period=1m30s"], "period", timedelta(seconds=90)),
        (["--period="], "period", timedelta(seconds=5)),
        (["--eventType", "t"], "event_type", "t"),
        (["-eventSource=/s"], "source", "/s"),
        (["--one-shot"], "one_shot", True),
        (["<no value>", "--period=0"], "period", timedelta(seconds=5)),  # Go's flag stops at the first other word
    ],
    ids=lambda value: str(value)[:24],
)
def test_flags_are_knatives(arguments: list[str], field: str, value: object) -> None:
    assert getattr(config(*arguments), field) == value


@pytest.mark.parametrize(("text", "one_shot"), [("true", True), ("1", True), ("F", False), ("", False)])
def test_one_shot_is_what_go_takes_for_true_and_empty_is_unset(text: str, *, one_shot: bool) -> None:
    assert config(ONE_SHOT=text).one_shot is one_shot


def test_a_pod_name_may_be_empty_but_not_missing() -> None:
    assert config(POD_NAME="", POD_NAMESPACE="").source == "https://knative.dev/eventing-contrib/cmd/heartbeats/#/"


RULE: Final = "is not set: the event's source is made from it (or give --eventSource)"
NOT_A_URI: Final = "is not a URI-reference"


@pytest.mark.parametrize(
    ("env", "arguments", "expected"),
    [
        ({}, [], [f"POD_NAME: {RULE}", f"POD_NAMESPACE: {RULE}"]),
        ({"POD_NAME": "a"}, [], [f"POD_NAMESPACE: {RULE}"]),
        (POD, ["--period", "abc"], ["--period: 'abc' is not a duration such as 5s or 1m30s, nor whole seconds"]),
        (POD, ["--period", "0"], ["--period: '0' is not longer than 0"]),
        ({**POD, "ONE_SHOT": "yes"}, [], ["ONE_SHOT: 'yes' is not true or false"]),
        ({"ONE_SHOT": "x"}, ["--period=x"], [
            "--period: 'x' is not a duration such as 5s or 1m30s, nor whole seconds",
            "ONE_SHOT: 'x' is not true or false",
            f"POD_NAME: {RULE}",
            f"POD_NAMESPACE: {RULE}",
        ]),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_every_problem_is_told_at_once(env: dict[str, str], arguments: list[str], expected: list[str]) -> None:
    assert problems(env, *arguments) == expected


@pytest.mark.parametrize(
    ("env", "arguments", "rule"),
    [
        ({}, ["--eventSource=a b"], NOT_A_URI),
        ({"POD_NAME": "a b", "POD_NAMESPACE": "ns"}, [], NOT_A_URI),
        (POD, ["--eventType= "], "MUST be a non-empty string"),
        (POD, ["--eventType=a\n"], "holds a control character"),
    ],
    ids=lambda value: str(value)[:24],
)
def test_a_beat_that_would_be_invalid_is_told_at_start(env: dict[str, Any], arguments: list[str], rule: str) -> None:
    (problem,) = problems(env, *arguments)
    assert rule in problem


def test_with_a_source_given_the_pods_name_is_not_needed() -> None:
    made = read(HeartbeatConfig, {}, parse_flags(["--eventSource", "/s"], settings(HeartbeatConfig)))
    assert beat(made, 1, NOW).source == "/s"
