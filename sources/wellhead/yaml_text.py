"""YAML as values, as strictly as strangers' files need it: bounded aliases, no key twice, bounded depth. Pure."""

from __future__ import annotations

from typing import Final

import yaml

from .errors import ConfigError, Problem

_MAX_DEPTH: Final = 60
_MOST_NODES: Final = 500_000


def parse(text: str, origin: str) -> list[object]:
    """The documents of a YAML file. Raises `ConfigError` where it is none, nested too deep, or stands for too much."""
    try:
        _check_depth(text)
        return list(yaml.load_all(text, Loader=_Loader))
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{origin}, line {mark.line + 1}" if mark is not None else origin
        said = getattr(error, "problem", None) or str(error) or type(error).__name__
        raise ConfigError([Problem(where, f"is not YAML: {said}")]) from None


class _Loader(yaml.SafeLoader):
    """SafeLoader whose aliases stand for a bounded number of nodes, and whose keys may not repeat."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._nodes = 0  # with those that aliases stand for: a handful of them can stand for gigabytes
        self._weights: dict[yaml.Node | None, int] = {}

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        before = self._nodes
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's stubs leave it out
        node = super().compose_node(parent, index)
        if isinstance(event, yaml.AliasEvent):
            if node not in self._weights:
                raise yaml.YAMLError("an alias stands inside what it stands for")
            self._nodes += self._weights[node]
        else:
            self._nodes += 1
            self._weights[node] = self._nodes - before
        if self._nodes > _MOST_NODES:
            raise yaml.YAMLError(f"more than {_MOST_NODES:,} values, those counted that aliases stand for")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:  # noqa: FBT001, FBT002 - PyYAML's signature
        seen: set[object] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key!r} is given twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


def _check_depth(text: str) -> None:
    depth = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _MAX_DEPTH:
                raise ValueError(f"it is nested deeper than {_MAX_DEPTH} levels")
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
