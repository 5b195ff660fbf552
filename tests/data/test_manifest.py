import os
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from PIL import Image

from videomae.data.inputs import list_inputs
from videomae.data.manifest import (
    LABELS_NAME,
    MANIFEST_NAME,
    REPORT_NAME,
    Video,
    Videos,
    has_split,
    is_address,
    left_out,
    load_videos,
    read_manifest,
    write_manifest,
)
from videomae.data.opening import open_video, part_of, read_bytes, seconds_of
from videomae.errors import ConfigError, VideoError, as_text
from videomae.hub import write_json
from videomae.video.limits import VideoInfo

NAMES = [
    "two words.mp4",
    "a\ttab.mp4",
    'a "quoted" name.mp4',
    "#1 [x]; (y), z!.mp4",
    "either|or.mp4",
    "tänzer 舞 🕺.mp4",
    "00123",
    "-1.mp4",
    "line\nend.mp4",
    "carriage\rreturn.mp4",
    "a\u2028b.mp4",
    "ends with blank ",
    "ab::c/x.mp4",
    "no utf-8 \udce9.mp4",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_and_class_reads_back(tmp_path: Path, name: str) -> None:
    label = as_text(name.replace("\n", " "))
    inside = Video(str(tmp_path / "videos" / name), label, "val")
    outside = Video(f"/elsewhere/{name}", label, "train")
    videos = Videos((inside, outside), (label,))
    path = write_manifest(tmp_path, videos)
    assert read_manifest(path) == videos
    assert load_videos(tmp_path, None).class_numbers() == (0, 0)
    assert load_videos(tmp_path, "val", classes=["no", label]).class_numbers() == (1,)


def test_parts_and_addresses_read_back(tmp_path: Path) -> None:
    items = (
        Video("s3://bucket/a b.mp4", "a"),
        Video("zip://x.mp4::https://host/x.zip", "a"),
        Video("/v/long.mp4", "b", "val", start_seconds=12.5, end_seconds=20.0),
        Video("/v/frames", "b", "val", first_frame=0, num_frames=58),
        Video("/v/x.tar", "a|b", "test", offset=512, num_bytes=1000),
    )
    path = write_manifest(tmp_path, Videos(items, ("b", "a")))
    assert read_manifest(path) == Videos(items, ("b", "a"))
    assert [video.is_remote for video in items] == [True, True, False, False, False]
    assert str(items[2]) == "/v/long.mp4 (start_seconds=12.5, end_seconds=20.0)"
    assert str(items[0]) == "s3://bucket/a b.mp4"


def test_paths_inside_are_written_relative_and_unused_columns_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_manifest(
        Path("data"), Videos((Video(str(tmp_path / "data" / "a.mp4"), "run"),), ("run",))
    )
    assert Path("data", MANIFEST_NAME).read_text() == "path,label,split\na.mp4,run,train\n"
    assert Path("data", LABELS_NAME).read_text() == "run\n"
    Path("data").rename("moved")
    assert read_manifest("moved/manifest.csv").items[0].path == os.path.join("moved", "a.mp4")  # noqa: PTH118


def test_a_manifest_by_hand_may_be_plain(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_bytes("\ufeffpath,label,note\r\na.mp4,walk,x\r\n\r\nb.mp4,run,\r\n".encode())
    got = read_manifest(path)
    assert got.classes == ("run", "walk")
    assert [(Path(v.path).name, v.label, v.split) for v in got.items] == [
        ("a.mp4", "walk", "train"), ("b.mp4", "run", "train"),
    ]  # fmt: skip
    (tmp_path / LABELS_NAME).write_text("walk\r\nrun\r\n")
    assert read_manifest(path).classes == ("walk", "run")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("path,label\n", "has no rows"),
        ("file,label\na.mp4,x\n", "line 2: expected a path and the columns of the first line"),
        ("path,label\n\na.mp4,x\nb.mp4,x,y\n", r"line 4: expected .*got \['b.mp4', 'x', \['y'\]\]"),
        ("path,start_seconds\na.mp4,soon\n", "start_seconds='soon' is no number of at least 0"),
        ("path,first_frame\na,1.5\n", "first_frame='1.5' is no whole number of at least 0"),
        ("path,offset\na,-1\n", "offset='-1' is no whole number"),
        ("path,end_seconds\na,nan\n", "end_seconds='nan' is no number"),
    ],
)
def test_rows_that_make_no_sense_are_told_with_their_line(
    tmp_path: Path, text: str, why: str
) -> None:
    path = tmp_path / MANIFEST_NAME
    path.write_text(text)
    with pytest.raises(ConfigError, match=why):
        read_manifest(path)


def test_a_manifest_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_manifest(tmp_path / "gone.csv")
    with pytest.raises(ConfigError, match=r"`videomae prepare` makes one"):
        load_videos(tmp_path / "gone")


@pytest.mark.parametrize("classes", [("a\nb",), ("",), ("a", "a"), ("a\r",)])
def test_classes_that_a_line_cannot_hold_are_refused(
    tmp_path: Path, classes: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError, match=r"cannot be written to labels.txt"):
        write_manifest(tmp_path, Videos((Video("/a.mp4"),), classes))
    assert not list(tmp_path.iterdir())


def test_labels_become_numbers_sets_and_values() -> None:
    videos = Videos((Video("x", "b|a"), Video("y", "a"), Video("z")), ("a", "b"))
    assert videos.class_sets() == ((1, 0), (0,), ())
    with pytest.raises(ConfigError, match=r"x: its label 'b\|a' is not among the 2 classes"):
        videos.class_numbers()
    for label in ("a", "nan", "-inf"):
        with pytest.raises(ConfigError, match=f"its label '{label}' is not a number, as regress"):
            Videos((Video("x", label),)).values()
    assert Videos((Video("x", "0.5"), Video("y", "-2"))).values() == (0.5, -2)
    own = Videos((Video("x", "a|b"),), ("a|b", "a"))
    assert own.class_sets() == ((0,),)


def test_a_split_and_a_models_classes_are_asked_for(tmp_path: Path) -> None:
    items = (Video("/a.mp4", "run"), Video("/b.mp4", "walk", "val"))
    write_manifest(tmp_path, Videos(items, ("run", "walk")))
    assert load_videos(tmp_path / MANIFEST_NAME, "val").items == items[1:]
    assert load_videos(tmp_path, None).items == items
    assert has_split(tmp_path, "val")
    assert not has_split(tmp_path, "test")
    with pytest.raises(ConfigError, match=r"no videos of split 'test'; it has \['train', 'val'\]"):
        load_videos(tmp_path, "test")
    with pytest.raises(ConfigError, match=r"has the classes \['walk'\], which the model does not"):
        load_videos(tmp_path, "val", classes=["run"])


def test_a_folder_is_read_without_a_manifest(tmp_path: Path) -> None:
    for name in ("train/run/a.mp4", "train/walk/b.mp4", "val/walk/c.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    frames = tmp_path / "train" / "walk" / "frames"
    frames.mkdir()
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(frames / "1.png")
    got = load_videos(tmp_path)
    assert got.classes == ("run", "walk")
    # in a folder of videos, images beside them are in the way; a folder of its own is a video
    assert [(Path(v.path).name, v.label) for v in got.items] == [
        ("a.mp4", "run"), ("b.mp4", "walk"), ("frames", "walk"),
    ]  # fmt: skip
    assert load_videos(tmp_path, "val", classes=got.classes).class_numbers() == (1,)
    assert has_split(tmp_path, "val")
    with pytest.raises(ConfigError, match="has no folder test"):
        load_videos(tmp_path, "test")
    assert load_videos(tmp_path / "val" / "walk").classes == ()


def test_an_empty_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holds no videos"):
        load_videos(tmp_path)


def test_addresses_are_told_from_paths() -> None:
    addresses = ["s3://b/x", "https://h/x.mp4", "simplecache::s3://b/x"]
    paths = ["/a/x.mp4", "C:/x.mp4", "a::b.mp4", "a/b://c", "x.mp4", "1://x"]
    assert all(map(is_address, addresses))
    assert not any(map(is_address, paths))


def test_all_splits_of_a_folder_are_all_its_videos(tmp_path: Path) -> None:
    for place in ("train/a/1.mp4", "train/b/2.mp4", "val/b/1.mp4", "test/c/1.mp4"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).touch()
    videos = load_videos(tmp_path, None)
    assert videos.classes == ("a", "b", "c")
    assert [(item.split, item.label) for item in videos.items] == [
        ("train", "a"), ("train", "b"), ("val", "b"), ("test", "c"),
    ]  # fmt: skip
    assert load_videos(tmp_path, "val").classes == ("b",)


def test_what_preparing_left_out_of_a_split_is_counted(tmp_path: Path) -> None:
    assert left_out(tmp_path, "test") == 0
    report = {"unreadable": [{"split": "test"}, {"split": "train"}], "missing": [{"split": "test"}]}
    write_json(tmp_path / REPORT_NAME, report)
    for data in (tmp_path, tmp_path / MANIFEST_NAME):
        assert [left_out(data, split) for split in ("train", "val", "test")] == [1, 0, 2]


def test_what_an_address_lacks_is_said() -> None:
    with pytest.raises(VideoError, match=r"memory://test/no\.mp4: cannot be read \(FileNotFound"):
        open_video(Video("memory://test/no.mp4"))
    with pytest.raises(VideoError, match=r"nosuch://x: cannot be read \(ValueError: Protocol not"):
        open_video(Video("nosuch://x"))
    with pytest.raises(ConfigError, match=r"smb://x/y\.mp4 cannot be opened: .*smbprotocol"):
        open_video(Video("smb://x/y.mp4"))
    fsspec.filesystem("memory").pipe_file("/test/short.tar", b"12345")
    with pytest.raises(VideoError, match="the shard ends after 3 bytes of it"):
        open_video(Video("memory://test/short.tar", offset=2, num_bytes=10))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({}, range(100)),
        ({"start_seconds": 1.0, "end_seconds": 2.0}, range(25, 50)),
        ({"start_seconds": 3.9}, range(98, 100)),
        ({"end_seconds": 0.001}, range(1)),
        ({"first_frame": 90, "num_frames": 20}, range(90, 100)),
        ({"first_frame": 3}, range(3, 100)),
        ({"num_frames": 10}, range(10)),
    ],
)
def test_parts_of_a_video(values: dict[str, Any], expected: range) -> None:
    info = VideoInfo(Path("x"), 100, 25.0, 4.0, 2, 2, "h264", 0)
    assert part_of(Video("x", **values), info) == expected


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (5.0, 8.0, range(34, 37)),  # one frame a second from 1 s on, of which the first is 30
        (0.5, 2.4, range(15, 31)),
        (None, 0.011, range(1)),
        (9.6, None, range(39, 40)),
        (9.6, 99.0, range(39, 40)),
    ],
)
def test_seconds_of_a_variable_rate_are_those_of_its_frames(
    start: float | None, end: float | None, expected: range
) -> None:
    times = [*(k / 30 for k in range(30)), *(float(second) for second in range(1, 11))]
    info = VideoInfo(Path("x"), 40, 3.9, 10.26, 2, 2, "h264", 0)
    video = Video("x", start_seconds=start, end_seconds=end)
    assert part_of(video, info, lambda: times) == expected
    assert seconds_of(range(34, 37), info, times) == (5.0, 8.0)
    with pytest.raises(VideoError, match="that part is empty"):
        part_of(Video("x", start_seconds=10.2), info, lambda: times)


def test_empty_parts_are_errors() -> None:
    info = VideoInfo(Path("x"), 100, 25.0, 4.0, 2, 2, "h264", 0)
    with pytest.raises(VideoError, match=r"that part is empty, as it has 100 frames \(4 s\)"):
        part_of(Video("x", start_seconds=4.0), info)
    with pytest.raises(VideoError, match="that part is empty"):
        part_of(Video("x", first_frame=5, num_frames=0), info)
    with pytest.raises(VideoError, match="that part ends before it begins; give a later"):
        part_of(Video("x", start_seconds=3.0, end_seconds=2.0), info)
    frames = VideoInfo(Path("x"), 100, None, None, 2, 2, "images", 0)
    with pytest.raises(VideoError, match="folders of frames have no seconds; give first_frame"):
        part_of(Video("x", start_seconds=1.0), frames)


def test_addresses_of_a_list_are_opened_where_it_is_trusted_alone(tmp_path: Path) -> None:
    (tmp_path / "manifest.csv").write_text("path,label\nhttp://10.0.0.1/x.mp4,a\nb.mp4,a\n")
    expected = r"names addresses, 1 such as http://10\.0\.0\.1/x\.mp4, .* give --allow-addresses"
    with pytest.raises(ConfigError, match=expected):
        load_videos(tmp_path)
    assert len(load_videos(tmp_path, allow_addresses=True)) == 2
    with pytest.raises(ConfigError, match=expected):
        list_inputs(str(tmp_path / "manifest.csv"))
    assert len(list_inputs(str(tmp_path / "manifest.csv"), allow_addresses=True)) == 2


def test_a_local_path_is_never_taken_for_an_address(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe_file("/test/secret", b"0123456789")
    with pytest.raises(VideoError, match=r"cannot be read \(FileNotFoundError"):
        read_bytes(Video("/x::memory://test/secret", offset=0, num_bytes=10))
    shard = tmp_path / "q::r" / "x.tar"
    shard.parent.mkdir()
    shard.write_bytes(b"0123456789")
    for place in (str(shard), f"tar://a::b.mp4::{shard}"):
        assert read_bytes(Video(place, offset=2, num_bytes=3)) == b"234"


def test_a_split_of_a_manifest_is_read_as_of_the_whole(tmp_path: Path) -> None:
    path = tmp_path / MANIFEST_NAME
    rows = ["./a//b.mp4,x,train", "c/../d.mp4,y,val", ".e/f.mp4,z|x,", "/g.mp4,,val", "s3://h/i,y,"]
    path.write_text("path,label,split\n" + "\n".join(rows) + "\n")
    every = read_manifest(path)
    assert every.classes == ("x", "y", "z")
    places = ["a/b.mp4", "c/../d.mp4", ".e/f.mp4"]
    assert [video.path for video in every.items] == [
        *(str(tmp_path / place) for place in places), "/g.mp4", "s3://h/i",
    ]  # fmt: skip
    for split in ("train", "val"):
        found = load_videos(tmp_path, split, allow_addresses=True)
        assert found.items == tuple(video for video in every.items if video.split == split)
        assert found.classes == every.classes
        assert has_split(path, split)
    assert not has_split(path, "test")
    with pytest.raises(ConfigError, match=r"no videos of split 'test'; it has \['train', 'val'\]"):
        load_videos(path, "test")
    path.write_text(path.read_text() + "j.mp4,x,train,more\n")
    with pytest.raises(ConfigError, match="line 7: expected a path and the columns"):
        load_videos(path, "val")  # all rows are looked at
