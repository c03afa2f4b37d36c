"""CPU per event of building, encoding and decoding it, beside the CloudEvents SDK for Python. No network."""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from cloudevents.core.bindings.http import HTTPMessage, from_binary, from_structured, to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent as SdkEvent
from tests.bench import sample
from tests.bench.figures import Result, Row

from wellhead.http_binding import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.bench.machine import Plan

_PEER: Final = "Python SDK"
_FORMAT: Final = JSONFormat()
_BLOCK_SECONDS: Final = 0.05


@dataclass(frozen=True, slots=True)
class _Work:
    what: str
    ours: Callable[[], object]
    theirs: Callable[[], object]


def run(plan: Plan) -> Result:
    """Measure each kind of work in short blocks, ours and the SDK's in turn."""
    rows = [_row(work, plan.share(5)) for work in _works()]
    return Result("encode", rows)


def _works() -> list[_Work]:
    """What is measured. Where bytes become JSON text, the SDK gets a dict: of bytes it would make base64."""
    ours, theirs = sample.event(), _sdk_event(sample.DATA)
    tree = _sdk_event(json.loads(sample.DATA))
    binary_headers, body = encode(ours)
    headers = {name.decode(): value.decode() for name, value in binary_headers}
    structured_headers, document = encode(ours, structured=True)
    structured = {name.decode(): value.decode() for name, value in structured_headers}
    return [
        _Work("build, with id and time", sample.event, lambda: _sdk_event(sample.DATA)),
        _Work("encode binary", lambda: encode(ours), lambda: to_binary(theirs, _FORMAT)),
        _Work("encode structured", lambda: encode(ours, structured=True), lambda: to_structured(tree, _FORMAT)),
        _Work(
            "decode binary",
            lambda: decode(binary_headers, body),
            lambda: from_binary(HTTPMessage(headers, body), _FORMAT, SdkEvent),
        ),
        _Work(
            "decode structured",
            lambda: decode(structured_headers, document),
            lambda: from_structured(HTTPMessage(structured, document), _FORMAT, SdkEvent),
        ),
    ]


def _sdk_event(data: bytes | dict[str, object]) -> SdkEvent:
    attributes: dict[str, object] = {
        "id": str(uuid.uuid4()),
        "source": sample.SOURCE,
        "type": sample.TYPE,
        "time": datetime.now(UTC),
        "datacontenttype": "application/json",
    }
    return SdkEvent(attributes, data)


def _row(work: _Work, plan: Plan) -> Row:
    count = _count(work.ours)
    found = plan.rounds_of({"ours": lambda: _micros(work.ours, count), "theirs": lambda: _micros(work.theirs, count)})
    return Row(what=work.what, unit="µs CPU", ours=found["ours"], peer=_PEER, theirs=found["theirs"])


def _count(work: Callable[[], object]) -> int:
    """How often it fits into a block, found by doing it."""
    count, spent = 64, 0.0
    while spent < _BLOCK_SECONDS:
        count *= 2
        spent = _micros(work, count) * count / 1e6
    return count


def _micros(work: Callable[[], object], count: int) -> float:
    begun = time.process_time()
    for _ in range(count):
        work()
    return (time.process_time() - begun) / count * 1e6
