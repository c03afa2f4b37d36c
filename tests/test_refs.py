"""Which sinks are the API server's to find: those that --ref does not name, where there is one to ask."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.address import Address
from wellhead.binding import Destination, Ref, SinkBinding
from wellhead.errors import ConfigError
from wellhead.refs import Refs
from wellhead.testing import FakeTransport

if TYPE_CHECKING:
    from pathlib import Path

BROKER: Final = Destination(ref=Ref(apiVersion="eventing.knative.dev/v1", kind="Broker", name="pond"))
PLAIN: Final = Destination(uri="http://pond/")
SERVER: Final = {"KUBERNETES_SERVER": "http://127.0.0.1:1"}  # nobody listens there


def address(url: str) -> Address:
    return Address(SinkBinding(sink=url), FakeTransport())


async def test_what_was_said_wins_over_the_api_server() -> None:
    async with aclosing(Refs({"broker:pond": "http://said/"}, SERVER)) as refs:
        assert (await refs.find(BROKER)).url == "http://said/"
        there = address("http://said/")
        refs.keep(there, BROKER)
        assert there.unreachable == ""


async def test_what_nobody_knows_is_an_error_that_names_the_flag(tmp_path: Path) -> None:
    async with aclosing(Refs({}, {"HOME": str(tmp_path)})) as refs:
        with pytest.raises(ConfigError, match=r"--ref pond=http://"):
            await refs.find(BROKER)


async def test_what_the_api_server_knows_cannot_be_reached_before_it_has_said_so() -> None:
    async with aclosing(Refs({}, SERVER, namespace="lake")) as refs:
        found = await refs.find(BROKER)
        assert found.url == "http://pond.lake.broker.invalid"
        there = address(found.url)
        refs.keep(there, BROKER)
        assert there.unreachable == "Broker pond is not resolved yet"


async def test_a_plain_sink_waits_for_a_token_only_where_audience_and_account_are_known() -> None:
    there = address("http://pond/")
    async with aclosing(Refs({}, SERVER, account="frog")) as refs:
        refs.keep(there, PLAIN)
        assert there.unreachable == ""
    async with aclosing(Refs({}, SERVER, account="frog", audience="pond")) as refs:
        refs.keep(there, PLAIN)
        assert there.unreachable == "the sink is not resolved yet"
