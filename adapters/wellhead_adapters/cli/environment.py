"""The environment that a pod would give its container, from the documents of its files alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from wellhead.errors import Problem
from wellhead.manifest import stored

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wellhead.manifest import Document


def environment(
    container: Mapping[str, object],
    path: str,
    workload: Document,
    documents: Sequence[Document],
    problems: list[Problem],
) -> dict[str, str]:
    """Its ``env``: values, what a ``fieldRef`` would tell, and what Secrets and ConfigMaps among the documents hold.

    ``path`` is where ``container`` stands in ``workload``. What is not to be had is added to ``problems``.
    """
    found: dict[str, str] = {}
    entries = container.get("env")
    for number, entry in enumerate(entries if isinstance(entries, list) else ()):
        name = str(mapping(entry).get("name") or "")
        where = f"{path}.env[{number}]"
        value = mapping(entry).get("value")
        source = mapping(mapping(entry).get("valueFrom"))
        if source:
            value = _value_from(source, workload, documents)
            if value is None:
                problems.append(Problem(f"{where}.valueFrom", f"{name} is not to be had from these documents"))
        found[name] = "" if value is None else str(value)
    return found


def _value_from(source: Mapping[str, object], workload: Document, documents: Sequence[Document]) -> str | None:
    path = mapping(source.get("fieldRef")).get("fieldPath")
    facts = {
        "metadata.name": workload.name,
        "metadata.namespace": workload.namespace,
        "spec.nodeName": "localhost",
        "spec.serviceAccountName": "default",
        "status.podIP": "127.0.0.1",
    }
    if path is not None:
        return facts.get(str(path))
    for kind, reference in (("Secret", "secretKeyRef"), ("ConfigMap", "configMapKeyRef")):
        wanted = mapping(source.get(reference))
        for document in documents:
            if wanted and (document.kind, document.name, document.namespace) == (
                kind,
                wanted.get("name"),
                workload.namespace,
            ):
                return stored(document, str(wanted.get("key")))
    return None


def mapping(value: object) -> Mapping[str, object]:
    """``value`` where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}
