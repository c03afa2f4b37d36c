"""What can be wrong with GitLab's API, and how long to leave it alone. Pure."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from wellhead.errors import WellheadError

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECONDS: Final = re.compile(r"\d{1,6}", re.ASCII)
_ADVICE: Final = {
    401: "the access token is wrong, expired or revoked",
    403: "the access token may not do it: it takes scope api, and the role Maintainer (Owner of a group, administrator)",
    404: "there is none of this name, or the access token may not see it",
}
LONGEST_WAIT: Final = 900.0


class ApiError(WellheadError):
    """A call of the API failed. ``status`` is None without an answer; ``retry_after`` are seconds, where GitLab said."""

    def __init__(self, reason: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        self.reason = reason
        self.status = status
        self.retry_after = retry_after
        super().__init__(f"{status}: {reason}" if status else reason)

    @property
    def advice(self) -> str:
        """What to do about it; "" where nobody knows."""
        return _ADVICE.get(self.status or 0, "")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of ``Retry-After``, the names of ``headers`` being in lower case."""
    said = headers.get("retry-after", "")
    return float(said) if _SECONDS.fullmatch(said) else None


def wait_after(error: ApiError, failures: int, interval: float) -> float:
    """How long to leave GitLab alone after so many failures in a row: what it says, else the interval, then longer."""
    if error.retry_after is not None:
        return min(max(error.retry_after, 1.0), LONGEST_WAIT)
    if error.status in (401, 403, 404, 429):
        return min(interval * (1 << min(failures - 1, 2)), LONGEST_WAIT)
    return min(5.0 * (1 << min(failures - 1, 10)), interval)
