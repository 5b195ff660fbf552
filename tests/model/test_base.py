import copy
import re
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

from tiny_models import LARGER
from videomae.config import VideoMAEConfig
from videomae.errors import ConfigError
from videomae.masking import tube_mask
from videomae.model.base import VideoMAEPreTrainedModel
from videomae.model.modeling import (
    VideoMAEForPreTraining,
    VideoMAEForVideoClassification,
    VideoMAEModel,
)
from videomae.positions import sincos_positions

ATTENTION = "encoder.layer.0.attention.attention"
CLASSES = (VideoMAEModel, VideoMAEForPreTraining, VideoMAEForVideoClassification)
SIZES: dict[str, Any] = {**LARGER, "num_labels": 5}


def small(**fields: Any) -> VideoMAEConfig:
    return VideoMAEConfig(**{**SIZES, **fields})


def inputs_of(model: nn.Module, batch_size: int = 2) -> dict[str, Tensor]:
    inputs = {"pixel_values": torch.randn(batch_size, 4, 3, 32, 32)}
    if isinstance(model, VideoMAEForPreTraining):
        inputs["bool_masked_pos"] = tube_mask(model.config.grid, 0.75, batch_size=batch_size)
    if isinstance(model, VideoMAEForVideoClassification):
        inputs["labels"] = torch.arange(batch_size)
    return inputs


# --- counts and names -----------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", CLASSES)
def test_parameters_are_counted_as_in_transformers(model_class: type[Any]) -> None:
    model = model_class(small())
    theirs = getattr(transformers, model_class.__name__)(transformers.VideoMAEConfig(**SIZES))
    for each in (model, theirs):
        each.base_model.embeddings.requires_grad_(False)
    for arguments in ((), (True,), (False, True), (True, True)):
        assert model.num_parameters(*arguments) == theirs.num_parameters(*arguments)
    frozen = 24 * 3 * 2 * 8 * 8 + 24
    assert model.num_parameters(only_trainable=True) == model.num_parameters() - frozen
    assert model.get_memory_footprint() == theirs.get_memory_footprint()
    assert (model.device, model.dtype) == (torch.device("cpu"), torch.float32)


def test_tables_of_embeddings_can_be_left_out() -> None:
    model = VideoMAEModel(small())
    before = model.num_parameters()
    model.words = nn.Embedding(7, 3)
    assert model.num_parameters() == before + 21
    assert model.num_parameters(exclude_embeddings=True) == before


@pytest.mark.parametrize("model_class", CLASSES)
def test_parts_have_the_names_of_transformers(model_class: type[Any]) -> None:
    model = model_class(small())
    assert model.base_model is getattr(model, "videomae", model)
    assert model.get_encoder() is model.base_model.encoder
    assert model.get_decoder() is getattr(model, "decoder", model)
    patches = model.base_model.embeddings.patch_embeddings
    assert model.get_input_embeddings() is patches
    model.set_input_embeddings(copy.deepcopy(patches))
    assert (
        model.get_input_embeddings() is model.base_model.embeddings.patch_embeddings is not patches
    )
    assert model.get_output_embeddings() is None
    assert not model.can_generate()
    parts = {type(part).__name__ for part in model.modules()}
    assert set(model._no_split_modules) <= parts


def test_tags_are_noted_once() -> None:
    model, other = VideoMAEModel(small()), VideoMAEModel(small())
    model.add_model_tags("video")
    model.add_model_tags(["video", "mine"])
    assert (model.model_tags, other.model_tags) == (["video", "mine"], None)


def test_adapters_are_told_where_they_belong() -> None:
    model = VideoMAEModel(small())
    for put in (model.add_adapter, model.load_adapter, model.set_adapter):
        with pytest.raises(ConfigError, match=re.escape("peft.get_peft_model(model, peft_config)")):
            put("lora")


def test_sizes_are_told_how_to_change() -> None:
    model = VideoMAEModel(small())
    for ask in (model.resize_token_embeddings, model.resize_position_embeddings):
        with pytest.raises(ConfigError, match="no table of tokens to resize; for other frame"):
            ask(7)


def test_made_of_a_config_as_the_auto_classes_do() -> None:
    config = transformers.VideoMAEConfig(**SIZES)
    model = VideoMAEModel._from_config(config, dtype=torch.bfloat16, attn_implementation="eager")
    assert (model.dtype, model.config.attn_implementation) == (torch.bfloat16, "eager")
    assert model.name_or_path == ""
    model.tie_weights()
    assert model.config.get_text_config() is model.config


def test_an_older_config_asks_for_checkpointing_once() -> None:
    config = small(gradient_checkpointing=True)
    model = VideoMAEForPreTraining(config)
    layers = [*model.videomae.encoder.layer, *model.decoder.decoder_layers]
    assert all(layer.gradient_checkpointing for layer in layers)
    assert "gradient_checkpointing" not in model.config.to_dict()


@pytest.mark.parametrize("name", ["embeddings", "embeddings.patch_embeddings", ATTENTION])
def test_parts_have_the_sizes_that_they_have_in_transformers(name: str) -> None:
    ours = VideoMAEModel(small()).get_submodule(name)
    theirs = transformers.VideoMAEModel(transformers.VideoMAEConfig(**SIZES)).get_submodule(name)
    numbers = {key for key, value in vars(theirs).items() if type(value) in (int, tuple)}
    assert numbers
    for key in numbers & vars(ours).keys():
        assert getattr(ours, key) == getattr(theirs, key), key
    assert not numbers - vars(ours).keys() - {"dropout_prob"}


@pytest.mark.skipif(not transformers.__version__.startswith("5.23."), reason="names change")
def test_names_of_transformers_are_there_or_are_said_not_to_be() -> None:
    page = (Path(__file__).parents[2] / "docs" / "compatibility.md").read_text()
    start = page.index("these names have no meaning for VideoMAE and do not exist:")
    listed = page[start : page.index("## Starting from an image MAE")]
    theirs = transformers.VideoMAEConfig(**SIZES)
    pairs: list[tuple[Any, Any]] = [(theirs, small())]
    pairs += [(getattr(transformers, kind.__name__)(theirs), kind(small())) for kind in CLASSES]
    absent = set()
    for their, our in pairs:
        names = {name for name in dir(their) if not name.startswith("_")}
        absent |= {name for name in names if not hasattr(our, name)}
    assert {name for name in absent if f"`{name}`" not in listed} == set()
    others = {"fully_shard", "init_weights", "check"}  # what is named in their place
    assert set(re.findall("`([a-z_]+)`", listed)) - others == absent


# --- memory and gradients -------------------------------------------------------------------------


def gradients_of(model: Any, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    model.zero_grad()
    torch.manual_seed(3)
    model(**inputs).loss.backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("offload", [False, True])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("model_class", CLASSES[1:])
def test_activation_checkpointing_gives_the_same_gradients(
    model_class: type[Any], every: int, reentrant: bool, offload: bool
) -> None:
    model = model_class(small(drop_path_rate=0.3, hidden_dropout_prob=0.2)).train()
    inputs = inputs_of(model)
    runs: list[nn.Module] = []
    layers = [part for name, part in model.named_modules() if re.search(r"layers?\.\d$", name)]
    for layer in layers:
        layer.intermediate.register_forward_pre_hook(lambda part, _: runs.append(part))
    plain = gradients_of(model, inputs)
    assert len(runs) == len(layers)
    model.activation_checkpointing_enable({"use_reentrant": reentrant}, every, offload)
    assert model.is_activation_checkpointing
    runs.clear()
    for key, gradient in gradients_of(model, inputs).items():
        torch.testing.assert_close(gradient, plain[key], msg=key)
    assert len(runs) == len(layers) + len(layers) // every
    model.activation_checkpointing_disable()
    assert not model.is_activation_checkpointing


def test_activation_checkpointing_by_its_older_names() -> None:
    model = VideoMAEModel(small())
    model.gradient_checkpointing_enable(
        gradient_checkpointing_kwargs=None, every_n_layers=2, offload=False
    )
    assert model.is_gradient_checkpointing
    assert [layer.gradient_checkpointing for layer in model.encoder.layer] == [True, False]
    model.gradient_checkpointing_disable()
    assert not model.is_gradient_checkpointing
    with pytest.raises(ConfigError, match="every_n_layers=0 must be at least 1"):
        model.activation_checkpointing_enable(every_n_layers=0)


def test_gradients_reach_the_tokens_of_a_frozen_model_where_asked() -> None:
    model = VideoMAEModel(small()).requires_grad_(False)
    inputs = inputs_of(model)
    assert not model(**inputs)[0].requires_grad
    model.enable_input_require_grads()
    model.enable_input_require_grads()
    assert model(**inputs)[0].requires_grad
    model.disable_input_require_grads()
    assert not model(**inputs)[0].requires_grad


# --- positions ------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_class", CLASSES)
@pytest.mark.parametrize("assign", [False, True])
def test_a_model_made_without_memory_and_filled_answers_as_any(
    model_class: type[Any], assign: bool
) -> None:
    whole = model_class(small()).eval()
    inputs = inputs_of(whole)
    with torch.device("meta"):
        blank = model_class(small()).eval()
    if not assign:
        blank = blank.to_empty(device="cpu")
    blank.load_state_dict(whole.state_dict(), assign=assign)
    emptied = copy.deepcopy(whole).to("meta").to_empty(device="cpu")
    emptied.load_state_dict(whole.state_dict())
    with torch.no_grad():
        expected = whole(**inputs)[-1]
        for filled in (blank, emptied):
            assert torch.equal(filled(**inputs)[-1], expected)


def test_positions_are_not_rounded_by_a_detour() -> None:
    model = VideoMAEForPreTraining(small()).half().float()
    assert torch.equal(model.position_embeddings, sincos_positions(32, 16)[None])
    table = model.videomae.embeddings.position_embeddings
    assert torch.equal(table, sincos_positions(32, 24)[None])


def test_positions_may_be_replaced() -> None:
    model = VideoMAEModel(small())
    inputs = inputs_of(model)
    model.embeddings.position_embeddings = torch.zeros(1, 32, 24)
    bare = model.embeddings.patch_embeddings(inputs["pixel_values"])
    assert torch.equal(model.embeddings(inputs["pixel_values"]), bare)
    model.embeddings.position_embeddings = nn.Parameter(torch.zeros(1, 32, 24))  # to be learnt
    model(**inputs)[0].square().sum().backward()
    assert model.embeddings.position_embeddings.grad.abs().sum() > 0
    assert "embeddings.position_embeddings" in model.state_dict()


# --- the start of classes of one's own ------------------------------------------------------------


class Regressor(VideoMAEPreTrainedModel):
    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.videomae = VideoMAEModel(self.config)
        self.head = nn.Linear(self.config.hidden_size, 300)
        self.scale = Scale()
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, Scale):
            nn.init.constant_(module.factor, 3)


class Scale(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.empty(()))


class WithExtra(VideoMAEForVideoClassification):
    def __init__(self, config: VideoMAEConfig) -> None:
        super().__init__(config)
        self.extra = nn.Linear(self.config.hidden_size, 300)
        self.post_init()


def test_a_class_of_ones_own_starts_what_it_adds() -> None:
    torch.manual_seed(0)
    encoder = VideoMAEModel(small()).state_dict()
    torch.manual_seed(0)
    model = Regressor(small(initializer_range=0.02))
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert not model.head.bias.any()
    assert model.scale.factor == 3
    for key, value in model.videomae.state_dict().items():
        assert torch.equal(value, encoder[key]), "what had started is left alone"


def test_what_a_subclass_adds_starts_beside_what_it_inherits() -> None:
    model = WithExtra(small())
    assert model.extra.weight.std().item() == pytest.approx(0.02, rel=0.05)
    assert model.classifier.weight.std().item() == pytest.approx(0.02, rel=0.3)


@pytest.mark.parametrize("model_class", [WithExtra, Regressor])
@pytest.mark.parametrize("kind", [VideoMAEForVideoClassification, VideoMAEForPreTraining])
def test_what_is_added_starts_fresh_and_is_saved_and_read(
    model_class: type[Any], kind: type[Any], tmp_path: Path
) -> None:
    published = kind(small(use_mean_pooling=kind is VideoMAEForVideoClassification))
    published.save_pretrained(tmp_path / "published")
    with pytest.warns(UserWarning, match="newly initialised, to be trained: .*"):
        model = model_class.from_pretrained(tmp_path / "published")
    added = model.extra if model_class is WithExtra else model.head
    assert added.weight.std().item() == pytest.approx(0.02, rel=0.05)
    if model_class is Regressor:
        assert model.scale.factor == 3
    nn.init.normal_(added.weight)
    model.save_pretrained(tmp_path / "mine")
    again, report = model_class.from_pretrained(tmp_path / "mine", output_loading_info=True)
    assert not report.newly_initialised
    assert not report.unexpected
    for key, value in model.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key


def test_a_model_checks_the_heads_of_its_config_whose_fields_may_be_set_in_turn() -> None:
    config = VideoMAEConfig(hidden_size=64, decoder_hidden_size=32)
    config.decoder_num_attention_heads = 4
    message = r"hidden_size=64 cannot be split over num_attention_heads=12 heads; choose a number"
    with pytest.raises(ConfigError, match=message + " of heads that divides 64"):
        VideoMAEModel(config)
    config.num_attention_heads, config.decoder_num_attention_heads = 4, 5
    with pytest.raises(ConfigError, match=r"decoder_hidden_size=32 cannot .*=5 heads"):
        VideoMAEModel(config)
