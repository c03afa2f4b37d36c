"""An expression as a tree of values, and its evaluation in fail-fast mode (specification, 4.1).

Chains of one precedence are a node each, so that only parentheses, functions and unary operators nest.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

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
    integer,
    kind_of,
)

if TYPE_CHECKING:
    from wellhead.event import CloudEvent

    from .functions import Function
    from .like import Pattern


@dataclass(frozen=True, slots=True)
class Result:
    """What an evaluation gave. Where there is an error, ``value`` is what total functions give nevertheless."""

    value: Value
    error: EvaluationError | None = None


class Node(Protocol):
    """A part of an expression."""

    @property
    def returns(self) -> Kind:
        """Its type; Boolean where it cannot be told before the evaluation (3.2)."""

    def value(self, scope: Scope, /) -> Value:
        """Raises `EvaluationError`."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A whole expression. Immutable; evaluates any number of events."""

    text: str
    root: Node
    unknown_functions: tuple[str, ...] = ()
    """Functions it calls that there are not, as ``NAME/arguments``: their call is a MissingFunctionError."""

    def evaluate(self, event: CloudEvent) -> Result:
        """The value for ``event``. Raises nothing, and ends within `MAX_STEPS`."""
        try:
            return Result(self.root.value(Scope(event)))
        except EvaluationError as error:
            own = error.value if isinstance(self.root, Call) else None
            return Result(self.root.returns.zero if own is None else own, error)

    def passes(self, event: CloudEvent) -> bool:
        """Whether, as a filter, it lets ``event`` through: true, a Boolean, and no error (1.2)."""
        result = self.evaluate(event)
        return result.value is True and result.error is None


@dataclass(frozen=True, slots=True)
class Literal:
    literal: Value

    @property
    def returns(self) -> Kind:
        return kind_of(self.literal)

    def value(self, scope: Scope) -> Value:
        scope.spend(1)
        return self.literal


@dataclass(frozen=True, slots=True)
class Attribute:
    name: str
    returns: Kind = Kind.BOOLEAN

    def value(self, scope: Scope) -> Value:
        found = scope.attribute(self.name)
        if found is None:
            raise EvaluationError(ErrorKind.MISSING_ATTRIBUTE, f"the event has no {self.name}")
        scope.spend(_length(found))
        return found


@dataclass(frozen=True, slots=True)
class Exists:
    name: str
    returns: Kind = Kind.BOOLEAN

    def value(self, scope: Scope) -> bool:
        scope.spend(1)
        return scope.attribute(self.name) is not None


@dataclass(frozen=True, slots=True)
class Not:
    operand: Node
    returns: Kind = Kind.BOOLEAN

    def value(self, scope: Scope) -> bool:
        return not as_boolean(self.operand.value(scope))


@dataclass(frozen=True, slots=True)
class Negate:
    operand: Node
    returns: Kind = Kind.INTEGER

    def value(self, scope: Scope) -> int:
        return integer(-as_integer(self.operand.value(scope)))


@dataclass(frozen=True, slots=True)
class Like:
    operand: Node
    pattern: Pattern
    returns: Kind = Kind.BOOLEAN

    def value(self, scope: Scope) -> bool:
        text = as_string(self.operand.value(scope))
        scope.spend(len(text) * self.pattern.cost)
        return self.pattern.matches(text)


@dataclass(frozen=True, slots=True)
class In:
    operand: Node
    elements: tuple[Node, ...]
    returns: Kind = Kind.BOOLEAN

    def value(self, scope: Scope) -> bool:
        wanted = self.operand.value(scope)
        kind = kind_of(wanted)
        for element in self.elements:
            found = element.value(scope)
            scope.spend(_length(found))
            if cast_to(kind, found) == wanted:
                return True
        return False


@dataclass(frozen=True, slots=True)
class Call:
    name: str
    function: Function | None
    arguments: tuple[Node, ...]

    @property
    def returns(self) -> Kind:
        return self.function.returns if self.function is not None else Kind.BOOLEAN

    def value(self, scope: Scope) -> Value:
        if self.function is None:
            what = f"there is no {self.name} with {len(self.arguments)} arguments"
            raise EvaluationError(ErrorKind.MISSING_FUNCTION, what)
        return self.function.call(scope, [_inner(argument, scope) for argument in self.arguments])


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """``first`` and then each operator with its operand, from the left; all of one precedence."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    returns: Kind = Kind.INTEGER

    def value(self, scope: Scope) -> int:
        left: Value = self.first.value(scope)
        for sign, node in self.rest:
            right = node.value(scope)
            left = integer(_ARITHMETIC[sign](as_integer(left), as_integer(right)))
        return as_integer(left)


@dataclass(frozen=True, slots=True)
class Comparison:
    """``first`` and then each operator with its operand, from the left."""

    first: Node
    rest: tuple[tuple[str, Node], ...]
    returns: Kind = Kind.BOOLEAN

    def value(self, scope: Scope) -> Value:
        left: Value = self.first.value(scope)
        for sign, node in self.rest:
            right = node.value(scope)
            if sign in _EQUALITY:
                scope.spend(_length(right))
                # Equality takes three pairs of types; the right operand's type says which (3.7).
                left = (cast_to(kind_of(right), left) == right) == (sign == "=")
            else:
                left = _ORDER[sign](as_integer(left), as_integer(right))
        return left


@dataclass(frozen=True, slots=True)
class Logic:
    """Operands and the operators between them, grouped from the right; what decides early ends the evaluation."""

    operands: tuple[Node, ...]
    operators: tuple[str, ...]
    returns: Kind = Kind.BOOLEAN

    def value(self, scope: Scope) -> bool:
        flip = False
        for node, word in zip(self.operands, self.operators, strict=False):
            left = as_boolean(node.value(scope))
            if word == "XOR":
                flip ^= left
            elif left == (word == "OR"):
                return left ^ flip
        return as_boolean(self.operands[-1].value(scope)) ^ flip


def _inner(node: Node, scope: Scope) -> Value:
    """An argument's value; the value of its error is not the call's."""
    try:
        return node.value(scope)
    except EvaluationError as error:
        error.value = None
        raise


def _length(value: Value) -> int:
    return 1 + len(value) if isinstance(value, str) else 1


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise EvaluationError(ErrorKind.MATH, "division by zero")
    quotient = abs(left) // abs(right)  # towards zero, not down, as Python's own
    return quotient if (left < 0) == (right < 0) else -quotient


def _remainder(left: int, right: int) -> int:
    return left - right * _divide(left, right)


_ARITHMETIC: Final[Mapping[str, Callable[[int, int], int]]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": _divide,
    "%": _remainder,
}
_EQUALITY: Final = ("=", "!=", "<>")
_ORDER: Final[Mapping[str, Callable[[int, int], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
