"""What is missing on this machine: in CI the run is red; elsewhere tests are skipped, and say aloud why."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest
from tests.interop.go_module import PeerMissing
from tests.interop.kafka_cluster import Cluster, KafkaMissing
from tests.interop.kube import KUBE, Kube
from tests.interop.peers import PEERS, GoPeer

if TYPE_CHECKING:
    from collections.abc import Iterator


def missing(reason: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def peers() -> Path:
    """The folder of the Go peers."""
    try:
        return PEERS.build()
    except PeerMissing as error:
        missing(f"NO GO PEER IS TESTED: {error}")


@pytest.fixture
def receiver(peers: Path) -> Iterator[GoPeer]:
    """The Go SDK's receiver, which prints as Knative's event_display does."""
    with GoPeer(peers / "receiver") as running:
        yield running


@pytest.fixture(scope="session")
def kafka() -> Iterator[Cluster]:
    """One broker of Apache Kafka with every kind of listener. Tests make topics of their own."""
    try:
        cluster = Cluster(secure=True).__enter__()
    except KafkaMissing as error:
        missing(f"NO KAFKA IS TESTED: {error}")
    try:
        yield cluster
    finally:
        cluster.__exit__(None, None, None)


@pytest.fixture(scope="session")
def kube_programs() -> Path:
    """The folder of kube-apiserver and etcd."""
    try:
        return KUBE.build()
    except PeerMissing as error:
        missing(f"NO API SERVER IS TESTED: {error}")


@pytest.fixture(scope="session")
def kube(kube_programs: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kube]:
    """A real API server, shared by all tests: each works in a namespace of its own."""
    with Kube(kube_programs, tmp_path_factory.mktemp("kube")) as running:
        yield running


@pytest.fixture
def brittle_kube(kube_programs: Path, tmp_path: Path) -> Iterator[Kube]:
    """A real API server for one test, which may kill it; without a watch cache, so that a compaction means 410."""
    with Kube(kube_programs, tmp_path / "kube", watch_cache=False) as running:
        yield running


@pytest.fixture(scope="session")
def knative_bin() -> Path:
    """The folder of Knative's own programs. They may be missing anywhere: nobody publishes them as binaries."""
    folder = os.environ.get("KNATIVE_BIN", "")
    if not folder:
        pytest.skip(
            "KNATIVE'S OWN PROGRAMS ARE NOT TESTED: KNATIVE_BIN names no folder with heartbeats and event_display"
        )
    lacking = [name for name in ("heartbeats", "event_display") if not (Path(folder) / name).is_file()]
    if lacking:
        pytest.fail(f"KNATIVE_BIN={folder} lacks {', '.join(lacking)}")
    return Path(folder)
