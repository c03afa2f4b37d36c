"""CloudEvent to and from the CloudEvents SDK's type. Nothing else; imported only where somebody holds an SDK event."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from cloudevents.core.v1.event import CloudEvent as SdkEvent

from .errors import InvalidEvent, Problem
from .event import SPEC_ATTRIBUTES, CloudEvent, is_json, rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .event import ExtensionValue


def to_sdk(event: CloudEvent) -> SdkEvent:
    """A fresh SDK event; its attribute dict is its own (the SDK keeps and changes the dict it is given)."""
    attributes: dict[str, object] = {
        name: value for name in SPEC_ATTRIBUTES if (value := getattr(event, name)) is not None
    }
    # With "time" absent the SDK would invent one; that is its contract, and a None is refused by its checks.
    if event.time is not None:
        attributes["time"] = datetime.fromisoformat(event.time)
    attributes.update(event.extensions)
    return SdkEvent(attributes, event.data)


def from_sdk(event: SdkEvent) -> CloudEvent:
    """Our value of ``event``. Data that is not bytes is encoded: text as UTF-8, all else as JSON.

    Raises `InvalidEvent`, also for data that no JSON can hold.
    """
    attributes: Mapping[str, object] = event.get_attributes()
    known = {name: attributes[name] for name in SPEC_ATTRIBUTES if attributes.get(name) is not None}
    if isinstance(known.get("time"), datetime):
        known["time"] = rfc3339(known["time"])  # type: ignore[arg-type]  # the line above has just checked it
    extensions = {name: _extension(value) for name, value in attributes.items() if name not in SPEC_ATTRIBUTES}
    return CloudEvent(
        **known,  # type: ignore[arg-type]  # an SDK attribute may be anything; CloudEvent refuses what is not str
        extensions=extensions,
        data=_data(event.get_data(), known.get("datacontenttype")),
    )


def _extension(value: object) -> ExtensionValue:
    return rfc3339(value) if isinstance(value, datetime) else value  # type: ignore[return-value]  # CloudEvent checks


def _data(data: object, datacontenttype: object) -> bytes | None:
    if data is None or isinstance(data, bytes):
        return data
    try:
        if isinstance(data, str) and not (isinstance(datacontenttype, str) and is_json(datacontenttype)):
            return data.encode()
        return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    except (TypeError, ValueError, RecursionError):
        raise InvalidEvent([Problem("data", f"is {type(data).__name__} and cannot be encoded")]) from None
