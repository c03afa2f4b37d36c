"""Asks an API server what it serves, once for all who want to know."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from .errors import ApiError
from .kinds import Gvr, Kind, group_path, served

if TYPE_CHECKING:
    from collections.abc import Mapping

_FRESH_SECONDS: Final = 5.0


class Getter(Protocol):
    """What of `Api` is needed here."""

    async def get(self, path: str, /) -> Mapping[str, object]: ...


class Discovery:
    """What the server serves. Answers are shared for some seconds, so that a thousand watches cost one request."""

    def __init__(self, api: Getter) -> None:
        self._api = api
        self._lock = asyncio.Lock()
        self._answers: dict[str, tuple[float, list[Mapping[str, object]]]] = {}

    async def find(self, gvr: Gvr) -> Kind | None:
        """The kind meant by ``gvr``; None where the server has no such group, version or resource.

        Raises `ApiError` where it does not say.
        """
        path = group_path(gvr)
        async with self._lock:
            now = asyncio.get_running_loop().time()
            at, resources = self._answers.get(path, (float("-inf"), []))
            if now - at > _FRESH_SECONDS:
                resources = await self._resources(path)
                self._answers[path] = (now, resources)
        return served(gvr, resources)

    async def _resources(self, path: str) -> list[Mapping[str, object]]:
        try:
            answer = await self._api.get(path)
        except ApiError as error:
            if error.status == 404:
                return []
            raise
        resources = answer.get("resources")
        return [one for one in resources if isinstance(one, dict)] if isinstance(resources, list) else []
