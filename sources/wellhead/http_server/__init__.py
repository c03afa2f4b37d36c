"""A small HTTP/1.1 server for our own ends: event display, probes and metrics, the recording sink of the tests.

It is light to import and bounded in everything a client can ask for (`Limits`). No TLS, no HTTP/2, no routing: one
handler gets every request.

    server = HttpServer(lambda request: Response(200, b"hello"))
    host, port = await server.start("127.0.0.1", 0)
    ...
    await server.stop(grace=5)
"""

from .exchange import Answer, Connection, Handler, Headers, Limits, Request, Response, Takeover
from .server import HttpServer

__all__ = [
    "Answer",
    "Connection",
    "Handler",
    "Headers",
    "HttpServer",
    "Limits",
    "Request",
    "Response",
    "Takeover",
]
