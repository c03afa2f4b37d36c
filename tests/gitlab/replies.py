"""What a call to the API is, and the shapes in which GitLab answers: objects, lists, and its two kinds of errors."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace

Headers = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Call:
    """One request to the instance, as it came; ``target`` with its percent-encoding."""

    method: str
    target: str
    headers: Headers = field(default=(), repr=False)
    body: bytes = field(default=b"", repr=False)

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Headers = ()

    def with_headers(self, headers: Headers) -> Reply:
        return replace(self, headers=(*self.headers, *headers))


class Refused(Exception):
    """A call ends here, with this reply."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(f"{reply.status}: {reply.body.decode(errors='replace')}")
        self.reply = reply


def shown(status: int, value: object, headers: Headers = ()) -> Reply:
    return Reply(status, dumped(value), (("Content-Type", "application/json"), *headers))


def message(status: int, text: object, headers: Headers = ()) -> Reply:
    """lib/api/helpers.rb, `render_api_error!`: `{"message": …}`."""
    return shown(status, {"message": text}, headers)


def error(status: int, text: str) -> Reply:
    """Grape's `error!` with a string, as in lib/api/helpers/web_hooks_helpers.rb: `{"error": …}`."""
    return shown(status, {"error": text})


def dumped(value: object) -> bytes:
    """JSON as GitLab writes it: signs that HTML or JavaScript could misread are escaped (ActiveSupport's JSON encoding)."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    for sign, escape in (
        ("<", "\\u003c"),
        (">", "\\u003e"),
        ("&", "\\u0026"),
        ("\u2028", "\\u2028"),
        ("\u2029", "\\u2029"),
    ):
        text = text.replace(sign, escape)
    return text.encode()
