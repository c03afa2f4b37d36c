from __future__ import annotations

import io
import json
import logging
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.log import JsonLines, LogFormat, LogLevel, TextLines, configure, level_of_logging_config

if TYPE_CHECKING:
    from collections.abc import Iterator

MOMENT: Final = datetime(2026, 1, 2, 3, 4, 5, 678900, tzinfo=UTC)
# What Knative's controllers write (contract/core.md 1).
KNATIVE: Final = '{"zap-logger-config":"{\\"level\\":\\"info\\"}"}'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def record(message: str = "sink is down", level: int = logging.WARNING, **extra: Any) -> logging.LogRecord:
    made = logging.makeLogRecord(
        {"name": "wellhead.sink", "levelno": level, "levelname": logging.getLevelName(level), "msg": message}
    )
    made.created = MOMENT.timestamp()
    vars(made).update(extra)
    return made


def failed() -> logging.LogRecord:
    with pytest.raises(ValueError, match="because") as caught:
        int("because")
    return record(exc_info=(caught.type, caught.value, caught.tb))


@pytest.fixture
def root() -> Iterator[logging.Logger]:
    """The root logger, whose handlers and level are as before afterwards."""
    logger = logging.getLogger()
    handlers, level = logger.handlers[:], logger.level
    yield logger
    logger.handlers[:] = handlers
    logger.setLevel(level)


def test_a_json_line_has_knatives_keys_and_the_fields() -> None:
    assert json.loads(JsonLines().format(record(sink="http://h", tries=3, ok=True))) == {
        "severity": "WARNING",
        "timestamp": "2026-01-02T03:04:05.678Z",
        "logger": "wellhead.sink",
        "message": "sink is down",
        "sink": "http://h",
        "tries": 3,
        "ok": True,
    }


def test_an_exception_is_in_the_line() -> None:
    line = JsonLines().format(failed())
    assert "\n" not in line
    assert json.loads(line)["stacktrace"].endswith("ValueError: invalid literal for int() with base 10: 'because'")
    assert TextLines(colour=False).format(failed()).endswith("base 10: 'because'")


def test_a_field_that_is_no_json_is_its_text() -> None:
    assert json.loads(JsonLines().format(record(path=MOMENT)))["path"] == str(MOMENT)
    assert f'path="{json.dumps(str(MOMENT))[1:-1]}"' in TextLines(colour=False).format(record(path=MOMENT)).replace(
        '\\"', ""
    )


@given(text=st.text(), name=st.text(alphabet="abc", min_size=1, max_size=3))
def test_a_json_line_is_one_line_whatever_it_holds(text: str, name: str) -> None:
    fields: dict[str, Any] = {name: text}
    line = JsonLines().format(record(message=text.replace("%", ""), **fields))
    assert "\n" not in line
    assert json.loads(line)[name] == text


@given(text=st.text())
def test_a_field_in_a_text_line_is_one_line_whatever_it_holds(text: str) -> None:
    line = TextLines(colour=False).format(record(field=text))
    assert len(line.split("\n")) == 1
    shown = line.partition("  field=")[2]
    assert (json.loads(shown) if shown.startswith('"') and shown != text else shown) == text


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({}, "sink is down"),
        ({"sink": "http://h", "tries": 3}, "sink is down  sink=http://h tries=3"),
        ({"last": "a b"}, 'sink is down  last="a b"'),
        ({"last": ""}, 'sink is down  last=""'),
        ({"last": "a\nb\x1b[31m"}, 'sink is down  last="a\\nb\\u001b[31m"'),
        ({"last": None}, "sink is down  last=null"),
    ],
)
def test_a_text_line_reads_like_a_sentence_with_its_fields(fields: dict[str, Any], shown: str) -> None:
    line = TextLines(colour=False).format(record(**fields))
    assert re.fullmatch(r"\d\d:\d\d:05\.678 WARNING " + re.escape(shown), line)


@pytest.mark.parametrize(
    ("level", "coloured"),
    [(logging.INFO, False), (logging.WARNING, True), (logging.ERROR, True), (logging.CRITICAL, True)],
)
def test_warnings_and_errors_are_coloured_on_a_terminal(level: int, *, coloured: bool) -> None:
    assert ("\x1b[" in TextLines(colour=True).format(record(level=level))) is coloured
    assert "\x1b[" not in TextLines(colour=False).format(record(level=level))


@pytest.mark.parametrize(
    ("style", "terminal", "is_json"),
    [
        (LogFormat.AUTO, True, False),
        (LogFormat.AUTO, False, True),
        (LogFormat.JSON, True, True),
        (LogFormat.TEXT, False, False),
    ],
)
def test_auto_is_text_on_a_terminal_and_json_elsewhere(
    root: logging.Logger, style: LogFormat, *, terminal: bool, is_json: bool
) -> None:
    stream = Terminal() if terminal else io.StringIO()
    configure(LogLevel.INFO, style, stream)
    logging.getLogger("wellhead.test").info("hello")
    assert stream.getvalue().startswith("{") is is_json
    assert stream.getvalue().endswith("\n")


@pytest.mark.parametrize(
    ("level", "written"), [(LogLevel.DEBUG, 4), (LogLevel.INFO, 3), (LogLevel.WARN, 2), (LogLevel.ERROR, 1)]
)
def test_what_is_below_the_level_is_not_written(root: logging.Logger, level: LogLevel, written: int) -> None:
    stream = io.StringIO()
    configure(level, LogFormat.JSON, stream)
    for number in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR):
        logging.getLogger("wellhead.test").log(number, "hello")
    assert len(stream.getvalue().splitlines()) == written


def test_logs_go_to_stderr_and_a_second_configuration_replaces_the_first(
    root: logging.Logger, capsys: pytest.CaptureFixture[str]
) -> None:
    configure(LogLevel.INFO, LogFormat.JSON)
    configure(LogLevel.INFO, LogFormat.JSON)
    logging.getLogger("wellhead.test").info("hello")
    captured = capsys.readouterr()
    assert (captured.out, len(captured.err.splitlines())) == ("", 1)


@pytest.mark.parametrize(
    ("text", "component", "level"),
    [
        (KNATIVE, "", LogLevel.INFO),
        ("{}", "", LogLevel.INFO),
        ('{"zap-logger-config":""}', "", LogLevel.INFO),
        ('{"zap-logger-config":"{}"}', "", LogLevel.INFO),
        ('{"zap-logger-config":"{\\"level\\":\\"debug\\"}"}', "", LogLevel.DEBUG),
        ('{"zap-logger-config":"{\\"level\\":\\"DEBUG\\"}"}', "", LogLevel.DEBUG),
        ('{"zap-logger-config":"{\\"level\\":\\"warning\\"}"}', "", LogLevel.WARN),
        ('{"zap-logger-config":"{\\"level\\":\\"dpanic\\"}"}', "", LogLevel.ERROR),
        ('{"zap-logger-config":5}', "", LogLevel.INFO),
        ('{"loglevel.ping":"error"}', "ping", LogLevel.ERROR),
        ('{"loglevel.ping":"error"}', "", LogLevel.INFO),
        ('{"loglevel.ping":"error","zap-logger-config":"{\\"level\\":\\"debug\\"}"}', "other", LogLevel.DEBUG),
    ],
)
def test_knatives_logging_config_says_the_level(text: str, component: str, level: LogLevel) -> None:
    assert level_of_logging_config(text, component) is level


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ('{"zap-logger-config":"x"}', "is not JSON"),
        ('{"zap-logger-config":"[]"}', "is not a JSON object"),
        ('{"zap-logger-config":"{\\"level\\":\\"loud\\"}"}', "asks for the log level 'loud', which is none of zap's"),
        ('{"zap-logger-config":"{\\"level\\":{}}"}', "asks for the log level {}, which is none of zap's"),
    ],
    ids=lambda text: text[:40],
)
def test_a_logging_config_that_is_broken_is_told_with_the_rule(text: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(rule)}$"):
        level_of_logging_config(text)
