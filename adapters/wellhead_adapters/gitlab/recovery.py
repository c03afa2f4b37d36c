"""Asks GitLab for what it tried in vain, once what hindered is over. Which that is, ``missed.py`` says."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Final

from .missed import MOST_TRIES, Attempt, attempts, missed
from .silence import Silences

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.clock import Clock

    from .facts import KeeperFacts
    from .hook_api import HookApi, Where
    from .missed import Gap, Missed
    from .samples import Samples
    from .webhooks import Webhook

AGAIN_SECONDS: Final = 15.0
_LOG_PAGES: Final = 200
_LOG_PAGE: Final = 20
_ROUNDS_LEFT_TO_OTHERS: Final = 5
_LONGEST_WAIT_SECONDS: Final = 300.0
_TOO_OFTEN: Final = "a hook event was tried in vain too often, and is given up"
_TOO_LARGE: Final = "a hook event is too large for GitLab's log, and is given up"

_log = logging.getLogger(__name__)


class Recovery:
    """Of one target. ``owner`` says who we are; ``doubt`` is told of a webhook whose secret cannot be ours any more, and
    ``gap`` of times in which GitLab had disabled the webhook.
    """

    def __init__(
        self,
        api: HookApi,
        facts: KeeperFacts,
        samples: Samples,
        *,
        clock: Clock,
        owner: Callable[[], str],
        doubt: Callable[[int], object],
        gap: Callable[[Gap], None],
        extra: dict[str, object],
    ) -> None:
        self._api = api
        self._facts = facts
        self._samples = samples
        self._clock = clock
        self._owner = owner
        self._doubt = doubt
        self._gap = gap
        self._extra = extra
        self._missed: deque[Missed] = deque()
        self._entries: dict[int, Attempt] = {}  # of what is still missed
        self._read = 0  # the latest entry of the log that was read
        self._doubted = 0  # the entry of the log for which the secret was put once more
        self._rounds_left_to_others = 0
        self._given_up: set[str] = set()
        self._resent: set[str] = set()  # what has no key from GitLab: another entry stands for it now
        self._failed: dict[str, int] = {}  # how often we asked for it in vain
        self._not_before = 0.0  # in the loop's time
        self._silences = Silences(clock.now(), samples.names)

    def forget(self) -> None:
        """The webhook is gone, and its log with it."""
        self._read = 0
        self._entries.clear()
        self._missed.clear()
        self._failed.clear()
        self._resent.clear()
        self._silences.forget()

    async def ask_back(self, where: Where, webhook: Webhook) -> float | None:
        """Ask for what was missed, until one fails; in how many seconds to go on, None: no hurry.

        The oldest first, and last what failed most often: one that nobody takes holds up no other. Raises `ApiError`: 404
        where GitLab has no log, 429 where it has had enough.
        """
        if not self._missed:
            log = await self._open(where, webhook)
            for gap in self._silences.gaps(log, self._clock.now()):
                self._gap(gap)
            self._resent &= {one.key for one in log}
            found = [one for one in missed(log, webhook.url) if one.key not in self._resent and self._is_worth_it(one)]
            keys = {one.key for one in found}
            self._entries = {one.id: one for one in log if one.key in keys}
            self._failed = {key: times for key, times in self._failed.items() if key in keys}
            if self._is_secret_wrong(log, webhook):
                return AGAIN_SECONDS
            self._missed = deque(sorted(found, key=lambda one: (self._failed.get(one.key, 0), one.id)))
        if not self._missed or not self._is_ours_to_ask(webhook):
            return None
        wait = self._not_before - asyncio.get_running_loop().time()
        if wait > 0:
            self._missed.clear()  # read again then: there may be others by that time
            return wait
        return await self._ask_for_all(where, webhook)

    async def _ask_for_all(self, where: Where, webhook: Webhook) -> float | None:
        number = 0
        while self._missed:
            one = self._missed[0]
            status = await self._api.resend(where, webhook.id, one.id)
            if not one.keyed:
                self._resent.add(one.key)
            if not Attempt(id=0, key="", status=status).accepted:
                return await self._asked_in_vain(where, webhook, one)
            self._missed.popleft()
            number += 1
            self._facts.recovered += 1
        _log.info("hook events that were missed were asked back", extra=self._extra | {"events": number})
        return None

    async def _asked_in_vain(self, where: Where, webhook: Webhook, one: Missed) -> float:
        """When to ask again: most likely the sink is away, or this one nobody takes, and then it has time.

        GitLab counts each failure towards disabling the webhook: of our own asking it must not come to that.
        """
        self._missed.clear()
        self._failed[one.key] = self._failed.get(one.key, 0) + 1
        wait = min(AGAIN_SECONDS * (1 << min(min(self._failed.values()) - 1, 10)), _LONGEST_WAIT_SECONDS)
        self._not_before = asyncio.get_running_loop().time() + wait
        await self._samples.send(where, webhook.id)
        return wait

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

    async def _open(self, where: Where, webhook: Webhook) -> list[Attempt]:
        """All that was tried for what is still missed, as far as is known, and whatever is new in the log.

        A page, 20 entries, is read in any case: entries may become visible in another order than that of their ids.
        """
        latest = self._read
        for page in range(1, _LOG_PAGES + 1):
            listed = await self._api.log(where, webhook.id, page)
            found = {one.id: one for one in attempts(listed)}
            self._entries |= found
            latest = max(latest, *found) if found else latest
            if len(listed) < _LOG_PAGE or min(found, default=0) <= self._read:
                break
        else:
            _log.warning(
                "GitLab's log of hook events is longer than is read; older ones are not asked back", extra=self._extra
            )
        self._read = latest
        return list(self._entries.values())

    def _is_worth_it(self, one: Missed) -> bool:
        if one.key in self._given_up:
            return False
        if one.whole and one.tries < MOST_TRIES:
            return True
        self._given_up.add(one.key)
        self._facts.given_up += 1
        _log.error(_TOO_OFTEN if one.whole else _TOO_LARGE, extra=self._extra | {"key": one.key})
        return False
