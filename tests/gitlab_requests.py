"""Requests as GitLab makes them, for tests of the GitLab adapter's receiver."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wellhead.http_server import Request

if TYPE_CHECKING:
    from collections.abc import Mapping

SAMPLES: Final = Path(__file__).parent / "samples"
PUSH: Final = (
    b'{"object_kind":"push","ref":"refs/heads/main","checkout_sha":"abc","project":{"path_with_namespace":"g/p"}}'
)
TOKEN: Final = "s3cret"
KEY: Final = "3a427872-00df-429c-9bc9-a9475de2efe4"
SIGNING: Final = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def hook_request(
    body: bytes = PUSH,
    *,
    name: str | None = "Push Hook",
    token: str | None = TOKEN,
    key: str | None = KEY,
    method: str = "POST",
    more: Mapping[str, str] | None = None,
) -> Request:
    """``more`` are further headers, or others."""
    headers = {
        "Content-Type": "application/json",
        "User-Agent": "GitLab/17.1.0-pre",
        "X-Gitlab-Event": name,
        "X-Gitlab-Token": token,
        "Idempotency-Key": key,
        "X-Gitlab-Webhook-UUID": "3c5c0404-c866-44bc-a5f6-452bb1bfc76e",
        "X-Gitlab-Event-UUID": "9cebe914-4827-408f-b014-cfa23a47a35f",
        "X-Gitlab-Instance": "https://gitlab.example.com",
        **(more or {}),
    }
    pairs = tuple((header.encode(), value.encode()) for header, value in headers.items() if value is not None)
    return Request(method, "/", "/", "", pairs, body, "192.0.2.1:4711")


def signed(body: bytes, at: float, *, key: str = KEY, token: str = SIGNING) -> dict[str, str]:
    """What GitLab 19 adds where the webhook has a signing token."""
    stamp = str(int(at))
    content = f"{key}.{stamp}.".encode() + body
    digest = hmac.digest(base64.b64decode(token.removeprefix("whsec_")), content, hashlib.sha256)
    return {
        "webhook-id": key,
        "webhook-timestamp": stamp,
        "webhook-signature": f"v1,{base64.b64encode(digest).decode()}",
    }


def payloads() -> list[tuple[str, str, str, bytes]]:
    """File, header, type and body of every sample."""
    folder = SAMPLES / "gitlab_webhooks"
    found = []
    for row in json.loads((folder / "index.json").read_text(encoding="utf-8")):
        text = (folder / row["file"]).read_text(encoding="utf-8")
        if row["file"].endswith(".json5"):  # as upstream's own test does it
            text = "\n".join(line for line in text.splitlines() if not line.startswith("//"))
        found.append((row["file"], row["header"], row["knative_ce_type"], text.encode()))
    return found
