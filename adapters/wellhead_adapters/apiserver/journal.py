"""The lines in which a state is kept: what was delivered of each watch. Pure.

``= 0 WATCH`` numbers a watch; ``+ 0 NAMESPACE NAME UID VERSION DIGEST`` is an object that is there, ``- 0 NAMESPACE NAME``
one that is gone, ``@ 0 VERSION`` a position; ``! 0`` says that there was no room for the watch's objects, ``~ 0`` that the
watch is not wanted any more. A journal has what came later further down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

from wellhead.kubernetes.index import Index, Seen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping


class Saved:
    """What is known of one watch."""

    def __init__(self, index: Index | None, version: str) -> None:
        self.index = index
        """None where its objects were too many to be kept."""
        self.version = version


def watch_line(number: int, watch: str) -> str:
    return f"= {number} {quote(watch, safe='')}\n"


def object_line(number: int, seen: Seen) -> str:
    return f"+ {number} {_joined((seen.namespace, seen.name, seen.uid, seen.version, seen.digest))}\n"


def gone_line(number: int, seen: Seen) -> str:
    return f"- {number} {_joined((seen.namespace, seen.name))}\n"


def position_line(number: int, version: str) -> str:
    return f"@ {number} {_joined((version,))}\n"


def roomless_line(number: int) -> str:
    return f"! {number}\n"


def forgotten_line(number: int) -> str:
    return f"~ {number}\n"


def written(watches: Mapping[str, Saved]) -> Iterator[str]:
    """The lines that ``watches`` come to."""
    for number, (watch, saved) in enumerate(watches.items()):
        yield watch_line(number, watch)
        if saved.index is None:
            yield roomless_line(number)
        for seen in saved.index or ():
            yield object_line(number, seen)
        if saved.version:
            yield position_line(number, saved.version)


def read(lines: Iterable[str]) -> dict[str, Saved]:
    """What the lines come to. A last line without its end was never whole, and counts for nothing.

    Raises ValueError for what is no such line.
    """
    named: dict[str, str] = {}
    watches: dict[str, Saved] = {}
    for line in lines:
        if not line.endswith("\n"):
            break
        sign, number, *fields = line.rstrip("\n").split(" ")
        values = [unquote(one) for one in fields]
        if sign == "=" and len(values) == 1:
            named[number] = values[0]
            watches.setdefault(values[0], Saved(Index(), ""))
        else:
            _take(watches, named.get(number, ""), sign, values)
    return watches


def _take(watches: dict[str, Saved], watch: str, sign: str, values: list[str]) -> None:
    saved = watches.get(watch)
    if saved is None:
        raise ValueError(f"{sign} of a watch that is not named")
    index = saved.index if saved.index is not None else Index()
    match sign, values:
        case "+", [namespace, name, uid, version, digest]:
            index.put(Seen(namespace, name, uid, version, digest))
        case "-", [namespace, name]:
            index.remove(namespace, name)
        case "@", [version]:
            saved.version = version
        case "!", []:
            saved.index = None
        case "~", []:
            watches[watch] = Saved(Index(), "")
        case _:
            raise ValueError(f"{sign} with {len(values)} fields")


def _joined(fields: tuple[str, ...]) -> str:
    return " ".join(quote(one, safe="/:") for one in fields)
