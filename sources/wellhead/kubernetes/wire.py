"""What goes over the wire to an API server: media types, and JSON as values. Pure."""

from __future__ import annotations

import json
from typing import Final

from .errors import GARBLED, ApiError

JSON: Final = "application/json"
METADATA: Final = f"application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,{JSON}"
METADATA_LIST: Final = f"application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,{JSON}"
"""What to accept where no more than metadata is needed; a server that cannot do that sends it all."""


_decoded: Final = json.JSONDecoder().raw_decode  # loads looks for UTF-16 first, and for blanks: a third of its time


def parsed(octets: bytes) -> dict[str, object]:
    """A JSON object. Raises `ApiError` (``Garbled``) for anything else."""
    try:
        text = octets.decode().lstrip()
        value, end = _decoded(text)
    except (ValueError, RecursionError):
        raise ApiError(0, GARBLED, "an answer is not JSON") from None
    if end != len(text) and text[end:].strip():
        raise ApiError(0, GARBLED, "an answer is not JSON")
    if not isinstance(value, dict):
        raise ApiError(0, GARBLED, "an answer is not a JSON object")
    return value
