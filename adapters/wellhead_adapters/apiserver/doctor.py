"""``wellhead doctor``: tries beforehand what sources of these documents will need, and prints the Role that is missing."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from wellhead.env import Collector, parse_flags, setting, settings, text
from wellhead.errors import ConfigError, Problem
from wellhead.help import help_screen
from wellhead.kubernetes.addressable import domain_of
from wellhead.kubernetes.cluster import find_cluster
from wellhead.kubernetes.discovery import Discovery
from wellhead.kubernetes.errors import ApiError
from wellhead.manifest import Collected, destination, documents
from wellhead.runtime import Exit, report, say
from wellhead.tls import Trust

from .config import from_manifest
from .rights import needed, roles

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from wellhead.binding import Addressable
    from wellhead.env import Setting
    from wellhead.kubernetes.api import Api
    from wellhead.kubernetes.kinds import Kind
    from wellhead.manifest import Document

    from .config import ApiServerConfig
    from .rights import Right

_PROGRAM: Final = "wellhead doctor"
_CONNECT_SECONDS: Final = 5.0
_REVIEWS: Final = "/apis/authorization.k8s.io/v1"


def _paths(value: str) -> tuple[Path, ...]:
    return tuple(Path(line) for line in value.splitlines())


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorSettings:
    """What to look at, and whom to ask"""

    files: tuple[Path, ...] = setting(
        _paths, "Knative YAML with sources; may be repeated", flag="f", default=(), shown_default="", repeated=True
    )
    server: str = setting(
        text,
        "the API server's URL, where it asks for no credentials (kubectl proxy)",
        flag="server",
        env="KUBERNETES_SERVER",
        default="",
        secret=True,
    )
    kubeconfig: str = setting(
        text,
        "the kubeconfig; in a pod, its ServiceAccount unless this is given",
        flag="kubeconfig",
        env="KUBECONFIG",
        default="",
        shown_default="~/.kube/config",
    )
    context: str = setting(
        text,
        "which of its contexts",
        flag="context",
        env="KUBE_CONTEXT",
        default="",
        shown_default="the current one",
    )


class Doctor:
    """Try what the sources of a file need: rights, kinds, API server and sink.

    wellhead doctor -f source.yaml
    wellhead doctor -f source.yaml 2>/dev/null | kubectl apply -f -

    Says on standard error what works and what does not; prints the Roles that are missing as YAML to apply. It asks
    for the ServiceAccount of each ApiServerSource where you may ask that, else for yourself. Sends no event.
    """

    @staticmethod
    def flags() -> Sequence[Setting[object]]:
        """Every flag of the command."""
        return settings(DoctorSettings)

    @staticmethod
    def main(arguments: Sequence[str]) -> int:
        """Look, tell, and print what is missing; the exit code: 1 where something does not work."""
        if any(word in ("-h", "-help", "--help") for word in arguments):
            return say(help_screen(_PROGRAM, Doctor.__doc__ or "", (DoctorSettings,)))
        collector = Collector(os.environ, parse_flags(arguments, settings(DoctorSettings)))
        said = collector.read(DoctorSettings)
        if said is not None and not said.files:
            collector.problems.append(Problem("-f", "is not given: which files?"))
        if said is None or collector.problems:
            return report(_PROGRAM, collector.problems)
        try:
            found, configs = _read(said.files)
            cluster = find_cluster(os.environ, server=said.server, kubeconfig=said.kubeconfig, context=said.context)
        except ConfigError as error:
            return report(_PROGRAM, error.problems)
        from wellhead.kubernetes.api import Api  # noqa: PLC0415 - aiohttp; not for `wellhead --help`

        return asyncio.run(_examine(Api(cluster, timeout=_CONNECT_SECONDS), found, configs))


def _read(files: Sequence[Path]) -> tuple[list[Document], dict[str, ApiServerConfig]]:
    """The sources of the files, and the configuration of each that watches the API server. Raises `ConfigError`."""
    problems: list[Problem] = []
    found: list[Document] = []
    configs: dict[str, ApiServerConfig] = {}
    for file in files:
        try:
            read, wrong = documents(file.read_text(encoding="utf-8"), str(file))
        except OSError as error:
            problems.append(Problem(str(file), f"cannot be read: {error.strerror}"))
        except UnicodeDecodeError:
            problems.append(Problem(str(file), "is not UTF-8"))
        except ConfigError as error:
            problems += error.problems
        else:
            found += [one for one in read if "sources.knative.dev" in one.apiVersion]
            problems += wrong
    for document in found:
        if document.kind == "ApiServerSource":
            with Collected(problems, prefix=f"{document.origin}, {document}: "):
                configs[str(document)] = from_manifest(document)
    if not found and not problems:
        problems.append(Problem("-f", "there is no source in these files"))
    if problems:
        raise ConfigError(problems)
    return found, configs


async def _examine(api: Api, found: Sequence[Document], configs: Mapping[str, ApiServerConfig]) -> int:
    examination = Examination(api)
    async with contextlib.aclosing(api):
        if await examination.server():
            for document in found:
                if config := configs.get(str(document)):
                    await examination.rights(document, config)
                await examination.sinks(document)
    if examination.missing:
        import yaml  # noqa: PLC0415 - only to print what is missing

        say(yaml.safe_dump_all(examination.missing, sort_keys=False).rstrip("\n"))
    return Exit.FAILED if examination.failed else Exit.DONE


class Examination:
    """Looks at one thing after another, and says what it finds."""

    def __init__(self, api: Api) -> None:
        self.failed = False
        self.missing: list[Mapping[str, object]] = []
        """Roles and bindings to apply."""
        self._api = api
        self._discovery = Discovery(api)

    async def server(self) -> bool:
        """Whether the API server answers."""
        try:
            version = await self._api.get("/version")
            self._tell(works=True, what=f"API server {await self._api.url()}: {version.get('gitVersion')}")
        except ApiError as error:
            self._tell(works=False, what=f"API server: {error}")
            return False
        return True

    async def rights(self, document: Document, config: ApiServerConfig) -> None:
        """Whether every kind is served, and the source's ServiceAccount may watch it."""
        kinds: list[Kind] = []
        for resource in config.subject.resources:
            try:
                kind = await self._discovery.find(resource.gvr)
            except ApiError as error:
                self._tell(works=False, what=f"{document}: {resource.gvr}: {error}")
                continue
            if kind is None:
                self._tell(works=False, what=f"{document}: the API server serves no {resource.gvr}")
            else:
                kinds.append(kind)
        account = str(document.spec.get("serviceAccountName") or "default")
        lacking = [
            right for right in needed(config.subject, kinds) if not await self._allowed(document, right, account)
        ]
        self.missing += roles(lacking, name=f"{document.name}-watch", account=account, namespace=document.namespace)

    async def sinks(self, document: Document) -> None:
        """Whether the sink, and the dead-letter sink, are somewhere, and take connections from here."""
        delivery = document.spec.get("delivery")
        dead = delivery.get("deadLetterSink") if isinstance(delivery, dict) else None
        for path, value in (("spec.sink", document.spec.get("sink")), ("spec.delivery.deadLetterSink", dead)):
            if value is None:
                continue
            try:
                address = await self._address(document, value, path)
                await _connect(address)
            except (ConfigError, OSError) as error:
                self._tell(works=False, what=f"{document}: {path}: {error}")
            else:
                self._tell(works=True, what=f"{document}: {path}: {address.url} takes connections")

    async def _address(self, document: Document, value: object, path: str) -> Addressable:
        from wellhead.kubernetes.resolver import resolved  # noqa: PLC0415 - imports aiohttp's neighbours

        domain = os.environ.get("CLUSTER_DOMAIN") or domain_of("")
        to = destination(value, path, document.namespace)
        return await resolved(self._api, to, namespace=document.namespace, domain=domain)

    async def _allowed(self, document: Document, right: Right, account: str) -> bool:
        who = f"system:serviceaccount:{document.namespace}:{account}"
        groups = ["system:serviceaccounts", f"system:serviceaccounts:{document.namespace}", "system:authenticated"]
        asked: dict[str, object] = {"resourceAttributes": right.attributes()}
        try:
            try:
                review = await self._review("SubjectAccessReview", {**asked, "user": who, "groups": groups})
            except ApiError as error:
                if error.status != 403:
                    raise
                who = "you"  # whoever asks may not ask for others
                review = await self._review("SelfSubjectAccessReview", asked)
        except ApiError as error:
            self._tell(works=False, what=f"{document}: cannot ask whether {account} may {right}: {error}")
            return True  # nobody knows; a Role would be a guess
        status = review.get("status")
        allowed = isinstance(status, dict) and status.get("allowed") is True
        self._tell(works=allowed, what=f"{document}: {who} may {'' if allowed else 'not '}{right}")
        return allowed

    async def _review(self, kind: str, spec: Mapping[str, object]) -> Mapping[str, object]:
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": kind, "spec": spec}
        return await self._api.post(f"{_REVIEWS}/{kind.lower()}s", body)

    def _tell(self, *, works: bool, what: str) -> None:
        self.failed |= not works
        sys.stderr.write(f"{'ok  ' if works else 'FAIL'}  {what}\n")


async def _connect(address: Addressable) -> None:
    """Open a connection, and close it. Raises OSError, which an ssl.SSLError is."""
    parts = urlsplit(address.url)
    context = Trust(address.ca_certs).context() if parts.scheme == "https" else None
    port = parts.port or (443 if context else 80)
    try:
        async with asyncio.timeout(_CONNECT_SECONDS):
            _, writer = await asyncio.open_connection(parts.hostname, port, ssl=context)
    except TimeoutError:
        raise OSError(f"{address.url} does not answer within {_CONNECT_SECONDS:.0f} s from here") from None
    except ssl.SSLError as error:
        raise OSError(f"{address.url}: {error.reason or error}") from None
    except OSError as error:
        raise OSError(f"{address.url} cannot be reached from here: {error.strerror or error}") from None
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
