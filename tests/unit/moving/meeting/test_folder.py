"""The folder in which workers meet: whose it must be, and what is in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from flask_sse_emitters.moving.meeting.folder import Folder, FolderUnsafe, masters, others, started_at
from flask_sse_emitters.moving.meeting.link import Listener, connect


def test_folder_is_of_its_user_alone_and_named_after_the_master(folder: Folder) -> None:
    assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
    assert folder.path.name == f"flask-sse-emitters-{os.geteuid()}-{os.getpid()}-{started_at(os.getpid())}"


def test_folder_lies_where_the_system_has_what_does_not_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    folder = Folder(os.getpid())
    assert folder.path.parent == tmp_path
    folder.close()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "missing"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    folder = Folder(os.getpid())
    assert folder.path.parent == tmp_path
    folder.close()


@pytest.mark.parametrize("mode", [0o755, 0o710, 0o701])
def test_folder_that_others_may_enter_is_not_used(folder: Folder, mode: int) -> None:
    folder.path.chmod(mode)
    with pytest.raises(FolderUnsafe, match="open to other users"):
        Folder(os.getpid(), str(folder.path.parent))


def test_folder_of_another_user_is_not_used(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, other = os.geteuid(), os.geteuid() + 1
    theirs = folder.path.parent / folder.path.name.replace(f"-{ours}-", f"-{other}-", 1)
    folder.path.rename(theirs)
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(FolderUnsafe, match="belongs to the user"):
        Folder(os.getpid(), str(theirs.parent))


def test_folder_that_is_a_link_to_one_is_not_used(folder: Folder, tmp_path: Path) -> None:
    folder.path.rename(tmp_path / "elsewhere")
    folder.path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):  # noqa: PT011 - which of them depends on the system
        Folder(os.getpid(), str(tmp_path))


def test_folder_of_a_master_that_has_ended_cannot_be_had(tmp_path: Path) -> None:
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(ProcessLookupError):
        Folder(child, str(tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_folder_with_a_long_path_holds_sockets(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    deep.mkdir()
    folder = Folder(os.getpid(), str(deep))
    listener = Listener(folder)
    link = connect(folder, str(os.getpid()))
    assert link is not None
    for each in (link, listener, folder):
        each.close()


def test_folder_goes_with_the_last_who_leaves(folder: Folder) -> None:
    other = Folder(os.getpid(), str(folder.path.parent))
    listener = Listener(other)
    folder.close()
    assert folder.path.exists()
    listener.close()
    listener.close()
    other.close()
    other.close()
    assert not folder.path.exists()


def test_folder_of_a_parent_is_left_by_a_forked_child(folder: Folder, in_child: Callable[..., str]) -> None:
    listener = Listener(folder)

    def leave() -> tuple[int, str]:
        was = listener.fileno(), folder.address("")
        listener.close()
        folder.close()
        return was

    assert in_child(leave) == "(-1, '/proc/self/fd/-1/')"
    assert folder.names() == [str(os.getpid())]
    listener.close()


def test_folder_of_the_old_master_is_joined_by_one_that_takes_over() -> None:
    assert masters({}) == [os.getppid()]
    assert masters({"GUNICORN_PID": "12"}) == [os.getppid(), 12]
    assert masters({"GUNICORN_PID": str(os.getppid())}) == [os.getppid()]


def test_folder_tells_whether_another_worker_lives_that_stops_or_not(folder: Folder, tmp_path: Path) -> None:
    """Without making one: not of this process itself, nor of one that has ended."""
    own, parent, base = os.getpid(), os.getppid(), str(tmp_path)
    assert not others(parent, base)
    assert [path.name for path in tmp_path.iterdir()] == [folder.path.name]
    for name in (str(own), f".leaving-{own}", f"{2**22 + 1}"):
        (folder.path / name).touch()
        assert not others(own, base)
    for name in (str(parent), f".leaving-{parent}"):
        (folder.path / name).touch()
        assert others(own, base)
        (folder.path / name).unlink()
    (folder.path / str(parent)).touch()
    folder.path.chmod(0o755)
    assert not others(own, base), "anyone could have put it there"
