"""What goes wrong with calls to the API, by order: lost before or after they took effect, late, or answered by a proxy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from tests.gitlab.replies import Call, Reply, message

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.gitlab.replies import Headers


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What happens to one call.

    ``effect`` says whether the instance does what was asked. The client gets ``reply`` instead of the true one, or no
    reply at all where ``reset``; with neither, the true one. Everything begins ``delay_seconds`` late, for the caller as
    for the instance: a client that does not wait so long goes without knowing that it was done after all.
    """

    effect: bool
    reset: bool = False
    reply: Reply | None = None
    delay_seconds: float = 0

    def __post_init__(self) -> None:
        if not self.effect and not self.reset and self.reply is None:
            raise ValueError("a call without effect has no true reply: give one, or reset")


LOST_BEFORE: Final = Fault(effect=False, reset=True)
LOST_AFTER: Final = Fault(effect=True, reset=True)


def late(seconds: float) -> Fault:
    return Fault(effect=True, delay_seconds=seconds)


def answered(reply: Reply, when: Literal["before", "after"] = "before") -> Fault:
    return Fault(effect=when == "after", reply=reply)


def html(status: int, title: str) -> Reply:
    """A page of the proxy in front (GitLab's own nginx: /502.html, in HTML whatever was asked for)."""
    page = (
        f"<!DOCTYPE html>\n<html><head><title>{title} ({status})</title></head><body><h1>{status}</h1></body></html>\n"
    )
    return Reply(status, page.encode(), (("Content-Type", "text/html"),))


def too_many_requests(headers: Headers = (("Retry-After", "1"),)) -> Reply:
    """As lib/gitlab/rack_attack.rb answers; GitLab.com's own proxy sends none of the headers."""
    return Reply(429, b"Retry later\n", (("Content-Type", "text/plain"), *headers))


RESOURCE_LOCK: Final = message(409, "409 Conflict: Resource lock")
"""lib/api/api.rb, rescue_from StaleObjectError, FailedToObtainLockError."""


class Faults:
    """Which calls go wrong, and all calls that came. What is ordered by `then` meets the next calls, one each."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._next: list[Fault | None] = []
        self._rules: list[Callable[[int, Call], Fault | None]] = []

    def then(self, *faults: Fault | None) -> None:
        """For the next calls in turn; None lets one through."""
        self._next += faults

    def at(self, number: int, fault: Fault) -> None:
        """For the call of this number, the first one being 0."""
        self._rules.append(lambda index, _: fault if index == number else None)

    def whenever(self, rule: Callable[[Call], Fault | None]) -> None:
        self._rules.append(lambda _, call: rule(call))

    def clear(self) -> None:
        self._next.clear()
        self._rules.clear()

    def of(self, call: Call) -> Fault | None:
        """Asked once for each call, by whoever serves it."""
        index = len(self.calls)
        self.calls.append(call)
        if self._next:
            return self._next.pop(0)
        return next((fault for rule in self._rules if (fault := rule(index, call)) is not None), None)
