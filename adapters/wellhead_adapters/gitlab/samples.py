"""Has GitLab send samples, of kinds of event that nobody asked for: one that is answered 2xx clears what GitLab has counted.

GitLab disables a webhook for its failures in a row; a success forgets them all, and enables it.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from .kinds import header_of
from .trouble import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .hook_api import HookApi, Where

_log = logging.getLogger(__name__)


class Samples:
    """Of one target. Without ``triggers`` any sample would pass for an occurrence, and there is none."""

    def __init__(self, api: HookApi, triggers: Sequence[str], extra: dict[str, object]) -> None:
        self.names = frozenset(map(header_of, triggers))
        """What the requests are called, as ``X-Gitlab-Event`` has it."""
        self._api = api
        self._triggers = triggers
        self._extra = extra
        self._next = 0

    def __bool__(self) -> bool:
        return bool(self._triggers)

    async def send(self, where: Where, number: int) -> bool:
        """Have the webhook ``number`` send one; whether it was answered 2xx.

        Raises `ApiError` where GitLab has had enough, or does not answer.
        """
        if not self._triggers:
            return False
        trigger = self._triggers[self._next % len(self._triggers)]
        try:
            await self._api.test(where, number, trigger)
        except ApiError as error:
            if error.status == 429 or error.status is None:
                raise
            self._next += 1  # there may be nothing in the project to make this sample of
            facts = {"trigger": trigger, "reason": str(error)}
            _log.warning("a test did not enable the webhook", extra=self._extra | facts)
            return False
        return True
