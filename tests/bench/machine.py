"""This machine and the programs that run on it: load, rounds, CPU and memory of a process, servers. It judges nothing."""

from __future__ import annotations

import contextlib
import os
import platform
import re
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from tests.interop.go_module import PeerError
from tests.interop.peers import PEERS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from tests.bench.figures import Json

T = TypeVar("T")

LINUX: Final = sys.platform == "linux"
MEBIBYTE: Final = 1 << 20
START_SECONDS: Final = 30.0
STOP_SECONDS: Final = 5.0

_PEAK: Final = re.compile(r"^VmHWM:\s*(\d+) kB$", re.MULTILINE)
_CPU_CLOCK_OF_PROCESS: Final = 2  # CPUCLOCK_SCHED of the kernel's posix-timers.h


class BenchError(Exception):
    """A bench cannot go on; the text says why."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long a bench may take: at most so many rounds and seconds."""

    rounds: int
    seconds: float
    quick: bool = False

    def rounds_of(self, sides: Mapping[str, Callable[[], T]]) -> dict[str, list[T]]:
        """Run every side once a round, in turn forwards and backwards, so that no side always has the warmer machine.

        Ends early rather than overrun ``seconds``; two rounds are always run.
        """
        found: dict[str, list[T]] = {name: [] for name in sides}
        started = time.monotonic()
        longest = 0.0
        for number in range(self.rounds):
            begun = time.monotonic()
            if number >= 2 and begun - started + longest > self.seconds:
                break
            for name in list(sides)[:: -1 if number % 2 else 1]:
                found[name].append(sides[name]())
            longest = max(longest, time.monotonic() - begun)
        return found

    def share(self, parts: int) -> Plan:
        """The plan of one of ``parts`` equal parts of a bench."""
        return Plan(self.rounds, self.seconds / parts, self.quick)


def machine() -> dict[str, Json]:
    """What a reader has to know of the machine, and how busy it is now."""
    return {
        "load": list(os.getloadavg()),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
    }


def go_peers() -> tuple[Path | None, str]:
    """The folder of the Go peers, or None and why there is none."""
    try:
        return PEERS.build(), ""
    except PeerError as missing:
        return None, f"NO GO PEER: {missing}"


def environment(**own: str) -> dict[str, str]:
    """A clean environment for a program of ours: no proxies, no Knative variables, .pyc files as usual."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "VIRTUAL_ENV", "SYSTEMROOT")
    return {**{name: os.environ[name] for name in kept if name in os.environ}, **own}


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used up to a moment."""

    cpu_seconds: float
    peak_mib: float


def cpu_seconds(pid: int) -> float | None:
    """User and system time of all threads of a running process; None where the system does not tell."""
    if not LINUX:
        return None
    # The clock of clock_getcpuclockid(3), in nanoseconds where /proc/<pid>/stat counts in hundredths of a second.
    return time.clock_gettime(~pid << 3 | _CPU_CLOCK_OF_PROCESS)


def peak_mib(pid: int) -> float | None:
    """The most memory that a running process has had resident; None where it has gone or the system does not tell."""
    with contextlib.suppress(OSError):
        match = _PEAK.search(Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace"))
        if match is not None:
            return int(match[1]) / 1024
    return None


def kill_and_measure(process: subprocess.Popen[bytes]) -> Usage:
    """What ``process`` has used until now; it is killed, as it has done what it was started for."""
    cpu, peak = cpu_seconds(process.pid), peak_mib(process.pid)
    process.kill()
    # Not process.wait(): where the above is None, this tells both, the cost of being killed included.
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if cpu is None:
        cpu = usage.ru_utime + usage.ru_stime
    if peak is None:
        peak = usage.ru_maxrss / (1024 if LINUX else MEBIBYTE)
    return Usage(cpu, peak)


def output_and_peak(command: Sequence[str], *, seconds: float) -> tuple[bytes, float | None]:
    """Run a program that prints a result: its output, and the peak of its memory as last seen before its end."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, env=environment(), stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        try:
            peak = _watch(process, seconds)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        out.seek(0)
        err.seek(0)
        if process.returncode != 0:
            said = err.read().decode(errors="replace").strip()[-2000:]
            raise BenchError(f"{command[0]} ended with {process.returncode}: {said}")
        return out.read(), peak


def _watch(process: subprocess.Popen[bytes], seconds: float) -> float | None:
    until = time.monotonic() + seconds
    peak: float | None = None
    while process.poll() is None:
        if time.monotonic() > until:
            raise BenchError(f"{process.args!r} did not end within {seconds:.0f} s")
        peak = peak_mib(process.pid) or peak
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.02)
    return peak


@dataclass(frozen=True, slots=True)
class Server:
    """A server that runs."""

    url: str
    pid: int


@contextlib.contextmanager
def serving(command: Sequence[str], *, announced: str) -> Iterator[Server]:
    """A server on loopback, as long as the block lasts. What it prints goes to a file, which is dropped.

    ``announced`` matches what it writes to stderr once it accepts connections; its first group is the port.
    Leaving sends SIGTERM, and SIGKILL after `STOP_SECONDS`.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            command, env=environment(), stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.PIPE
        )
        try:
            yield Server(f"http://127.0.0.1:{_port(process, announced)}", process.pid)
        finally:
            process.terminate()
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _port(process: subprocess.Popen[bytes], announced: str) -> int:
    found = threading.Event()
    ports: list[int] = []
    said: list[str] = []

    def read() -> None:  # to the end: a full pipe would stop the server
        assert process.stderr is not None, "it was asked for as a pipe"
        with process.stderr:
            for line in process.stderr:
                text = line.decode(errors="replace")
                said[:] = [*said[-20:], text]
                if not ports and (match := re.search(announced, text)):
                    ports.append(int(match[1]))
                    found.set()
        found.set()

    threading.Thread(target=read, name=f"stderr of {process.args!r}"[:60], daemon=True).start()
    found.wait(START_SECONDS)
    if not ports:
        raise BenchError(f"{process.args!r} did not start: {''.join(said)}")
    return ports[0]
