"""One beat as an event, byte for byte as Knative's heartbeats sends it (contract/core.md 5). Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from wellhead.event import CloudEvent, random_id, rfc3339

if TYPE_CHECKING:
    from datetime import datetime

    from .config import HeartbeatConfig

# Go's encoding/json writes these five as escapes, so that JSON can stand in HTML and JavaScript.
_GO_ESCAPES = str.maketrans({sign: f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"})


def beat(config: HeartbeatConfig, number: int, now: datetime) -> CloudEvent:
    """Beat ``number`` (from 1) of this process at ``now``. Its id is random: a beat has no identity beyond its time."""
    data: dict[str, int | str] = {"id": number, "label": _utf8(config.label)}
    if config.msg:
        data["msg"] = _utf8(config.msg)
    return CloudEvent(
        id=random_id(),
        source=config.source,
        type=config.event_type,
        time=rfc3339(now),
        datacontenttype="application/json",
        extensions={"the": 42, "heart": "yes", "beats": True},
        data=json.dumps(data, ensure_ascii=False, separators=(",", ":")).translate(_GO_ESCAPES).encode(),
    )


def _utf8(text: str) -> str:
    """``text`` with what is not UTF-8 (arguments may be anything) replaced, as Go does."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
