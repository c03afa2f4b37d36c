"""A program: the cheapest sink on our own server, where there is no Go for the one of ``tests/interop/peers``."""

from __future__ import annotations

import asyncio
import sys

from wellhead.http_server import HttpServer, Response

_ACCEPTED = Response(202)


async def serve() -> None:
    server = HttpServer(lambda _: _ACCEPTED, name="plain sink")
    host, port = await server.start("127.0.0.1", 0)
    print(f"listening on {host}:{port}", file=sys.stderr, flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve())
