"""``wellhead validate``: says offline, all at once and by path, what is wrong with documents."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from wellhead.env import Collector, Setting, parse_flags, settings
from wellhead.errors import ConfigError, Problem
from wellhead.help import help_screen
from wellhead.runtime import report, say

from .fleet import offline_plan
from .plan import FileSettings, World

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .run import LoadAdapter

_PROGRAM = "wellhead validate"
_ABOUT = """Say what is wrong with Knative documents, offline and all at once.

  wellhead validate -f pingsource.yaml -f containersource.yaml
"""


def flags() -> Sequence[Setting[object]]:
    """Every flag of ``wellhead validate``."""
    return settings(FileSettings)


def main(arguments: Sequence[str], adapters: Mapping[str, LoadAdapter]) -> int:
    """Print what is wrong, or that nothing is; the exit code."""
    if any(word in ("-h", "-help", "--help") for word in arguments):
        return say(help_screen(_PROGRAM, _ABOUT, (FileSettings,)))
    collector = Collector(os.environ, parse_flags(arguments, flags()))
    said = collector.read(FileSettings)
    if said is not None and not said.files:
        collector.problems.append(Problem("-f", "is not given: which files?"))
    if said is None or collector.problems:
        return report(_PROGRAM, collector.problems)
    try:
        plan = offline_plan(said.files, World(adapters=adapters, images=said.images))
    except ConfigError as error:
        return report(_PROGRAM, error.problems)
    lines = [f"{key}: valid, run by {source.adapter}" for key, source in plan.sources.items()]
    return say("\n".join((*lines, *plan.notes)))
