"""The registrar: a `Keeper` for each target, secrets that change, and cleaning up at the end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from wellhead.watched_file import LOOK_SECONDS

from .trouble import ApiError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .keeper import Keeper
    from .secrets import Secrets

_FIRST_ROUND_SECONDS: Final = 15.0

_log = logging.getLogger(__name__)


class Registrar:
    """Keeps the webhooks of all targets, each by itself: one that GitLab is slow about holds up no other."""

    def __init__(self, keepers: Sequence[Keeper], secrets: Secrets) -> None:
        self.keepers = keepers
        self._secrets = secrets

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for keeper in self.keepers:
                tasks.create_task(keeper.run(), name=f"webhook of {keeper.target}")
            tasks.create_task(self._follow_secrets(), name="secrets of the webhooks")

    async def looked(self) -> None:
        """Return once every webhook was looked at, well or not, or GitLab took too long about it."""
        try:
            async with asyncio.timeout(_FIRST_ROUND_SECONDS):
                for keeper in self.keepers:
                    await keeper.looked.wait()
        except TimeoutError:
            _log.warning("GitLab's API is slow; events are taken before the webhooks were looked at")

    def poke(self) -> None:
        """Have all webhooks looked at soon."""
        for keeper in self.keepers:
            keeper.poke()

    async def clean_up(self, owner: str | None) -> bool:
        """Remove our webhooks, as `Keeper.clean_up`; whether that went well everywhere. Never raises, never hangs."""
        done = await asyncio.gather(*(_clean_up(keeper, owner) for keeper in self.keepers))
        return all(done)

    async def _follow_secrets(self) -> None:
        loop = asyncio.get_running_loop()
        version = self._secrets.version
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            self._secrets.look()  # the receiver looks as well
            if self._secrets.version != version:
                version = self._secrets.version
                _log.info("the secrets have changed; the old ones are accepted until GitLab has the new")
                self.poke()
            if all(keeper.has(version) for keeper in self.keepers):
                self._secrets.confirmed(loop.time())


async def _clean_up(keeper: Keeper, owner: str | None) -> bool:
    extra = {"target": str(keeper.target)}
    try:
        number = await keeper.clean_up(owner)
    except (ApiError, TimeoutError) as error:
        reason = str(error) or "it took too long"
        _log.error("the webhook could not be removed and is left", extra=extra | {"reason": reason})
        return False
    _log.info("webhooks were removed", extra=extra | {"webhooks": number})
    return True
