"""Groups by folder, pattern and column, and splits that never divide one."""

import random
import shutil
from collections import Counter, defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from videomae.commands import cli
from videomae.data.groups import split_off, with_groups
from videomae.data.lists import Listed
from videomae.data.manifest import load_videos
from videomae.data.prepare import prepare
from videomae.errors import ConfigError
from videomae.hub import read_json
from videomae.settings import PrepareSettings


def groups(how: str, *paths: str) -> list[str]:
    return [row.group for row in with_groups([Listed(p) for p in paths], how, Path("/top"))]


def test_a_group_is_a_folder_or_what_a_pattern_finds_below_the_root() -> None:
    assert groups("folder", "run/cow7/a.mp4", "/top/walk/cow7/b.mp4") == ["cow7", "cow7"]
    assert groups(r"pattern:cow\d+", "run/cow7_1.mp4", "walk/x_cow12.mp4") == ["cow7", "cow12"]
    assert groups(r"pattern:_g(\d+)_c", "PlayingCello/v_PlayingCello_g08_c01.avi") == ["08"]
    assert groups(r"pattern:(p\d+).*(cam\d)", "p1-left-cam2.mp4") == ["p1 cam2"]
    # nothing above the root counts
    with pytest.raises(ConfigError, match=r"1 of 1 videos have no group, the first is /top/a\.mp4"):
        groups("pattern:top", "/top/a.mp4")


def test_a_video_in_a_shard_is_known_by_its_name_there() -> None:
    rows = [
        Listed(f"/top/{k}.tar", offset=512, origin=f"{k}.tar, cow7/{k}.mp4", member=f"cow7/{k}.mp4")
        for k in (11, 12)
    ]
    for how, group in [("folder", "cow7"), (r"pattern:\d+", "7")]:
        assert [row.group for row in with_groups(rows, how, Path("/top"))] == [group] * 2


def test_no_video_is_without_a_group() -> None:
    with pytest.raises(ConfigError, match=r"1 of 2 videos have no group, the first is b\.mp4; a"):
        groups(r"pattern:cow\d+", "cow1.mp4", "b.mp4")
    of_classes = [Listed(f"{name}/{k}.mp4", name) for name in ("run", "walk") for k in range(2)]
    with pytest.raises(ConfigError, match="in the folders of their classes, and a whole class"):
        with_groups(of_classes, "folder", Path("/top"))


@pytest.mark.parametrize("how", ["animal", "folder:2", "column:", "pattern:", "column"])
def test_an_unknown_way_of_grouping_is_refused(how: str) -> None:
    with pytest.raises(ConfigError, match="expected folder, column:NAME or pattern:REGEX"):
        PrepareSettings(Path("a"), Path("b"), group=how)


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"group='pattern:\(cow': no regular expression: missing"):
        PrepareSettings(Path("a"), Path("b"), group="pattern:(cow")


def rows_of(sizes: dict[str, dict[str, int]]) -> list[Listed]:
    """Videos of groups: how many of which class."""
    return [
        Listed(f"{label}/{group}_{k}.mp4", label, group=group)
        for group, classes in sizes.items()
        for label, count in classes.items()
        for k in range(count)
    ]


def held_out(rows: list[Listed]) -> set[str]:
    return {row.group for row in rows if row.split == "val"}


@pytest.mark.parametrize("seed", range(20))
def test_no_group_is_ever_in_two_splits(seed: int) -> None:
    draw = random.Random(seed)
    labels = "abcd"[: draw.randint(1, 4)]
    sizes = {
        f"g{number}": {
            label: draw.randint(1, 9) for label in draw.sample(labels, draw.randint(1, len(labels)))
        }
        for number in range(draw.randint(1, 30))
    }
    rows = rows_of(sizes)
    # copies tie two groups together
    rows = [row if draw.random() > 0.02 else replace(row, content="the same") for row in rows]
    found = split_off(rows, 0.2)
    assert found == split_off(rows, 0.2)
    for name in ("group", "content"):
        splits = defaultdict(set)
        for row in found:
            if getattr(row, name):
                splits[getattr(row, name)].add(row.split)
        assert all(len(each) == 1 for each in splits.values())
    assert {row.label for row in found if row.split == "train"} == {row.label for row in rows}


def test_groups_of_one_size_are_split_as_asked() -> None:
    # ten persons, each doing all five things four times
    rows = split_off(rows_of({f"p{k}": dict.fromkeys("abcde", 4) for k in range(10)}), 0.2)
    assert len(held_out(rows)) == 2
    assert sum(row.split == "val" for row in rows) == 40


def test_a_class_of_few_large_groups_gives_its_smallest_and_one_of_one_group_none() -> None:
    rows = split_off(rows_of({"x": {"a": 30}, "y": {"a": 20}, "z": {"b": 9}}), 0.1)
    assert held_out(rows) == {"y"}


def test_without_groups_each_class_gives_its_share() -> None:
    rows = [Listed(f"{label}/{k}.mp4", label) for label in "ab" for k in range(10)]
    chosen = {row.path for row in split_off(rows, 0.2) if row.split == "val"}
    # these videos and no others: who prepares the same folder again gets the same split
    assert chosen == {"a/3.mp4", "a/6.mp4", "b/1.mp4", "b/5.mp4"}
    # a large share leaves each class a video to train on
    assert Counter(row.split for row in split_off(rows[:2] + rows[10:12], 0.8)) == {
        "train": 2,
        "val": 2,
    }


@pytest.fixture
def data(videos_dir: Path, tmp_path: Path) -> Path:
    """Two classes of the same three cows; the third is in both twice."""
    names = {"throw": ["cow1", "cow2", "cow3", "cow3"], "walk": ["cow1", "cow2", "cow3", "cow3"]}
    for label, cows in names.items():
        videos = sorted((videos_dir / label).glob("*.mp4"))
        for k, cow in enumerate(cows):
            path = tmp_path / "data" / label / f"{cow}_{k}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(videos[k], path)
    return tmp_path / "data"


def test_the_command_keeps_groups_together_and_reports_them(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out"
    options = ["--val-share", "0.25", "--group", r"pattern:cow\d"]
    assert cli.main(["prepare", str(data), "--output", str(output), *options]) == 0
    assert "groups train 2, val 1" in " ".join(capsys.readouterr().out.split())
    text = (output / "manifest.csv").read_text()
    assert text.startswith("path,label,split,group\n")
    every = load_videos(output, None).items
    (held,) = {video.group for video in every if video.split == "val"}
    assert sum(video.split == "val" for video in every) == sum(v.group == held for v in every) == 2
    report = read_json(output / "report.json")
    assert report["groups"]["cow3"] == {"train": 4}
    assert f"| `{held}` | 0 | 2 |" in (output / "report.md").read_text()

    # what was prepared is a source, and its groups stay
    again = prepare(PrepareSettings(output / "manifest.csv", tmp_path / "again")).survey
    assert again.groups() == report["groups"]


def test_a_column_of_a_manifest_names_the_groups(data: Path, tmp_path: Path) -> None:
    paths = sorted(data.rglob("*.mp4"))
    lines = [f"{path},{path.parent.name},{path.name[:4]}" for path in paths]
    source = tmp_path / "mine.csv"
    source.write_text("\n".join(["path,label,animal", *lines]))
    settings = PrepareSettings(source, tmp_path / "out", val_share=0.25, group="column:animal")
    survey = prepare(settings).survey
    assert {name: len(each) for name, each in survey.groups().items()} == {
        "cow1": 1, "cow2": 1, "cow3": 1,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=r"8 of 8 videos .* a column filled in each row"):
        prepare(PrepareSettings(source, tmp_path / "out", group="column:herd"))
    with pytest.raises(ConfigError, match="read as folder, has no named columns; use --group pat"):
        prepare(PrepareSettings(data, tmp_path / "other", group="column:animal"))


def test_clips_of_one_youtube_video_stay_together(data: Path, tmp_path: Path) -> None:
    names = [f"{video}_{k:06}_{k + 1:06}" for video in ("abc", "def") for k in range(2)]
    for path, name in zip(sorted(data.rglob("*.mp4")), names, strict=False):
        path.rename(data / f"{name}.mp4")
    rows = [f"throw,{name[:3]},{int(name[4:10])},{int(name[11:])},train" for name in names]
    source = data / "train.csv"
    source.write_text("\n".join(["label,youtube_id,time_start,time_end,split", *rows]))
    settings = PrepareSettings(source, tmp_path / "out", group="column:youtube_id", val_share=0.5)
    assert prepare(settings).survey.groups() == {"abc": {"val": 2}, "def": {"train": 2}}


def test_splits_that_were_there_are_kept_and_said_to_share_groups(
    data: Path, tmp_path: Path
) -> None:
    (tmp_path / "split").mkdir()
    shutil.copytree(data, tmp_path / "split" / "train")
    (tmp_path / "split" / "val" / "throw").mkdir(parents=True)
    shutil.move(tmp_path / "split/train/throw/cow1_0.mp4", tmp_path / "split/val/throw/cow1_0.mp4")
    settings = PrepareSettings(tmp_path / "split", tmp_path / "out", group=r"pattern:cow\d")
    assert "groups in several splits: 1: cow1" in prepare(settings).survey.warnings()
