"""Typed reading of flags and environment variables into frozen dataclasses; every problem at once. Pure.

A configuration is a dataclass whose fields are made by `setting`. From that one place come the parsing, the help
screen, the shell completion and the tables of the READMEs.
"""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar, cast

from .errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

T = TypeVar("T")
E = TypeVar("E", bound=enum.Enum)


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting(Generic[T]):
    """One thing a user can set: where it is read from, how, and what it means."""

    name: str
    """The field of the configuration."""
    flag: str
    """``period`` for ``--period``; "" where there is only the variable."""
    env: tuple[str, ...]
    """Variables, the first that is set and not empty wins."""
    parse: Callable[[str], T]
    """Text to value; raises ValueError with the rule that the text breaks ("is not …")."""
    help: str
    default: str
    """The default in words, for help and README; "" where there is none."""
    required: bool = False
    secret: bool = False
    """Its value never appears in a message."""
    repeated: bool = False
    """Every occurrence of the flag is given to ``parse``, one a line; in the variable, one a line or blank-separated."""
    switch: bool = False
    """The flag needs no value: ``--one-shot`` is ``--one-shot=true``."""
    empty_allowed: bool = False
    """A variable that is set and empty is a value, not an unset one."""
    tolerant: bool = False
    """A value that is wrong is a warning and the default applies: where Knative does not fail either."""
    choices: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        """How a person would name it: ``--period``, or the variable."""
        return f"--{self.flag}" if self.flag else self.env[0]


def setting(
    parse: Callable[[str], T],
    help: str,  # noqa: A002 - the word that every command-line library uses
    *,
    flag: str = "",
    env: str | tuple[str, ...] = (),
    default: T | None = None,
    shown_default: str | None = None,
    required: bool = False,
    secret: bool = False,
    repeated: bool = False,
    switch: bool = False,
    empty_allowed: bool = False,
    tolerant: bool = False,
    choices: tuple[str, ...] = (),
) -> T:
    """A field of a configuration dataclass that `read` fills. ``default`` is a value, not text.

    Declared to return the value's type so that ``period: timedelta = setting(...)`` checks; it returns a dataclass
    field. Secrets keep out of the repr.
    """
    known: Setting[T] = Setting(
        name="",
        flag=flag,
        env=(env,) if isinstance(env, str) else env,
        parse=parse,
        help=help,
        default=shown_default if shown_default is not None else _words(default),
        required=required,
        secret=secret,
        repeated=repeated,
        switch=switch,
        empty_allowed=empty_allowed,
        tolerant=tolerant,
        choices=choices,
    )
    made: object
    if required:
        made = dataclasses.field(repr=not secret, metadata={"setting": known})
    else:  # a factory, as a default may be of a mutable type
        made = dataclasses.field(default_factory=lambda: default, repr=not secret, metadata={"setting": known})
    return cast("T", made)


def settings(config: type) -> tuple[Setting[object], ...]:
    """Every setting of a configuration dataclass, in order."""
    return tuple(
        dataclasses.replace(field.metadata["setting"], name=field.name)
        for field in dataclasses.fields(config)
        if "setting" in field.metadata
    )


@dataclass(frozen=True, slots=True)
class Flags:
    """A command line, read: what each flag was given, and the words that belong to no flag."""

    given: Mapping[str, tuple[str, ...]]
    rest: tuple[str, ...]
    problems: tuple[Problem, ...] = ()


def parse_flags(arguments: Sequence[str], known: Iterable[Setting[object]]) -> Flags:
    """Read flags as Go's ``flag`` package does: ``-x v``, ``--x v``, ``-x=v``, ``--x=v``; ends at the first other word.

    Not argparse, which stops at the first problem, reads no ``-period 5s`` beside ``--period=5s`` without surprises
    (a value that begins with a dash, abbreviations), and would hold the list of flags a second time.
    """
    by_flag = {setting.flag: setting for setting in known if setting.flag}
    given: dict[str, tuple[str, ...]] = {}
    problems: list[Problem] = []
    words = list(arguments)
    while words and words[0].startswith("-") and words[0] != "-":
        word = words.pop(0)
        if word == "--":
            break
        flag, equals, value = word.removeprefix("-").removeprefix("-").partition("=")
        setting = by_flag.get(flag)
        if setting is None:
            problems.append(Problem(word.partition("=")[0], f"no such flag{_nearest(flag, by_flag)}"))
            if not equals and words and not words[0].startswith("-"):
                words.pop(0)  # most likely the unknown flag's value; reading on finds the other problems
            continue
        if not equals:
            if setting.switch:
                value = "true"
            elif words:
                value = words.pop(0)
            else:
                problems.append(Problem(f"--{flag}", "needs a value"))
                continue
        given[flag] = (*given.get(flag, ()), value) if setting.repeated else (value,)
    return Flags(given, tuple(words), tuple(problems))


class Collector:
    """Reads several configurations, and raises the problems of all of them together.

    ``environment_wins`` is for drop-ins of programs where a variable beats the flag; else the flag wins.
    ``warnings`` holds what was wrong with `Setting.tolerant` settings.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        flags: Flags = Flags({}, ()),
        *,
        environment_wins: bool = False,
    ) -> None:
        self._env = env
        self._flags = flags
        self._environment_wins = environment_wins
        self.problems = list(flags.problems)
        self.warnings: list[Problem] = []

    def read(self, config: type[T]) -> T | None:
        """``config`` filled; None where something was wrong, and then `check` raises.

        Where a field is wrong the others are still held against the rules between fields, with its default for it;
        what such a rule says about the field itself is left out.
        """
        before = len(self.problems)
        values: dict[str, object] = {}
        known = settings(config)
        for one in known:
            self._read_one(one, values)
        if any(one.required and one.name not in values for one in known):
            return None
        try:
            made = config(**values)
            return made if len(self.problems) == before else None
        except ConfigError as error:  # rules between fields, in the dataclass's __post_init__
            told = {problem.where.partition(":")[0] for problem in self.problems[before:]}
            self.problems += [
                problem for problem in error.problems if told.isdisjoint(problem.where.replace(",", " ").split())
            ]
            return None

    def given(self, *names: str) -> bool:
        """Whether any of these flags and variables was given something, right or wrong."""
        return any(name in self._flags.given or self._env.get(name) for name in names)

    def check(self) -> None:
        """Raise `ConfigError` if anything was wrong."""
        if self.problems:
            raise ConfigError(self.problems)

    def _read_one(self, known: Setting[object], values: dict[str, object]) -> None:
        found = self._find(known)
        if found is None:
            if known.required:
                names = " or ".join(([f"--{known.flag}"] if known.flag else []) + list(known.env))
                self.problems.append(Problem(names, f"is not set: {known.help}"))
            return
        where, value = found
        report = self.warnings if known.tolerant else self.problems
        try:
            values[known.name] = known.parse(value)
        except ConfigError as error:
            report.extend(Problem(f"{where}: {problem.where}", problem.what) for problem in error.problems)
        except ValueError as error:
            shown = "" if known.secret else f"{_short(value)} "
            report.append(Problem(where, f"{shown}{error}"))

    def _find(self, known: Setting[object]) -> tuple[str, str] | None:
        places = [_from_flag(known, self._flags.given), _from_env(known, self._env)]
        if self._environment_wins:
            places.reverse()
        return next((place for place in places if place is not None), None)


def read(config: type[T], env: Mapping[str, str], flags: Flags = Flags({}, ())) -> T:
    """The configuration that flags and variables say. Raises `ConfigError` with every problem there is."""
    collector = Collector(env, flags)
    values = collector.read(config)
    collector.check()
    return cast("T", values)


def one_of(kind: type[E]) -> Callable[[str], E]:
    """A parser for the values of an enum, by their text."""

    def parse(text: str) -> E:
        for member in kind:
            if text == member.value:
                return member
        raise ValueError(f"is not one of {', '.join(str(member.value) for member in kind)}")

    return parse


def text(value: str) -> str:
    """Any text."""
    return value


def boolean(value: str) -> bool:
    """What Go's ``strconv.ParseBool`` reads."""
    if value in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if value in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError("is not true or false")


def integer(low: int, high: int) -> Callable[[str], int]:
    """A parser for whole numbers from ``low`` to ``high``."""

    def parse(value: str) -> int:
        try:
            number = int(value) if len(value) < 20 else high + 1
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise ValueError(f"is not a whole number from {low} to {high}")
        return number

    return parse


def json_object(value: str) -> dict[str, object]:
    """A JSON object."""
    try:
        parsed = json.loads(value)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(parsed, dict):
        raise ValueError("is not a JSON object")
    return parsed


def _from_flag(known: Setting[object], flags: Mapping[str, tuple[str, ...]]) -> tuple[str, str] | None:
    if known.flag not in flags:
        return None
    return f"--{known.flag}", "\n".join(flags[known.flag])


def _from_env(known: Setting[object], env: Mapping[str, str]) -> tuple[str, str] | None:
    # Knative's controllers send empty strings for what is not there (contract/core.md 0.1): empty means unset.
    for name in known.env:
        if env.get(name) or (known.empty_allowed and name in env):
            return name, env[name]
    return None


def _nearest(word: str, known: Iterable[str]) -> str:
    import difflib  # noqa: PLC0415 - only on the way to an error message

    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean --{close[0]}?" if close else ""


def _words(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, enum.Enum):
        return str(value.value)
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def _short(value: str, limit: int = 60) -> str:
    quoted = ascii(value)
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}… ({len(value)} characters)"


def known_names(configs: Iterable[type]) -> Iterator[str]:
    """Every variable that these configurations read."""
    for config in configs:
        for known in settings(config):
            yield from known.env
