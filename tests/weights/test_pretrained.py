"""Models come back as they were: from the original code, from transformers, from ourselves."""

import json
import warnings
from pathlib import Path
from typing import Any

import accelerate
import pytest
import safetensors.torch
import torch
import transformers
from torch import Tensor, nn

from tiny_models import LARGER
from videomae import hub
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError, WeightsError
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.positions import sincos_positions
from videomae.weights.checkpoint import read_checkpoint, save_pth, save_safetensors
from videomae.weights.keys import to_hf_file_keys, to_v1

SIZES: dict[str, Any] = {
    **LARGER,
    "decoder_hidden_size": 12,
    "decoder_num_hidden_layers": 1,
    "decoder_intermediate_size": 24,
}
KINDS = {
    VideoMAEModel: transformers.VideoMAEModel,
    VideoMAEForPreTraining: transformers.VideoMAEForPreTraining,
    VideoMAEForVideoClassification: transformers.VideoMAEForVideoClassification,
}
CASES = [
    (VideoMAEModel, True),
    (VideoMAEModel, False),
    (VideoMAEForPreTraining, True),
    (VideoMAEForPreTraining, False),
    (VideoMAEForVideoClassification, True),
    (VideoMAEForVideoClassification, False),
]


def randomise(model: nn.Module) -> nn.Module:
    """Biases, norms and the mask token random too, so that one lost or swapped shows."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    return model.eval()


def ours(kind: Any, **overrides: Any) -> Any:
    return randomise(kind(VideoMAEConfig.from_dict(SIZES, **overrides)))


def run(model: Any, **inputs: Any) -> Tensor:
    """The main output on a fixed clip, the same masked half for pre-training."""
    config = model.config
    generator = torch.Generator().manual_seed(5)
    clip = torch.randn(2, config.num_frames, 3, 32, 32, generator=generator)
    if "PreTraining" in type(model).__name__:
        tokens = config.num_frames // config.tubelet_size * 16
        hidden = torch.arange(tokens).expand(2, -1) % 2 == 0
        inputs["bool_masked_pos"] = hidden
    with torch.no_grad():
        output = model(clip.to(model.dtype), **inputs)
    result: Tensor = output[0] if not hasattr(output, "logits") else output.logits
    return result


def assert_same_parameters(one: nn.Module, other: nn.Module) -> None:
    mine, theirs = one.state_dict(), other.state_dict()
    assert mine.keys() == theirs.keys()
    for key in mine:
        assert torch.equal(mine[key], theirs[key]), key


@pytest.fixture
def quiet() -> Any:
    """No warning may be given."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# Files of the original code; tests/test_reference.py compares what the models then compute


def test_a_config_for_pretraining_need_not_know_of_the_final_norm(reference_dir: Path) -> None:
    config = VideoMAEConfig(
        **SIZES
        | {"num_frames": 16, "hidden_size": 48, "intermediate_size": 192}
        | {"decoder_hidden_size": 24, "decoder_intermediate_size": 96}
    )
    with pytest.warns(UserWarning, match="use_mean_pooling is taken as False"):
        model = VideoMAEForPreTraining.from_pretrained(
            reference_dir / "v1_pretrain_tiny.pth", config=config
        )
    assert model.videomae.layernorm is not None


def test_the_head_counts_alone_suffice_for_an_original_file(reference_dir: Path) -> None:
    path = reference_dir / "v1_finetune_tiny.pth"
    with pytest.raises(WeightsError, match=r"hidden_size=48 and does not say how many heads"):
        VideoMAEForVideoClassification.from_pretrained(path)
    model = VideoMAEForVideoClassification.from_pretrained(path, num_attention_heads=3)
    config = model.config
    assert (config.num_attention_heads, config.num_labels, config.patch_size) == (3, 7, 8)
    assert (config.layer_norm_eps, config.pooled_norm_eps) == (1e-6, 1e-6)
    assert config.use_mean_pooling
    pretrained = VideoMAEForPreTraining.from_pretrained(
        reference_dir / "v1_pretrain_tiny.pth",
        num_attention_heads=3,
        decoder_num_attention_heads=3,
    )
    assert not pretrained.config.use_mean_pooling
    assert pretrained.config.norm_pix_loss


def test_a_config_that_does_not_fit_the_file(reference_dir: Path) -> None:
    with pytest.raises(WeightsError, match="hidden_size is 48 in the file and 768 in the config"):
        VideoMAEForVideoClassification.from_pretrained(
            reference_dir / "v1_finetune_tiny.pth", config=VideoMAEConfig(num_labels=7)
        )


# Round trips


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("kind", "pooling"), CASES)
def test_saved_models_come_back_bit_for_bit(kind: Any, pooling: bool, tmp_path: Path) -> None:
    model = ours(kind, use_mean_pooling=pooling, drop_path_rate=0.1, frame_stride=None)
    model.save_pretrained(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["config.json", "model.safetensors"]
    again = kind.from_pretrained(tmp_path)
    assert_same_parameters(model, again)
    assert not again.training
    assert again.config.to_dict() == {
        **model.config.to_dict(),
        "architectures": [kind.__name__],
        "dtype": "float32",
    }
    assert torch.equal(run(model), run(again))


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("kind", "pooling"), CASES)
def test_transformers_opens_what_we_save(kind: Any, pooling: bool, tmp_path: Path) -> None:
    model = ours(kind, use_mean_pooling=pooling, id2label={0: "a", 1: "b", 2: "c"})
    model.save_pretrained(tmp_path)
    theirs, info = KINDS[kind].from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values()), info
    torch.testing.assert_close(run(model), run(theirs), atol=1e-5, rtol=0)
    assert theirs.config.id2label == {0: "a", 1: "b", 2: "c"}


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize(("kind", "pooling"), CASES)
def test_we_open_what_transformers_saves(kind: Any, pooling: bool, tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(
        **SIZES, use_mean_pooling=pooling, id2label={0: "a", 1: "b", 2: "c"}
    )
    theirs = randomise(KINDS[kind](config))
    theirs.save_pretrained(tmp_path)
    model, report = kind.from_pretrained(tmp_path, output_loading_info=True)
    torch.testing.assert_close(run(model), run(theirs), atol=1e-5, rtol=0)
    assert not any(report.values())
    assert model.config.id2label == {0: "a", 1: "b", 2: "c"}
    model.save_pretrained(tmp_path / "again")
    before = safetensors.torch.load_file(tmp_path / "model.safetensors")
    after = safetensors.torch.load_file(tmp_path / "again" / "model.safetensors")
    assert before.keys() == after.keys()


def test_transformers_auto_classes_open_what_we_save(tmp_path: Path) -> None:
    model = ours(VideoMAEForVideoClassification, num_labels=3)
    model.save_pretrained(tmp_path)
    encoder = transformers.AutoModel.from_pretrained(tmp_path)
    torch.testing.assert_close(run(model.videomae), run(encoder), atol=1e-5, rtol=0)
    classifier = transformers.AutoModelForVideoClassification.from_pretrained(tmp_path)
    torch.testing.assert_close(run(model), run(classifier), atol=1e-5, rtol=0)
    assert type(classifier) is transformers.VideoMAEForVideoClassification


def test_files_have_the_old_names_of_biases(tmp_path: Path) -> None:
    """The one that transformers 4 and 5 both read."""
    ours(VideoMAEForVideoClassification).save_pretrained(tmp_path)
    keys = safetensors.torch.load_file(tmp_path / "model.safetensors").keys()
    assert "videomae.encoder.layer.0.attention.attention.q_bias" in keys
    assert not [key for key in keys if key.endswith(("query.bias", "value.bias"))]


@pytest.mark.parametrize("kind", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_to_the_original_key_mapping_and_back(kind: Any, tmp_path: Path) -> None:
    model = ours(kind, use_mean_pooling=kind is VideoMAEForVideoClassification)
    save_pth(tmp_path / "x.pth", to_v1(model.state_dict()))
    again = kind.from_pretrained(tmp_path / "x.pth", config=model.config)
    assert_same_parameters(model, again)


# From images to videos


IMAGE_SIZES = {key: value for key, value in SIZES.items() if key != "num_frames"}


def image_mae(kind: str = "ViTMAEModel") -> Any:
    config = transformers.ViTMAEConfig(**IMAGE_SIZES)
    return randomise(getattr(transformers, kind)(config))


def named_as_original(folder: Path) -> dict[str, Tensor]:
    """The tensors of a saved ViTMAEModel as the original code names them."""
    raw = {}
    parts = {
        "layernorm_before": "norm1",
        "layernorm_after": "norm2",
        "attention.output.dense": "attn.proj",
        "intermediate.dense": "mlp.fc1",
        "output.dense": "mlp.fc2",
    }
    tensors = safetensors.torch.load_file(folder / "model.safetensors")
    for key, tensor in tensors.items():
        name = key.replace("encoder.layer.", "blocks.").removeprefix("embeddings.")
        name = name.replace("patch_embeddings.projection", "patch_embed.proj")
        name = name.replace("position_embeddings", "pos_embed")
        if "attention.query" in name:
            three = [tensors[key.replace("query", part)] for part in ("query", "key", "value")]
            name, tensor = name.replace("attention.attention.query", "attn.qkv"), torch.cat(three)
        elif "attention.key" in name or "attention.value" in name:
            continue
        if name.startswith("layernorm."):
            name = name.replace("layernorm", "norm")
        for ours, theirs in parts.items():
            name = name.replace(ours, theirs)
        raw[name] = tensor
    return raw


@pytest.fixture
def image_dir(tmp_path: Path) -> Path:
    image_mae().save_pretrained(tmp_path / "image")
    return tmp_path / "image"


@pytest.fixture
def image_pth(image_dir: Path, tmp_path: Path) -> Path:
    decoder = {"mask_token": torch.zeros(1, 1, 16), "decoder_embed.weight": torch.zeros(16, 24)}
    save_pth(tmp_path / "image.pth", {**named_as_original(image_dir), **decoder})
    return tmp_path / "image.pth"


@pytest.mark.parametrize("tubelet_size", [1, 2, 4])
def test_on_a_still_clip_an_inflated_image_model_is_the_image_model(
    tubelet_size: int, image_dir: Path
) -> None:
    """Without class token and positions, which differ, the numbers of transformers come out.

    Every slice of a still clip holds the same tokens then, and attention over several copies of
    them is that over one.
    """
    theirs = image_mae()
    with pytest.warns(UserWarning, match="an image model, to be trained on videos") as caught:
        model = VideoMAEModel.from_pretrained(image_dir, num_frames=8, tubelet_size=tubelet_size)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    image = torch.randn(2, 3, 32, 32)
    clip = image[:, None].expand(-1, 8, -1, -1, -1)
    with torch.no_grad():
        expected = theirs.embeddings.patch_embeddings(image)
        patches = model.embeddings.patch_embeddings(clip).unflatten(1, (-1, 16))
        assert patches.shape[1] == 8 // tubelet_size
        torch.testing.assert_close(patches, expected[:, None].expand_as(patches))
        for layer in theirs.layers:
            expected = layer(expected)
        expected = theirs.layernorm(expected)
        model.embeddings.position_embeddings.zero_()
        got = model(clip).last_hidden_state.unflatten(1, (-1, 16))
    torch.testing.assert_close(got, expected[:, None].expand_as(got), atol=1e-5, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:.*an image model")
def test_both_key_mappings_of_an_image_model_give_the_same(
    image_dir: Path, image_pth: Path
) -> None:
    image_mae("ViTMAEForPreTraining").save_pretrained(image_dir / "whole")
    models = {}
    for name, path, options in (
        ("encoder", image_dir, {}),
        ("whole", image_dir / "whole", {}),
        ("pth", image_pth, {"num_attention_heads": 3}),
    ):
        models[name], report = VideoMAEModel.from_pretrained(
            path, output_loading_info=True, **options
        )
        assert "cls_token" in {key.split(".")[-1] for key in report.left_out}
        assert (report.unexpected, report.newly_initialised, report.unused) == ((), (), ())
    assert_same_parameters(models["encoder"], models["pth"])
    assert models["whole"].state_dict().keys() == models["pth"].state_dict().keys()
    config = models["encoder"].config
    assert (config.layer_norm_eps, models["pth"].config.layer_norm_eps) == (1e-12, 1e-6)
    assert (config.grid, config.num_attention_heads) == ((8, 4, 4), 3)
    assert config.use_mean_pooling is False
    assert config.decoder_hidden_size == 384  # ours: that of the image model is left out
    assert models["pth"].config.grid == config.grid


@pytest.mark.parametrize("kind", [VideoMAEForPreTraining, VideoMAEForVideoClassification])
def test_training_on_videos_starts_from_an_image_model(kind: Any, image_pth: Path) -> None:
    of_decoder = {key: value for key, value in SIZES.items() if key.startswith("decoder_")}
    with pytest.warns(UserWarning, match=r"left out: .*newly initialised, to be trained") as caught:
        model, report = kind.from_pretrained(
            image_pth, num_attention_heads=3, output_loading_info=True, **of_decoder
        )
    assert len(caught) == 1
    assert {name.split(".")[0] for name in report.newly_initialised} == (
        {"fc_norm", "classifier"}
        if kind is VideoMAEForVideoClassification
        else {"decoder", "mask_token", "encoder_to_decoder"}
    )
    assert all(parameter.device.type == "cpu" for parameter in model.parameters())
    assert run(model).isfinite().all()
    if kind is VideoMAEForPreTraining:
        assert 0 < model.mask_token.abs().max() <= 0.02
        limit = (6 / (12 + 24)) ** 0.5  # Xavier, as pre-training starts
        drawn = model.decoder.decoder_layers[0].intermediate.dense.weight.abs().max().item()
        assert drawn == pytest.approx(limit, rel=0.05)
        assert torch.equal(model.decoder.norm.weight, torch.ones(12))
    raw = torch.load(image_pth, weights_only=True)["model"]
    kept = model.videomae.encoder.layer[1].output.dense.weight
    assert torch.equal(kept, raw["blocks.1.mlp.fc2.weight"])


@pytest.mark.filterwarnings("ignore:.*an image model")
def test_a_finetuned_image_model_keeps_its_pooled_norm_and_not_its_head(image_pth: Path) -> None:
    raw = torch.load(image_pth, weights_only=True)["model"]
    head = {"head.weight": torch.ones(9, 24), "head.bias": torch.ones(9)}
    raw = {
        key.replace("norm.", "fc_norm.", 1) if key.startswith("norm.") else key: value
        for key, value in raw.items()
    }
    save_pth(image_pth, {**raw, **head})
    model, report = VideoMAEForVideoClassification.from_pretrained(
        image_pth, num_attention_heads=3, num_labels=4, output_loading_info=True
    )
    assert report.newly_initialised == ("classifier.weight", "classifier.bias")
    assert torch.equal(model.fc_norm.weight, raw["fc_norm.weight"])
    assert {"head.weight", "head.bias"} < set(report.left_out)


@pytest.mark.filterwarnings("ignore:.*an image model")
def test_the_final_norm_of_an_image_model_can_be_kept(image_dir: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(image_dir, keep_final_norm=True)
    kept = safetensors.torch.load_file(image_dir / "model.safetensors")["layernorm.weight"]
    assert torch.equal(model.fc_norm.weight, kept)


@pytest.mark.filterwarnings("ignore:.*an image model")
def test_positions_after_images_are_those_of_the_grid_asked_for(image_dir: Path) -> None:
    for options in ({}, {"interpolate_pos_encoding": False}):
        model = VideoMAEModel.from_pretrained(image_dir, num_frames=4, image_size=48, **options)
        assert (model.config.grid, model.config.position_grid) == ((2, 6, 6), None)
        table = model.embeddings.position_embeddings
        torch.testing.assert_close(table, sincos_positions(72, 24)[None])


@pytest.mark.filterwarnings("ignore:.*an image model")
def test_an_image_model_lacks_and_adds_nothing_in_silence(image_dir: Path) -> None:
    path = image_dir / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    save_safetensors(path, {**tensors, "encoder.layer.0.lambda": torch.zeros(24)})
    with pytest.raises(WeightsError, match=r"no image MAE has: encoder\.layer\.0\.lambda"):
        VideoMAEModel.from_pretrained(image_dir)
    for lost, message in (
        ("encoder.layer.1.output.dense.bias", "lacks 1 tensors"),
        ("encoder.layer.0.attention.attention.value.bias", "lacks 1 tensors"),
        ("patch_embeddings.projection.bias", "lacks 1 tensors"),
        ("layernorm.bias", "lacks the final norm"),
    ):
        fewer = {key: value for key, value in tensors.items() if not key.endswith(lost)}
        assert len(fewer) == len(tensors) - 1
        save_safetensors(path, fewer)
        with pytest.raises(WeightsError, match=message):
            VideoMAEForPreTraining.from_pretrained(image_dir)


# From one kind of checkpoint to another kind of model


@pytest.fixture
def pretrained_dir(tmp_path: Path) -> Path:
    ours(VideoMAEForPreTraining, use_mean_pooling=False).save_pretrained(tmp_path / "pretrained")
    return tmp_path / "pretrained"


@pytest.fixture
def classifier_dir(tmp_path: Path) -> Path:
    model = ours(VideoMAEForVideoClassification, num_labels=5)
    model.save_pretrained(tmp_path / "classifier")
    return tmp_path / "classifier"


def test_a_classifier_from_pretraining_pools_and_says_so_once(pretrained_dir: Path) -> None:
    with pytest.warns(UserWarning, match="mean over all tokens") as caught:
        model, report = VideoMAEForVideoClassification.from_pretrained(
            pretrained_dir, num_labels=4, output_loading_info=True
        )
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert "newly initialised, to be trained: fc_norm.weight, fc_norm.bias, classifier.weight" in (
        str(caught[0].message)
    )
    assert model.config.use_mean_pooling
    assert model.videomae.layernorm is None
    assert torch.equal(model.fc_norm.weight, torch.ones(24))
    assert torch.equal(model.fc_norm.bias, torch.zeros(24))
    assert model.classifier.weight.shape == (4, 24)
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)
    assert torch.equal(model.classifier.bias, torch.zeros(4))
    assert len(report.newly_initialised) == 4
    assert any("mean over all tokens" in note for note in report.notes)
    encoder = VideoMAEModel.from_pretrained(pretrained_dir)
    assert torch.equal(
        encoder.encoder.layer[1].output.dense.weight,
        model.videomae.encoder.layer[1].output.dense.weight,
    )


def test_one_token_can_be_meant(pretrained_dir: Path) -> None:
    with pytest.warns(UserWarning, match="newly initialised") as caught:
        model = VideoMAEForVideoClassification.from_pretrained(
            pretrained_dir, use_mean_pooling=False
        )
    assert "mean over" not in str(caught[0].message)
    assert model.fc_norm is None
    expected = VideoMAEModel.from_pretrained(pretrained_dir).layernorm
    assert torch.equal(model.videomae.layernorm.weight, expected.weight)


def test_the_final_norm_can_be_kept(pretrained_dir: Path, classifier_dir: Path) -> None:
    with pytest.warns(UserWarning, match="to be trained: classifier"):
        model = VideoMAEForVideoClassification.from_pretrained(pretrained_dir, keep_final_norm=True)
    norm = VideoMAEModel.from_pretrained(pretrained_dir).layernorm
    assert torch.equal(model.fc_norm.weight, norm.weight)
    assert torch.equal(model.fc_norm.bias, norm.bias)
    for kind, folder in (
        (VideoMAEForVideoClassification, classifier_dir),
        (VideoMAEModel, pretrained_dir),
    ):
        with pytest.raises(ConfigError, match="keep_final_norm=True is for a classifier with mean"):
            kind.from_pretrained(folder, keep_final_norm=True)


def test_there_may_be_no_final_norm_to_keep(tmp_path: Path) -> None:
    ours(VideoMAEModel).save_pretrained(tmp_path)
    with pytest.raises(ConfigError, match=r"keep_final_norm=True, but .* has no final norm"):
        VideoMAEForVideoClassification.from_pretrained(tmp_path, keep_final_norm=True)


def test_a_finetuned_one_token_classifier_stays_one(tmp_path: Path) -> None:
    model = ours(VideoMAEForVideoClassification, use_mean_pooling=False)
    model.save_pretrained(tmp_path)
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path)
    assert again.fc_norm is None
    assert torch.equal(run(again), run(model))


@pytest.mark.usefixtures("quiet")
def test_an_encoder_from_either(pretrained_dir: Path, classifier_dir: Path) -> None:
    for folder, normed in ((pretrained_dir, True), (classifier_dir, False)):
        model, report = VideoMAEModel.from_pretrained(folder, output_loading_info=True)
        assert (model.layernorm is not None) == normed
        assert report.newly_initialised == ()
        assert report.unused


def test_pretraining_needs_a_decoder(classifier_dir: Path) -> None:
    with pytest.raises(WeightsError, match="has no decoder"):
        VideoMAEForPreTraining.from_pretrained(classifier_dir)


def test_another_number_of_classes(classifier_dir: Path) -> None:
    with pytest.raises(WeightsError, match="pass ignore_mismatched_sizes=True"):
        VideoMAEForVideoClassification.from_pretrained(classifier_dir, num_labels=3)
    with pytest.warns(UserWarning, match=r"to be trained: classifier\.weight, classifier\.bias"):
        model = VideoMAEForVideoClassification.from_pretrained(
            classifier_dir, id2label={0: "x", 1: "y", 2: "z"}, ignore_mismatched_sizes=True
        )
    assert model.classifier.weight.shape == (3, 24)
    assert model.config.label2id == {"x": 0, "y": 1, "z": 2}
    kept = safetensors.torch.load_file(classifier_dir / "model.safetensors")["fc_norm.weight"]
    assert torch.equal(model.fc_norm.weight, kept)


def test_other_channels_start_the_patch_embedding_anew(classifier_dir: Path) -> None:
    with pytest.warns(UserWarning, match=r"patch_embeddings\.projection\.weight"):
        model = VideoMAEForVideoClassification.from_pretrained(
            classifier_dir, num_channels=1, ignore_mismatched_sizes=True
        )
    projection = model.videomae.embeddings.patch_embeddings.projection
    assert projection.weight.shape == (24, 1, 2, 8, 8)
    assert projection.weight.isfinite().all()
    assert 0 < projection.weight.abs().max() < 1
    kept = safetensors.torch.load_file(classifier_dir / "model.safetensors")
    name = "videomae.embeddings.patch_embeddings.projection.bias"
    assert torch.equal(projection.bias, kept[name])


def test_unexpected_tensors_are_announced(classifier_dir: Path) -> None:
    path = classifier_dir / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    save_safetensors(path, {**tensors, "second_head.weight": torch.zeros(2)})
    with pytest.warns(UserWarning, match="unexpected tensors were left out: second_head"):
        VideoMAEForVideoClassification.from_pretrained(classifier_dir)


def test_loading_draws_nothing_at_random_unless_something_is_new(pretrained_dir: Path) -> None:
    before = torch.random.get_rng_state()
    VideoMAEForPreTraining.from_pretrained(pretrained_dir)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_loaded_model_is_independent_of_its_file(classifier_dir: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(classifier_dir)
    before = run(model)
    path = classifier_dir / "model.safetensors"
    path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(run(model), before)
    assert not any(parameter.is_meta for parameter in [*model.parameters(), *model.buffers()])
    assert all(parameter.requires_grad for parameter in model.parameters())
    model.save_pretrained(classifier_dir)  # onto itself
    assert torch.equal(run(VideoMAEForVideoClassification.from_pretrained(classifier_dir)), before)


# Arguments


def test_the_line_that_users_have(classifier_dir: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(
        str(classifier_dir), attn_implementation="sdpa", torch_dtype=torch.float16
    )
    assert model.dtype == torch.float16
    assert model.config.attn_implementation == "sdpa"
    assert model.config.dtype == "float16"
    full = VideoMAEForVideoClassification.from_pretrained(classifier_dir)
    torch.testing.assert_close(run(model).float(), run(full), atol=0.02, rtol=0.02)
    for each in (full, model):
        table = each.videomae.embeddings.position_embeddings
        assert torch.equal(table, sincos_positions(32, 24)[None]), "what is fixed is not rounded"


@pytest.mark.parametrize(
    ("asked", "got"),
    [
        (None, torch.bfloat16),
        ("auto", torch.bfloat16),
        ("float32", torch.float32),
        ("torch.float16", torch.float16),
        (torch.float64, torch.float64),
    ],
)
def test_dtypes_of_a_bfloat16_folder(asked: Any, got: torch.dtype, tmp_path: Path) -> None:
    ours(VideoMAEModel).bfloat16().save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"
    model = VideoMAEModel.from_pretrained(tmp_path, dtype=asked)
    assert {value.dtype for value in [*model.parameters(), *model.buffers()]} == {got}
    if asked != "torch.float16":  # which transformers does not take
        assert transformers.VideoMAEModel.from_pretrained(tmp_path, dtype=asked).dtype == got


def test_a_half_precision_original_file_becomes_float32_unless_told(tmp_path: Path) -> None:
    model = ours(VideoMAEForVideoClassification).half()
    save_pth(tmp_path / "x.pth", to_v1(model.state_dict()))
    path, config = tmp_path / "x.pth", model.config
    assert VideoMAEForVideoClassification.from_pretrained(path, config=config).dtype == (
        torch.float32
    )
    auto = VideoMAEForVideoClassification.from_pretrained(path, config=config, dtype="auto")
    assert auto.dtype == torch.float16


@pytest.mark.parametrize("dtype", ["int8", "relu", "nonsense", torch.int64])
def test_unknown_dtypes(dtype: Any, classifier_dir: Path) -> None:
    with pytest.raises(ConfigError, match="is not a floating point type"):
        VideoMAEModel.from_pretrained(classifier_dir, dtype=dtype)


@pytest.mark.parametrize("device_map", ["cpu", {"": "cpu"}, "auto", "balanced", "sequential"])
def test_a_model_is_put_where_the_map_says(device_map: Any, classifier_dir: Path) -> None:
    model = VideoMAEForVideoClassification.from_pretrained(classifier_dir, device_map=device_map)
    expected = VideoMAEForVideoClassification.from_pretrained(classifier_dir)
    torch.testing.assert_close(run(model), run(expected))


def test_a_model_is_spread_over_devices(classifier_dir: Path, tmp_path: Path) -> None:
    parts = {"videomae": "cpu", "fc_norm": "cpu", "dropout": "cpu", "classifier": "disk"}
    model = VideoMAEForVideoClassification.from_pretrained(
        classifier_dir, device_map=parts, offload_folder=tmp_path / "offload"
    )
    assert model.hf_device_map == parts
    assert model.classifier.weight.is_meta
    expected = VideoMAEForVideoClassification.from_pretrained(classifier_dir)
    torch.testing.assert_close(run(model), run(expected))
    with pytest.raises(
        WeightsError, match=r"2 tensors of this model are offloaded: classifier\.wei"
    ):
        model.save_pretrained(tmp_path / "saved")
    state = accelerate.utils.modeling.get_state_dict_offloaded_model(model)
    model.save_pretrained(tmp_path / "saved", state_dict=state)
    again = VideoMAEForVideoClassification.from_pretrained(tmp_path / "saved")
    assert_same_parameters(again, expected)


def test_maps_that_mean_nothing(classifier_dir: Path) -> None:
    for device_map in ("nowhere", "cuda:99", 99, ["cpu"]):
        with pytest.raises(
            ConfigError, match=r"device_map=.* cannot be used \(.*; expected a device"
        ):
            VideoMAEModel.from_pretrained(classifier_dir, device_map=device_map)
    with (
        pytest.warns(UserWarning, match="do not match any submodules"),  # accelerate's
        pytest.raises(ConfigError, match=r"device_map={'classifier': 'cpu'} does not fit this"),
    ):
        VideoMAEModel.from_pretrained(classifier_dir, device_map={"classifier": "cpu"})


def test_overrides_change_the_config_and_unknown_ones_fail(classifier_dir: Path) -> None:
    model = VideoMAEModel.from_pretrained(
        classifier_dir, drop_path_rate=0.2, hidden_dropout_prob=0.1
    )
    assert model.config.drop_path_rate == 0.2
    for wrong, right in (
        ("drop_path", "drop_path_rate"),
        ("ignore_mismatched_size", "ignore_mismatched_sizes"),
        ("offload_dir", "offload_folder"),
    ):
        message = (
            f"no field '{wrong}', and from_pretrained no such argument; did you mean '{right}'"
        )
        with pytest.raises(ConfigError, match=message):
            VideoMAEModel.from_pretrained(classifier_dir, **{wrong: 0.2})
    with pytest.raises(ConfigError, match="attn_implementation='fast' is not one of"):
        VideoMAEModel.from_pretrained(classifier_dir, attn_implementation="fast")


NEUTRAL: list[dict[str, Any]] = [
    {"low_cpu_mem_usage": True, "use_safetensors": True, "weights_only": True},
    {"subfolder": "", "force_download": False, "proxies": None, "variant": None},
    {"quantization_config": None, "load_in_8bit": False, "max_memory": None, "use_fast": True},
    {"return_unused_kwargs": False, "trust_remote_code": False, "state_dict": None, "config": None},
    {"tp_plan": None, "adapter_kwargs": {}, "adapter_name": "default", "generation_config": None},
]


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("arguments", NEUTRAL)
def test_arguments_without_meaning_here_are_accepted(
    arguments: dict[str, Any], classifier_dir: Path
) -> None:
    VideoMAEModel.from_pretrained(classifier_dir, **arguments)


@pytest.mark.parametrize(
    ("arguments", "way_round"),
    [
        ({"quantization_config": {"bits": 8}}, "int8 is an engine of classify and embed"),
        ({"gguf_file": "x.gguf"}, r"give a \.safetensors or PyTorch file"),
        ({"tp_plan": "auto"}, "shard the loaded model with torch's fully_shard"),
        (
            {"adapter_kwargs": {"x": 1}},
            r"put adapters on the loaded model with peft\.PeftModel\.from_pretrained",
        ),
        ({"key_mapping": {"a": "b"}}, "rename the tensors, and pass them as"),
        ({"use_kernels": True}, "leave it out"),
        ({"return_unused_kwargs": True}, "every keyword is used, or is an error"),
        ({"proxies": {"https": "x"}}, "set HTTPS_PROXY"),
    ],
)
def test_what_cannot_be_done_is_refused(
    arguments: dict[str, Any], way_round: str, classifier_dir: Path
) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(arguments))}=.* not supported; {way_round}"):
        VideoMAEModel.from_pretrained(classifier_dir, **arguments)


def test_the_place_has_the_name_of_transformers(classifier_dir: Path) -> None:
    model = VideoMAEModel.from_pretrained(pretrained_model_name_or_path=classifier_dir)
    below = VideoMAEModel.from_pretrained(classifier_dir.parent, subfolder=classifier_dir.name)
    assert_same_parameters(model, below)
    with pytest.raises(ConfigError, match="is one file; give its folder, or no subfolder"):
        VideoMAEModel.from_pretrained(classifier_dir / "model.safetensors", subfolder="x")


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_model_from_a_config_and_tensors(kind: Any) -> None:
    model = ours(kind, use_mean_pooling=False)
    again = kind.from_pretrained(None, config=model.config, state_dict=model.state_dict())
    assert_same_parameters(model, again)
    theirs = randomise(KINDS[kind](transformers.VideoMAEConfig(**SIZES)))
    again = kind.from_pretrained(None, config=theirs.config, state_dict=theirs.state_dict())
    torch.testing.assert_close(run(again), run(theirs), atol=1e-5, rtol=0)


def test_weights_come_from_one_place(classifier_dir: Path) -> None:
    config = VideoMAEConfig.from_pretrained(classifier_dir)
    for arguments in ({}, {"config": config}, {"state_dict": {}}):
        with pytest.raises(ConfigError, match="without a name or path needs config= and state_d"):
            VideoMAEModel.from_pretrained(None, **arguments)
    with pytest.raises(ConfigError, match="name or path and state_dict= were given; pass"):
        VideoMAEModel.from_pretrained(classifier_dir, state_dict={})


def test_a_missing_folder_is_an_oserror_and_a_wrong_shape_a_runtimeerror(
    classifier_dir: Path,
) -> None:
    with pytest.raises(OSError, match="does not exist; expected a folder"):
        VideoMAEModel.from_pretrained("./nowhere")
    with pytest.raises(
        OSError, match=r"looked for model\.x\.safetensors and pytorch_model\.x\.bin"
    ):
        VideoMAEModel.from_pretrained(classifier_dir, variant="x")
    with pytest.raises(RuntimeError, match="tensors of another shape"):
        VideoMAEForVideoClassification.from_pretrained(classifier_dir, num_labels=3)


def test_names_of_files_are_those_of_tensors_for_load_state_dict_too(classifier_dir: Path) -> None:
    """Trainer and others load files so, and would go on without the biases in silence."""
    expected = VideoMAEForVideoClassification.from_pretrained(classifier_dir)
    model = VideoMAEForVideoClassification(expected.config)
    tensors = safetensors.torch.load_file(classifier_dir / "model.safetensors")
    assert "videomae.encoder.layer.0.attention.attention.q_bias" in tensors
    result = model.load_state_dict(tensors)
    assert not result.missing_keys
    assert_same_parameters(model, expected)


def test_remote_code_is_never_run(classifier_dir: Path) -> None:
    with pytest.warns(UserWarning, match="trust_remote_code has no effect"):
        VideoMAEModel.from_pretrained(classifier_dir, trust_remote_code=True)


def test_a_checkpoint_is_read_once_and_loaded_twice(classifier_dir: Path) -> None:
    checkpoint = read_checkpoint(classifier_dir)
    for _ in range(2):
        model = VideoMAEForVideoClassification.from_pretrained(checkpoint)
        assert torch.equal(model.fc_norm.weight, checkpoint.state["fc_norm.weight"])


def test_a_config_can_be_given_as_object_file_or_folder(
    classifier_dir: Path, tmp_path: Path
) -> None:
    config = VideoMAEConfig.from_pretrained(classifier_dir)
    path = tmp_path / "other.json"
    path.write_text(config.to_json_string())
    weights = tmp_path / "alone.safetensors"
    weights.write_bytes((classifier_dir / "model.safetensors").read_bytes())
    for given in (config, path, str(classifier_dir)):
        model = VideoMAEForVideoClassification.from_pretrained(weights, config=given)
        assert model.config.num_attention_heads == 3
    assert config.attn_implementation == "auto"
    assert model.config is not config


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_config_of_transformers_describes_a_model_or_a_file(kind: Any, tmp_path: Path) -> None:
    theirs = randomise(KINDS[kind](transformers.VideoMAEConfig(**SIZES, num_labels=3)))
    model = kind(theirs.config)
    model.load_state_dict(theirs.state_dict())
    torch.testing.assert_close(run(model.eval()), run(theirs), atol=1e-5, rtol=0)
    assert isinstance(model.config, VideoMAEConfig)
    theirs.save_pretrained(tmp_path)
    (tmp_path / "config.json").unlink()
    again = kind.from_pretrained(tmp_path / "model.safetensors", config=theirs.config)
    assert_same_parameters(model, again)
    with pytest.raises(ConfigError, match="config is a 'vit', expected a VideoMAEConfig"):
        kind(transformers.ViTConfig())


def test_shipped_names_are_found(
    classifier_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "_ASSETS_DIR", classifier_dir.parent)
    monkeypatch.chdir(tmp_path.parent)
    assert VideoMAEForVideoClassification.from_pretrained("classifier").config.num_labels == 5


# Other frame counts and sizes


def test_positions_are_resized_from_the_checkpoints_own_grid(
    classifier_dir: Path, tmp_path: Path
) -> None:
    own = VideoMAEModel.from_pretrained(classifier_dir)
    assert own.config.position_grid is None
    longer = VideoMAEModel.from_pretrained(classifier_dir, num_frames=8)
    assert longer.config.position_grid == (2, 4, 4)
    table = longer.embeddings.position_embeddings.view(4, 16, 24)
    first, last = own.embeddings.position_embeddings.view(2, 16, 24)
    torch.testing.assert_close(table[0], first)
    torch.testing.assert_close(table[3], last)
    torch.testing.assert_close(table[1], 0.75 * first + 0.25 * last)
    clip = torch.randn(1, 8, 3, 32, 32)
    torch.testing.assert_close(
        longer(clip).last_hidden_state, own(clip, interpolate_pos_encoding=True).last_hidden_state
    )
    with pytest.warns(
        UserWarning, match=r"resized from \(2, 4, 4\) to \(4, 4, 4\) tubelets; trans"
    ):
        longer.save_pretrained(tmp_path / "longer")
    again = VideoMAEModel.from_pretrained(tmp_path / "longer")
    assert torch.equal(again(clip).last_hidden_state, longer(clip).last_hidden_state)
    # and on from the grid of the weights, not from the one in between
    back = VideoMAEModel.from_pretrained(tmp_path / "longer", num_frames=4)
    assert torch.equal(run(back), run(own))
    with pytest.raises(ConfigError, match=r"ask for a grid of \(4, 4, 4\) tubelets and the check"):
        VideoMAEModel.from_pretrained(classifier_dir, num_frames=8, interpolate_pos_encoding=False)


def test_a_silent_file_of_another_size_says_what_is_taken(reference_dir: Path) -> None:
    with pytest.warns(UserWarning, match="16 frames of 224 pixels are taken"):
        model = VideoMAEForVideoClassification.from_pretrained(
            reference_dir / "v1_finetune_tiny.pth", num_attention_heads=3, image_size=32
        )
    assert model.config.position_grid == (8, 28, 28)


# Small questions


def test_hf_file_keys_are_what_transformers_itself_writes(tmp_path: Path) -> None:
    config = transformers.VideoMAEConfig(**SIZES)
    transformers.VideoMAEForPreTraining(config).save_pretrained(tmp_path)
    theirs = safetensors.torch.load_file(tmp_path / "model.safetensors").keys()
    assert to_hf_file_keys(ours(VideoMAEForPreTraining).state_dict()).keys() == theirs
    assert read_checkpoint(tmp_path).has_decoder
