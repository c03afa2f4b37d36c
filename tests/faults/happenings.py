"""What happens to the whole world, beside what a sink does with one request: a table by name. Each undoes itself."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tests.faults.world import World


def outage(world: World, seconds: float) -> None:
    name = world.name
    accept, name.accept = name.accept, {}
    world.network.reset_all()
    later(seconds, lambda: name.accept.update(accept))


def dns_gone(world: World, seconds: float) -> None:
    world.name.unknown = True
    later(seconds, lambda: setattr(world.name, "unknown", False))


def dns_elsewhere(world: World, seconds: float) -> None:
    """The sink moves; where it was nobody listens, and where it is nobody does as yet."""
    address = f"10.0.0.{world.network.number()}"
    world.name.addresses = [address]
    world.name.accept = {}
    world.network.reset_all()
    later(seconds, lambda: world.name.accept.update({address: world.sink.accept}))


def address_silent(world: World, seconds: float) -> None:
    dead = set(world.name.addresses)
    world.name.dead |= dead
    later(seconds, lambda: world.name.dead.difference_update(dead))


def connections_reset(world: World, seconds: float) -> None:
    world.network.reset_all()


def wrong_certificate(world: World, seconds: float) -> None:
    """One that nobody trusts, until there is one again that everybody does."""
    world.generation += 1
    wrong = world.generation

    def renew() -> None:
        if world.generation == wrong:
            world.generation = world.trusted

    later(seconds, renew)


def certificate_rotated(world: World, seconds: float) -> None:
    """One of another authority, which the bundle that is mounted for us holds only later."""
    world.generation += 1
    later(seconds, lambda: setattr(world, "trusted", world.generation))


def token_rotated(world: World, seconds: float) -> None:
    if world.plan.token:
        world.rotate_token(world.die.choice((0.0, seconds)))


def fences_closed(world: World, seconds: float) -> None:
    for fence in tuple(world.fences.values()):
        fence.close()


def later(seconds: float, call: Callable[[], object]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)


HAPPENINGS: Final[Mapping[str, Callable[[World, float], None]]] = {
    "outage": outage,
    "DNS gone": dns_gone,
    "DNS elsewhere": dns_elsewhere,
    "address is silent": address_silent,
    "connections reset": connections_reset,
    "TLS expired": wrong_certificate,
    "TLS wrong host": wrong_certificate,
    "TLS rotated": certificate_rotated,
    "token rotated": token_rotated,
    "fences closed": fences_closed,
}
STOPS: Final = ("SIGTERM", "kill")
"""What ends the program, which then starts again: see `Process`."""
