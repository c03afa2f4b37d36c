"""A program: how much memory our Kafka adapter takes with a long backlog and a sink that takes nothing.

One broker, so many small records of many keys, ``python -m wellhead_adapters.kafka`` and a sink that refuses connections
or never answers. The memory of the process is read every second. Exit code 1 where it grows once the first quarter of the
time is over.

    python tests/faults/kafka_memory.py                                       5 million records, ten minutes
    python tests/faults/kafka_memory.py --records 500000 --seconds 120 --sink silent
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import IO, Final

from aiokafka import AIOKafkaProducer

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.interop.kafka_cluster import Cluster, create_topic

TOPIC: Final = "backlog"
KEYS: Final = 100_000
BATCH_BYTES: Final = 1 << 19
SETTLED_MIB: Final = 8.0
"""So much more than after the first quarter is growth; less is the allocator's."""
READY_SECONDS: Final = 60.0
MEBIBYTE: Final = 1 << 20


async def fill(bootstrap: str, records: int, partitions: int) -> None:
    """Batches made by hand: twenty times as fast as a record at a time."""
    await create_topic(bootstrap, TOPIC, partitions=partitions)
    async with AIOKafkaProducer(bootstrap_servers=bootstrap, max_batch_size=BATCH_BYTES) as producer:
        batch, number, written = producer.create_batch(), 0, 0
        while number < records:
            if batch.append(key=b"key-%d" % (number % KEYS), value=b"small %d" % number, timestamp=None) is not None:
                number += 1
                continue
            await producer.send_batch(batch, TOPIC, partition=written % partitions)
            batch, written = producer.create_batch(), written + 1
        await producer.send_batch(batch, TOPIC, partition=written % partitions)
        await producer.flush()


async def watch(variables: dict[str, str], seconds: float, said: IO[bytes]) -> list[float]:
    """The memory of the adapter in MiB, second by second, from being ready on."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "wellhead_adapters.kafka", env=variables, stdout=said, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None, "it was asked for as a pipe"
    try:
        async with asyncio.timeout(READY_SECONDS):
            while b"source is ready" not in (line := await process.stderr.readline()):
                assert line, f"it has ended with {await process.wait()}"
        drained = asyncio.create_task(process.stderr.read(), name="what else it says")
        samples = []
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await asyncio.sleep(1)
            samples.append(_resident_mib(process.pid))
            assert process.returncode is None, "a sink that is down ended the program"
        drained.cancel()
        return samples
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


def _resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize() / MEBIBYTE


async def measure(bootstrap: str, given: argparse.Namespace) -> list[float]:
    begun = time.monotonic()
    await fill(bootstrap, given.records, given.partitions)
    print(f"{given.records} records in {given.partitions} partitions, written in {time.monotonic() - begun:.0f} s")
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    if given.sink == "refusing":
        silent.close()
    variables = {
        "PATH": os.environ["PATH"],
        "KAFKA_BOOTSTRAP_SERVERS": bootstrap,
        "KAFKA_TOPICS": TOPIC,
        "KAFKA_CONSUMER_GROUP": "memory",
        "KAFKA_INITIAL_OFFSET": "earliest",
        "KAFKA_ORDERING": given.ordering,
        "K_SINK": f"http://127.0.0.1:{port}/",
        "HEALTH_PORT": "0",
    }
    try:
        with tempfile.TemporaryFile() as said:
            return await watch(variables, given.seconds, said)
    finally:
        silent.close()


def main() -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--records", type=int, default=5_000_000)
    asked.add_argument("--seconds", type=float, default=600.0)
    asked.add_argument("--partitions", type=int, default=4)
    asked.add_argument("--ordering", choices=("partition", "key", "unordered"), default="key")
    asked.add_argument("--sink", choices=("refusing", "silent"), default="refusing")
    given = asked.parse_args()
    with Cluster() as cluster:
        samples = asyncio.run(measure(cluster.bootstrap, given))
    settled = max(samples[: max(1, len(samples) // 4)])
    figures = {"first_quarter_mib": settled, "peak_mib": max(samples), "end_mib": samples[-1]}
    every = max(1, len(samples) // 20)
    print(
        json.dumps({name: round(value, 1) for name, value in figures.items()}),
        [round(it, 1) for it in samples[::every]],
    )
    return 1 if max(samples) > settled + SETTLED_MIB else 0


if __name__ == "__main__":
    raise SystemExit(main())
