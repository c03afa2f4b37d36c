"""Builds and runs the real peers written in Go (see peers/README.md).

Decides nothing about tests: what a missing peer means there (fail or skip) is the caller's choice.
"""

from __future__ import annotations

import os
import queue
import re
import subprocess
import tempfile
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, Self

from tests.interop.go_module import GoModule, PeerBroken

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

# A cold build takes 20 s of a quiet machine; a shared one may be far slower.
PEERS: Final = GoModule(sources=Path(__file__).with_name("peers"), build_seconds=900.0)

READY_SECONDS: Final = 10.0
STOP_SECONDS: Final = 5.0

_LISTENING: Final = re.compile(rb"listening on 127\.0\.0\.1:(\d+)\s*")


class GoPeer:
    """A peer that runs as long as the ``with`` block does, and accepts connections from its first line on.

    Entering raises PeerBroken where the program ends before it listens, or does not listen in READY_SECONDS.
    Leaving sends SIGTERM to this one process, kills it after STOP_SECONDS, and waits for its end. Starts one
    program once: to run it again, on the same port say, make another.

        with GoPeer(PEERS.build() / "receiver") as receiver:
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
