"""The built-in functions (specification, 3.5). Arguments come cast; each function is total, or raises EvaluationError."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias, cast

from .values import (
    ErrorKind,
    EvaluationError,
    Kind,
    Scope,
    Value,
    as_boolean,
    as_integer,
    as_string,
    cast_to,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

Parameter: TypeAlias = Kind | None
"""None: any type."""

_MOST: Final = 2**31 - 1
# Unicode's White_Space, which str.strip() goes beyond: it takes the separators U+001C to U+001F as well.
_WHITESPACE: Final = "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"


@dataclass(frozen=True, slots=True)
class Function:
    """One function: what it gives, what it takes, and what it does. ``rest`` are further arguments, if any are taken."""

    returns: Kind
    takes: tuple[Parameter, ...]
    does: Callable[..., Value]
    rest: bool = False

    def call(self, scope: Scope, arguments: Sequence[Value]) -> Value:
        """Raises `EvaluationError`. Counts the characters that it is given."""
        wanted = [*self.takes, *[Kind.STRING] * (len(arguments) - len(self.takes))]
        ready = [value if kind is None else cast_to(kind, value) for kind, value in zip(wanted, arguments, strict=True)]
        scope.spend(1 + sum(len(value) for value in ready if isinstance(value, str)))
        return self.does(*ready)


def function(name: str, count: int) -> Function | None:
    """The function called ``name`` (in upper case) that takes ``count`` arguments."""
    for candidate in _FUNCTIONS.get(name, ()):
        if len(candidate.takes) == count or (candidate.rest and count > len(candidate.takes)):
            return candidate
    return None


def _absolute(number: int) -> int:
    if number == -_MOST - 1:
        raise EvaluationError(ErrorKind.MATH, "ABS of the lowest integer does not fit 32 bits", _MOST)
    return abs(number)


def _concat(*parts: str) -> str:
    return "".join(parts)


def _concat_ws(delimiter: str, *parts: str) -> str:
    return delimiter.join(parts)


def _left(text: str, count: int) -> str:
    if count < 0:
        raise EvaluationError(ErrorKind.FUNCTION_EVALUATION, f"LEFT of {count} characters", text)
    return text[:count]


def _right(text: str, count: int) -> str:
    if count < 0:
        raise EvaluationError(ErrorKind.FUNCTION_EVALUATION, f"RIGHT of {count} characters", text)
    return text[-count:] if count else ""


def _substring(text: str, position: int, length: int = _MOST) -> str:
    if abs(position) > len(text):
        raise EvaluationError(ErrorKind.FUNCTION_EVALUATION, f"SUBSTRING from {position} of {len(text)}", "")
    if length < 0:
        raise EvaluationError(ErrorKind.FUNCTION_EVALUATION, f"SUBSTRING of {length} characters", "")
    if position == 0:
        return ""
    begin = position - 1 if position > 0 else len(text) + position
    return text[begin : begin + length]


def _is(cast_it: Callable[[Value], Value]) -> Callable[[Value], bool]:
    def castable(value: Value) -> bool:
        try:
            cast_it(value)
        except EvaluationError:
            return False
        return True

    return castable


def _trim(text: str) -> str:
    return text.strip(_WHITESPACE)


_FUNCTIONS: Final[dict[str, tuple[Function, ...]]] = {
    "LENGTH": (Function(Kind.INTEGER, (Kind.STRING,), cast("Callable[..., Value]", len)),),
    "CONCAT": (Function(Kind.STRING, (), _concat, rest=True),),
    "CONCAT_WS": (Function(Kind.STRING, (Kind.STRING,), _concat_ws, rest=True),),
    "LOWER": (Function(Kind.STRING, (Kind.STRING,), str.lower),),
    "UPPER": (Function(Kind.STRING, (Kind.STRING,), str.upper),),
    "TRIM": (Function(Kind.STRING, (Kind.STRING,), _trim),),
    "LEFT": (Function(Kind.STRING, (Kind.STRING, Kind.INTEGER), _left),),
    "RIGHT": (Function(Kind.STRING, (Kind.STRING, Kind.INTEGER), _right),),
    "SUBSTRING": (
        Function(Kind.STRING, (Kind.STRING, Kind.INTEGER), _substring),
        Function(Kind.STRING, (Kind.STRING, Kind.INTEGER, Kind.INTEGER), _substring),
    ),
    "ABS": (Function(Kind.INTEGER, (Kind.INTEGER,), _absolute),),
    # Not in the tables of 3.5; the conformance suite and Knative's engine have them.
    "INT": (Function(Kind.INTEGER, (None,), as_integer),),
    "BOOL": (Function(Kind.BOOLEAN, (None,), as_boolean),),
    "STRING": (Function(Kind.STRING, (None,), as_string),),
    "IS_INT": (Function(Kind.BOOLEAN, (None,), _is(as_integer)),),
    "IS_BOOL": (Function(Kind.BOOLEAN, (None,), _is(as_boolean)),),
}
