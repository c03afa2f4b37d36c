"""The ring of an event display's last events."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from wellhead.display.kept import KeptEvents
from wellhead.event import CloudEvent
from wellhead.http_binding import decode_structured

NOON = datetime(2026, 11, 21, 12, 0, 0, 250000, tzinfo=UTC)
PLENTY = 1 << 20


def an_event(
    number: int = 1, *, kind: str = "t", source: str = "/s", data: bytes | None = None, subject: str = "s"
) -> CloudEvent:
    return CloudEvent(id=str(number), source=source, type=kind, subject=subject, data=data)


def keeping(*events: CloudEvent, count: int = 100, octets: int = PLENTY) -> KeptEvents:
    kept = KeptEvents(events=count, octets=octets)
    for event in events:
        kept.add(event, NOON)
    return kept


def test_the_newest_are_kept_and_numbered_from_one() -> None:
    kept = keeping(*(an_event(number) for number in range(1, 8)), count=3)
    assert [(item.number, item.event.id) for item in kept.after(0)] == [(5, "5"), (6, "6"), (7, "7")]
    assert (kept.total, len(kept)) == (7, 3)


def test_what_came_after_a_number_is_given_oldest_first() -> None:
    kept = keeping(*(an_event(number) for number in range(1, 6)))
    assert [item.number for item in kept.after(3)] == [4, 5]
    assert kept.after(5) == []
    assert kept.after(99) == []


@given(st.lists(st.integers(0, 5000), max_size=30))
def test_bytes_are_bounded_whatever_comes(sizes: list[int]) -> None:
    kept = keeping(*(an_event(data=b"x" * size) for size in sizes), octets=6000)
    assert sum(item.size for item in kept.after(0)) <= 6000
    assert kept.total == len(sizes)
    assert bool(kept.after(0)) == bool(sizes)


def test_of_an_event_beyond_all_bounds_the_attributes_are_kept() -> None:
    kept = keeping(an_event(1), an_event(2, data=b"x" * 5000), octets=3000)
    first, second = kept.after(0)
    assert (second.event.id, second.event.data, second.cut) == ("2", None, 5000)
    item = json.loads(second.json())
    assert (item["cut"], item["size"]) == (True, 5000)
    assert first.cut is None


def test_an_event_with_attributes_beyond_all_bounds_is_only_counted() -> None:
    kept = keeping(an_event(1), an_event(2, subject="x" * 5000, data=b"y" * 5000), an_event(3), octets=3000)
    assert [item.number for item in kept.after(0)] == [1, 3]
    assert kept.total == 3


def test_extensions_count_as_bytes_too() -> None:
    huge = CloudEvent(id="1", source="/s", type="t", extensions={"a": "x" * 5000, "b": b"y", "c": 1})
    assert len(keeping(huge, octets=3000)) == 0


def test_type_source_and_limit_select_the_newest() -> None:
    events = [an_event(n, kind="ab"[n % 2], source=f"/{n % 3}") for n in range(12)]
    kept = keeping(*events)
    assert [item.event.id for item in kept.select(kind="a", limit=2)] == ["8", "10"]
    assert [item.event.id for item in kept.select(source="/1")] == ["1", "4", "7", "10"]
    assert [item.event.id for item in kept.select(kind="b", source="/1")] == ["1", "7"]
    assert len(kept.select()) == 12
    assert kept.select(limit=0) == []


def test_the_json_of_an_event_holds_the_event_as_it_came() -> None:
    event = CloudEvent(
        id="1", source="/s", type="t", datacontenttype="application/json", data=b'{"b": 1e3,"a":\n12345678901234567890}'
    )
    (item,) = keeping(event).after(0)
    text = item.json()
    assert text.startswith(b'{"seq":1,"received":"2026-11-21T12:00:00.25Z","size":36,"event":{"specversion":"1.0",')
    assert decode_structured(text.partition(b'"event":')[2][:-1]) == event
