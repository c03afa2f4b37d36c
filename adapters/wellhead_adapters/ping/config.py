"""What a ping can be told, by flags and variables; the rules are those of Knative's PingSource. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from wellhead.durations import duration
from wellhead.env import boolean, integer, one_of, setting, text
from wellhead.errors import ConfigError, Problem

from .data import body, too_long
from .events import PingSource
from .schedule import Schedule
from .ticker import CatchUp, CatchUpRule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wellhead.manifest import Document

SPEC_FIELDS: Final = ("schedule", "timezone", "contentType", "data", "dataBase64")
_SET_BY: Final = {
    "schedule": "schedule, PING_SCHEDULE",
    "timezone": "timezone, PING_TIMEZONE",
    "data": "data, PING_DATA",
    "dataBase64": "data-base64, PING_DATA_BASE64",
    "data, dataBase64": "data, data-base64, PING_DATA, PING_DATA_BASE64",
    "contentType": "content-type, PING_CONTENT_TYPE",
    "namespace, name": "namespace, name, NAMESPACE, NAME",
}
_DEFAULT_SCHEDULE: Final = "* * * * *"
_DEFAULTS: Final = "config-ping-defaults"
_MAX_SIZE: Final = ("data-max-size", "dataMaxSize")  # the second is what it was once called


@dataclass(frozen=True, slots=True, kw_only=True)
class PingConfig:
    """Raises `ConfigError` with every problem: schedule, timezone, data, and catching up without a state file."""

    schedule: str = setting(
        text, "when: five fields of cron, six with seconds first, @hourly …, @every 90s",
        flag="schedule", env="PING_SCHEDULE", default=_DEFAULT_SCHEDULE,
    )
    timezone: str = setting(
        text, "the zone the schedule is meant in, as Europe/Paris", flag="timezone", env="PING_TIMEZONE", default="", shown_default="UTC",
    )
    data: str = setting(text, "the events' data", flag="data", env="PING_DATA", default="")
    data_base64: str = setting(
        text, "the same, in base64", flag="data-base64", env="PING_DATA_BASE64", default=""
    )
    content_type: str = setting(
        text, "the data's media type", flag="content-type", env="PING_CONTENT_TYPE", default=""
    )
    name: str = setting(text, "the source's name, part of the events' source", flag="name", env="NAME", default="ping")
    namespace: str = setting(
        text, "its namespace, likewise", flag="namespace", env="NAMESPACE", default="default"
    )
    jitter: timedelta = setting(
        duration, "ticks are spread by up to this, the same for each instant",
        flag="jitter", env="PING_JITTER", default=timedelta(), shown_default="0",
    )
    catch_up: CatchUp = setting(
        one_of(CatchUp), "which ticks that were missed while it did not run are sent after all",
        flag="catch-up", env="PING_CATCH_UP", default=CatchUp.SKIP, choices=("skip", "last", "all"),
    )
    catch_up_age: timedelta = setting(
        duration, "how old such a tick may be", flag="catch-up-age", env="PING_CATCH_UP_AGE",
        default=timedelta(days=1), shown_default="24h",
    )
    catch_up_number: int = setting(
        integer(0, 10_000), "how many there may be", flag="catch-up-number", env="PING_CATCH_UP_NUMBER", default=100
    )
    state_file: Path | None = setting(
        Path, "file that remembers the last tick, for catching up", flag="state-file", env="PING_STATE_FILE"
    )
    every: bool = setting(
        boolean, "whether @every is taken, which Knative refuses",
        flag="every", env="PING_EVERY", default=True, switch=True,
    )
    extra_attributes: bool = setting(
        boolean, "say the scheduled instant in the extension scheduledtime",
        flag="extra-attributes", env="EXTRA_ATTRIBUTES", default=False, switch=True,
    )
    ping: PingSource = field(init=False, repr=False, compare=False)
    """What its events have in common."""

    def __post_init__(self) -> None:
        problems: list[Problem] = []
        try:
            object.__setattr__(self, "ping", self._ping())
        except ConfigError as error:
            problems += [Problem(_SET_BY.get(problem.where, problem.where), problem.what) for problem in error.problems]
        if self.catch_up is not CatchUp.SKIP and self.state_file is None:
            problems.append(Problem("catch-up, PING_CATCH_UP", "needs a state file: --state-file"))
        if problems:
            raise ConfigError(problems)

    def _ping(self) -> PingSource:
        """Raises `ConfigError` with every problem, by PingSource's own fields."""
        problems: list[Problem] = []
        schedule = self._schedule(problems)
        octets: bytes | None = None
        try:
            octets = body(self.data, self.data_base64, self.content_type)
        except ConfigError as error:
            problems += error.problems
        if problems or schedule is None:
            raise ConfigError(problems)
        return PingSource(
            namespace=self.namespace,
            name=self.name,
            schedule=schedule,
            data=octets,
            content_type=self.content_type,
            extra_attributes=self.extra_attributes,
        )

    def _schedule(self, problems: list[Problem]) -> Schedule | None:
        try:
            return Schedule.parse(self.schedule, self.timezone, every=self.every)
        except ConfigError as error:
            problems += error.problems
        if problems[0].where == "timezone":  # what is wrong with the schedule itself is told as well
            try:
                Schedule.parse(self.schedule)
            except ConfigError as error:
                problems += error.problems
        return None

    @property
    def rule(self) -> CatchUpRule:
        """Which missed ticks are sent after all."""
        return CatchUpRule(what=self.catch_up, max_age=self.catch_up_age, max_number=self.catch_up_number)


def from_manifest(document: Document, documents: Sequence[Document] = ()) -> PingConfig:
    """The configuration a PingSource document says, held against Knative's rules. Raises `ConfigError` by path.

    Where the ConfigMap ``config-ping-defaults`` is among ``documents``, its ``data-max-size`` is one of them.
    """
    values: dict[str, str] = {}
    problems: list[Problem] = []
    limit = _data_max_size(documents, problems)
    for name in SPEC_FIELDS:
        value = document.spec.get(name, "")
        if value is not None and not isinstance(value, str):
            problems.append(Problem(f"spec.{name}", f"{value!r} is not a string"))
        values[name] = value if isinstance(value, str) else ""
    for name in ("data", "dataBase64"):
        problems += [Problem(f"spec.{name}", what) for what in too_long(name, values[name], limit)]
    try:
        config = PingConfig(
            schedule=values["schedule"] or _DEFAULT_SCHEDULE,
            timezone=values["timezone"],
            data=values["data"],
            data_base64=values["dataBase64"],
            content_type=values["contentType"],
            name=document.name,
            namespace=document.namespace,
            every=False,
        )
    except ConfigError as error:
        problems += [Problem(_spec_path(problem.where), problem.what) for problem in error.problems]
    if problems:
        raise ConfigError(problems)
    return config


def _data_max_size(documents: Sequence[Document], problems: list[Problem]) -> int:
    """Bytes that data may have, as it is given; -1 for no limit."""
    for document in documents:
        data = document.body.get("data")
        if (document.kind, document.name) != ("ConfigMap", _DEFAULTS) or not isinstance(data, Mapping):
            continue
        size = next((str(data[name]) for name in _MAX_SIZE if name in data), "-1")
        try:
            return int(size)
        except ValueError:
            problems.append(Problem(f"{document}: data.{_MAX_SIZE[0]}", f"{size!r} is not an integer"))
    return -1


def _spec_path(where: str) -> str:
    """``spec.schedule`` for what is told as ``schedule, PING_SCHEDULE``."""
    named = {told: name for name, told in _SET_BY.items()}
    return ", ".join(f"spec.{name}" for name in named.get(where, where).split(", "))
