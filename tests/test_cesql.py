"""CESQL as the specification has it. The tables read as the cases of its conformance suite: expression, value, error."""

from __future__ import annotations

import time
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wellhead.cesql import MAX_CHARACTERS, MAX_DEPTH, ErrorKind, InvalidExpression, Result, Value, parse
from wellhead.event import CloudEvent

MATH, CAST = ErrorKind.MATH, ErrorKind.CAST
MISSING, NO_FUNCTION = ErrorKind.MISSING_ATTRIBUTE, ErrorKind.MISSING_FUNCTION
FUNCTION, GENERIC = ErrorKind.FUNCTION_EVALUATION, ErrorKind.GENERIC

EVENT: Final = CloudEvent(
    id="a-1",
    source="/garden/pond",
    type="org.example.frog.jumped",
    subject="Pond",
    time="2026-02-03T04:05:06+01:00",
    extensions={"hops": "7", "limit": 10, "wet": True, "skin": b"\x00\xff", "umlaut": "Kröte"},
)


def evaluate(text: str) -> Result:
    return parse(text).evaluate(EVENT)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # literals
        ("tRuE", True),
        ("FALSE", False),
        ("0", 0),
        ("+12", 12),
        ("-2147483648", -(2**31)),
        ("2147483647", 2**31 - 1),
        ("'a \"b\" c'", 'a "b" c'),
        ('"it\'s"', "it's"),
        (r"'it\'s'", "it's"),
        (r"'back\slash'", r"back\slash"),
        ("''", ""),
        # attributes, in any case; what is no CESQL type is a string
        ("id", "a-1"),
        ("SUBJECT", "Pond"),
        ("specversion", "1.0"),
        ("time", "2026-02-03T04:05:06+01:00"),
        ("limit", 10),
        ("wet", True),
        ("skin", "AP8="),
        ("EXISTS subject", True),
        ("EXISTS dataschema", False),
        ("NOT EXISTS dataschema", True),
        # arithmetic
        ("2 + 3 * 4", 14),
        ("(2 + 3) * 4", 20),
        ("20 / 2 / 5", 2),
        ("2 - 3 - 4", -5),
        ("7-2", 5),
        ("7 - -2", 9),
        ("-7 / 2", -3),
        ("7 / -2", -3),
        ("-7 % 2", -1),
        ("7 % -2", 1),
        ("- - 7", 7),
        ("--7", 7),
        ("-hops", -7),
        ("-TRUE", -1),
        ("hops + limit", 17),
        ("'5' + TRUE", 6),
        # comparison: the right operand's type decides about equality
        ("hops = 7", True),
        ("hops = '7'", True),
        ("'07' = 7", True),
        ("7 = '07'", False),
        ("TRUE = 'TRUE'", False),
        ("'TRUE' = TRUE", True),
        ("0 = FALSE", True),
        ("id != 'a-1'", False),
        ("id <> 'a-2'", True),
        ("hops < limit", True),
        ("limit <= '10'", True),
        ("1 < 2 = TRUE", True),
        # logic: equal precedence, grouped from the right, short
        ("TRUE AND NOT FALSE", True),
        ("FALSE AND FALSE OR TRUE", False),
        ("(FALSE AND FALSE) OR TRUE", True),
        ("TRUE OR TRUE AND FALSE", True),
        ("TRUE XOR FALSE AND FALSE", True),
        ("TRUE XOR TRUE XOR TRUE", True),
        ("FALSE AND missing = 1", False),
        ("TRUE OR 1 / 0 = 1", True),
        ("NOT 0", True),
        ("NOT 10", False),
        ("1 = 1 AND 2 = 2", True),
        # LIKE
        ("id LIKE 'a-1'", True),
        ("id LIKE 'a%'", True),
        ("id LIKE '%'", True),
        ("'' LIKE '%%'", True),
        ("'' LIKE '_'", False),
        ("id LIKE '_-_'", True),
        ("type LIKE 'org.%.frog.%ed'", True),
        ("type LIKE 'org.%.toad.%ed'", False),
        ("'abcab' LIKE '%ab'", True),
        ("'aXb' LIKE 'a%b%b'", False),
        ("'a.c' LIKE 'a.c'", True),
        ("'abc' LIKE 'a.c'", False),
        (r"'100%' LIKE '100\%'", True),
        (r"'1000' LIKE '100\%'", False),
        (r"'a_c' LIKE 'a\_c'", True),
        (r"'a\c' LIKE 'a\c'", True),
        ("umlaut LIKE 'Kr_te'", True),
        ("'a\nb' LIKE 'a_b'", True),
        ("id NOT LIKE 'b%'", True),
        ("limit LIKE '1_'", True),
        ("wet LIKE 'tr%'", True),
        # IN: the left operand's type decides
        ("id IN ('b', 'a-1')", True),
        ("id NOT IN ('b', 'a-1')", False),
        ("limit IN ('9', '10')", True),
        ("hops IN (7)", True),
        ("'TRUE' IN (TRUE)", False),
        ("wet IN (TRUE, missing)", True),
        ("1 + 1 IN (2)", 1),  # IN binds tighter: 1 + (1 IN (2)) is 1 + 0
        # functions
        ("LENGTH(umlaut)", 5),
        ("length('')", 0),
        ("LENGTH(TRUE)", 4),
        ("CONCAT()", ""),
        ("CONCAT('a', 1, TRUE)", "a1true"),
        ("CONCAT_WS('-', 'a', 'b', 'c')", "a-b-c"),
        ("CONCAT_WS('-')", ""),
        ("LOWER('KRÖTE')", "kröte"),
        ("UPPER(umlaut)", "KRÖTE"),
        ("TRIM(' \u2003 a b \u00a0')", "a b"),
        ("TRIM('\x1fa')", "\x1fa"),
        ("LEFT('abc', 2)", "ab"),
        ("LEFT('abc', 9)", "abc"),
        ("RIGHT('abc', 2)", "bc"),
        ("RIGHT('abc', 0)", ""),
        ("SUBSTRING('abcdef', 3)", "cdef"),
        ("SUBSTRING('abcdef', -2)", "ef"),
        ("SUBSTRING('abcdef', 0)", ""),
        ("SUBSTRING('abcdef', 2, 3)", "bcd"),
        ("SUBSTRING('abcdef', -3, 9)", "def"),
        ("SUBSTRING('abcdef', 1, 0)", ""),
        ("ABS(-9)", 9),
        ("INT('-9')", -9),
        ("BOOL('False')", False),
        ("STRING(-0)", "0"),
        ("IS_INT('9') AND NOT IS_INT('9.0')", True),
        ("IS_BOOL('TRUE') AND NOT IS_BOOL('yes')", True),
    ],
)
def test_an_expression_has_its_value(text: str, value: Value) -> None:
    result = evaluate(text)
    assert (result.error, type(result.value), result.value) == (None, type(value), value)


@pytest.mark.parametrize(
    ("text", "kind", "value"),
    [
        ("missing", MISSING, False),
        ("missing = ''", MISSING, False),
        ("TRUE AND (missing = '')", MISSING, False),
        ("missing * 5", MISSING, 0),
        ("1 / missing", MISSING, 0),
        ("-missing", MISSING, 0),
        ("NOT missing", MISSING, False),
        ("LOWER(missing)", MISSING, ""),
        ("LENGTH(missing)", MISSING, 0),
        ("missing LIKE '%'", MISSING, False),
        ("5 / 0", MATH, 0),
        ("5 % 0", MATH, 0),
        ("TRUE AND (1 != 1 / 0)", MATH, False),
        ("2147483647 + 1", MATH, 0),
        ("- -2147483648 ", MATH, 0),
        ("-2147483648 / -1", MATH, 0),
        ("ABS(-2147483648)", MATH, 2**31 - 1),
        ("INT('12a')", CAST, 0),
        ("INT('2147483648')", CAST, 0),
        ("INT('')", CAST, 0),
        ("INT('1_0')", CAST, 0),
        ("INT('\u0661')", CAST, 0),  # a digit to Python, not to us
        ("BOOL('yes')", CAST, False),
        ("id = 5", CAST, False),
        ("NOT id", CAST, False),
        ("NOT id LIKE 'b%'", CAST, False),  # NOT binds tighter than LIKE
        ("wet IN ('no', missing)", CAST, False),
        ("LEFT('abc', -1)", FUNCTION, "abc"),
        ("RIGHT('abc', -1)", FUNCTION, "abc"),
        ("LENGTH(LEFT('abc', -1))", FUNCTION, 0),
        ("SUBSTRING('abc', 4)", FUNCTION, ""),
        ("SUBSTRING('abc', -4)", FUNCTION, ""),
        ("SUBSTRING('abc', 1, -1)", FUNCTION, ""),
        ("CONCAT_WS()", NO_FUNCTION, False),
        ("ABS(1, 2)", NO_FUNCTION, False),
        ("FROGS('a')", NO_FUNCTION, False),
    ],
)
def test_an_error_stops_the_evaluation_and_gives_the_zero_value_or_the_functions(
    text: str, kind: ErrorKind, value: Value
) -> None:
    result = evaluate(text)
    assert result.error is not None
    assert (result.error.kind, type(result.value), result.value) == (kind, type(value), value)


@pytest.mark.parametrize(
    ("text", "at", "what"),
    [
        ("", 1, "expected an operand, found the end"),
        ("ABS(", 5, "expected an operand, found the end"),
        ("(1", 3, "expected ), found the end"),
        ("1 2", 3, "expected an operator or the end, found '2'"),
        ("1 +", 4, "expected an operand, found the end"),
        ("+ 1", 1, "+ is neither a number's sign nor between two operands"),
        ("id LIKE 5", 9, "expected a string, the pattern of LIKE, found '5'"),
        ("id LIKE subject", 9, "expected a string, the pattern of LIKE, found 'SUBJECT'"),
        ("id IN ()", 8, "expected an operand, found ')'"),
        ("id IN 'a'", 7, "expected (, found \"'a'\""),
        ("id NOT 'a'", 8, "expected LIKE or IN, found \"'a'\""),
        ("EXISTS 'a'", 8, "expected an attribute's name, found \"'a'\""),
        ("a_b", 1, "expected an attribute's name, found 'A_B'"),
        ("AND", 1, "expected an operand, found 'AND'"),
        ("F1(2)", 1, "F1 is no name of a function: letters and _"),
        ("2147483648", 1, "2147483648 does not fit the 32 bits of an integer"),
        ("9" * 5000, 1, "99999999999999999999 does not fit the 32 bits of an integer"),
        ("id = 'a", 6, "a string without end"),
        ("id == 'a'", 5, "expected an operand, found '='"),
        ("id; 1", 3, "';' is no part of an expression"),
        ("id\x00", 3, "'\\x00' is no part of an expression"),
        ("id LIKE 'a' LIKE 'b' LIKE 'c'", 22, "LIKE after 2 tests of the same operand"),
        ("(" * (MAX_DEPTH + 1), MAX_DEPTH + 1, f"is nested deeper than {MAX_DEPTH}"),
        ("NOT " * 100 + "TRUE", 1 + 4 * MAX_DEPTH, f"is nested deeper than {MAX_DEPTH}"),
        (" " * (MAX_CHARACTERS + 1), MAX_CHARACTERS + 1, f"an expression has at most {MAX_CHARACTERS} characters"),
    ],
)
def test_what_is_no_expression_is_told_with_the_place(text: str, at: int, what: str) -> None:
    with pytest.raises(InvalidExpression) as invalid:
        parse(text)
    assert str(invalid.value) == f"at character {at}: {what}"
    assert invalid.value.at == at - 1


def test_functions_that_there_are_not_are_known_before_the_first_event() -> None:
    assert parse("FROGS(1) OR frogs(id) OR ABS(1, 2) = 1 OR ABS(1) = 1").unknown_functions == ("FROGS/1", "ABS/2")


@pytest.mark.parametrize(
    ("text", "passes"),
    [("TRUE", True), ("1", False), ("'true'", False), ("wet", True), ("missing", False), ("NOT missing", False)],
)
def test_as_a_filter_only_true_without_error_passes(text: str, passes: object) -> None:
    assert parse(text).passes(EVENT) is passes


LONG: Final = CloudEvent(id="x" * 60_000, source="/", type="t", extensions={"b": "ab" * 30_000})


@pytest.mark.parametrize(
    "text",
    [
        "id LIKE '" + "%x" * 4000 + "%y'",
        "b LIKE '%" + "_b" * 2000 + "c'",
        " AND ".join(["NOT (id LIKE '%y%')"] * 300),
        "LENGTH(CONCAT(" + ",".join(["id"] * 2700) + ")) > 0",
        " XOR ".join(["IS_INT(id)"] * 540),
    ],
)
def test_an_expression_made_to_cost_much_is_cut_short(text: str) -> None:
    expression = parse(text)
    started = time.process_time()
    result = expression.evaluate(LONG)
    assert time.process_time() - started < 5.0, "a bound for broken machines; it takes some milliseconds"
    assert result.error is not None
    assert result.error.kind is GENERIC


def test_the_longest_chains_and_the_deepest_nesting_evaluate_without_a_deep_stack() -> None:
    assert evaluate(" AND ".join(["TRUE"] * 900)).value is True
    assert evaluate("+".join(["1"] * 4000)).value == 4000
    deepest = "(NOT TRUE OR ABS(1 * (1 + " * (MAX_DEPTH // 4) + "1" + ")) = 1 LIKE 'x%')" * (MAX_DEPTH // 4)
    assert evaluate(deepest) == Result(value=False)


WORDS: Final = (
    *("AND", "OR", "XOR", "NOT", "LIKE", "IN", "EXISTS", "TRUE", "false", "id", "hops", "missing", "ABS", "SUBSTRING"),
    *("1", "-1", "2147483647", "'a'", '"%"', "'\\'", "\\", "'", "(", ")", ",", "+", "-", "*", "/", "%", "=", "!=", "<"),
    *("\x00", "é", "🐸"),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(WORDS), max_size=25).map(" ".join) | st.text(max_size=60))
def test_whatever_is_written_is_evaluated_or_refused_with_the_one_exception(text: str) -> None:
    try:
        expression = parse(text)
    except InvalidExpression as error:
        at = error.at
    else:
        at = 0
        first, again = expression.evaluate(EVENT), expression.evaluate(EVENT)
        assert (type(first.value), first.value) == (type(again.value), again.value)
    assert 0 <= at <= len(text)


@given(st.text(alphabet="ab%_", max_size=12), st.text(alphabet="abc", max_size=12))
def test_like_agrees_with_the_definition_character_by_character(pattern: str, text: str) -> None:
    def matches(pattern: str, text: str) -> bool:
        if not pattern:
            return not text
        if pattern[0] == "%":
            return any(matches(pattern[1:], text[skip:]) for skip in range(len(text) + 1))
        return bool(text) and pattern[0] in ("_", text[0]) and matches(pattern[1:], text[1:])

    event = CloudEvent(id="-", source="-", type="-", extensions={"text": text})
    assert parse(f"text LIKE '{pattern}'").evaluate(event).value is matches(pattern, text)


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1).filter(bool))
def test_division_and_remainder_belong_together(left: int, right: int) -> None:
    quotient, remainder = evaluate(f"{left} / {right}"), evaluate(f"{left} % {right}")
    if quotient.error is None:
        assert isinstance(quotient.value, int)
        assert isinstance(remainder.value, int)
        assert quotient.value * right + remainder.value == left
        assert abs(remainder.value) < abs(right)
        assert remainder.value == 0 or (remainder.value < 0) == (left < 0)
