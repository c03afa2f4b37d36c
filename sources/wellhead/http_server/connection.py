"""One client's connection to the HTTP server: requests to the handler, answers back in order. It accepts nothing itself.

While a request is being answered, at most the next one and what came with it is read. A request that is refused is the
last: it is answered after those before it, and the connection closed gently, which is to say that what the client still
sends is read and dropped for a moment. Closing over unread bytes would be a reset, which can take the answer from it.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
import struct
from collections import deque
from typing import TYPE_CHECKING, Final, cast

from .exchange import Request, Response, Takeover, answer_head, peer_text
from .reader import RequestReader

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .exchange import Answer
    from .server import HttpServer

_LOG: Final = logging.getLogger(__name__)
_LINGER_SECONDS: Final = 2.0
_RESET_ON_CLOSE: Final = struct.pack("ii", 1, 0)  # SO_LINGER: on, and no time to linger
_SMALL_BODY: Final = 1 << 16  # up to this size head and body are one write


class ClientConnection(asyncio.BufferedProtocol):
    """The protocol of asyncio's transports, the receiver of a `RequestReader`, and a `Takeover`'s `Connection`."""

    deadline: float  # when, in the loop's time, the server shall call `overdue`

    def __init__(self, server: HttpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._server = server
        self._loop = loop
        self._waiting: deque[Request | Response] = deque()
        self._answering: Request | None = None
        self._task: asyncio.Task[None] | None = None  # of the handler, where it is a coroutine
        self._last = False  # nothing is to come after what is being answered and read
        self._dropping = False  # what comes is dropped: the connection ends, or was taken over
        self._taken = False
        self._continue_owed = False
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self._held = 0  # bytes of bodies
        self._unsent = math.inf  # what was left to send when the client was last found slow
        self._begun = (-1, 0.0)  # number and time of the request whose first byte came last

    @property
    def _is_busy(self) -> bool:
        return self._answering is not None or bool(self._waiting) or not self._writable.is_set()

    # What asyncio calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is none by inheritance
        self._reader = RequestReader(self, self._server.limits, peer_text(transport.get_extra_info("peername")))
        self.deadline = self._loop.time() + self._server.limits.header_seconds
        if not self._server.opened(self) and not transport.is_closing():
            self._reader.refuse(503, "Too many connections.")

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's signature
        return self._server.buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._dropping:
            return
        self._reader.feed(self._server.buffer[:nbytes])
        if self._is_busy and not self._dropping and (self._waiting or self._reader.in_message):
            self._transport.pause_reading()
        self._set_deadline()

    def eof_received(self) -> bool:
        self._last = True
        self._reader.ignore()
        return self._is_busy and not self._dropping  # True keeps the connection open: an answer is due

    def pause_writing(self) -> None:
        self._writable.clear()
        self._set_deadline()

    def resume_writing(self) -> None:
        self._writable.set()
        self._unsent = math.inf
        self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio's signature
        self._closed.set()
        self._writable.set()
        self._dropping = True
        if self._task is not None and not self._taken:
            self._task.cancel()  # nobody is left to be answered
        self._waiting.clear()
        self._reader.ignore()
        self.release(self._held)
        self._server.lost(self)

    # What the reader calls.

    def received(self, request: Request, *, keep_alive: bool) -> None:
        self._last = self._last or not keep_alive
        if not self._is_busy:
            self._serve(request)
        elif len(self._waiting) < self._server.limits.pipelined:
            self._waiting.append(request)
        else:
            self.release(len(request.body))
            self._reader.refuse(503, "Too many requests at once.")

    def refused(self, response: Response) -> None:
        self._last = True
        self._waiting.append(response)
        self._go_on()

    def expects_continue(self) -> None:
        self._continue_owed = True
        self._go_on()

    def hold(self, octets: int) -> bool:
        if not self._server.hold(octets):
            return False
        self._held += octets
        return True

    def release(self, octets: int) -> None:
        if octets:
            self._held -= octets
            self._server.release(octets)

    # What the server calls.

    def overdue(self) -> None:
        """The deadline passed: tell a client that is slow to ask, cut off one that does not read, else just close."""
        unsent = self._transport.get_write_buffer_size()
        if 0 < unsent < self._unsent:  # slow, but it reads
            self._unsent = unsent
            self._set_deadline()
        elif unsent or self._dropping:
            self._transport.abort()
        elif self._reader.in_message:
            self._reader.refuse(408, "The request took too long.")
        else:
            self._transport.close()

    def wind_down(self) -> None:
        """Close now if nothing is going on, else after the answers that are due."""
        self._last = True
        if not (self._is_busy or self._dropping or self._reader.in_message):
            self._transport.close()

    # What a `Takeover` calls.

    def write(self, data: bytes) -> None:
        if not self._closed.is_set():
            self._transport.write(data)

    async def drain(self) -> None:
        await self._writable.wait()
        if self._closed.is_set():
            raise ConnectionResetError("the client has gone")

    async def wait_closed(self) -> None:
        await self._closed.wait()

    def close(self) -> None:
        self._transport.close()
        self._set_deadline()

    def abort(self) -> None:
        if not self._closed.is_set():
            client = self._transport.get_extra_info("socket")
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        self._transport.abort()

    # Answering.

    def _serve(self, request: Request) -> None:
        self._answering = request
        try:
            answer = self._server.handler(request)
        except Exception:  # noqa: BLE001 - whatever a handler does, the client gets an answer and the server goes on
            answer = _failure(request)
        if isinstance(answer, Response):
            self._finish(request, answer)
        else:
            self._task = self._server.own(self._settle(request, answer))

    async def _settle(self, request: Request, answer: Takeover | Awaitable[Answer]) -> None:
        final: Answer
        try:
            final = answer if isinstance(answer, Takeover) else _checked(await answer)
        except Exception:  # noqa: BLE001 - as in _serve
            final = _failure(request)
        if isinstance(final, Takeover):
            await self._hand_over(final)
        else:
            self._finish(request, final)
            self._go_on()

    async def _hand_over(self, takeover: Takeover) -> None:
        self._taken = True
        self._drop_the_rest()
        try:
            await takeover.run(self)
        except ConnectionError:
            return  # the client has gone; whoever wrote to it knows best what that means, and did not mind
        except Exception:  # noqa: BLE001 - as in _serve
            _LOG.exception("what took over an HTTP connection failed")
            self.abort()
        finally:
            self.close()

    def _finish(self, request: Request, response: Response) -> None:
        self._answering = self._task = None
        if self._closed.is_set():
            return
        self.release(len(request.body))
        ends = response.close or (self._last and not self._waiting and not self._reader.in_message)
        self._send(response, request, ends=ends)
        if ends:
            self._drop_the_rest()
            self.close()

    def _go_on(self) -> None:
        """Turn to what waits, as far as it goes."""
        while self._waiting and self._answering is None and self._writable.is_set() and not self._dropping:
            item = self._waiting.popleft()
            if isinstance(item, Request):
                self._serve(item)
            else:
                self._refuse(item)
        if not (self._is_busy or self._dropping):
            self._ask_for_more()
        self._set_deadline()

    def _ask_for_more(self) -> None:
        if self._last and not self._reader.in_message:
            self._transport.close()
            return
        if self._continue_owed:
            self._continue_owed = False
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._transport.resume_reading()

    def _refuse(self, response: Response) -> None:
        self._send(response, None, ends=True)
        self._drop_the_rest()
        self._transport.write_eof()  # the client's own end, or the deadline, then closes the connection
        self.deadline = self._loop.time() + _LINGER_SECONDS

    def _send(self, response: Response, request: Request | None, *, ends: bool) -> None:
        keeps = b"keep-alive" if request is not None and request.version == "1.0" else b""
        head = answer_head(response, date=self._server.date(), connection=b"close" if ends else keeps)
        is_bare = not response.may_have_body or (request is not None and request.method == "HEAD")
        body = b"" if is_bare else response.body
        if len(body) > _SMALL_BODY:
            self._transport.write(head)
            head = b""
        self._transport.write(head + body)

    def _drop_the_rest(self) -> None:
        self._dropping = True
        self._waiting.clear()
        self._reader.ignore()
        if not self._transport.is_closing():
            self._transport.resume_reading()
        self._set_deadline()

    def _set_deadline(self) -> None:
        limits = self._server.limits
        now = self._loop.time()
        if not self._writable.is_set() or self._transport.is_closing():
            self.deadline = now + limits.idle_seconds
        elif self._is_busy or self._taken:
            self.deadline = math.inf
        elif self._reader.in_message:
            if self._begun[0] != self._reader.requests:
                self._begun = self._reader.requests, now
            self.deadline = self._begun[1] + (limits.header_seconds if self._reader.in_head else limits.request_seconds)
        else:
            self.deadline = now + limits.idle_seconds


def _checked(answer: Answer) -> Answer:
    if not isinstance(answer, Response | Takeover):
        raise TypeError(f"a handler answered with {type(answer).__name__}")
    return answer


def _failure(request: Request) -> Response:
    """To be called where an exception is being handled."""
    _LOG.exception("an HTTP handler failed", extra={"method": request.method, "path": request.path})
    return Response(500)
