import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from videomae.report.revision import git_revision, source_digest

COMMIT, OTHER = "0123456789abcdef" * 2 + "01234567", "f" * 40


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str, str], Path]:
    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    return put


def test_the_commit_is_read_wherever_git_keeps_it(
    put: Callable[[str, str], Path], tmp_path: Path
) -> None:
    package = put("repo/src/videomae/x.py", "").parent
    assert git_revision(package) is None
    put("repo/.git/HEAD", f"{COMMIT}\n")  # no branch is checked out
    assert git_revision(package) == COMMIT
    put("repo/.git/HEAD", "ref: refs/heads/a/b\n")
    put("repo/.git/packed-refs", f"# all\n{OTHER} refs/heads/b\n{COMMIT} refs/heads/a/b\n")
    assert git_revision(package) == COMMIT
    put("repo/.git/refs/heads/a/b", f"{OTHER}\n")
    assert git_revision(package) == OTHER
    put("tree/.git", "gitdir: ../repo/.git/worktrees/tree\n")
    put("repo/.git/worktrees/tree/HEAD", "ref: refs/heads/a/b\n")
    put("repo/.git/worktrees/tree/commondir", "../..\n")
    assert git_revision(put("tree/src/videomae/x.py", "").parent) == OTHER
    (tmp_path / "repo/.git/refs/heads/a/b").write_bytes(b"\xff")
    assert git_revision(package) is None
    put("repo/.git/refs/heads/a/b", "no commit\n")
    assert git_revision(package) is None


def test_a_repository_around_an_environment_is_not_ours(put: Callable[[str, str], Path]) -> None:
    put("project/.git/HEAD", f"{COMMIT}\n")
    for place in ("project/lib/videomae", "project/.venv/lib/site-packages/videomae"):
        assert git_revision(put(f"{place}/x.py", "").parent) is None


def test_a_changed_file_shows(put: Callable[[str, str], Path]) -> None:
    package = put("videomae/x.py", "a").parent
    before = source_digest(package)
    assert before == source_digest(package)
    put("videomae/data.txt", "b")
    assert before == source_digest(package)
    put("videomae/x.py", "b")
    assert before != source_digest(package)


@pytest.mark.skipif(sys.platform == "win32", reason="a shell script")
def test_nothing_that_the_working_folder_names_is_run(tmp_path: Path) -> None:
    code = """
import os, sys
started = []
names = ("subprocess.Popen", "os.exec", "os.posix_spawn", "os.system", "os.fork", "os.forkpty")
sys.addaudithook(lambda event, told: event in names and started.append(told[0]))
from videomae.training.log import _environment
found = _environment()
assert set(started) <= {"/sbin/ldconfig"}, started  # torch's own, from a place of the system
print(found["git"], found["source"])
"""
    monitor = tmp_path / "monitor"
    monitor.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    monitor.chmod(0o755)
    (tmp_path / ".git" / "refs").mkdir(parents=True)
    (tmp_path / ".git" / "objects").mkdir()
    (tmp_path / ".git" / "HEAD").write_text(f"{COMMIT}\n")
    (tmp_path / ".git" / "config").write_text(
        f"[core]\nrepositoryformatversion = 0\nfsmonitor = {monitor}\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(git_revision()), source_digest()]
    assert not (tmp_path / "ran").exists()
