"""What aiokafka is told of a connection: protocol, certificates, credentials, each as its files are at this moment."""

from __future__ import annotations

import contextlib
import importlib.util
import logging
import os
import ssl
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final, TypedDict

from wellhead.errors import ConfigError, Problem
from wellhead.watched_file import Stamp, stamp

from .connection import Mechanism
from .secret_files import FileProblem, secret

if TYPE_CHECKING:
    from pathlib import Path

    from aiokafka.abc import AbstractTokenProvider

    from .connection import ConnectionSettings

_log = logging.getLogger(__name__)
_CERTIFICATE: Final = "KAFKA_NET_TLS_CERT"
_AUTHORITIES: Final = "KAFKA_NET_TLS_CA_CERT"


class ClientOptions(TypedDict, total=False):
    """Keyword arguments of every aiokafka client: consumer, producer, admin client."""

    bootstrap_servers: list[str]
    security_protocol: str
    ssl_context: ssl.SSLContext
    sasl_mechanism: str
    sasl_plain_username: str
    sasl_plain_password: str
    sasl_oauth_token_provider: AbstractTokenProvider


def client_options(settings: ConnectionSettings) -> ClientOptions:
    """What to give aiokafka; called inside the loop that the client will run in, anew for each client.

    Raises `ConfigError` where a file is missing or holds something else than it should. Certificates and tokens are
    then read again by themselves at each connection; passwords are, by `failures.Failures.watch`.
    """
    problems: list[Problem] = []
    options = ClientOptions(bootstrap_servers=list(settings.bootstrap_servers))
    options["security_protocol"] = _protocol(settings)
    if settings.uses_tls:
        try:
            options["ssl_context"] = _tls(settings)
        except ConfigError as error:
            problems += error.problems
    if settings.uses_sasl:
        try:
            options.update(_sasl(settings))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems)
    return options


def password(settings: ConnectionSettings) -> tuple[str, str]:
    """User and password as they are now. Raises `ConfigError`."""
    problems: list[Problem] = []
    found = []
    for name, value, file in (
        ("KAFKA_NET_SASL_USER_FILE", settings.sasl_user, settings.sasl_user_file),
        ("KAFKA_NET_SASL_PASSWORD_FILE", settings.sasl_password, settings.sasl_password_file),
    ):
        try:
            found.append(secret(value, file))
        except FileProblem as problem:
            problems.append(Problem(name, str(problem)))
    if problems:
        raise ConfigError(problems)
    return found[0], found[1]


def _protocol(settings: ConnectionSettings) -> str:
    return ("SASL_" if settings.uses_sasl else "") + ("SSL" if settings.uses_tls else "PLAINTEXT")


def _sasl(settings: ConnectionSettings) -> ClientOptions:
    if settings.mechanism.takes_password:
        user, word = password(settings)
        return ClientOptions(
            sasl_mechanism=settings.mechanism.value, sasl_plain_username=user, sasl_plain_password=word
        )
    if settings.mechanism is Mechanism.AWS_MSK_IAM and importlib.util.find_spec("aws_msk_iam_sasl_signer") is None:
        raise ConfigError([Problem("KAFKA_NET_SASL_TYPE", "AWS_MSK_IAM needs a package: pip install 'wellhead[msk]'")])
    from .tokens import provider  # noqa: PLC0415 - brings aiokafka, and a connection by password needs none of it

    return ClientOptions(sasl_mechanism="OAUTHBEARER", sasl_oauth_token_provider=provider(settings))


def _tls(settings: ConnectionSettings) -> ssl.SSLContext:
    if not settings.tls_verify_host_name:
        _log.warning("brokers' certificates are not held against their names: KAFKA_NET_TLS_VERIFY_HOST_NAME is false")
    files = [
        file for file in (settings.tls_ca_cert_file, settings.tls_cert_file, settings.tls_key_file) if file is not None
    ]
    made = _context(settings)
    return FollowingContext.of(settings, files, made) if files else made


class FollowingContext(ssl.SSLContext):
    """A context whose new connections have the certificates as their files are then. aiokafka keeps one for good.

    While files are broken or half written the last good ones are used, and a warning says so.
    """

    _settings: ConnectionSettings
    _files: list[Path]
    _stamps: list[Stamp | None]
    _current: ssl.SSLContext

    @classmethod
    def of(cls, settings: ConnectionSettings, files: list[Path], current: ssl.SSLContext) -> FollowingContext:
        """One that begins with ``current``, made from ``settings`` just now."""
        made = cls(ssl.PROTOCOL_TLS_CLIENT)
        made._settings, made._files, made._current = settings, files, current
        made._stamps = [stamp(file) for file in files]
        return made

    def wrap_bio(
        self,
        incoming: ssl.MemoryBIO,
        outgoing: ssl.MemoryBIO,
        server_side: bool = False,  # noqa: FBT001, FBT002 - ssl's signature
        server_hostname: str | bytes | None = None,
        session: ssl.SSLSession | None = None,
    ) -> ssl.SSLObject:
        """What asyncio calls for each connection."""
        self._follow()
        return self._current.wrap_bio(incoming, outgoing, server_side, server_hostname, session)

    def _follow(self) -> None:
        stamps = [stamp(file) for file in self._files]
        if stamps == self._stamps:
            return
        try:
            self._current = _context(self._settings)
        except ConfigError as error:
            _log.warning("certificates changed and cannot be used; the last go on", extra={"problem": str(error)})
        self._stamps = stamps


def _context(settings: ConnectionSettings) -> ssl.SSLContext:
    problems: list[Problem] = []
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.check_hostname = settings.tls_verify_host_name
    for name, load in ((_AUTHORITIES, _load_authorities), (_CERTIFICATE, _load_certificate)):
        try:
            load(context, settings)
        except FileProblem as problem:
            problems.append(Problem(f"{name}_FILE", str(problem)))
        except (ssl.SSLError, ValueError) as error:
            problems.append(Problem(name, _pem_problem(name, error)))
    if problems:
        raise ConfigError(problems)
    return context


def _load_authorities(context: ssl.SSLContext, settings: ConnectionSettings) -> None:
    pem = secret(settings.tls_ca_cert, settings.tls_ca_cert_file)
    if not pem:
        context.load_default_certs()
        return
    # Comments between certificates may be in any language, and ssl takes ASCII only.
    context.load_verify_locations(cadata=pem.encode("ascii", "ignore").decode())


def _load_certificate(context: ssl.SSLContext, settings: ConnectionSettings) -> None:
    pem = "\n".join(
        (secret(settings.tls_cert, settings.tls_cert_file), secret(settings.tls_key, settings.tls_key_file))
    )
    if not pem.strip():
        return
    with _as_file(pem.encode()) as name:
        context.load_cert_chain(name, password=_refuse_password)


def _refuse_password() -> str:
    """OpenSSL would ask for it on the terminal."""
    raise ValueError("its private key is encrypted")


@contextlib.contextmanager
def _as_file(octets: bytes) -> Iterator[str]:
    """A path under which OpenSSL finds ``octets``: in memory where the system can, as a pod's disk may be read-only."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, octets)
            yield f"/proc/self/fd/{descriptor}"
        finally:
            os.close(descriptor)
    else:
        with tempfile.NamedTemporaryFile() as file:
            file.write(octets)
            file.flush()
            yield file.name


def _pem_problem(name: str, error: Exception) -> str:
    if not isinstance(error, ssl.SSLError):
        return str(error)
    if error.reason == "KEY_VALUES_MISMATCH":
        return "is not the certificate of this private key (KAFKA_NET_TLS_KEY)"
    what = "a PEM certificate" if name == _AUTHORITIES else "a PEM certificate with its private key"
    return f"is not {what} (-----BEGIN …)"
