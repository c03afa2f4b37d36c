"""Knative's own adapter of ApiServerSource beside ours, where KNATIVE_BIN has it: the same environment, the same changes."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
from typing import TYPE_CHECKING, Final

import pytest
from tests.interop.kube import as_pod
from tests.interop.test_kubernetes_apiserver import READER, Replay, config_map, objects
from tests.interop.test_kubernetes_sinks import allow
from tests.process import Program, started

from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.interop.kube import Kube

    from wellhead.event import CloudEvent

ADAPTER: Final = "apiserver_receive_adapter"
OURS: Final = (sys.executable, "-m", "wellhead_adapters.apiserver")
PROBE: Final = "probe"


@pytest.fixture
def theirs(knative_bin: Path) -> tuple[str, ...]:
    path = knative_bin / ADAPTER
    if not path.is_file():
        pytest.skip(f"KNATIVE'S ADAPTER OF APISERVERSOURCE IS NOT TESTED: KNATIVE_BIN={knative_bin} has no {ADAPTER}")
    return (str(path),)


class Side:
    """One of the two, in a namespace that both watch."""

    def __init__(self, kube: Kube, namespace: str, sink: RecordingSink, program: Program) -> None:
        self._kube = kube
        self._namespace = namespace
        self._sink = sink
        self.program = program

    @property
    def events(self) -> list[CloudEvent]:
        """What it told, but for what it was probed with."""
        return [event for event in self._sink.events if not str(event.extensions["name"]).startswith(PROBE)]

    async def watches(self) -> None:
        """Return once it tells of what happens from now on. Theirs says that it is ready before it watches."""
        probes: set[str] = set()
        while not probes & {str(event.extensions["name"]) for event in self._sink.events}:
            probe = f"{PROBE}-{os.urandom(6).hex()}"
            probes.add(probe)
            self._kube.create(config_map(self._namespace, probe))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.5):
                    await self._sink.accepted(len(self._sink.events) + 1)

    async def told(self, number: int) -> list[CloudEvent]:
        while len(self.events) < number:
            await self._sink.accepted(len(self._sink.events) + 1)
        return self.events


@contextlib.asynccontextmanager
async def side(kube: Kube, folder: Path, namespace: str, command: tuple[str, ...], mode: str) -> AsyncIterator[Side]:
    config = {
        "namespaces": [namespace],
        "allNamespaces": False,
        "resources": [{"gvr": {"Group": "", "Version": "v1", "Resource": "configmaps"}}],
        "mode": mode,
    }
    env = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(kube.port),
        "K_SOURCE_CONFIG": json.dumps(config),
        "NAME": "pond",
        "NAMESPACE": namespace,
        "SYSTEM_NAMESPACE": "knative-eventing",
        "METRICS_DOMAIN": "knative.dev/eventing",
        "K_LOGGING_CONFIG": "{}",
        "K_OBSERVABILITY_CONFIG": "{}",
        "K_CE_OVERRIDES": '{"extensions":{"team":"lab"}}',
        "PATH": os.environ["PATH"],
        "HEALTH_PORT": "0",  # theirs has 8080, whatever is said
    }
    mounted = as_pod(kube.pod_folder(folder, "frog", namespace))
    async with RecordingSink() as sink, started(*mounted, *command, env={**env, "K_SINK": sink.url}) as program:
        one = Side(kube, namespace, sink, program)
        async with asyncio.timeout(60):
            await one.watches()
        yield one


@pytest.mark.parametrize("mode", ["Reference", "Resource"])
async def test_what_theirs_tells_of_a_change_ours_tells_attribute_by_attribute(
    kube: Kube, tmp_path: Path, theirs: tuple[str, ...], mode: str
) -> None:
    namespace = kube.namespace(f"side-by-side-{mode.lower()}")
    kube.service_account("frog", namespace)
    allow(kube, namespace, "frog", READER)
    async with (
        side(kube, tmp_path / "theirs", namespace, theirs, mode) as upstream,
        side(kube, tmp_path / "ours", namespace, OURS, mode) as own,
    ):
        kube.create(config_map(namespace, "a", text="<1> é"))
        kube.apply(config_map(namespace, "a", text="2"))
        kube.delete(config_map(namespace, "a"))
        async with asyncio.timeout(60):
            told = [[comparable(event) for event in await one.told(3)] for one in (upstream, own)]
    assert told[1] == told[0]


def comparable(event: CloudEvent) -> tuple[object, ...]:
    """All of it but id and time; data as JSON, because theirs sorts its keys."""
    attributes = (event.type, event.source, event.subject, event.datacontenttype, event.dataschema)
    return (*attributes, dict(event.extensions), json.loads(event.data or b"null"))


async def test_what_happens_in_a_410_gap_theirs_loses_and_ours_tells(
    brittle_kube: Kube, tmp_path: Path, theirs: tuple[str, ...]
) -> None:
    namespace = brittle_kube.namespace("gap-of-both")
    brittle_kube.service_account("frog", namespace)
    allow(brittle_kube, namespace, "frog", READER)

    def there() -> dict[str, object]:
        return {name: data for name, data in objects(brittle_kube, namespace).items() if not name.startswith(PROBE)}

    lost = {}
    for name, command in (("theirs", theirs), ("ours", OURS)):
        async with side(brittle_kube, tmp_path / name, namespace, command, "Resource") as one:
            one.program.send(signal.SIGSTOP)
            brittle_kube.kill()
            brittle_kube.start()
            for number in range(20):
                brittle_kube.create(config_map(namespace, f"{name}-{number}"))
            brittle_kube.compact()
            one.program.send(signal.SIGCONT)
            await one.watches()
            lost[name] = [each for each in there() if each.startswith(name) and each not in Replay().go_on(one.events)]
    print(f"lost in a 410 gap, of 20 each: theirs {len(lost['theirs'])}, ours {len(lost['ours'])}")
    assert lost["ours"] == []
