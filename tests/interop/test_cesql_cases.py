"""CESQL by the cases of its specification's conformance kit, as the Go SDK's module carries them."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from tests.interop.conftest import missing

from wellhead.cesql import ErrorKind, parse
from wellhead.errors import InvalidExpression
from wellhead.event import CloudEvent

MODULE: Final = "github.com/cloudevents/sdk-go/sql/v2"
FULL: Final = {
    "type": "com.example.FullEvent",
    "source": "http://localhost/source",
    "id": "full-event",
    "time": "2020-03-21T12:34:56.78Z",
    "dataschema": "http://localhost/schema",
    "subject": "topic",
    "datacontenttype": "text/json",
    "exbool": True,
    "exint": 42,
    "exstring": "exstring",
}
"""What a case means that says no event: the SDK's own."""
ERRORS: Final = {
    "math": ErrorKind.MATH,
    "cast": ErrorKind.CAST,
    "missingAttribute": ErrorKind.MISSING_ATTRIBUTE,
    "missingFunction": ErrorKind.MISSING_FUNCTION,
    "functionEvaluation": ErrorKind.FUNCTION_EVALUATION,
}
ATTRIBUTES: Final = ("id", "source", "type", "time", "dataschema", "subject", "datacontenttype")


@dataclass(frozen=True)
class Case:
    file: str
    said: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.file}: {self.said['name']}"

    @property
    def event(self) -> CloudEvent:
        given = {**self.said.get("event", FULL), **self.said.get("eventOverrides", {})}
        given.pop("specversion", None)
        known: dict[str, Any] = {name: _text(given.pop(name)) for name in ATTRIBUTES if name in given}
        return CloudEvent(**known, extensions=given)


def _text(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


def outcome(case: Case) -> tuple[Any, ErrorKind | None] | str:
    """The value and the kind of error; "parse" where it is no expression."""
    try:
        expression = parse(case.said["expression"])
    except InvalidExpression:
        return "parse"
    result = expression.evaluate(case.event)
    return result.value, result.error.kind if result.error is not None else None


def expected(case: Case) -> tuple[Any, ErrorKind | None] | str:
    error = case.said.get("error")
    result = case.said.get("result")
    result = _text(result) if isinstance(result, datetime) else result
    return "parse" if error == "parse" else (result, ERRORS[error] if error else None)


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    go = shutil.which("go")
    if go is None:
        missing("CESQL IS NOT JUDGED: no program `go` on PATH, which fetches the cases")
    fetched = subprocess.run(
        [go, "mod", "download", "-json", MODULE],
        check=False,
        cwd=Path(__file__).with_name("cesql"),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if fetched.returncode:
        missing(f"CESQL IS NOT JUDGED: {fetched.stdout}{fetched.stderr}")
    folder = Path(json.loads(fetched.stdout)["Dir"]) / "test/tck"
    found = []
    for path in sorted(folder.glob("*.yaml")):
        as_text = yaml.load(path.read_text(), yaml.BaseLoader)["tests"]
        for said, text in zip(yaml.safe_load(path.read_text())["tests"], as_text, strict=True):
            found.append(Case(path.stem, {**said, "expression": text["expression"]}))
    return found


def test_every_case_has_the_outcome_that_the_kit_expects(cases: list[Case]) -> None:
    assert len(cases) > 150
    wrong = [
        (str(case), case.said["expression"], outcome(case), expected(case))
        for case in cases
        if outcome(case) != expected(case)
    ]
    assert not wrong, f"{len(wrong)} of {len(cases)}"
