"""HTTP load on a server: by wrk where it is installed, else by sockets of our own in a few processes."""

from __future__ import annotations

import json
import multiprocessing
import os
import selectors
import shutil
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from tests.bench import sample
from tests.bench.machine import BenchError

CONNECTIONS: Final = 32

_SCRIPT: Final = """
wrk.method = "POST"
wrk.body = [==[%s]==]
%s
done = function(summary, latency, requests)
  local failed = summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout
  io.stderr:write(string.format('{"requests":%%d,"micros":%%d,"refused":%%d,"failed":%%d}', summary.requests,
    summary.duration, summary.errors.status, failed))
end
"""
_ANSWER_BYTES: Final = 65536


@dataclass(frozen=True, slots=True)
class Load:
    """What a server took in ``seconds``. Every request was answered 2xx."""

    requests: int
    seconds: float

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds


def has_wrk() -> bool:
    return shutil.which("wrk") is not None


def load(url: str, seconds: float, *, connections: int = CONNECTIONS) -> Load:
    """POST the sample event over so many connections. Raises `BenchError` unless all of it is accepted."""
    return _wrk(url, seconds, connections) if has_wrk() else _own(url, seconds)


def _wrk(url: str, seconds: float, connections: int) -> Load:
    headers = "\n".join(f'wrk.headers["{name}"] = "{value}"' for name, value in sample.HEADERS)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "event.lua"
        script.write_text(_SCRIPT % (sample.DATA.decode(), headers))
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", f"-s{script}", url]
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds + 30)
    if done.returncode != 0:
        raise BenchError(f"wrk: {done.stderr.strip()}")
    figures: dict[str, int] = json.loads(done.stderr)
    if figures["refused"] or figures["failed"]:
        raise BenchError(f"{url} did not take all: {figures}")
    return Load(figures["requests"], figures["micros"] / 1e6)


def _own(url: str, seconds: float) -> Load:
    workers = min(2, os.cpu_count() or 1)
    begun = time.monotonic()
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(workers) as pool:
        pool.starmap(_nothing, [()] * workers)  # the processes are up
        counts = pool.starmap(_post, [(url, seconds, CONNECTIONS // workers)] * workers)
    if time.monotonic() - begun > seconds + 60:
        raise BenchError("the load generator was held up")
    return Load(sum(counts), seconds)


def _nothing() -> None:
    """To be run in a process once, so that it is up."""


def _post(url: str, seconds: float, connections: int) -> int:
    """How many requests one process gets accepted: one at a time on each connection."""
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    head = "".join(f"{name}: {value}\r\n" for name, value in sample.HEADERS)
    request = f"POST / HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Length: {len(sample.DATA)}\r\n{head}\r\n".encode()
    request += sample.DATA
    with selectors.DefaultSelector() as waiting:
        clients = [socket.create_connection(address) for _ in range(connections)]
        for client in clients:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting.register(client, selectors.EVENT_READ)
            client.sendall(request)
        try:
            return _exchange(waiting, request, time.monotonic() + seconds)
        finally:
            for client in clients:
                client.close()


def _exchange(waiting: selectors.BaseSelector, request: bytes, until: float) -> int:
    answered = 0
    while time.monotonic() < until:
        for key, _ in waiting.select(1.0):
            client = key.fileobj
            assert isinstance(client, socket.socket), "sockets were registered"
            answer = client.recv(_ANSWER_BYTES)  # answers are small and come whole
            if not answer.startswith(b"HTTP/1.1 2"):
                raise BenchError(f"not accepted: {answer[:100]!r}")
            answered += 1
            client.sendall(request)
    return answered
