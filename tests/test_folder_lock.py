"""The lock that keeps writers of one folder apart."""

import errno
import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from upchirp import InputError
from upchirp.folder_lock import locked

CONTEXT = multiprocessing.get_context("fork")


def hold_with_child(root: Path, shared: bool, holds: object) -> None:
    """Take the lock, start a process as loader workers are started, and wait."""
    with locked(root, "lock", shared_with_children=shared):
        child = CONTEXT.Process(target=time.sleep, args=(30,))
        child.start()
        holds.put(child.pid)
        time.sleep(30)


@pytest.mark.parametrize("shared", [False, True])
def test_a_kill_frees_it_but_for_children_that_write_too(tmp_path: Path, shared: bool) -> None:
    holds = CONTEXT.SimpleQueue()
    holder = CONTEXT.Process(target=hold_with_child, args=(tmp_path, shared, holds))
    holder.start()
    child = holds.get()
    try:
        with (
            pytest.raises(InputError, match=f"process {holder.pid} on {os.uname().nodename}"),
            locked(tmp_path, "lock"),
        ):
            pass
        holder.kill()
        holder.join()
        if shared:
            with pytest.raises(InputError), locked(tmp_path, "lock"):
                pass
        else:
            with locked(tmp_path, "lock") as note:
                assert note is None
            assert not list(tmp_path.iterdir())
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_disk_without_locks_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("upchirp.folder_lock.fcntl.flock", refuse)
    with locked(tmp_path, "lock") as note, locked(tmp_path, "lock"):
        assert note is not None
        assert "knows no locks" in note
