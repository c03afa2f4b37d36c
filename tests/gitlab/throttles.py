"""Rate limits: how often per minute, and the 429 that says so. Fixed windows, aligned to the clock."""

from __future__ import annotations

from collections import defaultdict
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from tests.gitlab.replies import Headers, Reply, message

if TYPE_CHECKING:
    from collections.abc import Hashable
    from datetime import datetime

PERIOD_SECONDS: Final = 60


class Throttles:
    """Counts of the running minute (lib/gitlab/application_rate_limiter.rb: the key has the period's number)."""

    def __init__(self) -> None:
        self._counts: defaultdict[tuple[Hashable, int], int] = defaultdict(int)

    def count(self, key: Hashable, now: datetime) -> int:
        """How often in this minute, this time included."""
        slot = key, int(now.timestamp()) // PERIOD_SECONDS
        self._counts[slot] += 1
        return self._counts[slot]

    def exceeded(self, key: Hashable, limit: int, now: datetime) -> bool:
        return limit > 0 and self.count(key, now) > limit


def endpoint_limited(*, tells_retry_after: bool) -> Reply:
    """lib/api/helpers/rate_limiter.rb, `render_exceeded_limit_error!`; `Retry-After` is the whole interval."""
    headers: Headers = (("Retry-After", str(PERIOD_SECONDS)),) if tells_retry_after else ()
    return message(429, {"error": "This endpoint has been requested too many times. Try again later."}, headers)


def api_limited(limit: int, observed: int, now: datetime) -> Reply:
    """lib/gitlab/rack_attack.rb, `throttled_response_headers`; *User and IP rate limits*, "Response headers"."""
    epoch = int(now.timestamp())
    retry_after = PERIOD_SECONDS - epoch % PERIOD_SECONDS
    reset = now.fromtimestamp(epoch + retry_after, tz=now.tzinfo)
    headers: Headers = (
        ("Content-Type", "text/plain"),
        ("RateLimit-Name", "throttle_authenticated_api"),
        ("RateLimit-Limit", str(limit)),
        ("RateLimit-Observed", str(observed)),
        ("RateLimit-Remaining", str(max(0, limit - observed))),
        ("RateLimit-Reset", str(epoch + retry_after)),
        ("RateLimit-ResetTime", format_datetime(reset, usegmt=True)),
        ("Retry-After", str(retry_after)),
    )
    return Reply(429, b"Retry later\n", headers)
