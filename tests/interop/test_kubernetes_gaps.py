"""The gap proof: while objects change at random, everything breaks; afterwards our events tell the cluster's state.

GAP_OBJECTS says how many objects (`make soak`: 5,000), GAP_SINK_DOWN how many seconds the sink is down, GAP_SEED which
changes: a run that failed is repeated with the seed that its output names.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Final

import pytest
from tests.interop.test_kubernetes_apiserver import READER, RESOURCE, Place, Replay, objects
from tests.interop.test_kubernetes_sinks import allow

from wellhead.testing import Answer, RecordingSink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from tests.interop.kube import Json, Kube
    from tests.process import Program

OBJECTS: Final = int(os.environ.get("GAP_OBJECTS", "150"))
SINK_DOWN: Final = float(os.environ.get("GAP_SINK_DOWN", "3"))
SEED: Final = int(os.environ.get("GAP_SEED", str(random.randrange(1 << 30))))
NAMESPACE: Final = "gaps"
RULES: Final = (READER, {**READER, "resourceNames": ["state"], "verbs": ["patch"]}, {**READER, "verbs": ["create"]})
"""What it watches, and what a state among that takes."""
PATH: Final = f"/api/v1/namespaces/{NAMESPACE}/configmaps"


class Writer:
    """Creates, changes and deletes ConfigMaps at random."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._luck = random.Random(SEED)
        self._there: set[str] = set()
        self._turn = 0

    def write(self, number: int) -> None:
        for _ in range(number):
            self._turn += 1
            name = f"o{self._luck.randrange(OBJECTS)}"
            body: Json = {"metadata": {"name": name}, "data": {"turn": str(self._turn)}}
            if name not in self._there:
                self._there.add(name)
                self._kube.request("POST", PATH, body)
            elif self._luck.random() < 0.3:
                self._there.discard(name)
                self._kube.request("DELETE", f"{PATH}/{name}")
            else:
                self._kube.request("PUT", f"{PATH}/{name}", body)


class Lab:
    """The program, what it talks to, and everything that can be done to them."""

    def __init__(
        self, kube: Kube, place: Place, sink: RecordingSink, state: tuple[str, str], stack: AsyncExitStack
    ) -> None:
        self._kube = kube
        self._place = place
        self._sink = sink
        self._state = state
        self._stack = stack
        self._writer = Writer(kube)
        self._program: Program

    async def start(self) -> None:
        watching = self._place.watching(self._sink, *RESOURCE, *self._state)
        self._program = await self._stack.enter_async_context(watching)

    async def write(self) -> None:
        await asyncio.to_thread(self._writer.write, OBJECTS)

    async def nothing(self) -> None:
        await self.write()

    async def compaction(self) -> None:
        self._program.send(signal.SIGSTOP)
        await self._restart_server()
        await self.write()
        self._kube.compact()
        self._program.send(signal.SIGCONT)

    async def server_killed(self) -> None:
        await self._restart_server()
        await self.write()

    async def program_killed(self) -> None:
        await self.write()
        await self._program.stop(signal.SIGKILL)
        await self.write()
        await self.start()

    async def sink_down(self) -> None:
        self._sink.always(Answer(503))
        began = time.monotonic()
        await self.write()
        await asyncio.sleep(max(0.0, SINK_DOWN - (time.monotonic() - began)))
        self._sink.always(Answer())

    async def rights_taken(self) -> None:
        binding = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": "frog", "namespace": NAMESPACE},
        }
        self._kube.delete(binding)
        await self._restart_server()
        await self._program.stderr.line("403 Forbidden")
        await self.write()
        allow(self._kube, NAMESPACE, "frog", *RULES)

    async def _restart_server(self) -> None:
        self._kube.kill()
        await asyncio.to_thread(self._kube.start)


@pytest.mark.parametrize("kept", ["file", "config-map"])
async def test_after_everything_broke_our_events_tell_the_clusters_state(
    brittle_kube: Kube, tmp_path: Path, kept: str
) -> None:
    print(f"GAP_SEED={SEED} GAP_OBJECTS={OBJECTS}")
    place = Place(brittle_kube, NAMESPACE, tmp_path)
    allow(brittle_kube, NAMESPACE, "frog", *RULES)
    state = ("--state-file", str(tmp_path / "state")) if kept == "file" else ("--state-config-map", "state")
    async with RecordingSink() as sink, AsyncExitStack() as stack:
        lab = Lab(brittle_kube, place, sink, state, stack)
        await lab.start()
        trials: list[Callable[[], Awaitable[None]]] = [
            lab.compaction,
            lab.server_killed,
            lab.program_killed,
            lab.sink_down,
            lab.rights_taken,
        ]
        for trial in (lab.nothing, *random.Random(SEED).sample(trials, len(trials)), lab.nothing):
            await trial()
            await place.told(sink, 30.0 + SINK_DOWN + OBJECTS / 50)
    assert Replay().go_on(sink.events) == objects(brittle_kube, NAMESPACE)
    assert len(sink.events) > OBJECTS
    told: dict[str, str] = {}
    for event in sink.events:
        version = json.loads(event.data or b"")["metadata"]["resourceVersion"]
        assert told.setdefault(event.id, version) == version, "the same id means the same change"
