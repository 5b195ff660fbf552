import copy
import json
import math
import warnings
from pathlib import Path
from typing import Any

import pytest
import transformers

from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError, WeightsError, nearest


def test_grid_counts_tubelets() -> None:
    grid = Grid(8, 14, 10)
    assert grid.num_cells == 140
    assert grid.num_tokens == 1120


def test_defaults_are_those_of_transformers() -> None:
    ours, theirs = VideoMAEConfig(), transformers.VideoMAEConfig()
    own = {"drop_path_rate", "classifier_dropout_prob", "pooled_norm_eps", "frame_stride"}
    assert ours.fps is None
    shared = set(ours.to_dict()) - own
    assert {name: ours.to_dict()[name] for name in shared} == {
        name: theirs.to_dict()[name] for name in shared
    }
    sizes = {"image_size", "num_frames", "hidden_size", "decoder_intermediate_size", "qv_bias"}
    assert sizes < shared


# From the papers: patch, width, depth, heads, hidden width of the MLP; the decoder's width, depth,
# heads, hidden width.
PUBLISHED = {
    "small": (16, 384, 12, 6, 1536, 192, 4, 3, 768),
    "base": (16, 768, 12, 12, 3072, 384, 4, 6, 1536),
    "large": (16, 1024, 24, 16, 4096, 512, 12, 8, 2048),
    "huge": (16, 1280, 32, 16, 5120, 640, 12, 8, 2560),
    "giant": (14, 1408, 40, 16, 6144, 512, 4, 8, 2048),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_the_published_sizes(name: str) -> None:
    config = VideoMAEConfig.preset(name)
    assert PUBLISHED[name] == (
        config.patch_size,
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        config.decoder_hidden_size,
        config.decoder_num_hidden_layers,
        config.decoder_num_attention_heads,
        config.decoder_intermediate_size,
    )
    assert (config.image_size, config.num_frames, config.tubelet_size) == (224, 16, 2)
    assert config.layer_norm_eps == 1e-6
    assert config.grid == (Grid(8, 16, 16) if name == "giant" else Grid(8, 14, 14))


def test_presets_take_overrides() -> None:
    config = VideoMAEConfig.preset("tiny", num_labels=12, drop_path_rate=0.1)
    assert (config.hidden_size, config.num_labels, config.drop_path_rate) == (128, 12, 0.1)
    assert config.grid == Grid(8, 4, 4)


def test_an_unknown_preset_is_told_the_nearest() -> None:
    with pytest.raises(
        ConfigError, match=r"no preset 'bsae'; known: micro, .*, giant; did you mean 'base'\?"
    ):
        VideoMAEConfig.preset("bsae")


def test_sizes_are_one_number_or_height_and_width() -> None:
    config = VideoMAEConfig(image_size=[32, 48], patch_size=(8, 16))  # type: ignore[arg-type]
    assert config.image_size == (32, 48)
    assert (config.image_hw, config.patch_hw) == ((32, 48), (8, 16))
    assert config.grid == Grid(8, 4, 3)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"image_size": (225, 40)},
            r"image_size=225x40 is not a multiple of patch_size=16x16; use 224x32, or change p",
        ),
        ({"image_size": 8}, r"image_size=8x8 is not a multiple .* use 16x16,"),
        (
            {"num_frames": 9},
            r"num_frames=9 is not a multiple of tubelet_size=2; use 8, or change tubelet_size",
        ),
        ({"num_frames": 0}, r"num_frames=0 must lie in 1 to 65536; the default is 16"),
        ({"patch_size": (16, 0)}, r"patch_size=0 must lie in 1 to 65536"),
        ({"num_attention_heads": 0}, r"num_attention_heads=0 must lie in 1"),
        ({"drop_path_rate": 1.0}, r"drop_path_rate=1.0 must be at least 0 and below 1"),
        ({"hidden_dropout_prob": -0.1}, r"hidden_dropout_prob=-0.1 must be at least 0"),
        ({"attention_probs_dropout_prob": 2}, r"attention_probs_dropout_prob=2 must be"),
        ({"classifier_dropout_prob": 1}, r"classifier_dropout_prob=1 must be"),
        ({"frame_stride": 0}, r"frame_stride=0 must lie in 1 to 65536, or be None"),
        ({"fps": 0}, r"fps=0 must lie in 0.01 to 1000, or be None"),
        ({"layer_norm_eps": math.nan}, r"layer_norm_eps=nan must be at least 0"),
        ({"hidden_size": "8"}, r"hidden_size='8' should be int; the default is 768"),
        ({"num_hidden_layers": True}, r"num_hidden_layers=True should be int"),
        ({"qv_bias": 1}, r"qv_bias=1 should be bool"),
        ({"image_size": [32, 32, 32]}, r"image_size=\[32, 32, 32\] should be 2 values"),
        ({"position_grid": [8, 0, 2]}, r"position_grid=0 must lie in 1 to 65536"),
        ({"num_hidden_layers": 10**9}, r"num_hidden_layers=1000000000 must lie in 0 to 1000"),
        ({"num_labels": 10**9}, r"num_labels=1000000000 must lie in 0 to 100000"),
        ({"image_size": 65536}, r"a clip of 8 x 4096 x 4096 tubelets, .* lower image_size"),
        ({"position_grid": (800, 4096, 4096)}, r"a clip of 800 x 4096 x 4096 tubelets"),
        (
            {"id2label": {1: "walk", 2: "run"}},
            r"names the classes \[1, 2\] ...; expected 0 to 1",
        ),
        ({"id2label": {"9" * 5000: "walk"}}, r"id2label must have a name and a whole number"),
        ({"label2id": {"walk": None}}, r"label2id must have a name and a whole number"),
        ({"id2label": ["walk"]}, r"id2label=\['walk'\] should be dict"),
        (
            {"attn_implementation": "flash"},
            r"attn_implementation='flash' is not one of auto, eager, sdpa, flash_attention_2",
        ),
        (
            {"problem_type": "multilabel"},
            r"problem_type='multilabel' is not one of regression, single_label_classification,",
        ),
        (
            {"num_labels": 3, "id2label": {0: "walk", 1: "run"}},
            r"num_labels=3, but id2label names 2; give one of the two",
        ),
    ],
)
def test_what_does_not_fit_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        VideoMAEConfig(**fields)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("id2label", None, "id2label must have a name and a whole number of each class"),
        ("num_labels", "3", "num_labels='3' should be int"),
    ],
)
def test_labels_that_do_not_fit_are_refused_later_too(name: str, value: Any, message: str) -> None:
    config = VideoMAEConfig()
    with pytest.raises(ConfigError, match=message):
        setattr(config, name, value)
    assert config.num_labels == 2


def test_a_file_of_a_config_is_its_text(tmp_path: Path) -> None:
    config = VideoMAEConfig(num_labels=3)
    config.to_json_file(tmp_path / "x.json")
    assert (tmp_path / "x.json").read_text() == config.to_json_string()


WALK = {0: "walk", 1: "run", 2: "jump"}


@pytest.mark.parametrize(
    "fields",
    [
        {"id2label": WALK},
        {"id2label": WALK, "num_labels": 3},
        {"id2label": {"0": "walk", "1": "run", "2": "jump"}},  # as JSON has it
        {"label2id": {"jump": 2, "walk": 0, "run": 1}},
        {"id2label": WALK, "label2id": {"LABEL_0": 0}},  # the names decide
    ],
)
def test_labels_agree_however_they_are_given(fields: dict[str, Any]) -> None:
    config = VideoMAEConfig(**fields)
    assert config.num_labels == 3
    assert list(config.id2label.items()) == [(0, "walk"), (1, "run"), (2, "jump")]
    assert config.label2id == {"walk": 0, "run": 1, "jump": 2}


def test_labels_agree_whichever_is_changed() -> None:
    config = VideoMAEConfig()
    assert config.id2label == {0: "LABEL_0", 1: "LABEL_1"}
    config.id2label = WALK
    assert (config.num_labels, config.label2id["jump"]) == (3, 2)
    config.num_labels = 3
    assert config.id2label == WALK, "the same number keeps the names"
    config.num_labels = 1
    assert (config.id2label, config.label2id) == ({0: "LABEL_0"}, {"LABEL_0": 0})
    config.label2id = {"run": 1, "walk": 0}
    assert (config.num_labels, config.id2label) == (2, {0: "walk", 1: "run"})
    config.num_labels = 0
    assert config.id2label == {}


def test_two_classes_of_one_name_stay_two() -> None:
    config = VideoMAEConfig(id2label={0: "run", 1: "run"}, label2id={"run": 1})
    assert config.num_labels == 2


def test_labels_of_a_file_give_way_to_those_of_the_caller() -> None:
    file = VideoMAEConfig(id2label=WALK).to_dict()
    assert VideoMAEConfig.from_dict(file).id2label == WALK
    assert VideoMAEConfig.from_dict(file, num_labels=3).id2label == WALK
    assert VideoMAEConfig.from_dict(file, num_labels=2).id2label == {0: "LABEL_0", 1: "LABEL_1"}
    assert VideoMAEConfig.from_dict(file, id2label={0: "sit"}).label2id == {"sit": 0}
    assert VideoMAEConfig.from_dict(file, label2id={"sit": 0}).id2label == {0: "sit"}
    both = VideoMAEConfig.from_dict(file, id2label={0: "sit"}, num_labels=1)
    assert both.id2label == {0: "sit"}
    with pytest.raises(ConfigError, match="num_labels=3, but id2label names 1"):
        VideoMAEConfig.from_dict(file, id2label={0: "sit"}, num_labels=3)


def test_json_round_trip(tmp_path: Path) -> None:
    config = VideoMAEConfig(
        image_size=(32, 48),
        patch_size=8,
        id2label=WALK,
        frame_stride=None,
        position_grid=Grid(8, 4, 4),
        problem_type="single_label_classification",
        architectures=["VideoMAEForVideoClassification"],
        dtype="float32",
        attn_implementation="eager",
        extra={"_author": "somebody"},
    )
    config.save_pretrained(tmp_path / "new" / "folder")
    again = VideoMAEConfig.from_pretrained(tmp_path / "new" / "folder")
    assert again == config.copy(attn_implementation="auto"), "how it runs is not what it is"
    assert json.loads(config.to_json_string()) == json.loads(again.to_json_string())


def test_the_choice_of_frames_is_stored_and_may_be_named_as_flags_name_it(tmp_path: Path) -> None:
    config = VideoMAEConfig(frame_stride="uniform", fps=7.5)  # type: ignore[arg-type]
    config.save_pretrained(tmp_path)
    again = VideoMAEConfig.from_pretrained(tmp_path)
    assert (again.frame_stride, again.fps) == (None, 7.5)
    assert again.copy(fps="own").fps is None
    assert "fps" not in VideoMAEConfig().to_dict()
    assert transformers.VideoMAEConfig.from_pretrained(tmp_path).fps == 7.5  # kept, not used


def test_unknown_keys_of_a_file_are_kept() -> None:
    file = {"model_type": "videomae", "hidden_size": 96, "num_attention_heads": 3, "colour": "red"}
    config = VideoMAEConfig.from_dict(file)
    assert config.extra == {"colour": "red"}
    assert config.to_dict()["colour"] == "red"
    assert config.copy(hidden_size=48).to_dict()["colour"] == "red"


def test_a_config_is_made_of_all_that_a_file_holds(tmp_path: Path) -> None:
    theirs = transformers.VideoMAEConfig(hidden_size=96, id2label=WALK, colour="red")
    ours = VideoMAEConfig(**theirs.to_dict())
    assert (ours.hidden_size, ours.id2label, ours.colour) == (96, WALK, "red")  # type: ignore[attr-defined]
    assert ours == VideoMAEConfig.from_dict(theirs.to_dict())
    ours.to_json_file(tmp_path / "any.json")
    again = VideoMAEConfig(**json.loads((tmp_path / "any.json").read_text()))
    assert again == ours == VideoMAEConfig.from_json_file(tmp_path / "any.json")


def test_what_is_set_is_kept_and_saved(tmp_path: Path) -> None:
    config: Any = VideoMAEConfig()
    config.mask_ratio = 0.75
    config.update({"hidden_size": 96, "mask_type": "tube", "torch_dtype": "float16"})
    config.save_pretrained(tmp_path)
    for again in (VideoMAEConfig.from_pretrained(tmp_path), copy.deepcopy(config), config.copy()):
        read: Any = again
        assert (read.mask_ratio, read.mask_type, read.hidden_size) == (0.75, "tube", 96)
        assert read.dtype == read.torch_dtype == "float16"
    theirs = transformers.VideoMAEConfig.from_pretrained(tmp_path)
    assert (theirs.mask_ratio, theirs.mask_type) == (0.75, "tube")
    config.is_encoder_decoder = True
    assert config.is_encoder_decoder is True
    with pytest.raises(ConfigError, match="num_frames=9 is not a multiple"):
        config.update({"num_frames": 9})


def test_a_name_that_is_nearly_a_field_is_kept_with_a_warning() -> None:
    with pytest.warns(UserWarning, match="keeps 'hiden_size', .* did you mean 'hidden_size'"):
        config = VideoMAEConfig(hiden_size=96)  # type: ignore[call-arg]
    assert config.hidden_size == 768
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        VideoMAEConfig(num_beams=1, colour="red")  # type: ignore[call-arg]
        VideoMAEConfig.from_dict({"hiden_size": 96})


def test_fields_are_read_as_items_too() -> None:
    config = VideoMAEConfig.from_dict({"colour": "red"})
    assert (config["hidden_size"], config["colour"], config["num_labels"]) == (768, "red", 2)
    assert {name: config[name] for name in config} == config.to_dict()
    assert "hidden_size" in config
    with pytest.raises(KeyError, match="no field 'hiden_size'"):
        config["hiden_size"]


def test_a_wrong_attribute_names_the_nearest() -> None:
    with pytest.raises(AttributeError, match="no field 'hiden_size'; did you mean 'hidden_size'"):
        VideoMAEConfig().hiden_size  # type: ignore[attr-defined]  # noqa: B018


def test_the_names_of_transformers_are_there_unset() -> None:
    ours, theirs = VideoMAEConfig(), transformers.VideoMAEConfig()
    for name in ("is_encoder_decoder", "chunk_size_feed_forward", "name_or_path", "sub_configs"):
        assert getattr(ours, name) == getattr(theirs, name), name
    assert VideoMAEConfig(name_or_path="mine") == ours
    assert VideoMAEConfig(_name_or_path="mine").name_or_path == "mine"  # type: ignore[call-arg]


def test_the_difference_from_the_defaults() -> None:
    config = VideoMAEConfig(hidden_size=96, frame_stride=None, colour="red")  # type: ignore[call-arg]
    changed = {"hidden_size": 96, "frame_stride": None, "colour": "red"}
    assert config.to_diff_dict() == {"model_type": "videomae", **changed}
    assert json.loads(config.to_json_string(use_diff=True)) == config.to_diff_dict()
    assert VideoMAEConfig(**config.to_diff_dict()) == config


def test_from_dict_leaves_its_argument_alone() -> None:
    file = {"id2label": {"0": "sit"}, "num_labels": 1, "torch_dtype": "float16", "colour": "red"}
    before = json.dumps(file)
    VideoMAEConfig.from_dict(file, num_labels=4)
    assert json.dumps(file) == before


def test_older_names_are_understood() -> None:
    config = VideoMAEConfig.from_dict(
        {"torch_dtype": "float16", "qkv_bias": False, "_attn_implementation": "sdpa"}
    )
    assert (config.dtype, config.qv_bias, config.attn_implementation) == ("float16", False, "sdpa")
    assert VideoMAEConfig.from_dict({"dtype": "float32"}, torch_dtype="float16").dtype == "float16"
    assert VideoMAEConfig.from_dict({"attn_implementation": None}).attn_implementation == "auto"
    config._attn_implementation = "eager"
    assert config.attn_implementation == config._attn_implementation == "eager"
    config._attn_implementation = None
    assert config.attn_implementation == "auto"
    assert config.use_return_dict


def test_an_override_must_be_a_field() -> None:
    with pytest.raises(ConfigError, match=r"no field 'hiden_size'; did you mean 'hidden_size'\?"):
        VideoMAEConfig.from_dict({}, hiden_size=96)
    with pytest.raises(ConfigError, match=r"VideoMAEConfig has no field 'zzz'$"):
        VideoMAEConfig().copy(zzz=1)
    assert nearest("zzz", ["aaa"]) == ""


def test_overrides_are_checked() -> None:
    with pytest.raises(ConfigError, match="num_frames=7 is not a multiple"):
        VideoMAEConfig().copy(num_frames=7)


def test_from_pretrained_takes_overrides(tmp_path: Path) -> None:
    VideoMAEConfig(id2label=WALK).save_pretrained(tmp_path)
    config = VideoMAEConfig.from_pretrained(tmp_path, num_frames=8, local_files_only=True)
    assert (config.num_frames, config.num_labels) == (8, 3)


def test_keywords_that_are_no_field_can_come_back(tmp_path: Path) -> None:
    VideoMAEConfig(image_size=32).save_pretrained(tmp_path / "deep")
    config, unused = VideoMAEConfig.from_pretrained(  # type: ignore[misc]
        pretrained_model_name_or_path=tmp_path,
        subfolder="deep",
        num_frames=8,
        foo=1,
        return_unused_kwargs=True,
    )
    assert (config.image_size, config.num_frames, unused) == (32, 8, {"foo": 1})


def test_a_folder_without_a_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"has no config\.json"):
        VideoMAEConfig.from_pretrained(tmp_path)


def test_transformers_reads_our_file(tmp_path: Path) -> None:
    ours = VideoMAEConfig.preset("tiny", id2label=WALK, image_size=(32, 64), dtype="float16")
    ours.save_pretrained(tmp_path)
    theirs = transformers.AutoConfig.from_pretrained(tmp_path)
    assert type(theirs) is transformers.VideoMAEConfig
    assert (theirs.num_labels, theirs.id2label) == (3, WALK)
    assert list(theirs.image_size) == [32, 64]
    for name in PUBLISHED_FIELDS:
        assert getattr(theirs, name) == getattr(ours, name), name


def test_we_read_a_file_of_transformers(tmp_path: Path) -> None:
    theirs = transformers.VideoMAEConfig(
        hidden_size=96, num_attention_heads=3, id2label=WALK, label2id={"walk": 0, "run": 1},
        use_mean_pooling=False, dtype="bfloat16", problem_type="regression", hidden_act="relu",
    )  # fmt: skip
    theirs.save_pretrained(tmp_path)
    ours = VideoMAEConfig.from_pretrained(tmp_path)
    assert (ours.num_labels, ours.id2label, ours.dtype) == (3, WALK, "bfloat16")
    for name in PUBLISHED_FIELDS:
        assert getattr(theirs, name) == getattr(ours, name), name
    assert ours.extra["transformers_version"] == transformers.__version__
    assert ours.attn_implementation == "auto"


PUBLISHED_FIELDS = [
    *("patch_size", "num_channels", "num_frames", "tubelet_size"),
    *("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size"),
    *("hidden_act", "hidden_dropout_prob", "attention_probs_dropout_prob"),
    *("initializer_range", "layer_norm_eps", "qv_bias", "use_mean_pooling", "norm_pix_loss"),
    *("decoder_num_attention_heads", "decoder_hidden_size", "decoder_num_hidden_layers"),
    *("decoder_intermediate_size", "problem_type"),
]


def test_a_config_of_transformers_is_converted_and_ours_left_as_it_is() -> None:
    theirs = transformers.VideoMAEConfig(
        image_size=32, num_labels=5, dtype="float16", attn_implementation="eager"
    )
    config = VideoMAEConfig.convert(theirs)
    assert (config.image_size, config.num_labels, config.dtype) == (32, 5, "float16")
    assert config.attn_implementation == "eager"
    assert VideoMAEConfig.convert(transformers.VideoMAEConfig()).attn_implementation == "auto"
    assert VideoMAEConfig.convert(config) is config
    for given, name in ((transformers.ViTConfig(), "vit"), ({"image_size": 32}, "dict")):
        with pytest.raises(ConfigError, match=f"config is a '{name}', expected a VideoMAEConfig"):
            VideoMAEConfig.convert(given)
