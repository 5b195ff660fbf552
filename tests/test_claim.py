import errno
import fcntl
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from videomae import claim
from videomae.claim import claimed
from videomae.errors import ConfigError, SourceError

HOLD = """
import sys
from pathlib import Path
from videomae.claim import claimed
from videomae.hub import atomic_path
folder = Path(sys.argv[1])
with claimed(folder, again=""), atomic_path(folder / "made.bin"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """A process that holds tmp_path / "run", and writes a file there, until it is killed."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "run")]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_who_comes_second_is_told_who_is_there_and_a_killed_one_leaves_nothing(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    folder = tmp_path / "run"
    message = (
        rf"run is in use by process {holder.pid} on {socket.gethostname()} since \d{{4}}-.*; "
        "wait until it ends, end it, or choose another --output"
    )
    for _ in range(2):  # the second one can still read it
        with pytest.raises(ConfigError, match=message), claimed(folder, again=""):
            pass
    assert len(list(folder.glob(".made.*.bin"))) == 1  # is at work, and not swept
    holder.kill()
    holder.wait()
    with claimed(folder, again=""):
        assert [path.name for path in folder.iterdir()] == [".lock"]


def test_nothing_is_left_of_a_claim_that_wrote_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with claimed(folder, again=""):
        assert (folder / ".lock").is_file()
        with pytest.raises(ConfigError, match="in use by process"), claimed(folder, again=""):
            pass
    assert not (tmp_path / "a").exists()
    with claimed(folder, again=""):
        (folder / "result").touch()
    assert [path.name for path in folder.iterdir()] == ["result"]


def test_unfinished_files_are_removed_and_no_others(tmp_path: Path) -> None:
    stays = [".env", ".notes.txt", "step.0123abcd.pt", ".step.0123abc.pt", "x/.page.0123abcd.html"]
    stays += ["other/.lock", "other/.step.0123abcd.pt"]  # of a process that may be at work
    goes = [".settings.0123abcd.toml", "model/.model-00001-of-00002.0123abcd.safetensors"]
    for name in stays + goes:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with claimed(tmp_path, "model", "other", "absent", again=""):
        pass
    left = [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")]
    assert sorted(each for each in left if "." in each) == sorted(stays)


def test_a_lock_file_that_was_removed_meanwhile_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, removed = claim._lock, []

    def lock(file: Any) -> None:
        if not removed:
            removed.append(file)
            (tmp_path / ".lock").unlink()
        real(file)

    monkeypatch.setattr(claim, "_lock", lock)
    with (
        claimed(tmp_path, again=""),
        pytest.raises(ConfigError, match="in use"),
        claimed(tmp_path, again=""),
    ):
        pass


def test_a_file_system_without_locks_is_told_of_and_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with (
        pytest.warns(UserWarning, match="has no locks .No locks available.: see to it that no"),
        claimed(tmp_path, again=""),
    ):
        pass


class _LibraryError(Exception):
    pass


@pytest.mark.parametrize("wrapped", ["plain", "context", "text"])
def test_a_full_disk_is_a_sentence_with_what_to_do(wrapped: str, tmp_path: Path) -> None:
    message = "cannot write to .*: No space left on device; make room, try again"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    error: Exception = {
        "plain": full,
        "context": _LibraryError("unexpected pos 704 vs 598"),
        "text": _LibraryError("I/O error: No space left on device (os error 28)"),
    }[wrapped]
    error.__context__ = full if wrapped == "context" else None
    with pytest.raises(ConfigError, match=message), claimed(tmp_path, again="make room, try again"):
        raise error


def test_errors_of_other_things_stay_what_they_are(tmp_path: Path) -> None:
    elsewhere = PermissionError(errno.EACCES, "Permission denied", "/data/list.csv")
    for error in (elsewhere, FileNotFoundError(errno.ENOENT, "x"), SourceError("y"), ValueError()):
        with pytest.raises(type(error)) as raised, claimed(tmp_path, again=""):
            raise error
        assert raised.value is error
