from __future__ import annotations

from typing import Final

import pytest

from wellhead.kubernetes.kinds import Gvr, Kind
from wellhead.kubernetes.selectors import LabelSelector
from wellhead_adapters.apiserver.rights import VERBS, Right, needed, roles
from wellhead_adapters.apiserver.subject import Resource, Subject

PODS: Final = Kind(Gvr("", "v1", "pods"), "Pod", namespaced=True)
NODES: Final = Kind(Gvr("", "v1", "nodes"), "Node", namespaced=False)
JOBS: Final = Kind(Gvr("batch", "v1", "jobs"), "Job", namespaced=True)
RESOURCES: Final = (Resource(PODS.gvr),)


def summary(subject: Subject, *kinds: Kind) -> set[tuple[str, str]]:
    """Namespace and resource; every verb is wanted of each."""
    rights = needed(subject, kinds)
    found = {(right.namespace, right.resource) for right in rights}
    assert len(rights) == len(found) * len(VERBS)
    return found


@pytest.mark.parametrize(
    ("subject", "kinds", "expected"),
    [
        (Subject(resources=RESOURCES, namespaces=("a", "b")), [PODS], {("a", "pods"), ("b", "pods")}),
        (Subject(resources=RESOURCES, namespaces=("a",)), [PODS, NODES], {("a", "pods"), ("", "nodes")}),
        (Subject(resources=RESOURCES), [PODS, JOBS], {("", "pods"), ("", "jobs")}),
        (
            Subject(resources=RESOURCES, namespace_selector=LabelSelector()),
            [PODS],
            {("", "pods"), ("", "namespaces")},
        ),
        (Subject(resources=RESOURCES, namespaces=("a",)), [PODS, PODS], {("a", "pods")}),
    ],
)
def test_what_has_to_be_allowed(subject: Subject, kinds: list[Kind], expected: set[tuple[str, str]]) -> None:
    assert summary(subject, *kinds) == expected


def test_the_roles_that_are_missing_are_the_least() -> None:
    missing = [
        Right("a", "", "pods", "watch"),
        Right("a", "", "pods", "list"),
        Right("a", "batch", "jobs", "get"),
        Right("", "", "nodes", "list"),
    ]
    cluster_role, cluster_binding, role, binding = roles(missing, name="frog-watch", account="frog", namespace="pond")
    assert cluster_role == {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "pond-frog-watch"},
        "rules": [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}],
    }
    assert role["kind"] == "Role"
    assert role["metadata"] == {"name": "frog-watch", "namespace": "a"}
    assert role["rules"] == [
        {"apiGroups": [""], "resources": ["pods"], "verbs": ["list", "watch"]},
        {"apiGroups": ["batch"], "resources": ["jobs"], "verbs": ["get"]},
    ]
    subjects = [{"kind": "ServiceAccount", "name": "frog", "namespace": "pond"}]
    assert cluster_binding["subjects"] == binding["subjects"] == subjects
    assert binding["roleRef"] == {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "frog-watch"}


def test_where_nothing_is_missing_there_is_no_role() -> None:
    assert list(roles([], name="a", account="b", namespace="c")) == []


def test_a_right_reads_as_a_sentence_and_is_asked_for_without_what_is_empty() -> None:
    right = Right("", "batch", "jobs", "watch")
    assert str(right) == "watch jobs.batch in the whole cluster"
    assert right.attributes() == {"group": "batch", "resource": "jobs", "verb": "watch"}
    assert str(Right("a", "", "pods", "get")) == "get pods in namespace a"
