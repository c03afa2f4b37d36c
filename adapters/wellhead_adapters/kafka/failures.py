"""Why a connection to Kafka failed, in words for a person.

aiokafka raises "Unable to bootstrap" for a wrong password, an untrusted certificate and a broker that is away alike, and
says the cause only in its log; later failures are told there alone, ten times a second. So its log is where it is heard.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import time
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import (
    IllegalSaslStateError,
    KafkaConnectionError,
    KafkaError,
    SaslAuthenticationFailed,
    UnsupportedSaslMechanismError,
)

from wellhead.errors import ConfigError

from .security import password

if TYPE_CHECKING:
    from .connection import ConnectionSettings

_log = logging.getLogger(__name__)
_AGAIN_SECONDS: Final = 60.0
_EXPECTED: Final = {
    # TLS, SASL: what a listener that hangs up may want instead
    (False, False): "want TLS or SASL",
    (False, True): "want TLS",
    (True, False): "speak TLS, and want no SASL",
    (True, True): "speak TLS",
}
_LISTENING: ContextVar[Failures | None] = ContextVar("failures", default=None)


class _Credentials(Protocol):
    """What a client of aiokafka hands to each new connection."""

    _sasl_plain_username: str
    _sasl_plain_password: str


class Failures:
    """Why the connections of one client fail, from `listen` on.

    `why` is for the message of a client that could not start. Each cause is logged when it is new, then once a minute;
    aiokafka's own lines about it are kept out of the log.
    """

    def __init__(self, settings: ConnectionSettings) -> None:
        self._settings = settings
        self._causes: dict[str, str] = {}
        self._told: dict[str, float] = {}
        self._started = False
        self._credentials: _Credentials | None = None

    def listen(self) -> None:
        """Hear of the failures in this task, and in those that are started from it: call it before the client is made."""
        _LISTENING.set(self)
        # Filters of a logger above are not asked, so it is this one; adding the same filter twice does nothing.
        logging.getLogger("aiokafka").addFilter(_overhear)

    def watch(self, client: AIOKafkaConsumer | AIOKafkaProducer) -> None:
        """``client`` has started. From now on causes are logged, and a password that is refused is read again.

        aiokafka keeps user and password as it was first given them and has no hook to ask for others. A client made anew
        would have them too, but would disturb its group for it. Raises KafkaConnectionError where a token was refused:
        aiokafka takes that for success.
        """
        inner = client.client if isinstance(client, AIOKafkaProducer) else client._client  # noqa: SLF001 - see above
        if not inner.cluster.brokers():
            # RFC 7628, 3.2.3: who refuses a token says so in what looks like success and waits for a \x01. aiokafka
            # does not read it and goes on; what it then takes for metadata names no broker.
            self._causes = {", ".join(self._settings.bootstrap_servers): f"it refuses {_who(self._settings)}"}
            raise KafkaConnectionError(self.why())
        self._started = True
        self._credentials = inner

    def why(self) -> str:
        """Every cause since the last `forget`, with the brokers it is about; "" where nothing failed."""
        brokers: dict[str, list[str]] = {}
        for broker, cause in self._causes.items():
            brokers.setdefault(cause, []).append(broker)
        return "; ".join(f"{', '.join(about)}: {cause}" for cause, about in brokers.items())

    def forget(self) -> None:
        """Connections work again."""
        self._causes.clear()
        self._told.clear()

    def note(self, broker: str, error: BaseException) -> None:
        """A connection to ``broker`` failed by ``error``."""
        cause = cause_of(error, self._settings, worked=self._started)
        self._causes[broker] = cause
        if self._started and time.monotonic() >= self._told.get(cause, 0.0):
            self._told[cause] = time.monotonic() + _AGAIN_SECONDS
            _log.warning("no connection to a broker", extra={"broker": broker, "reason": cause})
        if isinstance(error, SaslAuthenticationFailed):
            self._renew()

    def _renew(self) -> None:
        if self._credentials is None or not self._settings.mechanism.takes_password:
            return
        try:
            user, word = password(self._settings)
        except ConfigError as error:
            _log.warning("user and password cannot be read again", extra={"problem": str(error)})
            return
        self._credentials._sasl_plain_username = user  # noqa: SLF001 - see `watch`
        self._credentials._sasl_plain_password = word  # noqa: SLF001


def _overhear(record: logging.LogRecord) -> bool:
    """A filter of aiokafka's log: what it says of a failed connection goes to who listens, and not into the log."""
    failures = _LISTENING.get()
    arguments = record.args if isinstance(record.args, tuple) else ()
    error = next((one for one in arguments if isinstance(one, BaseException)), None)
    if failures is None or error is None:
        return True
    about = [str(one) for one in arguments if not isinstance(one, BaseException)]
    failures.note(":".join(about) if len(about) > 1 else f"broker {' '.join(about)}", error)
    return False


def cause_of(error: BaseException, settings: ConnectionSettings, *, worked: bool = False) -> str:
    """What is wrong, and which setting it is about where it is about one. ``worked``: it has been right before."""
    root = _root(error)
    if isinstance(root, SaslAuthenticationFailed):
        return f"it refuses {_who(settings)}{_said(root)}"
    if isinstance(root, UnsupportedSaslMechanismError | IllegalSaslStateError):
        return f"it does not take {settings.mechanism.value} there (KAFKA_NET_SASL_TYPE)"
    if isinstance(root, ssl.SSLError):
        return _tls_cause(root)
    return _network_cause(root, settings, worked=worked)


def _network_cause(error: BaseException, settings: ConnectionSettings, *, worked: bool) -> str:
    if isinstance(error, asyncio.IncompleteReadError | ConnectionResetError | BrokenPipeError):
        if worked:
            return "the connection broke"
        return (
            f"it closes the connection at once: does its listener {_EXPECTED[settings.uses_tls, settings.uses_sasl]}?"
        )
    if isinstance(error, ConnectionRefusedError):
        return "nothing listens there"
    if isinstance(error, socket.gaierror):
        return "there is no such host name"
    if isinstance(error, TimeoutError | asyncio.TimeoutError):
        hint = "" if settings.uses_tls or worked else ": does its listener want TLS?"
        return f"it does not answer in time{hint}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _root(error: BaseException) -> BaseException:
    """What stands behind aiokafka's "Connection closed"."""
    while isinstance(error, KafkaError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _who(settings: ConnectionSettings) -> str:
    if not settings.mechanism.takes_password:
        return f"our token ({settings.mechanism.value})"
    user = ascii(settings.sasl_user) if settings.sasl_user else "user"
    return f"{user} or the password ({settings.mechanism.value})"


def _said(error: KafkaError) -> str:
    said = str(error.args[0]) if error.args and error.args[0] else ""
    return f": {said}" if said else ""


def _tls_cause(error: ssl.SSLError) -> str:
    reason = error.reason or ""
    if isinstance(error, ssl.SSLCertVerificationError):
        if "ostname mismatch" in error.verify_message or "IP address mismatch" in error.verify_message:
            return f"its certificate is for another name: {error.verify_message.rstrip('.')}"
        return f"its certificate is not trusted: {error.verify_message} (KAFKA_NET_TLS_CA_CERT)"
    if "CERTIFICATE_REQUIRED" in reason:
        return "it wants a client certificate (KAFKA_NET_TLS_CERT, KAFKA_NET_TLS_KEY)"
    if "ALERT" in reason:
        what = reason.partition("ALERT_")[2].replace("_", " ").lower()
        return f"it ends TLS with the alert {what!r}: about our certificate, or for want of one (KAFKA_NET_TLS_CERT)"
    if reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNEXPECTED_EOF_WHILE_READING"):
        return "it does not speak TLS there"
    return f"TLS fails: {reason or error}"
