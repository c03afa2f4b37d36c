"""What ``wellhead run -f`` would run: Knative documents in, sources out, with every problem by path. Pure.

PingSource and the like are read by their adapter (`ManifestAdapter`). A ContainerSource, or a SinkBinding with the
workload it binds, runs where its container is one of ours, known by its image's last name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final, Never, Protocol, TypeVar, cast

from wellhead.delivery import Policy
from wellhead.env import Collector, parse_flags, setting, settings
from wellhead.errors import ConfigError, Problem
from wellhead.manifest import Collected, Document, SourceSpec, source_spec, unknown_fields

from .environment import environment, mapping

if TYPE_CHECKING:
    from wellhead.adapter import AdapterClass, Sink

ConfigT = TypeVar("ConfigT", contravariant=True)

_WORKLOADS: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet", "Job", "Service")


class ManifestAdapter(Protocol):
    """What an adapter class adds to be run from documents of its own kinds."""

    @property
    def manifest_kinds(self) -> tuple[str, ...]:
        """``("PingSource",)``."""

    @property
    def spec_fields(self) -> tuple[str, ...]:
        """The fields of its ``spec`` beside ``sink``, ``ceOverrides`` and ``delivery``."""

    def from_manifest(self, document: Document, documents: Sequence[Document], /) -> object:
        """The configuration. Raises `ConfigError` by path (``spec.schedule``).

        ``documents`` are all there are, for what it refers to: a Secret, a ConfigMap.
        """


class Many(Protocol[ConfigT]):
    """One adapter for any number of sources of a kind, that an adapter class may offer: ``many()`` makes it.

    Used for documents of its own kinds only, and for all of them. Where a class has no ``many``, each document has an
    adapter of its own. It may have ``measured()``: by their keys, what has metrics of its own (`wellhead.metrics.Measured`).
    """

    def put(self, key: str, config: ConfigT, sink: Sink, /) -> None:
        """From now on ``key`` is as ``config`` says, into ``sink``, whether it was there or not. Called before `run`, and
        while it runs.
        """

    def remove(self, key: str, /) -> None:
        """Take nothing more in for ``key``. Its sink is drained by the caller, then."""

    async def run(self, ready: Callable[[], None], /) -> None:
        """As `Adapter.run`, for whatever is put and removed meanwhile; with nothing put it waits. Started once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSource:
    """One source to run. Two that are equal run alike, so a reload leaves it alone."""

    key: str
    adapter: str
    config: object
    spec: SourceSpec
    namespace: str
    own_kind: bool = False
    """Whether its adapter read the document itself, so that `Many` may run it."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What to run, and what is worth telling about the rest."""

    sources: Mapping[str, PlannedSource]
    notes: tuple[str, ...]
    of_cluster: bool = False
    """Whether Secrets of the cluster went into it, so that it may change though no file does."""

    @property
    def ports(self) -> frozenset[int]:
        """Those that its sources listen on (``port`` of their configurations)."""
        ports = (getattr(source.config, "port", 0) for source in self.sources.values())
        return frozenset(port for port in ports if isinstance(port, int) and port)


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What stands around the documents: the adapters there are, and which image is which."""

    adapters: Mapping[str, Callable[[], AdapterClass[Never]]]
    images: Mapping[str, str] = field(default_factory=dict)
    """``--image NAME=KIND``: the image's last name, and the adapter in its place."""


def plan(documents: Sequence[Document], world: World) -> Plan:
    """What the documents say to run. Raises `ConfigError` with the problems of all of them."""
    problems: list[Problem] = []
    sources: dict[str, PlannedSource] = {}
    notes: list[str] = []
    own = own_kinds(world)
    for document in documents:
        try:
            planned = list(_sources(document, documents, world, own, notes))
        except ConfigError as error:
            where = f"{document.origin}, {document}"
            problems.extend(Problem(f"{where}: {problem.where}", problem.what) for problem in error.problems)
            continue
        for source in planned:
            if source.key in sources:
                problems.append(
                    Problem(f"{document.origin}, {document}", "there is another of this kind, namespace and name")
                )
            sources[source.key] = source
    if problems:
        raise ConfigError(problems)
    return Plan(sources, (*notes, *_unbound(documents)))


def _unbound(documents: Sequence[Document]) -> Iterator[str]:
    """What is said of workloads that are only there: a pod is more than we can stand in for."""
    bindings = [document for document in documents if document.kind == "SinkBinding"]
    bound = {id(workload) for binding in bindings for workload in _subjects(binding, documents)}
    for document in documents:
        if document.kind in _WORKLOADS and id(document) not in bound:
            plain_service = (document.apiVersion, document.kind) == ("v1", "Service")
            why = "is not needed here" if plain_service else "is bound by no SinkBinding"
            yield f"{document.origin}: {document} {why}, and skipped"


def paths(value: str) -> tuple[Path, ...]:
    """Files and folders, one a line."""
    return tuple(Path(line) for line in value.splitlines())


def images(value: str) -> dict[str, str]:
    """``NAME=KIND``, one a line."""
    known: dict[str, str] = {}
    for line in value.split():
        name, equals, kind = line.partition("=")
        if not (name and equals and kind):
            raise ValueError("is not NAME=KIND, as in heartbeats=heartbeat")
        known[name] = kind
    return known


@dataclass(frozen=True, slots=True, kw_only=True)
class FileSettings:
    """Which documents"""

    files: tuple[Path, ...] = setting(
        paths,
        "Knative YAML: a file, or a folder of them; may be repeated",
        flag="f",
        default=(),
        shown_default="",
        repeated=True,
    )
    images: Mapping[str, str] = setting(
        images,
        "which adapter stands for a container's image: NAME=KIND; may be repeated",
        flag="image",
        default={},
        shown_default="",
        repeated=True,
    )


def own_kinds(world: World) -> dict[str, str]:
    """Kind of document → adapter, asked of every adapter that is installed."""
    return {kind: name for name, load in world.adapters.items() for kind in getattr(load(), "manifest_kinds", ())}


def _sources(
    document: Document, documents: Sequence[Document], world: World, own: Mapping[str, str], notes: list[str]
) -> Iterator[PlannedSource]:
    if document.kind in own:
        adapter = own[document.kind]
        reader = cast("ManifestAdapter", world.adapters[adapter]())
        yield _planned(document, documents, adapter, reader)
    elif document.kind == "ContainerSource":
        spec = source_spec(document, own=("template",))
        yield from _containers(document, document, spec, documents, world)
    elif document.kind == "SinkBinding":
        spec = source_spec(document, own=("subject",))
        for workload in _subjects(document, documents):
            yield from _containers(document, workload, spec, documents, world)
    elif document.kind not in (*_WORKLOADS, "ConfigMap", "Secret"):
        known = [*own, "ContainerSource", "SinkBinding"]
        if "sources.knative.dev" in document.apiVersion:
            raise ConfigError([Problem("kind", f"nothing here runs a {document.kind}; known are {', '.join(known)}")])
        notes.append(f"{document.origin}: {document} is not needed here, and skipped")


def _planned(document: Document, documents: Sequence[Document], adapter: str, reader: ManifestAdapter) -> PlannedSource:
    problems: list[Problem] = []
    config: object = None
    spec: SourceSpec | None = None
    with Collected(problems):
        config = reader.from_manifest(document, documents)
    with Collected(problems):
        spec = source_spec(document, own=reader.spec_fields, base=getattr(reader, "policy", Policy()))
    if problems or spec is None:
        raise ConfigError(problems)
    return PlannedSource(
        key=str(document), adapter=adapter, config=config, spec=spec, namespace=document.namespace, own_kind=True
    )


def _subjects(binding: Document, documents: Sequence[Document]) -> list[Document]:
    """The workloads a SinkBinding binds, among the documents."""
    subject = binding.spec.get("subject")
    if not isinstance(subject, Mapping):
        raise ConfigError([Problem("spec.subject", "missing field")])
    problems = list(unknown_fields(subject, ("apiVersion", "kind", "namespace", "name", "selector"), "spec.subject"))
    if bool(subject.get("name")) == bool(subject.get("selector")):
        problems.append(Problem("spec.subject", "expected exactly one of name and selector"))
    if problems:
        raise ConfigError(problems)
    found = [document for document in documents if _is_subject(document, subject, binding.namespace)]
    if not found:
        raise ConfigError([Problem("spec.subject", f"no {subject.get('kind')} of these documents is meant by it")])
    return found


def _is_subject(document: Document, subject: Mapping[str, object], namespace: str) -> bool:
    if document.kind != subject.get("kind") or document.namespace != (subject.get("namespace") or namespace):
        return False
    if subject.get("name"):
        return document.name == subject["name"]
    wanted = mapping(mapping(subject.get("selector")).get("matchLabels"))
    labels = mapping(mapping(document.body.get("metadata")).get("labels"))
    return bool(wanted) and all(labels.get(name) == value for name, value in wanted.items())


def _containers(
    owner: Document, workload: Document, spec: SourceSpec, documents: Sequence[Document], world: World
) -> Iterator[PlannedSource]:
    pod = mapping(mapping(workload.spec.get("template")).get("spec"))
    containers = pod.get("containers")
    if not isinstance(containers, list) or not containers:
        raise ConfigError([Problem("spec.template.spec.containers", "missing field")])
    images = _images(world)
    for number, container in enumerate(containers):
        path = f"spec.template.spec.containers[{number}]"
        image = str(mapping(container).get("image") or "")
        if not image:
            raise ConfigError([Problem(f"{path}.image", "missing field")])
        adapter = images.get(image_name(image))
        if adapter is None:
            raise ConfigError(
                [
                    Problem(
                        f"{path}.image",
                        f"{image!r} is none of ours; say which is: --image {image_name(image)}=heartbeat",
                    )
                ]
            )
        config = _container_config(mapping(container), path, workload, documents, world, adapter)
        key = str(owner) if len(containers) == 1 else f"{owner} [{number}]"
        yield PlannedSource(key=key, adapter=adapter, config=config, spec=spec, namespace=owner.namespace)


def image_name(image: str) -> str:
    """The last name of an image: ``heartbeats`` of ``ko://knative.dev/eventing/cmd/heartbeats`` or ``…/heartbeats:v1``."""
    return image.rpartition("/")[2].partition("@")[0].partition(":")[0]


def _images(world: World) -> dict[str, str]:
    known = {name: name for name in world.adapters}
    for name, load in world.adapters.items():
        known |= dict.fromkeys(getattr(load(), "images", ()), name)
    return {**known, **world.images}


def _container_config(
    container: Mapping[str, object],
    path: str,
    workload: Document,
    documents: Sequence[Document],
    world: World,
    adapter: str,
) -> object:
    adapter_class = world.adapters[adapter]()
    problems: list[Problem] = []
    found = environment(container, path, workload, documents, problems)
    args = container.get("args")
    words = [str(word) for word in args] if isinstance(args, list) else []
    flags = parse_flags(words, settings(adapter_class.Config))
    collector = Collector(found, flags, environment_wins=getattr(adapter_class, "environment_wins", False))
    config = collector.read(adapter_class.Config)
    problems += [Problem(f"{path}: {problem.where}", problem.what) for problem in collector.problems]
    if problems:
        raise ConfigError(problems)
    return config
