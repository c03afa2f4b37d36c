"""ApiServerSource on a real API server, beside a stand-in for upstream's adapter on client-go and the Go SDK.

Both watch the ConfigMaps of a namespace and send them whole to a sink in this process.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from tests.bench.figures import Budget, Result, Row
from tests.bench.machine import START_SECONDS, BenchError, cpu_seconds, environment
from tests.bench.receiving import Receiver
from tests.interop.kube import ADMIN_TOKEN, KUBE, Kube, as_pod

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from tests.bench.machine import Plan

PEER: Final = "client-go + Go SDK"
RATE: Final = 50.0
WRITERS: Final = 8
SLOW_SECONDS: Final = 0.01
_SLOW_OBJECTS: Final = 5  # a part of the others: a peer that sends one after another takes a minute for all
_WAIT_SECONDS: Final = 300.0


@dataclass(frozen=True, slots=True)
class Sample:
    """One side's figures of one round."""

    ready_ms: float
    idle_mib: float
    drained_per_s: float
    slowly_per_s: float
    """Drained to a sink that takes `SLOW_SECONDS` for each."""
    cpu_ms: float
    full_mib: float
    p50_ms: float
    p99_ms: float


def run(plan: Plan) -> Result:
    objects, paced = (300, 2.0) if plan.quick else (5000, 10.0)
    programs = KUBE.build()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kube = stack.enter_context(Kube(programs, folder / "kube"))
        config = str(kube.kubeconfig(folder / "config"))
        receiver = stack.enter_context(Receiver())
        mounted = as_pod(_mounted(kube, folder / "mounted")) if os.geteuid() == 0 else ()

        def ours(namespace: str) -> Sequence[str]:
            watched = ("--resource", "v1:ConfigMap", "--data", "Resource", "--namespaces", namespace)
            process = ("--sink", receiver.url, "--health-port", "0", *(() if mounted else ("--kubeconfig", config)))
            return (*mounted, sys.executable, "-m", "wellhead_adapters.apiserver", *watched, *process)

        def theirs(namespace: str) -> Sequence[str]:
            return (str(programs / "watcher"), "-kubeconfig", config, "-namespace", namespace, "-sink", receiver.url)

        bench = _Bench(kube, receiver, objects, paced)
        samples = plan.rounds_of({"ours": lambda: bench.sample(ours), "theirs": lambda: bench.sample(theirs)})
        notes = [f"{objects} objects, {RATE:.0f} a second for {paced:.0f} s"]
        if not mounted:
            notes.append("NOT AS A POD (that needs root): reading a kubeconfig is most of our start and memory")
        many = [] if plan.quick else [bench.memory_with(50_000, side) for side in (ours, theirs)]
    rows = [_row(*row, samples["ours"], samples["theirs"]) for row in _ROWS]
    if many:
        what = "memory, 50,000 objects"
        rows.append(
            Row(what=what, unit="MiB", ours=many[:1], peer=PEER, theirs=many[1:], budget=Budget(bound=60 * _MEGABYTE))
        )
    return Result("apiserver", rows, notes)


_MEGABYTE: Final = 1_000_000 / (1 << 20)
# Bounds beside a stand-in, and by figures of upstream's adapter itself where the stand-in is leaner.
_ROWS: Final[tuple[tuple[str, str, str, Budget | None], ...]] = (
    ("start to ready", "ms", "ready_ms", None),
    ("memory, idle", "MiB", "idle_mib", Budget(bound=44 * _MEGABYTE)),
    ("drain of a backlog", "events/s", "drained_per_s", Budget(bound=3, at_most=False, of_ratio=True)),
    ("drain to a sink of 10 ms", "events/s", "slowly_per_s", Budget(bound=15, at_most=False, of_ratio=True)),
    ("CPU of an event", "ms", "cpu_ms", Budget(bound=0.6, of_ratio=True)),
    ("memory, after the backlog", "MiB", "full_mib", None),
    ("create to event, p50", "ms", "p50_ms", None),
    ("create to event, p99", "ms", "p99_ms", Budget(bound=11)),
)


def _mounted(kube: Kube, folder: Path) -> Path:
    """What a pod finds of its ServiceAccount, here the administrator's."""
    folder.mkdir()
    (folder / "token").write_text(ADMIN_TOKEN)
    (folder / "ca.crt").write_bytes(kube.ca_file.read_bytes())
    return folder


def _row(
    what: str, unit: str, name: str, budget: Budget | None, ours: Sequence[Sample], theirs: Sequence[Sample]
) -> Row:
    return Row(
        what=what,
        unit=unit,
        ours=[getattr(one, name) for one in ours],
        peer=PEER,
        theirs=[getattr(one, name) for one in theirs],
        budget=budget,
    )


class _Bench:
    def __init__(self, kube: Kube, receiver: Receiver, objects: int, paced: float) -> None:
        self._kube = kube
        self._receiver = receiver
        self._objects = objects
        self._paced = paced
        self._number = 0

    def sample(self, command: Callable[[str], Sequence[str]]) -> Sample:
        """A namespace of its own, a program, and everything that is measured of it."""
        namespace = self._namespace()
        with running(command(namespace), self._kube.port) as (process, ready_ms):
            idle = resident_mib(process.pid)
            before = cpu_seconds(process.pid) or 0.0
            drained = self._drained(process, namespace, self._objects)
            cpu = (cpu_seconds(process.pid) or 0.0) - before
            full = resident_mib(process.pid)
            late = sorted(self._latencies(namespace))
            self._receiver.delay_seconds = SLOW_SECONDS
            slowly = self._drained(process, namespace, self._objects // _SLOW_OBJECTS, "slow")
            self._receiver.delay_seconds = 0.0
        return Sample(
            ready_ms=ready_ms,
            idle_mib=idle,
            drained_per_s=drained,
            slowly_per_s=slowly,
            cpu_ms=cpu / self._objects * 1000,
            full_mib=full,
            p50_ms=statistics.median(late),
            p99_ms=late[len(late) * 99 // 100],
        )

    def _drained(self, process: subprocess.Popen[bytes], namespace: str, number: int, prefix: str = "o") -> float:
        """So many objects are made while it stands still: how many of their events come each second afterwards."""
        self._receiver.clear()
        process.send_signal(signal.SIGSTOP)
        self._create(namespace, number, prefix)
        began = time.perf_counter()
        process.send_signal(signal.SIGCONT)
        self._receiver.wait(number, _WAIT_SECONDS)
        return number / (time.perf_counter() - began)

    def memory_with(self, objects: int, command: Callable[[str], Sequence[str]]) -> float:
        """Resident memory of a program that was started with so many objects there, and told of one more."""
        namespace = self._namespace()
        self._create(namespace, objects)
        with running(command(namespace), self._kube.port) as (process, _):
            self._receiver.clear()
            _post(self._connection(), namespace, "one-more")
            self._receiver.wait(1, _WAIT_SECONDS)
            return resident_mib(process.pid)

    def _namespace(self) -> str:
        self._number += 1
        return self._kube.namespace(f"bench-{self._number}")

    def _latencies(self, namespace: str) -> Iterator[float]:
        """Milliseconds from a create's request to the event at the sink, at a steady rate."""
        self._receiver.clear()
        connection = self._connection()
        asked: dict[str, float] = {}
        began = time.perf_counter()
        for number in range(int(RATE * self._paced)):
            time.sleep(max(0.0, began + number / RATE - time.perf_counter()))
            name = f"paced-{number}"
            asked[name] = time.perf_counter()
            _post(connection, namespace, name)
        came = self._receiver.wait(len(asked), _WAIT_SECONDS)
        return ((came[name] - at) * 1000 for name, at in asked.items())

    def _create(self, namespace: str, number: int, prefix: str = "o") -> None:
        def some(first: int) -> None:
            connection = self._connection()
            for one in range(first, number, WRITERS):
                _post(connection, namespace, f"{prefix}{one}")

        with ThreadPoolExecutor(WRITERS) as writers:
            list(writers.map(some, range(WRITERS)))

    def _connection(self) -> http.client.HTTPSConnection:
        return http.client.HTTPSConnection("127.0.0.1", self._kube.port, context=self._kube.tls(), timeout=60)


def _post(connection: http.client.HTTPSConnection, namespace: str, name: str) -> None:
    body = json.dumps({"metadata": {"name": name}, "data": {"text": "x" * 200}})
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
    connection.request("POST", f"/api/v1/namespaces/{namespace}/configmaps", body, headers)
    answer = connection.getresponse()
    said = answer.read()
    if answer.status != 201:
        raise BenchError(f"cannot create {namespace}/{name}: {answer.status} {said[:200]!r}")


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[tuple[subprocess.Popen[bytes], float]]:
    """The program, once it says that it is ready, and the milliseconds that took."""
    began = time.perf_counter()
    process = subprocess.Popen(
        command,
        env=environment(KUBERNETES_SERVICE_HOST="127.0.0.1", KUBERNETES_SERVICE_PORT=str(port), NAME="bench"),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    ready = threading.Event()
    said: list[bytes] = []

    def read() -> None:  # to the end: a full pipe would stop the program
        assert process.stderr is not None, "it was asked for as a pipe"
        with process.stderr:
            for line in process.stderr:
                said[:] = [*said[-20:], line]
                if b"ready" in line:
                    ready.set()
        ready.set()

    reader = threading.Thread(target=read, name="stderr of a program", daemon=True)
    reader.start()
    try:
        if not ready.wait(START_SECONDS) or process.poll() is not None:
            raise BenchError(f"{command[0]} is not ready: {b''.join(said).decode(errors='replace')}")
        yield process, (time.perf_counter() - began) * 1000
    finally:
        process.kill()
        process.wait()
        reader.join()


def resident_mib(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)
