import copy
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from tiny_models import LARGER
from videomae.config import Grid, VideoMAEConfig
from videomae.errors import ConfigError
from videomae.masking import choose_tokens, running_cell_mask, tube_mask
from videomae.model import modeling
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.positions import sincos_positions
from videomae.tubelets import patchify, pixel_targets, unpatchify

CLASSES = {
    "VideoMAEModel": VideoMAEModel,
    "VideoMAEForPreTraining": VideoMAEForPreTraining,
    "VideoMAEForVideoClassification": VideoMAEForVideoClassification,
}


def tiny(**fields: Any) -> VideoMAEConfig:
    """32 tubelets in a grid of 2 x 4 x 4; an eps so large that one in the wrong place shows."""
    return VideoMAEConfig(**{**LARGER, "layer_norm_eps": 0.01, "num_labels": 5, **fields})


def randomize(model: nn.Module) -> None:
    """Make every parameter random, biases, norms and mask token too, so that a lost one shows."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_()
            if "norm" in name and name.endswith("weight"):
                parameter.mul_(0.3).add_(1)
            elif parameter.ndim > 1 and not name.endswith("mask_token"):
                parameter.div_(math.sqrt(parameter[0].numel()))


def make(name: str, config: VideoMAEConfig) -> Any:
    model = CLASSES[name](config)
    randomize(model)
    return model.eval()


def peers(name: str, config: VideoMAEConfig, implementation: str = "eager") -> tuple[Any, Any]:
    """Our model and that of transformers, with the same random weights."""
    known = {**config.to_dict(), "num_labels": config.num_labels}
    peer_config = transformers.VideoMAEConfig.from_dict(known)
    peer_config._attn_implementation = implementation
    theirs = getattr(transformers, name)(peer_config).eval()
    randomize(theirs)
    ours = CLASSES[name](config.copy(attn_implementation=implementation)).eval()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def clips(config: VideoMAEConfig, batch_size: int = 2) -> Tensor:
    return torch.randn(batch_size, config.num_frames, config.num_channels, *config.image_hw)


def mask_for(config: VideoMAEConfig, batch_size: int = 2) -> Tensor:
    return tube_mask(config.grid, 0.75, batch_size=batch_size)


def assert_same(ours: Any, theirs: Any) -> None:
    """The same fields with the same numbers, to 1e-5."""
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        if isinstance(value, tuple):
            assert len(value) == len(theirs[name])
        torch.testing.assert_close(value, theirs[name], atol=1e-5, rtol=0, msg=name)


def assert_parity(name: str, config: VideoMAEConfig, implementation: str = "eager") -> None:
    ours, theirs = peers(name, config, implementation)
    inputs: dict[str, Any] = {"pixel_values": clips(config), "output_hidden_states": True}
    if name == "VideoMAEForPreTraining":
        inputs["bool_masked_pos"] = mask_for(config)
    if name == "VideoMAEForVideoClassification":
        inputs["labels"] = torch.tensor([4, 0])
    inputs["output_attentions"] = implementation == "eager"  # the only one that has them there
    with torch.no_grad():
        assert_same(ours(**inputs), theirs(**inputs))


@contextmanager
def refused(message: str) -> Iterator[None]:
    with pytest.raises(ConfigError, match=re.escape(message)):
        yield


# --- the numbers of transformers ------------------------------------------------------------------


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("use_mean_pooling", [True, False])
@pytest.mark.parametrize("name", ["VideoMAEModel", "VideoMAEForVideoClassification"])
def test_parity(name: str, use_mean_pooling: bool, implementation: str) -> None:
    assert_parity(name, tiny(use_mean_pooling=use_mean_pooling), implementation)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@pytest.mark.parametrize("norm_pix_loss", [True, False])
@pytest.mark.parametrize("use_mean_pooling", [True, False])
def test_parity_of_pretraining(
    use_mean_pooling: bool, norm_pix_loss: bool, implementation: str
) -> None:
    config = tiny(use_mean_pooling=use_mean_pooling, norm_pix_loss=norm_pix_loss)
    assert_parity("VideoMAEForPreTraining", config, implementation)


@pytest.mark.parametrize(
    "fields",
    [
        {"image_size": (16, 32)},
        {"image_size": (40, 24)},
        {"num_channels": 1},
        {"num_channels": 2},
        {"num_channels": 4},
        {"num_channels": 6},
        {"tubelet_size": 1},
        {"tubelet_size": 4, "num_frames": 8},
        {"qv_bias": False},
        {"hidden_act": "relu"},
        {"hidden_act": "gelu_new"},
        {"hidden_act": "gelu_pytorch_tanh"},
        {"hidden_act": "silu"},
    ],
    ids=str,
)
@pytest.mark.parametrize("name", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
def test_parity_of_other_shapes(name: str, fields: dict[str, Any]) -> None:
    assert_parity(name, tiny(**fields))


def test_parity_with_patches_that_are_not_square() -> None:
    assert_parity("VideoMAEForVideoClassification", tiny(patch_size=(8, 16)))


def test_parity_of_masked_encoding() -> None:
    config = tiny(use_mean_pooling=False)
    ours, theirs = peers("VideoMAEModel", config)
    pixels, mask = clips(config), mask_for(config)
    with torch.no_grad():
        assert_same(ours(pixels, mask), theirs(pixels, mask))


def test_parity_of_gradients() -> None:
    config = tiny()
    ours, theirs = peers("VideoMAEForPreTraining", config)
    pixels, mask = clips(config), mask_for(config)
    for model in (ours, theirs):
        model.train()
        model(pixel_values=pixels, bool_masked_pos=mask).loss.backward()
    expected = {name: parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name], atol=1e-5, rtol=0, msg=name)


TWO_LAYERS = {"num_hidden_layers": 2, "decoder_num_hidden_layers": 1, "image_size": 64}


@pytest.mark.parametrize("name", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
@pytest.mark.parametrize(
    ("preset", "fields"),
    [
        ("small", TWO_LAYERS),
        ("base", TWO_LAYERS),
        ("large", TWO_LAYERS),
        pytest.param("base", {}, marks=pytest.mark.slow),  # benchmarks/parity.py measures the rest
    ],
)
def test_parity_of_published_sizes(preset: str, fields: dict[str, Any], name: str) -> None:
    config = VideoMAEConfig.preset(preset, num_labels=400, **fields)
    ours, theirs = peers(name, config, "sdpa")
    inputs: dict[str, Any] = {"pixel_values": clips(config, 1)}
    if name == "VideoMAEForPreTraining":
        inputs["bool_masked_pos"] = tube_mask(config.grid, 0.9)
    with torch.no_grad():
        assert_same(ours(**inputs), theirs(**inputs))


@pytest.mark.parametrize("use_mean_pooling", [True, False])
@pytest.mark.parametrize("name", CLASSES)
def test_state_dict_keys_are_those_of_transformers(name: str, use_mean_pooling: bool) -> None:
    ours, theirs = peers(name, tiny(use_mean_pooling=use_mean_pooling))
    assert list(ours.state_dict()) == list(theirs.state_dict())


def test_state_dict_keys_are_pinned() -> None:
    config = tiny(num_hidden_layers=1, decoder_num_hidden_layers=1, use_mean_pooling=False)
    layer = [
        *("attention.attention.query.weight", "attention.attention.query.bias"),
        "attention.attention.key.weight",
        *("attention.attention.value.weight", "attention.attention.value.bias"),
        *("attention.output.dense.weight", "attention.output.dense.bias"),
        *("intermediate.dense.weight", "intermediate.dense.bias"),
        *("output.dense.weight", "output.dense.bias"),
        *("layernorm_before.weight", "layernorm_before.bias"),
        *("layernorm_after.weight", "layernorm_after.bias"),
    ]
    encoder = [
        "videomae.embeddings.patch_embeddings.projection.weight",
        "videomae.embeddings.patch_embeddings.projection.bias",
        *(f"videomae.encoder.layer.0.{key}" for key in layer),
    ]
    final_norm = ["videomae.layernorm.weight", "videomae.layernorm.bias"]
    assert sorted(VideoMAEForPreTraining(config).state_dict()) == sorted(
        [
            *encoder,
            *final_norm,
            *("encoder_to_decoder.weight", "mask_token"),
            *(f"decoder.decoder_layers.0.{key}" for key in layer),
            *("decoder.norm.weight", "decoder.norm.bias"),
            *("decoder.head.weight", "decoder.head.bias"),
        ]
    )
    head = ["classifier.weight", "classifier.bias"]
    keys = VideoMAEForVideoClassification(config).state_dict()
    assert sorted(keys) == sorted([*encoder, *final_norm, *head])
    keys = VideoMAEForVideoClassification(config.copy(use_mean_pooling=True)).state_dict()
    assert sorted(keys) == sorted([*encoder, "fc_norm.weight", "fc_norm.bias", *head])


# --- masks ----------------------------------------------------------------------------------------


def test_true_hides() -> None:
    config = tiny(use_mean_pooling=False)
    model = make("VideoMAEModel", config)
    pixels, mask = clips(config), mask_for(config)
    with torch.no_grad():
        everything = model(pixels, output_hidden_states=True).hidden_states[0]
        seen = model(pixels, mask, output_hidden_states=True)
    assert seen.last_hidden_state.shape == (2, 8, 24)  # a quarter of 32
    expected = torch.stack([everything[clip][~mask[clip]] for clip in range(2)])
    torch.testing.assert_close(seen.hidden_states[0], expected, atol=1e-5, rtol=0)


def test_hidden_pixels_are_never_looked_at() -> None:
    config = tiny()
    model = make("VideoMAEForPreTraining", config)
    pixels, mask = clips(config), mask_for(config)
    cells = patchify(pixels, config.grid)
    cells[mask] = math.nan
    poisoned = unpatchify(cells, config.grid, 2, (8, 8))
    with torch.no_grad():
        healthy = model(pixels, mask, output_hidden_states=True)
        output = model(poisoned, mask, output_hidden_states=True)
    assert torch.equal(output.logits, healthy.logits)
    assert torch.equal(output.hidden_states[-1], healthy.hidden_states[-1])
    assert healthy.loss.isfinite()
    assert output.loss.isnan(), "they are what is to be predicted"


def test_visible_pixels_are_not_predicted() -> None:
    config = tiny()
    model = make("VideoMAEForPreTraining", config)
    pixels, mask = clips(config), mask_for(config)
    with torch.no_grad():
        output = model(pixels, mask)
    target = pixel_targets(pixels, config.grid, normalize=True)
    assert output.logits.shape == (2, 24, 2 * 8 * 8 * 3)
    by_hand = (output.logits.flatten(0, 1) - target[mask]).square().mean()
    torch.testing.assert_close(output.loss, by_hand)


@pytest.mark.parametrize("name", ["VideoMAEModel", "VideoMAEForPreTraining"])
def test_unequal_masks_are_refused_with_their_counts(name: str) -> None:
    config = tiny()
    mask = torch.zeros(2, 32, dtype=torch.bool)
    mask[0, :6] = mask[1, :2] = True
    with refused("every clip of a batch must hide equally many tubelets, got [6, 2]"):
        CLASSES[name](config)(clips(config), mask)


def test_pretraining_needs_a_mask() -> None:
    config = tiny()
    with refused("VideoMAEForPreTraining needs bool_masked_pos (batch, tubelets), True = hidden"):
        VideoMAEForPreTraining(config)(clips(config))


def test_losses_of_any_channels_patches_and_tubelets() -> None:
    for fields in (
        {"num_channels": 4, "norm_pix_loss": False},
        {"num_channels": 1, "norm_pix_loss": True, "tubelet_size": 4},
        {"patch_size": (8, 16), "tubelet_size": 1},
        {"patch_size": (16, 8), "image_size": (32, 48), "norm_pix_loss": False},
    ):
        config = tiny(**fields)
        model = make("VideoMAEForPreTraining", config)
        pixels, mask = clips(config), mask_for(config)
        output = model(pixels, mask)
        target = pixel_targets(pixels, config.grid, normalize=config.norm_pix_loss)
        by_hand = (output.logits.flatten(0, 1) - target[mask]).square().mean()
        torch.testing.assert_close(output.loss, by_hand)


def test_a_decoder_mask_that_keeps_all_hidden_tubelets_changes_nothing() -> None:
    config = tiny()
    model = make("VideoMAEForPreTraining", config)
    pixels, mask = clips(config), mask_for(config)
    with torch.no_grad():
        plain, dual = model(pixels, mask), model(pixels, mask, decoder_bool_masked_pos=~mask)
    torch.testing.assert_close(dual.logits, plain.logits)
    torch.testing.assert_close(dual.loss, plain.loss)


def test_loss_counts_what_is_decoded_and_was_not_seen() -> None:
    config = tiny()
    model = make("VideoMAEForPreTraining", config)
    pixels, mask = clips(config), mask_for(config)
    undecoded = torch.ones(2, 32, dtype=torch.bool)
    undecoded[:, :20] = False
    with torch.no_grad():
        output = model(pixels, mask, decoder_bool_masked_pos=undecoded)
    assert output.logits.shape[:2] == (2, 20)
    target = pixel_targets(pixels, config.grid, normalize=True)[:, :20]
    error = (output.logits - target).square().mean(2)
    torch.testing.assert_close(output.loss, error[mask[:, :20]].mean())


def test_tokens_may_be_chosen_beforehand() -> None:
    config = tiny()
    pixels, mask, undecoded = clips(config), mask_for(config), running_cell_mask(config.grid, 0.5)
    undecoded = undecoded.expand(2, -1)
    with torch.no_grad():
        encoder = make("VideoMAEModel", config)
        assert_same(encoder(pixels, choose_tokens(mask, 32)), encoder(pixels, mask))
        model = make("VideoMAEForPreTraining", config)
        assert_same(model(pixels, choose_tokens(mask, 32)), model(pixels, mask))
        chosen = choose_tokens(mask, 32, undecoded)
        assert_same(model(pixels, chosen), model(pixels, mask, decoder_bool_masked_pos=undecoded))
        with refused("bool_masked_pos is a ChosenTokens, which has its decoder mask in it, and"):
            model(pixels, chosen, decoder_bool_masked_pos=undecoded)


def test_a_decoder_without_layers_predicts_from_the_tokens_alone() -> None:
    config = tiny(decoder_num_hidden_layers=0)
    pixels, mask = clips(config), mask_for(config)
    output = VideoMAEForPreTraining(config)(pixels, mask)
    assert output.logits.shape[:2] == (len(pixels), int(mask[0].sum()))
    assert output.loss.isfinite()


def test_a_decoder_mask_that_leaves_nothing_is_refused() -> None:
    config = tiny()
    mask = mask_for(config)
    with refused("decoder_bool_masked_pos leaves out every tubelet that bool_masked_pos hides"):
        VideoMAEForPreTraining(config)(clips(config), mask, decoder_bool_masked_pos=mask)


# --- other sizes ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSES)
def test_other_sizes_need_asking(name: str) -> None:
    config = tiny()
    model = make(name, config)
    larger = torch.randn(1, 8, 3, 16, 48)  # grid (4, 2, 6)
    inputs: dict[str, Any] = {"pixel_values": larger}
    if name == "VideoMAEForPreTraining":
        inputs["bool_masked_pos"] = tube_mask(Grid(4, 2, 6), 0.5)
    with refused(
        "clips have 8 frames of 16x48 pixels, the model was made for 4 frames of 32x32; pass "
        "interpolate_pos_encoding=True to resize its positions, or override num_frames and "
        "image_size in from_pretrained"
    ):
        model(**inputs)
    with torch.no_grad():
        asked = model(**inputs, interpolate_pos_encoding=True)
        made = CLASSES[name](
            config.copy(num_frames=8, image_size=(16, 48), position_grid=Grid(2, 4, 4))
        ).eval()
        made.load_state_dict(model.state_dict())
        assert_same(made(**inputs), asked)


def test_asking_for_the_own_size_changes_nothing() -> None:
    config = tiny()
    model = make("VideoMAEModel", config)
    pixels = clips(config)
    with torch.no_grad():
        assert_same(model(pixels, interpolate_pos_encoding=True), model(pixels))


def test_position_tables_are_built_once_and_not_saved() -> None:
    config = tiny()
    model = VideoMAEForPreTraining(config)
    table = model.videomae.embeddings.position_embeddings
    assert torch.equal(table, sincos_positions(32, 24)[None])
    assert torch.equal(model.position_embeddings, sincos_positions(32, 16)[None])
    assert not any("position" in key for key in model.state_dict())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        (
            (4, 3, 32, 32),
            "pixel_values has shape (4, 3, 32, 32), expected 5 axes (batch, frames, channels, "
            "height, width); add the batch axis with pixel_values[None]",
        ),
        (
            (2, 3, 4, 32, 32),
            "pixel_values has shape (2, 3, 4, 32, 32) (B, T, C, H, W) with 4 channels, expected 3; "
            "swap axes 1 and 2: this looks like (B, C, T, H, W)",
        ),
        (
            (2, 4, 1, 32, 32),
            "with 1 channels, expected 3; give those, or make the model with num_channels=1",
        ),
        ((2, 4, 3, 30, 32), "height=30 is not a multiple of 8; use 24"),
    ],
)
@pytest.mark.parametrize("name", CLASSES)
def test_clips_of_a_wrong_shape_are_refused(
    name: str, shape: tuple[int, ...], message: str
) -> None:
    config = tiny()
    arguments = [mask_for(config)] if name == "VideoMAEForPreTraining" else []
    with refused(message):
        CLASSES[name](config)(torch.zeros(shape), *arguments)


def test_raw_images_are_refused() -> None:
    with refused(
        "pixel_values has dtype torch.uint8, expected floats normalised as in training; "
        "VideoMAEImageProcessor makes them"
    ):
        VideoMAEModel(tiny())(clips(tiny()).to(torch.uint8))


# --- calling --------------------------------------------------------------------------------------


def test_outputs_come_as_tuples_when_asked() -> None:
    config = tiny()
    pixels, mask = clips(config), mask_for(config)
    model = make("VideoMAEForPreTraining", config)
    named = model(pixels, mask)
    loss, logits = model(pixels, mask, return_dict=False)
    assert torch.equal(loss, named.loss)
    assert torch.equal(logits, named.logits)
    model.config.return_dict = False
    assert isinstance(model(pixels, mask), tuple)
    assert isinstance(make("VideoMAEModel", config)(pixels, return_dict=False), tuple)


def test_inputs_of_text_models_may_be_passed_as_none() -> None:
    """As peft does for each of its task types."""
    config = tiny()
    pixels, model = clips(config), make("VideoMAEForVideoClassification", config)
    logits = model(pixel_values=pixels, input_ids=None, attention_mask=None, task_ids=None).logits
    assert torch.equal(logits, model(pixels).logits)
    with pytest.raises(TypeError, match="input_ids"):
        model(pixel_values=pixels, input_ids=pixels)


def test_states_and_attentions_come_when_asked_or_configured() -> None:
    config = tiny(attn_implementation="sdpa")
    model = make("VideoMAEForVideoClassification", config)
    pixels = clips(config)
    assert list(model(pixels)) == ["logits"]
    output = model(pixels, output_hidden_states=True, output_attentions=True)
    assert [tuple(state.shape) for state in output.hidden_states] == [(2, 32, 24)] * 3
    assert [tuple(weights.shape) for weights in output.attentions] == [(2, 3, 32, 32)] * 2
    model.config.output_hidden_states = model.config.output_attentions = True
    assert_same(model(pixels), output)
    assert list(model(pixels, output_hidden_states=False, output_attentions=False)) == ["logits"]


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels", "formula"),
    [
        (None, 5, torch.tensor([4, 1]), F.cross_entropy),
        (None, 5, torch.tensor([[1.0, 0, 1, 0, 0]] * 2), F.binary_cross_entropy_with_logits),
        (None, 5, torch.tensor([[1, 0, 1, 0, 0]] * 2).bool(), F.binary_cross_entropy_with_logits),
        (None, 1, torch.tensor([0.3, -2.0]), F.mse_loss),
        ("regression", 1, torch.tensor([[1], [3]]), F.mse_loss),
        ("regression", 5, torch.rand(2, 5), F.mse_loss),
        ("single_label_classification", 5, torch.tensor([0, 2]), F.cross_entropy),
        (None, 5, torch.tensor([[3], [2]]), F.cross_entropy),
        ("single_label_classification", 5, torch.rand(2, 5).softmax(1), F.cross_entropy),
        ("multi_label_classification", 5, torch.eye(5)[:2], F.binary_cross_entropy_with_logits),
    ],
)
def test_losses_of_the_classifier(
    problem_type: str | None, num_labels: int, labels: Tensor, formula: Callable[..., Tensor]
) -> None:
    config = tiny(problem_type=problem_type, num_labels=num_labels)
    ours, theirs = peers("VideoMAEForVideoClassification", config)
    pixels = clips(config)
    output = ours(pixels, labels=labels)
    floats = formula is not F.cross_entropy
    shaped = labels.to(torch.float32).view(output.logits.shape) if floats else labels
    shaped = shaped.flatten() if shaped.dtype == torch.int64 else shaped
    torch.testing.assert_close(output.loss, formula(output.logits, shaped))
    assert ours.config.problem_type == problem_type, "a call changes no config"
    if labels.is_floating_point() == floats:
        torch.testing.assert_close(output.loss, theirs(pixels, labels=labels).loss)


def test_without_mean_pooling_the_head_sees_the_first_token_alone() -> None:
    config = tiny(use_mean_pooling=False)
    model = make("VideoMAEForVideoClassification", config)
    tokens = model.videomae(clips(config)).last_hidden_state
    assert torch.equal(model.pool(tokens), tokens[:, 0])


def test_no_labels_means_no_head() -> None:
    config = tiny(num_labels=0)
    model = make("VideoMAEForVideoClassification", config)
    assert isinstance(model.classifier, nn.Identity)
    assert model(clips(config)).logits.shape == (2, 24)


def test_the_input_embeddings_are_those_of_the_tubelets() -> None:
    for model_class in CLASSES.values():
        model = model_class(tiny())
        embeddings = model.get_input_embeddings()
        assert embeddings.projection.weight.shape == (24, 3, 2, 8, 8)
        assert embeddings(clips(tiny())).shape == (2, 32, 24)
        assert embeddings(torch.randn(1, 2, 3, 8, 24)).shape == (1, 3, 24)  # of any size


def test_attention_can_be_changed_later() -> None:
    config = tiny(attn_implementation="eager")
    model = make("VideoMAEForVideoClassification", config)
    pixels = clips(config)
    before = model(pixels).logits
    model.set_attn_implementation("sdpa")
    assert model.config.attn_implementation == "sdpa"
    torch.testing.assert_close(model(pixels).logits, before)
    with refused("attn_implementation='fast' is not one of"):
        model.set_attn_implementation("fast")


def test_flash_is_refused_where_it_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with refused("attn_implementation='flash_attention_2' needs an NVIDIA GPU"):
        VideoMAEModel(tiny(attn_implementation="flash_attention_2"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype: torch.dtype) -> None:
    config = tiny()
    pixels, mask = clips(config), mask_for(config)
    for name in ("VideoMAEForPreTraining", "VideoMAEForVideoClassification"):
        model = make(name, config)
        arguments = [mask] if name == "VideoMAEForPreTraining" else []
        exact = model(pixels, *arguments).logits
        logits = model.to(dtype)(pixels.to(dtype), *arguments).logits
        assert logits.dtype == dtype
        torch.testing.assert_close(logits.float(), exact, atol=0.15, rtol=0.1)


def test_half_precision_by_autocast_gives_a_loss_in_full() -> None:
    config = tiny()
    model = make("VideoMAEForPreTraining", config)
    pixels, mask = clips(config), mask_for(config)
    exact = model(pixels, mask).loss
    with torch.autocast("cpu", torch.bfloat16):
        loss = model(pixels, mask).loss
    torch.testing.assert_close(loss.float(), exact, atol=0.05, rtol=0.05)


@pytest.mark.parametrize("implementation", ["auto", "eager", "sdpa"])
def test_the_classifier_compiles_in_one_piece(implementation: str) -> None:
    config = tiny(attn_implementation=implementation)
    model = make("VideoMAEForVideoClassification", config)
    pixels = clips(config)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(pixels).logits, model(pixels).logits)


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("name", ["VideoMAEModel", "VideoMAEForPreTraining"])
def test_masked_models_compile_in_one_piece_with_their_backward(name: str, dual: bool) -> None:
    config = tiny()
    model = make(name, config).train()
    mask = mask_for(config)
    chosen = choose_tokens(mask, 32, ~mask if dual else None)
    pixels = clips(config)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    gradients = []
    for run in (compiled, model):
        model.zero_grad()
        run(pixels, chosen)[0].sum().backward()
        gradients.append([x.grad.clone() for x in model.parameters() if x.grad is not None])
    torch.testing.assert_close(*gradients)


@pytest.mark.parametrize("dual", [False, True])
@pytest.mark.parametrize("way", ["compile", "export", "strict export"])
@pytest.mark.parametrize("name", ["VideoMAEModel", "VideoMAEForPreTraining"])
def test_masks_of_any_count_go_through_one_graph(name: str, way: str, dual: bool) -> None:
    config = tiny()
    model = make(name, config)
    pixels, mask = clips(config), mask_for(config)
    options: dict[str, Any] = {}
    if dual and name == "VideoMAEForPreTraining":
        options["decoder_bool_masked_pos"] = running_cell_mask(config.grid, 0.5, batch_size=2)
    torch._dynamo.reset()
    if way == "compile":
        graph: Any = torch.compile(model, fullgraph=True, backend="aot_eager")
    else:
        program = torch.export.export(model, (pixels, mask), options, strict=way[0] == "s")
        graph = program.module()
    other = tube_mask(config.grid, 0.5, batch_size=2)
    with torch.no_grad():
        for each in (mask, other):
            assert_same(graph(pixels, each, **options), model(pixels, each, **options))
        unequal = torch.stack([mask[0], other[1]])
        with pytest.raises(RuntimeError, match="must hide equally many"):
            graph(pixels, unequal, **options)


@pytest.mark.slow
def test_inductor_compiles_pretraining_in_one_piece() -> None:
    config = tiny(num_hidden_layers=1, decoder_num_hidden_layers=1)
    model = make("VideoMAEForPreTraining", config)
    pixels, chosen = clips(config), choose_tokens(mask_for(config), 32)
    torch._dynamo.reset()
    with torch.no_grad():
        loss = torch.compile(model, fullgraph=True)(pixels, chosen).loss
        torch.testing.assert_close(loss, model(pixels, chosen).loss)


# --- a client of transformers ---------------------------------------------------------------------


def test_every_argument_may_be_given_by_position_as_in_transformers() -> None:
    config = tiny()
    pixels, mask, labels = clips(config), mask_for(config), torch.tensor([1, 2])
    for name, second in (
        ("VideoMAEModel", mask),
        ("VideoMAEForPreTraining", mask),
        ("VideoMAEForVideoClassification", labels),
    ):
        model = make(name, config)
        with torch.no_grad():
            named = model(pixels, second, output_attentions=True, output_hidden_states=False)
            assert_same(model(pixels, second, None, True, False, True), named)
            values = model(pixels, second, None, True, False, False)
            assert isinstance(values, tuple)
            assert len(values) == len(named)
        with refused("the third argument by position is head_mask, which no model here and none"):
            model(pixels, second, mask)


class Doubled(nn.Module):
    """Put around a module: twice its answer."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return 2 * self.inner(*args, **kwargs)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", CLASSES)
def test_hooks_see_what_they_see_in_transformers(name: str, grad: bool) -> None:
    """Each module that both have is called as often, with outputs of the same shape and numbers."""
    ours, theirs = peers(name, tiny(use_mean_pooling=False))
    inputs: dict[str, Any] = {"pixel_values": clips(ours.config)}
    if name != "VideoMAEForVideoClassification":
        inputs["bool_masked_pos"] = mask_for(ours.config)
    seen: list[dict[str, list[Tensor]]] = []
    for model in (ours, theirs):
        names = {part: part_name for part_name, part in model.named_modules()}
        calls: dict[str, list[Tensor]] = {}

        def note(
            part: nn.Module, _inputs: Any, output: Any, to: Any = calls, of: Any = names
        ) -> None:
            first = output if isinstance(output, Tensor) else output[0]
            to.setdefault(of[part], []).append(first.detach())

        for part in names:
            part.register_forward_hook(note)
        with torch.set_grad_enabled(grad):
            model(**inputs)
        seen.append(calls)
    mine, expected = seen
    assert expected.keys() <= mine.keys()
    for key in expected:
        assert len(mine[key]) == len(expected[key]), key
        for one, other in zip(mine[key], expected[key], strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=0, msg=key)


@pytest.mark.parametrize("name", CLASSES)
def test_without_hooks_the_numbers_are_the_same(name: str) -> None:
    model = make(name, tiny(use_mean_pooling=False))
    inputs: list[Any] = [clips(model.config)]
    if name != "VideoMAEForVideoClassification":
        inputs.append(mask_for(model.config))
    with torch.no_grad():
        plain = model(*inputs)
        for part in model.modules():
            part.register_forward_hook(lambda *_: None)
        assert_same(model(*inputs), plain)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "place",
    [
        "embeddings.patch_embeddings.projection",
        "embeddings.patch_embeddings",
        "encoder.layer.0.attention.attention.query",
        "encoder.layer.0.attention.attention.value",
        "encoder.layer.0.attention.output.dense",
        "encoder.layer.1.intermediate.dense",
        "encoder.layer.1.output.dense",
        "encoder.layer.1",
    ],
)
def test_what_is_put_in_the_place_of_a_module_has_effect(place: str, masked: bool) -> None:
    ours, theirs = peers("VideoMAEModel", tiny())
    inputs = [clips(ours.config)] + [mask_for(ours.config)] * masked
    with torch.no_grad():
        before = ours(*inputs)[0]
        for model in (ours, theirs):
            parent, _, child = place.rpartition(".")
            owner = model.get_submodule(parent)
            setattr(owner, child, Doubled(model.get_submodule(place)))
        after = ours(*inputs)[0]
        assert not torch.allclose(after, before)
        torch.testing.assert_close(after, theirs(*inputs)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
def test_the_heads_call_the_encoder_as_a_module(name: str) -> None:
    config = tiny()
    model = make(name, config)
    inputs: list[Any] = [clips(config)]
    if name == "VideoMAEForPreTraining":
        inputs.append(mask_for(config))

    class Wrapper(nn.Module):
        def __init__(self, inner: nn.Module) -> None:
            super().__init__()
            self.inner = inner

        def forward(self, *args: Any, **kwargs: Any) -> Any:
            return self.inner(*args, **kwargs)

    model.config.return_dict = False
    with torch.no_grad():
        expected = model(*inputs)
        model.videomae = Wrapper(model.videomae)
        for got, value in zip(model(*inputs), expected, strict=True):
            torch.testing.assert_close(got, value)  # the head may ask for the mean alone


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("name", ["VideoMAEModel", "VideoMAEForVideoClassification"])
def test_exported_models_take_any_number_of_clips(name: str, strict: bool) -> None:
    model = make(name, tiny())
    shapes = {"pixel_values": {0: torch.export.Dim("batch", min=1, max=64)}}
    program = torch.export.export(
        model, (clips(model.config),), dynamic_shapes=shapes, strict=strict
    )
    for batch_size in (1, 5):
        pixels = clips(model.config, batch_size)
        assert_same(program.module()(pixels), model(pixels))


# --- what is not computed -------------------------------------------------------------------------


class Ops(TorchDispatchMode):
    """Each operation that runs inside, with the shapes of its tensors and of its first result."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, list[tuple[int, ...]]]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        shapes = [tuple(x.shape) for x in (result, *args) if isinstance(x, Tensor)]
        self.seen.append((func.overloadpacket.__name__, shapes))
        return result

    def shapes(self, *names: str) -> list[tuple[int, ...]]:
        """All shapes that operations of these names met."""
        return [shape for name, shapes in self.seen for shape in shapes if name in names]


def test_pretraining_embeds_the_visible_and_cuts_targets_of_the_predicted_alone() -> None:
    config = tiny()
    model = make("VideoMAEForPreTraining", config).train()
    mask = mask_for(config)  # 8 of 32 visible
    undecoded = running_cell_mask(config.grid, 0.5, batch_size=2)  # 16 of 32 decoded
    for decoder_mask, num_predicted in ((None, 24), (undecoded, 16)):
        with Ops() as ops:
            model(clips(config), mask, decoder_bool_masked_pos=decoder_mask)
        products = ops.shapes("addmm", "mm", "bmm", "linear")
        width = 3 * 2 * 8 * 8
        assert (2 * 8, width) in products  # 2 clips of 8 visible tubelets
        assert not [shape for shape in products if width in shape and 2 * 32 in shape]
        runs = width // 8  # a tubelet is copied by rows of 8 pixels
        assert ops.shapes("index_select")[0::3] == [
            (2 * 8 * runs, 8),
            (2 * num_predicted * runs, 8),
        ]
        assert (2, num_predicted, 3, 128) in ops.shapes("var_mean")
        assert not ops.shapes("convolution", "mkldnn_convolution")


@pytest.mark.parametrize("name", CLASSES)
def test_a_forward_pass_makes_no_constants_and_builds_no_positions(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny()
    model = make(name, config)
    inputs: list[Any] = [clips(config)]
    if name == "VideoMAEForPreTraining":
        inputs.append(choose_tokens(mask_for(config), 32))
    monkeypatch.setattr(modeling, "grid_positions", lambda *_: pytest.fail("positions built anew"))
    with Ops() as ops, torch.no_grad():
        model(*inputs)
    names = {name for name, _ in ops.seen}
    # each of them would make a GPU wait for the CPU, or the CPU for the GPU
    assert not names & {"lift_fresh", "_to_copy", "_local_scalar_dense", "item", "nonzero"}


def test_tokens_lie_in_memory_one_after_another() -> None:
    """Those of a convolution do not, and every later sum and norm would take twice as long."""
    config = tiny()
    model = make("VideoMAEModel", config)
    assert model.embeddings(clips(config)).is_contiguous()


# --- training -------------------------------------------------------------------------------------


def test_drop_path_rises_with_depth() -> None:
    rates = [
        layer.drop_path.rate
        for layer in VideoMAEModel(tiny(num_hidden_layers=5, drop_path_rate=0.2)).encoder.layer
    ]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_the_decoder_drops_nothing() -> None:
    model = VideoMAEForPreTraining(tiny(drop_path_rate=0.2)).train()
    assert [layer.drop_path.rate for layer in model.decoder.decoder_layers] == [0, 0]


@pytest.mark.parametrize(
    "rate",
    [
        "drop_path_rate",
        "hidden_dropout_prob",
        "attention_probs_dropout_prob",
        "classifier_dropout_prob",
    ],
)
def test_each_dropout_acts_in_training_alone(rate: str) -> None:
    config = tiny()
    pixels = clips(config, 8)
    plain = make("VideoMAEForVideoClassification", config)
    model = VideoMAEForVideoClassification(config.copy(**{rate: 0.5}))
    model.load_state_dict(plain.state_dict())
    expected = plain(pixels).logits
    torch.testing.assert_close(model.eval()(pixels).logits, expected)
    model.train()
    first, second = model(pixels).logits, model(pixels).logits
    assert not torch.allclose(first, second)
    torch.testing.assert_close(plain.train()(pixels).logits, expected)


@pytest.mark.parametrize("name", ["VideoMAEForPreTraining", "VideoMAEForVideoClassification"])
def test_gradient_checkpointing_gives_the_same_gradients(name: str) -> None:
    config = tiny(drop_path_rate=0.3, hidden_dropout_prob=0.2)
    model = make(name, config).train()
    pixels = clips(config)
    second = mask_for(config) if name == "VideoMAEForPreTraining" else torch.tensor([1, 2])

    def run() -> tuple[dict[str, Tensor], int]:
        calls: list[int] = []
        part = model.videomae.encoder.layer[0].attention
        hook = part.register_forward_pre_hook(lambda *_: calls.append(1))
        model.zero_grad()
        torch.manual_seed(3)
        model(pixels, second).loss.backward()
        hook.remove()
        gradients = {key: parameter.grad.clone() for key, parameter in model.named_parameters()}
        return gradients, len(calls)

    plain, calls = run()
    assert calls == 1
    model.gradient_checkpointing_enable()
    assert model.is_gradient_checkpointing
    saved, calls = run()
    assert calls == 2, "once forwards, once more for the gradients"
    for key, gradient in plain.items():
        torch.testing.assert_close(saved[key], gradient, msg=key)
    model.gradient_checkpointing_disable()
    assert run()[1] == 1


# --- the start ------------------------------------------------------------------------------------


def wide(**fields: Any) -> VideoMAEConfig:
    """Wide enough for statistics of its weights."""
    sizes = {"hidden_size": 192, "intermediate_size": 768, "decoder_hidden_size": 96}
    return tiny(**{**sizes, "num_hidden_layers": 1, "decoder_num_hidden_layers": 1, **fields})


def split_parameters(model: nn.Module) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Weights of linear maps, and everything that starts as 0 or 1."""
    linear, plain = {}, {}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            linear[name] = module.weight
            if module.bias is not None:
                plain[f"{name}.bias"] = module.bias
        elif isinstance(module, nn.LayerNorm):
            plain[f"{name}.bias"] = module.bias
            plain[f"{name}.weight"] = module.weight - 1
    return linear, plain


def test_the_classifier_starts_with_normal_draws_its_head_too() -> None:
    model = VideoMAEForVideoClassification(wide(num_labels=50, initializer_range=0.03))
    linear, plain = split_parameters(model)
    for name, weight in linear.items():
        assert weight.std().item() == pytest.approx(0.03, rel=0.05), name
    assert all((value == 0).all() for value in plain.values())


def test_pretraining_starts_by_xavier() -> None:
    model = VideoMAEForPreTraining(wide())
    linear, plain = split_parameters(model)
    assert len(linear) == 2 * 6 + 2
    bridge = linear.pop("encoder_to_decoder")
    assert bridge.abs().max().item() == pytest.approx(1 / math.sqrt(192), rel=0.01)
    for name, weight in linear.items():
        limit = math.sqrt(6 / sum(weight.shape))
        assert weight.abs().max().item() == pytest.approx(limit, rel=0.01), name
    assert all((value == 0).all() for value in plain.values())
    assert 0 < model.mask_token.std() < 0.02
    assert model.mask_token.abs().max() <= 0.02
    patches = model.get_input_embeddings().projection.weight
    assert patches.abs().max().item() == pytest.approx(1 / math.sqrt(3 * 2 * 8 * 8), rel=0.01)


def test_the_start_follows_from_the_seed() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(copy.deepcopy(VideoMAEForPreTraining(tiny()).state_dict()))
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    assert not torch.equal(states[0]["mask_token"], states[2]["mask_token"])


# --- what nobody looks at is not computed ---------------------------------------------------------


class Products(TorchDispatchMode):
    """Counts the multiplications of matrix products; FlopCounterMode hooks all modules to do so."""

    count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.count += count(*args, **(kwargs or {}), out_val=made) // 2
        return made


def loss_of(model: nn.Module, config: VideoMAEConfig, decoder_mask: Tensor | None) -> Tensor:
    """The loss of two clips, the same at every call."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randn(2, 4, 3, 32, 32, generator=generator)
    if isinstance(model, VideoMAEForVideoClassification):
        return model(pixels, labels=torch.tensor([4, 0])).loss
    mask = tube_mask(config.grid, 0.75, batch_size=2, generator=generator)
    loss: Tensor = model(pixels, mask, decoder_bool_masked_pos=decoder_mask).loss
    return loss


def loss_gradients_and_products(
    model: nn.Module, decoder_mask: Tensor | None = None
) -> tuple[Tensor, list[Tensor], int]:
    """The loss, all gradients, and the multiplications of the matrix products of its forward."""
    model.zero_grad()
    with Products() as products:
        loss = loss_of(model, model.config, decoder_mask)  # type: ignore[arg-type]
    loss.backward()  # type: ignore[no-untyped-call]
    gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return loss.detach(), gradients, products.count


@pytest.mark.parametrize("implementation", ["eager", "sdpa", "per_head"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_decoders_last_layer_works_on_predicted_tokens_alone(
    implementation: str, checkpointing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tiny(use_mean_pooling=False, attn_implementation="auto")
    monkeypatch.setattr("videomae.model.attention.best_implementation", lambda *_: implementation)
    model = make("VideoMAEForPreTraining", config).train()
    if checkpointing:
        model.gradient_checkpointing_enable()
    decoded = running_cell_mask(config.grid, 0.5, batch_size=2)
    for decoder_mask, num_tokens in ((None, 8 + 24), (decoded, 8 + 16)):  # visible and predicted
        loss, gradients, products = loss_gradients_and_products(model, decoder_mask)
        hook = model.decoder.decoder_layers[-1].register_forward_hook(lambda *_: None)
        whole = loss_gradients_and_products(model, decoder_mask)
        hook.remove()
        torch.testing.assert_close(loss, whole[0])
        torch.testing.assert_close(gradients, whole[1])
        # Query, output and an MLP of 2 x 2 widths; scores and context, which `sdpa` does not tell.
        attention = 0 if implementation == "sdpa" else 2 * 16 * num_tokens
        assert whole[2] - products == 2 * 8 * (6 * 16 * 16 + attention)  # 8 tokens of two clips


def test_frozen_first_layers_have_no_gradients_and_cost_none() -> None:
    model = make("VideoMAEForVideoClassification", tiny(num_hidden_layers=3)).train()

    def backward_products() -> int:
        loss = loss_of(model, model.config, None)
        with Products() as products:
            loss.backward()  # type: ignore[no-untyped-call]
        return products.count

    all_layers = backward_products()
    model.videomae.embeddings.requires_grad_(False)
    model.videomae.encoder.layer[:2].requires_grad_(False)
    last = backward_products()
    model.videomae.requires_grad_(False)
    head = backward_products()
    # The head's: gradients of its weights (2 clips, 24 features, 5 classes) and nothing below.
    assert head == 2 * 24 * 5 + 2 * 24 * 5  # the norm before it still learns, and needs its own
    # Two whole layers and the embedding cost 2.5 times what the last one costs, and more.
    assert all_layers > 3 * last
