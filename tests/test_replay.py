"""wellhead replay: the loop against a sink in memory, the command as a user starts it."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.process import HEARTBEAT, POD, REFUSED_URL, WELLHEAD, run, started

from wellhead.dead_letter import ERROR_EXTENSIONS, decode_line, encode_line
from wellhead.dead_letter_file import DeadLetterFile
from wellhead.errors import DeliveryError, Loss
from wellhead.event import CloudEvent
from wellhead.testing import Answer, FakeSink, Hang, RecordingSink
from wellhead_adapters.cli import replay
from wellhead_adapters.cli.letters import Letters
from wellhead_adapters.cli.replay import Replay, Replayer

if TYPE_CHECKING:
    from pathlib import Path
    from typing import TypeAlias

    from cloudevents.core.v1.event import CloudEvent as SdkEvent

    from wellhead.adapter import Deadline, Fence
    from wellhead.delivery import Attempt

    Sent: TypeAlias = CloudEvent | SdkEvent

NO_EVENT: Final = b'{"specversion":"1.0"}\n'
ERROR: Final[dict[str, str | int]] = {"knativeerrordest": "http://sink/", "knativeerrorcode": 422}


def event(number: int) -> CloudEvent:
    return CloudEvent(id=str(number), source="/spring", type="drop", data=b"%d" % number, extensions={"a": "b"})


def dead(number: int) -> bytes:
    one = event(number)
    return encode_line(
        CloudEvent(id=one.id, source=one.source, type=one.type, data=one.data, extensions={"a": "b", **ERROR})
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "dead.jsonl"
    path.write_bytes(b"".join(map(dead, range(1, 6))))
    return path


def ids(path: Path) -> list[str]:
    return [decode_line(line).id for line in path.read_bytes().splitlines(keepends=True)]


async def replayed(path: Path, sink: FakeSink, first: int = 1) -> Replayer:
    with Letters(path) as letters:
        replayer = Replayer(letters, first, lambda _: None)
        await replayer.run(sink, lambda: None)
        return replayer


# --- what is sent, and what stays ---


async def test_events_arrive_in_order_as_they_were_before_they_were_dead_letters(path: Path) -> None:
    sink = FakeSink()
    replayer = await replayed(path, sink)
    assert sink.events == [event(number) for number in range(1, 6)]
    assert str(replayer.tally) == "5 accepted, 0 not accepted, 0 unreadable"
    assert not path.exists()


async def test_what_is_refused_again_stays_as_it_was(path: Path) -> None:
    sink = FakeSink()
    sink.lose(Loss.REFUSED)
    replayer = await replayed(path, sink)
    assert (replayer.tally.accepted, replayer.tally.refused) == (4, 1)
    assert path.read_bytes() == dead(1)


async def test_a_line_that_is_no_event_stays_and_stops_nothing(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(dead(1) + NO_EVENT + b"\n" + dead(2))
    sink = FakeSink()
    replayer = await replayed(path, sink)
    assert [one.id for one in sink.events] == ["1", "2"]
    assert replayer.tally.unreadable == 2
    assert path.read_bytes() == NO_EVENT + b"\n"
    assert [vars(record)["line"] for record in caplog.records] == [2, 3]


async def test_lines_before_from_are_not_sent_and_stay(path: Path) -> None:
    sink = FakeSink()
    await replayed(path, sink, first=4)
    assert [one.id for one in sink.events] == ["4", "5"]
    assert ids(path) == ["1", "2", "3"]


async def test_a_torn_last_line_stays_and_is_told(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(dead(1) + b'{"spec')
    await replayed(path, FakeSink())
    assert path.read_bytes() == b'{"spec'
    assert "torn" in caplog.text


async def test_the_file_keeps_its_mode(path: Path) -> None:
    path.chmod(0o640)
    await replayed(path, FakeSink(), first=2)
    assert path.stat().st_mode & 0o777 == 0o640


async def test_it_replays_the_file_a_link_leads_to(path: Path) -> None:
    link = path.with_name("link")
    link.symlink_to(path)
    await replayed(link, FakeSink(), first=2)
    assert link.is_symlink()
    assert ids(path) == ["1"]


# --- others at the file meanwhile ---


class Meanwhile(FakeSink):
    """Something happens to the file while an event is on its way."""

    def __init__(self, path: Path, number: str) -> None:
        super().__init__()
        self._path = path
        self._number = number

    async def send(
        self,
        event: Sent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,
    ) -> None:
        await super().send(event, deadline=deadline, fence=fence)
        if self.events[-1].id == self._number:
            await self.happen(self._path)

    async def happen(self, path: Path) -> None:
        await DeadLetterFile(path).write(decode_line(dead(9)))


class TakenOut(Meanwhile):
    async def happen(self, path: Path) -> None:
        await replayed(path, FakeSink(), first=5)


async def test_what_a_source_writes_meanwhile_stays_for_the_next_replay(path: Path) -> None:
    sink = Meanwhile(path, "3")
    await replayed(path, sink)
    assert [one.id for one in sink.events] == list("12345")
    assert ids(path) == ["9"]


async def test_a_file_that_another_replay_has_changed_is_left_alone(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    replayer = await replayed(path, TakenOut(path, "5"))
    assert replayer.failed
    assert ids(path) == list("1234")
    assert "was changed by another program" in str(vars(caplog.records[-1])["reason"])


# --- stopped half-way ---


class Stuck:
    """A sink that accepts some events, then tries one until its fence is closed."""

    def __init__(self, accepts: int, *, accepts_last: bool) -> None:
        self.reached = asyncio.Event()
        self._left = accepts
        self._accepts_last = accepts_last

    async def send(
        self,
        event: Sent,
        /,
        *,
        deadline: Deadline | None = None,
        fence: Fence | None = None,
        after: Attempt | None = None,
    ) -> None:
        if self._left:
            self._left -= 1
            return
        assert fence is not None
        closed = asyncio.Event()
        fence.on_close(closed.set)
        self.reached.set()
        await closed.wait()
        if not self._accepts_last:
            raise DeliveryError(event_id="3", loss=Loss.FENCED, last="", tries=1, maybe_accepted=False)


@pytest.mark.parametrize(("accepts_last", "left"), [(False, "345"), (True, "45")])
async def test_stopped_it_waits_for_the_try_on_the_wire_and_the_next_replay_goes_on_from_there(
    path: Path, *, accepts_last: bool, left: str
) -> None:
    sink = Stuck(2, accepts_last=accepts_last)
    with Letters(path) as letters:
        running = asyncio.create_task(Replayer(letters, 1, lambda _: None).run(sink, lambda: None))
        await sink.reached.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
    assert ids(path) == list(left)


async def test_what_was_accepted_is_taken_out_now_and_then_so_that_a_kill_repeats_little(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "_CHECKPOINT_SECONDS", 0.0)
    left: list[list[str]] = []

    class Watching(Meanwhile):
        async def send(
            self,
            event: Sent,
            /,
            *,
            deadline: Deadline | None = None,
            fence: Fence | None = None,
            after: Attempt | None = None,
        ) -> None:
            left.append(ids(path))
            await super().send(event, deadline=deadline, fence=fence)

    sink = Watching(path, "3")
    sink.lose(Loss.REFUSED)
    replayer = await replayed(path, sink)
    assert left == [list("12345"), list("12345"), list("1345"), list("1459"), list("159")]
    assert [one.id for one in sink.events] == list("2345")
    assert replayer.tally.accepted == 4
    assert ids(path) == ["1", "9"]


@given(kept=st.lists(st.booleans(), max_size=12), rewrites=st.sets(st.integers(0, 11)))
def test_whatever_is_kept_and_whenever_it_is_rewritten_the_rest_is_what_was_kept_in_order(
    tmp_path_factory: pytest.TempPathFactory, kept: list[bool], rewrites: set[int]
) -> None:
    path = tmp_path_factory.mktemp("letters") / "dead.jsonl"
    path.write_bytes(b"".join(map(dead, range(len(kept)))))
    with Letters(path) as letters:
        for number, keep in enumerate(kept):
            line = letters.next()
            assert line is not None
            assert (line.number, line.octets) == (number + 1, dead(number))
            letters.settle(line, keep=keep)
            if number in rewrites:
                letters.take_out()
        assert letters.next() is None
        letters.take_out()
        assert letters.done == letters.size
    expected = b"".join(dead(number) for number, keep in enumerate(kept) if keep)
    assert (path.read_bytes() if path.exists() else b"") == expected
    assert path.exists() == (bool(expected) or not kept)
    assert not path.with_name("dead.jsonl.rest").exists()


# --- from the source to the file and back ---


@pytest.fixture
def beat(tmp_path: Path) -> dict[str, str]:
    """One heartbeat whose dead letter goes to a file with a blank in its name."""
    return {**POD, "ONE_SHOT": "1", "DEAD_LETTER_SINK": f"file://{tmp_path}/dead%20letters.jsonl"}


async def test_what_a_sink_refuses_goes_to_the_file_and_from_there_to_a_sink_that_takes_it(
    beat: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "dead letters.jsonl"
    async with RecordingSink() as sink:
        sink.then(Answer(422, body=b"no"))
        code, _ = await run(*HEARTBEAT, env={**beat, "SINK": sink.url})
        assert code == 0  # dead-lettered is accounted for
        (line,) = path.read_bytes().splitlines(keepends=True)
        extensions = decode_line(line).extensions
        assert [extensions[name] for name in ERROR_EXTENSIONS] == [f"{sink.url}", 422, "bm8="]
        (refused,) = sink.tried
        assert (await run(WELLHEAD, "replay", str(path), "--sink", sink.url))[0] == 0
        assert sink.events == [refused]
    assert not path.exists()


async def test_an_event_that_the_full_file_does_not_take_is_lost_loudly(beat: dict[str, str], tmp_path: Path) -> None:
    async with RecordingSink() as sink:
        sink.always(Answer(422))
        code, program = await run(*HEARTBEAT, env={**beat, "SINK": sink.url, "DEAD_LETTER_MAX_BYTES": "10"})
    assert code == 3
    assert (tmp_path / "dead letters.jsonl").read_bytes() == b""
    assert "dead-letter file is full" in program.stderr.text
    assert "event was not delivered" in program.stderr.text


async def test_a_file_that_cannot_be_written_ends_the_start(tmp_path: Path) -> None:
    dead_letters = f"file://{tmp_path}/missing/dead.jsonl"
    code, program = await run(
        *HEARTBEAT, "--dead-letter-sink", dead_letters, env={**POD, "ONE_SHOT": "1", "SINK": REFUSED_URL}
    )
    assert code == 2
    assert f"--dead-letter-sink: cannot write to {tmp_path}/missing/dead.jsonl: No such file" in program.stderr.text
    assert "Traceback" not in program.stderr.text


# --- the command ---


async def test_the_command_sends_tells_and_leaves_what_was_refused(path: Path) -> None:
    async with RecordingSink() as sink:
        sink.then(Answer(202), Answer(422))
        code, program = await run(WELLHEAD, "replay", str(path), "--sink", sink.url)
    assert code == 3
    assert program.stdout.text == "4 accepted, 1 not accepted, 0 unreadable\n"
    assert [one.id for one in sink.events] == list("1345")
    assert ids(path) == ["2"]


async def test_the_file_may_stand_behind_the_flags_and_all_accepted_is_exit_code_0(path: Path) -> None:
    async with RecordingSink() as sink:
        code, program = await run(WELLHEAD, "replay", "--from=2", str(path), env={"SINK": sink.url})
    assert (code, program.stdout.text) == (0, "4 accepted, 0 not accepted, 0 unreadable\n")


async def test_a_signal_ends_it_and_it_goes_on_where_it_stopped(path: Path) -> None:
    async with RecordingSink() as sink:
        sink.always(Answer(503))
        sink.then(Answer(202), Answer(202))
        async with started(WELLHEAD, "replay", str(path), "--sink", sink.url) as program:
            await sink.came(3)
            assert await program.stop(signal.SIGINT) == 0
        assert ids(path) == ["3", "4", "5"]
        sink.always(Answer(202))
        assert (await run(WELLHEAD, "replay", str(path), "--sink", sink.url))[0] == 0
        assert [one.id for one in sink.events] == list("12345")


async def test_killed_it_has_lost_nothing(path: Path) -> None:
    async with RecordingSink() as sink:
        sink.then(Answer(202), Hang())
        async with started(WELLHEAD, "replay", str(path), "--sink", sink.url) as program:
            await sink.came(2)
            await program.stop(signal.SIGKILL)
        assert ids(path) == list("12345")


def test_a_dry_run_tells_and_changes_nothing(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.write_bytes(dead(1) + NO_EVENT + encode_line(event(2)))
    before = path.read_bytes()
    assert Replay.main([str(path), "--dry-run"]) == 0
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "1: drop /spring 1 (HTTP 422)"
    assert second.startswith("2: no event: id: MUST be")
    assert third == "3: drop /spring 2 (no answer)"
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["FILE: give one file to replay, not 0", "K_SINK: is not set"]),
        (["a", "b", "--sink", "http://x"], ["FILE: give one file to replay, not"]),
        (["a", "--from", "0", "--dry-run"], ["--from: '0' is not a whole number from 1"]),
        (["/nowhere/dead.jsonl", "--dry-run"], ["FILE: '/nowhere/dead.jsonl' cannot be read: No such file"]),
    ],
)
@pytest.mark.usefixtures("in_this_process")
def test_what_is_wrong_with_a_command_line_is_told_at_once(
    arguments: list[str], words: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SINK", "K_SINK"):
        monkeypatch.delenv(name, raising=False)
    assert Replay.main(arguments) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in words), told


async def test_progress_is_shown_on_a_terminal(path: Path) -> None:
    ours, theirs = os.openpty()
    async with (
        RecordingSink() as sink,
        started(WELLHEAD, "replay", str(path), "--sink", sink.url, stderr=theirs) as program,
    ):
        assert await program.ended() == 0
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "\x1b[K20 %: 1 accepted, 0 not accepted, 0 unreadable" in shown
    assert shown.rstrip().endswith("\x1b[K")


def test_help_and_completion_know_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    assert Replay.main(["--help"]) == 0
    told = capsys.readouterr().out
    for flag in ("--from", "--dry-run", "--sink", "--retry"):
        assert flag in told
    assert {"from", "sink", "retry", "log-level"} <= {one.flag for one in Replay.flags()}
