import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae.data.manifest import Video
from videomae.errors import ConfigError
from videomae.training.frame_cache import FrameCache, name_of

FRAMES = np.arange(4 * 2 * 3 * 3, dtype=np.uint8).reshape(4, 2, 3, 3)


def test_frames_come_back_as_they_were_written(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path / "frames", 1e6)
    assert cache.read("a.npy") is None
    cache.write("a.npy", FRAMES)
    kept = FrameCache(tmp_path / "frames", 0).read("a.npy")  # by another run, with no room
    assert kept is not None
    assert np.array_equal(kept, FRAMES)


@pytest.mark.parametrize("damage", [b"", b"no numpy", b"PK\3\4no zip", None])
def test_a_damaged_file_counts_as_none(tmp_path: Path, damage: bytes | None) -> None:
    cache = FrameCache(tmp_path, 1e6)
    cache.write("a.npy", FRAMES)
    whole = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(whole[:-5] if damage is None else damage)
    assert cache.read("a.npy") is None
    np.save(tmp_path / "a.npy", FRAMES.astype(float))
    assert cache.read("a.npy") is None


def test_files_that_vanish_while_they_are_counted_do_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FrameCache(tmp_path, 1000)
    (tmp_path / "a.npy").write_bytes(bytes(700))
    scandir = os.scandir

    @contextlib.contextmanager
    def renamed(folder: Path) -> Iterator[list[Any]]:
        with scandir(folder) as entries:
            found = list(entries)
        (tmp_path / "a.npy").rename(tmp_path / "b.npy")
        yield found

    monkeypatch.setattr(os, "scandir", renamed)
    cache._look()
    assert cache.keeps(1000)


def test_what_is_there_already_counts(tmp_path: Path) -> None:
    cache = FrameCache(tmp_path, 1000)
    assert cache.keeps(600)
    assert not cache.keeps(600)  # reserved, though nothing was written yet
    assert cache.keeps(400)
    (tmp_path / "other.npy").write_bytes(bytes(700))
    assert not FrameCache(tmp_path, 1000).keeps(301)
    assert FrameCache(tmp_path, 1000).keeps(300)


def test_what_other_processes_add_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("videomae.training.frame_cache._LOOK_AGAIN_BYTES", 100)
    one = FrameCache(tmp_path, 1000)
    assert one.keeps(90)
    (tmp_path / "other.npy").write_bytes(bytes(950))
    assert not one.keeps(60)


def test_a_full_disk_is_warned_of_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = FrameCache(tmp_path, 1e6)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "save", full)
    with pytest.warns(UserWarning, match=r"takes no more decoded videos \(No space left"):
        cache.write("a.npy", FRAMES)
    assert not list(tmp_path.iterdir())
    assert not cache.keeps(1)
    with warnings.catch_warnings(action="error"):
        assert cache.read("a.npy") is None


def test_a_folder_that_is_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; name another one"):
        FrameCache(tmp_path / "file", 1)


def test_names_follow_what_decides_on_the_frames(tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(b"one")
    video = Video(str(path))
    name = name_of(video, None, "refuse")
    assert name == name_of(Video(str(path), label="x", split="val"), None, "refuse")
    others = {
        name_of(video, 8.0, "refuse"),
        name_of(video, None, "use_readable"),
        name_of(Video(str(path), start_seconds=1.0), None, "refuse"),
        name_of(Video(str(path), offset=3, num_bytes=4), None, "refuse"),
    }
    os.utime(path, ns=(5, 5))
    others.add(name_of(video, None, "refuse"))
    path.write_bytes(b"other")
    others.add(name_of(video, None, "refuse"))
    assert len(others | {name}) == 7
    assert name_of(Video("https://there/a.mp4"), None, "refuse") is None
    assert name_of(Video(str(tmp_path / "none.mp4")), None, "refuse") is None
