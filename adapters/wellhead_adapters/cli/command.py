"""The command ``wellhead``: finds adapters by their entry points, and starts what it is asked for."""

from __future__ import annotations

import sys
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Never, Protocol, cast

from wellhead import __version__
from wellhead.env import settings
from wellhead.errors import ConfigError, Problem
from wellhead.help import completion
from wellhead.runtime import Exit, report, say
from wellhead.runtime import main as run_adapter
from wellhead.settings import DeliverySettings, ProcessSettings, SinkSettings

from . import demo, display, run, validate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from wellhead.adapter import AdapterClass
    from wellhead.env import Setting

SHELLS = ("bash", "zsh", "fish")
_OWN = {
    "display": "Show the events that are sent to it: in the terminal, and live on a web page",
    "demo": "Try a source without what it reads, into the event display: wellhead demo kafka",
    "run": "Run sources on this machine, without a cluster: --demo, or Knative YAML by -f",
    "validate": "Say what is wrong with Knative YAML, offline: wellhead validate -f source.yaml",
    "version": "Print the version",
    "completion": f"Print a script for shell completion: {', '.join(SHELLS)}",
}
_OF_ADAPTERS = {"demo": demo.main, "run": run.main, "validate": validate.main}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` (default: ``sys.argv[1:]``) and return its exit code (`Exit`)."""
    command, *rest = [*(sys.argv[1:] if arguments is None else arguments)] or ["help"]
    if command in ("help", "-h", "-help", "--help"):
        return say(overview())
    if command in ("version", "-version", "--version"):
        return say(f"wellhead {__version__}")
    if command == "display":
        return display.main(rest)
    if command in _OF_ADAPTERS:
        return _OF_ADAPTERS[command](rest, adapters())
    if command == "completion":
        return _completion(rest)
    kinds, further = adapters(), _commands()
    if rest and f"{command} {rest[0]}" in further:  # what an adapter does beside running, as "gitlab cleanup"
        return further[f"{command} {rest[0]}"]().main(rest[1:])
    if command in further:
        return further[command]().main(rest)
    if command not in kinds:
        return _unknown(command, [*kinds, *further, *_OWN])
    try:
        adapter_class = kinds[command]()
    except ConfigError as error:
        return report("wellhead", error.problems)
    return run_adapter(adapter_class, command, arguments=rest)


def adapters() -> dict[str, run.LoadAdapter]:
    """Every installed adapter by its kind; a third party's package adds one by an entry point ``wellhead.adapters``.

    The values load the adapter's class when called, so that no program pays for the imports of another. They raise
    `ConfigError` where that package is broken.
    """
    found = entry_points(group="wellhead.adapters")

    def loader(name: str) -> run.LoadAdapter:
        def load() -> AdapterClass[Never]:
            try:
                return cast("AdapterClass[Never]", found[name].load())
            except (ImportError, AttributeError, SyntaxError) as error:
                raise ConfigError([Problem(name, f"cannot be loaded: {error}")]) from None

        return load

    return {name: loader(name) for name in sorted(found.names)}


class Command(Protocol):
    """What the entry point group ``wellhead.commands`` names: a command that an adapter adds beside itself.

    Its docstring is its help, the first line in the overview. A name of two words, ``gitlab cleanup``, is a command of
    that adapter.
    """

    def flags(self) -> Sequence[Setting[object]]:
        """Every flag of it, for completion."""

    def main(self, arguments: Sequence[str], /) -> int:
        """Do it; the exit code."""


def _commands() -> dict[str, Callable[[], Command]]:
    found = entry_points(group="wellhead.commands")
    return {name: cast("Callable[[], Command]", found[name].load) for name in sorted(found.names)}


def overview() -> str:
    """The first help screen."""
    rows = [(name, _about(load)) for name, load in adapters().items()]
    commands = {name: (load().__doc__ or "").partition(".")[0] for name, load in _commands().items()} | _OWN
    return "\n".join(
        (
            "wellhead: event sources for Knative, Kubernetes and laptops. What happens outside becomes CloudEvents,",
            "delivered to a sink.",
            "",
            "Start here:",
            "  wellhead run --demo                                   heartbeats, and a page that shows them",
            "  wellhead display                                      a sink to look at events with",
            "  SINK=http://localhost:8080 wellhead SOURCE [flags]    any source, to any sink",
            "",
            "Sources:",
            *(f"  {name:<14}{about}" for name, about in rows),
            "",
            "Commands:",
            *(f"  {name:<16}{about}" for name, about in commands.items()),
            "",
            "wellhead SOURCE --help lists its flags, and the environment variable beside each.",
            "Exit codes: 0 done, 1 failed, 2 wrong configuration, 3 ended with events undelivered.",
        )
    )


def _about(load: run.LoadAdapter) -> str:
    try:
        return (load().__doc__ or "").strip().partition("\n")[0].rstrip(".")
    except ConfigError as error:
        return error.problems[0].what


def _flags(load: run.LoadAdapter) -> list[Setting[object]]:
    try:
        configs = (load().Config, SinkSettings, DeliverySettings, ProcessSettings)
    except ConfigError:
        return []
    return [known for config in configs for known in settings(config)]


def _completion(arguments: Sequence[str]) -> int:
    shell = arguments[0] if arguments else ""
    if shell not in SHELLS:
        print(f"wellhead completion: say which shell: {', '.join(SHELLS)}", file=sys.stderr)
        return Exit.CONFIG
    commands: list[tuple[str, Sequence[Setting[object]]]] = [
        *((name, _flags(load)) for name, load in adapters().items()),
        *((name, load().flags()) for name, load in _commands().items() if " " not in name),
        ("demo", demo.flags()),
        ("display", display.flags()),
        ("run", run.flags()),
        ("validate", validate.flags()),
        ("version", ()),
        ("completion", ()),
    ]
    return say(completion(shell, commands).rstrip("\n"))


def _unknown(command: str, known: Sequence[str]) -> int:
    import difflib  # noqa: PLC0415 - only on the way to an error message

    close = difflib.get_close_matches(command, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    print(f"wellhead: no command {ascii(command)[:60]}{hint} (wellhead --help lists them)", file=sys.stderr)
    return Exit.CONFIG


__all__ = ["adapters", "main", "overview"]
