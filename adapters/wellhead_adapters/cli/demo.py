"""``wellhead demo KIND``: a source with something to read, into the event display; nothing else has to be there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from wellhead.binding import SinkBinding
from wellhead.env import Collector, Setting, integer, parse_flags, setting, settings
from wellhead.errors import Problem
from wellhead.help import help_screen
from wellhead.runtime import configure_log, report, run, say
from wellhead.settings import ProcessSettings

from .run import LoadAdapter, configured, event_display, welcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from wellhead.host import Host

Demo: TypeAlias = "Callable[[], AbstractAsyncContextManager[Mapping[str, str]]]"
"""What an entry point ``wellhead.demos`` names, by the kind of an adapter: what plays the outside world, as long as the
block lasts. Gives the variables to start the adapter with; raises `ConfigError` where it cannot be had."""

_PROGRAM = "wellhead demo"
_ABOUT: Final = "Try a source with something to read, into the event display; nothing else has to be there."


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """Where to see it"""

    port: int | None = setting(
        integer(0, 65535), "port of the event display; 0: a free one", flag="port", env="PORT", shown_default="8080"
    )


_CONFIGS = (DemoSettings, ProcessSettings)


def flags() -> list[Setting[object]]:
    """Every flag of ``wellhead demo``."""
    return [known for config in _CONFIGS for known in settings(config)]


def main(arguments: Sequence[str], adapters: Mapping[str, LoadAdapter]) -> int:
    """Run the demo that is asked for until a signal; the exit code."""
    demos = entry_points(group="wellhead.demos")
    kind, *rest = arguments or [""]
    if any(word in ("-h", "-help", "--help") for word in arguments):
        return say(help_screen(f"{_PROGRAM} {'|'.join(sorted(demos.names))}", _ABOUT, _CONFIGS))
    collector = Collector(os.environ, parse_flags(rest, flags()))
    said, process = collector.read(DemoSettings), collector.read(ProcessSettings)
    if kind not in demos.names:
        known = f"there are: {', '.join(sorted(demos.names))}; of heartbeats and ticks: wellhead run --demo"
        collector.problems.insert(0, Problem("demo", f"none is called {kind!a}; {known}"))
    if said is None or process is None or collector.problems:
        return report(_PROGRAM, collector.problems)
    configure_log(process, collector.warnings)

    @asynccontextmanager
    async def compose(host: Host) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            play = cast("Demo", demos[kind].load())
            environment = await stack.enter_async_context(play())
            url = await stack.enter_async_context(event_display(said.port))
            source = host.open_sink(kind, SinkBinding(sink=url))
            host.start(kind, configured(adapters[kind](), environment), source)
            welcome(url, demo=False)
            yield

    return run(compose, process, health_port=process.health_port or 0, program=_PROGRAM)


__all__ = ["Demo", "flags", "main"]
