"""Which events a source sends: the filter dialects of the Subscriptions API, over a finished event's attributes. Pure.

``exact``, ``prefix``, ``suffix``, ``all``, ``any``, ``not`` and ``cesql``, as a ``filters`` list in Knative holds them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

from .cesql import Expression, InvalidExpression, parse
from .cesql.values import Scope, as_string
from .errors import ConfigError, Problem

if TYPE_CHECKING:
    from .event import CloudEvent

MAX_DEPTH: Final = 30
"""``all``, ``any`` and ``not`` inside one another."""
_NAME: Final = re.compile(r"[a-z0-9]+")


class Filter(Protocol):
    """Says of any event whether it passes. Raises nothing."""

    def passes(self, event: CloudEvent, /) -> bool: ...


_Compare: TypeAlias = Callable[[str, str], bool]
_TEXT_DIALECTS: Final[Mapping[str, _Compare]] = {
    "exact": str.__eq__,
    "prefix": str.startswith,
    "suffix": str.endswith,
}


@dataclass(frozen=True, slots=True)
class _Text:
    """Every one of these attributes is there, and compares as wanted."""

    dialect: str
    wanted: tuple[tuple[str, str], ...]

    def passes(self, event: CloudEvent) -> bool:
        scope = Scope(event)
        compare = _TEXT_DIALECTS[self.dialect]
        for name, text in self.wanted:
            found = scope.attribute(name)
            if found is None or not compare(as_string(found), text):
                return False
        return True


@dataclass(frozen=True, slots=True)
class All:
    """Passes what every one of ``filters`` passes; where there is none, everything."""

    filters: tuple[Filter, ...] = ()

    def passes(self, event: CloudEvent) -> bool:
        """See `Filter`."""
        return all(one.passes(event) for one in self.filters)


@dataclass(frozen=True, slots=True)
class _Any:
    filters: tuple[Filter, ...]

    def passes(self, event: CloudEvent) -> bool:
        return any(one.passes(event) for one in self.filters)


@dataclass(frozen=True, slots=True)
class _Not:
    filter: Filter

    def passes(self, event: CloudEvent) -> bool:
        return not self.filter.passes(event)


def parse_filters(value: object, where: str = "filters") -> All:
    """The filter that a ``filters`` list is; an event passes if every element passes it. None is an empty list.

    Raises `ConfigError` with every problem by path (``filters[1].exact.type``). Knative's own adapter lets everything
    through where a filter is broken.
    """
    if value is None:
        return All()
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise ConfigError([Problem(where, "is not a list of filters")])
    problems: list[Problem] = []
    filters = tuple(_filters(value, where, problems, MAX_DEPTH))
    if problems:
        raise ConfigError(problems)
    return All(filters)


def _filters(values: Sequence[object], where: str, problems: list[Problem], depth: int) -> Iterator[Filter]:
    for number, value in enumerate(values):
        found = _filter(value, f"{where}[{number}]", problems, depth)
        if found is not None:
            yield found


def _filter(value: object, where: str, problems: list[Problem], depth: int) -> Filter | None:
    """The filter at ``where``; None where it is broken, which ``problems`` tells then."""
    if depth == 0:
        problems.append(Problem(where[:80], f"is nested deeper than {MAX_DEPTH}"))
    elif not isinstance(value, Mapping):
        problems.append(Problem(where, "is not an object such as {exact: {type: …}}"))
    elif not value:
        return All()  # Knative's webhook lets {} pass, and its adapter lets everything through it
    elif len(value) > 1:
        said = ", ".join(sorted(map(str, value)))[:80]
        problems.append(Problem(where, f"has more than one dialect: {said}; put them into all"))
    else:
        ((dialect, inside),) = value.items()
        return _of_dialect(str(dialect), inside, f"{where}.{str(dialect)[:40]}", problems, depth)
    return None


def _of_dialect(dialect: str, inside: object, where: str, problems: list[Problem], depth: int) -> Filter | None:
    match dialect:
        case "exact" | "prefix" | "suffix":
            return _text(dialect, inside, where, problems)
        case "all" | "any":
            if not isinstance(inside, Sequence) or isinstance(inside, str | bytes) or not inside:
                problems.append(Problem(where, "is not a list of at least one filter"))
                return None
            filters = tuple(_filters(inside, where, problems, depth - 1))
            return All(filters) if dialect == "all" else _Any(filters)
        case "not":
            inner = _filter(inside, where, problems, depth - 1)
            return _Not(inner) if inner is not None else None
        case "cesql":
            return _cesql(inside, where, problems)
    known = "exact, prefix, suffix, all, any, not, cesql"
    problems.append(Problem(where, f"is no dialect; known are {known}"))
    return None


def _text(dialect: str, inside: object, where: str, problems: list[Problem]) -> _Text | None:
    if not isinstance(inside, Mapping) or not inside:
        problems.append(Problem(where, "is not an object of at least one attribute and its text"))
        return None
    before = len(problems)
    for name, text in inside.items():
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            problems.append(Problem(f"{where}.{ascii(name)[:40]}", "is no attribute's name: a-z and 0-9"))
        elif not isinstance(text, str) or not text:
            problems.append(Problem(f"{where}.{name}", "is not a text of at least one character"))
    return _Text(dialect, tuple(inside.items())) if len(problems) == before else None


def _cesql(inside: object, where: str, problems: list[Problem]) -> Expression | None:
    if not isinstance(inside, str):
        problems.append(Problem(where, "is not a text"))
        return None
    try:
        expression = parse(inside)
    except InvalidExpression as invalid:
        problems.append(Problem(where, f"{_short(inside)} is no CESQL expression: {invalid}"))
        return None
    if expression.unknown_functions:
        unknown = ", ".join(expression.unknown_functions)[:80]
        problems.append(Problem(where, f"calls functions that there are not: {unknown}"))
        return None
    return expression


def _short(text: str) -> str:
    return ascii(text[:80]) + ("…" if len(text) > 80 else "")
