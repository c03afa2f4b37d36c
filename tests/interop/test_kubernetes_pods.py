"""ApiServerSource as a pod: Knative's own Deployment, and our manifests, applied to a real API server and started by a
kubelet of five lines, with the ServiceAccount's token and CA mounted where a pod has them.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import signal
import sys
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest
import yaml
from tests.interop.conftest import missing
from tests.interop.kube import as_pod
from tests.interop.test_kubernetes_sinks import allow, crd
from tests.process import WELLHEAD, Program, started

from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from tests.interop.kube import Json, Kube

    from wellhead.event import CloudEvent

CHECKOUT: Final = Path(__file__).resolve().parents[2]
RECORDED: Final = CHECKOUT / "tests/samples/crs/apiserversource_deployment.json"
APISERVER: Final = (sys.executable, "-m", "wellhead_adapters.apiserver")


@pytest.fixture(autouse=True)
def namespaces() -> None:
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        missing("NO POD IS TESTED: that needs root, and unshare, for a mount namespace")


@contextlib.asynccontextmanager
async def pod(
    kube: Kube, folder: Path, deployment: Mapping[str, Json], namespace: str, **changed: str
) -> AsyncIterator[Program]:
    """The Deployment's container, with exactly its environment, but what is ``changed``."""
    template = deployment["spec"]["template"]["spec"]
    container = template["containers"][0]
    fields = {"metadata.namespace": namespace}
    environment = {
        "KUBERNETES_SERVICE_HOST": "127.0.0.1",
        "KUBERNETES_SERVICE_PORT": str(kube.port),
        **{
            one["name"]: one["value"] if "value" in one else fields[one["valueFrom"]["fieldRef"]["fieldPath"]]
            for one in container.get("env", [])
        },
        "HEALTH_PORT": "0",  # another test's may be taken
        **changed,
    }
    mounted = kube.pod_folder(folder, template.get("serviceAccountName", "default"), namespace)
    command = (*as_pod(mounted), *APISERVER, *container.get("args", []))
    async with started(*command, env={**environment, "PATH": os.environ["PATH"]}) as program:
        yield program


async def test_the_deployment_of_knatives_controller_runs_ours_in_place_of_its_own(kube: Kube, tmp_path: Path) -> None:
    deployment = json.loads(RECORDED.read_text())
    kube.namespace("kn")
    account = deployment["spec"]["template"]["spec"].get("serviceAccountName", "default")
    kube.service_account(account, "kn")
    watched = {"apiGroups": [""], "resources": ["configmaps", "pods"], "verbs": ["get", "list", "watch"]}
    allow(kube, "kn", account, watched)
    async with (
        RecordingSink() as sink,
        pod(kube, tmp_path / "mounted", deployment, "kn", K_SINK=f"{sink.url}as1") as program,
    ):
        await program.stderr.line("source is ready")
        for name, labels in (("not-chosen", {}), ("chosen", {"app": "lab"})):
            metadata = {"name": name, "namespace": "kn", "labels": labels}
            kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata})
        (event,) = await sink.accepted(1)
    assert sink.requests[0].request.target == "/as1"
    assert (event.type, event.extensions["name"]) == ("dev.knative.apiserver.resource.add", "chosen")
    assert event.source == kube.url
    assert event.extensions["team"] == "lab"  # its K_CE_OVERRIDES
    assert dict(sink.requests[0].request.headers)[b"kn-namespace"] == b"kn"


def apply_ours(kube: Kube, namespace: str) -> Mapping[str, Json]:
    """All of manifests/apiserver.yaml, to a namespace; the Deployment of it."""
    documents = list(yaml.safe_load_all((CHECKOUT / "manifests/apiserver.yaml").read_text()))
    for document in documents:
        document["metadata"]["namespace"] = namespace
        for subject in document.get("subjects", []):
            subject["namespace"] = namespace  # as `kubectl apply -n` does not; the API server asks for it
        kube.apply(document)
    deployment: Mapping[str, Json]
    (deployment,) = (one for one in documents if one["kind"] == "Deployment")
    return deployment


def words(event: CloudEvent) -> str:
    return f"{event.type.rpartition('.')[2]} {event.extensions['name']!s}"


def a_pod(namespace: str, name: str = "frog") -> Mapping[str, Json]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "frog", "image": "frog"}]},
    }


async def test_our_deployment_and_its_role_are_enough_and_a_restart_misses_nothing(kube: Kube, tmp_path: Path) -> None:
    namespace = kube.namespace("ours")
    deployment = apply_ours(kube, namespace)
    async with RecordingSink() as sink:
        as_ours = partial(pod, kube, tmp_path / "mounted", deployment, namespace, SINK=sink.url)
        async with as_ours() as program:
            await program.stderr.line("source is ready")
            kube.create(a_pod(namespace))
            kube.create(a_pod(namespace, "toad"))
            events = await sink.accepted(2)
            assert events[0].subject == f"/apis/v1/namespaces/{namespace}/pods/frog"
            assert b"managedFields" not in (events[0].data or b"")
            await program.stop(signal.SIGKILL)
        kube.delete({**a_pod(namespace), "metadata": {"name": "frog", "namespace": namespace}})
        kube.create(a_pod(namespace, "newt"))
        async with as_ours() as program:
            await program.stderr.line("source is ready")
            while not {"delete frog", "add newt"} <= {words(event) for event in sink.events}:
                await sink.accepted(len(sink.events) + 1)
            assert (await program.stop(), program.stderr.text.count('"level": "ERROR"')) == (0, 0), program.stderr.text
        told = {event.id: words(event) for event in sink.events}
        changes = sorted(word for word in told.values() if word != "update frog")  # that it is to be deleted
        assert changes == ["add frog", "add newt", "add toad", "delete frog"]
        before = len(sink.events)
        async with as_ours() as program:  # ended in order: nothing comes twice
            await program.stderr.line("source is ready")
            kube.create(a_pod(namespace, "last"))
            await sink.accepted(before + 1)
        assert [words(event) for event in sink.events[before:]] == ["add last"]


async def test_without_its_rules_for_the_state_it_waits_and_says_what_is_missing(kube: Kube, tmp_path: Path) -> None:
    namespace = kube.namespace("stateless")
    deployment = apply_ours(kube, namespace)
    role = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "Role",
        "metadata": {"name": "apiserver", "namespace": namespace},
    }
    rules = kube.request("GET", kube.path_of(role))["rules"]
    kube.apply({**role, "rules": [rule for rule in rules if "resourceNames" not in rule]})
    async with (
        RecordingSink() as sink,
        pod(kube, tmp_path / "mounted", deployment, namespace, SINK=sink.url) as program,
    ):
        await program.stderr.line("reading the state")
        assert 'cannot get resource \\"configmaps\\"' in program.stderr.text
        assert "source is ready" not in program.stderr.text
        kube.apply({**role, "rules": rules})
        await program.stderr.line("source is ready")
        kube.create(a_pod(namespace))
        await sink.accepted(1)


async def test_it_does_not_tell_of_its_own_state_and_comes_to_rest(kube: Kube, tmp_path: Path) -> None:
    namespace = kube.namespace("resting")
    kube.service_account("frog", namespace)
    everything = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "create", "patch"]}
    allow(kube, namespace, "frog", everything)
    flags = ("--resource", "v1:ConfigMap", "--namespace", namespace, "--state-config-map", "state", "--initial", "add")
    config = kube.kubeconfig(tmp_path / "config", token=kube.token_of("frog", namespace))
    env = {"KUBECONFIG": str(config), "HEALTH_PORT": "0"}
    state = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "state", "namespace": namespace}}
    async with RecordingSink() as sink, started(WELLHEAD, "apiserver", *flags, "--sink", sink.url, env=env) as program:
        await program.stderr.line("source is ready")
        for name in ("a", "b"):
            kube.create({**state, "metadata": {"name": name, "namespace": namespace}})
            await sink.accepted(1)
        await sink.accepted(2)
        assert await program.stop() == 0
    assert [event.extensions["name"] for event in sink.events] == ["a", "b"]
    kept = kube.request("GET", kube.path_of(state))
    assert kept["metadata"]["annotations"].keys() == {"apiserver.wellhead/state-of"}
    lines = zlib.decompress(base64.b64decode(kept["binaryData"]["state"])).decode().splitlines()
    assert [line.split()[3] for line in lines if line.startswith("+")] == ["a", "b"]


async def test_our_apiserversource_runs_here_as_its_service_account(kube: Kube, tmp_path: Path) -> None:
    kube.define(crd("apiserversources", "ApiServerSource", "sources.knative.dev"))
    path = CHECKOUT / "manifests/apiserversource.yaml"
    for document in yaml.safe_load_all(path.read_text()):
        document["metadata"]["namespace"] = "default"
        for subject in document.get("subjects", []):
            subject["namespace"] = "default"
        kube.apply(document)
    config = kube.kubeconfig(tmp_path / "config", token=kube.token_of("pod-watcher", "default"))
    async with (
        RecordingSink() as sink,
        started(WELLHEAD, "run", "-f", str(path), "--sink", sink.url, env={"KUBECONFIG": str(config)}) as program,
    ):
        await program.stderr.line("source is ready")
        kube.create(a_pod("default"))
        (event,) = await sink.accepted(1)
    assert event.type == "dev.knative.apiserver.resource.add"
    assert event.subject == "/apis/v1/namespaces/default/pods/frog"
