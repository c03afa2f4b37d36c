"""``HTTP_PROXY``, ``HTTPS_PROXY``, ``NO_PROXY``: which proxy a sink is reached through, if any. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Mapping


def proxies(environment: Mapping[str, str]) -> Mapping[str, str]:
    """The proxies that an environment names, by the scheme of the URL; none at all as a rule."""
    variables = {name.lower(): value for name, value in environment.items() if value}
    named = {scheme: variables.get(f"{scheme}_proxy", "") for scheme in ("http", "https")}
    if "request_method" in variables:  # CGI: HTTP_PROXY is the request's Proxy header then (httpoxy)
        named["http"] = ""
    return {scheme: url for scheme, url in named.items() if url}


class Proxies:
    """The proxy for each URL. Not aiohttp's ``trust_env``, which would send ~/.netrc's passwords."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._by_scheme = proxies(environment)
        self._no_proxy = environment.get("no_proxy") or environment.get("NO_PROXY") or ""

    def proxy(self, url: str) -> str | None:
        if not self._by_scheme:
            return None
        from urllib.request import proxy_bypass  # noqa: PLC0415 - slow to import, few have proxies

        parts = urlsplit(url)
        if proxy_bypass(
            f"{parts.hostname}:{parts.port}" if parts.port else parts.hostname or "", {"no": self._no_proxy}
        ):
            return None
        return self._by_scheme.get(parts.scheme)
