"""``wellhead replay``: sends what a dead-letter file holds, and takes out of it what was accepted."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wellhead.adapter import Fence
from wellhead.dead_letter import decode_line, without_error
from wellhead.env import Collector, Flags, boolean, integer, parse_flags, setting, settings
from wellhead.errors import DecodeError, DeliveryError, Problem
from wellhead.help import help_screen
from wellhead.runtime import NO_SINK, Exit, configure_log, open_sink, report, run, say
from wellhead.settings import DeliverySettings, ProcessSettings, SinkSettings

from .letters import Letters

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Sequence

    from wellhead.adapter import Sink
    from wellhead.env import Setting
    from wellhead.event import CloudEvent
    from wellhead.host import Host

    from .letters import Line

_PROGRAM: Final = "wellhead replay"
_CHECKPOINT_SECONDS: Final = 30.0
_SHOWN_SECONDS: Final = 0.1
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplaySettings:
    """What to replay"""

    first: int = setting(integer(1, 2**63), "the line to begin with; those before stay", flag="from", default=1)
    dry_run: bool = setting(
        boolean, "say what would be sent, and send nothing", flag="dry-run", default=False, switch=True
    )


_CONFIGS = (ReplaySettings, SinkSettings, DeliverySettings, ProcessSettings)


@dataclass(slots=True)
class Tally:
    """What became of the lines so far."""

    accepted: int = 0
    refused: int = 0
    unreadable: int = 0

    def __str__(self) -> str:
        return f"{self.accepted} accepted, {self.refused} not accepted, {self.unreadable} unreadable"


class Replay:
    """Send the events of a dead-letter file once more.

    wellhead replay FILE --sink http://localhost:8080

    In order, with the ids they had, without what made them dead letters. What is accepted leaves the file; what is
    not stays, as does a line that is no event. Stopped half-way it goes on where it stopped; killed, it repeats
    what it sent in the last half a minute. A source may write to the file meanwhile.
    """

    @staticmethod
    def flags() -> Sequence[Setting[object]]:
        """Every flag of the command."""
        return [known for config in _CONFIGS for known in settings(config)]

    @staticmethod
    def main(arguments: Sequence[str]) -> int:
        """Replay what the arguments name; the exit code."""
        if any(word in ("-h", "-help", "--help") for word in arguments):
            return say(help_screen(_PROGRAM, Replay.__doc__ or "", _CONFIGS))
        files, flags = _parse(arguments)
        collector = Collector(os.environ, flags)
        said, to = collector.read(ReplaySettings), collector.read(SinkSettings)
        delivery, process = collector.read(DeliverySettings), collector.read(ProcessSettings)
        if len(files) != 1:
            collector.problems.append(Problem("FILE", f"give one file to replay, not {len(files)}"))
        if said is not None and not said.dry_run and not collector.given("sink", "K_SINK", "SINK"):
            collector.problems.append(NO_SINK)
        if said is None or to is None or delivery is None or process is None or collector.problems:
            return report(_PROGRAM, collector.problems)
        configure_log(process, collector.warnings)
        try:
            letters = Letters(Path(files[0]))
        except OSError as error:
            return report(_PROGRAM, [Problem("FILE", f"{files[0]!a} cannot be read: {error.strerror}")])
        with letters:
            if said.dry_run:
                return say("\n".join(_preview(letters, said.first)))
            return _replay(letters, said, to, delivery, process)


def _parse(arguments: Sequence[str]) -> tuple[tuple[str, ...], Flags]:
    """The file, which may stand before the flags or behind them, and the flags."""
    before = tuple(arguments[:1]) if arguments and not arguments[0].startswith("-") else ()
    flags = parse_flags(arguments[len(before) :], Replay.flags())
    return (*before, *flags.rest), flags


def _replay(
    letters: Letters, said: ReplaySettings, to: SinkSettings, delivery: DeliverySettings, process: ProcessSettings
) -> int:
    replayer = Replayer(letters, said.first, _progress())

    @asynccontextmanager
    async def compose(host: Host) -> AsyncIterator[None]:
        name = process.name or "replay"
        async with open_sink(host, name, to, delivery, process, os.environ) as sink:
            host.start(name, replayer, sink)
            yield

    code = run(compose, process, health_port=process.health_port or 0, program=_PROGRAM)
    if code == Exit.CONFIG:
        return code
    say(str(replayer.tally))
    if replayer.failed:
        return Exit.FAILED
    return Exit.UNDELIVERED if code == Exit.DONE and replayer.tally.unreadable else code


class Replayer:
    """The adapter behind the command: its source is the file. Ends when all lines are settled."""

    def __init__(self, letters: Letters, first: int, shown: Callable[[str], None]) -> None:
        self.tally = Tally()
        self.failed = False
        """Whether the file could not be rewritten."""
        self._letters = letters
        self._first = first
        self._shown = shown

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """See `wellhead.adapter.Adapter.run`. Cancelled, it waits for the try on the wire, and for no other."""
        ready()
        loop = asyncio.get_running_loop()
        checkpoint = loop.time() + _CHECKPOINT_SECONDS
        shown = 0.0
        try:
            while (line := self._letters.next()) is not None:
                await self._settle(sink, line)
                now = loop.time()
                if now >= shown + _SHOWN_SECONDS:
                    shown = now
                    self._shown(f"{100 * self._letters.done // self._letters.size} %: {self.tally}")
                if now >= checkpoint:
                    await asyncio.to_thread(self._letters.take_out)
                    checkpoint = loop.time() + _CHECKPOINT_SECONDS
            if self._letters.torn:
                _log.warning("the last line is torn, or a source is writing it; it stays")
        except OSError as error:
            self._tell(error)
        finally:
            self._shown("")
            await self._take_out()

    async def _take_out(self) -> None:
        if not self.failed:
            try:
                await asyncio.to_thread(self._letters.take_out)
            except OSError as error:
                self._tell(error)

    def _tell(self, error: OSError) -> None:
        self.failed = True
        _log.error(
            "the file cannot be read or rewritten; what was accepted may still be in it", extra={"reason": str(error)}
        )

    async def _settle(self, sink: Sink, line: Line) -> None:
        """Send one line's event, and note what became of it, whatever happens meanwhile."""
        if line.number < self._first:
            self._letters.settle(line, keep=True)
            return
        try:
            event = without_error(decode_line(line.octets))
        except DecodeError as error:
            self.tally.unreadable += 1
            self._letters.settle(line, keep=True)
            _log.error("a line is no event; it stays", extra={"line": line.number, "reason": str(error)})
            return
        fence = Fence()
        sending = asyncio.create_task(_accepted(sink, event, fence), name=f"replay line {line.number}")
        try:
            await asyncio.shield(sending)
        except asyncio.CancelledError:
            fence.close()
            await sending
            raise
        finally:
            if sending.done() and not sending.cancelled():
                accepted = sending.result()
                self.tally.accepted += accepted
                self.tally.refused += not accepted
                self._letters.settle(line, keep=not accepted)


async def _accepted(sink: Sink, event: CloudEvent, fence: Fence) -> bool:
    try:
        await sink.send(event, fence=fence)
    except DeliveryError:
        return False  # counted and logged
    return True


def _preview(letters: Letters, first: int) -> Iterator[str]:
    """What would be sent, a line each."""
    while (line := letters.next()) is not None:
        letters.settle(line, keep=True)
        if line.number < first:
            continue
        try:
            event = decode_line(line.octets)
        except DecodeError as error:
            yield f"{line.number}: no event: {error}"
            continue
        code = event.extensions.get("knativeerrorcode")
        why = f"HTTP {code}" if isinstance(code, int) else "no answer"
        yield f"{line.number}: {event.type} {event.source} {event.id} ({why})"


def _progress() -> Callable[[str], None]:
    """Shows a line in the place of the one before; shows nothing where stderr is no terminal."""
    if not sys.stderr.isatty():
        return lambda _: None

    def show(text: str) -> None:
        sys.stderr.write(f"\r\x1b[K{text}")
        sys.stderr.flush()

    return show
