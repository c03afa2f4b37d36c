"""ApiServerSource of 1,000 namespaces and 5 kinds on a real API server: how long until it is ready, what it asks for.

python tests/bench/namespaces.py [NAMESPACES]

Once as one that may list the whole cluster, which takes a watch a kind; once as one that may list in these namespaces
only, which takes one a kind and namespace. Prints; asserts nothing. Requests are counted by the API server: all for what is
watched, but those that it forbids (one a kind, which asks for the whole cluster) and discovery (one a group).
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Final

sys.path.insert(0, str(Path(__file__).parents[2]))  # as `make bench` has it

from tests.bench.apiserver import resident_mib, running
from tests.bench.machine import cpu_seconds
from tests.bench.receiving import Receiver
from tests.interop.kube import ADMIN_TOKEN, KUBE, Kube, as_pod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.interop.kube import Json

RESOURCES: Final = ("configmaps", "secrets", "services", "serviceaccounts", "pods")
RULE: Final = {"apiGroups": [""], "resources": [*RESOURCES], "verbs": ["get", "list", "watch"]}
RBAC: Final = "rbac.authorization.k8s.io"
_WRITERS: Final = 8
_ASKED: Final = re.compile(
    r"^apiserver_request_total\{.*resource=\"(\w+)\".*verb=\"(LIST|GET|WATCH)\".*\} (\S+)$", re.MULTILINE
)
_STANDING: Final = re.compile(
    r"^apiserver_longrunning_requests\{.*resource=\"(\w+)\".*verb=\"WATCH\".*\} (\S+)$", re.MULTILINE
)


def main(number: int) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        kube = stack.enter_context(Kube(KUBE.build(), folder / "kube"))
        receiver = stack.enter_context(Receiver())
        names = [f"n{each:04}" for each in range(number)]
        began = time.perf_counter()
        _set_up(kube, names)
        print(
            f"{number} namespaces × {len(RESOURCES)} kinds, made in {time.perf_counter() - began:.0f} s; load {os.getloadavg()[0]:.1f}"
        )
        for account in ("everywhere", "somewhere"):
            mounted = as_pod(kube.pod_folder(folder / account, account, "default"))
            print(f"{account:12} {_measured(kube, receiver, mounted, names)}")


def _set_up(kube: Kube, names: Sequence[str]) -> None:
    """The namespaces, one ServiceAccount that may list everywhere, and one that may in each of them."""
    for account in ("everywhere", "somewhere"):
        kube.service_account(account, "default")
    role = {"apiVersion": f"{RBAC}/v1", "kind": "ClusterRole", "metadata": {"name": "watcher"}, "rules": [RULE]}
    kube.create(role)
    kube.create(_binding("ClusterRoleBinding", "everywhere"))
    with ThreadPoolExecutor(_WRITERS) as writers:
        list(writers.map(kube.namespace, names))
        list(writers.map(lambda name: kube.create(_binding("RoleBinding", "somewhere", namespace=name)), names))


def _binding(kind: str, account: str, **metadata: str) -> dict[str, Json]:
    return {
        "apiVersion": f"{RBAC}/v1",
        "kind": kind,
        "metadata": {"name": account, **metadata},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "watcher"},
        "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": "default"}],
    }


def _measured(kube: Kube, receiver: Receiver, mounted: Sequence[str], names: Sequence[str]) -> str:
    config = {
        "namespaces": list(names),
        "resources": [{"gvr": {"Group": "", "Version": "v1", "Resource": resource}} for resource in RESOURCES],
        "mode": "Reference",
    }
    given = {"K_SOURCE_CONFIG": json.dumps(config), "K_SINK": receiver.url, "HEALTH_PORT": "0"}
    command = (*mounted, "env", *(f"{name}={value}" for name, value in given.items()))
    before = _requests(kube)
    with running((*command, sys.executable, "-m", "wellhead_adapters.apiserver"), kube.port) as (process, ready_ms):
        asked = _requests(kube) - before
        receiver.clear()
        began = time.perf_counter()
        kube.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": names[-1]}})
        receiver.wait(1, 30.0)
        told = (time.perf_counter() - began) * 1000
        kube.delete({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one", "namespace": names[-1]}})
        return (
            f"ready after {ready_ms / 1000:.2f} s, {asked} requests, CPU {cpu_seconds(process.pid) or 0.0:.2f} s, "
            f"{resident_mib(process.pid):.0f} MiB; the next change told after {told:.0f} ms"
        )


def _requests(kube: Kube) -> int:
    """Requests for what is watched: those that were answered, and the watches that stand."""
    request = urllib.request.Request(f"{kube.url}/metrics", headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
    with urllib.request.urlopen(request, timeout=30, context=kube.tls()) as answer:
        text = answer.read().decode()
    answered = sum(float(value) for resource, _, value in _ASKED.findall(text) if resource in RESOURCES)
    standing = sum(float(value) for resource, value in _STANDING.findall(text) if resource in RESOURCES)
    return int(answered + standing)


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
