"""The instance over HTTP, for clients that need a socket: python-gitlab as it is, other languages, a browser."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from tests.gitlab.api import Api
from tests.gitlab.faults import Fault, Faults
from tests.gitlab.replies import Call, Reply
from tests.gitlab.routes import Send
from tests.gitlab.sender import HttpSender, Sender, perform, perform_all
from tests.gitlab.tls_front import TlsFront

from wellhead.http_server import Answer, Connection, HttpServer, Request, Response, Takeover

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from tests.gitlab.deliveries import Fired
    from tests.gitlab.instance import GitLab


class GitLabServer:
    """Serves an instance on a free port of 127.0.0.1 while it is entered; there its `external_url` leads to this port,
    path kept, unless ``keep_external_url``. With ``tls`` it is https, for what the certificate says of localhost.

        async with GitLabServer(gitlab) as server:
            client = gitlab.Gitlab(server.url, private_token="…")
    """

    def __init__(
        self,
        gitlab: GitLab,
        *,
        send: Sender | None = None,
        keep_external_url: bool = False,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.gitlab = gitlab
        self.faults = Faults()
        self.send = send or HttpSender()
        self.url = ""
        self._keep = keep_external_url
        self._tls = tls
        self._front: TlsFront | None = None
        self._api = Api(gitlab)
        self._http = HttpServer(self._answer, name="gitlab")

    async def __aenter__(self) -> Self:
        host, port = await self._http.start("127.0.0.1", 0)
        root = urlsplit(self.gitlab.settings.external_url).path.rstrip("/")
        self.url = f"http://{host}:{port}{root}"
        if self._tls is not None:
            self._front = TlsFront(self._tls, host, port)
            self.url = f"https://localhost:{await self._front.start()}{root}"
        if not self._keep:
            self.gitlab.settings = replace(self.gitlab.settings, external_url=self.url)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._front is not None:
            await self._front.stop()
        await self._http.stop(grace=0)

    async def deliver(self, fired: list[Fired]) -> None:
        """Send what the instance fired; returns when all of it has been answered or has failed."""
        await perform_all(self.gitlab, fired, self.send)

    async def _answer(self, request: Request) -> Answer:
        headers = tuple((name.decode("latin-1"), value.decode("latin-1")) for name, value in request.headers)
        call = Call(request.method, request.target, headers, request.body)
        fault = self.faults.of(call) or Fault(effect=True)
        await asyncio.sleep(fault.delay_seconds)
        reply = await self._true_reply(call) if fault.effect else fault.reply
        if fault.reset or reply is None:
            return Takeover(_reset)
        return _response(fault.reply or reply)

    async def _true_reply(self, call: Call) -> Reply:
        answer = self._api.answer(call)
        if isinstance(answer, Send):
            return answer.then(await perform(self.gitlab, answer.fired, self.send))
        return answer


async def _reset(connection: Connection) -> None:
    connection.abort()


def _response(reply: Reply) -> Response:
    headers = tuple((name.encode("latin-1"), value.encode("latin-1")) for name, value in reply.headers)
    return Response(reply.status, reply.body, headers)
