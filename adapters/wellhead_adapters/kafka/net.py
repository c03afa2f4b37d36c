"""A KafkaSource's ``spec.net``, as the variables that Knative's controller makes of it for its Go adapter. Pure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

from wellhead.errors import ConfigError, Problem
from wellhead.manifest import unknown_fields

_NET: Final = {
    "sasl": {"user": "KAFKA_NET_SASL_USER", "password": "KAFKA_NET_SASL_PASSWORD", "type": "KAFKA_NET_SASL_TYPE"},
    "tls": {"cert": "KAFKA_NET_TLS_CERT", "key": "KAFKA_NET_TLS_KEY", "caCert": "KAFKA_NET_TLS_CA_CERT"},
}  # fmt: skip


def net_variables(net: object, secret: Callable[[str, str], str | None]) -> Mapping[str, str]:
    """What a KafkaSource's ``spec.net`` says, as the variables that Knative's controller makes of it.

    ``secret(name, key)`` is the value in a Secret of the source's namespace, None where there is none. Raises
    `ConfigError` by path.
    """
    problems: list[Problem] = []
    variables: dict[str, str] = {}
    if not isinstance(net, Mapping):
        raise ConfigError([Problem("spec.net", "is not an object")])
    problems += unknown_fields(net, _NET, "spec.net")
    for part, names in _NET.items():
        said, where = net.get(part) or {}, f"spec.net.{part}"
        if not isinstance(said, Mapping):
            problems.append(Problem(where, "is not an object"))
            continue
        problems += unknown_fields(said, ("enable", *names), where)
        enable = said.get("enable", False)
        if not isinstance(enable, bool):
            problems.append(Problem(f"{where}.enable", f"{enable!r} is not true or false"))
        variables[f"KAFKA_NET_{part.upper()}_ENABLE"] = str(enable is True).lower()
        for name, variable in names.items() if enable is True else ():
            try:
                variables[variable] = _referred(said.get(name), f"{where}.{name}", secret)
            except ConfigError as error:
                problems += error.problems
    if problems:
        raise ConfigError(problems)
    return variables


class Reference(NamedTuple):
    """A ``secretKeyRef`` of ``spec.net``."""

    variable: str
    """Which variable gets the value."""
    path: str
    name: str
    key: str
    optional: bool


def net_references(net: object) -> Iterator[Reference]:
    """What of a KafkaSource's ``spec.net`` is enabled and refers to a Secret; what is wrong is left to `net_variables`."""
    for part, names in _NET.items():
        said = net.get(part) if isinstance(net, Mapping) else None
        if not isinstance(said, Mapping) or said.get("enable") is not True:
            continue
        for name, variable in names.items():
            path = f"spec.net.{part}.{name}"
            with contextlib.suppress(ConfigError):
                reference = _reference(said.get(name), path)
                if reference is not None:
                    yield Reference(variable, f"{path}.secretKeyRef", *reference)


def net_path(variable: str) -> str:
    """``spec.net.sasl.user`` for ``KAFKA_NET_SASL_USER``, also where forms of it are listed; else the variable itself."""
    for part, names in _NET.items():
        for name, known in names.items():
            if variable.partition(" or ")[0] == known:
                return f"spec.net.{part}.{name}"
    return variable


def _referred(said: object, where: str, secret: Callable[[str, str], str | None]) -> str:
    """The value that ``{secretKeyRef: {name, key}}`` stands for; "" where nothing is said."""
    reference = _reference(said, where)
    if reference is None:
        return ""
    name, key, optional = reference
    value = secret(name, key)
    if value is None and not optional:
        raise ConfigError(
            [Problem(f"{where}.secretKeyRef", f"there is no key {key!r} in a Secret {name!r} of its namespace")]
        )
    return value or ""


def _reference(said: object, where: str) -> tuple[str, str, bool] | None:
    """Name, key and whether it is optional; None where nothing is said. Raises `ConfigError`."""
    if not said:
        return None
    reference = said.get("secretKeyRef") if isinstance(said, Mapping) else None
    if reference is None and isinstance(said, Mapping):
        return None  # as `user: {}`, which kubectl get shows of what is not set
    if not isinstance(reference, Mapping):
        raise ConfigError([Problem(where, "is not an object with a secretKeyRef")])
    problems = list(unknown_fields(reference, ("name", "key", "optional"), f"{where}.secretKeyRef"))
    name, key = reference.get("name"), reference.get("key")
    if not isinstance(name, str) or not isinstance(key, str):
        problems.append(Problem(f"{where}.secretKeyRef", "needs a name and a key, both strings"))
    if problems or not isinstance(name, str) or not isinstance(key, str):
        raise ConfigError(problems)
    return name, key, bool(reference.get("optional"))
