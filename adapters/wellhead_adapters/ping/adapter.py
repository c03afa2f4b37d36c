"""The adapter: one PingSource as a program, or any number of them in one process. The loop of both is `Pings`."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from wellhead.clock import Clock, SystemClock

from .config import SPEC_FIELDS, PingConfig, from_manifest
from .events import EVENT_TYPE
from .pings import Pings

if TYPE_CHECKING:
    from collections.abc import Callable

    from wellhead.adapter import Sink

    from .state import State


class Ping:
    """Send an event at each tick of a schedule (a drop-in for Knative's PingSource).

    Each tick is tried until it is accepted or its time is over: until the next tick, at least a minute, at most an
    hour. Ids are the same from every replica and after every restart. `wellhead next` shows when a schedule fires.
    """

    Config: ClassVar[type] = PingConfig
    event_types: ClassVar[tuple[str, ...]] = (EVENT_TYPE,)
    health_port: ClassVar[int] = 8080
    manifest_kinds: ClassVar[tuple[str, ...]] = ("PingSource",)
    spec_fields: ClassVar[tuple[str, ...]] = SPEC_FIELDS
    from_manifest = staticmethod(from_manifest)

    def __init__(self, config: PingConfig, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self._state: State | None = None
        if config.state_file is not None:
            from .state import State  # noqa: PLC0415 - temporary files and all that shutil packs; few have a state file

            self._state = State(config.state_file)

    @staticmethod
    def many() -> Pings:
        """For `wellhead run -f`: every PingSource of its files in one loop."""
        return Pings(clock=SystemClock())

    async def run(self, sink: Sink, ready: Callable[[], None]) -> None:
        """Tick until cancelled."""
        pings = Pings(clock=self._clock, state=self._state)
        pings.put(self._config.name, self._config, sink)
        await pings.run(ready)
