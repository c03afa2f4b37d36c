"""``wellhead produce`` and a real broker: what was written is read back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import signal
import subprocess
from typing import TYPE_CHECKING, Final

from aiokafka import AIOKafkaConsumer, ConsumerRecord, TopicPartition
from tests.process import IN_TIME, WELLHEAD

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.kafka_cluster import Cluster

KEEP: Final = ("PATH", "HOME", "LANG")


def environment(kafka: Cluster) -> dict[str, str]:
    kept = {name: os.environ[name] for name in KEEP if name in os.environ}
    return {**kept, "KAFKA_BOOTSTRAP_SERVERS": kafka.bootstrap}


async def produce(kafka: Cluster, *words: str, lines: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = [WELLHEAD, "produce", *words]
    return await asyncio.to_thread(
        subprocess.run,
        command,
        input=lines,
        env=environment(kafka),
        capture_output=True,
        timeout=IN_TIME,
        check=False,
    )


async def records(kafka: Cluster, topic: str) -> list[ConsumerRecord]:
    """Everything in the topic, partition by partition."""
    found: list[ConsumerRecord] = []
    async with AIOKafkaConsumer(bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest") as consumer:
        await consumer._client.add_topic(topic)
        partitions = [TopicPartition(topic, number) for number in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(partitions)
        ends = await consumer.end_offsets(partitions)
        while any([await consumer.position(one) < end for one, end in ends.items()]):
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                found += batch
    return sorted(found, key=lambda record: (record.partition, record.offset))


async def test_lines_of_standard_input_become_records(kafka: Cluster) -> None:
    words = ("--topic", "plain-lines", "--create", "1", "--key", "k", "--header", "a=b", "--content-type", "text/plain")
    done = await produce(kafka, *words, lines=b"one\r\ntwo\n\nfour")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"4 records written to plain-lines in ")
    found = await records(kafka, "plain-lines")
    assert [record.value for record in found] == [b"one", b"two", b"", b"four"]
    assert {record.key for record in found} == {b"k"}
    assert {record.headers for record in found} == {(("content-type", b"text/plain"), ("a", b"b"))}


async def test_keys_of_files_keep_their_order_over_partitions(kafka: Cluster, tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("first", "second")]
    for part, file in enumerate(files):
        file.write_text("".join(f"key{n % 50}=>{part}:{n}\n" for n in range(2000)))
    done = await produce(kafka, "--topic", "keyed", "--create", "4", "--key-separator", "=>", *map(str, files))
    assert (done.returncode, done.stderr) == (0, b"")
    by_key: dict[bytes, list[bytes]] = {}
    for record in await records(kafka, "keyed"):
        by_key.setdefault(record.key, []).append(record.value)
    assert len(by_key) == 50
    for n, key in enumerate(f"key{n}".encode() for n in range(50)):
        assert by_key[key] == [b"%d:%d" % (part, number) for part in (0, 1) for number in range(n, 2000, 50)]


async def test_it_ends_at_a_line_that_is_wrong_and_says_what_it_has_done(kafka: Cluster) -> None:
    lines = b'{"key":"a","value":{"x":1},"headers":{"h":"v"}}\n\n{"key":"a","value":null}\n{bad\n{"value":1}\n'
    done = await produce(kafka, "--topic", "json-lines", "--create", "1", "--jsonl", lines=lines)
    assert done.returncode == 1
    assert done.stderr == b"wellhead produce: standard input, line 4: is not JSON; what stands before it is written\n"
    assert done.stdout.startswith(b"2 records written")
    found = [(record.key, record.value, record.headers) for record in await records(kafka, "json-lines")]
    assert found == [(b"a", b'{"x":1}', (("h", b"v"),)), (b"a", None, ())]


async def test_a_topic_that_is_not_there_is_told_of(kafka: Cluster) -> None:
    done = await produce(kafka, "--topic", "nowhere", lines=b"x\n")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == b"wellhead produce: there is no topic 'nowhere': --create PARTITIONS makes it\n"


async def test_a_record_that_the_broker_finds_too_large_is_named_by_its_line(kafka: Cluster) -> None:
    done = await produce(kafka, "--topic", "large", "--create", "1", lines=b"small\n" + b"x" * 3_000_000 + b"\n")
    assert done.returncode == 1
    assert b"standard input, line 2: not written: [Error 10] MessageSizeTooLargeError" in done.stderr


async def test_interrupted_it_still_writes_what_it_has_read(kafka: Cluster) -> None:
    process = await asyncio.create_subprocess_exec(
        *(WELLHEAD, "produce", "--topic", "typed", "--create", "1"),
        env=environment(kafka),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(b"first\nsecond\nhalf a li")
    await until_written(kafka, "typed", 2)  # lines are not held back until the input ends
    process.send_signal(signal.SIGINT)
    async with asyncio.timeout(IN_TIME):
        output, errors = await process.communicate()
    assert (process.returncode, errors) == (128 + signal.SIGINT, b"")
    assert output.startswith(b"2 records written to typed")


async def until_written(kafka: Cluster, topic: str, number: int) -> None:
    """Wait for records of a topic that may not be there yet."""
    async with (
        asyncio.timeout(IN_TIME),
        AIOKafkaConsumer(
            topic, bootstrap_servers=kafka.bootstrap, auto_offset_reset="earliest", metadata_max_age_ms=200
        ) as consumer,
    ):
        for _ in range(number):
            await consumer.getone()


def test_on_a_terminal_a_bar_shows_how_far_it_is_and_is_gone_at_the_end(kafka: Cluster, tmp_path: Path) -> None:
    file = tmp_path / "lines"
    file.write_bytes(b"x" * 99 + b"\n" + b"y" * 99 + b"\n" * 60_000)
    ours, its = pty.openpty()
    try:
        command = [WELLHEAD, "produce", "--topic", "bar", "--create", "1", str(file)]
        process = subprocess.Popen(command, env=environment(kafka), stdout=subprocess.PIPE, stderr=its)
        os.close(its)
        drawn = all_of(ours)
        output, _ = process.communicate(timeout=IN_TIME)
    finally:
        os.close(ours)
    assert output.startswith(b"60,001 records written to bar")
    shown = drawn.decode()
    assert "█" in shown
    assert " records, " in shown
    assert shown.endswith("\r\x1b[K")


def all_of(terminal: int) -> bytes:
    drawn = b""
    with contextlib.suppress(OSError):  # EIO: the program has ended
        while chunk := os.read(terminal, 1 << 16):
            drawn += chunk
    return drawn
