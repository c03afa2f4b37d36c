"""The last events of an event display, bounded in number and bytes, and their JSON. Pure: it receives and shows nothing."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Final

from wellhead.event import rfc3339
from wellhead.http_binding import encode_structured

if TYPE_CHECKING:
    from datetime import datetime

    from wellhead.event import CloudEvent

_OBJECT_BYTES: Final = 1000  # about what an event takes beside its texts and data


@dataclass(frozen=True, slots=True)
class KeptEvent:
    """An event with its number, counted from 1, and the instant at which it came.

    ``cut`` is the length of data that was too large to be kept; the event then has none.
    """

    number: int
    received: datetime
    event: CloudEvent
    size: int
    cut: int | None

    def json(self) -> bytes:
        """``{"seq", "received", "size", "event"}``, the event in the CloudEvents JSON format.

        ``size`` is the length of the data as it came; ``"cut": true`` says that it was too large to be kept.
        """
        size = len(self.event.data or b"") if self.cut is None else self.cut
        cut = b"" if self.cut is None else b',"cut":true'
        head = b'{"seq":%d,"received":"%b","size":%d%b' % (self.number, rfc3339(self.received).encode(), size, cut)
        return head + b',"event":' + encode_structured(self.event) + b"}"


class KeptEvents:
    """A ring of the newest events: at most so many, and at most so many bytes of them.

    The oldest make room. Of an event that alone is too large the data is left out; if its attributes are too large, it
    is only counted.
    """

    def __init__(self, *, events: int, octets: int) -> None:
        self.total = 0
        """How many were added, ever."""
        self._most_events = events
        self._most_octets = octets
        self._octets = 0
        self._ring: deque[KeptEvent] = deque()

    def __len__(self) -> int:
        return len(self._ring)

    def add(self, event: CloudEvent, received: datetime) -> None:
        self.total += 1
        size = _size(event)
        cut = None
        if size > self._most_octets and event.data is not None:
            cut = len(event.data)
            size -= cut
            event = replace(event, data=None)
        if size > self._most_octets:
            return
        self._ring.append(KeptEvent(self.total, received, event, size, cut))
        self._octets += size
        while len(self._ring) > self._most_events or self._octets > self._most_octets:
            self._octets -= self._ring.popleft().size

    def after(self, number: int) -> list[KeptEvent]:
        """Those that came after event ``number`` and are still kept, oldest first."""
        newer = takewhile(lambda kept: kept.number > number, reversed(self._ring))
        return list(newer)[::-1]

    def select(
        self, *, kind: str | None = None, source: str | None = None, limit: int | None = None
    ) -> list[KeptEvent]:
        """The newest of this type and source, oldest first, at most ``limit``."""
        matching = (
            kept
            for kept in reversed(self._ring)
            if kind in (None, kept.event.type) and source in (None, kept.event.source)
        )
        return list(islice(matching, limit))[::-1]


def _size(event: CloudEvent) -> int:
    size = _OBJECT_BYTES + len(event.id) + len(event.source) + len(event.type)
    for value in (event.data, event.subject, event.datacontenttype, event.dataschema):
        size += len(value) if value else 0
    for name, extension in event.extensions.items():
        size += len(name) + (len(extension) if isinstance(extension, str | bytes) else 4)
    return size
