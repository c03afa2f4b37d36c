from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.env import (
    Collector,
    Flags,
    boolean,
    integer,
    json_object,
    known_names,
    one_of,
    parse_flags,
    read,
    setting,
    settings,
    text,
)
from wellhead.errors import ConfigError, Problem

SECRET: Final = "hunter2"


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


def only_good(value: str) -> str:
    if value != "good":
        raise ValueError("is not good")
    return value


def two_problems(value: str) -> str:
    raise ConfigError([Problem("a", "is wrong"), Problem("b", "is wrong too")])


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example"""

    count: int = setting(integer(0, 9), "how many", flag="count", env=("COUNT", "OLD_COUNT"), default=3)
    colour: Colour = setting(one_of(Colour), "which", flag="colour", env="COLOUR", default=Colour.RED)
    loud: bool = setting(boolean, "shout", flag="loud", env="LOUD", default=False, switch=True)
    words: str = setting(text, "words", flag="word", env="WORDS", default="", repeated=True)
    token: str = setting(only_good, "a token", flag="token", env="TOKEN", default="", secret=True)
    lenient: str | None = setting(only_good, "as Knative", env="LENIENT", tolerant=True)
    pod: str | None = setting(text, "the pod", env="POD", empty_allowed=True)
    plain: int = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Demanding:
    name: str = setting(text, "the name", flag="name", env=("NAME", "OLD_NAME"), required=True)
    only_variable: str = setting(text, "a variable", env="VARIABLE", required=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    low: int = setting(integer(0, 9), "from", flag="low", default=0)
    high: int = setting(integer(0, 9), "to", flag="high", default=9)

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ConfigError([Problem("--low", f"{self.low} is above --high {self.high}")])


def flags(*arguments: str) -> Flags:
    return parse_flags(arguments, settings(Example))


def problems(env: dict[str, str], *arguments: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(Example, env, flags(*arguments))
    return [str(problem) for problem in caught.value.problems]


# --- The command line


@pytest.mark.parametrize("arguments", [["--count", "5"], ["-count", "5"], ["--count=5"], ["-count=5"]], ids=" ".join)
def test_a_flag_takes_one_dash_or_two_and_its_value_after_a_blank_or_an_equals_sign(arguments: list[str]) -> None:
    assert flags(*arguments) == Flags({"count": ("5",)}, ())


@pytest.mark.parametrize(
    ("arguments", "given_flags", "rest"),
    [
        (["--count", "5", "word", "--loud"], {"count": ("5",)}, ("word", "--loud")),
        (["<no value>"], {}, ("<no value>",)),  # what Knative's own test renders when there are no arguments
        (["--", "--count"], {}, ("--count",)),
        (["-", "--count"], {}, ("-", "--count")),
        (["", "--count"], {}, ("", "--count")),
        ([], {}, ()),
    ],
)
def test_reading_flags_ends_at_the_first_other_word(
    arguments: list[str], given_flags: dict[str, tuple[str, ...]], rest: tuple[str, ...]
) -> None:
    assert flags(*arguments) == Flags(given_flags, rest)


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["--token", "-5s"], "-5s"),
        (["--token", "--count"], "--count"),
        (["--token", ""], ""),
        (["--token="], ""),
        (["--token=a=b"], "a=b"),
        (["--token", "a", "--token", "b"], "b"),
    ],
)
def test_a_flags_value_may_be_anything_and_the_last_one_counts(arguments: list[str], value: str) -> None:
    assert flags(*arguments) == Flags({"token": (value,)}, ())


def test_a_repeated_flag_keeps_every_value_one_a_line() -> None:
    assert read(Example, {}, flags("--word", "a", "--word=b")).words == "a\nb"


@pytest.mark.parametrize(
    ("arguments", "loud"), [(["--loud"], True), (["-loud"], True), (["--loud=false"], False), ([], False)]
)
def test_a_switch_needs_no_value(arguments: list[str], *, loud: bool) -> None:
    assert read(Example, {}, flags(*arguments)).loud is loud


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--coutn", "5"], "--coutn: no such flag; did you mean --count?"),
        (["-colou=red"], "-colou: no such flag; did you mean --colour?"),
        (["--zzz"], "--zzz: no such flag"),
        (["---count", "5"], "---count: no such flag; did you mean --count?"),
        (["--count"], "--count: needs a value"),
    ],
)
def test_an_unknown_flag_is_told_with_the_nearest_known_one(arguments: list[str], problem: str) -> None:
    assert problems({}, *arguments) == [problem]


def test_reading_goes_on_behind_an_unknown_flag() -> None:
    assert problems({}, "--zzz", "value", "--count", "x", "--yyy", "--colour=grey") == [
        "--zzz: no such flag",
        "--yyy: no such flag",
        "--count: 'x' is not a whole number from 0 to 9",
        "--colour: 'grey' is not one of red, blue",
    ]


def test_the_value_of_an_unknown_flag_is_not_repeated() -> None:
    assert SECRET not in str(problems({}, f"--tokne={SECRET}"))


# --- Reading


def test_defaults_apply_where_nothing_is_given() -> None:
    assert read(Example, {}) == Example(
        count=3, colour=Colour.RED, loud=False, words="", token="", lenient=None, pod=None, plain=7
    )


def test_each_reading_gets_the_default_as_it_was_given() -> None:
    assert Example() == read(Example, {})


@pytest.mark.parametrize(
    ("env", "count"),
    [
        ({"COUNT": "5"}, 5),
        ({"OLD_COUNT": "6"}, 6),
        ({"COUNT": "5", "OLD_COUNT": "6"}, 5),
        ({"COUNT": "", "OLD_COUNT": "6"}, 6),
        ({"COUNT": ""}, 3),
    ],
)
def test_the_first_variable_that_is_set_and_not_empty_counts(env: dict[str, str], count: int) -> None:
    assert read(Example, env).count == count


def test_every_empty_variable_is_an_unset_one() -> None:
    names = [name for name in known_names([Example]) if name != "POD"]
    assert read(Example, dict.fromkeys(names, "")) == read(Example, {})


def test_an_empty_variable_is_a_value_where_a_setting_says_so() -> None:
    assert (read(Example, {"POD": ""}).pod, read(Example, {}).pod) == ("", None)


def test_the_flag_beats_the_variable_unless_the_environment_is_to_win() -> None:
    env, given_flags = {"COUNT": "5"}, flags("--count", "6")
    assert read(Example, env, given_flags).count == 6
    drop_in = Collector(env, given_flags, environment_wins=True).read(Example)
    assert drop_in is not None
    assert drop_in.count == 5
    only_flag = Collector({}, given_flags, environment_wins=True).read(Example)
    assert only_flag is not None
    assert only_flag.count == 6


def test_every_problem_is_told_at_once_with_name_value_and_rule() -> None:
    assert problems({"COUNT": "x", "COLOUR": "grey"}, "--loud=maybe") == [
        "COUNT: 'x' is not a whole number from 0 to 9",
        "COLOUR: 'grey' is not one of red, blue",
        "--loud: 'maybe' is not true or false",
    ]


def test_a_collector_tells_the_problems_of_several_configurations_together() -> None:
    collector = Collector({"COUNT": "x"})
    assert collector.read(Example) is None
    assert collector.read(Demanding) is None
    with pytest.raises(ConfigError) as caught:
        collector.check()
    assert [problem.where for problem in caught.value.problems] == ["COUNT", "--name or NAME or OLD_NAME", "VARIABLE"]


def test_a_collector_without_problems_lets_pass() -> None:
    collector = Collector({"NAME": "n", "VARIABLE": "v"})
    assert collector.read(Demanding) == Demanding(name="n", only_variable="v")
    collector.check()
    assert collector.problems == []


def test_what_is_required_and_missing_is_told_with_every_way_to_give_it() -> None:
    with pytest.raises(ConfigError) as caught:
        read(Demanding, {"NAME": "", "VARIABLE": "v"})
    assert str(caught.value) == "--name or NAME or OLD_NAME: is not set: the name"


def test_rules_between_settings_are_told_by_the_configuration() -> None:
    given_flags = parse_flags(["--low=5", "--high=2"], settings(Pair))
    with pytest.raises(ConfigError, match=r"^--low: 5 is above --high 2$"):
        read(Pair, {}, given_flags)


def test_rules_between_settings_are_told_even_beside_a_broken_one() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Wider(Pair):
        step: int = setting(integer(1, 9), "by", flag="step", default=1)

    given_flags = parse_flags(["--low=5", "--high=2", "--step=x"], settings(Wider))
    with pytest.raises(ConfigError) as caught:
        read(Wider, {}, given_flags)
    assert [problem.where for problem in caught.value.problems] == ["--step", "--low"]


def test_a_secret_is_in_no_message_and_no_repr() -> None:
    assert problems({"TOKEN": SECRET}) == ["TOKEN: is not good"]
    assert SECRET not in repr(Example(token=SECRET))


def test_a_tolerant_setting_that_is_wrong_is_a_warning_and_its_default_applies() -> None:
    collector = Collector({"LENIENT": "bad"})
    example = collector.read(Example)
    collector.check()
    assert example == read(Example, {})
    assert list(map(str, collector.warnings)) == ["LENIENT: 'bad' is not good"]


def test_the_problems_of_one_value_are_told_each_with_its_place() -> None:
    @dataclass(frozen=True, slots=True, kw_only=True)
    class Nested:
        value: str = setting(two_problems, "v", env="VALUE", default="")

    with pytest.raises(ConfigError) as caught:
        read(Nested, {"VALUE": "x"})
    assert list(map(str, caught.value.problems)) == ["VALUE: a: is wrong", "VALUE: b: is wrong too"]


def test_a_long_value_is_cut_in_the_message() -> None:
    shown = "'" + "x" * 59
    assert problems({"COLOUR": "x" * 100}) == [f"COLOUR: {shown}… (100 characters) is not one of red, blue"]


@pytest.mark.parametrize(
    ("env", "arguments", "given_any"),
    [
        ({}, [], False),
        ({"COUNT": ""}, [], False),
        ({"COUNT": "x"}, [], True),
        ({}, ["--count", "1"], True),
        ({"LOUD": "1"}, [], False),
    ],
)
def test_given_tells_whether_any_of_the_names_was_given_something(
    env: dict[str, str], arguments: list[str], *, given_any: bool
) -> None:
    assert Collector(env, flags(*arguments)).given("count", "COUNT") is given_any


# --- What a setting knows about itself


def test_settings_are_in_the_order_of_their_fields_and_fields_that_are_none_are_left_out() -> None:
    assert [known.name for known in settings(Example)] == [
        "count",
        "colour",
        "loud",
        "words",
        "token",
        "lenient",
        "pod",
    ]


def test_a_default_is_shown_in_words() -> None:
    assert [known.default for known in settings(Example)] == ["3", "red", "false", "", "", "", ""]


def test_a_setting_is_named_by_its_flag_else_by_its_variable() -> None:
    assert [known.source for known in settings(Example)[-3:]] == ["--token", "LENIENT", "POD"]


def test_known_names_are_the_variables_of_all_configurations() -> None:
    assert list(known_names([Demanding, Pair])) == ["NAME", "OLD_NAME", "VARIABLE"]


# --- Parsers


@pytest.mark.parametrize("word", ["1", "t", "T", "TRUE", "true", "True"])
def test_boolean_reads_what_go_takes_for_true(word: str) -> None:
    assert boolean(word) is True


@pytest.mark.parametrize("word", ["0", "f", "F", "FALSE", "false", "False"])
def test_boolean_reads_what_go_takes_for_false(word: str) -> None:
    assert boolean(word) is False


@pytest.mark.parametrize("word", ["", "yes", "no", "on", "tRUE", "2", " true"])
def test_boolean_refuses_what_go_refuses(word: str) -> None:
    with pytest.raises(ValueError, match=r"is not true or false"):
        boolean(word)


@pytest.mark.parametrize(("word", "number"), [("0", 0), ("9", 9), ("-3", -3), ("+4", 4), ("007", 7)])
def test_integer_reads_whole_numbers_between_its_bounds(word: str, number: int) -> None:
    assert integer(-3, 9)(word) == number


@pytest.mark.parametrize("word", ["", "10", "-4", "1.5", "x", "9" * 1_000_000, "0x1"], ids=lambda word: word[:8])
def test_integer_refuses_all_else_however_long_it_is(word: str) -> None:
    with pytest.raises(ValueError, match=r"^is not a whole number from -3 to 9$"):
        integer(-3, 9)(word)


@pytest.mark.parametrize(("word", "member"), [("red", Colour.RED), ("blue", Colour.BLUE)])
def test_one_of_reads_a_member_by_its_word(word: str, member: Colour) -> None:
    assert one_of(Colour)(word) is member


def test_json_object_reads_an_object() -> None:
    assert json_object('{"a":[1]}') == {"a": [1]}


@pytest.mark.parametrize(
    ("word", "rule"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "is not a JSON object"),
        ("null", "is not a JSON object"),
    ],
    ids=lambda word: word[:8],
)
def test_json_object_refuses_all_else(word: str, rule: str) -> None:
    with pytest.raises(ValueError, match=f"^{rule}$"):
        json_object(word)


@given(
    arguments=st.lists(
        st.text(max_size=6) | st.sampled_from(["--count", "-loud", "--loud=x", "--", "-", "--word=a", "--x"])
    )
)
def test_no_command_line_loses_or_invents_a_word(arguments: list[str]) -> None:
    read_flags = flags(*arguments)
    assert read_flags.rest == tuple(arguments[len(arguments) - len(read_flags.rest) :])
    assert set(read_flags.given) <= {known.flag for known in settings(Example)}


@given(
    env=st.dictionaries(
        st.sampled_from(["COUNT", "COLOUR", "LOUD", "TOKEN", "WORDS", "LENIENT", "POD"]), st.text(max_size=8)
    )
)
def test_any_environment_is_a_configuration_or_problems_with_names(env: dict[str, str]) -> None:
    collector = Collector(env)
    example = collector.read(Example)
    assert (example is None) is bool(collector.problems)
    assert {problem.where for problem in (*collector.problems, *collector.warnings)} <= set(env)
