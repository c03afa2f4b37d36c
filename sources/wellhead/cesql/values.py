"""The values of CESQL, their casts (specification, 3.7), its errors (3.3), and what an evaluation may cost."""

from __future__ import annotations

import base64
import enum
import re
from typing import TYPE_CHECKING, Final, TypeAlias

from wellhead.errors import WellheadError

if TYPE_CHECKING:
    from wellhead.event import CloudEvent

Value: TypeAlias = str | int | bool

MAX_STEPS: Final = 2_000_000
"""Characters looked at or made in one evaluation, about; a tenth of a second at most."""

_LOWEST: Final = -(2**31)
_HIGHEST: Final = 2**31 - 1
_INTEGER: Final = re.compile(r"[+-]?[0-9]+")
_DIGITS: Final = 10  # of the largest integer


class Kind(enum.Enum):
    """The types (3.1)."""

    STRING = "String"
    INTEGER = "Integer"
    BOOLEAN = "Boolean"

    @property
    def zero(self) -> Value:
        """What stands for a value where there is none."""
        zeros: dict[Kind, Value] = {Kind.STRING: "", Kind.INTEGER: 0, Kind.BOOLEAN: False}
        return zeros[self]


class ErrorKind(enum.Enum):
    """What goes wrong in an evaluation. A ParseError is `InvalidExpression`, raised before there is one."""

    MATH = "MathError"
    CAST = "CastError"
    MISSING_ATTRIBUTE = "MissingAttributeError"
    MISSING_FUNCTION = "MissingFunctionError"
    FUNCTION_EVALUATION = "FunctionEvaluationError"
    GENERIC = "GenericError"


class EvaluationError(WellheadError):
    """Why an evaluation stopped (fail-fast mode, 4.1). ``value`` is what the operator or function gives nevertheless."""

    def __init__(self, kind: ErrorKind, what: str, value: Value | None = None) -> None:
        self.kind = kind
        self.value = value
        super().__init__(f"{kind.value}: {what}")


class Scope:
    """What an evaluation sees: the event's attributes, and how many steps it may still take."""

    __slots__ = ("_event", "_left")

    def __init__(self, event: CloudEvent) -> None:
        self._event = event
        self._left = MAX_STEPS

    def attribute(self, name: str) -> Value | None:
        """The attribute's or extension's value as one of CESQL's types; None where the event has none (3.2)."""
        found = self._event.extensions.get(name)
        if found is None and name in _ATTRIBUTES:
            found = getattr(self._event, name)
        return base64.b64encode(found).decode() if isinstance(found, bytes) else found

    def spend(self, steps: int) -> None:
        """Count ``steps`` more. Raises `EvaluationError` once it is too many."""
        self._left -= steps
        if self._left < 0:
            raise EvaluationError(ErrorKind.GENERIC, f"takes more than {MAX_STEPS} steps")


_ATTRIBUTES: Final = frozenset(
    ("specversion", "id", "source", "type", "subject", "time", "datacontenttype", "dataschema")
)


def kind_of(value: Value) -> Kind:
    """The type of ``value``; a bool is an int to Python, and none here."""
    if isinstance(value, bool):
        return Kind.BOOLEAN
    return Kind.INTEGER if isinstance(value, int) else Kind.STRING


def cast_to(kind: Kind, value: Value) -> Value:
    """``value`` as ``kind``. Raises `EvaluationError` (CastError)."""
    if kind is Kind.STRING:
        return as_string(value)
    return as_integer(value) if kind is Kind.INTEGER else as_boolean(value)


def as_string(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def as_integer(value: Value) -> int:
    """Raises `EvaluationError` where a string is no 32 bit integer."""
    if not isinstance(value, str):
        return int(value)
    if _INTEGER.fullmatch(value) and len(value.lstrip("+-").lstrip("0")) <= _DIGITS:
        number = int(value)
        if _LOWEST <= number <= _HIGHEST:
            return number
    raise EvaluationError(ErrorKind.CAST, f"{_shown(value)} is no 32 bit integer", 0)


def as_boolean(value: Value) -> bool:
    """Raises `EvaluationError` where a string is neither true nor false."""
    if not isinstance(value, str):
        return bool(value)
    lowered = value.lower() if len(value) <= len("false") else ""
    if lowered in ("true", "false"):
        return lowered == "true"
    raise EvaluationError(ErrorKind.CAST, f"{_shown(value)} is neither true nor false", value=False)


def integer(number: int) -> int:
    """``number``, if it has 32 bits. Raises `EvaluationError` (MathError)."""
    if not _LOWEST <= number <= _HIGHEST:
        raise EvaluationError(ErrorKind.MATH, "the result does not fit the 32 bits of an integer", 0)
    return number


def _shown(text: str) -> str:
    return ascii(text[:40]) + ("…" if len(text) > 40 else "")
