"""One hook event as it came over HTTP: read, and found to be JSON. Pure; it verifies nobody and sends nothing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Never

if TYPE_CHECKING:
    from collections.abc import Callable

_LONGEST_KEY: Final = 200


class Malformed(ValueError):
    """It is no hook event; the text says what is wrong with it, and may be shown to whoever sent it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookEvent:
    """What GitLab told. ``body`` is what is passed on; ``payload`` is the same read, and empty where it is no object."""

    name: str
    """``X-Gitlab-Event``: ``Push Hook``."""
    body: bytes = field(repr=False)
    payload: Mapping[str, object] = field(repr=False)
    key: str = ""
    """``Idempotency-Key``: the same on every try and resend of one delivery; "" from GitLab before 17.4."""
    event_uuid: str = ""
    webhook_uuid: str = ""
    instance: str = ""


def read(header: Callable[[str], str | None], body: bytes) -> HookEvent:
    """The hook event of a request. Raises `Malformed`. ``header`` is asked in lower case.

    The media type is not looked at: whoever sends, the body says by itself whether it is JSON.
    """
    name = (header("x-gitlab-event") or "").strip()
    if not name:
        raise Malformed("missing X-Gitlab-Event header")
    if not body:
        raise Malformed("the body is empty")
    payload = parse(body)
    return HookEvent(
        name=name,
        body=body,
        payload=payload if isinstance(payload, Mapping) else {},
        key=key_of(header),
        event_uuid=header("x-gitlab-event-uuid") or "",
        webhook_uuid=header("x-gitlab-webhook-uuid") or "",
        instance=header("x-gitlab-instance") or "",
    )


def key_of(header: Callable[[str], str | None]) -> str:
    """What says which delivery it is. A signature covers ``webhook-id``, which equals the Idempotency-Key."""
    return header("webhook-id") or header("idempotency-key") or ""


def is_usual(key: str) -> bool:
    """Whether it can be an event's id as it is: short, printable, without blanks."""
    return 0 < len(key) <= _LONGEST_KEY and key.isascii() and key.isprintable() and " " not in key


def parse(body: bytes) -> object:
    """The JSON value; strictly UTF-8, without NaN. Raises `Malformed`."""
    try:
        return _JSON.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Malformed("the body is not UTF-8") from None
    except RecursionError:
        raise Malformed("the body is nested too deeply") from None
    except ValueError:
        raise Malformed("the body is not JSON") from None


def _no_constant(name: str) -> Never:
    raise ValueError(name)


# Numbers as floats: an integer of a million digits is valid JSON, and nobody asks for its value here. Made once:
# `json.loads` with these would make a decoder for each body.
_JSON: Final = json.JSONDecoder(parse_int=float, parse_constant=_no_constant)
