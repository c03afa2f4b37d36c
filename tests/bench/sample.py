"""The event of all benches: the one that the Go sender of ``tests/interop/peers`` generates. Pure."""

from __future__ import annotations

import time
from typing import Final

from wellhead.event import CloudEvent, random_id, rfc3339_of

TYPE: Final = "dev.wellhead.bench"
SOURCE: Final = "/bench"
TEXT: Final = "x" * (200 - len('{"text":""}'))
DATA: Final = f'{{"text":"{TEXT}"}}'.encode()
HEADERS: Final = (
    ("Content-Type", "application/json"),
    ("Ce-Specversion", "1.0"),
    ("Ce-Id", "8f2a3c1e-6d0b-4f57-9a53-6d4e0b1f7c21"),
    ("Ce-Source", SOURCE),
    ("Ce-Type", TYPE),
    ("Ce-Time", "2026-01-02T03:04:05.678901Z"),
)


def event() -> CloudEvent:
    """A new event, with an id and time of its own, which are a part of the cost as they are in the Go sender."""
    return CloudEvent(
        id=random_id(),
        source=SOURCE,
        type=TYPE,
        time=rfc3339_of(time.time_ns()),
        datacontenttype="application/json",
        data=DATA,
    )
