"""``wellhead doctor`` on a real API server: what it finds missing is what the server refuses, and its Role is enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import yaml
from tests.interop.kube import ADMIN_TOKEN, STRANGER_TOKEN
from tests.process import WELLHEAD, run

from wellhead.testing import RecordingSink

if TYPE_CHECKING:
    from pathlib import Path

    from tests.interop.kube import Kube
    from tests.process import Program

SOURCE: Final = """
apiVersion: sources.knative.dev/v1
kind: ApiServerSource
metadata: {name: pods, namespace: doctor}
spec:
  serviceAccountName: frog
  resources:
    - {apiVersion: v1, kind: Pod}
    - {apiVersion: batch/v1, kind: Job}
  sink: {uri: "%s"}
"""


async def doctor(kube: Kube, folder: Path, source: str, token: str = ADMIN_TOKEN) -> tuple[int, Program]:
    (folder / "source.yaml").write_text(source)
    config = kube.kubeconfig(folder / "config", token=token)
    return await run(WELLHEAD, "doctor", "-f", str(folder / "source.yaml"), "--kubeconfig", str(config))


async def test_the_role_that_it_prints_is_the_one_that_is_missing(kube: Kube, tmp_path: Path) -> None:
    kube.namespace("doctor")
    kube.service_account("frog", "doctor")
    async with RecordingSink() as sink:
        source = SOURCE % sink.url
        code, it = await doctor(kube, tmp_path, source)
        assert code == 1
        assert (
            "FAIL  ApiServerSource doctor/pods: system:serviceaccount:doctor:frog may not list pods" in it.stderr.text
        )
        assert f"ok    ApiServerSource doctor/pods: spec.sink: {sink.url} takes connections" in it.stderr.text
        for document in yaml.safe_load_all(it.stdout.text):
            kube.apply(document)
        code, it = await doctor(kube, tmp_path, source)
        assert (code, it.stdout.text) == (0, ""), it.stderr.text
        assert sink.requests == []
    kube.request("GET", "/apis/batch/v1/namespaces/doctor/jobs", token=kube.token_of("frog", "doctor"))


async def test_who_may_not_ask_for_others_asks_for_himself(kube: Kube, tmp_path: Path) -> None:
    async with RecordingSink() as sink:
        code, it = await doctor(kube, tmp_path, SOURCE % sink.url, STRANGER_TOKEN)
    assert code == 1
    assert "ApiServerSource doctor/pods: you may not watch jobs.batch in namespace doctor" in it.stderr.text


async def test_what_is_not_there_is_said(kube: Kube, tmp_path: Path) -> None:
    source = SOURCE.replace("batch/v1, kind: Job", "pond.example/v9, kind: Frog") % "http://127.0.0.1:1/"
    code, it = await doctor(kube, tmp_path, source)
    assert code == 1
    assert "FAIL  ApiServerSource doctor/pods: the API server serves no frogs of pond.example/v9" in it.stderr.text
    assert "spec.sink: http://127.0.0.1:1/ cannot be reached from here" in it.stderr.text


async def test_a_server_that_is_not_there_and_files_that_are_wrong_are_told(kube: Kube, tmp_path: Path) -> None:
    (tmp_path / "source.yaml").write_text(SOURCE % "http://127.0.0.1:1/")
    command = (WELLHEAD, "doctor", "--server", "http://127.0.0.1:1", "-f")
    code, it = await run(*command, str(tmp_path / "source.yaml"))
    assert code == 1
    assert "FAIL  API server: no answer Connect" in it.stderr.text
    (tmp_path / "wrong.yaml").write_text((SOURCE % "nowhere").replace("resources", "resourses"))
    code, it = await run(*command, str(tmp_path / "wrong.yaml"))
    assert code == 2
    assert "spec.resources: missing field" in it.stderr.text
    code, it = await run(WELLHEAD, "doctor")
    assert code == 2
    assert "-f: is not given: which files?" in it.stderr.text
