"""Who may tell us something: secret tokens and signing tokens (Standard Webhooks), compared in constant time. Pure.

GitLab 19 sends ``webhook-id`` and ``webhook-timestamp`` with every delivery, and ``webhook-signature`` where the webhook
has a signing token. Which way is taken is decided by that header alone.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_PREFIX: Final = "whsec_"
_LEAST_KEY_BYTES: Final = 24  # Standard Webhooks: between 24 and 64 bytes
_MOST_KEY_BYTES: Final = 64
_MOST_SIGNATURES: Final = 64
_TIMESTAMP: Final = re.compile(r"\d{1,12}", re.ASCII)
TOLERANCE_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Credentials:
    """What is accepted at this moment. With neither kind of token everybody is let in, if ``open`` says so."""

    tokens: tuple[str, ...] = field(default=(), repr=False)
    keys: tuple[bytes, ...] = field(default=(), repr=False)
    open: bool = False
    tolerance: float = TOLERANCE_SECONDS
    digests: tuple[bytes, ...] = field(init=False, repr=False, compare=False)
    """Of the tokens: digests are compared, so that not even the length of a token can be measured."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "digests", tuple(map(_digest, self.tokens)))


def accepts(
    credentials: Credentials, header: Callable[[str], str | None], body: bytes, now: Callable[[], float]
) -> bool:
    """Whether who sent this knows a token of ours. ``now`` tells seconds since 1970."""
    signatures = header("webhook-signature")
    if credentials.keys and signatures is not None:
        identity, timestamp = header("webhook-id") or "", header("webhook-timestamp") or ""
        return is_fresh(timestamp, now(), credentials.tolerance) and is_signed(
            credentials.keys, identity, timestamp, body, signatures
        )
    if credentials.tokens:
        return _is_one_of(credentials.digests, header("x-gitlab-token") or "")
    return credentials.open and not credentials.keys


def is_signed(keys: Sequence[bytes], identity: str, timestamp: str, body: bytes, signatures: str) -> bool:
    """Whether one of ``signatures`` (``v1,<base64> v1,…``) is that of one of ``keys``. All are looked at."""
    content = f"{identity}.{timestamp}.".encode() + body
    expected = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)) for key in keys]
    found = False
    for signature in signatures.split(" ")[:_MOST_SIGNATURES]:
        version, _, value = signature.partition(",")
        for one in expected:
            found |= hmac.compare_digest(one, value.encode("utf-8", "replace")) and version == "v1"
    return found


def is_fresh(timestamp: str, now: float, tolerance: float = TOLERANCE_SECONDS) -> bool:
    """Whether it was signed within ``tolerance`` seconds of ``now``, before or behind."""
    return _TIMESTAMP.fullmatch(timestamp) is not None and abs(now - int(timestamp)) <= tolerance


def signing_key(text: str) -> bytes:
    """The key of a signing token ``whsec_<base64>``, the prefix being optional. Raises ValueError with the rule."""
    try:
        key = base64.b64decode(text.removeprefix(_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("is not a signing token: whsec_ and base64") from None
    if not _LEAST_KEY_BYTES <= len(key) <= _MOST_KEY_BYTES:
        raise ValueError(
            f"is not a signing token: it holds {len(key)} bytes, and not {_LEAST_KEY_BYTES} to {_MOST_KEY_BYTES}"
        )
    return key


def _is_one_of(digests: Sequence[bytes], shown: str) -> bool:
    digest = _digest(shown)
    found = False
    for one in digests:
        found |= hmac.compare_digest(one, digest)
    return found


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
