"""Programs of ours as a user starts them: a process, with exactly the environment given. Waits for output, never for time."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

IN_TIME: Final = 20.0
"""Seconds that anything may take on a busy machine; a quiet one needs a twentieth."""
WELLHEAD: Final = str(Path(sys.executable).with_name("wellhead"))
HEARTBEAT: Final = (sys.executable, "-m", "wellhead_adapters.heartbeat")
POD: Final = {"POD_NAME": "mypod", "POD_NAMESPACE": "event-test"}
REFUSED_URL: Final = "http://127.0.0.1:1/"  # a port nobody listens on: tcpmux went out of use


class Output:
    """What a program has written to one of its pipes so far."""

    def __init__(self) -> None:
        self.octets = b""
        self._ended = False
        self._changed = asyncio.Condition()

    @property
    def text(self) -> str:
        return self.octets.decode("utf-8", "backslashreplace")

    @property
    def lines(self) -> list[str]:
        """The whole lines."""
        return self.text.split("\n")[:-1]

    async def has(self, wanted: Callable[[Output], bool]) -> None:
        """Wait until the output is as wanted. Raises AssertionError when it ends before, or is not in time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IN_TIME), self._changed:
                await self._changed.wait_for(lambda: wanted(self) or self._ended)
        assert wanted(self), f"{'it ended' if self._ended else 'not in time'}; so far:\n{self.text}"

    async def line(self, part: str, number: int = 1) -> str:
        """Wait until ``number`` lines hold ``part``; the last of them."""
        await self.has(lambda it: len([line for line in it.lines if part in line]) >= number)
        return [line for line in self.lines if part in line][number - 1]

    async def follow(self, pipe: asyncio.StreamReader | None) -> None:
        while pipe is not None and (chunk := await pipe.read(1 << 16)):
            await self._note(chunk)
        self._ended = True
        await self._note(b"")

    async def _note(self, chunk: bytes) -> None:
        async with self._changed:
            self.octets += chunk
            self._changed.notify_all()


class Program:
    """A program that runs."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.stdout = Output()
        self.stderr = Output()
        self._readers = [
            asyncio.create_task(output.follow(pipe), name="reader of a program's output")
            for output, pipe in ((self.stdout, process.stdout), (self.stderr, process.stderr))
        ]

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def ended(self) -> int:
        """Wait until it has ended and all its output is read; its exit code, negative for a signal."""
        try:
            async with asyncio.timeout(IN_TIME):
                code = await self.process.wait()
                await asyncio.gather(*self._readers)
        except TimeoutError:
            raise AssertionError(f"it does not end; it said:\n{self.stderr.text}") from None
        return code

    async def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, and wait for the end."""
        self.send(number)
        return await self.ended()


@contextlib.asynccontextmanager
async def started(
    *command: str | bytes,
    env: Mapping[str, str] | Mapping[bytes, bytes] | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
) -> AsyncIterator[Program]:
    """``command``, running in the environment ``env`` and nothing else of ours; killed on leaving if it still runs.

    ``stdout`` and ``stderr`` are descriptors to write to in place of `Program`'s pipes.
    """
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(env or {}),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE if stdout is None else stdout,
        stderr=asyncio.subprocess.PIPE if stderr is None else stderr,
    )
    program = Program(process)
    try:
        yield program
    finally:
        if process.returncode is None:
            process.kill()
        await program.ended()


async def run(
    *command: str | bytes, env: Mapping[str, str] | Mapping[bytes, bytes] | None = None
) -> tuple[int, Program]:
    """``command`` to its end: exit code and what it wrote."""
    async with started(*command, env=env) as program:
        return await program.ended(), program


def dead_pipe() -> int:
    """The writing end of a pipe whose reader has gone. The caller closes it."""
    reading, writing = os.pipe()
    os.close(reading)
    return writing
