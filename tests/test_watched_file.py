from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import pytest

from wellhead.watched_file import WatchedFile, content

if TYPE_CHECKING:
    from pathlib import Path

SECRET: Final = "hunter2"


def number(octets: bytes) -> int:
    try:
        return int(octets)
    except ValueError:
        raise ValueError("is no number") from None


def watched(path: Path, *, absent: int | None = None) -> WatchedFile[int]:
    return WatchedFile(path, number, what="number", initial=-1, absent=absent)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [vars(record)["problem"] for record in caplog.records]


def test_nothing_is_read_before_the_first_look(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    file = watched(tmp_path / "file")
    assert file.value == -1
    assert file.look()
    assert file.value == 1


def test_a_changed_file_is_another_value_and_an_unchanged_one_is_none(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    file = watched(path)
    assert [file.look(), file.look(), file.look(force=True)] == [True, False, False]
    path.write_text("22")
    assert [file.look(), file.look()] == [True, False]
    os.utime(path, ns=(1, 1))
    assert not file.look()
    assert file.value == 22


def test_force_sees_a_change_that_left_the_stamp_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    facts = path.stat()
    file = watched(path)
    file.look()
    path.write_text("2")
    os.utime(path, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    assert [file.look(), file.look(force=True)] == [False, True]


def test_a_link_that_is_swapped_as_kubernetes_does_is_noticed(tmp_path: Path) -> None:
    for version in "12":
        (tmp_path / version).mkdir()
        (tmp_path / version / "file").write_text(version)
    data = tmp_path / "..data"
    data.symlink_to("1")
    (tmp_path / "file").symlink_to("..data/file")
    file = watched(tmp_path / "file")
    file.look()
    data.unlink()
    data.symlink_to("2")
    assert file.look()
    assert file.value == 2


def test_a_file_that_went_wrong_leaves_the_value_and_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    file = watched(path)
    file.look()
    path.write_text(SECRET)
    assert [file.look(), file.look(force=True), file.value] == [False, False, 1]
    path.unlink()
    assert [file.look(), file.value] == [False, 1]
    assert told(caplog) == ["is no number", "is not there"]
    assert SECRET not in str([vars(record) for record in caplog.records])


def test_what_was_right_again_and_went_wrong_as_before_is_told_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "file"
    file = watched(path)
    for text in ("x", "1", "xx"):
        path.write_text(text)
        file.look()
    assert told(caplog) == ["is no number", "is no number"]


def test_another_file_of_the_same_size_and_time_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    facts = path.stat()
    file = watched(path)
    file.look()
    (tmp_path / "next").write_text("2")
    os.utime(tmp_path / "next", ns=(facts.st_atime_ns, facts.st_mtime_ns))
    (tmp_path / "next").replace(path)
    assert file.look()


def test_a_file_that_may_be_absent_is_so_without_a_word(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "file"
    file = watched(path, absent=0)
    assert [file.look(), file.value] == [True, 0]
    path.write_text("1")
    assert [file.look(), file.value] == [True, 1]
    path.unlink()
    assert [file.look(), file.value] == [True, 0]
    assert told(caplog) == []


def test_what_cannot_be_read_again_is_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ValueError, match=r"^is not a file that can be read again$"):
            content(path)


def test_a_file_that_is_far_too_large_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ValueError, match=r"^is larger than 4194304 bytes$"):
        content(tmp_path / "file")


def test_a_path_through_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("1")
    with pytest.raises(ValueError, match=r"^cannot be read: Not a directory$"):
        content(tmp_path / "file/below")
