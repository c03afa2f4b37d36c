"""Sinks by reference, on a real API server: found, shown a token, and asked for with no more rights than needed."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Final

import pytest
from tests.process import WELLHEAD, started

from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from tests.interop.kube import Json, Kube

GROUP: Final = "eventing.knative.dev"
BROKERS: Final = f"brokers.{GROUP}"


def crd(plural: str, kind: str, group: str) -> Mapping[str, Json]:
    """A definition that takes any object, with a status of its own."""
    schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    version = {
        "name": "v1",
        "served": True,
        "storage": True,
        "schema": {"openAPIV3Schema": schema},
        "subresources": {"status": {}},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind, "singular": kind.lower()},
            "versions": [version],
        },
    }


def broker(namespace: str, name: str) -> dict[str, Json]:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Broker",
        "metadata": {"name": name, "namespace": namespace},
    }


@pytest.fixture(scope="module")
def brokers(kube: Kube) -> None:
    kube.define(crd("brokers", "Broker", GROUP))


def allow(kube: Kube, namespace: str, account: str, *rules: Mapping[str, Json]) -> None:
    """A Role with these rules, bound to the ServiceAccount."""
    group = "rbac.authorization.k8s.io"
    metadata = {"name": account, "namespace": namespace}
    kube.apply({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)})
    kube.apply(
        {
            "apiVersion": f"{group}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": group, "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": namespace}],
        }
    )


async def test_a_broker_is_waited_for_and_then_sent_to(kube: Kube, brokers: None, tmp_path: Path) -> None:
    namespace = kube.namespace("a-broker")
    kube.service_account("beats", namespace)
    allow(kube, namespace, "beats", {"apiGroups": [GROUP], "resources": ["brokers"], "verbs": ["get"]})
    environment = {
        "KUBECONFIG": str(kube.kubeconfig(tmp_path / "config", token=kube.token_of("beats", namespace))),
        "K_SINK": "broker:pond",
        "NAMESPACE": namespace,
        "POD_NAME": "a",
        "POD_NAMESPACE": namespace,
    }
    async with RecordingSink() as sink, started(WELLHEAD, "heartbeat", "--period", "1s", env=environment) as program:
        await program.stderr.line("is not there (namespace a-broker)")
        kube.create(broker(namespace, "pond"))
        await program.stderr.line("has no address")
        address = {"status": {"address": {"url": f"{sink.url}pond"}}}
        kube.request(
            "PATCH",
            f"{kube.path_of(broker(namespace, 'pond'))}/status",
            address,
            content_type="application/merge-patch+json",
        )
        await sink.accepted(1)
        assert sink.requests[0].request.target == "/pond"
        await program.stderr.line("sink is resolved again")


async def test_a_sink_with_an_audience_is_shown_a_token_of_the_service_account(
    kube: Kube, brokers: None, tmp_path: Path
) -> None:
    namespace = kube.namespace("a-token")
    for account in ("beats", "beats-oidc"):
        kube.service_account(account, namespace)
    allow(
        kube,
        namespace,
        "beats",
        {
            "apiGroups": [""],
            "resources": ["serviceaccounts/token"],
            "resourceNames": ["beats-oidc"],
            "verbs": ["create"],
        },
    )
    async with RecordingSink() as sink:
        environment = {
            "KUBECONFIG": str(kube.kubeconfig(tmp_path / "config", token=kube.token_of("beats", namespace))),
            "K_SINK": sink.url,
            "K_AUDIENCE": "the-pond",
            "K_OIDC_SERVICE_ACCOUNT": "beats-oidc",
            "NAMESPACE": namespace,
            "POD_NAME": "a",
            "POD_NAMESPACE": namespace,
        }
        async with started(WELLHEAD, "heartbeat", "--period", "1s", env=environment):
            await sink.accepted(1)
    shown = dict(sink.requests[0].request.headers)[b"authorization"].decode()
    payload = shown.removeprefix("Bearer ").split(".")[1]
    claims = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    assert claims["aud"] == ["the-pond"]
    assert claims["sub"] == f"system:serviceaccount:{namespace}:beats-oidc"
