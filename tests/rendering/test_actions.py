"""The set of people: pairs that differ in time alone, splits that share nobody, and its folders."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from videomae.data.manifest import load_videos
from videomae.errors import ConfigError
from videomae.rendering.actions import (
    ACTIONS,
    CLASSES,
    NUM_GROUNDS,
    NUM_PEOPLE,
    Action,
    plan_clip,
    render_clip,
    render_dataset,
)
from videomae.settings import ActionsSettings
from videomae.video.reader import probe, read_frames


def test_classes_are_sorted_as_a_folder_reader_numbers_them() -> None:
    assert list(CLASSES) == sorted(CLASSES)
    assert len(set(CLASSES)) == 2 * len(ACTIONS) == 20


def test_a_clip_is_a_function_of_its_arguments() -> None:
    before = np.random.get_state()[1].copy()
    clip = render_clip("push", seed=(7, 3), size=32, num_frames=6)
    assert clip.shape == (6, 32, 32, 3)
    assert clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, render_clip("push", seed=(7, 3), size=32, num_frames=6))
    assert (clip != render_clip("push", seed=(7, 4), size=32, num_frames=6)).mean() > 0.5
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.forwards)
def test_the_classes_of_a_pair_have_the_same_frames_in_opposite_order(action: Action) -> None:
    for seed in range(3):
        forwards = render_clip(action.forwards, seed=seed, size=32, num_frames=9)
        backwards = render_clip(action.backwards, seed=seed, size=32, num_frames=9)
        np.testing.assert_array_equal(forwards, backwards[::-1])
        # which is no empty claim: the order is seen
        assert np.abs(forwards[0].astype(int) - forwards[-1]).max() > 40


@pytest.mark.parametrize("action", ACTIONS, ids=lambda action: action.forwards)
def test_all_of_the_body_is_in_the_picture_and_the_ground_stands_still(action: Action) -> None:
    for seed in range(20):
        take = plan_clip(action.forwards, seed=seed)
        spots = take.view.pixels(np.concatenate(list(take.joints.values())))
        assert spots.min() > 0
        assert spots.max() < 1
        clip = render_clip(action.forwards, seed=seed, size=32, num_frames=5)
        changed = np.ptp(clip.astype(int), axis=0).max(axis=-1) > 40
        assert 0.005 < changed.mean() < 0.5, seed


def test_the_whole_movement_is_in_the_clip() -> None:
    for seed in range(20):
        sitting = plan_clip("sit_down", seed=seed)
        height = sitting.joints["head"][:, 1]
        assert height[-1] < 0.85 * height[0]
        np.testing.assert_allclose(height[:2], height[0], atol=0.02)
        climbing = plan_clip("climb_up", seed=seed).joints["hips"][:, 1]
        assert climbing[-1] - climbing[0] > 0.3
        there = plan_clip("walk", seed=seed).joints["hips"][:, 0]
        assert there[-1] - there[0] > 0.3
        arm = plan_clip("windmill_forwards", seed=seed).joints
        ahead, up = (arm["elbow_r"] - arm["shoulder_r"])[:, :2].T
        turns = np.ptp(np.unwrap(np.arctan2(ahead, up))) / (2 * np.pi)
        assert 1 < turns < 2.3


def test_feet_do_not_slide() -> None:
    """In each step of time one foot stays where it is, and never both leave the floor."""
    for action in ("walk", "push", "pick_up", "throw"):
        at = plan_clip(action, seed=4).joints
        slides = [np.abs(np.diff(at[f"foot_{side}"][:, 0])) for side in ("l", "r")]
        assert np.median(np.minimum(*slides)) < 0.004
        lowest = np.minimum(at["foot_l"][:, 1], at["foot_r"][:, 1])
        assert lowest.max() < 0.08


def test_splits_share_neither_people_nor_grounds() -> None:
    found: dict[str, list[set[int]]] = {}
    for split in ("train", "test"):
        takes = [
            plan_clip(CLASSES[seed % 20], seed=seed, split=split)  # type: ignore[arg-type]
            for seed in range(200)
        ]
        others = {take.other[0] for take in takes if take.other}
        assert 20 < len(others) < 80
        people = {take.person for take in takes} | others
        found[split] = [people, {take.ground for take in takes}]
    for train, test in zip(found["train"], found["test"], strict=True):
        assert not train & test
        assert min(train | test) >= 0
        assert max(train | test) < NUM_PEOPLE == NUM_GROUNDS
        assert len(train) > 100
        assert len(test) > 90


def test_a_repeated_class_differs_in_who_where_and_how() -> None:
    takes = [plan_clip("walk", seed=seed) for seed in range(40)]
    assert {take.view.mirrored for take in takes} == {True, False}
    assert np.std([take.view.turn for take in takes]) > 10
    assert np.std([take.view.scale for take in takes]) > 0.03
    assert 0 < sum(take.furniture is not None for take in takes) < 20
    assert 0 < sum(take.shake.any() for take in takes) < 25
    assert max(np.abs(take.shake).max() for take in takes) <= 0.012


def test_bad_arguments_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"action='fly' is not one of catch"):
        render_clip("fly", seed=0)
    with pytest.raises(ConfigError, match=r"split='val' is not one of train, test"):
        render_clip("walk", seed=0, split="val")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"size=7, num_frames=4: expected an even size"):
        render_clip("walk", seed=0, size=7, num_frames=4)
    with pytest.raises(ConfigError, match=r"test_clips=-1 must be at least 0"):
        ActionsSettings(Path("set"), test_clips=-1)


def render(folder: Path, **changed: Any) -> list[Path]:
    asked = {"clips": 22, "test_clips": 2, "size": 16, "num_frames": 4, "workers": 1, **changed}
    return render_dataset(ActionsSettings(folder, **asked))


def test_a_data_set_is_a_folder_per_split_and_class(tmp_path: Path) -> None:
    paths = render(tmp_path / "set")
    assert paths[21] == tmp_path / "set" / "train" / "climb_down" / "00021.mp4"
    assert paths[22] == tmp_path / "set" / "test" / "catch" / "00000.mp4"
    assert sorted((tmp_path / "set").rglob("*.mp4")) == sorted(paths)
    assert (tmp_path / "set" / "labels.txt").read_text().split() == list(CLASSES)
    record = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert (record["clips"], record["test_clips"], record["seed"]) == (22, 2, 7)

    train = load_videos(tmp_path / "set", "train")
    assert (len(train), train.classes) == (22, CLASSES)
    assert len(load_videos(tmp_path / "set", "test")) == 2
    info = probe(paths[3])
    assert (info.num_frames, info.fps, info.width, info.height) == (4, 16, 16, 16)
    written = render_clip("climb_up", seed=(7, 0, 2), size=16, num_frames=4)
    assert np.abs(read_frames(paths[2], range(4)).astype(int) - written).mean() < 8


def test_neither_the_number_of_clips_nor_of_processes_changes_a_clip(tmp_path: Path) -> None:
    few = render(tmp_path / "few", clips=3, test_clips=1)
    many = render(tmp_path / "many", clips=5, test_clips=2, workers=2)
    assert [path.read_bytes() for path in few[:3]] == [path.read_bytes() for path in many[:3]]
    assert few[3].read_bytes() == many[5].read_bytes()
    # the first clip of each split shows the same class, and not the same clip
    assert few[0].read_bytes() != few[3].read_bytes()


def test_still_clips_repeat_the_middle_frame(tmp_path: Path) -> None:
    still = render(tmp_path, clips=1, test_clips=0, still=True)
    frames = read_frames(still[0], range(4)).astype(int)
    assert np.abs(frames - frames[:1]).max() <= 12  # what the codec adds


def test_a_set_without_test_clips_has_no_folder_for_them(tmp_path: Path) -> None:
    render(tmp_path, clips=1, test_clips=0)
    assert not (tmp_path / "test").exists()


def test_a_folder_with_other_settings_is_refused(tmp_path: Path) -> None:
    render(tmp_path, clips=1)
    with pytest.raises(ConfigError, match=r"made with seed=7; asked for seed=8; give another"):
        render(tmp_path, clips=1, seed=8)
