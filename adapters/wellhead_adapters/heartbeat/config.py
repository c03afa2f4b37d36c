"""What a heartbeat can be told: the flags and variables of Knative's heartbeats (contract/core.md 5). Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta

from wellhead.durations import period
from wellhead.env import boolean, setting, text
from wellhead.errors import ConfigError, InvalidEvent, Problem
from wellhead.event import CloudEvent

EVENT_TYPE = "dev.knative.eventing.samples.heartbeat"
_SOURCE = "https://knative.dev/eventing-contrib/cmd/heartbeats/#{namespace}/{name}"
_SET_BY = {"source": "eventSource, POD_NAMESPACE, POD_NAME", "type": "eventType, HEARTBEAT_TYPE"}
_ESCAPE = re.compile(r"\\(?:([abfnrtv\\\"])|x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-3][0-7]{2}))")
_SINGLE = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\\": "\\", '"': '"'}


def label(value: str) -> str:
    """A label as upstream reads it: one that begins with ``"`` is a Go string literal, and "" when that is broken."""
    return go_unquote(value) if value.startswith('"') else value


def go_unquote(literal: str) -> str:
    """What Go's ``strconv.Unquote`` makes of a double-quoted literal; "" where it fails."""
    inner = literal[1:-1]
    plain = _ESCAPE.sub("", inner)
    if len(literal) < 2 or not literal.endswith('"') or '"' in plain or "\\" in plain or "\n" in plain:
        return ""
    octets = b""
    end = 0
    for match in _ESCAPE.finditer(inner):
        try:
            octets += _octets(inner[end : match.start()]) + _escaped(match)
        except ValueError:
            return ""
        end = match.end()
    return (octets + _octets(inner[end:])).decode("utf-8", "replace")


def _octets(text: str) -> bytes:
    """What the operating system gave us: what of it is not UTF-8, Python hands on as surrogates."""
    return text.encode("utf-8", "surrogateescape")


def _escaped(match: re.Match[str]) -> bytes:
    single, octet, short, long, octal = match.groups()
    if single:
        return _SINGLE[single].encode()
    if octet or octal:
        return bytes((int(octet, 16) if octet else int(octal, 8),))
    number = int(short or long, 16)
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise ValueError("is no character")
    return chr(number).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatConfig:
    """Raises `ConfigError` where no valid event can be made: the pod's name is not known, the type is blank, …"""

    period: timedelta = setting(
        period, "time between beats: 5s, 1m30s, or whole seconds",
        flag="period", env="HEARTBEAT_PERIOD", default=timedelta(seconds=5), shown_default="5s",
    )
    label: str = setting(label, "data.label", flag="label", env="HEARTBEAT_LABEL", default="")
    msg: str = setting(text, "data.msg", flag="msg", env="HEARTBEAT_MSG", default="")
    event_type: str = setting(
        text, "the event's type", flag="eventType", env="HEARTBEAT_TYPE", default=EVENT_TYPE
    )
    event_source: str = setting(
        text, "the event's source; made from POD_NAMESPACE and POD_NAME if not given",
        flag="eventSource", env="HEARTBEAT_SOURCE", default="",
    )
    pod_name: str | None = setting(text, "the pod's name; any name on a laptop", env="POD_NAME", empty_allowed=True)
    pod_namespace: str | None = setting(
        text, "the pod's namespace; any name on a laptop", env="POD_NAMESPACE", empty_allowed=True
    )
    one_shot: bool = setting(boolean, "send one beat, then end", flag="one-shot", env="ONE_SHOT", default=False, switch=True)

    def __post_init__(self) -> None:
        problems = [] if self.event_source else [
            Problem(variable, "is not set: the event's source is made from it (or give --eventSource)")
            for variable, value in (("POD_NAME", self.pod_name), ("POD_NAMESPACE", self.pod_namespace))
            if value is None
        ]
        try:
            CloudEvent(id="-", source=self.source, type=self.event_type)
        except InvalidEvent as invalid:
            problems += [Problem(_SET_BY[problem.where], problem.what) for problem in invalid.problems]
        if problems:
            raise ConfigError(problems)

    @property
    def source(self) -> str:
        """The CloudEvents attribute."""
        return self.event_source or _SOURCE.format(namespace=self.pod_namespace, name=self.pod_name)
