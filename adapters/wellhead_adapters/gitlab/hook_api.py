"""What the registrar asks of GitLab, as a protocol: ``api.py`` keeps it by python-gitlab, tests by a GitLab in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from .projecturl import Target


@dataclass(frozen=True, slots=True)
class Where:
    """Where the webhooks of a target are: ``path`` is ``/projects/42``, and "" for those of the whole instance."""

    base: str
    path: str


class HookApi(Protocol):
    """Every call may raise `ApiError`, within its time-out. A call that was cut off may have been carried out."""

    async def locate(self, target: Target) -> Where:
        """Where ``target`` is now, also after it was renamed or moved."""

    async def webhooks(self, where: Where) -> list[object]:
        """All webhooks there."""

    async def create(self, where: Where, body: Mapping[str, object]) -> object:
        """Make one; what was made."""

    async def update(self, where: Where, number: int, body: Mapping[str, object]) -> object:
        """Change one; what it is now."""

    async def remove(self, where: Where, number: int, *, unless_changed_since: datetime | None = None) -> bool:
        """Remove one; that it is gone already is fine. False where it was changed since, which leaves it."""

    async def log(self, where: Where, number: int, page: int) -> list[object]:
        """A page of what GitLab tried to tell, 20 a page, the latest first. From 17.3 on, not for the whole instance."""

    async def resend(self, where: Where, number: int, entry: int) -> str:
        """Have GitLab tell once more what ``entry`` of the log is about; the status that it got."""

    async def test(self, where: Where, number: int, trigger: str) -> None:
        """Have GitLab send a sample, which enables a webhook that was disabled, if it is answered 2xx."""
