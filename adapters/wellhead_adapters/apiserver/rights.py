"""What an ApiServerSource has to be allowed, and the Role that allows what is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from wellhead.kubernetes.kinds import Kind

    from .subject import Subject

VERBS: Final = ("get", "list", "watch")
"""``list`` and ``watch`` are what our adapter needs; Knative's controller asks for ``get`` as well."""
_GROUP: Final = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True, order=True)
class Right:
    """To do something with a resource in a namespace, or in all."""

    namespace: str
    group: str
    resource: str
    verb: str

    def attributes(self) -> dict[str, str]:
        """As an access review asks for it."""
        given = {"namespace": self.namespace, "group": self.group, "resource": self.resource, "verb": self.verb}
        return {name: value for name, value in given.items() if value}

    def __str__(self) -> str:
        name = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {name} {f'in namespace {self.namespace}' if self.namespace else 'in the whole cluster'}"


def needed(subject: Subject, kinds: Iterable[Kind]) -> list[Right]:
    """What ``subject`` needs, of kinds as the server serves them.

    Whoever follows namespaces by their labels needs the kinds in all, as any may come to be chosen.
    """
    rights = []
    for kind in kinds:
        everywhere = not kind.namespaced or subject.namespace_selector is not None or not subject.namespaces
        for namespace in ("",) if everywhere else subject.namespaces:
            rights += [Right(namespace, kind.gvr.group, kind.gvr.resource, verb) for verb in VERBS]
    if subject.namespace_selector is not None:
        rights += [Right("", "", "namespaces", verb) for verb in VERBS]
    return list(dict.fromkeys(rights))


def roles(missing: Sequence[Right], *, name: str, account: str, namespace: str) -> Iterator[Mapping[str, object]]:
    """Roles and bindings that allow the ServiceAccount ``account`` of ``namespace`` what is missing."""
    for within in sorted({right.namespace for right in missing}):
        metadata = {"name": name, "namespace": within} if within else {"name": f"{namespace}-{name}"}
        kind = "Role" if within else "ClusterRole"
        rules = [rule for right in missing if right.namespace == within for rule in [_rule(right)]]
        yield {"apiVersion": f"{_GROUP}/v1", "kind": kind, "metadata": metadata, "rules": _merged(rules)}
        yield {
            "apiVersion": f"{_GROUP}/v1",
            "kind": f"{kind}Binding",
            "metadata": metadata,
            "roleRef": {"apiGroup": _GROUP, "kind": kind, "name": metadata["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        }


def _rule(right: Right) -> tuple[str, str, str]:
    return right.group, right.resource, right.verb


def _merged(rules: Iterable[tuple[str, str, str]]) -> list[dict[str, list[str]]]:
    """One rule for each resource, with all verbs that it needs."""
    verbs: dict[tuple[str, str], list[str]] = {}
    for group, resource, verb in rules:
        verbs.setdefault((group, resource), []).append(verb)
    return [
        {"apiGroups": [group], "resources": [resource], "verbs": sorted(set(said))}
        for (group, resource), said in sorted(verbs.items())
    ]
