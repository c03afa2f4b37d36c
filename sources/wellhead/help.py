"""Help screens and shell completion, made from the settings themselves. Pure."""

from __future__ import annotations

import inspect
import textwrap
from typing import TYPE_CHECKING

from .env import Setting, settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_WIDTH = 100
_COLUMN = 34


def help_screen(command: str, about: str, configs: Sequence[type]) -> str:
    """Everything a program can be told: its flags, the variable beside each, defaults; its own settings first."""
    blocks = [f"usage: {command} [flags]", inspect.cleandoc(about)]
    seen: set[str] = set()
    for position, config in enumerate(configs):
        title = "Its own settings" if position == 0 else inspect.cleandoc(config.__doc__ or "").partition("\n")[0]
        # A setting that an adapter has as its own (a ping's name) is told there, once.
        rows = [line for known in settings(config) if known.source not in seen for line in _rows(known)]
        seen |= {known.source for known in settings(config)}
        if rows:
            blocks.append("\n".join((f"{title}:", *rows)))
    blocks.append("Exit codes: 0 done, 1 failed, 2 wrong configuration, 3 ended with events undelivered.")
    return "\n\n".join(blocks)


def table(config: type) -> str:
    """The settings of ``config`` as a Markdown table for a README (a test compares)."""
    lines = ["| flag | variable | default | meaning |", "|---|---|---|---|"]
    for known in settings(config):
        flag = f"`--{known.flag}`" if known.flag else ""
        variables = ", ".join(f"`{name}`" for name in known.env)
        default = "**required**" if known.required else f"`{known.default}`" if known.default else ""
        meaning = known.help.replace("|", "\\|")
        lines.append(f"| {flag} | {variables} | {default} | {meaning} |")
    return "\n".join(lines)


def completion(shell: str, commands: Iterable[tuple[str, Sequence[Setting[object]]]]) -> str:
    """A completion script for bash, zsh or fish: ``eval "$(wellhead completion bash)"``."""
    known = [(name, list(flags)) for name, flags in commands]
    if shell == "fish":
        return "\n".join(_fish(known)) + "\n"
    bash = "\n".join(_bash(known)) + "\n"
    return f"autoload -U +X bashcompinit && bashcompinit\n{bash}" if shell == "zsh" else bash


def _rows(known: Setting[object]) -> Iterator[str]:
    flag = f"--{known.flag}" if known.flag else ""
    left = ", ".join(filter(None, (flag, " ".join(f"${name}" for name in known.env))))
    notes = known.help
    if known.choices:
        notes += f" ({', '.join(known.choices)})"
    if known.required:
        notes += " [required]"
    elif known.default:
        notes += f" [{known.default}]"
    lines = textwrap.wrap(notes, _WIDTH - _COLUMN)
    if len(left) > _COLUMN - 4:
        yield f"  {left}"
        left = ""
    for line in lines:
        yield f"  {left:<{_COLUMN - 2}}{line}".rstrip()
        left = ""


def _bash(commands: Sequence[tuple[str, Sequence[Setting[object]]]]) -> Iterator[str]:
    yield "_wellhead() {"
    yield '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}" words=""'
    yield f'  if [ "$COMP_CWORD" = 1 ]; then words="{" ".join(name for name, _ in commands)}"; else'
    yield '  case "${COMP_WORDS[1]} $before" in'
    for name, flags in commands:
        for flag in flags:
            if flag.choices:
                yield f'    "{name} --{flag.flag}") words="{" ".join(flag.choices)}" ;;'
    yield "  esac"
    yield '  [ -n "$words" ] || case "${COMP_WORDS[1]}" in'
    for name, flags in commands:
        yield f'    {name}) words="{" ".join(f"--{flag.flag}" for flag in flags if flag.flag)} --help" ;;'
    yield "  esac; fi"
    yield '  COMPREPLY=($(compgen -W "$words" -- "$word"))'
    yield "}"
    yield "complete -o default -F _wellhead wellhead"


def _fish(commands: Sequence[tuple[str, Sequence[Setting[object]]]]) -> Iterator[str]:
    names = " ".join(name for name, _ in commands)
    yield f"complete -c wellhead -f -n __fish_use_subcommand -a '{names}'"
    for name, flags in commands:
        for flag in flags:
            if flag.flag:
                about = flag.help.replace("'", r"\'")
                choices = f" -xa '{' '.join(flag.choices)}'" if flag.choices else ""
                yield f"complete -c wellhead -n '__fish_seen_subcommand_from {name}' -l {flag.flag} -d '{about}'{choices}"
