"""What may be committed, which record may start, where to begin, what is remembered: the pure half of Kafka."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wellhead.delivery import Attempt
from wellhead_adapters.kafka.ahead import MOST_CHARACTERS, Run, Told, mark, tell, told
from wellhead_adapters.kafka.lanes import Lanes, Ordering
from wellhead_adapters.kafka.memory import MOST, Memory
from wellhead_adapters.kafka.offsets import Offsets
from wellhead_adapters.kafka.pressure import Budget
from wellhead_adapters.kafka.starting import (
    Edge,
    InitialOffset,
    Since,
    began_with,
    begin_at,
    commit_metadata,
    done_ahead,
    initial_offset,
)
from wellhead_adapters.kafka.watchdog import Verdict, Watchdog

SAMPLE: Final[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "samples/kafka_offsets/offset_manager.json").read_text()
)
PATIENCE: Final = 60.0
PLACE: Final = ("t", 0)


# --- offsets ---


@dataclass(frozen=True)
class Record:
    offset: int
    timestamp: int = 1
    key: bytes | None = None
    value: bytes | None = None


def rows() -> list[Any]:
    """Each row of the sample as offsets read, offsets done, and what may be committed."""
    found = []
    for row in (*SAMPLE["rows"], *SAMPLE["rows_from_issues"]):
        for part in row.get("partitions", {"": row}).values():
            done = [*part.get("done_dls", ()), *part.get("done", ())]
            first = row.get("first_received", [0])[0]
            read = part.get("fetched") or range(first, max([first, *done, *row.get("failed_dls", ())]) + 1)
            committed = part["committed"]
            if "failed_dls" in row:
                committed = None  # ours: a record that the dead-letter sink refused too is not passed over
            if not row.get("lost"):  # a partition that is lost is not committed at all: tests/test_kafka.py
                found.append(pytest.param(list(read), done, committed, id=row["name"]))
    return found


@pytest.mark.parametrize(("read", "done", "committed"), rows())
def test_what_may_be_committed_is_what_knatives_offset_manager_says(
    read: list[int], done: list[int], committed: int | None
) -> None:
    offsets = Offsets(read[0])
    for offset in read:
        offsets.read(offset)
    for offset in done:
        offsets.done(Record(offset))
    assert offsets.committable == (read[0] if committed is None else committed)


@given(st.data())
def test_it_is_the_first_record_that_is_not_done_whatever_is_done_before_it(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, 2**40))
    gaps = data.draw(st.lists(st.integers(1, 10**9) | st.just(1), max_size=30))
    offsets, position, in_flight, done = Offsets(start), start, set[int](), set[int]()
    waiting = deque(gaps)
    while waiting or in_flight:
        if waiting and (not in_flight or data.draw(st.booleans())):
            position += waiting.popleft()
            offsets.read(position - 1)
            in_flight.add(position - 1)
        else:
            offset = data.draw(st.sampled_from(sorted(in_flight)))
            in_flight.remove(offset)
            done.add(offset)
            offsets.done(Record(offset, offset + 1))
        assert offsets.committable == min(in_flight, default=position)
        ahead = {offset: offset + 1 for offset in done if in_flight and offset > min(in_flight)}
        assert offsets.ahead() == ahead
        assert len(offsets) == len(in_flight) + len(ahead)


def test_an_idle_partition_passes_what_is_no_record() -> None:
    offsets = Offsets(5)
    offsets.passed(9)
    assert offsets.committable == 9
    offsets.passed(7)
    assert offsets.committable == 9


# --- what is done ahead ---


RUNS: Final = st.lists(
    st.tuples(
        st.integers(1, 10**6),
        st.integers(1, 2**42),
        st.integers(0, 2**32 - 1),
        st.integers(0, 10**6),
        st.integers(0, 9),
    ),
    max_size=40,
)


def run(first: int, timestamp: int, last: int) -> Run:
    """A run without gaps, all of one timestamp, of records without key and value."""
    return Run(first, timestamp, mark(Record(first)), last, last - first + 1, timestamp)


def runs_from(committed: int, said: list[tuple[int, int, int, int, int]]) -> list[Run]:
    found, at = list[Run](), committed
    for gap, timestamp, first, length, later in said:
        found.append(Run(at + gap, timestamp, first, at + gap + length, length // 2 + 1, timestamp + later))
        at += gap + length
    return found


@given(st.integers(0, 2**50), RUNS)
def test_what_is_told_in_metadata_is_read_back(committed: int, said: list[tuple[int, int, int, int, int]]) -> None:
    runs = runs_from(committed, said)
    metadata = commit_metadata(12, tell(committed, runs))
    assert list(told(done_ahead(metadata), committed)) == runs
    assert began_with([metadata], known=99) == 12


@given(st.integers(0, 2**50), st.integers(0, 2**50), RUNS)
def test_beside_another_offset_it_is_not_believed(
    written: int, committed: int, said: list[tuple[int, int, int, int, int]]
) -> None:
    found = told(tell(written, runs_from(written, said)), committed)
    assert list(found) == (runs_from(written, said) if written == committed else [])


@given(st.text(max_size=60) | st.text("AZaz09-_", max_size=60))
def test_what_others_write_into_metadata_harms_nobody(text: str) -> None:
    for committed in (0, 1, 5):
        list(told(text, committed))
    list(told(done_ahead(f"partitions=3 done={text}"), 0))
    assert done_ahead(text) == ""


def test_of_more_than_there_is_room_for_the_first_runs_are_told() -> None:
    runs = [run(10 * number, 1_700_000_000_000 + 977 * number, 10 * number + 5) for number in range(1, 5000)]
    text = tell(5, runs)
    assert len(text) <= MOST_CHARACTERS < len(text) + 24
    found = told(text, 5)
    assert len(found) > 200
    assert list(found) == runs[: len(found)]


def test_records_without_a_timestamp_are_not_told_of() -> None:
    assert tell(5, [run(7, -1, 8), run(9, 0, 9)]) == ""
    assert list(told(tell(5, [run(7, -1, 8), run(9, 1, 9)]), 5)) == [run(9, 1, 9)]


def test_of_what_the_reader_came_by_without_a_record_nothing_is_told() -> None:
    """Compaction, or a transaction that was aborted, took its records away."""
    assert tell(10, [run(5, 1, 9)]) == tell(10, [run(5, 1, 12)]) == ""
    assert list(told(tell(10, [run(5, 1, 12), run(14, 1, 15)]), 10)) == [run(14, 1, 15)]


def test_of_a_log_that_was_cut_off_within_a_run_and_written_again_what_is_newer_is_sent() -> None:
    reading = Told([run(5, 1, 9)])
    assert [reading.is_done(Record(offset, timestamp)) for offset, timestamp in ((5, 1), (6, 1), (7, 2), (8, 1))] == [
        True, True, False, False,
    ]  # fmt: skip


def test_no_more_is_passed_than_was_done_though_the_offsets_reach_further() -> None:
    """A mirror closes the gaps that transactions leave in the log that it reads."""
    reading = Told([Run(5, 1, mark(Record(5)), 9, 3, 1)])
    assert [reading.is_done(Record(offset)) for offset in range(5, 10)] == [True, True, True, False, False]


@pytest.mark.parametrize("other", [Record(5, 1, value=b"other"), Record(5, 1, key=b"other"), Record(5, 2)])
def test_of_a_topic_made_anew_with_the_same_offsets_nothing_is_passed(other: Record) -> None:
    reading = Told([run(5, 1, 9)])
    assert not reading.is_done(other)
    assert not any(reading.is_done(Record(offset)) for offset in range(6, 10))


@given(st.data())
def test_whoever_reads_on_passes_what_was_done_and_nothing_else(data: st.DataObject) -> None:
    """A log with gaps, read to some point, in which some is done; then read again, by another, perhaps compacted."""
    offsets, timestamps = Offsets(0), dict[int, int]()
    done, position = set[int](), 0
    for gap in data.draw(st.lists(st.integers(1, 300), min_size=1, max_size=40)):
        position += gap
        timestamps[position] = data.draw(st.integers(1, 3))
        offsets.read(position)
    for offset in data.draw(st.lists(st.sampled_from(sorted(timestamps)), unique=True)):
        offsets.done(Record(offset, timestamps[offset]))
        done.add(offset)
    committed = offsets.committable
    runs = list(offsets.runs())
    assert {offset for one in runs for offset in timestamps if one.first <= offset <= one.last} == set(offsets.ahead())

    gone = data.draw(st.sets(st.sampled_from(sorted(timestamps))))
    reading = Told(told(tell(committed, runs), committed))
    left = [offset for offset in timestamps if offset >= committed and offset not in gone]
    passed = {offset for offset in left if reading.is_done(Record(offset, timestamps[offset]))}
    assert passed <= done
    first_gone = {offset for one in runs if one.first in gone for offset in range(one.first, one.last + 1)}
    assert passed == {offset for offset in left if offset in done and offset not in first_gone}


@given(RUNS.filter(bool), st.data())
def test_of_another_log_nothing_is_passed(said: list[tuple[int, int, int, int, int]], data: st.DataObject) -> None:
    runs = runs_from(0, said)
    offsets = sorted(data.draw(st.sets(st.integers(0, runs[-1].last + 3), max_size=30)) | {one.first for one in runs})
    reading = Told(runs)
    assert not any(reading.is_done(Record(offset, timestamp=0)) for offset in offsets)


def test_what_was_told_and_is_not_read_yet_is_told_again() -> None:
    runs = [run(5, 1, 7), run(10, 1, 12)]
    reading = Told(runs)
    assert list(reading.to_come()) == runs
    assert not reading.is_done(Record(4))
    assert list(reading.to_come()) == runs
    assert reading.is_done(Record(5))
    assert list(reading.to_come()) == runs[1:]
    assert not reading.is_done(Record(8))
    assert list(reading.to_come()) == runs[1:]
    assert (reading.is_done(Record(10)), reading.is_done(Record(13)), len(reading)) == (True, False, 0)


# --- lanes ---


@dataclass(frozen=True, eq=False)
class Item:
    partition: int
    key: bytes | None
    number: int
    ordering: Ordering

    @property
    def lane(self) -> Hashable | None:
        return self.ordering.lane(self.partition, self.key)


@given(
    st.sampled_from(Ordering),
    st.lists(st.tuples(st.integers(0, 2), st.sampled_from([None, b"", b"a", b"b"]))),
    st.data(),
)
def test_a_lane_is_sent_in_order_and_never_twice_at_once(
    ordering: Ordering, records: list[tuple[int, bytes | None]], data: st.DataObject
) -> None:
    lanes: Lanes[Item] = Lanes()
    for number, (partition, key) in enumerate(records):
        lanes.put(Item(partition, key, number, ordering))
    started: list[Item] = []
    ended: list[Item] = []
    while len(ended) < len(records):
        while (item := lanes.take()) is not None:
            assert item.lane is None or item.lane not in {other.lane for other in started}
            started.append(item)
        over = data.draw(st.sampled_from(started))
        started.remove(over)
        ended.append(over)
        lanes.done(over)
    for one in ended:
        same = [other.number for other in ended if one.lane is not None and other.lane == one.lane]
        assert same == sorted(same)


def test_orderings_differ_in_what_waits_for_what() -> None:
    assert Ordering.PARTITION.lane("p", b"k") == Ordering.PARTITION.lane("p", None) == "p"
    assert Ordering.KEY.lane("p", b"k") == ("p", b"k")
    assert Ordering.KEY.lane("p", b"") == ("p", b"")
    assert Ordering.KEY.lane("p", None) is None
    assert Ordering.UNORDERED.lane("p", b"k") is None


@given(
    st.lists(st.tuples(st.integers(0, 1), st.sampled_from([None, b"a", b"b"]))),
    st.sampled_from(Ordering),
    st.integers(0, 5),
    st.integers(0, 10),
)
def test_what_is_dropped_is_never_taken_and_what_is_kept_is(
    records: list[tuple[int, bytes | None]], ordering: Ordering, taken: int, since: int
) -> None:
    lanes: Lanes[Item] = Lanes()
    items = [Item(partition, key, number, ordering) for number, (partition, key) in enumerate(records)]
    for item in items:
        lanes.put(item)
    started = [first for _ in range(taken) if (first := lanes.take()) is not None]
    lanes.drop(lambda item: item.partition == 0 and item.number >= since)
    kept = [item for item in items if (item.partition == 1 or item.number < since) and item not in started]
    seen = []
    while started:
        lanes.done(started.pop())
        while (free := lanes.take()) is not None:
            seen.append(free)
            started.append(free)
    while (free := lanes.take()) is not None:
        seen.append(free)
        lanes.done(free)
    assert sorted(item.number for item in seen) == [item.number for item in kept]
    again = Item(0, b"a", -1, ordering)
    lanes.put(again)
    assert lanes.take() is again


# --- memory ---


def test_what_was_done_too_late_to_commit_is_known_once() -> None:
    memory = Memory()
    memory.done(PLACE, 5, timestamp=1)
    assert memory.knows(PLACE)
    assert memory.is_done(PLACE, Record(5))
    assert not memory.is_done(PLACE, Record(5))
    assert not memory.knows(PLACE)


def test_another_record_at_the_same_offset_of_a_topic_made_anew_is_not_taken_for_it() -> None:
    memory = Memory()
    memory.done(PLACE, 5, timestamp=1)
    memory.failing(PLACE, Record(6), Attempt(number=3))
    assert not memory.is_done(PLACE, Record(5, timestamp=2))
    assert memory.attempt(PLACE, Record(6, timestamp=2)) is None


def test_the_tries_of_a_record_go_on_where_they_were() -> None:
    memory = Memory()
    memory.failing(PLACE, Record(5), Attempt(number=3))
    assert not memory.is_done(PLACE, Record(5))
    assert memory.attempt(PLACE, Record(5)) == Attempt(number=3)
    assert memory.attempt(PLACE, Record(5)) is None


def test_what_lies_before_the_new_beginning_is_forgotten() -> None:
    memory = Memory()
    for offset in (4, 5, 6):
        memory.done(PLACE, offset, timestamp=1)
    memory.begin(PLACE, 6)
    assert len(memory) == 1
    memory.begin(PLACE, 7)
    assert not memory.knows(PLACE)


def test_it_is_bounded() -> None:
    memory = Memory()
    for offset in range(MOST + 5):
        memory.done(PLACE, offset, timestamp=1)
    assert len(memory) == MOST


# --- where to begin ---


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("earliest", Edge.EARLIEST),
        ("oldest", Edge.EARLIEST),
        ("latest", Edge.LATEST),
        ("newest", Edge.LATEST),
        ("2026-01-01T00:00:00Z", Since(datetime(2026, 1, 1, tzinfo=UTC))),
        ("2026-01-01T00:00:00", Since(datetime(2026, 1, 1, tzinfo=UTC))),
    ],
)
def test_an_initial_offset_is_an_end_or_an_instant(text: str, meant: InitialOffset) -> None:
    assert initial_offset(text) == meant


@pytest.mark.parametrize("text", ["soon", "1960-01-01T00:00:00Z", "0001-01-01T00:00:00+23:00"])
def test_another_initial_offset_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not earliest, latest, or an instant"):
        initial_offset(text)


def test_an_instant_is_told_to_kafka_in_milliseconds() -> None:
    assert Since(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)).milliseconds == 1000


@pytest.mark.parametrize(
    ("committed", "known", "began"),
    [
        pytest.param([], 12, 12, id="a new group: what is there now"),
        pytest.param([], 0, 0, id="a topic that was not there"),
        pytest.param([commit_metadata(12)] * 3, 16, 12, id="partitions were added since"),
        pytest.param([commit_metadata(16), commit_metadata(12)], 16, 12, id="members of different minds: the fewest"),
        pytest.param([""], 12, 0, id="Knative's controller committed all there were"),
        pytest.param(["partitions=many"], 12, 0, id="a stranger's"),
    ],
)
def test_how_many_partitions_a_group_began_with(committed: list[str], known: int, began: int) -> None:
    assert began_with(committed, known=known) == began


def test_a_partition_that_came_later_is_begun_at_its_first_record() -> None:
    assert begin_at(11, Edge.LATEST, began_with=12) is Edge.LATEST
    assert begin_at(12, Edge.LATEST, began_with=12) is Edge.EARLIEST


# --- how much is held ---


def test_each_partition_has_its_share_of_bytes_and_room_is_half_of_it() -> None:
    budget = Budget(1000, ahead=10)
    assert [budget.is_full(octets, 0, partitions=4) for octets in (249, 250)] == [False, True]
    assert [budget.has_room(octets, 0, partitions=4) for octets in (125, 126)] == [True, False]
    assert budget.is_full(1000, 0, partitions=0)


def test_a_partition_runs_so_many_records_ahead_whatever_they_weigh() -> None:
    budget = Budget(1000, ahead=10)
    assert [budget.is_full(0, ahead, partitions=4) for ahead in (9, 10)] == [False, True]
    assert [budget.has_room(0, ahead, partitions=4) for ahead in (5, 6)] == [True, False]


@given(
    st.integers(1, 2**40),
    st.integers(1, 10**6),
    st.integers(0, 2**41),
    st.integers(0, 10**6 + 500),
    st.integers(0, 999),
)
def test_what_is_full_has_no_room_and_what_holds_nothing_has(
    buffer: int, most: int, octets: int, ahead: int, partitions: int
) -> None:
    budget = Budget(buffer, most)
    assert not (
        budget.is_full(octets, ahead, partitions=partitions) and budget.has_room(octets, ahead, partitions=partitions)
    ) or (buffer < max(1, partitions)), "a partition with no byte for its share is full and has room when it is empty"
    assert budget.has_room(0, 0, partitions=partitions)


# --- watchdog ---


def test_no_progress_with_records_to_come_asks_for_a_new_consumer_and_then_gives_up() -> None:
    dog = Watchdog(PATIENCE)
    dog.began(100)
    assert dog.look(100 + PATIENCE - 1, lag=5) is Verdict.FINE
    assert dog.look(100 + PATIENCE, lag=5) is Verdict.REBUILD
    dog.began(200)
    assert dog.look(200 + PATIENCE - 1, lag=5) is Verdict.FINE
    assert dog.look(200 + PATIENCE, lag=5) is Verdict.GIVE_UP


def test_a_new_consumer_that_reads_is_forgiven() -> None:
    dog = Watchdog(PATIENCE)
    assert dog.look(PATIENCE, lag=5) is Verdict.REBUILD
    dog.progress(PATIENCE + 1)
    assert dog.look(2 * PATIENCE + 1, lag=5) is Verdict.REBUILD


def test_nothing_to_read_is_progress() -> None:
    dog = Watchdog(PATIENCE)
    assert dog.look(10 * PATIENCE, lag=0) is Verdict.FINE
    assert dog.age(10 * PATIENCE) == 0


def test_brokers_that_are_away_are_waited_for_with_new_consumers() -> None:
    dog = Watchdog(PATIENCE)
    for turn in range(1, 5):
        assert dog.look(turn * PATIENCE, lag=None) is Verdict.REBUILD
        dog.began(turn * PATIENCE)
