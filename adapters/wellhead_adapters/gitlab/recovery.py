"""Asks GitLab for what it tried in vain, once what hindered is over. Which that is, ``missed.py`` says."""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from .missed import MOST_TRIES, Attempt, attempts, missed

if TYPE_CHECKING:
    from collections.abc import Callable

    from .facts import KeeperFacts
    from .hook_api import HookApi, Where
    from .missed import Missed
    from .webhooks import Webhook

AGAIN_SECONDS: Final = 15.0
_LOG_PAGES: Final = 200
_LOG_PAGE: Final = 20
_ROUNDS_LEFT_TO_OTHERS: Final = 5

_log = logging.getLogger(__name__)


class Recovery:
    """Of one target. ``owner`` says who we are; ``doubt`` is told of a webhook whose secret cannot be ours any more."""

    def __init__(
        self,
        api: HookApi,
        facts: KeeperFacts,
        *,
        owner: Callable[[], str],
        doubt: Callable[[int], object],
        extra: dict[str, object],
    ) -> None:
        self._api = api
        self._facts = facts
        self._owner = owner
        self._doubt = doubt
        self._extra = extra
        self._missed: deque[Missed] = deque()
        self._settled = 0  # what has a lower id in the log needs no further look
        self._doubted = 0  # the entry of the log for which the secret was put once more
        self._rounds_left_to_others = 0
        self._given_up: set[str] = set()

    def forget(self) -> None:
        """The webhook is gone, and its log with it."""
        self._settled = 0
        self._missed.clear()

    async def ask_back(self, where: Where, webhook: Webhook) -> float | None:
        """Ask for what was missed, the oldest first, until one fails; in how many seconds to go on, None: no hurry.

        Raises `ApiError`: 404 where GitLab has no log, 429 where it has had enough.
        """
        if not self._missed:
            log = await self._unsettled(where, webhook)
            self._missed = deque(one for one in missed(log, webhook.url) if self._is_worth_it(one.key, one.tries))
            self._settled = (
                min((one.id for one in self._missed), default=max((one.id for one in log), default=0) + 1) - 1
            )
            if self._is_secret_wrong(log, webhook):
                self._missed.clear()
                return AGAIN_SECONDS
        if not self._missed or not self._is_ours_to_ask(webhook):
            return None
        return await self._ask_for_all(where, webhook)

    async def _ask_for_all(self, where: Where, webhook: Webhook) -> float | None:
        number = 0
        while self._missed:
            status = await self._api.resend(where, webhook.id, self._missed[0].id)
            if not Attempt(id=0, key="", status=status).accepted:
                self._missed.rotate(-1)  # so that one that is never accepted holds up no other
                return AGAIN_SECONDS  # most likely the sink is away: each failure counts towards disabling the webhook
            self._missed.popleft()
            number += 1
            self._facts.recovered += 1
        _log.info("hook events that were missed were asked back", extra=self._extra | {"events": number})
        return None

    def _is_ours_to_ask(self, webhook: Webhook) -> bool:
        """Whether it is for this process to ask: for the one that wrote the webhook last, as two would ask for the same.

        That one may be dead: after some rounds in which it did nothing, another goes on.
        """
        if webhook.owner in (None, self._owner()):
            return True
        self._rounds_left_to_others += 1
        if self._rounds_left_to_others < _ROUNDS_LEFT_TO_OTHERS:
            self._missed.clear()  # read again the next time: the other may have asked
            return False
        return True

    def _is_secret_wrong(self, log: list[Attempt], webhook: Webhook) -> bool:
        """Whether we answered 401 to what GitLab sent last: somebody gave the webhook another secret, which no list tells."""
        latest = max(log, key=lambda one: one.id, default=None)
        if latest is None or latest.status != "401" or latest.id <= self._doubted:
            return False
        self._doubted = latest.id
        self._doubt(webhook.id)
        return True

    async def _unsettled(self, where: Where, webhook: Webhook) -> list[Attempt]:
        log: list[Attempt] = []
        for page in range(1, _LOG_PAGES + 1):
            listed = await self._api.log(where, webhook.id, page)
            log += attempts(listed)
            if len(listed) < _LOG_PAGE or min((one.id for one in log), default=0) <= self._settled:
                break
        else:
            _log.warning(
                "GitLab's log of hook events is longer than is read; older ones are not asked back", extra=self._extra
            )
        return [one for one in log if one.id > self._settled]

    def _is_worth_it(self, key: str, tries: int) -> bool:
        if tries < MOST_TRIES:
            return True
        if key not in self._given_up:
            self._given_up.add(key)
            self._facts.given_up += 1
            _log.error("a hook event was tried in vain too often, and is given up", extra=self._extra | {"key": key})
        return False
