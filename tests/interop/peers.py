"""Builds and runs the real peers written in Go (see peers/README.md).

Decides nothing about tests: what a missing peer means there (fail or skip) is the caller's choice.

    PeerError           what a test cannot repair
    ├── PeerMissing     this machine cannot build the peers: no Go, one too old, or no modules to be had
    └── PeerBroken      the peers' code does not build, or a program did not start
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import queue
import re
import shutil
import subprocess
import tempfile
import threading
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

SOURCES: Final = Path(__file__).with_name("peers")

BUILD_SECONDS: Final = 900.0  # a cold build takes 20 s of a quiet machine; a shared one may be far slower
READY_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0

_LISTENING: Final = re.compile(rb"listening on 127\.0\.0\.1:(\d+)\s*")


class PeerError(Exception):
    """A peer is not to be had; the text says why."""


class PeerMissing(PeerError):
    """This machine cannot build the peers; another one can."""


class PeerBroken(PeerError):
    """A peer does not build or start, and would not on another machine either."""


def build_peers() -> Path:
    """Return the folder that holds the programs kafkaadapter, receiver, sender and sinkserver.

    Builds them at the first call for these sources, for later calls it only looks them up. Safe to call from
    several processes at once. Raises PeerMissing or PeerBroken; a failed build leaves nothing behind.
    """
    cache = _cache()
    built = cache / _fingerprint()
    if built.is_dir():
        return built
    cache.mkdir(parents=True, exist_ok=True)
    with _locked(cache / "lock"):
        if not built.is_dir():  # another process may have built them while this one waited
            _build_into(built)
    return built


def _cache() -> Path:
    root = os.environ.get("WELLHEAD_CACHE") or Path.home() / ".cache" / "wellhead"
    return Path(root).absolute() / "peers"


def _fingerprint() -> str:
    digest = hashlib.sha256()
    for path in sorted([*SOURCES.rglob("*.go"), SOURCES / "go.mod", SOURCES / "go.sum"]):
        content = path.read_bytes()
        digest.update(f"{path.relative_to(SOURCES).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()[:16]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file releases it, so does the death of the process
        yield


def _build_into(folder: Path) -> None:
    go = shutil.which("go")
    if go is None:
        raise PeerMissing("no program `go` on PATH: the Go peers of tests/interop/peers cannot be built")
    # Apart from the compilation, so that no network and an old Go are told from an error in our sources.
    modules = _go(go, "mod", "download")
    if modules.returncode != 0:
        raise PeerMissing(f"go mod download failed in tests/interop/peers: {modules.stderr.strip()}")
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        programs = Path(scratch) / folder.name
        programs.mkdir()
        build = _go(go, "build", "-trimpath", "-buildvcs=false", "-o", str(programs), "./cmd/...")
        if build.returncode != 0:
            raise PeerBroken(f"go build failed in tests/interop/peers: {build.stderr.strip()}")
        programs.rename(folder)  # at once: a build cut short is never taken for a whole one


def _go(go: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    # Neither a workspace around the checkout nor a C compiler may decide whether, or what, is built.
    environment = {**os.environ, "GOWORK": "off", "CGO_ENABLED": "0"}
    try:
        return subprocess.run(
            [go, *arguments],
            check=False,
            cwd=SOURCES,
            env=environment,
            capture_output=True,
            text=True,
            timeout=BUILD_SECONDS,
        )
    except subprocess.TimeoutExpired as late:
        raise PeerMissing(f"go {arguments[0]} did not end within {BUILD_SECONDS:.0f} s") from late


class GoPeer:
    """A peer that runs as long as the ``with`` block does, and accepts connections from its first line on.

    Entering raises PeerBroken where the program ends before it listens, or does not listen in READY_SECONDS.
    Leaving sends SIGTERM to this one process, kills it after STOP_SECONDS, and waits for its end. Starts one
    program once: to run it again, on the same port say, make another.

        with GoPeer(build_peers() / "receiver") as receiver:
            ...  # send to receiver.url: an event answered 2xx is already in receiver.stdout
    """

    def __init__(self, program: Path, *flags: str, environment: Mapping[str, str] | None = None) -> None:
        self._command = [str(program), *flags]
        self._environment = {**os.environ, **(environment or {})}
        self._listening: queue.SimpleQueue[int | None] = queue.SimpleQueue()
        self._stderr: list[bytes] = []

    def __enter__(self) -> Self:
        with ExitStack() as undo:
            # A file and not a pipe: what the program has written can be read at once and never blocks it.
            self._output = undo.enter_context(tempfile.TemporaryFile())
            undo.callback(self._keep_output)
            self._process = self._start()
            undo.callback(self._stop)
            self.port = self._wait_until_listening()
            self._undo = undo.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._undo.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def stdout(self) -> bytes:
        """What the program has printed so far; after the block, all it ever printed."""
        if self._output.closed:
            return self._printed
        descriptor = self._output.fileno()
        return os.pread(descriptor, os.fstat(descriptor).st_size, 0)  # leaves the offset it writes at alone

    @property
    def stderr(self) -> bytes:
        """What the program has complained of; only after the block it is sure to be all."""
        return b"".join(self._stderr)

    def _start(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(
                self._command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=subprocess.PIPE,
            )
        except OSError as error:
            raise PeerBroken(f"{self._command[0]} cannot be started: {error}") from error
        assert process.stderr is not None, "it was asked for as a pipe"
        self._reader = threading.Thread(target=self._read, args=[process.stderr], name="stderr of a Go peer")
        self._reader.start()
        return process

    def _read(self, stderr: IO[bytes]) -> None:
        """Read to the end, in a thread of its own: a full pipe would stop the program at its next complaint."""
        with stderr:
            for line in stderr:
                self._stderr.append(line)
                if listening := _LISTENING.fullmatch(line):
                    self._listening.put(int(listening[1]))
        self._listening.put(None)

    def _wait_until_listening(self) -> int:
        try:
            port = self._listening.get(timeout=READY_SECONDS)
        except queue.Empty:
            raise PeerBroken(f"{self._command[0]} did not listen within {READY_SECONDS:.0f} s") from None
        if port is None:
            raise PeerBroken(f"{self._command[0]} ended before it listened: {self.stderr.decode(errors='replace')}")
        return port

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()

    def _keep_output(self) -> None:
        self._printed = self.stdout
