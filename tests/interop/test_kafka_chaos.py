"""The smaller form of the chaos run; `make soak` does the whole (tests/faults/kafka_chaos.py)."""

from __future__ import annotations

import tempfile

from tests.faults.kafka_chaos import Chaos, run
from tests.interop.conftest import missing
from tests.interop.kafka_cluster import KafkaMissing


def test_nothing_is_lost_and_no_key_loses_its_order_whatever_happens() -> None:
    try:
        with tempfile.TemporaryFile() as log:
            outcome = run(Chaos(records=20_000, keys=200, kills=3, brokers_stopped=1), log)
    except KafkaMissing as error:
        missing(f"NO KAFKA IS TESTED: {error}")
    assert outcome.problems == []
    assert len(outcome.disturbances) == 8  # and the start
    assert outcome.requests > outcome.records  # the sink did refuse some
