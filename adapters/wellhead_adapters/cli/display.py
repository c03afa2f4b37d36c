"""``wellhead display``: the event display as a program, in place of Knative's event_display image."""

from __future__ import annotations

import logging
import os
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from wellhead.display.receiver import Display, write_stdout
from wellhead.env import Collector, Setting, boolean, integer, parse_flags, setting, settings
from wellhead.errors import ConfigError, Problem
from wellhead.help import help_screen
from wellhead.runtime import configure_log, report, run, say
from wellhead.settings import ProcessSettings, listen_address

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from wellhead.host import Host

_log = logging.getLogger(__name__)
_PROGRAM = "wellhead display"
_ABOUT = """Receive events over HTTP, print them as Knative's event_display does, and show them live on a page.

Send events to http://localhost:8080 (any path), open the same address in a browser, or ask for
/events (JSON). /healthz answers 204.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class DisplaySettings:
    """What the display can be told"""

    port: int = setting(integer(0, 65535), "port to listen on; 0: a free one", flag="port", env="PORT", default=8080)
    address: str = setting(
        listen_address, "address to listen on; empty: all", flag="address", env="ADDRESS", default=""
    )
    keep: int = setting(
        integer(0, 100_000), "events kept for the page and /events", flag="keep", env="KEEP_EVENTS", default=500
    )
    percent_decode: bool = setting(
        boolean,
        "read header values as the CloudEvents binding says; Knative's display shows them as they came",
        flag="percent-decode",
        env="PERCENT_DECODE",
        default=False,
        switch=True,
    )
    log_requests: bool = setting(
        boolean,
        "log every request to standard error",
        flag="log-requests",
        env="REQUEST_LOGGING_ENABLED",
        default=False,
        switch=True,
    )
    quiet: bool = setting(boolean, "print no events", flag="quiet", env="QUIET", default=False, switch=True)


_CONFIGS = (DisplaySettings, ProcessSettings)


def flags() -> list[Setting[object]]:
    """Every flag of ``wellhead display``."""
    return [known for config in _CONFIGS for known in settings(config)]


def main(arguments: Sequence[str]) -> int:
    """Serve the display until a signal; the exit code."""
    if any(word in ("-h", "-help", "--help") for word in arguments):
        return say(help_screen(_PROGRAM, _ABOUT, _CONFIGS))
    collector = Collector(os.environ, parse_flags(arguments, flags()))
    said, process = collector.read(DisplaySettings), collector.read(ProcessSettings)
    if said is None or process is None or collector.problems:
        return report(_PROGRAM, collector.problems)
    configure_log(process, collector.warnings)

    @asynccontextmanager
    async def compose(_host: Host) -> AsyncIterator[None]:
        async with serving(said):
            yield

    return run(compose, process, health_port=process.health_port or 0, program=_PROGRAM, until_signal=True)


@asynccontextmanager
async def serving(said: DisplaySettings) -> AsyncIterator[str]:
    """The display, serving; gives its URL. Raises `ConfigError` where the address cannot be listened on."""
    display = Display(
        write=None if said.quiet else write_stdout,
        keep_events=said.keep,
        percent_decode=said.percent_decode,
        log_requests=said.log_requests,
    )
    try:
        _, port = await display.start(said.address, said.port)
    except OSError as error:
        where = f"{said.address or '*'}:{said.port}"
        raise ConfigError([Problem("--port", f"cannot listen on {where}: {error.strerror or error}")]) from None
    url = f"http://{said.address or 'localhost'}:{port}"
    _log.info("the event display is open", extra={"url": url})
    try:
        yield url
    finally:
        await display.stop(5.0)
