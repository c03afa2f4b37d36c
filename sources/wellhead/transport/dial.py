"""One connection to a host: names resolved each time, IPv6 and IPv4 raced (RFC 8305), TLS where it is asked for."""

from __future__ import annotations

import asyncio
import random
import socket
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import ssl

SocketAddress: TypeAlias = tuple[object, ...]
Dial: TypeAlias = "Callable[[Callable[[], asyncio.Protocol], str, int, ssl.SSLContext | None, Callable[[SocketAddress], int]], Awaitable[object]]"
"""`dial`, or what stands for it in a simulated network: see there."""

_HEAD_START: Final = 0.25
_QUIET_SECONDS: Final = 15


async def dial(
    protocol: Callable[[], asyncio.Protocol],
    host: str,
    port: int,
    tls: ssl.SSLContext | None,
    connections: Callable[[SocketAddress], int],
) -> None:
    """Connect ``protocol()`` to ``host``; it is told its transport as usual, after the TLS handshake.

    The name is resolved anew, so that a sink that moved is found; of several addresses those with the fewest
    ``connections`` of ours are tried first, whichever of equals, so that each pod behind a name gets its share. A host
    that begins with a slash is the path of a Unix socket, which has no port (0). Raises OSError where
    there is no connection and ssl.SSLError where the handshake fails. Cancelling leaves nothing open.
    """
    loop = asyncio.get_running_loop()
    if host.startswith("/"):
        await loop.create_unix_connection(protocol, host)
        return
    from aiohappyeyeballs import start_connection  # noqa: PLC0415 - not before the first connection

    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    preferred = found[0][0]
    random.shuffle(found)  # of a burst of connections, which are counted only once they are made, not all go to one pod
    found.sort(key=lambda info: (connections(info[4]), info[0] != preferred))
    connected = await start_connection(found, happy_eyeballs_delay=_HEAD_START, interleave=1, loop=loop)
    try:
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _keep_alive(connected)
        await loop.create_connection(protocol, sock=connected, ssl=tls, server_hostname=host if tls else None)
    except BaseException:
        connected.close()
        raise


def _keep_alive(connected: socket.socket) -> None:
    """A peer whose machine vanished is found out within a minute, even while no answer is due."""
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _QUIET_SECONDS)
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)
