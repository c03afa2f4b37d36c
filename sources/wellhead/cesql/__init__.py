"""CESQL, the CloudEvents SQL Expression Language 1.0: an expression over one event's attributes, as a value. Pure.

It never sees data. Nothing it is given makes it raise anything but `InvalidExpression` (from `parse`), nor run longer
than its limits allow: `MAX_CHARACTERS` and `MAX_DEPTH` for an expression, `MAX_STEPS` for one evaluation.

Where the text of the specification leaves room, this does as the grammar beside it and the Go SDK, which Knative uses:
``AND``, ``OR`` and ``XOR`` bind equally and group from the right (``a AND b OR c`` is ``a AND (b OR c)``), and attribute
names are taken in any case. Unlike there, ``4-1`` is a subtraction, characters are Unicode's, and integers do not
overflow silently: that is a MathError.
"""

from __future__ import annotations

from wellhead.errors import InvalidExpression

from .syntax import MAX_CHARACTERS, MAX_DEPTH, parse
from .tree import Expression, Result
from .values import MAX_STEPS, ErrorKind, EvaluationError, Value

__all__ = [
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "MAX_STEPS",
    "ErrorKind",
    "EvaluationError",
    "Expression",
    "InvalidExpression",
    "Result",
    "Value",
    "parse",
]
