"""When failures disable a webhook, for how long, and what makes it work again.

app/models/concerns/web_hooks/auto_disabling.rb; *Webhooks*, "Auto-disabled webhooks": four failures in a row disable it
for a minute, each further one for twice as long up to a day, the fortieth for good.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final, Literal

TEMPORARILY_DISABLED_FAILURE_THRESHOLD: Final = 3
PERMANENTLY_DISABLED_FAILURE_THRESHOLD: Final = 39
INITIAL_BACKOFF: Final = timedelta(minutes=1)
MAX_BACKOFF: Final = timedelta(days=1)

AlertStatus = Literal["executable", "temporarily_disabled", "disabled"]


@dataclass(frozen=True, slots=True)
class Health:
    """How a webhook that may be disabled has fared. Hooks of types that are never disabled keep the first one."""

    recent_failures: int = 0
    disabled_until: datetime | None = None

    def alert_status(self, now: datetime) -> AlertStatus:
        if self.recent_failures > PERMANENTLY_DISABLED_FAILURE_THRESHOLD:
            return "disabled"
        within = self.recent_failures > TEMPORARILY_DISABLED_FAILURE_THRESHOLD
        if within and self.disabled_until is not None and self.disabled_until >= now:
            return "temporarily_disabled"
        return "executable"

    def executable(self, now: datetime) -> bool:
        return self.alert_status(now) == "executable"

    def after_success(self) -> Health:
        """`enable!`: one success forgets all failures; that a disabled webhook has one takes a test request."""
        return Health()

    def after_failure(self, now: datetime) -> Health:
        """`backoff!`: failures that end while it is disabled (they were under way) do not count.

        `next_backoff` reads the count before this failure: a minute at the fourth, two at the fifth.
        """
        if not self.executable(now):
            return self
        failures = self.recent_failures + 1
        if failures <= TEMPORARILY_DISABLED_FAILURE_THRESHOLD:
            return replace(self, recent_failures=failures)
        doublings = self.recent_failures - TEMPORARILY_DISABLED_FAILURE_THRESHOLD
        return Health(failures, now + min(INITIAL_BACKOFF * 2**doublings, MAX_BACKOFF))
