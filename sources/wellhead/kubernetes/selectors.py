"""Label and field selectors as Kubernetes reads them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from wellhead.errors import ConfigError, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

_NAME: Final = r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_KEY: Final = re.compile(rf"(?:[a-z0-9](?:[-a-z0-9.]{{0,251}}[a-z0-9])?/)?{_NAME}")
_VALUE: Final = re.compile(rf"(?:{_NAME})?")
_SET: Final = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_COMPARED: Final = re.compile(r"([^=!<>\s]+)\s*(==|=|!=|>|<)\s*([^=!<>\s]*)")
_EXISTS: Final = re.compile(r"(!?)\s*([^=!<>\s]+)")
_REQUIREMENT: Final = re.compile(r"(?:[^,(]|\([^)]*\))+")
_INTEGER: Final = re.compile(r"[+-]?\d{1,18}")
_OPERATORS: Final = {"In": "in", "NotIn": "notin", "Exists": "exists", "DoesNotExist": "!"}


@dataclass(frozen=True, slots=True)
class Requirement:
    """One condition on one label. Raises ValueError with the rule that it breaks."""

    key: str
    operator: str
    """``in``, ``notin``, ``exists``, ``!``, ``>`` or ``<``; ``a=b`` is ``a in (b)``."""
    values: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _KEY.fullmatch(self.key):
            raise ValueError(f"has {self.key!r}, which is no label key")
        if self.operator in ("in", "notin") and not self.values:
            raise ValueError(f"has no values for {self.key!r}")
        for value in self.values:
            if not _VALUE.fullmatch(value):
                raise ValueError(f"has {value!r}, which is no label value")
            if self.operator in ("<", ">") and not _INTEGER.fullmatch(value):
                raise ValueError(f"compares with {value!r}, which is no integer")

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether an object with these labels is meant. What is absent is not in any set."""
        value = labels.get(self.key)
        match self.operator:
            case "exists":
                return value is not None
            case "!":
                return value is None
            case "in":
                return value in self.values
            case "notin":
                return value not in self.values
            case _:
                if value is None or not _INTEGER.fullmatch(value):
                    return False
                return int(value) > int(self.values[0]) if self.operator == ">" else int(value) < int(self.values[0])

    def __str__(self) -> str:
        match self.operator:
            case "exists" | "!":
                return f"{'!' if self.operator == '!' else ''}{self.key}"
            case "in" | "notin":
                if len(self.values) == 1:
                    return f"{self.key}{'=' if self.operator == 'in' else '!='}{self.values[0]}"
                return f"{self.key} {self.operator} ({','.join(sorted(self.values))})"
            case _:
                return f"{self.key}{self.operator}{self.values[0]}"


@dataclass(frozen=True, slots=True)
class LabelSelector:
    """Every requirement must hold; where there is none, everything is meant."""

    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __str__(self) -> str:
        return ",".join(map(str, sorted(self.requirements, key=lambda one: one.key)))


def parse_labels(text: str) -> LabelSelector:
    """A label selector as text: ``app=web,tier in (a,b),!canary``. Raises ValueError with the rule."""
    if not text.strip():
        return LabelSelector()
    parts = _REQUIREMENT.findall(text)
    if ",".join(parts) != text:
        raise ValueError("is no label selector such as app=web,tier in (front,back),!canary")
    return LabelSelector(tuple(_requirement(part.strip()) for part in parts))


def _requirement(text: str) -> Requirement:
    if match := _SET.fullmatch(text):
        return Requirement(match[1], match[2], tuple(value.strip() for value in match[3].split(",")))
    if match := _COMPARED.fullmatch(text):
        operator = {"=": "in", "==": "in", "!=": "notin"}.get(match[2], match[2])
        return Requirement(match[1], operator, (match[3],))
    if match := _EXISTS.fullmatch(text):
        return Requirement(match[2], "!" if match[1] else "exists")
    raise ValueError(f"has {text!r}, which is no requirement such as app=web")


def label_selector(value: object, path: str) -> LabelSelector:
    """A LabelSelector object (``matchLabels``, ``matchExpressions``). Raises `ConfigError` with every problem by path."""
    problems: list[Problem] = []
    found: list[Requirement] = []
    if not isinstance(value, Mapping):
        raise ConfigError([Problem(path, "is not an object")])
    problems += [
        Problem(f"{path}.{name}", "unknown field; known are matchLabels, matchExpressions")
        for name in value
        if name not in ("matchLabels", "matchExpressions")
    ]
    for where, requirement in _members(value, path, problems):
        try:
            found.append(Requirement(*requirement))
        except ValueError as error:
            problems.append(Problem(where, str(error)))
    if problems:
        raise ConfigError(problems)
    return LabelSelector(tuple(found))


def _members(
    value: Mapping[str, object], path: str, problems: list[Problem]
) -> Iterator[tuple[str, tuple[str, str, tuple[str, ...]]]]:
    labels = value.get("matchLabels") or {}
    if isinstance(labels, Mapping):
        for key, wanted in labels.items():
            yield f"{path}.matchLabels.{key}", (str(key), "in", (str(wanted),))
    else:
        problems.append(Problem(f"{path}.matchLabels", "is not an object"))
    expressions = value.get("matchExpressions") or []
    if not isinstance(expressions, list):
        problems.append(Problem(f"{path}.matchExpressions", "is not a list"))
        return
    for number, one in enumerate(expressions):
        where = f"{path}.matchExpressions[{number}]"
        operator = _OPERATORS.get(str(one.get("operator"))) if isinstance(one, Mapping) else None
        values = one.get("values") or [] if isinstance(one, Mapping) else None
        if operator is None or not isinstance(values, list):
            problems.append(Problem(where, f"needs key, operator ({', '.join(_OPERATORS)}) and values"))
        elif operator in ("exists", "!") and values:
            problems.append(Problem(f"{where}.values", "must be empty for Exists and DoesNotExist"))
        else:
            yield where, (str(one.get("key") or ""), operator, tuple(map(str, values)))


def parse_fields(text: str) -> tuple[tuple[str, str, str], ...]:
    """A field selector: field, ``=`` or ``!=``, value for each term. Raises ValueError with the rule.

    Which fields a kind has, only the server knows.
    """
    terms = []
    for term in re.split(r"(?<!\\),", text):
        if not term:
            continue
        match = re.fullmatch(r"([^=!]*)(!=|==|=)((?:[^\\,=]|\\[\\,=])*)", term)
        if match is None:
            raise ValueError(f"has {term!r}, which is no term such as metadata.name=web or status.phase!=Running")
        terms.append((match[1], "!=" if match[2] == "!=" else "=", re.sub(r"\\(.)", r"\1", match[3])))
    return tuple(terms)
