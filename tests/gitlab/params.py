"""Parameters of a call: query, JSON or form, coerced and refused as Grape does before an endpoint runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from tests.gitlab.hooks import EVENTS, STRATEGIES, TEXTS, Kind
from tests.gitlab.replies import Refused, error

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.gitlab.replies import Call
    from tests.gitlab.settings import Settings

Given = dict[str, object]
_BOOLEANS: Final[Mapping[object, bool]] = {
    True: True, False: False, "true": True, "false": False, "1": True, "0": False, "t": True, "f": False,
    "on": True, "off": False,
}  # fmt: skip
_PAIRS: Final = ("url_variables", "custom_headers")


def given(call: Call) -> Given:
    """Of query and body; *REST API*, "Request payload". Raises Refused where the JSON cannot be read."""
    found: Given = dict(parse_qsl(call.target.partition("?")[2], keep_blank_values=True))
    kind = (call.header("Content-Type") or "").partition(";")[0].strip().lower()
    if not call.body:
        return found
    if kind == "application/json":
        try:
            read: object = json.loads(call.body)
        except ValueError:
            raise Refused(error(400, "Problems parsing JSON")) from None
        return found | read if isinstance(read, dict) else found
    if kind == "application/x-www-form-urlencoded":
        return found | dict(parse_qsl(call.body.decode(errors="replace"), keep_blank_values=True))
    raise Refused(error(415, f"The provided content-type '{kind}' is not supported."))


def hook_attributes(raw: Given, kind: Kind, settings: Settings, *, creating: bool) -> Given:
    """What of ``raw`` is declared for a webhook of this kind, coerced; the rest is ignored (`declared_params`).

    lib/api/helpers/web_hooks_helpers.rb, lib/api/project_hooks.rb, lib/api/system_hooks.rb, ee/lib/api/group_hooks.rb.
    Raises Refused with one message for all problems, as Grape joins them.
    """
    problems: list[str] = ["url is missing"] if creating and "url" not in raw else []
    found: Given = {}
    texts = (*TEXTS, "signing_token") if settings.signs else TEXTS
    for name in (*texts, *EVENTS[kind], "enable_ssl_verification", *_PAIRS):
        if name not in raw:
            continue
        try:
            found[name] = _coerced(name, raw[name])
        except ValueError as problem:
            problems.append(str(problem))
    if problems:
        raise Refused(error(400, ", ".join(problems)))
    return found


def integer(raw: Given, name: str, default: int) -> int:
    value = raw.get(name, default)
    try:
        return int(str(value))
    except ValueError:
        raise Refused(error(400, f"{name} is invalid")) from None


def _coerced(name: str, value: object) -> object:
    if name == "branch_filter_strategy":
        if value not in STRATEGIES:
            raise ValueError(f"{name} does not have a valid value")
        return value
    if name in TEXTS or name == "signing_token":
        if isinstance(value, dict | list):
            raise ValueError(f"{name} is invalid")
        text = None if value is None else str(value)
        return (text or "").strip() if name == "url" else text or None if name.endswith("token") else text
    if name in _PAIRS:
        return _pairs(name, value)
    if value is None:
        return None
    if not isinstance(value, str | int) or value not in _BOOLEANS:
        raise ValueError(f"{name} is invalid")
    return _BOOLEANS[value]


def _pairs(name: str, value: object) -> dict[str, str]:
    if not isinstance(value, list):
        raise ValueError(f"{name} is invalid")
    pairs: dict[str, str] = {}
    for pair in value:
        if not isinstance(pair, dict):
            raise ValueError(f"{name} is invalid")
        for part in ("key", "value"):
            if part not in pair:
                raise ValueError(f"{name}[{part}] is missing")
        pairs[str(pair["key"])] = str(pair["value"])
    return pairs
