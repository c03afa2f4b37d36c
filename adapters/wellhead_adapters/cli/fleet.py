"""The sources of ``wellhead run -f`` at work: reads the files, starts what they say, and follows their changes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Never, cast

from wellhead.binding import MappedRefs, SinkBinding, resolve
from wellhead.delivery import Policy
from wellhead.errors import ConfigError, Problem
from wellhead.manifest import Collected, documents
from wellhead.watched_file import stamp

from .plan import Many, Plan, PlannedSource, World, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from wellhead.access import SinkAccess
    from wellhead.binding import Destination
    from wellhead.dead_letter_file import DeadLetterFile
    from wellhead.host import Host
    from wellhead.manifest import Document
    from wellhead.settings import DeliverySettings
    from wellhead.watched_file import Stamp

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 1.0
_GRACE_SECONDS: Final = 10.0


def read_plan(files: Sequence[Path], world: World) -> Plan:
    """What the files say to run. Raises `ConfigError` with the problems of all of them."""
    problems: list[Problem] = []
    found: list[Document] = []
    made = Plan({}, ())
    for file in _listed(files, problems):
        with Collected(problems):
            read, wrong = documents(_text(file), str(file))
            found += read
            problems += wrong
    with Collected(problems):
        made = plan(found, world)
    if problems:
        raise ConfigError(problems)
    return made


class Fleet:
    """What runs of the documents. `follow` keeps to the files until cancelled; the host stops what is left."""

    def __init__(
        self,
        host: Host,
        world: World,
        *,
        sink: str,
        ca_certs: str,
        given: bool,
        refs: Mapping[str, str],
        delivery: DeliverySettings,
        access: SinkAccess,
        dead_letter: SinkBinding | DeadLetterFile | None = None,
    ) -> None:
        self._host = host
        self._world = world
        self._sink = sink
        self._ca_certs = ca_certs
        self._given = given
        self._refs = MappedRefs(refs)
        self._delivery = delivery
        # A sink that was given takes the dead letters too.
        self._access = replace(access, dead_letters_too=True) if given else access
        self._dead_letter = dead_letter
        self._running: dict[str, PlannedSource] = {}
        self._many: dict[str, Many[Never]] = {}
        self._told: set[tuple[str, str]] = set()

    async def apply(self, wanted: Plan) -> None:
        """Stop what is gone, start what is new, replace what changed; leave the rest undisturbed."""
        for note in wanted.notes:
            self._tell_once(logging.INFO, "document is skipped", note)
        if not wanted.sources:
            _log.warning("nothing in these files is a source that runs here")
        gone = [source for key, source in self._running.items() if wanted.sources.get(key) != source]
        await asyncio.gather(*(self._stop(source) for source in gone))
        for key, source in wanted.sources.items():
            if key not in self._running:
                await self._start(source)

    async def follow(self, files: Sequence[Path]) -> None:
        """Apply what the files say whenever they change; what they say wrong is told, and what runs goes on."""
        before = _stamps(files)
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = _stamps(files)
            if now == before:
                continue
            before = now
            try:
                await self.apply(read_plan(files, self._world))
            except ConfigError as error:
                for problem in error.problems:
                    _log.error("files are wrong; what runs goes on", extra={"problem": str(problem)})

    async def _start(self, source: PlannedSource) -> None:
        spec = source.spec
        dead_letter = self._dead_letter
        if spec.dead_letter is not None:
            dead_letter = await self._bind(source, spec.dead_letter)
        sink = self._host.open_sink(
            source.key,
            await self._bind(source, spec.sink),
            policy=spec.policy or self._delivery.policy(self._own_policy(source)),
            dead_letter=dead_letter,
            access=self._access,
        )
        many = self._many_of(source)
        if many is not None:
            many.put(source.key, cast("Never", source.config), sink)
        else:
            adapter_class = self._world.adapters[source.adapter]()
            self._host.start(source.key, adapter_class(cast("Never", source.config)), sink)
        self._running[source.key] = source

    async def _stop(self, source: PlannedSource) -> None:
        """Take nothing more in, and settle within the grace what was taken."""
        del self._running[source.key]
        many = self._many_of(source)
        if many is None:
            await self._host.stop(source.key, _GRACE_SECONDS)
        else:
            many.remove(source.key)
            await self._host.close_sink(source.key, _GRACE_SECONDS)

    def _own_policy(self, source: PlannedSource) -> Policy:
        return getattr(self._world.adapters[source.adapter](), "policy", Policy())

    def _many_of(self, source: PlannedSource) -> Many[Never] | None:
        """What runs all sources of this kind, started at the first of them; None where each has an adapter of its own."""
        make: Callable[[], Many[Never]] | None = getattr(self._world.adapters[source.adapter](), "many", None)
        if make is None or not source.own_kind:
            return None
        if source.adapter not in self._many:
            self._many[source.adapter] = make()
            self._host.start_many(f"{source.adapter} of files", self._many[source.adapter].run)
        return self._many[source.adapter]

    async def _bind(self, source: PlannedSource, destination: Destination | None) -> SinkBinding:
        url, ca_certs = self._sink, self._ca_certs
        if not self._given and destination is not None:
            try:
                found = await resolve(destination, self._refs)
                url, ca_certs = found.url, found.ca_certs
            except ConfigError:
                what = "nothing says where this sink is (--ref NAME=URL), so its events go to another"
                self._tell_once(logging.WARNING, what, str(destination.ref), instead=url)
        return SinkBinding(sink=url, ca_certs=ca_certs, overrides=source.spec.overrides, namespace=source.namespace)

    def _tell_once(self, level: int, what: str, about: str, **facts: str) -> None:
        """Ten sources with one sink, and a file that was changed, are no reason to say it again."""
        if (what, about) not in self._told:
            self._told.add((what, about))
            _log.log(level, what, extra={"about": about, **facts})


def _listed(files: Sequence[Path], problems: list[Problem]) -> list[Path]:
    """The files; in place of a folder those in it that are YAML by their names."""
    found: list[Path] = []
    for file in files:
        inside = sorted((*file.glob("*.yaml"), *file.glob("*.yml"))) if file.is_dir() else [file]
        if not inside:
            problems.append(Problem(str(file), "is a folder without a .yaml or .yml file"))
        found += inside
    return found


def _stamps(files: Sequence[Path]) -> list[tuple[Path, Stamp | None]]:
    """What is different when a file has changed, come or gone."""
    return [(file, stamp(file)) for file in _listed(files, [])]


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError([Problem(str(file), f"cannot be read: {error.strerror}")]) from None
    except UnicodeDecodeError:
        raise ConfigError([Problem(str(file), "is not UTF-8")]) from None
