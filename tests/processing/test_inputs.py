"""What is given as a video, told apart: frames, batches, grey arrays, and sources to be decoded."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image

from videomae.errors import ConfigError
from videomae.processing.inputs import as_frames, as_videos


@pytest.fixture(autouse=True)
def _no_unexpected_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def image(*shape: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, shape).astype("uint8")


def test_one_video_is_a_list_of_frames_an_array_or_a_path() -> None:
    frames = image(2, 4, 5, 3)
    for video in (frames, torch.from_numpy(frames), list(frames), tuple(frames)):
        (found,) = as_videos(video)
        assert len(found) == 2
        assert np.array_equal(np.asarray(found[1]), frames[1])
    assert as_videos("a.mp4") == ["a.mp4"]


def test_one_image_is_a_video_of_one_frame() -> None:
    for frame in (image(4, 5, 3), image(4, 5), Image.new("L", (5, 4))):
        ((only,),) = as_videos(frame)
        assert only is frame


def test_several_videos_are_a_list_of_them_or_an_array_of_five_axes() -> None:
    frames = image(2, 3, 4, 5, 3)
    for videos in (frames, torch.from_numpy(frames), list(frames), [list(frames[0]), frames[1]]):
        assert [len(video) for video in as_videos(videos)] == [3, 3]
    assert as_videos(["a.mp4", frames[0]])[0] == "a.mp4"


@pytest.mark.parametrize(
    ("videos", "got"),
    [
        (np.zeros(7), r"ndarray of shape \(7,\)"),
        (torch.zeros(1, 1, 1, 1, 1, 3), r"Tensor of shape \(1, 1, 1, 1, 1, 3\)"),
        ([np.zeros((4, 5, 3)), "frame.png"], "frame.png"),
        ([["a.png", "b.png"]], "a.png"),
        ([[np.zeros((2, 4, 5, 3))]], r"ndarray of shape \(2, 4, 5, 3\)"),
        (None, "None"),
        ([3], "3"),
    ],
)
def test_what_is_no_video_is_refused(videos: object, got: str) -> None:
    with pytest.raises(ConfigError, match=got + ".* is neither a frame nor a video; expected"):
        as_videos(videos)


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(ConfigError, match="got an empty list; pass the frames"):
        as_videos([])


def test_a_grey_array_is_a_video_of_grey_frames() -> None:
    grey = image(16, 20, 30)
    for video in (grey, torch.from_numpy(grey)):
        (frames,) = as_videos(video)
        assert len(frames) == 16
        assert np.array_equal(np.asarray(frames[3]), grey[3])
    for several in ([grey, grey[:2]], np.stack([grey, grey])):
        first, second = as_videos(several)
        assert (len(first), len(second)) == (16, len(several[1]))
    # of a processor for 16 channels it is one frame
    assert len(as_videos(grey, num_channels=16)[0]) == 1
    assert len(as_videos(grey, layout="channels_last")[0]) == 1


@pytest.mark.parametrize("count", [3, 4])
def test_a_few_grey_frames_could_be_one_frame_which_is_asked(count: int) -> None:
    doubtful = image(count, 20, 30)
    assert len(as_videos(doubtful)[0]) == 1
    message = rf"shape \({count}, 20, 30\) may be one frame of {count} channels or {count} grey fr"
    with pytest.raises(ConfigError, match=message):
        as_videos(doubtful, image=False)
    for clear, frames in ((doubtful[..., None], count), (doubtful[None], 1)):
        assert len(as_videos(clear, image=False)[0]) == frames
    for lone in (image(20, 30, 3), Image.new("RGB", (30, 20))):
        assert len(as_videos(lone, image=False)[0]) == 1
    assert len(as_videos(doubtful, image=False, layout="channels_first")[0]) == 1


def test_sources_are_videos_themselves() -> None:
    for source in ("a.mp4", b"abc", {"path": "a.mp4", "bytes": None}):
        assert as_videos(source) == [source]
        assert as_videos([source, source]) == [source, source]


def test_frames_of_a_model_by_hand() -> None:
    grey = image(5, 6, 7)
    rgb = as_frames(grey, 3)
    assert rgb.shape == (5, 6, 7, 3)
    assert np.array_equal(rgb, np.stack([grey] * 3, axis=-1))
    for same in (grey[..., None], grey[:, None], torch.from_numpy(grey)):
        assert np.array_equal(as_frames(same, 3), rgb)
    assert as_frames(grey, 1).shape == (5, 6, 7, 1)
    assert np.array_equal(as_frames(image(5, 3, 6, 7), 3)[0, ..., 1], image(5, 3, 6, 7)[0, 1])
    with pytest.raises(ConfigError, match="give three or four grey frames as video"):
        as_frames(image(3, 6, 7), 3)
