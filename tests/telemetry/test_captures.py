"""The files of captures: whose they are, how large and old they grow, and what a full disk does."""

import asyncio
import errno
import json
import os
import shutil
import stat
import time
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from serve_app.settings import Capture
from serve_app.telemetry import Captured, Captures, captures
from serve_app.telemetry.captures import HELD_MAX_BYTES, RECORD_BYTES, append

MIB = 1_048_576
DAY_S = 86_400


class Usage(NamedTuple):
    """What shutil says of a disk."""

    total: int
    used: int
    free: int


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "data" / "captures"


def captures_in(folder: Path, **bounds: Any) -> Captures:
    return Captures(folder, Capture(**bounds))


def captured(key_id: str = "abcdefghijkl", at_s: float = 0.0, prompt: str = "Hello") -> Captured:
    """Return an exchange whose request has a prompt."""
    body = {"prompt": prompt}
    return Captured(key_id, at_s, "/v1/completions", b"", [], body=body, body_bytes=len(prompt))


async def written(into: Captures, *several: Captured) -> None:
    """Begin and keep each, and wait until all are written."""
    for one in several:
        assert into.begun()
        into.keep(one)
        while into._keeping:
            await asyncio.wait(into._keeping)


def prompts(path: Path) -> list[str]:
    return [json.loads(line)["request"]["body"]["prompt"] for line in path.read_text().splitlines()]


async def test_a_file_for_a_key_and_day_is_its_owners(folder: Path) -> None:
    """``<key id>-<day>.jsonl``, one exchange a line, 0600 in a folder 0700, also under umask 0."""
    into = captures_in(folder)
    before = os.umask(0)
    try:
        await written(into, captured(prompt="1"), captured(prompt="2"), captured(at_s=DAY_S))
    finally:
        os.umask(before)
    found = sorted(folder.iterdir())
    assert [one.name for one in found] == [
        "abcdefghijkl-1970-01-01.jsonl",
        "abcdefghijkl-1970-01-02.jsonl",
    ]
    assert prompts(found[0]) == ["1", "2"]
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(one.stat().st_mode) for one in found} == {0o600}
    assert into.lost() == 0


async def test_no_key_id_leaves_the_folder(folder: Path) -> None:
    """An id of a record that somebody else wrote names a file, never a way."""
    await written(captures_in(folder), captured("../../etc/x"))
    assert [one.name for one in folder.iterdir()] == ["______etc_x-1970-01-01.jsonl"]


async def test_the_oldest_files_make_room(folder: Path) -> None:
    """Beyond ``max_bytes`` files go, the oldest first, and never the one that is written."""
    into = captures_in(folder, max_bytes=MIB)
    for age, name in ((3, "a"), (2, "b"), (1, "c")):
        await written(into, captured(name, prompt="x" * 300_000))
        os.utime(folder / f"{name}-1970-01-01.jsonl", (0, time.time() - age * 60))
    await written(into, captured("d", prompt="x" * 300_000))
    assert sorted(one.name[0] for one in folder.iterdir()) == ["b", "c", "d"]
    await written(into, captured("b", prompt="x" * 700_000))
    assert [one.name[0] for one in folder.iterdir()] == ["b"]
    assert into.lost() == 0


async def test_a_file_that_fills_all_room_grows_no_more(folder: Path) -> None:
    """What does not fit is lost and counted; what is there stays."""
    into = captures_in(folder, max_bytes=MIB)
    await written(into, captured(prompt="x" * 900_000), captured(prompt="y" * 300_000))
    await written(into, captured(prompt="z"))
    (path,) = folder.iterdir()
    assert [one[0] for one in prompts(path)] == ["x", "z"]
    assert into.lost() == 1


async def test_old_files_go(folder: Path) -> None:
    """After ``keep_days``, also when nothing is captured any more; what is no capture stays."""
    into = captures_in(folder, keep_days=2)
    await into.tend()  # without a folder there is nothing to do
    await written(into, captured("old"), captured("young"))
    (folder / "notes.txt").write_text("mine")
    for name, days in (("old-1970-01-01.jsonl", 2.1), ("young-1970-01-01.jsonl", 1.9)):
        os.utime(folder / name, (0, time.time() - days * DAY_S))
    os.utime(folder / "notes.txt", (0, 0))
    await into.tend()  # too soon after the first
    assert len(list(folder.iterdir())) == 3
    into._swept_s -= captures.SWEEP_S
    await into.tend()
    assert sorted(one.name for one in folder.iterdir()) == ["notes.txt", "young-1970-01-01.jsonl"]


async def test_a_full_disk_fails_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No exception reaches whoever keeps a capture; it is counted and said in the log."""
    into = captures_in(folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10, 9, 1))
    await written(into, captured())
    assert into.lost() == 1
    assert list(folder.iterdir()) == []


async def test_a_folder_that_cannot_be_made_fails_nothing(tmp_path: Path) -> None:
    """A file in its place, a read-only disk: the capture is lost, the request is not."""
    (tmp_path / "captures").write_text("in the way")
    into = captures_in(tmp_path / "captures")
    await written(into, captured())
    assert into.lost() == 1


def test_half_a_line_is_none(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that is full in the middle of a line leaves the file as it was."""
    folder.mkdir(parents=True)
    path, write = folder / "x.jsonl", os.write
    append(path, b"one\n")
    monkeypatch.setattr(os, "write", lambda file, line: write(file, line[:2]))
    with pytest.raises(OSError, match="full"):
        append(path, b"two\n")
    assert path.read_bytes() == b"one\n"

    def none_left(_file: int, _line: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", none_left)
    with pytest.raises(OSError, match="No space"):
        append(path, b"two\n")
    assert path.read_bytes() == b"one\n"


def test_no_link_is_followed(folder: Path, tmp_path: Path) -> None:
    """Who can plant a link in the folder has nothing written where it leads."""
    folder.mkdir(parents=True)
    (folder / "x.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic link"):
        append(folder / "x.jsonl", b"one\n")
    assert not (tmp_path / "elsewhere").exists()


async def test_a_body_is_kept_from_its_beginning(folder: Path) -> None:
    """Pieces up to ``max_body_bytes``; a gap, and then more, would be no body."""
    into = captures_in(folder, max_body_bytes=8)
    one = captured()
    assert into.begun()
    for piece in (b"12345", b"67890", b"", b"x"):
        into.take(one, piece)
    assert one.pieces == [b"12345", b"678"]
    assert one.reply_bytes == 11


async def test_memory_is_bounded(folder: Path) -> None:
    """Beyond so many bytes nothing more is begun or taken, until some are written."""
    into = captures_in(folder, max_body_bytes=16 * MIB)
    begun = []
    while into.begun():
        begun.append(captured(prompt=""))
        into.take(begun[-1], b"x" * MIB)
    assert len(begun) <= HELD_MAX_BYTES // MIB + 1
    assert into._held_bytes <= HELD_MAX_BYTES
    assert into.lost() == 1
    for one in begun:
        into.keep(one)
    await asyncio.wait(into._keeping)
    assert into._held_bytes == 0
    assert into.begun()
    assert into._held_bytes == RECORD_BYTES


async def test_what_was_kept_is_written_at_the_end(folder: Path) -> None:
    """A gateway that ends writes what it has."""
    into = captures_in(folder)
    assert into.begun()
    into.keep(captured())
    await into.close()
    assert len(list(folder.iterdir())) == 1
