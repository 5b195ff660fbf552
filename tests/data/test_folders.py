"""How folders of videos are read, and where that is asked."""

from pathlib import Path, PurePath

import pytest

from videomae.data.folders import Place, read_folders
from videomae.data.manifest import has_split, load_videos
from videomae.data.sources import read_source
from videomae.errors import ConfigError
from videomae.settings import PrepareSettings


def read(*names: str, pattern: str | None = None, **how: bool) -> list[tuple[str | None, str]]:
    places = read_folders([PurePath(name) for name in names], pattern, **how)
    return [(place.split, place.label) for place in places]


@pytest.mark.parametrize(
    ("train", "val", "split"),
    [
        ("train", "test", "test"),
        ("Train", "Test", "test"),
        ("TRAIN", "VAL", "val"),
        ("training", "testing", "test"),
        ("train", "dev", "val"),
        ("train", "valid", "val"),
        ("train", "Validation", "val"),
        ("train", "eval", "val"),
        ("01_train", "02_val", "val"),
        ("videos_train", "videos_val", "val"),
    ],
)
def test_splits_have_their_usual_names(train: str, val: str, split: str) -> None:
    assert read(f"{train}/run/a.mp4", f"{val}/run/b.mp4") == [("train", "run"), (split, "run")]
    assert read(f"{train}/a.mp4", f"{val}/b.mp4") == [("train", ""), (split, "")]
    assert read(f"run/{train}/a.mp4", f"run/{val}/b.mp4") == [("train", "run"), (split, "run")]


def test_nested_classes_are_kept() -> None:
    names = ["sport/golf/a.mp4", "sport/tennis/b.mp4", "home/cook/c.mp4"]
    labels = ["sport/golf", "sport/tennis", "home/cook"]
    assert read(*names) == [(None, label) for label in labels]
    assert read(*(f"train/{name}" for name in names)) == [("train", label) for label in labels]
    assert read("run/a.mp4", "home/cook/b.mp4") == [(None, "run"), (None, "home/cook")]


def test_folders_that_all_lie_in_say_nothing() -> None:
    assert read("data/run/a.mp4", "data/walk/b.mp4") == [(None, "run"), (None, "walk")]
    assert read("data/train/run/a.mp4", "data/val/walk/b.mp4") == [
        ("train", "run"),
        ("val", "walk"),
    ]
    assert read("run/a.mp4", "run/b.mp4") == [(None, "run"), (None, "run")]


ASKED = {
    "people in classes": (
        ["run/anna/1.mp4", "run/anna/2.mp4", "walk/anna/1.mp4"],
        "anna lies in several folders. For run/anna/1.mp4 choose --folders 'class/*' (class run) "
        "or --folders '*/class' (class anna) or --folders 'class' (class run/anna)",
    ),
    "a class with parts": (
        ["run/1.mp4", "run/fast/1.mp4", "walk/1.mp4"],
        "run holds videos and folders of videos. For run/fast/1.mp4 choose --folders 'class/*' "
        "(class run) or --folders 'class' (class run/fast)",
    ),
    "a folder for each video": (
        [f"{'run' if k % 2 else 'walk'}/{k}/x.mp4" for k in range(9)],
        "each video has a folder of its own. For walk/0/x.mp4 choose --folders 'class/*'",
    ),
    "a class called train": (
        ["train/1.mp4", "bus/1.mp4"],
        "train may be a split or a class, as bus lies beside it. For bus/1.mp4 choose --folders "
        "'split/class' (left out) or --folders 'class' (class bus)",
    ),
    "a video beside splits": (
        ["train/run/1.mp4", "val/run/1.mp4", "intro.mp4"],
        "train, val may be a split or a class, as intro.mp4 lies beside it",
    ),
    "a video beside classes": (
        ["run/1.mp4", "walk/1.mp4", "intro.mp4"],
        "some videos lie in folders and some beside them. For intro.mp4 choose --folders 'class' "
        "(left out) or --folders '*' (no class)",
    ),
    "people in classes in splits": (
        ["train/run/anna/1.mp4", "train/walk/anna/1.mp4", "val/run/pull/1.mp4"],
        "choose --folders 'split/class/*' (class run) or --folders 'split/*/class' (class anna) or "
        "--folders 'split/class' (class run/anna)",
    ),
    "two folders of one split": (
        ["train/run/1.mp4", "val/run/1.mp4", "dev/run/1.mp4"],
        "the folders dev and val are both split val by their names; rename one",
    ),
}


@pytest.mark.parametrize("names", ASKED)
def test_what_can_be_read_in_two_ways_is_asked(names: str, tmp_path: Path) -> None:
    files, question = ASKED[names]
    with pytest.raises(ConfigError) as caught:
        read(*files)
    assert question in str(caught.value)
    for name in files:
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    with pytest.raises(ConfigError, match="data: "):
        read_source(PrepareSettings(tmp_path / "data", tmp_path / "out"))
    with pytest.raises(ConfigError, match=r"data folder .*data: "):
        load_videos(tmp_path / "data")


def test_the_answers_are_taken() -> None:
    people = ["run/anna/1.mp4", "walk/anna/1.mp4"]
    assert read(*people, pattern="class/*") == [(None, "run"), (None, "walk")]
    assert read(*people, pattern="*/class") == [(None, "anna"), (None, "anna")]
    assert read(*people, pattern="class") == [(None, "run/anna"), (None, "walk/anna")]
    assert read(*people, pattern="*") == [(None, ""), (None, "")]
    assert read("a/train/x/1.mp4", pattern="class/split") == [("train", "a")]
    assert read(*people, group_is_folder=True) == [(None, "run"), (None, "walk")]
    assert read(*people, "1.mp4", labelled=False) == [(None, "")] * 3
    left = read_folders([PurePath("bus/1.mp4"), PurePath("1.mp4")], "split/class")
    assert [place.reason for place in left] == [
        "below bus, which is no split",
        "above the folders of splits",
    ]
    assert read_folders([PurePath("1.mp4")], "class") == [
        Place(reason="above the folders of classes")
    ]


@pytest.mark.parametrize("pattern", ["classes", "split/split", "class//x"])
def test_wrong_patterns_are_refused(pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"folders='.*' is unknown; expected the words split"):
        PrepareSettings(Path("a"), Path("b"), folders=pattern)


def test_splits_of_any_name_are_trained_and_tested_on(tmp_path: Path) -> None:
    for name in ("Training/a/1.mp4", "Training/b/2.mp4", "Dev/a/1.mp4"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert load_videos(tmp_path).classes == ("a", "b")
    assert [item.label for item in load_videos(tmp_path, "val").items] == ["a"]
    assert (has_split(tmp_path, "val"), has_split(tmp_path, "test")) == (True, False)


def test_what_a_pattern_leaves_out_is_counted(tmp_path: Path) -> None:
    for name in ("train/a/1.mp4", "notes.txt", "extra/a/1.mp4"):
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).touch()
    settings = PrepareSettings(tmp_path / "data", tmp_path / "out", folders="split/class")
    listing = read_source(settings)
    assert [item.label for item in listing.items] == ["a"]
    assert sorted(listing.passed_over.values()) == [".txt", "below extra, which is no split"]
