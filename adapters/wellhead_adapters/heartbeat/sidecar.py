"""Istio's sidecar keeps a Job's pod alive until it is told to quit; upstream's one-shot heartbeat tells it, so do we."""

from __future__ import annotations

import asyncio
import contextlib

_AGENT = ("localhost", 15020)
_REQUEST = b"POST /quitquitquit HTTP/1.1\r\nHost: localhost:15020\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


async def quit_sidecar() -> None:
    """Ask the sidecar's agent to quit. Where there is none, nothing happens; never takes longer than a second."""
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(1.0):
            reader, writer = await asyncio.open_connection(*_AGENT)
            try:
                writer.write(_REQUEST)
                await reader.read(1)  # an answer means that it was heard
            finally:
                writer.close()
