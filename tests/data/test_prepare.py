import io
import json
import shutil
import tarfile
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from made_videos import encode, numbers, scene
from videomae.commands import cli
from videomae.data import checking
from videomae.data import prepare as room
from videomae.data.manifest import load_videos
from videomae.data.prepare import Prepared
from videomae.data.shards import list_shard
from videomae.errors import ConfigError, VideoError
from videomae.settings import PrepareSettings
from videomae.training.data import open_video
from videomae.video.reader import probe, read_frames

LENGTH = 20


def prepare(source: Path, output: Path, *, on_progress: Any = None, **changed: Any) -> Prepared:
    return room.prepare(PrepareSettings(source, output, **changed), on_progress=on_progress)


@pytest.fixture(scope="session")
def clips(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Five short videos of different content, 64 x 48 px."""
    folder = tmp_path_factory.mktemp("clips")
    frames = scene(LENGTH + 8)
    return [
        encode(folder / f"{k}.mp4", frames[k : k + LENGTH], codec_options={"g": "10"})
        for k in range(5)
    ]


@pytest.fixture
def put(clips: list[Path], tmp_path: Path) -> Callable[..., Path]:
    """Copy video number k to a place in the test's folder."""

    def put(name: str, k: int) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips[k], path)
        return path

    return put


@pytest.fixture
def data(put: Callable[..., Path], tmp_path: Path) -> Path:
    """Two classes of two videos, one broken beside them."""
    for k, name in enumerate(["run/a", "run/b", "walk/a", "walk/b"]):
        put(f"data/{name}.mp4", k)
    (tmp_path / "data" / "walk" / "bad.mp4").write_bytes(b"not a video")
    return tmp_path / "data"


def frames_folder(folder: Path, count: int, first: int = 1) -> Path:
    folder.mkdir(parents=True)
    for number, image in enumerate(scene(count)):
        Image.fromarray(image).save(folder / f"img_{number + first:05}.png")
    return folder


def rows(result: Prepared) -> list[tuple[str, str, str]]:
    """File name, label and split of each row, as training reads them."""
    assert result.manifest
    items = load_videos(result.manifest, None).items
    return [(Path(video.path).name, video.label, video.split) for video in items]


def test_a_folder_becomes_a_manifest_and_bad_files_are_reported(data: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, int, int]] = []
    result = prepare(data, tmp_path / "out", workers=2, on_progress=lambda *a: heard.append(a))
    assert rows(result) == [
        ("a.mp4", "run", "train"), ("b.mp4", "run", "train"),
        ("a.mp4", "walk", "train"), ("b.mp4", "walk", "train"),
    ]  # fmt: skip
    assert [what for what in heard if what[0] == "checking"][-1] == ("checking", 5, 5)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    (bad,) = report["unreadable"]
    assert bad["path"].endswith("walk/bad.mp4")
    assert "cannot be opened as a video" in bad["reason"]
    assert report["classes"] == {"run": {"train": 2}, "walk": {"train": 2}}
    assert (report["num_listed"], report["num_usable"]) == (5, 4)
    text = result.report.read_text()
    assert "## Unreadable, left out: 1" in text
    assert "| `run` | 2 |" in text
    assert ("frames", "20 each") in result.survey.summary()


def test_the_command_says_what_was_left_out(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", str(data), "--output", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert [line.split()[:2] for line in out.splitlines()[1:4]] == [
        ["listed", "5"], ["usable", "4"], ["unreadable", "1"],
    ]  # fmt: skip
    assert "bad.mp4: cannot be opened as a video" in err
    for path in data.rglob("*.mp4"):
        path.write_bytes(b"")
    assert cli.main(["prepare", str(data), "--output", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.endswith("videomae: no video is usable\n")
    assert not (tmp_path / "none" / "manifest.csv").exists()
    assert (tmp_path / "none" / "report.md").is_file()


def test_interrupted_checking_goes_on_where_it_stopped(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    look = checking._probe

    def counted(video: Any, *how: Any) -> Any:
        looked_at.append(Path(video.path).name)
        if len(looked_at) == 3:
            raise KeyboardInterrupt
        return look(video, *how)

    monkeypatch.setattr(checking, "_probe", counted)
    with pytest.raises(KeyboardInterrupt):
        prepare(data, tmp_path / "out", workers=1)
    journal = tmp_path / "out" / "done.jsonl"
    journal.write_bytes(journal.read_bytes() + b'["probe')  # cut off in the middle of a line
    known = len(journal.read_text().splitlines()) - 1
    assert 2 <= known <= 4
    looked_at.clear()
    looked_at += [""] * 3
    assert len(rows(prepare(data, tmp_path / "out"))) == 4
    assert len(looked_at) - 3 == 5 - known
    looked_at[:] = [""] * 3
    prepare(data, tmp_path / "out")
    assert looked_at[3:] == ["bad.mp4"]  # what failed may have been mended
    shutil.copy(data / "run" / "a.mp4", data / "walk" / "bad.mp4")
    assert len(rows(prepare(data, tmp_path / "out"))) == 5


def test_damage_inside_is_found_by_decoding_all(data: Path, tmp_path: Path) -> None:
    path = encode(data / "run" / "long.mp4", scene(60), codec_options={"g": "10", "bf": "0"})
    raw = bytearray(path.read_bytes())
    start = raw.index(b"mdat") + len(raw) // 4
    raw[start : start + 300] = bytes(300)
    path.write_bytes(raw)
    assert len(prepare(data, tmp_path / "quick").survey.unreadable) == 1
    found = prepare(data, tmp_path / "whole", check="decode").survey
    assert [Path(row.path).name for row in found.unreadable] == ["long.mp4", "bad.mp4"]
    # to make a video small it is decoded, too
    small = prepare(data, tmp_path / "small", resize_short=32).survey
    assert [Path(row.path).name for row in small.unreadable] == ["long.mp4", "bad.mp4"]


def test_short_and_double_videos_are_told(put: Callable[..., Path], tmp_path: Path) -> None:
    put("data/train/run/a.mp4", 0)
    put("data/train/run/b.mp4", 1)
    put("data/train/walk/c.mp4", 1)
    put("data/val/run/a again.mp4", 0)
    encode(tmp_path / "data/train/walk/short.mp4", scene(9))
    survey = prepare(tmp_path / "data", tmp_path / "out").survey
    across, within = survey.duplicates()
    assert [[Path(row.path).name for row in group] for group in across] == [
        ["a.mp4", "a again.mp4"]
    ]
    assert [[row.label for row in group] for group in within] == [["run", "walk"]]
    assert [row.num_part_frames for row in survey.short] == [9]
    assert len(survey.usable) == 5
    assert survey.warnings() == [
        "the same in several of the splits train, val: 1 video; models would be tested on what "
        "they learnt, unless one list is a copy of another",
        "several times in one split: 1 video",
        "the same with different labels: 1 video",
        "fewer than 16 frames: 1 video",
    ]
    shorter = prepare(tmp_path / "data", tmp_path / "out", min_frames=10).survey
    assert len(shorter.usable) == 4
    assert [row.num_part_frames for row in shorter.too_short] == [9]


def test_unlike_rates_are_warned_of(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for number, fps in enumerate((24, 25, 25, 30)):
        encode(tmp_path / "data" / f"{number}.mp4", scene(20 + number), fps=fps)
    assert prepare(tmp_path / "data", tmp_path / "alike").survey.warnings() == []
    encode(tmp_path / "data" / "fast.mp4", scene(20), fps=60)
    (warning,) = prepare(tmp_path / "data", tmp_path / "unlike").survey.warnings()
    assert warning == (
        "rates differ: 24 to 60, median 25 frames a second; frame_stride counts frames, so that "
        "clips of faster videos see less time. To train and test with all as if at one rate: "
        "--fps 25"
    )


def test_kinetics_files_are_found_wherever_they_lie(
    put: Callable[..., Path], tmp_path: Path
) -> None:
    put("videos/eating_cake/-a_000001_000011.mp4", 0)
    put("videos/val/b_000001_000011.mkv", 1)
    put("videos/c_000001_000011.mp4", 2)
    put("videos/train/d_000001_000011.mp4", 3)
    put("videos/val/d_000001_000011.mp4", 3)
    head = "label,youtube_id,time_start,time_end,split\n"
    lines = [f"eating cake,{name},1,11,val\n" for name in ("-a", "b", "c", "d", "gone")]
    (tmp_path / "k400.csv").write_text(head + "".join(lines))
    result = prepare(tmp_path / "k400.csv", tmp_path / "out", root=tmp_path / "videos")
    assert [name for name, _, _ in rows(result)] == [
        "-a_000001_000011.mp4", "b_000001_000011.mkv", "c_000001_000011.mp4",
        "d_000001_000011.mp4",
    ]  # fmt: skip
    assert "/val/d_" in result.survey.usable[3].path
    assert [item.path for item in result.survey.missing] == ["gone_000001_000011"]
    assert result.survey.left_out() == [
        "missing: 1 video of 5, such as gone_000001_000011 (k400.csv, line 6)"
    ]


def test_the_root_is_asked_for_where_all_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "train.csv").write_text("a.mp4 0\n")
    arguments = ["prepare", str(tmp_path / "train.csv"), "--output", str(tmp_path / "out")]
    assert cli.main(arguments) == 1
    assert "say where the videos lie: --root DIR" in capsys.readouterr().err


def test_frame_folders_keep_their_parts(tmp_path: Path) -> None:
    frames_folder(tmp_path / "clip", 20)
    frames_folder(tmp_path / "film", 30, first=9590)
    (tmp_path / "train.txt").write_text("clip 1 20\nfilm 9601 5\nfilm 9700 5\n")
    options: dict[str, Any] = {"layout": "v2-pretrain"}
    result = prepare(tmp_path / "train.txt", tmp_path / "out", **options)
    whole, part = result.survey.usable
    assert (whole.first_frame, whole.num_frames) == (None, None)
    assert (part.first_frame, part.num_frames) == (11, 5)
    (bad,) = result.survey.unreadable
    assert "has no image number 9700; its images are numbered 9590 to 9619" in bad.reason
    options["resize_short"] = 32
    small = prepare(tmp_path / "train.txt", tmp_path / "small", **options).survey
    assert [row.path for row in small.usable] == [
        str(tmp_path / "small" / "videos" / name) for name in ("clip.mp4", "film_11_16.mp4")
    ]
    got = read_frames(small.usable[1].path, range(5))
    assert numbers(got) == [11, 12, 13, 14, 15]
    assert small.usable[1].num_frames is None


def test_a_folder_of_two_kinds_of_images_is_told(tmp_path: Path) -> None:
    folder = frames_folder(tmp_path / "clip", 3)
    for number in (1, 2, 3):
        shutil.copy(folder / "img_00001.png", folder / f"flow_x_{number:05}.png")
    (tmp_path / "train.txt").write_text("clip 3 0\n")
    survey = prepare(tmp_path / "train.txt", tmp_path / "out", layout="mmaction2").survey
    assert "images of several kinds (flow_x_00001.png ... img" in survey.unreadable[0].reason


def test_resized_videos_mirror_the_source_and_stay(
    put: Callable[..., Path], data: Path, tmp_path: Path
) -> None:
    put("data/run/a.mkv", 4)
    result = prepare(data, tmp_path / "out", resize_short=32)
    assert [row.path for row in result.survey.usable] == [
        str(tmp_path / "out" / "videos" / name)
        for name in ("run/a.mkv.mp4", "run/a.mp4.mp4", "run/b.mp4", "walk/a.mp4", "walk/b.mp4")
    ]
    for row in result.survey.usable:
        info = probe(row.path)
        assert (info.num_frames, info.height, info.width) == (LENGTH, 32, 42)
    assert result.manifest
    assert "\nvideos/run/b.mp4,run,train\n" in result.manifest.read_text()
    paths = [Path(row.path) for row in result.survey.usable]
    before = [path.stat().st_mtime_ns for path in paths]
    paths[1].unlink()
    prepare(data, tmp_path / "out", resize_short=32)
    after = [path.stat().st_mtime_ns for path in paths]
    assert [a == b for a, b in zip(before, after, strict=True)] == [True, False, True, True, True]
    prepare(data, tmp_path / "out", resize_short=24)
    assert probe(paths[0]).height == 24


def test_no_name_leads_out_of_the_output(put: Callable[..., Path], tmp_path: Path) -> None:
    put("secret/x.mp4", 0)
    put("lists/x.mp4", 1)
    long_name = f"{'ä' * 100} {'x' * 40}.mp4"
    put(f"lists/{long_name}", 2)
    lines = ["../secret/x.mp4 0", "x.mp4 1", str(tmp_path / "lists" / long_name) + " 1"]
    (tmp_path / "lists" / "train.csv").write_text("\n".join(lines))
    result = prepare(tmp_path / "lists" / "train.csv", tmp_path / "out", resize_short=32)
    places = [Path(row.path) for row in result.survey.usable]
    videos = tmp_path / "out" / "videos"
    assert [place.relative_to(videos).parts[0] for place in places] == ["secret", "lists", "lists"]
    assert all(place.is_file() and ".." not in place.parts for place in places)


def test_a_name_that_no_text_can_hold_goes_through(
    put: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    put("data/caf\udce9 #1 [x].mp4", 0)
    put("data/bad \udce9.mp4", 1).write_bytes(b"")
    code = cli.main(["prepare", str(tmp_path / "data"), "--output", str(tmp_path / "out")])
    assert code == 0
    assert r"bad \xe9.mp4" in capsys.readouterr().err
    (video,) = load_videos(tmp_path / "out").items
    assert probe(video.path).num_frames == LENGTH
    assert r"caf\xe9" not in (tmp_path / "out" / "report.md").read_text()  # nothing to say of it


def test_a_share_is_split_off_per_class_and_stays(put: Callable[..., Path], tmp_path: Path) -> None:
    for k in range(4):
        for label in ("run", "walk"):
            encode(put(f"data/{label}/{k}.mp4", 0), scene(20 + k + 4 * (label == "run")))
    shutil.copy(tmp_path / "data/run/0.mp4", tmp_path / "data/run/copy.mp4")
    first = prepare(tmp_path / "data", tmp_path / "out", val_share=0.5)
    (tmp_path / "data").rename(tmp_path / "moved")
    second = prepare(tmp_path / "moved", tmp_path / "other", val_share=0.5)
    assert rows(first) == rows(second)
    chosen = [(name, label) for name, label, split in rows(first) if split == "val"]
    assert sum(label == "walk" for _, label in chosen) == 2
    assert (("0.mp4", "run") in chosen) == (("copy.mp4", "run") in chosen)
    assert not first.survey.duplicates()[0]
    (tmp_path / "moved" / "test.csv").write_text("run/1.mp4 0")
    alone = prepare(tmp_path / "moved" / "test.csv", tmp_path / "third", val_share=0.5)
    assert [split for _, _, split in rows(alone)] == ["test"]


def test_shards_hold_what_webdataset_and_training_read(data: Path, tmp_path: Path) -> None:
    result = prepare(data, tmp_path / "out", shards=True, videos_per_shard=3)
    shards = sorted((tmp_path / "out" / "shards").iterdir())
    assert [path.name for path in shards] == ["train-000000.tar", "train-000001.tar"]
    seen = {}
    for path in shards:
        with tarfile.open(path) as tar:
            members = {m.name: tar.extractfile(m).read() for m in tar}  # type: ignore[union-attr]
            assert {m.mtime for m in tar.getmembers()} == {0}
        for name, content in members.items():
            if name.endswith(".json"):
                key = name.removesuffix(".json")
                about = json.loads(content)
                seen[about["path"]] = members[f"{key}.mp4"]
                assert int(members[f"{key}.cls"]) == ["run", "walk"].index(about["label"])
                assert about["num_frames"] == LENGTH
    good = [path for path in data.rglob("*.mp4") if path.name != "bad.mp4"]
    assert seen == {str(path.relative_to(data)): path.read_bytes() for path in good}
    assert result.manifest
    for video in load_videos(result.manifest).items:
        with open_video(video) as reader:
            assert reader.info.num_frames == LENGTH
    webdataset = pytest.importorskip("webdataset")
    samples = list(webdataset.WebDataset([str(p) for p in shards], shardshuffle=False))
    assert len(samples) == 4
    assert {sample["cls"] for sample in samples} == {b"0", b"1"}
    assert all(set(sample) >= {"mp4", "cls", "json"} for sample in samples)


def test_shards_are_the_same_everywhere_and_made_once(data: Path, tmp_path: Path) -> None:
    one = prepare(data, tmp_path / "one", shards=True, videos_per_shard=2, workers=2)
    shutil.copytree(data, tmp_path / "elsewhere" / "data")
    prepare(tmp_path / "elsewhere" / "data", tmp_path / "two", shards=True, videos_per_shard=2)
    names = sorted(path.name for path in (tmp_path / "one" / "shards").iterdir())
    pair = [[(tmp_path / d / "shards" / n).read_bytes() for n in names] for d in ("one", "two")]
    assert pair[0] == pair[1]
    place = tmp_path / "one" / "shards"
    (place / names[1]).unlink()
    before = (place / names[0]).stat().st_mtime_ns
    again = prepare(data, tmp_path / "one", shards=True, videos_per_shard=2)
    assert (place / names[0]).stat().st_mtime_ns == before
    assert again.survey.usable == one.survey.usable
    (place / "mine-1.tar").touch()
    prepare(data, tmp_path / "one", shards=True, videos_per_shard=4)
    # shards of before would be read along with the new one; what others put there stays
    assert sorted(path.name for path in place.iterdir()) == ["mine-1.tar", names[0]]


def test_shards_are_a_source_too(data: Path, tmp_path: Path) -> None:
    prepare(data, tmp_path / "first", shards=True, videos_per_shard=2)
    source = tmp_path / "first" / "shards"
    (source / "val-000009.tar").write_bytes(b"no tar" * 200)
    result = prepare(source, tmp_path / "second", resize_short=32)
    assert result.survey.listing.layout == "shards"
    assert result.survey.listing.classes == ("run", "walk")
    assert len(result.survey.usable) == 4
    assert "is no readable tar" in result.survey.unreadable[0].reason
    assert result.manifest
    for video in load_videos(result.manifest).items:
        assert video.offset is None
        assert Path(video.path).is_relative_to(tmp_path / "second" / "videos")
    packed = prepare(source, tmp_path / "third", shards=True)
    assert len(list((tmp_path / "third" / "shards").iterdir())) == 1
    assert sorted(label for _, label, _ in rows(packed)) == ["run", "run", "walk", "walk"]


def test_each_video_is_found_again_in_its_shard(put: Callable[..., Path], tmp_path: Path) -> None:
    put("raw/noext", 0), put("raw/b.mp4", 1)
    rows = ["path,label,split", "raw/noext,run,v1.0", "raw/b.mp4,walk,v1.0"]
    (tmp_path / "mine.csv").write_text("\n".join(rows))
    (first,) = {
        row.path
        for row in prepare(tmp_path / "mine.csv", tmp_path / "out", shards=True).survey.usable
    }
    # a sample ends at the first point of its name: videos of split v1.0 keep their labels
    assert [row.label for row in list_shard(first)] == ["run", "walk"]
    with tarfile.open(tmp_path / "foreign.tar", "w") as tar:
        tar.add(put("raw/x.webm", 2), "x.webm")
    packed = prepare(tmp_path / "foreign.tar", tmp_path / "again", shards=True).survey.usable
    assert [row.member for row in list_shard(packed[0].path)] == ["train-000000-000000.webm"]


def test_foreign_shards_tell_labels_by_number_or_words(clips: list[Path], tmp_path: Path) -> None:
    def shard(name: str, members: dict[str, bytes]) -> None:
        with tarfile.open(tmp_path / name, "w") as tar:
            for member, content in members.items():
                info = tarfile.TarInfo(member)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))

    video = clips[0].read_bytes()
    shard("a.tar", {"d/1.mp4": video, "d/1.cls": b"2\n", "d/2.mp4": clips[1].read_bytes()})
    got = prepare(tmp_path / "a.tar", tmp_path / "out").survey
    assert [row.label for row in got.usable] == ["2", ""]
    assert got.listing.classes == ("0", "1", "2")
    shard("a.tar", {"1.left.mp4": video, "1.txt": b"riding a bike", "1.cls": b"2"})
    got = prepare(tmp_path / "a.tar", tmp_path / "words").survey
    assert [row.label for row in got.usable] == ["riding a bike"]


def test_frame_folders_do_not_fit_into_shards(tmp_path: Path) -> None:
    frames_folder(tmp_path / "data" / "clip", 3)
    with pytest.raises(ConfigError, match=r"1 videos are folders of frames, .* --resize-short"):
        prepare(tmp_path / "data", tmp_path / "out", shards=True)
    got = prepare(tmp_path / "data", tmp_path / "out", shards=True, resize_short=32)
    assert got.survey.usable[0].path.endswith("shards/train-000000.tar")


def test_addresses_are_kept_and_said_to_be_unopened(
    put: Callable[..., Path], tmp_path: Path
) -> None:
    put("a.mp4", 0)
    (tmp_path / "train.csv").write_text("a.mp4 0\np2:s3://bucket/x y.mp4 1\n")
    options: dict[str, Any] = {"resize_short": 32, "shards": True}
    result = prepare(tmp_path / "train.csv", tmp_path / "out", **options)
    assert "s3://bucket/x y.mp4" in [row.path for row in result.survey.usable]
    assert result.survey.warnings()[-1] == "addresses, not opened: 1 video"


def test_a_manifest_is_a_source_and_seconds_are_kept(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("long.mp4", 0)
    lines = ["path,label,split,start_seconds,end_seconds", "long.mp4,a,train,0.2,0.4"]
    (tmp_path / "mine.csv").write_text("\n".join([*lines, "long.mp4,b,val,7,8"]))
    survey = prepare(tmp_path / "mine.csv", tmp_path / "out", resize_short=32).survey
    (row,) = survey.usable
    assert (row.start_seconds, row.end_seconds, row.num_part_frames) == (0.2, 0.4, 5)
    assert "that part is empty" in survey.unreadable[0].reason
    monkeypatch.chdir(tmp_path.parent)
    again = prepare(Path(tmp_path.name, "mine.csv"), tmp_path / "again").survey
    assert [row.num_part_frames for row in again.usable] == [5]


def test_the_part_of_a_file_in_frames_is_kept(put: Callable[..., Path], tmp_path: Path) -> None:
    put("long.mp4", 0)
    lines = ["path,label,first_frame,num_frames", "long.mp4,a,5,10", "long.mp4,a,,10"]
    (tmp_path / "mine.csv").write_text("\n".join(lines))
    result = prepare(tmp_path / "mine.csv", tmp_path / "out", resize_short=32)
    assert [row.num_part_frames for row in result.survey.usable] == [10, 10]
    assert result.manifest
    found = [(row.first_frame, row.num_frames) for row in load_videos(result.manifest).items]
    assert found == [(5, 10), (None, 10)]


def test_an_output_of_something_else_is_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is the source itself; name another folder"):
        prepare(data, data)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file; name a folder"):
        prepare(data, tmp_path / "file")
    prepare(data, tmp_path / "out")
    with pytest.raises(ConfigError, match=r"holds a manifest of .*/data, not of .*/data/run"):
        prepare(data / "run", tmp_path / "out")
    (tmp_path / "hers").mkdir()
    (tmp_path / "hers" / "manifest.csv").write_text("path\nx.mp4\n")
    with pytest.raises(ConfigError, match="holds a manifest of another source"):
        prepare(data, tmp_path / "hers")


def test_a_source_may_be_named_in_another_way(
    put: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("v/a.mp4", 0)
    monkeypatch.chdir(tmp_path)
    for source in (Path("v"), tmp_path / "v"):
        assert len(prepare(source, Path("out")).survey.usable) == 1


def test_what_is_read_is_not_replaced(put: Callable[..., Path], tmp_path: Path) -> None:
    whole = put("proj/videos/run/a.mp4", 0)
    (tmp_path / "list.csv").write_text(f"{whole} 0\n")
    expected = rf"--output .*proj would replace {whole}, which is read; name another place"
    videos = tmp_path / "proj" / "videos"
    for source, root in [(videos, None), (tmp_path / "list.csv", videos)]:
        with pytest.raises(ConfigError, match=expected):
            prepare(source, tmp_path / "proj", resize_short=32, root=root)
    assert probe(whole).height == 48
    prepare(whole.parent, tmp_path / "first", shards=True)
    (shard,) = (tmp_path / "first/shards").iterdir()
    copy = tmp_path / "mine/shards" / shard.name
    copy.parent.mkdir(parents=True)
    shutil.copy(shard, copy)
    with pytest.raises(ConfigError, match=rf"mine would replace {copy}, which is read"):
        prepare(copy.parent, tmp_path / "mine", shards=True)
    assert copy.read_bytes() == shard.read_bytes()


def test_an_output_inside_the_source_is_not_searched(data: Path) -> None:
    for _ in range(2):
        result = prepare(data, data / "out", resize_short=32)
        assert result.survey.num_listed == 5
        assert result.survey.listing.classes == ("run", "walk")


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"min_frames": 0}, {"val_share": 1.0}, {"videos_per_shard": 0},
     {"resize_short": 8}],
    ids=str,
)  # fmt: skip
def test_impossible_settings_are_refused(data: Path, tmp_path: Path, wrong: Any) -> None:
    with pytest.raises(ConfigError, match=r"must (be at least|lie in)"):
        prepare(data, tmp_path / "out", **wrong)


def test_one_file_cannot_end_the_work(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resize(source: Any, path: Any, **options: Any) -> Any:
        if str(source).endswith("b.mp4"):
            raise VideoError(f"{source}: odd") if "run" in str(source) else KeyError("odder")
        return real(source, path, **options)

    real = room.resize_video
    monkeypatch.setattr(room, "resize_video", resize)
    look = checking._probe
    monkeypatch.setattr(
        checking, "_probe", lambda v, *how: 1 / 0 if "walk/a" in v.path else look(v, *how)
    )
    survey = prepare(data, tmp_path / "out", resize_short=32).survey
    assert len(survey.usable) == 1
    assert sorted(row.reason.rpartition(": ")[2] for row in survey.unreadable)[-1] == "odd"
    assert any("ZeroDivisionError" in row.reason for row in survey.unreadable)
    assert any("made small (KeyError: 'odder')" in row.reason for row in survey.unreadable)


def test_a_file_that_is_gone_after_it_was_checked_is_left_out(data: Path, tmp_path: Path) -> None:
    def heard(what: str, done: int, of: int) -> None:
        if (what, done) == ("checking", of):
            (data / "run/a.mp4").unlink()

    survey = prepare(data, tmp_path / "out", resize_short=32, on_progress=heard).survey
    assert len(survey.usable) == 3
    assert any("a.mp4: cannot be read any more (No such" in row.reason for row in survey.unreadable)


def test_frames_of_resized_videos_are_those_of_the_source(data: Path, tmp_path: Path) -> None:
    result = prepare(data, tmp_path / "out", resize_short=48, crf=10)
    path = result.survey.usable[0].path
    before, after = (read_frames(p, range(LENGTH)) for p in (data / "run" / "a.mp4", path))
    assert np.abs(before.astype(int) - after).mean() < 4


def test_pictures_that_players_show_otherwise_are_told(
    put: Callable[..., Path], tmp_path: Path
) -> None:
    put("data/usual.mp4", 0)

    def odd(stream: Any) -> None:
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
        stream.codec_context.color_trc = 16

    encode(tmp_path / "data" / "odd.mp4", scene(LENGTH), prepare=odd)
    warnings = "; ".join(prepare(tmp_path / "data", tmp_path / "out").survey.warnings())
    assert "pixels that are not square: 1 video; frames are taken as they are stored" in warnings
    assert "high dynamic range (PQ or HLG): 1 video; their tones are not mapped" in warnings


def test_what_is_passed_over_stands_in_the_report(data: Path, tmp_path: Path) -> None:
    (data / "notes.txt").touch()
    (data / ".hidden.mp4").touch()
    result = prepare(data, tmp_path / "out")
    assert ("passed over", "hidden 1, .txt 1") in result.survey.summary()
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert {Path(each["path"]).name: each["reason"] for each in report["passed_over"]} == {
        "notes.txt": ".txt",
        ".hidden.mp4": "hidden",
    }
    assert "## Files that are no videos: 2" in result.report.read_text()
