from __future__ import annotations

import shutil
import subprocess
from dataclasses import dataclass
from typing import Final

import pytest

from wellhead.env import integer, setting, settings, text
from wellhead.help import completion, help_screen, table

COMPGEN: Final = 'COMP_WORDS=({words}); COMP_CWORD={at}; _wellhead; printf "%s\\n" "${{COMPREPLY[@]}}"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Own:
    """Its own"""

    count: int = setting(integer(0, 9), "how many | at most", flag="count", env=("COUNT", "OLD_COUNT"), default=3)
    colour: str = setting(text, "which", flag="colour", env="COLOUR", default="red", choices=("red", "blue"))
    name: str = setting(text, "the name", flag="name", required=True)
    only_variable: str = setting(text, "a variable", env="VARIABLE", default="")
    long: str = setting(
        text,
        "it's " + "a long story " * 10,
        flag="a-flag-with-a-long-name",
        env="A_VARIABLE_WITH_A_LONG_NAME",
        default="",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What all have

    And more about it.
    """

    other: str = setting(text, "another", flag="other", default="")


@dataclass(frozen=True, slots=True, kw_only=True)
class Nothing:
    """Nothing at all"""


SCREEN: Final = """\
usage: wellhead own [flags]

About it.

Its own settings:
  --count, $COUNT $OLD_COUNT      how many | at most [3]
  --colour, $COLOUR               which (red, blue) [red]
  --name                          the name [required]
  $VARIABLE                       a variable
  --a-flag-with-a-long-name, $A_VARIABLE_WITH_A_LONG_NAME
                                  it's a long story a long story a long story a long story a long
                                  story a long story a long story a long story a long story a long
                                  story

What all have:
  --other                         another

Exit codes: 0 done, 1 failed, 2 wrong configuration, 3 ended with events undelivered."""

TABLE: Final = """\
| flag | variable | default | meaning |
|---|---|---|---|
| `--count` | `COUNT`, `OLD_COUNT` | `3` | how many \\| at most |
| `--colour` | `COLOUR` | `red` | which |
| `--name` |  | **required** | the name |
|  | `VARIABLE` |  | a variable |
"""


def test_the_help_screen_shows_every_setting_with_its_variable_default_and_choices() -> None:
    assert help_screen("wellhead own", "About it.", [Own, Shared, Nothing]) == SCREEN


def test_no_line_of_the_help_screen_is_wider_than_100() -> None:
    assert max(map(len, help_screen("wellhead own", "About it.", [Own]).splitlines())) <= 100


def test_the_table_is_markdown_with_a_row_for_every_setting() -> None:
    assert table(Own).startswith(TABLE)
    assert len(table(Own).splitlines()) == 2 + len(settings(Own))


COMMANDS: Final = [("own", settings(Own)), ("shared", settings(Shared))]
CASES: Final = [
    (["wellhead", ""], ["own", "shared"]),
    (["wellhead", "o"], ["own"]),
    (["wellhead", "own", "--c"], ["--count", "--colour"]),
    (["wellhead", "own", "--colour", ""], ["red", "blue"]),
    (["wellhead", "own", "--colour", "b"], ["blue"]),
    (["wellhead", "shared", "-"], ["--other", "--help"]),
    (["wellhead", "shared", "--colour", ""], ["--other", "--help"]),
    (["wellhead", "other", ""], [""]),
]


def bash(script: str, words: list[str]) -> list[str]:
    call = COMPGEN.format(words=" ".join(f"'{word}'" for word in words), at=len(words) - 1)
    program = shutil.which("bash") or "bash"
    done = subprocess.run([program, "-uc", f"{script}\n{call}"], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash on this machine")
@pytest.mark.parametrize(("words", "offered"), CASES, ids=" ".join)
def test_bash_offers_commands_then_flags_then_choices(words: list[str], offered: list[str]) -> None:
    assert bash(completion("bash", COMMANDS), words) == offered


def test_zsh_takes_the_completion_of_bash() -> None:
    assert completion("zsh", COMMANDS) == "autoload -U +X bashcompinit && bashcompinit\n" + completion("bash", COMMANDS)


def test_fish_is_told_every_command_flag_and_choice() -> None:
    assert completion("fish", COMMANDS).splitlines()[:4] == [
        "complete -c wellhead -f -n __fish_use_subcommand -a 'own shared'",
        "complete -c wellhead -n '__fish_seen_subcommand_from own' -l count -d 'how many | at most'",
        "complete -c wellhead -n '__fish_seen_subcommand_from own' -l colour -d 'which' -xa 'red blue'",
        "complete -c wellhead -n '__fish_seen_subcommand_from own' -l name -d 'the name'",
    ]


def test_fish_is_told_each_flag_once_and_quotes_are_escaped() -> None:
    lines = completion("fish", COMMANDS).splitlines()
    assert len(lines) == 1 + 4 + 1
    assert "it\\'s a long story" in lines[4]
