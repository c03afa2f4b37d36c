"""From the text of an expression to its tree (specification, 2, and the grammar that is published with it)."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from wellhead.errors import InvalidExpression

from .functions import function
from .like import Pattern
from .tree import Arithmetic, Attribute, Call, Comparison, Exists, Expression, In, Like, Literal, Logic, Negate, Not
from .values import integer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .tree import Node

MAX_CHARACTERS: Final = 8192
MAX_DEPTH: Final = 30
"""Parentheses, functions and unary operators inside one another."""

_TESTS: Final = 2  # LIKE or IN of what is itself a LIKE or IN makes little sense, and each nests as well


def parse(text: str) -> Expression:
    """The expression that ``text`` is. Raises `InvalidExpression`, and nothing else."""
    if len(text) > MAX_CHARACTERS:
        raise InvalidExpression(MAX_CHARACTERS, f"an expression has at most {MAX_CHARACTERS} characters")
    return _Parser(text).whole()


# A number is told from a name by having no letters: 10 is one, 10a an attribute's name.
_TOKEN: Final = re.compile(
    r"""
    (?P<space> [ \t\r\n]+ )
  | (?P<string> ' (?: \\[\s\S] | '' | [^'\\] )* ' | " (?: \\[\s\S] | "" | [^"\\] )* " )
  | (?P<sign> <> | != | >= | <= | [=<>+\-*/%(),] )
  | (?P<number> [0-9]+ (?! [A-Za-z0-9_] ) )
  | (?P<word> [A-Za-z0-9_]+ )
    """,
    re.VERBOSE,
)
_NAME: Final = re.compile(r"[A-Za-z0-9]+")
_FUNCTION: Final = re.compile(r"[A-Za-z][A-Za-z_]*")
_OPENS: Final = re.compile(r"[ \t\r\n]*\(")
_KEYWORDS: Final = frozenset(("AND", "OR", "XOR", "NOT", "LIKE", "EXISTS", "IN", "TRUE", "FALSE"))
_END: Final = ("end", "")


class _Parser:
    """Reads tokens from the left, one ahead. Each method takes what it is named after, or raises `InvalidExpression`."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = _tokens(text)
        self._depth = 0
        self._unknown: list[str] = []
        self._kind, self._word, self._at = "", "", 0
        self._advance()

    def whole(self) -> Expression:
        root = self._expression()
        if self._kind != "end":
            raise self._unexpected("an operator or the end")
        return Expression(self._text, root, tuple(dict.fromkeys(self._unknown)))

    def _expression(self) -> Node:
        operands = [self._comparison()]
        operators: list[str] = []
        while self._word in ("AND", "OR", "XOR"):
            operators.append(self._take())
            operands.append(self._comparison())
        return Logic(tuple(operands), tuple(operators)) if operators else operands[0]

    def _comparison(self) -> Node:
        first = self._sum()
        rest: list[tuple[str, Node]] = []
        while self._word in ("=", "!=", "<>", ">=", "<=", "<", ">"):
            rest.append((self._take(), self._sum()))
        return Comparison(first, tuple(rest)) if rest else first

    def _sum(self) -> Node:
        first = self._product()
        rest: list[tuple[str, Node]] = []
        while self._word in ("+", "-"):
            rest.append((self._take(), self._product()))
        return Arithmetic(first, tuple(rest)) if rest else first

    def _product(self) -> Node:
        first = self._tested()
        rest: list[tuple[str, Node]] = []
        while self._word in ("*", "/", "%"):
            rest.append((self._take(), self._tested()))
        return Arithmetic(first, tuple(rest)) if rest else first

    def _tested(self) -> Node:
        """An operand, and what is asked of it: ``[NOT] LIKE 'pattern'``, ``[NOT] IN (…)``."""
        node = self._operand()
        tests = 0
        while self._word in ("LIKE", "IN", "NOT"):
            tests += 1
            if tests > _TESTS:
                raise InvalidExpression(self._at, f"{self._word} after {_TESTS} tests of the same operand")
            negated = self._word == "NOT"
            if negated:
                self._advance()
            node = Not(self._test(node)) if negated else self._test(node)
        return node

    def _test(self, node: Node) -> Node:
        if self._word == "LIKE":
            self._advance()
            return Like(node, Pattern(self._string("a string, the pattern of LIKE")))
        if self._word == "IN":
            self._advance()
            return In(node, self._list(may_be_empty=False))
        raise self._unexpected("LIKE or IN")

    def _operand(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self._too_deep()
        node = self._unary_or_atom()
        self._depth -= 1
        return node

    def _unary_or_atom(self) -> Node:
        match self._kind, self._word:
            case _, "NOT":
                self._take()
                return Not(self._operand())
            case _, "EXISTS":
                self._take()
                return Exists(self._name())
            case "sign", "+" | "-":
                return self._signed()
            case "sign", "(":
                self._take()
                inner = self._expression()
                self._expect(")")
                return inner
            case "number", digits:
                return Literal(self._integer(digits))
            case "string", _:
                return Literal(self._string("a string"))
            case _, "TRUE" | "FALSE":
                return Literal(self._take() == "TRUE")
        return self._named()

    def _signed(self) -> Node:
        """A sign right before digits is the number's; else ``-`` is an operator and ``+`` none."""
        at, sign = self._at, self._take()
        if self._kind == "number" and self._at == at + 1:
            return Literal(self._integer(sign + self._word))
        if sign == "+":
            raise InvalidExpression(at, "+ is neither a number's sign nor between two operands")
        return Negate(self._operand())

    def _named(self) -> Node:
        """A function's call or an attribute."""
        if self._kind != "word" or self._word in _KEYWORDS:
            raise self._unexpected("an operand")
        at, word = self._at, self._word
        if self._calls():
            if not _FUNCTION.fullmatch(word):
                raise InvalidExpression(at, f"{word[:40]} is no name of a function: letters and _")
            self._advance()
            arguments = self._list(may_be_empty=True)
            found = function(word, len(arguments))
            if found is None:
                self._unknown.append(f"{word}/{len(arguments)}")
            return Call(word, found, arguments)
        return Attribute(self._name())

    def _list(self, *, may_be_empty: bool) -> tuple[Node, ...]:
        self._expect("(")
        if may_be_empty and self._word == ")" and self._kind == "sign":
            self._advance()
            return ()
        nodes = [self._expression()]
        while self._kind == "sign" and self._word == ",":
            self._advance()
            nodes.append(self._expression())
        self._expect(")")
        return tuple(nodes)

    def _name(self) -> str:
        if self._kind not in ("word", "number") or self._word in _KEYWORDS or not _NAME.fullmatch(self._word):
            raise self._unexpected("an attribute's name")
        return self._take().lower()

    def _string(self, wanted: str) -> str:
        if self._kind != "string":
            raise self._unexpected(wanted)
        quoted = self._take()
        return quoted[1:-1].replace("\\" + quoted[0], quoted[0])

    def _integer(self, digits: str) -> int:
        at = self._at
        self._advance()
        if len(digits) <= 12:
            number = int(digits)
            if -(2**31) <= number < 2**31:
                return integer(number)
        raise InvalidExpression(at, f"{digits[:20]} does not fit the 32 bits of an integer")

    def _expect(self, sign: str) -> None:
        if self._kind != "sign" or self._word != sign:
            raise self._unexpected(sign)
        self._advance()

    def _take(self) -> str:
        word = self._word
        self._advance()
        return word

    def _calls(self) -> bool:
        """Whether a parenthesis follows the word."""
        return _OPENS.match(self._text, self._at + len(self._word)) is not None

    def _advance(self) -> None:
        self._kind, self._word, self._at = next(self._tokens)

    def _unexpected(self, wanted: str) -> InvalidExpression:
        found = "the end" if self._kind == "end" else ascii(self._word[:40])
        return InvalidExpression(self._at, f"expected {wanted}, found {found}")

    def _too_deep(self) -> InvalidExpression:
        return InvalidExpression(self._at, f"is nested deeper than {MAX_DEPTH}")


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    """Kind, text and offset of each token; words in upper case, as keywords and functions are in any."""
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            what = "a string without end" if text[at] in "'\"" else f"{text[at]!a} is no part of an expression"
            raise InvalidExpression(at, what)
        kind = match.lastgroup or ""
        if kind == "word":
            yield kind, match[0].upper(), at
        elif kind != "space":
            yield kind, match[0], at
        at = match.end()
    while True:
        yield (*_END, at)
