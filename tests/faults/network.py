"""A network in memory: names, addresses, and connections with latency on which everything can go wrong.

`Network.dial` is what `HttpTransport(connect=...)` takes. What is at the other end of a connection is a `Peer`, which
is told what arrives and sends, closes, resets or keeps silent through its `Wire`.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

if TYPE_CHECKING:
    import random
    from collections.abc import Callable

    from wellhead.transport.dial import SocketAddress

HIGH_WATER: Final = 64 * 1024
"""Bytes that may wait before a client is told to pause, as asyncio's transports have it."""


class Peer(Protocol):
    """The far end of one connection."""

    def received(self, octets: bytes) -> None:
        """What the client wrote arrived."""

    def lost(self) -> None:
        """The client closed, or the network did. Nothing can be sent any more."""


@dataclass(slots=True, kw_only=True)
class Name:
    """What DNS and the machines behind a name do at the moment."""

    addresses: list[str]
    accept: dict[str, Callable[[Wire], Peer]]
    """By address: who takes connections. An address that is not in here refuses them."""
    dead: set[str] = field(default_factory=set)
    """Addresses that do not even refuse."""
    unknown: bool = False
    """DNS does not know the name."""
    verify: Callable[[ssl.SSLContext], None] | None = None
    """Raises ssl.SSLError where the handshake fails."""


class Network:
    """Counts what is open, so that a test can bound it."""

    def __init__(self, die: random.Random, *, latency: float = 0.001) -> None:
        self.die = die
        self.names: dict[str, Name] = {}
        self.latency = latency
        self.split = 0.0
        """How likely it is that what arrives is cut in two, at any byte."""
        self.wires: set[Wire] = set()
        self.most_open = 0
        self.dials = 0
        self._port = 1024

    async def dial(
        self,
        protocol: Callable[[], asyncio.Protocol],
        host: str,
        port: int,
        tls: ssl.SSLContext | None,
        connections: Callable[[SocketAddress], int],
    ) -> None:
        self.dials += 1
        name = self.names.get(host)
        await self.pause()
        if name is None or name.unknown:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        address = min(name.addresses, key=lambda one: connections((one, port)))
        await self.pause()
        if address in name.dead:
            await asyncio.get_running_loop().create_future()
        accept = name.accept.get(address)
        if accept is None:
            raise ConnectionRefusedError(111, f"Connect call failed ({address!r}, {port})")
        if tls is not None:
            await self.pause()
            if name.verify is not None:
                name.verify(tls)
        wire = Wire(self, (address, port))
        self.wires.add(wire)
        self.most_open = max(self.most_open, len(self.wires))
        wire.open(protocol(), accept)

    async def pause(self) -> None:
        await asyncio.sleep(self.delay())

    def delay(self) -> float:
        return self.latency * (0.5 + self.die.random())

    def reset_all(self) -> None:
        for wire in sorted(self.wires, key=lambda wire: wire.number):
            wire.reset()

    def cut(self) -> None:
        """The client's machine is gone: from now on it hears nothing and says nothing."""
        for wire in sorted(self.wires, key=lambda wire: wire.number):
            wire.cut()

    def number(self) -> int:
        self._port += 1
        return self._port


class Wire(asyncio.Transport):
    """One connection: the client's transport, and what its peer sends through."""

    def __init__(self, network: Network, address: tuple[str, int]) -> None:
        super().__init__({"peername": address})
        self.number = network.number()
        self.reading = True
        """Whether the peer takes what the client writes."""
        self._network = network
        self._protocol: asyncio.Protocol | None = None
        self._peer: Peer | None = None
        self._closed = False
        self._paused = False
        self._unread = 0
        self._out: deque[Callable[[], object]] = deque()
        self._in: deque[Callable[[], object]] = deque()
        self._out_at = self._in_at = 0.0

    def open(self, protocol: asyncio.Protocol, accept: Callable[[Wire], Peer]) -> None:
        self._protocol = protocol
        self._peer = accept(self)
        protocol.connection_made(self)

    # The client's side.

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closed:
            return
        octets = bytes(data)
        self._unread += len(octets)
        if self._unread > HIGH_WATER and not self._paused:
            self._paused = True
            cast("asyncio.Protocol", self._protocol).pause_writing()
        for piece in self._pieces(octets):
            self._later_out(lambda piece=piece: self._arrived(piece))  # type: ignore[misc]  # no type for a default

    def is_closing(self) -> bool:
        return self._closed

    def close(self) -> None:
        self._end(None)

    def abort(self) -> None:
        self._end(None)

    # The peer's side.

    def send(self, octets: bytes, *, whole: bool = False) -> None:
        """``whole``: it arrives in one piece."""
        for piece in [octets] if whole else self._pieces(octets):
            self._later_in(lambda piece=piece: self._protocol_of().data_received(piece))  # type: ignore[misc]  # as above

    def finish(self) -> None:
        """Send nothing more."""
        self._later_in(self._eof)

    def reset(self) -> None:
        self._later_in(lambda: self._end(ConnectionResetError(104, "Connection reset by peer")))

    def alert(self) -> None:
        """What TLS 1.3 does when it does not like the client's certificate."""
        error = ssl.SSLError(1, "[SSL: TLSV13_ALERT_CERTIFICATE_REQUIRED] tlsv13 alert certificate required")
        error.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"
        self._later_in(lambda: self._end(error))

    def read_again(self) -> None:
        self.reading = True
        while self._out and self.reading:
            self._out.popleft()()

    def cut(self) -> None:
        if not self._closed:
            self._protocol = None
            self._end(None)

    def _protocol_of(self) -> asyncio.Protocol:
        assert self._protocol is not None
        return self._protocol

    def _eof(self) -> None:
        if not self._protocol_of().eof_received():
            self._end(None)

    def _end(self, error: Exception | None) -> None:
        if self._closed:
            return
        self._closed = True
        self._in.clear()
        self._network.wires.discard(self)
        loop = asyncio.get_running_loop()
        if self._protocol is not None:
            loop.call_soon(self._protocol.connection_lost, error)
        if self._peer is not None:
            self._later_out(self._peer.lost)

    def _arrived(self, octets: bytes) -> None:
        self._unread -= len(octets)
        if self._paused and self._unread <= HIGH_WATER // 4 and not self._closed:
            self._paused = False
            self._protocol_of().resume_writing()
        if self._peer is not None:
            self._peer.received(octets)

    def _pieces(self, octets: bytes) -> list[bytes]:
        if len(octets) < 2 or self._network.die.random() >= self._network.split:
            return [octets]
        cut = self._network.die.randrange(1, len(octets))
        return [octets[:cut], *self._pieces(octets[cut:])]

    # A queue each way: timers of the same moment have no order of their own.

    def _later_in(self, call: Callable[[], object]) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        self._in_at = max(self._in_at, loop.time() + self._network.delay())
        self._in.append(call)
        loop.call_at(self._in_at, self._next_in)

    def _next_in(self) -> None:
        if self._in and not self._closed:
            self._in.popleft()()

    def _later_out(self, call: Callable[[], object]) -> None:
        loop = asyncio.get_running_loop()
        self._out_at = max(self._out_at, loop.time() + self._network.delay())
        self._out.append(call)
        loop.call_at(self._out_at, self._next_out)

    def _next_out(self) -> None:
        # What was on its way arrives although the client has closed meanwhile, as in TCP before its reset does.
        if self._out and self.reading:
            self._out.popleft()()
