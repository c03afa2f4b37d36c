"""What a bearer token says of itself, where it is a JWT (RFC 7519). Pure; verifies nothing: that is the sink's task."""

from __future__ import annotations

import base64
import binascii
import json
import math
from dataclasses import dataclass
from typing import Final

_LAST_SECONDS: Final = 60.0
_LAST_SHARE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """The claims that we act on. Times are seconds since 1970."""

    expires: float | None = None
    issued: float | None = None
    audiences: tuple[str, ...] | None = None
    """None: it names none, and any sink may take it."""

    def expires_soon(self, now: float) -> bool:
        """Whether the last tenth of its life, or its last minute, has begun: a newer one should be there by then."""
        if self.expires is None:
            return False
        life = self.expires - self.issued if self.issued is not None else 0.0
        return now >= self.expires - max(_LAST_SECONDS, life * _LAST_SHARE)

    def expired(self, now: float) -> bool:
        """Whether a sink will refuse it now, by our clock."""
        return self.expires is not None and now >= self.expires

    def meant_for(self, audience: str) -> bool:
        """Whether a sink of this audience will take it; one that is not known takes any."""
        return not audience or self.audiences is None or audience in self.audiences


def claims(token: str) -> Claims | None:
    """The claims of ``token``; None where it is no JWT. Raises nothing, whatever it is given."""
    parts = token.split(".")
    if len(parts) != 3:
        return None
    try:
        said = json.loads(base64.b64decode(parts[1] + "=" * (-len(parts[1]) % 4), altchars=b"-_", validate=True))
    except (binascii.Error, ValueError, RecursionError):
        return None
    if not isinstance(said, dict):
        return None
    return Claims(expires=_time(said.get("exp")), issued=_time(said.get("iat")), audiences=_audiences(said.get("aud")))


def _time(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        seconds = float(value)
    except OverflowError:
        return None
    return seconds if math.isfinite(seconds) else None


def _audiences(value: object) -> tuple[str, ...] | None:
    """RFC 7519, 4.1.3: a string, or an array of strings."""
    if isinstance(value, str):
        return (value,)
    if isinstance(value, list):
        return tuple(one for one in value if isinstance(one, str))
    return None
