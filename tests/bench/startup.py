"""From exec to the first event that arrives at a sink: wall clock, CPU and peak memory of the heartbeat."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from tests.bench.figures import Budget, Result, Row
from tests.bench.machine import START_SECONDS, BenchError, Plan, Usage, environment, go_peers, kill_and_measure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NO_BUDGETS: Final = (None, None, None)
_BUDGETS: Final = (None, Budget(bound=300, goal=150), Budget(bound=45, goal=36))

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_HEARTBEAT: Final = (sys.executable, "-m", "wellhead_adapters.heartbeat")
# What no Python program on asyncio can do without. It sends one request, as if it were an event, and waits.
_FLOOR: Final = """
import asyncio, os
async def send():
    host, port = os.environ["K_SINK"].removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"POST / HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n\\r\\n{}")
    await reader.read(1)
asyncio.run(send())
"""
# What the program imports until its first event, though not all of it at its start.
_IMPORTED: Final = (
    "import wellhead.runtime, wellhead_adapters.heartbeat.adapter, wellhead.transport.http, uvloop, aiohappyeyeballs"
)
_IMPORT: Final = re.compile(r"import time: +(\d+) \| +(\d+) \| +(\S+)")
_EXPLAIN_RUNS: Final = 5
_EXPLAINED: Final = 12


@dataclass(frozen=True, slots=True)
class _Start:
    wall_seconds: float
    usage: Usage


def run(plan: Plan) -> Result:
    """Start each program in turn, and look at it at the moment when its first event has arrived."""
    sides: dict[str, Callable[[], _Start]] = {
        "heartbeat": lambda: _start(_HEARTBEAT),
        "asyncio alone": lambda: _start((sys.executable, "-c", _FLOOR)),
    }
    folder, missing = go_peers()
    if folder is not None:
        sides["Go SDK sender"] = lambda: _start((str(folder / "sender"), "-sink", "{sink}", "-count", "1"))
    for side in sides.values():
        side()  # once unmeasured: files are in the page cache, and .pyc files are there
    found = plan.rounds_of(sides)
    rows = [
        row
        for number, peer in enumerate(list(sides)[1:])
        for row in _rows(found["heartbeat"], peer, found[peer], budgets=_NO_BUDGETS if number else _BUDGETS)
    ]
    return Result("startup", rows, [missing] if missing else [])


def explain() -> str:
    """What the heartbeat's imports cost, by ``-X importtime``, which itself makes them slower: read it for the shares.

    Of each module the best of several runs is told, as a busy machine only ever adds.
    """
    own: dict[str, int] = {}
    whole: dict[str, int] = {}
    for _ in range(_EXPLAIN_RUNS):
        for itself, with_others, name in _IMPORT.findall(_import_times()):
            own[name] = min(int(itself), own.get(name, int(itself)))
            whole[name] = min(int(with_others), whole.get(name, int(with_others)))
    packages: Counter[str] = Counter()
    for name, micros in own.items():
        packages[name.partition(".")[0]] += micros
    return "\n".join(
        (
            "  ms in a module itself, and with what it is the first to import:",
            *(
                f"    {own[name] / 1000:6.1f} {whole[name] / 1000:6.1f}  {name}"
                for name in sorted(own, key=own.__getitem__, reverse=True)[:_EXPLAINED]
            ),
            f"  ms by package, of {sum(packages.values()) / 1000:.0f}:",
            *(f"    {micros / 1000:6.1f}  {name}" for name, micros in packages.most_common(_EXPLAINED)),
        )
    )


def _import_times() -> str:
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-c", _IMPORTED],
        env=environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stderr


def _rows(
    ours: Sequence[_Start], peer: str, theirs: Sequence[_Start], *, budgets: Sequence[Budget | None]
) -> tuple[Row, ...]:
    wall, cpu, memory = budgets

    def row(what: str, unit: str, budget: Budget | None, figure: Callable[[_Start], float]) -> Row:
        return Row(
            what=what, unit=unit, ours=[*map(figure, ours)], peer=peer, theirs=[*map(figure, theirs)], budget=budget
        )

    return (
        row("exec to first event", "ms", wall, lambda start: start.wall_seconds * 1000),
        row("CPU until then", "ms", cpu, lambda start: start.usage.cpu_seconds * 1000),
        row("peak memory until then", "MiB", memory, lambda start: start.usage.peak_mib),
    )


def _start(command: Sequence[str]) -> _Start:
    """Start a program; it is killed when its first request has come in whole. ``{sink}`` becomes the sink's URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener, tempfile.TemporaryFile() as err:
        sink = f"http://127.0.0.1:{listener.getsockname()[1]}"
        begun = time.perf_counter()
        process = subprocess.Popen(
            [word.replace("{sink}", sink) for word in command],
            env=environment(K_SINK=sink, POD_NAME="pod", POD_NAMESPACE="bench"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=err,
        )
        try:
            with _receive(listener):  # unanswered, so that the program waits while it is looked at
                return _Start(time.perf_counter() - begun, kill_and_measure(process))
        except OSError as error:
            err.seek(0)
            raise BenchError(f"no event of {command}: {error}; {err.read().decode(errors='replace')}") from error
        finally:
            if process.returncode is None:
                process.kill()
                process.wait()


def _receive(listener: socket.socket) -> socket.socket:
    """The connection over which the first request has come in whole."""
    listener.settimeout(START_SECONDS)
    client, _ = listener.accept()
    client.settimeout(START_SECONDS)
    request = b""
    while not _is_whole(request):
        more = client.recv(65536)
        if not more:
            raise ConnectionResetError("the connection was closed in the middle of the event")
        request += more
    return client


def _is_whole(request: bytes) -> bool:
    head, end, body = request.partition(b"\r\n\r\n")
    if not end:
        return False
    length = _LENGTH.search(head + b"\r\n")
    return length is not None and len(body) >= int(length[1])
