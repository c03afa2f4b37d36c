"""What all tests share."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

# No deadline: other people's machines are slow now and then, and no property here is about time. In CI the examples
# are the same each time, so that a change is red for its own reasons; `thorough` is for a night.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, database=None)
settings.register_profile("thorough", deadline=None, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") == "true" else "default"))


@pytest.fixture(scope="session", autouse=True)
def one_loop_for_who_asks() -> Iterator[None]:
    """looptime and pytest-asyncio ask for the current event loop around tests that are no coroutines; asyncio would
    make one for each that nobody closes."""
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    yield
    loop.close()


@pytest.fixture
def logging_as_before() -> Iterator[None]:
    """For a test in whose process a program sets up its log: afterwards it is as it was."""
    root = logging.getLogger()
    before, level, raising = root.handlers[:], root.level, logging.raiseExceptions
    yield
    root.handlers[:] = before
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.fixture
def in_this_process(logging_as_before: None) -> Iterator[None]:
    """For a test (no coroutine) in whose process a program runs: logging and the event loop are as before afterwards."""
    loop = asyncio.new_event_loop()  # looptime asks for one; asyncio.run would lose what it was given
    asyncio.set_event_loop(loop)
    yield
    loop.close()
    asyncio.set_event_loop(None)
