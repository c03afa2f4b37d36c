"""``wellhead run``: sources on this machine, without a cluster, into a sink or into the event display it opens."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Never, TypeAlias, cast

from wellhead.access import SinkAccess
from wellhead.binding import Destination
from wellhead.env import Collector, Setting, boolean, integer, parse_flags, setting, settings, text
from wellhead.errors import ConfigError, Problem
from wellhead.help import help_screen
from wellhead.runtime import bindings, configure_log, report, run, say
from wellhead.settings import DeliverySettings, ProcessSettings, SinkSettings

from .cluster_secrets import cluster_secrets
from .display import DisplaySettings, serving
from .fleet import Fleet, read_plan
from .plan import FileSettings, World

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence
    from pathlib import Path

    from wellhead.adapter import Adapter, AdapterClass
    from wellhead.host import Host

    from .cluster_secrets import ClusterSecrets
    from .plan import Plan

LoadAdapter: TypeAlias = "Callable[[], AdapterClass[Never]]"

_PROGRAM = "wellhead run"
_DISPLAY_PORT = 8080
_DEMO = {
    "heartbeat": {"POD_NAME": "demo", "POD_NAMESPACE": "laptop", "HEARTBEAT_PERIOD": "1s"},
    "ping": {
        "NAME": "demo",
        "NAMESPACE": "laptop",
        "PING_SCHEDULE": "*/5 * * * * *",
        "PING_CONTENT_TYPE": "application/json",
        "PING_DATA": '{"message":"a tick each five seconds"}',
    },
}
_ABOUT = """Run sources on this machine, without a cluster.

  wellhead run --demo          heartbeats travel over HTTP to the event display: printed in the
                               terminal, and live on its page
  wellhead run --demo --sink URL   the same heartbeats to a sink of yours
  wellhead run -f source.yaml  Knative YAML: PingSource, ContainerSource, SinkBinding with its workload;
                               into --sink, else where the YAML says by uri or --ref maps its ref, else
                               into the event display
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RunSettings:
    """What to run"""

    demo: bool = setting(boolean, "a heartbeat each second, a tick each five", flag="demo", default=False, switch=True)
    port: int | None = setting(
        integer(0, 65535),
        "port of the event display; 0: a free one, as where a source listens on PORT",
        flag="port",
        env="PORT",
        shown_default="8080",
    )
    kubeconfig: str = setting(
        text,
        "for Secrets that are not in the files; in a pod, its ServiceAccount unless this is given",
        flag="kubeconfig",
        env="KUBECONFIG",
        default="",
        shown_default="~/.kube/config",
    )
    context: str = setting(
        text, "which of its contexts", flag="context", env="KUBE_CONTEXT", default="", shown_default="the current one"
    )


def flags() -> list[Setting[object]]:
    """Every flag of ``wellhead run``."""
    return [known for config in _CONFIGS for known in settings(config)]


_CONFIGS = (RunSettings, FileSettings, SinkSettings, DeliverySettings, ProcessSettings)


def main(arguments: Sequence[str], adapters: Mapping[str, LoadAdapter]) -> int:
    """Run what the flags ask for until a signal; the exit code."""
    if any(word in ("-h", "-help", "--help") for word in arguments):
        return say(help_screen(_PROGRAM, _ABOUT, _CONFIGS))
    collector = Collector(os.environ, parse_flags(arguments, flags()))
    said, named = collector.read(RunSettings), collector.read(FileSettings)
    to = collector.read(SinkSettings)
    delivery, process = collector.read(DeliverySettings), collector.read(ProcessSettings)
    if said is not None and named is not None and not said.demo and not named.files:
        collector.problems.append(Problem("-f", "is not given, nor --demo: say what to run"))
    if said is None or named is None or to is None or delivery is None or process is None or collector.problems:
        return report(_PROGRAM, collector.problems)
    world = World(adapters=adapters, images=named.images)
    try:
        planned = asyncio.run(_read(named.files, world, said)) if named.files else None
    except ConfigError as error:
        return report(_PROGRAM, error.problems)
    configure_log(process, collector.warnings)
    # PORT is where a source listens, if one does; the display's is --port then.
    taken = planned.ports if planned is not None and not collector.given("port") else frozenset()
    display_port = 0 if (said.port or _DISPLAY_PORT) in taken else said.port

    @asynccontextmanager
    async def compose(host: Host) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            sink = to
            access = to.access()
            if to.sink is None:
                access = SinkAccess(ca_file=to.ca_file)  # credentials are for the sink that was named with them
                url = await stack.enter_async_context(event_display(display_port))
                sink = replace(to, sink=Destination(uri=url))
                welcome(url, demo=said.demo)
            binding, dead_letter = await bindings(sink, delivery, process, host.dead_letter_files)
            if planned is not None:
                fleet = Fleet(
                    host,
                    world,
                    sink=binding.sink,
                    ca_certs=binding.ca_certs,
                    given=to.sink is not None,
                    refs=to.refs,
                    delivery=delivery,
                    access=access,
                    secrets=await stack.enter_async_context(aclosing(_secrets(said))),
                    dead_letter=dead_letter,
                )
                await fleet.apply(planned)
                following = asyncio.create_task(fleet.follow(named.files), name="follow the files")
                stack.callback(following.cancel)
            for name, environment in _DEMO.items() if said.demo else ():
                source = host.open_sink(name, binding, policy=delivery.policy(), dead_letter=dead_letter, access=access)
                host.start(name, configured(adapters[name](), environment), source)
            yield

    return run(
        compose, process, health_port=process.health_port or 0, program=_PROGRAM, until_signal=planned is not None
    )


async def _read(files: Sequence[Path], world: World, said: RunSettings) -> Plan:
    async with aclosing(_secrets(said)) as secrets:
        return await read_plan(files, world, secrets)


def _secrets(said: RunSettings) -> ClusterSecrets:
    return cluster_secrets(os.environ, kubeconfig=said.kubeconfig, context=said.context)


@asynccontextmanager
async def event_display(port: int | None) -> AsyncIterator[str]:
    """The event display on ``port``; where none was asked for, on 8080, or on a free one if that is taken."""
    async with AsyncExitStack() as stack:
        try:
            settings = DisplaySettings(port=_DISPLAY_PORT if port is None else port)
            url = await stack.enter_async_context(serving(settings))
        except ConfigError:
            if port is not None:
                raise
            url = await stack.enter_async_context(serving(DisplaySettings(port=0)))
        yield url


def configured(adapter_class: AdapterClass[Never], environment: Mapping[str, str]) -> Adapter:
    collector = Collector(environment)
    config = collector.read(adapter_class.Config)
    collector.check()
    return adapter_class(cast("Never", config))


def welcome(url: str, *, demo: bool) -> None:
    what = "Heartbeats and ticks" if demo else "Events"
    print(
        f"\n  {what} arrive at {url}\n  Open it in a browser to see them live. Ctrl-C ends it.\n",
        flush=True,
    )
