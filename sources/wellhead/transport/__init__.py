"""One POST over HTTP/1.1: the seam between deciding about deliveries and doing them. Decides nothing about retries.

`HttpTransport` (``http.py``) is our own and the default; `AiohttpTransport` (``by_aiohttp.py``) does what it does not:
proxies. `wellhead.runtime` chooses. Importing this module loads neither.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from wellhead.delivery import Unanswered
from wellhead.errors import NoAnswer
from wellhead.http_binding import header_pairs

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine

    from wellhead.delivery import Outcome

_log = logging.getLogger(__name__)
T = TypeVar("T")

BODY_KEPT: Final = 64 * 1024
"""Bytes of an answer's body that are read, so that its connection can be used again; beyond, it is closed."""


@dataclass(slots=True, eq=False)
class Target:
    """Where POSTs go, with the headers that all of them have. Made once for a sink, and again when its certificates change."""

    url: str = field(repr=False)  # a query may be a secret
    tls: ssl.SSLContext | None = None
    headers: tuple[tuple[bytes, bytes], ...] = field(default=(), repr=False)
    prepared: object = field(default=None, repr=False)
    """What the transport made of it at the first POST, so that it need not again; nobody else's."""


@dataclass(slots=True)
class Post:
    """One request. ``timeout`` is in seconds for the whole try, None for no limit. Never changed once made."""

    target: Target
    lines: bytes = field(repr=False)
    """Headers beside those of the target, as `wellhead.http_binding.header_lines` writes them."""
    body: bytes = field(repr=False)
    timeout: float | None = None
    fresh: bool = False
    """Use no kept-alive connection."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Its ``lines``, taken apart."""
        return header_pairs(self.lines)


class Transport(Protocol):
    """Performs POSTs. Shared by every sink of a process; bounded by whoever calls."""

    def begin(self, post: Post, done: Callable[[Outcome], object], /) -> Callable[[], None]:
        """Start a try; ``done`` is called once with how it ended, in the running loop, after this has returned.

        The outcome is the answer (status, ``Retry-After``, the body's first `BODY_KEPT` bytes; redirects are answers)
        or why there is none; a connection that was kept alive and turned out closed before any byte of the answer is
        ``NoAnswer.STALE``. A callback and not a coroutine, so that an event that is accepted at the first try, which
        is nearly every one, costs no task. ``done`` must not raise.

        Calling what is returned ends the try and its connection, and ``done`` is not called any more; after the end it
        does nothing.
        """

    async def aclose(self) -> None:
        """Close every connection. Tries still on the wire fail, and so do later ones."""


async def one_try(transport: Transport, post: Post) -> Outcome:
    """`Transport.begin` for who can wait. Cancelling ends the try and its connection."""
    ended: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    cancel = transport.begin(post, partial(settle, ended))
    try:
        return await ended
    except asyncio.CancelledError:
        cancel()
        raise


def settle(ended: asyncio.Future[T], outcome: T) -> None:
    """Tell who waits for a try how it ended; whoever was cancelled in the same turn of the loop does not care."""
    if not ended.done():
        ended.set_result(outcome)


def in_task(
    trying: Coroutine[None, None, Outcome], done: Callable[[Outcome], object], tasks: set[asyncio.Task[Outcome]]
) -> Callable[[], None]:
    """`Transport.begin` for a transport whose try is a coroutine. ``tasks`` holds it for as long as it runs."""
    task = asyncio.create_task(trying, name="try")
    tasks.add(task)
    cancelled = False

    def end(ended: asyncio.Task[Outcome]) -> None:
        tasks.discard(ended)
        if cancelled or ended.cancelled():
            return
        bug = ended.exception()
        if bug is not None:
            _log.error("transport failed", exc_info=bug)
        done(ended.result() if bug is None else Unanswered(NoAnswer.PROTOCOL, type(bug).__name__))

    def cancel() -> None:
        nonlocal cancelled
        cancelled = True
        task.cancel()

    task.add_done_callback(end)
    return cancel
