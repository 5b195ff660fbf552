import os
import sys
import threading
import time
from pathlib import Path

import platformdirs
import pytest
import torch

from videomae.errors import ConfigError
from videomae.inference import cache
from videomae.inference.cache import (
    cache_root,
    clear_cache,
    find_entry,
    make_entry,
)
from videomae.inference.exported import digest

NAME = "openvino-" + "0" * 32


def write(text: str) -> object:
    return lambda folder: (folder / "model.bin").write_text(text)


def fill(root: Path, number: int, size: int) -> Path:
    name = f"openvino-{number:032x}"
    return make_entry(root, name, lambda folder: _write_bytes(folder / "model.bin", size))


def _write_bytes(path: Path, size: int) -> None:
    path.write_bytes(bytes(size))


def test_the_argument_comes_before_the_variable_and_that_before_the_users_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("VIDEOMAE_CACHE", raising=False)
    assert cache_root() == platformdirs.user_cache_path() / "videomae" / "engines"
    if sys.platform == "linux":
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
        assert cache_root() == tmp_path / "xdg" / "videomae" / "engines"
    monkeypatch.setenv("VIDEOMAE_CACHE", str(tmp_path / "own"))
    assert cache_root() == tmp_path / "own" / "engines"
    assert cache_root(tmp_path / "given") == tmp_path / "given" / "engines"


def test_a_digest_changes_with_values_names_shapes_and_types() -> None:
    def named(**changes: torch.Tensor) -> str:
        return digest({"weight": torch.ones(2, 3), "bias": torch.zeros(()), **changes}.items())

    digests = [
        named(),
        named(weight=torch.ones(3, 2)),
        named(weight=torch.full((2, 3), 1.0000001)),
        named(weight=torch.ones(2, 3, dtype=torch.bfloat16)),
        named(more=torch.ones(1)),
    ]
    assert len(set(digests)) == 5
    assert digests[0] == named()
    assert digests[0] == named(weight=torch.ones(3, 2).T)  # the same values, otherwise in memory


def test_an_entry_is_whole_or_not_there(tmp_path: Path) -> None:
    def fails(folder: Path) -> None:
        (folder / "model.bin").write_text("half")
        raise OSError("disk full")

    with pytest.raises(ConfigError, match=r"cannot be kept in .* \(disk full\); name a folder"):
        make_entry(tmp_path, NAME, fails)
    assert list(tmp_path.iterdir()) == []
    assert find_entry(tmp_path, NAME) is None
    place = make_entry(tmp_path, NAME, write("whole"))  # type: ignore[arg-type]
    assert (place / "model.bin").read_text() == "whole"
    assert find_entry(tmp_path, NAME) == place == tmp_path / NAME


def test_who_comes_second_finds_the_first_ones_entry(tmp_path: Path) -> None:
    def meanwhile(folder: Path) -> None:
        make_entry(tmp_path, NAME, write("first"))  # type: ignore[arg-type]
        (folder / "model.bin").write_text("second")

    place = make_entry(tmp_path, NAME, meanwhile)
    assert (place / "model.bin").read_text() == "first"
    assert [path.name for path in tmp_path.iterdir()] == [NAME]


def test_many_threads_leave_one_whole_entry(tmp_path: Path) -> None:
    def work(number: int) -> None:
        make_entry(tmp_path, NAME, lambda folder: _write_bytes(folder / "model.bin", 1000 + number))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == [NAME]
    assert (tmp_path / NAME / "model.bin").stat().st_size >= 1000


def test_a_calibrated_entry_is_found_without_its_clips(tmp_path: Path) -> None:
    older = make_entry(tmp_path, f"{NAME}-{'a' * 16}", write("old"))  # type: ignore[arg-type]
    newer = make_entry(tmp_path, f"{NAME}-{'b' * 16}", write("new"))  # type: ignore[arg-type]
    os.utime(older, (1, 1))
    assert find_entry(tmp_path, NAME) == newer
    assert find_entry(tmp_path, older.name) == older


def test_the_least_recently_used_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "MAX_BYTES", 1000)
    old, used = fill(tmp_path, 1, 400), fill(tmp_path, 2, 400)
    os.utime(old, (1, 1))
    os.utime(used, (2, 2))
    assert find_entry(tmp_path, used.name) == used
    new = fill(tmp_path, 3, 400)
    assert sorted(tmp_path.iterdir()) == [used, new]
    huge = fill(tmp_path, 4, 5000)
    assert list(tmp_path.iterdir()) == [huge]  # what was just made stays, however large


def test_what_a_killed_process_left_goes_after_a_day(tmp_path: Path) -> None:
    left, at_work = (tmp_path / f".{NAME}.{number:08x}" for number in range(2))
    for path in (left, at_work):
        path.mkdir(parents=True)
    day_ago = time.time() - 25 * 3600
    os.utime(left, (day_ago, day_ago))
    place = fill(tmp_path, 1, 10)
    assert sorted(tmp_path.iterdir()) == sorted([at_work, place])


def test_clearing_removes_ours_and_tells_the_bytes(tmp_path: Path) -> None:
    root = cache_root(tmp_path)
    assert clear_cache(tmp_path) == 0
    fill(root, 1, 400)
    fill(root, 2, 24)
    (root / "notes.txt").write_text("mine")
    (root / "openvino-mine").mkdir()
    assert clear_cache(tmp_path) == 424
    assert sorted(path.name for path in root.iterdir()) == ["notes.txt", "openvino-mine"]


def test_a_place_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ConfigError, match=r"cannot be kept in .* set VIDEOMAE_CACHE, or pass"):
        make_entry(tmp_path / "file" / "engines", NAME, write(""))  # type: ignore[arg-type]
