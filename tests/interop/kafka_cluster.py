"""Apache Kafka on this machine: a broker or several, with plain, TLS and SASL listeners, stopped by process id.

Maven brings the jars into $WELLHEAD_CACHE/kafka (default ~/.cache/wellhead/kafka) at the first call, 43 MiB. This file
knows how to run a cluster; what is tested on it is the matter of test_kafka_*.py, the chaos run's and the bench's.

    KafkaError          what a test cannot repair
    ├── KafkaMissing    this machine cannot run Kafka: no Java, no Maven, or no jars to be had
    └── KafkaBroken     a broker does not start, or does not become ready
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

import trustme
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import KafkaError as ClientError
from aiokafka.errors import TopicAlreadyExistsError
from aiokafka.producer import AIOKafkaProducer
from cryptography.hazmat.primitives import serialization

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

VERSION: Final = "4.2.0"
USER: Final = "alice"
PASSWORD: Final = "a secret: ü="  # what SCRAM and JAAS have to quote
UNPRIVILEGED: Final = "bob"
"""Authenticated like `USER`, with the same password, and allowed nothing."""
TOKEN_SUBJECT: Final = "carol"
REAUTHENTICATE_SECONDS: Final = 2
"""So long a connection lasts by OAUTHBEARER, and by SCRAM-SHA-512 without TLS."""

_CLUSTER_ID: Final = "d2VsbGhlYWQtdGVzdHMtMQ"
_MAVEN_SECONDS: Final = 600.0
_READY_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 30.0
_STARTED: Final = "Kafka Server started"
_READINESS_TOPIC: Final = "readiness"
_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>wellhead.invalid</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{VERSION}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


class KafkaError(Exception):
    """Kafka is not to be had; the text says why."""


class KafkaMissing(KafkaError):
    """This machine cannot run Kafka; another one can."""


class KafkaBroken(KafkaError):
    """A broker does not start, and would not on another machine either."""


def jars() -> Path:
    """The folder with Kafka's jars, filled at the first call. Safe to call from several processes. Raises KafkaMissing."""
    for program in ("java", "mvn"):
        if shutil.which(program) is None:
            raise KafkaMissing(f"no program `{program}` on PATH: Apache Kafka cannot be run")
    cache = Path(os.environ.get("WELLHEAD_CACHE") or Path.home() / ".cache" / "wellhead").absolute() / "kafka"
    folder = cache / VERSION
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # closing the file releases it, so does the death of the process
        if not folder.is_dir():
            _fetch_into(folder)
    return folder


def _fetch_into(folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        pom, libs = Path(scratch) / "pom.xml", Path(scratch) / "libs"
        pom.write_text(_POM)
        goal = ("dependency:copy-dependencies", "-DincludeScope=runtime", f"-DoutputDirectory={libs}")
        command = ["mvn", "-q", "-B", "-ntp", "-f", str(pom), *goal]
        try:
            done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_MAVEN_SECONDS)
        except subprocess.TimeoutExpired as late:
            raise KafkaMissing(f"mvn did not end within {_MAVEN_SECONDS:.0f} s") from late
        if done.returncode != 0:
            raise KafkaMissing(f"mvn brings no Kafka {VERSION}: {(done.stdout + done.stderr).strip()[-2000:]}")
        libs.rename(folder)  # at once: a download cut short is never taken for a whole one


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files of one authority, and of another that signed none of them."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Certificates:
        ours, foreign = trustme.CA(), trustme.CA()
        made = cls(folder)
        ours.cert_pem.write_to_path(made.ca)
        foreign.cert_pem.write_to_path(made.foreign_ca)
        # PKCS#8, as Kafka reads nothing else.
        _store(made.server, ours.issue_cert("127.0.0.1", "localhost", common_name="server"))
        _store(made.elsewhere, ours.issue_cert("elsewhere.example", common_name="server"))
        for certificate, key, authority in (
            (made.client_cert, made.client_key, ours),
            (made.foreign_cert, made.foreign_key, foreign),
        ):
            issued = authority.issue_cert("client.example", common_name="client")
            certificate.write_bytes(b"".join(pem.bytes() for pem in issued.cert_chain_pems))
            key.write_bytes(issued.private_key_pem.bytes())
        return made

    @property
    def ca(self) -> Path:
        return self.folder / "ca.pem"

    @property
    def foreign_ca(self) -> Path:
        return self.folder / "foreign-ca.pem"

    @property
    def server(self) -> Path:
        return self.folder / "server.pem"

    @property
    def elsewhere(self) -> Path:
        """A server's certificate for a name that is not this machine's."""
        return self.folder / "elsewhere.pem"

    @property
    def client_cert(self) -> Path:
        return self.folder / "client.pem"

    @property
    def client_key(self) -> Path:
        return self.folder / "client.key"

    @property
    def foreign_cert(self) -> Path:
        return self.folder / "foreign-client.pem"

    @property
    def foreign_key(self) -> Path:
        return self.folder / "foreign-client.key"


def _store(path: Path, issued: trustme.LeafCert) -> None:
    key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    pkcs8 = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pkcs8 + b"".join(pem.bytes() for pem in issued.cert_chain_pems))


class Broker:
    """One process of Kafka. `start`, `stop` and `kill` may follow one another as often as one likes."""

    def __init__(self, number: int, command: Sequence[str], ports: Mapping[str, int]) -> None:
        self.number = number
        self.ports = ports
        """Listener to port: ``PLAIN`` is plain text without SASL, see `_properties` for the others."""
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self._said: collections.deque[str] = collections.deque(maxlen=200)
        self._started = threading.Event()

    @property
    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start it, without waiting."""
        assert not self.runs, f"broker {self.number} runs already"
        self._started.clear()
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        assert self._process.stdout is not None, "it was asked for as a pipe"
        threading.Thread(
            target=self._read, args=[self._process.stdout], name=f"broker {self.number}", daemon=True
        ).start()

    def wait_until_started(self) -> None:
        """Until it says so. Raises KafkaBroken where it ends before, or is not in time."""
        self._started.wait(_READY_SECONDS)
        if not self.runs or not self._started.is_set():
            raise KafkaBroken(f"broker {self.number} did not start:\n" + "".join(list(self._said)[-30:]))

    def stop(self) -> None:
        """As an operator does: it hands its partitions over first."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """As a machine that loses its power."""
        self._end(signal.SIGKILL)

    def _end(self, number: signal.Signals) -> None:
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _read(self, output: IO[bytes]) -> None:
        """Read to the end, in a thread of its own: a full pipe would stop the broker at its next line."""
        with output:
            for line in output:
                text = line.decode(errors="replace")
                self._said.append(text)
                if _STARTED in text:
                    self._started.set()
        self._started.set()  # it never will: whoever waits shall look


class Cluster:
    """``with Cluster() as cluster``: brokers that take records and let groups join; gone, data and all, at the end.

    ``secure`` adds the listeners for TLS and SASL, and an authorizer that lets `UNPRIVILEGED` do nothing.
    """

    def __init__(self, brokers: int = 1, *, secure: bool = False, settings: Mapping[str, str] | None = None) -> None:
        self._number = brokers
        self._secure = secure
        self._settings = settings or {}

    def __enter__(self) -> Self:
        libs = jars()
        with contextlib.ExitStack() as undo:
            self.folder = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="kafka-")))
            if self._secure:
                self.certificates = Certificates.make(self.folder)
            self.brokers = self._make(libs)
            undo.callback(self._stop)
            for broker in self.brokers:
                broker.start()
            for broker in self.brokers:
                broker.wait_until_started()
            asyncio.run(_round_trip(self.bootstrap, self._number))
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()

    @property
    def bootstrap(self) -> str:
        """The brokers, in plain text and without SASL."""
        return self.servers("PLAIN")

    def servers(self, listener: str) -> str:
        """The brokers' addresses by one listener, comma-separated."""
        return ",".join(f"127.0.0.1:{broker.ports[listener]}" for broker in self.brokers)

    def change_password(self, user: str, password: str) -> None:
        """Another password for SCRAM-SHA-512; connections that are open stay so until they have to authenticate again."""
        config = f"SCRAM-SHA-512=[password={password}]"  # one mechanism at a time is all that Kafka takes
        where = ("--bootstrap-server", self.bootstrap, "--entity-type", "users", "--entity-name", user)
        _run(["java", "-cp", f"{jars()}/*", "kafka.admin.ConfigCommand", *where, "--alter", "--add-config", config])

    def _stop(self) -> None:
        for broker in self.brokers:  # at once: without a majority each would wait for the others
            if broker.runs:
                broker.kill()

    def _make(self, libs: Path) -> list[Broker]:
        listeners = ("CONTROLLER", "PLAIN", *(_SECURE if self._secure else ()))
        ports = [dict(zip(listeners, free_ports(len(listeners)), strict=True)) for _ in range(self._number)]
        voters = ",".join(f"{number}@127.0.0.1:{mine['CONTROLLER']}" for number, mine in enumerate(ports))
        made = []
        for number, mine in enumerate(ports):
            folder = self.folder / str(number)
            folder.mkdir()
            file = folder / "server.properties"
            lines = self._properties(number, mine, voters, folder / "data")
            file.write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
            java = ("java", "-cp", f"{libs}/*", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
            scram = [
                word
                for user in (USER, UNPRIVILEGED)
                for kind in ("SCRAM-SHA-256", "SCRAM-SHA-512")
                for word in ("--add-scram", f'{kind}=[name={user},password="{PASSWORD}"]')
            ]
            _run(
                [
                    *java,
                    "kafka.tools.StorageTool",
                    "format",
                    "-t",
                    _CLUSTER_ID,
                    "-c",
                    str(file),
                    *(scram if self._secure else ()),
                ]
            )
            made.append(Broker(number, [*java, "-Xmx256m", "kafka.Kafka", str(file)], mine))
        return made

    def _properties(self, number: int, ports: Mapping[str, int], voters: str, data: Path) -> dict[str, str]:
        replicas = str(min(3, self._number))
        isr = str(min(2, self._number))
        return {
            "process.roles": "broker,controller",
            "node.id": str(number),
            "controller.quorum.voters": voters,
            "controller.listener.names": "CONTROLLER",
            "inter.broker.listener.name": "PLAIN",
            "listeners": ",".join(f"{name}://127.0.0.1:{port}" for name, port in ports.items()),
            "listener.security.protocol.map": ",".join(f"{name}:{_PROTOCOLS[name]}" for name in ports),
            "log.dirs": str(data),
            "auto.create.topics.enable": "false",
            "default.replication.factor": replicas,
            "min.insync.replicas": isr,
            "offsets.topic.num.partitions": "3",
            "offsets.topic.replication.factor": replicas,
            "transaction.state.log.num.partitions": "3",
            "transaction.state.log.replication.factor": replicas,
            "transaction.state.log.min.isr": isr,
            "share.coordinator.state.topic.replication.factor": replicas,
            "share.coordinator.state.topic.min.isr": isr,
            "group.initial.rebalance.delay.ms": "0",
            "group.min.session.timeout.ms": "1000",
            # So that a compacted topic is compacted while a test looks on.
            "log.cleaner.backoff.ms": "200",
            **(self._secure_properties() if self._secure else {}),
            **self._settings,
        }

    def _secure_properties(self) -> dict[str, str]:
        password = PASSWORD.replace("ü", "\\u00fc")  # .properties files are Latin-1
        plain = f'org.apache.kafka.common.security.plain.PlainLoginModule required user_{USER}="{password}" user_{UNPRIVILEGED}="{password}";'
        scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        oauth = 'org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";'
        files = self.certificates
        made = {
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{USER};User:client;User:{TOKEN_SUBJECT}",
            "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]*).*$/$1/,DEFAULT",
        }
        for name in ("SASL", "SASL_TLS", "OAUTH"):
            mechanisms = ("OAUTHBEARER",) if name == "OAUTH" else ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
            prefix = f"listener.name.{name.lower()}"
            made[f"{prefix}.sasl.enabled.mechanisms"] = ",".join(mechanisms)
            for mechanism in mechanisms:
                jaas = {"PLAIN": plain, "OAUTHBEARER": oauth}.get(mechanism, scram)
                made[f"{prefix}.{mechanism.lower()}.sasl.jaas.config"] = jaas
        # KIP-368: who does not authenticate again in time is disconnected, as aiokafka will be.
        for where in ("oauth.oauthbearer", "sasl.scram-sha-512"):
            made[f"listener.name.{where}.connections.max.reauth.ms"] = str(REAUTHENTICATE_SECONDS * 1000)
        for name, store, authentication in (
            ("tls", files.server, "none"),
            ("mtls", files.server, "required"),
            ("sasl_tls", files.server, "none"),
            ("elsewhere", files.elsewhere, "none"),
        ):
            prefix = f"listener.name.{name}.ssl"
            made |= {
                f"{prefix}.keystore.type": "PEM",
                f"{prefix}.keystore.location": str(store),
                f"{prefix}.truststore.type": "PEM",
                f"{prefix}.truststore.location": str(files.ca),
                f"{prefix}.client.auth": authentication,
            }
        return made


_PROTOCOLS: Final = {
    "CONTROLLER": "PLAINTEXT",
    "PLAIN": "PLAINTEXT",
    "SASL": "SASL_PLAINTEXT",
    "OAUTH": "SASL_PLAINTEXT",
    "TLS": "SSL",
    "MTLS": "SSL",
    "SASL_TLS": "SASL_SSL",
    "ELSEWHERE": "SSL",
}
_SECURE: Final = ("SASL", "OAUTH", "TLS", "MTLS", "SASL_TLS", "ELSEWHERE")


async def create_topic(
    bootstrap: str, topic: str, *, partitions: int = 1, replicas: int = 1, settings: Mapping[str, str] | None = None
) -> None:
    """A topic with all its leaders; one that exists is left as it is."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        new = NewTopic(topic, partitions, replicas, topic_configs=dict(settings or {}))
        answer = await admin.create_topics([new])
        code, text = answer.topic_errors[0][1], answer.topic_errors[0][-1]
        if code not in (0, TopicAlreadyExistsError.errno):
            raise KafkaBroken(f"topic {topic} is not made: {text or code}")
    finally:
        await admin.close()


async def _round_trip(bootstrap: str, replicas: int) -> None:
    """Until a record is acknowledged by all replicas, and a group finds its coordinator. An open port is not enough."""
    until = time.monotonic() + _READY_SECONDS
    while True:
        try:
            await create_topic(bootstrap, _READINESS_TOPIC, replicas=min(3, replicas))
            async with AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all") as producer:
                await producer.send_and_wait(_READINESS_TOPIC, b"ready?")
            admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
            await admin.start()
            try:
                await admin.list_consumer_group_offsets("readiness")
            finally:
                await admin.close()
        except (ClientError, KafkaBroken, OSError) as error:
            if time.monotonic() > until:
                raise KafkaBroken(f"the cluster is not ready in time: {error!r}") from error
            await asyncio.sleep(0.1)  # the brokers elect and copy, and tell nobody when they have done
        else:
            return


def free_ports(number: int) -> list[int]:
    """Ports that were free just now."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(number)]
        return [int(one.getsockname()[1]) for one in sockets]


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=_READY_SECONDS)
    if done.returncode != 0:
        raise KafkaBroken(f"{command[-5:]} failed: {(done.stdout + done.stderr).strip()[-2000:]}")
