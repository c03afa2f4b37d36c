"""From environment and flags to a running program: config → sink → adapter → drain → exit code. Knows no adapter."""

from __future__ import annotations

import asyncio
import contextlib
import enum
import logging
import os
import signal
import sys
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, TypeAlias, TypeVar

from . import telemetry
from .binding import Destination, SinkBinding
from .clock import SystemClock
from .delivery import Policy
from .env import Collector, parse_flags, settings
from .errors import ConfigError, Loss, Problem
from .help import help_screen
from .host import Host
from .log import LogLevel, configure
from .metrics import adapter_metrics, sink_metrics
from .refs import Refs
from .settings import DeliverySettings, EventMode, HeaderValues, ProcessSettings, SinkSettings, TransportChoice
from .startup import open_many_files
from .transport.proxies import proxies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from .adapter import AdapterClass
    from .dead_letter_file import DeadLetterFile, DeadLetterFiles
    from .health import Health
    from .sink import HttpSink
    from .transport import Transport

ConfigT = TypeVar("ConfigT")
_log = logging.getLogger(__name__)
_LINE_CHARACTERS = 500
_OTHER_FILES = 200
"""Files beside the connections to a sink."""


class Exit(enum.IntEnum):
    """The exit codes of every program. A second signal exits at once with 128 + its number."""

    DONE = 0
    """Stopped on request or the source ended, and nothing in hand was lost."""
    FAILED = 1
    """The adapter failed; the log says why."""
    CONFIG = 2
    """Flags, variables or files are wrong, or a port is taken; nothing was started."""
    UNDELIVERED = 3
    """It ended with events that no sink had accepted; they are logged and counted."""


def main(
    adapter_class: AdapterClass[ConfigT],
    name: str,
    *,
    arguments: Sequence[str] | None = None,
    environment: Mapping[str, str] | None = None,
) -> int:
    """Run one adapter as a program and return its exit code (`Exit`): the body of every ``__main__.py``.

    ``name`` is the kind, as in ``wellhead NAME``. Arguments default to ``sys.argv[1:]``, the environment to
    ``os.environ``. Words that belong to no flag are ignored, as Knative's programs do.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    environment = os.environ if environment is None else environment
    configs = (adapter_class.Config, SinkSettings, DeliverySettings, ProcessSettings)
    if any(word in ("-h", "-help", "--help") for word in arguments):
        return say(help_screen(f"wellhead {name}", adapter_class.__doc__ or "", configs))
    flags = parse_flags(arguments, [known for config in configs for known in settings(config)])
    wins = getattr(adapter_class, "environment_wins", False)
    collector = Collector(environment, flags, environment_wins=wins)
    config = collector.read(adapter_class.Config)
    to, delivery, process = (
        collector.read(SinkSettings),
        collector.read(DeliverySettings),
        collector.read(ProcessSettings),
    )
    dry_run = getattr(adapter_class, "dry_run", None) if getattr(config, "dry_run", False) else None
    if dry_run is None and not collector.given("sink", "K_SINK", "SINK"):
        collector.problems.append(NO_SINK)
    try:
        collector.check()
        assert config is not None and to is not None and delivery is not None and process is not None  # noqa: S101, PT018
        adapter = adapter_class(config)
    except ConfigError as error:
        return report(f"wellhead {name}", error.problems)
    configure_log(process, collector.warnings)
    if dry_run is not None:
        return int(dry_run(config))
    asks_for = getattr(adapter_class, "concurrency", None)
    if asks_for is not None and process.concurrency is None and to.mode is not EventMode.BATCH:
        process = replace(process, concurrency=asks_for(config))
    port = process.health_port if process.health_port is not None else getattr(adapter_class, "health_port", 0)

    @asynccontextmanager
    async def compose(host: Host) -> AsyncIterator[None]:
        source = process.name or name
        policy = getattr(adapter_class, "policy", Policy())
        async with open_sink(host, source, to, delivery, process, environment, policy=policy) as sink:
            host.start(source, adapter, sink)
            yield

    return run(compose, process, health_port=port, program=f"wellhead {name}")


NO_SINK = Problem(
    "K_SINK",
    "is not set, nor SINK, nor --sink: say where events go, as in SINK=http://localhost:8080"
    " (`wellhead display` shows events there)",
)


Compose: TypeAlias = "Callable[[Host], AbstractAsyncContextManager[None]]"
"""Starts a program's sources on its host when entered; when left, after the drain, closes what it opened."""


def run(
    compose: Compose,
    process: ProcessSettings,
    *,
    health_port: int = 0,
    program: str = "wellhead",
    until_signal: bool = False,
) -> int:
    """Host what ``compose`` starts until every source has ended, one has failed, or a signal comes; drain.

    Returns the exit code. ``compose`` is entered once, in the running loop; a `ConfigError` it raises is reported
    like any other wrong setting. With ``until_signal`` a host without sources goes on as well.
    """
    try:
        with asyncio.Runner(loop_factory=_new_loop) as runner:
            return runner.run(_run(compose, process, health_port, until_signal=until_signal))
    except ConfigError as error:
        return report(program, error.problems)
    finally:
        _let_go_of_output()


@asynccontextmanager
async def open_sink(
    host: Host,
    name: str,
    to: SinkSettings,
    delivery: DeliverySettings,
    process: ProcessSettings,
    environment: Mapping[str, str],
    *,
    policy: Policy = Policy(),  # noqa: B008 - frozen
) -> AsyncIterator[HttpSink]:
    """The sink of the source ``name``, as the settings say; ``policy`` is what holds where they say nothing.

    Raises `ConfigError`.

    A sink by reference is where the API server says, as long as the block runs, unless ``--ref`` says it.
    """
    refs = Refs(
        to.refs,
        environment,
        namespace=process.namespace,
        account=to.oidc_service_account,
        audience=to.audience,
        ca_certs=to.ca_certs,
    )
    async with contextlib.aclosing(refs):
        binding, dead_letter = await bindings(to, delivery, process, host.dead_letter_files, refs)
        sink = host.open_sink(
            name,
            binding,
            policy=delivery.policy(policy),
            dead_letter=dead_letter,
            access=to.access(),
            structured=to.mode is EventMode.STRUCTURED,
            percent=to.headers is HeaderValues.PERCENT_ENCODE,
            batch=to.batch(),
        )
        for address, destination in (
            (sink.address, to.sink),
            (sink.dead_letter_address, delivery.dead_letter_sink),
        ):
            if address is not None and isinstance(destination, Destination):
                refs.keep(address, destination)
        yield sink


async def bindings(
    to: SinkSettings,
    delivery: DeliverySettings,
    process: ProcessSettings,
    files: DeadLetterFiles,
    refs: Refs | None = None,
) -> tuple[SinkBinding, SinkBinding | DeadLetterFile | None]:
    """The bindings of the sink and the dead-letter sink, or its file. Raises `ConfigError`.

    Without ``refs`` no API server is asked: a ``ref`` is where ``--ref`` says.
    """
    refs = refs or Refs(to.refs, {})

    async def bind(destination: Destination) -> SinkBinding:
        found = await refs.find(destination)
        return SinkBinding(
            sink=found.url,
            ca_certs="\n".join(filter(None, (to.ca_certs, found.ca_certs))),
            audience=to.audience or found.audience,
            overrides=to.overrides,
            namespace=process.namespace,
        )

    if to.sink is None:
        raise ConfigError([NO_SINK])
    dead_letter: SinkBinding | DeadLetterFile | None = None
    if isinstance(delivery.dead_letter_sink, Destination):
        dead_letter = await bind(delivery.dead_letter_sink)
    elif delivery.dead_letter_sink is not None:
        path = delivery.dead_letter_sink
        try:
            dead_letter = files.open(path, max_bytes=delivery.dead_letter_max_bytes)
        except OSError as error:
            raise ConfigError([Problem("--dead-letter-sink", f"cannot write to {path}: {error.strerror}")]) from None
    return await bind(to.sink), dead_letter


def say(text: str) -> int:
    """Print what was asked for; the exit code. A reader that has seen enough (``| head``) is no error."""
    with contextlib.suppress(BrokenPipeError):
        print(text)
    _let_go_of_output()
    return Exit.DONE


def report(program: str, problems: Sequence[Problem]) -> int:
    """Say on stderr everything that is wrong, a line each; the exit code."""
    noun = "problem" if len(problems) == 1 else "problems"
    print(f"{program}: {len(problems)} {noun} in the configuration (--help lists every setting)", file=sys.stderr)
    for problem in problems:
        print(f"  {_printable(str(problem))}", file=sys.stderr)
    return Exit.CONFIG


def _printable(line: str) -> str:
    """``line`` for a terminal: what a stranger put into a flag's name neither moves its cursor nor fills it."""
    shown = line if line.isprintable() else "".join(sign if sign.isprintable() else ascii(sign)[1:-1] for sign in line)
    return shown if len(shown) <= _LINE_CHARACTERS else f"{shown[:_LINE_CHARACTERS]}…"


def configure_log(process: ProcessSettings, warnings: Sequence[Problem]) -> None:
    """Set up logging as the settings say, and tell of those that were broken without being fatal."""
    logging.raiseExceptions = False  # a log reader that goes away must not end the program
    configure(process.log_level or process.logging_config or LogLevel.INFO, process.log_format)
    for problem in warnings:
        _log.warning(
            "a setting is broken and its default applies", extra={"setting": problem.where, "rule": problem.what}
        )


def _let_go_of_output() -> None:
    """What is left for a reader that went away goes nowhere; else Python would end with 120, whatever `main` returns."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, stream.fileno())
            os.close(nowhere)


def _new_transport(process: ProcessSettings) -> Transport:
    """The transport that was asked for; by itself our own, unless the environment names a proxy."""
    choice, connect = process.transport, process.connect_timeout.total_seconds()
    if choice is TransportChoice.AUTO:
        choice = TransportChoice.AIOHTTP if proxies(os.environ) else TransportChoice.OWN
    if choice is TransportChoice.AIOHTTP:
        from .transport.by_aiohttp import AiohttpTransport  # noqa: PLC0415 - 120 ms and 10 MiB that few need

        return AiohttpTransport(connect_seconds=connect)
    from .transport.connection import Timeouts  # noqa: PLC0415 - what sends nothing needs no transport
    from .transport.http import CONNECTIONS, HttpTransport  # noqa: PLC0415 - likewise

    return HttpTransport(
        limit=max(CONNECTIONS, process.on_wire),
        age_seconds=process.connection_age.total_seconds(),
        timeouts=Timeouts(connect=connect),
    )


def _allow_connections(number: int) -> None:
    """Have the system let us open as many files as it can; told where so many connections are more than that."""
    allowed = open_many_files()
    if allowed is not None and allowed < number + _OTHER_FILES:
        _log.warning("the system lets us open too few files", extra={"allowed": allowed, "connections": number})


def _new_loop() -> asyncio.AbstractEventLoop:
    """A loop of uvloop where that is installed (half the CPU time an event), else asyncio's own; both behave alike."""
    try:
        import uvloop  # noqa: PLC0415 - not on every platform
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


async def _run(compose: Compose, process: ProcessSettings, health_port: int, *, until_signal: bool) -> int:
    _allow_connections(process.on_wire)
    transport = _new_transport(process)
    host = Host(transport, SystemClock(), max_on_wire=process.on_wire)
    host.starting = True
    health: Health | None = None
    exports = telemetry.start(
        telemetry.wanted(os.environ),
        name=process.name or process.component or "wellhead",
        namespace=process.namespace,
        metrics=lambda: [
            *sink_metrics({name: sink.counters for name, sink in host.sinks().items()}),
            *adapter_metrics(host.adapters()),
        ],
    )
    host.tracer = exports.tracer if exports is not None else None
    try:
        if ports := _health_ports(process, health_port):
            from .health import Health  # noqa: PLC0415 - an HTTP server, which a program without probes can do without

            health = Health(host)
            await _start_health(health, ports)
        stop = _on_signals()
        async with compose(host):
            host.starting = False
            await _until_over(host, stop, until_signal=until_signal)
            # A source that ends by itself (one-shot) is asked about all its events, not only those of the drain.
            lost_before = _lost(host) if stop.is_set() else 0
            await host.drain(process.grace.total_seconds())
    finally:
        if health is not None:
            await health.stop()
        await transport.aclose()
        if exports is not None:
            await exports.stop()
    return _exit_code(host, _lost(host) - lost_before)


async def _until_over(host: Host, stop: asyncio.Event, *, until_signal: bool) -> None:
    told = asyncio.create_task(stop.wait(), name="wait for a signal")
    waits = {told}
    if not until_signal:
        waits.add(asyncio.create_task(_wait(host), name="wait for every source to end"))
    _, left = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for task in left:
        task.cancel()


async def _wait(host: Host) -> Literal[True]:
    await host.wait()
    return True


def _exit_code(host: Host, lost: int) -> int:
    if host.failure is not None:
        return Exit.FAILED
    if host.undelivered:
        _log.error("events in hand were not delivered within the grace", extra={"events": host.undelivered})
    return Exit.UNDELIVERED if lost or host.undelivered else Exit.DONE


def _lost(host: Host) -> int:
    """How many events no sink accepted so far. A fenced one is the next owner's."""
    return sum(
        counters.refused + sum(number for reason, number in counters.dropped.items() if reason != Loss.FENCED.value)
        for counters in (sink.counters for sink in host.sinks().values())
    )


def _health_ports(process: ProcessSettings, port: int) -> list[tuple[str, str, int]]:
    """Where probes and metrics are asked for: the setting that does, address and port."""
    wanted = [("--health-port", process.health_address, port)] if port else []
    if process.prometheus is not None:
        wanted.append(("K_OBSERVABILITY_CONFIG", *process.prometheus))
    return wanted


async def _start_health(health: Health, ports: Sequence[tuple[str, str, int]]) -> None:
    for setting_name, host, number in ports:
        try:
            bound = await health.start(host, number)
        except OSError as error:
            raise ConfigError(
                [Problem(setting_name, f"cannot listen on {host or '*'}:{number}: {error.strerror}")]
            ) from None
        _log.info("probes and metrics are served", extra={"address": bound[0], "port": bound[1]})


def _on_signals() -> asyncio.Event:
    """An event that the first SIGTERM or SIGINT sets; the second ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def told(number: signal.Signals) -> None:
        if stop.is_set():
            logging.shutdown()
            os._exit(128 + number)
        _log.info("stopping: no new events, deliveries end within the grace", extra={"signal": number.name})
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told, number)
    return stop
