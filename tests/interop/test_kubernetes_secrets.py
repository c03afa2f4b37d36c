"""Secrets of a real API server under ``wellhead run -f``: with the Role of the README and no other right."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aiohttp
import pytest
import yaml
from tests.interop.kube import ApiProblem
from tests.process import WELLHEAD, run, started

import wellhead_adapters.gitlab
from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from tests.interop.kube import Json, Kube

README: Final = Path(wellhead_adapters.gitlab.__file__).with_name("README.md")
OLD: Final = "s3cret-of-the-webhook"
NEW: Final = "another-s3cret"
SOURCE: Final = """
apiVersion: sources.knative.dev/v1alpha1
kind: GitLabSource
metadata: {name: sample, namespace: %s}
spec:
  projectUrl: https://gitlab.example.com/g/p
  eventTypes: [push_events]
  accessToken: {secretKeyRef: {name: %s, key: accessToken}}
  secretToken: {secretKeyRef: {name: %s, key: secretToken}}
  sink: {ref: {apiVersion: v1, kind: Service, name: display}}
"""
LOCAL: Final = {"PORT": "0", "ADDRESS": "127.0.0.1"}


def secret(name: str, namespace: str, token: str) -> dict[str, Json]:
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": name, "namespace": namespace},
        "data": {"secretToken": base64.b64encode(token.encode()).decode()},
    }


def readers_role() -> Json:
    """The Role that the README shows."""
    (block,) = [part.split("```")[0] for part in README.read_text(encoding="utf-8").split("```yaml")[1:]]
    return yaml.safe_load(block)


def allowed(kube: Kube, namespace: str) -> str:
    """The token of a ServiceAccount that may do what that Role says, and nothing else."""
    kube.service_account("gitlab", namespace)
    role = readers_role()
    role["metadata"]["namespace"] = namespace
    kube.apply(role)
    kube.apply(
        {
            "apiVersion": role["apiVersion"],
            "kind": "RoleBinding",
            "metadata": role["metadata"],
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role["metadata"]["name"]},
            "subjects": [{"kind": "ServiceAccount", "name": "gitlab", "namespace": namespace}],
        }
    )
    return kube.token_of("gitlab", namespace)


async def knock(url: str, token: str) -> int:
    headers = {"X-Gitlab-Event": "Push Hook", "X-Gitlab-Token": token}
    async with aiohttp.ClientSession() as client, client.post(url, data=b"{}", headers=headers) as answer:
        return answer.status


async def test_gitlabs_tokens_are_read_with_the_role_of_the_readme_and_followed(kube: Kube, tmp_path: Path) -> None:
    namespace = kube.namespace("gitlab-secrets")
    token = allowed(kube, namespace)
    name = readers_role()["metadata"]["name"]
    kube.create(secret(name, namespace, OLD))
    with pytest.raises(ApiProblem, match="cannot list"):
        kube.request("GET", f"/api/v1/namespaces/{namespace}/secrets", token=token)
    (tmp_path / "source.yaml").write_text(SOURCE % (namespace, name, name))
    config = kube.kubeconfig(tmp_path / "config", token=token)
    async with RecordingSink() as sink:
        flags = ("-f", str(tmp_path / "source.yaml"), "--sink", sink.url, "--log-format=json")
        environment = {**LOCAL, "KUBECONFIG": str(config), "LOG_LEVEL": "debug"}
        async with started(WELLHEAD, "run", *flags, env=environment) as it:
            bound = json.loads(await it.stderr.line("GitLab's requests are taken"))
            url = f"http://127.0.0.1:{bound['port']}/{namespace}/sample"
            assert (await knock(url, OLD), await knock(url, NEW)) == (202, 401)
            kube.apply(secret(name, namespace, NEW))
            await it.stderr.line("source has another configuration")
            assert await knock(url, NEW) == 202
            assert await knock(url, OLD) == 401, "nobody knows when whoever registered has the new one"
            assert await it.stop() == 0
        assert len(sink.events) == 2
    for hidden in (OLD, NEW, token):
        assert hidden not in it.stderr.text + it.stdout.text


async def test_what_the_role_does_not_allow_and_what_is_not_there_are_told_by_name(kube: Kube, tmp_path: Path) -> None:
    namespace = kube.namespace("gitlab-no-secrets")
    token = allowed(kube, namespace)
    kube.create(secret("of-others", namespace, OLD))
    name = readers_role()["metadata"]["name"]
    for number, (asked, what) in enumerate(
        (
            ("of-others", f"resourceNames [of-others], in namespace {namespace}"),
            (name, f"there is no Secret {namespace}/{name} of the cluster: create it"),
        )
    ):
        (tmp_path / f"{number}.yaml").write_text(SOURCE % (namespace, asked, asked))
        config = kube.kubeconfig(tmp_path / "config", token=token)
        command = (WELLHEAD, "run", "-f", str(tmp_path / f"{number}.yaml"), "--kubeconfig", str(config))
        code, it = await run(*command, env=LOCAL)
        assert code == 2
        assert what in it.stderr.text
        assert "spec.secretToken.secretKeyRef" in it.stderr.text
        assert OLD not in it.stderr.text
        assert token not in it.stderr.text
