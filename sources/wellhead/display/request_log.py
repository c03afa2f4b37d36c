"""A request as the JSON that Knative's event_display logs with ``REQUEST_LOGGING_ENABLED=true``. Pure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wellhead.http_server.exchange import Request

_SECRET: Final = frozenset(("Authorization", "Proxy-Authorization", "Cookie"))


def request_json(request: Request) -> str:
    """``request`` as indented JSON with the fields and spellings of Go's; empty ones are left out. Ends with a newline.

    The values of credentials are shown as ``<hidden>``, which Knative's does not do.
    """
    headers = _headers(request)
    hosts = headers.pop("Host", [""])
    codings = headers.pop("Transfer-Encoding", [])
    major, _, minor = request.version.partition(".")
    fields = {
        "method": request.method,
        "URL": _url(request),
        "proto": f"HTTP/{request.version}",
        "protoMajor": int(major),
        "protoMinor": int(minor),
        "headers": headers,
        "body": request.body.decode("utf-8", "replace"),
        "contentLength": -1 if codings else len(request.body),
        "transferEncoding": codings,
        "host": hosts[0],
    }
    always = {"remoteAddr": request.peer, "requestURI": request.target}
    return (
        json.dumps({**{name: value for name, value in fields.items() if value}, **always}, indent=2, ensure_ascii=False)
        + "\n"
    )


def _headers(request: Request) -> dict[str, list[str]]:
    headers: dict[str, list[str]] = {}
    for raw_name, raw_value in request.headers:
        name = "-".join(part.capitalize() for part in raw_name.decode("latin-1").split("-"))
        value = "<hidden>" if name in _SECRET else raw_value.decode("utf-8", "replace")
        headers.setdefault(name, []).append(value)
    return headers


def _url(request: Request) -> dict[str, str | bool | None]:
    """The fields of Go's url.URL for a request line that holds a path."""
    raw_path = request.target.partition("?")[0]
    return {
        "Scheme": "",
        "Opaque": "",
        "User": None,
        "Host": "",
        "Path": request.path,
        "RawPath": raw_path if raw_path != request.path else "",
        "OmitHost": False,
        "ForceQuery": request.target.endswith("?"),
        "RawQuery": request.query,
        "Fragment": "",
        "RawFragment": "",
    }
