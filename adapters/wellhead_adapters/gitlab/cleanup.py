"""``wellhead gitlab cleanup``: removes the webhooks that `wellhead gitlab` registered. Receives nothing."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING, Final

from wellhead.clock import SystemClock
from wellhead.env import Collector, parse_flags, settings
from wellhead.errors import Problem
from wellhead.help import help_screen
from wellhead.runtime import Exit, configure_log, report, say
from wellhead.settings import ProcessSettings

from .config import GitlabConfig
from .source import registrar_of, secrets_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wellhead.env import Setting

_PROGRAM: Final = "wellhead gitlab cleanup"
# What wellhead gitlab has to be told and a clean-up need not be; as whoever cleans up may have its environment, or not.
_NOT_NEEDED: Final = {"GITLAB_EVENT_TYPES": "all"}
_NOT_LOOKED_AT: Final = {
    **dict.fromkeys(
        ("GITLAB_SECRET_TOKEN", "GITLAB_SECRET_TOKEN_FILE", "GITLAB_SIGNING_TOKEN", "GITLAB_SIGNING_TOKEN_FILE"), ""
    ),
    "GITLAB_ALLOW_ANYONE": "true",
    "GITLAB_EVENT_SOURCE": "-",
    "PORT": "0",
}


class CleanUp:
    """Remove the webhooks that wellhead gitlab registered, found by their URL. Takes the flags of wellhead gitlab.

    wellhead gitlab cleanup --project-url https://gitlab.example.com/group/project --hook-url https://hooks.example.com
    """

    @staticmethod
    def flags() -> Sequence[Setting[object]]:
        """See `wellhead_adapters.cli.command.Command.flags`."""
        return [*settings(GitlabConfig), *settings(ProcessSettings)]

    @staticmethod
    def main(arguments: Sequence[str]) -> int:
        """Remove them; 1 where one could not be removed. One that is gone already is fine."""
        if any(word in ("-h", "-help", "--help") for word in arguments):
            return say(help_screen(_PROGRAM, CleanUp.__doc__ or "", (GitlabConfig, ProcessSettings)))
        collector = Collector({**_NOT_NEEDED, **os.environ, **_NOT_LOOKED_AT}, parse_flags(arguments, CleanUp.flags()))
        config, process = collector.read(GitlabConfig), collector.read(ProcessSettings)
        if not collector.given("hook-url", "GITLAB_HOOK_URL"):
            where = "--hook-url or GITLAB_HOOK_URL"
            collector.problems.append(Problem(where, "is not set: which webhooks are ours is told by their URL"))
        if collector.problems or config is None or process is None:
            return report(_PROGRAM, collector.problems)
        configure_log(process, collector.warnings)
        done = asyncio.run(_clean_up(config))
        return Exit.DONE if done else Exit.FAILED


async def _clean_up(config: GitlabConfig) -> bool:
    from .api import api_of  # noqa: PLC0415 - python-gitlab costs 100 ms, which help need not pay

    registrar = registrar_of(config, secrets_of(config), api_of(config), clock=SystemClock(), owner="")
    return await registrar.clean_up(None)
