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

from .cluster_secrets import missing_secrets, stand_ins
from .plan import Many, Plan, PlannedSource, World, plan

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from pathlib import Path

    from wellhead.access import SinkAccess
    from wellhead.binding import Destination
    from wellhead.dead_letter_file import DeadLetterFile
    from wellhead.host import Host
    from wellhead.manifest import Document
    from wellhead.settings import DeliverySettings
    from wellhead.watched_file import Stamp

    from .cluster_secrets import ClusterSecrets

_log = logging.getLogger(__name__)
_LOOK_SECONDS: Final = 1.0
_ASK_SECONDS: Final = 10.0
"""How often Secrets of the cluster are looked at."""
_GRACE_SECONDS: Final = 10.0


class NoPlan(ConfigError):
    """The files say nothing that can run. ``of_cluster`` is true where they need Secrets of the cluster: asked again, it
    may have them.
    """

    def __init__(self, problems: Iterable[Problem], *, of_cluster: bool) -> None:
        self.of_cluster = of_cluster
        super().__init__(problems)


async def read_plan(files: Sequence[Path], world: World, secrets: ClusterSecrets) -> Plan:
    """What the files say to run, with what they refer to of the cluster. Raises `NoPlan` with all problems there are."""
    problems: list[Problem] = []
    found = _documents(files, problems)
    needed = list(missing_secrets(found, world))
    fetched = stand_ins(needed)  # so that what else is wrong is told as well
    with Collected(problems):
        fetched = await secrets.fetch(needed)
    try:
        return replace(_planned([*found, *fetched], world, problems), of_cluster=bool(needed))
    except ConfigError as error:
        raise NoPlan(error.problems, of_cluster=bool(needed)) from None


def offline_plan(files: Sequence[Path], world: World) -> Plan:
    """What the files say to run, and in the notes what they leave to the cluster. Raises `ConfigError`, as above."""
    problems: list[Problem] = []
    found = _documents(files, problems)
    needed = list(missing_secrets(found, world))
    made = _planned([*found, *stand_ins(needed)], world, problems)
    of_cluster = (
        f"{document}: {key.path} is in no file; Secret {key.namespace}/{key.name} of the cluster is asked for it"
        for document, key in needed
    )
    return replace(made, notes=(*made.notes, *of_cluster))


def _documents(files: Sequence[Path], problems: list[Problem]) -> list[Document]:
    found: list[Document] = []
    for file in _listed(files, problems):
        with Collected(problems):
            read, wrong = documents(_text(file), str(file))
            found += read
            problems += wrong
    return found


def _planned(found: Sequence[Document], world: World, problems: list[Problem]) -> Plan:
    made = Plan({}, ())
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
        secrets: ClusterSecrets,
        dead_letter: SinkBinding | DeadLetterFile | None = None,
    ) -> None:
        self._host = host
        self._world = world
        self._secrets = secrets
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
        self._wrong: tuple[str, ...] = ()
        self._of_cluster = False

    async def apply(self, wanted: Plan) -> None:
        """Stop what is gone, start what is new, replace what changed; leave the rest undisturbed."""
        for note in wanted.notes:
            self._tell_once(logging.INFO, "document is skipped", note)
        if not wanted.sources:
            _log.warning("nothing in these files is a source that runs here")
        self._of_cluster = wanted.of_cluster
        changed = {key: source for key, source in self._running.items() if wanted.sources.get(key) != source}
        for key in [key for key, source in changed.items() if self._put_anew(source, wanted.sources.get(key))]:
            del changed[key]
        await asyncio.gather(*(self._stop(source) for source in changed.values()))
        for key, source in wanted.sources.items():
            if key not in self._running:
                await self._start(source)

    async def follow(self, files: Sequence[Path]) -> None:
        """Apply what the files say whenever they change, or Secrets of the cluster do; what is wrong is told, and what
        runs goes on.
        """
        loop = asyncio.get_running_loop()
        before, asked = _stamps(files), loop.time()
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            now = _stamps(files)
            of_files = now != before
            if not of_files and not (self._of_cluster and loop.time() - asked >= _ASK_SECONDS):
                continue
            before, asked = now, loop.time()
            try:
                await self.apply(await read_plan(files, self._world, self._secrets))
                self._wrong = ()
            except NoPlan as error:
                self._of_cluster = error.of_cluster
                self._tell_wrong(error, of_files=of_files)
            except ConfigError as error:
                self._tell_wrong(error, of_files=of_files)

    def _tell_wrong(self, error: ConfigError, *, of_files: bool) -> None:
        wrong = tuple(map(str, error.problems))
        if not of_files and wrong == self._wrong:  # asked the cluster again, and heard the same
            return
        self._wrong = wrong
        what = "files are wrong; what runs goes on" if of_files else "Secrets are not to be had; what runs goes on"
        for problem in wrong:
            _log.error(what, extra={"problem": problem})

    def _put_anew(self, before: PlannedSource, now: PlannedSource | None) -> bool:
        """Whether only the configuration is another, and what runs all of the kind has taken it: nothing is stopped."""
        if now is None or replace(before, config=now.config) != now:
            return False
        many = self._many_of(now)
        if many is None:
            return False
        many.put(now.key, cast("Never", now.config), self._host.sinks()[now.key])
        self._running[now.key] = now
        _log.info("source has another configuration", extra={"source": now.key})
        return True

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
            made = self._many[source.adapter] = make()
            self._host.start_many(f"{source.adapter} of files", made.run, getattr(made, "measured", None))
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
