"""Removes a target's webhooks at the end, or on request. Who may, ``webhooks.py`` says."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from .trouble import ApiError
from .webhooks import may_remove, ours, webhooks

if TYPE_CHECKING:
    from wellhead.clock import Clock

    from .hook_api import HookApi
    from .projecturl import Target

_SECONDS: Final = 10.0
_AGAIN_SECONDS: Final = 1.0  # GitLab compares whole seconds
_LOOKS: Final = 3

_log = logging.getLogger(__name__)


async def remove_ours(api: HookApi, target: Target, url: str, owner: str | None, clock: Clock) -> int:
    """Remove the webhooks of this URL: all of them, or only what ``owner`` wrote last. How many.

    Raises `ApiError`, or TimeoutError after some seconds: then one at least is left. One that is gone already is fine.
    """
    removed = 0
    async with asyncio.timeout(_SECONDS):
        where = await api.locate(target)
        for look in range(_LOOKS):
            if look:
                await asyncio.sleep(_AGAIN_SECONDS)
            now = clock.now()
            try:
                own = ours(url, webhooks(await api.webhooks(where)))
            except ValueError as error:
                raise ApiError(str(error)) from None
            mine = [webhook for webhook in own if owner is None or may_remove(webhook, owner)]
            if len(mine) < len(own):
                _log.info("the webhook stays: another process has written it since", extra={"target": str(target)})
            since = now if owner is not None else None
            left = [webhook for webhook in mine if not await api.remove(where, webhook.id, unless_changed_since=since)]
            removed += len(mine) - len(left)
            if not left:
                return removed
    # A failure that GitLab noted with it is over in a second; a clock that is ahead of ours is not.
    raise ApiError("it was changed at the same time; wellhead gitlab cleanup removes it")
