"""The ten laws, run over the adapter of ApiServerSource against a fake API server over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest_asyncio
from tests.fake_cluster import FakeApiServer, FakeCluster, fake_api_server

from wellhead.testing import AdapterLaws
from wellhead_adapters.apiserver.adapter import ApiServer
from wellhead_adapters.apiserver.config import ApiServerConfig
from wellhead_adapters.apiserver.subject import parse_resources

if TYPE_CHECKING:
    from wellhead.adapter import Adapter


class ApiServerDriver:
    adapter_class = ApiServer
    kind = "apiserver"
    broken = {  # noqa: RUF012 - a constant of this driver
        "K_SINK": "ftp://user:hunter2@example.com",
        "K_SOURCE_CONFIG": '{"namespaces":[],"resources":[{"gvr":{"Resource":"pods"}}]}',
        "RESOURCES": "Pod",
        "WATCH_NAMESPACES": "a,*",
        "NAMESPACE_SELECTOR": "=web",
        "APISERVER_MODE": "resource",
        "OWNER": "Pod",
        "FILTERS": "[{",
        "FIELD_SELECTOR": "a",
        "OPERATIONS": "create",
        "INITIAL_OBJECTS": "all",
        "IGNORE_CHANGES": "spec",
        "UPDATE_DATA": "diff",
        "COPY": "Team=label:team",
        "ORDERING": "none",
        "IN_FLIGHT": "0",
        "WATCH_SCOPE": "all",
        "KUBERNETES_SERVER": "ftp://me:hunter3@example.com",
    }
    secrets = ("hunter2", "hunter3")

    def __init__(self) -> None:
        self.server: FakeApiServer = FakeApiServer(FakeCluster())
        self.made = 0

    def adapter(self) -> Adapter:
        return ApiServer(
            ApiServerConfig(resources=parse_resources("v1:Pod"), namespace="ns", server=self.server.url), environment={}
        )

    async def occur(self, number: int) -> None:
        for _ in range(number):
            self.made += 1
            self.server.cluster.put("pods", f"pod-{self.made}")


class TestApiServerKeepsTheLaws(AdapterLaws):
    driver = ApiServerDriver()

    @pytest_asyncio.fixture(autouse=True)
    async def _server(self) -> AsyncIterator[None]:
        async with fake_api_server() as server:
            self.driver.server = server
            yield
            await asyncio.sleep(0)
