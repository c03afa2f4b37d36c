"""A dead letter as one line of JSON, and back. Pure: it opens no file.

A line is the event in CloudEvents' JSON format, what went wrong in its ``knativeerror…`` extensions. Data comes back
byte for byte.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from .http_binding import decode_structured, encode_structured

if TYPE_CHECKING:
    from .event import CloudEvent

ERROR_EXTENSIONS: Final = ("knativeerrordest", "knativeerrorcode", "knativeerrordata")
"""What a dead letter carries beside its own attributes (contract/core.md 7)."""

_JSON_SPACE: Final = b" \t\r\n"


def encode_line(event: CloudEvent) -> bytes:
    """``event`` as a line, its newline included.

    Data that JSON would not bring back byte for byte goes as ``data_base64``: JSON that holds newlines, which would
    end the line, or has blanks around it, which a parser drops.
    """
    data = event.data or b""
    if b"\n" in data or data != data.strip(_JSON_SPACE):
        event = replace(event, data_base64=True)
    return encode_structured(event) + b"\n"


def decode_line(line: bytes) -> CloudEvent:
    """The event of a line, as it was dead-lettered. Raises `wellhead.errors.DecodeError` where it is none."""
    return decode_structured(line)


def without_error(event: CloudEvent) -> CloudEvent:
    """``event`` as it was before it became a dead letter."""
    if not any(name in event.extensions for name in ERROR_EXTENSIONS):
        return event
    kept = {name: value for name, value in event.extensions.items() if name not in ERROR_EXTENSIONS}
    return replace(event, extensions=kept)
