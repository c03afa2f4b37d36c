"""Headers that a user wants on every request to a sink, beside those of the event. Pure; shows no value in a message."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from .errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

ExtraHeaders: TypeAlias = "tuple[tuple[str, str], ...]"

_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")  # RFC 9110, 5.6.2: token
_VALUE: Final = re.compile(r"[!-~](?:[\t -~]{0,16382}[!-~])?")  # RFC 9110, 5.5, less obs-text
_OURS: Final = frozenset((
    "content-type", "content-length", "content-encoding", "host", "user-agent", "kn-namespace", "traceparent",
    # What belongs to one connection (RFC 9110, 7.6.1), or changes how an answer is framed.
    "connection", "expect", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
))  # fmt: skip


def extra_headers(text: str) -> ExtraHeaders:
    """Headers from text: a JSON object of strings, or lines ``Name: value``; blank lines and ``#`` lines say nothing.

    Raises `ConfigError` with every problem there is; no message holds a value.
    """
    entries = _json(text) if text.lstrip().startswith("{") else _lines(text)
    headers: dict[str, tuple[str, str]] = {}
    problems: list[Problem] = []
    for where, name, value in entries:
        what = _problem(name, value)
        if not what and name.lower() in headers:
            what = f"gives {name} a second time"
        if what:
            problems.append(Problem(where, what))
        headers[name.lower()] = (name, value)
    if problems:
        raise ConfigError(problems)
    return tuple(headers.values())


def _lines(text: str) -> Iterator[tuple[str, str, str]]:
    for number, line in enumerate(re.split(r"\r\n|\n", text), 1):
        if line.strip() and not line.startswith("#"):
            name, colon, value = line.partition(":")
            yield f"line {number}", name if colon else "", value.strip(" \t")


def _json(text: str) -> Iterable[tuple[str, str, str]]:
    try:
        said = json.loads(text, object_pairs_hook=tuple)  # pairs, so that a name given twice is seen
    except (ValueError, RecursionError):
        raise ConfigError([Problem("headers", "begin with { and are not JSON")]) from None
    return [
        (f"header {number}", name, value if isinstance(value, str) else "\0")  # no string, no value
        for number, (name, value) in enumerate(said, 1)
    ]


def _problem(name: str, value: str) -> str:
    if not _NAME.fullmatch(name):  # not shown: what is no name may be a secret in the wrong place
        return "is not Name: value, with a name that HTTP allows"
    if name.lower() in _OURS or name.lower().startswith("ce-"):
        return f"gives {name}, which is Wellhead's own to send"
    if not value:
        return f"gives {name} no value"
    if not _VALUE.fullmatch(value):
        return f"gives {name} a value that no header can hold: a string of printable ASCII, 16384 characters at most"
    return ""
