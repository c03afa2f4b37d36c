"""SinkBinding and Destination: where events go and what is injected about it, as values. Pure.

Resolving a ``ref`` through an API server is `Resolver`'s second implementation, to come with the ApiServer adapter;
here a ``ref`` is mapped by what the user said (``--ref event-display=http://localhost:8080``).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import unquote, urljoin, urlsplit

from .errors import ConfigError, InvalidEvent, Problem
from .event import RESERVED_NAMES, CloudEvent

if TYPE_CHECKING:
    from .event import ExtensionValue

# kn's short forms (kn source ping create --sink ksvc:name:ns) and the kinds they stand for.
_KN_KINDS: Final = {
    "svc": ("v1", "Service"),
    "service": ("v1", "Service"),
    "ksvc": ("serving.knative.dev/v1", "Service"),
    "broker": ("eventing.knative.dev/v1", "Broker"),
    "channel": ("messaging.knative.dev/v1", "Channel"),
}
_DNS_NAME: Final = re.compile(r"[a-z0-9](?:[a-z0-9.-]{0,251}[a-z0-9])?")
_UNIX: Final = "http+unix"
_SOCKET_BYTES: Final = 107  # sun_path of Linux, less its end; elsewhere it is shorter, and the system says so
_URL_CHARACTERS: Final = re.compile(r"(?:[!#$&-;=?-Z_a-z~\[\]]|%[0-9A-Fa-f]{2})+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A reference to an Addressable, as in a Destination (Knative ``duckv1.KReference``)."""

    kind: str
    name: str
    namespace: str = ""
    apiVersion: str = ""  # noqa: N815 - Kubernetes' own spelling
    address: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Destination:
    """An unresolved sink: ``uri``, ``ref``, or a ``ref`` with a relative ``uri`` (Knative ``duckv1.Destination``).

    Raises `ConfigError` when built with neither, or with an absolute ``uri`` beside a ``ref``.
    """

    uri: str = ""
    ref: Ref | None = None
    ca_certs: str = field(default="", repr=False)
    audience: str = ""

    def __post_init__(self) -> None:
        if self.ref is None and not self.uri:
            raise ConfigError([Problem("sink", "expected at least one, got none: sink.ref, sink.uri")])
        if self.ref is None:
            problem = url_problem(self.uri)
            if problem:
                raise ConfigError([Problem("sink.uri", problem)])
        elif _is_absolute(self.uri):
            raise ConfigError([Problem("sink.uri", "absolute URI is not allowed when Ref exists")])


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkBinding:
    """What is injected about a sink, resolved: the URL to POST to and everything that goes with each event.

    ``sink`` is an absolute http, https or http+unix URL without user info. ``overrides`` are extensions set on every
    event.
    """

    sink: str
    ca_certs: str = field(default="", repr=False)
    audience: str = ""
    overrides: Mapping[str, str] = field(default_factory=dict)
    namespace: str = ""
    """Becomes the ``Kn-Namespace`` header, which Knative's own tests ask for."""

    def __post_init__(self) -> None:
        problem = url_problem(self.sink)
        if problem:
            raise ConfigError([Problem("sink", problem)])

    def apply(self, event: CloudEvent) -> CloudEvent:
        """``event`` with the overrides on it; an extension of the same name gives way."""
        if not self.overrides:
            return event
        extensions: dict[str, ExtensionValue] = {**event.extensions, **self.overrides}
        return replace(event, extensions=extensions)


class Resolver(Protocol):
    """Turns a Destination's ``ref`` into an address. The seam for the API server."""

    async def resolve(self, ref: Ref) -> Addressable:
        """Raises `ConfigError` saying what is missing and how to give it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressable:
    """What a ``ref`` resolved to (Knative ``duckv1.Addressable``)."""

    url: str
    ca_certs: str = field(default="", repr=False)
    audience: str = ""


class MappedRefs:
    """A `Resolver` over what the user said: ``--ref [KIND:]NAME[:NAMESPACE]=URL``."""

    def __init__(self, refs: Mapping[str, str]) -> None:
        self._refs = dict(refs)

    async def resolve(self, ref: Ref) -> Addressable:
        for key in (f"{ref.kind}:{ref.name}:{ref.namespace}", f"{ref.kind}:{ref.name}", ref.name):
            for said, url in self._refs.items():
                if said.lower() == key.lower() or (
                    ":" in said and said.lower() == f"{ref.name}:{ref.namespace}".lower()
                ):
                    return Addressable(url=url)
        raise ConfigError(
            [Problem(f"sink.ref {ref}", f"no API server to ask here; say where it is: --ref {ref.name}=http://…")]
        )


async def resolve(destination: Destination, resolver: Resolver) -> Addressable:
    """The address of ``destination`` (contract/core.md 3.3).

    A relative ``uri`` is resolved against the ``ref``'s URL by RFC 3986, 5. The Destination's own CA certificates and
    audience replace those of the Addressable.
    """
    if destination.ref is None:
        return Addressable(url=destination.uri, ca_certs=destination.ca_certs, audience=destination.audience)
    found = await resolver.resolve(destination.ref)
    url = join_uri(found.url, destination.uri)
    problem = url_problem(url)
    if problem:
        raise ConfigError(
            [Problem(f"sink.ref {destination.ref}", f"resolves to an address that is no sink: {problem}")]
        )
    return Addressable(
        url=url,
        ca_certs=destination.ca_certs or found.ca_certs,
        audience=destination.audience or found.audience,
    )


def join_uri(base: str, uri: str) -> str:
    """RFC 3986, 5, as Go's ``URL.ResolveReference`` does it: ``/foo`` replaces the base's path, ``?a=b`` keeps it."""
    if not uri:
        return base
    joined = urljoin(base if urlsplit(base).path else _with_root(base, uri), uri)
    # Go keeps a base without a path as it is under a mere query ("http://h?a=b"); urljoin agrees.
    return joined


def parse_sink(text: str) -> Destination:
    """A sink as a person writes it: a URL, or kn's ``ksvc:name[:ns]``, ``svc:``, ``broker:``, ``channel:``.

    Raises ValueError with the text, less what may be a password, and the rule it breaks.
    """
    text = text.strip()
    kind, colon, rest = text.partition(":")
    if colon and kind.lower() in _KN_KINDS and not rest.startswith("//"):
        return Destination(ref=_kn_ref(kind.lower(), rest))
    problem = url_problem(text)
    if problem:
        raise ValueError(f"{public_url(text)!a} {problem}")
    return Destination(uri=text)


def parse_refs(text: str) -> Mapping[str, str]:
    """``[KIND:]NAME[:NAMESPACE]=URL``, one a line (or separated by blanks)."""
    refs: dict[str, str] = {}
    for entry in text.split():
        name, equals, url = entry.partition("=")
        if not equals or not name:
            raise ValueError("is not NAME=URL")
        problem = url_problem(url)
        if problem:
            raise ValueError(f"{name!a} names an address that {problem}")
        refs[name] = url
    return refs


def parse_overrides(text: str) -> Mapping[str, str]:
    """``K_CE_OVERRIDES``: ``{"extensions": {"name": "value"}}``. Names are lower-cased, as Knative does.

    Raises `ConfigError` with each extension that CloudEvents forbids; Knative accepts those at admission and then
    drops every event.
    """
    try:
        parsed = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise ValueError('is not a JSON object such as {"extensions":{"name":"value"}}')
    return checked_overrides(parsed.get("extensions"))


def checked_overrides(extensions: object) -> Mapping[str, str]:
    """The ``extensions`` of ``ceOverrides``, names lower-cased. Raises `ConfigError` with every one that is wrong."""
    if extensions is None:
        return {}
    if not isinstance(extensions, Mapping):
        raise ConfigError([Problem("extensions", "is not an object of names and values")])
    problems: list[Problem] = []
    overrides: dict[str, str] = {}
    for name, value in extensions.items():
        where = f"extensions.{name}"
        if not isinstance(value, str):
            problems.append(Problem(where, "is not a string"))
        elif str(name).lower() in RESERVED_NAMES:
            problems.append(Problem(where, "is an attribute of CloudEvents itself; an override sets extensions only"))
        else:
            overrides[str(name).lower()] = value
    problems.extend(Problem(f"extensions.{problem.where}", problem.what) for problem in _invalid(overrides))
    if problems:
        raise ConfigError(problems)
    return overrides


def public_url(url: str) -> str:
    """``url`` for logs and messages: without user info and query, either of which may hold a secret.

    Where a password may have broken the URL (it holds a slash, say), nothing of it is shown but the scheme.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        scheme, rest = "", url
    address, query, hidden = rest.partition("?")
    authority, slash, path = address.partition("/")
    shown = authority.rpartition("@")[2] + slash + path
    if "@" in shown + hidden and url_problem(url):
        shown, query = "…", ""
    return scheme + separator + shown[:200] + ("?…" if query else "")


def url_problem(text: str) -> str:
    """Why ``text`` is no address of a sink; "" when it is one. Never repeats what may be a password."""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        return "is not a URL: its host or port cannot be read"
    if not text or text != text.strip() or any(sign.isspace() for sign in text):
        return "is not a URL: it is empty or holds blanks"
    if not parts.scheme or not re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", text):
        return "is not an absolute URL: it needs a scheme, as in http://host:port/path"
    if parts.scheme not in ("http", "https", _UNIX):
        return f"has the scheme {parts.scheme!a}; a sink is reached by http, https or http+unix"
    if parts.username is not None or parts.password is not None:
        return (
            "carries user info before the host, which would end in logs (SINK_USERNAME and SINK_PASSWORD_FILE take it)"
        )
    if parts.scheme == _UNIX and (problem := _socket_problem(text)):
        return problem
    if not parts.hostname or port == 0:
        return "is not an absolute URL: it names no host" if not parts.hostname else "has port 0"
    if parts.fragment or text.endswith("#"):
        return "has a fragment (#…), which is never sent"
    if not _URL_CHARACTERS.fullmatch(text):
        return "holds characters that a URL percent-encodes"
    return ""


def socket_path(url: str) -> str | None:
    """The Unix socket of ``http+unix://%2Frun%2Fsink.sock/path``; None for every other URL."""
    return unquote(urlsplit(url).netloc) if url.partition(":")[0].lower() == _UNIX else None


def _socket_problem(url: str) -> str:
    path = socket_path(url) or ""
    if ":" in urlsplit(url).netloc or not path.startswith("/") or path.endswith("/") or "\0" in path:
        return "names no Unix socket: its path stands for the host, as in http+unix://%2Frun%2Fsink.sock/path"
    if len(path.encode()) > _SOCKET_BYTES:
        return f"names a Unix socket by more than {_SOCKET_BYTES} bytes"
    return ""


def _is_absolute(uri: str) -> bool:
    try:
        return bool(urlsplit(uri).scheme)
    except ValueError:
        raise ConfigError([Problem("sink.uri", "is not a URI-reference")]) from None


def _kn_ref(kind: str, rest: str) -> Ref:
    name, _, namespace = rest.partition(":")
    for part, what in ((name, "name"), (namespace, "namespace")):
        if (part or what == "name") and not _DNS_NAME.fullmatch(part):
            raise ValueError(
                f"{f'{kind}:{rest}'[:80]!a} is not {kind}:name[:namespace]: its {what} is no Kubernetes name"
            )
    apiVersion, kubernetes_kind = _KN_KINDS[kind]  # noqa: N806 - Kubernetes' own spelling
    return Ref(apiVersion=apiVersion, kind=kubernetes_kind, name=name, namespace=namespace)


def _with_root(base: str, uri: str) -> str:
    return base if uri.startswith("?") else base.rstrip("/") + "/"


def _invalid(overrides: Mapping[str, str]) -> tuple[Problem, ...]:
    try:
        CloudEvent(id="-", source="-", type="-", extensions=dict(overrides))
    except InvalidEvent as invalid:
        return invalid.problems
    return ()
