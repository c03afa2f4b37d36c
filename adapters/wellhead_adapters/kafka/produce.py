"""``wellhead produce``: the lines of files, or of standard input, as records of a topic."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wellhead.env import Collector, boolean, integer, parse_flags, setting, settings, text
from wellhead.errors import ConfigError, Problem
from wellhead.help import help_screen
from wellhead.runtime import Exit, report, say

from .connection import ConnectionSettings
from .lines import Headers, ReadLine, header, jsonl, keyed, plain
from .progress import Progress

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence
    from io import RawIOBase

    from aiokafka import AIOKafkaProducer

    from wellhead.env import Setting

_PROGRAM: Final = "wellhead produce"
_CHUNK: Final = 1 << 18
_UNANSWERED: Final = 10_000
_TOPIC_SECONDS: Final = 5.0
_REPLICAS: Final = 3
_LARGEST: Final = 1 << 30  # the broker's limit counts, not aiokafka's own


def _headers(value: str) -> Headers:
    return tuple(header(line) for line in value.splitlines())


@dataclass(frozen=True, slots=True, kw_only=True)
class ProduceSettings:
    """What to write"""

    topic: str = setting(text, "the topic", flag="topic", env="KAFKA_TOPIC", required=True)
    key: str | None = setting(text, "key of every record", flag="key")
    separator: str = setting(text, "lines are KEY, this, VALUE", flag="key-separator", default="")
    jsonl: bool = setting(
        boolean, 'lines are {"key":…,"value":…,"headers":{…}}', flag="jsonl", default=False, switch=True
    )
    headers: Headers = setting(
        _headers, "header of every record: NAME=VALUE; may be repeated",
        flag="header", default=(), shown_default="", repeated=True,
    )  # fmt: skip
    content_type: str = setting(
        text, "their content-type header, an event's datacontenttype", flag="content-type", default=""
    )
    create: int | None = setting(
        integer(1, 10_000), "make the topic with so many partitions, if it is not there", flag="create"
    )
    quiet: bool = setting(boolean, "no progress bar", flag="quiet", default=False, switch=True)

    def __post_init__(self) -> None:
        if bool(self.separator) + self.jsonl + (self.key is not None and not self.jsonl) > 1:
            raise ConfigError([Problem("--key, --key-separator, --jsonl", "say in two ways what a line is")])

    @property
    def reader(self) -> ReadLine:
        """What becomes of a line."""
        content_type = (("content-type", self.content_type.encode()),) if self.content_type else ()
        headers = (*content_type, *self.headers)
        key = None if self.key is None else self.key.encode()
        if self.jsonl:
            return jsonl(key, headers)
        return keyed(self.separator.encode(), headers) if self.separator else plain(key, headers)


_CONFIGS: Final = (ProduceSettings, ConnectionSettings)


class Produce:
    """Write lines of files, or of standard input, to a Kafka topic.

    wellhead produce --bootstrap-servers localhost:9092 --topic orders --create 3 lines.txt
    echo 'mykey:hello' | wellhead produce --bootstrap-servers localhost:9092 --topic orders --key-separator :

    Records of one key stay in the order of their lines. It ends at the first line that is wrong, or that the broker
    does not take, and says which: those before it are written.
    """

    @staticmethod
    def flags() -> Sequence[Setting[object]]:
        """Every flag of the command."""
        return [known for config in _CONFIGS for known in settings(config)]

    @staticmethod
    def main(arguments: Sequence[str]) -> int:
        """Write what the flags and files say; the exit code."""
        if any(word in ("-h", "-help", "--help") for word in arguments):
            return say(help_screen(_PROGRAM, Produce.__doc__ or "", _CONFIGS))
        flags = parse_flags(arguments, Produce.flags())
        collector = Collector(os.environ, flags)
        what, where = collector.read(ProduceSettings), collector.read(ConnectionSettings)
        files = [Path(word) for word in flags.rest if word != "-"]
        collector.problems += (Problem(str(file), "is no file") for file in files if not file.exists())
        if what is None or where is None or collector.problems:
            return report(_PROGRAM, collector.problems)
        try:
            return asyncio.run(_produce(what, where, files))
        except ConfigError as error:
            return report(_PROGRAM, error.problems)


class _Stopped(Exception):
    """It cannot go on; the text is for a person."""


async def _produce(what: ProduceSettings, where: ConnectionSettings, files: Sequence[Path]) -> int:
    import aiokafka.errors  # noqa: PLC0415 - takes 60 ms, which a wrong flag need not wait for

    logging.getLogger("aiokafka").setLevel(logging.CRITICAL)  # what it has to say is said by us, once
    progress = Progress(files, shown=not what.quiet and sys.stderr.isatty())
    signals = _cancel_on_signals()
    begun = time.monotonic()
    writer = None
    code: int = Exit.DONE
    try:
        async with _producer(where) as producer:
            await _find_topic(producer, what, where)
            writer = _Writer(producer, what, progress)
            try:
                for name, opened in _opened(files):
                    with opened:
                        await writer.write(name, opened)
            finally:
                await writer.settle()
    except asyncio.CancelledError:
        code = 128 + signals[0] if signals else Exit.FAILED
    except (_Stopped, aiokafka.errors.KafkaError, OSError) as error:
        progress.clear()
        sys.stderr.write(f"{_PROGRAM}: {str(error) or type(error).__name__}\n")
        code = Exit.FAILED
    progress.clear()
    if writer is not None:
        seconds = time.monotonic() - begun
        sys.stdout.write(f"{writer.acknowledged:,} records written to {what.topic} in {seconds:.1f} s\n")
    return code


def _cancel_on_signals() -> list[int]:
    """From now on signals cancel this task, so that what was read is still written; those that came are in the list."""
    this = asyncio.current_task()
    came: list[int] = []

    def cancel(number: int) -> None:
        came.append(number)
        if this is not None:
            this.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, cancel, number)
    return came


@asynccontextmanager
async def _producer(where: ConnectionSettings) -> AsyncIterator[AIOKafkaProducer]:
    """A producer that has connected. Raises `_Stopped` with the cause where it cannot."""
    from aiokafka import AIOKafkaProducer  # noqa: PLC0415 - see above
    from aiokafka.errors import KafkaConnectionError  # noqa: PLC0415

    from .failures import Failures  # noqa: PLC0415
    from .security import client_options  # noqa: PLC0415

    failures = Failures(where)
    failures.listen()
    # Idempotent, so that what is tried again is neither doubled nor overtaken.
    producer = AIOKafkaProducer(
        **client_options(where), enable_idempotence=True, linger_ms=5, max_request_size=_LARGEST
    )
    try:
        try:
            await producer.start()
            failures.watch(producer)
        except KafkaConnectionError as error:
            raise _Stopped(f"no connection to Kafka: {failures.why() or error}") from None
        yield producer
    finally:
        await producer.stop()


async def _find_topic(producer: AIOKafkaProducer, what: ProduceSettings, where: ConnectionSettings) -> None:
    """Make the topic if asked to; wait until it has partitions, as a broker may make it at the first question."""
    from aiokafka.errors import TopicAuthorizationFailedError, UnknownTopicOrPartitionError  # noqa: PLC0415

    if what.create is not None:
        replicas = min(_REPLICAS, len(producer.client.cluster.brokers()))
        await _create(what.topic, what.create, replicas, where)
    try:
        async with asyncio.timeout(_TOPIC_SECONDS):
            await producer.partitions_for(what.topic)
    except (TimeoutError, UnknownTopicOrPartitionError):
        raise _Stopped(f"there is no topic {what.topic!r}: --create PARTITIONS makes it") from None
    except TopicAuthorizationFailedError:
        raise _Stopped(f"we may not write to topic {what.topic!r}") from None


async def _create(topic: str, partitions: int, replicas: int, where: ConnectionSettings) -> None:
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic  # noqa: PLC0415
    from aiokafka.errors import TopicAlreadyExistsError, for_code  # noqa: PLC0415

    from .security import client_options  # noqa: PLC0415

    admin = AIOKafkaAdminClient(**client_options(where))
    await admin.start()
    try:
        answer = await admin.create_topics([NewTopic(topic, partitions, replicas)])
    finally:
        await admin.close()
    _, code, said = answer.topic_errors[0]
    if code not in (0, TopicAlreadyExistsError.errno):
        raise _Stopped(f"topic {topic!r} is not made: {said or for_code(code).__name__}")


class _Writer:
    """Sends line after line, and knows which of them were acknowledged."""

    def __init__(self, producer: AIOKafkaProducer, what: ProduceSettings, progress: Progress) -> None:
        self.acknowledged = 0
        self._producer = producer
        self._topic = what.topic
        self._record = what.reader
        self._skip_empty = what.jsonl
        self._progress = progress
        self._unanswered = asyncio.Semaphore(_UNANSWERED)
        self._failed: str = ""

    async def write(self, name: str, file: RawIOBase) -> None:
        """Every line of ``file``. Raises `_Stopped` at the first that is wrong or not taken."""
        number = 0
        async for lines in _lines(file):
            for line in lines:
                number += 1
                if line or not self._skip_empty:
                    await self._send(line, f"{name}, line {number}")
            self._progress.read(sum(map(len, lines)) + len(lines), self.acknowledged)

    async def settle(self) -> None:
        """Wait for the answers to what was sent. Raises `_Stopped` where one is a no."""
        await self._producer.flush()
        self._check()

    async def _send(self, line: bytes, where: str) -> None:
        self._check()
        try:
            record = self._record(line)
        except ValueError as error:
            raise _Stopped(f"{where}: {error}; what stands before it is written") from None
        await self._unanswered.acquire()
        headers = list(record.headers) or None
        answer = await self._producer.send(self._topic, record.value, record.key, headers=headers)
        answer.add_done_callback(lambda done: self._answered(done, where))

    def _answered(self, answer: asyncio.Future[object], where: str) -> None:
        self._unanswered.release()
        error = None if answer.cancelled() else answer.exception()
        if error is not None and not self._failed:
            self._failed = f"{where}: not written: {error}"
        elif error is None:
            self.acknowledged += 1

    def _check(self) -> None:
        if self._failed:
            raise _Stopped(self._failed)


def _opened(files: Sequence[Path]) -> Iterator[tuple[str, RawIOBase]]:
    if not files:
        # Unbuffered: at the end of the program a thread may still wait in there, and would hold the buffer's lock.
        yield "standard input", open(0, "rb", buffering=0, closefd=False)  # noqa: SIM115 - whoever asked closes it
    for file in files:
        try:
            yield str(file), file.open("rb", buffering=0)
        except OSError as error:
            raise _Stopped(f"{file} cannot be read: {error.strerror}") from None


async def _lines(file: RawIOBase) -> AsyncIterator[list[bytes]]:
    """The lines as they come, without their ends; what is typed on a terminal is not waited for in blocks."""
    rest = b""
    while chunk := await _read(file):
        *whole, rest = (rest + chunk).split(b"\n")
        if whole:
            yield [line.removesuffix(b"\r") for line in whole]
    if rest:
        yield [rest.removesuffix(b"\r")]


def _read(file: RawIOBase) -> asyncio.Future[bytes]:
    """What comes next, read in a thread that nobody waits for: a terminal may say nothing for hours."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[bytes] = loop.create_future()

    def settle(octets: bytes, error: OSError | None) -> None:
        if answer.done():  # cancelled
            return
        if error is not None:
            answer.set_exception(error)
        else:
            answer.set_result(octets)

    def read() -> None:
        octets, failed = b"", None
        try:
            octets = file.read(_CHUNK) or b""
        except OSError as error:
            failed = error
        with suppress(RuntimeError):  # the loop has gone, and with it whoever asked
            loop.call_soon_threadsafe(settle, octets, failed)

    threading.Thread(target=read, name="read lines", daemon=True).start()
    return answer
