"""So many at once, the others in order; nothing is lost when those who wait go away."""

from __future__ import annotations

import asyncio
from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from wellhead.places import Places


async def test_there_are_as_many_as_were_asked_for() -> None:
    places = Places(2)
    assert [places.take(), places.take(), places.take()] == [True, True, False]
    places.give_back()
    assert places.take()


async def test_who_waits_gets_a_place_in_order_and_newcomers_do_not_jump_the_line() -> None:
    places = Places(1)
    assert places.take()
    first, second = places.place(), places.place()
    places.give_back()
    assert (first.done(), second.done(), places.take()) == (True, False, False)
    places.give_back()
    assert second.result() is True


async def test_who_left_the_line_gets_nothing() -> None:
    places = Places(1)
    assert places.take()
    gone, told, waiting = places.place(), places.place(), places.place()
    gone.cancel()
    told.set_result(False)
    places.give_back()
    assert waiting.result() is True


async def test_who_left_the_line_is_not_kept_though_no_place_comes_free() -> None:
    """A sink that is silent for hours, and events that are worth a second each."""
    places = Places(1)
    assert places.take()
    for _ in range(1000):
        places.place().set_result(False)
    assert len(places._line) < 100


@given(
    number=st.integers(1, 3),
    moves=st.lists(st.tuples(st.sampled_from(["take", "wait", "leave", "back"]), st.integers(0, 5))),
)
def test_places_taken_and_free_always_add_up(number: int, moves: list[tuple[str, int]]) -> None:
    async def play() -> None:
        places, held, line = Places(number), 0, deque[asyncio.Future[bool]]()
        for move, which in moves:
            if move == "take" and places.take():
                assert not line
                held += 1
            elif move == "wait" and not places.take():
                line.append(places.place())
            elif move == "wait":
                held += 1
            elif move == "leave" and line:
                leaving = line[which % len(line)]
                line.remove(leaving)
                leaving.cancel()
            elif move == "back" and held:
                places.give_back()
                held -= 1
                if line:
                    assert line.popleft().result() is True
                    held += 1
            assert held <= number
            assert all(not waiting.done() for waiting in line)
            assert not line or held == number

    asyncio.run(play())
