"""Both processors against transformers' torchvision ones: same pixels, files and Auto classes."""

import inspect
import io
import json
import pickle
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from packaging.version import Version
from PIL import Image

from videomae.compute import threads
from videomae.config import IMAGENET_MEAN, IMAGENET_STD
from videomae.errors import ConfigError, VideoError
from videomae.processing import processors, transforms
from videomae.processing.processors import (
    BatchFeature,
    VideoMAEFeatureExtractor,
    VideoMAEImageProcessor,
    VideoMAEVideoProcessor,
    VideoMetadata,
)
from videomae.video.reader import read_frames
from videomae.video.writer import write_video

PAIRS = {
    "image": (VideoMAEImageProcessor, transformers.VideoMAEImageProcessor),
    "video": (VideoMAEVideoProcessor, transformers.VideoMAEVideoProcessor),
}
OURS = [VideoMAEImageProcessor, VideoMAEVideoProcessor]
IMAGENET = {"image_mean": list(IMAGENET_MEAN), "image_std": list(IMAGENET_STD)}
SMALL = {"size": 32, "crop_size": 24}
# (height, width): odd, tall, wide, tiny, upscaled, of the very size.
SIZES = [(40, 50), (33, 47), (50, 41), (17, 90), (91, 16), (8, 9), (2, 5), (32, 32), (120, 160)]
SETTINGS: list[dict[str, Any]] = [
    {},
    {"crop_size": 33},
    {"size": {"shortest_edge": 20}},
    {"size": {"height": 30, "width": 41}, "crop_size": {"height": 21, "width": 50}},
    {"size": (23, 37), "crop_size": (37, 23)},
    {"size": 28, "default_to_square": True},
    {"size": {"shortest_edge": 32, "longest_edge": 40}, "do_center_crop": False},
    {"size": {"max_height": 32, "max_width": 40}, "do_center_crop": False},
    {"resample": 0},
    *([{"resample": 1}] if hasattr(torch._C._nn, "_upsample_lanczos2d_aa") else []),
    {"resample": 3},
    {"resample": 3, "size": 19, "crop_size": 19},
    {"do_resize": False},
    {"do_center_crop": False},
    {"do_rescale": False},
    {"do_normalize": False},
    {"do_rescale": False, "do_normalize": False},
    {"rescale_factor": 1 / 127.5, "image_mean": [1.0, 1.0, 1.0], "image_std": [1.0, 1.0, 1.0]},
    {"image_mean": 0.4, "image_std": 0.3},
    {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.3, 0.2, 0.1]},
    {"do_convert_rgb": True},
]


@pytest.fixture(autouse=True)
def _only_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def clip(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape).astype(np.uint8)


# Before 2.11 PyTorch rounds a resized byte differently by how it lies in memory.
ROUNDS_ALIKE = Version(torch.__version__) >= Version("2.11")


def largest_level(batch: Any) -> float:
    """The change of a pixel value when its byte changes by one, in the channel where it is most."""
    channels = batch.pixel_values.double().movedim(2, 0)
    return max(float(values.unique().diff().min()) for values in channels)


def assert_same(ours: Any, theirs: Any) -> None:
    assert isinstance(ours.pixel_values, torch.Tensor)
    assert ours.pixel_values.shape == theirs.pixel_values.shape
    assert ours.pixel_values.dtype == theirs.pixel_values.dtype
    difference = ours.pixel_values.double() - theirs.pixel_values.double()
    assert difference.abs().max() <= (1e-6 if ROUNDS_ALIKE else 1.01 * largest_level(theirs))


def forms(frames: np.ndarray) -> dict[str, Any]:
    """One video of uint8 (T, H, W, 3) in all the forms that both libraries take."""
    first = np.ascontiguousarray(frames.transpose(0, 3, 1, 2))
    return {
        "array, channels last": frames,
        "array, channels first": first,
        "tensor, channels last": torch.from_numpy(frames),
        "tensor, channels first": torch.from_numpy(first),
        "list of arrays": list(frames),
        "list of arrays, channels first": list(first),
        "list of tensors": list(torch.from_numpy(first)),
        "list of images": [Image.fromarray(frame) for frame in frames],
        "every second frame": np.repeat(frames, 2, axis=0)[::2],
        "floats": frames.astype(np.float32),
        "doubles": torch.from_numpy(frames).double(),
        "whole numbers": torch.from_numpy(frames).long(),
    }


# Pixels


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_same_pixels_for_each_setting_and_size(kind: str, setting: dict[str, Any]) -> None:
    ours, theirs = PAIRS[kind]
    mine, peer = ours(**SMALL | setting), theirs(**IMAGENET | SMALL | setting)
    for height, width in SIZES:
        frames = clip(2, height, width, 3)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*as do_rescale=False expects")
            result = mine(frames, return_tensors="pt", input_data_format="channels_last")
        expected = peer(frames, return_tensors="pt", input_data_format="channels_last")
        assert_same(result, expected)


@pytest.mark.parametrize("kind", PAIRS)
def test_settings_of_a_call_are_the_same_as_of_the_processor(kind: str) -> None:
    ours, theirs = PAIRS[kind]
    frames = clip(2, 45, 61, 3)
    for setting in SETTINGS:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*as do_rescale=False expects")
            result = ours(size=99)(frames, return_tensors="pt", **SMALL | setting)
        assert_same(result, theirs(**IMAGENET)(frames, return_tensors="pt", **SMALL | setting))


@pytest.mark.parametrize("kind", PAIRS)
@pytest.mark.parametrize("resample", [0, 2, 3])
def test_same_pixels_for_each_form_of_input(kind: str, resample: int) -> None:
    ours, theirs = PAIRS[kind]
    setting = SMALL | {"resample": resample}
    mine, peer = ours(**setting), theirs(**setting, **IMAGENET)
    for name, frames in forms(clip(3, 45, 61, 3)).items():
        theirs_too = list(frames) if name == "every second frame" else frames
        assert_same(mine(frames, return_tensors="pt"), peer(theirs_too, return_tensors="pt"))


@pytest.mark.parametrize("kind", PAIRS)
def test_same_pixels_for_batches(kind: str) -> None:
    ours, theirs = PAIRS[kind]
    mine, peer = ours(**SMALL), theirs(**SMALL, **IMAGENET)
    videos = [clip(2, 45, 61, 3), clip(2, 50, 33, 3)]
    images = [[Image.fromarray(frame) for frame in video] for video in videos]
    for batch in (videos, images, [torch.from_numpy(video) for video in videos]):
        result = mine(batch, return_tensors="pt")
        assert result.pixel_values.shape == (2, 2, 3, 24, 24)
        assert_same(result, peer(batch, return_tensors="pt"))
    five = np.stack([videos[0], videos[0] + 1])
    assert_same(mine(five, return_tensors="pt"), peer(list(five), return_tensors="pt"))
    assert_same(mine(videos[0][0], return_tensors="pt"), peer(videos[0][0], return_tensors="pt"))


def test_frames_of_differing_sizes() -> None:
    frames = [clip(45, 61, 3), clip(50, 33, 3), clip(24, 24, 3)]
    expected = transformers.VideoMAEImageProcessor(**SMALL, **IMAGENET)(frames, return_tensors="pt")
    for processor in (VideoMAEImageProcessor(**SMALL), VideoMAEVideoProcessor(**SMALL)):
        assert_same(processor(frames, return_tensors="pt"), expected)


def test_published_size_and_mean_are_the_defaults() -> None:
    frames = clip(2, 240, 320, 3)
    for ours, theirs in PAIRS.values():
        result = ours()(frames, return_tensors="pt")
        assert result.pixel_values.shape == (1, 2, 3, 224, 224)
        assert_same(result, theirs(**IMAGENET)(frames, return_tensors="pt"))


def test_grey_is_repeated_as_by_the_video_processor_of_transformers() -> None:
    grey = clip(2, 45, 61, 1)
    peer = transformers.VideoMAEVideoProcessor(**SMALL, **IMAGENET)
    expected = peer(grey, return_tensors="pt", input_data_format="channels_last")
    images = [Image.fromarray(frame[..., 0]) for frame in grey]
    for ours in OURS:
        for frames in (grey, list(grey), list(grey[..., 0]), images):
            assert_same(ours(**SMALL)(frames, return_tensors="pt"), expected)


@pytest.mark.parametrize("ours", OURS)
@pytest.mark.parametrize("to_rgb", [True, None])
def test_a_grey_frame_beside_rgb(ours: type[VideoMAEImageProcessor], to_rgb: bool | None) -> None:
    rgb, grey = clip(45, 61, 3), clip(45, 61)
    mixed = [rgb, grey, Image.fromarray(grey), grey[..., None]]
    result = ours(**SMALL)(mixed, return_tensors="pt", do_convert_rgb=to_rgb)
    three = [rgb, *[np.repeat(grey[..., None], 3, axis=-1)] * 3]
    assert torch.equal(result.pixel_values, ours(**SMALL)(three, return_tensors="pt").pixel_values)
    peer = transformers.VideoMAEImageProcessor(**SMALL, **IMAGENET, do_convert_rgb=True)
    assert_same(result, peer(mixed, return_tensors="pt"))


@pytest.mark.parametrize("ours", OURS)
def test_grey_arrays_are_videos(ours: type[VideoMAEImageProcessor]) -> None:
    grey = clip(16, 24, 30)
    expected = ours(**SMALL)(grey[..., None], return_tensors="pt").pixel_values
    assert expected.shape == (1, 16, 3, 24, 24)
    assert torch.equal(ours(**SMALL)(grey, return_tensors="pt").pixel_values, expected)
    for count in (3, 4):
        if ours is VideoMAEImageProcessor:
            assert ours(**SMALL)(grey[:count], do_convert_rgb=True).pixel_values[0].shape[0] == 1
        else:
            with pytest.raises(
                ConfigError, match=rf"one frame of {count} channels or {count} grey"
            ):
                ours(**SMALL)(grey[:count])


@pytest.mark.parametrize("kind", PAIRS)
def test_transparent_images_are_laid_on_white(kind: str) -> None:
    rgba = clip(2, 45, 61, 4)
    images = [Image.fromarray(frame) for frame in rgba]
    peer = transformers.VideoMAEImageProcessor(**SMALL, **IMAGENET, do_convert_rgb=True)
    processor = PAIRS[kind][0](**SMALL)
    result = processor(images, return_tensors="pt", do_convert_rgb=True)
    assert_same(result, peer(images, return_tensors="pt"))
    result = processor(rgba, return_tensors="pt", do_convert_rgb=True)
    assert_same(result, peer(rgba, return_tensors="pt"))


def test_any_number_of_channels() -> None:
    frames = clip(2, 45, 61, 5)
    mean, std = [0.1, 0.2, 0.3, 0.4, 0.5], [0.5, 0.4, 0.3, 0.2, 0.1]
    peer = transformers.VideoMAEImageProcessor(**SMALL, image_mean=mean, image_std=std)
    expected = peer(frames, return_tensors="pt", input_data_format="channels_last")
    for ours in OURS:
        mine = ours(**SMALL, image_mean=mean, image_std=std)
        assert_same(mine(frames, return_tensors="pt"), expected)


def test_numbers_by_hand() -> None:
    white = np.full((1, 8, 8, 3), 255, np.uint8)
    pixels = VideoMAEImageProcessor(size=4, crop_size=6)(white, return_tensors="np").pixel_values
    assert isinstance(pixels, np.ndarray)
    middle, edge = pixels[0, 0, :, 3, 3], pixels[0, 0, :, 0, 0]
    assert middle == pytest.approx([(1 - 0.485) / 0.229, (1 - 0.456) / 0.224, (1 - 0.406) / 0.225])
    assert edge == pytest.approx([-0.485 / 0.229, -0.456 / 0.224, -0.406 / 0.225])  # black


# Results


@pytest.mark.parametrize("ours", OURS)
def test_return_tensors(ours: type[VideoMAEImageProcessor]) -> None:
    videos = [clip(2, 45, 61, 3), clip(3, 45, 61, 3)]
    several = ours(**SMALL)(videos).pixel_values
    assert [tuple(video.shape) for video in several] == [(2, 3, 24, 24), (3, 3, 24, 24)]
    tensor = ours(**SMALL)(videos[:1], return_tensors="pt").pixel_values
    assert torch.equal(tensor[0], several[0])
    array = ours(**SMALL).preprocess(videos[:1], return_tensors="np").pixel_values
    assert isinstance(array, np.ndarray)
    assert np.array_equal(array, tensor.numpy())
    with pytest.raises(ConfigError, match="return_tensors='tf'; expected 'pt', 'np', or None"):
        ours(**SMALL)(videos, return_tensors="tf")


def test_batch_feature_is_a_dict_with_attributes() -> None:
    batch = VideoMAEImageProcessor(**SMALL)(clip(2, 45, 61, 3), return_tensors="pt")
    assert dict(**batch)["pixel_values"] is batch["pixel_values"] is batch.pixel_values
    assert batch.to("cpu", torch.bfloat16) is batch
    assert batch.pixel_values.dtype == torch.bfloat16
    batch.labels = [1]
    assert batch.pop("labels") == [1]
    with pytest.raises(AttributeError, match="no 'labels' here; there is pixel_values"):
        _ = batch.labels


def test_batch_feature_casts_floats_only() -> None:
    batch = BatchFeature(
        pixels=[torch.zeros(2)], count=torch.tensor(3), array=np.zeros(2), name="clip"
    ).to(torch.float16)
    assert batch.pixels[0].dtype == torch.float16
    assert batch.count.dtype == torch.int64
    assert batch.array.dtype == np.float64
    assert batch.name == "clip"


@pytest.mark.parametrize("kind", ["pt", transformers.TensorType.PYTORCH])
def test_batch_feature_converts_to_tensors(kind: Any) -> None:
    values = {"pixels": [torch.zeros(3), torch.ones(3)], "labels": [1, 2], "names": ["a", "b"]}
    batch = BatchFeature(values, tensor_type=kind)
    assert batch.data is batch
    assert batch.pixels.tolist() == [[0, 0, 0], [1, 1, 1]]
    assert batch.labels.dtype == torch.int64
    assert batch.names == ["a", "b"]
    assert BatchFeature(values, "np").pixels.shape == (2, 3)
    kept = BatchFeature(values).convert_to_tensors("pt", skip_tensor_conversion=["pixels"])
    assert isinstance(kept.pixels, list)
    assert pickle.loads(pickle.dumps(batch)).labels.tolist() == [1, 2]
    with pytest.raises(ConfigError, match="tensor_type='tf'; expected 'pt', 'np', or None"):
        batch.convert_to_tensors("tf")


def test_device() -> None:
    frames = clip(2, 45, 61, 3)
    here = VideoMAEImageProcessor(**SMALL)(frames, return_tensors="pt", device="cpu")
    assert here.pixel_values.device.type == "cpu"
    # No pixels on "meta", but the way through every step off the CPU.
    there = VideoMAEImageProcessor(**SMALL)(frames, return_tensors="pt", device="meta")
    assert there.pixel_values.shape == here.pixel_values.shape
    assert there.pixel_values.device.type == "meta"


@pytest.mark.parametrize("ours", [VideoMAEImageProcessor, VideoMAEVideoProcessor])
def test_all_is_computed_without_waiting_for_other_cores(
    ours: type[VideoMAEImageProcessor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each operation runs in one thread, and frames are shared among threads: the same pixels."""
    frames = clip(16, 230, 300, 3)
    given = [frames, torch.from_numpy(frames).float(), frames[:3, :80, :90]]
    expected = [ours()(video, return_tensors="pt").pixel_values for video in given]

    seen: set[tuple[str, int]] = set()
    for module, name in ((transforms, "resize"), (transforms, "center_crop"),
                         (processors, "check_range"), (processors, "to_pixels")):  # fmt: skip
        step = getattr(module, name)

        def watched(*values: Any, step: Any = step, name: str = name, **options: Any) -> Any:
            seen.add((name, torch.get_num_threads()))
            return step(*values, **options)

        monkeypatch.setattr(module, name, watched)
    monkeypatch.setattr(threads, "num_threads", lambda: 3)
    monkeypatch.setattr(threads, "num_cores", lambda: 3)
    own = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        for video, pixels in zip(given, expected, strict=True):
            with torch.inference_mode():
                assert torch.equal(ours()(video, return_tensors="pt").pixel_values, pixels)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(own)
    steps = ("resize", "center_crop", "check_range", "to_pixels")
    assert seen == {(name, 1) for name in steps}


def test_inputs_stay_as_they_were() -> None:
    frames = clip(2, 32, 32, 3).astype(np.float32)
    before = frames.copy()
    VideoMAEImageProcessor(do_resize=False, do_center_crop=False)(frames)
    assert np.array_equal(frames, before)


# The surface of transformers' classes

# Parts of its machinery that docs/compatibility.md names as missing.
MISSING = {
    *("backend", "convert_to_rgb", "fetch_images", "fetch_videos", "pad", "process_image"),
    *("get_image_processor_dict", "get_video_processor_dict", "register_for_auto_class"),
    "rescale_and_normalize",
}


@pytest.mark.parametrize("kind", PAIRS)
def test_nothing_public_is_missing_but_what_is_listed(kind: str) -> None:
    ours, theirs = (of() for of in PAIRS[kind])
    absent = {name for name in dir(theirs) if not name.startswith("_")} - set(dir(ours))
    assert absent <= MISSING
    listed = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    assert all(f"`{name}`" in listed for name in absent)
    assert ours.model_input_names == ["pixel_values"]
    frames = clip(2, 32, 32, 3)
    for name in theirs.valid_kwargs.__annotations__:
        assert name in ours.valid_kwargs.__annotations__
        type(ours)(**{name: getattr(ours, name)})
        ours(frames, **{name: getattr(ours, name)})
    for name in ("__call__", "preprocess", "center_crop", "sample_frames"):
        if hasattr(theirs, name):
            expected = inspect.signature(getattr(theirs, name)).parameters.values()
            positional = [each.name for each in expected if each.kind == each.POSITIONAL_OR_KEYWORD]
            assert list(inspect.signature(getattr(ours, name)).parameters)[:-1] == positional


@pytest.mark.parametrize("kind", PAIRS)
def test_steps_can_be_taken_one_by_one(kind: str) -> None:
    ours, theirs = (of() for of in PAIRS[kind])
    size_of = transformers.image_utils.SizeDict
    images = torch.from_numpy(clip(2, 3, 45, 61))
    small, large = {"height": 20, "width": 70}, {"shortest_edge": 30}
    for image in (images, images[0], images[None]):
        for given in (small, size_of(**small), (20, 70)):
            expected = theirs.center_crop(image, size_of(**small))
            assert torch.equal(ours.center_crop(image, given), expected)
        if ROUNDS_ALIKE:
            assert torch.equal(ours.resize(image, large), theirs.resize(image, size_of(**large)))
    array = images.numpy()
    assert np.array_equal(ours.center_crop(array, small), ours.center_crop(images, small).numpy())
    pixels = ours.normalize(ours.rescale(images, 1 / 255), 0.5, [0.1, 0.2, 0.3])
    expected = theirs.normalize(theirs.rescale(images, 1 / 255), 0.5, [0.1, 0.2, 0.3])
    assert torch.allclose(pixels, expected, atol=1e-6)
    with pytest.raises(ConfigError, match=r"crop_size=.*; expected an int, "):
        ours.center_crop(images, {"shortest_edge": 3})


@pytest.mark.parametrize("kind", PAIRS)
def test_a_tensor_type_and_device_belong_to_the_processor_too(kind: str) -> None:
    ours = PAIRS[kind][0](**SMALL, return_tensors="np", device="cpu", do_pad=False)
    assert isinstance(ours(clip(2, 45, 61, 3)).pixel_values, np.ndarray)
    assert ours(clip(2, 45, 61, 3), return_tensors="pt", device="meta").pixel_values.is_meta
    stored = json.loads(ours.to_json_string())
    assert not {"return_tensors", "device", "video_metadata"} & set(stored)
    assert stored["do_pad"] is False


# Settings and inputs


def test_the_old_name_is_the_same_class() -> None:
    assert VideoMAEFeatureExtractor is VideoMAEImageProcessor
    assert VideoMAEFeatureExtractor(size=112, crop_size=112).size == {"shortest_edge": 112}


@pytest.mark.parametrize(
    ("switch", "name"),
    [
        ("do_resize", "size"),
        ("do_resize", "resample"),
        ("do_center_crop", "crop_size"),
        ("do_rescale", "rescale_factor"),
        ("do_normalize", "image_mean"),
        ("do_normalize", "image_std"),
    ],
)
def test_a_step_without_its_value_is_an_error(switch: str, name: str) -> None:
    frames = clip(2, 45, 61, 3)
    with pytest.raises(ConfigError, match=rf"{switch}=True needs .*{name}.*, but got None"):
        VideoMAEImageProcessor()(frames, **{name: None})
    off = {switch: None, name: None, "do_normalize": False, "return_tensors": "pt"}
    assert VideoMAEImageProcessor()(frames, **off)["pixel_values"].shape[:3] == (1, 2, 3)


def test_wrong_videos_are_refused() -> None:
    processor = VideoMAEImageProcessor(**SMALL)
    with pytest.raises(ConfigError, match="a video has no frames; pass at least one"):
        processor([[]])
    with pytest.raises(ConfigError, match=r"a\.mp4 is no frames; VideoMAEVideoProcessor decodes"):
        processor("a.mp4")
    with pytest.raises(ConfigError, match=r"\(2,\) is neither a frame nor a video"):
        processor(np.zeros(2))
    with pytest.raises(ConfigError, match="frames have 4 channels, but image_mean and image_std"):
        processor(clip(2, 45, 61, 4))


def test_unlike_frames_and_videos_are_refused() -> None:
    processor = VideoMAEImageProcessor(size=32, do_center_crop=False)
    frames = [clip(40, 60, 3), clip(40, 80, 3)]
    message = (
        r"frames of a video come out unlike: \(3, 32, 48\) and \(3, 32, 64\).*; keep do_center"
    )
    with pytest.raises(ConfigError, match=message):
        processor(frames)
    message = r"this batch have unlike shapes: \(1, 3, 32, 48\) and \(1, 3, 32, 64\); give videos"
    with pytest.raises(ConfigError, match=message):
        processor([[frame] for frame in frames], return_tensors="pt")


def test_a_doubtful_range_is_warned_of_and_processed() -> None:
    frames = clip(2, 45, 61, 3).astype(np.float32) / 255
    with pytest.warns(UserWarning, match="pass do_rescale=False"):
        twice = VideoMAEImageProcessor(**SMALL)(frames, return_tensors="pt")
    peer = transformers.VideoMAEImageProcessor(**SMALL, **IMAGENET)
    assert_same(twice, peer(frames, return_tensors="pt"))
    once = VideoMAEImageProcessor(**SMALL, do_rescale=False)(frames, return_tensors="pt")
    assert_same(once, peer(frames, return_tensors="pt", do_rescale=False))


# Which frames


def test_sampling_by_hand() -> None:
    frames = clip(10, 24, 24, 3)
    processor = VideoMAEVideoProcessor(**SMALL, do_sample_frames=True, return_metadata=True)
    batch = processor(frames, num_frames=4, return_tensors="pt")
    assert batch.video_metadata == [
        {"total_num_frames": 10, "fps": None, "frames_indices": [0, 2, 5, 7]}
    ]
    expected = VideoMAEVideoProcessor(**SMALL)(frames[[0, 2, 5, 7]], return_tensors="pt")
    assert torch.equal(batch.pixel_values, expected.pixel_values)
    # 10 frames at 5 a second last 2 s, so 1.6 a second are 3.
    batch = processor(frames, fps=1.6, video_metadata={"total_num_frames": 10, "fps": 5})
    assert batch.video_metadata[0]["frames_indices"] == [0, 3, 6]
    assert processor(frames).video_metadata[0]["frames_indices"] == list(range(10))


@pytest.mark.parametrize("choice", [{"num_frames": 7}, {"num_frames": 10}, {"fps": 7}, {}])
def test_sampling_as_transformers_does(choice: dict[str, Any]) -> None:
    videos = [clip(10, 40, 50, 3), clip(10, 33, 50, 3)]
    metadata = [{"total_num_frames": 10, "fps": 24.0}] * 2
    arguments = {"do_sample_frames": True, "video_metadata": metadata, "return_tensors": "pt"}
    result = VideoMAEVideoProcessor(**SMALL)(videos, **arguments, **choice)
    peer = transformers.VideoMAEVideoProcessor(**SMALL, **IMAGENET)
    expected = peer(videos, **arguments, **choice, return_metadata=True)
    assert_same(result, expected)
    ours = VideoMAEVideoProcessor(**SMALL)(videos, **arguments, **choice, return_metadata=True)
    for mine, theirs in zip(ours.video_metadata, expected.video_metadata, strict=True):
        assert mine["frames_indices"] == list(theirs.frames_indices)


def test_sampling_that_cannot_be_is_refused() -> None:
    frames = clip(10, 24, 24, 3)
    processor = VideoMAEVideoProcessor(**SMALL, do_sample_frames=True)
    with pytest.raises(ConfigError, match=r"num_frames=4 and fps=2\.0 exclude each other"):
        processor(frames, num_frames=4, fps=2)
    with pytest.raises(
        ConfigError, match=r"fps=2\.0 cannot be chosen from a video of unknown rate"
    ):
        processor(frames, fps=2)
    with pytest.raises(ConfigError, match="11 frames were asked for, the video has 10"):
        processor(frames, num_frames=11)
    nested = [[{"total_num_frames": 10, "fps": 5}], [{"total_num_frames": 10, "fps": 5}]]
    assert processor([frames, frames], fps=2, video_metadata=nested).pixel_values[1].shape[0] == 4
    with pytest.raises(ConfigError, match="1 videos, 2 video_metadata; give one each"):
        processor(frames, num_frames=4, video_metadata=[{}, {}])
    with pytest.raises(ConfigError, match="video_metadata says 300 frames, 10 were given"):
        processor(frames, num_frames=4, video_metadata={"total_num_frames": 300, "fps": 25})
    with pytest.warns(UserWarning, match="num_frames and fps do nothing without do_sample_frames"):
        assert len(processor(frames, num_frames=4, do_sample_frames=False).pixel_values[0]) == 10


def test_video_files_are_decoded(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", clip(12, 48, 64, 3), fps=6)
    processor = VideoMAEVideoProcessor(**SMALL, return_metadata=True)
    batch = processor(path, do_sample_frames=True, num_frames=4, return_tensors="pt")
    (found,) = batch.video_metadata
    assert (found.total_num_frames, found["fps"], found.duration) == (12, 6, 2)
    assert (found.height, found.width, found.video_backend) == (48, 64, None)
    assert found.frames_indices == [0, 3, 6, 9]
    assert found.timestamps == [0, 0.5, 1, 1.5]
    expected = processor(read_frames(path, [0, 3, 6, 9]), return_tensors="pt")
    assert torch.equal(batch.pixel_values, expected.pixel_values)
    two = processor([str(path), path], do_sample_frames=True, fps=3, return_tensors="pt")
    assert two.pixel_values.shape == (2, 6, 3, 24, 24)
    assert processor(path).pixel_values[0].shape == (12, 3, 24, 24)
    with pytest.raises(VideoError):
        processor(tmp_path / "absent.mp4")
    data = path.read_bytes()
    with path.open("rb") as file:
        sources = [data, bytearray(data), file, io.BytesIO(data), {"path": None, "bytes": data}]
        several = processor(sources, do_sample_frames=True, num_frames=4, return_tensors="pt")
    for pixels in several.pixel_values:
        assert torch.equal(pixels, batch.pixel_values[0])


def test_a_subclass_chooses_its_frames() -> None:
    class Last(VideoMAEVideoProcessor):
        def sample_frames(self, metadata: Any, **_: Any) -> Any:
            return np.array([metadata["total_num_frames"] - 1])

    frames = clip(10, 24, 24, 3)
    batch = Last(**SMALL, return_metadata=True)(frames, do_sample_frames=True)
    assert batch.video_metadata[0].frames_indices == [9]


def test_frames_are_sampled_by_metadata_alone() -> None:
    processor = VideoMAEVideoProcessor(num_frames=2)
    assert processor.sample_frames({"total_num_frames": 10}).tolist() == [0, 5]
    assert processor.sample_frames({"total_num_frames": 9}, num_frames=3).tolist() == [0, 3, 6]
    theirs = transformers.video_utils.VideoMetadata(total_num_frames=9, fps=3)
    assert VideoMAEVideoProcessor().sample_frames(theirs, fps=1).tolist() == [0, 3, 6]
    with pytest.raises(ConfigError, match="a video of unknown fps has no timestamps"):
        _ = VideoMetadata(frames_indices=[1]).timestamps


# Files, as transformers opens and writes them


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_transformers_opens_our_files_with_the_same_pixels(
    setting: dict[str, Any], tmp_path: Path
) -> None:
    frames = clip(2, 45, 61, 3)
    image, video = (ours(**SMALL | setting) for ours in OURS)
    image.save_pretrained(tmp_path)
    openers = [
        transformers.VideoMAEImageProcessor,
        transformers.AutoImageProcessor,
        transformers.AutoFeatureExtractor,
        transformers.AutoVideoProcessor,  # from the image processor's file
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = image(frames, return_tensors="pt")
        opened = transformers.AutoImageProcessor.from_pretrained(tmp_path)
        assert opened.to_dict() == image.to_dict()
        for opener in openers:
            opened = opener.from_pretrained(tmp_path)
            assert_same(expected, opened(frames, return_tensors="pt"))
        video.save_pretrained(tmp_path)
        for opener in (transformers.VideoMAEVideoProcessor, transformers.AutoVideoProcessor):
            opened = opener.from_pretrained(tmp_path)
            assert isinstance(opened, transformers.VideoMAEVideoProcessor)
            assert opened.to_dict() == video.to_dict()
            assert_same(expected, opened(frames, return_tensors="pt"))


@pytest.mark.parametrize("kind", PAIRS)
def test_we_open_the_files_of_transformers(kind: str, tmp_path: Path) -> None:
    frames = clip(2, 45, 61, 3)
    ours, theirs = PAIRS[kind]
    for index, setting in enumerate(SETTINGS):
        peer = theirs(**SMALL | setting)
        peer.save_pretrained(tmp_path / str(index))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for opener in (ours, VideoMAEVideoProcessor):
                opened = opener.from_pretrained(tmp_path / str(index))
                result = opened(frames, return_tensors="pt")
                assert_same(result, peer(frames, return_tensors="pt"))


@pytest.mark.parametrize("ours", OURS)
def test_pipeline_opens_our_folder(ours: type[VideoMAEImageProcessor], tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(
        image_size=32,
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_frames=4,
    )
    model = transformers.VideoMAEForVideoClassification(config).eval()
    model.save_pretrained(tmp_path)
    processor = ours(size=32, crop_size=32)
    processor.save_pretrained(tmp_path)
    frames = clip(8, 45, 61, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pipe = transformers.pipeline("video-classification", model=str(tmp_path), device="cpu")
        (best, *_) = pipe(frames)
    with torch.no_grad():
        logits = model(**processor(frames[::2], return_tensors="pt")).logits
    assert best["score"] == pytest.approx(
        logits.softmax(-1).max().item(), abs=1e-6 if ROUNDS_ALIKE else 1e-3
    )
    assert best["label"] == model.config.id2label[logits.argmax().item()]


def test_what_is_cut_off_a_frame_is_not_kept() -> None:
    processor = VideoMAEImageProcessor(size=8, crop_size=8)
    frame = processor._fitted(torch.zeros(1, 3, 4, 400, dtype=torch.uint8))
    assert frame.untyped_storage().nbytes() == 3 * 8 * 8
