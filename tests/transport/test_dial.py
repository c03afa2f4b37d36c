"""Which of a name's addresses is tried first. That connecting works is shown by all that is sent over sockets."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from typing import TYPE_CHECKING, Final

import aiohappyeyeballs
import pytest

from wellhead.transport.dial import dial

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wellhead.transport.dial import SocketAddress

Info = tuple[socket.AddressFamily, socket.SocketKind, int, str, tuple[object, ...]]

SIX: Final[Info] = (socket.AF_INET6, socket.SOCK_STREAM, 6, "", ("2001:db8::1", 80, 0, 0))
ONE: Final[Info] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.1", 80))
OTHER: Final[Info] = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("10.0.0.2", 80))


class Chosen(Exception):
    """Instead of connecting: in which order it would have been tried."""

    def __init__(self, addresses: Sequence[Info]) -> None:
        self.addresses = [info[4][0] for info in addresses]
        super().__init__(self.addresses)


@pytest.fixture
def order(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[Info], dict[str, int]], list[object]]:
    async def choose(addresses: Sequence[Info], **_: object) -> None:
        raise Chosen(addresses)

    monkeypatch.setattr(aiohappyeyeballs, "start_connection", choose)

    def order(found: list[Info], open_now: dict[str, int]) -> list[object]:
        async def ask() -> list[object]:
            async def getaddrinfo(*_: object, **__: object) -> list[Info]:
                return list(found)

            monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)

            def connections(address: SocketAddress) -> int:
                return open_now.get(str(address[0]), 0)

            with pytest.raises(Chosen) as chosen:
                await dial(asyncio.Protocol, "sink", 80, None, connections)
            return chosen.value.addresses

        return asyncio.run(ask())

    return order


def test_the_address_with_the_fewest_connections_comes_first(
    order: Callable[[list[Info], dict[str, int]], list[object]],
) -> None:
    assert order([ONE, OTHER], {"10.0.0.1": 2, "10.0.0.2": 1}) == ["10.0.0.2", "10.0.0.1"]
    assert order([SIX, ONE], {"2001:db8::1": 1}) == ["10.0.0.1", "2001:db8::1"]


def test_a_burst_of_connections_goes_to_every_address(
    order: Callable[[list[Info], dict[str, int]], list[object]],
) -> None:
    firsts = Counter(order([ONE, OTHER], {})[0] for _ in range(64))
    assert min(firsts["10.0.0.1"], firsts["10.0.0.2"]) > 8  # less comes once in ten billion times


def test_of_equals_the_family_comes_first_that_the_system_prefers(
    order: Callable[[list[Info], dict[str, int]], list[object]],
) -> None:
    assert {order([SIX, ONE, OTHER], {})[0] for _ in range(16)} == {"2001:db8::1"}
