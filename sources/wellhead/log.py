"""Structured logs on stderr: JSON lines, or readable ones on a terminal. Standard output belongs to programs' results."""

from __future__ import annotations

import enum
import json
import logging
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from .env import json_object

if TYPE_CHECKING:
    from typing import TextIO


class LogFormat(enum.Enum):
    """How log lines look; ``auto``: text on a terminal, else JSON."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"


class LogLevel(enum.Enum):
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


_NUMBERS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARN: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}
_STANDARD: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_COLOURS: Final = {logging.WARNING: "\x1b[33m", logging.ERROR: "\x1b[31m", logging.CRITICAL: "\x1b[31m"}


def configure(level: LogLevel, style: LogFormat, stream: TextIO | None = None) -> None:
    """Send every log record of the process to ``stream`` (stderr). Called once, by `wellhead.runtime`."""
    stream = stream or sys.stderr
    terminal = stream.isatty()
    text = style is LogFormat.TEXT or (style is LogFormat.AUTO and terminal)
    handler = logging.StreamHandler(stream)
    handler.setFormatter(TextLines(colour=terminal) if text else JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(_NUMBERS[level])


def level_of_logging_config(text: str, component: str = "") -> LogLevel:
    """The level that ``K_LOGGING_CONFIG`` asks for: ``loglevel.<component>``, else the zap config's ``level``.

    Raises ValueError with the rule; the caller goes on with its default, as Knative does (contract/core.md 1).
    """
    config = json_object(text)
    named = config.get(f"loglevel.{component}") if component else None
    if named is None:
        zap = config.get("zap-logger-config")
        named = json_object(zap).get("level", "info") if isinstance(zap, str) and zap else "info"
    word = str(named).lower()  # zap reads any case
    word = {"warning": "warn", "dpanic": "error", "panic": "error", "fatal": "error"}.get(word, word)
    try:
        return LogLevel(word)
    except ValueError:
        raise ValueError(f"asks for the log level {ascii(named)[:40]}, which is none of zap's") from None


class JsonLines(logging.Formatter):
    """One JSON object a line, with the keys that Knative's own logs have."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "severity": record.levelname,
            "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")[:-6] + "Z",
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["stacktrace"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


class TextLines(logging.Formatter):
    """``12:00:00.000 WARNING sink is down  sink=http://… reason=…``."""

    def __init__(self, *, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S.%f")[:-3]
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        level = f"{record.levelname:<7}"
        if self._colour and record.levelno in _COLOURS:
            level = f"{_COLOURS[record.levelno]}{level}\x1b[0m"
        line = f"{clock} {level} {record.getMessage()}{' ' if fields else ''}{fields}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD}


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    plain = text.isprintable() and " " not in text and text != ""
    return text if plain else json.dumps(text, ensure_ascii=False)
