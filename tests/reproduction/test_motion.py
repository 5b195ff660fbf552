"""The rendered data set: what moves how, that looks tell nothing, and the folder it writes."""

import hashlib
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from reproduction.motion import (
    MOTIONS,
    MotionSettings,
    draw_trajectory,
    render_clip,
    render_dataset,
)
from reproduction.scenes import PLANE_VIEWS
from videomae.errors import ConfigError
from videomae.video.reader import probe, read_frames

# Of clips as they were first.
DIGEST = "ed614a496692ec3ba47d1f9418aa7357e1c30273b3f1f7b12e74f43d44a2ff3b"
Flow = NDArray[np.float64]
OPPOSITE = {"left": "right", "right": "left", "up": "down", "down": "up", "in": "out", "out": "in"}


def flow(clip: NDArray[np.uint8]) -> Flow:
    """Motion from each frame to the next (T - 1, 4): right and down in px, zoom and clockwise turn.

    Least squares over all pixels of: what a point gains in brightness is what moves onto it.
    """
    grey = clip.astype(np.float64).mean(axis=-1)  # (T, H, W)
    size = grey.shape[1]
    across = np.arange(size) - (size - 1) / 2
    found = []
    for before, after in pairwise(grey):
        down, right = np.gradient((before + after) / 2)
        x, y = across[None, :], across[:, None]
        columns = [right, down, right * x + down * y, -right * y + down * x]
        matrix = np.stack([column.ravel() for column in columns], axis=1)
        found.append(np.linalg.lstsq(matrix, (before - after).ravel(), rcond=None)[0])
    return np.array(found)


def test_motions_are_sorted_as_a_folder_reader_numbers_them() -> None:
    assert list(MOTIONS) == sorted(MOTIONS)
    assert len(set(MOTIONS)) == 12


def test_a_clip_is_a_function_of_its_arguments() -> None:
    clip = render_clip("sway", seed=(7, 3), size=32, num_frames=6)
    assert clip.shape == (6, 32, 32, 3)
    assert clip.dtype == np.uint8
    np.testing.assert_array_equal(clip, render_clip("sway", seed=(7, 3), size=32, num_frames=6))
    assert (clip != render_clip("sway", seed=(7, 4), size=32, num_frames=6)).mean() > 0.5


def test_the_global_random_state_is_left_alone() -> None:
    before = np.random.get_state()[1].copy()
    render_clip("pulse", seed=1, size=16, num_frames=2)
    np.testing.assert_array_equal(before, np.random.get_state()[1])


@pytest.mark.parametrize("num_frames", [1, 5, 6])
def test_the_middle_frame_is_the_same_picture_in_every_class(num_frames: int) -> None:
    middles = [
        render_clip(motion, seed=11, size=32, num_frames=num_frames)[num_frames // 2]
        for motion in MOTIONS
    ]
    for middle in middles[1:]:
        np.testing.assert_array_equal(middle, middles[0])


@pytest.mark.parametrize("motion", [motion for motion in MOTIONS if "_" in motion])
def test_the_opposite_class_is_the_clip_played_backwards(motion: str) -> None:
    kind, _, way = motion.partition("_")
    clip = render_clip(motion, seed=5, size=32, num_frames=7)
    opposite = render_clip(f"{kind}_{OPPOSITE[way]}", seed=5, size=32, num_frames=7)
    np.testing.assert_array_equal(clip[::-1], opposite)


@pytest.mark.parametrize(
    ("motion", "axis", "sign"),
    [
        ("slide_left", 0, -1),
        ("slide_right", 0, 1),
        ("slide_up", 1, -1),
        ("slide_down", 1, 1),
        ("zoom_in", 2, 1),
        ("zoom_out", 2, -1),
        ("turn_left", 3, -1),
        ("turn_right", 3, 1),
    ],
)
def test_steady_motions_go_their_way_in_every_frame(motion: str, axis: int, sign: int) -> None:
    for seed in range(3):
        moved = flow(render_clip(motion, seed=seed, num_frames=32)[::2])
        assert (np.sign(moved[:, axis]) == sign).all()
        # at the rim, half of 64 px from the centre, what the class does outweighs all else
        rim = np.abs(moved).sum(axis=0) * [1, 1, 32, 32]
        assert rim[axis] > 12
        if axis < 2:
            assert rim[axis] > 2 * np.delete(rim, axis).max()


@pytest.mark.parametrize(("motion", "axis"), [("sway", 0), ("bob", 1), ("pulse", 2)])
def test_sway_bob_and_pulse_go_there_and_back(motion: str, axis: int) -> None:
    for seed in range(3):
        moved = flow(render_clip(motion, seed=seed, num_frames=32)[::2])[:, axis]
        assert moved.max() > 0.01
        assert moved.min() < -0.01
        assert np.count_nonzero(np.diff(np.sign(moved))) >= 2


def test_orbit_goes_round_at_least_once_either_way() -> None:
    rounds = []
    for seed in range(6):
        moved = flow(render_clip("orbit", seed=seed, num_frames=32))
        heading = np.unwrap(np.arctan2(moved[:, 1], moved[:, 0]))  # clockwise: y points down
        rounds.append((heading[-1] - heading[0]) / (2 * np.pi))
        assert np.abs(moved[:, 3]).mean() < 0.02  # it travels without turning
    assert np.abs(rounds).min() > 1
    assert min(rounds) < 0 < max(rounds)


@pytest.mark.parametrize("motion", MOTIONS)
def test_sizes_and_speeds_are_as_documented(motion: str) -> None:
    kind = motion.partition("_")[0]
    for seed in range(100):
        path = draw_trajectory(motion, 311, np.random.default_rng(seed))
        travel = np.abs(path.shift[:, None] - path.shift).max()
        ratio = np.abs(path.change).max() / np.abs(path.change).min()
        turn = np.degrees(np.ptp(np.unwrap(np.angle(path.change))))
        expected = {
            "slide": (0.32, 0.78, 1, 1, 0, 0),
            "sway": (0.20, 0.42, 1, 1, 0, 0),
            "bob": (0.20, 0.42, 1, 1, 0, 0),
            "orbit": (0.20, 0.42, 1, 1, 0, 0),
            "zoom": (0, 0, 1.5, 2.5, 0, 0),
            "pulse": (0, 0, 1.15**2, 1.30**2, 0, 0),
            "turn": (0, 0, 1, 1, 40, 120),
        }[kind]
        for found, low, high in zip(
            (travel, ratio, turn), expected[::2], expected[1::2], strict=True
        ):
            assert low - 1e-3 <= found <= high + 1e-3, (seed, found, low, high)


def test_single_frames_of_all_classes_look_alike() -> None:
    """Analysis of variance: class means of simple features differ no more than chance has them."""
    per_class = 12
    features = np.empty((len(MOTIONS), per_class, 6))
    for label, motion in enumerate(MOTIONS):
        for index in range(per_class):
            seed = (23, index * len(MOTIONS) + label)
            middle = render_clip(motion, seed=seed, size=16, num_frames=3)[1] / 255
            detail = np.abs(np.diff(middle, axis=0)).mean(), np.abs(np.diff(middle, axis=1)).mean()
            features[label, index] = (*middle.mean(axis=(0, 1)), middle.std(), *detail)
    between = per_class * features.mean(axis=1).var(axis=0, ddof=1)
    within = features.var(axis=1, ddof=1).mean(axis=0)
    # F with 11 and 132 degrees of freedom passes 2.6 once in 200 times by chance.
    assert (between / within).max() < 2.6


def test_the_plane_is_wider_than_any_view() -> None:
    widest = max(
        1 / np.abs(draw_trajectory("zoom_out", 32, np.random.default_rng(seed)).change).min()
        for seed in range(200)
    )
    assert np.sqrt(2) * np.exp(0.22) * widest < PLANE_VIEWS


def test_clips_stay_as_they_were_byte_for_byte() -> None:
    digest = hashlib.sha256()
    for motion in MOTIONS[::5]:
        digest.update(render_clip(motion, seed=(3, 1), size=32, num_frames=3).tobytes())
    assert digest.hexdigest() == DIGEST


def test_bad_arguments_are_explained() -> None:
    with pytest.raises(ConfigError, match=r"motion='wobble' is not one of bob"):
        render_clip("wobble", seed=0)
    with pytest.raises(ConfigError, match=r"size=7, num_frames=4: expected an even size"):
        render_clip("sway", seed=0, size=7, num_frames=4)
    with pytest.raises(ConfigError, match=r"size=16, num_frames=0: .* at least 1 frame"):
        render_clip("sway", seed=0, size=16, num_frames=0)


@pytest.mark.parametrize("wrong", [{"clips": 0}, {"fps": 0}, {"workers": 0}, {"seed": -1}])
def test_impossible_settings_make_no_folder(tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=r"must (be at least [01]|lie in 0 to)"):
        render_dataset(MotionSettings(tmp_path / "set", **wrong))
    assert not (tmp_path / "set").exists()


def render(folder: Path, *, on_progress: Any = None, **changed: Any) -> list[Path]:
    asked = {"clips": 13, "size": 16, "num_frames": 4, "workers": 1, **changed}
    return render_dataset(MotionSettings(folder, **asked), on_progress=on_progress)


def test_a_data_set_is_a_folder_per_class_of_readable_videos(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    paths = render(tmp_path / "set", on_progress=lambda done, all_: seen.append((done, all_)))
    assert paths[0] == tmp_path / "set" / "bob" / "00000.mp4"
    assert [path.parent.name for path in paths] == [*MOTIONS, MOTIONS[0]]
    assert sorted((tmp_path / "set").rglob("*.mp4")) == sorted(paths)
    assert seen == [(done, 13) for done in range(1, 14)]
    assert (tmp_path / "set" / "labels.txt").read_text().split() == list(MOTIONS)
    record = json.loads((tmp_path / "set" / "dataset.json").read_text())
    assert (record["clips"], record["seed"], record["classes"]) == (13, 7, list(MOTIONS))

    info = probe(paths[3])
    assert (info.num_frames, info.fps, info.width, info.height) == (4, 16, 16, 16)
    written = render_clip("slide_down", seed=(7, 3), size=16, num_frames=4)
    difference = np.abs(read_frames(paths[3], range(4)).astype(int) - written)
    assert difference.mean() < 8  # lossy, and colour at half resolution


def test_still_clips_repeat_the_middle_frame(tmp_path: Path) -> None:
    moving, still = render(tmp_path / "a"), render(tmp_path / "b", still=True)
    frames = read_frames(still[10], range(4)).astype(int)
    assert np.abs(frames - frames[:1]).max() <= 12  # what the codec adds
    assert np.abs(frames[2] - read_frames(moving[10], [2])[0]).mean() < 8


def test_rendering_carries_on_and_keeps_finished_files(tmp_path: Path) -> None:
    paths = render(tmp_path)
    whole = {path: path.read_bytes() for path in paths}
    paths[5].unlink()
    paths[0].write_bytes(b"finished before")
    seen: list[int] = []
    assert render(tmp_path, on_progress=lambda done, _: seen.append(done)) == paths
    assert seen == [13]
    assert paths[5].read_bytes() == whole[paths[5]]
    assert paths[0].read_bytes() == b"finished before"


def test_processes_write_the_same_files(tmp_path: Path) -> None:
    alone, shared = render(tmp_path / "a"), render(tmp_path / "b", workers=2)
    assert [path.read_bytes() for path in alone] == [path.read_bytes() for path in shared]


def test_a_folder_with_other_settings_or_other_things_is_refused(tmp_path: Path) -> None:
    render(tmp_path / "set", clips=1)
    with pytest.raises(ConfigError, match=r"made with seed=7; asked for seed=8; give another"):
        render(tmp_path / "set", clips=1, seed=8)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(ConfigError, match=r"other is not empty and has no dataset.json"):
        render(tmp_path / "other", clips=1)
    with pytest.raises(ConfigError, match=r"thesis.txt is not empty"):
        render(tmp_path / "other" / "thesis.txt", clips=1)
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.txt"]
