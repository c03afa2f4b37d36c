"""What an https sink is trusted by, and who we are to it: CA certificates and the client certificate, kept current."""

from __future__ import annotations

import hashlib
import logging
import re
import ssl
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

from .errors import Problem
from .watched_file import LOOK_SECONDS, Stamp, content, stamp

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TRUST_BUNDLES: Final = Path("/knative-custom-certs")
"""Where Knative mounts trust bundles (contract/core.md 3.2)."""

_NO_PEM: Final = "is not a PEM certificate (-----BEGIN CERTIFICATE-----…)"
_OF_THE_HANDSHAKE: Final = re.compile(
    r"ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|ACCESS_DENIED|HANDSHAKE_FAILURE|DECRYPT_ERROR|INSUFFICIENT_SECURITY)"
)
_Stamps: TypeAlias = "tuple[tuple[Path, Stamp | None], ...]"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientCertificate:
    """A certificate, with those between it and its root, and its key: PEM files, or one that holds both."""

    cert: Path
    key: Path | None = None
    """None: in ``cert``."""
    password_file: Path | None = None
    """The password of a key that is encrypted."""

    def files(self) -> tuple[Path, ...]:
        return tuple(path for path in (self.cert, self.key, self.password_file) if path is not None)

    def load(self, context: ssl.SSLContext) -> None:
        """Let ``context`` show it. Raises ValueError with what is wrong: a file, a password, a key of another's."""
        for path in self.files():
            _content(path)  # says which file it is; ssl does not

        def password() -> bytes:  # always given: asked for none, OpenSSL would ask the terminal
            return content(self.password_file).rstrip(b"\r\n") if self.password_file is not None else b""

        try:
            context.load_cert_chain(self.cert, self.key, password)
        except (OSError, ValueError) as error:  # an SSLError is an OSError
            reason = getattr(error, "reason", None) or ""
            if "MISMATCH" in reason:
                raise ValueError("the client certificate's key is not the one of the certificate") from None
            raise ValueError(
                "the client certificate cannot be read: no PEM, no key, or not the key's password"
            ) from None


class Trust:
    """The SSL context for a sink: trusts the system's roots (``SSL_CERT_FILE``, ``SSL_CERT_DIR``), ``K_CA_CERTS``,
    ``ca_file`` and Knative's trust bundles, and shows the client certificate where there is one.

    Host names are always verified; TLS is 1.2 or newer; ALPN offers http/1.1. A context costs 30 ms and 1 MiB: sinks
    that trust alike share a `Trust`. A bundle file that cannot be read is left out.
    """

    def __init__(
        self,
        ca_certs: str = "",
        bundles: Path = TRUST_BUNDLES,
        *,
        ca_file: Path | None = None,
        client: ClientCertificate | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ca_certs = ca_certs
        self._bundles = bundles
        self._ca_file = ca_file
        self._client = client
        self._now = now
        self._look_at = float("-inf")
        self._force = False
        self._stamps: _Stamps | None = None
        self._seen = b""
        self._context: ssl.SSLContext | None = None
        self._problem = ""

    def context(self) -> ssl.SSLContext:
        """The context for what the files hold; they are looked at once a second at most.

        It is another object exactly when what they hold has changed. Files that went wrong, as a new certificate
        beside its predecessor's key, leave the last context that worked in use, and are logged once. Raises
        ssl.SSLError, which says what is wrong, where none has worked yet.
        """
        if self._now() >= self._look_at:
            self._look()
        if self._context is None:
            raise ssl.SSLError(ssl.SSL_ERROR_SSL, self._problem)
        return self._context

    def with_ca_certs(self, ca_certs: str) -> Trust:
        """The same with other ``ca_certs``; the very same where they are none other."""
        if ca_certs == self._ca_certs:
            return self
        return Trust(ca_certs, bundles=self._bundles, ca_file=self._ca_file, client=self._client, now=self._now)

    def reread(self) -> None:
        """Let the next `context` read every file, whatever its stamp says: a handshake failed, or a sink is held."""
        self._look_at = float("-inf")
        self._force = True

    def _look(self) -> None:
        self._look_at = self._now() + LOOK_SECONDS
        force, self._force = self._force, False
        # Stamps are taken first: what changes while it is read has another stamp at the next look.
        stamps = tuple((path, stamp(path)) for path in self._paths())
        if stamps == self._stamps and not force:
            return
        self._stamps = stamps
        seen = self._digest()
        if seen == self._seen:
            return
        self._seen = seen
        try:
            self._context = self._made()
        except ValueError as error:
            self._tell(str(error))
        else:
            self._problem = ""

    def _paths(self) -> Iterator[Path]:
        yield from _system_roots()
        yield from self._bundle_files()
        yield from self._own_files()

    def _bundle_files(self) -> list[Path]:
        return sorted(self._bundles.rglob("*")) if self._bundles.is_dir() else []

    def _own_files(self) -> Iterator[Path]:
        if self._ca_file is not None:
            yield self._ca_file
        if self._client is not None:
            yield from self._client.files()

    def _digest(self) -> bytes:
        """What the files hold, in short. The system's roots, which are large and many, stand in with their stamps."""
        held = hashlib.sha256(repr([(path, stamp(path)) for path in _system_roots()]).encode())
        for path in (*self._bundle_files(), *self._own_files()):
            try:
                octets = content(path)
            except ValueError as error:
                octets = str(error).encode()
            held.update(hashlib.sha256(octets).digest())
        return held.digest()

    def _made(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.set_alpn_protocols(["http/1.1"])
        # As Go's TLS, and alike in every Python: 3.13 began to refuse the CAs of many a private network for details of
        # RFC 5280, and to take an intermediate certificate as an anchor.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        for bundle in self._bundle_files():
            _add_if_readable(context, bundle)
        if self._ca_certs:
            _add(context, self._ca_certs, "K_CA_CERTS")
        if self._ca_file is not None:
            _add(context, _content(self._ca_file).decode("ascii", "ignore"), str(self._ca_file))
        if self._client is not None:
            self._client.load(context)
        return context

    def _tell(self, problem: str) -> None:
        if self._context is not None and problem != self._problem:
            facts = {"problem": problem}
            _log.warning("TLS files are not as they should be; what they held before stays in use", extra=facts)
        self._problem = problem


def ca_certs(text: str) -> str:
    """``K_CA_CERTS``: PEM text. Raises ValueError with the rule; checked at start, not at the first event.

    Comments between certificates may be in any language, which ssl does not like: they lose what is not ASCII.
    """
    text = text.encode("ascii", "replace").decode()
    _add(_empty(), text, "")
    return text


def refused_us(error: BaseException | None) -> bool:
    """Whether ``error`` tells that the sink did not take our client certificate, or the lack of one.

    In TLS 1.3 that comes after the client's handshake, in place of an answer: a connection breaks with this error,
    and nothing that was sent on it was read.
    """
    return (
        isinstance(error, ssl.SSLError) and _OF_THE_HANDSHAKE.search(getattr(error, "reason", None) or "") is not None
    )


def file_problems(ca_file: Path | None, client: ClientCertificate | None) -> list[Problem]:
    """What is wrong with the files as they are now."""
    problems: list[Problem] = []
    if ca_file is not None:
        try:
            _add(_empty(), _content(ca_file).decode("ascii", "ignore"), str(ca_file))
        except ValueError as error:
            problems.append(Problem("SINK_CA_FILE", str(error)))
    if client is not None:
        try:
            client.load(_empty())
        except ValueError as error:
            problems.append(Problem("SINK_CLIENT_CERT_FILE", str(error)))
    return problems


def _empty() -> ssl.SSLContext:
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _system_roots() -> tuple[Path, ...]:
    places = ssl.get_default_verify_paths()
    return tuple(Path(place) for place in (places.cafile, places.capath) if place)


def _content(path: Path) -> bytes:
    try:
        return content(path)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from None


def _add(context: ssl.SSLContext, pem: str, name: str) -> None:
    """Let ``context`` trust what ``pem`` holds. Raises ValueError where that is no certificate."""
    # Without what is not ASCII, people's comments between certificates, at which ssl raises TypeError.
    try:
        context.load_verify_locations(cadata=pem.encode("ascii", "ignore").decode())
    except (ssl.SSLError, ValueError):
        raise ValueError(f"{name} {_NO_PEM}".lstrip()) from None


def _add_if_readable(context: ssl.SSLContext, bundle: Path) -> None:
    try:
        _add(context, content(bundle).decode("ascii", "ignore"), str(bundle))
    except ValueError:
        return
