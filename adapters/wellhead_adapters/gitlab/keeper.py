"""Keeps one target's webhook as it shall be, and asks back for what was missed. What to do is ``webhooks.py``'s to say."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from .facts import KeeperFacts
from .missed import Gap, attempts, last_attempt
from .recovery import AGAIN_SECONDS, Recovery
from .removal import remove_ours
from .samples import Samples
from .trouble import ApiError, wait_after
from .webhooks import Alert, Create, Enable, Remove, Update, is_surplus, ours, plan, unsupported, webhooks

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from wellhead.clock import Clock

    from .hook_api import HookApi, Where
    from .projecturl import Target
    from .secrets import Secrets
    from .webhooks import Step, Wanted, Webhook

_ROUNDS: Final = 6  # of listing and mending, until nothing is left to mend
_LEAST_SECONDS: Final = AGAIN_SECONDS  # between rounds: GitLab takes five tests and five resends a minute
_GAPS: Final = 32  # are known to have been told
_SETTLE_SECONDS: Final = 10.0  # after a change it is looked at again: another replica may have changed it as well
_RESEND_LIMIT_SECONDS: Final = 60.0

_log = logging.getLogger(__name__)


class Keeper:
    """One target. ``wanted`` is asked for at each round, as secrets change."""

    def __init__(
        self,
        target: Target,
        api: HookApi,
        wanted: Callable[[], Wanted],
        secrets: Secrets,
        *,
        clock: Clock,
        interval: timedelta = timedelta(minutes=1),
        triggers: tuple[str, ...] = (),
        resend: bool = True,
    ) -> None:
        self.target = target
        self.facts = KeeperFacts()
        self.looked = asyncio.Event()
        """Set once a round has ended, well or not."""
        self._api = api
        self._wanted = wanted
        self._secrets = secrets
        self._clock = clock
        self._interval = interval.total_seconds()
        self._resend = resend
        self._poked = asyncio.Event()
        self._known: dict[int, str] = {}
        self._seen: datetime | None = None  # when a webhook of ours that GitLab fires was last there
        self._disabled_since: datetime | None = None
        self._gaps: deque[Gap] = deque(maxlen=_GAPS)
        self._told: str | None = None
        self._unsupported: tuple[str, ...] = ()
        self._logless: int | None = None  # the webhook of which GitLab had no log
        self._samples = Samples(api, triggers, self._extra)
        self._recovery = Recovery(
            api,
            self.facts,
            self._samples,
            clock=clock,
            gap=self._told_nothing,
            owner=lambda: wanted().owner,
            doubt=lambda number: self._known.pop(number, None),
            extra=self._extra,
        )

    def poke(self) -> None:
        """Look soon: something changed, or GitLab was told of a failure."""
        self._poked.set()

    def has(self, version: str) -> bool:
        """Whether GitLab was told this version of the secrets, as far as this process knows."""
        return version in self._known.values()

    async def run(self) -> None:
        """Rounds until cancelled, one each interval. What goes wrong with the API is told, and tried again."""
        failures = 0
        while True:
            self._poked.clear()
            try:
                wait = await self.round()
                failures = 0
            except ApiError as error:
                failures += 1
                wait = wait_after(error, failures, self._interval)
                self._failed(error)
            finally:
                self.looked.set()
            await self._pause(wait)

    async def round(self) -> float:
        """Mend what is not right, then ask for what was missed; how many seconds to wait. Raises `ApiError`."""
        where = await self._api.locate(self.target)
        webhook, changed = await self._mend(where)
        self._succeeded(webhook)
        wait = min(self._interval, _SETTLE_SECONDS) if changed else self._interval
        if webhook is None or not self._resend or not where.path or webhook.id == self._logless:
            return wait
        if webhook.alert is not Alert.EXECUTABLE:
            return min(wait, AGAIN_SECONDS)  # it resends nothing
        try:
            again = await self._recovery.ask_back(where, webhook)
            return wait if again is None else min(wait, again)
        except ApiError as error:
            if error.status == 429:
                return error.retry_after or _RESEND_LIMIT_SECONDS  # the webhook is looked at then, too
            if error.status != 404:
                raise
            self._logless = webhook.id  # or it was removed a moment ago; then the next one has another id
            _log.info(
                "this GitLab keeps no log of hook events (17.3 does): nothing can be asked back", extra=self._extra
            )
            return wait

    async def clean_up(self, owner: str | None) -> int:
        """Remove our webhooks: all of them, or only what ``owner`` wrote last. How many. See `removal.remove_ours`."""
        return await remove_ours(self._api, self.target, self._wanted().url, owner, self._clock)

    # Mending.

    async def _mend(self, where: Where) -> tuple[Webhook | None, bool]:
        """List and mend until there is nothing to mend; the webhook, and whether anything was changed."""
        changed = tested = False
        own: list[Webhook] = []
        for _ in range(_ROUNDS):
            wanted, listed = self._wanted(), await self._listed(where)
            own = ours(wanted.url, listed)
            self._note(own)
            # One test a round: what it did shows in the next list, and GitLab takes five a minute.
            steps = [step for step in plan(wanted, listed, self._known) if not (tested and isinstance(step, Enable))]
            if not steps:
                break
            for step in steps:
                await self._do(step, where, wanted)
                tested = tested or isinstance(step, Enable)
            changed = True
            self.facts.changes += 1
        if own:
            self._tell_unsupported(wanted, own[0])
        return (own[0] if own else None), changed

    async def _listed(self, where: Where) -> list[Webhook]:
        try:
            return webhooks(await self._api.webhooks(where))
        except ValueError as error:
            raise ApiError(str(error)) from None

    async def _do(self, step: Step, where: Where, wanted: Wanted) -> None:
        if isinstance(step, Create):
            made = await self._api.create(where, wanted.body(self._secrets.wanted))
            if isinstance(made, Mapping) and type(made.get("id")) is int:
                self._known[made["id"]] = wanted.version
            _log.info("webhook was created", extra=self._extra)
            self._gone_since_seen()
        elif isinstance(step, Update):
            await self._update(step, where, wanted)
        elif isinstance(step, Enable):
            await self._enable(step, where)
        elif isinstance(step, Remove):
            # Looked at once more: somebody may have removed the one that stays, and the last is never removed.
            if not is_surplus(step.id, ours(wanted.url, await self._listed(where))):
                return
            await self._api.remove(where, step.id)
            _log.warning("a second webhook of ours was removed", extra=self._extra | {"webhook": step.id})

    async def _update(self, step: Update, where: Where, wanted: Wanted) -> None:
        try:
            await self._api.update(where, step.id, wanted.body(self._secrets.wanted))
        except ApiError as error:
            if error.status != 404:  # removed meanwhile: the next list says what to do
                raise
            return
        self._known[step.id] = wanted.version
        _log.info("webhook was set as it shall be", extra=self._extra | {"fields": ", ".join(step.fields)})

    async def _enable(self, step: Enable, where: Where) -> None:
        """Have GitLab test it. The sample is of a kind that nobody asked for, and the receiver sends it nowhere."""
        if self._disabled_since is None:
            self._disabled_since = await self._last_attempt(where, step.id) or self._clock.now()
            _log.error("GitLab has disabled the webhook", extra=self._extra | {"alert": step.alert.value})
        if self._samples:
            await self._samples.send(where, step.id)
        else:
            await self._replace(step, where)

    async def _replace(self, step: Enable, where: Where) -> None:
        """Every kind of event is asked for, so any sample would pass for an occurrence: make a new webhook instead."""
        if step.alert is Alert.DISABLED:
            await self._api.remove(where, step.id)
            _log.warning("the disabled webhook is replaced; its log is gone with it", extra=self._extra)

    async def _last_attempt(self, where: Where, number: int) -> datetime | None:
        try:
            return last_attempt(attempts(await self._api.log(where, number, 1))) if where.path else None
        except ApiError:
            return None  # an older GitLab; the moment it was noticed has to do

    # Telling.

    def _note(self, own: list[Webhook]) -> None:
        """What a list tells of the past: which webhooks are gone, and whether one that was disabled is not any more."""
        self._known = {webhook.id: self._known[webhook.id] for webhook in own if webhook.id in self._known}
        if own and own[0].alert is Alert.EXECUTABLE:
            self._seen = self._clock.now()
            if self._disabled_since is not None:
                self._gap(self._disabled_since)
                self._disabled_since = None

    def _gone_since_seen(self) -> None:
        since, self._seen = self._disabled_since or self._seen, None
        self._disabled_since = None
        self._recovery.forget()
        if since is not None:
            self._gap(since)

    def _gap(self, since: datetime) -> None:
        self._told_nothing(Gap(since, self._clock.now()))

    def _told_nothing(self, gap: Gap) -> None:
        new: Gap | None = gap
        for told in self._gaps:  # it may have been seen as well, while it was there
            new = new.without(told) if new is not None else None
        if new is None:
            return
        self._gaps.append(new)
        self.facts.add(new)
        times = {"since": new.since.isoformat() if new.since else "", "until": new.until.isoformat()}
        _log.error("GitLab told nothing in this time, and nobody can ask for it", extra=self._extra | times)

    def _tell_unsupported(self, wanted: Wanted, webhook: Webhook) -> None:
        unknown = unsupported(wanted, webhook)
        if unknown != self._unsupported:
            self._unsupported = unknown
            if unknown:
                _log.warning(
                    "this GitLab does not know events of these kinds", extra=self._extra | {"kinds": ", ".join(unknown)}
                )

    def _succeeded(self, webhook: Webhook | None) -> None:
        self.facts.up = webhook is not None and webhook.alert is Alert.EXECUTABLE
        if self._told is not None:
            _log.info("GitLab's API answers again", extra=self._extra)
        self._told = None

    def _failed(self, error: ApiError) -> None:
        self.facts.failures += 1
        if str(error) != self._told:
            self._told = str(error)
            advice = {"advice": error.advice} if error.advice else {}
            _log.error(
                "GitLab's API is of no use now; tried again", extra=self._extra | {"reason": str(error)} | advice
            )

    @property
    def _extra(self) -> dict[str, object]:
        return {"target": str(self.target)}

    async def _pause(self, seconds: float) -> None:
        """Wait so long, or until poked; the least between two rounds in any case."""
        least = min(_LEAST_SECONDS, seconds)
        await asyncio.sleep(least)
        try:
            async with asyncio.timeout(seconds - least):
                await self._poked.wait()
        except TimeoutError:
            return
