"""The settings of both processors: their one form, and the files that hold them."""

import copy
import json
import pickle
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import transformers
from PIL import Image

from videomae import hub
from videomae.config import IMAGENET_STD
from videomae.errors import ConfigError, WeightsError
from videomae.processing.processors import VideoMAEImageProcessor, VideoMAEVideoProcessor

OURS = [VideoMAEImageProcessor, VideoMAEVideoProcessor]


@pytest.fixture(autouse=True)
def _only_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


@pytest.mark.parametrize("ours", OURS)
def test_settings_have_one_form(ours: type[VideoMAEImageProcessor]) -> None:
    processor = ours(
        size=[3, 4],
        crop_size=np.int64(5),
        resample="bicubic",
        image_mean=np.array([1, 2, 3]),
        image_std=2,
        input_data_format=transformers.image_utils.ChannelDimension.LAST,
    )
    assert processor.size == {"height": 3, "width": 4}
    assert processor.crop_size == {"height": 5, "width": 5}
    assert processor.resample == Image.Resampling.BICUBIC
    assert processor.image_mean == (1.0, 2.0, 3.0)
    assert processor.image_std == 2.0
    assert processor.input_data_format == "channels_last"
    processor.resample = Image.Resampling.NEAREST
    processor.size = transformers.VideoMAEImageProcessor(size=7).size
    assert (processor.resample, processor.size) == (0, {"shortest_edge": 7})


@pytest.mark.parametrize("ours", OURS)
def test_an_unknown_argument_names_the_nearest(ours: type[VideoMAEImageProcessor]) -> None:
    message = f"{ours.__name__} has no argument 'do_centre_crop'; did you mean 'do_center_crop'"
    with pytest.raises(ConfigError, match=message):
        ours(do_centre_crop=True)
    with pytest.raises(ConfigError, match=message):
        ours()(np.zeros((2, 8, 8, 3), np.uint8), do_centre_crop=True)
    with pytest.raises(ConfigError, match=message):
        ours.from_dict({}, do_centre_crop=True)
    with pytest.raises(ConfigError, match=message):
        ours().do_centre_crop = True


def test_sampling_is_the_video_processors() -> None:
    with pytest.raises(ConfigError, match="VideoMAEImageProcessor has no argument 'num_frames'"):
        VideoMAEImageProcessor(num_frames=8)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("do_resize", "False", "True or False"),
        ("size", 0, "an int, (height, width), or a dict of shortest_edge (and longest_edge)"),
        ("size", 10**9, "an int, (height, width), or a dict of shortest_edge (and longest_edge)"),
        ("size", "224", "an int, (height, width)"),
        ("size", True, "an int, (height, width)"),
        ("size", (1, 2, 3), "an int, (height, width)"),
        ("size", {"longest_edge": 224}, "an int, (height, width)"),
        ("size", {"height": 224}, "an int, (height, width)"),
        ("crop_size", {"shortest_edge": 224}, "an int, (height, width), or a dict of height and"),
        ("crop_size", 22.4, "an int, (height, width), or a dict of height and"),
        ("resample", "box", "'bilinear', 'bicubic', 'nearest', 'lanczos', or Pillow's 0 to 3"),
        ("resample", 4, "'bilinear', 'bicubic', 'nearest', 'lanczos', or Pillow's 0 to 3"),
        ("rescale_factor", 0, "a number above 0"),
        ("image_mean", [], "a number, or one per channel"),
        ("image_mean", "grey", "a number, or one per channel"),
        ("image_std", [0.2, 0.0, 0.2], "a number above 1e-6, or one per channel"),
        ("input_data_format", "HWC", "'channels_first' or 'channels_last'"),
        ("data_format", "channels_last", "'channels_first', as pixels always are: turn them by"),
        ("return_tensors", "tf", "'pt', 'np', or None for a list"),
        ("device", "gpu", "a device of PyTorch, such as 'cuda'"),
        ("pad_size", {"shortest_edge": 3}, "an int, (height, width), or a dict of height and"),
        ("image_seq_length", 0, "a whole number from 1 to 4096"),
        ("num_frames", 0, "a whole number from 1 to 4096"),
        ("fps", -1, "a number above 0"),
        ("fps", float("nan"), "a number above 0"),
        ("rescale_factor", float("inf"), "a number above 0"),
        ("image_mean", [0.5, float("nan"), 0.5], "a number, or one per channel"),
    ],
)
def test_a_value_that_cannot_be_is_refused(name: str, value: object, expected: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"{name}={value!r}; expected {expected}")):
        VideoMAEVideoProcessor(**{name: value})


@pytest.mark.parametrize("ours", OURS)
def test_settings_survive_saving(ours: type[VideoMAEImageProcessor], tmp_path: Path) -> None:
    processor = ours(
        size=(30, 40), crop_size=24, resample="nearest", image_mean=0.5, do_rescale=None
    )
    (written,) = processor.save_pretrained(tmp_path / "new")
    assert Path(written).parent == tmp_path / "new"
    assert ours.from_pretrained(tmp_path / "new") == processor
    assert ours.from_pretrained(str(written)) == processor
    assert ours.from_dict(processor.to_dict()) == processor
    assert ours.from_pretrained(tmp_path / "new", size=7).size == {"shortest_edge": 7}


@pytest.mark.parametrize("ours", OURS)
def test_settings_are_json(ours: type[VideoMAEImageProcessor], tmp_path: Path) -> None:
    processor = ours(size=20, crop_size=(18, 16), image_mean=[0.1, 0.2, 0.3])
    stored = json.loads(processor.to_json_string())
    assert stored == processor.to_dict() | {
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [*IMAGENET_STD],
    }
    assert stored["size"] == {"shortest_edge": 20}
    processor.to_json_file(tmp_path / "own.json")
    assert ours.from_json_file(tmp_path / "own.json") == processor
    assert ours.from_pretrained(tmp_path / "own.json") == processor


def test_sizes_have_keys_and_attributes() -> None:
    processor = VideoMAEImageProcessor(size=20, crop_size=(18, 16))
    assert (processor.crop_size.height, processor.crop_size["width"]) == (18, 16)
    assert processor.size == {"shortest_edge": 20}
    assert (processor.size.height, processor.size["width"], "height" in processor.size) == (
        *(None, None),
        False,
    )
    assert VideoMAEImageProcessor.size.shortest_edge == 224
    assert {processor.size: 1}[VideoMAEImageProcessor(size=20).size] == 1
    processor.crop_size.height = 10
    assert processor.crop_size == {"height": 10, "width": 16}
    assert VideoMAEImageProcessor().crop_size == {"height": 224, "width": 224}
    assert copy.deepcopy(processor) == pickle.loads(pickle.dumps(processor)) == processor
    with pytest.raises(AttributeError, match="no 'heigth' here; there is height, width, short"):
        _ = processor.size.heigth
    with pytest.raises(AttributeError, match="no 'heigth' here"):
        processor.size.heigth = 3
    with pytest.raises(KeyError):
        _ = processor.size["heigth"]


@pytest.mark.parametrize("ours", OURS)
def test_arguments_of_transformers_that_choose_nothing_here_are_taken(
    ours: type[VideoMAEImageProcessor], tmp_path: Path
) -> None:
    ours(size=20).save_pretrained(tmp_path / "deep" / "er")
    idle = {"force_download": False, "use_fast": True, "backend": "pil", "trust_remote_code": False}
    where = {"subfolder": "er", "proxies": None, "revision": "main", "token": None}
    (tmp_path / "deep" / "config.json").touch()
    opened = ours.from_pretrained(pretrained_model_name_or_path=tmp_path / "deep", **idle, **where)
    assert opened.size == {"shortest_edge": 20}
    opened, unused = ours.from_pretrained(  # type: ignore[misc]
        tmp_path / "deep" / "er", size=30, foo=1, return_unused_kwargs=True
    )
    assert opened.size == {"shortest_edge": 30}
    assert unused == {"foo": 1}


def test_the_file_can_be_uploaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed = []

    def push(folder: Path, repo_id: str, **options: Any) -> str:
        pushed.append((sorted(path.name for path in Path(folder).iterdir()), repo_id, options))
        return "url"

    monkeypatch.setattr(hub, "push_folder", push)
    assert VideoMAEVideoProcessor().push_to_hub("me/mine", private=True) == "url"
    VideoMAEImageProcessor().save_pretrained(tmp_path / "own", push_to_hub=True)
    assert pushed == [
        (["video_preprocessor_config.json"], "me/mine", {"private": True}),
        (["preprocessor_config.json"], "own", {}),
    ]


def test_either_processor_opens_the_others_file_but_its_own_first(tmp_path: Path) -> None:
    VideoMAEVideoProcessor(size=20, num_frames=8).save_pretrained(tmp_path)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 20}
    VideoMAEImageProcessor(size=30).save_pretrained(tmp_path)
    assert VideoMAEImageProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 30}
    assert VideoMAEVideoProcessor.from_pretrained(tmp_path).size == {"shortest_edge": 20}
    assert VideoMAEVideoProcessor.from_pretrained(tmp_path).num_frames == 8


def test_a_folder_without_settings_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no .*preprocessor_config\.json; it holds"):
        VideoMAEVideoProcessor.from_pretrained(tmp_path)


def test_shipped_names_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    VideoMAEImageProcessor(size=36).save_pretrained(tmp_path)
    monkeypatch.setattr(hub, "resolve_shipped", {"actions-tiny": tmp_path}.get)
    assert VideoMAEVideoProcessor.from_pretrained("actions-tiny").size == {"shortest_edge": 36}


def test_hub_arguments_go_to_the_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    VideoMAEImageProcessor(size=36).save_pretrained(tmp_path)
    asked = []

    def fetch(name: str, *files: str, **where: Any) -> Path:
        asked.append((name, *files, where))
        return tmp_path / files[1]

    monkeypatch.setattr(hub, "fetch", fetch)
    processor = VideoMAEVideoProcessor.from_pretrained("some/model", revision="v2", do_resize=False)
    assert processor.size == {"shortest_edge": 36}
    assert processor.do_resize is False
    files = ("video_preprocessor_config.json", "preprocessor_config.json")
    assert asked == [("some/model", *files, {"revision": "v2"})]


def test_old_spellings_are_understood(tmp_path: Path) -> None:
    stored = {
        "feature_extractor_type": "VideoMAEFeatureExtractor",
        "size": 36,
        "crop_size": 32,
        "resample": 3,
        "do_center_crop": True,
        "_valid_processor_keys": ["videos"],
        "image_mean": [0.485, 0.456, 0.406],
        "data_format": "channels_first",
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(stored))
    for ours in OURS:
        processor = ours.from_pretrained(tmp_path)
        assert processor.size == {"shortest_edge": 36}
        assert processor.crop_size == {"height": 32, "width": 32}
        assert processor.resample == 3
        assert processor.image_std == IMAGENET_STD  # missing


def test_unknown_stored_settings_are_left_out_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="stored settings unknown here, left out: do_flip, tiles"):
        processor = VideoMAEImageProcessor.from_dict({"tiles": 2, "do_flip": True, "size": 9})
    assert processor.size == {"shortest_edge": 9}


@pytest.mark.parametrize("name", ["models--MCG-NJU--videomae-base", "OpenGVLab/VideoMAEv2-Base"])
def test_half_as_mean_of_a_published_checkpoint_is_warned_of(name: str, tmp_path: Path) -> None:
    half = VideoMAEImageProcessor(image_mean=[0.5] * 3, image_std=[0.5] * 3)
    half.save_pretrained(tmp_path / name)
    with pytest.warns(UserWarning, match=r"says mean 0\.5, but .* were trained with ImageNet's"):
        assert VideoMAEVideoProcessor.from_pretrained(tmp_path / name).image_mean == (0.5,) * 3
    kept = VideoMAEImageProcessor.from_pretrained(tmp_path / name, image_mean=[0.5] * 3)
    assert kept.image_mean == (0.5,) * 3
    half.save_pretrained(tmp_path / "my-own")
    assert VideoMAEImageProcessor.from_pretrained(tmp_path / "my-own").image_std == (0.5,) * 3
